/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CHECKED_H
#define FUSEIMG_CHECKED_H

/*
 * Arithmetic on numbers that an image supplied. The checked forms return false, and leave *ret
 * alone, where the result does not fit.
 */

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define TIB(n) ((uint64_t)(n) << 40)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_add_overflow(a, b, &v))
		return false;
	*ret = v;
	return true;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_mul_overflow(a, b, &v))
		return false;
	*ret = v;
	return true;
}

/* True where [off, off + len) lies inside [0, size), without wrapping. */
static inline bool range_inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* unit is a power of two. */
static inline uint64_t round_down(uint64_t v, uint64_t unit)
{
	assert(is_pow2(unit));
	return v & ~(unit - 1);
}

/* unit is a power of two; the caller knows that the result fits (sizes are limited to INT64_MAX).
 */
static inline uint64_t round_up(uint64_t v, uint64_t unit)
{
	assert(v <= UINT64_MAX - (unit - 1));
	return round_down(v + unit - 1, unit);
}

static inline uint64_t div_round_up(uint64_t v, uint64_t unit)
{
	return v / unit + (v % unit != 0);
}

#endif

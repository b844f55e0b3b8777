/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"

enum {
	MODEL_FIRST = 0, /* version: what model_set() was given */
	MODEL_ZEROES,
	MODEL_WRITES, /* ... and all behind */
};

void model_init(struct model *m, uint32_t grain, uint64_t max) NO_THREAD_SAFETY_ANALYSIS
{
	*m = (struct model){.grain = grain, .max = max, .n = max / grain};
	assert(max % grain == 0);
	mutex_init(&m->lock);
	mutex_init(&m->resizing);
	m->first = malloc(max);
	m->grains = calloc(m->n, sizeof(*m->grains));
	assert(m->first && m->grains);
}

void model_done(struct model *m) NO_THREAD_SAFETY_ANALYSIS
{
	free(m->first);
	free(m->grains);
	mutex_done(&m->lock);
	mutex_done(&m->resizing);
}

void model_set(struct model *m, const void *content, uint64_t size)
{
	mutex_lock(&m->lock);
	memcpy(m->first, content, size);
	memset(m->first + size, 0, m->max - size);
	m->size = m->size_next = size;
	m->version = MODEL_WRITES;
	m->clock = 1;
	for (uint64_t i = 0; i < m->n; i++) {
		m->grains[i].n = 1;
		m->grains[i].forgot = 0;
		m->grains[i].changes[0] = (struct model_change){.version = MODEL_FIRST, .end = 1};
	}
	mutex_unlock(&m->lock);
}

static bool model_say(struct model *m, const char *fmt, va_list ap) REQUIRES(m->lock)
{
	if (!m->error[0])
		vsnprintf(m->error, sizeof(m->error), fmt, ap);
	return false;
}

static bool __attribute__((format(printf, 2, 3)))
model_wrong_locked(struct model *m, const char *fmt, ...) REQUIRES(m->lock)
{
	va_list ap;

	va_start(ap, fmt);
	model_say(m, fmt, ap);
	va_end(ap);
	return false;
}

bool model_wrong(struct model *m, const char *fmt, ...)
{
	va_list ap;

	mutex_lock(&m->lock);
	va_start(ap, fmt);
	model_say(m, fmt, ap);
	va_end(ap);
	mutex_unlock(&m->lock);
	return false;
}

/* The byte that a version has at off: every byte of one differs from most of another. */
static uint8_t model_byte(uint32_t version, uint64_t off)
{
	uint64_t x = (off / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) +
		     version * UINT64_C(0xd1342543de82ef95);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 29;
	return (uint8_t)(x >> off % 8 * 8);
}

void model_fill(const struct model_op *op, uint8_t *buf)
{
	for (uint64_t i = 0; i < op->len; i++)
		buf[i] = model_byte(op->version, op->off + i);
}

/* The start of the read that has been under way for longest. */
static uint64_t model_oldest(struct model *m) REQUIRES(m->lock)
{
	uint64_t oldest = m->clock;

	for (unsigned i = 0; i < MODEL_THREADS_MAX; i++)
		if (m->active[i])
			oldest = min_u64(oldest, m->active[i]->start);
	return oldest;
}

static void model_drop(struct model_grain *g, unsigned i)
{
	g->changes[i] = g->changes[--g->n];
}

/* Makes room: what nobody can see any more goes; if that is nothing, the longest dead. */
static void model_prune(struct model *m, struct model_grain *g) REQUIRES(m->lock)
{
	uint64_t oldest = model_oldest(m);
	unsigned first = 0;

	for (unsigned i = g->n; i > 0; i--)
		if (g->changes[i - 1].dead && g->changes[i - 1].dead < oldest)
			model_drop(g, i - 1);
	if (g->n < MODEL_CHANGES_MAX)
		return;
	for (unsigned i = 0; i < g->n; i++)
		if (g->changes[i].dead &&
		    (!g->changes[first].dead || g->changes[i].dead < g->changes[first].dead))
			first = i;
	assert(g->changes[first].dead);
	model_drop(g, first);
	g->forgot = m->clock;
}

static void model_add(struct model *m, const struct model_op *op, uint64_t off, uint64_t len)
	REQUIRES(m->lock)
{
	for (uint64_t i = off / m->grain; i < (off + len) / m->grain; i++) {
		struct model_grain *g = &m->grains[i];

		if (g->n == MODEL_CHANGES_MAX)
			model_prune(m, g);
		g->changes[g->n++] =
			(struct model_change){.version = op->version, .start = op->start};
	}
}

/* A larger disk has new zeroes, a smaller one has none of its last bytes: both are zeroes there. */
static void model_begin_resize(struct model *m, struct model_op *op) REQUIRES(m->lock)
{
	uint64_t size = op->off;

	op->off = min_u64(m->size, size);
	op->len = max_u64(m->size, size) - op->off;
	m->size_next = size;
	for (unsigned i = 0; i < MODEL_THREADS_MAX; i++) {
		if (!m->active[i])
			continue;
		m->active[i]->size_low = min_u64(m->active[i]->size_low, size);
		m->active[i]->size_high = max_u64(m->active[i]->size_high, size);
	}
}

void model_begin(struct model *m, unsigned thread, struct model_op *op, enum model_kind kind,
		 uint64_t off, uint64_t len) NO_THREAD_SAFETY_ANALYSIS
{
	*op = (struct model_op){.kind = kind, .off = off, .len = len, .version = MODEL_ZEROES};
	if (kind == MODEL_RESIZE)
		mutex_lock(&m->resizing);
	mutex_lock(&m->lock);
	op->start = ++m->clock;
	op->size_low = min_u64(m->size, m->size_next);
	op->size_high = max_u64(m->size, m->size_next);
	if (kind == MODEL_RESIZE)
		model_begin_resize(m, op);
	if (kind == MODEL_WRITE)
		op->version = ++m->version;
	if (kind != MODEL_READ && kind != MODEL_KEEP)
		model_add(m, op, op->off, op->len);
	assert(!m->active[thread]);
	m->active[thread] = op;
	mutex_unlock(&m->lock);
}

static void model_close_grain(struct model *m, struct model_grain *g, const struct model_op *op,
			      bool done) REQUIRES(m->lock)
{
	for (unsigned i = g->n; i > 0; i--) {
		struct model_change *c = &g->changes[i - 1];

		if (c->version == op->version && c->start == op->start) {
			c->end = m->clock;
			if (!done && op->kind == MODEL_WRITE)
				model_drop(g, i - 1);
		} else if (done && c->end && !c->dead && c->end < op->start) {
			c->dead = m->clock;
		}
	}
}

static bool model_judge(struct model *m, const struct model_op *op, int result) REQUIRES(m->lock)
{
	uint64_t need = op->kind == MODEL_RESIZE ? 0 : op->off + op->len;

	if (result == 0 ? need <= op->size_high : (result == -EINVAL && need > op->size_low))
		return true;
	return model_wrong_locked(
		m, "%d for kind %d of %llu bytes at %llu, on a disk of %llu to %llu", result,
		op->kind, (unsigned long long)op->len, (unsigned long long)op->off,
		(unsigned long long)op->size_low, (unsigned long long)op->size_high);
}

static bool model_end_locked(struct model *m, unsigned thread, struct model_op *op, int result)
	REQUIRES(m->lock)
{
	m->clock++;
	m->active[thread] = NULL;
	if (op->kind == MODEL_RESIZE) {
		if (result == 0)
			m->size = m->size_next;
		m->size_next = m->size;
	}
	if (op->kind != MODEL_READ && op->kind != MODEL_KEEP)
		for (uint64_t i = op->off / m->grain; i < (op->off + op->len) / m->grain; i++)
			model_close_grain(m, &m->grains[i], op, result == 0);
	return model_judge(m, op, result);
}

bool model_end(struct model *m, unsigned thread, struct model_op *op,
	       int result) NO_THREAD_SAFETY_ANALYSIS
{
	bool good;

	mutex_lock(&m->lock);
	good = model_end_locked(m, thread, op, result);
	mutex_unlock(&m->lock);
	if (op->kind == MODEL_RESIZE)
		mutex_unlock(&m->resizing);
	return good;
}

static uint8_t model_shown(struct model *m, uint32_t version, uint64_t off)
{
	if (version == MODEL_ZEROES)
		return 0;
	return version == MODEL_FIRST ? m->first[off] : model_byte(version, off);
}

static bool model_may_show(const struct model_change *c, const struct model_op *op)
{
	return !c->dead || c->dead >= op->start;
}

static bool model_byte_known(struct model *m, struct model_grain *g, const struct model_op *op,
			     uint8_t byte, uint64_t off) REQUIRES(m->lock)
{
	for (unsigned i = g->n; i > 0; i--)
		if (model_may_show(&g->changes[i - 1], op) &&
		    model_shown(m, g->changes[i - 1].version, off) == byte)
			return true;
	return g->forgot >= op->start;
}

/* All of a grain from one version, which is the rule. bytes NULL: zeroes. */
static bool model_grain_shows(struct model *m, uint32_t version, const uint8_t *bytes, uint64_t off)
{
	if (bytes && version == MODEL_FIRST)
		return memcmp(bytes, m->first + off, m->grain) == 0;
	for (uint64_t i = 0; i < m->grain; i++)
		if (model_shown(m, version, off + i) != (bytes ? bytes[i] : 0))
			return false;
	return true;
}

static bool model_judge_grain(struct model *m, const struct model_op *op, const uint8_t *bytes,
			      uint64_t off) REQUIRES(m->lock)
{
	struct model_grain *g = &m->grains[off / m->grain];
	const struct model_change *newest = &g->changes[g->n - 1];

	for (unsigned i = g->n; i > 0; i--)
		if (model_may_show(&g->changes[i - 1], op) &&
		    model_grain_shows(m, g->changes[i - 1].version, bytes, off))
			return true;
	for (uint64_t i = 0; i < m->grain; i++)
		if (!model_byte_known(m, g, op, bytes ? bytes[i] : 0, off + i))
			return model_wrong_locked(
				m,
				"byte %llu %s %#x, not %#x as in version %u (of %u), in a read of "
				"%llu bytes at %llu",
				(unsigned long long)(off + i), bytes ? "is" : "is said to be",
				bytes ? bytes[i] : 0, model_shown(m, newest->version, off + i),
				newest->version, g->n, (unsigned long long)op->len,
				(unsigned long long)op->off);
	return true;
}

static bool model_judge_bytes(struct model *m, const struct model_op *op, const uint8_t *bytes)
	REQUIRES(m->lock)
{
	for (uint64_t i = 0; i < op->len; i += m->grain)
		if (!model_judge_grain(m, op, bytes ? bytes + i : NULL, op->off + i))
			return false;
	return true;
}

bool model_end_read(struct model *m, unsigned thread, struct model_op *op, int result,
		    const uint8_t *bytes)
{
	bool good;

	mutex_lock(&m->lock);
	good = result < 0 || model_judge_bytes(m, op, bytes);
	good = model_end_locked(m, thread, op, result) && good;
	mutex_unlock(&m->lock);
	return good;
}

bool model_end_zero(struct model *m, unsigned thread, struct model_op *op)
{
	return model_end_read(m, thread, op, 0, NULL);
}

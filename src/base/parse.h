/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PARSE_H
#define FUSEIMG_PARSE_H

/* Words that people write in configuration files and on command lines. 0 or -EINVAL (-ERANGE). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* yes/no, true/false, on/off, 1/0, in any case. */
int parse_bool(const char *s, bool *ret);

/* Decimal, or hexadecimal behind 0x; the whole string; at most max. */
int parse_u64(const char *s, uint64_t max, uint64_t *ret);

/* parse_u64() with an optional suffix K, M, G, T, P (powers of 1024). */
int parse_size(const char *s, uint64_t *ret);

/* A span of time as systemd.time(7) writes it, "90", "1min 30s", "infinity" (which gives 0), in
 * microseconds: a number alone is seconds; whole numbers only. */
int parse_span(const char *s, uint64_t *ret);

/* Octal permission bits, at most 07777. */
int parse_mode(const char *s, unsigned *ret);

/* "1.5 GiB": at most one decimal, the largest unit that keeps the number at 1 or more. */
const char *format_size(char *dst, size_t dst_size, uint64_t bytes);

/* Index of the word in a NULL-terminated list that is nearest to s (for "did you mean"), or -1 when
 * none is near. */
int parse_suggest(const char *s, const char *const *words);

#endif

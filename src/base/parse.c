/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"

int parse_bool(const char *s, bool *ret)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {
		{"yes", true}, {"no", false},  {"true", true}, {"false", false},
		{"on", true},  {"off", false}, {"1", true},    {"0", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(s, words[i].word) == 0) {
			*ret = words[i].value;
			return 0;
		}
	return -EINVAL;
}

/* Digits at s, the rest of the string in *ret_end. */
static int parse_digits(const char *s, int base, uint64_t *ret, const char **ret_end)
{
	char *end;
	unsigned long long v;

	/* strtoull() would take blanks and a sign */
	if (!(*s >= '0' && *s <= '9'))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, base);
	if (errno)
		return -errno;
	*ret = v;
	*ret_end = end;
	return 0;
}

static int parse_number(const char *s, uint64_t *ret, const char **ret_end)
{
	bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');

	return parse_digits(s, hex ? 16 : 10, ret, ret_end);
}

int parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
	const char *end = s;
	uint64_t v = 0;
	int r = parse_number(s, &v, &end);

	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_size(const char *s, uint64_t *ret)
{
	static const char units[] = "KMGTP";
	const char *end = s, *unit;
	uint64_t v = 0;
	int r = parse_number(s, &v, &end);

	if (r < 0)
		return r;
	if (*end) {
		unit = strchr(units, *end >= 'a' && *end <= 'z' ? *end - 'a' + 'A' : *end);
		if (!unit || end[1])
			return -EINVAL;
		if (!checked_mul(v, UINT64_C(1) << (10 * (unit - units + 1)), &v))
			return -ERANGE;
	}
	*ret = v;
	return 0;
}

/* Microseconds of the unit at s, which is followed by a blank, a digit or the end; 0: unknown. */
static uint64_t parse_span_unit(const char *s, size_t *ret_len)
{
	static const struct {
		const char *name;
		uint64_t us;
	} units[] = {
		{"us", 1},
		{"usec", 1},
		{"ms", 1000},
		{"msec", 1000},
		{"", 1000000},
		{"s", 1000000},
		{"sec", 1000000},
		{"second", 1000000},
		{"seconds", 1000000},
		{"m", UINT64_C(60) * 1000000},
		{"min", UINT64_C(60) * 1000000},
		{"minute", UINT64_C(60) * 1000000},
		{"minutes", UINT64_C(60) * 1000000},
		{"h", UINT64_C(3600) * 1000000},
		{"hr", UINT64_C(3600) * 1000000},
		{"hour", UINT64_C(3600) * 1000000},
		{"hours", UINT64_C(3600) * 1000000},
		{"d", UINT64_C(86400) * 1000000},
		{"day", UINT64_C(86400) * 1000000},
		{"days", UINT64_C(86400) * 1000000},
		{"w", UINT64_C(604800) * 1000000},
		{"week", UINT64_C(604800) * 1000000},
		{"weeks", UINT64_C(604800) * 1000000},
	};
	size_t len = strcspn(s, " \t0123456789");

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strlen(units[i].name) == len && strncmp(units[i].name, s, len) == 0) {
			*ret_len = len;
			return units[i].us;
		}
	return 0;
}

int parse_span(const char *s, uint64_t *ret)
{
	uint64_t sum = 0;

	if (strcmp(s, "infinity") == 0) {
		*ret = 0;
		return 0;
	}
	do {
		uint64_t n = 0, us;
		size_t len = 0;
		int r = parse_digits(s, 10, &n, &s);

		if (r < 0)
			return r;
		s += strspn(s, " \t");
		us = parse_span_unit(s, &len);
		if (us == 0)
			return -EINVAL;
		s += len;
		s += strspn(s, " \t");
		if (!checked_mul(n, us, &us) || !checked_add(sum, us, &sum))
			return -ERANGE;
	} while (*s);
	*ret = sum;
	return 0;
}

int parse_mode(const char *s, unsigned *ret)
{
	const char *end = s;
	uint64_t v = 0;
	int r = parse_digits(s, 8, &v, &end);

	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	if (v > 07777)
		return -ERANGE;
	*ret = (unsigned)v;
	return 0;
}

const char *format_size(char *dst, size_t dst_size, uint64_t bytes)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned u = 0;
	uint64_t unit = 1024;

	if (bytes < 1024) {
		snprintf(dst, dst_size, "%llu byte%s", (unsigned long long)bytes,
			 bytes == 1 ? "" : "s");
		return dst;
	}
	while (u + 1 < ARRAY_SIZE(units) && bytes / unit >= 1024) {
		unit *= 1024;
		u++;
	}
	if (bytes % unit == 0)
		snprintf(dst, dst_size, "%llu %s", (unsigned long long)(bytes / unit), units[u]);
	else
		snprintf(dst, dst_size, "%.1f %s", (double)bytes / (double)unit, units[u]);
	return dst;
}

/* Levenshtein distance, words of at most 63 characters. */
static unsigned parse_distance(const char *a, const char *b)
{
	unsigned row[64];
	size_t n = strlen(b);

	if (n >= ARRAY_SIZE(row))
		return (unsigned)n;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			unsigned best = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = change < best ? change : best;
		}
	}
	return row[n];
}

int parse_suggest(const char *s, const char *const *words)
{
	unsigned best = 4; /* further away is another word, not a slip */
	int ret = -1;

	for (int i = 0; words[i]; i++) {
		unsigned d = parse_distance(s, words[i]);

		if (d < best && d < strlen(words[i])) {
			best = d;
			ret = i;
		}
	}
	return ret;
}

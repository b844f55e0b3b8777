/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/unit-name.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char unit_name_root[] = "-";

static bool unit_name_is_plain(const char *name, const char *p)
{
	if (*p == '.' && p == name)
		return false;
	return isascii(*p) && (isalnum((unsigned char)*p) || strchr(":_.", *p));
}

size_t unit_name_escape(const char *name, char *dst, size_t size)
{
	size_t n = 0;

	for (const char *p = name; *p; p++) {
		char one[sizeof("\\xNN")] = {*p == '/' ? '-' : *p};
		size_t len;

		if (*p != '/' && !unit_name_is_plain(name, p))
			snprintf(one, sizeof(one), "\\x%02x", (unsigned char)*p);
		len = strlen(one);
		if (n + len < size)
			memcpy(dst + n, one, len + 1);
		else
			size = 0; /* a shorter one behind it must not go in */
		n += len;
	}
	if (!*name && size)
		*dst = '\0';
	return n;
}

int unit_name_from_path(const char *path, const char *suffix, char dst[UNIT_NAME_SIZE])
{
	char plain[UNIT_NAME_SIZE], escaped[UNIT_NAME_SIZE];
	size_t n = 0;

	/* No "/" at its ends, and no two side by side */
	for (const char *p = path; *p; p++) {
		if (*p == '/' && (n == 0 || p[1] == '/' || !p[1]))
			continue;
		if (n + 1 == sizeof(plain))
			return -ENAMETOOLONG;
		plain[n++] = *p;
	}
	plain[n] = '\0';
	if (unit_name_escape(plain, escaped, sizeof(escaped)) >= sizeof(escaped))
		return -ENAMETOOLONG;
	if (snprintf(dst, UNIT_NAME_SIZE, "%s%s", n ? escaped : unit_name_root, suffix) >=
	    UNIT_NAME_SIZE)
		return -ENAMETOOLONG;
	return 0;
}

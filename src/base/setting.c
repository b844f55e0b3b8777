/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/setting.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const char *setting_name(struct setting *s, const char *file, const char *key, const char *value)
{
	if (!file && strcmp(key, "read_only") == 0 && strcmp(value, "yes") == 0) {
		snprintf(s->text, sizeof(s->text), "-o ro"); /* as for every file system */
		return s->text;
	}
	snprintf(s->text, sizeof(s->text), "%s%s=%s", file ? "" : "-o ", key, value);
	for (char *p = s->text; file && *p && *p != '='; p++)
		*p = (char)toupper((unsigned char)*p);
	return s->text;
}

const char *setting_place(struct setting *s, const char *file, const char *key, const char *value)
{
	size_t n;

	setting_name(s, file, key, value);
	n = strlen(s->text);
	if (file)
		snprintf(s->text + n, sizeof(s->text) - n, " in %s", file);
	return s->text;
}

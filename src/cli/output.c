/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/parse.h"
#include "base/utf8.h"

bool output_is_terminal(void)
{
	return isatty(STDOUT_FILENO) == 1;
}

int output_finish(struct diag *diag)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return diag_errno(diag, errno ? -errno : -EIO, "Cannot write the result");
}

/* name as diag_quote() shows it; the caller frees. */
static char *output_quote(const char *name)
{
	size_t len = strlen(name), size = 4 * len + 1;
	char *text = malloc(size);

	if (!text)
		abort();
	diag_quote(text, size, name, len);
	return text;
}

void output_name(const char *name)
{
	_cleanup_free_ char *text = output_quote(name);

	fputs(text, stdout);
}

void output_label(const char *key)
{
	char text[32];

	snprintf(text, sizeof(text), "%s:", key);
	for (char *p = text; *p; p++)
		if (*p == '_' || *p == '-')
			*p = ' ';
	printf("  %-18s ", text);
}

void output_size(uint64_t bytes)
{
	char text[32];

	format_size(text, sizeof(text), bytes);
	if (bytes < 1024)
		fputs(text, stdout);
	else
		printf("%s (%llu bytes)", text, (unsigned long long)bytes);
}

struct json_object *output_json_string(const char *s)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, n;
	char *w;

	if (!s)
		return NULL;
	w = text = malloc(4 * strlen(s) + 1);
	if (!text)
		abort();
	for (const char *p = s; *p; p += n ? n : 1) {
		n = utf8_len(p);
		if (n)
			w = mempcpy(w, p, n);
		else
			w += sprintf(w, "\\x%02x", (unsigned char)*p);
	}
	len = (size_t)(w - text);
	return json_object_new_string_len(text, (int)len);
}

void output_json_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (!object || json_object_object_add(object, key, value) < 0)
		abort();
}

void output_json(struct json_object *object, bool pretty)
{
	int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
		    (pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
			    : JSON_C_TO_STRING_SPACED);
	const char *text = json_object_to_json_string_ext(object, flags);

	if (!text)
		abort();
	puts(text);
}

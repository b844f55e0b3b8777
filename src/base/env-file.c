/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/env-file.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"

/* Source of the rules, beyond the manual: what systemd 252 and 257 do (tests compare with the
 * former where it is installed). A carriage return ends a line, as a newline does. */

struct env_file {
	const char *name;
	const char *p; /* the text ends with a NUL */
	unsigned line;
	char *buf; /* key and value of now: never longer than the text */
	size_t n;
	struct diag *diag;
};

static bool env_file_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool env_file_ends_line(char c)
{
	return c == '\n' || c == '\r' || c == '\0';
}

/* Takes one character. */
static char env_file_next(struct env_file *f)
{
	if (*f->p == '\n')
		f->line++;
	return *f->p++;
}

static void env_file_add(struct env_file *f, char c)
{
	f->buf[f->n++] = c;
}

static void env_file_skip_blanks(struct env_file *f)
{
	while (env_file_is_blank(*f->p))
		f->p++;
}

static int env_file_error(struct env_file *f, unsigned line, const char *what)
{
	return diag_set(f->diag, -EINVAL, "%s:%u: %s", f->name, line, what);
}

/* To the end of the line. *ret_open: a backslash precedes that. */
static void env_file_skip_comment(struct env_file *f, bool *ret_open)
{
	bool open = false;

	while (!env_file_ends_line(*f->p)) {
		open = *f->p == '\\' && !open;
		f->p++;
	}
	*ret_open = open && *f->p;
}

/* What stands outside of quotes reaches to the end of the line. */
static void env_file_read_bare(struct env_file *f)
{
	size_t end = f->n; /* blanks behind this do not count */

	while (!env_file_ends_line(*f->p)) {
		char c = env_file_next(f);

		if (c == '\\') {
			if (*f->p && !env_file_ends_line(*f->p))
				env_file_add(f, env_file_next(f));
			else if (*f->p)
				env_file_next(f);
			end = f->n;
			continue;
		}
		env_file_add(f, c);
		if (!env_file_is_blank(c))
			end = f->n;
	}
	f->n = end;
}

/* A backslash in double quotes was taken. */
static void env_file_read_escape(struct env_file *f)
{
	if (*f->p && strchr("\"\\`$", *f->p)) {
		env_file_add(f, env_file_next(f));
	} else if (*f->p == '\n') {
		env_file_next(f);
	} else if (*f->p) {
		env_file_add(f, '\\');
		env_file_add(f, env_file_next(f));
	}
}

static int env_file_read_quoted(struct env_file *f, char quote)
{
	unsigned line = f->line;

	while (*f->p && *f->p != quote) {
		char c = env_file_next(f);

		if (c == '\\' && quote == '"')
			env_file_read_escape(f);
		else
			env_file_add(f, c);
	}
	if (!*f->p)
		return env_file_error(f, line, "a quote is opened here and never closed");
	f->p++;
	return 0;
}

/* Quoted pieces, then perhaps one that is not. */
static int env_file_read_value(struct env_file *f)
{
	int r = 0;

	for (;;) {
		env_file_skip_blanks(f);
		if (env_file_ends_line(*f->p))
			return 0;
		if (*f->p != '"' && *f->p != '\'')
			break;
		r = env_file_read_quoted(f, env_file_next(f));
		if (r < 0)
			return r;
	}
	env_file_read_bare(f);
	return 0;
}

static int env_file_read_key(struct env_file *f)
{
	size_t end = 0;

	while (*f->p != '=') {
		if (env_file_ends_line(*f->p))
			return env_file_error(f, f->line,
					      "there is no \"=\" in this line; what is allowed are "
					      "KEY=value and comments behind \"#\"");
		env_file_add(f, *f->p);
		if (!env_file_is_blank(*f->p++))
			end = f->n;
	}
	f->p++;
	f->n = end;
	return 0;
}

static int env_file_read_pair(struct env_file *f, env_file_fn fn, void *data)
{
	struct env_file_pair pair = {.key = f->buf, .line = f->line};
	int r;

	f->n = 0;
	r = env_file_read_key(f);
	if (r < 0)
		return r;
	env_file_add(f, '\0');
	pair.value = f->buf + f->n;
	r = env_file_read_value(f);
	if (r < 0)
		return r;
	env_file_add(f, '\0');
	if (!utf8_is_valid(pair.key) || !utf8_is_valid(pair.value))
		return env_file_error(f, pair.line, "this is not valid UTF-8");
	return fn(data, &pair, f->diag);
}

static int env_file_read(struct env_file *f, env_file_fn fn, void *data)
{
	bool open = false; /* the last line was a comment with a backslash at its end */
	int r = 0;

	while (r >= 0 && *f->p) {
		char c = *f->p;

		if (env_file_ends_line(c)) {
			env_file_next(f);
			open = false;
		} else if (env_file_is_blank(c)) {
			f->p++;
		} else if (c == '#' || c == ';') {
			env_file_skip_comment(f, &open);
			if (open)
				env_file_next(f);
		} else if (open) {
			r = env_file_error(f, f->line,
					   "the comment above ends with a backslash, so that some "
					   "versions of systemd take this line for a part of it; "
					   "remove the backslash");
		} else {
			r = env_file_read_pair(f, fn, data);
		}
	}
	return r < 0 ? r : 0;
}

int env_file_parse(const char *name, const char *text, size_t len, env_file_fn f, void *data,
		   struct diag *diag)
{
	/* A pair is a copy of a part of the text; its "=" and the end of its line make room for two
	 * NULs, where the text ends without a newline its own NUL does */
	_cleanup_free_ char *buf = malloc(len + 2);
	struct env_file file = {.name = name, .p = text, .line = 1, .buf = buf, .diag = diag};

	assert(text[len] == '\0');
	if (!buf)
		return diag_errno(diag, -ENOMEM, "%s", name);
	if (strlen(text) != len)
		return diag_set(diag, -EINVAL, "%s: is not a text: there is a NUL in it", name);
	return env_file_read(&file, f, data);
}

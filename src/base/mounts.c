/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"

/* The kernel writes space, tab, newline and backslash as \ooo. In place. */
static void mounts_unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

static int mounts_dup(const char *word, char **ret)
{
	char *copy = strdup(word);

	if (!copy)
		return -ENOMEM;
	mounts_unescape(copy);
	*ret = copy;
	return 0;
}

/* "ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG...] - TYPE SOURCE SUPER", see proc(5). */
static int mounts_parse_line(char *line, struct mounts_entry *ret)
{
	char *words = strstr(line, " - "), *save = NULL, *point = NULL, *options, *type, *source;
	unsigned major, minor;
	int r;

	if (!words || sscanf(line, "%*u %*u %u:%u", &major, &minor) != 2)
		return -EBADMSG;
	*words = '\0';
	words += 3;
	point = strtok_r(line, " ", &save);
	for (int i = 0; point && i < 4; i++)
		point = strtok_r(NULL, " ", &save);
	options = point ? strtok_r(NULL, " ", &save) : NULL;
	type = strtok_r(words, " ", &save);
	/* The source may be the empty string: then two spaces stand side by side */
	source = type && *save != ' ' ? strtok_r(NULL, " ", &save) : NULL;
	if (!point || !type)
		return -EBADMSG;
	ret->dev = makedev(major, minor);
	ret->read_only = options && (strcmp(options, "ro") == 0 || strncmp(options, "ro,", 3) == 0);
	r = mounts_dup(point, &ret->point);
	if (r >= 0)
		r = mounts_dup(type, &ret->type);
	if (r >= 0)
		r = mounts_dup(source ?: "", &ret->source);
	return r;
}

int mounts_parse(char *text, struct mounts *ret)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	size_t lines = 1;
	char *save = NULL;

	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	m.entries = calloc(lines, sizeof(*m.entries));
	if (!m.entries)
		return -ENOMEM;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		int r = mounts_parse_line(l, &m.entries[m.n++]);

		if (r < 0)
			return r;
	}
	*ret = m;
	m = (struct mounts){0};
	return 0;
}

int mounts_read(struct mounts *ret)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	ssize_t len;

	if (!f)
		return -errno;
	/* The table holds no NUL: this reads all of it, however long it is */
	len = getdelim(&text, &size, '\0', f);
	if (len < 0)
		return ferror(f) ? -EIO : -ENODATA;
	return mounts_parse(text, ret);
}

void mounts_done(struct mounts *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->entries[i].point);
		free(m->entries[i].type);
		free(m->entries[i].source);
	}
	free(m->entries);
	*m = (struct mounts){0};
}

const struct mounts_entry *mounts_at(const struct mounts *m, const char *point)
{
	for (size_t i = m->n; i > 0; i--)
		if (strcmp(m->entries[i - 1].point, point) == 0)
			return &m->entries[i - 1];
	return NULL;
}

const struct mounts_entry *mounts_of(const struct mounts *m, dev_t dev, const char *source)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct mounts_entry *e = &m->entries[i];

		if (e->dev == dev && strcmp(e->type, MOUNTS_OURS) == 0 &&
		    strcmp(e->source, source) == 0)
			return e;
	}
	return NULL;
}

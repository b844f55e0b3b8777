/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/selector.h"

/* Keys of fuseimg.conf(5). "discard" alone is the file system's, as are those that are not here. */
static const struct {
	const char *name;
	bool needs_value;
} options_image[] = {
	{"format", true},     {"snapshot", true},    {"backing", true},	  {"discard", true},
	{"direct_io", false}, {"lock", true},	     {"lock_wait", true}, {"cache", true},
	{"threads", true},    {"table_cache", true},
};

/* For mount(8), fstab's other readers, or nobody. What they mean has happened already. */
static const char *const options_dropped[] = {
	"defaults", "auto",    "noauto", "nofail",  "_netdev", "user",	  "nouser",
	"users",    "nousers", "owner",	 "noowner", "group",   "nogroup", "loop",
};

struct options_parser {
	struct options o;
	FILE *settings, *words, *inner;
	char *settings_text, *words_text, *inner_text;
	size_t settings_size, words_size, inner_size;
};

void options_put_setting(FILE *f, const char *key, const char *value)
{
	for (const char *p = key; *p; p++)
		putc(toupper((unsigned char)*p), f);
	fputs("=\"", f);
	for (const char *p = value; *p; p++) {
		if (strchr("\"\\`$", *p))
			putc('\\', f);
		putc(*p, f);
	}
	fputs("\"\n", f);
}

/* ",key=value", as config_parse_options() reads it. */
static void options_put_word(FILE *f, const char *key, const char *value)
{
	fprintf(f, ",%s=", key);
	for (const char *p = value; *p; p++) {
		if (*p == ',' || *p == '\\')
			putc('\\', f);
		putc(*p, f);
	}
}

static bool options_is_image(const char *name, const char *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(options_image); i++)
		if (strcmp(options_image[i].name, name) == 0)
			return value || !options_image[i].needs_value;
	return false;
}

static bool options_is_dropped(const char *name, const char *value)
{
	if (strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0 ||
	    strcmp(name, "comment") == 0)
		return true;
	for (size_t i = 0; !value && i < ARRAY_SIZE(options_dropped); i++)
		if (strcmp(options_dropped[i], name) == 0)
			return true;
	return false;
}

static int options_set_string(char **field, const char *name, const char *value, struct diag *diag)
{
	if (!value || !*value)
		return diag_set(diag, -EINVAL, "%s= needs a value", name);
	free(*field);
	*field = strdup(value);
	return *field ? 0 : diag_errno(diag, -ENOMEM, "%s", name);
}

/* A number is a file of the export; anything else is for the export to find, which then has a link
 * to it. */
static int options_set_part(struct options_parser *p, const char *value, struct diag *diag)
{
	struct selector selector;
	char name[32];
	int r;

	if (!value || selector_parse(value, &selector) < 0)
		return diag_set(diag, -EINVAL, "part=%s: must be " SELECTOR_VALUES, value ?: "");
	r = config_set(&p->o.config, "partition", value, diag);
	if (r < 0)
		return r;
	if (selector.kind == SELECTOR_NUMBER) {
		snprintf(name, sizeof(name), "part%u", selector.number);
		return options_set_string(&p->o.part, "part", name, diag);
	}
	options_put_setting(p->settings, "partition", value);
	options_put_word(p->words, "partition", value);
	return options_set_string(&p->o.part, "part", "partition", diag);
}

static int options_add(struct options_parser *p, const char *name, const char *value,
		       struct diag *diag)
{
	int r;

	if (strcmp(name, "part") == 0 || strcmp(name, "partition") == 0)
		return options_set_part(p, value, diag);
	if (strcmp(name, "fstype") == 0)
		return options_set_string(&p->o.fstype, name, value, diag);
	if (!value && (strcmp(name, "ro") == 0 || strcmp(name, "rw") == 0)) {
		p->o.config.read_only = name[1] == 'o';
		return 0;
	}
	if (!value && strcmp(name, "remount") == 0) {
		p->o.remount = true;
		return 0;
	}
	if (options_is_image(name, value)) {
		r = config_set(&p->o.config, name, value, diag);
		if (r == 0) {
			options_put_setting(p->settings, name, value ?: "yes");
			options_put_word(p->words, name, value ?: "yes");
		}
		return r;
	}
	if (*name && !options_is_dropped(name, value))
		fprintf(p->inner, ",%s%s%s", name, value ? "=" : "", value ?: "");
	return 0;
}

/* Where the option at s ends: a comma outside of quotes (context="a,b"). */
static size_t options_length(const char *s)
{
	bool quoted = false;
	size_t n = 0;

	for (; s[n] && (quoted || s[n] != ','); n++)
		if (s[n] == '"')
			quoted = !quoted;
	return n;
}

static int options_parse_all(struct options_parser *p, const char *text, struct diag *diag)
{
	int r = 0;

	while (r == 0 && *text) {
		size_t n = options_length(text);
		_cleanup_free_ char *one = strndup(text, n);
		char *value = one ? strchr(one, '=') : NULL;

		if (!one)
			return diag_errno(diag, -ENOMEM, "options");
		if (value)
			*value++ = '\0';
		r = options_add(p, one, value, diag);
		text += n + (text[n] == ',');
	}
	if (r == 0 && p->o.config.snapshot && !p->o.config.read_only)
		return diag_set(diag, -EINVAL, "snapshot=%s can only be read: it needs ro",
				p->o.config.snapshot);
	return r;
}

/* Ends a stream that asprintf() cannot: who reads or writes is only known now. */
static int options_join(const struct options_parser *p, FILE *f, char **text, char **ret)
{
	int r = f && fclose(f) == 0 ? 0 : -ENOMEM;

	if (r == 0 && asprintf(ret, "%s%s", p->o.config.read_only ? "ro" : "rw", *text) < 0)
		r = -ENOMEM;
	free(*text);
	return r;
}

static int options_finish(struct options_parser *p)
{
	int r = p->settings && fclose(p->settings) == 0 ? 0 : -ENOMEM;
	int words = options_join(p, p->words, &p->words_text, &p->o.words);
	int inner = options_join(p, p->inner, &p->inner_text, &p->o.inner);

	p->o.settings = p->settings_text;
	return r < 0 ? r : words < 0 ? words : inner;
}

int options_parse(const char *text, struct options *ret, struct diag *diag)
{
	struct options_parser p = {
		.o.fstype = strdup("auto"),
	};
	int r = config_init(&p.o.config), finished;

	p.settings = open_memstream(&p.settings_text, &p.settings_size);
	p.words = open_memstream(&p.words_text, &p.words_size);
	p.inner = open_memstream(&p.inner_text, &p.inner_size);
	if (r < 0 || !p.o.fstype || !p.settings || !p.words || !p.inner)
		r = diag_errno(diag, -ENOMEM, "options");
	else
		r = options_parse_all(&p, text ?: "", diag);
	finished = options_finish(&p);
	if (r == 0 && finished < 0)
		r = diag_errno(diag, finished, "options");
	if (r < 0) {
		options_done(&p.o);
		return r;
	}
	*ret = p.o;
	return 0;
}

void options_done(struct options *o)
{
	config_done(&o->config);
	free(o->settings);
	free(o->words);
	free(o->inner);
	free(o->fstype);
	free(o->part);
	memset(o, 0, sizeof(*o));
}

bool options_about_image(const struct options *o)
{
	return *o->settings;
}

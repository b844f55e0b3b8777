/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/parse.h"

static int take_help(struct command *c, const char *value, struct diag *diag)
{
	c->help = true;
	return 0;
}

static const struct command_option option_help = {
	.name = "help", .letter = 'h', .help = "Show this text", .take = take_help};

int command_init(struct command *c)
{
	*c = (struct command){.timeout_ms = -1};
	return config_init(&c->config);
}

void command_done(struct command *c)
{
	config_done(&c->config);
}

/* ", did you mean X?" or nothing, for words that are not known. */
static const char *command_suggestion(char *dst, size_t size, const char *s, const char *prefix,
				      const char *const *known)
{
	int i = parse_suggest(s, known);

	if (i >= 0)
		snprintf(dst, size, "; did you mean %s%s?", prefix, known[i]);
	else
		*dst = '\0';
	return dst;
}

const struct verb *command_find_verb(const char *name, struct diag *diag)
{
	const char *names[16] = {};
	char suggestion[64];

	for (size_t i = 0; verbs[i].name; i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
		assert(i + 1 < ARRAY_SIZE(names));
		names[i] = verbs[i].name;
	}
	diag_set(diag, -EINVAL, "There is no command \"%s\"%s", name,
		 command_suggestion(suggestion, sizeof(suggestion), name, "", names));
	return NULL;
}

/* The verb's options, then --help; NULL behind the last. */
static const struct command_option *command_option_at(const struct verb *v, size_t i)
{
	size_t n = 0;

	while (n < COMMAND_OPTIONS_MAX && v->options[n])
		n++;
	return i < n ? v->options[i] : i == n ? &option_help : NULL;
}

static const struct command_option *command_option_by_name(const struct verb *v, const char *name,
							   size_t len)
{
	const struct command_option *o;

	for (size_t i = 0; (o = command_option_at(v, i)); i++)
		if (strncmp(o->name, name, len) == 0 && o->name[len] == '\0')
			return o;
	return NULL;
}

static const struct command_option *command_option_by_letter(const struct verb *v, char letter)
{
	const struct command_option *o;

	for (size_t i = 0; (o = command_option_at(v, i)); i++)
		if (o->letter && o->letter == letter)
			return o;
	return NULL;
}

static int command_unknown_option(const struct verb *v, const char *arg, struct diag *diag)
{
	const char *names[COMMAND_OPTIONS_MAX + 2] = {};
	const struct command_option *o;
	char suggestion[64] = "";

	for (size_t i = 0; (o = command_option_at(v, i)); i++)
		names[i] = o->name;
	if (arg[1] == '-')
		command_suggestion(suggestion, sizeof(suggestion), arg + 2, "--", names);
	return diag_set(diag, -EINVAL, "\"%s\" has no option %s%s", v->name, arg, suggestion);
}

/* "--name", "--name=value" or "--name value"; *args stays on the last argument used. */
static int command_take_long(struct command *c, const struct verb *v, char ***args,
			     struct diag *diag)
{
	const char *arg = **args, *name = arg + 2, *value = NULL;
	size_t len = strcspn(name, "=");
	const struct command_option *o = command_option_by_name(v, name, len);

	if (!o)
		return command_unknown_option(v, arg, diag);
	if (name[len] == '=')
		value = name + len + 1;
	if (value && !o->value)
		return diag_set(diag, -EINVAL, "--%s takes no value", o->name);
	if (!value && o->value && !o->optional)
		value = *++*args;
	if (!value && o->value && !o->optional)
		return diag_set(diag, -EINVAL, "--%s needs a value: --%s=%s", o->name, o->name,
				o->value);
	return o->take(c, value, diag);
}

/* "-fv", "-ovalue" or "-o value". */
static int command_take_letters(struct command *c, const struct verb *v, char ***args,
				struct diag *diag)
{
	int r = 0;

	for (const char *p = **args + 1; r == 0 && *p; p++) {
		const struct command_option *o = command_option_by_letter(v, *p);
		const char *value;

		if (!o)
			return command_unknown_option(v, (char[]){'-', *p, '\0'}, diag);
		if (!o->value) {
			r = o->take(c, NULL, diag);
			continue;
		}
		value = p[1] ? p + 1 : *++*args;
		if (!value)
			return diag_set(diag, -EINVAL, "-%c needs a value: -%c %s", o->letter,
					o->letter, o->value);
		return o->take(c, value, diag);
	}
	return r;
}

static int command_take_word(struct command *c, const struct verb *v, const char *word,
			     struct diag *diag)
{
	if (c->n_words == v->n_words)
		return diag_set(diag, -EINVAL, "\"%s\" is one argument too many", word);
	if (!*word)
		return diag_set(diag, -EINVAL, "An argument is empty");
	c->words[c->n_words++] = word;
	return 0;
}

int command_parse(struct command *c, const struct verb *v, char **args, struct diag *diag)
{
	bool literal = false;
	int r;

	for (; *args; args++) {
		const char *arg = *args;

		if (literal || arg[0] != '-' || arg[1] == '\0')
			r = command_take_word(c, v, arg, diag);
		else if (strcmp(arg, "--") == 0)
			r = !(literal = true);
		else if (arg[1] == '-')
			r = command_take_long(c, v, &args, diag);
		else
			r = command_take_letters(c, v, &args, diag);
		if (r < 0)
			return r;
	}
	if (!c->help && c->n_words < v->n_words)
		return diag_set(diag, -EINVAL, "\"%s\" needs %s", v->name, v->words);
	return 0;
}

enum {
	HELP_COLUMN = 28, /* where the right column begins */
	HELP_WIDTH = 79,
};

/* "  left    text", text wrapped in its column; a left that is too long stands on its own line. */
static void command_help_row(FILE *f, const char *left, const char *text)
{
	int at = fprintf(f, "  %s", left);
	const char *separator = "";

	if (at >= HELP_COLUMN)
		at = fprintf(f, "\n") - 1;
	fprintf(f, "%*s", HELP_COLUMN - at, "");
	at = HELP_COLUMN;
	while (*text) {
		int len = (int)strcspn(text, " ");

		if (*separator && at + 1 + len > HELP_WIDTH) {
			fprintf(f, "\n%*s", HELP_COLUMN, "");
			at = HELP_COLUMN;
			separator = "";
		}
		at += fprintf(f, "%s%.*s", separator, len, text);
		separator = " ";
		text += len + (text[len] == ' ');
	}
	fputc('\n', f);
}

static void command_help_option(FILE *f, const struct command_option *o)
{
	char left[64], letter[8] = "    ";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s%s%s", letter, o->name, o->optional ? "[" : "",
		 o->value ? "=" : "", o->value ?: "", o->optional ? "]" : "");
	command_help_row(f, left, o->help);
}

const char *const command_all_keys[] = {NULL};

struct command_help_keys {
	FILE *f;
	const char *const *keys; /* NULL: all */
};

static bool command_has_key(const char *const *keys, const char *key)
{
	if (keys == command_all_keys)
		return strcmp(key, "image") != 0; /* that is an argument */
	while (*keys && strcmp(*keys, key) != 0)
		keys++;
	return *keys;
}

static void command_help_key(void *data, const char *key, const char *values, const char *help)
{
	const struct command_help_keys *h = data;
	char left[128];

	if (h->keys && !command_has_key(h->keys, key))
		return;
	snprintf(left, sizeof(left), "%s=%s", key, values);
	command_help_row(h->f, left, help);
}

void command_help_verb(FILE *f, const struct verb *v)
{
	struct command_help_keys keys = {.f = f};
	const struct command_option *o;

	fprintf(f, "Usage: fuseimg %s [OPTION...]%s%s\n\n%s.\n\nOptions:\n", v->name,
		v->n_words ? " " : "", v->words, v->help);
	for (size_t i = 0; (o = command_option_at(v, i)); i++) {
		command_help_option(f, o);
		if (o->keys)
			keys.keys = o->keys;
	}
	if (keys.keys) {
		fprintf(f, "\nKeys of -o, several with commas between them:\n");
		config_describe(CONFIG_OPTIONS, command_help_key, &keys);
	}
	if (v->shows_settings) {
		fprintf(f, "\nSettings in the file:\n");
		config_describe(CONFIG_FILE, command_help_key, &keys);
	}
}

void command_help(FILE *f)
{
	fprintf(f, "Usage: fuseimg COMMAND [OPTION...] [ARGUMENT...]\n\n"
		   "Disk images as raw files.\n\nCommands:\n");
	for (size_t i = 0; verbs[i].name; i++) {
		char left[64];

		snprintf(left, sizeof(left), "%s %s", verbs[i].name, verbs[i].words);
		command_help_row(f, left, verbs[i].help);
	}
	fprintf(f, "\nOptions:\n");
	command_help_row(f, "-h, --help", "Show this text; behind a command, its options");
	command_help_row(f, "    --version", "Show the version");
	fprintf(f, "\nMore in the manual page, fuseimg(1).\n");
}

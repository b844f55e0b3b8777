/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/command.h"

#define ARGS(...) ((char **)(const char *[]){__VA_ARGS__, NULL})

struct fixture {
	struct command command;
	struct diag diag;
};

static int test_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return command_init(&f->command);
}

static int test_teardown(void **state)
{
	struct fixture *f = *state;

	command_done(&f->command);
	free(f);
	return 0;
}

static int parse(struct fixture *f, const char *verb, char **args)
{
	const struct verb *v = command_find_verb(verb, &f->diag);

	assert_non_null(v);
	return command_parse(&f->command, v, args, &f->diag);
}

static void test_every_verb_is_whole(void **state)
{
	for (size_t i = 0; verbs[i].name; i++) {
		bool letters[128] = {['h'] = true};

		assert_non_null(verbs[i].run);
		assert_non_null(verbs[i].words);
		assert_true(strlen(verbs[i].help) > 0);
		assert_true(verbs[i].n_words <= COMMAND_WORDS_MAX);
		for (size_t o = 0; o < COMMAND_OPTIONS_MAX && verbs[i].options[o]; o++) {
			const struct command_option *option = verbs[i].options[o];

			assert_non_null(option->take);
			if (!option->letter) /* it has only a long name */
				continue;
			assert_false(letters[(unsigned char)option->letter]);
			letters[(unsigned char)option->letter] = true;
		}
	}
}

static void test_unknown_verb_gets_a_suggestion(void **state)
{
	struct diag diag = {};

	assert_null(command_find_verb("unmount", &diag));
	assert_int_equal(diag.error, -EINVAL);
	assert_non_null(strstr(diag.text, "did you mean umount?"));
	assert_null(command_find_verb("frobnicate", &diag));
	assert_null(strstr(diag.text, "did you mean"));
}

static void test_words_and_options_mix(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(parse(f, "mount", ARGS("a.qcow2", "-fv", "-o", "ro,format=qcow2", "/mnt")),
			 0);
	assert_true(f->command.foreground);
	assert_true(f->command.verbose);
	assert_true(f->command.config.read_only);
	assert_string_equal(f->command.config.format, "qcow2");
	assert_string_equal(f->command.words[0], "a.qcow2");
	assert_string_equal(f->command.words[1], "/mnt");
}

static void test_option_values_in_every_spelling(void **state)
{
	static const char *const spellings[][3] = {
		{"-oformat=raw"},
		{"-o", "format=raw"},
		{"--options=format=raw"},
		{"--options", "format=raw"},
	};

	for (size_t i = 0; i < 4; i++) {
		_cleanup_(command_done) struct command c;
		const struct verb *v = command_find_verb("mount", NULL);
		char **args = ARGS(spellings[i][0], spellings[i][1] ?: "i",
				   spellings[i][1] ? "i" : "t", spellings[i][1] ? "t" : NULL);

		assert_int_equal(command_init(&c), 0);
		assert_int_equal(command_parse(&c, v, args, NULL), 0);
		assert_string_equal(c.config.format, "raw");
		assert_string_equal(c.words[0], "i");
		assert_string_equal(c.words[1], "t");
	}
}

static void test_options_add_up(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(parse(f, "mount", ARGS("-o", "ro", "-o", "growable", "i", "t")), 0);
	assert_true(f->command.config.read_only);
	assert_true(f->command.config.growable);
}

static void test_double_dash_ends_the_options(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(parse(f, "mount", ARGS("--", "-f", "--help")), 0);
	assert_false(f->command.foreground);
	assert_string_equal(f->command.words[0], "-f");
	assert_string_equal(f->command.words[1], "--help");
}

static void test_help_asks_for_no_words(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(parse(f, "mount", ARGS("--help")), 0);
	assert_true(f->command.help);
}

static void test_timeout(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->command.timeout_ms, -1);
	assert_int_equal(parse(f, "umount", ARGS("--timeout=3", "t")), 0);
	assert_int_equal(f->command.timeout_ms, 3000);
	assert_int_equal(parse(f, "umount", ARGS("--timeout=soon", "t")), -EINVAL);
	assert_int_equal(parse(f, "umount", ARGS("--timeout=-1", "t")), -EINVAL);
}

/* What is wrong, and a word that the sentence about it must have. */
static void test_wrong_command_lines(void **state)
{
	static const struct {
		const char *verb;
		const char *args[4];
		const char *sentence;
	} wrong[] = {
		{"mount", {NULL}, "IMAGE TARGET"},
		{"mount", {"image"}, "IMAGE TARGET"},
		{"mount", {"i", "t", "extra"}, "extra"},
		{"mount", {"", "t"}, "empty"},
		{"mount", {"--foregroud", "i", "t"}, "did you mean --foreground?"},
		{"mount", {"-x", "i", "t"}, "-x"},
		{"mount", {"--foreground=yes", "i", "t"}, "takes no value"},
		{"mount", {"i", "t", "-o"}, "needs a value"},
		{"mount", {"i", "t", "--options"}, "needs a value"},
		{"mount", {"-o", "readonly=yes", "i", "t"}, "readonly"},
		{"mount", {"-o", "threads=lots", "i", "t"}, "threads"},
		{"mount", {"--json", "i", "t"}, "--json"},
		{"list", {"x"}, "x"},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		_cleanup_(command_done) struct command c;
		const struct verb *v = command_find_verb(wrong[i].verb, NULL);
		struct diag diag = {};

		assert_int_equal(command_init(&c), 0);
		assert_int_equal(command_parse(&c, v, (char **)wrong[i].args, &diag), -EINVAL);
		if (!strstr(diag.text, wrong[i].sentence))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, wrong[i].sentence);
	}
}

/* Of what is printed to f by print(). */
static char *printed(void (*print)(FILE *f, const struct verb *v), const struct verb *v)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	print(f, v);
	fclose(f);
	return text;
}

static void print_general(FILE *f, const struct verb *v)
{
	command_help(f);
}

/* Rows are wrapped: not wider than a terminal, and text as it was but for the line breaks. */
static void assert_narrow(const char *text)
{
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		assert_true(strcspn(p, "\n") < 80);
}

static bool has_words(const char *text, const char *words)
{
	size_t len = strcspn(words, " ");
	_cleanup_free_ char *first = strndup(words, len);

	/* the first word stands in the right column, the others follow it */
	for (const char *p = text; (p = strstr(p, first)); p++) {
		const char *have = p, *want = words;

		while (*want && *have == *want) {
			have++;
			want++;
			if (*want == ' ' && *have == '\n') {
				have += 1 + strspn(have + 1, " ");
				want++;
			}
		}
		if (!*want)
			return true;
	}
	return false;
}

static void test_help_names_everything(void **state)
{
	_cleanup_free_ char *general = printed(print_general, NULL);

	for (size_t i = 0; verbs[i].name; i++) {
		_cleanup_free_ char *text = printed(command_help_verb, &verbs[i]);

		assert_narrow(text);
		assert_true(has_words(general, verbs[i].help));
		assert_non_null(strstr(text, verbs[i].words));
		assert_non_null(strstr(text, "--help"));
		for (size_t o = 0; o < COMMAND_OPTIONS_MAX && verbs[i].options[o]; o++)
			assert_true(has_words(text, verbs[i].options[o]->help));
	}
	assert_narrow(general);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_verb_is_whole),	   TEST(test_unknown_verb_gets_a_suggestion),
		TEST(test_words_and_options_mix),  TEST(test_option_values_in_every_spelling),
		TEST(test_options_add_up),	   TEST(test_double_dash_ends_the_options),
		TEST(test_help_asks_for_no_words), TEST(test_timeout),
		TEST(test_wrong_command_lines),	   TEST(test_help_names_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

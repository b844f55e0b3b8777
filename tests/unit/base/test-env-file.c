/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The table is what systemd.exec(5) says, and what systemd 252 and 257 do where it is silent. Where
 * systemd's own reader of such files is installed (the generator behind environment.d(5), which
 * reads them in the same way and then replaces $ variables, so that there must be none), each row
 * is given to it as well.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/env-file.h"
#include "base/io.h"

#define GENERATOR "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"

/* pairs: "KEY=value" with "|" between them. */
static const struct row {
	const char *text, *pairs;
	bool dollar; /* not for the generator */
} rows[] = {
	{"", ""},
	{"\n\n  \n\t\n", ""},
	{"A=1\nB=2\n", "A=1|B=2"},
	{"A=1\nB=2", "A=1|B=2"},
	{"A=1\r\nB=2\r\n", "A=1|B=2"},
	{"# A=1\n; B=2\n  # C=3\nD=4\n", "D=4"},
	{"A=1 # not a comment\n", "A=1 # not a comment"},
	{"A=\nB=  \nC=''\nD=\"\"\n", "A=|B=|C=|D="},
	{"  A  =  1  \n", "A=1"},
	{"A=b=c\n", "A=b=c"},
	{"A=two words  \n", "A=two words"},
	{"A=\"two words  \"\n", "A=two words  "},
	{"A='two words  '\n", "A=two words  "},
	{"A='one''two'\n", "A=onetwo"},
	{"A='one' \"two\"  three \n", "A=onetwothree"},
	{"A=one\"two\"\n", "A=one\"two\""},
	{"A=it's\n", "A=it's"},
	{"A=\"it's\"\n", "A=it's"},
	{"A='say \"x\"'\n", "A=say \"x\""},
	{"A=back\\\\slash\n", "A=back\\slash"},
	{"A=a\\ \n", "A=a "},
	{"A=a\\\"b\n", "A=a\"b"},
	{"A=\\'a\n", "A='a"},
	{"A=one\\\ntwo\n", "A=onetwo"},
	{"A=one \\\n  two\n", "A=one   two"},
	{"A=one \\\n\nB=2\n", "A=one |B=2"},
	{"A=\\\n  one\n", "A=  one"},
	{"A=\"one\\\ntwo\"\n", "A=onetwo"},
	{"A=\"a\\\"b\\\\c\\`d\"\n", "A=a\"b\\c`d"},
	{"A=\"a\\nb\\x\"\n", "A=a\\nb\\x"},
	{"A='a\\nb\\'\n", "A=a\\nb\\"},
	{"A='one\ntwo'\n", "A=one\ntwo"},
	{"A=\"one\n# two\"\n", "A=one\n# two"},
	{"A=1\nA=2\n", "A=1|A=2"},
	{"# ends with two \\\\\nA=1\n", "A=1"},
	{"# one \\ in the middle\nA=1\n", "A=1"},
	{"# open \\\n# and closed\nA=1\n", "A=1"},
	{"# open \\\n\nA=1\n", "A=1"},
	{"# open \\\r\nA=1\n", "A=1"},
	{"A=\xc3\xa4\n", "A=\xc3\xa4"},
	{"A=1\\", "A=1"},
	{"A=$B\nC=\"\\$D\"\n", "A=$B|C=$D", true},
};

struct got {
	char text[512];
	unsigned lines[8];
	size_t n;
};

static int got_pair(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	struct got *g = data;
	size_t n = strlen(g->text);

	snprintf(g->text + n, sizeof(g->text) - n, "%s%s=%s", g->n ? "|" : "", pair->key,
		 pair->value);
	g->lines[g->n++ % 8] = pair->line;
	return 0;
}

static int parse(const char *text, struct got *g, struct diag *diag)
{
	*g = (struct got){};
	return env_file_parse("file", text, strlen(text), got_pair, g, diag);
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct diag diag = {0};
		struct got g;

		if (parse(rows[i].text, &g, &diag) != 0)
			fail_msg("\"%s\": %s", rows[i].text, diag.text);
		assert_string_equal(g.text, rows[i].pairs);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"A=1\nnonsense\n", "file:2: there is no \"=\""},
		{"A='x\n\n", "file:1: a quote is opened here"},
		{"A=1\n\nB=\"x\\\"\n", "file:3: a quote is opened here"},
		{"# x \\\nA=1\n", "file:2: the comment above ends with a backslash"},
		{"# x \\\n  # y \\\n A=1\n", "file:3: the comment above ends with a backslash"},
		{"A=\xe4\n", "file:1: this is not valid UTF-8"},
		{"\xe4=1\n", "file:1: this is not valid UTF-8"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct diag diag = {0};
		struct got g;

		assert_int_equal(parse(bad[i].text, &g, &diag), -EINVAL);
		if (!strstr(diag.text, bad[i].words))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, bad[i].words);
	}
}

static void test_nul(void **state)
{
	struct diag diag = {0};
	struct got g = {};

	assert_int_equal(env_file_parse("file", "A=1\0B=2", 7, got_pair, &g, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "file: is not a text"));
	assert_int_equal(g.n, 0);
}

static void test_line_numbers(void **state)
{
	struct diag diag = {0};
	struct got g;

	assert_int_equal(parse("# c\nA=1\\\n2\n\nB='x\ny'\nC=3\n", &g, &diag), 0);
	assert_int_equal(g.lines[0], 2);
	assert_int_equal(g.lines[1], 5);
	assert_int_equal(g.lines[2], 7);
}

static int refuse(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	return diag_set(diag, -E2BIG, "enough of %s", pair->key);
}

static void test_answer_is_passed_on(void **state)
{
	struct diag diag = {0};

	assert_int_equal(env_file_parse("file", "A=1\nB=2\n", 8, refuse, NULL, &diag), -E2BIG);
	assert_string_equal(diag.text, "enough of A");
}

/* Writes the text where the generator looks, and collects what it prints. */
static void ask_systemd(const char *dir, const char *text, char *answer, size_t size)
{
	char command[512], path[128];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/environment.d/x.conf", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	snprintf(command, sizeof(command), "env -i XDG_CONFIG_HOME=%s %s 2>/dev/null", dir,
		 GENERATOR);
	f = popen(command, "re");
	assert_non_null(f);
	n = fread(answer, 1, size - 1, f);
	answer[n] = '\0';
	assert_int_equal(pclose(f), 0);
}

/* Undoes the generator's quoting of one line, in place. */
static const char *unquote(char *s)
{
	char *out = s, *p = s;

	if (*p != '"')
		return s;
	for (p++; *p && *p != '"'; p++) {
		bool escaped = *p == '\\';

		p += escaped;
		*out++ = escaped && *p == 'n' ? '\n' : *p;
	}
	*out = '\0';
	return s;
}

/* The value of a key (one letter) in the generator's answer; NULL: it is not there. */
static const char *answered(const char *answer, char key, char *dst, size_t size)
{
	for (const char *line = answer; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (line[0] != key || line[1] != '=')
			continue;
		snprintf(dst, size, "%.*s", (int)strcspn(line + 2, "\n"), line + 2);
		return unquote(dst);
	}
	return NULL;
}

/* The last of several values counts; an empty one the generator leaves out. */
static void compare(const struct row *row, const char *answer)
{
	char pairs[512], value[512], *rest = pairs;
	const char *wanted[256] = {NULL};

	snprintf(pairs, sizeof(pairs), "%s", row->pairs);
	for (char *pair; (pair = strsep(&rest, "|"));)
		if (*pair)
			wanted[(unsigned char)*pair] = pair + 2;
	for (char key = 'A'; key <= 'D'; key++) {
		const char *w = wanted[(unsigned char)key];
		const char *is = answered(answer, key, value, sizeof(value));

		assert_string_equal(is ?: "", w ?: "");
	}
}

static void test_systemd_reads_the_same(void **state)
{
	char dir[] = "/tmp/fuseimg-env-XXXXXX", path[128], answer[2048];

	if (access(GENERATOR, X_OK) < 0)
		skip();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/environment.d", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].dollar)
			continue;
		ask_systemd(dir, rows[i].text, answer, sizeof(answer));
		compare(&rows[i], answer);
	}
	snprintf(path, sizeof(path), "%s/environment.d/x.conf", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/environment.d", dir);
	rmdir(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_line_numbers),
		cmocka_unit_test(test_answer_is_passed_on),
		cmocka_unit_test(test_systemd_reads_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unit-name.h"

#define ESCAPE "/usr/bin/systemd-escape"

/* What systemd-escape prints, without the newline. */
static void ask_systemd(const char *option, const char *word, char answer[1024])
{
	int pipe_fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	if (pid == 0) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		execl(ESCAPE, ESCAPE, option, "--", word, NULL);
		_exit(127);
	}
	close(pipe_fds[1]);
	n = read(pipe_fds[0], answer, 1023);
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(n > 0 && answer[n - 1] == '\n');
	answer[n - 1] = '\0';
}

static void compare(const char *word)
{
	char ours[1024], theirs[1024], path[1024], unit[UNIT_NAME_SIZE];

	unit_name_escape(word, ours, sizeof(ours));
	ask_systemd("--suffix=service", word, theirs);
	theirs[strlen(theirs) - strlen(".service")] = '\0';
	assert_string_equal(ours, theirs);
	snprintf(path, sizeof(path), "//srv/%s///%s/", word, word);
	ask_systemd("--path", path, theirs);
	if (unit_name_from_path(path, "", unit) == 0)
		assert_string_equal(unit, theirs);
	else
		assert_true(strlen(theirs) >= UNIT_NAME_SIZE);
}

static void test_as_systemd_does(void **state)
{
	static const char *const words[] = {"disk",	"my-disk", "a b",    ".dot", "a.b:c_d",
					    "100%",	"a\\b",	   "-",	     "@",    "'\"`",
					    "\xc3\xbc", "\x7f",	   "a\n\tb", "..."};
	char all[2] = "";

	if (access(ESCAPE, X_OK) < 0)
		skip();
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		compare(words[i]);
	for (int c = 1; c < 128; c++) {
		if (c == '/' || c == '.')
			continue;
		all[0] = (char)c;
		compare(all);
	}
}

/* Words of letters that mean something, in any order. */
static void test_at_random(void **state)
{
	static const char letters[] = "ab-./\\x2d@:_ %.";
	char word[24];

	if (access(ESCAPE, X_OK) < 0)
		skip();
	srandom(7);
	for (int i = 0; i < 60; i++) {
		size_t n = 1 + (size_t)random() % (sizeof(word) - 1);

		for (size_t k = 0; k < n; k++)
			word[k] = letters[(size_t)random() % (sizeof(letters) - 1)];
		word[n] = '\0';
		/* .. is no path, and // at the end of one is simplified by systemd-escape as by us
		 */
		if (!strstr(word, "..") && !strstr(word, "/.") && strcmp(word, ".") != 0 &&
		    !strstr(word, "./") && strspn(word, "/") != n && word[n - 1] != '.' &&
		    word[0] != '.')
			compare(word);
	}
}

static void test_paths(void **state)
{
	char unit[UNIT_NAME_SIZE], path[UNIT_NAME_SIZE + 8];

	assert_int_equal(unit_name_from_path("/", ".mount", unit), 0);
	assert_string_equal(unit, "-.mount");
	assert_int_equal(unit_name_from_path("/srv//my disk/", ".automount", unit), 0);
	assert_string_equal(unit, "srv-my\\x20disk.automount");
	assert_int_equal(unit_name_from_path("/.snapshots/.x", ".mount", unit), 0);
	assert_string_equal(unit, "\\x2esnapshots-.x.mount");

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[1 + 255 - strlen(".mount")] = '\0';
	assert_int_equal(unit_name_from_path(path, ".mount", unit), 0);
	assert_int_equal(strlen(unit), 255);
	path[1 + 255 - strlen(".mount")] = 'a';
	path[2 + 255 - strlen(".mount")] = '\0';
	assert_int_equal(unit_name_from_path(path, ".mount", unit), -ENAMETOOLONG);
	memset(path, '-', 100);
	path[0] = '/';
	path[100] = '\0';
	assert_int_equal(unit_name_from_path(path, ".mount", unit), -ENAMETOOLONG);
}

static void test_what_does_not_fit(void **state)
{
	char small[7];

	assert_int_equal(unit_name_escape("a-b-c", NULL, 0), 11);
	assert_int_equal(unit_name_escape("a-b-c", small, sizeof(small)), 11);
	assert_string_equal(small, "a\\x2db");
	assert_int_equal(unit_name_escape("", small, sizeof(small)), 0);
	assert_string_equal(small, "");
	/* nothing that would fit follows what did not */
	assert_int_equal(unit_name_escape("aaaa-b", small, sizeof(small)), 9);
	assert_string_equal(small, "aaaa");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_systemd_does),
		cmocka_unit_test(test_at_random),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_what_does_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

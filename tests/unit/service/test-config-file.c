/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/config-file.h"

static char path[] = "/tmp/fuseimg-conf-XXXXXX";

static int read_text(const char *text, struct config *ret, struct diag *diag)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	return config_file_read(path, ret, diag);
}

static void test_a_whole_file(void **state)
{
	struct config c;

	assert_int_equal(read_text("# The disk of the\n"
				   "# archive\n"
				   "IMAGE=\"/srv/the archive.qcow2\"\n"
				   "READ_ONLY=yes\n"
				   "SNAPSHOT='last one'\n"
				   "MODE=0640\n"
				   "MOUNT=/srv/archive\n",
				   &c, NULL),
			 0);
	assert_string_equal(c.image, "/srv/the archive.qcow2");
	assert_true(c.read_only);
	assert_string_equal(c.snapshot, "last one");
	assert_int_equal(c.mode, 0640);
	assert_string_equal(c.boot.mount, "/srv/archive");
	assert_true(c.boot.autostart);
	config_done(&c);
}

static void test_the_last_word_counts(void **state)
{
	struct config c;

	assert_int_equal(
		read_text("IMAGE=/a\nTHREADS=3\nIMAGE=/b\nTHREADS=\nLOCK=no\nLOCK=\n", &c, NULL),
		0);
	assert_string_equal(c.image, "/b");
	assert_int_equal(c.threads, 0);
	assert_true(c.lock);
	config_done(&c);
}

static void test_refusals_name_file_and_line(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"IMAGE=/a\n\nTHREADS=many\n", ":3: THREADS=many: must be auto|1..64"},
		{"IMAGE=/a\nIMAGE\n", ":2: there is no \"=\""},
		{"IMAGE=/a\nREADONLY=yes\n",
		 ":2: READONLY: no such setting; did you mean READ_ONLY?"},
		{"IMAGE=/a\nREADONLY=\n", ":2: READONLY: no such setting; did you mean READ_ONLY?"},
		{"THREADS=2\n", ": IMAGE= is missing"},
		{"IMAGE=\n", ": IMAGE= is missing"},
		{"IMAGE=a\n", ": IMAGE=a: must be an absolute path"},
		{"IMAGE=/a\nMOUNT=srv\n", ":2: MOUNT=srv: must be an absolute path"},
		{"IMAGE=/a\nFSTYPE=ext4\n", "MOUNT= where; it is missing"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct diag diag = {0};
		struct config c;

		assert_int_equal(read_text(bad[i].text, &c, &diag), -EINVAL);
		assert_int_equal(strncmp(diag.text, path, strlen(path)), 0);
		if (!strstr(diag.text, bad[i].words))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, bad[i].words);
	}
}

static void test_files_that_are_none(void **state)
{
	struct diag diag = {0};
	struct config c;

	assert_int_equal(config_file_read("/nonexistent/x.conf", &c, &diag), -ENOENT);
	assert_non_null(strstr(diag.text, "/nonexistent/x.conf"));
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(config_file_read(path, &c, &diag), -EFBIG);
}

static int count(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	++*(unsigned *)data;
	return 0;
}

static void test_visit(void **state)
{
	struct config c;
	unsigned n = 0;

	assert_int_equal(read_text("A=1\nB=2\nA=3\n", &c, NULL), -EINVAL);
	assert_int_equal(config_file_visit(path, count, &n, NULL), 0);
	assert_int_equal(n, 2);
}

static void test_names_that_need_a_service(void **state)
{
	static const char text[] =
		"IMAGE=/a\nOWNER=nobody-of-this-name\nGROUP=nor-this\nMODE=0640\n";
	struct config c;

	assert_int_equal(read_text(text, &c, NULL), -EINVAL);
	assert_int_equal(config_file_read_early(path, &c, NULL), 0);
	assert_false(c.has_owner || c.has_group);
	assert_int_equal(c.mode, 0640);
	config_done(&c);
}

static int group_setup(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int group_teardown(void **state)
{
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_whole_file),
		cmocka_unit_test(test_the_last_word_counts),
		cmocka_unit_test(test_refusals_name_file_and_line),
		cmocka_unit_test(test_files_that_are_none),
		cmocka_unit_test(test_visit),
		cmocka_unit_test(test_names_that_need_a_service),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/sysmacros.h>

#include "udev-probe/loop.h"

static void test_files_of_exports(void **state)
{
	const struct {
		const char *path, *text;
	} cases[] = {
		{"/run/fuseimg/disk/disk", "export disk"},
		{"/run/fuseimg/disk/part12", "export disk part12"},
		{"/run/fuseimg/my disk/part1", "export my\\x20disk part1"},
		{"/run/fuseimg/a\"b'c$d%e\\f/disk", "export a\\x22b\\x27c\\x24d\\x25e\\x5cf"},
		{"/run/fuseimg/\xc3\xa4-1:x@y/disk", "export \\xc3\\xa4-1:x@y"},
	};
	char text[LOOP_TEXT_MAX];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(loop_describe_file(cases[i].path, text));
		assert_string_equal(text, cases[i].text);
	}
}

static void test_other_files(void **state)
{
	static const char *const others[] = {
		"/srv/disk.img",
		"/run/fuseimg/",
		"/run/fuseimg/disk",
		"/run/fuseimg//disk",
		"/run/fuseimg/disk/status",
		"/run/fuseimg/disk/part",
		"/run/fuseimg/disk/part1x",
		"/run/fuseimg/disk/disk (deleted)",
		"/run/fuseimg/disk/disk/part1",
		"/run/fuseimg2/disk/disk",
	};
	char text[LOOP_TEXT_MAX], long_name[NAME_MAX + 64];

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_false(loop_describe_file(others[i], text));
	strcpy(long_name, "/run/fuseimg/");
	memset(long_name + strlen(long_name), ' ', NAME_MAX);
	strcpy(long_name + strlen("/run/fuseimg/") + NAME_MAX, "/disk");
	assert_true(loop_describe_file(long_name, text));
	assert_int_equal(strlen(text), strlen("export ") + 4 * NAME_MAX);
}

static void test_other_devices(void **state)
{
	char text[LOOP_TEXT_MAX];

	assert_false(
		loop_describe(makedev(1, 3), text)); /* /dev/null's number, as a block device */
	assert_false(loop_describe(makedev(4095, 1), text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_of_exports),
		cmocka_unit_test(test_other_files),
		cmocka_unit_test(test_other_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

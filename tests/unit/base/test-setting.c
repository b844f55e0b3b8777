/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "base/setting.h"

static void test_options(void **state)
{
	struct setting s;

	assert_string_equal(setting_place(&s, NULL, "direct_io", "no"), "-o direct_io=no");
	assert_string_equal(setting_place(&s, NULL, "read_only", "yes"), "-o ro");
	assert_string_equal(setting_name(&s, NULL, "read_only", "no"), "-o read_only=no");
	assert_string_equal(setting_name(&s, NULL, "backing", "/a=b:/c"), "-o backing=/a=b:/c");
}

static void test_file(void **state)
{
	static const char file[] = "/etc/fuseimg/disk.conf";
	struct setting s;

	assert_string_equal(setting_place(&s, file, "direct_io", "no"),
			    "DIRECT_IO=no in /etc/fuseimg/disk.conf");
	assert_string_equal(setting_name(&s, file, "read_only", "yes"), "READ_ONLY=yes");
	assert_string_equal(setting_name(&s, file, "backing", "/a=b:/c"), "BACKING=/a=b:/c");
}

/* A value that comes from an image may be long */
static void test_is_cut(void **state)
{
	char value[4096];
	struct setting s;

	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	assert_int_equal(strlen(setting_place(&s, value, "backing", value)), sizeof(s.text) - 1);
	assert_int_equal(strlen(setting_place(&s, NULL, "backing", value)), sizeof(s.text) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

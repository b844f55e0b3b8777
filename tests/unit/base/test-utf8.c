/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/utf8.h"

static void test_lengths(void **state)
{
	assert_int_equal(utf8_len(""), 0);
	assert_int_equal(utf8_len("a"), 1);
	assert_int_equal(utf8_len("\n"), 1);
	assert_int_equal(utf8_len("\xc3\xa4"), 2);
	assert_int_equal(utf8_len("\xe2\x82\xac"), 3);
	assert_int_equal(utf8_len("\xf0\x9f\x92\xbe"), 4);
	assert_int_equal(utf8_len("\xf4\x8f\xbf\xbf"), 4);
}

static void test_what_is_none(void **state)
{
	static const char *const bad[] = {
		"\x80",
		"\xc3",
		"\xc0\xaf", /* overlong */
		"\xe0\x9f\xbf",
		"\xed\xa0\x80", /* a surrogate */
		"\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80",
		"\xe2\x82",
		"\xff",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(utf8_len(bad[i]), 0);
}

static void test_whole_strings(void **state)
{
	assert_true(utf8_is_valid(""));
	assert_true(utf8_is_valid("plain, \xc3\xa4 and \xe2\x82\xac"));
	assert_false(utf8_is_valid("plain \xe4 latin1"));
	assert_false(utf8_is_valid("cut \xe2\x82"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_what_is_none),
		cmocka_unit_test(test_whole_strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

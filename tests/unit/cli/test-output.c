/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "cli/output.h"

static void check(const char *name, const char *json)
{
	_cleanup_json_ struct json_object *o = output_json_string(name);

	assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE),
			    json);
}

static void test_unicode_stays(void **state)
{
	check("/srv/disk.qcow2", "\"/srv/disk.qcow2\"");
	check("", "\"\"");
	check("K\xc3\xa4se \xf0\x9f\xa7\x80", "\"K\xc3\xa4se \xf0\x9f\xa7\x80\"");
	check("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf",
	      "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"");
}

static void test_control_characters_are_escaped(void **state)
{
	check("a\nb\"c\\", "\"a\\nb\\\"c\\\\\"");
	check("\x1b[31m", "\"\\u001b[31m\"");
}

/* Everything that RFC 3629 excludes: the result must still be JSON that others can read. */
static void test_what_is_not_unicode_is_shown_as_bytes(void **state)
{
	check("\xff", "\"\\\\xff\"");
	check("a\xc3", "\"a\\\\xc3\"");				       /* cut off */
	check("\xc0\xaf", "\"\\\\xc0\\\\xaf\"");		       /* overlong */
	check("\xe0\x80\xaf", "\"\\\\xe0\\\\x80\\\\xaf\"");	       /* overlong */
	check("\xed\xa0\x80", "\"\\\\xed\\\\xa0\\\\x80\"");	       /* a surrogate */
	check("\xf4\x90\x80\x80", "\"\\\\xf4\\\\x90\\\\x80\\\\x80\""); /* past U+10FFFF */
	check("\x80z", "\"\\\\x80z\"");
}

static void test_no_string_is_null(void **state)
{
	assert_null(output_json_string(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unicode_stays),
		cmocka_unit_test(test_control_characters_are_escaped),
		cmocka_unit_test(test_what_is_not_unicode_is_shown_as_bytes),
		cmocka_unit_test(test_no_string_is_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/diag.h"

static void test_set(void **state)
{
	struct diag diag = {0};

	assert_int_equal(diag_set(&diag, -EUCLEAN, "entry %d of %s", 7, "L1"), -EUCLEAN);
	assert_int_equal(diag.error, -EUCLEAN);
	assert_string_equal(diag.text, "entry 7 of L1");
}

static void test_errno(void **state)
{
	struct diag diag = {0};

	assert_int_equal(diag_errno(&diag, -ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_string_equal(diag.text, "cannot open x: No such file or directory");
	assert_int_equal(diag_errno(&diag, -9999, "odd"), -9999);
	assert_string_equal(diag.text, "odd: ?");
}

static void test_prefix(void **state)
{
	struct diag diag = {0};

	diag_set(&diag, -EIO, "cannot read");
	assert_int_equal(diag_prefix(&diag, "backing file %s", "b.img"), -EIO);
	assert_string_equal(diag.text, "backing file b.img: cannot read");
	assert_int_equal(diag.error, -EIO);
}

static void test_null(void **state)
{
	assert_int_equal(diag_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(diag_errno(NULL, -EIO, "x"), -EIO);
	assert_int_equal(diag_prefix(NULL, "x"), 0);
}

static void test_too_long_is_cut(void **state)
{
	char word[2 * DIAG_MAX];
	struct diag diag = {0};

	memset(word, 'a', sizeof(word) - 1);
	word[sizeof(word) - 1] = '\0';
	diag_set(&diag, -EIO, "%s", word);
	assert_int_equal(strlen(diag.text), DIAG_MAX - 1);
	diag_errno(&diag, -EIO, "%s", word);
	assert_int_equal(strlen(diag.text), DIAG_MAX - 1);
	diag_set(&diag, -EIO, "end");
	diag_prefix(&diag, "%s", word);
	assert_int_equal(strlen(diag.text), DIAG_MAX - 1);
}

static void assert_quoted(const char *src, size_t len, const char *expected)
{
	char dst[100];

	assert_string_equal(diag_quote(dst, sizeof(dst), src, len), expected);
}

static void test_quote_plain(void **state)
{
	assert_quoted("", 0, "");
	assert_quoted("/srv/a b.img", 12, "/srv/a b.img");
	assert_quoted("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 15,
		      "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
}

static void test_quote_control(void **state)
{
	assert_quoted("a\n\x1b[2J\x7f", 7, "a\\x0a\\x1b[2J\\x7f");
	assert_quoted("a\0b", 3, "a\\x00b");
	assert_quoted("\xc2\x9b", 2, "\\xc2\\x9b"); /* C1: a terminal may take it for ESC [ */
}

static void test_quote_not_utf8(void **state)
{
	assert_quoted("\x80", 1, "\\x80");
	assert_quoted("\xff\xfe", 2, "\\xff\\xfe");
	assert_quoted("\xc3(", 2, "\\xc3(");
	assert_quoted("\xe2\x82", 2, "\\xe2\\x82");		      /* cut */
	assert_quoted("\xc0\x80", 2, "\\xc0\\x80");		      /* overlong */
	assert_quoted("\xe0\x80\x8a", 3, "\\xe0\\x80\\x8a");	      /* overlong */
	assert_quoted("\xed\xa0\x80", 3, "\\xed\\xa0\\x80");	      /* a surrogate */
	assert_quoted("\xf0\x80\x80\x8a", 4, "\\xf0\\x80\\x80\\x8a"); /* overlong */
	assert_quoted("\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"); /* past the last */
	assert_quoted("\xf5\x80\x80\x80", 4, "\\xf5\\x80\\x80\\x80");
}

/* Never half a character, always terminated. */
static void test_quote_cut(void **state)
{
	char dst[8];

	assert_string_equal(diag_quote(dst, 6, "abcdefgh", 8), "abcde");
	assert_string_equal(diag_quote(dst, 6, "abc\xe2\x82\xac", 6), "abc");
	assert_string_equal(diag_quote(dst, 7, "abc\xe2\x82\xac", 6), "abc\xe2\x82\xac");
	assert_string_equal(diag_quote(dst, 6, "ab\n", 3), "ab");
	assert_string_equal(diag_quote(dst, 1, "ab", 2), "");
	dst[0] = 'x';
	diag_quote(dst, 0, "ab", 2);
	assert_int_equal(dst[0], 'x');
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_too_long_is_cut),
		cmocka_unit_test(test_quote_plain),
		cmocka_unit_test(test_quote_control),
		cmocka_unit_test(test_quote_not_utf8),
		cmocka_unit_test(test_quote_cut),
	};

	return cmocka_run_group_tests_name("base/diag", tests, NULL, NULL);
}

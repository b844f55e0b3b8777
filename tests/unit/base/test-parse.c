/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "base/parse.h"

static void test_bool(void **state)
{
	static const char *const yes[] = {"yes", "true", "on", "1", "YES", "True"};
	static const char *const no[] = {"no", "false", "off", "0", "Off"};
	static const char *const bad[] = {"", "y", "2", "yes ", " no", "truefalse"};
	bool v;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		v = false;
		assert_int_equal(parse_bool(yes[i], &v), 0);
		assert_true(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		v = true;
		assert_int_equal(parse_bool(no[i], &v), 0);
		assert_false(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_bool(bad[i], &v), -EINVAL);
}

struct number {
	const char *text;
	int result;
	uint64_t value;
};

static void test_u64(void **state)
{
	static const struct number numbers[] = {
		{"0", 0, 0},
		{"007", 0, 7},
		{"1000", 0, 1000},
		{"0x3e8", 0, 1000},
		{"0X3E8", 0, 1000},
		{"1001", -ERANGE, 0},
		{"18446744073709551616", -ERANGE, 0},
		{"", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{"1k", -EINVAL, 0},
		{"0x", -EINVAL, 0},
		{"0xg", -EINVAL, 0},
		{"3e8", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uint64_t v = 77;

		assert_int_equal(parse_u64(numbers[i].text, 1000, &v), numbers[i].result);
		assert_int_equal(v, numbers[i].result ? 77 : numbers[i].value);
	}
}

static void test_u64_whole_range(void **state)
{
	uint64_t v;

	assert_int_equal(parse_u64("18446744073709551615", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(parse_u64("0xffffffffffffffff", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
}

static void test_span(void **state)
{
	static const struct number spans[] = {
		{"90", 0, 90000000},
		{"1min 30s", 0, 90000000},
		{"1min30", 0, 90000000},
		{"2 h", 0, UINT64_C(7200) * 1000000},
		{"250ms", 0, 250000},
		{"1w", 0, UINT64_C(604800) * 1000000},
		{"0", 0, 0},
		{"infinity", 0, 0},
		{"", -EINVAL, 0},
		{"5 parsecs", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1.5h", -EINVAL, 0},
		{"min", -EINVAL, 0},
		{"20000000000000", -ERANGE, 0},
		{"10000000000000 10000000000000", -ERANGE, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(spans); i++) {
		uint64_t v = 77;

		assert_int_equal(parse_span(spans[i].text, &v), spans[i].result);
		assert_int_equal(v, spans[i].result ? 77 : spans[i].value);
	}
}

static void test_size(void **state)
{
	static const struct number sizes[] = {
		{"0", 0, 0},	       {"512", 0, 512},
		{"1k", 0, 1024},       {"1K", 0, 1024},
		{"3M", 0, MIB(3)},     {"2g", 0, GIB(2)},
		{"8T", 0, TIB(8)},     {"1P", 0, TIB(1024)},
		{"0x10K", 0, KIB(16)}, {"16384P", -ERANGE, 0},
		{"1KB", -EINVAL, 0},   {"1KK", -EINVAL, 0},
		{"1E", -EINVAL, 0},    {"1.5G", -EINVAL, 0},
		{"K", -EINVAL, 0},     {"1 K", -EINVAL, 0},
		{"", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t v = 77;

		assert_int_equal(parse_size(sizes[i].text, &v), sizes[i].result);
		assert_int_equal(v, sizes[i].result ? 77 : sizes[i].value);
	}
}

static void test_mode(void **state)
{
	static const struct number modes[] = {
		{"0", 0, 0},	      {"600", 0, 0600},	     {"0644", 0, 0644},
		{"7777", 0, 07777},   {"10000", -ERANGE, 0}, {"800", -EINVAL, 0},
		{"u=rw", -EINVAL, 0}, {"", -EINVAL, 0},	     {"-600", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		unsigned v = 77;

		assert_int_equal(parse_mode(modes[i].text, &v), modes[i].result);
		assert_int_equal(v, modes[i].result ? 77 : modes[i].value);
	}
}

static void test_format_size(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
		{0, "0 bytes"},
		{1, "1 byte"},
		{1023, "1023 bytes"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{1025, "1.0 KiB"},
		{MIB(1), "1 MiB"},
		{GIB(1) + MIB(512), "1.5 GiB"},
		{TIB(1023), "1023 TiB"},
		{UINT64_MAX, "16.0 EiB"},
		{UINT64_C(1) << 63, "8 EiB"},
	};
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		assert_string_equal(format_size(text, sizeof(text), sizes[i].bytes), sizes[i].text);
}

static void test_suggest(void **state)
{
	static const char *const words[] = {"IMAGE", "FORMAT", "READ_ONLY", "GROWABLE", NULL};
	char long_word[200];

	assert_int_equal(parse_suggest("FROMAT", words), 1);
	assert_int_equal(parse_suggest("READONLY", words), 2);
	assert_int_equal(parse_suggest("IMAGES", words), 0);
	assert_int_equal(parse_suggest("GROWABLE", words), 3);
	assert_int_equal(parse_suggest("COLOUR", words), -1);
	assert_int_equal(parse_suggest("", words), -1);
	memset(long_word, 'x', sizeof(long_word) - 1);
	long_word[sizeof(long_word) - 1] = '\0';
	assert_int_equal(parse_suggest(long_word, words), -1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_u64_whole_range),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_span),
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_suggest),
	};

	return cmocka_run_group_tests_name("base/parse", tests, NULL, NULL);
}

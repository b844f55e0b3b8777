/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-gpt.h>

#include <cmocka.h>

#include "base/selector.h"

static struct selector parse(const char *text)
{
	struct selector s = {0};

	if (selector_parse(text, &s) < 0)
		fail_msg("%s is refused", text);
	return s;
}

static void assert_value(const char *text, enum selector_kind kind, const char *value)
{
	struct selector s = parse(text);

	assert_int_equal(s.kind, kind);
	assert_string_equal(s.value, value);
}

static void test_numbers(void **state)
{
	assert_int_equal(parse("1").number, 1);
	assert_int_equal(parse("part128").number, 128);
	assert_int_equal(parse("65535").kind, SELECTOR_NUMBER);
}

static void test_tags(void **state)
{
	assert_value("LABEL=home", SELECTOR_LABEL, "home");
	assert_value("label=a=b, c", SELECTOR_LABEL, "a=b, c");
	assert_value("UUID=1234-ABCD", SELECTOR_UUID, "1234-ABCD");
	assert_value("PARTLABEL=1", SELECTOR_PARTLABEL, "1");
	assert_value("PARTUUID=aaf99fca-01", SELECTOR_PARTUUID, "aaf99fca-01");
	assert_value("TYPE=0x83", SELECTOR_TYPE, "0x83");
	assert_value("TYPE=esp", SELECTOR_TYPE, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
}

/* What systemd's header says of the same types. */
static void test_types(void **state)
{
	assert_value("root", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_ROOT_NATIVE));
	assert_value("usr", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_USR_NATIVE));
	assert_value("home", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_HOME));
	assert_value("srv", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_SRV));
	assert_value("var", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_VAR));
	assert_value("tmp", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_TMP));
	assert_value("esp", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_ESP));
	assert_value("xbootldr", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_XBOOTLDR));
	assert_value("swap", SELECTOR_TYPE, SD_ID128_TO_UUID_STRING(SD_GPT_SWAP));
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"",	  "0",	   "part",   "part0", "-1", "65536",
					  "Root", "LABEL", "LABEL=", "disk",  "1 ", "UUID"};
	char longest[SELECTOR_MAX + 7] = "LABEL=";
	struct selector s = {.number = 7};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (selector_parse(bad[i], &s) != -EINVAL)
			fail_msg("%s is taken", bad[i]);
	memset(longest + 6, 'x', SELECTOR_MAX - 1);
	assert_int_equal(selector_parse(longest, &s), 0);
	s.number = 7;
	longest[6 + SELECTOR_MAX - 1] = 'x';
	assert_int_equal(selector_parse(longest, &s), -EINVAL);
	assert_int_equal(s.number, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "mount-helper/options.h"
#include "service/config-file.h"

static void test_parts(void **state)
{
	const struct {
		const char *text, *inner, *words, *settings;
	} cases[] = {
		{NULL, "rw", "rw", ""},
		{"", "rw", "rw", ""},
		{"defaults", "rw", "rw", ""},
		{"ro", "ro", "ro", ""},
		{"ro,rw", "rw", "rw", ""},
		{"rw,nosuid,,noatime", "rw,nosuid,noatime", "rw", ""},
		{"discard", "rw,discard", "rw", ""},
		{"discard=ignore", "rw", "rw,discard=ignore", "DISCARD=\"ignore\"\n"},
		{"lock", "rw,lock", "rw", ""},
		{"threads=3,uid=5", "rw,uid=5", "rw,threads=3", "THREADS=\"3\"\n"},
		{"direct_io", "rw", "rw,direct_io=yes", "DIRECT_IO=\"yes\"\n"},
		{"nofail,_netdev,user,loop,x-systemd.automount,X-a=b,comment=c", "rw", "rw", ""},
		{"owner=5,group=6", "rw,owner=5,group=6", "rw", ""},
		{"context=\"a:b,c\",ro", "ro,context=\"a:b,c\"", "ro", ""},
		{"backing=/a\\b:/c$d", "rw", "rw,backing=/a\\\\b:/c$d",
		 "BACKING=\"/a\\\\b:/c\\$d\"\n"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct options o;

		assert_int_equal(options_parse(cases[i].text, &o, NULL), 0);
		assert_string_equal(o.inner, cases[i].inner);
		assert_string_equal(o.words, cases[i].words);
		assert_string_equal(o.settings, cases[i].settings);
		assert_int_equal(options_about_image(&o), *cases[i].settings != 0);
		assert_int_equal(o.config.read_only, strncmp(o.inner, "ro", 2) == 0);
		options_done(&o);
	}
}

static void test_what_to_mount(void **state)
{
	struct options o;

	assert_int_equal(options_parse("remount,part=3,fstype=xfs,ro", &o, NULL), 0);
	assert_true(o.remount);
	assert_string_equal(o.part, "part3");
	assert_string_equal(o.fstype, "xfs");
	options_done(&o);
	assert_int_equal(options_parse("ro,snapshot=a b", &o, NULL), 0);
	assert_false(o.remount);
	assert_null(o.part);
	assert_string_equal(o.fstype, "auto");
	assert_string_equal(o.config.snapshot, "a b");
	options_done(&o);
}

static void test_refusals(void **state)
{
	const struct {
		const char *text, *words;
	} bad[] = {
		{"part", "part=: must be N|LABEL="},
		{"part=0", "part=0: must be"},
		{"part=first", "part=first: must be N|LABEL="},
		{"fstype=", "needs a value"},
		{"threads=0", "threads=0: must"},
		{"cache=maybe", "auto|none"},
		{"snapshot=x", "needs ro"},
		{"backing=relative", "relative"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct diag diag = {0};
		struct options o;

		assert_int_equal(options_parse(bad[i].text, &o, &diag), -EINVAL);
		if (!strstr(diag.text, bad[i].words))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, bad[i].words);
	}
}

/* What is written as a setting is read as the same. */
static void test_settings_are_read_again(void **state)
{
	static const char value[] = "/a b/\"c\"\\d`e`$f'g#h;i\t\xc3\xa4 ";
	char path[] = "/tmp/fuseimg-settings-XXXXXX";
	struct config c;
	FILE *f = fdopen(mkstemp(path), "w");

	assert_non_null(f);
	options_put_setting(f, "image", value);
	options_put_setting(f, "READ_ONLY", "yes");
	assert_int_equal(fclose(f), 0);
	assert_int_equal(config_file_read(path, &c, NULL), 0);
	assert_string_equal(c.image, value);
	assert_true(c.read_only);
	config_done(&c);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_what_to_mount),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_settings_are_read_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

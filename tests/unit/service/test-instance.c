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
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/instance.h"

#define ESCAPE "/usr/bin/systemd-escape"

static const struct {
	const char *name, *escaped;
} names[] = {
	{"disk", "disk"},
	{"my-disk", "my\\x2ddisk"},
	{"my disk", "my\\x20disk"},
	{"a:b_c.d", "a:b_c.d"},
	{"a\\b%c", "a\\x5cb\\x25c"},
	{"\xc3\xbcn\xc3\xaf", "\\xc3\\xbcn\\xc3\\xaf"},
	{"@", "\\x40"},
};

static void test_names(void **state)
{
	char escaped[INSTANCE_UNIT_MAX + 1], path[PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(instance_check(names[i].name, NULL), 0);
		assert_string_equal(instance_escape(names[i].name, escaped), names[i].escaped);
	}
	unsetenv("FUSEIMG_CONFIG_DIR");
	unsetenv("FUSEIMG_RUNTIME_DIR");
	assert_string_equal(instance_file("my disk", path), "/etc/fuseimg/my disk.conf");
	assert_string_equal(instance_target("my disk", path), "/run/fuseimg/my disk");
	setenv("FUSEIMG_CONFIG_DIR", "/a", 1);
	setenv("FUSEIMG_RUNTIME_DIR", "relative", 1);
	assert_string_equal(instance_file("x", path), "/a/x.conf");
	assert_string_equal(instance_target("x", path), "/run/fuseimg/x");
}

static void test_images(void **state)
{
	static const char *const odd[] = {"/", "/a/", "/srv/.hidden", "/a\nb", "/\xe4", "/exports"};
	char one[INSTANCE_IMAGE_MAX + 1], other[INSTANCE_IMAGE_MAX + 1];
	char longest[200];

	instance_of_image("/srv/my disk.qcow2", one);
	assert_memory_equal(one, "my disk.qcow2:", strlen("my disk.qcow2:"));
	assert_int_equal(instance_check(one, NULL), 0);
	assert_string_equal(instance_of_image("/srv/my disk.qcow2", other), one);
	assert_string_not_equal(instance_of_image("/srv2/my disk.qcow2", other), one);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		instance_of_image(odd[i], one);
		assert_int_equal(instance_check(one, NULL), 0);
		assert_memory_equal(one, "image:", strlen("image:"));
	}
	memset(longest, '-', sizeof(longest) - 1);
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(instance_check(instance_of_image(longest, one), NULL), 0);
	assert_int_equal(strlen(one), INSTANCE_IMAGE_MAX);
}

static void test_files(void **state)
{
	char dir[] = "/tmp/fuseimg-instance-XXXXXX", sub[64], path[PATH_MAX];

	assert_non_null(mkdtemp(dir));
	snprintf(sub, sizeof(sub), "%s/.conf", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	setenv("FUSEIMG_CONFIG_DIR", "/nowhere", 1);
	setenv("FUSEIMG_RUNTIME_DIR", dir, 1);
	assert_string_equal(instance_find_file("x", path), "/nowhere/x.conf");
	snprintf(sub, sizeof(sub), "%s/.conf/x.conf", dir);
	assert_string_equal(instance_runtime_file("x", path), sub);
	assert_int_equal(mknod(sub, S_IFREG | 0600, 0), 0);
	assert_string_equal(instance_find_file("x", path), sub);
	assert_string_equal(instance_find_file("y", path), "/nowhere/y.conf");
	assert_int_equal(unlink(sub), 0);
	*strrchr(sub, '/') = '\0';
	assert_int_equal(rmdir(sub) + rmdir(dir), 0);
	unsetenv("FUSEIMG_CONFIG_DIR");
	unsetenv("FUSEIMG_RUNTIME_DIR");
}

static void test_systemd_escapes_the_same(void **state)
{
	if (access(ESCAPE, X_OK) < 0)
		skip();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char command[256], answer[256] = "";
		FILE *f;

		snprintf(command, sizeof(command), ESCAPE " -- '%s'", names[i].name);
		f = popen(command, "re");
		assert_non_null(f);
		assert_non_null(fgets(answer, sizeof(answer), f));
		assert_int_equal(pclose(f), 0);
		answer[strcspn(answer, "\n")] = '\0';
		assert_string_equal(answer, names[i].escaped);
	}
}

static void test_refusals(void **state)
{
	char long_name[INSTANCE_UNIT_MAX + 2] = "", dashes[INSTANCE_UNIT_MAX / 4 + 2] = "";
	const struct {
		const char *name, *words;
	} bad[] = {
		{"", "not empty"},
		{"my/disk", "'fuseimg@my\\x2ddisk.service'"},
		{".", "begins with no dot"},
		{"..", "begins with no dot"},
		{".hidden", "begins with no dot"},
		{"a\nb", "control characters"},
		{"exports", "is taken"},
		{"\xe4", "valid UTF-8"},
		{long_name, "too long"},
		{dashes, "too long"},
	};

	memset(long_name, 'x', sizeof(long_name) - 1);
	memset(dashes, '-', sizeof(dashes) - 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct diag diag = {0};

		assert_int_equal(instance_check(bad[i].name, &diag), -EINVAL);
		if (!strstr(diag.text, bad[i].words))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, bad[i].words);
	}
	long_name[INSTANCE_UNIT_MAX] = '\0';
	assert_int_equal(instance_check(long_name, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	 cmocka_unit_test(test_images),
		cmocka_unit_test(test_files),	 cmocka_unit_test(test_systemd_escapes_the_same),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/mounts.h"

static void test_parse(void **state)
{
	char text[] =
		"27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
		"43 27 0:41 / /mnt/a\\040b\\134c rw,nosuid - fuse.fuseimg /srv/x\\011y.qcow2 rw\n"
		"44 27 0:42 / /mnt/none rw shared:2 master:1 propagate_from:3 - tmpfs  rw\n"
		"45 43 0:43 / /mnt/a\\040b\\134c rw - ext4 /dev/loop0 rw\n";
	struct mounts m = {0};

	assert_int_equal(mounts_parse(text, &m), 0);
	assert_int_equal(m.n, 4);
	assert_string_equal(m.entries[0].point, "/");
	assert_string_equal(m.entries[0].type, "ext4");
	assert_string_equal(m.entries[0].source, "/dev/vda1");
	assert_int_equal(m.entries[0].dev, makedev(254, 1));
	assert_string_equal(m.entries[1].point, "/mnt/a b\\c");
	assert_string_equal(m.entries[1].source, "/srv/x\ty.qcow2");
	assert_string_equal(m.entries[2].type, "tmpfs");
	assert_string_equal(m.entries[2].source, "");
	/* What was mounted last covers what was there */
	assert_ptr_equal(mounts_at(&m, "/mnt/a b\\c"), &m.entries[3]);
	assert_null(mounts_at(&m, "/mnt"));
	assert_ptr_equal(mounts_of(&m, makedev(0, 41), "/srv/x\ty.qcow2"), &m.entries[1]);
	assert_null(mounts_of(&m, makedev(0, 41), "/srv/other"));
	assert_null(mounts_of(&m, makedev(0, 43), "/dev/loop0")); /* not ours */
	mounts_done(&m);
	mounts_done(&m);
}

static void test_malformed(void **state)
{
	static const char *const bad[] = {
		"27 1 254:1 / / rw",
		"27 1 / / rw - ext4 x rw",
		"27 1 254:1 / - ext4 x rw",
		"garbage",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[64];
		struct mounts m = {0};

		strcpy(text, bad[i]);
		assert_int_equal(mounts_parse(text, &m), -EBADMSG);
		assert_int_equal(m.n, 0);
	}
}

static void test_own_table(void **state)
{
	struct mounts m = {0};

	assert_int_equal(mounts_read(&m), 0);
	assert_true(m.n > 0);
	assert_non_null(mounts_at(&m, "/proc"));
	assert_string_equal(mounts_at(&m, "/proc")->type, "proc");
	mounts_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_own_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount-helper/source.h"

static int name_of(const char *spec, const char *text, struct source *ret, struct diag *diag)
{
	struct options o;
	int r = options_parse(text, &o, diag);

	assert_int_equal(r, 0);
	r = source_init(ret, spec, &o, diag);
	options_done(&o);
	return r;
}

static void test_names(void **state)
{
	struct source s, other;

	unsetenv("FUSEIMG_RUNTIME_DIR");
	assert_int_equal(name_of("my disk", "ro,part=1", &s, NULL), 0);
	assert_false(s.ours);
	assert_string_equal(s.target, "/run/fuseimg/my disk");
	assert_int_equal(name_of("/srv/disk.qcow2", "", &s, NULL), 0);
	assert_true(s.ours);
	assert_int_equal(name_of("/srv/disk.qcow2", "ro,threads=2", &other, NULL), 0);
	assert_string_equal(s.name, other.name);
	assert_memory_equal(s.target,
			    "/run/fuseimg/disk.qcow2:", strlen("/run/fuseimg/disk.qcow2:"));
}

static void test_refusals(void **state)
{
	struct diag diag = {0};
	struct source s;

	assert_int_equal(name_of("exports", "", &s, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "is taken"));
	assert_int_equal(name_of("disk", "threads=2", &s, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "disk is the name of an export"));
}

static void test_no_loop_device(void **state)
{
	static const char *const devices[] = {"",
					      "/dev/sda1",
					      "/dev/nowhere/loop0",
					      "server:/export",
					      "/srv/disk.qcow2",
					      "/dev/loop99999"};
	struct source s;

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		assert_false(source_of_loop(devices[i], &s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_no_loop_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "service/loops.h"

static void test_device(void **state)
{
	assert_true(loops_is_device("/dev/loop1", "loop1"));
	assert_true(loops_is_device("/dev/loop1p2", "loop1"));
	assert_false(loops_is_device("/dev/loop12", "loop1"));
	assert_false(loops_is_device("/dev/loop", "loop1"));
	assert_false(loops_is_device("loop1", "loop1"));
}

static void test_inside(void **state)
{
	assert_true(loops_path_inside("/run/x", "/run/x"));
	assert_true(loops_path_inside("/run/x/disk", "/run/x"));
	assert_false(loops_path_inside("/run/xy", "/run/x"));
	assert_false(loops_path_inside("/run", "/run/x"));
}

/* With devices in use: test-busy.c */
static void test_nothing_found(void **state)
{
	struct loops loops;

	loops_find("/nonexistent", &loops);
	assert_int_equal(loops.n, 0);
	loops_done(&loops);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_inside),
		cmocka_unit_test(test_nothing_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/checked.h"

static void test_add(void **state)
{
	uint64_t v = 7;

	assert_true(checked_add(1, 2, &v));
	assert_int_equal(v, 3);
	assert_true(checked_add(UINT64_MAX, 0, &v));
	assert_true(v == UINT64_MAX);
	v = 7;
	assert_false(checked_add(UINT64_MAX, 1, &v));
	assert_int_equal(v, 7);
}

static void test_mul(void **state)
{
	uint64_t v = 7;

	assert_true(checked_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &v));
	assert_true(v == UINT64_MAX - UINT32_MAX);
	assert_true(checked_mul(UINT64_MAX, 0, &v));
	assert_int_equal(v, 0);
	v = 7;
	assert_false(checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
	assert_int_equal(v, 7);
}

static void test_range_inside(void **state)
{
	assert_true(range_inside(0, 10, 10));
	assert_true(range_inside(10, 0, 10));
	assert_false(range_inside(0, 11, 10));
	assert_false(range_inside(11, 0, 10));
	assert_false(range_inside(5, UINT64_MAX - 2, 10)); /* wraps to 2 */
	assert_false(range_inside(UINT64_MAX, 2, 10));
	assert_true(range_inside(0, UINT64_MAX, UINT64_MAX));
}

static void test_min_max(void **state)
{
	assert_true(min_u64(1, UINT64_MAX) == 1);
	assert_true(max_u64(1, UINT64_MAX) == UINT64_MAX);
}

static void test_pow2(void **state)
{
	assert_false(is_pow2(0));
	assert_true(is_pow2(1));
	assert_false(is_pow2(3));
	assert_true(is_pow2(UINT64_C(1) << 63));
	assert_false(is_pow2(UINT64_MAX));
}

static void test_rounding(void **state)
{
	assert_int_equal(round_down(4095, 4096), 0);
	assert_int_equal(round_down(4096, 4096), 4096);
	assert_int_equal(round_up(0, 4096), 0);
	assert_int_equal(round_up(1, 4096), 4096);
	assert_int_equal(round_up(4096, 4096), 4096);
	assert_true(round_up(INT64_MAX, 4096) == UINT64_C(1) << 63);
	assert_int_equal(div_round_up(0, 3), 0);
	assert_int_equal(div_round_up(1, 3), 1);
	assert_int_equal(div_round_up(6, 3), 2);
	assert_true(div_round_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
}

static void test_units(void **state)
{
	assert_true(KIB(1) == 1024 && MIB(3) == 3145728 && GIB(4) == UINT64_C(1) << 32);
	assert_true(TIB(1) == UINT64_C(1) << 40);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),	     cmocka_unit_test(test_mul),
		cmocka_unit_test(test_range_inside), cmocka_unit_test(test_min_max),
		cmocka_unit_test(test_pow2),	     cmocka_unit_test(test_rounding),
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests_name("base/checked", tests, NULL, NULL);
}

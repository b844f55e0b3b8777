/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "service/crashes.h"

enum {
	SECOND = 1000000,
};

static void test_third_crash_is_poison(void **state)
{
	struct crashes c = {0};
	const uint64_t held[] = {0, 700, 0};
	struct crashes_verdict v;

	for (int i = 0; i < 2; i++) {
		v = crashes_note(&c, 1, false, held, 3, 3);
		assert_int_equal(v.poison, 0);
	}
	v = crashes_note(&c, 1, false, held, 3, 3);
	assert_int_equal(v.poison, 1 << 1);
	assert_false(v.give_up);
}

static void test_answered_requests_are_innocent(void **state)
{
	struct crashes c = {0};
	struct crashes_verdict v;

	/* The same request twice, another, the first again: never three in a row */
	v = crashes_note(&c, 1, false, (const uint64_t[]){7}, 1, 1);
	v = crashes_note(&c, 1, false, (const uint64_t[]){7}, 1, 1);
	v = crashes_note(&c, 1, false, (const uint64_t[]){8}, 1, 1);
	assert_int_equal(v.poison, 0);
	v = crashes_note(&c, 1, false, (const uint64_t[]){7}, 1, 1);
	assert_int_equal(v.poison, 0);
	v = crashes_note(&c, 1, false, (const uint64_t[]){0}, 1, 1);
	v = crashes_note(&c, 1, false, (const uint64_t[]){7}, 1, 1);
	assert_int_equal(v.poison, 0);
}

static void test_kills_weigh_less(void **state)
{
	struct crashes c = {0};
	struct crashes_verdict v = {0};
	unsigned n = 0;

	while (!v.poison && n < 100) {
		v = crashes_note(&c, 1, true, (const uint64_t[]){5}, 1, 1);
		assert_false(v.give_up);
		n++;
	}
	assert_int_equal(n, CRASHES_POISON / CRASHES_BLAME_KILL);
}

/* Three requests in hand, the second one kills. After two crashes the successor takes one at a
 * time, and who dies then accuses but one. */
static void test_innocent_bystanders(void **state)
{
	struct crashes c = {0};
	const uint64_t held[] = {5, 6, 7};
	struct crashes_verdict v;

	v = crashes_note(&c, 1, false, held, 3, 3);
	assert_false(v.careful);
	v = crashes_note(&c, 1, false, held, 3, 3);
	assert_true(v.careful);
	assert_int_equal(v.poison, 0);
	v = crashes_note(&c, 1, false, held, 3, 1);
	assert_int_equal(v.poison, 1 << 1);
	assert_true(v.careful);
	assert_false(v.give_up);
	/* It was answered; the others went through */
	v = crashes_note(&c, 1, false, (const uint64_t[]){0, 0, 8}, 3, 3);
	assert_int_equal(v.poison, 0);
	assert_false(v.careful);
}

/* A killed worker is somebody's wish, however often it comes. */
static void test_kills_never_give_up(void **state)
{
	struct crashes c = {0};

	for (uint64_t i = 1; i < 1000; i++)
		assert_false(crashes_note(&c, i, true, &i, 1, 1).give_up);
}

static void test_gives_up_on_a_burst(void **state)
{
	struct crashes c = {0};
	uint64_t now = SECOND;

	for (uint64_t i = 1; i <= CRASHES_MAX; i++, now += SECOND)
		assert_false(crashes_note(&c, now, false, &i, 1, 1).give_up);
	assert_true(crashes_note(&c, now, false, (const uint64_t[]){99}, 1, 1).give_up);
}

static void test_slow_crashes_go_on(void **state)
{
	struct crashes c = {0};
	uint64_t now = SECOND;

	for (uint64_t i = 1; i < 100; i++, now += 3 * SECOND)
		assert_false(crashes_note(&c, now, false, &i, 1, 1).give_up);
}

/* Three deaths by one request are one reason to worry, not three. */
static void test_repeats_count_once(void **state)
{
	struct crashes c = {0};

	for (uint64_t i = 1; i <= CRASHES_MAX; i++)
		for (int again = 0; again < 3; again++)
			assert_false(crashes_note(&c, SECOND, false, &i, 1, 1).give_up);
	assert_true(crashes_note(&c, SECOND, false, (const uint64_t[]){99}, 1, 1).give_up);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_third_crash_is_poison),
		cmocka_unit_test(test_innocent_bystanders),
		cmocka_unit_test(test_answered_requests_are_innocent),
		cmocka_unit_test(test_kills_weigh_less),
		cmocka_unit_test(test_kills_never_give_up),
		cmocka_unit_test(test_gives_up_on_a_burst),
		cmocka_unit_test(test_slow_crashes_go_on),
		cmocka_unit_test(test_repeats_count_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

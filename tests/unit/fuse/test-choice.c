/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which of some ways is found to be the fastest, and for how long. */

#include "fuse/choice.h"
#include "rig.h"

enum { WAYS = 3, COSTLY = 1 };

static const uint8_t handicap[WAYS] = {[COSTLY] = 10};

static struct choice new_choice(void)
{
	struct choice c;

	choice_init(&c, WAYS, handicap);
	return c;
}

/* n windows in which each way has its rate. Returns in how many of them the way was gone. */
static unsigned windows(struct choice *c, unsigned n, unsigned way, const uint64_t rate[WAYS])
{
	unsigned gone = 0;

	for (unsigned i = 0; i < n; i++) {
		gone += c->way == way;
		choice_judge(c, rate[c->way]);
	}
	return gone;
}

static void test_begins_with_the_safe_one(void **state)
{
	struct choice c = new_choice();

	assert_int_equal(c.way, 0);
}

static void test_stays_with_the_fastest(void **state)
{
	for (unsigned way = 0; way < WAYS; way++) {
		struct choice c = new_choice();
		uint64_t rate[WAYS] = {1000, 1000, 1000};

		rate[way] = 2000;
		windows(&c, 20, way, rate);
		assert_true(windows(&c, 1000, way, rate) >= 950);
	}
}

static void test_costs_count(void **state)
{
	struct choice c = new_choice();

	windows(&c, 20, COSTLY, (const uint64_t[]){1000, 1080, 1000});
	assert_true(windows(&c, 1000, COSTLY, (const uint64_t[]){1000, 1080, 1000}) <= 50);
	assert_true(windows(&c, 1000, COSTLY, (const uint64_t[]){1000, 1200, 1000}) >= 800);
}

/* A little faster may be noise. */
static void test_little_is_not_enough(void **state)
{
	struct choice c = new_choice();

	windows(&c, 20, 2, (const uint64_t[]){1000, 900, 1030});
	assert_true(windows(&c, 1000, 2, (const uint64_t[]){1000, 900, 1030}) <= 50);
	windows(&c, 200, 2, (const uint64_t[]){1000, 900, 1300});
	assert_true(windows(&c, 1000, 2, (const uint64_t[]){1000, 900, 970}) >= 950);
}

static void test_notices_a_change_in_time(void **state)
{
	const uint64_t before[] = {1000, 900, 2000}, after[] = {2000, 900, 1000};
	struct choice c = new_choice();

	windows(&c, 1000, 2, before);
	windows(&c, CHOICE_STAY + 1, 2, after);
	assert_true(windows(&c, 100, 0, after) >= 60);
}

static void test_one_bad_measurement_is_soon_forgotten(void **state)
{
	const uint64_t rate[] = {1000, 900, 2000};
	struct choice c = new_choice();

	windows(&c, 1000, 2, rate);
	while (c.way != 0)
		windows(&c, 1, 0, rate);
	choice_judge(&c, 9000); /* very fast, for once */
	windows(&c, 1, 1, rate);
	assert_int_equal(c.best, 0);
	assert_true(windows(&c, 20, 2, rate) >= 8);
}

/* What fails at every try is tried ever more rarely. */
static void test_failures(void **state)
{
	struct choice c = new_choice();
	unsigned failed = 0;

	for (unsigned i = 0; i < 1000; i++)
		if (c.way == 0) {
			choice_judge(&c, 1000);
		} else {
			choice_fail(&c);
			failed++;
		}
	assert_true(failed >= 20 && failed <= 60);
}

static void test_failure_of_the_best(void **state)
{
	const uint64_t rate[] = {1000, 900, 2000};
	struct choice c = new_choice();

	windows(&c, 1000, 2, rate);
	while (c.way != 2)
		windows(&c, 1, 2, rate);
	choice_fail(&c);
	assert_int_equal(c.way, 0);
	assert_int_equal(c.best, 0);
	assert_int_equal(windows(&c, 2, 0, rate), 2);
	windows(&c, 20, 2, rate);
	assert_int_equal(c.best, 2);
}

static void test_a_single_way(void **state)
{
	struct choice c;

	choice_init(&c, 1, handicap);
	assert_int_equal(windows(&c, 100, 0, (const uint64_t[WAYS]){1000}), 100);
	choice_fail(&c);
	assert_int_equal(c.way, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begins_with_the_safe_one),
		cmocka_unit_test(test_stays_with_the_fastest),
		cmocka_unit_test(test_costs_count),
		cmocka_unit_test(test_little_is_not_enough),
		cmocka_unit_test(test_notices_a_change_in_time),
		cmocka_unit_test(test_one_bad_measurement_is_soon_forgotten),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_failure_of_the_best),
		cmocka_unit_test(test_a_single_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "base/activity.h"

static _Atomic uint32_t counter;

static void call_inside(void)
{
	ACTIVITY_HOST;

	assert_int_equal(counter, 1);
}

static void test_odd_inside(void **state)
{
	activity_watch(&counter);
	assert_int_equal(counter, 0);
	{
		ACTIVITY_HOST;
		assert_int_equal(counter, 1);
		call_inside(); /* a part of the same */
		assert_int_equal(counter, 1);
	}
	assert_int_equal(counter, 2);
	activity_watch(NULL);
	{
		ACTIVITY_HOST;
		assert_int_equal(counter, 2);
	}
}

static void *other_thread(void *data)
{
	ACTIVITY_HOST;
	return NULL;
}

static void test_each_thread_for_itself(void **state)
{
	uint32_t before = counter;
	pthread_t id;

	activity_watch(&counter);
	assert_int_equal(pthread_create(&id, NULL, other_thread, NULL), 0);
	assert_int_equal(pthread_join(id, NULL), 0);
	assert_int_equal(counter, before);
	activity_watch(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_odd_inside),
		cmocka_unit_test(test_each_thread_for_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

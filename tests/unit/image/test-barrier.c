/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Flushes that are shared: each caller's flush began after its call, and each hears of a failure.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/barrier.h"

static _Atomic unsigned flushes_begun, flushes_ended;
static _Atomic int flush_result;

static int slow_flush(struct store *s)
{
	atomic_fetch_add(&flushes_begun, 1);
	usleep(2000);
	atomic_fetch_add(&flushes_ended, 1);
	return atomic_load(&flush_result);
}

static const struct store_ops slow_ops = {.kind = "slow", .flush = slow_flush};
static char slow_name[] = "slow";
static struct store slow = {.ops = &slow_ops, .name = slow_name};

enum { CALLERS = 8, CALLS = 10 };

struct caller {
	pthread_t thread;
	struct barrier *barrier;
	unsigned early; /* returns before a flush that began after the call had ended */
	unsigned errors;
};

static void *caller_run(void *data)
{
	struct caller *c = data;

	for (unsigned i = 0; i < CALLS; i++) {
		unsigned begun = atomic_load(&flushes_begun);

		c->errors += barrier_pass(c->barrier, &slow) == -EIO;
		c->early += atomic_load(&flushes_ended) <= begun;
	}
	return NULL;
}

static void run_callers(int result, unsigned *ret_errors)
{
	struct caller callers[CALLERS];
	struct barrier b;

	barrier_init(&b);
	atomic_store(&flush_result, result);
	*ret_errors = 0;
	for (unsigned i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){.barrier = &b};
		assert_int_equal(pthread_create(&callers[i].thread, NULL, caller_run, &callers[i]),
				 0);
	}
	for (unsigned i = 0; i < CALLERS; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].early, 0);
		*ret_errors += callers[i].errors;
	}
	barrier_done(&b);
}

static void test_shared(void **state)
{
	unsigned errors;

	run_callers(0, &errors);
	assert_int_equal(errors, 0);
	/* callers that wait together are served together */
	assert_true(atomic_load(&flushes_ended) < CALLERS * CALLS);
}

static void test_failure_is_told_to_all(void **state)
{
	unsigned errors;

	run_callers(-EIO, &errors);
	assert_int_equal(errors, CALLERS * CALLS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_failure_is_told_to_all),
	};

	return cmocka_run_group_tests_name("barrier", tests, NULL, NULL);
}

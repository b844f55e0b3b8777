/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who takes requests and who rests. A socket stands for the kernel's queue. */

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuse/crew.h"
#include "rig.h"

enum {
	SOON_US = 60000000, /* generous: machines that test are busy */
	LONG_US = 20 * CREW_TICK_US,
};

struct fixture {
	struct crew crew;
	int queue[2];
	pthread_t id[2];
	_Atomic unsigned back; /* threads that have returned from crew_rest() */
};

static int set_up(void **state)
{
	static struct fixture f;

	f = (struct fixture){};
	crew_init(&f.crew);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f.queue), 0);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	close(f->queue[0]);
	close(f->queue[1]);
	crew_done(&f->crew);
	return 0;
}

static void one_by_one(struct fixture *f, unsigned n)
{
	while (n-- > 0) {
		crew_take(&f->crew, f->queue[1]);
		crew_finish(&f->crew);
	}
}

static void *rest(void *data)
{
	struct fixture *f = data;

	crew_rest(&f->crew, 1, f->queue[1]);
	atomic_fetch_add(&f->back, 1);
	return NULL;
}

static void start_resting(struct fixture *f)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&f->id[i], NULL, rest, f), 0);
}

static bool both_back(struct fixture *f, unsigned us)
{
	for (unsigned waited = 0; waited < us && atomic_load(&f->back) < 2; waited += CREW_TICK_US)
		usleep(CREW_TICK_US);
	return atomic_load(&f->back) == 2;
}

static void join(struct fixture *f)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(f->id[i], NULL), 0);
}

/* Thread 0 has a request in hand, and the others rest. */
static void alone_at_work(struct fixture *f)
{
	one_by_one(f, CREW_WINDOW);
	crew_take(&f->crew, f->queue[1]);
	start_resting(f);
	assert_false(both_back(f, LONG_US));
}

static void test_all_hands_at_first(void **state)
{
	struct fixture *f = *state;

	one_by_one(f, CREW_WINDOW - 1);
	for (unsigned i = 0; i < 3; i++)
		crew_rest(&f->crew, i, f->queue[1]); /* returns */
	assert_true(f->crew.all_hands);
}

static void test_one_is_enough(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	assert_int_equal(atomic_load(&f->back), 0);
	crew_rest(&f->crew, 0, f->queue[1]); /* but never the last */
	crew_dismiss(&f->crew);
	join(f);
}

static void test_many_at_a_time_need_all(void **state)
{
	struct fixture *f = *state;

	crew_take(&f->crew, f->queue[1]);
	one_by_one(f, 2 * CREW_WINDOW);
	crew_finish(&f->crew);
	assert_true(f->crew.all_hands);
}

static void test_called_when_requests_wait(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	assert_int_equal(write(f->queue[0], "?", 1), 1);
	assert_true(both_back(f, SOON_US));
	assert_true(f->crew.all_hands);
	join(f);
}

static void test_called_when_the_connection_ends(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	shutdown(f->queue[0], SHUT_RDWR);
	assert_true(both_back(f, SOON_US));
	join(f);
}

/* An idle export has no guard that looks around, and all are there for what comes next. */
static void test_called_when_nothing_happens(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	crew_finish(&f->crew);
	assert_true(both_back(f, SOON_US));
	assert_true(f->crew.all_hands);
	join(f);
}

static void test_dismissed(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	crew_dismiss(&f->crew);
	assert_true(both_back(f, SOON_US));
	join(f);
	one_by_one(f, CREW_WINDOW);
	crew_rest(&f->crew, 1, f->queue[1]); /* returns */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_all_hands_at_first),
		TEST(test_one_is_enough),
		TEST(test_many_at_a_time_need_all),
		TEST(test_called_when_requests_wait),
		TEST(test_called_when_the_connection_ends),
		TEST(test_called_when_nothing_happens),
		TEST(test_dismissed),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

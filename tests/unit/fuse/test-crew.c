/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who takes requests and who rests. A socket stands for the kernel's queue. */

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fuse/crew.h"
#include "rig.h"

enum {
	HANDS = 3,
	SOON_US = 2000000, /* generous: machines that test are busy */
	LONG_US = 20 * CREW_TICK_US,
	TRIES = 100,
};

struct fixture {
	struct crew crew;
	int queue[2];
	pthread_t id[HANDS];
	_Atomic unsigned back; /* threads that have returned from crew_wait() */
};

static int set_up(void **state)
{
	static struct fixture f;

	f = (struct fixture){};
	crew_init(&f.crew, HANDS);
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

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* A request that thread 0 waits for, and executes. */
static void serve_one(struct fixture *f)
{
	crew_wait(&f->crew, 0, f->queue[1]);
	crew_take(&f->crew, 0);
	crew_finish(&f->crew, 0);
}

static void let_wait(struct fixture *f)
{
	assert_int_equal(write(f->queue[0], "?", 1), 1);
}

static void *rest(void *data)
{
	struct fixture *f = data;

	crew_wait(&f->crew, 1, f->queue[1]);
	atomic_fetch_add(&f->back, 1);
	return NULL;
}

static void start_resting(struct fixture *f)
{
	for (int i = 1; i < HANDS; i++)
		assert_int_equal(pthread_create(&f->id[i], NULL, rest, f), 0);
}

static bool all_back(struct fixture *f, unsigned us)
{
	for (unsigned waited = 0; waited < us && atomic_load(&f->back) < HANDS - 1;
	     waited += CREW_TICK_US)
		usleep(CREW_TICK_US);
	return atomic_load(&f->back) == HANDS - 1;
}

static void join(struct fixture *f)
{
	for (int i = 1; i < HANDS; i++)
		assert_int_equal(pthread_join(f->id[i], NULL), 0);
}

/* Thread 0 has a request in hand, and the others rest. */
static void alone_at_work(struct fixture *f)
{
	atomic_store(&f->crew.way, CREW_ALONE);
	crew_take(&f->crew, 0);
	start_resting(f);
	assert_false(all_back(f, LONG_US));
}

static void test_all_hands_at_first(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < HANDS; i++)
		crew_wait(&f->crew, i, f->queue[1]); /* returns */
	assert_int_equal(f->crew.way, CREW_ALL);
}

static void test_every_way_is_tried(void **state)
{
	struct fixture *f = *state;
	int64_t end = now_us() + SOON_US;
	unsigned seen = 0;

	let_wait(f);
	while (seen != (1u << CREW_WAYS) - 1 && now_us() < end) {
		serve_one(f);
		seen |= 1u << atomic_load(&f->crew.way);
	}
	assert_int_equal(seen, (1u << CREW_WAYS) - 1);
	assert_true(f->crew.meter.choice.rate[CREW_ALL] > 1000);
}

static void test_a_slow_client_says_nothing(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < 4 * CREW_TURN; n++) {
		serve_one(f);
		usleep(CREW_DENSE_MS * 1000 / CREW_TURN + 100);
		assert_int_equal(f->crew.way, CREW_ALL);
	}
	assert_int_equal(f->crew.meter.choice.rate[CREW_ALL], 0);
}

static void test_a_single_thread_has_no_others(void **state)
{
	struct fixture *f = *state;
	struct crew *c = &f->crew;
	int64_t end = now_us() + 10 * CREW_WINDOW_MS * 1000;

	crew_done(c);
	crew_init(c, 1);
	let_wait(f);
	while (now_us() < end) {
		serve_one(f);
		assert_int_not_equal(c->way, CREW_ALONE);
	}
}

static void test_one_is_enough(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	assert_int_equal(atomic_load(&f->back), 0);
	crew_wait(&f->crew, 0, f->queue[1]); /* but never the last */
	crew_dismiss(&f->crew);
	join(f);
}

static void test_called_when_requests_wait(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	let_wait(f);
	assert_true(all_back(f, SOON_US));
	assert_int_equal(f->crew.way, CREW_ALL);
	join(f);
}

/* What held requests up is not gone back to at once. */
static void test_what_failed_is_remembered(void **state)
{
	struct fixture *f = *state;
	struct choice *choice = &f->crew.meter.choice;

	choice->best = choice->way = CREW_ALONE;
	alone_at_work(f);
	let_wait(f);
	assert_true(all_back(f, SOON_US));
	join(f);
	crew_finish(&f->crew, 0);
	for (unsigned n = 0; n < CREW_TURN; n++)
		serve_one(f);
	assert_int_equal(choice->best, CREW_ALL);
	assert_int_equal(f->crew.way, CREW_ALL);
	assert_false(f->crew.held_up);
}

/* Requests wait, but are taken so fast that nobody else is called. A machine that is busy may stop
 * this thread for two ticks, so it has more than one try. */
static bool stays_alone(struct fixture *f)
{
	int64_t end = now_us() + LONG_US;

	atomic_store(&f->back, 0);
	atomic_store(&f->crew.way, CREW_ALONE);
	start_resting(f);
	while (now_us() < end && atomic_load(&f->back) == 0) {
		crew_take(&f->crew, 0);
		crew_finish(&f->crew, 0);
	}
	return atomic_load(&f->back) == 0;
}

static void test_not_called_while_it_goes_on(void **state)
{
	struct fixture *f = *state;
	bool stayed = false;

	let_wait(f);
	for (unsigned n = 0; n < TRIES && !stayed; n++) {
		stayed = stays_alone(f);
		assert_true(all_back(f, SOON_US)); /* now that nothing goes on */
		join(f);
	}
	assert_true(stayed);
}

static void test_called_when_the_connection_ends(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	shutdown(f->queue[0], SHUT_RDWR);
	assert_true(all_back(f, SOON_US));
	join(f);
}

/* An idle export has no guard that looks around, and all are there for what comes next. */
static void test_called_when_nothing_happens(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	crew_finish(&f->crew, 0);
	assert_true(all_back(f, SOON_US));
	assert_int_equal(f->crew.way, CREW_ALL);
	assert_false(f->crew.held_up);
	join(f);
}

/* Neither silence nor the end of the connection keeps who looks out. */
static void test_looking_out_comes_to_an_end(void **state)
{
	struct fixture *f = *state;

	atomic_store(&f->crew.way, CREW_LOOKING);
	crew_wait(&f->crew, 0, f->queue[1]);
	shutdown(f->queue[0], SHUT_RDWR);
	crew_wait(&f->crew, 0, f->queue[1]);
}

static void test_dismissed(void **state)
{
	struct fixture *f = *state;

	alone_at_work(f);
	crew_dismiss(&f->crew);
	assert_true(all_back(f, SOON_US));
	join(f);
	atomic_store(&f->crew.way, CREW_ALONE);
	crew_wait(&f->crew, 1, f->queue[1]); /* returns */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_all_hands_at_first),
		TEST(test_every_way_is_tried),
		TEST(test_a_slow_client_says_nothing),
		TEST(test_a_single_thread_has_no_others),
		TEST(test_one_is_enough),
		TEST(test_called_when_requests_wait),
		TEST(test_what_failed_is_remembered),
		TEST(test_not_called_while_it_goes_on),
		TEST(test_called_when_the_connection_ends),
		TEST(test_called_when_nothing_happens),
		TEST(test_looking_out_comes_to_an_end),
		TEST(test_dismissed),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

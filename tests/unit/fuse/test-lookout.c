/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* When a thread looks for its next request before it sleeps. A socket stands for the kernel's
 * queue. */

#include <sys/socket.h>
#include <unistd.h>

#include "fuse/lookout.h"
#include "rig.h"

/* Windows that take so long when the thread sleeps, and when it looks out. Returns how many of the
 * last n it looked out in. */
static unsigned windows(struct lookout *l, unsigned n, int64_t sleeping, int64_t looking)
{
	unsigned looked = 0;

	for (unsigned i = 0; i < n; i++) {
		looked += l->looking;
		lookout_judge(l, l->looking ? looking : sleeping);
	}
	return looked;
}

static void test_sleeps_at_first(void **state)
{
	struct lookout l = {0};

	assert_int_equal(windows(&l, 1, 100, 50), 0);
	assert_true(l.looking); /* now it tries */
}

static void test_stays_with_what_is_faster(void **state)
{
	struct lookout l = {0};

	windows(&l, 20, 100, 50);
	assert_true(windows(&l, 1000, 100, 50) >= 960);
	windows(&l, 200, 50, 100);
	assert_true(windows(&l, 1000, 50, 100) <= 40);
}

/* It costs CPU time, so it has to be worth something. */
static void test_no_gain_is_not_enough(void **state)
{
	struct lookout l = {0};

	windows(&l, 20, 100, 95);
	assert_true(windows(&l, 1000, 100, 95) <= 40);
}

static void test_notices_a_change_in_time(void **state)
{
	struct lookout l = {0};

	windows(&l, 1000, 100, 50);
	assert_true(windows(&l, LOOKOUT_STAY + 3, 50, 100) <= LOOKOUT_STAY + 2);
	assert_true(windows(&l, 100, 50, 100) <= 10);
}

static void test_one_bad_measurement_is_soon_forgotten(void **state)
{
	struct lookout l = {0};

	windows(&l, 1000, 100, 50);
	while (!l.trial)
		lookout_judge(&l, 50);
	lookout_judge(&l, 1); /* the other was very fast, for once */
	assert_false(l.looking);
	assert_true(windows(&l, 10, 100, 50) >= 6);
}

static void wait_n(struct lookout *l, int fd, unsigned n)
{
	while (n-- > 0)
		lookout_wait(l, fd);
}

static void test_a_window_is_so_many_requests(void **state)
{
	struct lookout l = {0};
	int queue[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue), 0);
	assert_int_equal(write(queue[0], "?", 1), 1);
	wait_n(&l, queue[1], LOOKOUT_WINDOW);
	assert_false(l.trial);
	lookout_skip(&l); /* and it begins again */
	wait_n(&l, queue[1], LOOKOUT_WINDOW);
	assert_false(l.trial);
	wait_n(&l, queue[1], 1);
	assert_true(l.trial);
	assert_true(l.looking);
	assert_true(l.ns[false] > 0);
	close(queue[0]);
	close(queue[1]);
}

/* Neither silence nor the end of the connection keeps it. */
static void test_it_comes_to_an_end(void **state)
{
	struct lookout l = {.looking = true};
	int queue[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue), 0);
	lookout_wait(&l, queue[1]);
	shutdown(queue[0], SHUT_RDWR);
	lookout_wait(&l, queue[1]);
	assert_int_equal(l.seen, 2);
	close(queue[0]);
	close(queue[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sleeps_at_first),
		cmocka_unit_test(test_stays_with_what_is_faster),
		cmocka_unit_test(test_no_gain_is_not_enough),
		cmocka_unit_test(test_notices_a_change_in_time),
		cmocka_unit_test(test_one_bad_measurement_is_soon_forgotten),
		cmocka_unit_test(test_a_window_is_so_many_requests),
		cmocka_unit_test(test_it_comes_to_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

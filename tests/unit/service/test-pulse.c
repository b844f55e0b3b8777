/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/fuse.h>
#include <unistd.h>

#include "service/pulse.h"

enum {
	S = 1000000,
	THREADS = 3,
};

static struct slots slots;
static struct pulse pulse;
static const struct pulse_limits limits = {
	.disk_us = 5 * S, .stuck_us = 10 * S, .silent_us = 4 * S};

static void hold(unsigned i, uint64_t unique)
{
	((struct fuse_in_header *)slots_request(&slots, i))->unique = unique;
}

static void io(unsigned i, uint32_t n)
{
	slots_at(&slots, i)->io = n;
}

static enum pulse_verdict look(unsigned second)
{
	return pulse_look(&pulse, &slots, &limits, (100 + (uint64_t)second) * S);
}

static int setup(void **state)
{
	pulse_reset(&pulse);
	slots.head->io = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		hold(i, 0);
		io(i, 0);
	}
	return 0;
}

static void test_idle(void **state)
{
	for (unsigned t = 0; t < 100; t += 5)
		assert_int_equal(look(t), PULSE_FINE);
}

static void test_disk_hangs(void **state)
{
	hold(1, 77);
	io(1, 5);
	assert_int_equal(look(0), PULSE_FINE);
	assert_int_equal(look(4), PULSE_FINE);
	assert_int_equal(look(5), PULSE_DISK);
	assert_int_equal(pulse.slot, 1);
	assert_true(pulse.since_us == 100 * S);
	hold(0, 78); /* waits for it */
	assert_int_equal(look(6), PULSE_DISK);
	assert_int_equal(look(60), PULSE_DISK);
	io(1, 6);
	assert_int_equal(look(61), PULSE_FINE);
	assert_int_equal(look(66), PULSE_STUCK); /* there is no disk to blame any more */
}

static void test_disk_gets_on(void **state)
{
	hold(1, 77);
	for (unsigned t = 0; t < 100; t += 4) {
		io(1, t + 1);
		assert_int_equal(look(t), PULSE_FINE);
	}
}

static void test_stuck(void **state)
{
	hold(2, 77);
	io(2, 4);
	assert_int_equal(look(0), PULSE_FINE);
	for (unsigned t = 1; t < 10; t++) { /* others are served meanwhile */
		hold(0, 100 + t);
		io(0, 2 * t);
		assert_int_equal(look(t), PULSE_FINE);
	}
	assert_int_equal(look(10), PULSE_STUCK);
	assert_int_equal(pulse.slot, 2);
}

/* Request 1 takes long and gets on; request 2 waits for what it has. */
static void test_long_work_is_not_stuck(void **state)
{
	hold(0, 1);
	hold(1, 2);
	for (unsigned t = 0; t < 100; t++) {
		io(0, t);
		assert_int_equal(look(t), PULSE_FINE);
	}
}

static void test_next_request_counts_anew(void **state)
{
	hold(0, 1);
	look(0);
	look(9);
	hold(0, 2);
	assert_int_equal(look(10), PULSE_FINE);
	assert_int_equal(look(19), PULSE_FINE);
	hold(0, 0);
	assert_int_equal(look(25), PULSE_FINE);
	hold(0, 2);
	assert_int_equal(look(26), PULSE_FINE);
}

static void test_silent(void **state)
{
	pulse.asked_us = 100 * S;
	assert_int_equal(look(3), PULSE_FINE);
	assert_int_equal(look(4), PULSE_SILENT);
	pulse.asked_us = 0;
	assert_int_equal(look(5), PULSE_FINE);
}

/* The main thread is in the disk's hands, or waits for who is, or for who is long at work. */
static void test_silent_for_a_reason(void **state)
{
	pulse.asked_us = 100 * S;
	slots.head->io = 1;
	assert_int_equal(look(0), PULSE_FINE);
	assert_int_equal(look(4), PULSE_FINE);
	assert_int_equal(look(5), PULSE_DISK);
	assert_int_equal(pulse.slot, THREADS);
	slots.head->io = 2;
	assert_int_equal(look(6), PULSE_SILENT);
	pulse_reset(&pulse);
	pulse.asked_us = 100 * S;
	hold(1, 77);
	io(1, 1);
	assert_int_equal(look(0), PULSE_FINE);
	assert_int_equal(look(4), PULSE_FINE);
	assert_int_equal(look(5), PULSE_DISK);
	for (unsigned t = 6; t < 100; t++) {
		io(1, t);
		assert_int_equal(look(t), PULSE_FINE);
	}
}

static void test_limits(void **state)
{
	struct pulse_limits l;

	pulse_set_limits(&l, 0);
	assert_true(l.stuck_us == 60 * S && l.disk_us == 30 * S);
	pulse_set_limits(&l, 20 * S);
	assert_true(l.stuck_us == 20 * S && l.disk_us == 10 * S && l.silent_us == 10 * S);
}

static int group_setup(void **state)
{
	int fd = slots_create(THREADS), r;

	if (fd < 0)
		return -1;
	r = slots_map(fd, &slots, NULL);
	close(fd);
	return r;
}

static int group_teardown(void **state)
{
	slots_unmap(&slots);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_idle, setup),
		cmocka_unit_test_setup(test_disk_hangs, setup),
		cmocka_unit_test_setup(test_disk_gets_on, setup),
		cmocka_unit_test_setup(test_stuck, setup),
		cmocka_unit_test_setup(test_long_work_is_not_stuck, setup),
		cmocka_unit_test_setup(test_next_request_counts_anew, setup),
		cmocka_unit_test_setup(test_silent, setup),
		cmocka_unit_test_setup(test_silent_for_a_reason, setup),
		cmocka_unit_test_setup(test_limits, setup),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

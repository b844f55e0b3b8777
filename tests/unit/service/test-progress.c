/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/progress.h"

enum {
	PATIENCE = 1000,
};

static void test_anything_that_moves(void **state)
{
	struct progress p = {};
	struct progress_sample s = {.requests = 1, .ticks = 2, .sectors = 3};

	assert_true(progress_note(&p, &s, 5000, PATIENCE)); /* the first look knows nothing */
	assert_true(progress_note(&p, &s, 6000, PATIENCE));
	assert_false(progress_note(&p, &s, 6001, PATIENCE));
	s.sectors++;
	assert_true(progress_note(&p, &s, 9000, PATIENCE));
	s.ticks++;
	assert_true(progress_note(&p, &s, 11000, PATIENCE));
	s.requests++;
	assert_true(progress_note(&p, &s, 13000, PATIENCE));
	assert_false(progress_note(&p, &s, 15000, PATIENCE));
	s.requests = 0; /* another session */
	assert_true(progress_note(&p, &s, 16000, PATIENCE));
}

/* Also one whose name looks like the fields behind it. */
static void test_processor_time(void **state)
{
	struct progress_sample before, after;
	clock_t end;

	prctl(PR_SET_NAME, "x) R 1 2 3 (y");
	progress_sample(getpid(), -1, &before);
	end = clock() + CLOCKS_PER_SEC / 10;
	while (clock() < end)
		;
	progress_sample(getpid(), -1, &after);
	assert_in_range(after.ticks, before.ticks + 1, before.ticks + 1000);
	assert_int_equal(after.sectors, 0);
}

static void test_what_cannot_be_seen(void **state)
{
	_cleanup_close_ int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	struct progress_sample s;

	assert_true(fd >= 0);
	progress_sample(-1, fd, &s); /* on no disk */
	assert_int_equal(s.ticks, 0);
	assert_int_equal(s.sectors, 0);
	progress_sample(0x7fffffff, -1, &s);
	assert_int_equal(s.ticks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anything_that_moves),
		cmocka_unit_test(test_processor_time),
		cmocka_unit_test(test_what_cannot_be_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

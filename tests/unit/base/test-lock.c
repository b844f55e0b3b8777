/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Locks between open file descriptions, as between two programs. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/lock.h"

static char path[] = "/tmp/test-lock-XXXXXX";
static struct diag diag;

static int group_setup(void **state)
{
	int fd = mkstemp(path);

	close(fd);
	return fd < 0 ? -1 : 0;
}

static int group_teardown(void **state)
{
	return unlink(path);
}

/* What a second user of the file gets while the first has it. */
static int second(bool first_writes, bool second_writes)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR), r;

	assert_int_equal(lock_image(a, path, first_writes, &diag), 0);
	r = lock_image(b, path, second_writes, &diag);
	close(a);
	close(b);
	return r;
}

static void test_matrix(void **state)
{
	assert_int_equal(second(false, false), 0);
	assert_int_equal(second(false, true), -EBUSY);
	assert_int_equal(second(true, false), -EBUSY);
	assert_int_equal(second(true, true), -EBUSY);
}

static void test_refused_leaves_nothing(void **state)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR), c = open(path, O_RDWR);

	assert_int_equal(lock_image(a, path, false, &diag), 0);
	assert_int_equal(lock_image(b, path, true, &diag), -EBUSY);
	close(a);
	assert_int_equal(lock_image(c, path, true, &diag), 0); /* b is still open */
	close(b);
	close(c);
}

/* A copy of the fd in another process keeps the lock. */
static void test_outlives_process(void **state)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR), pipe_fds[2], status;
	char c;
	pid_t pid;

	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	if (pid == 0) {
		close(pipe_fds[1]);
		_exit(read(pipe_fds[0], &c, 1) == 0 ? 0 : 1);
	}
	assert_int_equal(lock_image(a, path, true, &diag), 0);
	close(a);
	assert_int_equal(lock_image(b, path, true, &diag), -EBUSY);
	assert_non_null(strstr(diag.text, "PID")); /* named through /proc */
	close(pipe_fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(lock_image(b, path, true, &diag), 0);
	close(b);
	close(pipe_fds[0]);
}

/* QEMU's bytes: read 100, write 101, resize 103; unshared 201 and 203. */
static void test_bytes(void **state)
{
	static const int taken[] = {100, 101, 103, 201, 203}, not_taken[] = {102, 200, 202};
	int a = open(path, O_RDWR), b = open(path, O_RDWR);
	struct flock fl;

	assert_int_equal(lock_image(a, path, true, &diag), 0);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		fl = (struct flock){.l_type = F_WRLCK, .l_start = taken[i], .l_len = 1};
		assert_int_equal(fcntl(b, F_OFD_GETLK, &fl), 0);
		assert_int_equal(fl.l_type, F_RDLCK);
	}
	for (size_t i = 0; i < sizeof(not_taken) / sizeof(not_taken[0]); i++) {
		fl = (struct flock){.l_type = F_WRLCK, .l_start = not_taken[i], .l_len = 1};
		assert_int_equal(fcntl(b, F_OFD_GETLK, &fl), 0);
		assert_int_equal(fl.l_type, F_UNLCK);
	}
	close(a);
	close(b);
}

struct patience {
	unsigned calls;
	int holder;
	unsigned release_at; /* the holder lets go at this call */
	int answer;
	char why[1024];
};

static int on_waiting(void *data, const char *why)
{
	struct patience *p = data;

	strncpy(p->why, why, sizeof(p->why) - 1);
	if (++p->calls == p->release_at)
		close(p->holder);
	return p->answer;
}

static void test_waits(void **state)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR);
	struct patience p = {.holder = a, .release_at = 3};
	const struct lock_wait wait = {.seconds = 60, .waiting = on_waiting, .data = &p};

	assert_int_equal(lock_image(a, path, true, &diag), 0);
	assert_int_equal(lock_image_wait(b, path, true, &wait, &diag), 0);
	assert_int_equal(p.calls, 3);
	assert_non_null(strstr(p.why, path));
	assert_non_null(strstr(p.why, "is in use"));
	close(b);
}

static void test_wait_ends(void **state)
{
	int a = open(path, O_RDWR), b = open(path, O_RDWR);
	struct patience p = {.answer = -ECANCELED};
	struct lock_wait wait = {.seconds = 60, .waiting = on_waiting, .data = &p};

	assert_int_equal(lock_image(a, path, true, &diag), 0);
	assert_int_equal(lock_image_wait(b, path, true, &wait, &diag), -ECANCELED);
	assert_int_equal(p.calls, 1);
	assert_non_null(strstr(diag.text, "no longer waiting"));
	p.answer = 0;
	wait.seconds = 1;
	assert_int_equal(lock_image_wait(b, path, true, &wait, &diag), -EBUSY);
	assert_in_range(p.calls, 8, 12);
	wait.waiting = NULL;
	assert_int_equal(lock_image_wait(b, path, true, &wait, &diag), -EBUSY);
	close(a);
	close(b);
}

/* Another process has the file open, too, and comes first in /proc: it is not the one. */
static void test_names_the_one_with_the_lock(void **state)
{
	int to[2], from[2], status;
	pid_t bystander, holder;
	char name[32], c;
	int b;

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	bystander = fork();
	if (bystander == 0) {
		close(to[1]);
		_exit(open(path, O_RDWR) < 0 || write(from[1], "x", 1) != 1 || read(to[0], &c, 1));
	}
	assert_int_equal(read(from[0], &c, 1), 1);
	holder = fork();
	if (holder == 0) {
		close(to[1]);
		b = open(path, O_RDWR);
		_exit(lock_image(b, path, true, NULL) < 0 || write(from[1], "x", 1) != 1 ||
		      read(to[0], &c, 1));
	}
	assert_int_equal(read(from[0], &c, 1), 1);
	b = open(path, O_RDWR);
	assert_int_equal(lock_image(b, path, false, &diag), -EBUSY);
	snprintf(name, sizeof(name), "(PID %d,", holder);
	assert_non_null(strstr(diag.text, name));
	close(b);
	close(to[1]);
	assert_int_equal(waitpid(bystander, &status, 0), bystander);
	assert_int_equal(status, 0);
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_int_equal(status, 0);
	close(to[0]);
	close(from[0]);
	close(from[1]);
}

/* From one open file description to another, with others outside all the time. */
static void test_moves(void **state)
{
	int from = open(path, O_RDONLY), to = open(path, O_RDWR), other = open(path, O_RDWR);

	assert_int_equal(lock_image(from, path, false, &diag), 0);
	assert_int_equal(lock_move(from, false, to, path, &diag), 0);
	close(from);
	assert_int_equal(lock_image(other, path, false, &diag), -EBUSY);
	from = open(path, O_RDONLY);
	assert_int_equal(lock_move(to, true, from, path, &diag), 0);
	close(to);
	/* For reading only now: another reader is welcome, and keeps us from writing again */
	assert_int_equal(lock_image(other, path, false, &diag), 0);
	to = open(path, O_RDWR);
	assert_int_equal(lock_move(from, false, to, path, &diag), -EBUSY);
	close(to);
	to = open(path, O_RDWR);
	close(other);
	assert_int_equal(lock_image(to, path, true, &diag), -EBUSY); /* by what `from` still has */
	close(from);
	assert_int_equal(lock_image(to, path, true, &diag), 0);
	close(to);
}

/* Holds on to what it has inherited until `to` is closed. */
static pid_t keeper(const char *name, const int from[2], const int to[2])
{
	pid_t pid = fork();
	char c;

	if (pid == 0) {
		close(to[1]);
		prctl(PR_SET_NAME, name);
		_exit(write(from[1], "x", 1) != 1 || read(to[0], &c, 1));
	}
	assert_int_equal(read(from[0], &c, 1), 1);
	return pid;
}

static void assert_held_by(pid_t pid)
{
	int fd = open(path, O_RDWR);
	char name[32];

	assert_int_equal(lock_image(fd, path, false, &diag), -EBUSY);
	snprintf(name, sizeof(name), "(PID %d,", pid);
	assert_non_null(strstr(diag.text, name));
	close(fd);
}

/* systemd has all files of a service in store; whoever uses them is the one to be stopped. */
static void test_service_manager_is_not_accused(void **state)
{
	int from[2], to[2], of_holder[2], a = open(path, O_RDWR);
	pid_t manager, holder;

	assert_int_equal(lock_image(a, path, true, NULL), 0);
	assert_int_equal(pipe(from), 0);
	assert_int_equal(pipe(to), 0);
	manager = keeper("systemd", from, to);
	assert_int_equal(pipe(of_holder), 0);
	holder = keeper("holder", from, of_holder);
	close(a);
	assert_held_by(holder);
	close(of_holder[1]);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	assert_held_by(manager);
	close(to[1]);
	assert_int_equal(waitpid(manager, NULL, 0), manager);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matrix),
		cmocka_unit_test(test_refused_leaves_nothing),
		cmocka_unit_test(test_outlives_process),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_wait_ends),
		cmocka_unit_test(test_names_the_one_with_the_lock),
		cmocka_unit_test(test_service_manager_is_not_accused),
	};

	return cmocka_run_group_tests_name("lock", tests, group_setup, group_teardown);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Both ways to a successor. The program that is executed is this one. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/handover.h"

static int memory(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static int says(int fd, const char *text)
{
	char buf[32] = "";

	return fd > 2 && pread(fd, buf, sizeof(buf) - 1, 0) >= 0 && strcmp(buf, text) == 0 &&
	       fcntl(fd, F_GETFD) == FD_CLOEXEC;
}

/* In the successor: exit status 0 when all is as it was sent. */
static int successor(void)
{
	struct handover h;
	char rest[HANDOVER_NAME_MAX];
	int a, b, c;

	if (!handover_expected())
		return 10;
	handover_receive(&h);
	if (handover_expected() || getenv("FUSEIMG_HANDOVER") || getenv("LISTEN_FDS"))
		return 11;
	a = handover_take(&h, "life");
	b = handover_take_prefix(&h, "slots-", rest);
	c = handover_find(&h, "image-w");
	if (!says(a, "one") || !says(b, "two") || !says(c, "three") || strcmp(rest, "17") != 0)
		return 12;
	if (handover_take(&h, "life") >= 0 || handover_take(&h, "image") >= 0 ||
	    handover_take(&h, "") >= 0)
		return 13;
	handover_done(&h);
	return fcntl(c, F_GETFD) < 0 && says(a, "one") ? 0 : 14;
}

static void fill(struct handover *h)
{
	*h = (struct handover){};
	handover_add(h, memory("one"), "life");
	handover_add(h, memory("two"), "slots-%d", 17);
	handover_add(h, -1, "nothing");
	handover_add(h, memory("three"), "image-%s", "w");
	assert_int_equal(h->n, 3);
}

static char *const argv_successor[] = {(char[]){"test"}, (char[]){"successor"}, NULL};

static void expect_good_end(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_by_exec(void **state)
{
	struct handover h;
	pid_t pid;

	fill(&h);
	pid = fork();
	if (pid == 0) {
		handover_exec(&h, "/proc/self/exe", argv_successor);
		_exit(99);
	}
	expect_good_end(pid);
	handover_done(&h);
}

static void test_failed_exec(void **state)
{
	struct handover h;

	fill(&h);
	assert_int_equal(handover_exec(&h, "/nonexistent", argv_successor), -ENOENT);
	assert_null(getenv("FUSEIMG_HANDOVER"));
	for (unsigned i = 0; i < h.n; i++)
		assert_int_equal(fcntl(h.fds[i].fd, F_GETFD), FD_CLOEXEC);
	handover_done(&h);
}

static void test_from_the_store(void **state)
{
	struct handover h;
	pid_t pid;

	fill(&h);
	pid = fork();
	if (pid == 0) {
		char text[16];

		/* In another order than they were stored, as systemd does */
		for (int i = 0; i < 3; i++)
			dup2(h.fds[2 - i].fd, 50 + i);
		for (int i = 0; i < 3; i++)
			dup2(50 + i, 3 + i);
		snprintf(text, sizeof(text), "%d", (int)getpid());
		setenv("LISTEN_PID", text, 1);
		setenv("LISTEN_FDS", "3", 1);
		setenv("LISTEN_FDNAMES", "image-w:slots-17:life", 1);
		execv("/proc/self/exe", argv_successor);
		_exit(99);
	}
	expect_good_end(pid);
	handover_done(&h);
}

/* Not for this process, or not what anybody wrote: nothing is taken, nothing closed. */
static void test_strange_environment(void **state)
{
	char text[4096];
	struct handover h;
	int fd = memory("mine");

	snprintf(text, sizeof(text), "%d life=%d", (int)getpid() + 1, fd);
	setenv("FUSEIMG_HANDOVER", text, 1);
	assert_false(handover_expected());
	handover_receive(&h);
	assert_int_equal(h.n, 0);

	snprintf(text, sizeof(text), "%dx life=%d", (int)getpid(), fd);
	setenv("FUSEIMG_HANDOVER", text, 1);
	handover_receive(&h);
	assert_int_equal(h.n, 0);

	snprintf(text, sizeof(text),
		 "%d life=2 =%d name-that-is-much-too-long-for-us=%d life=-1 life=100000",
		 (int)getpid(), fd, fd);
	setenv("FUSEIMG_HANDOVER", text, 1);
	handover_receive(&h);
	assert_int_equal(h.n, 0);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
}

/* A child that is to prepare a reload is not meant to go on with anything. */
static void test_half_a_session(void **state)
{
	char text[64];
	int fd = memory("state");
	struct handover h;

	snprintf(text, sizeof(text), "%d state=%d offer=%d", (int)getpid(), fd, fd);
	setenv("FUSEIMG_HANDOVER", text, 1);
	assert_false(handover_expected());
	handover_receive(&h);
	assert_int_equal(handover_find(&h, "state"), fd);
	close(fd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_exec),	       cmocka_unit_test(test_failed_exec),
		cmocka_unit_test(test_from_the_store), cmocka_unit_test(test_strange_environment),
		cmocka_unit_test(test_half_a_session),
	};

	if (argc == 2 && strcmp(argv[1], "successor") == 0)
		return successor();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

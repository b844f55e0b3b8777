/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/notify.h"

/* The service manager's end; name as in NOTIFY_SOCKET. */
static int manager(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = strlen(name);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	memcpy(a.sun_path, name, n);
	if (name[0] == '@')
		a.sun_path[0] = '\0';
	n += offsetof(struct sockaddr_un, sun_path) + (name[0] == '/');
	assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)n), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void expect(int fd, const char *text)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	assert_true(n >= 0);
	buf[n] = '\0';
	assert_string_equal(buf, text);
}

static void test_nobody_listens(void **state)
{
	static const char *const names[] = {"",		"/",	     "@",
					    "relative", "vsock:2:1", "/nonexistent/x"};
	struct notify n;

	unsetenv("NOTIFY_SOCKET");
	notify_init(&n);
	assert_int_equal(n.fd, -1);
	assert_int_equal(notify_send(&n, "READY=1"), 0);
	assert_int_equal(notify_state(&n, "READY=1"), 0);
	notify_done(&n);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		setenv("NOTIFY_SOCKET", names[i], 1);
		notify_init(&n);
		assert_int_equal(n.fd, -1);
	}
}

static void test_both_kinds_of_address(void **state)
{
	char dir[] = "/tmp/fuseimg-notify-XXXXXX", path[64], abstract[64];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(abstract, sizeof(abstract), "@fuseimg-test-notify-%d", getpid());
	for (int i = 0; i < 2; i++) {
		_cleanup_close_ int fd = manager(i ? abstract : path);
		_cleanup_(notify_done) struct notify n;

		notify_init(&n);
		assert_true(n.fd >= 0);
		assert_int_equal(notify_state(&n, "READY=%d", 1), 0);
		expect(fd, "READY=1");
		assert_int_equal(notify_send(&n, "STATUS=%s\nX=y", "fine"), 0);
		expect(fd, "STATUS=fine\nX=y");
	}
	unlink(path);
	rmdir(dir);
}

/* Receives a message of this text with n descriptors, and closes these. false: none has come. */
static bool take_fds(int fd, const char *text, size_t n)
{
	char buf[64], control[256];
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t len = recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
	int got[2];

	if (len < 0)
		return false;
	assert_int_equal(len, strlen(text));
	assert_memory_equal(buf, text, (size_t)len);
	assert_non_null(c);
	assert_int_equal(c->cmsg_type, SCM_RIGHTS);
	assert_int_equal(c->cmsg_len, CMSG_LEN(n * sizeof(int)));
	memcpy(got, CMSG_DATA(c), n * sizeof(int));
	for (size_t i = 0; i < n; i++)
		close(got[i]);
	return true;
}

static void test_descriptors(void **state)
{
	_cleanup_(notify_done) struct notify n;
	_cleanup_close_ int fd = -1;
	int fds[2] = {0, 2};
	char name[64];

	snprintf(name, sizeof(name), "@fuseimg-test-fds-%d", getpid());
	fd = manager(name);
	notify_init(&n);
	assert_int_equal(notify_send_fds(&n, fds, 2, "FDSTORE=1\nFDNAME=x"), 0);
	assert_true(take_fds(fd, "FDSTORE=1\nFDNAME=x", 2));
}

/* A manager that does not read holds nobody up. */
static void test_full_queue(void **state)
{
	_cleanup_(notify_done) struct notify n;
	_cleanup_close_ int fd = -1;
	char name[64];
	int r = 0;

	snprintf(name, sizeof(name), "@fuseimg-test-full-%d", getpid());
	fd = manager(name);
	notify_init(&n);
	for (int i = 0; r == 0 && i < 100000; i++)
		r = notify_send(&n, "STATUS=%d", i);
	assert_int_equal(r, -EAGAIN);
	assert_false(n.deaf);
	assert_int_equal(notify_state(&n, "READY=1"), -EAGAIN);
	assert_true(n.deaf); /* the next ones do not wait: this would take a quarter of an hour */
	for (int i = 0; i < 1000; i++)
		assert_int_equal(notify_state(&n, "READY=1"), -EAGAIN);
	expect(fd, "STATUS=0");
	assert_int_equal(notify_state(&n, "READY=1"), 0);
	assert_false(n.deaf);
}

/* What the manager undoes; a pair is never cut in two. */
static void test_backslashes(void **state)
{
	_cleanup_(notify_done) struct notify n;
	_cleanup_close_ int fd = -1;
	char name[64], many[8192], buf[8192];
	ssize_t len;

	snprintf(name, sizeof(name), "@fuseimg-test-backslashes-%d", getpid());
	fd = manager(name);
	notify_init(&n);
	assert_int_equal(notify_state(&n, "READY=1\nSTATUS=%s\nX=y", "a\\x2db\\"), 0);
	expect(fd, "READY=1\nSTATUS=a\\\\x2db\\\\\nX=y");
	memset(many, '\\', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	for (int odd = 0; odd < 2; odd++) {
		assert_int_equal(notify_send(&n, odd ? "x%s" : "%s", many), 0);
		len = read(fd, buf, sizeof(buf));
		assert_in_range(len, 4000, 4096); /* systemd takes no more */
		assert_int_equal((len - odd) % 2, 0);
	}
}

static void test_barrier(void **state)
{
	_cleanup_(notify_done) struct notify n;
	_cleanup_close_ int fd = -1;
	char name[64];
	int status;
	pid_t pid;

	unsetenv("NOTIFY_SOCKET");
	notify_init(&n);
	assert_int_equal(notify_barrier(&n, 0), 0);
	snprintf(name, sizeof(name), "@fuseimg-test-barrier-%d", getpid());
	fd = manager(name);
	notify_init(&n);
	assert_int_equal(notify_barrier(&n, 50), -ETIME);
	assert_true(take_fds(fd, "BARRIER=1", 1));
	pid = fork();
	if (pid == 0)
		_exit(notify_barrier(&n, 10000) != 0);
	while (!take_fds(fd, "BARRIER=1", 1))
		usleep(1000);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_watchdog(void **state)
{
	_cleanup_close_ int fd = -1;
	char name[64], pid[16];
	struct notify n;

	snprintf(name, sizeof(name), "@fuseimg-test-dog-%d", getpid());
	fd = manager(name);
	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("WATCHDOG_USEC", "30000000", 1);
	unsetenv("WATCHDOG_PID");
	notify_init(&n);
	assert_true(n.watchdog_us == 30000000);
	notify_done(&n);
	setenv("WATCHDOG_PID", pid, 1);
	notify_init(&n);
	assert_true(n.watchdog_us == 30000000);
	notify_done(&n);
	setenv("WATCHDOG_PID", "1", 1);
	notify_init(&n);
	assert_true(n.watchdog_us == 0);
	notify_done(&n);
	unsetenv("WATCHDOG_PID");
	setenv("WATCHDOG_USEC", "soon", 1);
	notify_init(&n);
	assert_true(n.watchdog_us == 0);
	notify_done(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody_listens), cmocka_unit_test(test_both_kinds_of_address),
		cmocka_unit_test(test_descriptors),    cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_backslashes),    cmocka_unit_test(test_barrier),
		cmocka_unit_test(test_watchdog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

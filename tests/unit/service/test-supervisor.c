/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The supervisor and a worker that misbehaves on demand (fake-worker.c, named by FUSEIMG_WORKER in
 * the test's environment). Each run is a child of ours, with real mounts.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mounts.h"
#include "service/core.h"
#include "service/supervisor.h"

enum {
	WAIT_MS = 60000,
};

static char dir[] = "/tmp/fuseimg-supervisor-XXXXXX";
static char image[64], target[64], log_path[64], control[64];

/* What the run's ready function was told, and what the run returned. */
struct word {
	bool ready; /* else: the end */
	struct diag diag;
};

struct run {
	pid_t pid;
	int pipe;
};

static void tell(int fd, bool ready, int error, const char *text)
{
	struct word w = {.ready = ready, .diag = {.error = error}};

	snprintf(w.diag.text, sizeof(w.diag.text), "%s", text);
	if (write(fd, &w, sizeof(w)) != (ssize_t)sizeof(w))
		_exit(60);
}

static void on_ready(void *data, int error, const struct diag *diag)
{
	tell(*(int *)data, true, error, diag->text);
}

static void __attribute__((noreturn)) run_child(int fd)
{
	struct config c;
	struct diag diag = {0};
	const struct supervisor_options options = {
		.config = &c, .target = target, .ready = on_ready, .ready_data = &fd};
	int log = open(log_path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600), r;

	dup2(log, STDERR_FILENO);
	log_init("test", LOG_TO_STDERR);
	if (config_init(&c) < 0 || config_set(&c, "image", image, NULL) < 0 ||
	    config_set(&c, "threads", "1", NULL) < 0)
		_exit(61);
	r = supervisor_run(&options, &diag);
	tell(fd, false, r, diag.text);
	config_done(&c);
	_exit(0);
}

/* Starts an export whose worker acts like this. */
static struct run start(const char *act)
{
	_cleanup_fclose_ FILE *f = fopen(image, "we");
	struct run run;
	int fds[2];

	assert_non_null(f);
	fprintf(f, "%s\n", act);
	fflush(f);
	assert_int_equal(ftruncate(fileno(f), 1 << 20), 0);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	run.pid = fork();
	assert_true(run.pid >= 0);
	if (run.pid == 0)
		run_child(fds[1]);
	close(fds[1]);
	run.pipe = fds[0];
	return run;
}

static void expect(struct run *run, bool ready, int error, const char *words)
{
	struct pollfd p = {.fd = run->pipe, .events = POLLIN};
	struct word w;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(run->pipe, &w, sizeof(w)), sizeof(w));
	if (w.ready != ready || w.diag.error != error || (words && !strstr(w.diag.text, words)))
		fail_msg("%s: %d \"%s\"", w.ready ? "ready" : "end", w.diag.error, w.diag.text);
}

/* The end of the run: its result, nothing mounted, no process left. */
static void expect_end(struct run *run, int error, const char *words)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	int status = 0;

	expect(run, false, error, words);
	assert_int_equal(waitpid(run->pid, &status, 0), run->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(run->pipe);
	assert_int_equal(mounts_read(&m), 0);
	assert_null(mounts_at(&m, target));
}

/* Neither became ready. */
static void expect_no_start(const char *act, int error, const char *words)
{
	struct run run = start(act);

	expect(&run, true, error, words);
	expect_end(&run, error, words);
}

static bool logged(const char *words)
{
	_cleanup_fclose_ FILE *f = fopen(log_path, "re");
	char line[4096];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, words))
			return true;
	return false;
}

static void wait_for_log(const char *words)
{
	const struct timespec pause = {.tv_nsec = 10000000};

	for (int i = 0; i < WAIT_MS / 10; i++, nanosleep(&pause, NULL))
		if (logged(words))
			return;
	fail_msg("\"%s\" was not logged", words);
}

/* Before that it would end the child. */
static void wait_until_blocked(pid_t pid, int number)
{
	char path[64], line[4096];
	unsigned long long blocked = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	for (int i = 0; i < WAIT_MS && !(blocked >> (number - 1) & 1); i++, usleep(1000)) {
		_cleanup_fclose_ FILE *f = fopen(path, "re");

		assert_non_null(f);
		while (fgets(line, sizeof(line), f))
			(void)sscanf(line, "SigBlk: %llx", &blocked);
	}
	assert_true(blocked >> (number - 1) & 1);
}

static int group_setup(void **state)
{
	int fd;

	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	snprintf(target, sizeof(target), "%s/disk", dir);
	snprintf(control, sizeof(control), "%s/control", dir);
	snprintf(log_path, sizeof(log_path), "%s/log", dir);
	fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : close(fd);
}

static int group_teardown(void **state)
{
	umount2(target, MNT_DETACH); /* of a test that failed */
	unlink(image);
	unlink(target);
	unlink(log_path);
	return rmdir(dir);
}

static void test_worker_reports_a_bad_image(void **state)
{
	expect_no_start("fail", -EUCLEAN, "header \\x1b[31m is bad");
}

static void test_worker_dies_while_opening(void **state)
{
	expect_no_start("die", -EIO, "SIGABRT while it opened the image");
}

static void test_worker_breaks_the_protocol(void **state)
{
	expect_no_start("early-done", -EIO, "spoke out of turn");
	expect_no_start("garbage", -EIO, "malformed message");
	expect_no_start("send-fd", -EIO, "sent descriptors");
	expect_no_start("ask-endless", -EIO, NULL); /* for one of two reasons */
}

static void test_worker_wants_what_it_must_not(void **state)
{
	expect_no_start("ask-foreign", -EACCES, "not given");
	expect_no_start("ask-write", -EACCES, "only to be read");
}

static void test_stopped_before_ready(void **state)
{
	const struct timespec pause = {.tv_nsec = 200000000};
	struct run run = start("hang");

	wait_until_blocked(run.pid, SIGTERM);
	nanosleep(&pause, NULL); /* it should have come to its worker, which hangs */
	kill(run.pid, SIGTERM);
	expect(&run, true, -ECANCELED, "before it was ready");
	expect_end(&run, -ECANCELED, NULL);
}

static void test_orderly_end(void **state)
{
	struct run run = start("orderly");

	expect(&run, true, 0, NULL);
	kill(run.pid, SIGTERM);
	expect_end(&run, 0, NULL);
	assert_true(logged("a \\x1b[31mred\\x1b[0m message at byte 512: Input/output error"));
	assert_true(logged("fake\\x1b"));
}

static void test_flood_of_messages_is_limited(void **state)
{
	_cleanup_fclose_ FILE *f = NULL;
	struct run run = start("orderly");
	unsigned n = 0;
	char line[4096];

	expect(&run, true, 0, NULL);
	kill(run.pid, SIGTERM);
	expect_end(&run, 0, NULL);
	f = fopen(log_path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, "message at byte") != NULL;
	assert_in_range(n, 1, 20);
}

static void test_outside_unmount_is_orderly(void **state)
{
	struct run run = start("orderly");

	expect(&run, true, 0, NULL);
	assert_int_equal(umount2(target, 0), 0);
	expect_end(&run, 0, NULL);
}

static void test_failed_flush_is_the_outcome(void **state)
{
	struct run run = start("bad-flush");

	expect(&run, true, 0, NULL);
	kill(run.pid, SIGTERM);
	expect_end(&run, -EIO, "the flush failed");
}

static void test_waits_for_users(void **state)
{
	struct run run = start("orderly");
	char me[64];
	int fd;

	expect(&run, true, 0, NULL);
	fd = open(target, O_PATH | O_CLOEXEC); /* asks nobody, and is in the way of an unmount */
	assert_true(fd >= 0);
	kill(run.pid, SIGTERM);
	snprintf(me, sizeof(me), "(pid %d)", getpid());
	wait_for_log(me);
	kill(run.pid, SIGTERM); /* does not change its mind */
	close(fd);
	expect_end(&run, 0, NULL);
}

static void test_poison_request(void **state)
{
	struct run run = start("poison");
	struct stat st;

	expect(&run, true, 0, NULL);
	assert_int_equal(stat(target, &st), -1);
	assert_int_equal(errno, EIO);
	assert_true(logged("poison request"));
	kill(run.pid, SIGTERM);
	expect_end(&run, 0, NULL);
}

/* A service manager that never reads, and wants a sign of life every second. */
static int be_manager(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char name[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int n = snprintf(name, sizeof(name), "@fuseimg-test-supervisor-%d", getpid());

	memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
	n += (int)offsetof(struct sockaddr_un, sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)n), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	setenv("WATCHDOG_USEC", "1000000", 1);
	return fd;
}

/* Worker after worker does not get on with it, and each is told from a disk that hangs. */
static void test_request_that_hangs_every_worker(void **state)
{
	int fd = be_manager();
	struct run run = start("stuck");
	struct stat st;

	expect(&run, true, 0, NULL);
	assert_int_equal(stat(target, &st), -1);
	assert_int_equal(errno, EIO);
	assert_true(logged("did not get on with a request"));
	assert_true(logged("poison request"));
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	close(fd);
	kill(run.pid, SIGTERM);
	expect_end(&run, 0, NULL);
}

static void test_gives_up(void **state)
{
	struct run run = start("poison");
	struct stat st;
	int r = 0;

	expect(&run, true, 0, NULL);
	for (int i = 0; i < 6; i++)
		r = stat(target, &st);
	assert_int_equal(r, -1);
	expect_end(&run, -EIO, "too many workers died");
}

static void test_reopen_is_tried_again(void **state)
{
	struct run run = start("reopen");

	expect(&run, true, 0, NULL);
	wait_for_log("the next worker");
	assert_true(logged("header \\x1b[31m is bad"));
	kill(run.pid, SIGTERM);
	expect_end(&run, 0, NULL);
}

/* Nobody serves at this moment; the next worker finds the connection ended, and closes the image.
 */
static void test_unmounted_between_two_workers(void **state)
{
	struct run run = start("reopen");

	expect(&run, true, 0, NULL);
	wait_for_log("trying again");
	assert_int_equal(umount2(target, 0), 0);
	expect_end(&run, 0, NULL);
	assert_true(logged("the next worker"));
}

/* What an administrator does to a mount that hangs. */
static void test_aborted_connection(void **state)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	const struct mounts_entry *e;
	struct run run = start("orderly");
	char path[128];
	int fd;

	expect(&run, true, 0, NULL);
	assert_int_equal(mounts_read(&m), 0);
	e = mounts_at(&m, target);
	assert_non_null(e);
	assert_int_equal(mkdir(control, 0700), 0);
	assert_int_equal(mount("none", control, "fusectl", 0, NULL), 0);
	snprintf(path, sizeof(path), "%s/%u/abort", control, minor(e->dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(umount2(control, MNT_DETACH), 0);
	assert_int_equal(rmdir(control), 0);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
	expect_end(&run, -ECONNABORTED, "aborted");
}

static void test_reopen_never_works(void **state)
{
	struct run run = start("reopen-never");

	expect(&run, true, 0, NULL);
	expect_end(&run, -EUCLEAN, "given up");
}

static void test_missing_worker(void **state)
{
	char saved[4096];

	snprintf(saved, sizeof(saved), "%s", getenv("FUSEIMG_WORKER") ?: "");
	setenv("FUSEIMG_WORKER", "/nonexistent/worker", 1);
	expect_no_start("orderly", -ENOENT, "/nonexistent/worker");
	setenv("FUSEIMG_WORKER", saved, 1);
}

/* While a child of the supervisor's lives, others must see the end of all that they wait for. */
static void test_children_hold_nothing(void **state)
{
	struct supervisor s = {.session = {.n = 1}};
	int life[2], fuse[2], clone[2], status;
	struct pollfd ends[3];
	pid_t pid;

	assert_int_equal(pipe(life), 0);
	assert_int_equal(pipe(fuse), 0);
	assert_int_equal(pipe(clone), 0);
	s.life_write = life[1];
	s.session.fd = fuse[1];
	s.session.thread_fds[0] = clone[1];
	s.session.slots_fd = -1;
	pid = supervisor_fork(&s);
	assert_true(pid >= 0);
	if (pid == 0)
		pause();
	close(life[1]);
	session_close(&s.session);
	ends[0] = (struct pollfd){.fd = life[0]};
	ends[1] = (struct pollfd){.fd = fuse[0]};
	ends[2] = (struct pollfd){.fd = clone[0]};
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		assert_int_equal(poll(&ends[i], 1, WAIT_MS), 1);
		assert_true(ends[i].revents & POLLHUP);
		close(ends[i].fd);
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_worker_reports_a_bad_image),
		cmocka_unit_test(test_worker_dies_while_opening),
		cmocka_unit_test(test_worker_breaks_the_protocol),
		cmocka_unit_test(test_worker_wants_what_it_must_not),
		cmocka_unit_test(test_stopped_before_ready),
		cmocka_unit_test(test_missing_worker),
		cmocka_unit_test(test_orderly_end),
		cmocka_unit_test(test_flood_of_messages_is_limited),
		cmocka_unit_test(test_outside_unmount_is_orderly),
		cmocka_unit_test(test_failed_flush_is_the_outcome),
		cmocka_unit_test(test_waits_for_users),
		cmocka_unit_test(test_poison_request),
		cmocka_unit_test(test_request_that_hangs_every_worker),
		cmocka_unit_test(test_gives_up),
		cmocka_unit_test(test_reopen_is_tried_again),
		cmocka_unit_test(test_unmounted_between_two_workers),
		cmocka_unit_test(test_aborted_connection),
		cmocka_unit_test(test_reopen_never_works),
		cmocka_unit_test(test_children_hold_nothing),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0)
		return 77; /* nothing can be mounted here: skipped */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

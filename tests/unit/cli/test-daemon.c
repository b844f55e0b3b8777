/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mounts.h"
#include "cli/daemon.h"

/*
 * A supervisor in the place of the real one, which does what the target's name says. What it saw of
 * its process it writes to the pipe fake_out, which it opens anew: it has inherited nothing.
 */
struct fake_seen {
	pid_t pid;
	bool leader;   /* of its own session */
	bool at_root;  /* working directory */
	bool no_stdio; /* 0, 1 and 2 are /dev/null */
	bool blocked;  /* SIGTERM waits until it is asked for */
	bool told;     /* SIGTERM came */
	unsigned fds;  /* how many descriptors it has beside these */
};

static int fake_out[2];

static bool fake_is_null(int fd)
{
	struct stat st, null;

	return fstat(fd, &st) == 0 && stat("/dev/null", &null) == 0 && st.st_rdev == null.st_rdev;
}

static unsigned fake_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	unsigned n = 0;

	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.' && atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(dir);
	if (dir)
		closedir(dir);
	return n;
}

static int fake_open_out(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getppid(), fake_out[1]);
	return open(path, O_WRONLY | O_CLOEXEC);
}

static struct fake_seen fake_look(void)
{
	char cwd[16] = "";
	sigset_t set;

	sigprocmask(SIG_BLOCK, NULL, &set);
	return (struct fake_seen){
		.pid = getpid(),
		.leader = getsid(0) == getpid(),
		.at_root = getcwd(cwd, sizeof(cwd)) && strcmp(cwd, "/") == 0,
		.no_stdio = fake_is_null(0) && fake_is_null(1) && fake_is_null(2),
		.blocked = sigismember(&set, SIGTERM) == 1,
		.fds = fake_count_fds(),
	};
}

static void fake_await_term(struct fake_seen *seen)
{
	const struct timespec limit = {.tv_sec = 60};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	seen->told = sigtimedwait(&set, NULL, &limit) == SIGTERM;
}

/* A mount whose connection goes with its process. */
static void fake_mount(const char *target)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char words[64];

	snprintf(words, sizeof(words), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (fd < 0 || mount("image", target, MOUNTS_OURS, MS_NOSUID | MS_NODEV, words) < 0)
		_exit(1);
}

int supervisor_run(const struct supervisor_options *options, struct diag *diag)
{
	struct fake_seen seen = fake_look();
	_cleanup_close_ int out = fake_open_out();
	struct diag refused = {};

	if (strcmp(options->target, "/dies") == 0)
		_exit(9);
	if (strncmp(options->target, "/tmp/", 5) == 0) {
		fake_mount(options->target);
		_exit(9);
	}
	if (strcmp(options->target, "/refused") == 0) {
		diag_set(&refused, -ENOENT, "no image");
		options->ready(options->ready_data, -ENOENT, &refused);
		return diag_set(diag, -ENOENT, "no image");
	}
	if (strcmp(options->target, "/refused-late") == 0)
		return diag_set(diag, -EIO, "said only at the end");
	if (strcmp(options->target, "/slow") == 0) {
		fake_await_term(&seen);
	} else {
		options->ready(options->ready_data, 0, NULL);
		options->ready(options->ready_data, 0, NULL); /* once is enough, twice no harm */
	}
	return write(out, &seen, sizeof(seen)) == sizeof(seen) ? 0 : -EIO;
}

static int start(const char *target, struct diag *diag)
{
	const struct supervisor_options options = {.target = target};

	return daemon_start(&options, diag);
}

static struct fake_seen seen_by_child(void)
{
	struct fake_seen seen = {};

	assert_int_equal(read(fake_out[0], &seen, sizeof(seen)), sizeof(seen));
	return seen;
}

static void test_success_leaves_a_daemon(void **state)
{
	struct fake_seen seen;

	assert_int_equal(start("/fine", NULL), 0);
	seen = seen_by_child();
	assert_true(seen.leader);
	assert_true(seen.at_root);
	assert_true(seen.no_stdio);
	assert_true(seen.blocked);
	assert_int_equal(seen.fds, 1); /* by which it reports */
	assert_int_equal(waitpid(seen.pid, NULL, 0), seen.pid);
}

/* Whatever number the descriptor to report by has, it is found and kept. */
static void test_descriptors_of_the_caller_are_left(void **state)
{
	int saved[3], low[2];
	struct fake_seen seen;

	low[0] = open("/dev/zero", O_RDONLY);
	low[1] = dup2(low[0], 200);
	assert_int_equal(start("/fine", NULL), 0);
	seen = seen_by_child();
	assert_int_equal(seen.fds, 1);
	close(low[0]);
	close(low[1]);
	assert_int_equal(waitpid(seen.pid, NULL, 0), seen.pid);

	for (int fd = 0; fd < 3; fd++) { /* a caller without any of them */
		saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		close(fd);
	}
	seen = (struct fake_seen){};
	if (start("/fine", NULL) == 0)
		seen = seen_by_child();
	for (int fd = 0; fd < 3; fd++) {
		dup2(saved[fd], fd);
		close(saved[fd]);
	}
	assert_true(seen.no_stdio);
	assert_int_equal(seen.fds, 1);
	assert_int_equal(waitpid(seen.pid, NULL, 0), seen.pid);
}

static void test_the_sentence_of_a_failure_comes_back(void **state)
{
	struct diag diag = {};

	assert_int_equal(start("/refused", &diag), -ENOENT);
	assert_string_equal(diag.text, "no image");
	assert_int_equal(start("/refused-late", &diag), -EIO);
	assert_string_equal(diag.text, "said only at the end");
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
}

static void test_a_death_is_noticed(void **state)
{
	struct diag diag = {};

	assert_int_equal(start("/dies", &diag), -EPROTO);
	assert_non_null(strstr(diag.text, "/dies"));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* From here on the process has a mount namespace of its own. */
static void test_a_death_leaves_no_mount(void **state)
{
	_cleanup_(mounts_done) struct mounts m = {};
	char target[] = "/tmp/test-daemon-XXXXXX";
	struct diag diag = {};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0 || unshare(CLONE_NEWNS) < 0)
		skip();
	assert_return_code(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), errno);
	assert_non_null(mkdtemp(target));
	assert_int_equal(start(target, &diag), -EPROTO);
	assert_non_null(strstr(diag.text, "died at its start"));
	assert_return_code(mounts_read(&m), 0);
	assert_null(mounts_at(&m, target));
	assert_return_code(rmdir(target), errno);
}

static void test_an_interrupt_ends_the_child(void **state)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGINT};
	const struct itimerspec soon = {.it_value.tv_nsec = 50 * 1000 * 1000};
	struct fake_seen seen;
	struct diag diag = {};
	timer_t timer;

	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	assert_int_equal(timer_settime(timer, 0, &soon, NULL), 0);
	assert_int_equal(start("/slow", &diag), -EINTR);
	timer_delete(timer);
	seen = seen_by_child();
	assert_true(seen.told);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success_leaves_a_daemon),
		cmocka_unit_test(test_descriptors_of_the_caller_are_left),
		cmocka_unit_test(test_the_sentence_of_a_failure_comes_back),
		cmocka_unit_test(test_a_death_is_noticed),
		cmocka_unit_test(test_a_death_leaves_no_mount),
		cmocka_unit_test(test_an_interrupt_ends_the_child),
	};

	if (pipe(fake_out) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

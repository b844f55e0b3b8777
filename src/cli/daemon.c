/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "service/target.h"

/*
 * The child blocks the signals that end it from before it exists, and the supervisor takes them
 * from its event loop: an interrupt can come at no moment that leaves a mount without its process.
 */
static const int daemon_signals[] = {SIGINT, SIGTERM, SIGHUP};

static volatile sig_atomic_t daemon_interrupts;

static void daemon_on_signal(int signal)
{
	daemon_interrupts++;
}

/* The child. */

static void daemon_report(void *data, int error, const struct diag *diag)
{
	struct diag message = {};
	int *fd = data;

	if (*fd < 0)
		return;
	if (error < 0 && diag)
		message = *diag;
	message.error = error;
	/* One write below PIPE_BUF arrives whole, or nobody waits any more */
	(void)!write(*fd, &message, sizeof(message));
	close(*fd);
	*fd = -1;
}

/*
 * All that is left of the caller's descriptors is the way to report, which may have been one of the
 * first three where these were closed. Who waits for the end of a pipe would else wait for the
 * export's.
 */
static int daemon_leave_files(int *report_fd)
{
	int moved = fcntl(*report_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), null;

	if (moved < 0)
		return -errno;
	close(*report_fd);
	*report_fd = moved;
	if (moved > STDERR_FILENO + 1)
		(void)close_range(STDERR_FILENO + 1, (unsigned)moved - 1, 0); /* Linux 5.9 */
	(void)close_range((unsigned)moved + 1, ~0U, 0);
	null = open("/dev/null", O_RDWR); /* stays open in a reload, if it is one of the three */
	if (null < 0)
		return -errno;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fd != null && dup2(null, fd) < 0)
			return -errno;
	if (null > STDERR_FILENO)
		close(null);
	return 0;
}

static int daemon_leave_terminal(int *report_fd)
{
	if (setsid() < 0 || chdir("/") < 0)
		return -errno;
	return daemon_leave_files(report_fd);
}

static void __attribute__((noreturn))
daemon_child(const struct supervisor_options *options, int report_fd)
{
	struct supervisor_options mine = *options;
	struct diag diag = {};
	int r;

	signal(SIGPIPE, SIG_IGN);
	mine.ready = daemon_report;
	mine.ready_data = &report_fd;
	mine.syslog = true;
	r = daemon_leave_terminal(&report_fd);
	if (r < 0) {
		diag_errno(&diag, r, "Cannot become a daemon");
	} else {
		log_init("fuseimg", LOG_TO_SYSLOG);
		r = supervisor_run(&mine, &diag);
	}
	daemon_report(&report_fd, r, &diag); /* unless it said so itself */
	_exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* The parent. */

static void daemon_reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* A child that was killed may have mounted before: nobody will ever serve that. What is alive there
 * stays. */
static void daemon_clean(const char *target)
{
	_cleanup_free_ char *path = realpath(target, NULL); /* only walks; the mount is not asked */
	bool cleaned, detached;

	if (path)
		(void)target_clean(path, &cleaned, &detached, NULL);
}

/* Waits for the report; 0: none will come. An interrupt is passed on to the child once, whose end
 * is then the answer. */
static ssize_t daemon_await(pid_t pid, int report_fd, const sigset_t *mask, struct diag *report)
{
	struct pollfd p = {.fd = report_fd, .events = POLLIN};
	bool told = false;

	for (;;) {
		int n = ppoll(&p, 1, NULL, mask);

		if (n > 0)
			return io_read(report_fd, report, sizeof(*report));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (daemon_interrupts && !told) {
			kill(pid, SIGTERM);
			told = true;
		} else if (daemon_interrupts > 1) {
			return -EINTR;
		}
	}
}

static int daemon_parent(pid_t pid, int report_fd, const sigset_t *mask, const char *target,
			 struct diag *diag)
{
	struct diag report = {};
	ssize_t n = daemon_await(pid, report_fd, mask, &report);

	if (n == -EINTR)
		return diag_set(diag, -EINTR,
				"Interrupted; process %d is still busy taking %s down", (int)pid,
				target);
	if (n < 0)
		return diag_errno(diag, (int)n, "Cannot hear from process %d", (int)pid);
	if (daemon_interrupts) {
		/* Ready or not, it has been told to end */
		daemon_reap(pid);
		return diag_set(diag, -EINTR, "Interrupted; nothing is mounted at %s", target);
	}
	if (n == sizeof(report) && report.error == 0)
		return 0;
	daemon_reap(pid);
	if (n != sizeof(report)) {
		daemon_clean(target);
		return diag_set(diag, -EPROTO, "The process that was to serve %s died at its start",
				target);
	}
	*diag = report;
	return report.error;
}

static void daemon_catch_signals(sigset_t *ret_before)
{
	struct sigaction action = {.sa_handler = daemon_on_signal};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(daemon_signals) / sizeof(daemon_signals[0]); i++) {
		sigaddset(&set, daemon_signals[i]);
		sigaction(daemon_signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, ret_before);
}

int daemon_start(const struct supervisor_options *options, struct diag *diag)
{
	_cleanup_close_ int read_fd = -1, write_fd = -1;
	sigset_t before;
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return diag_errno(diag, -errno, "Cannot make a pipe");
	read_fd = fds[0];
	write_fd = fds[1];
	daemon_catch_signals(&before);
	pid = fork();
	if (pid == 0) {
		closep(&read_fd);
		daemon_child(options, TAKE_FD(write_fd));
	}
	if (pid < 0) {
		r = diag_errno(diag, -errno, "Cannot start a process");
	} else {
		closep(&write_fd);
		write_fd = -1;
		r = daemon_parent(pid, read_fd, &before, options->target, diag);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}

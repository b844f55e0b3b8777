/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include <config.h> /* of the build, not service/config.h */
#include "session/channel.h"

enum {
	PROGRAM_EXIT_EXEC = 127, /* as a shell has it: could not be executed */
	PROGRAM_ENV_MAX = 8,
};

int program_open(struct diag *diag)
{
	const char *named = secure_getenv("FUSEIMG_WORKER");
	const char *path = named ?: FUSEIMG_WORKER_PATH;
	int fd = -1;

	if (access(path, X_OK) == 0)
		fd = open(path, O_PATH | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (named)
		return diag_errno(diag, -errno, "the worker program that FUSEIMG_WORKER names, %s",
				  path);
	return diag_errno(diag, -errno,
			  "the worker program %s (install fuseimg, or let FUSEIMG_WORKER name the "
			  "one to use)",
			  path);
}

/* What the worker sees of our environment: nothing, but what sanitizers are told. */
static void program_environment(char *env[static PROGRAM_ENV_MAX])
{
	static const char *const kept[] = {"ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS",
					   "UBSAN_OPTIONS"};
	size_t n = 0;

	for (char **e = environ; !FUSEIMG_SECCOMP && e && *e; e++)
		for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
			size_t len = strlen(kept[i]);

			if (n + 1 < PROGRAM_ENV_MAX && strncmp(*e, kept[i], len) == 0 &&
			    (*e)[len] == '=')
				env[n++] = *e;
		}
	env[n] = NULL;
}

/* 0 shows that it lives, 1 leads nowhere, 2 stays what it is, 3 is the channel; all else is
 * close-on-exec. */
static int program_arrange_fds(int channel, int life)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int moved = fcntl(channel, F_DUPFD_CLOEXEC, CHANNEL_FD + 1);

	if (null < 0 || moved < 0 || dup2(life, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return -errno;
	if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(null, STDERR_FILENO) < 0)
		return -errno;
	if (dup2(moved, CHANNEL_FD) < 0)
		return -errno;
	/* All our own are; this is for those that we inherited (Linux 5.11) */
	(void)close_range(CHANNEL_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC);
	return 0;
}

static void __attribute__((noreturn)) program_child(int program_fd, int channel, int life)
{
	char *argv[] = {(char[]){"fuseimg-worker"}, NULL};
	char *env[PROGRAM_ENV_MAX];
	sigset_t none;
	int program;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid(); /* out of reach of the terminal's Ctrl-C */
	program_environment(env);
	program = fcntl(program_fd, F_DUPFD_CLOEXEC, CHANNEL_FD + 1);
	if (program >= 0 && program_arrange_fds(channel, life) >= 0)
		execveat(program, "", argv, env, AT_EMPTY_PATH);
	_exit(PROGRAM_EXIT_EXEC);
}

int program_spawn(int program_fd, int life_fd, int *ret_channel, pid_t *ret_pid, struct diag *diag)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return diag_errno(diag, -errno, "the channel to the worker");
	/* A worker that does not read must not hold us up */
	pid = fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0 ? -1 : fork();
	if (pid == 0)
		program_child(program_fd, pair[1], life_fd);
	close(pair[1]);
	if (pid < 0) {
		int r = -errno;

		close(pair[0]);
		return diag_errno(diag, r, "starting the worker");
	}
	*ret_channel = pair[0];
	*ret_pid = pid;
	return 0;
}

const char *program_describe_end(const siginfo_t *end, char *buf, size_t size)
{
	int status = end->si_status;

	if (end->si_code == CLD_EXITED && status == PROGRAM_EXIT_EXEC)
		snprintf(buf, size, "could not be executed");
	else if (end->si_code == CLD_EXITED)
		snprintf(buf, size, "exited with status %d", status);
	else if (status == SIGSYS)
		snprintf(buf, size, "was killed for a forbidden system call (SIGSYS)");
	else if (status == SIGKILL)
		snprintf(buf, size, "was killed by SIGKILL (somebody's, or for want of memory)");
	else
		snprintf(buf, size, "was killed by SIG%s", sigabbrev_np(status) ?: "?");
	return buf;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The worker's program (FUSEIMG_WORKER in the test's environment), with us as its supervisor. */

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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session/channel.h"

enum {
	WAIT_MS = 60000,
	IMAGE_SIZE = 1 << 20,
};

struct worker {
	pid_t pid;
	int channel;
	FILE *image;
};

static void run(struct worker *w)
{
	const char *program = getenv("FUSEIMG_WORKER");
	int pair[2];

	assert_non_null(program);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	w->image = tmpfile();
	assert_non_null(w->image);
	assert_int_equal(ftruncate(fileno(w->image), IMAGE_SIZE), 0);
	w->pid = fork();
	assert_true(w->pid >= 0);
	if (w->pid == 0) {
		int fd = fcntl(pair[1], F_DUPFD_CLOEXEC, CHANNEL_FD + 1);

		dup2(fd, CHANNEL_FD);
		execl(program, "fuseimg-worker", NULL);
		_exit(126);
	}
	close(pair[1]);
	w->channel = pair[0];
}

static void say(struct worker *w, const struct channel_msg *msg, bool with_image)
{
	int fd = fileno(w->image);

	assert_int_equal(channel_send(w->channel, msg, &fd, with_image ? 1 : 0), 0);
}

static void say_start(struct worker *w, const char *format)
{
	struct channel_msg msg = {
		.type = CHANNEL_START, .text = "/srv/disk", .config = {.threads = 1}};

	snprintf(msg.config.format, sizeof(msg.config.format), "%s", format);
	say(w, &msg, true);
}

static void hear(struct worker *w, uint32_t type, struct channel_msg *ret)
{
	struct pollfd p = {.fd = w->channel, .events = POLLIN};
	int fds[CHANNEL_FDS_MAX];
	size_t n = 0;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	do /* what this system lacks of the sandbox it may say */
		assert_int_equal(channel_recv(w->channel, ret, fds, &n), 1);
	while (ret->type == CHANNEL_LOG && type != CHANNEL_LOG);
	assert_int_equal(n, 0);
	if (ret->type != type)
		fail_msg("type %u, \"%s\"", ret->type, ret->text);
}

static void assert_exit(struct worker *w, int code)
{
	int status = 0;

	assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
	close(w->channel);
	fclose(w->image);
}

static void test_opens_and_stops(void **state)
{
	struct channel_msg msg, stop = {.type = CHANNEL_STOP};
	struct worker w;

	run(&w);
	say_start(&w, "raw");
	hear(&w, CHANNEL_OPENED, &msg);
	assert_string_equal(msg.opened.format, "raw");
	assert_int_equal(msg.opened.size, IMAGE_SIZE);
	assert_false(msg.opened.read_only);
	kill(w.pid, SIGTERM); /* not its business */
	say(&w, &stop, false);
	hear(&w, CHANNEL_CLOSING, &msg);
	hear(&w, CHANNEL_DONE, &msg);
	assert_int_equal(msg.error, 0);
	assert_exit(&w, 0);
}

static void test_says_why_not(void **state)
{
	struct channel_msg msg;
	struct worker w;

	run(&w);
	say_start(&w, "auto"); /* zeroes, to be written: nobody guesses raw */
	hear(&w, CHANNEL_FAILED, &msg);
	assert_int_equal(msg.error, -EMEDIUMTYPE);
	assert_non_null(strstr(msg.text, "/srv/disk"));
	assert_exit(&w, 1);
}

static void test_supervisor_is_gone(void **state)
{
	struct channel_msg msg;
	struct worker w;

	run(&w);
	shutdown(w.channel, SHUT_WR);
	assert_exit(&w, 4);
	run(&w);
	say_start(&w, "raw");
	hear(&w, CHANNEL_OPENED, &msg);
	shutdown(w.channel, SHUT_WR);
	assert_exit(&w, 5);
}

static void test_supervisor_speaks_nonsense(void **state)
{
	const struct channel_msg serve = {.type = CHANNEL_SERVE};
	struct worker w;

	run(&w);
	say(&w, &serve, false);
	assert_exit(&w, 4);
	run(&w);
	assert_int_equal(send(w.channel, "x", 1, 0), 1);
	assert_exit(&w, 4);
}

static void test_by_hand(void **state)
{
	char text[256] = "";
	int out[2], status = 0;
	pid_t pid;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(out[1], STDERR_FILENO);
		close(CHANNEL_FD);
		execl(getenv("FUSEIMG_WORKER"), "fuseimg-worker", NULL);
		_exit(126);
	}
	close(out[1]);
	assert_true(read(out[0], text, sizeof(text) - 1) > 0);
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 2);
	assert_non_null(strstr(text, "not started by hand"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opens_and_stops),
		cmocka_unit_test(test_says_why_not),
		cmocka_unit_test(test_supervisor_is_gone),
		cmocka_unit_test(test_supervisor_speaks_nonsense),
		cmocka_unit_test(test_by_hand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

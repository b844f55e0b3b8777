/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A worker that does what the first line of its image says: mostly what no worker should do. What a
 * worker must remember for its successor is written to the image as well.
 */

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session/channel.h"
#include "session/slots.h"

enum {
	COUNT_OFF = 4096, /* in the image: how many workers there were, one byte */
};

static struct channel_msg start;
static int image, start_fds[CHANNEL_FDS_MAX];
static int thread_fd;
static struct slots slots;

static void say(struct channel_msg *msg)
{
	if (channel_send(CHANNEL_FD, msg, NULL, 0) < 0)
		_exit(50);
}

static void hear(uint32_t type, struct channel_msg *ret, int *fds)
{
	size_t n = 0;

	if (channel_recv(CHANNEL_FD, ret, fds, &n) != 1 || ret->type != type)
		_exit(51);
}

static void opened(void)
{
	struct channel_msg msg = {.type = CHANNEL_OPENED,
				  .opened = {.format = "fake\033", .size = 1 << 20, .unit = 1}};

	say(&msg);
}

/* From OPENED to SERVING. */
static void serve(void)
{
	struct channel_msg msg;
	struct diag diag;
	int fds[CHANNEL_FDS_MAX];

	opened();
	hear(CHANNEL_SERVE, &msg, fds);
	if (slots_map(fds[0], &slots, &diag) < 0)
		_exit(52);
	thread_fd = fds[1];
	msg = (struct channel_msg){.type = CHANNEL_SERVING};
	say(&msg);
}

static void done(int error, const char *text)
{
	struct channel_msg msg = {.type = CHANNEL_DONE, .error = error};

	snprintf(msg.text, sizeof(msg.text), "%s", text);
	say(&msg);
	_exit(0);
}

/* Takes a request from the kernel into the slot, as serve.h's threads do. */
static void take(void)
{
	atomic_store(&slots_at(&slots, 0)->state, SLOT_OPEN);
	if (read(thread_fd, slots_request(&slots, 0), SLOT_REQUEST_MAX) < 0)
		done(errno == ENODEV ? 0 : -errno, "");
}

/* Answers what is in the slot by `error`. */
static void answer(int error)
{
	struct fuse_in_header *in = slots_request(&slots, 0);

	session_reply_error(thread_fd, in->unique, error);
	in->unique = 0;
}

static void ask(const char *parent, const char *name, uint32_t role, bool writable)
{
	struct channel_msg msg = {.type = CHANNEL_OPEN, .role = role, .writable = writable};
	int fds[CHANNEL_FDS_MAX];

	snprintf(msg.parent, sizeof(msg.parent), "%s", parent);
	snprintf(msg.text, sizeof(msg.text), "%s", name);
	say(&msg);
	hear(CHANNEL_FILE, &msg, fds);
	msg.type = CHANNEL_FAILED;
	if (msg.error == 0)
		snprintf(msg.text, sizeof(msg.text), "it gave us the file");
	say(&msg);
	_exit(1);
}

static void do_fail(void)
{
	struct channel_msg msg = {
		.type = CHANNEL_FAILED, .error = -EUCLEAN, .text = "header \033[31m is bad"};

	say(&msg);
	_exit(1);
}

static void do_die(void)
{
	abort();
}

static void do_hang(void)
{
	pause();
}

static void do_early_done(void)
{
	done(0, "");
}

static void do_garbage(void)
{
	send(CHANNEL_FD, "garbage", 7, 0);
	pause();
}

static void do_send_fd(void)
{
	struct channel_msg msg = {.type = CHANNEL_OPENED};

	channel_send(CHANNEL_FD, &msg, &image, 1);
	pause();
}

static void do_ask_foreign(void)
{
	ask("/etc/passwd", "/etc/passwd", CHANNEL_ROLE_BACKING, false);
}

static void do_ask_write(void)
{
	ask(start.text, start.text, CHANNEL_ROLE_BACKING, true);
}

static void do_ask_endless(void)
{
	struct channel_msg msg = {.type = CHANNEL_OPEN, .role = CHANNEL_ROLE_BACKING, .text = "x"};

	for (;;)
		say(&msg);
}

static void do_orderly(void)
{
	struct channel_msg msg = {.type = CHANNEL_LOG,
				  .level = 4,
				  .error = -EIO,
				  .offset = 512,
				  .text = "a \033[31mred\033[0m message"};

	serve();
	for (int i = 0; i < 1000; i++)
		say(&msg);
	for (;;) {
		take();
		answer(ENOSYS);
	}
}

static void do_bad_flush(void)
{
	serve();
	for (;;) {
		struct fuse_in_header *in = slots_request(&slots, 0);

		atomic_store(&slots_at(&slots, 0)->state, SLOT_OPEN);
		in->unique = 0;
		if (read(thread_fd, in, SLOT_REQUEST_MAX) < 0)
			done(-EIO, "the flush failed");
		answer(ENOSYS);
	}
}

/* Dies of every GETATTR, in this worker and the next. */
static void do_poison(void)
{
	struct fuse_in_header *in;

	serve();
	in = slots_request(&slots, 0);
	for (;;) {
		if (in->unique == 0)
			take();
		if (in->opcode == FUSE_GETATTR)
			abort();
		answer(ENOSYS);
	}
}

static void pong(void)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];

	hear(CHANNEL_PING, &msg, fds);
	msg = (struct channel_msg){.type = CHANNEL_PONG, .opened.size = 1 << 20};
	say(&msg);
}

/* Never answers a GETATTR, but every question whether it is there. */
static void do_stuck(void)
{
	struct pollfd p[] = {{.fd = CHANNEL_FD, .events = POLLIN}, {.events = POLLIN}};
	struct fuse_in_header *in;

	serve();
	in = slots_request(&slots, 0);
	p[1].fd = thread_fd;
	for (;;) {
		bool held = in->unique && in->opcode == FUSE_GETATTR;

		if (in->unique && !held)
			answer(ENOSYS);
		if (poll(p, held ? 1 : 2, -1) < 0)
			_exit(56);
		if (p[0].revents)
			pong();
		else
			take();
	}
}

/* The first worker serves and dies, the second to last cannot open the image, the last can. */
static void do_reopen(void)
{
	unsigned char count = 0;

	if (pread(image, &count, 1, COUNT_OFF) != 1)
		_exit(53);
	count++;
	if (pwrite(image, &count, 1, COUNT_OFF) != 1)
		_exit(53);
	if (count == 2 || count == 3)
		do_fail();
	if (count == 1) {
		serve();
		abort();
	}
	do_orderly();
}

static void do_reopen_never(void)
{
	unsigned char count = 0;

	if (pread(image, &count, 1, COUNT_OFF) == 1 && count++ == 0) {
		if (pwrite(image, &count, 1, COUNT_OFF) != 1)
			_exit(53);
		serve();
		abort();
	}
	do_fail();
}

static const struct {
	const char *name;
	void (*f)(void);
} acts[] = {
	{"fail", do_fail},
	{"die", do_die},
	{"hang", do_hang},
	{"early-done", do_early_done},
	{"garbage", do_garbage},
	{"send-fd", do_send_fd},
	{"ask-foreign", do_ask_foreign},
	{"ask-write", do_ask_write},
	{"ask-endless", do_ask_endless},
	{"orderly", do_orderly},
	{"bad-flush", do_bad_flush},
	{"poison", do_poison},
	{"stuck", do_stuck},
	{"reopen", do_reopen},
	{"reopen-never", do_reopen_never},
};

int main(void)
{
	char line[64] = "";

	hear(CHANNEL_START, &start, start_fds);
	image = start_fds[0];
	if (pread(image, line, sizeof(line) - 1, 0) < 0)
		return 54;
	line[strcspn(line, "\n")] = '\0';
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		if (strcmp(acts[i].name, line) == 0)
			acts[i].f();
	return 55;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "session/channel.h"

struct pair {
	int fd[2];
};

static int set_up(void **state)
{
	static struct pair p;

	*state = &p;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p.fd);
}

static int tear_down(void **state)
{
	struct pair *p = *state;

	close(p->fd[0]);
	close(p->fd[1]);
	return 0;
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_round_trip(void **state)
{
	struct pair *p = *state;
	struct channel_msg out = {.type = CHANNEL_START, .config = {.threads = 4, .mode = 0600}};
	struct channel_msg in;
	int fds[CHANNEL_FDS_MAX];
	size_t n = 99;

	strcpy(out.config.format, "qcow2");
	strcpy(out.text, "/srv/disk.qcow2");
	out.config.discard = true;
	assert_int_equal(channel_send(p->fd[0], &out, NULL, 0), 0);
	assert_int_equal(channel_recv(p->fd[1], &in, fds, &n), 1);
	assert_int_equal(n, 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

static void test_fds_travel(void **state)
{
	struct pair *p = *state;
	struct channel_msg out = {.type = CHANNEL_SERVE}, in;
	int send[CHANNEL_FDS_MAX], fds[CHANNEL_FDS_MAX], pipefd[2];
	char c = 0;
	size_t n;

	assert_int_equal(pipe(pipefd), 0);
	for (size_t i = 0; i < CHANNEL_FDS_MAX; i++)
		send[i] = pipefd[1];
	assert_int_equal(channel_send(p->fd[0], &out, send, CHANNEL_FDS_MAX), 0);
	assert_int_equal(channel_recv(p->fd[1], &in, fds, &n), 1);
	assert_int_equal(n, CHANNEL_FDS_MAX);
	assert_int_equal(write(fds[CHANNEL_FDS_MAX - 1], "x", 1), 1);
	assert_int_equal(read(pipefd[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	for (size_t i = 0; i < n; i++) {
		assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
		close(fds[i]);
	}
	close(pipefd[0]);
	close(pipefd[1]);
}

static void test_end_of_file(void **state)
{
	struct pair *p = *state;
	struct channel_msg msg = {.type = CHANNEL_STOP};
	int fds[CHANNEL_FDS_MAX];
	size_t n;

	shutdown(p->fd[0], SHUT_RDWR);
	assert_int_equal(channel_recv(p->fd[1], &msg, fds, &n), 0);
	assert_int_equal(channel_send(p->fd[1], &msg, NULL, 0), -EPIPE);
}

static void test_does_not_block_where_fd_does_not(void **state)
{
	struct pair *p = *state;
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t n;

	assert_int_equal(fcntl(p->fd[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(channel_recv(p->fd[1], &msg, fds, &n), -EAGAIN);
}

/* Sends msg with one fd; it must be refused, and the fd must not stay open here. */
static void assert_refused(struct pair *p, const struct channel_msg *msg)
{
	struct channel_msg in = {.type = 12345};
	int fds[CHANNEL_FDS_MAX] = {};
	unsigned before = count_fds();
	size_t n = 99;

	assert_int_equal(channel_send(p->fd[0], msg, &p->fd[0], 1), 0);
	assert_int_equal(channel_recv(p->fd[1], &in, fds, &n), -EBADMSG);
	assert_int_equal(count_fds(), before);
	assert_int_equal(in.type, 12345);
	assert_int_equal(n, 99);
}

static void test_bad_values(void **state)
{
	const struct channel_msg good = {.type = CHANNEL_OPEN};
	struct channel_msg msg;

#define REFUSED(change)                                                                            \
	do {                                                                                       \
		msg = good;                                                                        \
		change;                                                                            \
		assert_refused(*state, &msg);                                                      \
	} while (0)
	REFUSED(msg.type = 0);
	REFUSED(msg.type = CHANNEL_TYPE_END);
	REFUSED(msg.error = 1);
	REFUSED(msg.error = -4096);
	REFUSED(msg.error = INT32_MIN);
	REFUSED(msg.role = 3);
	REFUSED(msg.level = 8);
	REFUSED(memset(&msg.writable, 2, 1));
	REFUSED(memset(msg.text, 'x', sizeof(msg.text)));
	REFUSED(memset(msg.parent, 'x', sizeof(msg.parent)));
	REFUSED(msg.type = CHANNEL_START;
		memset(msg.config.format, 'x', sizeof(msg.config.format)));
	REFUSED(msg.type = CHANNEL_START;
		memset(msg.config.snapshot, 'x', sizeof(msg.config.snapshot)));
	REFUSED(msg.type = CHANNEL_START; memset(&msg.config.page_cache, 0xff, 1));
	REFUSED(msg.type = CHANNEL_START; msg.config.threads = SLOTS_MAX + 1);
	REFUSED(msg.type = CHANNEL_OPENED;
		memset(msg.opened.format, 'x', sizeof(msg.opened.format)));
	REFUSED(msg.type = CHANNEL_OPENED; memset(&msg.opened.read_only, 7, 1));
#undef REFUSED
}

static void test_bad_lengths(void **state)
{
	struct pair *p = *state;
	char packet[sizeof(struct channel_msg) + 1] = {CHANNEL_STOP};
	const size_t lengths[] = {1, 4, sizeof(struct channel_msg) - 1, sizeof(packet)};
	struct channel_msg in;
	int fds[CHANNEL_FDS_MAX];
	size_t n;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		assert_int_equal(send(p->fd[0], packet, lengths[i], 0), lengths[i]);
		assert_int_equal(channel_recv(p->fd[1], &in, fds, &n), -EBADMSG);
	}
}

/* More fds than a message may carry: none may stay open. */
static void test_too_many_fds(void **state)
{
	struct pair *p = *state;
	enum { MANY = CHANNEL_FDS_MAX + 40 };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MANY)];
	} control = {};
	struct channel_msg msg = {.type = CHANNEL_SERVE}, in;
	struct iovec iov = {&msg, sizeof(msg)};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	int fds[CHANNEL_FDS_MAX], *data;
	unsigned before = count_fds();
	size_t n;

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	for (int many = CHANNEL_FDS_MAX + 1; many <= MANY; many += 39) {
		control.align.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)many);
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)many);
		data = (int *)(void *)CMSG_DATA(&control.align);
		for (int i = 0; i < many; i++)
			data[i] = p->fd[0];
		assert_int_equal(sendmsg(p->fd[0], &hdr, 0), sizeof(msg));
		assert_int_equal(channel_recv(p->fd[1], &in, fds, &n), -EBADMSG);
		assert_int_equal(count_fds(), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_fds_travel, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_end_of_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_does_not_block_where_fd_does_not, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_bad_values, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_lengths, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_fds, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session/channel.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"

enum {
	CHANNEL_ERRNO_MAX = 4095, /* the kernel's MAX_ERRNO */
	CHANNEL_ROLE_MAX = 2,
	CHANNEL_LEVEL_MAX = 7,
};

union channel_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
};

int channel_send(int fd, const struct channel_msg *msg, const int *fds, size_t n)
{
	union channel_control control = {};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof(*msg)};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	assert(n <= CHANNEL_FDS_MAX);
	if (n > 0) {
		struct cmsghdr *c;

		hdr.msg_control = control.buf;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	}
	do
		sent = sendmsg(fd, &hdr, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

static bool channel_text_ok(const char *s, size_t size)
{
	return memchr(s, '\0', size);
}

/* A bool that holds anything but 0 and 1 must not even be looked at as a bool. */
static bool channel_bool_ok(const bool *b)
{
	uint8_t v;

	memcpy(&v, b, sizeof(v));
	return v <= 1;
}

static bool channel_config_ok(const struct worker_config *c)
{
	const bool *const bools[] = {&c->read_only, &c->growable, &c->discard,	 &c->directory,
				     &c->again,	    &c->careful,  &c->page_cache};

	for (size_t i = 0; i < ARRAY_SIZE(bools); i++)
		if (!channel_bool_ok(bools[i]))
			return false;
	return channel_text_ok(c->format, sizeof(c->format)) &&
	       channel_text_ok(c->partition, sizeof(c->partition)) &&
	       channel_text_ok(c->snapshot, sizeof(c->snapshot)) && c->threads <= SLOTS_MAX &&
	       c->partitions <= CHANNEL_PARTITIONS_MUST;
}

static bool channel_msg_ok(const struct channel_msg *m)
{
	if (m->type < CHANNEL_START || m->type >= CHANNEL_TYPE_END)
		return false;
	if (m->error > 0 || m->error < -CHANNEL_ERRNO_MAX || m->role > CHANNEL_ROLE_MAX ||
	    m->level > CHANNEL_LEVEL_MAX || !channel_bool_ok(&m->writable))
		return false;
	if (!channel_text_ok(m->text, sizeof(m->text)) ||
	    !channel_text_ok(m->parent, sizeof(m->parent)))
		return false;
	if (m->type == CHANNEL_START)
		return channel_config_ok(&m->config);
	if (m->type == CHANNEL_OPENED || m->type == CHANNEL_PONG)
		return channel_bool_ok(&m->opened.read_only) &&
		       channel_text_ok(m->opened.format, sizeof(m->opened.format));
	return true;
}

/* The fds of a packet; the array holds as many as the control buffer has room for. */
static size_t channel_take_fds(struct msghdr *hdr, int *fds)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + n, CMSG_DATA(c), bytes);
		n += bytes / sizeof(int);
	}
	return n;
}

int channel_recv(int fd, struct channel_msg *ret, int *fds, size_t *ret_n)
{
	union channel_control control = {};
	struct channel_msg msg;
	struct iovec iov = {.iov_base = &msg, .iov_len = sizeof(msg)};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	int got[CHANNEL_FDS_MAX + 1]; /* the alignment of the buffer leaves room for one more */
	ssize_t len;
	size_t n;

	do
		len = recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		return errno == ECONNRESET ? 0 : -errno;
	n = channel_take_fds(&hdr, got);
	if (len == 0 && n == 0)
		return 0;
	if (len != sizeof(msg) || (hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    n > CHANNEL_FDS_MAX || !channel_msg_ok(&msg)) {
		for (size_t i = 0; i < n; i++)
			close(got[i]);
		return -EBADMSG;
	}
	*ret = msg;
	memcpy(fds, got, sizeof(int) * n);
	*ret_n = n;
	return 1;
}

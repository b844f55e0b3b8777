/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/notify.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/parse.h"

enum {
	NOTIFY_TEXT_MAX = 4096,
	NOTIFY_PATIENCE_MS = 1000,
};

/* "/path" or "@abstract" (sd_notify(3)); others, as "vsock:", are not for programs in this
 * machine. */
static int notify_address(const char *name, struct sockaddr_un *ret, socklen_t *ret_len)
{
	size_t n = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || n < 2 || n >= sizeof(ret->sun_path))
		return -EINVAL;
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret->sun_path, name, n);
	if (name[0] == '@')
		ret->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/'));
	return 0;
}

static int notify_connect(const char *name)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	socklen_t len;

	if (fd < 0 || notify_address(name, &address, &len) < 0 ||
	    connect(fd, (struct sockaddr *)&address, len) < 0)
		return -1;
	return TAKE_FD(fd);
}

static uint64_t notify_watchdog(void)
{
	const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t n, whose = 0;

	if (!us || parse_u64(us, UINT64_MAX, &n) < 0)
		return 0;
	if (pid && (parse_u64(pid, INT32_MAX, &whose) < 0 || (pid_t)whose != getpid()))
		return 0;
	return n;
}

void notify_init(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET");

	n->fd = name ? notify_connect(name) : -1;
	n->watchdog_us = n->fd >= 0 ? notify_watchdog() : 0;
	n->deaf = false;
}

void notify_done(struct notify *n)
{
	closep(&n->fd);
	n->fd = -1;
}

int notify_send_fds(const struct notify *n, const int *fds, size_t n_fds, const char *text)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * NOTIFY_FDS_MAX)];
	} control = {};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n->fd < 0)
		return 0;
	assert(n_fds <= NOTIFY_FDS_MAX);
	if (n_fds > 0) {
		struct cmsghdr *c;

		hdr.msg_control = control.buf;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	return sendmsg(n->fd, &hdr, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/*
 * systemd (252 and 257, tried) takes a message apart by rules in which a backslash quotes what
 * follows it. A single one is lost, and where the message ends with one all of it is thrown away,
 * READY=1 too. So each goes twice, also those of "\xNN".
 */
static void notify_escape(char dst[NOTIFY_TEXT_MAX], const char *src)
{
	size_t o = 0;

	for (; *src && o + 3 <= NOTIFY_TEXT_MAX; src++) {
		if (*src == '\\')
			dst[o++] = '\\';
		dst[o++] = *src;
	}
	dst[o] = '\0';
}

static int notify_vsend(struct notify *n, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
static int notify_vsend(struct notify *n, const char *fmt, va_list ap)
{
	char text[NOTIFY_TEXT_MAX], escaped[NOTIFY_TEXT_MAX];
	int r;

	vsnprintf(text, sizeof(text), fmt, ap);
	notify_escape(escaped, text);
	r = notify_send_fds(n, NULL, 0, escaped);
	if (r == 0)
		n->deaf = false;
	return r;
}

int notify_send(struct notify *n, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = notify_vsend(n, fmt, ap);
	va_end(ap);
	return r;
}

int notify_state(struct notify *n, const char *fmt, ...)
{
	struct pollfd p = {.fd = n->fd, .events = POLLOUT};
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = notify_vsend(n, fmt, ap);
	va_end(ap);
	if (r != -EAGAIN || n->deaf)
		return r;
	if (poll(&p, 1, NOTIFY_PATIENCE_MS) != 1) {
		n->deaf = true;
		return r;
	}
	va_start(ap, fmt);
	r = notify_vsend(n, fmt, ap);
	va_end(ap);
	return r;
}

/* The manager closes the descriptor when it comes to the message (sd_notify_barrier(3)). */
int notify_barrier(const struct notify *n, int timeout_ms)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	struct pollfd p;
	int fds[2], r;

	if (n->fd < 0)
		return 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	ours = fds[0];
	theirs = fds[1];
	r = notify_send_fds(n, &theirs, 1, "BARRIER=1");
	if (r < 0)
		return r;
	close(TAKE_FD(theirs));
	p = (struct pollfd){.fd = ours};
	r = poll(&p, 1, timeout_ms);
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIME : 0;
}

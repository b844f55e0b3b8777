/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session/session.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "session/abi.h"
#include "session/mount.h"

enum {
	SESSION_MAX_PAGES = SLOT_DATA_MAX / SLOT_PAGE,
	/* Asynchronous requests (read-ahead, O_DIRECT with aio) that the kernel keeps with us at a
	 * time: several clients at depth 32 without one waiting for another. For mounts by plain
	 * users the kernel has a lower limit of its own. */
	SESSION_MAX_BACKGROUND = 256,
	SESSION_CONGESTION = SESSION_MAX_BACKGROUND * 3 / 4,
	SESSION_MINOR_MIN = 12, /* big writes, and every struct that we use, but INIT's answer */
};

/*
 * What we ask for where the kernel offers it.
 *
 * Not ATOMIC_O_TRUNC: once an OPEN with O_TRUNC was answered the kernel would take the file for
 * empty, whatever its size is, and drop its cached pages, those that were not yet written too.
 *
 * Not WRITEBACK_CACHE: a write that was answered must have reached the host. Not AUTO_INVAL_DATA:
 * mtime changes with every write of our own, and nobody else writes. HANDLE_KILLPRIV_V2 saves
 * the kernel from asking for security.capability at each write; files here have no set-id bits
 * (see nodes.c).
 */
static const uint64_t session_wanted = FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_BIG_WRITES |
				       FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS |
				       FUSE_READDIRPLUS_AUTO | FUSE_HANDLE_KILLPRIV_V2 |
				       FUSE_INIT_EXT | FUSE_DIRECT_IO_ALLOW_MMAP;

static int session_reply(int fd, uint64_t unique, int error, const void *payload, size_t len)
{
	uint8_t buf[sizeof(struct fuse_out_header) + sizeof(struct fuse_init_out)];
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len), .error = error, .unique = unique};

	memcpy(buf, &out, sizeof(out));
	if (len > 0)
		memcpy(buf + sizeof(out), payload, len);
	if (write(fd, buf, out.len) < 0)
		return -errno;
	return 0;
}

int session_reply_error(int thread_fd, uint64_t unique, int error)
{
	return session_reply(thread_fd, unique, -error, NULL, 0);
}

struct session_init {
	struct fuse_in_header header;
	struct fuse_init_in in;
};

static int session_read_init(int fd, struct session_init *ret, struct diag *diag)
{
	_Alignas(8) uint8_t buf[FUSE_MIN_READ_BUFFER];
	ssize_t n;

	do
		n = read(fd, buf, sizeof(buf));
	while (n < 0 && (errno == EINTR || errno == ENOENT));
	if (n < 0)
		return diag_errno(diag, -errno, "waiting for the kernel's FUSE INIT");
	*ret = (struct session_init){};
	memcpy(ret, buf, min_u64((uint64_t)n, sizeof(*ret)));
	if ((size_t)n < sizeof(ret->header) + ABI_INIT_IN_MIN || ret->header.len != (size_t)n ||
	    ret->header.opcode != FUSE_INIT)
		return diag_set(diag, -EPROTO, "the kernel's first FUSE request is no INIT");
	if (!(ret->in.flags & FUSE_INIT_EXT))
		ret->in.flags2 = 0;
	return 0;
}

static void session_grant(const struct fuse_init_in *in, struct session_granted *ret)
{
	uint64_t offered = in->flags | (uint64_t)in->flags2 << 32;
	uint64_t flags = offered & session_wanted;

	*ret = (struct session_granted){
		.major = ABI_MAJOR,
		.minor = (uint32_t)min_u64(in->minor, ABI_MINOR),
		.flags = flags,
		.max_readahead = in->max_readahead,
		.max_pages = flags & FUSE_MAX_PAGES ? SESSION_MAX_PAGES : 32,
	};
	ret->max_write = ret->max_pages * SLOT_PAGE;
}

static int session_answer_init(int fd, uint64_t unique, const struct session_granted *g)
{
	struct fuse_init_out out = {
		.major = g->major,
		.minor = ABI_MINOR,
		.max_readahead = g->max_readahead,
		.flags = (uint32_t)g->flags,
		.flags2 = (uint32_t)(g->flags >> 32),
		.max_background = SESSION_MAX_BACKGROUND,
		.congestion_threshold = SESSION_CONGESTION,
		.max_write = g->max_write,
		.time_gran = 1,
		.max_pages = (uint16_t)g->max_pages,
	};

	return session_reply(fd, unique, 0, &out, g->minor < 23 ? ABI_INIT_OUT_22 : sizeof(out));
}

int session_handshake(int fd, struct session_granted *ret, struct diag *diag)
{
	struct session_granted granted;
	struct session_init init;
	int r;

	r = session_read_init(fd, &init, diag);
	if (r == 0 && init.in.major > ABI_MAJOR) {
		/* The answer names our version, and a kernel that can speak it asks again */
		struct fuse_init_out out = {.major = ABI_MAJOR, .minor = ABI_MINOR};

		r = session_reply(fd, init.header.unique, 0, &out, sizeof(out));
		if (r == 0)
			r = session_read_init(fd, &init, diag);
	}
	if (r < 0)
		return r;
	if (init.in.major != ABI_MAJOR || init.in.minor < SESSION_MINOR_MIN) {
		(void)session_reply(fd, init.header.unique, -EPROTO, NULL, 0);
		return diag_set(diag, -EPROTO, "the kernel speaks FUSE %u.%u, 7.%d is needed",
				init.in.major, init.in.minor, SESSION_MINOR_MIN);
	}
	session_grant(&init.in, &granted);
	r = session_answer_init(fd, init.header.unique, &granted);
	if (r < 0)
		return diag_errno(diag, r, "answering the kernel's FUSE INIT");
	*ret = granted;
	return 0;
}

int session_clone(int fd)
{
	_cleanup_close_ int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	uint32_t source = (uint32_t)fd;

	if (clone < 0)
		return -errno;
	if (ioctl(clone, FUSE_DEV_IOC_CLONE, &source) < 0)
		return -errno;
	return TAKE_FD(clone);
}

/* Clones for the threads from s->n to n; -errno: none is left. */
static int session_add_clones(struct session *s, unsigned n)
{
	for (unsigned i = s->n; i < n; i++) {
		int r = s->thread_fds[i] = session_clone(s->fd);

		if (r >= 0)
			continue;
		while (i-- > s->n) {
			close(s->thread_fds[i]);
			s->thread_fds[i] = -1;
		}
		return r;
	}
	return 0;
}

int session_grow(struct session *s, unsigned n, struct diag *diag)
{
	int slots_fd, r;

	assert(n > s->n && n <= SLOTS_MAX);
	r = slots_fd = slots_create_from(s->slots_fd, n);
	if (r >= 0)
		r = session_add_clones(s, n);
	if (r < 0) {
		if (slots_fd >= 0)
			close(slots_fd);
		return diag_errno(diag, r, "room for %u threads", n);
	}
	close(s->slots_fd);
	s->slots_fd = slots_fd;
	s->n = n;
	return 0;
}

bool session_is_alive(const struct session *s)
{
	struct pollfd p = {.fd = s->fd};

	return poll(&p, 1, 0) >= 0 && !(p.revents & POLLERR);
}

void session_invalidate(const struct session *s, uint64_t node)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_inode_out inode;
	} msg = {
		.header = {.len = sizeof(msg), .error = FUSE_NOTIFY_INVAL_INODE},
		.inode = {.ino = node, .off = -1}, /* the attributes alone */
	};

	/* A node that the kernel does not know needs nothing */
	(void)!write(s->fd, &msg, sizeof(msg));
}

void session_close(struct session *s)
{
	/* A zeroed session owns nothing, though its fields name fd 0 */
	if (s->n == 0)
		return;
	for (unsigned i = 0; i < s->n; i++)
		if (s->thread_fds[i] >= 0)
			close(s->thread_fds[i]);
	if (s->slots_fd >= 0)
		close(s->slots_fd);
	if (s->fd >= 0)
		close(s->fd);
	*s = (struct session){};
}

/* INIT, clones and slots of a connection that s->fd names. */
static int session_set_up(struct session *s, struct diag *diag)
{
	int r = session_handshake(s->fd, &s->granted, diag);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < s->n; i++) {
		s->thread_fds[i] = session_clone(s->fd);
		if (s->thread_fds[i] < 0)
			return diag_errno(diag, s->thread_fds[i], "cloning the FUSE connection");
	}
	s->slots_fd = slots_create(s->n);
	if (s->slots_fd < 0)
		return diag_errno(diag, s->slots_fd, "memory for %u requests", s->n);
	return 0;
}

int session_open(const struct session_mount_options *options, unsigned n, struct session *ret,
		 struct diag *diag)
{
	_cleanup_free_ char *target = NULL;
	struct session s = {.fd = -1, .n = n, .slots_fd = -1};
	struct mount *m;
	int r;

	if (n == 0 || n > SLOTS_MAX)
		return diag_set(diag, -EINVAL, "%u threads, but 1 to %d are possible", n,
				SLOTS_MAX);
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		s.thread_fds[i] = -1;
	target = realpath(options->target, NULL);
	if (!target)
		return diag_errno(diag, -errno, "%s", options->target);
	r = mount_open(options, target, &m, &s.fd, diag);
	if (r < 0)
		return r;
	r = session_set_up(&s, diag);
	if (r < 0) {
		mount_undo(m);
		session_close(&s);
		return r;
	}
	mount_keep(m);
	/* Not what INIT granted: that is the kernel's default once more */
	mount_raise_readahead(target, s.granted.max_write);
	*ret = s;
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SESSION_H
#define FUSEIMG_SESSION_H

/*
 * A mounted FUSE connection whose INIT was answered: the fds and the numbers that a worker needs to
 * serve it. The supervisor makes one and keeps it; workers come and go.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "session/slots.h"

/* What the kernel granted; plain data, travels to the worker as it is. */
struct session_granted {
	uint32_t major, minor;
	uint64_t flags; /* FUSE_* INIT flags, flags2 in the upper half */
	uint32_t max_write, max_readahead, max_pages;
};

struct session_mount_options {
	const char *source; /* fsname: the image's path */
	const char *target; /* an existing directory or regular file */
	bool read_only;
	bool allow_other;
};

struct session {
	int fd;			   /* the connection; nobody reads requests from it after INIT */
	unsigned n;		   /* threads */
	int thread_fds[SLOTS_MAX]; /* clones, one per thread; -1 behind n */
	int slots_fd;		   /* memfd, see slots.h */
	struct session_granted granted;
};

/*
 * Mounts (libfuse: mount(2) as root, fusermount3 otherwise), answers INIT, clones n fds and makes
 * the slots. On failure nothing stays mounted and diag has the sentence. ret is untouched then.
 */
int session_open(const struct session_mount_options *options, unsigned n, struct session *ret,
		 struct diag *diag);
/*
 * Makes room for n threads (more than there are) while no worker lives: clones, and larger request
 * memory with what was in the old one. On failure the session is as it was.
 */
int session_grow(struct session *s, unsigned n, struct diag *diag);
/* Whether the kernel still has the other end: it has not after an unmount or an abort. */
bool session_is_alive(const struct session *s);
/* Tells the kernel to ask again for the attributes of a node (its size). Does not block. */
void session_invalidate(const struct session *s, uint64_t node);
/* Closes the fds; does not unmount. Safe on a zeroed or closed session. */
void session_close(struct session *s);

/* Reads INIT from fd (blocks) and answers it. Split from session_open() for tests. */
int session_handshake(int fd, struct session_granted *ret, struct diag *diag);
/* A further fd of the same connection, or -errno. */
int session_clone(int fd);

/*
 * One attempt to unmount the target, never lazily: 0, -EBUSY, or another errno. As an ordinary user
 * through fusermount3, whose output is swallowed.
 */
int session_unmount(const char *target);

/* Makes the mount at target read-only (-EBUSY: somebody has it open for writing) or writable. May
 * wait for a worker. Needs root. */
int session_remount(const char *target, bool read_only);

/* Answers the request `unique`, read from thread_fd, with an error (positive errno). For a
 * supervisor that gives up on a request. 0 or -errno; -ENOENT: it was answered already. */
int session_reply_error(int thread_fd, uint64_t unique, int error);

#endif

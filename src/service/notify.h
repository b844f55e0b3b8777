/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_NOTIFY_H
#define FUSEIMG_NOTIFY_H

/*
 * The way to the service manager, as in sd_notify(3). Not the function of that name: it blocks
 * while the manager does not read, and the manager may be waiting for a file system of ours. Where
 * nobody wants to hear of us (NOTIFY_SOCKET is not set) everything succeeds and nothing happens.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct notify {
	int fd;		      /* connected, does not block; -1: nobody listens */
	uint64_t watchdog_us; /* WatchdogSec=, 0: not wanted, or not from this process */
	bool deaf;	      /* has let us wait in vain, and taken nothing since */
};

enum {
	NOTIFY_FDS_MAX = 250, /* in one message; the kernel's limit is 253 */
};

/* From the environment, which stays as it is: after a re-execution it is needed again. */
void notify_init(struct notify *n);
void notify_done(struct notify *n);

/*
 * One message: lines "KEY=value" with newlines between them. 0, or -EAGAIN when the manager has
 * too much to read (what matters must be tried again), or another errno. No line may come from
 * outside unquoted: a newline in it would begin a line of its own. Backslashes are taken care of.
 */
int notify_send(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same with descriptors, for FDSTORE=1; text is sent as it is. */
int notify_send_fds(const struct notify *n, const int *fds, size_t n_fds, const char *text);

/*
 * READY=1 and the like, which must arrive: waits for room, a second at most. Clients may wait for
 * the worker that the caller would start next; therefore not even that second is spent on each
 * message: a manager that has let it pass is not waited for again before it has taken one.
 */
int notify_state(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Waits until the manager has read all that was sent, for so long at most: 0, -ETIME, or another
 * errno. */
int notify_barrier(const struct notify *n, int timeout_ms);

#endif

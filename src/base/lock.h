/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOCK_H
#define FUSEIMG_LOCK_H

/*
 * Locks on image files, the same that QEMU takes (docs/interop and block/file-posix.c name the
 * bytes), so that a running virtual machine and an export never write one image.
 *
 * Each permission is a bit: 0 read, 1 write, 3 resize. Who holds a permission has a shared lock on
 * byte 100 + bit, who does not tolerate that others have it a shared lock on byte 200 + bit. Nobody
 * ever takes an exclusive lock: after taking its own, each looks for the opposite byte of others.
 *
 * The locks belong to the open file description: they last as long as any process has a copy of the
 * fd, so they outlive a worker and a re-executed supervisor.
 */

#include <stdbool.h>

#include "base/diag.h"

/* For who has time. */
struct lock_wait {
	unsigned seconds;
	const char *settings; /* for sentences: the file that they come from, NULL: -o */
	/* Called about ten times a second with the sentence that lock_image() would fail with; a
	 * negative answer ends the wait with that. May be NULL */
	int (*waiting)(void *data, const char *why);
	void *data;
};

/*
 * Tries for half a second. Locks the image behind fd: reading, and writing where writable; others
 * may read. 0; -EBUSY when another program uses it in a way that does not go with ours (the
 * sentence names it where /proc shows it); -EOPNOTSUPP where the file system has no such locks.
 * Block devices are locked as well.
 */
int lock_image(int fd, const char *path, bool writable, struct diag *diag);
/* The same, and waits until the other program lets go. */
int lock_image_wait(int fd, const char *path, bool writable, const struct lock_wait *wait,
		    struct diag *diag);

/*
 * Locks `to`, another open file description of the same file, in place of `from`, with no moment in
 * between at which the file is not protected. On failure `from` is locked as it was (was_writable).
 */
int lock_move(int from, bool was_writable, int to, const char *path, struct diag *diag);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SESSION_MOUNT_H
#define FUSEIMG_SESSION_MOUNT_H

/* Private to session/: the part that libfuse does. */

#include "base/diag.h"
#include "session/session.h"

struct mount;

/*
 * Mounts on target, the real path of options->target. *ret_fd is the connection (O_CLOEXEC, the
 * caller's), *ret for one of the next two. Redirects the process' fd 2 meanwhile, to learn what
 * libfuse and fusermount3 have to say: call it while no other thread writes there.
 */
int mount_open(const struct session_mount_options *options, const char *target, struct mount **ret,
	       int *ret_fd, struct diag *diag);
/* Ends libfuse's part; the mount stays. */
void mount_keep(struct mount *m);
/* Unmounts (for a session that could not be set up) and frees. */
void mount_undo(struct mount *m);

/*
 * Lets the kernel read ahead as far in the files of the mount as one request may carry, which its
 * own default (128 KiB) does not. Without the right to do so, nothing happens.
 */
void mount_raise_readahead(const char *target, uint32_t bytes);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TARGET_H
#define FUSEIMG_TARGET_H

/*
 * The place where an export is to stand, checked before anything is mounted there.
 *
 * The order matters: what a dead or hanging export left at the place must be found in the mount
 * table before anybody asks the file system about it.
 */

#include <stdbool.h>

#include "base/diag.h"

struct target {
	char *path; /* real path; the caller's */
	bool directory;
};

/* Makes a directory at path, and one that it is to stand in, where there is nothing. Asks nobody
 * who serves a mount there. */
int target_make(const char *path, struct diag *diag);

/*
 * image_fd is the opened image: the target must not be the image itself, under any name. A mount
 * of ours whose daemon is gone is taken away (*ret_cleaned). Errors: -ENOENT, -EBUSY (an export of
 * ours stands there), -ENOTEMPTY (mounting would hide what is in it), -EINVAL (neither directory
 * nor regular file, or the image).
 */
int target_check(const char *name, int image_fd, struct target *ret, bool *ret_cleaned,
		 struct diag *diag);
void target_done(struct target *t);

/*
 * Takes away the mount of ours at path (real path) if nobody serves it any more; lazily where it
 * still has users, whose requests fail already (*ret_detached). Where only the supervisor is gone,
 * the end of the worker is waited for. 0: there is none now; -EBUSY: there is one, and it is alive.
 */
int target_clean(const char *path, bool *ret_cleaned, bool *ret_detached, struct diag *diag);

#endif

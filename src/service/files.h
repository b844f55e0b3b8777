/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FILES_H
#define FUSEIMG_FILES_H

/*
 * The files that an image names, opened once and kept for every worker to come.
 *
 * Only the first worker's requests reach the file system. After that the cache is sealed: a
 * later worker reads the same image and asks for the same files, and the mount is up by then, so
 * that a path could lead through our own mount, which nobody serves at this moment. A worker that
 * asks for anything else has been taken over, or the image has changed under us.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "base/locate.h"
#include "base/lock.h"

/* A file that was opened for the image. */
struct files_entry {
	char *parent, *name; /* as it was asked for */
	uint32_t role;
	bool writable;
	int fd;
	char *path; /* real path, for people and as a parent */
};

struct files {
	const struct locate_policy *policy;
	const char *top; /* real path of the image */
	int top_fd;
	bool writable; /* whether any file may be opened for writing */
	bool direct;
	bool lock; /* what is opened is locked as well */
	struct lock_wait wait;
	bool sealed;
	struct files_entry *entries;
	unsigned n;
};

/* Whether a file is one with the image, written to when that is: its own data file. Those of the
 * files below it are not. */
bool files_goes_with_image(const char *parent, uint32_t role, const char *top);

/* One request, as it stands in CHANNEL_OPEN. */
struct files_request {
	const char *parent; /* the file that names it: top, or one that was opened before */
	const char *name;
	uint32_t role;
	bool writable;
};

/*
 * *ret_fd and *ret_path stay ours and are valid until files_done(). -EACCES also for what no honest
 * worker asks (a parent that it was never given, writing where nothing may be written).
 */
int files_open(struct files *f, const struct files_request *request, int *ret_fd,
	       const char **ret_path, struct diag *diag);
void files_done(struct files *f);

#endif

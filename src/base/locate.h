/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOCATE_H
#define FUSEIMG_LOCATE_H

/*
 * Opening the files that an image names: the one place where a name out of an image meets the
 * host's file system. Used by the supervisor for its worker and by the command line.
 *
 * A relative name is resolved against the directory of the file that names it. What is opened is
 * judged by what it turned out to be (the path of the open fd, symbolic links resolved), not by how
 * it was spelled, so there is nothing to race with.
 */

#include <stdbool.h>
#include <sys/stat.h>

#include "base/diag.h"

/* Where a file may be that is only read. To be written to, it must be listed: itself, or (no block
 * device) the directory that it stands in. */
enum locate_backing {
	LOCATE_SAME_DIRECTORY, /* at or below the directory of the top image (the default) */
	LOCATE_NONE,	       /* nowhere: an image that names another file is refused */
	LOCATE_LISTED,	       /* listed, or below a listed directory */
};

struct locate_policy {
	enum locate_backing backing;
	char *dirs; /* LISTED: absolute directories and files, ':' between them. Owned */
};

/* How a file is to be opened. */
struct locate_how {
	bool writable;
	bool direct;	      /* O_DIRECT */
	const char *settings; /* for sentences: the file that they come from, NULL: -o */
};

/* The words of BACKING=: directory, none, or PATH:PATH (absolute). -EINVAL with a sentence. */
int locate_policy_parse(const char *s, struct locate_policy *ret, struct diag *diag);
void locate_policy_done(struct locate_policy *p);

/*
 * Opens the image that a person named: a regular file or a block device, nothing else (a FIFO
 * would hang, a socket cannot be read). fd in *ret_fd; *ret_path its absolute real path (malloc).
 */
int locate_open_image(const char *path, const struct locate_how *how, int *ret_fd, char **ret_path,
		      struct diag *diag);

/*
 * Opens a file that an image names. top: real path of the top image; parent: real path of the file
 * that holds the name. Names with a protocol ("json:", "nbd://...") are refused: only "file:" is
 * understood. Errors: -EACCES outside the policy (the sentence says which setting would allow it),
 * -EMEDIUMTYPE neither file nor block device, -EOPNOTSUPP a protocol, else open(2)'s.
 */
int locate_open_named(const struct locate_policy *policy, const char *top, const char *parent,
		      const char *name, const struct locate_how *how, int *ret_fd, char **ret_path,
		      struct diag *diag);

/* Whether a file that an image names, real path and mode, may be written to: 0, or -EACCES with a
 * sentence. locate_open_named() asks it; this is for one that has been open for reading. settings:
 * as in struct locate_how. */
int locate_check_writing(const struct locate_policy *policy, const char *real, mode_t mode,
			 const char *settings, struct diag *diag);

#endif

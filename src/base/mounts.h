/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_MOUNTS_H
#define FUSEIMG_MOUNTS_H

/*
 * The mount table of this process, /proc/self/mountinfo. Reading it touches none of the file
 * systems in it, so it is how we look at our own mount and at mounts that may hang.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MOUNTS_OURS "fuse.fuseimg"

/* One line; the strings are unescaped. */
struct mounts_entry {
	dev_t dev;    /* of the file system: the same for every place where it is mounted */
	char *point;  /* where it stands */
	char *type;   /* "ext4", "fuse.fuseimg", ... */
	char *source; /* "/dev/loop0", the image's path, ... */
	bool read_only;
};

struct mounts {
	struct mounts_entry *entries; /* in the table's order: what covers stands behind */
	size_t n;
};

/* 0 or -errno. */
int mounts_read(struct mounts *ret);
/* Takes a zeroed one too. */
void mounts_done(struct mounts *m);

/* The text of a table, in place; split from mounts_read() for tests. */
int mounts_parse(char *text, struct mounts *ret);

/* What is to be seen at a path, or NULL. */
const struct mounts_entry *mounts_at(const struct mounts *m, const char *point);
/* The first place of the export of ours with this device and source, or NULL. (The kernel gives the
 * number of a device that is gone to the next one at once, so that it alone says little.) */
const struct mounts_entry *mounts_of(const struct mounts *m, dev_t dev, const char *source);

#endif

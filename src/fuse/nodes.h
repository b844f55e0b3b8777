/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_NODES_H
#define FUSEIMG_NODES_H

/*
 * What stands at the target. Node ids are fixed, so that every worker of a session means the same
 * by them: 1 is the target itself (the disk where the target is a file, else the directory), 2
 * the disk in the directory, 3 the status file. Ids from 16 on are for partitions.
 */

#include <stddef.h>
#include <stdint.h>

#include "fuse/share.h"
#include "session/abi.h"

enum node {
	NODE_NONE,
	NODE_DIRECTORY,
	NODE_DISK,
	NODE_STATUS,
};

enum {
	NODE_ID_ROOT = FUSE_ROOT_ID,
	NODE_ID_DISK = 2,
	NODE_ID_STATUS = 3,
};

enum node node_by_id(const struct share *share, uint64_t id);
/* Names of the directory, in READDIR's order; NULL behind the last. *ret_id: the node. */
const char *node_name(unsigned index, uint64_t *ret_id);
/* The id behind a name in the directory, 0: none. */
uint64_t node_lookup(const struct share *share, uint64_t parent, const char *name, size_t len);

/* The attributes of the node that id names. 0 or -errno. */
int node_attr(struct share *share, uint64_t id, struct fuse_attr *ret);
/* How long the kernel may believe them, in seconds. */
uint64_t node_attr_valid(const struct share *share, uint64_t id);

/* Takes mode, owner and times of a SETATTR (not the size). */
int node_set_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in);
/* The disk's content has changed: its mtime is the image's again. Cheap; called for each write. */
void node_touched(struct share *share);

/* The text of the status file, of the same length for the whole session. Bytes, without the NUL. */
size_t status_text(struct share *share, char *buf, size_t size);
enum {
	STATUS_MAX = 8192,
};

#endif

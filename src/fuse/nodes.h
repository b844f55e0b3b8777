/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_NODES_H
#define FUSEIMG_NODES_H

/*
 * What stands at the target. Node ids are fixed, so that every worker of a session means the same
 * by them: 1 is the target itself (the disk where the target is a file, else the directory), 2
 * the disk in the directory, 3 the status file, 4 a symbolic link to the partition that the
 * configuration has chosen. From SLOTS_WINDOW_NODE on come the partitions, see windows.h.
 */

#include <stddef.h>
#include <stdint.h>

#include "fuse/share.h"
#include "fuse/windows.h"
#include "session/abi.h"

enum node {
	NODE_NONE,
	NODE_DIRECTORY,
	NODE_DISK,
	NODE_STATUS,
	NODE_LINK, /* "partition" */
	NODE_PART,
};

enum {
	NODE_ID_ROOT = FUSE_ROOT_ID,
	NODE_ID_DISK = 2,
	NODE_ID_STATUS = 3,
	NODE_ID_LINK = 4,
};

enum {
	NODE_NAME_MAX = WINDOWS_NAME_MAX,
};

enum node node_by_id(const struct share *share, uint64_t id);
/* Names of the directory, in READDIR's order; 0 behind the last. Returns the node. */
uint64_t node_name(const struct share *share, unsigned index, char buf[NODE_NAME_MAX]);
/* The id behind a name in the directory, 0: none. */
uint64_t node_lookup(const struct share *share, uint64_t parent, const char *name, size_t len);

/* The attributes of the node that id names. 0 or -errno. */
int node_attr(struct share *share, uint64_t id, struct fuse_attr *ret);
/* How long the kernel may believe them, and that the name means this node, in seconds. */
uint64_t node_attr_valid(const struct share *share, uint64_t id);
uint64_t node_entry_valid(const struct share *share, uint64_t id);

/* The bytes of the image that a node shows, as far as the image reaches. */
struct node_span {
	uint64_t off, size;
};
/* False where the node is no part of the disk. */
bool node_span(const struct share *share, uint64_t id, struct node_span *ret);

/* Takes mode, owner and times of a SETATTR (not the size). may: only says whether it would. */
int node_may_set_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in);
int node_set_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in);
/* The content of the disk has changed, by way of this node: the mtime of both is the image's again.
 * Cheap; called for each write. */
void node_touched(struct share *share, uint64_t id);

/* The text of the status file, of the same length for the whole session. Bytes, without the NUL. */
size_t status_text(struct share *share, char *buf, size_t size);
enum {
	STATUS_MAX = 8192,
};

#endif

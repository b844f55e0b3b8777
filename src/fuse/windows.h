/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_WINDOWS_H
#define FUSEIMG_WINDOWS_H

/*
 * The partitions of the disk as files: part1, part2, ... Each is a window, a node that shows some
 * bytes of the disk.
 *
 * A window belongs to the place, not to the name. It is made when a partition table first tells of
 * a partition with this number and this beginning, and keeps its node id and its beginning as long
 * as the session lives. When the table is read again,
 *
 *   a partition with the same number and beginning keeps its window; its size follows the table,
 *   also for those who have it open;
 *   one that has moved gets another window: who opens the name from then on gets that, who had it
 *   open before goes on with the old place, as with a file that was replaced by another;
 *   one that is gone has no name any more, and is left to those who have it open.
 *
 * All of it lives in the slots: a worker that takes over shows the same windows under the same ids,
 * and a write that its predecessor left behind goes to the place that it was meant for, even if
 * somebody has changed the table on the disk meanwhile.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fuse/share.h"
#include "image/partition.h"

enum {
	WINDOWS_NAME_MAX = 16, /* "part4294967295" */
};

/*
 * Shows what table tells of (NULL: nothing), under the name "partition" also the one with the
 * number selected (0: none), and logs what of it cannot be shown. Where the table was changed more
 * often than there are windows, the old partitions stay. Before threads serve.
 */
void windows_set(struct share *share, const struct partition_table *table, unsigned selected);

/* How many have a name, and the i-th of them. */
unsigned windows_count(const struct share *share);
uint64_t windows_name(const struct share *share, unsigned i, char buf[WINDOWS_NAME_MAX]);
/* The node that has this name now, 0: none. */
uint64_t windows_lookup(const struct share *share, const char *name, size_t len);

/* The name that "partition" leads to. False: there is none. */
bool windows_selected(const struct share *share, char buf[WINDOWS_NAME_MAX]);

/* Is id the node of a window, with or without a name, and which bytes does it show? Outputs may be
 * NULL. */
bool windows_place(const struct share *share, uint64_t id, uint64_t *ret_off, uint64_t *ret_len);

#endif

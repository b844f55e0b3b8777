/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * L2 tables that the active disk has for itself: new ones, and copies of those that a snapshot has
 * too. A table is complete on stable storage before the L1 table names it.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

static uint64_t qcow2_table_entry(struct qcow2 *q, uint64_t index) EXCLUDES(q->map_lock)
{
	uint64_t entry;

	rwlock_read(&q->map_lock);
	entry = q->l1[index];
	rwlock_unread(&q->map_lock);
	return entry;
}

/* What a table that is shared says is shared with it, whatever COPIED says: the copy must not let
 * anyone write there. */
static void qcow2_table_unshare(const struct qcow2 *q, uint64_t *disk)
{
	size_t words = q->cluster_size / sizeof(*disk);

	for (size_t i = 0; i < words; i += q->entry_words)
		be64_put(&disk[i], be64_get(&disk[i]) & ~QCOW2_COPIED);
}

/* Copies a table durably. Nobody changes the source: it is a snapshot's. */
static int qcow2_table_copy(struct qcow2 *q, uint64_t from, uint64_t to)
{
	_cleanup_free_ uint64_t *disk = malloc(q->cluster_size);
	int r;

	if (!disk)
		return -ENOMEM;
	if (from & (q->cluster_size - 1) || qcow2_beyond_end(q, from + q->cluster_size - 1))
		return image_damaged(q->img, "%s: an L2 table at 0x%llx is outside the file",
				     q->img->name, (ull)from);
	r = store_read_full(q->img->store, disk, q->cluster_size, from);
	if (r < 0)
		return r;
	qcow2_table_unshare(q, disk);
	r = store_write(q->img->store, disk, q->cluster_size, to);
	return r < 0 ? r : store_flush(q->img->store);
}

/* Names the table in L1, on disk and then in memory. */
static int qcow2_table_name(struct qcow2 *q, uint64_t index, uint64_t table) REQUIRES(q->table_lock)
{
	uint64_t disk;
	int r;

	be64_put(&disk, table | QCOW2_COPIED);
	r = store_write(q->img->store, &disk, sizeof(disk), q->l1_offset + index * sizeof(disk));
	if (r < 0)
		return r;
	rwlock_write(&q->map_lock);
	/* The cluster may have been a table before */
	qcow2_cache_drop_table(q, table);
	q->l1[index] = table | QCOW2_COPIED;
	rwlock_unwrite(&q->map_lock);
	return 0;
}

/* Makes a table to take the place of what `entry` of L1 says. */
static int qcow2_table_make(struct qcow2 *q, uint64_t entry, uint64_t *ret_cluster)
{
	uint64_t old = entry & QCOW2_OFFSET;
	struct qcow2_run run;
	int r;

	if (!old)
		return qcow2_reserve_take_zeroed(q, ret_cluster);
	r = qcow2_reserve_take(q, 1, &run);
	if (r < 0)
		return r;
	r = qcow2_table_copy(q, old, run.first << q->cluster_bits);
	if (r < 0)
		qcow2_reserve_give(q, &(struct qcow2_run){.first = run.first, .n = 1});
	else
		*ret_cluster = run.first;
	return r;
}

/* Makes a table and names it, unless somebody else did meanwhile. */
static int qcow2_table_replace(struct qcow2 *q, uint64_t index, uint64_t entry)
{
	struct qcow2_run old = {.first = (entry & QCOW2_OFFSET) >> q->cluster_bits, .n = 1};
	uint64_t cluster;
	bool late;
	int r = q->l1_lost ? -EIO : qcow2_table_make(q, entry, &cluster);

	if (r < 0)
		return r;
	mutex_lock(&q->table_lock);
	late = qcow2_table_entry(q, index) != entry;
	if (!late)
		r = qcow2_table_name(q, index, cluster << q->cluster_bits);
	mutex_unlock(&q->table_lock);
	if (late) /* a copy was written, an empty table was not */
		qcow2_reserve_give(
			q, &(struct qcow2_run){.first = cluster, .n = 1, .fresh = !old.first});
	/* When the write failed the disk may name the table all the same: it is leaked */
	if (r == 0 && !late && old.first)
		qcow2_free_later(q, &(struct qcow2_runs){.at = &old, .n = 1});
	return r;
}

int qcow2_table_ensure(struct qcow2 *q, uint64_t off)
{
	uint64_t index = off >> qcow2_table_bits(q), entry = qcow2_table_entry(q, index);

	if (entry & QCOW2_COPIED)
		return 0;
	if (entry & QCOW2_L1_RESERVED)
		return image_damaged(q->img, "%s: the L1 entry of guest offset 0x%llx is 0x%llx",
				     q->img->name, (ull)off, (ull)entry);
	return qcow2_table_replace(q, index, entry);
}

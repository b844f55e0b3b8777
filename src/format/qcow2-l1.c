/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A larger L1 table. The last cluster of the old one usually has room. Where not, a copy twice as
 * large is made at the end of the file: it is complete on stable storage before the header names
 * it, and only a flush later the old one's clusters are given back.
 *
 * Entries of the table behind those that the disk needs are not believed to be empty: another
 * program may have made the disk smaller and left them. Who makes it larger clears what they name.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

static uint64_t qcow2_l1_clusters(const struct qcow2 *q, uint64_t entries)
{
	return div_round_up(entries * sizeof(uint64_t), q->cluster_size);
}

static uint32_t qcow2_l1_room(const struct qcow2 *q, uint64_t clusters)
{
	return (uint32_t)min_u64((clusters << q->cluster_bits) / sizeof(uint64_t),
				 QCOW2_L1_BYTES_MAX / sizeof(uint64_t));
}

int qcow2_l1_publish(struct qcow2 *q, uint64_t size, uint64_t l1_offset, uint32_t l1_size)
{
	struct qcow2_disk_header h = {0};
	size_t from = offsetof(struct qcow2_disk_header, size);
	size_t to = offsetof(struct qcow2_disk_header, refcount_table_offset);

	/* crypt_method stands between them: none, or the image would not be open */
	be64_put(&h.size, size);
	be32_put(&h.l1_size, l1_size);
	be64_put(&h.l1_table_offset, l1_offset);
	return store_write(q->img->store, (const char *)&h + from, to - from, from);
}

/* The rest of the table's last cluster becomes part of it. */
static int qcow2_l1_widen(struct qcow2 *q)
{
	uint32_t room = qcow2_l1_room(q, qcow2_l1_clusters(q, q->l1_size));
	size_t more = (room - q->l1_size) * sizeof(uint64_t);
	_cleanup_free_ uint64_t *zeroes = calloc(1, more);
	int r;

	if (!zeroes)
		return -ENOMEM;
	r = store_write(q->img->store, zeroes, more, q->l1_offset + q->l1_size * sizeof(uint64_t));
	if (r == 0)
		r = store_flush(q->img->store);
	/* Should the header fail to change: the table is the same, with or without its rest */
	if (r == 0)
		r = qcow2_l1_publish(q, q->img->size, q->l1_offset, room);
	if (r == 0)
		q->l1_size = room;
	return r;
}

/* n clusters in a row. What was claimed on the way and is not in a row goes to others. */
static int qcow2_l1_row(struct qcow2 *q, uint64_t n, struct qcow2_run *ret,
			struct qcow2_runs *others) REQUIRES(q->refcount_lock)
{
	struct qcow2_run row = {0}, run;
	int r = 0;

	while (r == 0 && row.n < n) {
		r = qcow2_runs_room(others, 1);
		if (r == 0)
			r = qcow2_refcount_claim(q, n - row.n, &run);
		if (r == 0 && row.n > 0 && row.first + row.n == run.first) {
			row.n += run.n;
			continue;
		}
		if (row.n > 0)
			qcow2_runs_add(others, &row);
		row = r == 0 ? run : (struct qcow2_run){0};
	}
	if (r == 0)
		*ret = row;
	return r;
}

/* The same behind all that is in use, where a row is easily found. */
static int qcow2_l1_row_behind(struct qcow2 *q, uint64_t n, struct qcow2_run *ret,
			       struct qcow2_runs *others) REQUIRES(q->refcount_lock)
{
	uint64_t scan_from = q->scan_from, size;
	int r;

	/* Else refcount blocks, which stand among the clusters that they count, are in the way */
	if (n >= UINT64_C(1) << qcow2_block_bits(q))
		return qcow2_reftable_claim_row(q, n, ret);
	r = store_size(q->img->store, &size);
	if (r < 0)
		return r;
	if (!q->img->store->fixed)
		q->scan_from = max_u64(scan_from, div_round_up(size, q->cluster_size));
	r = qcow2_l1_row(q, n, ret, others);
	q->scan_from = scan_from;
	return r;
}

/* Space for a table, whose refcounts are on stable storage after the next flush; the runs of
 * others are so, too, and then go to the reservation. */
static int qcow2_l1_claim(struct qcow2 *q, uint64_t n, struct qcow2_run *ret,
			  struct qcow2_runs *others)
{
	int r;

	mutex_lock(&q->refcount_lock);
	r = qcow2_l1_row_behind(q, n, ret, others);
	for (size_t i = 0; r < 0 && i < others->n; i++)
		qcow2_refcount_lower(q, &others->at[i]);
	mutex_unlock(&q->refcount_lock);
	return r;
}

static void qcow2_l1_unclaim(struct qcow2 *q, const struct qcow2_run *row,
			     const struct qcow2_runs *others)
{
	mutex_lock(&q->refcount_lock);
	qcow2_refcount_lower(q, row);
	for (size_t i = 0; i < others->n; i++)
		qcow2_refcount_lower(q, &others->at[i]);
	mutex_unlock(&q->refcount_lock);
}

/* The old entries and zeroes behind them, durable. */
static int qcow2_l1_copy(struct qcow2 *q, const struct qcow2_run *row)
{
	size_t bytes = (size_t)row->n << q->cluster_bits;
	_cleanup_free_ uint64_t *disk = calloc(1, bytes);
	int r = 0;

	if (!disk)
		return -ENOMEM;
	if (q->l1_size > 0)
		r = store_read_full(q->img->store, disk, q->l1_size * sizeof(*disk), q->l1_offset);
	if (r == 0)
		r = store_write(q->img->store, disk, bytes, row->first << q->cluster_bits);
	return r < 0 ? r : store_flush(q->img->store);
}

/* The header names the table in the row. */
static int qcow2_l1_adopt(struct qcow2 *q, const struct qcow2_run *row)
{
	struct qcow2_run old = {.first = q->l1_offset >> q->cluster_bits,
				.n = qcow2_l1_clusters(q, q->l1_size)};
	uint64_t off = row->first << q->cluster_bits;
	uint32_t room = qcow2_l1_room(q, row->n);
	int r = qcow2_l1_publish(q, q->img->size, off, room);

	if (r < 0) {
		/* Both tables say the same, but not for long: the old one has to be it */
		if (qcow2_l1_publish(q, q->img->size, q->l1_offset, q->l1_size) < 0)
			q->l1_lost = true;
		return r;
	}
	q->l1_offset = off;
	q->l1_size = room;
	if (old.n > 0)
		qcow2_free_later(q, &(struct qcow2_runs){.at = &old, .n = 1});
	return 0;
}

static int qcow2_l1_move(struct qcow2 *q, uint64_t clusters)
{
	struct qcow2_runs others = {0};
	struct qcow2_run row;
	int r = qcow2_l1_claim(q, clusters, &row, &others);

	if (r == 0) {
		r = qcow2_l1_copy(q, &row);
		if (r < 0)
			qcow2_l1_unclaim(q, &row, &others);
	}
	for (size_t i = 0; r == 0 && i < others.n; i++)
		qcow2_reserve_give(q, &others.at[i]);
	qcow2_runs_done(&others);
	return r < 0 ? r : qcow2_l1_adopt(q, &row);
}

/* Entries up to `needed`, from disk to memory. */
static int qcow2_l1_load(struct qcow2 *q, uint32_t needed)
{
	uint64_t *l1;
	int r = 0;

	rwlock_write(&q->map_lock);
	l1 = reallocarray(q->l1, needed, sizeof(*l1));
	if (l1)
		q->l1 = l1;
	rwlock_unwrite(&q->map_lock);
	if (!l1)
		return -ENOMEM;
	/* Behind l1_needed nobody looks yet */
	r = store_read_full(q->img->store, l1 + q->l1_needed, (needed - q->l1_needed) * sizeof(*l1),
			    q->l1_offset + q->l1_needed * sizeof(*l1));
	if (r < 0)
		return r;
	for (uint32_t i = q->l1_needed; i < needed; i++)
		l1[i] = be64_get(&l1[i]);
	q->l1_needed = needed;
	qcow2_cache_grow(q);
	return 0;
}

int qcow2_l1_extend(struct qcow2 *q, uint32_t needed, struct diag *diag)
{
	uint64_t clusters = qcow2_l1_clusters(q, needed), now = qcow2_l1_clusters(q, q->l1_size);
	int r = 0;

	if (q->l1_lost)
		return diag_set(diag, -EIO, "%s: writing its header failed before", q->img->name);
	if (needed > q->l1_size && clusters <= now)
		r = qcow2_l1_widen(q);
	if (needed > q->l1_size && r == 0) {
		r = qcow2_l1_move(q, max_u64(clusters, min_u64(now * 2, QCOW2_L1_BYTES_MAX >>
										q->cluster_bits)));
		if (r == -ENOSPC)
			r = qcow2_l1_move(q, clusters);
	}
	if (r == 0 && needed > q->l1_needed)
		r = qcow2_l1_load(q, needed);
	return r < 0 ? diag_errno(diag, r, "%s: cannot make its L1 table larger", q->img->name) : 0;
}

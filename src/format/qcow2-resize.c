/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The size of the disk. The header's sector decides between the old size and the new one.
 *
 *   larger   room in the L1 table; whatever stands behind the old end (host bytes, entries, the
 *            backing image) reads as zeroes, on stable storage; then the header
 *   smaller  the header, on stable storage; then tables and clusters behind the new end are freed
 *
 * So a power cut shows the old disk or the new one, never an old one without its end, and what it
 * interrupts are leaks, or entries behind the end that the next growth clears.
 *
 * Internal snapshots keep the size that they were made with, where they state it. Version 2 does
 * not, so there the size is part of the snapshots and stays.
 */

#include <errno.h>
#include <stdlib.h>

#include "format/qcow2.h"

static int qcow2_resize_snapshot(void *data, const struct format_snapshot *s)
{
	return s->has_size ? 0 : 1;
}

static int qcow2_resize_check_snapshots(struct qcow2 *q, struct diag *diag)
{
	int r = 1;

	if (q->nb_snapshots == 0)
		return 0;
	if (q->version >= 3)
		r = qcow2_snapshots(q->img, qcow2_resize_snapshot, NULL, diag);
	if (r <= 0)
		return r;
	return diag_set(diag, -EOPNOTSUPP,
			"%s: has internal snapshots that do not state their size, so its own "
			"cannot change",
			q->img->name);
}

static int qcow2_resize_check(struct qcow2 *q, uint64_t size, struct diag *diag)
{
	uint64_t needed = div_round_up(size, UINT64_C(1) << qcow2_table_bits(q));

	if (needed > QCOW2_L1_BYTES_MAX / sizeof(uint64_t))
		return diag_set(
			diag, -EFBIG,
			"%s: a disk of %llu bytes is more than clusters of %llu bytes can hold",
			q->img->name, (ull)size, (ull)q->cluster_size);
	if (q->version < 3 && size > q->img->size && q->img->parent_size > q->img->size)
		return diag_set(
			diag, -EOPNOTSUPP,
			"%s: its backing image is longer than itself, which a larger disk would "
			"show; version 2 of qcow2 cannot hide that",
			q->img->name);
	return qcow2_resize_check_snapshots(q, diag);
}

static uint32_t qcow2_resize_needed(const struct qcow2 *q, uint64_t size)
{
	return (uint32_t)div_round_up(size, UINT64_C(1) << qcow2_table_bits(q));
}

/* Zeroes behind the end, as far as its subcluster goes. */
static int qcow2_grow_seal(struct qcow2 *q, bool *ret_changed)
{
	uint64_t size = q->img->size;
	uint64_t end = round_up(size, UINT64_C(1) << q->subcluster_bits);
	struct extent ext;
	int r;

	if (q->end_sealed || end == size)
		return 0;
	r = qcow2_map(q->img, size - 1, 1, 0, &ext);
	if (r < 0 || ext.kind != EXTENT_DATA)
		return r;
	assert(!ext.shared); /* image/ has seen to it */
	*ret_changed = true;
	return store_zero(ext.store, ext.host_off + 1, end - size);
}

/* Entries behind the old end that say anything else than zeroes, and where the backing image would
 * show. */
static int qcow2_grow_clear(struct qcow2 *q, uint64_t size, bool *ret_changed)
{
	struct qcow2_unmap u = {
		.off = round_up(q->img->size, UINT64_C(1) << q->subcluster_bits),
		.end = round_up(size, q->cluster_size),
	};
	int r = 0;

	while (r == 0 && u.off < u.end)
		r = qcow2_unmap_piece(q, &u);
	*ret_changed |= u.changed;
	assert(r <= 0); /* neither version 2 and a backing image, nor a part of what is packed */
	return r;
}

/* An external data file is as long as the disk, so that no entry can name what a power cut took
 * from it. A raw one holds the zeroes, too. */
static int qcow2_grow_data(struct qcow2 *q, uint64_t size, bool *ret_changed)
{
	struct image *img = q->img;
	uint64_t now;
	int r = 0;

	if (!q->data_file)
		return 0;
	*ret_changed = true;
	if (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW)
		r = store_zero(img->data, img->size, size - img->size);
	if (r == 0)
		r = store_size(img->data, &now);
	return r == 0 && now < size ? store_resize(img->data, size) : r;
}

static int qcow2_grow(struct qcow2 *q, uint64_t size, struct diag *diag)
{
	bool changed = false;
	int r = qcow2_l1_extend(q, qcow2_resize_needed(q, size), diag);

	if (r < 0)
		return r;
	r = qcow2_grow_seal(q, &changed);
	if (r == 0)
		r = qcow2_grow_clear(q, size, &changed);
	if (r == 0)
		r = qcow2_grow_data(q, size, &changed);
	if (r == 0 && changed)
		r = qcow2_flush(q->img);
	if (r == 0)
		r = qcow2_l1_publish(q, size, q->l1_offset, q->l1_size);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot grow to %llu bytes", q->img->name,
				  (ull)size);
	/* From now on only what was cleared, and zeroes that fill up new clusters, are behind it;
	 * of an external data file nothing is filled behind the end */
	q->end_sealed = !q->data_file;
	q->img->size = size;
	q->data_end = size;
	return 0;
}

/* What the entries of a table name, into list. */
static int qcow2_shrink_gather(struct qcow2 *q, uint64_t off, struct qcow2_runs *list)
	REQUIRES(q->table_lock)
{
	uint64_t end = off + (UINT64_C(1) << qcow2_table_bits(q));
	uint64_t step = UINT64_C(1) << (q->cluster_bits + q->slice_bits);
	struct qcow2_change c;

	for (; off < end; off += step) {
		int r = qcow2_change_begin(q, off, (size_t)q->entry_words << q->slice_bits, &c);

		for (size_t i = 0; r == 0 && i < c.n_words; i += q->entry_words) {
			struct qcow2_run run = {0};

			r = qcow2_check_entry(q, off + ((i / q->entry_words) << q->cluster_bits),
					      c.words[i], q->extended_l2 ? c.words[i + 1] : 0);
			if (r == 0 && !q->data_file)
				run = qcow2_entry_clusters(q, c.words[i]);
			if (r == 0 && run.n > 0)
				r = qcow2_runs_add(list, &run);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Takes a table out of L1, and gathers what loses a reference by that. */
static int qcow2_shrink_table(struct qcow2 *q, uint32_t index, struct qcow2_runs *list)
	REQUIRES(q->table_lock)
{
	static const uint64_t none;
	struct qcow2_run table;
	uint64_t entry;
	int r;

	rwlock_read(&q->map_lock);
	entry = q->l1[index];
	rwlock_unread(&q->map_lock);
	if (entry == 0)
		return 0;
	r = qcow2_shrink_gather(q, (uint64_t)index << qcow2_table_bits(q), list);
	if (r < 0)
		return r;
	table = (struct qcow2_run){.first = (entry & QCOW2_OFFSET) >> q->cluster_bits, .n = 1};
	r = qcow2_runs_add(list, &table);
	if (r == 0)
		r = store_write(q->img->store, &none, sizeof(none),
				q->l1_offset + index * sizeof(none));
	if (r < 0)
		return r;
	rwlock_write(&q->map_lock);
	q->l1[index] = 0;
	qcow2_cache_drop_table(q, entry & QCOW2_OFFSET);
	rwlock_unwrite(&q->map_lock);
	return 0;
}

/* The caller is alone. Should it fail, they go on waiting. */
static void qcow2_shrink_settle(struct qcow2 *q)
{
	if (atomic_load(&q->img->crowded) && qcow2_flush(q->img) == 0)
		qcow2_settle(q->img);
}

/* Frees what tables wholly behind the new end name. A failure leaks it: L1 still names it then, and
 * growth clears it. */
static void qcow2_shrink_tables(struct qcow2 *q, uint32_t needed)
{
	while (q->l1_needed > needed && !q->l1_lost) {
		struct qcow2_runs list = {0};
		int r;

		mutex_lock(&q->table_lock);
		r = qcow2_shrink_table(q, q->l1_needed - 1, &list);
		mutex_unlock(&q->table_lock);
		if (r == 0)
			qcow2_free_later(q, &list);
		qcow2_runs_done(&list);
		qcow2_shrink_settle(q);
		q->l1_needed--;
	}
}

/* The same with the entries behind the new end of the table that it stands in. */
static void qcow2_shrink_entries(struct qcow2 *q, uint64_t size)
{
	struct qcow2_unmap u = {
		.off = round_up(size, q->cluster_size),
		.end = (uint64_t)qcow2_resize_needed(q, size) << qcow2_table_bits(q),
		.bare = true,
	};

	while (u.off < u.end && qcow2_unmap_piece(q, &u) == 0)
		qcow2_shrink_settle(q);
}

static void qcow2_shrink_data(struct qcow2 *q, uint64_t size)
{
	uint64_t now;

	q->data_end = min_u64(q->data_end, size);
	/* A data file that stays longer is only that */
	if (q->data_file && store_size(q->img->data, &now) == 0 && now > size)
		store_resize(q->img->data, size);
}

static int qcow2_shrink(struct qcow2 *q, uint64_t size, struct diag *diag)
{
	int r = qcow2_l1_publish(q, size, q->l1_offset, q->l1_size);

	if (r == 0)
		r = qcow2_flush(q->img);
	if (r < 0) {
		/* What is written behind the new end from now on must be there tomorrow */
		qcow2_l1_publish(q, q->img->size, q->l1_offset, q->l1_size);
		return diag_errno(diag, r, "%s: cannot shrink to %llu bytes", q->img->name,
				  (ull)size);
	}
	q->end_sealed = false;
	q->img->size = size;
	qcow2_shrink_tables(q, qcow2_resize_needed(q, size));
	qcow2_shrink_entries(q, size);
	qcow2_shrink_data(q, size);
	return 0;
}

int qcow2_resize(struct image *img, uint64_t size, struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	int r = qcow2_resize_check(q, size, diag);

	if (r < 0 || size == img->size)
		return r;
	/* A bitmap is as large as its disk */
	r = qcow2_bitmaps_mark(q, QCOW2_BITMAPS_ALL, diag);
	if (r < 0)
		return r;
	return size > img->size ? qcow2_grow(q, size, diag) : qcow2_shrink(q, size, diag);
}

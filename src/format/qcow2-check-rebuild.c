/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * New refcount structures, where the old ones are broken: blocks first, then the table, in a row
 * behind everything else. They count themselves, and not what they replace. All of it is on stable
 * storage before the header names it by one write, so a power cut leaves either the old ones or the
 * new ones, whole.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-check.h"

struct qcow2_rebuild {
	uint64_t place;		    /* first cluster */
	uint64_t n_blocks, n_table; /* clusters */
	uint64_t n_ranges;	    /* table entries in use: what a block counts is a range */
	uint64_t *table; /* offsets of the blocks; before the plan is made, 1 where one is needed */
};

/* The old ones are forgotten, so that nothing counts them. */
static void qcow2_rebuild_forget(struct qcow2_check *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->zones.n; i++)
		if (!qcow2_zone_refcounts(c->zones.at[i].kind))
			c->zones.at[n++] = c->zones.at[i];
	c->zones.n = c->zones.sorted = n;
}

/* Which ranges have references, and where they end. */
static int qcow2_rebuild_survey(struct qcow2_check *c, struct qcow2_rebuild *b, uint64_t *ret_end)
{
	unsigned bits = qcow2_block_bits(c->q);

	for (uint64_t w = 0; w < c->n_windows; w++) {
		int r = c->touched[w] ? qcow2_count_window(c, w * c->room) : 0;

		if (r < 0)
			return r;
		for (uint64_t i = 0; c->touched[w] && i < c->n; i++) {
			if (c->counts[i] == 0)
				continue;
			b->table[(c->first + i) >> bits] = 1;
			*ret_end = c->first + i + 1;
		}
	}
	return 0;
}

static uint64_t qcow2_rebuild_end(const struct qcow2_rebuild *b)
{
	return b->place + b->n_blocks + b->n_table;
}

/* More room needs more blocks, and these more room, until it is enough. */
static int qcow2_rebuild_plan(struct qcow2_check *c, struct qcow2_rebuild *b)
{
	uint64_t most = QCOW2_REFTABLE_BYTES_MAX / 8, n_blocks;
	unsigned bits = qcow2_block_bits(c->q);

	for (;;) {
		b->n_ranges = ((qcow2_rebuild_end(b) - 1) >> bits) + 1;
		if (b->n_ranges > most)
			return -EFBIG;
		for (uint64_t i = b->place >> bits; i < b->n_ranges; i++)
			b->table[i] = 1;
		n_blocks = 0;
		for (uint64_t i = 0; i < b->n_ranges; i++)
			n_blocks += b->table[i];
		if (n_blocks == b->n_blocks && b->n_table << c->q->cluster_bits >= b->n_ranges * 8)
			return 0;
		b->n_blocks = n_blocks;
		b->n_table = div_round_up(b->n_ranges * 8, c->q->cluster_size);
	}
}

/* Offsets for the blocks that are needed. */
static void qcow2_rebuild_assign(struct qcow2_check *c, struct qcow2_rebuild *b)
{
	uint64_t next = b->place;

	for (uint64_t i = 0; i < b->n_ranges; i++)
		if (b->table[i])
			b->table[i] = next++ << c->q->cluster_bits;
}

/* The part of a new block that counts the window's clusters from `at` on; *ret_n of them. */
static int qcow2_rebuild_part(struct qcow2_check *c, const struct qcow2_rebuild *b, uint64_t at,
			      uint64_t *ret_n)
{
	const struct qcow2 *q = c->q;
	unsigned part_bits = qcow2_piece_bits(q);
	uint64_t in_block = at & ((UINT64_C(1) << qcow2_block_bits(q)) - 1);
	uint64_t block = b->table[at >> qcow2_block_bits(q)];
	uint64_t most = qcow2_refcount_most(q);
	uint8_t bytes[QCOW2_PIECE_BYTES] = {0};

	*ret_n = min_u64(UINT64_C(1) << part_bits, c->first + c->n - at);
	if (!block)
		return 0;
	for (uint64_t i = 0; i < *ret_n; i++)
		qcow2_refcount_put(q, bytes, i, min_u64(c->counts[at - c->first + i], most));
	return store_write(q->img->store, bytes, q->slice_bytes,
			   block + (in_block >> part_bits) * q->slice_bytes);
}

/* A block's end may lie past the end of the file and of all windows. */
static int qcow2_rebuild_zero(struct qcow2_check *c, const struct qcow2_rebuild *b)
{
	struct store *store = c->q->img->store;
	uint64_t off = b->place << c->q->cluster_bits;
	uint64_t end = qcow2_rebuild_end(b) << c->q->cluster_bits, size;
	int r = store->fixed ? 0 : store_size(store, &size);

	if (r == 0 && !store->fixed && size < end)
		r = store_resize(store, end);
	return r < 0 ? r : store_zero(store, off, end - off);
}

static int qcow2_rebuild_blocks(struct qcow2_check *c, const struct qcow2_rebuild *b)
{
	int r = qcow2_rebuild_zero(c, b);
	uint64_t n;

	for (uint64_t w = 0; r == 0 && w < c->n_windows; w++) {
		if (!c->touched[w])
			continue;
		r = qcow2_count_window(c, w * c->room);
		for (uint64_t at = c->first; r == 0 && at < c->first + c->n; at += n)
			r = qcow2_rebuild_part(c, b, at, &n);
	}
	return r;
}

static int qcow2_rebuild_table(struct qcow2_check *c, const struct qcow2_rebuild *b)
{
	_cleanup_free_ uint64_t *disk = calloc(b->n_ranges, sizeof(*disk));
	int r;

	if (!disk)
		return -ENOMEM;
	for (uint64_t i = 0; i < b->n_ranges; i++)
		be64_put(&disk[i], b->table[i]);
	r = store_write(c->q->img->store, disk, b->n_ranges * sizeof(*disk),
			(b->place + b->n_blocks) << c->q->cluster_bits);
	return r < 0 ? r : store_flush(c->q->img->store);
}

/* Offset and size stand side by side, in one sector. */
static int qcow2_rebuild_publish(struct qcow2_check *c, const struct qcow2_rebuild *b)
{
	uint8_t disk[12];
	int r;

	be64_put(disk, (b->place + b->n_blocks) << c->q->cluster_bits);
	be32_put(disk + 8, (uint32_t)b->n_table);
	r = qcow2_patch_add(c, disk, sizeof(disk),
			    offsetof(struct qcow2_disk_header, refcount_table_offset));
	if (r == 0)
		r = qcow2_patches_flush(c);
	if (r < 0)
		return r;
	mutex_lock(&c->q->refcount_lock);
	c->q->reftable_offset = (b->place + b->n_blocks) << c->q->cluster_bits;
	c->q->reftable_entries = b->n_table << c->q->cluster_bits >> 3;
	mutex_unlock(&c->q->refcount_lock);
	return 0;
}

/* The windows reach to the end of the new structures. */
static int qcow2_rebuild_widen(struct qcow2_check *c, const struct qcow2_rebuild *b)
{
	uint64_t n = div_round_up(qcow2_rebuild_end(b), c->room);
	uint8_t *touched;

	c->clusters = max_u64(c->clusters, qcow2_rebuild_end(b));
	if (n > c->n_windows) {
		touched = realloc(c->touched, n);
		if (!touched)
			return -ENOMEM;
		memset(touched + c->n_windows, 0, n - c->n_windows);
		c->touched = touched;
		c->n_windows = n;
	}
	for (uint64_t w = b->place / c->room; w < n; w++)
		c->touched[w] = 1;
	return 0;
}

static int qcow2_rebuild_write(struct qcow2_check *c, struct qcow2_rebuild *b)
{
	const struct qcow2_zone zone = {
		.first = b->place,
		.n = (uint32_t)(b->n_blocks + b->n_table),
		.refs = 1,
		.kind = QCOW2_ZONE_BLOCK,
	};
	int r = qcow2_zones_add(c, &zone);

	if (r == 0)
		r = qcow2_rebuild_widen(c, b);
	if (r < 0)
		return r;
	qcow2_zones_sort(&c->zones);
	qcow2_rebuild_assign(c, b);
	r = qcow2_rebuild_blocks(c, b);
	return r < 0 ? r : qcow2_rebuild_table(c, b);
}

int qcow2_check_rebuild(struct qcow2_check *c)
{
	_cleanup_free_ uint64_t *table = calloc(QCOW2_REFTABLE_BYTES_MAX, 1);
	const char *name = c->q->img->name;
	struct qcow2_rebuild b = {.table = table};
	bool fixed = c->q->img->store->fixed;
	uint64_t end = 0, limit = c->clusters;
	int r;

	if (!table)
		return -ENOMEM;
	if ((c->clusters - 1) >> qcow2_block_bits(c->q) >= QCOW2_REFTABLE_BYTES_MAX / 8)
		return diag_set(c->diag, -EFBIG, "%s: is too large for any refcount table", name);
	/* On a disk what comes behind all that is in use, the old structures included */
	for (size_t i = 0; i < c->zones.n; i++)
		b.place = max_u64(b.place, c->zones.at[i].first + c->zones.at[i].n);
	qcow2_rebuild_forget(c);
	r = qcow2_rebuild_survey(c, &b, &end);
	if (r < 0)
		return r;
	b.place = fixed ? max_u64(b.place, end) : c->clusters;
	r = qcow2_rebuild_plan(c, &b);
	if (r < 0)
		return diag_set(c->diag, r, "%s: is too large for any refcount table", name);
	if (fixed && qcow2_rebuild_end(&b) > limit)
		return diag_set(c->diag, -ENOSPC,
				"%s: there is no room behind 0x%llx for new refcounts", name,
				(ull)(b.place << c->q->cluster_bits));
	r = qcow2_rebuild_write(c, &b);
	if (r < 0)
		return diag_errno(c->diag, r, "%s: cannot write new refcounts", name);
	return qcow2_rebuild_publish(c, &b);
}

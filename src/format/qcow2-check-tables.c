/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tables that are found without a walk: refcount table and blocks, L1 tables, and the L2 tables
 * that these name. */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-check.h"

/* One entry of the refcount table; what cannot be a block counts as none. */
static int qcow2_check_block(struct qcow2_check *c, uint64_t index, uint64_t entry)
{
	uint64_t off = entry & QCOW2_REFTABLE_OFFSET;

	c->reftable[index] = 0;
	if (entry == 0)
		return 0;
	if (entry & QCOW2_REFTABLE_RESERVED || !qcow2_check_place(c, off, c->q->cluster_size)) {
		qcow2_found(c, QCOW2_UNSOUND, 1,
			    "entry %llu of the refcount table is 0x%llx, where no refcount block "
			    "can be",
			    (ull)index, (ull)entry);
		c->rebuild = true;
		return 0;
	}
	c->reftable[index] = off;
	return qcow2_zones_add_bytes(c, QCOW2_ZONE_BLOCK, off, c->q->cluster_size);
}

static int qcow2_check_reftable(struct qcow2_check *c)
{
	uint64_t off = be64_get(&c->header.refcount_table_offset);
	uint64_t bytes = be32_get(&c->header.refcount_table_clusters) * c->q->cluster_size;
	int r;

	free(TAKE_PTR(c->reftable));
	c->reftable_entries = 0;
	/* Aligned and not absurd: open() has seen to that */
	if (bytes == 0 || !qcow2_check_place(c, off, bytes)) {
		qcow2_found(c, QCOW2_UNSOUND, 1, "the refcount table at 0x%llx is %s", (ull)off,
			    bytes ? "outside the file" : "empty");
		c->rebuild = true;
		return 0;
	}
	c->reftable = calloc(1, bytes);
	if (!c->reftable)
		return -ENOMEM;
	/* The file may end inside its last cluster: zeroes follow */
	if (store_read(c->q->img->store, c->reftable, bytes, off) < 0)
		return diag_set(c->diag, -EIO, "%s: cannot read the refcount table",
				c->q->img->name);
	c->reftable_entries = bytes / 8;
	r = qcow2_zones_add_bytes(c, QCOW2_ZONE_REFTABLE, off, bytes);
	for (uint64_t i = 0; r == 0 && i < c->reftable_entries; i++)
		r = qcow2_check_block(c, i, be64_get(&c->reftable[i]));
	return r;
}

/* Who goes on with the image (qcow2_check_repair_dirty()) has the active table in memory. */
static void qcow2_l1_changed(struct qcow2_check *c, const struct qcow2_check_l1 *l1, uint32_t index,
			     uint64_t entry)
{
	if (!l1->active || index >= c->q->l1_needed)
		return;
	rwlock_write(&c->q->map_lock);
	c->q->l1[index] = entry;
	rwlock_unwrite(&c->q->map_lock);
}

/* Entries of an L1 table that are at hand at once. */
static int qcow2_l1_piece(struct qcow2_check *c, const struct qcow2_check_l1 *l1, uint32_t first,
			  uint32_t n, qcow2_l1_fn *fn)
{
	uint64_t disk[QCOW2_PIECE_WORDS] = {0}, off = l1->off + first * UINT64_C(8);
	bool changed = false;

	if (store_read(c->q->img->store, disk, n * sizeof(*disk), off) < 0)
		return diag_set(c->diag, -EIO, "%s: cannot read the L1 table at 0x%llx",
				c->q->img->name, (ull)l1->off);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t entry = be64_get(&disk[i]);
		int r = entry ? fn(c, l1, first + i, &entry) : 0;

		if (r < 0)
			return r;
		if (r > 0) {
			be64_put(&disk[i], entry);
			qcow2_l1_changed(c, l1, first + i, entry);
		}
		changed = changed || r > 0;
	}
	return changed ? qcow2_patch_add(c, disk, n * sizeof(*disk), off) : 0;
}

int qcow2_check_each_l1(struct qcow2_check *c, const struct qcow2_check_l1 *l1, qcow2_l1_fn *fn)
{
	int r = 0;

	for (uint32_t first = 0; r == 0 && first < l1->size; first += QCOW2_PIECE_WORDS)
		r = qcow2_l1_piece(c, l1, first,
				   (uint32_t)min_u64(QCOW2_PIECE_WORDS, l1->size - first), fn);
	return r;
}

/* An entry that names nothing that can be a table. 1: it is gone. */
static int qcow2_l1_drop(struct qcow2_check *c, uint64_t *entry)
{
	if (c->repair < CHECK_REPAIR_ALL) {
		c->blind = true;
		return 0;
	}
	*entry = 0;
	c->dropped = true;
	return 1;
}

static int qcow2_l1_entry(struct qcow2_check *c, const struct qcow2_check_l1 *l1, uint32_t index,
			  uint64_t *entry)
{
	uint64_t off = *entry & QCOW2_OFFSET;
	struct qcow2_zone zone = {
		.n = 1, .refs = 1, .index = index, .kind = QCOW2_ZONE_L2, .active = l1->active};
	bool mended = *entry & QCOW2_L1_RESERVED;
	int r;

	if (!qcow2_check_place(c, off, c->q->cluster_size)) {
		qcow2_found(
			c, QCOW2_UNSOUND, 1,
			"entry %u of the L1 table at 0x%llx is 0x%llx, where no L2 table can be",
			index, (ull)l1->off, (ull)*entry);
		return qcow2_l1_drop(c, entry);
	}
	if (mended)
		qcow2_found(c, QCOW2_UNSOUND, 1,
			    "entry %u of the L1 table at 0x%llx is 0x%llx, with reserved bits",
			    index, (ull)l1->off, (ull)*entry);
	zone.first = off >> c->q->cluster_bits;
	r = qcow2_zones_add(c, &zone);
	if (r < 0 || !mended || c->repair < CHECK_REPAIR_ALL)
		return r;
	*entry &= ~QCOW2_L1_RESERVED;
	return 1;
}

static int qcow2_l1_entry_bad(struct qcow2_check *c, const struct qcow2_check_l1 *l1,
			      uint32_t index, uint64_t *entry)
{
	const struct qcow2_zone *zone =
		qcow2_zones_find(&c->zones, (*entry & QCOW2_OFFSET) >> c->q->cluster_bits);

	/* Where it stands on something larger, that may be what was found */
	if (zone && (zone->kind != QCOW2_ZONE_L2 || zone->bad))
		return qcow2_l1_drop(c, entry);
	return 0;
}

/* The active L1 table first. */
static int qcow2_check_active(struct qcow2_check *c)
{
	const struct qcow2_check_l1 l1 = {
		.off = c->q->l1_offset, .size = c->q->l1_size, .active = true};

	c->n_l1s = 0;
	free(c->l1s);
	c->l1s = calloc(c->q->nb_snapshots + UINT64_C(1), sizeof(*c->l1s));
	if (!c->l1s)
		return -ENOMEM;
	if (l1.size == 0)
		return 0;
	c->l1s[c->n_l1s++] = l1;
	if (!qcow2_check_place(c, l1.off, l1.size * UINT64_C(8)))
		return diag_set(c->diag, -EUCLEAN, "%s: the L1 table at 0x%llx is outside the file",
				c->q->img->name, (ull)l1.off);
	return qcow2_zones_add_bytes(c, QCOW2_ZONE_L1, l1.off, l1.size * UINT64_C(8));
}

static int qcow2_check_l2_tables(struct qcow2_check *c)
{
	uint64_t entries = 0;
	int r = 0;

	for (size_t i = 0; i < c->n_l1s; i++)
		entries += c->l1s[i].size;
	if (entries > QCOW2_CHECK_L1_ENTRIES_MAX)
		return diag_set(c->diag, -EFBIG,
				"%s: its L1 tables have %llu entries together: too many to check",
				c->q->img->name, (ull)entries);
	for (size_t i = 0; r == 0 && i < c->n_l1s; i++)
		r = qcow2_check_each_l1(c, &c->l1s[i], qcow2_l1_entry);
	return r < 0 ? r : qcow2_patches_apply(c);
}

/* Drops L1 entries whose table stands on something else. */
static int qcow2_check_bad_tables(struct qcow2_check *c)
{
	bool any = false;
	int r = 0;

	c->n_tables = 0;
	for (size_t i = 0; i < c->zones.n; i++) {
		c->n_tables += c->zones.at[i].kind == QCOW2_ZONE_L2;
		any = any || c->zones.at[i].bad;
	}
	for (size_t i = 0; r == 0 && any && i < c->n_l1s; i++)
		r = qcow2_check_each_l1(c, &c->l1s[i], qcow2_l1_entry_bad);
	return r < 0 ? r : qcow2_patches_apply(c);
}

/* Reading a table that the file cuts off is an error when the image is used. (L1 tables seldom end
 * with their cluster.) */
static int qcow2_check_cut_off(struct qcow2_check *c)
{
	const struct qcow2_zone *zone = qcow2_zones_find(&c->zones, c->clusters - 1);
	uint64_t end = c->clusters << c->q->cluster_bits, size;
	int r = store_size(c->q->img->store, &size);

	if (r < 0)
		return diag_errno(c->diag, r, "%s: cannot read its size", c->q->img->name);
	if (size >= end || !zone || zone->kind < QCOW2_ZONE_L2)
		return 0;
	qcow2_found(c, QCOW2_UNSOUND, 1, "the file ends at 0x%llx, inside the %s at 0x%llx",
		    (ull)size, qcow2_zone_name(zone->kind),
		    (ull)(zone->first << c->q->cluster_bits));
	if (c->repair < CHECK_REPAIR_ALL || c->q->img->store->fixed)
		return 0;
	r = store_resize(c->q->img->store, end);
	return r < 0 ? diag_errno(c->diag, r, "%s: cannot be made longer", c->q->img->name) : 0;
}

int qcow2_check_tables(struct qcow2_check *c)
{
	int r;

	c->zones.n = c->zones.sorted = 0;
	r = qcow2_zones_add_bytes(c, QCOW2_ZONE_HEADER, 0, c->q->cluster_size);
	if (r == 0)
		r = qcow2_check_reftable(c);
	if (r == 0)
		r = qcow2_check_active(c);
	if (r == 0)
		r = qcow2_check_snapshots(c);
	if (r == 0)
		r = qcow2_check_bitmaps(c);
	if (r == 0)
		r = qcow2_check_l2_tables(c);
	if (r < 0)
		return r;
	qcow2_zones_sort(&c->zones);
	qcow2_zones_overlaps(c);
	r = qcow2_check_bad_tables(c);
	return r < 0 ? r : qcow2_check_cut_off(c);
}

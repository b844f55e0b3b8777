/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Snapshots and bitmaps: lists of records of any length, and what these name. */

#include <errno.h>
#include <stdlib.h>

#include "base/endian.h"
#include "format/qcow2-check.h"

static int qcow2_snapshot_l1(struct qcow2_check *c, unsigned number,
			     const struct qcow2_disk_snapshot *s)
{
	uint64_t off = be64_get(&s->l1_table_offset);
	uint32_t size = be32_get(&s->l1_size);

	if (size == 0)
		return 0;
	if (size > QCOW2_L1_BYTES_MAX / 8 || !qcow2_check_place(c, off, size * UINT64_C(8))) {
		qcow2_found(
			c, QCOW2_UNSOUND, 1,
			"snapshot %u has an L1 table of %u entries at 0x%llx, where none can be",
			number, size, (ull)off);
		c->blind = true;
		return 0;
	}
	c->l1s[c->n_l1s++] = (struct qcow2_check_l1){.off = off, .size = size};
	return qcow2_zones_add_bytes(c, QCOW2_ZONE_SNAPSHOT_L1, off, size * UINT64_C(8));
}

static int qcow2_check_snapshot(struct qcow2_check *c, unsigned number, struct qcow2_records *list)
{
	struct qcow2_disk_snapshot s;
	uint64_t before = list->at;
	int r;

	qcow2_records_align(list);
	r = qcow2_records_take(list, &s, sizeof(s));
	if (r == 0)
		r = qcow2_records_take(list, NULL, be32_get(&s.extra_data_size));
	if (r == 0)
		r = qcow2_records_take(list, NULL,
				       (size_t)be16_get(&s.id_str_size) + be16_get(&s.name_size));
	if (r < 0) {
		list->at = before;
		return r;
	}
	if (be32_get(&s.extra_data_size) > QCOW2_SNAPSHOT_EXTRA_MAX)
		qcow2_found(c, QCOW2_UNSOUND, 1, "snapshot %u has %u bytes of extra data", number,
			    be32_get(&s.extra_data_size));
	return qcow2_snapshot_l1(c, number, &s);
}

int qcow2_check_snapshots(struct qcow2_check *c)
{
	uint64_t off = be64_get(&c->header.snapshots_offset);
	unsigned n = c->q->nb_snapshots;
	struct qcow2_records list;
	int r;

	if (n == 0)
		return 0;
	r = qcow2_records_snapshots(c->q, &list, NULL);
	if (r < 0)
		r = -EIO;
	else if (!qcow2_check_place(c, off, 1))
		r = -EUCLEAN;
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = qcow2_check_snapshot(c, i, &list);
	if (r == -EIO)
		return diag_set(c->diag, r, "%s: cannot read the snapshot table", c->q->img->name);
	if (r == -EUCLEAN) {
		qcow2_found(c, QCOW2_UNSOUND, 1, "the table of %u snapshots at 0x%llx is cut off",
			    n, (ull)off);
		c->blind = true;
		r = 0;
	}
	return r < 0 || list.at == off
		       ? r
		       : qcow2_zones_add_bytes(c, QCOW2_ZONE_SNAPSHOTS, off, list.at - off);
}

static int qcow2_bitmap_cluster(struct qcow2_check *c, uint64_t entry)
{
	uint64_t off = entry & QCOW2_OFFSET;

	if (!(entry & QCOW2_BITMAP_RESERVED) && off == 0)
		return 0;
	if ((entry & QCOW2_BITMAP_RESERVED) || (entry & 1) ||
	    !qcow2_check_place(c, off, c->q->cluster_size)) {
		qcow2_found(c, QCOW2_UNSOUND, 1,
			    "an entry of a bitmap table is 0x%llx, where no bitmap can be",
			    (ull)entry);
		c->drop_bitmaps = true;
		return 0;
	}
	return qcow2_zones_add_bytes(c, QCOW2_ZONE_BITMAPS, off, c->q->cluster_size);
}

/* The clusters that a bitmap table names. */
static int qcow2_bitmap_table(struct qcow2_check *c, uint64_t off, uint32_t size)
{
	uint64_t disk[QCOW2_PIECE_WORDS] = {0};
	int r = qcow2_zones_add_bytes(c, QCOW2_ZONE_BITMAPS, off, size * UINT64_C(8));

	for (uint32_t first = 0; r == 0 && first < size; first += QCOW2_PIECE_WORDS) {
		uint32_t n = (uint32_t)min_u64(QCOW2_PIECE_WORDS, size - first);

		if (store_read(c->q->img->store, disk, n * sizeof(*disk),
			       off + first * UINT64_C(8)) < 0)
			return diag_set(c->diag, -EIO, "%s: cannot read a bitmap table",
					c->q->img->name);
		for (uint32_t i = 0; r == 0 && i < n; i++)
			r = qcow2_bitmap_cluster(c, be64_get(&disk[i]));
	}
	return r;
}

struct qcow2_bitmap_walk {
	struct qcow2_check *c;
	uint64_t left; /* entries that all tables may still have */
};

static int qcow2_check_bitmap(void *data, const struct qcow2_bitmap *b)
{
	struct qcow2_bitmap_walk *walk = data;
	uint64_t off = be64_get(&b->head.bitmap_table_offset);
	uint32_t size = be32_get(&b->head.bitmap_table_size);

	int r = qcow2_bitmap_verify(walk->c->q->img, b, walk->c->diag);

	if (r < 0 || size == 0)
		return r;
	if (size > walk->left || !qcow2_check_place(walk->c, off, size * UINT64_C(8)))
		return -EUCLEAN;
	walk->left -= size;
	return qcow2_bitmap_table(walk->c, off, size);
}

int qcow2_check_bitmaps(struct qcow2_check *c)
{
	struct qcow2_bitmap_walk walk = {.c = c, .left = QCOW2_BITMAP_TABLE_MAX};
	struct image *img = c->q->img;
	struct qcow2_bitmap_list list;
	int r = qcow2_bitmap_directory(img, &list, c->diag);

	if (r == 0)
		return 0;
	if (r == -EFBIG || (r > 0 && list.n > QCOW2_BITMAPS_MAX))
		r = -EUCLEAN;
	if (r > 0)
		r = qcow2_zones_add_bytes(c, QCOW2_ZONE_BITMAPS, list.off, list.bytes);
	if (r == 0)
		r = qcow2_bitmap_each(img, &list, qcow2_check_bitmap, &walk, c->diag);
	if (r != -EUCLEAN)
		return r;
	qcow2_found(c, QCOW2_UNSOUND, 1, "the directory of bitmaps is damaged");
	c->drop_bitmaps = true;
	return 0;
}

static int qcow2_check_outdate_one(void *data, const struct qcow2_bitmap *b)
{
	uint32_t flags = be32_get(&b->head.flags), disk;

	if ((flags & QCOW2_BITMAP_IN_USE) || !qcow2_bitmap_follows(b))
		return 0;
	be32_put(&disk, flags | QCOW2_BITMAP_IN_USE);
	return qcow2_patch_add(data, &disk, sizeof(disk),
			       b->at + offsetof(struct qcow2_disk_bitmap, flags));
}

int qcow2_check_outdate_bitmaps(struct qcow2_check *c)
{
	struct qcow2_bitmap_list list;
	int r = qcow2_bitmap_directory(c->q->img, &list, c->diag);

	if (r > 0)
		r = qcow2_bitmap_each(c->q->img, &list, qcow2_check_outdate_one, c, c->diag);
	return r < 0 ? r : qcow2_patches_flush(c);
}

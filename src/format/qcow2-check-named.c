/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Snapshots and bitmaps: lists of records of any length, and what these name. */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-check.h"

/* A list in the file: record by record, until `end`. */
struct qcow2_list {
	uint64_t at, end;
};

/* The next record's head; -ENODATA where it is not inside the list or the file. */
static int qcow2_list_head(struct qcow2_check *c, const struct qcow2_list *list, void *head,
			   size_t len)
{
	if (!range_inside(list->at, len, list->end))
		return -ENODATA;
	switch (store_read_full(c->q->img->store, head, len, list->at)) {
	case 0:
		return 0;
	case -EIO:
		/* Also where the file ends */
		return list->at + len > c->clusters << c->q->cluster_bits ? -ENODATA : -EIO;
	default:
		return -EIO;
	}
}

static bool qcow2_list_skip(struct qcow2_list *list, uint64_t len)
{
	if (len > list->end - list->at)
		return false;
	list->at += min_u64(round_up(len, 8), list->end - list->at);
	return true;
}

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

/* -ENODATA: the table is cut off. */
static int qcow2_snapshot(struct qcow2_check *c, unsigned number, struct qcow2_list *list)
{
	struct qcow2_disk_snapshot s;
	int r = qcow2_list_head(c, list, &s, sizeof(s));

	if (r < 0)
		return r;
	if (!qcow2_list_skip(list, sizeof(s) + (uint64_t)be32_get(&s.extra_data_size) +
					   be16_get(&s.id_str_size) + be16_get(&s.name_size)))
		return -ENODATA;
	return qcow2_snapshot_l1(c, number, &s);
}

int qcow2_check_snapshots(struct qcow2_check *c)
{
	uint64_t off = be64_get(&c->header.snapshots_offset);
	struct qcow2_list list = {.at = off, .end = c->clusters << c->q->cluster_bits};
	unsigned n = c->q->nb_snapshots;
	int r = 0;

	if (n == 0)
		return 0;
	if (!qcow2_check_place(c, off, 1))
		r = -ENODATA;
	else
		list.end = min_u64(list.end, off + QCOW2_SNAPSHOT_TABLE_MAX);
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = qcow2_snapshot(c, i, &list);
	if (r == -EIO)
		return diag_set(c->diag, r, "%s: cannot read the snapshot table", c->q->img->name);
	if (r == -ENODATA) {
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

/* One entry of the directory; *left: entries that all tables may still have. */
static int qcow2_bitmap(struct qcow2_check *c, struct qcow2_list *list, uint64_t *left)
{
	struct qcow2_disk_bitmap b;
	int r = qcow2_list_head(c, list, &b, sizeof(b));
	uint64_t off;
	uint32_t size;

	if (r < 0)
		return r;
	off = be64_get(&b.bitmap_table_offset);
	size = be32_get(&b.bitmap_table_size);
	if (!qcow2_list_skip(list, sizeof(b) + (uint64_t)be32_get(&b.extra_data_size) +
					   be16_get(&b.name_size)))
		return -ENODATA;
	if (size == 0)
		return 0;
	if (size > *left || !qcow2_check_place(c, off, size * UINT64_C(8)))
		return -ENODATA;
	*left -= size;
	return qcow2_bitmap_table(c, off, size);
}

int qcow2_check_bitmaps(struct qcow2_check *c)
{
	uint64_t left = QCOW2_BITMAP_TABLE_MAX, off, bytes;
	struct qcow2_disk_bitmaps ext;
	struct qcow2_list list;
	uint32_t n;
	int r;

	/* Without the bit somebody has written who knows nothing of bitmaps: there are none */
	if (!(atomic_load(&c->q->autoclear) & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = qcow2_header_extension(c->q->img, QCOW2_EXT_BITMAPS, &ext, sizeof(ext), c->diag);
	if (r <= 0)
		return r;
	off = be64_get(&ext.bitmap_directory_offset);
	bytes = be64_get(&ext.bitmap_directory_size);
	n = be32_get(&ext.nb_bitmaps);
	list = (struct qcow2_list){.at = off, .end = off};
	r = -ENODATA;
	if (n <= QCOW2_BITMAPS_MAX && qcow2_check_place(c, off, bytes)) {
		list.end += bytes;
		r = qcow2_zones_add_bytes(c, QCOW2_ZONE_BITMAPS, off, bytes);
	}
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = qcow2_bitmap(c, &list, &left);
	if (r == -EIO)
		return diag_set(c->diag, r, "%s: cannot read the bitmap directory",
				c->q->img->name);
	if (r != -ENODATA)
		return r;
	qcow2_found(c, QCOW2_UNSOUND, 1, "the directory of %u bitmaps at 0x%llx is damaged", n,
		    (ull)off);
	c->drop_bitmaps = true;
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/partition.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/partition-table.h"

int partition_fetch(struct image *img, void *buf, uint64_t len, uint64_t off)
{
	int r;

	if (!range_inside(off, len, image_size(img)))
		return 0;
	r = image_read(img, buf, (size_t)len, off);
	return r < 0 ? r : 1;
}

struct partition *partition_add(struct partition_table *t, unsigned number, uint64_t off,
				uint64_t len)
{
	struct partition *p;

	if (t->n == PARTITIONS_MAX) {
		t->more++;
		return NULL;
	}
	p = &t->entries[t->n++];
	*p = (struct partition){.number = number, .off = off, .len = len};
	if (len == 0)
		p->flaw = PARTITION_EMPTY;
	return p;
}

static void partition_judge_bounds(struct partition_table *t, uint64_t size)
{
	for (unsigned i = 0; i < t->n; i++) {
		struct partition *p = &t->entries[i];

		if (p->flaw == PARTITION_GOOD && !range_inside(p->off, p->len, size))
			p->flaw = PARTITION_BEYOND;
	}
}

static bool partition_claims(const struct partition *p)
{
	return p->flaw == PARTITION_GOOD || p->flaw == PARTITION_OVERLAPS;
}

static void partition_judge_pair(struct partition *a, struct partition *b)
{
	if (!partition_claims(a) || !partition_claims(b))
		return;
	if (a->off + a->len <= b->off || b->off + b->len <= a->off)
		return;
	a->flaw = b->flaw = PARTITION_OVERLAPS;
	a->other = b->number;
	b->other = a->number;
}

/* After the bounds, so that no sum can wrap. */
static void partition_judge_overlaps(struct partition_table *t)
{
	for (unsigned i = 0; i < t->n; i++)
		for (unsigned j = i + 1; j < t->n; j++)
			partition_judge_pair(&t->entries[i], &t->entries[j]);
}

static int partition_read_any(struct image *img, struct partition_table *t, struct diag *diag)
{
	bool is_protected = false;
	int r = partition_is_protected(img, &is_protected);

	if (r < 0)
		return diag_errno(diag, r, "the partition table cannot be read");
	if (!is_protected)
		return partition_mbr_read(img, t, diag);
	r = partition_gpt_read(img, t, diag);
	if (r == 0)
		return diag_set(diag, -EUCLEAN,
				"there must be a GUID partition table, but neither the one at the "
				"beginning of the disk nor the one at its end is valid");
	return r;
}

int partition_read(struct image *img, struct partition_table **ret, struct diag *diag)
{
	_cleanup_free_ struct partition_table *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return diag_errno(diag, -ENOMEM, "the partition table");
	r = partition_read_any(img, t, diag);
	if (r < 0)
		return r;
	partition_judge_bounds(t, image_size(img));
	partition_judge_overlaps(t);
	*ret = TAKE_PTR(t);
	return 0;
}

const char *partition_flaw_text(const struct partition *p, char *buf, size_t size)
{
	switch (p->flaw) {
	case PARTITION_GOOD:
		return NULL;
	case PARTITION_CONTAINER:
		return "only holds the logical partitions";
	case PARTITION_EMPTY:
		return "ends before it begins";
	case PARTITION_BEYOND:
		return "reaches beyond the end of the disk";
	case PARTITION_OVERLAPS:
		snprintf(buf, size, "overlaps part%u", p->other);
		return buf;
	}
	return "?";
}

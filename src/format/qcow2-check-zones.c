/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which host clusters hold metadata: a sorted list. */

#include <errno.h>
#include <stdlib.h>

#include "format/qcow2-check.h"

enum { QCOW2_ZONES_FIRST = 1024 };

static const char *const qcow2_zone_names[] = {
	[QCOW2_ZONE_HEADER] = "header",
	[QCOW2_ZONE_L1] = "L1 table",
	[QCOW2_ZONE_SNAPSHOTS] = "snapshot table",
	[QCOW2_ZONE_SNAPSHOT_L1] = "L1 table of a snapshot",
	[QCOW2_ZONE_BITMAPS] = "bitmaps",
	[QCOW2_ZONE_L2] = "L2 table",
	[QCOW2_ZONE_REFTABLE] = "refcount table",
	[QCOW2_ZONE_BLOCK] = "refcount block",
};

const char *qcow2_zone_name(enum qcow2_zone_kind kind)
{
	return qcow2_zone_names[kind];
}

static int qcow2_zone_compare(const void *a, const void *b)
{
	const struct qcow2_zone *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	/* The active one leads, so that its index stays */
	return y->active - x->active;
}

void qcow2_zones_sort(struct qcow2_zones *zones)
{
	size_t n = 0;

	zones->gap_end = 0;
	if (zones->sorted == zones->n)
		return;
	qsort(zones->at, zones->n, sizeof(*zones->at), qcow2_zone_compare);
	for (size_t i = 0; i < zones->n; i++) {
		const struct qcow2_zone *z = &zones->at[i];
		struct qcow2_zone *last = n > 0 ? &zones->at[n - 1] : NULL;

		if (last && z->kind == QCOW2_ZONE_L2 && last->kind == z->kind &&
		    last->first == z->first)
			last->refs += z->refs;
		else
			zones->at[n++] = *z;
	}
	zones->n = n;
	zones->sorted = n;
}

/* Room for one more: doubles go first. */
static int qcow2_zones_room(struct qcow2_check *c)
{
	struct qcow2_zones *zones = &c->zones;
	size_t room = zones->room ? zones->room * 2 : QCOW2_ZONES_FIRST;
	struct qcow2_zone *at;

	if (zones->n < zones->room)
		return 0;
	qcow2_zones_sort(zones);
	if (zones->n < zones->room / 2)
		return 0;
	if (zones->n >= QCOW2_CHECK_ZONES_MAX)
		return diag_set(c->diag, -EFBIG, "%s: has more than %zu tables: too many to check",
				c->q->img->name, QCOW2_CHECK_ZONES_MAX);
	at = reallocarray(zones->at, room, sizeof(*at));
	if (!at)
		return -ENOMEM;
	zones->at = at;
	zones->room = room;
	return 0;
}

int qcow2_zones_add(struct qcow2_check *c, const struct qcow2_zone *zone)
{
	int r = qcow2_zones_room(c);

	if (r == 0)
		c->zones.at[c->zones.n++] = *zone;
	return r;
}

int qcow2_zones_add_bytes(struct qcow2_check *c, enum qcow2_zone_kind kind, uint64_t off,
			  uint64_t bytes)
{
	const struct qcow2_zone zone = {
		.first = off >> c->q->cluster_bits,
		.n = (uint32_t)div_round_up(bytes, c->q->cluster_size),
		.refs = 1,
		.kind = kind,
	};

	return bytes == 0 ? 0 : qcow2_zones_add(c, &zone);
}

struct qcow2_zone *qcow2_zones_find(struct qcow2_zones *zones, uint64_t cluster)
{
	size_t low = 0, high = zones->n;
	const struct qcow2_zone *before;

	if (cluster >= zones->gap && cluster < zones->gap_end)
		return NULL;
	/* The last zone that begins at or before the cluster is low - 1 */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (zones->at[middle].first <= cluster)
			low = middle + 1;
		else
			high = middle;
	}
	before = low > 0 ? &zones->at[low - 1] : NULL;
	if (before && cluster - before->first < before->n)
		return &zones->at[low - 1];
	zones->gap = before ? before->first + before->n : 0;
	zones->gap_end = low < zones->n ? zones->at[low].first : UINT64_MAX;
	return NULL;
}

/* What has to go where a zone and something else, an L2 table or data, share clusters. What can be
 * made anew (refcounts) or be done without (bitmaps) goes first. A snapshot's tables are right
 * where nothing else is wrong with any table, else that is left to people. */
bool qcow2_zone_yields(struct qcow2_check *c, const struct qcow2_zone *zone)
{
	bool table = zone->kind == QCOW2_ZONE_HEADER || zone->kind == QCOW2_ZONE_L1 || zone->active;

	if (qcow2_zone_refcounts(zone->kind))
		c->rebuild = true;
	else if (zone->kind == QCOW2_ZONE_BITMAPS)
		c->drop_bitmaps = true;
	else if (table || c->tables_sound || (zone->kind == QCOW2_ZONE_SNAPSHOTS && !c->blind))
		return false;
	else
		c->blind = true;
	return true;
}

static void qcow2_zones_overlap(struct qcow2_check *c, struct qcow2_zone *a, struct qcow2_zone *b)
{
	qcow2_found(c, QCOW2_UNSOUND, 1, "the %s at 0x%llx overlaps the %s at 0x%llx",
		    qcow2_zone_name(b->kind), (ull)(b->first << c->q->cluster_bits),
		    qcow2_zone_name(a->kind), (ull)(a->first << c->q->cluster_bits));
	if (qcow2_zone_refcounts(a->kind) || qcow2_zone_refcounts(b->kind))
		c->rebuild = true;
	else if (a->kind == QCOW2_ZONE_L2)
		a->bad = !qcow2_zone_yields(c, b);
	else if (b->kind == QCOW2_ZONE_L2)
		b->bad = !qcow2_zone_yields(c, a);
	else if (a->kind == QCOW2_ZONE_BITMAPS || b->kind == QCOW2_ZONE_BITMAPS)
		c->drop_bitmaps = true;
	else
		c->blind = true;
}

void qcow2_zones_overlaps(struct qcow2_check *c)
{
	struct qcow2_zone *reach = NULL; /* of those so far, the one that ends last */

	for (size_t i = 0; i < c->zones.n; i++) {
		struct qcow2_zone *z = &c->zones.at[i];

		if (reach && z->first < reach->first + reach->n)
			qcow2_zones_overlap(c, reach, z);
		if (!reach || z->first + z->n > reach->first + reach->n)
			reach = z;
	}
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * References against refcounts, a window of host clusters at a time.
 *
 * Raising a refcount needs nothing to be durable before it; lowering one needs the end of the
 * entries that named the cluster, which is flushed before the first window.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "format/qcow2-check.h"

/* A part of a refcount block, or of one that is not there. */
struct qcow2_part {
	uint64_t host_off;		   /* 0: there is no block */
	uint64_t first, n;		   /* clusters that it counts */
	uint64_t changed_from, changed_to; /* clusters, of first */
	uint8_t bytes[QCOW2_PIECE_BYTES];
};

uint64_t qcow2_refcount_most(const struct qcow2 *q)
{
	return q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
}

static void qcow2_count_add(struct qcow2_check *c, uint64_t first, uint64_t n, uint32_t refs)
{
	uint64_t from = max_u64(first, c->first), to = min_u64(first + n, c->first + c->n);

	for (uint64_t i = from; i < to; i++) {
		uint32_t *count = &c->counts[i - c->first];

		*count = refs > UINT32_MAX - *count ? UINT32_MAX : *count + refs;
	}
}

static int qcow2_count_entry(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
			     uint64_t *e)
{
	struct qcow2_run run;

	qcow2_entry_mend(c, table, index, e);
	run = qcow2_entry_names(c->q, e);
	qcow2_count_add(c, run.first, run.n, table->refs);
	return 0;
}

int qcow2_count_window(struct qcow2_check *c, uint64_t first)
{
	c->first = first;
	c->n = min_u64(c->room, c->clusters - first);
	memset(c->counts, 0, c->n * sizeof(*c->counts));
	for (size_t i = 0; i < c->zones.n; i++) {
		const struct qcow2_zone *zone = &c->zones.at[i];

		/* A table that stands on something else is not one */
		if (!zone->bad)
			qcow2_count_add(c, zone->first, zone->n, zone->refs);
	}
	return qcow2_check_walk(c, false, qcow2_count_entry);
}

static int qcow2_part_read(struct qcow2_check *c, uint64_t cluster, struct qcow2_part *p)
{
	const struct qcow2 *q = c->q;
	unsigned part_bits = qcow2_piece_bits(q);
	uint64_t index = cluster >> qcow2_block_bits(q);
	uint64_t in_block = cluster & ((UINT64_C(1) << qcow2_block_bits(q)) - 1);
	uint64_t block = index < c->reftable_entries ? c->reftable[index] : 0;

	p->first = cluster;
	p->n = min_u64(UINT64_C(1) << part_bits, c->first + c->n - cluster);
	p->host_off = block ? block + (in_block >> part_bits) * q->slice_bytes : 0;
	p->changed_from = p->n;
	p->changed_to = 0;
	memset(p->bytes, 0, q->slice_bytes);
	/* Where the file ends inside its last cluster, zeroes follow */
	if (block && !qcow2_check_hole(c, p->host_off, q->slice_bytes) &&
	    store_read(q->img->store, p->bytes, q->slice_bytes, p->host_off) < 0)
		return diag_set(c->diag, -EIO, "%s: cannot read the refcount block at 0x%llx",
				q->img->name, (ull)block);
	return 0;
}

/* May repair make v, which is counted as `has`, `wants`? */
static bool qcow2_count_may_repair(struct qcow2_check *c, uint64_t has, uint64_t wants)
{
	if (c->rebuild)
		return false; /* all of them are made anew */
	if (has < wants)
		return c->repair >= CHECK_REPAIR_COUNTS;
	if (c->repair == CHECK_ONLY)
		return false;
	/* What a damaged table names must not be given away */
	if (!c->blind && (c->repair == CHECK_REPAIR_ALL || c->unsound == 0))
		return true;
	c->kept_leaks = true;
	return false;
}

static void qcow2_count_told(struct qcow2_check *c, uint64_t cluster, uint64_t n, uint64_t has,
			     uint64_t wants)
{
	qcow2_found(c, has > wants ? QCOW2_LEAK : QCOW2_MISCOUNT, n,
		    "%llu cluster%s at 0x%llx: refcount %llu, references %llu", (ull)n,
		    n == 1 ? "" : "s", (ull)(cluster << c->q->cluster_bits), (ull)has, (ull)wants);
}

/* Clusters [i, i + n) of a part, which all have and want the same. Returns what they have then. */
static uint64_t qcow2_part_differs(struct qcow2_check *c, struct qcow2_part *p, uint64_t i,
				   uint64_t n, uint64_t has)
{
	uint64_t wants = c->counts[p->first + i - c->first];
	uint64_t most = qcow2_refcount_most(c->q);

	qcow2_count_told(c, p->first + i, n, has, wants);
	if (has < wants && !p->host_off)
		c->rebuild = true;
	if (!qcow2_count_may_repair(c, has, wants))
		return has;
	wants = min_u64(wants, most);
	for (uint64_t k = i; k < i + n; k++)
		qcow2_refcount_put(c->q, p->bytes, k, wants);
	p->changed_from = min_u64(p->changed_from, i);
	p->changed_to = max_u64(p->changed_to, i + n);
	return wants;
}

/* Turns the window's counters from references into refcounts on the way. */
static void qcow2_part_compare(struct qcow2_check *c, struct qcow2_part *p)
{
	uint32_t *counts = &c->counts[p->first - c->first];
	uint64_t n;

	for (uint64_t i = 0; i < p->n; i += n) {
		uint64_t has = qcow2_refcount_get(c->q, p->bytes, i);
		uint32_t wants = counts[i];

		n = 1;
		if (has || wants)
			c->end = max_u64(c->end, p->first + i + 1);
		if (has == wants)
			continue;
		while (i + n < p->n && counts[i + n] == wants &&
		       qcow2_refcount_get(c->q, p->bytes, i + n) == has)
			n++;
		c->end = max_u64(c->end, p->first + i + n);
		has = qcow2_part_differs(c, p, i, n, has);
		for (uint64_t k = i; k < i + n; k++)
			counts[k] = (uint32_t)min_u64(has, UINT32_MAX);
	}
}

static int qcow2_part_write(struct qcow2_check *c, const struct qcow2_part *p)
{
	unsigned order = c->q->refcount_order;
	uint64_t from = (p->changed_from << order) / 8;
	uint64_t to = div_round_up(p->changed_to << order, 8);

	if (p->changed_from >= p->changed_to)
		return 0;
	return qcow2_patch_add(c, p->bytes + from, to - from, p->host_off + from);
}

static int qcow2_compare_window(struct qcow2_check *c)
{
	struct qcow2_part p;

	for (uint64_t at = c->first; at < c->first + c->n; at = p.first + p.n) {
		int r = qcow2_part_read(c, at, &p);

		if (r < 0)
			return r;
		qcow2_part_compare(c, &p);
		r = qcow2_part_write(c, &p);
		if (r < 0)
			return r;
	}
	/* Before a flag says how often something is referenced */
	return qcow2_patches_flush(c);
}

int qcow2_check_counts(struct qcow2_check *c)
{
	int r = qcow2_patches_flush(c);

	c->end = 0;
	for (uint64_t w = 0; r == 0 && w < c->n_windows; w++) {
		if (!c->touched[w])
			continue;
		r = qcow2_count_window(c, w * c->room);
		if (r == 0)
			r = qcow2_compare_window(c);
		if (r == 0)
			r = qcow2_check_flags(c);
	}
	return r < 0 ? r : qcow2_patches_flush(c);
}

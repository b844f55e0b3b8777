/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* L2 tables, a piece at a time, and what can be said of an entry by itself. */

#include <errno.h>

#include "base/endian.h"
#include "format/qcow2-check.h"

static int qcow2_walk_piece(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t first,
			    uint64_t off, qcow2_entry_fn *fn)
{
	const struct qcow2 *q = c->q;
	uint64_t disk[QCOW2_PIECE_WORDS] = {0};
	bool changed = false;

	/* Where the file ends inside its last cluster, zeroes follow */
	if (store_read(q->img->store, disk, q->slice_bytes, off) < 0)
		return diag_set(c->diag, -EIO, "%s: cannot read the L2 table at 0x%llx",
				q->img->name, (ull)(table->first << q->cluster_bits));
	for (uint32_t i = 0; i < UINT32_C(1) << q->slice_bits; i++) {
		uint64_t *words = &disk[i * q->entry_words], e[2] = {0};
		int r;

		for (unsigned k = 0; k < q->entry_words; k++)
			e[k] = be64_get(&words[k]);
		if (!(e[0] | e[1]))
			continue;
		r = fn(c, table, first + i, e);
		if (r < 0)
			return r;
		for (unsigned k = 0; r > 0 && k < q->entry_words; k++)
			be64_put(&words[k], e[k]);
		changed = changed || r > 0;
	}
	return changed ? qcow2_patch_add(c, disk, q->slice_bytes, off) : 0;
}

static int qcow2_walk_table(struct qcow2_check *c, const struct qcow2_zone *table,
			    qcow2_entry_fn *fn)
{
	const struct qcow2 *q = c->q;
	uint64_t start = table->first << q->cluster_bits;
	int r = 0;

	c->fragment_next = 0;
	if (qcow2_check_hole(c, start, q->cluster_size))
		return 0;
	for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->slice_bytes)
		r = qcow2_walk_piece(c, table, (uint32_t)(at / q->slice_bytes) << q->slice_bits,
				     start + at, fn);
	return r;
}

int qcow2_check_walk(struct qcow2_check *c, bool active_only, qcow2_entry_fn *fn)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->zones.n; i++) {
		const struct qcow2_zone *table = &c->zones.at[i];

		if (table->kind != QCOW2_ZONE_L2)
			continue;
		if (!table->bad && (table->active || !active_only))
			r = qcow2_walk_table(c, table, fn);
		qcow2_check_progress(c, 1);
	}
	return r < 0 ? r : qcow2_patches_apply(c);
}

/* What an entry that names no data any more becomes: what it named reads as zeroes. */
static void qcow2_entry_lose(const struct qcow2 *q, uint64_t *e)
{
	if (q->extended_l2) {
		e[1] = e[0] & QCOW2_COMPRESSED ? UINT64_MAX << 32
					       : (e[1] | e[1] << 32) & UINT64_MAX << 32;
		e[0] = 0;
	} else {
		e[0] = q->version >= 3 ? QCOW2_ZERO : 0;
	}
}

/* True where the entry has subclusters, or all of it, as data. */
static bool qcow2_entry_has_data(const struct qcow2 *q, const uint64_t *e)
{
	if (q->extended_l2)
		return (uint32_t)e[1] != 0;
	return !(q->version >= 3 && (e[0] & QCOW2_ZERO));
}

struct qcow2_run qcow2_entry_names(const struct qcow2 *q, const uint64_t *e)
{
	bool elsewhere = q->data_file && !(e[0] & QCOW2_COMPRESSED);

	return elsewhere ? (struct qcow2_run){0} : qcow2_entry_clusters(q, e[0]);
}

/* Metadata among what an entry names, or NULL. */
static const struct qcow2_zone *qcow2_entry_zone(struct qcow2_check *c, const uint64_t *e)
{
	struct qcow2_run run = qcow2_entry_names(c->q, e);
	const struct qcow2_zone *zone = NULL;

	for (uint64_t i = 0; !zone && i < run.n; i++)
		zone = qcow2_zones_find(&c->zones, run.first + i);
	return zone;
}

/* What is wrong with the place that an entry names, or NULL. */
static const char *qcow2_place_problem(struct qcow2_check *c, const uint64_t *e)
{
	struct qcow2_run run = qcow2_entry_names(c->q, e);
	const struct qcow2_zone *zone;

	if (!range_inside(run.first, run.n, c->clusters))
		return "outside the file";
	zone = qcow2_entry_zone(c, e);
	return zone && !qcow2_zone_yields(c, zone) ? qcow2_zone_name(zone->kind) : NULL;
}

static const char *qcow2_packed_problem(struct qcow2_check *c, uint64_t *e)
{
	const char *problem;

	if (c->q->data_file) {
		qcow2_entry_lose(c->q, e);
		return "compressed in an external data file";
	}
	if (e[0] & QCOW2_COPIED) {
		e[0] &= ~QCOW2_COPIED;
		return "compressed and COPIED";
	}
	if (e[1]) {
		e[1] = 0;
		return "compressed, and has subclusters";
	}
	problem = qcow2_place_problem(c, e);
	if (problem)
		qcow2_entry_lose(c->q, e);
	return problem;
}

/* In an external data file every cluster stands at its guest offset. */
static const char *qcow2_moved_problem(const struct qcow2 *q, const struct qcow2_zone *table,
				       uint32_t index, uint64_t *e)
{
	uint64_t off = (((uint64_t)table->index << q->l2_bits) + index) << q->cluster_bits;

	if (!q->data_file || !table->active || (e[0] & QCOW2_OFFSET) == off)
		return NULL;
	e[0] = (e[0] & ~QCOW2_OFFSET) | (off & QCOW2_OFFSET);
	return "moved inside the data file";
}

/* A host offset that cannot be; what is kept is what the entry says without one. */
static void qcow2_entry_drop_place(const struct qcow2 *q, uint64_t *e)
{
	if (qcow2_entry_has_data(q, e))
		qcow2_entry_lose(q, e);
	else
		e[0] &= q->extended_l2 ? 0 : QCOW2_ZERO;
}

/* The first thing that is wrong with an entry, which is mended, or NULL. */
static const char *qcow2_entry_problem(struct qcow2_check *c, const struct qcow2_zone *table,
				       uint32_t index, uint64_t *e)
{
	const struct qcow2 *q = c->q;
	uint64_t reserved = QCOW2_L2_RESERVED;
	const char *problem;

	if (e[0] & QCOW2_COMPRESSED)
		return qcow2_packed_problem(c, e);
	if (q->version < 3 || q->extended_l2)
		reserved |= QCOW2_ZERO;
	if (e[0] & reserved) {
		e[0] &= ~reserved;
		return "reserved bits";
	}
	if ((uint32_t)e[1] & e[1] >> 32) {
		e[1] &= ~(e[1] << 32); /* data stays */
		return "subclusters both data and zero";
	}
	if (!(e[0] & QCOW2_OFFSET)) {
		if (q->data_file && (e[0] & QCOW2_COPIED))
			return qcow2_moved_problem(q, table, index, e);
		if (!(e[0] & QCOW2_COPIED) && !(uint32_t)e[1])
			return NULL;
		if ((uint32_t)e[1])
			qcow2_entry_lose(q, e);
		e[0] &= ~QCOW2_COPIED;
		return "data in the header";
	}
	problem = qcow2_moved_problem(q, table, index, e);
	if (problem)
		return problem;
	problem = e[0] & QCOW2_OFFSET & (q->cluster_size - 1) ? "not a cluster boundary"
							      : qcow2_place_problem(c, e);
	if (problem)
		qcow2_entry_drop_place(q, e);
	return problem;
}

void qcow2_entry_mend(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
		      uint64_t *e)
{
	while (qcow2_entry_problem(c, table, index, e))
		;
}

/* QEMU's figures: clusters with a place in the file, and how many are not behind the one before in
 * their table. */
static void qcow2_entry_figures(struct qcow2_check *c, const uint64_t *e)
{
	const struct qcow2 *q = c->q;
	uint64_t off = e[0] & QCOW2_OFFSET;

	if (e[0] & QCOW2_COMPRESSED) {
		c->check->allocated++;
		c->check->packed++;
		c->check->fragmented++; /* by nature */
		return;
	}
	if (!off && !(q->data_file && (e[0] & QCOW2_COPIED) && !(e[0] & QCOW2_ZERO)))
		return;
	c->check->allocated++;
	if (c->fragment_next && off != c->fragment_next)
		c->check->fragmented++;
	c->fragment_next = off + q->cluster_size;
}

static void qcow2_entry_told(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
			     uint64_t entry, const char *problem)
{
	qcow2_found(c, QCOW2_UNSOUND, 1,
		    "entry %u of the L2 table at 0x%llx (number %u) is 0x%llx: %s", index,
		    (ull)(table->first << c->q->cluster_bits), table->index, (ull)entry, problem);
}

static int qcow2_entry_visit(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
			     uint64_t *e)
{
	const uint64_t before = e[0];
	const struct qcow2_zone *zone;
	const char *problem;
	struct qcow2_run run;
	bool changed = false;

	while ((problem = qcow2_entry_problem(c, table, index, e))) {
		qcow2_entry_told(c, table, index, before, problem);
		changed = true;
	}
	/* Which has to give way, or nobody can say */
	zone = qcow2_entry_zone(c, e);
	if (zone)
		qcow2_entry_told(c, table, index, before, qcow2_zone_name(zone->kind));
	if (table->active)
		qcow2_entry_figures(c, e);
	run = qcow2_entry_names(c->q, e);
	for (uint64_t i = run.first; i < run.first + run.n; i++)
		c->touched[i / c->room] = 1;
	if (!changed || c->repair < CHECK_REPAIR_ALL)
		return 0;
	c->dropped = true;
	return 1;
}

static void qcow2_touch(struct qcow2_check *c, uint64_t first, uint64_t n)
{
	for (uint64_t i = first / c->room; n > 0 && i <= (first + n - 1) / c->room; i++)
		if (i < c->n_windows)
			c->touched[i] = 1;
}

int qcow2_check_entries(struct qcow2_check *c)
{
	unsigned bits = qcow2_block_bits(c->q);

	for (size_t i = 0; i < c->zones.n; i++)
		qcow2_touch(c, c->zones.at[i].first, c->zones.at[i].n);
	for (uint64_t i = 0; i < c->reftable_entries; i++)
		if (c->reftable[i])
			qcow2_touch(c, i << bits, UINT64_C(1) << bits);
	c->check->allocated = c->check->fragmented = c->check->packed = 0;
	return qcow2_check_walk(c, false, qcow2_entry_visit);
}

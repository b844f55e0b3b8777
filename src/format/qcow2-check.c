/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Check and repair: the order of it all.
 *
 * A pass finds everything once, and repairs on the way what it can repair in place:
 *
 *   1. entries that cannot be right are dropped; flush
 *   2. for each window: refcounts are raised and lowered; flush; then COPIED is set and cleared
 *
 * So nothing is given away before the last entry that named it is gone for good, and a power cut
 * leaves an image that is no worse than it was. What a pass cannot do in place (refcount structures
 * that are broken themselves, bitmaps that have to go) is done between two passes. The last pass
 * changes nothing: what it finds is what is left, and only if that is nothing, the header's marks
 * are taken away.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "format/qcow2-check.h"

void qcow2_found(struct qcow2_check *c, enum qcow2_finding what, uint64_t n, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (what == QCOW2_LEAK)
		c->leaks += n;
	else
		c->corruptions += n;
	if (what == QCOW2_UNSOUND)
		c->unsound += n;
	if (c->quiet || !c->check->found)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->check->found(c->check, what == QCOW2_LEAK, n, text);
}

void qcow2_check_progress(struct qcow2_check *c, uint64_t tables)
{
	c->done += tables;
	if (c->check->progress)
		c->check->progress(c->check, c->done, max_u64(c->work, c->done));
}

bool qcow2_check_hole(struct qcow2_check *c, uint64_t off, uint64_t len)
{
	uint64_t hole;
	bool data;

	return store_map(c->q->img->store, off, len, &data, &hole) == 0 && !data && hole >= len;
}

bool qcow2_check_place(const struct qcow2_check *c, uint64_t off, uint64_t bytes)
{
	return off > 0 && !(off & (c->q->cluster_size - 1)) &&
	       range_inside(off, bytes, c->clusters << c->q->cluster_bits);
}

static int qcow2_check_size(struct qcow2_check *c)
{
	uint64_t size;
	int r = store_size(c->q->img->store, &size);

	if (r < 0)
		return diag_errno(c->diag, r, "%s: cannot read its size", c->q->img->name);
	c->clusters = div_round_up(size, c->q->cluster_size);
	if (c->clusters > QCOW2_CHECK_CLUSTERS_MAX)
		return diag_set(c->diag, -EFBIG, "%s: %llu clusters are too many to check",
				c->q->img->name, (ull)c->clusters);
	r = store_read_full(c->q->img->store, &c->header,
			    min_u64(sizeof(c->header), c->q->header_length), 0);
	return r < 0 ? diag_errno(c->diag, r, "%s: cannot read the header", c->q->img->name) : 0;
}

/* Counters for as many clusters as there is memory for, in whole parts of refcount blocks. */
static int qcow2_check_windows(struct qcow2_check *c)
{
	uint64_t part = (c->q->slice_bytes * UINT64_C(8)) >> c->q->refcount_order;
	uint64_t memory = c->check->memory ? c->check->memory : CHECK_MEMORY;

	if (!c->counts) {
		c->room = round_down(max_u64(memory / sizeof(*c->counts), part), part);
		c->room = min_u64(c->room, round_up(c->clusters, part));
		c->counts = calloc(c->room, sizeof(*c->counts));
	}
	free(c->touched);
	c->n_windows = div_round_up(c->clusters, c->room);
	c->touched = calloc(c->n_windows, 1);
	return c->counts && c->touched ? 0 : -ENOMEM;
}

/* How much there is to walk, once it is known. */
static void qcow2_check_work(struct qcow2_check *c)
{
	uint64_t windows = 0;

	for (uint64_t w = 0; w < c->n_windows; w++)
		windows += c->touched[w];
	c->work = c->n_tables * (1 + 2 * windows);
}

static int qcow2_check_pass(struct qcow2_check *c, enum check_repair repair)
{
	int r;

	c->repair = repair;
	c->leaks = c->corruptions = c->unsound = 0;
	c->blind = c->rebuild = c->drop_bitmaps = c->tables_sound = false;
	c->done = 0;
	r = qcow2_check_size(c);
	if (r == 0)
		r = qcow2_check_windows(c);
	if (r == 0)
		r = qcow2_check_tables(c);
	if (r < 0)
		return r;
	c->tables_sound = c->unsound == 0;
	c->work = c->n_tables * 3;
	r = qcow2_check_entries(c);
	if (r < 0)
		return r;
	qcow2_check_work(c);
	return qcow2_check_counts(c);
}

/* Writes a word of the header. */
static int qcow2_check_header(struct qcow2_check *c, size_t off, uint64_t v)
{
	uint64_t disk;
	int r;

	be64_put(&disk, v);
	r = qcow2_patch_add(c, &disk, sizeof(disk), off);
	return r < 0 ? r : qcow2_patches_flush(c);
}

/* They are marked as out of date, which they have to be by all who know them. */
static int qcow2_check_drop_bitmaps(struct qcow2_check *c)
{
	uint64_t kept = atomic_load(&c->q->autoclear) & ~QCOW2_AUTOCLEAR_BITMAPS;
	int r = qcow2_check_header(c, offsetof(struct qcow2_disk_header, autoclear_features), kept);

	if (r == 0)
		atomic_store(&c->q->autoclear, kept);
	return r;
}

static int qcow2_check_clear_marks(struct qcow2_check *c)
{
	uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	uint64_t kept = c->q->incompatible & ~marks;
	int r;

	if (kept == c->q->incompatible)
		return 0;
	r = qcow2_check_header(c, offsetof(struct qcow2_disk_header, incompatible_features), kept);
	if (r == 0)
		c->q->incompatible = kept;
	return r;
}

/* What no pass can do in place. Every pass may have found something of it. */
static int qcow2_check_between(struct qcow2_check *c, enum check_repair repair)
{
	int r = 0;

	if (c->drop_bitmaps && repair == CHECK_REPAIR_ALL) {
		r = qcow2_check_drop_bitmaps(c);
		if (r == 0)
			r = qcow2_check_pass(c, repair);
	}
	if (r < 0 || !c->rebuild || c->blind || repair < CHECK_REPAIR_COUNTS)
		return r;
	if (repair == CHECK_REPAIR_COUNTS && c->unsound > 0)
		return 0;
	r = qcow2_check_rebuild(c);
	return r < 0 ? r : qcow2_check_pass(c, repair);
}

static bool qcow2_check_marked(const struct qcow2 *q)
{
	return q->incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
}

static int qcow2_check_repair(struct qcow2_check *c)
{
	enum check_repair repair = c->check->repair;
	uint64_t leaks = c->leaks, corruptions = c->corruptions;
	int r = 0;

	if (repair == CHECK_ONLY || (!leaks && !corruptions && !qcow2_check_marked(c->q)))
		return 0;
	c->quiet = true;
	if (leaks || corruptions) {
		r = qcow2_check_between(c, repair);
		c->check->kept_leaks = c->kept_leaks;
		if (r == 0 && c->dropped)
			r = qcow2_check_outdate_bitmaps(c);
		if (r == 0)
			r = qcow2_check_pass(c, CHECK_ONLY);
	}
	if (r == 0 && c->corruptions == 0)
		r = qcow2_check_clear_marks(c);
	if (r < 0)
		return r;
	c->check->leaks_fixed = leaks - min_u64(leaks, c->leaks);
	c->check->corruptions_fixed = corruptions - min_u64(corruptions, c->corruptions);
	return 0;
}

static void qcow2_check_report(struct qcow2_check *c)
{
	struct check *check = c->check;

	check->leaks = c->leaks;
	check->corruptions = c->corruptions;
	check->marked_dirty = c->q->incompatible & QCOW2_INCOMPAT_DIRTY;
	check->marked_corrupt = c->q->incompatible & QCOW2_INCOMPAT_CORRUPT;
	check->total = div_round_up(c->q->img->size, c->q->cluster_size);
	check->end = c->end << c->q->cluster_bits;
}

static void qcow2_check_done(struct qcow2_check *c)
{
	free(c->zones.at);
	free(c->l1s);
	free(c->reftable);
	free(c->counts);
	free(c->touched);
	free(c->patches);
}

int qcow2_check(struct image *img, struct check *check, struct diag *diag)
{
	struct qcow2_check c = {.q = qcow2_of(img), .check = check, .diag = diag};
	int r = qcow2_check_pass(&c, check->repair);

	if (r == 0)
		r = qcow2_check_repair(&c);
	if (r == 0)
		qcow2_check_report(&c);
	qcow2_check_done(&c);
	return r;
}

int qcow2_check_repair_dirty(struct image *img, struct diag *diag)
{
	struct check check = {.repair = CHECK_REPAIR_COUNTS};
	int r = qcow2_check(img, &check, diag);

	if (r < 0)
		return r;
	if (check.corruptions > 0)
		return diag_set(diag, -EUCLEAN,
				"%s: was not closed cleanly (dirty bit), and its tables have %llu "
				"errors that were not repaired: run fuseimg check --repair",
				img->name, (ull)check.corruptions);
	return 0;
}

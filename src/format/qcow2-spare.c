/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The reservation of a process that was killed: its successor goes on with it, where without a note
 * it would be leaked until the next check.
 *
 * The note says what is in the pool. It is changed with the pool, under alloc_lock, and for what is
 * taken out before the taker can write its name anywhere. So whatever the moment of the kill, no
 * table on disk names a cluster of a valid note, and its refcount of 1 was on stable storage before
 * the note was made. A note that was being changed is not valid. Only the kill of a process is
 * meant: memory does not outlive the machine, and after a power cut there is no note.
 *
 * The successor believes it for the same file only, and where each run is inside the file, alone,
 * clear of all tables, and each of its clusters still has a refcount of 1: else somebody else has
 * been at the image, and all of it stays leaked.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "format/qcow2.h"

_Static_assert(sizeof(struct format_spare) % sizeof(uint64_t) == 0, "spare is summed in words");

/* FNV-1a, a word at a time: against a process that died of writing where it should not. */
static uint64_t qcow2_spare_sum(const struct format_spare *spare)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ spare->n;
	const uint64_t head[] = {spare->dev, spare->ino};

	for (size_t i = 0; i < ARRAY_SIZE(head); i++)
		sum = (sum ^ head[i]) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < spare->n; i++) {
		const struct format_spare_run *run = &spare->runs[i];

		sum = (sum ^ run->first) * UINT64_C(0x100000001b3);
		sum = (sum ^ run->n) * UINT64_C(0x100000001b3);
		sum = (sum ^ run->fresh) * UINT64_C(0x100000001b3);
	}
	return sum;
}

static int qcow2_spare_by_length(const void *a, const void *b)
{
	const struct qcow2_run *x = a, *y = b;

	return (x->n > y->n) - (x->n < y->n);
}

void qcow2_spare_note(struct qcow2 *q)
{
	struct format_spare *spare = q->spare;
	struct qcow2_runs *runs = &q->pool.runs;
	size_t short_ones = 0;

	if (!spare)
		return;
	/* The longest, where they are too many: the others are leaked when we are killed */
	if (runs->n > FORMAT_SPARE_RUNS) {
		short_ones = runs->n - FORMAT_SPARE_RUNS;
		qsort(runs->at, runs->n, sizeof(*runs->at), qcow2_spare_by_length);
	}
	atomic_store(&spare->valid, 0);
	spare->n = (uint32_t)(runs->n - short_ones);
	for (size_t i = 0; i < spare->n; i++) {
		const struct qcow2_run *run = &runs->at[short_ones + i];

		spare->runs[i] = (struct format_spare_run){
			.first = run->first,
			.n = run->n,
			.fresh = run->fresh,
		};
	}
	spare->dev = q->dev;
	spare->ino = q->ino;
	spare->sum = qcow2_spare_sum(spare);
	atomic_store(&spare->valid, 1);
}

/* What a note says, sorted; n is 0 where it is not to be believed. */
static size_t qcow2_spare_read(const struct qcow2 *q, const struct format_spare *spare,
			       struct qcow2_run *runs)
{
	uint64_t end = 1; /* the header is nobody's */
	size_t n = 0;

	if (!atomic_load(&spare->valid) || spare->n > FORMAT_SPARE_RUNS || spare->dev != q->dev ||
	    spare->ino != q->ino || spare->sum != qcow2_spare_sum(spare))
		return 0;
	for (size_t i = 0; i < spare->n; i++) {
		runs[n].first = spare->runs[i].first;
		runs[n].n = spare->runs[i].n;
		runs[n].fresh = spare->runs[i].fresh;
		n += runs[n].n > 0;
	}
	qsort(runs, n, sizeof(*runs), qcow2_run_compare);
	for (size_t i = 0; i < n; i++) {
		if (runs[i].first < end ||
		    !range_inside(runs[i].first, runs[i].n, q->cluster_limit))
			return 0;
		end = runs[i].first + runs[i].n;
	}
	return n;
}

/* Each cluster of a run is reserved as far as the image can tell. */
static bool qcow2_spare_holds(struct qcow2 *q, const struct qcow2_run *run)
	REQUIRES(q->refcount_lock)
{
	return !qcow2_beyond_end(q, ((run->first + run->n) << q->cluster_bits) - 1) &&
	       !qcow2_reftable_meets(q, run) && qcow2_refcount_within(q, run, 1, 1) > 0;
}

void qcow2_keep(struct image *img, struct format_spare *spare)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_run runs[FORMAT_SPARE_RUNS];
	struct store_stat st;
	bool holds = true;
	size_t n;

	if (store_stat(img->store, &st) < 0)
		return;
	q->dev = st.dev;
	q->ino = st.ino;
	/* What open_write() would have flushed, to build on it (qcow2_alloc_is_zero()): it may have
	 * failed for our predecessor, too */
	if (qcow2_flush(img) < 0)
		atomic_store(&q->gave_up, true);
	n = qcow2_spare_read(q, spare, runs);
	mutex_lock(&q->refcount_lock);
	for (size_t i = 0; holds && i < n; i++)
		holds = qcow2_spare_holds(q, &runs[i]);
	mutex_unlock(&q->refcount_lock);
	for (size_t i = 0; holds && i < n; i++)
		qcow2_reserve_give(q, &runs[i]);
	mutex_lock(&q->alloc_lock);
	q->spare = spare;
	qcow2_spare_note(q);
	mutex_unlock(&q->alloc_lock);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Clusters that lost a reference:
 *
 *   replaced  an entry on disk no longer names them, but that may not be durable: after a power cut
 *             the old entry may be back and needs its cluster as it was, refcount included
 *   settled   a flush came after. Readers that mapped them before may still be at it
 *   (gone)    image/ let us be alone for a moment: the refcount is lowered, and 0 means free
 *
 * All that is not gone yet waits in our memory, and is leaked when we are killed. So there is a
 * limit to it, beyond which who frees more waits for a flush first.
 */

#include <errno.h>
#include <stdlib.h>

#include "format/qcow2.h"

/* What may wait, in bytes: a part of the disk, within these limits. A killed process leaks it. */
#define QCOW2_WAITING_MIN MIB(8)
#define QCOW2_WAITING_MAX MIB(64)
enum {
	QCOW2_WAITING_PART = 64,
	QCOW2_WAITING_RUNS = 16384, /* of each list: the memory for it */
};

/* Moves all of `from`. Out of memory: what cannot be remembered is leaked. */
static void qcow2_free_append(struct qcow2 *q, struct qcow2_runs *to, const struct qcow2_runs *from)
	REQUIRES(q->alloc_lock)
{
	for (size_t i = 0; i < from->n; i++)
		if (qcow2_runs_add(to, &from->at[i]) < 0)
			q->waiting -= from->at[i].n;
}

static bool qcow2_free_crowded(const struct qcow2 *q) REQUIRES(q->alloc_lock)
{
	uint64_t most = max_u64(q->img->size / QCOW2_WAITING_PART, QCOW2_WAITING_MIN);

	return q->waiting << q->cluster_bits > min_u64(most, QCOW2_WAITING_MAX) ||
	       q->replaced.n > QCOW2_WAITING_RUNS || q->settled.n > QCOW2_WAITING_RUNS;
}

void qcow2_free_later(struct qcow2 *q, const struct qcow2_runs *runs)
{
	if (runs->n == 0)
		return;
	mutex_lock(&q->alloc_lock);
	for (size_t i = 0; i < runs->n; i++)
		q->waiting += runs->at[i].n;
	qcow2_free_append(q, &q->replaced, runs);
	q->pool.used = true;
	if (qcow2_free_crowded(q))
		atomic_store(&q->img->crowded, true);
	mutex_unlock(&q->alloc_lock);
}

int qcow2_flush(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_runs before;
	int r;

	mutex_lock(&q->alloc_lock);
	before = q->replaced;
	q->replaced = (struct qcow2_runs){0};
	mutex_unlock(&q->alloc_lock);

	r = img->data != img->store ? store_flush(img->data) : 0;
	if (r == 0)
		r = store_flush(img->store);

	mutex_lock(&q->alloc_lock);
	qcow2_free_append(q, r == 0 ? &q->settled : &q->replaced, &before);
	if (q->settled.n > 0)
		atomic_store(&img->settle_wanted, true);
	mutex_unlock(&q->alloc_lock);
	qcow2_runs_done(&before);
	return r;
}

int qcow2_run_compare(const void *a, const void *b)
{
	const struct qcow2_run *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

void qcow2_settle(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_runs runs;

	mutex_lock(&q->alloc_lock);
	runs = q->settled;
	q->settled = (struct qcow2_runs){0};
	for (size_t i = 0; i < runs.n; i++)
		q->waiting -= runs.at[i].n;
	atomic_store(&img->settle_wanted, false);
	atomic_store(&img->crowded, qcow2_free_crowded(q));
	mutex_unlock(&q->alloc_lock);

	if (runs.n > 0)
		qsort(runs.at, runs.n, sizeof(*runs.at), qcow2_run_compare);
	mutex_lock(&q->refcount_lock);
	for (size_t i = 0; i < runs.n; i++)
		/* A failure leaks them, no more */
		qcow2_refcount_lower(q, &runs.at[i]);
	mutex_unlock(&q->refcount_lock);
	qcow2_runs_done(&runs);
}

int qcow2_idle(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	int r;

	if (!qcow2_reserve_unused(q))
		return 0;
	/* What was replaced is free then, too */
	r = qcow2_flush(img);
	return r < 0 ? r : qcow2_reserve_end(q);
}

int qcow2_finish(struct image *img)
{
	int r = qcow2_flush(img);

	/* After a failed flush nobody knows which entries are on disk: leave all refcounts up */
	if (r < 0)
		return r;
	qcow2_settle(img);
	/* Should it fail, they are out of date without need */
	if (!atomic_load(&img->written))
		qcow2_bitmaps_unmark(qcow2_of(img));
	return qcow2_reserve_end(qcow2_of(img));
}

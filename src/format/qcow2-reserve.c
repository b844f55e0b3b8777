/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The reservation: host clusters whose refcount was raised, and made durable, ahead of their use.
 *
 *   free      refcount 0
 *   reserved  refcount 1 on stable storage, in the pool, named by nobody
 *   out       refcount 1, between take() and the write of the entry that names it
 *   in use    named by an entry
 *
 * A power cut turns "reserved" and "out" into leaks, which harm nobody; it can never leave a
 * cluster in use without a refcount. One flush pays for a whole batch.
 *
 * What is reserved reads as zeroes on stable storage too: space behind the old end of the file does
 * so anyway, a hole among used clusters is zeroed before the batch's flush. So a new L2 table costs
 * nothing more, and a first write need not make its cluster durable before the entry that names it.
 * Only space that was given back after somebody may have written to it is not fresh.
 *
 * What nobody takes for some seconds is given back. What a killed process had in its pool its
 * successor takes over (qcow2-spare.c), so that only what was "out" is leaked.
 *
 * The thread that takes the pool below a quarter fills it again while others take what is left.
 */

#include <errno.h>
#include <time.h>

#include "format/qcow2.h"

enum {
	QCOW2_POOL_RUNS = 256, /* a refill gathers no more: the search through them is linear */
	QCOW2_HARDEN_RUNS = 2, /* more than these are made durable by a flush */
};

/* Zeroes what was used before; a flush must follow. */
static void qcow2_reserve_zero(struct qcow2 *q, struct qcow2_run *run)
{
	/* Where that fails it stays as it is, and whoever gets it will fill it */
	run->fresh = store_zero(q->img->store, run->first << q->cluster_bits,
				run->n << q->cluster_bits) == 0;
}

/* Claims up to `want` clusters in any number of runs. *ret_soft: one of them is not as it was on
 * stable storage but for its refcount. */
static int qcow2_reserve_claim(struct qcow2 *q, uint64_t want, struct qcow2_runs *ret,
			       bool *ret_soft) REQUIRES(q->refcount_lock)
{
	uint64_t got = 0;

	while (got < want && ret->n < QCOW2_POOL_RUNS) {
		struct qcow2_run run;
		int r = qcow2_runs_room(ret, 1);

		if (r == 0)
			r = qcow2_refcount_claim(q, want - got, &run);
		if (r < 0)
			return got > 0 ? 0 : r;
		if (!run.fresh) {
			qcow2_reserve_zero(q, &run);
			*ret_soft = true;
		}
		qcow2_runs_add(ret, &run);
		got += run.n;
	}
	return 0;
}

static void qcow2_reserve_lower(struct qcow2 *q, const struct qcow2_runs *runs)
	REQUIRES(q->refcount_lock)
{
	/* A failure leaks clusters, no more */
	for (size_t i = 0; i < runs->n; i++)
		qcow2_refcount_lower(q, &runs->at[i]);
}

/* A flush writes back the guest's bytes as well, which is much more than a batch in one piece, the
 * common one, needs. */
static int qcow2_reserve_harden(struct qcow2 *q, const struct qcow2_runs *runs, bool soft)
	REQUIRES(q->refcount_lock)
{
	int r = 0;

	if (soft || q->reftable_dirty || runs->n > QCOW2_HARDEN_RUNS) {
		r = store_flush(q->img->store);
		if (r == 0)
			q->reftable_dirty = false;
		return r;
	}
	for (size_t i = 0; r == 0 && i < runs->n; i++)
		r = qcow2_refcount_harden(q, &runs->at[i]);
	return r;
}

/* A batch, durable. */
static int qcow2_reserve_batch(struct qcow2 *q, uint64_t want, struct qcow2_runs *ret)
	EXCLUDES(q->refcount_lock)
{
	bool soft = false;
	int r;

	mutex_lock(&q->refcount_lock);
	r = qcow2_reserve_claim(q, want, ret, &soft);
	if (r == 0)
		r = qcow2_reserve_harden(q, ret, soft);
	if (r < 0)
		qcow2_reserve_lower(q, ret);
	mutex_unlock(&q->refcount_lock);
	return r;
}

static void qcow2_pool_put(struct qcow2 *q, const struct qcow2_run *run) REQUIRES(q->alloc_lock)
{
	/* Out of memory: it is leaked */
	if (qcow2_runs_merge(&q->pool.runs, run) == 0)
		q->pool.clusters += run->n;
	qcow2_spare_note(q);
}

/* How much to reserve: more where the last batch did not last, so that who writes little leaks
 * little when killed. */
static uint64_t qcow2_pool_batch(struct qcow2 *q) EXCLUDES(q->alloc_lock)
{
	uint64_t batch = q->batch_min;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&q->alloc_lock);
	if (now.tv_sec - q->pool.filled <= 1)
		batch = min_u64(max_u64(q->pool.batch * 2, batch), q->batch_max);
	q->pool.filled = now.tv_sec;
	mutex_unlock(&q->alloc_lock);
	return batch;
}

/* Fills the pool. The caller has set pool.refilling, so it is the only one. */
static int qcow2_pool_refill(struct qcow2 *q) EXCLUDES(q->alloc_lock)
{
	struct qcow2_runs runs = {0};
	uint64_t got = 0;
	int r = qcow2_reserve_batch(q, qcow2_pool_batch(q), &runs);

	mutex_lock(&q->alloc_lock);
	for (size_t i = 0; r == 0 && i < runs.n; i++) {
		qcow2_pool_put(q, &runs.at[i]);
		got += runs.at[i].n;
	}
	if (r == 0)
		q->pool.batch = got;
	q->pool.refilling = false;
	cond_broadcast(&q->pool.refilled);
	mutex_unlock(&q->alloc_lock);
	qcow2_runs_done(&runs);
	return r;
}

/* Waits until there is something in the pool. */
static int qcow2_pool_wait(struct qcow2 *q) REQUIRES(q->alloc_lock)
{
	int r = 0;

	while (r == 0 && q->pool.clusters == 0) {
		if (q->pool.refilling) {
			cond_wait(&q->pool.refilled, &q->alloc_lock);
			continue;
		}
		q->pool.refilling = true;
		mutex_unlock(&q->alloc_lock);
		r = qcow2_pool_refill(q);
		mutex_lock(&q->alloc_lock);
	}
	return r;
}

/* Cuts up to n clusters out of the first run that has as many, or else of the longest. */
static struct qcow2_run qcow2_pool_cut(struct qcow2 *q, uint64_t n) REQUIRES(q->alloc_lock)
{
	struct qcow2_runs *runs = &q->pool.runs;
	struct qcow2_run *best = &runs->at[0], cut;

	for (size_t i = 0; i < runs->n && best->n < n; i++)
		if (runs->at[i].n > best->n)
			best = &runs->at[i];
	cut = *best;
	cut.n = min_u64(cut.n, n);
	best->first += cut.n;
	best->n -= cut.n;
	if (best->n == 0)
		*best = runs->at[--runs->n];
	q->pool.clusters -= cut.n;
	q->pool.used = true;
	/* Before anybody can name it */
	qcow2_spare_note(q);
	return cut;
}

int qcow2_reserve_take(struct qcow2 *q, uint64_t n, struct qcow2_run *ret)
{
	bool low = false;
	int r;

	mutex_lock(&q->alloc_lock);
	r = qcow2_pool_wait(q);
	if (r == 0) {
		*ret = qcow2_pool_cut(q, n);
		low = q->pool.clusters < q->pool.batch / 4 && !q->pool.refilling;
		if (low)
			q->pool.refilling = true;
	}
	mutex_unlock(&q->alloc_lock);
	/* Should it fail, whoever finds the pool empty will say so */
	if (low)
		qcow2_pool_refill(q);
	return r;
}

void qcow2_reserve_give(struct qcow2 *q, const struct qcow2_run *run)
{
	mutex_lock(&q->alloc_lock);
	qcow2_pool_put(q, run);
	mutex_unlock(&q->alloc_lock);
}

int qcow2_reserve_take_zeroed(struct qcow2 *q, uint64_t *ret_cluster)
{
	struct qcow2_run run;
	int r = qcow2_reserve_take(q, 1, &run);

	if (r < 0)
		return r;
	if (!run.fresh) {
		qcow2_reserve_zero(q, &run);
		r = run.fresh ? store_flush(q->img->store) : -EIO;
		run.fresh = r == 0;
	}
	if (r < 0)
		qcow2_reserve_give(q, &run);
	else
		*ret_cluster = run.first;
	return r;
}

bool qcow2_reserve_unused(struct qcow2 *q)
{
	bool unused;

	mutex_lock(&q->alloc_lock);
	unused = !q->pool.used && !q->pool.refilling && (q->pool.clusters > 0 || q->replaced.n > 0);
	q->pool.used = false;
	mutex_unlock(&q->alloc_lock);
	return unused;
}

/* Cuts off clusters at the end of the file that were reserved and never used. */
static void qcow2_reserve_trim(struct qcow2 *q, const struct qcow2_runs *runs)
	REQUIRES(q->refcount_lock)
{
	uint64_t size, end;

	if (q->img->store->fixed || store_size(q->img->store, &size) < 0)
		return;
	end = size;
	for (size_t i = 0; i < runs->n; i++) {
		const struct qcow2_run *run = &runs->at[i];

		if (!run->fresh || (run->first + run->n) << q->cluster_bits != end)
			continue;
		end = run->first << q->cluster_bits;
		i = SIZE_MAX; /* one before it may end there now: from the start */
	}
	/* A file that stays longer is only that */
	if (end < size && store_resize(q->img->store, end) == 0) {
		q->durable_end = 0;
		/* Only zeroes stood behind it, so only these come back, with the power too */
		q->fresh_from = min_u64(q->fresh_from, end >> q->cluster_bits);
	}
	atomic_store(&q->store_end, 0);
}

int qcow2_reserve_end(struct qcow2 *q)
{
	struct qcow2_runs runs;

	mutex_lock(&q->alloc_lock);
	runs = q->pool.runs;
	q->pool.runs = (struct qcow2_runs){0};
	q->pool.clusters = 0;
	qcow2_spare_note(q);
	mutex_unlock(&q->alloc_lock);

	mutex_lock(&q->refcount_lock);
	qcow2_reserve_lower(q, &runs);
	qcow2_reserve_trim(q, &runs);
	mutex_unlock(&q->refcount_lock);
	qcow2_runs_done(&runs);
	return store_flush(q->img->store);
}

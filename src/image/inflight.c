/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/inflight.h"

void inflight_init(struct inflight *f) NO_THREAD_SAFETY_ANALYSIS
{
	mutex_init(&f->lock);
	cond_init(&f->gone);
	f->ranges = NULL;
}

void inflight_done(struct inflight *f) NO_THREAD_SAFETY_ANALYSIS
{
	assert(!f->ranges);
	cond_done(&f->gone);
	mutex_done(&f->lock);
}

/* As many ranges as threads at most: a list is enough. */
static bool inflight_overlaps(struct inflight *f, uint64_t start, uint64_t end) REQUIRES(f->lock)
{
	for (struct inflight_range *r = f->ranges; r; r = r->next)
		if (start < r->end && r->start < end)
			return true;
	return false;
}

void inflight_enter(struct inflight *f, struct inflight_range *r, uint64_t start, uint64_t end)
{
	r->start = start;
	r->end = end;
	mutex_lock(&f->lock);
	while (inflight_overlaps(f, start, end))
		cond_wait(&f->gone, &f->lock);
	r->next = f->ranges;
	f->ranges = r;
	mutex_unlock(&f->lock);
}

void inflight_leave(struct inflight *f, struct inflight_range *r)
{
	struct inflight_range **p;

	mutex_lock(&f->lock);
	for (p = &f->ranges; *p != r; p = &(*p)->next)
		assert(*p);
	*p = r->next;
	cond_broadcast(&f->gone);
	mutex_unlock(&f->lock);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_BARRIER_H
#define FUSEIMG_BARRIER_H

/*
 * One flush of a store for all who wait for one. Whoever calls barrier_pass() returns when a flush
 * that was begun after the call has ended, with its result; callers that arrive while one runs
 * share the next. The result goes to each of them, for the host reports a lost page once and then
 * forgets.
 */

#include "base/thread.h"
#include "store/store.h"

struct barrier_waiter;

struct barrier {
	struct mutex lock;
	struct cond turn;
	bool running GUARDED_BY(lock);
	struct barrier_waiter *waiters GUARDED_BY(lock); /* for the next flush */
};

void barrier_init(struct barrier *b);
void barrier_done(struct barrier *b);
int barrier_pass(struct barrier *b, struct store *store);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/barrier.h"

/* On the stack of the one who waits; the lock is the barrier's. */
struct barrier_waiter {
	struct barrier_waiter *next;
	bool done;
	int result;
};

void barrier_init(struct barrier *b) NO_THREAD_SAFETY_ANALYSIS
{
	mutex_init(&b->lock);
	cond_init(&b->turn);
	b->running = false;
	b->waiters = NULL;
}

void barrier_done(struct barrier *b)
{
	cond_done(&b->turn);
	mutex_done(&b->lock);
}

/* Flushes on behalf of all who wait. */
static void barrier_flush(struct barrier *b, struct store *store) REQUIRES(b->lock)
{
	struct barrier_waiter *waiters = b->waiters;
	int r;

	b->waiters = NULL;
	b->running = true;
	mutex_unlock(&b->lock);
	r = store_flush(store);
	mutex_lock(&b->lock);
	b->running = false;
	for (struct barrier_waiter *w = waiters; w; w = w->next) {
		w->result = r;
		w->done = true;
	}
	cond_broadcast(&b->turn);
}

int barrier_pass(struct barrier *b, struct store *store)
{
	struct barrier_waiter self = {0};

	mutex_lock(&b->lock);
	self.next = b->waiters;
	b->waiters = &self;
	while (!self.done) {
		if (b->running)
			cond_wait(&b->turn, &b->lock);
		else
			barrier_flush(b, store);
	}
	mutex_unlock(&b->lock);
	return self.result;
}

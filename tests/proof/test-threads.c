/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lives with several clients at once, each in sectors of its own, but in the same clusters. A flush
 * takes its time, so that others are at work while it runs. What was interleaved how is different
 * in every run. */

#include "proof.h"

#include <pthread.h>

#include "base/checked.h"

enum {
	THREADS = 4,
	STEPS = 30, /* of each */
	CUTS = 60,
	STRIPE = 2048,
	FLUSH_MICROSECONDS = 200,
};

struct client {
	pthread_t thread;
	struct work work;
	int error;
};

static void *client_main(void *arg)
{
	struct client *c = arg;

	for (int i = 0; c->error == 0 && i < STEPS; i++)
		c->error = work_step(&c->work);
	return NULL;
}

static void live(struct trial *t)
{
	struct client clients[THREADS];

	journal_slow_flushes(t->stack.journal, FLUSH_MICROSECONDS);
	for (unsigned i = 0; i < THREADS; i++) {
		clients[i] = (struct client){.work = t->work};
		clients[i].work.seed += i * 104729;
		clients[i].work.thread = i;
		clients[i].work.n_threads = THREADS;
		/* In one life threads meet in a cluster, in the next each frees its own */
		clients[i].work.stripe = t->seed % 2 ? STRIPE : min_u64(t->stack.img->unit, 65536);
		assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]),
				 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(clients[i].thread, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		if (clients[i].error < 0)
			fail_msg("%s: a request failed", t->stack.where);
	journal_slow_flushes(t->stack.journal, 0);
	trial_verify(t);
}

int main(void)
{
	static const struct proof proof = {
		.name = "threads",
		.quick = 3,
		.thorough = 30,
		.live = live,
		.cuts = CUTS,
	};

	return proof_main(&proof);
}

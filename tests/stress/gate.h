/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STRESS_GATE_H
#define FUSEIMG_STRESS_GATE_H

/*
 * Two threads in an order of our choice: the first is stopped before one of its calls of the
 * store, then the second may go as far as it gets.
 */

#include <pthread.h>
#include <stdbool.h>

#include "hook.h"

typedef void gate_fn(void *data);

struct gate {
	struct hook hook; /* of the stores */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned calls, stop_at; /* of the first thread */
	bool stopped, open, first_done, second_done;
};

void gate_init(struct gate *g);
void gate_done(struct gate *g);

/*
 * Runs first(data) up to its call number `stop_at` (from 0), starts second(data), and lets the
 * first go on when the second is done, or seems to wait for it. False where the first made fewer
 * calls: both are done then too, one after the other.
 */
bool gate_run(struct gate *g, unsigned stop_at, gate_fn *first, gate_fn *second, void *data);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_RATE_H
#define FUSEIMG_RATE_H

/* A limit on messages: so many in each window of time, the rest is counted. Not locked. */

#include <stdbool.h>
#include <stdint.h>

enum {
	RATE_BURST = 10,
	RATE_WINDOW_S = 10,
};

struct rate {
	uint64_t start_us; /* of the window */
	unsigned n;	   /* in it */
	unsigned held;	   /* kept back since the last that passed */
};

/* May a message go out now (microseconds, monotonic)? If so, *ret_held is how many did not. */
static inline bool rate_pass(struct rate *r, uint64_t now_us, unsigned *ret_held)
{
	if (r->n == 0 || now_us - r->start_us >= (uint64_t)RATE_WINDOW_S * 1000000) {
		r->start_us = now_us;
		r->n = 0;
	}
	if (r->n == RATE_BURST) {
		r->held++;
		return false;
	}
	r->n++;
	*ret_held = r->held;
	r->held = 0;
	return true;
}

#endif

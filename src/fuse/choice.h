/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CHOICE_H
#define FUSEIMG_CHOICE_H

/*
 * Which of a few ways to do the same thing is the fastest here and now. Where nothing that a
 * program can see tells, it has to measure. It takes turns:
 *
 *   - a window of work done the best way known, then one each of the others, then a comparison of
 *     these windows, which followed each other at once;
 *   - a way that costs others something (CPU time) has a handicap: it must be faster by so much;
 *   - another way must be faster by CHOICE_EDGE, or noise would choose;
 *   - the winner stays for 1, 3, 7 ... CHOICE_STAY windows, then the others are tried again.
 *
 * So an error costs little, and does not last.
 */

#include <stdint.h>

enum {
	CHOICE_MAX = 4,
	CHOICE_STAY = 63,
	CHOICE_EDGE = 4, /* percent */
};

struct choice {
	const uint8_t *handicap; /* percent, of each way */
	unsigned n;		 /* ways; way 0 is the one that is never wrong for long */
	unsigned way;		 /* in this window */
	unsigned best;
	unsigned tried; /* of the others, since the last window of the best */
	unsigned left;	/* windows until the next trial */
	unsigned stay;	/* what left begins with */
	uint64_t rate[CHOICE_MAX];
};

/* n ways; handicap is the caller's. Begins with way 0. */
void choice_init(struct choice *c, unsigned n, const uint8_t *handicap);

/* A window of c->way ended, at so many requests per second. c->way is the one for the next. */
void choice_judge(struct choice *c, uint64_t rate);

/* This window had to be broken off: c->way was no good. */
void choice_fail(struct choice *c);

#endif

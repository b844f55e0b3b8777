/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CRASHES_H
#define FUSEIMG_CRASHES_H

/*
 * The book of workers that died. It answers two questions after each death: which requests are to
 * blame (the same request was in hand when several workers in a row died), and whether to go on at
 * all (too many deaths in a short time that no single request explains).
 *
 * A worker that crashes is at fault itself. One that was killed (SIGKILL: an administrator, the
 * kernel's out-of-memory killer) may have had innocent requests in hand, so that such a death
 * weighs less against a request and nothing towards giving up.
 */

#include <stdbool.h>
#include <stdint.h>

#include "session/slots.h"

enum {
	CRASHES_MAX = 5,			   /* more than so many ... */
	CRASHES_WINDOW_S = 10,			   /* ... in this time: give up */
	CRASHES_POISON = 21,			   /* the blame at which a request is given up: */
	CRASHES_BLAME_CRASH = 7,		   /* three crashes, */
	CRASHES_BLAME_KILL = 1,			   /* or 21 kills */
	CRASHES_CAREFUL = 2 * CRASHES_BLAME_CRASH, /* the blame from which on the successor
						      replays one request at a time */
};

struct crashes {
	struct {
		uint64_t unique; /* the request in hand at the last death, 0: none */
		unsigned blame;
	} held[SLOTS_MAX];
	uint64_t recent[CRASHES_MAX]; /* microseconds; a ring of the deaths that count */
	unsigned n_recent, next;
};

struct crashes_verdict {
	uint64_t poison; /* bit i: the request in slot i has to be given up */
	bool careful;	 /* the next worker is to show which one is to blame */
	bool give_up;
};

/*
 * A worker died at now_us (monotonic). held: the unique of each request that was in hand and not
 * executed, 0 where there was none; n slots. suspect: the only slot that was being worked on, n: it
 * may have been any. killed: by SIGKILL.
 */
struct crashes_verdict crashes_note(struct crashes *c, uint64_t now_us, bool killed,
				    const uint64_t *held, unsigned n, unsigned suspect);

#endif

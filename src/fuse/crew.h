/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CREW_H
#define FUSEIMG_CREW_H

/*
 * How many of the serving threads take requests.
 *
 * The kernel hands requests to the threads that wait for them in turn. That is right as long as
 * several are needed. When each request comes only after the answer to the last, turns mean that
 * each finds another thread, on another CPU, with cold caches: one thread alone is a fifth faster
 * (4k reads at depth 1 on 2 CPUs that have other work too; no slower where they have none). So
 *
 *   all hands   every thread takes requests
 *   alone       only thread 0 does, the others rest
 *
 * From all hands to alone: in CREW_WINDOW requests hardly one came while another was at work, and
 * none waits now (many clients on few CPUs can leave the CPU to one thread for long).
 *
 * From alone to all hands: one of those that rest, the guard, looks around every CREW_TICK_US, and
 * calls the others
 *
 *   - when requests wait while thread 0 is at work, at two looks in a row. It does not matter why:
 *     many may come at a time, or thread 0 is held up by the host's disk. No request waits for
 *     another longer than these two ticks;
 *   - when there was nothing to do since the last look. So nobody looks around in an idle export,
 *     and the first requests after a pause find all hands.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"

enum {
	CREW_WINDOW = 256,
	CREW_CROWDED = CREW_WINDOW / 16, /* requests that came while another was at work */
	CREW_TICK_US = 1000,
};

struct crew {
	/* Cleared without the lock, set with it */
	_Atomic bool all_hands;
	_Atomic unsigned busy;	  /* threads with a request */
	_Atomic unsigned crowded; /* in this window */
	_Atomic uint64_t taken;	  /* requests, ever */
	struct mutex lock;
	struct cond called;
	bool guarded GUARDED_BY(lock);	 /* one of those that rest is the guard */
	bool dismissed GUARDED_BY(lock); /* nobody rests any more */
};

void crew_init(struct crew *c);
void crew_done(struct crew *c);

/* Thread i is about to wait for a request on fd: returns when it is wanted there. */
void crew_rest(struct crew *c, unsigned i, int fd);
/* Around the execution of a request. */
void crew_take(struct crew *c, int fd);
void crew_finish(struct crew *c);
/* Does only thread 0 take requests? A hint: it may change at any time. */
bool crew_is_alone(struct crew *c);
/* Whoever rests returns from crew_rest(), and nobody rests again: there is an end to come to. */
void crew_dismiss(struct crew *c);

#endif

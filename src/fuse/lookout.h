/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOOKOUT_H
#define FUSEIMG_LOOKOUT_H

/*
 * Whether a thread looks out for its next request before it sleeps.
 *
 * When each request comes only after the answer to the last, most of its time goes into two
 * wake-ups: of the thread that serves it, and of the client. A thread that looks for the next
 * request for some microseconds before it sleeps saves the first of them, which doubles the rate
 * where an idle CPU is slow to wake (virtual machines). But where other work leaves client and
 * thread a single CPU, nothing must be woken, and looking out only keeps the client from running:
 * it halves the rate. Nothing that a thread can see tells the two apart, so it measures:
 *
 *   - it takes turns: a window of LOOKOUT_WINDOW requests of one kind, then of the other;
 *   - it looks out only when that was faster by a tenth, as it costs CPU time;
 *   - it stays with the winner for 1, 3, 7 ... LOOKOUT_STAY windows, then it tries the other again.
 *
 * So an error costs little, and does not last. Only for a thread that works alone (fuse/crew.h):
 * the kernel would go on waking the others. An idle export costs nothing: after LOOKOUT_US without
 * a request the thread sleeps.
 */

#include <stdbool.h>
#include <stdint.h>

enum {
	LOOKOUT_US = 50,
	LOOKOUT_WINDOW = 512,
	LOOKOUT_STAY = 64,
};

/* Of one thread. */
struct lookout {
	bool looking;
	bool trial;    /* this window is there to compare */
	unsigned seen; /* requests in this window */
	unsigned left; /* windows until the next trial */
	unsigned stay; /* what left begins with */
	int64_t began; /* ns, this window */
	int64_t ns[2]; /* the last window of each kind, by looking */
};

/* Returns when fd has something to read, or when it is time to sleep in read(2). */
void lookout_wait(struct lookout *l, int fd);

/* The thread waits otherwise: what was measured in this window means nothing. */
void lookout_skip(struct lookout *l);

/* For the tests: a window ended that took so long. */
void lookout_judge(struct lookout *l, int64_t ns);

#endif

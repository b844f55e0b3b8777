/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CREW_H
#define FUSEIMG_CREW_H

/*
 * How many of the serving threads take requests, and how they wait for them.
 *
 *   all      Every thread takes requests, the kernel hands them out in turn. Right where all CPUs
 *            are free for it, and the only way where the host's disk is waited for.
 *   alone    Only thread 0 does, the others rest. Where each request comes only after the answer to
 *            the last, turns mean that each finds another thread, on another CPU, with cold
 *            caches; where many clients keep all CPUs busy, one thread that never sleeps saves
 *            them the switching.
 *   looking  Alone, and thread 0 looks out for the next request for some microseconds before it
 *            sleeps. That saves a wake-up per request, and doubles the rate of a single client
 *            where an idle CPU is slow to wake (virtual machines). Where other work leaves client
 *            and thread a single CPU, it only keeps the client from running: half the rate.
 *
 * Nothing that a thread can see tells which it is to be, so thread 0 measures (fuse/choice.h): it
 * counts the requests of all threads in windows of CREW_WINDOW_MS. Only windows count in which
 * requests come fast: the pace of a slow client says nothing of us.
 *
 * One thread alone must never hold up others. One of those that rest, the guard, looks around every
 * CREW_TICK_US, and calls all
 *
 *   - when requests wait, and thread 0 has taken few since the last look, at two looks in a row: it
 *     waits for the host's disk, or has large requests in hand, which are better copied by all. So
 *     no request waits longer than these two ticks;
 *   - when there was nothing to do since the last look. So nobody looks around in an idle export,
 *     and the first requests after a pause find all hands.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"
#include "fuse/choice.h"
#include "session/slots.h"

enum {
	CREW_TICK_US = 1000,
	CREW_BRISK = 32,    /* requests in a tick: fewer are few */
	CREW_TURN = 32,	    /* requests of thread 0 from one look at the clock to the next */
	CREW_DENSE_MS = 20, /* ... which take no longer where requests come fast */
	CREW_WINDOW_MS = 10,
	CREW_LOOK_OUT_US = 50,
	CREW_LINE = 128, /* bytes; the CPU fetches two lines at a time */
};

enum crew_way {
	CREW_ALL,
	CREW_LOOKING,
	CREW_ALONE,
	CREW_WAYS,
};

/* What thread 0 measures with; nobody else's. */
struct crew_meter {
	struct choice choice;
	unsigned seen;	/* requests since it looked at the clock */
	int64_t looked; /* ns, that look */
	int64_t began;	/* ns, this window */
	uint64_t taken; /* by all, before this window */
};

/* What one thread does. */
struct crew_hand {
	_Alignas(CREW_LINE) _Atomic uint64_t steps; /* odd: it has a request in hand */
};

struct crew {
	_Atomic unsigned way; /* enum crew_way. To CREW_ALL with the lock, else without */
	_Atomic bool held_up; /* the guard called because requests waited */
	unsigned n;
	struct crew_meter meter;
	struct mutex lock;
	struct cond called;
	bool guarded GUARDED_BY(lock);	 /* one of those that rest is the guard */
	bool dismissed GUARDED_BY(lock); /* nobody rests any more */
	struct crew_hand hands[SLOTS_MAX];
};

/* For n threads. */
void crew_init(struct crew *c, unsigned n);
void crew_done(struct crew *c);

/* Thread i is about to read(2) a request from fd: returns when it is wanted there. */
void crew_wait(struct crew *c, unsigned i, int fd);
/* Around the execution of a request by thread i. */
void crew_take(struct crew *c, unsigned i);
void crew_finish(struct crew *c, unsigned i);
/* Whoever rests returns from crew_wait(), and nobody rests again: there is an end to come to. */
void crew_dismiss(struct crew *c);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/crew.h"

#include <assert.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

/* Percent. All hands cost everybody the switching between threads, looking out costs CPU time. */
static const uint8_t crew_handicap[CREW_WAYS] = {
	[CREW_ALL] = 5,
	[CREW_LOOKING] = 10,
};

/* What the guard saw. */
struct crew_watch {
	uint64_t steps;
	unsigned held_up; /* looks in a row */
};

void crew_init(struct crew *c, unsigned n) NO_THREAD_SAFETY_ANALYSIS /* nobody else has it yet */
{
	assert(n <= SLOTS_MAX);
	*c = (struct crew){.way = CREW_ALL, .n = n};
	/* A single one is always alone */
	choice_init(&c->meter.choice, n > 1 ? CREW_WAYS : CREW_ALONE, crew_handicap);
	mutex_init(&c->lock);
	cond_init(&c->called);
}

void crew_done(struct crew *c)
{
	cond_done(&c->called);
	mutex_done(&c->lock);
}

static int64_t crew_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool crew_requests_wait(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* --- the hands' own counters: only their threads write them, so no locked instruction --- */

static uint64_t crew_steps(struct crew *c, unsigned i)
{
	return atomic_load_explicit(&c->hands[i].steps, memory_order_relaxed);
}

static void crew_step(struct crew *c, unsigned i)
{
	atomic_store_explicit(&c->hands[i].steps, crew_steps(c, i) + 1, memory_order_relaxed);
}

void crew_take(struct crew *c, unsigned i)
{
	crew_step(c, i);
}

void crew_finish(struct crew *c, unsigned i)
{
	crew_step(c, i);
}

/* Requests ever taken by all. */
static uint64_t crew_taken(struct crew *c)
{
	uint64_t steps = 0;

	for (unsigned i = 0; i < c->n; i++)
		steps += crew_steps(c, i);
	return steps / 2;
}

/* --- thread 0 --- */

static unsigned crew_way(struct crew *c)
{
	return atomic_load_explicit(&c->way, memory_order_relaxed);
}

static void crew_call(struct crew *c) REQUIRES(c->lock)
{
	atomic_store_explicit(&c->way, CREW_ALL, memory_order_relaxed);
	cond_broadcast(&c->called);
}

/* A new window begins, in which this way is gone. */
static void crew_begin(struct crew *c, unsigned way, int64_t now)
{
	c->meter.began = now;
	c->meter.taken = crew_taken(c);
	if (way == crew_way(c))
		return;
	if (way != CREW_ALL) {
		atomic_store_explicit(&c->way, way, memory_order_relaxed);
		return;
	}
	mutex_lock(&c->lock);
	crew_call(c);
	mutex_unlock(&c->lock);
}

static void crew_judge(struct crew *c, int64_t now)
{
	struct crew_meter *m = &c->meter;
	uint64_t n = crew_taken(c) - m->taken;

	choice_judge(&m->choice, n * 1000000000 / (uint64_t)(now - m->began));
	crew_begin(c, m->choice.way, now);
}

/* Thread 0 comes by this before each request. */
static void crew_turn(struct crew *c)
{
	struct crew_meter *m = &c->meter;
	int64_t now, pause;

	if (++m->seen < CREW_TURN)
		return;
	m->seen = 0;
	now = crew_now();
	pause = now - m->looked;
	m->looked = now;
	if (atomic_load_explicit(&c->held_up, memory_order_relaxed)) {
		atomic_store_explicit(&c->held_up, false, memory_order_relaxed);
		choice_fail(&m->choice);
		crew_begin(c, m->choice.way, now);
	} else if (pause > CREW_DENSE_MS * INT64_C(1000000)) {
		crew_begin(c, CREW_ALL, now);
	} else if (crew_way(c) != m->choice.way) {
		crew_begin(c, m->choice.way, now);
	} else if (now - m->began >= CREW_WINDOW_MS * INT64_C(1000000)) {
		crew_judge(c, now);
	}
}

static void crew_look_out(int fd)
{
	int64_t end = crew_now() + CREW_LOOK_OUT_US * 1000;

	while (!crew_requests_wait(fd) && crew_now() < end)
		;
}

/* --- the others --- */

static bool crew_wanted(struct crew *c) REQUIRES(c->lock)
{
	return c->dismissed || crew_way(c) == CREW_ALL;
}

/* Are the others needed, or is there nothing to do? */
static bool crew_look(struct crew *c, struct crew_watch *watch, int fd)
{
	uint64_t steps = crew_steps(c, 0), done = steps - watch->steps;
	bool busy = steps % 2;

	if (!busy && done == 0)
		return true;
	watch->steps = steps;
	if (busy && done < 2 * CREW_BRISK && crew_requests_wait(fd))
		watch->held_up++;
	else
		watch->held_up = 0;
	if (watch->held_up < 2)
		return false;
	atomic_store_explicit(&c->held_up, true, memory_order_relaxed);
	return true;
}

/* One tick; the lock is not held meanwhile. */
static void crew_guard(struct crew *c, struct crew_watch *watch, int fd) REQUIRES(c->lock)
{
	const struct timespec tick = {.tv_nsec = CREW_TICK_US * 1000};
	bool call;

	mutex_unlock(&c->lock);
	nanosleep(&tick, NULL);
	call = crew_look(c, watch, fd);
	mutex_lock(&c->lock);
	if (call)
		crew_call(c);
}

static void crew_rest(struct crew *c, int fd)
{
	mutex_lock(&c->lock);
	while (!crew_wanted(c)) {
		struct crew_watch watch = {.steps = crew_steps(c, 0)};

		if (c->guarded) {
			cond_wait(&c->called, &c->lock);
			continue;
		}
		c->guarded = true;
		while (!crew_wanted(c))
			crew_guard(c, &watch, fd);
		c->guarded = false;
	}
	mutex_unlock(&c->lock);
}

void crew_wait(struct crew *c, unsigned i, int fd)
{
	if (i > 0) {
		if (crew_way(c) != CREW_ALL)
			crew_rest(c, fd);
		return;
	}
	crew_turn(c);
	if (crew_way(c) == CREW_LOOKING)
		crew_look_out(fd);
}

void crew_dismiss(struct crew *c)
{
	mutex_lock(&c->lock);
	c->dismissed = true;
	cond_broadcast(&c->called);
	mutex_unlock(&c->lock);
}

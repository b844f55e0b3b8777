/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/crew.h"

#include <poll.h>
#include <stdatomic.h>
#include <time.h>

/* What the guard saw. */
struct crew_watch {
	uint64_t taken;
	unsigned waited; /* looks in a row at which requests waited */
};

void crew_init(struct crew *c) NO_THREAD_SAFETY_ANALYSIS /* nobody else has it yet */
{
	*c = (struct crew){.all_hands = true};
	mutex_init(&c->lock);
	cond_init(&c->called);
}

void crew_done(struct crew *c)
{
	cond_done(&c->called);
	mutex_done(&c->lock);
}

static bool crew_requests_wait(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

void crew_take(struct crew *c, int fd)
{
	uint64_t taken = atomic_fetch_add_explicit(&c->taken, 1, memory_order_relaxed) + 1;
	unsigned crowded;

	if (atomic_fetch_add_explicit(&c->busy, 1, memory_order_relaxed) > 0)
		atomic_fetch_add_explicit(&c->crowded, 1, memory_order_relaxed);
	if (taken % CREW_WINDOW != 0)
		return;
	crowded = atomic_exchange_explicit(&c->crowded, 0, memory_order_relaxed);
	if (crowded < CREW_CROWDED && !crew_requests_wait(fd))
		atomic_store_explicit(&c->all_hands, false, memory_order_relaxed);
}

void crew_finish(struct crew *c)
{
	atomic_fetch_sub_explicit(&c->busy, 1, memory_order_relaxed);
}

static bool crew_wanted(struct crew *c) REQUIRES(c->lock)
{
	return c->dismissed || atomic_load_explicit(&c->all_hands, memory_order_relaxed);
}

/* Are the others needed, or is there nothing to do? */
static bool crew_look(struct crew *c, struct crew_watch *watch, int fd)
{
	uint64_t taken = atomic_load_explicit(&c->taken, memory_order_relaxed);
	bool busy = atomic_load_explicit(&c->busy, memory_order_relaxed) > 0;

	if (!busy && taken == watch->taken)
		return true;
	watch->taken = taken;
	watch->waited = busy && crew_requests_wait(fd) ? watch->waited + 1 : 0;
	return watch->waited > 1;
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
	if (!call)
		return;
	atomic_store_explicit(&c->all_hands, true, memory_order_relaxed);
	cond_broadcast(&c->called);
}

bool crew_is_alone(struct crew *c)
{
	return !atomic_load_explicit(&c->all_hands, memory_order_relaxed);
}

void crew_rest(struct crew *c, unsigned i, int fd)
{
	if (i == 0 || atomic_load_explicit(&c->all_hands, memory_order_relaxed))
		return;
	mutex_lock(&c->lock);
	while (!crew_wanted(c)) {
		struct crew_watch watch = {0};

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

void crew_dismiss(struct crew *c)
{
	mutex_lock(&c->lock);
	c->dismissed = true;
	cond_broadcast(&c->called);
	mutex_unlock(&c->lock);
}

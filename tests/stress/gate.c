/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gate.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

enum { GATE_PATIENCE_NS = 500 * 1000 };

struct gate_thread {
	struct gate *gate;
	gate_fn *fn;
	void *data;
	bool first;
	pthread_t thread;
};

static _Thread_local bool gate_watched;

static void gate_before(struct hook *hook, bool writes)
{
	struct gate *g = (struct gate *)hook;

	if (!gate_watched)
		return;
	pthread_mutex_lock(&g->lock);
	if (g->calls++ == g->stop_at) {
		g->stopped = true;
		pthread_cond_broadcast(&g->changed);
		while (!g->open)
			pthread_cond_wait(&g->changed, &g->lock);
	}
	pthread_mutex_unlock(&g->lock);
}

void gate_init(struct gate *g)
{
	*g = (struct gate){.hook = {gate_before}};
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
}

void gate_done(struct gate *g)
{
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
}

static void *gate_main(void *arg)
{
	struct gate_thread *t = arg;

	gate_watched = t->first;
	t->fn(t->data);
	pthread_mutex_lock(&t->gate->lock);
	*(t->first ? &t->gate->first_done : &t->gate->second_done) = true;
	pthread_cond_broadcast(&t->gate->changed);
	pthread_mutex_unlock(&t->gate->lock);
	return NULL;
}

static void gate_start(struct gate_thread *t)
{
	int r = pthread_create(&t->thread, NULL, gate_main, t);

	assert(r == 0);
}

static void gate_wait_second(struct gate *g)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += GATE_PATIENCE_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&g->lock);
	while (!g->second_done && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&g->changed, &g->lock, &until);
	g->open = true;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

bool gate_run(struct gate *g, unsigned stop_at, gate_fn *first, gate_fn *second, void *data)
{
	struct gate_thread a = {.gate = g, .fn = first, .data = data, .first = true};
	struct gate_thread b = {.gate = g, .fn = second, .data = data};
	bool stopped;

	g->calls = 0;
	g->stop_at = stop_at;
	g->stopped = g->open = g->first_done = g->second_done = false;
	gate_start(&a);
	pthread_mutex_lock(&g->lock);
	while (!g->stopped && !g->first_done)
		pthread_cond_wait(&g->changed, &g->lock);
	stopped = g->stopped;
	pthread_mutex_unlock(&g->lock);
	gate_start(&b);
	gate_wait_second(g);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	return stopped;
}

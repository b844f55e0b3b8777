/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/thread.h"

#include <stdlib.h>

/* Each of these fails only when we misuse it: there is no image content to blame. */
static void thread_must(int error)
{
	if (error != 0)
		abort();
}

void mutex_init(struct mutex *m)
{
	thread_must(pthread_mutex_init(&m->m, NULL));
}

void mutex_done(struct mutex *m)
{
	thread_must(pthread_mutex_destroy(&m->m));
}

void mutex_lock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_mutex_lock(&m->m));
}

void mutex_unlock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_mutex_unlock(&m->m));
}

void rwlock_init(struct rwlock *l)
{
	pthread_rwlockattr_t attr;

	thread_must(pthread_rwlockattr_init(&attr));
	thread_must(
		pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	thread_must(pthread_rwlock_init(&l->l, &attr));
	thread_must(pthread_rwlockattr_destroy(&attr));
}

void rwlock_done(struct rwlock *l)
{
	thread_must(pthread_rwlock_destroy(&l->l));
}

void rwlock_read(struct rwlock *l) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_rwlock_rdlock(&l->l));
}

void rwlock_unread(struct rwlock *l) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_rwlock_unlock(&l->l));
}

void rwlock_write(struct rwlock *l) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_rwlock_wrlock(&l->l));
}

void rwlock_unwrite(struct rwlock *l) NO_THREAD_SAFETY_ANALYSIS
{
	thread_must(pthread_rwlock_unlock(&l->l));
}

void cond_init(struct cond *c)
{
	thread_must(pthread_cond_init(&c->c, NULL));
}

void cond_done(struct cond *c)
{
	thread_must(pthread_cond_destroy(&c->c));
}

void cond_wait(struct cond *c, struct mutex *m)
{
	thread_must(pthread_cond_wait(&c->c, &m->m));
}

void cond_broadcast(struct cond *c)
{
	thread_must(pthread_cond_broadcast(&c->c));
}

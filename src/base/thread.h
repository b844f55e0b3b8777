/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_THREAD_H
#define FUSEIMG_THREAD_H

/*
 * POSIX locks under names that clang's -Wthread-safety understands, with the errors of misuse
 * turned into assertions. CI compiles with clang -Wthread-safety -Werror; gcc ignores the
 * annotations.
 */

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>

#if defined(__clang__)
#define TSA_(x) __attribute__((x))
#else
#define TSA_(x)
#endif

#define CAPABILITY(name) TSA_(capability(name))
/* clang cannot name a member inside its own struct in C (without
 * -fexperimental-late-parse-attributes of clang 20): on members this is for people; REQUIRES and
 * ACQUIRE are what is checked. */
#define GUARDED_BY(l)
#define PT_GUARDED_BY(l)
#define REQUIRES(...) TSA_(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) TSA_(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) TSA_(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) TSA_(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) TSA_(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) TSA_(release_shared_capability(__VA_ARGS__))
#define EXCLUDES(...) TSA_(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS TSA_(no_thread_safety_analysis)

struct CAPABILITY("mutex") mutex {
	pthread_mutex_t m;
};

struct CAPABILITY("rwlock") rwlock {
	pthread_rwlock_t l;
};

struct cond {
	pthread_cond_t c;
};

void mutex_init(struct mutex *m);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m) ACQUIRE(m);
void mutex_unlock(struct mutex *m) RELEASE(m);

/* Writers are preferred: a stream of readers never starves the one who must be alone. */
void rwlock_init(struct rwlock *l);
void rwlock_done(struct rwlock *l);
void rwlock_read(struct rwlock *l) ACQUIRE_SHARED(l);
void rwlock_unread(struct rwlock *l) RELEASE_SHARED(l);
void rwlock_write(struct rwlock *l) ACQUIRE(l);
void rwlock_unwrite(struct rwlock *l) RELEASE(l);

void cond_init(struct cond *c);
void cond_done(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m) REQUIRES(m);
void cond_broadcast(struct cond *c);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

#include "base/thread.h"

/* One bounded counter, reached under a mutex by some and a rwlock by others. */
struct shared {
	struct mutex mutex;
	struct cond changed;
	struct rwlock rwlock;
	unsigned turn, rounds;
	unsigned a, b; /* under rwlock: always equal to whoever looks */
	unsigned torn;
};

struct player {
	struct shared *shared;
	unsigned id;
};

/* Two players take turns; a lost wake-up would hang them. */
static void *player_run(void *arg)
{
	struct player *p = arg;
	struct shared *s = p->shared;

	for (int i = 0; i < 500; i++) {
		mutex_lock(&s->mutex);
		while (s->turn != p->id)
			cond_wait(&s->changed, &s->mutex);
		s->turn = !p->id;
		s->rounds++;
		cond_broadcast(&s->changed);
		mutex_unlock(&s->mutex);
	}
	return NULL;
}

static void *writer_run(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 2000; i++) {
		rwlock_write(&s->rwlock);
		s->a++;
		s->b++;
		rwlock_unwrite(&s->rwlock);
		rwlock_read(&s->rwlock);
		if (s->a != s->b)
			__atomic_fetch_add(&s->torn, 1, __ATOMIC_RELAXED);
		rwlock_unread(&s->rwlock);
	}
	return NULL;
}

static void test_mutex_and_cond(void **state)
{
	struct shared s = {0};
	struct player players[2] = {{&s, 0}, {&s, 1}};
	pthread_t threads[2];

	mutex_init(&s.mutex);
	cond_init(&s.changed);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, player_run, &players[i]), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(s.rounds, 1000);
	cond_done(&s.changed);
	mutex_done(&s.mutex);
}

static void test_rwlock(void **state)
{
	struct shared s = {0};
	pthread_t threads[3];

	rwlock_init(&s.rwlock);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, writer_run, &s), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(s.a, 6000);
	assert_int_equal(s.torn, 0);
	rwlock_done(&s.rwlock);
}

static void test_readers_share(void **state) NO_THREAD_SAFETY_ANALYSIS
{
	struct rwlock l;

	rwlock_init(&l);
	rwlock_read(&l);
	assert_int_equal(pthread_rwlock_tryrdlock(&l.l), 0);
	rwlock_unread(&l);
	assert_int_equal(pthread_rwlock_trywrlock(&l.l), EBUSY);
	rwlock_unread(&l);
	rwlock_done(&l);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mutex_and_cond),
		cmocka_unit_test(test_rwlock),
		cmocka_unit_test(test_readers_share),
	};

	return cmocka_run_group_tests_name("base/thread", tests, NULL, NULL);
}

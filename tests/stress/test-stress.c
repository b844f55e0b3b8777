/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Threads do at random what a disk can be asked to do, mostly in the same few clusters, against a
 * model of what the disk may show. Also meant for a build with -Db_sanitize=thread.
 *
 * FUSEIMG_TEST_SECONDS is how long, FUSEIMG_TEST_SEED the first seed, FUSEIMG_TEST_SHAPE the
 * options of the one shape to try. Threads do not repeat themselves, so a seed says what was tried,
 * not what happened.
 */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/format/harness.h"
#include "base/checked.h"
#include "ops.h"
#include "rig.h"

enum {
	STRESS_OPS = 40, /* of each thread, between opening and closing */
	STRESS_ROUNDS = 2,
	STRESS_LONGEST = 200000, /* bytes that most are shorter than */
	STRESS_HOT = 3,
};

struct stress {
	struct rig *rig;
	struct model *model;
	struct image *img;
	uint64_t hot[STRESS_HOT]; /* where most of it happens */
};

struct stress_thread {
	struct stress *stress;
	pthread_t thread;
	unsigned n;
	uint64_t random;
	bool good;
};

static enum op_kind stress_kind(struct stress_thread *t)
{
	static const enum op_kind often[] = {OP_READ,  OP_READ, OP_WRITE, OP_WRITE,   OP_WRITE,
					     OP_WRITE, OP_ZERO, OP_MAP,	  OP_DISCARD, OP_ALLOCATE};
	uint64_t r = random_next(&t->random);

	if (r % 32 == 0)
		return OP_FLUSH;
	if (r % 32 == 1 && t->stress->rig->resizable)
		return OP_RESIZE;
	if (r % 32 < 4 && t->n == 0)
		return OP_IDLE;
	return often[r / 32 % ARRAY_SIZE(often)];
}

/* Around the hot places and, one time in six, anywhere, also past the end. */
static struct op stress_choose(struct stress_thread *t)
{
	struct rig *rig = t->stress->rig;
	uint64_t n = rig->max / rig->grain, r = random_next(&t->random);
	uint64_t most = max_u64(2 * (uint64_t)rig->shape->cluster / rig->grain, 4);
	struct op op = {.kind = stress_kind(t)};
	uint64_t at, len;

	at = r % 6 ? t->stress->hot[r / 6 % STRESS_HOT] : random_next(&t->random) % n;
	at = min_u64(at + random_next(&t->random) % most, n - 1);
	if (random_next(&t->random) % 16)
		most = min_u64(most, STRESS_LONGEST / rig->grain);
	len = min_u64(1 + random_next(&t->random) % most, n - at);
	op.off = at * rig->grain;
	op.len = len * rig->grain;
	if (op.kind == OP_RESIZE) /* half of what it may become at least */
		op.off = (n / 2 + random_next(&t->random) % (n - n / 2 + 1)) * rig->grain;
	return op;
}

static void *stress_main(void *arg)
{
	struct stress_thread *t = arg;

	t->good = true;
	for (int i = 0; t->good && i < STRESS_OPS; i++) {
		struct op op = stress_choose(t);

		t->good = op_run(t->stress->img, t->stress->model, t->n, &op);
	}
	return NULL;
}

static void stress_threads(struct stress *s, unsigned n, uint64_t seed)
{
	struct stress_thread threads[MODEL_THREADS_MAX];

	for (unsigned i = 0; i < n; i++) {
		threads[i] = (struct stress_thread){
			.stress = s, .n = i, .random = seed * MODEL_THREADS_MAX + i};
		assert_int_equal(pthread_create(&threads[i].thread, NULL, stress_main, &threads[i]),
				 0);
	}
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
}

static bool stress_round(struct stress *s, uint64_t seed)
{
	struct image_kept kept = {0};
	uint64_t random = seed;

	for (unsigned i = 0; i < STRESS_HOT; i++)
		s->hot[i] = random_next(&random) % (s->rig->size / s->rig->grain);
	s->rig->table_cache = random_next(&random) % 2; /* the least there is, or the usual */
	s->img = rig_open(s->rig, s->model, random_next(&random) % 2);
	if (!s->img)
		return false;
	if (random_next(&random) % 2)
		image_keep(s->img, &kept);
	stress_threads(s, 2 + (unsigned)(random_next(&random) % 4), seed);
	return rig_close(s->rig, s->model, s->img);
}

static void stress_seed(struct rig *rig, uint64_t seed, bool judged)
{
	struct stress s = {.rig = rig};
	struct model m;
	bool good = true;

	model_init(&m, rig->grain, rig->max);
	s.model = &m;
	rig_copy(rig, &m);
	rig->hook = seed % 3 ? &hook_jitter : NULL;
	rig->direct = seed % 4 == 3;
	for (unsigned i = 0; good && i < STRESS_ROUNDS; i++)
		good = stress_round(&s, seed * STRESS_ROUNDS + i);
	if (!good || m.error[0])
		fail_msg("seed %llu, %s: %s", (unsigned long long)seed, rig_name(rig), m.error);
	if (judged)
		rig_judge(rig, &m);
	model_done(&m);
}

/* As many seeds as the time is enough for, one at least; qemu-img judges the first and the last. */
static uint64_t stress_visit(struct rig *rig, uint64_t seed, double seconds)
{
	double end = rig_now() + seconds;
	uint64_t n = 0;
	bool last;

	do {
		last = rig_now() >= end;
		stress_seed(rig, seed + n, n == 0 || last || n % 64 == 0);
		n++;
	} while (!last);
	return n;
}

/* In a short run each shape once, over some backing image or none; in a long one over all of them.
 */
static void test_stress(void **state)
{
	const char *first = getenv("FUSEIMG_TEST_SEED"), *only = getenv("FUSEIMG_TEST_SHAPE");
	uint64_t seed = first ? strtoull(first, NULL, 10) : 1, all = 0;
	double seconds = rig_seconds(6);
	size_t n = 0, visits;

	if (!harness_have_qemu())
		skip();
	while (rig_shapes[n].options)
		n++;
	visits = seconds > 20 ? n * RIG_BACKINGS : n;
	for (size_t i = 0; i < visits; i++) {
		struct rig rig;
		uint64_t seeds;

		if (only && strcmp(only, rig_shapes[i % n].options) != 0)
			continue;
		rig_make(&rig, &rig_shapes[i % n],
			 (enum rig_backing)((i % n + i / n) % RIG_BACKINGS));
		seeds = stress_visit(&rig, seed + all, seconds / (double)visits);
		print_message("%s: %llu seeds\n", rig_name(&rig), (unsigned long long)seeds);
		all += seeds;
		rig_done(&rig);
	}
	print_message("%llu seeds in all\n", (unsigned long long)all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stress, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

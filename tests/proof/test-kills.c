/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a killed process leaks: not more than a part of what was freed, however much that is, and
 * however seldom anybody flushes. */

#include "judge.h"

#include <errno.h>

#include "base/checked.h"
#include "format/qcow2.h"

enum {
	LIVES = 12,
	CALLS = 600, /* to the host, before a life ends */
};

#define DISK MIB(512)
/* What may wait for a flush on a disk of this size, what the request in hand frees beyond it, and
 * its tables */
#define LEAKED_MOST (MIB(8) + QCOW2_FREE_STEP + MIB(2))

static const struct kind large[] = {
	{"4k", "qemu-img create -q -f qcow2 -o cluster_size=4k img 512M", 0},
	{"64k", "qemu-img create -q -f qcow2 img 512M", 0},
	{"2M", "qemu-img create -q -f qcow2 -o cluster_size=2M img 512M", 0},
	{"subclusters", "qemu-img create -q -f qcow2 -o extended_l2=on img 512M", 0},
};

/* Clusters that the next process takes over. */
static uint64_t spare_clusters(const struct stack *s)
{
	uint64_t n = 0;

	for (size_t i = 0; s->kept.spare.valid && i < s->kept.spare.n; i++)
		n += s->kept.spare.runs[i].n;
	return n;
}

/* Discards and preallocates in turn, until the process dies in the middle of it. */
static int live(struct stack *s, uint64_t *seed)
{
	for (int i = 0;; i++) {
		uint64_t len = MIB(1) << random_next(seed) % 8;
		uint64_t off = round_down(random_next(seed) % (DISK - len), KIB(512));
		int r = i % 4 < 3 ? image_discard(s->img, off, len)
				  : image_allocate(s->img, off, min_u64(len, MIB(16)));

		if (r < 0)
			return r;
	}
}

static void kill_once(struct stack *s, uint64_t *seed)
{
	struct fault_rule dies = {
		.ops = ~0u, .skip = random_next(seed) % CALLS, .error = -EIO, .times = 0};
	struct check check;

	stack_open(s, false);
	assert_int_equal(image_allocate(s->img, 0, DISK), 0);
	assert_int_equal(image_flush(s->img), 0);
	assert_int_equal(store_fault_add(s->disks[0], &dies), 0);
	assert_int_equal(live(s, seed), -EIO);
	store_fault_clear(s->disks[0]);
	atomic_store(&s->kept.lost[0], 0); /* nobody was told: he was dead */
	stack_kill(s);
	stack_check(s, CHECK_ONLY, &check);
	assert_int_equal(check.corruptions, 0);
	assert_true(check.leaks >= spare_clusters(s));
	check.leaks -= spare_clusters(s);
	tally.states++;
	tally.leaks_most = max_u64(tally.leaks_most, check.leaks * check.unit);
	if (check.leaks * check.unit > LEAKED_MOST)
		fail_msg("%s: %llu MiB leaked", s->scene->kind->name,
			 (unsigned long long)(check.leaks * check.unit >> 20));
}

static void test_kills(void **state)
{
	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(large); i++) {
		uint64_t seed = i + 1;
		struct scene scene;
		struct stack s;

		scene_make(&scene, &large[i]);
		for (int n = 0; n < LIVES; n++) {
			stack_start(&s, &scene);
			s.discard = n % 2;
			kill_once(&s, &seed);
			stack_done(&s);
		}
		scene_done(&scene);
	}
	tally_print("kills");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kills, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests_name("proof/kills", tests, NULL, NULL);
}

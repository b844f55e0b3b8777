/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Long lives of images of every kind; the power goes at moments drawn at random, and of what was in
 * flight a part is lost, drawn at random too. */

#include "judge.h"

enum {
	STEPS = 48,
	CUTS = 40,
};

static void live(struct trial *t)
{
	t->work.lives = true;
	for (int i = 0; i < STEPS; i++)
		if (work_step(&t->work) < 0)
			fail_msg("%s: request %d failed", t->stack.where, i);
	trial_verify(t);
	if (t->seed % 2 && work_close(&t->work) < 0)
		fail_msg("%s: closing failed", t->stack.where);
}

static void prove(const struct kind *kind, uint64_t from, uint64_t to)
{
	struct scene scene;

	print_message("%s\n", kind->name);
	scene_make(&scene, kind);
	for (uint64_t seed = from; seed < to; seed++) {
		uint64_t cuts = seed + 1;
		struct trial t;

		trial_start(&t, &scene, seed);
		live(&t);
		for (int i = 0; i < CUTS; i++)
			trial_judge_random(&t, journal_length(t.stack.journal), &cuts);
		trial_judge(&t, journal_length(t.stack.journal), JOURNAL_KEEP, 0);
		trial_done(&t);
	}
	scene_done(&scene);
}

static void test_cuts(void **state)
{
	uint64_t from, to;

	if (!harness_have_qemu())
		skip();
	trial_seeds(5, 40, &from, &to);
	for (size_t i = 0; i < n_kinds; i++)
		if (trial_wants(&kinds[i]))
			prove(&kinds[i], from, to);
	tally_print("cuts");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cuts, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests_name("proof/cuts", tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proof.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sanitizers look for other things, which one life of each kind shows as well as many. */
#if defined(__has_feature)
#define PROOF_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define PROOF_SANITIZED 0
#endif

static const struct proof *running; /* cmocka's tests have no arguments */

bool proof_is_long(void)
{
	return getenv("FUSEIMG_LONG");
}

static void proof_seeds(uint64_t *ret_from, uint64_t *ret_to)
{
	const char *asked = getenv("FUSEIMG_PROOF_SEEDS");
	unsigned long from = 0, to = PROOF_SANITIZED ? 1 : running->quick;

	if (proof_is_long())
		to = running->thorough;
	if (asked && sscanf(asked, "%lu-%lu", &from, &to) != 2)
		fail_msg("FUSEIMG_PROOF_SEEDS=%s: A-B is meant", asked);
	*ret_from = from;
	*ret_to = to;
}

static bool proof_wants(const struct kind *kind)
{
	const char *asked = getenv("FUSEIMG_PROOF_KIND");

	if (kind->flags & running->without)
		return false;
	if (asked)
		return strcmp(asked, kind->name) == 0;
	return kind->flags & KIND_QUICK || proof_is_long() || getenv("FUSEIMG_PROOF_SEEDS");
}

static void proof_one(const struct scene *scene, uint64_t seed)
{
	struct trial t;

	if (running->prove) {
		running->prove(scene, seed);
		return;
	}
	trial_start(&t, scene, seed);
	running->live(&t);
	trial_judge_many(&t, running->cuts);
	trial_done(&t);
}

static void proof_run(void **state)
{
	uint64_t from, to;

	if (!harness_have_qemu())
		skip();
	proof_seeds(&from, &to);
	for (size_t i = 0; i < n_kinds; i++) {
		struct scene scene;

		if (!proof_wants(&kinds[i]))
			continue;
		print_message("%s\n", kinds[i].name);
		scene_make(&scene, &kinds[i]);
		for (uint64_t seed = from; seed < to; seed++)
			proof_one(&scene, seed);
		scene_done(&scene);
	}
	tally_print(running->name);
	if (running->end)
		running->end();
}

int proof_main(const struct proof *proof)
{
	const struct CMUnitTest tests[] = {{
		.name = proof->name,
		.test_func = proof_run,
		.setup_func = harness_setup,
		.teardown_func = harness_teardown,
	}};

	running = proof;
	return cmocka_run_group_tests_name("proof", tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Disks that become larger and smaller. A few other requests lie between; the power goes at every
 * moment of a change of size, and soon after it. What is lost of what was in flight is drawn. */

#include "proof.h"

#include "base/checked.h"

enum {
	CHANGES = 6,
	BETWEEN = 3,  /* other requests */
	BEHIND = 6,   /* records after a change */
	OUTCOMES = 6, /* of each moment */
};

static void step(struct trial *t, int (*request)(struct work *w))
{
	int r = request(&t->work);

	/* A small device may be full of tables */
	if (r < 0)
		fail_msg("%s: a request failed with %d", t->stack.where, r);
}

static void judge_moment(struct trial *t, size_t k, uint64_t *draws)
{
	trial_judge(t, k, JOURNAL_LOSE, 0);
	for (int i = 1; i < OUTCOMES; i++)
		trial_judge(t, k, i % 2 ? JOURNAL_DROP : JOURNAL_TORN, random_next(draws));
}

static void prove(const struct scene *scene, uint64_t seed)
{
	size_t from[CHANGES], to[CHANGES], done = 0;
	uint64_t draws = seed;
	struct journal *j;
	struct trial t;

	trial_start(&t, scene, seed);
	j = t.stack.journal;
	for (int i = 0; i < CHANGES; i++) {
		for (int k = 0; k < BETWEEN; k++)
			step(&t, work_step);
		from[i] = journal_length(j);
		step(&t, work_resize);
		to[i] = journal_length(j);
	}
	step(&t, work_step);
	trial_verify(&t);
	for (int i = 0; i < CHANGES; i++) {
		size_t end = min_u64(to[i] + BEHIND, journal_length(j));

		for (size_t k = max_u64(from[i], done); k <= end; k++)
			judge_moment(&t, k, &draws);
		done = end + 1;
	}
	trial_done(&t);
}

int main(void)
{
	static const struct proof proof = {
		.name = "sizes",
		.quick = 2,
		.thorough = 30,
		.without = KIND_FIXED_SIZE,
		.prove = prove,
	};

	return proof_main(&proof);
}

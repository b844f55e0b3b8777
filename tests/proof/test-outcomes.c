/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Short lives with small requests, and nothing left to chance: each outcome that a power cut can
 * have, sector by sector. Only moments where most is in flight are looked at, before a flush begins
 * and while a durable write is under way: what can be left at any other moment can be left there,
 * too. Where the outcomes are too many, some are drawn.
 */

#include "proof.h"

enum { STEPS = 5 };

static void judge_moment(struct trial *t, size_t k, uint64_t *draws)
{
	uint64_t most = proof_is_long() ? 1024 : 128, n = stack_outcomes(&t->stack, k);

	tally.windows++;
	tally.whole += n <= most;
	for (uint64_t i = 0; i < n && n <= most; i++)
		trial_judge(t, k, JOURNAL_NTH, i);
	for (uint64_t i = 0; i < most / 8 && n > most; i++)
		trial_judge(t, k, i % 2 ? JOURNAL_TORN : JOURNAL_DROP, random_next(draws));
}

static void judge_all(struct trial *t)
{
	struct journal *j = t->stack.journal;
	uint64_t draws = t->seed;

	for (size_t i = 0; i < journal_length(j); i++) {
		const struct journal_record *rec = journal_at(j, i);

		if (rec->kind == JOURNAL_FLUSH)
			judge_moment(t, i, &draws);
		else if (rec->durable)
			judge_moment(t, i + 1, &draws);
	}
	judge_moment(t, journal_length(j), &draws);
}

static void live(struct trial *t)
{
	t->work.lives = true;
	t->work.small = true;
	for (int i = 0; i < STEPS; i++)
		if (work_step(&t->work) < 0)
			fail_msg("%s: request %d failed", t->stack.where, i);
	trial_verify(t);
}

static void prove(const struct scene *scene, uint64_t seed)
{
	struct trial t;

	trial_start(&t, scene, seed);
	live(&t);
	judge_all(&t);
	trial_done(&t);
}

static void end(void)
{
	assert_true(tally.whole > tally.windows / 2);
}

int main(void)
{
	static const struct proof proof = {
		.name = "outcomes",
		.quick = 4,
		.thorough = 10,
		.prove = prove,
		.end = end,
	};

	return proof_main(&proof);
}

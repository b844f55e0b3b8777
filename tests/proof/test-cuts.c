/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Long lives of images of every kind; the power goes at moments drawn at random, and of what was in
 * flight a part is lost, drawn at random too. */

#include "proof.h"

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

int main(void)
{
	static const struct proof proof = {
		.name = "cuts",
		.quick = 5,
		.thorough = 40,
		.live = live,
		.cuts = CUTS,
	};

	return proof_main(&proof);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/crashes.h"

#include <assert.h>

/* Enters a death that counts; true when the window holds too many. */
static bool crashes_too_many(struct crashes *c, uint64_t now_us)
{
	uint64_t oldest = c->recent[c->next];
	bool full = c->n_recent == CRASHES_MAX;

	c->recent[c->next] = now_us;
	c->next = (c->next + 1) % CRASHES_MAX;
	if (!full)
		c->n_recent++;
	return full && now_us - oldest <= (uint64_t)CRASHES_WINDOW_S * 1000000;
}

struct crashes_verdict crashes_note(struct crashes *c, uint64_t now_us, bool killed,
				    const uint64_t *held, unsigned n, unsigned suspect)
{
	struct crashes_verdict verdict = {0};
	bool repeated = false;

	assert(n <= SLOTS_MAX);
	for (unsigned i = 0; i < n; i++) {
		if (held[i] == 0 || c->held[i].unique != held[i])
			c->held[i].blame = 0;
		else
			repeated = true;
		c->held[i].unique = held[i];
		if (held[i] == 0)
			continue;
		if (suspect == n || suspect == i)
			c->held[i].blame += killed ? CRASHES_BLAME_KILL : CRASHES_BLAME_CRASH;
		if (c->held[i].blame >= CRASHES_POISON)
			verdict.poison |= UINT64_C(1) << i;
		else if (c->held[i].blame >= CRASHES_CAREFUL)
			verdict.careful = true;
	}
	/* A request that takes down one worker after the other will soon be given up: its second
	 * and third death say nothing new about the image. */
	if (!killed && !repeated)
		verdict.give_up = crashes_too_many(c, now_us);
	return verdict;
}

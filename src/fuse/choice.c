/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/choice.h"

#include <assert.h>

#include "base/checked.h"

void choice_init(struct choice *c, unsigned n, const uint8_t *handicap)
{
	assert(n > 0 && n <= CHOICE_MAX);
	*c = (struct choice){.handicap = handicap, .n = n};
}

/* The best from now on, and for how long. */
static void choice_settle(struct choice *c, unsigned best)
{
	c->stay = best == c->best ? (unsigned)min_u64(2 * c->stay + 1, CHOICE_STAY) : 1;
	c->left = c->stay;
	c->way = c->best = best;
	c->tried = 0;
}

static uint64_t choice_score(const struct choice *c, unsigned way)
{
	unsigned edge = way == c->best ? CHOICE_EDGE : 0;

	return c->rate[way] * (100 + edge) / (100 + c->handicap[way]);
}

static void choice_compare(struct choice *c)
{
	unsigned best = c->best;

	for (unsigned way = 0; way < c->n; way++)
		if (choice_score(c, way) > choice_score(c, best))
			best = way;
	choice_settle(c, best);
}

void choice_judge(struct choice *c, uint64_t rate)
{
	c->rate[c->way] = rate;
	if (c->left > 0) {
		c->left--;
		return;
	}
	if (++c->tried < c->n)
		c->way = (c->best + c->tried) % c->n;
	else
		choice_compare(c);
}

void choice_fail(struct choice *c)
{
	if (c->way != c->best)
		choice_judge(c, 0);
	else
		choice_settle(c, 0);
}

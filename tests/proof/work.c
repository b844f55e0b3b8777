/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "work.h"

#include <errno.h>

#include "base/checked.h"

enum { WORK_MOST = 60000 };

static uint64_t work_random(struct work *w, uint64_t n)
{
	return random_next(&w->seed) % n;
}

/* Of one thread among several: inside a stripe of its own. */
static uint64_t work_striped(struct work *w, size_t *ret_len)
{
	uint64_t area = min_u64(image_size(w->stack->img), WORK_AREA);
	uint64_t row = work_random(w, area / (w->stripe * w->n_threads));
	uint64_t off = (row * w->n_threads + w->thread) * w->stripe;
	uint64_t skip = work_random(w, 2) ? 0 : work_random(w, w->stripe - 1);
	uint64_t most = min_u64(w->stripe - skip, WORK_MOST);

	*ret_len = work_random(w, 2) ? most : work_random(w, most) + 1;
	return off + skip;
}

/* A place for a request. Whole clusters are often hit exactly. */
static uint64_t work_place(struct work *w, size_t *ret_len)
{
	uint64_t area = min_u64(image_size(w->stack->img), WORK_AREA), unit = w->stack->img->unit;
	uint64_t off, len;

	if (w->n_threads > 1)
		return work_striped(w, ret_len);
	if (w->small) {
		*ret_len = GUEST_SECTOR * (work_random(w, 2) + 1);
		/* Two neighbouring clusters, and one far away */
		off = work_random(w, 3) ? work_random(w, 8) * unit / 4 : area - 4 * GUEST_SECTOR;
		return round_down(min_u64(off, area - *ret_len), GUEST_SECTOR);
	}
	switch (work_random(w, 4)) {
	case 0:
		len = GUEST_SECTOR * (work_random(w, 3) + 1);
		off = round_down(work_random(w, area - len), GUEST_SECTOR);
		break;
	case 1:
		len = work_random(w, 3000) + 1;
		off = work_random(w, area - len);
		break;
	case 2:
		len = unit * (work_random(w, 3) + 1);
		off = round_down(work_random(w, area), unit);
		break;
	default:
		len = work_random(w, WORK_MOST) + 1;
		off = work_random(w, area);
	}
	*ret_len = (size_t)min_u64(min_u64(len, WORK_MOST), area - off);
	return off;
}

/* What a request that failed has left is what it is. */
static int work_answer(struct work *w, size_t len, uint64_t off, int r)
{
	guest_answer(w->guest, len, off, r);
	if (r < 0)
		guest_observe(w->guest, w->stack->img);
	return r;
}

static int work_write(struct work *w)
{
	char buf[WORK_MOST];
	size_t len;
	uint64_t off = work_place(w, &len);

	pattern(buf, len, off, w->seed);
	guest_ask_write(w->guest, buf, len, off);
	return work_answer(w, len, off, image_write(w->stack->img, buf, len, off));
}

static int work_zero(struct work *w)
{
	size_t len;
	uint64_t off = work_place(w, &len);

	guest_ask_write(w->guest, NULL, len, off);
	return work_answer(w, len, off, image_zero(w->stack->img, off, len));
}

static int work_discard(struct work *w)
{
	size_t len;
	uint64_t off = work_place(w, &len);

	guest_ask_write(w->guest, NULL, len, off);
	return work_answer(w, len, off, image_discard(w->stack->img, off, len));
}

/* Changes nothing that can be seen. */
static int work_allocate(struct work *w)
{
	size_t len;
	uint64_t off = work_place(w, &len);

	return image_allocate(w->stack->img, off, len);
}

int work_resize(struct work *w)
{
	uint64_t size = WORK_AREA / 4 + work_random(w, WORK_AREA * 3 / 4);
	struct diag diag = {0};
	int r;

	if (w->n_threads > 1 || w->stack->scene->kind->flags & KIND_FIXED_SIZE)
		return work_write(w);
	if (work_random(w, 2) && size > 2 * w->stack->img->unit)
		size = round_down(size, w->stack->img->unit);
	guest_ask_resize(w->guest, size);
	r = image_resize(w->stack->img, size, &diag);
	guest_answer_resize(w->guest, r);
	if (r < 0)
		guest_observe(w->guest, w->stack->img);
	/* Version 2 cannot hide what a backing image has behind the end */
	return r == -EOPNOTSUPP ? 0 : r;
}

int work_flush(struct work *w)
{
	size_t asked = guest_ask_flush(w->guest);
	int r = image_flush(w->stack->img);

	if (r == 0)
		guest_flushed(w->guest, asked);
	return r;
}

int work_close(struct work *w)
{
	size_t asked = guest_ask_flush(w->guest);
	int r = stack_close(w->stack);

	if (r == 0)
		guest_flushed(w->guest, asked);
	return r;
}

static int work_live_again(struct work *w)
{
	struct diag diag = {0};
	int r = 0, r2;

	if (!w->lives || w->n_threads > 1)
		return work_write(w);
	/* A small device would soon be full of what the killed had reserved */
	if (work_random(w, 2) || w->stack->scene->kind->flags & KIND_DEVICE) {
		r = work_close(w);
	} else {
		w->kills++;
		stack_kill(w->stack);
	}
	r2 = stack_try_open(w->stack, false, &diag);
	if (r2 < 0 && stack_try_open(w->stack, false, &diag) < 0)
		fail_msg("%s: opened again: %s", w->stack->where, diag.text);
	return r < 0 ? r : r2;
}

/* Nothing much happens for some seconds. Changes nothing that can be seen. */
static int work_idle(struct work *w)
{
	int r;

	/* So often that each time more is reserved, which a small device has no room for */
	if (w->stack->scene->kind->flags & KIND_DEVICE)
		return work_write(w);
	r = image_idle(w->stack->img);
	return r < 0 ? r : image_idle(w->stack->img);
}

int work_step(struct work *w)
{
	static const struct {
		unsigned share; /* of 100 */
		int (*step)(struct work *w);
	} steps[] = {
		{45, work_write}, {12, work_zero},  {12, work_discard}, {3, work_allocate},
		{3, work_idle},	  {7, work_resize}, {13, work_flush},	{5, work_live_again},
	};
	uint64_t draw = work_random(w, 100);

	for (size_t i = 0; i < ARRAY_SIZE(steps) - 1; i++) {
		if (draw < steps[i].share)
			return steps[i].step(w);
		draw -= steps[i].share;
	}
	return work_live_again(w);
}

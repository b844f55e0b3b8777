/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/activity.h"

#include <stddef.h>

static _Thread_local _Atomic uint32_t *activity_counter;

void activity_watch(_Atomic uint32_t *counter)
{
	activity_counter = counter;
}

/* Only this thread writes the counter, so this need not be a locked instruction. */
static void activity_step(uint32_t v)
{
	atomic_store_explicit(activity_counter, v + 1, memory_order_relaxed);
}

bool activity_begin(void)
{
	uint32_t v;

	if (!activity_counter)
		return false;
	v = atomic_load_explicit(activity_counter, memory_order_relaxed);
	if (v % 2)
		return false;
	activity_step(v);
	return true;
}

void activity_end(bool *begun)
{
	if (*begun)
		activity_step(atomic_load_explicit(activity_counter, memory_order_relaxed));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_INFLIGHT_H
#define FUSEIMG_INFLIGHT_H

/*
 * Ranges whose first write is under way. Two first writes to one allocation unit must not both
 * allocate it, and the second must see what the first has published; writes to different units run
 * side by side. A range lives on the stack of its writer.
 */

#include <stdint.h>

#include "base/thread.h"

struct inflight_range {
	uint64_t start, end;
	struct inflight_range *next;
};

struct inflight {
	struct mutex lock;
	struct cond gone;
	struct inflight_range *ranges GUARDED_BY(lock);
};

void inflight_init(struct inflight *f);
void inflight_done(struct inflight *f);

/* Waits until nothing in flight overlaps [start, end), then enters it. */
void inflight_enter(struct inflight *f, struct inflight_range *r, uint64_t start, uint64_t end);
void inflight_leave(struct inflight *f, struct inflight_range *r);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_WORK_H
#define FUSEIMG_PROOF_WORK_H

/* What a client does with a disk: anything, at random, and the model is told. */

#include "guest.h"
#include "stack.h"

enum {
	WORK_AREA = KIND_SIZE + (3 << 19), /* the disk grows up to here, past an L1 table of 512 */
};

struct work {
	struct stack *stack;
	struct guest *guest;
	uint64_t seed;
	bool small;		    /* requests of one or two sectors, at few places */
	bool lives;		    /* the image is closed and opened again, or killed */
	unsigned thread, n_threads; /* with more than one, each has stripes of its own */
	uint64_t stripe;	    /* bytes, whole sectors */
	unsigned kills;
};

/* One request. Returns its result; after a failure the model knows what is there now. */
int work_step(struct work *w);
/* Another size of the disk, where that can be; else a write. */
int work_resize(struct work *w);
int work_flush(struct work *w);
int work_close(struct work *w);

#endif

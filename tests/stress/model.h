/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STRESS_MODEL_H
#define FUSEIMG_STRESS_MODEL_H

/*
 * What a disk may hold while several threads change it.
 *
 * The disk is cut into grains (of any length, so that they share sectors and clusters). Each has
 * the list of changes that it may still show: a change is possible from its start on, and no more
 * once another one, which was started after its end, has ended. A read may show any byte from
 * any change that was possible at some moment between its start and its end: overlapping changes
 * have no order, and may be torn. What the disk shows when all is quiet is thereby exact but for
 * grains that several threads changed at once.
 *
 * Callers say what they are about to do and what came of it; both are moments of one clock. Threads
 * count from 0, each does one thing at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/thread.h"

enum {
	MODEL_THREADS_MAX = 8,
	MODEL_CHANGES_MAX = 28, /* per grain, those included that only a slow reader may show */
};

enum model_kind {
	MODEL_READ,
	MODEL_WRITE, /* all or, where it leaves the disk, nothing */
	MODEL_ZERO,  /* in parts: one that leaves the disk may have done some */
	MODEL_KEEP,  /* changes no byte: allocations */
	MODEL_RESIZE,
};

struct model_change {
	uint32_t version;
	uint64_t start, end; /* end 0: under way */
	uint64_t dead;	     /* 0: may be seen; else not by reads that start later */
};

struct model_grain {
	unsigned n;
	uint64_t forgot; /* reads that started before may see what this list has no more */
	struct model_change changes[MODEL_CHANGES_MAX];
};

/* One thing that a thread does. */
struct model_op {
	enum model_kind kind;
	uint64_t off, len;
	uint32_t version; /* WRITE: what model_fill() makes of it */
	uint64_t start;
	uint64_t size_low, size_high; /* of the disk, meanwhile */
};

struct model {
	struct mutex lock;
	uint32_t grain;
	uint64_t max;	/* the disk never grows past this; a multiple of grain */
	uint64_t n;	/* grains */
	uint8_t *first; /* max bytes: version 0 */
	struct model_grain *grains GUARDED_BY(lock);
	struct model_op *active[MODEL_THREADS_MAX] GUARDED_BY(lock);
	uint64_t clock GUARDED_BY(lock);
	uint32_t version GUARDED_BY(lock);
	uint64_t size GUARDED_BY(lock);	     /* of the disk */
	uint64_t size_next GUARDED_BY(lock); /* what it is about to become */
	char error[256] GUARDED_BY(lock);    /* the first thing that was wrong */
	struct mutex resizing;		     /* by one thread at a time */
};

/* size bytes of content stand at first; those up to max are zeroes. */
void model_init(struct model *m, uint32_t grain, uint64_t max);
void model_done(struct model *m);
/* Nobody does anything: the disk has these bytes and no others. */
void model_set(struct model *m, const void *content, uint64_t size);

/* off and len are multiples of the grain. RESIZE: off is the new size. */
void model_begin(struct model *m, unsigned thread, struct model_op *op, enum model_kind kind,
		 uint64_t off, uint64_t len);
/* result: 0 or a negative errno. False where that was not to be, with the sentence in m->error. */
bool model_end(struct model *m, unsigned thread, struct model_op *op, int result);
/* READ, instead of model_end(): what was read. */
bool model_end_read(struct model *m, unsigned thread, struct model_op *op, int result,
		    const uint8_t *bytes);
/* READ, instead of model_end(): the range is said to read as zeroes. */
bool model_end_zero(struct model *m, unsigned thread, struct model_op *op);

/* The bytes of a WRITE. */
void model_fill(const struct model_op *op, uint8_t *buf);

/* Keeps the first sentence; false. */
bool model_wrong(struct model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

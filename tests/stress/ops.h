/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STRESS_OPS_H
#define FUSEIMG_STRESS_OPS_H

/* What can be done to a disk, done to an image and told to the model. */

#include "image/image.h"
#include "model.h"

enum op_kind {
	OP_READ,
	OP_WRITE,
	OP_ZERO,
	OP_DISCARD,
	OP_ALLOCATE,
	OP_MAP,
	OP_FLUSH,
	OP_RESIZE,
	OP_IDLE, /* twice, so that it is likely to find something unused; by one thread only */
};

extern const char *const op_names[];

/* Multiples of the model's grain; RESIZE: off is the new size. */
struct op {
	enum op_kind kind;
	uint64_t off, len;
};

/* False where the model says no; the sentence is the model's. */
bool op_run(struct image *img, struct model *m, unsigned thread, const struct op *op);

/* Reads all of the disk, alone; returns the bytes (m->max of them, for the caller to free), which
 * are what the model has from then on, or NULL. */
uint8_t *op_read_all(struct image *img, struct model *m);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STRESS_RIG_H
#define FUSEIMG_STRESS_RIG_H

/*
 * An image on a host's file with something in it, made by QEMU's tools; copies of it to be
 * changed, and the judgement of what became of one. All files are in the working directory.
 */

#include "hook.h"
#include "image/image.h"
#include "model.h"

enum rig_backing { RIG_ALONE, RIG_OVER_SHORTER, RIG_OVER_RAW, RIG_OVER_LONGER };
enum { RIG_BACKINGS = RIG_OVER_LONGER + 1 };

struct rig_shape {
	const char *options; /* of qemu-img create */
	uint32_t cluster;
	bool snapshot, compress, data_file, version2;
};

extern const struct rig_shape rig_shapes[]; /* options NULL behind the last */

struct rig {
	struct image_opener opener;
	const struct rig_shape *shape;
	enum rig_backing backing;
	bool resizable;
	uint32_t grain;
	uint64_t size, max; /* multiples of grain; max: that it may grow to */
	char *flat;	    /* what the disk reads as */
	char *flat_snapshot;
	struct hook *hook; /* what image files are opened with; NULL: none */
	uint64_t table_cache;
	bool direct; /* they are opened with O_DIRECT, where that can be */
};

/* The working directory is a new one in memory, where there is such. For cmocka. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* Makes the template. A failure fails the test. */
void rig_make(struct rig *rig, const struct rig_shape *shape, enum rig_backing backing);
void rig_done(struct rig *rig);
/* "512-byte clusters over a shorter image", say. */
const char *rig_name(const struct rig *rig);

/* A copy of the template is "img" now, and the model has what is in it. */
void rig_copy(const struct rig *rig, struct model *m);
/* "img", for writing. NULL: the model has the sentence. */
struct image *rig_open(struct rig *rig, struct model *m, bool discard);
/* Reads all, closes the image, checks it, opens it again and compares: disk and snapshot. False:
 * the model has the sentence. */
bool rig_close(struct rig *rig, struct model *m, struct image *img);
/* What qemu-img finds in "img", and whether it reads the same. Fails the test. */
void rig_judge(const struct rig *rig, struct model *m);

/* Seconds to go on for: from the environment, else as many as are given. */
double rig_seconds(double quick);
double rig_now(void);

#endif

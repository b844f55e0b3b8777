/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_STACK_H
#define FUSEIMG_PROOF_STACK_H

/*
 * An image with all its files, in memory, such that the power can be cut and calls can fail:
 *
 *	image (image/, format/)
 *	  lent     closed and opened again with the image
 *	  fault    fails on demand
 *	  journal  what a power cut leaves
 *	  memory
 *
 * A scene is made once by QEMU's tools, a stack is one life of a copy of it.
 */

#include "harness.h"

#include "image/image.h"
#include "store/fault.h"
#include "store/journal.h"

enum {
	SCENE_FILES = 4, /* img, img.data, base, base2 */
	SCENE_DISKS = 2, /* of these the first can be written: one power supply for both */
};

enum { KIND_SIZE = 1050112 }; /* of the disk, if it has no other */

enum kind_flags {
	KIND_FIXED_SIZE = 1 << 0, /* the disk cannot have another size */
	KIND_DEVICE = 1 << 1,	  /* on a block device that is full of what was there before */
	KIND_DIRTY = 1 << 2,	  /* refcounts may be stale until it is opened for writing */
	KIND_BITMAP = 1 << 3,	  /* with a persistent bitmap */
	KIND_QUICK = 1 << 4,	  /* among those that are always tried */
};

/* An image that is to be proved safe. */
struct kind {
	const char *name;
	const char *make; /* shell: img and the files that it names */
	unsigned flags;
};

extern const struct kind kinds[];
extern const size_t n_kinds;

struct scene {
	const struct kind *kind;
	struct store *files[SCENE_FILES]; /* NULL: not there */
};

/* In the working directory. */
void scene_make(struct scene *scene, const struct kind *kind);
void scene_done(struct scene *scene);

struct stack {
	struct image_opener opener; /* first, see stack_opener() */
	const struct scene *scene;
	struct journal *journal;	  /* NULL: nothing is recorded */
	struct store *disks[SCENE_DISKS]; /* what the image is given; NULL: not there */
	struct image *img;
	struct image_kept kept; /* outlives the image when that is killed, not a power cut */
	bool killed;		/* and was not closed in order since */
	bool discard;
	char where[400]; /* which this is, for messages */
	char found[200]; /* stack_check(): the first corruption */
};

/* A copy of the scene's disks, recorded. */
void stack_start(struct stack *s, const struct scene *scene);
/* What a power cut leaves; see journal_cut(). after is not recorded. */
void stack_cut(struct stack *s, size_t k, enum journal_loss loss, uint64_t seed,
	       struct stack *after);
/* How many outcomes JOURNAL_NTH has. */
uint64_t stack_outcomes(struct stack *s, size_t k);
/* Records from now on. */
void stack_record(struct stack *s);
void stack_done(struct stack *s);

/* 0 or image_open()'s error and sentence. */
int stack_try_open(struct stack *s, bool read_only, struct diag *diag);
void stack_open(struct stack *s, bool read_only);
/* Has a flush failed since it was opened? */
bool stack_lost(struct stack *s);
/* image_close()'s result. */
int stack_close(struct stack *s);
/* The image is gone, as by SIGKILL: what the host was given stays. */
void stack_kill(struct stack *s);

/* Of the image's tables; fails where the check cannot run to its end. */
void stack_check(struct stack *s, enum check_repair repair, struct check *ret);
/* Writes the disks to files of these names: after, img.data. */
void stack_dump(struct stack *s);
/* The same with the guest's disk, while it is open, as far as QEMU sees it: guest. */
void stack_dump_guest(struct stack *s);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_JUDGE_H
#define FUSEIMG_PROOF_JUDGE_H

/*
 * What must hold after any power cut:
 *
 *   - fuseimg's own check finds no corruption, and no more leaks than may be
 *   - the image opens for writing, and the guest's disk is what the guest may ask for
 *   - a bitmap that claims to be right is
 *   - work goes on: afterwards, closed in order, there is still no corruption and not one leak more
 *   - some are also judged by QEMU, which sees the same disk; some are cut again while at work
 */

#include "guest.h"
#include "stack.h"
#include "work.h"

/* One life of an image, recorded, from which states are cut. */
struct trial {
	struct stack stack;
	struct guest guest;
	struct work work;
	const char *name;
	uint64_t seed;
	unsigned depth; /* of how many cuts before this one */
};

/* What was looked at, by all trials. */
struct tally {
	unsigned long trials, states, continued, cut_again, by_qemu, windows, whole;
	unsigned long long leaks_most; /* bytes */
};
extern struct tally tally;
void tally_print(const char *what);

/* A copy of the scene, opened. */
void trial_start(struct trial *t, const struct scene *scene, uint64_t seed);
/* ... not opened yet. */
void trial_prepare(struct trial *t, const struct scene *scene, uint64_t seed);
/* Closes it in order where it is open. */
void trial_done(struct trial *t);

/* The disk is what it has to be now, flushed or not. */
void trial_verify(struct trial *t);

/* Judges the state that a cut after k records leaves. */
void trial_judge(struct trial *t, size_t k, enum journal_loss loss, uint64_t seed);
/* A cut at random in the first n records, one in two where most is in flight. */
void trial_judge_random(struct trial *t, size_t n, uint64_t *seed);
/* So many of these in all of the life, and its end as it is. */
void trial_judge_many(struct trial *t, unsigned cuts);
/* Its disks as they are, the image closed: no corruption, the disk is right, and work goes on. */
void trial_judge_now(struct trial *t);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_PROOF_H
#define FUSEIMG_PROOF_PROOF_H

/*
 * A proof is a program: some lives of each kind of image. FUSEIMG_LONG in the environment asks for
 * its long form. FUSEIMG_PROOF_KIND=NAME takes one kind alone, FUSEIMG_PROOF_SEEDS=A-B these seeds
 * [A, B) of all kinds.
 */

#include "judge.h"

struct proof {
	const char *name;
	unsigned quick, thorough; /* seeds of each kind; quick: one under sanitizers */
	unsigned without;	  /* kinds that have one of these flags are of no use */
	void (*prove)(const struct scene *scene, uint64_t seed);
	/* ... or, without `prove`, a life, and so many cuts at random */
	void (*live)(struct trial *t);
	unsigned cuts;
	void (*end)(void); /* after all; or NULL */
};

/* main() returns it. */
int proof_main(const struct proof *proof);
/* Is this the long form? */
bool proof_is_long(void);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_RUN_H
#define FUSEIMG_RUN_H

/* Other programs, run to their end, and the words that they are given. */

#include <stddef.h>

#include "base/diag.h"

enum {
	RUN_WORDS_MAX = 24,
};

/* A command line; zeroed at first. The words are not copied. */
struct run {
	const char *words[RUN_WORDS_MAX + 1];
	size_t n;
};

void run_add(struct run *r, const char *word);

/* Its exit status; 128 and more: a signal. -errno with a sentence where it could not be started.
 * The program is searched for in the usual directories, whatever PATH says. */
int run_wait(struct run *r, struct diag *diag);

#endif

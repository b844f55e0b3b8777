/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FAULT_H
#define FUSEIMG_FAULT_H

/*
 * For tests: a store in front of another one that fails on demand, and counts. Not shipped
 * (store_test in meson).
 *
 *	struct fault_rule rule = {.ops = FAULT_WRITE, .skip = 3, .times = 1, .error = -ENOSPC};
 *
 *	store_fault_new(memory, &s);
 *	store_fault_add(s, &rule);		the fourth write fails, the fifth does not
 */

#include "store/store.h"

enum fault_op {
	FAULT_READ = 1 << 0,
	FAULT_WRITE = 1 << 1,
	FAULT_FLUSH = 1 << 2,
	FAULT_DISCARD = 1 << 3,
	FAULT_ZERO = 1 << 4,
	FAULT_ALLOCATE = 1 << 5,
	FAULT_RESIZE = 1 << 6,
	FAULT_MAP = 1 << 7,
	FAULT_STAT = 1 << 8, /* also the wrapper's own questions for the size */
};

/*
 * Which calls fail, and how. A call that several rules match counts in each, and fails by the first
 * that is due.
 */
struct fault_rule {
	unsigned ops;	   /* enum fault_op, or-ed */
	uint64_t off, len; /* only calls that touch this range; len 0: every call. Flush and stat
			      touch nothing; a resize touches what lies between the sizes */
	uint64_t skip;	   /* this many matching calls still succeed */
	uint64_t times;	   /* then this many fail; 0: all that follow */
	int error;	   /* negative errno */
	bool half;  /* the first half of the range is done, up to a boundary of sectors, then it
		       fails (not flush, resize, ...) */
	bool whole; /* all of it is done, and it fails nevertheless (likewise) */
};

enum { FAULT_RULES_MAX = 16 };

/* Takes over inner, also on failure. */
int store_fault_new(struct store *inner, struct store **ret);

/* -ENOSPC when FAULT_RULES_MAX rules are there. May be called while other threads use the store. */
int store_fault_add(struct store *s, const struct fault_rule *rule);
void store_fault_clear(struct store *s);

/* Calls of these kinds so far, and how many of all calls were made to fail. */
uint64_t store_fault_calls(struct store *s, unsigned ops);
uint64_t store_fault_failures(struct store *s);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_ACTIVITY_H
#define FUSEIMG_ACTIVITY_H

/*
 * Is this thread in the hands of the host's disk? A thread that is watched has a counter in memory
 * that others can see: odd while it is in a call to the host that may take long, even while it
 * runs code of ours, and another number whenever it has got on. So who looks from outside can tell
 * a disk that hangs from a program that does.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

/* Watches the calling thread by this counter, which must be even; NULL ends that. */
void activity_watch(_Atomic uint32_t *counter);

/* Around a call to the host; nested ones count as one. */
bool activity_begin(void);
void activity_end(bool *begun);

/* From here to the end of the scope this thread may wait for the host. */
#define ACTIVITY_HOST                                                                              \
	_cleanup_(activity_end) __attribute__((unused)) bool activity_ = activity_begin()

#endif

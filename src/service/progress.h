/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROGRESS_H
#define FUSEIMG_PROGRESS_H

/*
 * Does it go on? For a step that may take long (opening an image that needs a repair, writing
 * everything back to a slow disk, waiting for users) and of which nobody can say how long.
 * What counts: requests that were answered, the worker's processor time, and what the disk of the
 * image has written. Where none of these moves, nothing does, as far as can be seen.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct progress {
	uint64_t requests, ticks, sectors;
	uint64_t moved_us; /* when any of them was last seen to change */
};

struct progress_sample {
	uint64_t requests, ticks, sectors;
};

/* What can be seen now: of the process (0: none) and of the disk that holds the file fd (-1: none).
 * What cannot be seen is 0. Reads /proc and /sys only, and asks fd for nothing but what the kernel
 * has in memory. */
void progress_sample(pid_t pid, int fd, struct progress_sample *ret);

/* Enters a sample; true when something has moved in the last patience_us. */
bool progress_note(struct progress *p, const struct progress_sample *sample, uint64_t now_us,
		   uint64_t patience_us);

#endif

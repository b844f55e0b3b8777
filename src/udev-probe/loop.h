/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOOP_H
#define FUSEIMG_LOOP_H

/* Loop devices over exports: whose, and of which partition. */

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum {
	LOOP_TEXT_MAX = 4 * NAME_MAX + 64,
};

/* "export NAME" or "export NAME part1" for a loop device (or a partition of one) over a file of an
 * export of the system, one in /run/fuseimg. */
bool loop_describe(dev_t device, char dst[LOOP_TEXT_MAX]);

/* The same from the path of its file. */
bool loop_describe_file(const char *path, char dst[LOOP_TEXT_MAX]);

#endif

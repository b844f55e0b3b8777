/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOOPS_H
#define FUSEIMG_LOOPS_H

/* Loop devices over the files of an export. /sys is asked, no file of the export is touched. */

#include <stdbool.h>
#include <stddef.h>

struct loops {
	char **names; /* "loop0" */
	size_t n;
};

/* target: of the export. What cannot be read is missing. */
void loops_find(const char *target, struct loops *ret);
void loops_done(struct loops *l);

/* Is source ("/dev/loop0p1", as the mount table has it) the loop device of this name, or a
 * partition of it? */
bool loops_is_device(const char *source, const char *name);

/* Is path at or below dir? */
bool loops_path_inside(const char *path, const char *dir);

#endif

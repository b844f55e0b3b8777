/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_BUSY_H
#define FUSEIMG_BUSY_H

/*
 * Who keeps an export in use: loop devices on top of it and where those are mounted, mounts inside
 * it, processes with open files or a working directory there. Found in /sys and /proc alone: no
 * file of the export is touched, so this may run while nobody serves it. What other users'
 * processes do is only visible to root.
 */

#include <stddef.h>

/* Writes "/dev/loop0 (mounted on /mnt), fio (pid 17)" to buf; "" when nobody was found. Returns how
 * many were found; those for whom the room is too short appear as "and N more". */
unsigned busy_describe(const char *target, char *buf, size_t size);

/* The same without processes: what takes little time and waits for nobody. */
unsigned busy_describe_devices(const char *target, char *buf, size_t size);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_UNIT_NAME_H
#define FUSEIMG_UNIT_NAME_H

/*
 * Names of units, by systemd.unit(5), "string escaping for inclusion in unit names": what
 * systemd-escape(1) prints. "/" becomes "-"; "-" itself, a dot at the beginning and all but ASCII
 * letters, digits and ":_." become \xNN.
 */

#include <stddef.h>

enum {
	UNIT_NAME_SIZE = 256, /* of the longest name that systemd takes, with its NUL */
};

/* Returns how long the whole name is, escaped. Writes what fits, cut between characters. dst may be
 * NULL where size is 0. */
size_t unit_name_escape(const char *name, char *dst, size_t size);

/* The unit of an absolute path: "srv-disk.mount" from "/srv/disk" and ".mount". -ENAMETOOLONG,
 * and nothing of use in dst: systemd hashes such names, in its own way. */
int unit_name_from_path(const char *path, const char *suffix, char dst[UNIT_NAME_SIZE]);

#endif

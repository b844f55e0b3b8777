/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_UNIT_FILE_H
#define FUSEIMG_UNIT_FILE_H

/*
 * The files that a generator writes, below the directory that systemd gave it: units, drop-ins and
 * the links that make one unit want another.
 *
 * A file is written whole or reported as broken; one that is there already is left alone (-EEXIST),
 * for it is another generator's or another export's.
 */

#include <stdbool.h>
#include <stdio.h>

#include "base/diag.h"

struct unit_dir {
	int fd;
	const char *path;   /* for sentences */
	const char *writer; /* who says so in each file: "program(section)" */
};

/* Begins dir/unit; or, where drop_in is not NULL, dir/unit.d/drop_in. source: the file that it
 * comes from; NULL: none that would be true for as long as the unit is. The caller finishes it with
 * unit_file_finish(). */
int unit_file_begin(const struct unit_dir *dir, const char *unit, const char *drop_in,
		    const char *source, FILE **ret, struct diag *diag);
int unit_file_finish(FILE *f, const char *unit, struct diag *diag);

/* "key=value" as systemd is to read it again: % is doubled. For settings that take the rest of
 * their line; what stands behind a blank or a backslash at its end would be lost
 * (unit_file_is_whole). */
void unit_file_put(FILE *f, const char *key, const char *value);

/* Can unit_file_put() say this value? No control characters, no blanks at the ends, no backslash at
 * the end. */
bool unit_file_is_whole(const char *value);

/* The same for settings that take a list of words: quoted. */
void unit_file_put_word(FILE *f, const char *key, const char *value);

/* Makes unit want or require (kind: "wants", "requires") another one. An instance is linked to its
 * template, which stands in the directory of the package's units. */
int unit_file_link(const struct unit_dir *dir, const char *unit, const char *kind,
		   const char *other, struct diag *diag);

#endif

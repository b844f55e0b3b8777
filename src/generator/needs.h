/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_NEEDS_H
#define FUSEIMG_NEEDS_H

/* What an image needs to be there, as a drop-in for the service that exports it. */

#include <stdbool.h>

#include "base/unit-name.h"
#include "generator/unit-file.h"

struct needs {
	const char *image;	     /* absolute path */
	const char *directories;     /* of its backing files, : between them; NULL */
	bool network;		     /* lies on one */
	char device[UNIT_NAME_SIZE]; /* the image's unit; "": it is a file */
};

/* Fills in device. Refuses what no unit can express, with a sentence that begins "SOURCE: ". */
int needs_init(struct needs *n, const char *source, struct diag *diag);

/* -EEXIST: there is one already. source: as for unit_file_begin(). */
int needs_write(const struct needs *n, const struct unit_dir *dir, const char *service,
		const char *source, struct diag *diag);

/* A drop-in for the mount unit that stands on the export of that name. Does not require it, since
 * that may be started from within the mount (mount.fuseimg). n: of the image; NULL: not known here,
 * and nothing is said of it. */
int needs_write_order(const struct needs *n, const struct unit_dir *units, const char *name,
		      const char *unit, const char *drop_in, const char *source, struct diag *diag);

/* The lines that bind a unit to the image's device, if it has one. */
void needs_put_device(const struct needs *n, FILE *f);

/* The name of the unit of a path. Too long a path gives a sentence that begins "SOURCE: ". */
int needs_unit(const char *source, const char *path, const char *suffix, char dst[UNIT_NAME_SIZE],
	       struct diag *diag);

/* fuseimg@NAME.service */
const char *needs_service(const char *name, char dst[UNIT_NAME_SIZE]);

#endif

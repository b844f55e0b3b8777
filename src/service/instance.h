/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_INSTANCE_H
#define FUSEIMG_INSTANCE_H

/*
 * The name of an export, and what follows from it:
 *
 *   name         my disk          what a person calls it, and what `fuseimg serve` is given (%I)
 *   file         /etc/fuseimg/my disk.conf
 *   target       /run/fuseimg/my disk/
 *   unit         fuseimg@my\x20disk.service
 *
 * In the name of a unit "-" stands for "/" and anything else of note is \xNN (systemd.unit(5),
 * "string escaping for inclusion in unit names"). So fuseimg@my-disk.service is about "my/disk",
 * which is no name; the unit of "my-disk" is fuseimg@my\x2ddisk.service.
 */

#include <limits.h>

#include "base/diag.h"

enum {
	/* So long that run-fuseimg-NAME.mount, escaped, is a name that systemd takes (255) */
	INSTANCE_UNIT_MAX = 255 - 18,
};

/* -EINVAL with a sentence that says what a name must be. */
int instance_check(const char *name, struct diag *diag);

/* The name as it stands in the name of a unit. What does not fit is cut. */
const char *instance_escape(const char *name, char dst[INSTANCE_UNIT_MAX + 1]);

/* The export that the mount helper makes of an image, of which nobody has given it a name: the same
 * one for the same path, which is absolute. Nothing else is of this form: NAME:0123456789abcdef. */
enum {
	INSTANCE_IMAGE_MAX = 48 + 1 + 16,
};
const char *instance_of_image(const char *path, char dst[INSTANCE_IMAGE_MAX + 1]);

/* FUSEIMG_CONFIG_DIR and FUSEIMG_RUNTIME_DIR replace the directories (tests). */
const char *instance_file(const char *name, char dst[PATH_MAX]);
const char *instance_target(const char *name, char dst[PATH_MAX]);
/* The file of an export that the mount helper made, gone after a reboot. The directory's name is no
 * name of an export. */
const char *instance_runtime_file(const char *name, char dst[PATH_MAX]);
/* The one of both files that is there; neither: instance_file(). */
const char *instance_find_file(const char *name, char dst[PATH_MAX]);

#endif

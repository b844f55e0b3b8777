/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_OPTIONS_H
#define FUSEIMG_OPTIONS_H

/*
 * What stands behind -o, in three parts: what is about the image, what is about the file system in
 * it, and what is for others (x-systemd.automount, nofail) and dropped.
 */

#include <stdbool.h>
#include <stdio.h>

#include "base/diag.h"
#include "service/config.h"

struct options {
	struct config config; /* about the image; checked */
	char *settings; /* the same as lines of a configuration file, without IMAGE and READ_ONLY */
	char *words;	/* the same for fuseimg mount -o; begins with "ro" or "rw" */
	char *inner;	/* for mount -o; begins with "ro" or "rw" */
	char *fstype;	/* "auto" */
	char *part;	/* name of the partition in the export; NULL: the whole disk */
	bool remount;
};

/* text: as behind -o; NULL is "". -EINVAL with a sentence. */
int options_parse(const char *text, struct options *ret, struct diag *diag);
void options_done(struct options *o);

/* Does any of them say something about the image? */
bool options_about_image(const struct options *o);

/* Prints KEY="value" as env-file.h reads it. */
void options_put_setting(FILE *f, const char *key, const char *value);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SETTING_H
#define FUSEIMG_SETTING_H

/*
 * How a sentence tells its reader what to set: behind -o ("-o ro"), or, where the export comes from
 * a configuration file, there ("READ_ONLY=yes in /etc/fuseimg/disk.conf"). `file` is NULL for -o.
 */

struct setting {
	char text[900]; /* a sentence (base/diag.h) has no room for more */
};

/* key as behind -o, in small letters; value without what would harm a terminal. The result is
 * s->text. */
const char *setting_name(struct setting *s, const char *file, const char *key, const char *value);

/* The same, and in which file; the last one of a sentence. */
const char *setting_place(struct setting *s, const char *file, const char *key, const char *value);

#endif

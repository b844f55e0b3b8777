/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SELECTOR_H
#define FUSEIMG_SELECTOR_H

/* Which partition of a disk is meant: PARTITION= and part=. Only the words; image/partition-find.h
 * looks for what they say. */

#include <stddef.h>

enum selector_kind {
	SELECTOR_NUMBER,    /* 2, part2 */
	SELECTOR_LABEL,	    /* LABEL=home: of the file system */
	SELECTOR_UUID,	    /* UUID=... */
	SELECTOR_PARTLABEL, /* of the entry in a GPT */
	SELECTOR_PARTUUID,
	SELECTOR_TYPE, /* TYPE=0x83, TYPE=c12a7328-..., or a name alone: root, home, esp, ... */
};

enum {
	SELECTOR_MAX = 256, /* bytes of its text, with the NUL; the longest label there is */
	SELECTOR_NUMBER_MAX = 65535,
};

struct selector {
	enum selector_kind kind;
	unsigned number;
	char value[SELECTOR_MAX]; /* SELECTOR_TYPE: a UUID, or "0x83" */
};

/* What goes behind "must be". */
#define SELECTOR_VALUES "N|LABEL=|UUID=|PARTLABEL=|PARTUUID=|TYPE=|root|home|esp|..."

/* 0, or -EINVAL: the text is none of these. */
int selector_parse(const char *text, struct selector *ret);

#endif

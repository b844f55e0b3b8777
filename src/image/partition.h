/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PARTITION_H
#define FUSEIMG_PARTITION_H

/*
 * The partition table of a disk: GPT, or MBR with logical partitions, in sectors of 512 to 4096
 * bytes. Read through image_read() alone, so it needs neither a file nor a block device; every
 * number in it is hostile, and what comes out has been checked.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "image/image.h"

enum {
	PARTITIONS_MAX = 128,	 /* entries that are told of; a GPT as it is made by default */
	PARTITION_UUID_MAX = 37, /* "0fc63daf-8483-4772-8e79-3d69d8477de4" */
	PARTITION_NAME_MAX = 3 * 36 + 1,	  /* 36 units of UTF-16 as UTF-8 */
	PARTITION_GPT_MAX = 1 << 20,		  /* bytes of a GPT's entries; as a rule 16 KiB */
	PARTITION_CHAIN_MAX = 2 * PARTITIONS_MAX, /* links of a chain of logical partitions */
};

/* Why an entry is no window onto the disk. */
enum partition_flaw {
	PARTITION_GOOD,
	PARTITION_CONTAINER, /* an extended partition: only holds the logical ones */
	PARTITION_EMPTY,     /* ends before it begins */
	PARTITION_BEYOND,    /* reaches past the end of the disk */
	PARTITION_OVERLAPS,  /* `other` claims the same bytes; nobody knows who is right */
};

struct partition {
	unsigned number; /* as the kernel numbers them: from 1, logical ones from 5 */
	uint64_t off, len;
	char type[PARTITION_UUID_MAX]; /* GPT: a UUID; MBR: "0x83" */
	char uuid[PARTITION_UUID_MAX]; /* PARTUUID; "" where the table has no identity */
	char name[PARTITION_NAME_MAX]; /* PARTLABEL, valid UTF-8 of any characters; "": none */
	uint64_t attributes;	       /* GPT: as they are; MBR: the boot indicator */
	enum partition_flaw flaw;
	unsigned other; /* PARTITION_OVERLAPS: the number of one that it overlaps */
};

struct partition_table {
	const char *kind; /* "gpt", "dos", or NULL: the disk has no table */
	char id[PARTITION_UUID_MAX];
	unsigned sector; /* bytes */
	bool backup;	 /* the GPT at the beginning is damaged: this is the one at the end */
	unsigned n;
	unsigned more; /* further entries, for which there is no room here */
	struct partition entries[PARTITIONS_MAX]; /* in the order of their numbers */
};

/*
 * The table of the disk; the caller frees *ret. A disk without one gives a table of the kind NULL;
 * where there must have been one that can no longer be read (a protective MBR, but no valid GPT),
 * and where the image cannot be read, it is an error with a sentence (which does not name the
 * image).
 */
int partition_read(struct image *img, struct partition_table **ret, struct diag *diag);

/* "reaches beyond the end of the disk": why p is no window. NULL: it is one. */
const char *partition_flaw_text(const struct partition *p, char *buf, size_t size);

#endif

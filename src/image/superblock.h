/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SUPERBLOCK_H
#define FUSEIMG_SUPERBLOCK_H

/*
 * What file system stands on a part of the disk, as libblkid knows it. That wants a file: it is
 * given a memfd as long as the part, with a copy of where superblocks are (the first MiB and the
 * last 256 KiB; of NTFS also the records that say its name). The rest of it reads as zeroes.
 *
 * libblkid parses what a stranger has written. In the worker that happens behind the sandbox, and
 * only where PARTITION= asks for a label or a UUID; `fuseimg info` runs it as blkid(8) would.
 */

#include <stdint.h>

#include "image/image.h"

struct superblock {
	char type[32];	 /* "ext4"; "": nothing that is known */
	char uuid[64];	 /* "": has none */
	char label[256]; /* any bytes; "": has none */
};

/* 0, also where nothing is known; or an error of reading. */
int superblock_read(struct image *img, uint64_t off, uint64_t len, struct superblock *ret);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PARTITION_FIND_H
#define FUSEIMG_PARTITION_FIND_H

#include "base/selector.h"
#include "image/partition.h"

/*
 * The number of the partition that is meant. -ENOENT: there is none that is a window onto the disk;
 * -ENOTUNIQ: several are (of a type, the first one is meant, as the Discoverable Partitions
 * Specification has it; those marked "no automatic mounting" do not count). With a sentence which
 * does not name the image.
 */
int partition_find(struct image *img, const struct partition_table *table,
		   const struct selector *selector, unsigned *ret, struct diag *diag);

#endif

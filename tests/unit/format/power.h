/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_FORMAT_POWER_H
#define FUSEIMG_TEST_FORMAT_POWER_H

/* One disk, in memory, whose power can be cut. */

#include "harness.h"

#include "store/journal.h"

/* The file "img", recorded, opened for writing. */
void power_open(struct disk *d, struct journal *j);
/* What a cut after k records leaves, opened for reading. There is no corruption; one in `every` is
 * judged by QEMU, too. */
void power_open_cut(struct disk *d, struct journal *j, size_t k, size_t every);

#endif

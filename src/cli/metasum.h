/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_METASUM_H
#define FUSEIMG_METASUM_H

/*
 * Whether the tables of an image are what they were: a checksum of all that a check reads, in the
 * order in which it reads it. Whoever gives a cluster another place, or frees one, changes it; who
 * only writes to clusters that the disk has does not.
 *
 * Another version of the check may read in another order, so a sum that differs may mean nothing,
 * and one that is the same is proof.
 */

#include "base/diag.h"
#include "format/format.h"
#include "store/store.h"

/* Also of what is not zero behind `from`. show: its progress and data are used, for a person who
 * waits; nothing else of it is. The store is only read. */
int metasum_take(struct store *store, const char *format, uint64_t from, const struct check *show,
		 uint64_t *ret, struct diag *diag);

#endif

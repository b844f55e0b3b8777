/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_FORMAT_CRAFTED_H
#define FUSEIMG_TEST_FORMAT_CRAFTED_H

/* A small qcow2 made by hand, for tests that need to know or to spoil every byte of it. */

#include <stdint.h>

enum {
	CRAFTED_CLUSTER = 65536,
	CRAFTED_REFTABLE = 1 * CRAFTED_CLUSTER,
	CRAFTED_BLOCK = 2 * CRAFTED_CLUSTER,
	CRAFTED_L1 = 3 * CRAFTED_CLUSTER,
	CRAFTED_L2 = 4 * CRAFTED_CLUSTER,
	CRAFTED_DATA = 5 * CRAFTED_CLUSTER, /* guest cluster 0, filled with 0xff */
	CRAFTED_BYTES = 6 * CRAFTED_CLUSTER,
	CRAFTED_SIZE = 1 << 30, /* of the disk: two L1 entries */
};

/* Version 3, no features, guest cluster 0 allocated; CRAFTED_BYTES that the caller frees. */
uint8_t *crafted_new(void);
/* Makes the L2 entries extended ones; the disk is half as large then. */
void crafted_extend(uint8_t *image);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crafted.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "format/qcow2-disk.h"

uint8_t *crafted_new(void)
{
	static const uint8_t magic[] = {QCOW2_MAGIC_BYTES};
	uint8_t *image = calloc(1, CRAFTED_BYTES);
	struct qcow2_disk_header *h = (void *)image;

	assert(image);
	memcpy(h->magic, magic, sizeof(magic));
	be32_put(&h->version, 3);
	be32_put(&h->cluster_bits, 16);
	be64_put(&h->size, CRAFTED_SIZE);
	be32_put(&h->l1_size, 2);
	be64_put(&h->l1_table_offset, CRAFTED_L1);
	be64_put(&h->refcount_table_offset, CRAFTED_REFTABLE);
	be32_put(&h->refcount_table_clusters, 1);
	be32_put(&h->refcount_order, 4);
	be32_put(&h->header_length, QCOW2_V3_HEADER);

	be64_put(image + CRAFTED_REFTABLE, CRAFTED_BLOCK);
	for (int i = 0; i < CRAFTED_BYTES / CRAFTED_CLUSTER; i++)
		be16_put(image + CRAFTED_BLOCK + i * 2, 1);
	be64_put(image + CRAFTED_L1, CRAFTED_L2 | QCOW2_COPIED);
	be64_put(image + CRAFTED_L2, CRAFTED_DATA | QCOW2_COPIED);
	memset(image + CRAFTED_DATA, 0xff, CRAFTED_CLUSTER);
	return image;
}

void crafted_extend(uint8_t *image)
{
	struct qcow2_disk_header *h = (void *)image;

	be64_put(&h->incompatible_features, QCOW2_INCOMPAT_EXTENDED_L2);
	be64_put(&h->size, CRAFTED_SIZE / 2);
}

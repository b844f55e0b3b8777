/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Any bytes as a partition table: what is called good lies on the disk and overlaps nothing. */

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "fuzz.h"
#include "image/partition-table.h"

/* No search finds a checksum: those of the header at the second sector are made right. */
static void fuzz_sums(uint8_t *disk, size_t size)
{
	struct gpt_header *h = (void *)(disk + 512);
	uint64_t off, len, head;

	if (size < 1024)
		return;
	off = (uint64_t)le32_get(h->PartitionEntryLBA) * 512;
	len = (uint64_t)le32_get(h->NumberOfPartitionEntries) * le32_get(h->SizeOfPartitionEntry);
	head = le32_get(h->HeaderSize);
	if (range_inside(off, len, size))
		le32_put(h->PartitionEntryArrayCRC32,
			 (uint32_t)crc32(0, disk + off, (unsigned)len));
	le32_put(h->HeaderCRC32, 0);
	if (head <= 512)
		le32_put(h->HeaderCRC32, (uint32_t)crc32(0, (void *)h, (unsigned)head));
}

static void fuzz_table(const struct partition_table *t, uint64_t size)
{
	fuzz_must(t->n <= PARTITIONS_MAX && (t->kind || t->n == 0), "as many as there is room for");
	for (unsigned i = 0; i < t->n; i++) {
		const struct partition *p = &t->entries[i];

		fuzz_must(memchr(p->name, '\0', sizeof(p->name)), "names end");
		if (p->flaw != PARTITION_GOOD)
			continue;
		fuzz_must(p->len > 0 && range_inside(p->off, p->len, size), "it is on the disk");
		for (unsigned j = 0; j < i; j++) {
			const struct partition *q = &t->entries[j];

			fuzz_must(q->flaw != PARTITION_GOOD || q->off + q->len <= p->off ||
					  p->off + p->len <= q->off,
				  "two do not overlap");
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options options = {.format = "raw", .read_only = true};
	_cleanup_free_ struct partition_table *t = NULL;
	_cleanup_free_ uint8_t *disk = malloc(size + 1);
	struct image *img = NULL;
	struct diag diag = {0};

	fuzz_must(disk, "memory");
	memcpy(disk, data, size);
	fuzz_sums(disk, size);
	fuzz_must(image_open(fuzz_store(disk, size), &options, &img, &diag) == 0, "raw opens");
	if (partition_read(img, &t, &diag) < 0)
		fuzz_must(diag.text[0], "a refusal says why");
	else
		fuzz_table(t, size);
	image_close(img);
	return 0;
}

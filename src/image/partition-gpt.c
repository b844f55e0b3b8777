/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "image/partition-table.h"

enum {
	GPT_SECTOR_MAX = 4096,
	GPT_PRIMARY_LBA = 1,
};

/* A header that was found, and what follows from it. */
struct gpt {
	unsigned sector;
	uint64_t lba;
	uint8_t head[GPT_SECTOR_MAX];
	uint32_t n, entry_size;
	uint8_t *entries; /* n of them, entry_size bytes each */
};

static const struct gpt_header *gpt_head(const struct gpt *g)
{
	return (const void *)g->head;
}

static uint32_t gpt_crc(const void *p, size_t len)
{
	return (uint32_t)crc32(0, p, (unsigned)len);
}

/* The checksum is made with its own field zero. */
static bool gpt_head_sum_right(const struct gpt *g, uint32_t size)
{
	uint8_t copy[GPT_SECTOR_MAX];
	struct gpt_header *h = (void *)copy;

	memcpy(copy, g->head, size);
	memset(h->HeaderCRC32, 0, sizeof(h->HeaderCRC32));
	return gpt_crc(copy, size) == le32_get(gpt_head(g)->HeaderCRC32);
}

static bool gpt_head_valid(const struct gpt *g)
{
	const struct gpt_header *h = gpt_head(g);
	uint32_t size = le32_get(h->HeaderSize);

	return memcmp(h->Signature, "EFI PART", sizeof(h->Signature)) == 0 && size >= sizeof(*h) &&
	       size <= g->sector && gpt_head_sum_right(g, size) && le64_get(h->MyLBA) == g->lba;
}

/* Sizes of its array of entries; false where they are not what a GPT may have, or beyond reason. */
static bool gpt_array_sane(struct gpt *g)
{
	const struct gpt_header *h = gpt_head(g);

	g->n = le32_get(h->NumberOfPartitionEntries);
	g->entry_size = le32_get(h->SizeOfPartitionEntry);
	return g->entry_size >= sizeof(struct gpt_entry) && is_pow2(g->entry_size) &&
	       g->entry_size <= GPT_SECTOR_MAX && g->n > 0 &&
	       g->n <= PARTITION_GPT_MAX / g->entry_size;
}

/* 1: g->entries is there and its checksum is right; 0: it is not. */
static int gpt_fetch_array(struct image *img, struct gpt *g)
{
	const struct gpt_header *h = gpt_head(g);
	_cleanup_free_ uint8_t *entries = NULL;
	size_t len = (size_t)g->n * g->entry_size;
	uint64_t off;
	int r;

	if (!checked_mul(le64_get(h->PartitionEntryLBA), g->sector, &off))
		return 0;
	entries = malloc(len);
	if (!entries)
		return -ENOMEM;
	r = partition_fetch(img, entries, len, off);
	if (r <= 0)
		return r;
	if (gpt_crc(entries, len) != le32_get(h->PartitionEntryArrayCRC32))
		return 0;
	g->entries = TAKE_PTR(entries);
	return 1;
}

/* The table whose header stands at that sector: 1, 0: none or a damaged one, or an error. */
static int gpt_try(struct image *img, unsigned sector, uint64_t lba, struct gpt *g)
{
	int r;

	*g = (struct gpt){.sector = sector, .lba = lba};
	r = partition_fetch(img, g->head, sector, lba * sector);
	if (r <= 0)
		return r;
	return gpt_head_valid(g) && gpt_array_sane(g) ? gpt_fetch_array(img, g) : 0;
}

/* Nothing says how large the sectors are but where the header is found. */
static int gpt_find(struct image *img, struct gpt *g, bool *ret_backup)
{
	static const unsigned sectors[] = {512, 4096, 1024, 2048};
	uint64_t size = image_size(img);
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sectors); i++)
		r = gpt_try(img, sectors[i], GPT_PRIMARY_LBA, g);
	if (r != 0)
		return r;
	*ret_backup = true;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sectors); i++)
		if (size / sectors[i] > GPT_PRIMARY_LBA)
			r = gpt_try(img, sectors[i], size / sectors[i] - 1, g);
	return r;
}

/* The first three fields are little endian, the rest are bytes as they are written. */
static void gpt_uuid(char *buf, const uint8_t *p)
{
	snprintf(buf, PARTITION_UUID_MAX, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 le32_get(p), le16_get(p + 4), le16_get(p + 6), p[8], p[9], p[10], p[11], p[12],
		 p[13], p[14], p[15]);
}

static char *gpt_put_utf8(char *w, uint32_t c)
{
	if (c < 0x80) {
		*w++ = (char)c;
	} else if (c < 0x800) {
		*w++ = (char)(0xc0 | c >> 6);
		*w++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*w++ = (char)(0xe0 | c >> 12);
		*w++ = (char)(0x80 | (c >> 6 & 0x3f));
		*w++ = (char)(0x80 | (c & 0x3f));
	} else {
		*w++ = (char)(0xf0 | c >> 18);
		*w++ = (char)(0x80 | (c >> 12 & 0x3f));
		*w++ = (char)(0x80 | (c >> 6 & 0x3f));
		*w++ = (char)(0x80 | (c & 0x3f));
	}
	return w;
}

/* UTF-16, up to a NUL; half a pair becomes U+FFFD. */
static void gpt_name(char *w, const uint8_t *p, const uint8_t *end)
{
	for (; p < end && le16_get(p) != 0; p += 2) {
		uint32_t c = le16_get(p);

		if (c >= 0xd800 && c < 0xe000) {
			uint32_t low = c < 0xdc00 && p + 2 < end ? le16_get(p + 2) : 0;

			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				p += 2;
			} else {
				c = 0xfffd;
			}
		}
		w = gpt_put_utf8(w, c);
	}
	*w = '\0';
}

static void gpt_add(struct partition_table *t, const struct gpt *g, uint32_t i)
{
	static const uint8_t unused[sizeof(((struct gpt_entry *)0)->PartitionTypeGUID)];
	const struct gpt_entry *e = (const void *)(g->entries + (size_t)i * g->entry_size);
	uint64_t first = le64_get(e->StartingLBA), last = le64_get(e->EndingLBA);
	uint64_t off = 0, len = 0;
	struct partition *p;

	if (memcmp(e->PartitionTypeGUID, unused, sizeof(unused)) == 0)
		return;
	/* What does not fit into 64 bits is beyond the end of any disk */
	if (!checked_mul(first, g->sector, &off))
		off = UINT64_MAX;
	if (last >= first && !checked_mul(last - first + 1, g->sector, &len))
		len = UINT64_MAX;
	p = partition_add(t, i + 1, off, len);
	if (!p)
		return;
	gpt_uuid(p->type, e->PartitionTypeGUID);
	gpt_uuid(p->uuid, e->UniquePartitionGUID);
	gpt_name(p->name, e->PartitionName, e->PartitionName + sizeof(e->PartitionName));
	p->attributes = le64_get(e->Attributes);
}

int partition_gpt_read(struct image *img, struct partition_table *t, struct diag *diag)
{
	struct gpt g;
	int r = gpt_find(img, &g, &t->backup);

	if (r < 0)
		return diag_errno(diag, r, "the GUID partition table cannot be read");
	if (r == 0)
		return 0;
	t->kind = "gpt";
	t->sector = g.sector;
	gpt_uuid(t->id, gpt_head(&g)->DiskGUID);
	for (uint32_t i = 0; i < g.n; i++)
		gpt_add(t, &g, i);
	free(g.entries);
	return 1;
}

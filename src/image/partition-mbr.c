/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The table of the PC's master boot record. Nothing in it says how large its sectors are: they are
 * taken for 512 bytes, as loop devices do.
 *
 * Logical partitions are a chain. Each link is a sector of the extended partition with a table of
 * its own: a partition, counted from this sector, and the next link, counted from the beginning of
 * the extended partition. The chain may be a circle; then its end is PARTITION_CHAIN_MAX.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "image/partition-table.h"

enum {
	MBR_SECTOR = 512,
};

/* Where a record points to, in sectors of the disk. */
struct mbr_range {
	uint64_t lba, n;
};

static struct mbr_range mbr_range(const struct mbr_entry *e, uint64_t base)
{
	return (struct mbr_range){base + le32_get(e->StartingLBA), le32_get(e->SizeInLBA)};
}

/* Of any type, also of none: hybrid images of optical discs have partitions of type 0. */
static bool mbr_is_used(const struct mbr_entry *e)
{
	return le32_get(e->SizeInLBA) > 0;
}

static bool mbr_is_extended(const struct mbr_entry *e)
{
	return mbr_is_used(e) && (e->OSType == 0x05 || e->OSType == 0x0f || e->OSType == 0x85);
}

static bool mbr_signed(const struct mbr *m)
{
	return m->Signature[0] == 0x55 && m->Signature[1] == 0xaa;
}

/* 1: m has the sector, and it is signed; 0: not so. */
static int mbr_fetch(struct image *img, uint64_t lba, struct mbr *m)
{
	int r = partition_fetch(img, m, sizeof(*m), lba * MBR_SECTOR);

	return r <= 0 ? r : mbr_signed(m);
}

/* A FAT, exFAT or NTFS without partitions ends its first sector with the same two bytes. */
static bool mbr_is_boot_sector(const struct mbr *m)
{
	const uint8_t *p = m->BootStrapCode;
	uint16_t sector = le16_get(p + 11);

	if (memcmp(p + 3, "NTFS    ", 8) == 0 || memcmp(p + 3, "EXFAT   ", 8) == 0)
		return true;
	return is_pow2(sector) && sector >= 512 && sector <= 4096 && is_pow2(p[13]) /* cluster */ &&
	       le16_get(p + 14) > 0 /* reserved sectors */ &&
	       (p[16] == 1 || p[16] == 2) /* FATs */ &&
	       (p[21] == 0xf0 || p[21] >= 0xf8) /* media */;
}

/* Text or code in the place of a table has other boot indicators. */
static bool mbr_is_table(const struct mbr *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->PartitionRecord); i++)
		if (m->PartitionRecord[i].BootIndicator & 0x7f)
			return false;
	return !mbr_is_boot_sector(m);
}

int partition_is_protected(struct image *img, bool *ret)
{
	struct mbr m;
	int r = mbr_fetch(img, 0, &m);

	for (size_t i = 0; r > 0 && i < ARRAY_SIZE(m.PartitionRecord); i++)
		if (m.PartitionRecord[i].OSType == MBR_TYPE_PROTECTIVE)
			*ret = true;
	return r;
}

static void mbr_add(struct partition_table *t, unsigned number, const struct mbr_entry *e,
		    struct mbr_range range)
{
	struct partition *p =
		partition_add(t, number, range.lba * MBR_SECTOR, range.n * MBR_SECTOR);

	if (!p)
		return;
	if (mbr_is_extended(e))
		p->flaw = PARTITION_CONTAINER;
	snprintf(p->type, sizeof(p->type), "0x%02x", e->OSType);
	if (t->id[0])
		snprintf(p->uuid, sizeof(p->uuid), "%.8s-%02x", t->id + 2, number);
	p->attributes = e->BootIndicator;
}

/* Beyond the first two records of a link there may be rubbish: only what fits is taken. */
static bool mbr_is_logical(const struct mbr_entry *e, size_t i, struct mbr_range range,
			   struct mbr_range extended)
{
	if (!mbr_is_used(e) || mbr_is_extended(e))
		return false;
	return i < 2 ||
	       (range.lba >= extended.lba && range.lba + range.n <= extended.lba + extended.n);
}

/* The partitions of one link; *ret_next is where the next one is, 0: there is none. */
static void mbr_read_link(struct partition_table *t, const struct mbr *m, uint64_t lba,
			  struct mbr_range extended, unsigned *number, uint64_t *ret_next)
{
	*ret_next = 0;
	for (size_t i = 0; i < ARRAY_SIZE(m->PartitionRecord); i++) {
		const struct mbr_entry *e = &m->PartitionRecord[i];
		struct mbr_range range = mbr_range(e, lba);

		if (mbr_is_logical(e, i, range, extended))
			mbr_add(t, (*number)++, e, range);
		else if (mbr_is_extended(e) && *ret_next == 0)
			*ret_next = mbr_range(e, extended.lba).lba;
	}
}

static int mbr_read_logical(struct image *img, struct partition_table *t, struct mbr_range extended,
			    unsigned *number)
{
	uint64_t lba = extended.lba;
	struct mbr m;

	for (int i = 0; lba != 0 && i < PARTITION_CHAIN_MAX; i++) {
		int r = mbr_fetch(img, lba, &m);

		if (r <= 0)
			return r;
		mbr_read_link(t, &m, lba, extended, number, &lba);
	}
	return 0;
}

static int mbr_read(struct image *img, struct partition_table *t, const struct mbr *m)
{
	unsigned number = MBR_LOGICAL_FIRST;
	int r = 0;

	if (le32_get(m->UniqueMBRDiskSignature) != 0)
		snprintf(t->id, sizeof(t->id), "0x%08x", le32_get(m->UniqueMBRDiskSignature));
	for (unsigned i = 0; i < ARRAY_SIZE(m->PartitionRecord); i++)
		if (mbr_is_used(&m->PartitionRecord[i]))
			mbr_add(t, i + 1, &m->PartitionRecord[i],
				mbr_range(&m->PartitionRecord[i], 0));
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(m->PartitionRecord); i++)
		if (mbr_is_extended(&m->PartitionRecord[i]))
			r = mbr_read_logical(img, t, mbr_range(&m->PartitionRecord[i], 0), &number);
	return r;
}

int partition_mbr_read(struct image *img, struct partition_table *t, struct diag *diag)
{
	struct mbr m;
	int r = mbr_fetch(img, 0, &m);

	if (r > 0 && !mbr_is_table(&m))
		return 0;
	if (r > 0)
		r = mbr_read(img, t, &m) ?: 1;
	if (r < 0)
		return diag_errno(diag, r, "the partition table cannot be read");
	if (t->n > 0) {
		t->kind = "dos";
		t->sector = MBR_SECTOR;
	}
	return t->n > 0;
}

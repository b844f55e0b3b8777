/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PARTITION_TABLE_H
#define FUSEIMG_PARTITION_TABLE_H

/* Private to partition*.c: the tables as they stand on the disk, all little endian. */

#include <stddef.h>
#include <stdint.h>

#include "image/partition.h"

/* UEFI 2.10, 5.2.1: "Legacy Master Boot Record" */
struct mbr_entry {
	uint8_t BootIndicator;
	uint8_t StartingCHS[3];
	uint8_t OSType;
	uint8_t EndingCHS[3];
	uint8_t StartingLBA[4];
	uint8_t SizeInLBA[4];
} __attribute__((packed));

struct mbr {
	uint8_t BootStrapCode[440];
	uint8_t UniqueMBRDiskSignature[4];
	uint8_t Unknown[2];
	struct mbr_entry PartitionRecord[4];
	uint8_t Signature[2];
} __attribute__((packed));

_Static_assert(sizeof(struct mbr_entry) == 16, "MBR");
_Static_assert(offsetof(struct mbr, PartitionRecord) == 446, "MBR");
_Static_assert(sizeof(struct mbr) == 512, "MBR");

enum {
	MBR_TYPE_PROTECTIVE = 0xee, /* the disk has a GPT */
	MBR_LOGICAL_FIRST = 5,
};

/* UEFI 2.10, 5.3.2: "GPT Header", and 5.3.3: "GPT Partition Entry Array" */
struct gpt_header {
	uint8_t Signature[8];
	uint8_t Revision[4];
	uint8_t HeaderSize[4];
	uint8_t HeaderCRC32[4];
	uint8_t Reserved[4];
	uint8_t MyLBA[8];
	uint8_t AlternateLBA[8];
	uint8_t FirstUsableLBA[8];
	uint8_t LastUsableLBA[8];
	uint8_t DiskGUID[16];
	uint8_t PartitionEntryLBA[8];
	uint8_t NumberOfPartitionEntries[4];
	uint8_t SizeOfPartitionEntry[4];
	uint8_t PartitionEntryArrayCRC32[4];
} __attribute__((packed));

struct gpt_entry {
	uint8_t PartitionTypeGUID[16];
	uint8_t UniquePartitionGUID[16];
	uint8_t StartingLBA[8];
	uint8_t EndingLBA[8];
	uint8_t Attributes[8];
	uint8_t PartitionName[72];
} __attribute__((packed));

_Static_assert(offsetof(struct gpt_header, MyLBA) == 24, "GPT header");
_Static_assert(offsetof(struct gpt_header, PartitionEntryLBA) == 72, "GPT header");
_Static_assert(sizeof(struct gpt_header) == 92, "GPT header");
_Static_assert(sizeof(struct gpt_entry) == 128, "GPT entry");

/* Each fills *t and returns 1, or 0 where there is no such table, or an error. */
int partition_gpt_read(struct image *img, struct partition_table *t, struct diag *diag);
int partition_mbr_read(struct image *img, struct partition_table *t, struct diag *diag);

/* A protective MBR: what else stands on the disk, a GPT is its table. */
int partition_is_protected(struct image *img, bool *ret);

/* image_read() of a range that may leave the disk: 0 then, 1 where buf has the bytes. */
int partition_fetch(struct image *img, void *buf, uint64_t len, uint64_t off);

/* Room for one more entry of that place, flawed where it makes no sense; NULL: there is none. */
struct partition *partition_add(struct partition_table *t, unsigned number, uint64_t off,
				uint64_t len);

#endif

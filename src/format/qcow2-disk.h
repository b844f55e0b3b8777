/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_QCOW2_DISK_H
#define FUSEIMG_QCOW2_DISK_H

/*
 * qcow2 as it stands on the disk (QEMU's docs/interop/qcow2.txt, names as there). All numbers are
 * big endian; read them with be32_get() and be64_get().
 */

#include <stddef.h>
#include <stdint.h>

struct qcow2_disk_header {
	uint8_t magic[4];
	uint32_t version;
	uint64_t backing_file_offset;
	uint32_t backing_file_size;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size;
	uint64_t l1_table_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	/* Version 3 */
	uint64_t incompatible_features;
	uint64_t compatible_features;
	uint64_t autoclear_features;
	uint32_t refcount_order;
	uint32_t header_length;
	/* Where header_length says so */
	uint8_t compression_type;
	uint8_t padding[7];
} __attribute__((packed));

_Static_assert(offsetof(struct qcow2_disk_header, size) == 24, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, refcount_table_offset) == 48, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, refcount_table_clusters) == 56, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, incompatible_features) == 72, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, autoclear_features) == 88, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, header_length) == 100, "qcow2 header");
_Static_assert(offsetof(struct qcow2_disk_header, compression_type) == 104, "qcow2 header");
_Static_assert(sizeof(struct qcow2_disk_header) == 112, "qcow2 header");

#define QCOW2_MAGIC_BYTES 'Q', 'F', 'I', 0xfb

enum {
	QCOW2_V2_HEADER = 72,
	QCOW2_V3_HEADER = 104, /* the least */
};

/* incompatible_features */
#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN (UINT64_C(0x1f))

/* compatible_features */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)

/* autoclear_features */
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)

enum qcow2_compression {
	QCOW2_COMPRESSION_DEFLATE = 0,
	QCOW2_COMPRESSION_ZSTD = 1,
};

struct qcow2_disk_extension {
	uint32_t type;
	uint32_t length; /* of what follows, which is padded to 8 bytes */
} __attribute__((packed));

#define QCOW2_EXT_END 0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857u
#define QCOW2_EXT_DATA_FILE 0x44415441u

#define QCOW2_EXT_BITMAPS 0x23852875u

struct qcow2_disk_bitmaps {
	uint32_t nb_bitmaps;
	uint32_t reserved32;
	uint64_t bitmap_directory_size;
	uint64_t bitmap_directory_offset;
} __attribute__((packed));

_Static_assert(sizeof(struct qcow2_disk_bitmaps) == 24, "qcow2 bitmaps extension");

/* An entry of the bitmap directory; extra data and name follow, padded to 8 bytes in all. */
struct qcow2_disk_bitmap {
	uint64_t bitmap_table_offset;
	uint32_t bitmap_table_size; /* entries */
	uint32_t flags;
	uint8_t type;
	uint8_t granularity_bits;
	uint16_t name_size;
	uint32_t extra_data_size;
} __attribute__((packed));

_Static_assert(sizeof(struct qcow2_disk_bitmap) == 24, "qcow2 bitmap directory entry");

enum {
	QCOW2_BITMAP_DIRTY_TRACKING = 1, /* the only type */
	QCOW2_BITMAP_IN_USE = 1 << 0,	 /* flags */
	QCOW2_BITMAP_AUTO = 1 << 1,
	QCOW2_BITMAP_EXTRA_DATA_COMPATIBLE = 1 << 2,
	QCOW2_BITMAP_FLAGS = 7,
	QCOW2_BITMAP_GRANULARITY_MIN = 9, /* bits; the limits are QEMU's */
	QCOW2_BITMAP_GRANULARITY_MAX = 31,
	QCOW2_BITMAP_NAME_MAX = 1023,
};

/* Bitmap table entries; bit 0 says what an entry without an offset reads as. */
#define QCOW2_BITMAP_RESERVED UINT64_C(0xff000000000001fe)

/* An entry of the snapshot table; extra data, id and name follow, padded to 8 bytes in all. */
struct qcow2_disk_snapshot {
	uint64_t l1_table_offset;
	uint32_t l1_size;
	uint16_t id_str_size;
	uint16_t name_size;
	uint32_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	uint32_t vm_state_size;
	uint32_t extra_data_size;
} __attribute__((packed));

_Static_assert(sizeof(struct qcow2_disk_snapshot) == 40, "qcow2 snapshot table entry");

struct qcow2_disk_snapshot_extra {
	uint64_t vm_state_size_large; /* of 8 bytes or more: in place of vm_state_size */
	uint64_t disk_size;	      /* of 16 bytes or more, as version 3 has to have */
	uint64_t icount;
} __attribute__((packed));

_Static_assert(offsetof(struct qcow2_disk_snapshot_extra, disk_size) == 8, "qcow2 snapshot");

enum qcow2_feature_type {
	QCOW2_FEATURE_INCOMPATIBLE = 0,
	QCOW2_FEATURE_COMPATIBLE = 1,
	QCOW2_FEATURE_AUTOCLEAR = 2,
};

struct qcow2_disk_feature_name {
	uint8_t type;
	uint8_t bit;
	char name[46]; /* ends at a NUL or at 46 bytes */
} __attribute__((packed));

_Static_assert(sizeof(struct qcow2_disk_feature_name) == 48, "qcow2 feature name table");

/* L1 and standard L2 entries. Bits 9 to 55 are the host offset. */
#define QCOW2_COPIED (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO (UINT64_C(1) << 0)
#define QCOW2_OFFSET UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)

/* Refcount table entries. */
#define QCOW2_REFTABLE_OFFSET UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFTABLE_RESERVED UINT64_C(0x1ff)

/* Subclusters of an extended L2 entry. */
enum { QCOW2_SUBCLUSTERS = 32 };

#endif

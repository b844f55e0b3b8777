/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Headers that lie: each field at its limits, and a sentence that says which. */

#include "crafted.h"
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-disk.h"

/* One field changed: what opening (for reading, then for writing) says. */
struct lie {
	size_t off;
	unsigned width; /* bytes */
	uint64_t value;
	int error;	  /* 0: it is no lie */
	const char *says; /* part of the sentence */
	bool write_only;  /* reading is fine */
	size_t off2;	  /* a second field; 0: none */
	unsigned width2;
	uint64_t value2;
};

#define FIELD(name)                                                                                \
	offsetof(struct qcow2_disk_header, name), sizeof(((struct qcow2_disk_header *)0)->name)

static const struct lie lies[] = {
	{FIELD(version), 3, 0, NULL},
	{0, 4, 0x51464900, -EMEDIUMTYPE, "not a qcow2"},
	{FIELD(version), 0, -EOPNOTSUPP, "version 0"},
	{FIELD(version), 1, -EOPNOTSUPP, "version 1"},
	{FIELD(version), 4, -EOPNOTSUPP, "version 4"},
	{FIELD(version), UINT32_MAX, -EOPNOTSUPP, "version 4294967295"},
	{FIELD(cluster_bits), 0, -EUCLEAN, "cluster_bits is 0"},
	{FIELD(cluster_bits), 8, -EUCLEAN, "cluster_bits is 8"},
	{FIELD(cluster_bits), 22, -EUCLEAN, "cluster_bits is 22"},
	{FIELD(cluster_bits), 64, -EUCLEAN, "cluster_bits is 64"},
	{FIELD(cluster_bits), UINT32_MAX, -EUCLEAN, "cluster_bits"},
	{FIELD(size), 0, 0, NULL},
	{FIELD(size), 1, 0, NULL},
	{FIELD(size), CRAFTED_SIZE + 1, -EUCLEAN, "the L1 table has 2 entries"},
	{FIELD(size), INT64_MAX, -EFBIG, "9223372036854775807 bytes"},
	{FIELD(size), UINT64_MAX, -EFBIG, "18446744073709551615 bytes"},
	{FIELD(size), UINT64_C(1) << 63, -EFBIG, "bytes is more"},
	{FIELD(crypt_method), 1, -EOPNOTSUPP, "AES"},
	{FIELD(crypt_method), 2, -EOPNOTSUPP, "LUKS"},
	{FIELD(crypt_method), 3, -EUCLEAN, "encryption method 3"},
	{FIELD(l1_size), 0, -EUCLEAN, "the L1 table has 0 entries"},
	{FIELD(l1_size), 1, -EUCLEAN, "the L1 table has 1 entries"},
	{FIELD(l1_size), UINT32_MAX, -EFBIG, "L1 table of 4294967295 entries"},
	{FIELD(l1_size), 4194305, -EFBIG, "L1 table of 4194305 entries"},
	{FIELD(l1_table_offset), 0, -EUCLEAN, "L1 table overlaps the header"},
	{FIELD(l1_table_offset), 512, -EUCLEAN, "L1 table offset 0x200"},
	{FIELD(l1_table_offset), CRAFTED_REFTABLE, -EUCLEAN, "overlap"},
	{FIELD(l1_table_offset), UINT64_C(1) << 40, -EUCLEAN, "outside the file"},
	{FIELD(l1_table_offset), UINT64_C(1) << 63, -EUCLEAN, "L1 table"},
	{FIELD(l1_table_offset), UINT64_MAX - 65535, -EUCLEAN, "L1 table"},
	{FIELD(refcount_table_offset), 0, -EUCLEAN, "refcount table overlaps the header"},
	{FIELD(refcount_table_offset), 1, -EUCLEAN, "refcount table offset 0x1"},
	{FIELD(refcount_table_offset), UINT64_MAX - 65535, -EUCLEAN, "refcount table"},
	{FIELD(refcount_table_offset), UINT64_C(1) << 40, -EUCLEAN, "outside the file", true},
	{FIELD(refcount_table_clusters), 0, -EUCLEAN, "no refcount table", true},
	{FIELD(refcount_table_clusters), 129, -EFBIG, "refcount table of"},
	{FIELD(refcount_table_clusters), UINT32_MAX, -EFBIG, "refcount table of"},
	{FIELD(refcount_table_clusters), 3, -EUCLEAN, "overlap"},
	{FIELD(nb_snapshots), 65537, -EFBIG, "65537 snapshots"},
	{FIELD(nb_snapshots), 1, -EUCLEAN, "snapshot table overlaps the header"},
	{FIELD(snapshots_offset), 3, 0, NULL},
	{FIELD(snapshots_offset), 3, -EUCLEAN, "snapshot table offset 0x3", false,
	 FIELD(nb_snapshots), 1},
	{FIELD(incompatible_features), 1, 0, NULL, true},
	{FIELD(incompatible_features), 1, -EUCLEAN, "fuseimg check --repair", true, CRAFTED_L2, 8,
	 UINT64_C(1) << 50},
	{FIELD(incompatible_features), 2, -EUCLEAN, "corrupt", true},
	{FIELD(incompatible_features), 4, -EUCLEAN, "does not say which"},
	{FIELD(incompatible_features), 8, -EUCLEAN, "compression type 0"},
	{FIELD(incompatible_features), 32, -EOPNOTSUPP, "incompatible bit 5"},
	{FIELD(incompatible_features), UINT64_C(1) << 63, -EOPNOTSUPP, "incompatible bit 63"},
	{FIELD(incompatible_features), 16, -EUCLEAN, "16 KiB", false, FIELD(cluster_bits), 13},
	{FIELD(compatible_features), UINT64_MAX, 0, NULL},
	{FIELD(autoclear_features), UINT64_MAX, 0, NULL},
	{FIELD(refcount_order), 7, -EUCLEAN, "refcount_order is 7"},
	{FIELD(refcount_order), UINT32_MAX, -EUCLEAN, "refcount_order"},
	{FIELD(header_length), 0, -EUCLEAN, "header_length is 0"},
	{FIELD(header_length), 72, -EUCLEAN, "header_length is 72"},
	{FIELD(header_length), 65537, -EUCLEAN, "header_length is 65537"},
	{FIELD(header_length), UINT32_MAX, -EUCLEAN, "header_length"},
	{FIELD(compression_type), 1, -EUCLEAN, "compression type 1", false, FIELD(header_length),
	 112},
	{FIELD(compression_type), 2, -EOPNOTSUPP, "compression type 2", false, FIELD(header_length),
	 112},
	{FIELD(backing_file_offset), 200, 0, NULL},
	{FIELD(backing_file_offset), 200, -EUCLEAN, "1024 bytes", false, FIELD(backing_file_size),
	 1024},
	{FIELD(backing_file_offset), 200, -EUCLEAN, "4294967295 bytes", false,
	 FIELD(backing_file_size), UINT32_MAX},
	{FIELD(backing_file_offset), 8, -EUCLEAN, "outside the first", false,
	 FIELD(backing_file_size), 4},
	{FIELD(backing_file_offset), 65530, -EUCLEAN, "outside the first", false,
	 FIELD(backing_file_size), 10},
	{FIELD(backing_file_offset), UINT64_MAX, -EUCLEAN, "outside the first", false,
	 FIELD(backing_file_size), 10},
	/* The first extension: a length that leaves the header */
	{104, 4, 0x12345678, -EUCLEAN, "extension 0x12345678", false, 108, 4, UINT32_MAX},
	{104, 4, 0x12345678, -EUCLEAN, "extension 0x12345678", false, 108, 4, 65536},
	{104, 4, 0x12345678, 0, NULL, false, 108, 4, 65424},
	/* Tables that claim to be free, blocks that are nowhere */
	{CRAFTED_BLOCK, 2, 0, -EUCLEAN, "the header has a refcount of 0", true},
	{CRAFTED_BLOCK + 6, 2, 0, -EUCLEAN, "the L1 table has a refcount of 0", true},
	{CRAFTED_BLOCK + 2, 2, 0, -EUCLEAN, "the refcount table has a refcount of 0", true},
	{CRAFTED_REFTABLE, 8, 0, -EUCLEAN, "the header has a refcount of 0", true},
	{CRAFTED_REFTABLE, 8, CRAFTED_BLOCK + 512, -EUCLEAN, "entry 0 of the refcount table", true},
	{CRAFTED_REFTABLE + 80, 8, UINT64_C(1) << 50, -EUCLEAN, "outside the file", true},
	{CRAFTED_REFTABLE + 80, 8, CRAFTED_BLOCK, -EUCLEAN, "two entries of the refcount table",
	 true},
	{CRAFTED_REFTABLE + 80, 8, UINT64_MAX - 65535, -EUCLEAN, "outside the file", true},
};

static void put(uint8_t *image, size_t off, unsigned width, uint64_t value)
{
	for (unsigned i = 0; i < width; i++)
		image[off + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

static int open_bytes(const uint8_t *image, size_t len, bool writable, struct diag *diag)
{
	struct store *store;
	struct disk d;
	int r;

	assert_int_equal(store_memory_from("lie.img", image, len, GIB(1), &store), 0);
	r = disk_open_store(&d, store, "qcow2", writable, diag);
	if (r == 0)
		disk_close(&d);
	return r;
}

static void expect(const struct lie *lie, const uint8_t *image, bool writable)
{
	struct diag diag = {0};
	int r = open_bytes(image, CRAFTED_BYTES, writable, &diag);
	int error = lie->write_only && !writable ? 0 : lie->error;

	if (r != error)
		fail_msg("offset %zu value 0x%llx: %d (%s)", lie->off,
			 (unsigned long long)lie->value, r, diag.text);
	if (error == 0)
		return;
	assert_non_null(strstr(diag.text, "lie.img: "));
	if (!strstr(diag.text, lie->says))
		fail_msg("\"%s\" does not say \"%s\"", diag.text, lie->says);
}

static void test_lies(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		_cleanup_free_ uint8_t *image = crafted_new();
		const struct lie *lie = &lies[i];

		put(image, lie->off, lie->width, lie->value);
		if (lie->off2)
			put(image, lie->off2, lie->width2, lie->value2);
		expect(lie, image, false);
		expect(lie, image, true);
	}
}

/* A file that ends anywhere is a clean error or reads as far as it goes. */
static void test_cut(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();

	for (size_t len = 0; len < CRAFTED_BYTES; len += len < 200 ? 1 : 4096) {
		struct diag diag = {0};
		int r = open_bytes(image, len, false, &diag);

		if (len < CRAFTED_L1 + 16)
			assert_int_equal(r, len < 4   ? -EMEDIUMTYPE
					    : len < 8 ? -EOPNOTSUPP
						      : -EUCLEAN);
		else
			assert_int_equal(r, 0);
		assert_true(r == 0 || *diag.text);
	}
}

static void test_feature_name(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct diag diag = {0};
	struct qcow2_disk_feature_name *f = (void *)(image + 112);

	put(image, FIELD(incompatible_features), UINT64_C(1) << 40);
	put(image, 104, 4, QCOW2_EXT_FEATURE_NAMES);
	put(image, 108, 4, 2 * sizeof(*f) + 5);
	f[0] = (struct qcow2_disk_feature_name){.type = 1, .bit = 40, .name = "compatible"};
	f[1] = (struct qcow2_disk_feature_name){.type = 0, .bit = 40, .name = "time\033travel"};
	assert_int_equal(open_bytes(image, CRAFTED_BYTES, false, &diag), -EOPNOTSUPP);
	assert_non_null(strstr(diag.text, "\"time\\x1btravel\" (incompatible bit 40)"));
}

/* Bits that a writer must clear are cleared before anything else is written. */
static void test_autoclear(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct diag diag = {0};
	struct store *store;
	struct disk d;
	uint64_t bits;

	put(image, FIELD(autoclear_features), UINT64_MAX);
	assert_int_equal(store_memory_from("img", image, CRAFTED_BYTES, GIB(1), &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
	assert_int_equal(store_read_full(store, &bits, 8, 88), 0);
	assert_int_equal(be64_get(&bits), QCOW2_AUTOCLEAR_DATA_FILE_RAW);
	disk_close(&d);
}

static void test_names(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct diag diag = {0};
	struct store *store;
	struct disk d;

	put(image, FIELD(backing_file_offset), 256);
	put(image, FIELD(backing_file_size), 8);
	memcpy(image + 256, "base.img", 8);
	put(image, 104, 4, QCOW2_EXT_BACKING_FORMAT);
	put(image, 108, 4, 3);
	memcpy(image + 112, "raw", 3);
	assert_int_equal(store_memory_from("img", image, CRAFTED_BYTES, GIB(1), &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", false, &diag), 0);
	assert_string_equal(d.img.backing_name, "base.img");
	assert_string_equal(d.img.backing_format, "raw");
	disk_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),	     cmocka_unit_test(test_cut),
		cmocka_unit_test(test_feature_name), cmocka_unit_test(test_autoclear),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables that lie: a clean error and a sentence for each, and never a crash, a hang or a write to
 * what is not ours. */

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

#define COPIED QCOW2_COPIED

/* One entry changed: what reading and then writing the first byte of the disk says. */
struct lie {
	size_t off;
	uint64_t value;
	int read, write;
	const char *says;
	bool extended;
};

static const struct lie lies[] = {
	{CRAFTED_L1, CRAFTED_L2 | COPIED, 0, 0, NULL},
	{CRAFTED_L1, CRAFTED_L2 | COPIED | 1, -EUCLEAN, -EUCLEAN, "L1 entry of guest offset 0x0"},
	{CRAFTED_L1, CRAFTED_L2 | 1, -EUCLEAN, -EUCLEAN, "L1 entry of guest offset 0x0"},
	{CRAFTED_L1, (CRAFTED_L2 + 512) | COPIED, -EUCLEAN, -EUCLEAN,
	 "L1 entry of guest offset 0x0"},
	{CRAFTED_L1, CRAFTED_L1 | COPIED, -EUCLEAN, -EUCLEAN, "overlaps the L1 table"},
	{CRAFTED_L1, UINT64_C(1) << 50 | COPIED, -EUCLEAN, -EUCLEAN, "outside the file"},
	{CRAFTED_L1, UINT64_C(1) << 50, -EUCLEAN, -EUCLEAN, "outside the file"},
	{CRAFTED_L1, 0, 0, 0, NULL},
	{CRAFTED_L2, 0, 0, 0, NULL},
	{CRAFTED_L2, 1, 0, 0, NULL},
	{CRAFTED_L2, CRAFTED_DATA | COPIED | 1, 0, 0, NULL},
	{CRAFTED_L2, CRAFTED_DATA, 0, 0, NULL},
	{CRAFTED_L2, COPIED, -EUCLEAN, -EUCLEAN, "data in the header"},
	{CRAFTED_L2, CRAFTED_DATA | COPIED | 2, -EUCLEAN, -EUCLEAN, "reserved bits"},
	{CRAFTED_L2, CRAFTED_DATA | COPIED | UINT64_C(1) << 56, -EUCLEAN, -EUCLEAN,
	 "reserved bits"},
	{CRAFTED_L2, (CRAFTED_DATA + 512) | COPIED, -EUCLEAN, -EUCLEAN, "not a cluster boundary"},
	{CRAFTED_L2, CRAFTED_L1 | COPIED, -EUCLEAN, -EUCLEAN, "inside the L1 table"},
	{CRAFTED_L2, CRAFTED_BYTES | COPIED, -EUCLEAN, -EUCLEAN, "outside the file"},
	{CRAFTED_L2, QCOW2_OFFSET - 65535 + 511, -EUCLEAN, -EUCLEAN, "outside the file"},
	{CRAFTED_L2, QCOW2_COMPRESSED, -EUCLEAN, -EUCLEAN, "inside the header"},
	{CRAFTED_L2, QCOW2_COMPRESSED | CRAFTED_BYTES, -EUCLEAN, -EUCLEAN, "outside the file"},
	{CRAFTED_L2, QCOW2_COMPRESSED | (CRAFTED_BYTES - 3), -EUCLEAN, -EUCLEAN, "does not unpack"},
	{CRAFTED_L2, QCOW2_COMPRESSED | CRAFTED_DATA | UINT64_C(0xff) << 54, -EUCLEAN, -EUCLEAN,
	 "does not unpack"},
	{CRAFTED_L2, QCOW2_COMPRESSED | ((UINT64_C(1) << 54) - 1), -EUCLEAN, -EUCLEAN,
	 "outside the file"},
	/* Extended entries: the second word is the bitmap */
	{CRAFTED_L2 + 8, 0, 0, 0, NULL, true},
	{CRAFTED_L2 + 8, 1, 0, 0, NULL, true},
	{CRAFTED_L2 + 8, UINT64_C(1) << 32, 0, 0, NULL, true},
	{CRAFTED_L2 + 8, 1 | UINT64_C(1) << 32, -EUCLEAN, -EUCLEAN, "both allocated and zero",
	 true},
	{CRAFTED_L2, CRAFTED_DATA | COPIED | 1, -EUCLEAN, -EUCLEAN, "reserved bits", true},
};

static void open_image(struct disk *d, const uint8_t *image)
{
	struct diag diag = {0};
	struct store *store;

	assert_int_equal(store_memory_from("lie.img", image, CRAFTED_BYTES, MIB(256), &store), 0);
	if (disk_open_store(d, store, "qcow2", true, &diag) < 0)
		fail_msg("%s", diag.text);
}

static void expect(const struct lie *lie)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct disk d;
	char byte = 1;
	int r;

	if (lie->extended)
		crafted_extend(image);
	be64_put(image + lie->off, lie->value);
	open_image(&d, image);
	r = disk_read(&d, &byte, 1, 0);
	if (r != lie->read)
		fail_msg("entry 0x%llx: reading says %d", (unsigned long long)lie->value, r);
	r = disk_write(&d, &byte, 1, 0);
	if (r != lie->write)
		fail_msg("entry 0x%llx: writing says %d", (unsigned long long)lie->value, r);
	if (!lie->says)
		assert_null(d.img.damage);
	else if (!d.img.damage || !strstr(d.img.damage, lie->says))
		fail_msg("\"%s\" does not say \"%s\"", d.img.damage ? d.img.damage : "", lie->says);
	disk_close(&d);
}

static void test_lies(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++)
		expect(&lies[i]);
}

/* Bytes allocated without a host cluster, in an extended entry. */
static void test_extended_nowhere(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct disk d;
	char byte;

	crafted_extend(image);
	be64_put(image + CRAFTED_L2, 0);
	be64_put(image + CRAFTED_L2 + 8, 1);
	open_image(&d, image);
	assert_int_equal(disk_read(&d, &byte, 1, 0), -EUCLEAN);
	disk_close(&d);
}

/* Refcounts that call used clusters free: found before one is handed out. */
static void test_free_but_used(void **state)
{
	static const struct {
		int cluster;
		const char *says;
	} cases[] = {
		{CRAFTED_BLOCK / CRAFTED_CLUSTER, "refcount table's blocks"},
		{CRAFTED_L2 / CRAFTED_CLUSTER, "L2 tables"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ uint8_t *image = crafted_new();
		struct disk d;
		char byte = 1;

		be16_put(image + CRAFTED_BLOCK + cases[i].cluster * 2, 0);
		open_image(&d, image);
		assert_int_equal(disk_write(&d, &byte, 1, MIB(1)), -EUCLEAN);
		assert_non_null(d.img.damage);
		assert_non_null(strstr(d.img.damage, cases[i].says));
		disk_close(&d);
	}
}

/* A shared cluster that nobody counted: writing to it works, and does not wrap its refcount. */
static void test_refcount_never_wraps(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct disk d;
	uint16_t refcount;
	char byte = 1;

	be64_put(image + CRAFTED_L2, CRAFTED_DATA);
	be16_put(image + CRAFTED_BLOCK + CRAFTED_DATA / CRAFTED_CLUSTER * 2, 1);
	open_image(&d, image);
	assert_int_equal(disk_write(&d, &byte, 1, 0), 0);
	be16_put(&refcount, 0);
	assert_int_equal(store_write(d.img.store, &refcount, 2,
				     CRAFTED_BLOCK + CRAFTED_DATA / CRAFTED_CLUSTER * 2),
			 0);
	assert_int_equal(disk_flush(&d), 0);
	assert_int_equal(store_read_full(d.img.store, &refcount, 2,
					 CRAFTED_BLOCK + CRAFTED_DATA / CRAFTED_CLUSTER * 2),
			 0);
	assert_int_equal(be16_get(&refcount), 0);
	assert_non_null(strstr(d.img.damage, "refcount of 0"));
	disk_close(&d);
}

/* Numbers that hurt. */
static uint64_t random_value(uint64_t *state)
{
	static const uint64_t flags[] = {0, COPIED, QCOW2_COMPRESSED, QCOW2_ZERO,
					 COPIED | QCOW2_ZERO};
	uint64_t flag = flags[random_next(state) % ARRAY_SIZE(flags)];

	switch (random_next(state) % 5) {
	case 0:
		return random_next(state) << (random_next(state) % 34);
	case 1:
		return flag | random_next(state) % 8 * CRAFTED_CLUSTER;
	case 2:
		return flag | UINT64_C(1) << (random_next(state) % 64);
	case 3:
		return UINT64_MAX - random_next(state) % 70000;
	default:
		return flag | random_next(state) % 1024;
	}
}

static void spoil(uint8_t *image, uint64_t *state)
{
	static const struct {
		size_t off, words;
	} places[] = {
		{0, 14},	 {CRAFTED_REFTABLE, 4}, {CRAFTED_BLOCK, 8},
		{CRAFTED_L1, 2}, {CRAFTED_L2, 16},	{CRAFTED_L2, 16},
	};
	uint64_t n = random_next(state) % 3 + 1;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = random_next(state) % ARRAY_SIZE(places);
		size_t off = places[p].off + random_next(state) % places[p].words * 8;

		if (p == 0 || random_next(state) % 4 == 0)
			image[off + random_next(state) % 8] = (uint8_t)random_next(state);
		else
			be64_put(image + off, random_value(state));
	}
}

/* Errors that a spoiled image may answer with. */
static void assert_clean(int r)
{
	static const int allowed[] = {0,       -EUCLEAN, -EOPNOTSUPP, -EFBIG, -EMEDIUMTYPE,
				      -ENOSPC, -EIO};

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (r == allowed[i])
			return;
	fail_msg("error %d", r);
}

static void use(struct disk *d, uint64_t *state)
{
	static char buf[100000];

	for (int i = 0; i < 12 && d->img.size > 0; i++) {
		uint64_t near = min_u64(d->img.size, CRAFTED_CLUSTER * 20);
		uint64_t off = random_next(state) % (i % 4 ? near : d->img.size);
		size_t len =
			(size_t)min_u64(random_next(state) % sizeof(buf) + 1, d->img.size - off);

		if (i % 2)
			assert_clean(disk_write(d, buf, len, off));
		else
			assert_clean(disk_read(d, buf, len, off));
		if (i % 5 == 4)
			assert_clean(disk_flush(d));
	}
}

static void test_spoiled(void **state)
{
	for (uint64_t seed = 0; seed < 3000; seed++) {
		_cleanup_free_ uint8_t *image = crafted_new();
		struct diag diag = {0};
		struct store *store;
		struct disk d;
		uint64_t random = seed;
		int r;

		if (seed % 3 == 0)
			crafted_extend(image);
		spoil(image, &random);
		assert_int_equal(
			store_memory_from("lie.img", image, CRAFTED_BYTES, MIB(256), &store), 0);
		r = disk_open_store(&d, store, "qcow2", true, &diag);
		assert_clean(r);
		if (r < 0) {
			assert_true(*diag.text);
			continue;
		}
		use(&d, &random);
		assert_clean(d.img.format->finish(&d.img));
		disk_kill(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),	      cmocka_unit_test(test_extended_nowhere),
		cmocka_unit_test(test_free_but_used), cmocka_unit_test(test_refcount_never_wraps),
		cmocka_unit_test(test_spoiled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

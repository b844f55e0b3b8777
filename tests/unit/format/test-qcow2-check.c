/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Check and repair, on images that were damaged byte by byte. qemu-img judges what repair leaves in
 * tests/fuse/test_check.py; here it is ourselves, faults and power cuts. */

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
#include "store/fault.h"
#include "store/journal.h"

#define COPIED QCOW2_COPIED
#define NOWHERE (UINT64_C(1) << 50)

enum {
	SNAPSHOTS = CRAFTED_BYTES, /* more clusters, of the image with a snapshot */
	SNAPSHOT_L1 = SNAPSHOTS + CRAFTED_CLUSTER,
	ALL_BYTES = SNAPSHOT_L1 + CRAFTED_CLUSTER,
};

/* A field changed, and what check says of it. */
struct damage {
	size_t off;
	unsigned width;
	uint64_t value;
	uint64_t leaks, corruptions;
	bool snapshot; /* of the image that has one */
	uint64_t left; /* corruptions that repair leaves */
};

static const struct damage damages[] = {
	{CRAFTED_L1 + 8, 8, 0, 0, 0},
	/* Refcounts */
	{CRAFTED_BLOCK + 10, 2, 2, 1, 1}, /* COPIED is wrong then, too */
	{CRAFTED_BLOCK + 10, 2, 0, 0, 2},
	{CRAFTED_BLOCK, 2, 0, 0, 1},
	{CRAFTED_BLOCK, 2, 7, 1, 0},
	{CRAFTED_BLOCK + 8, 2, 3, 1, 1},
	/* COPIED */
	{CRAFTED_L2, 8, CRAFTED_DATA, 0, 1},
	{CRAFTED_L1, 8, CRAFTED_L2, 0, 1},
	/* L1 entries */
	{CRAFTED_L1, 8, 0, 2, 0},
	{CRAFTED_L1, 8, NOWHERE | COPIED, 2, 1},
	{CRAFTED_L1, 8, (CRAFTED_L2 + 512) | COPIED, 2, 1},
	{CRAFTED_L1, 8, COPIED, 2, 1},
	{CRAFTED_L1, 8, CRAFTED_L2 | COPIED | 4, 0, 1},
	{CRAFTED_L1, 8, CRAFTED_L1 | COPIED, 2, 1},
	{CRAFTED_L1, 8, CRAFTED_BLOCK | COPIED, 2, 4},
	{CRAFTED_L1 + 8, 8, CRAFTED_L2 | COPIED, 0, 2}, /* twice */
	/* L2 entries */
	{CRAFTED_L2, 8, 0, 1, 0},
	{CRAFTED_L2, 8, NOWHERE | COPIED, 1, 1},
	{CRAFTED_L2, 8, (CRAFTED_DATA + 512) | COPIED, 1, 1},
	{CRAFTED_L2, 8, (CRAFTED_DATA + 512) | COPIED | 1, 1, 1},
	{CRAFTED_L2, 8, CRAFTED_DATA | COPIED | 2, 0, 1},
	{CRAFTED_L2, 8, CRAFTED_DATA | COPIED | 1, 0, 0},
	{CRAFTED_L2, 8, COPIED, 1, 1},
	{CRAFTED_L2, 8, CRAFTED_L1 | COPIED, 1, 1},
	{CRAFTED_L2, 8, CRAFTED_L2 | COPIED, 1, 1},
	{CRAFTED_L2, 8, QCOW2_COMPRESSED | CRAFTED_DATA, 0, 0},
	{CRAFTED_L2, 8, QCOW2_COMPRESSED | COPIED | CRAFTED_DATA, 0, 1},
	{CRAFTED_L2, 8, QCOW2_COMPRESSED | CRAFTED_L1, 1, 1},
	{CRAFTED_L2, 8, QCOW2_COMPRESSED | NOWHERE, 1, 1},
	{CRAFTED_L2 + 8, 8, CRAFTED_DATA | COPIED, 0, 1},
	{CRAFTED_L2 + 8, 8, QCOW2_COMPRESSED | CRAFTED_DATA, 0, 1},
	/* Refcount structures: made anew */
	{CRAFTED_REFTABLE, 8, 0, 0, 7},
	{CRAFTED_REFTABLE, 8, CRAFTED_BLOCK + 512, 0, 8},
	{CRAFTED_REFTABLE + 8, 8, NOWHERE, 0, 1},
	{CRAFTED_REFTABLE + 8, 8, CRAFTED_BLOCK, 0, 2},
	{CRAFTED_REFTABLE + 8, 8, CRAFTED_L2, 0, 2},
	{CRAFTED_L2, 8, CRAFTED_BLOCK | COPIED, 1, 2},
	/* A snapshot that shares all, with what is wrong in its records */
	{SNAPSHOT_L1, 8, CRAFTED_L2, 0, 0, true},
	{SNAPSHOT_L1, 8, NOWHERE, 2, 1, true},
	{SNAPSHOT_L1, 8, CRAFTED_L2 | 2, 0, 1, true},
	{SNAPSHOTS, 8, NOWHERE, 3, 1, true, 1},
	{SNAPSHOTS + 8, 4, UINT32_MAX, 3, 1, true, 1},
	{SNAPSHOTS + 36, 4, UINT32_MAX, 4, 1, true, 1},
	{offsetof(struct qcow2_disk_header, snapshots_offset), 8, NOWHERE, 4, 1, true, 1},
	{CRAFTED_L1, 8, SNAPSHOTS, 2, 2, true},
	{CRAFTED_L1, 8, SNAPSHOT_L1, 1, 4, true, 2},
	{CRAFTED_L2, 8, SNAPSHOT_L1, 1, 1, true},
	{CRAFTED_L2, 8, SNAPSHOTS, 1, 1, true},
	{CRAFTED_L2, 8, CRAFTED_DATA | COPIED, 0, 1, true},
};

static void put(uint8_t *image, size_t off, unsigned width, uint64_t value)
{
	for (unsigned i = 0; i < width; i++)
		image[off + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

/* The crafted image with a snapshot, which shares the L2 table. */
static uint8_t *crafted_snapshot(void)
{
	uint8_t *image = realloc(crafted_new(), ALL_BYTES);

	assert_non_null(image);
	memset(image + CRAFTED_BYTES, 0, ALL_BYTES - CRAFTED_BYTES);
	put(image, offsetof(struct qcow2_disk_header, nb_snapshots), 4, 1);
	put(image, offsetof(struct qcow2_disk_header, snapshots_offset), 8, SNAPSHOTS);
	put(image, SNAPSHOTS, 8, SNAPSHOT_L1);
	put(image, SNAPSHOTS + 8, 4, 2);
	put(image, SNAPSHOTS + 12, 2, 1); /* id */
	put(image, SNAPSHOTS + 36, 4, 16);
	image[SNAPSHOTS + 56] = '1';
	put(image, SNAPSHOT_L1, 8, CRAFTED_L2);
	put(image, CRAFTED_L1, 8, CRAFTED_L2);
	put(image, CRAFTED_L2, 8, CRAFTED_DATA);
	put(image, CRAFTED_BLOCK + 8, 2, 2);
	put(image, CRAFTED_BLOCK + 10, 2, 2);
	put(image, CRAFTED_BLOCK + 12, 2, 1);
	put(image, CRAFTED_BLOCK + 14, 2, 1);
	return image;
}

static uint8_t *damaged(const struct damage *d, size_t *ret_len)
{
	uint8_t *image = d->snapshot ? crafted_snapshot() : crafted_new();

	*ret_len = d->snapshot ? ALL_BYTES : CRAFTED_BYTES;
	put(image, d->off, d->width, d->value);
	return image;
}

/* What image_check() does, on a store that stays ours. */
static int check_store(struct store *store, struct check *check, struct diag *diag)
{
	struct image img = {.format = format_by_name("qcow2"),
			    .store = store,
			    .data = store,
			    .name = store->name,
			    .read_only = true};
	int r = img.format->open(&img, diag);

	if (r < 0)
		return r;
	r = img.format->check(&img, check, diag);
	img.format->close(&img);
	free(img.backing_name);
	free(img.backing_format);
	free(img.data_name);
	free(img.damage);
	return r;
}

static struct check checked(struct store *store, enum check_repair repair)
{
	struct check check = {.repair = repair};
	struct diag diag = {0};

	if (check_store(store, &check, &diag) < 0)
		fail_msg("%s", diag.text);
	return check;
}

static struct store *memory(const uint8_t *image, size_t len)
{
	struct store *store;

	assert_int_equal(store_memory_from("check.img", image, len, TIB(64), &store), 0);
	return store;
}

static void expect(const struct damage *d, const struct check *c, uint64_t leaks,
		   uint64_t corruptions)
{
	if (c->leaks != leaks || c->corruptions != corruptions)
		fail_msg("0x%zx = 0x%llx: %llu leaks (%llu), %llu corruptions (%llu)", d->off,
			 (unsigned long long)d->value, (unsigned long long)c->leaks,
			 (unsigned long long)leaks, (unsigned long long)c->corruptions,
			 (unsigned long long)corruptions);
}

static void test_found(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		_cleanup_free_ uint8_t *image = damaged(&damages[i], &len);
		_cleanup_free_ uint8_t *after = malloc(len);
		_cleanup_store_ struct store *store = memory(image, len);
		struct check c = checked(store, CHECK_ONLY);

		expect(&damages[i], &c, damages[i].leaks, damages[i].corruptions);
		assert_int_equal(store_read(store, after, len, 0), len);
		assert_memory_equal(image, after, len);
	}
}

static void test_repaired(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		const struct damage *d = &damages[i];
		_cleanup_free_ uint8_t *image = damaged(d, &len);
		_cleanup_store_ struct store *store = memory(image, len);
		struct check c = checked(store, CHECK_REPAIR_ALL), again;

		/* Where a snapshot cannot be read, nothing is given away */
		expect(d, &c, d->left ? d->leaks : 0, d->left);
		/* How many: COPIED may be right or wrong after a refcount was mended */
		if (d->leaks == 0)
			assert_int_equal(c.corruptions_fixed > 0, d->corruptions > d->left);
		again = checked(store, CHECK_ONLY);
		expect(d, &again, c.leaks, c.corruptions);
	}
}

/* Only leaks, and none while tables are damaged. */
static void test_leaks(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		const struct damage *d = &damages[i];
		_cleanup_free_ uint8_t *image = damaged(d, &len);
		_cleanup_store_ struct store *store = memory(image, len);
		struct check c = checked(store, CHECK_REPAIR_LEAKS);

		assert_int_equal(c.leaks + c.leaks_fixed, d->leaks);
		if (d->corruptions == 0)
			assert_int_equal(c.leaks, 0);
		if (c.kept_leaks)
			assert_int_equal(c.leaks_fixed, 0);
		assert_true(c.corruptions <= d->corruptions);
	}
}

/* Marks go when all is right, and stay where it is not. */
static void test_marks(void **state)
{
	for (uint64_t marks = 1; marks <= 3; marks++) {
		_cleanup_free_ uint8_t *image = crafted_new();
		_cleanup_store_ struct store *store = NULL;
		struct check c;

		put(image, offsetof(struct qcow2_disk_header, incompatible_features), 8, marks);
		put(image, CRAFTED_BLOCK + 10, 2, 0);
		store = memory(image, CRAFTED_BYTES);
		c = checked(store, CHECK_ONLY);
		assert_int_equal(c.marked_dirty, marks & 1);
		assert_int_equal(c.marked_corrupt, marks >> 1);
		c = checked(store, CHECK_REPAIR_LEAKS);
		assert_true(c.marked_dirty || c.marked_corrupt);
		c = checked(store, CHECK_REPAIR_ALL);
		assert_false(c.marked_dirty || c.marked_corrupt);
	}
}

/* What was overwritten, put back in reverse order, is the image as it was. */
struct journaled {
	struct store *store; /* records: off, len, bytes */
	uint64_t end, flushed;
};

static int save(struct check *check, const void *bytes, size_t len, uint64_t off)
{
	struct journaled *s = check->data;
	uint64_t head[2] = {off, len};

	assert_int_equal(store_write(s->store, head, sizeof(head), s->end), 0);
	assert_int_equal(store_write(s->store, bytes, len, s->end + sizeof(head)), 0);
	s->end += sizeof(head) + len;
	return 0;
}

static int save_flush(struct check *check)
{
	struct journaled *s = check->data;

	s->flushed = s->end;
	return 0;
}

static void put_back(struct store *store, struct journaled *s)
{
	uint64_t at[1024], head[2];
	uint8_t bytes[4096];
	size_t n = 0;

	for (uint64_t i = 0; i < s->end; i += sizeof(head) + head[1]) {
		assert_int_equal(store_read_full(s->store, head, sizeof(head), i), 0);
		at[n++] = i;
	}
	while (n-- > 0) {
		assert_int_equal(store_read_full(s->store, head, sizeof(head), at[n]), 0);
		assert_int_equal(store_read_full(s->store, bytes, head[1], at[n] + sizeof(head)),
				 0);
		assert_int_equal(store_write(store, bytes, head[1], head[0]), 0);
	}
}

static void test_saved(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		_cleanup_free_ uint8_t *image = damaged(&damages[i], &len);
		_cleanup_free_ uint8_t *after = malloc(len);
		_cleanup_store_ struct store *store = memory(image, len);
		struct journaled s = {0};
		struct check c = {.repair = CHECK_REPAIR_ALL,
				  .data = &s,
				  .save = save,
				  .save_flush = save_flush};
		struct diag diag = {0};

		assert_int_equal(store_memory_new("saved", MIB(64), &s.store), 0);
		assert_int_equal(check_store(store, &c, &diag), 0);
		assert_int_equal(s.flushed, s.end);
		put_back(store, &s);
		assert_int_equal(store_read(store, after, len, 0), len);
		assert_memory_equal(image, after, len);
		store_close(s.store);
	}
}

/* Every call fails once, with nothing or half of it done: an error, and a repair that can be
 * repeated. */
static void fail_at(const struct damage *d, unsigned ops, uint64_t skip, bool half, bool *ret_more)
{
	size_t len;
	_cleanup_free_ uint8_t *image = damaged(d, &len);
	_cleanup_store_ struct store *store = NULL;
	struct fault_rule rule = {
		.ops = ops, .skip = skip, .times = 1, .error = -EIO, .half = half};
	struct check c = {.repair = CHECK_REPAIR_ALL};
	struct diag diag = {0};
	int r;

	assert_int_equal(store_fault_new(memory(image, len), &store), 0);
	assert_int_equal(store_fault_add(store, &rule), 0);
	r = check_store(store, &c, &diag);
	*ret_more = store_fault_failures(store) > 0;
	store_fault_clear(store);
	/* Only the question where holes are (and the store ends) may go unanswered */
	if (*ret_more && !(ops & (FAULT_MAP | FAULT_STAT))) {
		assert_true(r == -EIO || r == -EUCLEAN);
		assert_true(diag.text[0]);
	}
	c = checked(store, CHECK_REPAIR_ALL);
	expect(d, &c, d->left ? c.leaks : 0, d->left);
}

static void fail_each(const struct damage *d, unsigned ops)
{
	bool more = true;

	for (uint64_t skip = 0; more; skip++)
		fail_at(d, ops, skip, false, &more);
	more = ops & (FAULT_WRITE | FAULT_ZERO);
	for (uint64_t skip = 0; more; skip++)
		fail_at(d, ops, skip, true, &more);
}

static void test_faults(void **state)
{
	static const unsigned ops[] = {FAULT_READ, FAULT_WRITE, FAULT_FLUSH, FAULT_RESIZE,
				       FAULT_ZERO, FAULT_STAT,	FAULT_MAP};

	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		for (size_t k = 0; k < ARRAY_SIZE(ops); k++)
			fail_each(&damages[i], ops[k]);
}

/* After a power cut in a repair the image can still be repaired, and says no more than before that
 * data is lost. */
static void cut(struct journal *j, const struct damage *d, size_t k, uint64_t seed)
{
	_cleanup_store_ struct store *store = NULL;
	uint8_t data[CRAFTED_CLUSTER];
	struct check c;

	assert_int_equal(journal_cut(j, 0, k, seed % 2 ? JOURNAL_TORN : JOURNAL_DROP, seed, &store),
			 0);
	c = checked(store, CHECK_REPAIR_ALL);
	expect(d, &c, d->left ? c.leaks : 0, d->left);
	assert_int_equal(store_read_full(store, data, sizeof(data), CRAFTED_DATA), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		assert_int_equal(data[i], 0xff);
}

static void test_power_cuts(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		_cleanup_free_ uint8_t *image = damaged(&damages[i], &len);
		_cleanup_journal_ struct journal *j = journal_new();
		_cleanup_store_ struct store *store = NULL;

		assert_int_equal(journal_attach(j, memory(image, len), &store), 0);
		checked(store, CHECK_REPAIR_ALL);
		for (size_t k = 0; k <= journal_length(j); k++)
			for (uint64_t seed = 0; seed < 4; seed++)
				cut(j, &damages[i], k, seed);
	}
}

/* Few counters, many windows: the same result. */
static void test_windows(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		size_t len;
		const struct damage *d = &damages[i];
		_cleanup_free_ uint8_t *image = damaged(d, &len);
		_cleanup_store_ struct store *store = memory(image, len);
		struct check one, c = {.memory = 1};
		struct diag diag = {0};

		/* A block counts 32768 clusters, a window 2048: several of each */
		assert_int_equal(store_resize(store, GIB(4)), 0);
		one = checked(store, CHECK_ONLY);
		assert_int_equal(check_store(store, &c, &diag), 0);
		expect(d, &c, one.leaks, one.corruptions);
		c = (struct check){.memory = 1, .repair = CHECK_REPAIR_ALL};
		assert_int_equal(check_store(store, &c, &diag), 0);
		expect(d, &c, d->left ? c.leaks : 0, d->left);
	}
}

static void test_dirty_open(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	uint8_t byte = 0;
	struct diag diag = {0};
	struct disk d;

	put(image, offsetof(struct qcow2_disk_header, incompatible_features), 8, 1);
	put(image, CRAFTED_BLOCK + 8, 2, 0);
	put(image, CRAFTED_BLOCK + 10, 2, 0);
	put(image, CRAFTED_L1, 8, CRAFTED_L2);
	assert_int_equal(disk_open_store(&d, memory(image, CRAFTED_BYTES), "qcow2", true, &diag),
			 0);
	assert_int_equal(disk_read(&d, &byte, 1, 0), 0);
	assert_int_equal(byte, 0xff);
	assert_int_equal(disk_write(&d, "x", 1, 5), 0);
	assert_int_equal(disk_write(&d, "x", 1, MIB(1)), 0);
	store_dump(d.img.store, "dirty.img");
	disk_close(&d);
	if (harness_have_qemu())
		assert_check("dirty.img", true);
}

/* Claims that would take for ever: each ends soon, as an error or as what it is. */
static void test_absurd(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	_cleanup_store_ struct store *store = memory(image, CRAFTED_BYTES);
	struct check c = {0};
	struct diag diag = {0};

	/* 2^31 clusters of nothing, and one more */
	assert_int_equal(store_resize(store, UINT64_C(1) << 46), 0);
	assert_int_equal(check_store(store, &c, &diag), 0);
	assert_int_equal(c.leaks + c.corruptions, 0);
	store_close(store);
	assert_int_equal(
		store_memory_from("check.img", image, CRAFTED_BYTES, UINT64_C(1) << 60, &store), 0);
	assert_int_equal(store_resize(store, (UINT64_C(1) << 47) + 1), 0);
	assert_int_equal(check_store(store, &c, &diag), -EFBIG);
	assert_non_null(strstr(diag.text, "too many to check"));
}

/* Many snapshots of one L1 table: the table is walked once, the entries are too many. */
static void test_absurd_snapshots(void **state)
{
	enum { N = 65536, RECORD = 64, L1_ENTRIES = 8192 };
	_cleanup_free_ uint8_t *image = crafted_new();
	_cleanup_store_ struct store *store = NULL;
	uint8_t record[RECORD] = {0};
	struct check c = {0};
	struct diag diag = {0};

	put(image, offsetof(struct qcow2_disk_header, nb_snapshots), 4, N);
	put(image, offsetof(struct qcow2_disk_header, snapshots_offset), 8, CRAFTED_BYTES);
	store = memory(image, CRAFTED_BYTES);
	put(record, 0, 8, CRAFTED_L1);
	put(record, 8, 4, L1_ENTRIES);
	put(record, 36, 4, RECORD - 40);
	for (uint64_t i = 0; i < N; i++)
		assert_int_equal(store_write(store, record, RECORD, CRAFTED_BYTES + i * RECORD), 0);
	assert_int_equal(check_store(store, &c, &diag), -EFBIG);
	assert_non_null(strstr(diag.text, "too many to check"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_repaired),
		cmocka_unit_test(test_leaks),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_saved),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_dirty_open),
		cmocka_unit_test(test_absurd),
		cmocka_unit_test(test_absurd_snapshots),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}

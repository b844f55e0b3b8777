/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Another size: new bytes are zeroes whatever stands behind them, old ones stay, nothing leaks. */

#include "both.h"
#include "power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "format/qcow2.h"
#include "store/fault.h"
#include "store/journal.h"

/* Where the refcount table stands. */
static uint64_t reftable(struct disk *d, uint64_t *ret_end) NO_THREAD_SAFETY_ANALYSIS
{
	struct qcow2 *q = qcow2_of(&d->img);

	*ret_end = q->reftable_offset + q->reftable_entries * 8;
	return q->reftable_offset;
}

static void resize_both(struct disk *d, const char *raw, uint64_t size)
{
	assert_int_equal(disk_resize(d, size), 0);
	assert_int_equal(d->img.size, size);
	assert_int_equal(truncate(raw, (off_t)size), 0);
}

/* Sizes up and down, with writes at either end of what is new. */
static void resize_random(struct disk *d, const char *raw, int n, uint64_t most, uint64_t seed)
{
	for (int i = 0; i < n; i++) {
		uint64_t old = d->img.size, size = random_next(&seed) % most + 1;

		if (random_next(&seed) % 4 == 0) /* often in the cluster where it ends now */
			size = old + random_next(&seed) % 3000;
		resize_both(d, raw, size);
		if (size > old && random_next(&seed) % 2)
			write_both(d, raw, old, (size_t)min_u64(size - old, 700), seed);
		if (random_next(&seed) % 2)
			write_both(d, raw, size - min_u64(size, 5000), (size_t)min_u64(size, 5000),
				   seed + 1);
		if (i % 5 == 4)
			assert_int_equal(disk_flush(d), 0);
		if (i % 4 == 3)
			assert_reads_as(d, raw);
	}
}

static void test_shapes(void **state)
{
	struct disk d;
	uint64_t size;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; shapes[i]; i++) {
		print_message("%s\n", shapes[i]);
		sh("rm -f img img.data");
		shape_fill(shapes[i]);
		sh("qemu-img convert -O raw img raw");
		disk_open(&d, "img", true);
		d.img.discard = true;
		resize_random(&d, "raw", 24, 12000000, 1);
		size = d.img.size;
		assert_null(d.img.damage);
		disk_close(&d);
		assert_same("raw");
		if (strstr(shapes[i], "raw=on"))
			sh("cmp -n %llu img.data raw", (unsigned long long)size);
	}
}

/* The L1 table of a disk that becomes a thousand times as large moves, several times. */
static void test_l1_moves(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=1k", "cluster_size=4k",
					   "extended_l2=on,cluster_size=16k", "cluster_size=64k"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		uint64_t size = 300000;

		print_message("%s\n", some[i]);
		sh("rm -f img raw; truncate -s %llu raw; qemu-img create -q -f qcow2 -o %s img "
		   "%llu",
		   (unsigned long long)size, some[i], (unsigned long long)size);
		disk_open(&d, "img", true);
		while (size < MIB(100)) {
			write_both(&d, "raw", size / 2, 4000, size);
			size = size * 3 + 17;
			resize_both(&d, "raw", size);
			write_both(&d, "raw", size - 3000, 3000, size);
		}
		assert_reads_as(&d, "raw");
		disk_close(&d);
		assert_same("raw");
	}
}

static void write_at_end(struct disk *d, uint64_t size)
{
	static char buf[512];

	memset(buf, (int)(size >> 20) | 1, sizeof(buf));
	assert_int_equal(disk_resize(d, size), 0);
	assert_int_equal(disk_write(d, buf, sizeof(buf), size - sizeof(buf)), 0);
}

static void assert_ends(const uint64_t *sizes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sh("qemu-io -r -c 'read -P %d %llu 512' -c 'read -P 0 %llu 512' img | "
		   "grep -c failed >fails; test $(cat fails) = 0",
		   (uint8_t)(sizes[i] >> 20) | 1, (unsigned long long)sizes[i] - 512,
		   (unsigned long long)sizes[i] - 1024);
}

/* An L1 table of more clusters than a refcount block counts, in a row all the same. */
static void test_l1_long(void **state)
{
	static const uint64_t sizes[] = {MIB(100), MIB(600), GIB(1), GIB(5), GIB(100)};
	static const char *const some[] = {"cluster_size=512", "cluster_size=512,refcount_bits=64",
					   "compat=0.10,cluster_size=512",
					   "cluster_size=1k,refcount_bits=64"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		print_message("%s\n", some[i]);
		sh("rm -f img; qemu-img create -q -f qcow2 -o %s img 1M", some[i]);
		for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
			disk_open(&d, "img", true);
			write_at_end(&d, sizes[k]);
			assert_null(d.img.damage);
			disk_close(&d);
			assert_check("img", false);
		}
		assert_ends(sizes, ARRAY_SIZE(sizes));
	}
}

/* The power goes while such a table is made: the old size or the new one. */
static void test_l1_long_power_cuts(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 img 100M");
	power_open(&d, j);
	write_at_end(&d, MIB(300));
	write_at_end(&d, GIB(1));
	disk_close(&d);
	for (size_t k = 0; k <= journal_length(j); k++) {
		power_open_cut(&d, j, k, 8);
		assert_true(d.img.size == MIB(100) || d.img.size == MIB(300) ||
			    d.img.size == GIB(1));
		disk_close(&d);
	}
}

/* Opens what a cut leaves that loses single sectors. There is no corruption. */
static void cut_torn(struct disk *d, struct journal *j, size_t k, uint64_t seed)
{
	struct check check = {.repair = CHECK_ONLY};
	struct diag diag = {0};
	struct store *store;

	assert_int_equal(journal_cut(j, 0, k, JOURNAL_TORN, seed, &store), 0);
	assert_int_equal(disk_open_store(d, store, "qcow2", false, &diag), 0);
	assert_int_equal(d->img.format->check(&d->img, &check, &diag), 0);
	assert_int_equal(check.corruptions, 0);
}

/* So many blocks that they are named in several sectors of the refcount table, and count each
 * other: any of these may be all that a power cut leaves. */
static void test_l1_long_torn(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	uint64_t table, end;
	struct disk d;
	int cuts = 0;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 img 1M");
	power_open(&d, j);
	assert_int_equal(disk_resize(&d, GIB(20)), 0);
	table = reftable(&d, &end);
	disk_close(&d);
	for (size_t k = 1; k <= journal_length(j); k++) {
		const struct journal_record *rec = journal_at(j, k - 1);

		if (rec->kind != JOURNAL_WRITE || rec->off <= table || rec->off >= end)
			continue;
		for (uint64_t seed = 0; seed < 8; seed++, cuts++) {
			cut_torn(&d, j, k, seed);
			disk_close(&d);
		}
	}
	assert_true(cuts > 0);
}

/* The table's entries cannot be written, and perhaps were: blocks that they name are not made
 * something else. */
static void name_fails(uint64_t times)
{
	struct fault_rule fails = {
		.ops = FAULT_WRITE, .times = times, .error = -EIO, .whole = true};
	static char buf[40000];
	struct diag diag = {0};
	struct store *store;
	struct qcow2 *q;
	struct disk d;
	uint64_t end;

	store_load("img", &store);
	assert_int_equal(store_fault_new(store, &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
	fails.off = reftable(&d, &end);
	fails.len = end - fails.off;
	assert_int_equal(store_fault_add(store, &fails), 0);
	assert_int_equal(disk_resize(&d, MIB(300)), -EIO);
	assert_int_equal(store_fault_failures(store), times);
	assert_int_equal(disk_resize(&d, MIB(300)), times > 1 ? -EIO : 0);
	/* No more than a block at a time */
	q = qcow2_of(&d.img);
	q->batch_min = q->batch_max = 4;
	memset(buf, 0x11, sizeof(buf));
	assert_int_equal(disk_write(&d, buf, sizeof(buf), 0), times > 1 ? -EIO : 0);
	assert_int_equal(disk_flush(&d), 0);
	store_dump(store, "after");
	disk_close(&d);
	assert_check("after", true);
}

static void test_l1_long_fails(void **state)
{
	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 img 1M");
	name_fails(1);
	name_fails(2);
}

/* Bytes of the backing image behind the old end never show. */
static void test_longer_backing(void **state)
{
	static const char *const tops[] = {"cluster_size=512", "cluster_size=64k", "extended_l2=on",
					   "cluster_size=2M"};
	struct disk base, d;

	if (!harness_have_qemu())
		skip();
	base_make();
	for (size_t i = 0; i < ARRAY_SIZE(tops); i++) {
		base_open(&base, &d, tops[i], 1000448);
		resize_both(&d, "raw", 3000000);
		assert_reads_as(&d, "raw");
		resize_random(&d, "raw", 20, 8000000, 3);
		resize_both(&d, "raw", 8000000);
		base_close(&base, &d);
	}
}

/* What version 2 cannot do is refused, and what a snapshot needs to know as well. */
static void test_refusals(void **state)
{
	struct disk base, d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 base 2M");
	sh("qemu-img create -q -f qcow2 -o compat=0.10 -b base -F qcow2 img 1M");
	disk_open(&base, "base", false);
	disk_open(&d, "img", true);
	d.backing = &base;
	d.img.parent_size = base.img.size;
	assert_int_equal(disk_resize(&d, MIB(2)), -EOPNOTSUPP);
	assert_int_equal(disk_resize(&d, MIB(1) / 2), 0);
	disk_close(&d);
	disk_close(&base);

	sh("rm img; qemu-img create -q -f qcow2 -o compat=0.10 img 1M && "
	   "qemu-img snapshot -c one img");
	disk_open(&d, "img", true);
	assert_int_equal(disk_resize(&d, MIB(2)), -EOPNOTSUPP);
	disk_close(&d);

	sh("rm img; qemu-img create -q -f qcow2 -o cluster_size=512 img 1M");
	disk_open(&d, "img", true);
	assert_int_equal(disk_resize(&d, TIB(1)), -EFBIG);
	assert_int_equal(d.img.size, MIB(1));
	disk_close(&d);
	assert_check("img", false);
}

/* Snapshots keep their size and content while the disk's changes. */
static void test_snapshots(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=64k",
					   "extended_l2=on,cluster_size=16k"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		print_message("%s\n", some[i]);
		sh("rm -f img");
		shape_fill(some[i]);
		sh("qemu-img convert -O raw img raw && cp raw before");
		sh("qemu-img snapshot -c one img");
		disk_open(&d, "img", true);
		resize_random(&d, "raw", 20, 12000000, 5);
		disk_close(&d);
		assert_same("raw");
		sh("cp img old && qemu-img snapshot -a one old && "
		   "qemu-img convert -O raw old out && cmp out before");
		sh("qemu-img snapshot -d one img");
		assert_check("img", false);
	}
}

/* Down to nothing and up again. */
static void test_nothing(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 img 0 && truncate -s 0 raw");
	disk_open(&d, "img", true);
	resize_both(&d, "raw", 1);
	write_both(&d, "raw", 0, 1, 1);
	resize_both(&d, "raw", 70001);
	write_both(&d, "raw", 60000, 10001, 2);
	resize_both(&d, "raw", 0);
	resize_both(&d, "raw", 200000);
	assert_reads_as(&d, "raw");
	disk_close(&d);
	assert_same("raw");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shapes, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_l1_moves, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_l1_long, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_l1_long_power_cuts, harness_setup,
						harness_teardown),
		cmocka_unit_test_setup_teardown(test_l1_long_torn, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_l1_long_fails, harness_setup,
						harness_teardown),
		cmocka_unit_test_setup_teardown(test_longer_backing, harness_setup,
						harness_teardown),
		cmocka_unit_test_setup_teardown(test_refusals, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_snapshots, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_nothing, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

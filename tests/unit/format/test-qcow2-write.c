/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What we write reads back, QEMU finds no fault in it, and snapshots stay as they were. */

#include "both.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/io.h"
#include "format/qcow2.h"
#include "store/fault.h"

static void write_shape(const char *shape)
{
	struct disk d;

	shape_fill(shape);
	assert_check("img", false);
	sh("qemu-img convert -O raw img raw");
	disk_open(&d, "img", true);
	write_random(&d, "raw", 60, 3000, 1);
	write_random(&d, "raw", 20, 300000, 2);
	assert_reads_as(&d, "raw");
	assert_null(d.img.damage);
	disk_close(&d);
	assert_same("raw");
}

static void test_shapes(void **state)
{
	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; shapes[i]; i++) {
		print_message("%s\n", shapes[i]);
		sh("rm -f img img.data");
		write_shape(shapes[i]);
	}
}

static void write_snapshot(const char *shape)
{
	struct disk d;

	shape_fill(shape);
	sh("qemu-img convert -O raw img raw && cp raw before");
	sh("qemu-img snapshot -c one img");
	disk_open(&d, "img", true);
	write_random(&d, "raw", 40, 200000, 3);
	disk_close(&d);
	assert_check("img", false);

	sh("cp raw between && qemu-img snapshot -c two img");
	disk_open(&d, "img", true);
	write_random(&d, "raw", 40, 200000, 4);
	disk_close(&d);
	assert_check("img", false);

	assert_same("raw");
	sh("qemu-img convert -l one -O raw img out && cmp out before");
	sh("qemu-img convert -l two -O raw img out && cmp out between");
	sh("qemu-img snapshot -d one img && qemu-img snapshot -d two img");
	assert_same("raw");
}

static void test_snapshots(void **state)
{
	static const char *const with_snapshots[] = {
		"compat=0.10",	    "cluster_size=512",
		"cluster_size=4k",  "cluster_size=64k",
		"cluster_size=2M",  "refcount_bits=8",
		"extended_l2=on",   "extended_l2=on,cluster_size=16k",
		"refcount_bits=64", "compression_type=zstd",
	};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(with_snapshots); i++) {
		print_message("%s\n", with_snapshots[i]);
		sh("rm -f img");
		write_snapshot(with_snapshots[i]);
	}
}

/* Every cluster compressed, then overwritten: clusters that several compressed ones share are freed
 * with the last. */
static void test_compressed(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=4k",
					   "cluster_size=64k", "cluster_size=2M",
					   "compat=0.10",      "compat=0.10,cluster_size=512"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		sh("seq 1 500000 >raw; truncate -s %%512 raw; rm -f img");
		sh("qemu-img convert -c -f raw -O qcow2 -o %s raw img", some[i]);
		disk_open(&d, "img", true);
		change_random(&d, "raw", 100, 60000, 5);
		disk_close(&d);
		assert_check("img", false);
		assert_same("raw");
	}
}

static void test_backing(void **state)
{
	static const char *const tops[] = {"cluster_size=64k", "cluster_size=512", "extended_l2=on",
					   "cluster_size=2M", "compat=0.10"};
	struct disk base, d;

	if (!harness_have_qemu())
		skip();
	base_make();
	for (size_t i = 0; i < ARRAY_SIZE(tops); i++) {
		base_open(&base, &d, tops[i], 8000000);
		write_random(&d, "raw", 50, 100000, 6);
		base_close(&base, &d);
	}
}

/* Refcount blocks that count few clusters, and a table with room for few blocks: it grows, and
 * what was handed out before and after is never the same. */
static void test_table_growth(void **state)
{
	static const char *const shapes_small[] = {
		"cluster_size=512,refcount_bits=64",
		"cluster_size=512,refcount_bits=16",
		"cluster_size=512,refcount_bits=1",
		"cluster_size=1k,refcount_bits=64",
	};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(shapes_small); i++) {
		print_message("%s\n", shapes_small[i]);
		sh("rm -f img raw; qemu-img create -q -f qcow2 -o %s img 40M; truncate -s 40M raw",
		   shapes_small[i]);
		disk_open(&d, "img", true);
		for (int round = 0; round < 3; round++) {
			write_random(&d, "raw", 40, 1 << 20, 7 + (uint64_t)round);
			write_random(&d, "raw", 200, 600, 70 + (uint64_t)round);
			disk_close(&d);
			assert_same("raw");
			disk_open(&d, "img", true);
		}
		disk_close(&d);
		assert_check("img", false);
	}
}

/* The next writer finds the clusters that this one gave back: the file does not grow for ever. */
static void test_reuse(void **state)
{
	struct disk d;
	struct store_stat before, after;

	if (!harness_have_qemu())
		skip();
	sh("seq 1 2000000 >raw; truncate -s 8M raw");
	sh("qemu-img convert -c -f raw -O qcow2 raw img");
	for (int round = 0; round < 6; round++) {
		disk_open(&d, "img", true);
		write_random(&d, "raw", 400, 4000, 11);
		assert_int_equal(disk_flush(&d), 0);
		disk_close(&d);
		disk_open(&d, "img", false);
		assert_int_equal(store_stat(d.img.store, &after), 0);
		disk_close(&d);
		if (round > 0)
			assert_true(after.size <= before.size);
		before = after;
	}
	assert_same("raw");
}

/* Without finish() there are leaks, and nothing else. */
static void test_killed(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; shapes[i]; i++) {
		sh("rm -f img img.data");
		shape_fill(shapes[i]);
		sh("qemu-img convert -O raw img raw");
		disk_open(&d, "img", true);
		write_random(&d, "raw", 30, 100000, 12);
		disk_kill(&d);
		assert_check("img", true);
		assert_read_alike("raw");
	}
}

/* The host's space ends inside the entries of a table: those that were written are not forgotten.
 */
static void test_half_linked(void **state)
{
	struct fault_rule full = {
		.ops = FAULT_WRITE, .len = KIB(4), .times = 1, .error = -ENOSPC, .half = true};
	static char buf[KIB(600)];
	struct diag diag = {0};
	struct store *store;
	struct disk d;
	struct qcow2 *q;
	uint64_t l1, table;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 -o cluster_size=4k img 2M");
	sh("qemu-io -c 'write -P 1 0 4k' img >/dev/null");
	store_load("img", &store);
	assert_int_equal(store_fault_new(store, &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
	q = qcow2_of(&d.img);
	l1 = q->l1_offset;
	q->batch_min = q->batch_max = 160; /* what is given back is soon taken again */
	assert_int_equal(store_read_full(store, &table, sizeof(table), l1), 0);
	full.off = be64_get(&table) & QCOW2_OFFSET;
	assert_int_equal(store_fault_add(store, &full), 0);
	memset(buf, 2, sizeof(buf));
	assert_int_equal(disk_write(&d, buf, sizeof(buf), KIB(64)), -EIO);
	memset(buf, 3, sizeof(buf));
	assert_int_equal(disk_write(&d, buf, sizeof(buf), MIB(1)), 0);
	assert_int_equal(disk_write(&d, buf, KIB(300), KIB(700)), 0);
	assert_int_equal(disk_flush(&d), 0);
	store_dump(store, "after");
	disk_close(&d);
	assert_check("after", true);
	sh("qemu-io -r -c 'read -P 3 1M 600k' after | grep -q failed && exit 1 || true");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shapes, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_snapshots, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_compressed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_backing, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_table_growth, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_reuse, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_killed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_half_linked, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

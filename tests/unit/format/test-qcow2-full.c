/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The host has no more room: a file system until there is some again, a block device for good. What
 * failed can be tried again, everything else is untouched, and QEMU finds leaks at most. (One call
 * that fails, of any kind and at any moment: tests/proof/test-failures.c.)
 */

#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "store/fault.h"

enum {
	DISK = 3 << 20,
	MOST = 60000,
};

static const char *const some[] = {
	"cluster_size=512,refcount_bits=64",
	"cluster_size=4k",
	"cluster_size=64k",
	"extended_l2=on,cluster_size=16k",
};

/* A disk whose clusters are compressed, shared, new, and its own, behind a store that fails on
 * demand. */
static void open_mixed(struct disk *d, const char *shape, char *model)
{
	struct diag diag = {0};
	struct store *store;

	sh("rm -f img raw; seq 1 200000 >raw; truncate -s 1M raw");
	sh("qemu-img create -q -f qcow2 -o %s img %d", shape, DISK);
	sh("qemu-img convert -c -f raw -O qcow2 -o %s raw packed && mv packed img && "
	   "qemu-img resize -q img %d",
	   shape, DISK);
	sh("qemu-io -c 'write -P 1 300k 400k' img >/dev/null && qemu-img snapshot -c one img");
	sh("qemu-io -c 'write -P 2 1M 300k' -c 'write -z 1500k 100k' img >/dev/null");
	store_load("img", &store);
	assert_int_equal(store_fault_new(store, &store), 0);
	assert_int_equal(disk_open_store(d, store, "qcow2", true, &diag), 0);
	assert_int_equal(disk_read(d, model, DISK, 0), 0);
}

static void close_and_judge(struct disk *d, const char *model)
{
	_cleanup_free_ char *have = malloc(DISK);

	store_fault_clear(d->img.store);
	assert_int_equal(disk_read(d, have, DISK, 0), 0);
	assert_memory_equal(have, model, DISK);
	d->img.format->finish(&d->img);
	store_dump(d->img.store, "after");
	assert_null(d->img.damage);
	disk_kill(d);
	assert_check("after", true);

	disk_open(d, "after", false);
	assert_int_equal(disk_read(d, have, DISK, 0), 0);
	assert_memory_equal(have, model, DISK);
	disk_close(d);
}

/* Nothing behind the end of the file can be had until there is space again. */
static void test_full(void **state)
{
	_cleanup_free_ char *model = malloc(DISK), *buf = malloc(MOST);

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		struct fault_rule rule = {.ops = FAULT_WRITE | FAULT_RESIZE | FAULT_ALLOCATE,
					  .len = INT64_MAX,
					  .error = -ENOSPC};
		uint64_t off = 0, left = 0;
		struct disk d;
		int r = 0;

		open_mixed(&d, some[i], model);
		assert_int_equal(store_size(d.img.store, &rule.off), 0);
		/* Room for two clusters is not room for a batch of them */
		rule.off += d.img.unit * 2;
		rule.len -= rule.off;
		assert_int_equal(store_fault_add(d.img.store, &rule), 0);
		for (off = 0; r == 0 && off + MOST <= DISK; off += r == 0 ? MOST : 0) {
			pattern(buf, MOST, off, 3);
			r = disk_write(&d, buf, MOST, off);
		}
		assert_int_equal(r, -ENOSPC);
		/* The write that failed may have been done in part; what is there stays */
		assert_int_equal(disk_flush(&d), 0);
		store_fault_clear(d.img.store);
		for (left = 0; left <= off; left += MOST) {
			pattern(model + left, MOST, left, 3);
			assert_int_equal(disk_write(&d, model + left, MOST, left), 0);
		}
		close_and_judge(&d, model);
	}
}

/* A disk ends where it ends. */
static void test_device(void **state)
{
	_cleanup_free_ char *buf = malloc(MOST), *have = malloc(MOST);

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		struct diag diag = {0};
		struct store *store;
		struct disk d;
		uint64_t off = 0;
		int r = 0;

		sh("rm -f img; qemu-img create -q -f qcow2 -o %s img 64M", some[i]);
		store_load("img", &store);
		/* Full of what was there before, and not a whole number of clusters */
		pattern(buf, MOST, 0, 77);
		for (uint64_t at = MIB(1); at < MIB(3); at += MOST)
			assert_int_equal(store_write(store, buf, MOST, at), 0);
		assert_int_equal(store_resize(store, MIB(3) + 512), 0);
		store->fixed = true;
		store->fixed_size = MIB(3) + 512;
		assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
		while (r == 0 && off < MIB(64)) {
			pattern(buf, MOST, off, 5);
			r = disk_write(&d, buf, MOST - 100, off);
			off += r == 0 ? MOST : 0;
		}
		assert_int_equal(r, -ENOSPC);
		assert_true(off > MIB(1));
		for (uint64_t at = 0; at < off; at += MOST) {
			pattern(buf, MOST, at, 5);
			assert_int_equal(disk_read(&d, have, MOST - 100, at), 0);
			assert_memory_equal(have, buf, MOST - 100);
		}
		assert_int_equal(d.img.format->finish(&d.img), 0);
		assert_null(d.img.damage);
		store_dump(store, "after");
		disk_kill(&d);
		assert_check("after", false);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_full, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_device, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

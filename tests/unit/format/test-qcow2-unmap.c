/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Zeroes and discards: what they cover reads as zeroes and nothing else does, space comes back, and
 * QEMU finds no fault in what is left. */

#include "both.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

static void unmap_shape(const char *shape, bool snapshot)
{
	struct disk d;

	print_message("%s%s\n", shape, snapshot ? " with a snapshot" : "");
	sh("rm -f img img.data");
	shape_fill(shape);
	sh("qemu-img convert -O raw img raw && cp raw before");
	if (snapshot)
		sh("qemu-img snapshot -c one img");
	disk_open(&d, "img", true);
	d.img.discard = true;
	change_random(&d, "raw", 60, 3000, 1);
	change_random(&d, "raw", 60, 300000, 2);
	assert_reads_as(&d, "raw");
	assert_null(d.img.damage);
	disk_close(&d);
	assert_same("raw");
	if (strstr(shape, "raw=on"))
		sh("cmp -n %d img.data raw", SHAPE_SIZE);
	if (snapshot)
		sh("qemu-img convert -l one -O raw img out && cmp out before && "
		   "qemu-img snapshot -d one img");
	assert_check("img", false);
}

static void test_shapes(void **state)
{
	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; shapes[i]; i++)
		unmap_shape(shapes[i], false);
}

static void test_snapshots(void **state)
{
	static const char *const some[] = {"compat=0.10",     "cluster_size=512",
					   "cluster_size=4k", "cluster_size=2M",
					   "extended_l2=on",  "extended_l2=on,cluster_size=16k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		unmap_shape(some[i], true);
}

/* What is zeroed must not show the backing image, which is shorter than the disk here. */
static void test_backing(void **state)
{
	static const char *const tops[] = {"compat=0.10",
					   "cluster_size=512",
					   "cluster_size=64k",
					   "extended_l2=on",
					   "cluster_size=2M",
					   "extended_l2=on,cluster_size=16k",
					   "compat=0.10,cluster_size=4k"};
	struct disk base, d;

	if (!harness_have_qemu())
		skip();
	base_make();
	for (size_t i = 0; i < ARRAY_SIZE(tops); i++) {
		base_open(&base, &d, tops[i], 8000000);
		change_random(&d, "raw", 60, 100000, 6);
		change_random(&d, "raw", 6, 5000000, 8);
		base_close(&base, &d);
	}
}

static uint64_t allocated(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct store_stat st;
	struct store *s;
	struct diag diag;

	assert_true(fd >= 0);
	assert_int_equal(store_file_new(TAKE_FD(fd), path, &s, &diag), 0);
	assert_int_equal(store_stat(s, &st), 0);
	store_close(s);
	return st.allocated;
}

/* Space goes back to the host once a flush has made the discard durable, and only when asked for.
 */
static void test_space(void **state)
{
	static const char *const some[] = {"cluster_size=64k", "compat=0.10", "extended_l2=on",
					   "cluster_size=4k", "data_file=img.data"};
	uint64_t full;
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		const char *file = strstr(some[i], "data_file") ? "img.data" : "img";

		sh("rm -f img img.data; qemu-img create -q -f qcow2 -o %s img 32M", some[i]);
		sh("qemu-io -c 'write -P 7 0 32M' img >/dev/null");
		full = allocated(file);
		disk_open(&d, "img", true);
		d.img.discard = true;
		assert_int_equal(disk_unmap(&d, MIB(4), MIB(16), UNMAP_ZERO), 0);
		assert_int_equal(disk_flush(&d), 0);
		/* Version 2 has no other way to say zero than to say nothing */
		if (!strstr(some[i], "compat"))
			assert_true(allocated(file) >= full);
		assert_int_equal(disk_unmap(&d, MIB(4), MIB(16), UNMAP_DISCARD), 0);
		assert_int_equal(disk_flush(&d), 0);
		assert_true(allocated(file) <= full - MIB(15));
		disk_close(&d);
		assert_check("img", false);
	}
}

/* Zeroes in place of data keep its cluster, and a later write goes there. */
static void test_keeps_cluster(void **state)
{
	struct extent before, after;
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 img 1M && qemu-io -c 'write -P 7 0 1M' img >/dev/null");
	disk_open(&d, "img", true);
	assert_int_equal(d.img.format->map(&d.img, 65536, 65536, 0, &before), 0);
	assert_int_equal(disk_unmap(&d, 65536, 65536, UNMAP_ZERO), 0);
	assert_int_equal(d.img.format->map(&d.img, 65536, 65536, 0, &after), 0);
	assert_int_equal(after.kind, EXTENT_ZERO);
	assert_int_equal(disk_write(&d, "x", 1, 70000), 0);
	assert_int_equal(d.img.format->map(&d.img, 65536, 65536, 0, &after), 0);
	assert_int_equal(after.kind, EXTENT_DATA);
	assert_int_equal(after.host_off, before.host_off);
	disk_close(&d);
	assert_check("img", false);
	sh("truncate -s 1 want; qemu-io -r -c 'read -P 0 64k 4464' -c 'read -P 0 70001 61071' "
	   "-c 'read -P 7 128k 1k' img | grep -q 'verification failed' && exit 1 || true");
}

/* A disk of which nothing was ever written has nothing to say, however large it is. */
static void test_empty(void **state)
{
	struct store_stat before, after;
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 img 1T");
	disk_open(&d, "img", true);
	assert_int_equal(store_stat(d.img.store, &before), 0);
	assert_int_equal(disk_unmap(&d, 65536, TIB(1) - 65536, UNMAP_DISCARD), 0);
	assert_int_equal(disk_unmap(&d, 0, TIB(1), UNMAP_ZERO), 0);
	assert_int_equal(store_stat(d.img.store, &after), 0);
	assert_int_equal(after.allocated, before.allocated);
	disk_close(&d);
	assert_check("img", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shapes, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_snapshots, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_backing, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_space, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_keeps_cluster, harness_setup,
						harness_teardown),
		cmocka_unit_test_setup_teardown(test_empty, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Images made by QEMU in many shapes read as QEMU reads them. */

#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static const char *const shapes[] = {
	"compat=0.10",
	"compat=0.10,cluster_size=512",
	"cluster_size=512",
	"cluster_size=1k",
	"cluster_size=2k",
	"cluster_size=4k",
	"cluster_size=8k",
	"cluster_size=16k",
	"cluster_size=32k",
	"cluster_size=64k",
	"cluster_size=128k",
	"cluster_size=256k",
	"cluster_size=512k",
	"cluster_size=1M",
	"cluster_size=2M",
	"refcount_bits=1",
	"refcount_bits=64,cluster_size=4k",
	"compression_type=zstd",
	"compression_type=zstd,cluster_size=4k",
	"compression_type=zstd,cluster_size=2M",
	"extended_l2=on,cluster_size=16k",
	"extended_l2=on",
	"extended_l2=on,cluster_size=2M",
	"extended_l2=on,compression_type=zstd",
	"lazy_refcounts=on",
	"preallocation=metadata",
	"preallocation=falloc,cluster_size=16k",
	"data_file=img.data",
	"data_file=img.data,data_file_raw=on",
	"data_file=img.data,extended_l2=on",
};

/* Writes, zeroes and discards at odd places, and compressed clusters where the shape can have them.
 * The disk ends inside a cluster. */
static void fill(const char *shape)
{
	bool compress = !strstr(shape, "data_file") && !strstr(shape, "prealloc");

	sh("qemu-img create -q -f qcow2 -o %s img 9000960", shape);
	sh("qemu-io -c 'write -P 1 0 100k' -c 'write -P 2 300k 512' -c 'write -P 3 1000001 70001' "
	   "-c 'write -P 4 2M 3M' -c 'write -z 2500k 300k' -c 'write -z 5M 100k' "
	   "-c 'discard 3M 400k' -c 'write -P 6 8999936 1024' img >/dev/null");
	if (compress)
		sh("qemu-io -c 'write -c -P 5 6M 2M' img >/dev/null");
	sh("qemu-io -c 'write -P 9 6300k 20k' img >/dev/null");
}

static void test_shapes(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		print_message("%s\n", shapes[i]);
		sh("rm -f img img.data");
		fill(shapes[i]);
		sh("qemu-img convert -O raw img raw");
		disk_open(&d, "img", false);
		assert_int_equal(d.img.size, 9000960);
		assert_reads_as(&d, "raw");
		assert_null(d.img.damage);
		disk_close(&d);
	}
}

/* Everything compressed, text and noise. */
static void test_compressed(void **state)
{
	static const char *const kinds[] = {"zlib", "zstd"};
	static const char *const sizes[] = {"512", "4k", "64k", "2M"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("{ seq 1 400000; head -c 700000 /dev/urandom; seq 1 100000; } >raw; truncate -s %%512 "
	   "raw");
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
			struct extent ext;

			sh("qemu-img convert -c -f raw -O qcow2 -o "
			   "compression_type=%s,cluster_size=%s "
			   "raw img",
			   kinds[k], sizes[s]);
			disk_open(&d, "img", false);
			assert_int_equal(d.img.format->map(&d.img, 1000, 1, 0, &ext), 0);
			assert_int_equal(ext.kind, EXTENT_PACKED);
			assert_int_equal(ext.len, d.img.unit);
			assert_reads_as(&d, "raw");
			disk_close(&d);
		}
}

/* A run of clusters that stand in a row is one extent, whatever slices and tables it spans. */
static void test_runs(void **state)
{
	struct extent ext;
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 img 1T");
	disk_open(&d, "img", false);
	assert_int_equal(d.img.format->map(&d.img, 0, d.img.size, 0, &ext), 0);
	assert_int_equal(ext.kind, EXTENT_PARENT);
	assert_int_equal(ext.len, d.img.size);
	disk_close(&d);

	sh("qemu-img create -q -f qcow2 -o cluster_size=4k img 64M");
	sh("qemu-io -c 'write -P 1 1M 1M' -c 'write -z 8M 8M' img >/dev/null");
	disk_open(&d, "img", false);
	assert_int_equal(d.img.format->map(&d.img, MIB(1) + 5, MIB(1), MAP_NOWAIT, &ext), -EAGAIN);
	assert_int_equal(d.img.format->map(&d.img, MIB(1) + 5, MIB(1), 0, &ext), 0);
	assert_int_equal(ext.kind, EXTENT_DATA);
	assert_int_equal(ext.len, MIB(1) - 5);
	assert_false(ext.shared);
	assert_int_equal(d.img.format->map(&d.img, MIB(1) + 5, MIB(1), MAP_NOWAIT, &ext), 0);
	assert_int_equal(d.img.format->map(&d.img, MIB(9), MIB(50), 0, &ext), 0);
	assert_int_equal(ext.kind, EXTENT_ZERO);
	disk_close(&d);

	sh("qemu-img snapshot -c s img");
	disk_open(&d, "img", false);
	assert_int_equal(d.img.format->map(&d.img, MIB(1), MIB(1), 0, &ext), 0);
	assert_int_equal(ext.kind, EXTENT_DATA);
	assert_true(ext.shared);
	disk_close(&d);
}

static void test_names(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f raw base.raw 1M");
	sh("qemu-img create -q -f qcow2 -b base.raw -F raw img");
	disk_open(&d, "img", false);
	assert_string_equal(d.img.backing_name, "base.raw");
	assert_string_equal(d.img.backing_format, "raw");
	assert_null(d.img.data_name);
	disk_close(&d);

	sh("qemu-img create -q -f qcow2 -o data_file=img.data img 1M");
	disk_open(&d, "img", false);
	assert_string_equal(d.img.data_name, "img.data");
	assert_null(d.img.backing_name);
	disk_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shapes, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_compressed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_runs, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_names, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

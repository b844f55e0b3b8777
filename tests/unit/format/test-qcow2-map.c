/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Images made by QEMU in many shapes read as QEMU reads them. */

#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static void test_shapes(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; shapes[i]; i++) {
		print_message("%s\n", shapes[i]);
		sh("rm -f img img.data");
		shape_fill(shapes[i]);
		sh("qemu-img convert -O raw img raw");
		disk_open(&d, "img", false);
		assert_int_equal(d.img.size, SHAPE_SIZE);
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

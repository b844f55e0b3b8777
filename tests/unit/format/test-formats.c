/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of drivers, and raw. */

#include "crafted.h"
#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "store/fault.h"

static void test_by_name(void **state)
{
	assert_string_equal(format_by_name("raw")->name, "raw");
	assert_string_equal(format_by_name("qcow2")->name, "qcow2");
	assert_null(format_by_name("qcow"));
	assert_null(format_by_name(""));
	assert_null(format_by_name("auto"));
}

/* The driver whose magic stands at the head of some bytes. */
static const char *probe(const void *bytes, size_t len)
{
	_cleanup_store_ struct store *s = NULL;
	const struct format *format = format_by_name("raw");

	assert_int_equal(store_memory_from("img", bytes, len, MIB(1), &s), 0);
	assert_int_equal(format_probe(s, &format), 0);
	return format ? format->name : NULL;
}

static void test_probe(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();

	assert_string_equal(probe(image, CRAFTED_BYTES), "qcow2");
	assert_string_equal(probe("QFI\xfb", 4), "qcow2");
	assert_null(probe("QFI", 3));
	assert_null(probe("", 0));
	assert_null(probe("QFI\xfa and more", 13));
	assert_null(probe(image + 1, 4096));
}

static void test_probe_error(void **state)
{
	_cleanup_store_ struct store *s = NULL;
	struct fault_rule rule = {.ops = FAULT_READ, .error = -EIO};
	const struct format *format = NULL;

	assert_int_equal(store_memory_new("img", MIB(1), &s), 0);
	assert_int_equal(store_fault_new(TAKE_PTR(s), &s), 0);
	assert_int_equal(store_fault_add(s, &rule), 0);
	assert_int_equal(format_probe(s, &format), -EIO);
}

static void test_info_full(void **state)
{
	struct format_info info = {0};
	char wide[300];

	memset(wide, 'x', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	for (int i = 0; i < FORMAT_INFO_MAX + 5; i++)
		format_info_add(&info, "key", "%d %s", i, wide);
	assert_int_equal(info.n, FORMAT_INFO_MAX);
	assert_int_equal(strlen(info.items[0].value), sizeof(info.items[0].value) - 1);
	assert_memory_equal(info.items[3].value, "3 xx", 4);
}

static void test_info_qcow2(void **state)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct format_info info = {0};
	struct diag diag = {0};
	struct store *s;
	struct disk d;

	assert_int_equal(store_memory_from("img", image, CRAFTED_BYTES, MIB(1), &s), 0);
	assert_int_equal(disk_open_store(&d, s, "qcow2", false, &diag), 0);
	d.img.format->info(&d.img, &info);
	assert_true(info.n >= 5);
	for (size_t i = 0; i < info.n; i++) {
		if (strcmp(info.items[i].key, "cluster_size") == 0)
			assert_string_equal(info.items[i].value, "65536");
		if (strcmp(info.items[i].key, "refcount_bits") == 0)
			assert_string_equal(info.items[i].value, "16");
	}
	disk_close(&d);
}

/* Only the first sentence is kept: what follows a damaged table says less. */
static void test_damaged(void **state)
{
	struct image img = {0};

	assert_int_equal(image_damaged(&img, "table %d", 1), -EUCLEAN);
	assert_int_equal(image_damaged(&img, "table %d", 2), -EUCLEAN);
	assert_string_equal(img.damage, "table 1");
	free(img.damage);
}

static void test_raw(void **state)
{
	struct diag diag = {0};
	struct extent ext;
	struct store *s;
	struct disk d;
	uint64_t done;
	char buf[3000];

	pattern(buf, sizeof(buf), 0, 1);
	assert_int_equal(store_memory_from("disk", buf, sizeof(buf), MIB(1), &s), 0);
	assert_int_equal(disk_open_store(&d, s, "raw", true, &diag), 0);
	assert_int_equal(d.img.size, sizeof(buf));
	assert_int_equal(d.img.unit, 1);
	assert_int_equal(d.img.format->map(&d.img, 7, 100, MAP_NOWAIT, &ext), 0);
	assert_int_equal(ext.kind, EXTENT_DATA);
	assert_int_equal(ext.off, 7);
	assert_int_equal(ext.len, 100);
	assert_int_equal(ext.host_off, 7);
	assert_ptr_equal(ext.store, s);
	assert_false(ext.shared);

	assert_int_equal(d.img.format->unmap(&d.img, 10, 20, UNMAP_DISCARD, &done), 0);
	assert_int_equal(done, 20);
	assert_int_equal(d.img.format->unmap(&d.img, 40, 10, UNMAP_ZERO, &done), 0);
	memset(buf + 10, 0, 20);
	memset(buf + 40, 0, 10);
	{
		char have[sizeof(buf)];

		assert_int_equal(disk_read(&d, have, sizeof(have), 0), 0);
		assert_memory_equal(have, buf, sizeof(buf));
	}
	assert_int_equal(d.img.format->resize(&d.img, 5000, &diag), 0);
	assert_int_equal(d.img.size, 5000);
	assert_int_equal(d.img.format->resize(&d.img, MIB(2), &diag), -ENOSPC);
	assert_non_null(strstr(diag.text, "disk: cannot change its size"));
	assert_int_equal(d.img.size, 5000);
	disk_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_name),	    cmocka_unit_test(test_probe),
		cmocka_unit_test(test_probe_error), cmocka_unit_test(test_info_full),
		cmocka_unit_test(test_info_qcow2),  cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_raw),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

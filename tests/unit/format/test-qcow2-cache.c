/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables in memory: a disk of 64 TiB opens at once and in little memory, and whoever walks over it
 * takes no more than he was given; what is read is right, however small that is. */

#include "harness.h"

#include <malloc.h>
#include <stdlib.h>
#include <time.h>

#include "base/checked.h"
#include "base/cleanup.h"

#define LARGE_SIZE (UINT64_C(64) << 40)
#define LARGE_STEP (UINT64_C(16) << 30) /* bytes of the disk between two tables in use */

enum { LARGE_TABLES = 4096, OPEN_MS_MAX = 200 };

/* Bytes that are allocated now; 0 where the sanitizers keep the books. */
static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* Of our own time: the machine may do other things. */
static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A byte in every table, which says which one it is. */
static void make_large(void)
{
	struct disk d;

	sh("qemu-img create -q -f qcow2 img 64T");
	disk_open(&d, "img", true);
	assert_int_equal(d.img.size, LARGE_SIZE);
	for (uint64_t i = 0; i < LARGE_TABLES; i++) {
		uint8_t byte = (uint8_t)(i % 251);

		assert_int_equal(disk_write(&d, &byte, 1, i * LARGE_STEP), 0);
	}
	disk_close(&d);
}

static void read_all(struct disk *d)
{
	for (uint64_t i = 0; i < LARGE_TABLES; i++) {
		uint8_t byte = 0;

		assert_int_equal(disk_read(d, &byte, 1, i * LARGE_STEP), 0);
		assert_int_equal(byte, i % 251);
	}
}

static void test_large(void **state)
{
	/* The tables of this disk that are in use are 16 MiB in slices of 4 KiB */
	static const uint64_t bounds[] = {0, KIB(256), MIB(1), MIB(32)};

	if (!harness_have_qemu())
		skip();
	make_large();
	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		uint64_t bound = bounds[i] ? bounds[i] : FORMAT_TABLE_CACHE;
		size_t before = in_use(), opened, read;
		uint64_t began = now_ms();
		struct disk d;

		disk_open_bounded(&d, "img", bounds[i]);
		began = now_ms() - began;
		opened = in_use() - before;
		read_all(&d);
		read_all(&d);
		read = in_use() - before;
		print_message("%zu KiB: open %llu ms, %zu KiB, after reading %zu KiB\n",
			      (size_t)bound / 1024, (unsigned long long)began, opened / 1024,
			      read / 1024);
		/* L1 of 1 MiB, and what goes with each slice */
		assert_in_range(read, 0, bound + bound / 64 + MIB(1) + KIB(64));
		assert_in_range(opened, 0, bounds[i] ? read : MIB(16));
		assert_in_range(began, 0, OPEN_MS_MAX);
		disk_close(&d);
	}
	assert_check("img", false);
}

/* Every kind of image, read in a random order with room for few of its tables. */
static void test_small_bound(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=4k,refcount_bits=64",
					   "extended_l2=on,cluster_size=16k"};
	_cleanup_free_ char *have = malloc(4096), *want = malloc(4096);
	struct disk full, bounded;
	uint64_t rng = 1;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		sh("rm -f img");
		shape_fill(some[i]);
		disk_open_bounded(&full, "img", GIB(1));
		disk_open_bounded(&bounded, "img", 1);
		for (int n = 0; n < 5000; n++) {
			uint64_t off = random_next(&rng) % (SHAPE_SIZE - 4096);

			assert_int_equal(disk_read(&full, want, 4096, off), 0);
			assert_int_equal(disk_read(&bounded, have, 4096, off), 0);
			assert_memory_equal(have, want, 4096);
		}
		disk_close(&full);
		disk_close(&bounded);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_large, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_small_bound, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

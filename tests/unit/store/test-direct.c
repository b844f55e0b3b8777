/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* O_DIRECT, which nobody above notices: any offset, any buffer, and neighbours in one sector. */

#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"

enum { SIZE = 1 << 20 };

static uint64_t size_of(struct store *s)
{
	uint64_t size;

	assert_int_equal(store_size(s, &size), 0);
	return size;
}

static struct store *device(unsigned sector)
{
	int fd = host_loop(O_RDWR | O_DIRECT, SIZE, sector);
	struct store *s = NULL;

	if (fd < 0)
		skip();
	assert_int_equal(store_file_new(fd, "loop", &s, NULL), 0);
	return s;
}

/* Random writes and zeroes of any shape against a plain array, then reads of any shape. */
static void against_model(struct store *s, uint64_t size)
{
	_cleanup_free_ unsigned char *model = calloc(1, SIZE), *buf = malloc(SIZE + 4096);
	uint64_t seed = 88172645463325252ull;

	for (int i = 0; i < 300; i++) {
		uint64_t max = size == SIZE ? SIZE : min_u64(SIZE, size + 10000);
		uint64_t off = host_random(&seed) % max;
		uint64_t len = host_random(&seed) % min_u64(max - off, i % 3 ? 6000 : SIZE);
		unsigned char *at = buf + host_random(&seed) % 4096;

		if (i % 5 == 0) {
			off = round_down(off, 4096);
			len = round_down(len, 4096);
		}
		host_pattern(at, len, off, (unsigned)i);
		if (i % 7 == 0) {
			len = off < size ? min_u64(len, size - off) : 0;
			memset(at, 0, len);
			assert_int_equal(store_zero(s, off, len), 0);
		} else {
			assert_int_equal(store_write(s, at, len, off), 0);
			size = len ? max_u64(size, off + len) : size;
		}
		memcpy(model + off, at, len);
		assert_int_equal(size_of(s), size);
	}
	for (int i = 0; i < 200; i++) {
		uint64_t off = host_random(&seed) % SIZE;
		uint64_t len = i ? host_random(&seed) % (SIZE - off) : SIZE;
		uint64_t there = off < size ? min_u64(len, size - off) : 0;
		unsigned char *at = buf + host_random(&seed) % 4096;

		assert_int_equal(store_read(s, at, len, off), there);
		assert_memory_equal(at, model + off, there);
	}
	assert_int_equal(store_flush(s), 0);
}

static void test_file_against_model(void **state)
{
	_cleanup_store_ struct store *s = host_store(HOST_DISK, O_RDWR | O_DIRECT, 0);

	assert_int_equal(store_fd(s), -1);
	against_model(s, 0);
}

static void test_device_against_model(void **state)
{
	_cleanup_store_ struct store *s = device(512);

	against_model(s, SIZE);
}

static void test_device_with_large_sectors_against_model(void **state)
{
	_cleanup_store_ struct store *s = device(4096);

	against_model(s, SIZE);
}

/* The end of the file cuts a sector: it must neither grow nor be cut off. */
static void test_end_of_file(void **state)
{
	int fd = host_file(HOST_DISK, O_RDWR | O_DIRECT, 5000);
	_cleanup_store_ struct store *s = NULL;
	char buf[8192];

	assert_int_equal(store_file_new(fd, "test.img", &s, NULL), 0);
	assert_int_equal(store_write(s, "tail", 4, 4996), 0);
	assert_int_equal(size_of(s), 5000);
	assert_int_equal(store_write(s, "more", 4, 5000), 0);
	assert_int_equal(size_of(s), 5004);
	assert_int_equal(store_read(s, buf, sizeof(buf), 4990), 14);
	assert_memory_equal(buf, "\0\0\0\0\0\0tailmore", 14);
	assert_int_equal(store_read(s, buf, sizeof(buf), 5004), 0);
	assert_int_equal(store_read(s, buf, sizeof(buf), 9000), 0);
	assert_int_equal(store_read(s, buf, sizeof(buf), (uint64_t)INT64_MAX - 9000), 0);
	assert_true(fcntl(fd, F_GETFL) & O_DIRECT); /* as it was */
}

enum {
	WORKERS = 4,
	PIECE = 100,
};

/* Each has every fourth piece of 100 bytes, and now and then 4096 of its own in the upper half. */
static int work(struct store *s, unsigned id)
{
	unsigned char buf[4096];

	for (uint64_t i = 0; i < 250; i++) {
		uint64_t off = (i * WORKERS + id) * PIECE;
		uint64_t far = SIZE / 2 + (i * WORKERS + id) * 256;

		host_pattern(buf, PIECE, off, id);
		if (store_write(s, buf, PIECE, off) < 0)
			return -1;
		if (i % 4 == 0 && store_zero(s, off + 20, 30) < 0)
			return -1;
		host_pattern(buf, 256, far, id);
		if (store_write(s, buf, 256, far) < 0)
			return -1;
		if (store_read_full(s, buf, PIECE, off) < 0)
			return -1;
	}
	return 0;
}

static void assert_piece(struct store *s, uint64_t i)
{
	uint64_t off = i * PIECE, far = SIZE / 2 + i * 256;
	unsigned char buf[256], zeroes[30] = {0};

	assert_int_equal(store_read_full(s, buf, PIECE, off), 0);
	if (i / WORKERS % 4 == 0) {
		assert_memory_equal(buf + 20, zeroes, 30);
		host_pattern(buf + 20, 30, off + 20, (unsigned)(i % WORKERS));
	}
	host_assert_pattern(buf, PIECE, off, (unsigned)(i % WORKERS));
	assert_int_equal(store_read_full(s, buf, 256, far), 0);
	host_assert_pattern(buf, 256, far, (unsigned)(i % WORKERS));
}

static void neighbours(struct store *s)
{

	host_threads(WORKERS, work, s);
	for (uint64_t i = 0; i < 250 * WORKERS; i++)
		assert_piece(s, i);
}

static void test_neighbours_in_a_sector(void **state)
{
	_cleanup_store_ struct store *s = host_store(HOST_DISK, O_RDWR | O_DIRECT, SIZE);

	neighbours(s);
}

/* The same while the file grows under them. */
static void test_neighbours_at_the_end(void **state)
{
	_cleanup_store_ struct store *s = host_store(HOST_DISK, O_RDWR | O_DIRECT, 0);

	neighbours(s);
	assert_int_equal(size_of(s), SIZE / 2 + 250 * WORKERS * 256);
}

static void test_neighbours_on_a_device(void **state)
{
	_cleanup_store_ struct store *s = device(4096);

	neighbours(s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file_against_model),
		cmocka_unit_test(test_device_against_model),
		cmocka_unit_test(test_device_with_large_sectors_against_model),
		cmocka_unit_test(test_end_of_file),
		cmocka_unit_test(test_neighbours_in_a_sector),
		cmocka_unit_test(test_neighbours_at_the_end),
		cmocka_unit_test(test_neighbours_on_a_device),
	};

	return cmocka_run_group_tests_name("store/direct", tests, NULL, NULL);
}

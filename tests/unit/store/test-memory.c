/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static struct store *memory(uint64_t limit)
{
	struct store *s;

	assert_int_equal(store_memory_new("memory", limit, &s), 0);
	return s;
}

static uint64_t size_of(struct store *s)
{
	uint64_t size;

	assert_int_equal(store_size(s, &size), 0);
	return size;
}

static uint64_t allocated(struct store *s)
{
	struct store_stat st;

	assert_int_equal(store_stat(s, &st), 0);
	return st.allocated;
}

static void test_grows_as_written(void **state)
{
	_cleanup_store_ struct store *s = memory(MIB(64));
	static unsigned char buf[100000];

	assert_int_equal(size_of(s), 0);
	host_pattern(buf, sizeof(buf), 5000, 1);
	assert_int_equal(store_write(s, buf, sizeof(buf), 5000), 0);
	assert_int_equal(size_of(s), 105000);
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(store_read(s, buf, 5000, 0), 5000);
	host_assert_zero(buf, 5000);
	assert_int_equal(store_read(s, buf, sizeof(buf), 5000), sizeof(buf));
	host_assert_pattern(buf, sizeof(buf), 5000, 1);
	assert_int_equal(store_read(s, buf, sizeof(buf), 104990), 10);
	assert_int_equal(store_read(s, buf, sizeof(buf), 105000), 0);
}

static void test_from(void **state)
{
	_cleanup_store_ struct store *s = NULL;
	struct store *none = NULL;
	char buf[6];

	assert_int_equal(store_memory_from("m", "hello", 6, 6, &s), 0);
	assert_string_equal(s->name, "m");
	assert_int_equal(store_read_full(s, buf, 6, 0), 0);
	assert_string_equal(buf, "hello");
	assert_int_equal(store_memory_from("m", "hello", 6, 5, &none), -ENOSPC);
	assert_null(none);
}

static void test_limit(void **state)
{
	_cleanup_store_ struct store *s = memory(10000);

	assert_int_equal(store_write(s, "xy", 2, 9998), 0);
	assert_int_equal(store_write(s, "xy", 2, 9999), -ENOSPC);
	assert_int_equal(store_write(s, "xy", 2, (uint64_t)INT64_MAX - 2), -ENOSPC);
	assert_int_equal(store_allocate(s, 9000, 2000), -ENOSPC);
	assert_int_equal(store_resize(s, 10001), -ENOSPC);
	assert_int_equal(size_of(s), 10000);
}

/* A byte at the far end costs a page, and everything before it is a hole. */
static void test_sparse(void **state)
{
	_cleanup_store_ struct store *s = memory(INT64_MAX);
	uint64_t far = TIB(1) + 4096 * 3, len;
	char c = 0;
	bool data;

	assert_int_equal(store_write(s, "a", 1, 0), 0);
	assert_int_equal(store_write(s, "z", 1, far), 0);
	assert_int_equal(store_write(s, "!", 1, (uint64_t)INT64_MAX - 1), 0);
	assert_int_equal(allocated(s), 3 * 4096);
	assert_int_equal(store_read(s, &c, 1, far), 1);
	assert_int_equal(c, 'z');
	assert_int_equal(store_read(s, &c, 1, (uint64_t)INT64_MAX - 1), 1);
	assert_int_equal(c, '!');
	assert_int_equal(store_read(s, &c, 1, GIB(700)), 1);
	assert_int_equal(c, 0);

	assert_int_equal(store_map(s, 0, TIB(8), &data, &len), 0);
	assert_true(data);
	assert_int_equal(len, 4096);
	assert_int_equal(store_map(s, 5000, TIB(8), &data, &len), 0);
	assert_false(data);
	assert_int_equal(len, far - 5000);
	assert_int_equal(store_map(s, far, TIB(8), &data, &len), 0);
	assert_true(data);
	assert_int_equal(len, 4096);
	assert_int_equal(store_map(s, far + 4096, 10, &data, &len), 0);
	assert_false(data);
	assert_int_equal(len, 10);
}

static void test_discard_frees(void **state)
{
	_cleanup_store_ struct store *s = memory(MIB(4));
	static unsigned char buf[MIB(1)];
	uint64_t len;
	bool data;

	host_pattern(buf, sizeof(buf), 0, 1);
	assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
	assert_int_equal(allocated(s), MIB(1));
	assert_int_equal(store_discard(s, 1000, 100000), 0);
	assert_int_equal(allocated(s), MIB(1) - 23 * 4096);
	assert_int_equal(store_read_full(s, buf, sizeof(buf), 0), 0);
	host_assert_pattern(buf, 1000, 0, 1);
	host_assert_zero(buf + 1000, 100000);
	host_assert_pattern(buf + 101000, sizeof(buf) - 101000, 101000, 1);
	assert_int_equal(store_map(s, 4096, MIB(1), &data, &len), 0);
	assert_false(data);
	assert_int_equal(len, 23 * 4096);

	assert_int_equal(store_zero(s, MIB(1) - 5000, MIB(2)), 0);
	assert_int_equal(size_of(s), MIB(1));
	assert_int_equal(store_discard(s, 0, UINT64_MAX), 0);
	assert_int_equal(allocated(s), 0);
	assert_int_equal(size_of(s), MIB(1));
}

static void test_shrunk_bytes_are_gone(void **state)
{
	_cleanup_store_ struct store *s = memory(MIB(4));
	unsigned char buf[12000];

	host_pattern(buf, sizeof(buf), 0, 1);
	assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
	assert_int_equal(store_resize(s, 5000), 0);
	assert_int_equal(store_read(s, buf, sizeof(buf), 0), 5000);
	assert_int_equal(store_resize(s, 12000), 0);
	assert_int_equal(store_read(s, buf, sizeof(buf), 0), 12000);
	host_assert_pattern(buf, 5000, 0, 1);
	host_assert_zero(buf + 5000, 7000);
	assert_int_equal(store_resize(s, 0), 0);
	assert_int_equal(allocated(s), 0);
}

static void test_allocate(void **state)
{
	_cleanup_store_ struct store *s = memory(MIB(4));

	assert_int_equal(store_allocate(s, 4095, 2), 0);
	assert_int_equal(allocated(s), 8192);
	assert_int_equal(size_of(s), 0);
}

/* Random calls against a plain array. */
static void test_against_model(void **state)
{
	enum { SIZE = 1 << 20 };
	_cleanup_store_ struct store *s = memory(SIZE);
	_cleanup_free_ unsigned char *model = calloc(1, SIZE), *buf = malloc(SIZE);
	uint64_t seed = 88172645463325252ull, size = 0;

	for (int i = 0; i < 3000; i++) {
		uint64_t off = host_random(&seed) % SIZE;
		uint64_t len = host_random(&seed) % min_u64(SIZE - off, 40000);

		switch (host_random(&seed) % 6) {
		case 0:
			assert_int_equal(store_discard(s, off, len), 0);
			memset(model + off, 0, off < size ? min_u64(len, size - off) : 0);
			break;
		case 1:
			assert_int_equal(store_resize(s, off), 0);
			memset(model + off, 0, SIZE - off);
			size = off;
			break;
		default:
			host_pattern(buf, len, off, (unsigned)i);
			assert_int_equal(store_write(s, buf, len, off), 0);
			memcpy(model + off, buf, len);
			size = len ? max_u64(size, off + len) : size;
		}
		assert_int_equal(size_of(s), size);
	}
	assert_int_equal(store_read(s, buf, SIZE, 0), size);
	assert_memory_equal(buf, model, size);
}

/* Each thread has every eighth piece of 1000 bytes, so that neighbours share pages. */
static int work(struct store *s, unsigned id)
{
	unsigned char buf[1000];

	for (uint64_t i = 0; i < 400; i++) {
		uint64_t off = (i * 8 + id) * sizeof(buf);

		host_pattern(buf, sizeof(buf), off, id);
		if (store_write(s, buf, sizeof(buf), off) < 0)
			return -1;
		if (i % 3 == 0 && store_zero(s, off, 500) < 0)
			return -1;
		if (store_read_full(s, buf, sizeof(buf), off) < 0)
			return -1;
	}
	return 0;
}

static void test_threads(void **state)
{
	_cleanup_store_ struct store *s = memory(MIB(8));
	unsigned char buf[1000];

	host_threads(8, work, s);
	for (uint64_t i = 0; i < 3200; i++) {
		uint64_t off = i * sizeof(buf);
		size_t zero = i / 8 % 3 == 0 ? 500 : 0;

		assert_int_equal(store_read_full(s, buf, sizeof(buf), off), 0);
		host_assert_zero(buf, zero);
		host_assert_pattern(buf + zero, sizeof(buf) - zero, off + zero, i % 8);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows_as_written),
		cmocka_unit_test(test_from),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_discard_frees),
		cmocka_unit_test(test_shrunk_bytes_are_gone),
		cmocka_unit_test(test_allocate),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("store/memory", tests, NULL, NULL);
}

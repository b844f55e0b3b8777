/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The wrapper: what it checks, cuts and makes up for, seen from an implementation that takes notes.
 */

#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { TOY_SIZE = 200000 };

/* Fixed bytes that can be read and written, and nothing else. */
struct toy {
	struct store store;
	unsigned char bytes[TOY_SIZE];
	unsigned writes, zeroes, resizes;
	int zero_answer;
};

static struct toy *toy_of(struct store *s)
{
	return (struct toy *)s;
}

static void toy_close(struct store *s)
{
	free(s);
}

static ssize_t toy_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	if (off >= TOY_SIZE)
		return 0;
	len = (size_t)min_u64(len, TOY_SIZE - off);
	memcpy(buf, toy_of(s)->bytes + off, len);
	return (ssize_t)len;
}

static int toy_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	assert_true(range_inside(off, len, TOY_SIZE));
	memcpy(toy_of(s)->bytes + off, buf, len);
	toy_of(s)->writes++;
	return 0;
}

static int toy_zero(struct store *s, uint64_t off, uint64_t len)
{
	toy_of(s)->zeroes++;
	return toy_of(s)->zero_answer;
}

static int toy_resize(struct store *s, uint64_t size)
{
	toy_of(s)->resizes++;
	return 0;
}

static int toy_stat(struct store *s, struct store_stat *ret)
{
	ret->size = TOY_SIZE;
	return 0;
}

static const struct store_ops toy_bare_ops = {
	.kind = "toy", .close = toy_close, .read = toy_read, .write = toy_write, .stat = toy_stat};
static const struct store_ops toy_ops = {
	.kind = "toy",
	.close = toy_close,
	.read = toy_read,
	.write = toy_write,
	.stat = toy_stat,
	.zero = toy_zero,
	.resize = toy_resize,
};
static const struct store_ops toy_read_ops = {
	.kind = "toy", .close = toy_close, .read = toy_read, .stat = toy_stat};

static struct store *toy_new(const struct store_ops *ops, bool read_only)
{
	struct toy *toy = calloc(1, sizeof(*toy));

	assert_int_equal(store_init(&toy->store, ops, "toy", read_only), 0);
	host_pattern(toy->bytes, TOY_SIZE, 0, 1);
	return &toy->store;
}

static void test_close_takes_null(void **state)
{
	assert_null(store_close(NULL));
}

static void test_read_short_at_end(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_ops, false);
	char buf[100];

	assert_int_equal(store_read(s, buf, 100, TOY_SIZE - 40), 40);
	assert_int_equal(store_read_full(s, buf, 100, TOY_SIZE - 40), -EIO);
	assert_int_equal(store_read_full(s, buf, 40, TOY_SIZE - 40), 0);
	assert_int_equal(store_read(s, buf, 100, TOY_SIZE), 0);
	assert_int_equal(store_read(s, buf, 100, UINT64_MAX), 0);
	assert_int_equal(store_read(s, buf, 100, (uint64_t)INT64_MAX - 10), 0);
	assert_int_equal(store_read(s, buf, 0, 0), 0);
}

static void test_read_only(void **state)
{
	static const struct store_ops *const all[] = {&toy_ops, &toy_read_ops};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		_cleanup_store_ struct store *s = toy_new(all[i], i == 0);

		assert_true(s->read_only);
		assert_int_equal(store_write(s, "x", 1, 0), -EROFS);
		assert_int_equal(store_write(s, "", 0, 0), -EROFS);
		assert_int_equal(store_zero(s, 0, 1), -EROFS);
		assert_int_equal(store_discard(s, 0, 1), -EROFS);
		assert_int_equal(store_allocate(s, 0, 1), -EROFS);
		assert_int_equal(store_resize(s, 1), -EROFS);
		assert_int_equal(store_flush(s), 0);
	}
}

static void test_fixed(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_ops, false);

	s->fixed = true;
	s->fixed_size = TOY_SIZE;
	assert_int_equal(store_write(s, "xy", 2, TOY_SIZE - 1), -ENOSPC);
	assert_int_equal(store_write(s, "xy", 2, TOY_SIZE), -ENOSPC);
	assert_int_equal(store_allocate(s, TOY_SIZE - 1, 2), -ENOSPC);
	assert_int_equal(toy_of(s)->writes, 0);
	assert_int_equal(store_write(s, "xy", 2, TOY_SIZE - 2), 0);
	assert_int_equal(store_resize(s, TOY_SIZE), 0);
	assert_int_equal(store_resize(s, TOY_SIZE + 1), -ENOSPC);
	assert_int_equal(store_resize(s, TOY_SIZE - 1), -EOPNOTSUPP);
	assert_int_equal(toy_of(s)->resizes, 0);
}

static void test_offsets_that_no_file_has(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_ops, false);

	assert_int_equal(store_write(s, "xy", 2, INT64_MAX), -EFBIG);
	assert_int_equal(store_write(s, "xy", 2, UINT64_MAX), -EFBIG);
	assert_int_equal(store_allocate(s, UINT64_MAX, UINT64_MAX), -EFBIG);
	assert_int_equal(store_resize(s, UINT64_MAX), -EFBIG);
	assert_int_equal(store_zero(s, UINT64_MAX - 1, 10), 0);
	assert_int_equal(toy_of(s)->zeroes, 0);
}

/* Bytes before `off` and behind `off + len` as they were, zeroes between. */
static void assert_zeroed(struct toy *toy, uint64_t off, uint64_t len)
{
	host_assert_pattern(toy->bytes, off, 0, 1);
	host_assert_zero(toy->bytes + off, len);
	host_assert_pattern(toy->bytes + off + len, TOY_SIZE - off - len, off + len, 1);
}

static void test_zero_is_written_where_it_must(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_bare_ops, false);

	assert_int_equal(store_zero(s, 777, 150000), 0);
	assert_zeroed(toy_of(s), 777, 150000);
	assert_int_equal(toy_of(s)->writes, 3);
}

static void test_zero_falls_back(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_ops, false);

	toy_of(s)->zero_answer = -EOPNOTSUPP;
	assert_int_equal(store_zero(s, 1, 1000), 0);
	assert_zeroed(toy_of(s), 1, 1000);
	assert_int_equal(toy_of(s)->zeroes, 1);

	toy_of(s)->zero_answer = -EIO;
	assert_int_equal(store_zero(s, 5000, 1000), -EIO);
	assert_zeroed(toy_of(s), 1, 1000);
}

static void test_zero_never_grows(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_bare_ops, false);

	assert_int_equal(store_zero(s, TOY_SIZE - 10, MIB(1)), 0);
	assert_zeroed(toy_of(s), TOY_SIZE - 10, 10);
	assert_int_equal(store_zero(s, TOY_SIZE, 1), 0);
	assert_int_equal(toy_of(s)->writes, 1);
}

static void test_absent_operations(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_bare_ops, false);

	assert_int_equal(store_discard(s, 0, 512), -EOPNOTSUPP);
	assert_int_equal(store_allocate(s, 0, 512), -EOPNOTSUPP);
	assert_int_equal(store_resize(s, 512), -EOPNOTSUPP);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_fd(s), -1);
}

static void test_map_without_map(void **state)
{
	_cleanup_store_ struct store *s = toy_new(&toy_bare_ops, false);
	uint64_t len;
	bool data;

	assert_int_equal(store_map(s, 10, 100, &data, &len), 0);
	assert_true(data);
	assert_int_equal(len, 100);
	assert_int_equal(store_map(s, TOY_SIZE - 30, 100, &data, &len), 0);
	assert_true(data);
	assert_int_equal(len, 30);
	assert_int_equal(store_map(s, TOY_SIZE, 100, &data, &len), 0);
	assert_false(data);
	assert_int_equal(len, 100);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close_takes_null),
		cmocka_unit_test(test_read_short_at_end),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_fixed),
		cmocka_unit_test(test_offsets_that_no_file_has),
		cmocka_unit_test(test_zero_is_written_where_it_must),
		cmocka_unit_test(test_zero_falls_back),
		cmocka_unit_test(test_zero_never_grows),
		cmocka_unit_test(test_absent_operations),
		cmocka_unit_test(test_map_without_map),
	};

	return cmocka_run_group_tests_name("store/store", tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/fault.h"

#include "host.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

static struct store *faulty(void)
{
	struct store *inner, *s;

	assert_int_equal(store_memory_new("inner", MIB(1), &inner), 0);
	assert_int_equal(store_fault_new(inner, &s), 0);
	return s;
}

static void arm(struct store *s, struct fault_rule rule)
{
	assert_int_equal(store_fault_add(s, &rule), 0);
}

static void test_passes_through(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	uint64_t size, len;
	char buf[6] = "";
	bool data;

	assert_string_equal(s->name, "inner");
	assert_int_equal(store_write(s, "hello", 6, 0), 0);
	assert_int_equal(store_read_full(s, buf, 6, 0), 0);
	assert_string_equal(buf, "hello");
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_resize(s, 100), 0);
	assert_int_equal(store_size(s, &size), 0);
	assert_int_equal(size, 100);
	assert_int_equal(store_map(s, 0, 10, &data, &len), 0);
	assert_true(data);
	assert_int_equal(store_allocate(s, 0, MIB(2)), -ENOSPC);
	assert_int_equal(store_fault_calls(s, FAULT_WRITE), 1);
	assert_int_equal(store_fault_calls(s, FAULT_WRITE | FAULT_FLUSH | FAULT_RESIZE), 3);
	assert_int_equal(store_fault_failures(s), 0);
}

static void test_nth_call_once(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	char c;

	arm(s, (struct fault_rule){.ops = FAULT_WRITE, .skip = 2, .times = 1, .error = -ENOSPC});
	assert_int_equal(store_write(s, "a", 1, 0), 0);
	assert_int_equal(store_write(s, "b", 1, 0), 0);
	assert_int_equal(store_write(s, "c", 1, 0), -ENOSPC);
	assert_int_equal(store_read_full(s, &c, 1, 0), 0);
	assert_int_equal(c, 'b');
	assert_int_equal(store_write(s, "d", 1, 0), 0);
	assert_int_equal(store_fault_calls(s, FAULT_WRITE), 4);
	assert_int_equal(store_fault_failures(s), 1);
}

static void test_for_ever_until_cleared(void **state)
{
	_cleanup_store_ struct store *s = faulty();

	arm(s, (struct fault_rule){.ops = FAULT_FLUSH | FAULT_RESIZE, .error = -EIO});
	for (int i = 0; i < 5; i++)
		assert_int_equal(store_flush(s), -EIO);
	assert_int_equal(store_resize(s, 1), -EIO);
	assert_int_equal(store_write(s, "a", 1, 0), 0);
	store_fault_clear(s);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_fault_failures(s), 6);
}

static void test_range(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	char buf[512];

	assert_int_equal(store_resize(s, 8192), 0);
	arm(s, (struct fault_rule){
		       .ops = FAULT_READ | FAULT_RESIZE, .off = 1024, .len = 512, .error = -EIO});
	assert_int_equal(store_read_full(s, buf, 512, 512), 0);
	assert_int_equal(store_read_full(s, buf, 512, 1023), -EIO);
	assert_int_equal(store_read_full(s, buf, 1, 1535), -EIO);
	assert_int_equal(store_read_full(s, buf, 512, 1536), 0);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_resize(s, 2048), 0);
	assert_int_equal(store_resize(s, 1025), -EIO);
}

/* Half of what was asked for is done, in whole sectors. */
static void test_half(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	char buf[2048];

	memset(buf, '.', sizeof(buf));
	assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
	arm(s, (struct fault_rule){.ops = FAULT_WRITE | FAULT_ZERO | FAULT_READ,
				   .times = 4,
				   .error = -EIO,
				   .half = true});
	memset(buf, 'a', sizeof(buf));
	assert_int_equal(store_write(s, buf, 8, 508), -EIO);
	assert_int_equal(store_write(s, buf, 1400, 500), -EIO);
	assert_int_equal(store_zero(s, 1536, 512), -EIO);
	assert_int_equal(store_read(s, buf, 8, 0), -EIO);
	assert_int_equal(store_read_full(s, buf, sizeof(buf), 0), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], i >= 500 && i < 1024 ? 'a' : '.');
}

/* A write and a flush: a rule for either makes it fail. */
static void test_durable_write(void **state)
{
	static const unsigned ops[] = {FAULT_WRITE, FAULT_FLUSH};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		struct fault_rule rule = {.ops = ops[i], .times = 1, .error = -EIO};
		_cleanup_store_ struct store *inner = NULL, *s = NULL;

		assert_int_equal(store_memory_new("memory", MIB(1), &inner), 0);
		assert_int_equal(store_fault_new(TAKE_PTR(inner), &s), 0);
		assert_int_equal(store_fault_add(s, &rule), 0);
		assert_int_equal(store_write_durable(s, "x", 1, 0), -EIO);
		assert_int_equal(store_write_durable(s, "x", 1, 0), 0);
		assert_int_equal(store_fault_calls(s, FAULT_WRITE), 2);
	}
}

static void test_rules_add_up(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	struct fault_rule rule = {.ops = FAULT_WRITE, .times = 1, .error = -EIO};

	arm(s, rule);
	rule = (struct fault_rule){.ops = FAULT_WRITE, .skip = 1, .times = 1, .error = -ENOSPC};
	arm(s, rule);
	assert_int_equal(store_write(s, "a", 1, 0), -EIO);
	assert_int_equal(store_write(s, "a", 1, 0), -ENOSPC);
	assert_int_equal(store_write(s, "a", 1, 0), 0);
	for (int i = 2; i < FAULT_RULES_MAX; i++)
		arm(s, rule);
	assert_int_equal(store_fault_add(s, &rule), -ENOSPC);
}

static void test_stat_and_the_wrapper(void **state)
{
	_cleanup_store_ struct store *s = faulty();
	uint64_t size;

	arm(s, (struct fault_rule){.ops = FAULT_STAT, .error = -EIO});
	assert_int_equal(store_size(s, &size), -EIO);
	assert_int_equal(store_zero(s, 0, 1), -EIO); /* it must know where the end is */
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passes_through),
		cmocka_unit_test(test_nth_call_once),
		cmocka_unit_test(test_for_ever_until_cleared),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_half),
		cmocka_unit_test(test_durable_write),
		cmocka_unit_test(test_rules_add_up),
		cmocka_unit_test(test_stat_and_the_wrapper),
	};

	return cmocka_run_group_tests_name("store/fault", tests, NULL, NULL);
}

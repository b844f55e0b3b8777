/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/endian.h"

static const unsigned char bytes[] = {0xff, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88};

/* At an odd address: an image puts its numbers anywhere. */
static void test_get(void **state)
{
	assert_int_equal(be16_get(bytes + 1), 0x0102);
	assert_int_equal(be32_get(bytes + 1), 0x01020304);
	assert_true(be64_get(bytes + 1) == UINT64_C(0x0102030405060788));
	assert_int_equal(le16_get(bytes + 1), 0x0201);
	assert_int_equal(le32_get(bytes + 1), 0x04030201);
	assert_true(le64_get(bytes + 1) == UINT64_C(0x8807060504030201));
}

static void test_put(void **state)
{
	unsigned char buf[10];

	memset(buf, 0xee, sizeof(buf));
	be64_put(buf + 1, UINT64_C(0x0102030405060788));
	assert_memory_equal(buf + 1, bytes + 1, 8);
	be32_put(buf + 1, UINT32_C(0x01020304));
	assert_memory_equal(buf + 1, bytes + 1, 8);
	be16_put(buf + 1, 0x0102);
	assert_memory_equal(buf + 1, bytes + 1, 8);
	assert_int_equal(buf[0], 0xee);
	assert_int_equal(buf[9], 0xee);

	le64_put(buf + 1, UINT64_C(0x8807060504030201));
	assert_memory_equal(buf + 1, bytes + 1, 8);
	le32_put(buf + 1, UINT32_C(0x04030201));
	assert_memory_equal(buf + 1, bytes + 1, 8);
	le16_put(buf + 1, 0x0201);
	assert_memory_equal(buf + 1, bytes + 1, 8);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_put),
	};

	return cmocka_run_group_tests_name("base/endian", tests, NULL, NULL);
}

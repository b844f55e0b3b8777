/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The image layer over the real drivers. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/checked.h"
#include "image/image.h"

/* A host that takes its time to write zeroes. */
struct slow {
	struct store store;
	struct image *img;
	uint64_t longest, done;
};

static void slow_close(struct store *s)
{
}

static ssize_t slow_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	memset(buf, 0, len);
	return (ssize_t)len;
}

static int slow_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return -EIO;
}

static int slow_stat(struct store *s, struct store_stat *ret)
{
	*ret = (struct store_stat){.size = GIB(1)};
	return 0;
}

static void *slow_reader(void *data)
{
	char c;

	assert_int_equal(image_read(data, &c, 1, 0), 0);
	return NULL;
}

/* Whoever reads meanwhile does not wait for the end of it. */
static int slow_zero(struct store *s, uint64_t off, uint64_t len)
{
	struct slow *slow = (struct slow *)s;
	struct timespec limit;
	pthread_t reader;

	slow->longest = max_u64(slow->longest, len);
	slow->done += len;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	assert_int_equal(pthread_create(&reader, NULL, slow_reader, slow->img), 0);
	assert_int_equal(pthread_timedjoin_np(reader, NULL, &limit), 0);
	return 0;
}

static const struct store_ops slow_ops = {
	.kind = "slow",
	.close = slow_close,
	.read = slow_read,
	.write = slow_write,
	.zero = slow_zero,
	.stat = slow_stat,
};

/* A host without discard writes zeroes. */
static void test_raw_discard(void **state)
{
	const struct image_options o = {.format = "raw", .discard = true};
	struct slow slow = {0};

	assert_int_equal(store_init(&slow.store, &slow_ops, "slow", false), 0);
	assert_int_equal(image_open(&slow.store, &o, &slow.img, NULL), 0);
	assert_int_equal(image_discard(slow.img, 4096, MIB(700)), 0);
	assert_int_equal(slow.done, MIB(700));
	assert_true(slow.longest <= MIB(64));
	assert_int_equal(image_close(slow.img), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw_discard),
	};

	return cmocka_run_group_tests_name("drivers", tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "base/checked.h"
#include "rig.h"

enum {
	KEEP = FALLOC_FL_KEEP_SIZE,
	PUNCH = FALLOC_FL_PUNCH_HOLE,
	ZERO = FALLOC_FL_ZERO_RANGE,
};

static int set_up_fixed(void **state)
{
	struct rig *rig = rig_new();

	rig_open(rig);
	*state = rig;
	return 0;
}

static int set_up_growable(void **state)
{
	struct rig *rig = rig_new();

	rig->config.growable = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int set_up_read_only(void **state)
{
	struct rig *rig = rig_new();

	rig->config.read_only = true;
	rig->image_read_only = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int set_up_directory(void **state)
{
	struct rig *rig = rig_new();

	rig->config.directory = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static int fallocate_(struct rig *rig, int mode, uint64_t off, uint64_t len)
{
	const struct fuse_fallocate_in in = {.offset = off, .length = len, .mode = (uint32_t)mode};

	return rig_call(rig, FUSE_FALLOCATE, 1, &in, sizeof(in));
}

static int lseek_(struct rig *rig, uint32_t whence, uint64_t off, uint64_t *ret)
{
	const struct fuse_lseek_in in = {.offset = off, .whence = whence};
	int r = rig_call(rig, FUSE_LSEEK, 1, &in, sizeof(in));

	if (r == 0)
		*ret = RIG_BODY(rig, struct fuse_lseek_out)->offset;
	return r;
}

static void fill(struct rig *rig, uint8_t byte)
{
	uint8_t *buf = test_malloc(RIG_SIZE);

	memset(buf, byte, RIG_SIZE);
	assert_int_equal(image_write(rig->image, buf, RIG_SIZE, 0), 0);
	test_free(buf);
}

/* Is every byte of the range this one? */
static void assert_bytes(struct rig *rig, uint64_t off, uint64_t len, uint8_t byte)
{
	uint8_t *buf = test_malloc(len);

	assert_int_equal(image_read(rig->image, buf, len, off), 0);
	for (uint64_t i = 0; i < len; i++)
		if (buf[i] != byte)
			fail_msg("byte %llu is %u", (unsigned long long)(off + i), buf[i]);
	test_free(buf);
}

/* --- READ --- */

static void test_read(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(image_write(rig->image, "hello", 5, 5000), 0);
	assert_int_equal(rig_read(rig, 1, 5000, 5), 0);
	assert_int_equal(rig->body_len, 5);
	assert_memory_equal(rig->body, "hello", 5);
	assert_int_equal(rig_read(rig, 1, 4998, 3), 0);
	assert_memory_equal(rig->body, "\0\0h", 3);
	assert_int_equal(rig_read(rig, 1, 0, 0), 0);
	assert_int_equal(rig->body_len, 0);
}

static void test_read_at_the_end(void **state)
{
	struct rig *rig = *state;
	const uint64_t past[] = {RIG_SIZE,	    RIG_SIZE + 1,
				 INT64_MAX,	    (uint64_t)INT64_MAX + 1,
				 UINT64_MAX - 4095, UINT64_MAX};

	assert_int_equal(rig_read(rig, 1, RIG_SIZE - 100, 4096), 0);
	assert_int_equal(rig->body_len, 100);
	for (size_t i = 0; i < ARRAY_SIZE(past); i++) {
		assert_int_equal(rig_read(rig, 1, past[i], 8192), 0);
		assert_int_equal(rig->body_len, 0);
	}
}

static void test_read_too_much(void **state)
{
	assert_int_equal(rig_read(*state, 1, 0, SLOT_DATA_MAX + 1), -EINVAL);
	assert_int_equal(rig_read(*state, 1, 0, UINT32_MAX), -EINVAL);
	/* the most that a request may ask; the disk is smaller */
	assert_int_equal(rig_read(*state, 1, 0, SLOT_DATA_MAX), 0);
	assert_int_equal(((struct rig *)*state)->body_len, RIG_SIZE);
}

static void test_not_the_disk(void **state)
{
	struct rig *rig = *state;
	const struct fuse_fsync_in fsync = {};

	assert_int_equal(rig_read(rig, 1, 0, 10), -EISDIR);
	assert_int_equal(rig_read(rig, 77, 0, 10), -ENOENT);
	assert_int_equal(rig_write(rig, 1, 0, "x", 1), -EBADF);
	assert_int_equal(rig_write(rig, NODE_ID_STATUS, 0, "x", 1), -EBADF);
	assert_int_equal(fallocate_(rig, 0, 0, 1), -EBADF);
	assert_int_equal(rig_call(rig, FUSE_FSYNC, NODE_ID_STATUS, &fsync, sizeof(fsync)), 0);
}

/* --- WRITE --- */

static void test_write(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_write(rig, 1, 4095, "ab", 2), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 2);
	assert_int_equal(rig_read(rig, 1, 4094, 4), 0);
	assert_memory_equal(rig->body, "\0ab\0", 4);
	assert_int_equal(rig_write(rig, 1, 0, "", 0), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 0);
}

static void test_write_at_the_end_of_a_fixed_disk(void **state)
{
	struct rig *rig = *state;
	const uint64_t past[] = {RIG_SIZE, RIG_SIZE + 4096, 1ULL << 40};
	const uint64_t wraps[] = {INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};

	assert_int_equal(rig_write(rig, 1, RIG_SIZE - 2, "abcd", 4), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 2);
	for (size_t i = 0; i < ARRAY_SIZE(past); i++)
		assert_int_equal(rig_write(rig, 1, past[i], "abcd", 4), -ENOSPC);
	for (size_t i = 0; i < ARRAY_SIZE(wraps); i++)
		assert_int_equal(rig_write(rig, 1, wraps[i], "abcd", 4), -EFBIG);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_int_equal(rig->logged, 0);
}

/* size says more than was sent: the bytes behind are another request's */
static void test_write_size_lies(void **state)
{
	struct rig *rig = *state;
	const uint32_t sizes[] = {5, SLOT_DATA_MAX, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const struct fuse_write_in in = {.size = sizes[i]};
		size_t len = rig_compose(rig->rq.buf, 9, FUSE_WRITE, 1,
					 (struct rig_bytes){&in, sizeof(in), "abcd", 4});

		assert_int_equal(ops_handle(&rig->rq, len), 0);
		assert_int_equal(rig_answer(rig), -EIO);
	}
	assert_bytes(rig, 0, 4, 0);
}

static void test_write_grows(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr attr;

	assert_int_equal(rig_write(rig, 1, RIG_SIZE + 7, "end", 3), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 3);
	assert_int_equal(rig_getattr(rig, 1, &attr), 0);
	assert_int_equal(attr.size, RIG_SIZE + 10);
	assert_bytes(rig, RIG_SIZE, 7, 0);
}

/* The host is full: the client hears it, the journal too, the disk is as it was. */
static void test_write_beyond_the_host(void **state)
{
	struct rig *rig = *state;
	int r = rig_write(rig, 1, RIG_LIMIT, "x", 1);

	assert_true(r == -ENOSPC || r == -EFBIG);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_int_equal(rig->logged, 1);
	assert_int_equal(rig->rq.slot->counters.errors, 1);
}

static void test_read_only(void **state)
{
	struct rig *rig = *state;
	const struct fuse_fsync_in fsync = {};

	assert_int_equal(rig_write(rig, 1, 0, "x", 1), -EROFS);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 0, 4096), -EROFS);
	assert_int_equal(fallocate_(rig, 0, 0, 4096), -EROFS);
	assert_int_equal(rig_call(rig, FUSE_FSYNC, 1, &fsync, sizeof(fsync)), 0);
	assert_int_equal(rig_read(rig, 1, 0, 10), 0);
}

/* --- FALLOCATE --- */

static void test_punch(void **state)
{
	struct rig *rig = *state;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 1000, 8192), 0);
	assert_bytes(rig, 0, 1000, 7);
	assert_bytes(rig, 1000, 8192, 0);
	assert_bytes(rig, 9192, 1000, 7);
	/* across the end, and past it */
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, RIG_SIZE - 10, 1 << 20), 0);
	assert_bytes(rig, RIG_SIZE - 10, 10, 0);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, RIG_SIZE, 1 << 20), 0);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 1ULL << 50, 1 << 20), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_int_equal(rig->rq.slot->counters.discards, 4);
}

static void test_zero_range(void **state)
{
	struct rig *rig = *state;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, ZERO, 1000, 8192), 0);
	assert_bytes(rig, 1000, 8192, 0);
	assert_bytes(rig, 9192, 1000, 7);
	assert_int_equal(fallocate_(rig, ZERO | KEEP, RIG_SIZE - 10, 1 << 20), 0);
	assert_bytes(rig, RIG_SIZE - 10, 10, 0);
}

static void test_allocate(void **state)
{
	struct rig *rig = *state;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, 0, 0, RIG_SIZE), 0);
	assert_int_equal(fallocate_(rig, KEEP, RIG_SIZE - 1, 4096), 0);
	assert_int_equal(fallocate_(rig, KEEP, RIG_SIZE + 1, 4096), 0);
	assert_bytes(rig, 0, RIG_SIZE, 7);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
}

/* "Non-growable" must not grow through any of these doors (fault 4 of the reference). */
static void test_fixed_disk_never_grows(void **state)
{
	struct rig *rig = *state;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, 0, RIG_SIZE - 1, 2), -ENOSPC);
	assert_int_equal(fallocate_(rig, ZERO, RIG_SIZE - 1, 2), -ENOSPC);
	assert_int_equal(fallocate_(rig, ZERO, RIG_SIZE * 2, 2), -ENOSPC);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_bytes(rig, 0, RIG_SIZE, 7);
}

static void test_growable_disk_grows(void **state)
{
	struct rig *rig = *state;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, KEEP, RIG_SIZE, 512), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_int_equal(fallocate_(rig, 0, RIG_SIZE, 512), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE + 512);
	assert_int_equal(fallocate_(rig, ZERO, RIG_SIZE - 1, 1024), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE + 1023);
	assert_bytes(rig, RIG_SIZE - 2, 1, 7);
	assert_bytes(rig, RIG_SIZE - 1, 1024, 0);
}

static void test_fallocate_refused(void **state)
{
	struct rig *rig = *state;
	const int modes[] = {PUNCH,
			     PUNCH | ZERO | KEEP,
			     FALLOC_FL_COLLAPSE_RANGE,
			     FALLOC_FL_INSERT_RANGE,
			     FALLOC_FL_UNSHARE_RANGE,
			     0x8000,
			     -1};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		assert_int_equal(fallocate_(rig, modes[i], 0, 4096), -EOPNOTSUPP);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 0, 0), -EINVAL);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, UINT64_MAX, 2), -EFBIG);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 2, UINT64_MAX), -EFBIG);
	assert_int_equal(fallocate_(rig, 0, INT64_MAX, 1), -EFBIG);
}

/* --- LSEEK --- */

static void test_lseek(void **state)
{
	struct rig *rig = *state;
	const uint64_t past[] = {RIG_SIZE, RIG_SIZE + 1, (uint64_t)-1, (uint64_t)INT64_MIN};
	uint64_t off = 0;

	fill(rig, 7);
	assert_int_equal(lseek_(rig, SEEK_DATA, 5, &off), 0);
	assert_int_equal(off, 5);
	assert_int_equal(lseek_(rig, SEEK_HOLE, 5, &off), 0);
	assert_int_equal(off, RIG_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(past); i++) {
		assert_int_equal(lseek_(rig, SEEK_DATA, past[i], &off), -ENXIO);
		assert_int_equal(lseek_(rig, SEEK_HOLE, past[i], &off), -ENXIO);
	}
	assert_int_equal(lseek_(rig, SEEK_SET, 0, &off), -EINVAL);
	assert_int_equal(lseek_(rig, 99, 0, &off), -EINVAL);
}

static void test_lseek_hole(void **state)
{
	struct rig *rig = *state;
	uint64_t off = 0;

	fill(rig, 7);
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 0, 64 * 1024), 0);
	assert_int_equal(lseek_(rig, SEEK_HOLE, 0, &off), 0);
	assert_int_equal(off, 0);
	assert_int_equal(lseek_(rig, SEEK_DATA, 0, &off), 0);
	assert_int_equal(off, 64 * 1024);
	/* The host keeps the block that the disk fills only in part */
	assert_int_equal(fallocate_(rig, PUNCH | KEEP, 0, RIG_SIZE), 0);
	assert_int_equal(lseek_(rig, SEEK_HOLE, 0, &off), 0);
	assert_int_equal(off, 0);
	if (lseek_(rig, SEEK_DATA, 0, &off) == 0)
		assert_true(off >= RIG_SIZE / 4096 * 4096);
}

/* --- OPEN --- */

static int open_(struct rig *rig, uint64_t node, int flags, uint32_t *ret)
{
	const struct fuse_open_in in = {.flags = (uint32_t)flags};
	int r = rig_call(rig, FUSE_OPEN, node, &in, sizeof(in));

	if (r == 0)
		*ret = RIG_BODY(rig, struct fuse_open_out)->open_flags;
	return r;
}

static void test_open_cached(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	assert_int_equal(open_(rig, 1, O_RDWR, &flags), 0);
	assert_int_equal(flags, FOPEN_KEEP_CACHE);
	/* after the first direct open a new one starts with an empty cache */
	assert_int_equal(open_(rig, 1, O_RDWR | O_DIRECT, &flags), 0);
	assert_int_equal(flags, FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES);
	assert_int_equal(open_(rig, 1, O_RDONLY, &flags), 0);
	assert_int_equal(flags, 0);
}

/* Before 7.39 direct writes do not drop cached pages unless the kernel itself handles O_DIRECT. */
static void test_open_direct_on_old_kernel(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	rig->share.granted.flags = 0;
	assert_int_equal(open_(rig, 1, O_RDWR | O_DIRECT, &flags), 0);
	assert_int_equal(flags, FOPEN_KEEP_CACHE);
}

static void test_open_uncached(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	rig->share.config.page_cache = false;
	assert_int_equal(open_(rig, 1, O_RDONLY, &flags), 0);
	assert_int_equal(flags, FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES);
}

static void test_open_truncate_is_ignored(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	fill(rig, 7);
	assert_int_equal(open_(rig, 1, O_WRONLY | O_TRUNC, &flags), 0);
	assert_bytes(rig, 0, RIG_SIZE, 7);
}

static void test_open_for_writing_refused(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	assert_int_equal(open_(rig, 1, O_RDWR, &flags), -EROFS);
	assert_int_equal(open_(rig, 1, O_WRONLY, &flags), -EROFS);
	assert_int_equal(open_(rig, 1, O_RDONLY, &flags), 0);
}

static void test_open_other_nodes(void **state)
{
	struct rig *rig = *state;
	uint32_t flags = 0;

	assert_int_equal(open_(rig, NODE_ID_STATUS, O_RDONLY, &flags), 0);
	assert_int_equal(flags, FOPEN_DIRECT_IO);
	assert_int_equal(open_(rig, NODE_ID_STATUS, O_WRONLY, &flags), -EACCES);
	assert_int_equal(open_(rig, NODE_ID_ROOT, O_RDONLY, &flags), -EISDIR);
	assert_int_equal(open_(rig, 16, O_RDONLY, &flags), -ENOENT);
}

int main(void)
{
#define TEST(f, kind) cmocka_unit_test_setup_teardown(f, set_up_##kind, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_read, fixed),
		TEST(test_read_at_the_end, fixed),
		TEST(test_read_too_much, fixed),
		TEST(test_not_the_disk, directory),
		TEST(test_write, fixed),
		TEST(test_write_at_the_end_of_a_fixed_disk, fixed),
		TEST(test_write_size_lies, fixed),
		TEST(test_write_grows, growable),
		TEST(test_write_beyond_the_host, growable),
		TEST(test_read_only, read_only),
		TEST(test_punch, fixed),
		TEST(test_punch, growable),
		TEST(test_zero_range, fixed),
		TEST(test_allocate, fixed),
		TEST(test_fixed_disk_never_grows, fixed),
		TEST(test_growable_disk_grows, growable),
		TEST(test_fallocate_refused, growable),
		TEST(test_lseek, fixed),
		TEST(test_lseek_hole, fixed),
		TEST(test_open_cached, fixed),
		TEST(test_open_direct_on_old_kernel, fixed),
		TEST(test_open_uncached, fixed),
		TEST(test_open_truncate_is_ignored, growable),
		TEST(test_open_for_writing_refused, read_only),
		TEST(test_open_other_nodes, directory),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rig.h"

static int set_up(void **state)
{
	struct rig *rig = rig_new();

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

static int set_up_read_only(void **state)
{
	struct rig *rig = rig_new();

	rig->config.read_only = rig->image_read_only = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static int set_attr(struct rig *rig, uint64_t node, struct fuse_setattr_in in)
{
	return rig_call(rig, FUSE_SETATTR, node, &in, sizeof(in));
}

static struct fuse_attr get_attr(struct rig *rig, uint64_t node)
{
	struct fuse_attr a;

	assert_int_equal(rig_getattr(rig, node, &a), 0);
	return a;
}

static void test_ids(void **state)
{
	struct rig *rig = *state;
	char name[NODE_NAME_MAX];

	assert_int_equal(node_by_id(&rig->share, 1), NODE_DIRECTORY);
	assert_int_equal(node_by_id(&rig->share, 2), NODE_DISK);
	assert_int_equal(node_by_id(&rig->share, 3), NODE_STATUS);
	assert_int_equal(node_by_id(&rig->share, 0), NODE_NONE);
	assert_int_equal(node_by_id(&rig->share, UINT64_MAX), NODE_NONE);
	assert_int_equal(node_name(&rig->share, 0, name), NODE_ID_DISK);
	assert_string_equal(name, "disk");
	assert_int_equal(node_name(&rig->share, 2, name), 0);
	assert_int_equal(node_name(&rig->share, UINT32_MAX, name), 0);
}

static void test_mode_and_owner(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr a;

	assert_int_equal(set_attr(rig, 1,
				  (struct fuse_setattr_in){
					  .valid = FATTR_MODE, .mode = S_IFREG | 04755, .uid = 99}),
			 0);
	a = get_attr(rig, 1);
	assert_int_equal(a.mode, S_IFREG | 0755); /* no set-id bit is ever kept */
	assert_int_equal(a.uid, 10);
	assert_int_equal(set_attr(rig, 1,
				  (struct fuse_setattr_in){
					  .valid = FATTR_UID | FATTR_GID, .uid = 0, .gid = 7}),
			 0);
	a = get_attr(rig, 1);
	assert_int_equal(a.uid, 0);
	assert_int_equal(a.gid, 7);
	assert_int_equal(a.mode, S_IFREG | 0755);
}

/* What was set lives in the slots: the next worker knows it. */
static void test_attributes_survive_the_worker(void **state)
{
	struct rig *rig = *state;
	const struct serve_options options = {.image = rig->image,
					      .config = &rig->config,
					      .granted = &rig->granted,
					      .slots_fd = rig->slots_fd};
	struct share next;
	struct fuse_attr a;

	assert_int_equal(
		set_attr(rig, 1, (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 0644}), 0);
	assert_int_equal(share_init(&next, &options, NULL), 0);
	assert_int_equal(node_attr(&next, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0644);
	share_done(&next);
}

static void test_times(void **state)
{
	struct rig *rig = *state;
	const struct fuse_setattr_in in = {.valid = FATTR_ATIME | FATTR_MTIME,
					   .atime = 1000000000,
					   .atimensec = 5,
					   .mtime = (uint64_t)-2, /* 1969 */
					   .mtimensec = 999999999};
	struct fuse_attr a;

	assert_int_equal(set_attr(rig, 1, in), 0);
	a = get_attr(rig, 1);
	assert_int_equal(a.atime, 1000000000);
	assert_int_equal(a.atimensec, 5);
	assert_int_equal((int64_t)a.mtime, -2);
	assert_int_equal(a.mtimensec, 999999999);
	assert_true(a.ctime > 1000000000);
}

static void test_times_now(void **state)
{
	struct rig *rig = *state;
	const struct fuse_setattr_in in = {.valid = FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME |
						    FATTR_MTIME_NOW,
					   .atimensec = UINT32_MAX};
	struct fuse_attr a;
	time_t before = time(NULL);

	assert_int_equal(set_attr(rig, 1, in), 0);
	a = get_attr(rig, 1);
	assert_true((time_t)a.atime >= before && (time_t)a.atime <= before + 60);
	assert_true((time_t)a.mtime >= before && (time_t)a.mtime <= before + 60);
}

static void test_times_that_are_none(void **state)
{
	struct rig *rig = *state;
	const struct fuse_setattr_in nsec = {.valid = FATTR_ATIME, .atimensec = 1000000000};
	const struct fuse_setattr_in sec = {.valid = FATTR_MTIME, .mtime = INT64_MAX};
	const struct fuse_setattr_in sec_min = {.valid = FATTR_MTIME, .mtime = 1ULL << 63};
	struct fuse_attr before = get_attr(rig, 1), after;

	assert_int_equal(set_attr(rig, 1, nsec), -EINVAL);
	assert_int_equal(set_attr(rig, 1, sec), -EINVAL);
	assert_int_equal(set_attr(rig, 1, sec_min), -EINVAL);
	after = get_attr(rig, 1);
	assert_memory_equal(&before, &after, sizeof(before));
}

/* mtime is the image's own: it stands still while nothing is written. */
static void test_mtime_is_not_now(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr a = get_attr(rig, 1), b;

	usleep(20000);
	b = get_attr(rig, 1);
	assert_int_equal(a.mtime, b.mtime);
	assert_int_equal(a.mtimensec, b.mtimensec);
}

static void test_write_ends_a_set_mtime(void **state)
{
	struct rig *rig = *state;
	const struct fuse_setattr_in in = {
		.valid = FATTR_ATIME | FATTR_MTIME, .atime = 1000, .mtime = 1000};
	struct fuse_attr a;

	assert_int_equal(set_attr(rig, 1, in), 0);
	assert_int_equal(rig_read(rig, 1, 0, 10), 0);
	assert_int_equal(get_attr(rig, 1).mtime, 1000);
	assert_int_equal(rig_write(rig, 1, 0, "x", 1), 0);
	a = get_attr(rig, 1);
	assert_int_not_equal(a.mtime, 1000);
	assert_int_equal(a.atime, 1000);
}

static void test_nodes_are_apart(void **state)
{
	struct rig *rig = *state;
	struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_UID, .mode = 0444, .uid = 5};

	assert_int_equal(set_attr(rig, NODE_ID_STATUS, in), 0);
	assert_int_equal(get_attr(rig, NODE_ID_STATUS).uid, 5);
	assert_int_equal(get_attr(rig, NODE_ID_DISK).uid, 10);
	in.mode = 0711;
	assert_int_equal(set_attr(rig, NODE_ID_ROOT, in), 0);
	assert_int_equal(get_attr(rig, NODE_ID_ROOT).mode, S_IFDIR | 0711);
	assert_int_equal(get_attr(rig, NODE_ID_DISK).mode, S_IFREG | 0600);
	/* the status file cannot be written, and so never says it could */
	assert_int_equal(set_attr(rig, NODE_ID_STATUS, in), -EROFS);
	assert_int_equal(set_attr(rig, 99, in), -ENOENT);
}

static void test_read_only(void **state)
{
	struct rig *rig = *state;
	struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = 0644};

	assert_int_equal(get_attr(rig, 1).mode, S_IFREG | 0400);
	assert_int_equal(set_attr(rig, 1, in), -EROFS);
	in.mode = 0444;
	assert_int_equal(set_attr(rig, 1, in), 0);
	assert_int_equal(get_attr(rig, 1).mode, S_IFREG | 0444);
	in = (struct fuse_setattr_in){.valid = FATTR_SIZE};
	assert_int_equal(set_attr(rig, 1, in), -EROFS);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ids, set_up_directory, tear_down),
		TEST(test_mode_and_owner),
		TEST(test_attributes_survive_the_worker),
		TEST(test_times),
		TEST(test_times_now),
		TEST(test_times_that_are_none),
		TEST(test_mtime_is_not_now),
		TEST(test_write_ends_a_set_mtime),
		cmocka_unit_test_setup_teardown(test_nodes_are_apart, set_up_directory, tear_down),
		cmocka_unit_test_setup_teardown(test_read_only, set_up_read_only, tear_down),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

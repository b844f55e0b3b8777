/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "rig.h"

static int set_up_directory(void **state)
{
	struct rig *rig = rig_new();

	rig->config.directory = true;
	rig->config.mode = 0640;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int set_up_file(void **state)
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

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static int lookup(struct rig *rig, uint64_t parent, const char *name)
{
	return rig_call(rig, FUSE_LOOKUP, parent, name, strlen(name) + 1);
}

static void test_lookup(void **state)
{
	struct rig *rig = *state;
	const struct fuse_entry_out *e;

	assert_int_equal(lookup(rig, 1, "disk"), 0);
	e = RIG_BODY(rig, struct fuse_entry_out);
	assert_int_equal(e->nodeid, NODE_ID_DISK);
	assert_int_equal(e->attr.ino, NODE_ID_DISK);
	assert_int_equal(e->attr.mode, S_IFREG | 0640);
	assert_int_equal(e->attr.size, RIG_SIZE);
	assert_true(e->entry_valid >= 3600);
	assert_true(e->attr_valid > 0);
	assert_int_equal(lookup(rig, 1, "status"), 0);
	e = RIG_BODY(rig, struct fuse_entry_out);
	assert_int_equal(e->nodeid, NODE_ID_STATUS);
	assert_int_equal(e->attr.mode, S_IFREG | 0440);
	assert_int_equal(e->attr_valid, 0);
}

static void test_lookup_fails(void **state)
{
	struct rig *rig = *state;
	const char *const names[] = {"", "dis", "disk2", "Disk", "part1", "..", "."};
	char longest[4096];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(lookup(rig, 1, names[i]), -ENOENT);
	assert_int_equal(lookup(rig, NODE_ID_DISK, "disk"), -ENOENT);
	assert_int_equal(lookup(rig, 99, "disk"), -ENOENT);
	/* no terminator */
	assert_int_equal(rig_call(rig, FUSE_LOOKUP, 1, "disk", 4), -EIO);
	memset(longest, 'd', sizeof(longest));
	assert_int_equal(rig_call(rig, FUSE_LOOKUP, 1, longest, sizeof(longest)), -EIO);
}

static void test_file_target_has_no_names(void **state)
{
	assert_int_equal(lookup(*state, 1, "disk"), -ENOENT);
	assert_int_equal(rig_read(*state, NODE_ID_DISK, 0, 1), -ENOENT);
}

static void test_getattr(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr a;

	assert_int_equal(rig_getattr(rig, 1, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 0750);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(rig_getattr(rig, NODE_ID_DISK, &a), 0);
	assert_int_equal(a.uid, 10);
	assert_int_equal(a.gid, 20);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.blksize, 4096);
	assert_int_equal(rig_getattr(rig, 16, &a), -ENOENT);
}

/* st_blocks is what is allocated, not what could be */
static void test_blocks(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr before, after;
	uint8_t data[8192] = {1};

	assert_int_equal(rig_getattr(rig, 1, &before), 0);
	assert_int_equal(rig_write(rig, 1, 65536, data, sizeof(data)), 0);
	assert_int_equal(rig_getattr(rig, 1, &after), 0);
	assert_true(after.blocks > before.blocks);
	assert_true(after.blocks * 512 < RIG_SIZE);
}

static int truncate_(struct rig *rig, uint64_t node, uint64_t size)
{
	const struct fuse_setattr_in in = {.valid = FATTR_SIZE | FATTR_FH, .size = size};

	return rig_call(rig, FUSE_SETATTR, node, &in, sizeof(in));
}

static void test_fixed_size(void **state)
{
	struct rig *rig = *state;
	const uint64_t sizes[] = {0, RIG_SIZE - 1, RIG_SIZE + 1, UINT64_MAX};
	struct fuse_setattr_in in = {.valid = FATTR_SIZE | FATTR_FH | FATTR_MODE, .mode = 0777};
	struct fuse_attr a;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		assert_int_equal(truncate_(rig, 1, sizes[i]), -EPERM);
	assert_int_equal(truncate_(rig, 1, RIG_SIZE), 0);
	/* and nothing changes, also of the rest that was asked */
	assert_int_equal(rig_call(rig, FUSE_SETATTR, 1, &in, sizeof(in)), -EPERM);
	assert_int_equal(rig_getattr(rig, 1, &a), 0);
	assert_int_equal(a.size, RIG_SIZE);
	assert_int_equal(a.mode & 0777, 0600);
}

static void test_growable_size(void **state)
{
	struct rig *rig = *state;
	const uint64_t sizes[] = {RIG_SIZE + 1, 1, 0, 12345};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(truncate_(rig, 1, sizes[i]), 0);
		assert_int_equal(RIG_BODY(rig, struct fuse_attr_out)->attr.size, sizes[i]);
	}
	assert_int_equal(truncate_(rig, 1, UINT64_MAX), -EFBIG);
	assert_int_equal(truncate_(rig, 1, (uint64_t)INT64_MAX + 1), -EFBIG);
	assert_int_equal(image_size(rig->image), 12345);
}

/* A request of which a part is wrong changes nothing. */
static void test_size_and_wrong_time(void **state)
{
	const struct fuse_setattr_in in = {.valid = FATTR_SIZE | FATTR_FH | FATTR_MTIME,
					   .size = 12345,
					   .mtimensec = 1000000000};
	struct rig *rig = *state;

	assert_int_equal(rig_call(rig, FUSE_SETATTR, 1, &in, sizeof(in)), -EINVAL);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
}

/* What follows open(2) with O_TRUNC. */
static void test_open_truncates_nothing(void **state)
{
	const struct fuse_setattr_in in = {.valid = FATTR_SIZE};
	struct rig *rig = *state;

	assert_int_equal(rig_call(rig, FUSE_SETATTR, 1, &in, sizeof(in)), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_attr_out)->attr.size, RIG_SIZE);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
}

static void test_only_the_disk_has_a_size(void **state)
{
	assert_int_equal(truncate_(*state, 1, 0), -EPERM);
	assert_int_equal(truncate_(*state, NODE_ID_STATUS, 0), -EPERM);
	assert_int_equal(truncate_(*state, 99, 0), -ENOENT);
}

static int read_dir(struct rig *rig, uint32_t opcode, uint64_t node, uint64_t off, uint32_t size)
{
	const struct fuse_read_in in = {.offset = off, .size = size};

	return rig_call(rig, opcode, node, &in, sizeof(in));
}

static const struct {
	const char *name;
	uint64_t id;
	uint32_t type;
} expected[] = {{".", 1, 4}, {"..", 1, 4}, {"disk", 2, 8}, {"status", 3, 8}};

static void assert_dirent(const struct fuse_dirent *d, uint64_t i)
{
	assert_true(i < ARRAY_SIZE(expected));
	assert_int_equal(d->ino, expected[i].id);
	assert_int_equal(d->off, i + 1);
	assert_int_equal(d->type, expected[i].type);
	assert_int_equal(d->namelen, strlen(expected[i].name));
	assert_memory_equal(d->name, expected[i].name, d->namelen);
}

static void test_readdir(void **state)
{
	struct rig *rig = *state;
	size_t pos = 0;

	assert_int_equal(read_dir(rig, FUSE_READDIR, 1, 0, 4096), 0);
	for (uint64_t i = 0; i < 4; i++) {
		const struct fuse_dirent *d = (void *)(rig->body + pos);

		assert_dirent(d, i);
		pos += FUSE_DIRENT_SIZE(d);
	}
	assert_int_equal(pos, rig->body_len);
}

/* An entry that does not fit whole is left for the next request. */
static void test_readdir_in_pieces(void **state)
{
	struct rig *rig = *state;

	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(read_dir(rig, FUSE_READDIR, 1, i, 47), 0);
		assert_true(rig->body_len <= 47 && rig->body_len > 0);
		assert_dirent((void *)rig->body, i);
	}
	assert_int_equal(read_dir(rig, FUSE_READDIR, 1, 4, 4096), 0);
	assert_int_equal(rig->body_len, 0);
	assert_int_equal(read_dir(rig, FUSE_READDIR, 1, UINT64_MAX, 4096), 0);
	assert_int_equal(rig->body_len, 0);
	assert_int_equal(read_dir(rig, FUSE_READDIR, 1, 0, 0), 0);
	assert_int_equal(rig->body_len, 0);
	assert_int_equal(read_dir(rig, FUSE_READDIR, 1, 0, UINT32_MAX), 0);
	assert_true(rig->body_len > 0);
}

static void test_readdirplus(void **state)
{
	struct rig *rig = *state;
	size_t pos = 0;

	assert_int_equal(read_dir(rig, FUSE_READDIRPLUS, 1, 0, 4096), 0);
	for (uint64_t i = 0; i < 4; i++) {
		const struct fuse_direntplus *d = (void *)(rig->body + pos);

		assert_dirent(&d->dirent, i);
		assert_int_equal(d->entry_out.nodeid, i < 2 ? 0 : expected[i].id);
		pos += FUSE_DIRENTPLUS_SIZE(d);
	}
	assert_int_equal(pos, rig->body_len);
	assert_int_equal(read_dir(rig, FUSE_READDIRPLUS, 1, 0, 100), 0);
	assert_int_equal(rig->body_len, 0);
}

static void test_directory_requests_on_files(void **state)
{
	const struct fuse_open_in in = {};

	assert_int_equal(read_dir(*state, FUSE_READDIR, NODE_ID_DISK, 0, 4096), -ENOTDIR);
	assert_int_equal(rig_call(*state, FUSE_OPENDIR, NODE_ID_DISK, &in, sizeof(in)), -ENOTDIR);
	assert_int_equal(rig_call(*state, FUSE_OPENDIR, 1, &in, sizeof(in)), 0);
}

static void test_statfs(void **state)
{
	struct rig *rig = *state;
	uint8_t data[8192] = {1};
	struct fuse_kstatfs before, st;

	assert_int_equal(rig_call(rig, FUSE_STATFS, 1, NULL, 0), 0);
	before = RIG_BODY(rig, struct fuse_statfs_out)->st;
	assert_int_equal(before.bsize, 4096);
	assert_int_equal(before.frsize, 4096);
	assert_int_equal(before.blocks, RIG_SIZE / 4096 + 1);
	assert_int_equal(rig_write(rig, 1, 65536, data, sizeof(data)), 0);
	assert_int_equal(rig_call(rig, FUSE_STATFS, 1, NULL, 0), 0);
	st = RIG_BODY(rig, struct fuse_statfs_out)->st;
	assert_true(st.bfree < before.bfree);
	assert_int_equal(st.bfree, st.bavail);
}

int main(void)
{
#define TEST(f, kind) cmocka_unit_test_setup_teardown(f, set_up_##kind, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_lookup, directory),
		TEST(test_lookup_fails, directory),
		TEST(test_file_target_has_no_names, file),
		TEST(test_getattr, directory),
		TEST(test_blocks, file),
		TEST(test_fixed_size, file),
		TEST(test_growable_size, growable),
		TEST(test_size_and_wrong_time, growable),
		TEST(test_open_truncates_nothing, file),
		TEST(test_open_truncates_nothing, growable),
		TEST(test_only_the_disk_has_a_size, directory),
		TEST(test_readdir, directory),
		TEST(test_readdir_in_pieces, directory),
		TEST(test_readdirplus, directory),
		TEST(test_directory_requests_on_files, directory),
		TEST(test_statfs, file),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

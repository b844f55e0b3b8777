/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Partitions as files: which bytes they show, what they refuse, and what a changed table does to
 * them. The disk has RIG_SIZE bytes. */

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "rig.h"

enum {
	FIRST = SLOTS_WINDOW_NODE, /* the first window's node */
	A_OFF = 4096,		   /* part1 */
	A_LEN = 8192,
	B_OFF = 16384, /* part5 */
	B_LEN = 512,
};

static struct partition_table table;

static void add(unsigned number, uint64_t off, uint64_t len)
{
	table.kind = "dos";
	table.entries[table.n++] = (struct partition){.number = number, .off = off, .len = len};
}

static int set_up(void **state)
{
	struct rig *rig = rig_new();

	rig->config.directory = true;
	rig->config.growable = true;
	rig_open(rig);
	table = (struct partition_table){0};
	add(1, A_OFF, A_LEN);
	add(5, B_OFF, B_LEN);
	windows_set(&rig->share, &table, 0);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static uint64_t lookup(struct rig *rig, const char *name)
{
	if (rig_call(rig, FUSE_LOOKUP, 1, name, strlen(name) + 1) < 0)
		return 0;
	return RIG_BODY(rig, struct fuse_entry_out)->nodeid;
}

static uint64_t size_of(struct rig *rig, uint64_t node)
{
	struct fuse_attr a;

	assert_int_equal(rig_getattr(rig, node, &a), 0);
	return a.size;
}

/* Reads from the disk itself. */
static void assert_disk(struct rig *rig, uint64_t off, const char *text)
{
	assert_int_equal(rig_read(rig, NODE_ID_DISK, off, (uint32_t)strlen(text)), 0);
	assert_int_equal(rig->body_len, strlen(text));
	assert_memory_equal(rig->body, text, strlen(text));
}

static void test_names(void **state)
{
	static const char *const names[] = {"disk", "status", "part1", "part5"};
	struct rig *rig = *state;
	char name[NODE_NAME_MAX];
	struct fuse_attr a;

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(node_name(&rig->share, i, name), lookup(rig, names[i]));
		assert_string_equal(name, names[i]);
	}
	assert_int_equal(node_name(&rig->share, 4, name), 0);
	assert_int_equal(lookup(rig, "part1"), FIRST);
	assert_int_equal(RIG_BODY(rig, struct fuse_entry_out)->entry_valid, 0);
	assert_int_equal(lookup(rig, "part5"), FIRST + 1);
	assert_int_equal(lookup(rig, "part2") + lookup(rig, "part") + lookup(rig, "part11"), 0);
	assert_int_equal(rig_getattr(rig, FIRST + 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_int_equal(a.size, B_LEN);
	assert_int_equal(rig_getattr(rig, FIRST + 2, &a), -ENOENT);
}

static void test_file_target_has_no_windows(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr a;

	rig->share.config.directory = false;
	assert_int_equal(rig_getattr(rig, FIRST, &a), -ENOENT);
	assert_int_equal(rig_write(rig, FIRST, 0, "x", 1), -EBADF);
}

static void test_read_and_write(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_write(rig, NODE_ID_DISK, A_OFF - 1, "<abc", 4), 0);
	assert_int_equal(rig_read(rig, FIRST, 0, 3), 0);
	assert_memory_equal(rig->body, "abc", 3);
	assert_int_equal(rig_write(rig, FIRST, A_LEN - 3, "xyz", 3), 0);
	assert_disk(rig, A_OFF + A_LEN - 3, "xyz");
	/* short at the end, nothing behind it */
	assert_int_equal(rig_read(rig, FIRST, A_LEN - 2, 100), 0);
	assert_int_equal(rig->body_len, 2);
	assert_int_equal(rig_read(rig, FIRST, A_LEN, 100), 0);
	assert_int_equal(rig->body_len, 0);
	assert_int_equal(rig_read(rig, FIRST, UINT64_MAX, 100), 0);
	assert_int_equal(rig->body_len, 0);
}

/* As on a block device; although the disk itself may grow. */
static void test_write_ends_with_the_window(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_write(rig, NODE_ID_DISK, B_OFF + B_LEN, "neighbour", 9), 0);
	assert_int_equal(rig_write(rig, FIRST + 1, B_LEN - 2, "12345", 5), 0);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 2);
	assert_int_equal(rig_write(rig, FIRST + 1, B_LEN, "x", 1), -ENOSPC);
	assert_int_equal(rig_write(rig, FIRST + 1, INT64_MAX, "x", 1), -EFBIG);
	assert_disk(rig, B_OFF + B_LEN - 2, "12neighbour");
	assert_int_equal(image_size(rig->image), RIG_SIZE);
}

static int allocate(struct rig *rig, uint64_t node, uint32_t mode, uint64_t off, uint64_t len)
{
	const struct fuse_fallocate_in in = {.mode = mode, .offset = off, .length = len};

	return rig_call(rig, FUSE_FALLOCATE, node, &in, sizeof(in));
}

static void test_ranges_end_with_the_window(void **state)
{
	static const uint32_t modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct rig *rig = *state;

	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(rig_write(rig, NODE_ID_DISK, B_OFF - 4, "left", 4), 0);
		assert_int_equal(rig_write(rig, FIRST + 1, 0, "gone", 4), 0);
		assert_int_equal(rig_write(rig, NODE_ID_DISK, B_OFF + B_LEN, "right", 5), 0);
		assert_int_equal(allocate(rig, FIRST + 1, modes[i], 0, INT64_MAX), 0);
		assert_disk(rig, B_OFF - 4, "left");
		assert_disk(rig, B_OFF + B_LEN, "right");
		assert_int_equal(rig_read(rig, FIRST + 1, 0, 4), 0);
		assert_memory_equal(rig->body, "\0\0\0\0", 4);
	}
	assert_int_equal(allocate(rig, FIRST + 1, 0, 0, B_LEN + 1), -ENOSPC);
	assert_int_equal(allocate(rig, FIRST + 1, FALLOC_FL_ZERO_RANGE, 1, B_LEN), -ENOSPC);
	assert_int_equal(allocate(rig, FIRST + 1, 0, 0, B_LEN), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
}

static void test_truncate(void **state)
{
	struct fuse_setattr_in in = {.valid = FATTR_SIZE, .size = A_LEN};

	assert_int_equal(rig_call(*state, FUSE_SETATTR, FIRST, &in, sizeof(in)), 0);
	in.size = A_LEN - 1;
	assert_int_equal(rig_call(*state, FUSE_SETATTR, FIRST, &in, sizeof(in)), -EPERM);
	in.size = A_LEN + 1;
	assert_int_equal(rig_call(*state, FUSE_SETATTR, FIRST, &in, sizeof(in)), -EPERM);
}

static int64_t seek(struct rig *rig, uint64_t off, uint32_t whence)
{
	const struct fuse_lseek_in in = {.offset = off, .whence = whence};
	int r = rig_call(rig, FUSE_LSEEK, FIRST, &in, sizeof(in));

	return r < 0 ? r : (int64_t)RIG_BODY(rig, struct fuse_lseek_out)->offset;
}

/* Data before, in and behind the window. */
static void test_seek(void **state)
{
	struct rig *rig = *state;
	static const uint8_t page[4096] = {1};

	assert_int_equal(rig_write(rig, NODE_ID_DISK, 0, page, sizeof(page)), 0);
	assert_int_equal(rig_write(rig, NODE_ID_DISK, A_OFF + A_LEN, page, sizeof(page)), 0);
	assert_int_equal(seek(rig, 0, SEEK_DATA), -ENXIO);
	assert_int_equal(seek(rig, 0, SEEK_HOLE), 0);
	assert_int_equal(rig_write(rig, FIRST, 4096, page, sizeof(page)), 0);
	assert_int_equal(seek(rig, 0, SEEK_DATA), 4096);
	assert_int_equal(seek(rig, 4096, SEEK_HOLE), A_LEN);
	assert_int_equal(seek(rig, A_LEN, SEEK_HOLE), -ENXIO);
}

static void test_blocks(void **state)
{
	struct rig *rig = *state;
	static const uint8_t page[4096] = {1};
	struct fuse_attr a;

	assert_int_equal(rig_write(rig, NODE_ID_DISK, 0, page, sizeof(page)), 0);
	assert_int_equal(rig_getattr(rig, FIRST, &a), 0);
	assert_int_equal(a.blocks, 0);
	assert_int_equal(rig_write(rig, FIRST, 0, page, sizeof(page)), 0);
	assert_int_equal(rig_getattr(rig, FIRST, &a), 0);
	assert_int_equal(a.blocks, 8);
}

static void test_attributes(void **state)
{
	struct fuse_setattr_in in = {
		.valid = FATTR_MODE | FATTR_MTIME, .mode = 0640, .mtime = 1000};
	struct rig *rig = *state;
	struct fuse_attr a;

	assert_int_equal(rig_call(rig, FUSE_SETATTR, FIRST, &in, sizeof(in)), 0);
	assert_int_equal(rig_getattr(rig, FIRST, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(a.mtime, 1000);
	assert_int_equal(rig_getattr(rig, FIRST + 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_int_equal(rig_write(rig, FIRST, 0, "x", 1), 0);
	assert_int_equal(rig_getattr(rig, FIRST, &a), 0);
	assert_int_not_equal(a.mtime, 1000);
}

static uint32_t open_flags(struct rig *rig, uint64_t node, uint32_t flags)
{
	const struct fuse_open_in in = {.flags = flags};

	assert_int_equal(rig_call(rig, FUSE_OPEN, node, &in, sizeof(in)), 0);
	return RIG_BODY(rig, struct fuse_open_out)->open_flags;
}

/* The kernel has a cache for the disk and one for each partition. */
static void test_caches(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(open_flags(rig, FIRST, O_RDONLY), FOPEN_KEEP_CACHE);
	assert_int_equal(open_flags(rig, NODE_ID_DISK, O_RDONLY), FOPEN_KEEP_CACHE);
	assert_int_equal(open_flags(rig, FIRST, O_RDWR), FOPEN_KEEP_CACHE);
	assert_int_equal(open_flags(rig, FIRST, O_RDONLY), FOPEN_KEEP_CACHE);
	assert_int_equal(open_flags(rig, NODE_ID_DISK, O_RDONLY), 0);
	assert_int_equal(open_flags(rig, NODE_ID_DISK, O_WRONLY), 0);
	assert_int_equal(open_flags(rig, FIRST, O_RDONLY), 0);
}

static void test_shorter_disk(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(share_resize(&rig->share, A_OFF + 100), 0);
	assert_int_equal(size_of(rig, FIRST), 100);
	assert_int_equal(size_of(rig, FIRST + 1), 0);
	assert_int_equal(rig_write(rig, FIRST, 100, "x", 1), -ENOSPC);
	assert_int_equal(rig_write(rig, FIRST + 1, 0, "x", 1), -ENOSPC);
	assert_int_equal(image_size(rig->image), A_OFF + 100);
}

/* The same place: the same node, and its size follows, for who has it open as well. */
static void test_new_size(void **state)
{
	struct rig *rig = *state;

	table.entries[0].len = 512;
	table.entries[1].len = 1024;
	windows_set(&rig->share, &table, 0);
	assert_int_equal(lookup(rig, "part1"), FIRST);
	assert_int_equal(size_of(rig, FIRST), 512);
	assert_int_equal(size_of(rig, FIRST + 1), 1024);
}

/* Another place: another node, and the old one stays as it was. */
static void test_moved_and_gone(void **state)
{
	struct rig *rig = *state;

	table = (struct partition_table){0};
	add(1, 65536, 512);
	windows_set(&rig->share, &table, 0);
	assert_int_equal(lookup(rig, "part5"), 0);
	assert_int_equal(lookup(rig, "part1"), FIRST + 2);
	assert_int_equal(size_of(rig, FIRST + 2), 512);
	assert_int_equal(rig_write(rig, FIRST, 0, "old place", 9), 0);
	assert_disk(rig, A_OFF, "old place");
	assert_int_equal(rig_write(rig, FIRST + 1, 0, "gone", 4), 0);
	assert_disk(rig, B_OFF, "gone");
	/* and back */
	table = (struct partition_table){0};
	add(1, A_OFF, A_LEN);
	windows_set(&rig->share, &table, 0);
	assert_int_equal(lookup(rig, "part1"), FIRST);
	windows_set(&rig->share, NULL, 0);
	assert_int_equal(lookup(rig, "part1"), 0);
	assert_int_equal(size_of(rig, FIRST), A_LEN);
}

/* What the configuration has chosen, under a name that is known beforehand. */
static void test_link(void **state)
{
	struct fuse_setattr_in in = {.valid = FATTR_UID};
	struct rig *rig = *state;
	char name[NODE_NAME_MAX];
	struct fuse_attr a;

	assert_int_equal(lookup(rig, "partition"), 0);
	assert_int_equal(rig_call(rig, FUSE_READLINK, NODE_ID_LINK, NULL, 0), -ENOENT);
	assert_int_equal(rig_getattr(rig, NODE_ID_LINK, &a), -ENOENT);
	windows_set(&rig->share, &table, 5);
	assert_int_equal(lookup(rig, "partition"), NODE_ID_LINK);
	assert_int_equal(RIG_BODY(rig, struct fuse_entry_out)->entry_valid, 0);
	assert_int_equal(node_name(&rig->share, 4, name), NODE_ID_LINK);
	assert_string_equal(name, "partition");
	assert_int_equal(node_name(&rig->share, 5, name), 0);
	assert_int_equal(rig_getattr(rig, NODE_ID_LINK, &a), 0);
	assert_int_equal(a.mode, S_IFLNK | 0777);
	assert_int_equal(a.size, 5);
	assert_int_equal(rig_call(rig, FUSE_READLINK, NODE_ID_LINK, NULL, 0), 0);
	assert_int_equal(rig->body_len, 5);
	assert_memory_equal(rig->body, "part5", 5);
	assert_int_equal(rig_call(rig, FUSE_READLINK, FIRST, NULL, 0), -EINVAL);
	assert_int_equal(rig_call(rig, FUSE_SETATTR, NODE_ID_LINK, &in, sizeof(in)), -EPERM);
	assert_int_equal(rig_write(rig, NODE_ID_LINK, 0, "x", 1), -EBADF);
}

static void test_flaws_are_logged(void **state)
{
	struct rig *rig = *state;

	add(7, 70000, 100);
	table.entries[2].flaw = PARTITION_BEYOND;
	add(8, 80000, 100);
	table.entries[3].flaw = PARTITION_CONTAINER;
	windows_set(&rig->share, &table, 0);
	assert_int_equal(lookup(rig, "part7") + lookup(rig, "part8"), 0);
	assert_int_equal(rig->logged, 1);
	assert_string_equal(rig->log_text,
			    "part7 is left out: it reaches beyond the end of the disk");
	table.more = 3;
	windows_set(&rig->share, &table, 0);
	assert_string_equal(rig->log_text, "3 partitions are left out: 128 are the limit");
}

/* The next worker of the session. */
static void test_survive_the_worker(void **state)
{
	struct rig *rig = *state;
	const struct serve_options options = {.image = rig->image,
					      .config = &rig->config,
					      .granted = &rig->granted,
					      .slots_fd = rig->slots_fd};
	struct share next;
	uint64_t off, len;

	assert_int_equal(share_init(&next, &options, NULL), 0);
	assert_int_equal(windows_count(&next), 2);
	assert_true(windows_place(&next, FIRST + 1, &off, &len));
	assert_int_equal(off, B_OFF);
	assert_int_equal(len, B_LEN);
	share_done(&next);
}

static void test_changed_too_often(void **state)
{
	struct rig *rig = *state;

	for (uint64_t i = 1; i <= SLOTS_WINDOWS_MAX; i++) {
		table = (struct partition_table){0};
		add(1, i * 100, 100);
		windows_set(&rig->share, &table, 0);
	}
	assert_non_null(strstr(rig->log_text, "changed too often"));
	assert_int_equal(lookup(rig, "part1"), FIRST + SLOTS_WINDOWS_MAX - 1);
}

/* A worker that was taken over has written what it liked. */
static void test_hostile_memory(void **state)
{
	struct rig *rig = *state;
	struct slots_windows *all = &rig->share.slots.head->windows;
	char name[NODE_NAME_MAX];
	struct fuse_attr a;

	all->names[0].n = all->names[1].n = UINT32_MAX;
	memset(all->names[0].window, 0xff, sizeof(all->names[0].window));
	memset(all->names[1].window, 0xff, sizeof(all->names[1].window));
	for (unsigned i = 2; i < 2 + SLOTS_PARTS_MAX; i++)
		assert_int_not_equal(node_name(&rig->share, i, name), 0);
	assert_int_equal(node_name(&rig->share, 2 + SLOTS_PARTS_MAX, name), 0);
	atomic_store(&all->n, UINT32_MAX);
	atomic_store(&all->live, UINT32_MAX);
	assert_int_equal(lookup(rig, "part1"), 0);
	assert_int_equal(rig_getattr(rig, FIRST + SLOTS_WINDOWS_MAX, &a), -ENOENT);
	all->windows[0].off = UINT64_MAX - 10;
	atomic_store(&all->windows[0].len, UINT64_MAX);
	assert_int_equal(size_of(rig, FIRST), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_names),
		TEST(test_file_target_has_no_windows),
		TEST(test_read_and_write),
		TEST(test_write_ends_with_the_window),
		TEST(test_ranges_end_with_the_window),
		TEST(test_truncate),
		TEST(test_seek),
		TEST(test_blocks),
		TEST(test_attributes),
		TEST(test_caches),
		TEST(test_shorter_disk),
		TEST(test_new_size),
		TEST(test_moved_and_gone),
		TEST(test_link),
		TEST(test_flaws_are_logged),
		TEST(test_survive_the_worker),
		TEST(test_changed_too_often),
		TEST(test_hostile_memory),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

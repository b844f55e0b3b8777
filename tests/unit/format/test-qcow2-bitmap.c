/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Persistent bitmaps of images that we write to: what follows the disk's content says that it may
 * be wrong, before the first byte changes; QEMU agrees, and can remove it without a leak. */

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/io.h"
#include "format/qcow2-disk.h"
#include "store/journal.h"

/* Two bitmaps with bits set: one follows every write, the other has been stopped. */
static void make(const char *options)
{
	sh("rm -f img; qemu-img create -q -f qcow2 -o %s img 20M", options);
	sh("qemu-img bitmap --add img stopped && qemu-io -c 'write -P 1 1M 1M' img >/dev/null");
	sh("qemu-img bitmap --disable img stopped && qemu-img bitmap --add -g 4k img daily");
	sh("qemu-io -c 'write -P 2 5M 3M' img >/dev/null && cp img before");
	assert_check("img", false);
}

static void make_raw_data(void)
{
	make("data_file=img.data,data_file_raw=on");
}

static int append_bitmap(void *data, const struct format_bitmap *b)
{
	char *text = data;
	size_t len = strlen(text);

	snprintf(text + len, 256 - len, "%s%s%s ", b->name, b->automatic ? "/auto" : "",
		 b->in_use ? "/in-use" : "");
	return 0;
}

/* As we read them. */
static void assert_ours(const char *path, const char *wanted)
{
	struct diag diag = {0};
	char text[256] = "";
	struct disk d;

	disk_open(&d, path, false);
	if (d.img.format->bitmaps(&d.img, append_bitmap, text, &diag) < 0)
		fail_msg("%s", diag.text);
	disk_close(&d);
	assert_string_equal(text, wanted);
}

/* As QEMU reads them. */
static void assert_theirs(const char *path, const char *wanted)
{
	_cleanup_free_ char *text = NULL;
	size_t len;

	sh("qemu-img info --output=json %s >info && python3 -c \"import json; print(*("
	   "'/'.join([b['name']] + sorted(b['flags'])) + ' ' for b in "
	   "json.load(open('info'))['format-specific']['data']['bitmaps']), sep='', end='')\" "
	   ">bitmaps",
	   path);
	assert_int_equal(io_read_file(AT_FDCWD, "bitmaps", MIB(1), &text, &len), 0);
	text[len] = '\0';
	assert_string_equal(text, wanted);
}

static void assert_bitmaps(const char *path, const char *wanted)
{
	assert_ours(path, wanted);
	assert_theirs(path, wanted);
	assert_check(path, false);
}

#define VALID "stopped daily/auto "
#define MARKED "stopped daily/auto/in-use "
#define ALL_MARKED "stopped/in-use daily/auto/in-use "

static void test_reading(void **state)
{
	struct disk d;
	char byte;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	disk_open(&d, "img", false);
	assert_int_equal(disk_read(&d, &byte, 1, 1 << 20), 0);
	disk_close(&d);
	sh("cmp img before");
	assert_bitmaps("img", VALID);
}

/* Opened for writing, and nothing was written: all is as before, to the byte. */
static void test_untouched(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	disk_open(&d, "img", true);
	assert_int_equal(disk_flush(&d), 0);
	sh("cp img meanwhile");
	disk_close(&d);
	assert_bitmaps("meanwhile", MARKED);
	assert_bitmaps("img", VALID);
	sh("cmp img before");
}

static void change_write(struct disk *d)
{
	assert_int_equal(disk_write(d, "x", 1, 6 << 20), 0); /* in place */
}

static void change_zero(struct disk *d)
{
	assert_int_equal(disk_unmap(d, 6 << 20, 1 << 20, UNMAP_ZERO), 0);
}

static void change_discard(struct disk *d)
{
	assert_int_equal(disk_unmap(d, 6 << 20, 1 << 20, UNMAP_DISCARD), 0);
}

static void change_grow(struct disk *d)
{
	assert_int_equal(disk_resize(d, 30 << 20), 0);
}

static void change_shrink(struct disk *d)
{
	assert_int_equal(disk_resize(d, 2 << 20), 0);
}

static void test_changed(void **state)
{
	static const struct {
		void (*change)(struct disk *d);
		const char *wanted;
	} changes[] = {{change_write, MARKED},
		       {change_zero, MARKED},
		       {change_discard, MARKED},
		       {change_grow, ALL_MARKED},
		       {change_shrink, ALL_MARKED}};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		make(i % 2 ? "cluster_size=4k" : "extended_l2=on");
		disk_open(&d, "img", true);
		changes[i].change(&d);
		sh("cp img meanwhile");
		disk_close(&d);
		assert_theirs("meanwhile", changes[i].wanted);
		assert_bitmaps("img", changes[i].wanted);
		/* They stay so, for we do not know what they lack */
		disk_open(&d, "img", true);
		disk_close(&d);
		assert_bitmaps("img", changes[i].wanted);
		/* No backup is made by them, and they can go */
		assert_int_not_equal(sh_status("qemu-img bitmap --add img new && "
					       "qemu-img bitmap --merge daily img new 2>/dev/null"),
				     0);
		sh("qemu-img bitmap --remove img new && qemu-img bitmap --remove img daily");
		sh("qemu-io -c 'write 0 1M' img >/dev/null");
		assert_check("img", false);
	}
}

static void test_data_file(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	make_raw_data();
	disk_open(&d, "img", true);
	change_write(&d);
	disk_close(&d);
	assert_bitmaps("img", MARKED);
	sh("qemu-img info img | grep -q 'data file raw: true'");
}

/* The process dies: the next one finds marks that are not its own. */
static void test_killed(void **state)
{
	struct disk d;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	disk_open(&d, "img", true);
	disk_kill(&d);
	assert_bitmaps("img", MARKED);
	disk_open(&d, "img", true);
	disk_close(&d);
	assert_bitmaps("img", MARKED);
}

/* Index of the first record behind the first flush. */
static size_t first_flush(struct journal *j)
{
	size_t i = 0;

	while (journal_at(j, i)->kind != JOURNAL_FLUSH)
		i++;
	return i + 1;
}

/* The power goes: no state in which a bitmap that follows the disk looks right though a byte of the
 * disk may have changed. */
static void test_power_cuts(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	struct diag diag = {0};
	struct store *store, *after;
	struct disk d;
	size_t marked;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=4k");
	store_load("img", &store);
	assert_int_equal(journal_attach(j, store, &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
	change_write(&d);
	change_discard(&d);
	change_grow(&d);
	disk_close(&d);

	marked = first_flush(j);
	for (size_t i = 0; i < marked - 1; i++)
		assert_int_equal(journal_at(j, i)->len, sizeof(uint32_t)); /* flags, nothing else */
	for (size_t k = 0; k <= journal_length(j); k++) {
		assert_int_equal(
			journal_cut(j, 0, k, k % 2 ? JOURNAL_TORN : JOURNAL_LOSE, k, &after), 0);
		store_dump(after, "after");
		store_close(after);
		assert_check("after", true);
		sh("qemu-img info after | grep -c in-use >count || true");
		if (k >= marked)
			sh("test $(cat count) -ge 1");
	}
}

/* A directory that nobody can read: the image is written, the bitmaps are not believed any more. */
static void test_damaged(void **state)
{
	static const struct {
		unsigned at; /* in the header extension's data */
		uint64_t value;
	} damages[] = {{8, UINT64_MAX}, {8, 24}, {16, 0}, {16, 4096}, {16, UINT64_C(1) << 40}};
	struct diag diag = {0};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		_cleanup_free_ char *bytes = NULL;
		struct store *store;
		uint64_t autoclear;
		char *ext;
		size_t len;

		assert_int_equal(io_read_file(AT_FDCWD, "img", MIB(64), &bytes, &len), 0);
		ext = memmem(bytes, 4096, "\x23\x85\x28\x75", 4);
		assert_non_null(ext);
		be64_put(ext + 8 + damages[i].at, damages[i].value);
		assert_int_equal(store_memory_from("img", bytes, len, GIB(1), &store), 0);
		assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
		assert_int_equal(store_read_full(store, &autoclear, 8, 88), 0);
		assert_int_equal(autoclear, 0);
		disk_close(&d);
	}
}

/* A directory on top of the tables: marking it would spoil them. */
static void test_misplaced(void **state)
{
	static const unsigned tables[] = {40, 48}; /* in the header: L1 and refcount table */

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		_cleanup_free_ char *bytes = NULL, *now = malloc(65536);
		struct diag diag = {0};
		struct store *store;
		struct disk d;
		uint64_t off;
		size_t len;
		char *ext;

		assert_int_equal(io_read_file(AT_FDCWD, "img", MIB(64), &bytes, &len), 0);
		off = be64_get(bytes + tables[i]);
		ext = memmem(bytes, 4096, "\x23\x85\x28\x75", 4);
		be64_put(ext + 8 + 16, off);
		assert_int_equal(store_memory_from("img", bytes, len, GIB(1), &store), 0);
		assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
		assert_int_equal(store_read_full(store, now, 65536, off), 0);
		assert_memory_equal(now, bytes + off, 65536);
		disk_close(&d);
	}
}

/* Repair drops an entry, so the disk reads otherwise. */
static void test_repair(void **state)
{
	struct check check = {.repair = CHECK_REPAIR_ALL};
	struct diag diag = {0};
	struct store *store;
	struct disk d;
	uint64_t l1, l2, bad;

	if (!harness_have_qemu())
		skip();
	make("cluster_size=64k");
	store_load("img", &store);
	assert_int_equal(store_read_full(store, &l1, 8, 40), 0);
	assert_int_equal(store_read_full(store, &l2, 8, be64_get(&l1)), 0);
	be64_put(&bad, (UINT64_C(1) << 40) | QCOW2_COPIED);
	assert_int_equal(store_write(store, &bad, 8, (be64_get(&l2) & QCOW2_OFFSET) + 16 * 8), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", false, &diag), 0);
	assert_int_equal(d.img.format->check(&d.img, &check, &diag), 0);
	assert_int_equal(check.corruptions, 0);
	store_dump(store, "after");
	disk_close(&d);
	assert_bitmaps("after", MARKED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reading), cmocka_unit_test(test_untouched),
		cmocka_unit_test(test_changed), cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_killed),	cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_damaged), cmocka_unit_test(test_misplaced),
		cmocka_unit_test(test_repair),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}

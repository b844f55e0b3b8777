/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Internal snapshots as disks, lists of snapshots and bitmaps, and tables of them that lie. */

#include "crafted.h"
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-disk.h"

/*
 * The crafted image, and behind it what one snapshot has: its own L1 table, the L2 table of the
 * active layer, and at the very end the snapshot table.
 */
enum {
	SNAPSHOT_L1 = CRAFTED_BYTES,
	SNAPSHOT_TABLE = CRAFTED_BYTES + CRAFTED_CLUSTER,
	TABLE_MAX = 8 << 20,
};

struct crafted {
	uint8_t *bytes;
	size_t len;
};

/* Appends an entry to the table: extra_len bytes of extra data that state a size. */
static void add(struct crafted *c, const char *id, const char *name, uint32_t extra_len,
		uint64_t size)
{
	struct qcow2_disk_header *h = (void *)c->bytes;
	struct qcow2_disk_snapshot s = {0};
	uint8_t extra[2048] = {0};

	c->len = round_up(c->len, 8);
	assert_true(c->len + sizeof(s) + sizeof(extra) < SNAPSHOT_TABLE + TABLE_MAX);
	be64_put(&s.l1_table_offset, SNAPSHOT_L1);
	be32_put(&s.l1_size, 2);
	be16_put(&s.id_str_size, (uint16_t)strlen(id));
	be16_put(&s.name_size, (uint16_t)strlen(name));
	be32_put(&s.date_sec, 1000000000);
	be32_put(&s.vm_state_size, 77);
	be32_put(&s.extra_data_size, extra_len);
	be64_put(extra, UINT64_C(5) << 32);
	be64_put(extra + 8, size);
	c->len = (size_t)((uint8_t *)mempcpy(c->bytes + c->len, &s, sizeof(s)) - c->bytes);
	c->len = (size_t)((uint8_t *)mempcpy(c->bytes + c->len, extra, extra_len) - c->bytes);
	c->len = (size_t)((uint8_t *)mempcpy(c->bytes + c->len, id, strlen(id)) - c->bytes);
	c->len = (size_t)((uint8_t *)mempcpy(c->bytes + c->len, name, strlen(name)) - c->bytes);
	be32_put(&h->nb_snapshots, be32_get(&h->nb_snapshots) + 1);
}

static void start(struct crafted *c)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct qcow2_disk_header *h;

	c->bytes = calloc(1, SNAPSHOT_TABLE + TABLE_MAX);
	assert_non_null(c->bytes);
	c->len = SNAPSHOT_TABLE;
	memcpy(c->bytes, image, CRAFTED_BYTES);
	h = (void *)c->bytes;
	be64_put(&h->snapshots_offset, SNAPSHOT_TABLE);
	be64_put(c->bytes + SNAPSHOT_L1, CRAFTED_L2);
	/* The active layer has let go of what it had */
	be64_put(c->bytes + CRAFTED_L1, 0);
}

static int open_crafted(const struct crafted *c, const char *snapshot, struct disk *d,
			struct diag *diag)
{
	struct store *store;

	*diag = (struct diag){0};
	assert_int_equal(store_memory_from("lie.img", c->bytes, c->len, GIB(1), &store), 0);
	return disk_open_snapshot(d, store, snapshot, diag);
}

static void assert_refused(const struct crafted *c, const char *snapshot, int error,
			   const char *says)
{
	struct diag diag;
	struct disk d;
	int r = open_crafted(c, snapshot, &d, &diag);

	if (r == 0)
		disk_close(&d);
	if (r != error || !strstr(diag.text, says))
		fail_msg("%d, not %d; \"%s\" lacks \"%s\"", r, error, diag.text, says);
}

static void assert_opens(const struct crafted *c, const char *snapshot, uint64_t size)
{
	struct diag diag;
	struct disk d;
	uint8_t byte;

	if (open_crafted(c, snapshot, &d, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(d.img.size, size);
	if (size > 0) {
		assert_int_equal(disk_read(&d, &byte, 1, 0), 0);
		assert_int_equal(byte, snapshot ? 0xff : 0);
	}
	disk_close(&d);
}

static void test_ids_and_names(void **state)
{
	struct crafted c;

	start(&c);
	assert_refused(&c, "1", -ENOENT, "has no internal snapshots");
	add(&c, "1", "one", 24, CRAFTED_SIZE);
	add(&c, "2", "1", 16, CRAFTED_SIZE / 2);
	add(&c, "3", "twice", 16, 4096);
	add(&c, "4", "twice", 1024, 512);
	add(&c, "5", "K\xc3\xa4se \xff\n", 16, 1000);
	add(&c, "7", "", 16, 1000);
	add(&c, "7", "", 16, 1000);
	assert_opens(&c, NULL, CRAFTED_SIZE);
	assert_opens(&c, "1", CRAFTED_SIZE);
	assert_opens(&c, "one", CRAFTED_SIZE);
	assert_opens(&c, "2", CRAFTED_SIZE / 2);
	assert_opens(&c, "3", 4096);
	assert_opens(&c, "4", 512);
	assert_opens(&c, "K\xc3\xa4se \xff\n", 1000);
	assert_refused(&c, "twice", -ENOTUNIQ, "say which by its id: 3 \"twice\", 4 \"twice\"");
	assert_refused(&c, "7", -ENOTUNIQ, "2 snapshots are called \"7\"");
	assert_refused(&c, "on", -ENOENT, "no snapshot \"on\"; there are: 1 \"one\", 2 \"1\"");
	assert_refused(&c, "\x1b[2J", -ENOENT, "no snapshot \"\\x1b[2J\"");
	assert_refused(&c, "6", -ENOENT, "5 \"K\xc3\xa4se \\xff\\x0a\"");
	free(c.bytes);
}

/* A sentence has an end, however many there are. */
static void test_many(void **state)
{
	struct crafted c;
	char id[16];

	start(&c);
	for (int i = 1; i <= 65536; i++) {
		snprintf(id, sizeof(id), "%d", i);
		add(&c, id, "all the same", 16, 512);
	}
	assert_opens(&c, "65536", 512);
	assert_refused(&c, "all the same", -ENOTUNIQ, "65536 snapshots are called");
	assert_refused(&c, "another", -ENOENT, "\"all the same\" and 655");
	free(c.bytes);
}

static void test_sizes(void **state)
{
	static const struct {
		uint32_t extra_len;
		uint64_t size;
		int error;
		const char *says;
	} cases[] = {
		{0, 0, -EUCLEAN, "entry 0 of the snapshot table does not say how large"},
		{8, 0, -EUCLEAN, "entry 0 of the snapshot table does not say how large"},
		{15, 0, -EUCLEAN, "entry 0 of the snapshot table does not say how large"},
		{16, 0, 0, NULL},
		{17, CRAFTED_SIZE, 0, NULL},
		{1025, 512, -EUCLEAN, "1025 bytes of extra data"},
		{16, CRAFTED_SIZE + 1, -EUCLEAN, "the disk size asks for 3"},
		{16, UINT64_C(1) << 63, -EFBIG,
		 "entry 0 of the snapshot table: lie.img: a disk of"},
		{16, UINT64_MAX, -EFBIG, "entry 0 of the snapshot table: lie.img: a disk of"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct crafted c;

		start(&c);
		add(&c, "1", "one", cases[i].extra_len, cases[i].size);
		if (cases[i].error)
			assert_refused(&c, "1", cases[i].error, cases[i].says);
		else
			assert_opens(&c, "1", cases[i].size);
		free(c.bytes);
	}
}

/* Version 2 knew no sizes: they could not change while there were snapshots. */
static void test_version_2(void **state)
{
	struct crafted c;

	start(&c);
	be32_put(&((struct qcow2_disk_header *)c.bytes)->version, 2);
	add(&c, "1", "one", 0, 0);
	add(&c, "2", "two", 16, 512);
	assert_opens(&c, "1", CRAFTED_SIZE);
	assert_opens(&c, "2", 512);
	free(c.bytes);
}

static void put(uint8_t *at, unsigned width, uint64_t value)
{
	for (unsigned i = 0; i < width; i++)
		at[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

#define ENTRY(name)                                                                                \
	SNAPSHOT_TABLE + offsetof(struct qcow2_disk_snapshot, name),                               \
		sizeof(((struct qcow2_disk_snapshot *)0)->name)
#define HEADER(name)                                                                               \
	offsetof(struct qcow2_disk_header, name), sizeof(((struct qcow2_disk_header *)0)->name)

static void test_lies(void **state)
{
	static const struct {
		size_t off;
		unsigned width;
		uint64_t value;
		int error;
		const char *says;
	} lies[] = {
		{ENTRY(l1_table_offset), 0, -EUCLEAN,
		 "entry 0 of the snapshot table: lie.img: L1 table over"},
		{ENTRY(l1_table_offset), SNAPSHOT_L1 + 512, -EUCLEAN, "not a cluster boundary"},
		{ENTRY(l1_table_offset), UINT64_C(1) << 40, -EUCLEAN, "outside the file"},
		{ENTRY(l1_table_offset), UINT64_C(1) << 63, -EUCLEAN, "outside any file"},
		{ENTRY(l1_table_offset), UINT64_MAX - 65535, -EUCLEAN, "outside any file"},
		{ENTRY(l1_size), 0, -EUCLEAN, "the L1 table has 0 entries"},
		{ENTRY(l1_size), 1, -EUCLEAN, "the L1 table has 1 entries"},
		{ENTRY(l1_size), UINT32_MAX, -EFBIG, "L1 table of 4294967295 entries"},
		{ENTRY(id_str_size), 65535, -EUCLEAN, "the snapshot table is cut off"},
		{ENTRY(name_size), 65535, -EUCLEAN, "the snapshot table is cut off"},
		{ENTRY(name_size), 4, -EUCLEAN, "the snapshot table is cut off"},
		{ENTRY(extra_data_size), UINT32_MAX, -EUCLEAN, "4294967295 bytes of extra"},
		{ENTRY(extra_data_size), 1000, -EUCLEAN, "the snapshot table is cut off"},
		{HEADER(nb_snapshots), 2, -EUCLEAN, "the snapshot table is cut off"},
		{HEADER(nb_snapshots), 65536, -EUCLEAN, "the snapshot table is cut off"},
		{HEADER(nb_snapshots), 65537, -EFBIG, "65537 snapshots"},
		{HEADER(snapshots_offset), UINT64_C(1) << 55, -EUCLEAN, "cut off"},
		{HEADER(snapshots_offset), UINT64_C(1) << 63, -EUCLEAN, "outside any file"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct crafted c;

		start(&c);
		add(&c, "1", "one", 16, CRAFTED_SIZE);
		put(c.bytes + lies[i].off, lies[i].width, lies[i].value);
		assert_refused(&c, "1", lies[i].error, lies[i].says);
		free(c.bytes);
	}
}

/* Entries of the snapshot's own tables are checked like those of the active layer. */
static void test_damaged_l1(void **state)
{
	struct crafted c;
	struct diag diag;
	struct disk d;
	uint8_t byte;

	start(&c);
	add(&c, "1", "one", 16, CRAFTED_SIZE);
	be64_put(c.bytes + SNAPSHOT_L1, CRAFTED_L2 + 512);
	assert_int_equal(open_crafted(&c, "1", &d, &diag), 0);
	assert_int_equal(disk_read(&d, &byte, 1, 0), -EUCLEAN);
	assert_non_null(strstr(atomic_load(&d.img.damage), "L1 entry of guest offset 0x0"));
	disk_close(&d);
	free(c.bytes);
}

static void test_data_file(void **state)
{
	static const char name[] = "nothing";
	struct crafted c;
	uint8_t *ext;

	start(&c);
	add(&c, "1", "one", 16, CRAFTED_SIZE);
	ext = c.bytes + QCOW2_V3_HEADER;
	put(c.bytes + offsetof(struct qcow2_disk_header, incompatible_features), 8,
	    QCOW2_INCOMPAT_DATA_FILE);
	be32_put(ext, QCOW2_EXT_DATA_FILE);
	be32_put(ext + 4, sizeof(name) - 1);
	memcpy(ext + 8, name, sizeof(name) - 1);
	assert_refused(&c, "1", -EOPNOTSUPP, "external data file");
	free(c.bytes);
}

struct seen {
	unsigned n, stop_after;
	struct format_snapshot last;
	char text[4096]; /* "id=name " of each that fits */
};

static int see_snapshot(void *data, const struct format_snapshot *s)
{
	struct seen *seen = data;
	size_t len = strlen(seen->text);

	snprintf(seen->text + len, sizeof(seen->text) - len, "%s=%s ", s->id, s->name);
	seen->last = *s;
	return ++seen->n == seen->stop_after ? -ECANCELED : 0;
}

static int see_bitmap(void *data, const struct format_bitmap *b)
{
	struct seen *seen = data;
	size_t len = strlen(seen->text);

	seen->n++;
	snprintf(seen->text + len, sizeof(seen->text) - len, "%s/%llu%s%s ", b->name,
		 (unsigned long long)b->granularity, b->automatic ? "/auto" : "",
		 b->in_use ? "/in-use" : "");
	return 0;
}

static void test_list(void **state)
{
	struct seen seen = {0};
	struct crafted c;
	struct diag diag;
	struct disk d;

	start(&c);
	add(&c, "1", "one", 0, 0);
	add(&c, "2", "two words", 24, 4096);
	assert_int_equal(open_crafted(&c, NULL, &d, &diag), 0);
	assert_int_equal(d.img.format->snapshots(&d.img, see_snapshot, &seen, &diag), 0);
	assert_string_equal(seen.text, "1=one 2=two words ");
	assert_true(seen.last.has_size && seen.last.size == 4096);
	assert_int_equal(seen.last.date_sec, 1000000000);
	assert_int_equal(seen.last.vm_state_size, UINT64_C(5) << 32);
	seen = (struct seen){.stop_after = 1};
	assert_int_equal(d.img.format->snapshots(&d.img, see_snapshot, &seen, &diag), -ECANCELED);
	assert_string_equal(seen.text, "1=one ");
	assert_false(seen.last.has_size);
	assert_int_equal(seen.last.vm_state_size, 77);
	disk_close(&d);

	/* What stands before the damage is shown */
	be32_put(&((struct qcow2_disk_header *)c.bytes)->nb_snapshots, 3);
	assert_int_equal(open_crafted(&c, NULL, &d, &diag), 0);
	seen = (struct seen){0};
	assert_int_equal(d.img.format->snapshots(&d.img, see_snapshot, &seen, &diag), -EUCLEAN);
	assert_int_equal(seen.n, 2);
	disk_close(&d);
	free(c.bytes);
}

/* Whatever the table says: an answer, and no more than the vocabulary of errors. */
static void test_noise(void **state)
{
	static const char *const wanted[] = {"1", "two", "nothing"};
	uint64_t rng = 7;
	struct crafted c;

	start(&c);
	add(&c, "1", "one", 16, CRAFTED_SIZE);
	add(&c, "2", "two", 24, 4096);
	for (unsigned i = 0; i < 20000; i++) {
		size_t off = SNAPSHOT_TABLE + random_next(&rng) % (c.len - SNAPSHOT_TABLE);
		uint8_t before = c.bytes[off];
		struct seen seen = {0};
		struct diag diag;
		struct disk d;
		int r;

		c.bytes[off] = (uint8_t)random_next(&rng);
		r = open_crafted(&c, wanted[i % ARRAY_SIZE(wanted)], &d, &diag);
		assert_true(r == 0 || r == -EUCLEAN || r == -EFBIG || r == -ENOENT ||
			    r == -ENOTUNIQ);
		assert_true(r == 0 || diag.text[0]);
		if (r == 0) {
			r = d.img.format->snapshots(&d.img, see_snapshot, &seen, &diag);
			assert_int_equal(r, 0);
			disk_close(&d);
		}
		/* A few changes at a time */
		if (i % 4)
			c.bytes[off] = before;
		if (i % 64 == 0) {
			free(c.bytes);
			start(&c);
			add(&c, "1", "one", 16, CRAFTED_SIZE);
			add(&c, "2", "two", 24, 4096);
		}
	}
	free(c.bytes);
}

/* Bitmaps: the directory stands where snapshots have their table. */

static void craft_bitmaps(struct crafted *c, uint64_t autoclear)
{
	struct qcow2_disk_bitmaps ext = {0};
	struct qcow2_disk_bitmap b = {0};

	start(c);
	be32_put(&b.flags, QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
	b.type = 1;
	b.granularity_bits = 16;
	be16_put(&b.name_size, 5);
	memcpy(c->bytes + SNAPSHOT_TABLE, &b, sizeof(b));
	memcpy(c->bytes + SNAPSHOT_TABLE + sizeof(b), "daily", 5);
	c->len = SNAPSHOT_TABLE + 32;
	be32_put(&ext.nb_bitmaps, 1);
	be64_put(&ext.bitmap_directory_offset, SNAPSHOT_TABLE);
	be64_put(&ext.bitmap_directory_size, 32);
	be32_put(c->bytes + QCOW2_V3_HEADER, QCOW2_EXT_BITMAPS);
	be32_put(c->bytes + QCOW2_V3_HEADER + 4, sizeof(ext));
	memcpy(c->bytes + QCOW2_V3_HEADER + 8, &ext, sizeof(ext));
	be64_put(&((struct qcow2_disk_header *)c->bytes)->autoclear_features, autoclear);
}

static int list_bitmaps(const struct crafted *c, struct seen *seen, struct diag *diag)
{
	struct disk d;
	int r;

	*seen = (struct seen){0};
	assert_int_equal(open_crafted(c, NULL, &d, diag), 0);
	r = d.img.format->bitmaps(&d.img, see_bitmap, seen, diag);
	disk_close(&d);
	return r;
}

#define BITMAP(name)                                                                               \
	SNAPSHOT_TABLE + offsetof(struct qcow2_disk_bitmap, name),                                 \
		sizeof(((struct qcow2_disk_bitmap *)0)->name)
#define EXTENSION(name)                                                                            \
	QCOW2_V3_HEADER + 8 + offsetof(struct qcow2_disk_bitmaps, name),                           \
		sizeof(((struct qcow2_disk_bitmaps *)0)->name)

static void test_bitmaps(void **state)
{
	static const struct {
		size_t off;
		unsigned width;
		uint64_t value;
		int error;
		const char *says;
	} lies[] = {
		{BITMAP(type), 2, -EUCLEAN, "bitmap 0 has the unknown type 2"},
		{BITMAP(flags), 8, -EUCLEAN, "bitmap 0 has the unknown flags 8"},
		{BITMAP(granularity_bits), 8, -EUCLEAN, "granularity_bits 8"},
		{BITMAP(granularity_bits), 255, -EUCLEAN, "granularity_bits 255"},
		{BITMAP(name_size), 9, -EUCLEAN, "the bitmap directory is cut off"},
		{BITMAP(name_size), 65535, -EUCLEAN, "cut off"},
		{BITMAP(extra_data_size), UINT32_MAX, -EUCLEAN, "cut off"},
		{EXTENSION(nb_bitmaps), 2, -EUCLEAN, "cut off"},
		{EXTENSION(nb_bitmaps), UINT32_MAX, -EUCLEAN, "cut off"},
		{EXTENSION(bitmap_directory_size), 0, -EUCLEAN, "cut off"},
		{EXTENSION(bitmap_directory_size), UINT64_MAX, -EFBIG, "over the limit"},
		{EXTENSION(bitmap_directory_size), 40, -EUCLEAN, "outside the file"},
		{EXTENSION(bitmap_directory_offset), 0, -EUCLEAN, "overlaps the header"},
		{EXTENSION(bitmap_directory_offset), 8, -EUCLEAN, "not a cluster boundary"},
		{EXTENSION(bitmap_directory_offset), UINT64_C(1) << 50, -EUCLEAN, "outside the"},
		{EXTENSION(bitmap_directory_offset), UINT64_C(1) << 63, -EUCLEAN, "outside any"},
		{QCOW2_V3_HEADER + 4, 4, 16, -EUCLEAN, "16 bytes long"},
	};
	struct diag diag = {0};
	struct crafted c;
	struct seen seen;

	craft_bitmaps(&c, QCOW2_AUTOCLEAR_BITMAPS);
	assert_int_equal(list_bitmaps(&c, &seen, &diag), 0);
	assert_string_equal(seen.text, "daily/65536/auto/in-use ");
	free(c.bytes);

	/* Somebody has written who knew nothing of bitmaps */
	craft_bitmaps(&c, 0);
	assert_int_equal(list_bitmaps(&c, &seen, &diag), 0);
	assert_int_equal(seen.n, 0);
	free(c.bytes);

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		craft_bitmaps(&c, QCOW2_AUTOCLEAR_BITMAPS);
		put(c.bytes + lies[i].off, lies[i].width, lies[i].value);
		assert_int_equal(list_bitmaps(&c, &seen, &diag), lies[i].error);
		if (!strstr(diag.text, lies[i].says))
			fail_msg("\"%s\" lacks \"%s\"", diag.text, lies[i].says);
		free(c.bytes);
	}
}

/* Images of qemu-img */

static void assert_snapshot_reads_as(const char *snapshot, const char *raw_path)
{
	int fd = open("img", O_RDONLY | O_CLOEXEC);
	struct diag diag = {0};
	struct store *store;
	struct disk d;

	assert_true(fd >= 0);
	assert_int_equal(store_file_new(fd, "img", &store, &diag), 0);
	if (disk_open_snapshot(&d, store, snapshot, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_reads_as(&d, raw_path);
	disk_close(&d);
}

static void overwrite(const char *path, uint64_t seed)
{
	_cleanup_free_ uint8_t *buf = malloc(200000);
	struct disk d;

	assert_non_null(buf);
	disk_open(&d, path, true);
	for (int i = 0; i < 20; i++) {
		size_t len = 1 + random_next(&seed) % 200000;
		uint64_t off = random_next(&seed) % (d.img.size - len);

		pattern(buf, len, off, seed);
		assert_int_equal(disk_write(&d, buf, len, off), 0);
	}
	disk_close(&d);
}

/* Snapshots at several sizes, written over by us in between. */
static void check_shape(const char *shape)
{
	bool old = strstr(shape, "compat=0.10");

	shape_fill(shape);
	sh("qemu-img snapshot -c one img && qemu-img convert -O raw img raw.one");
	overwrite("img", 1);
	if (!old) /* which cannot be resized with snapshots */
		sh("qemu-img resize -q img 20M");
	sh("qemu-img snapshot -c 'two words' img && qemu-img convert -O raw img raw.two");
	overwrite("img", 2);
	/* A name that is another's id */
	sh("qemu-img snapshot -c 1 img && qemu-img convert -O raw img raw.three");
	overwrite("img", 3);
	assert_snapshot_reads_as("one", "raw.one");
	assert_snapshot_reads_as("1", "raw.one");
	assert_snapshot_reads_as("two words", "raw.two");
	assert_snapshot_reads_as("2", "raw.two");
	assert_snapshot_reads_as("3", "raw.three");
	assert_check("img", false);
}

static void test_qemu(void **state)
{
	static const char *const with_snapshots[] = {
		"compat=0.10",	   "cluster_size=512", "cluster_size=64k",
		"cluster_size=2M", "extended_l2=on",   "refcount_bits=8,compression_type=zstd",
	};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(with_snapshots); i++) {
		print_message("%s\n", with_snapshots[i]);
		sh("rm -f img");
		check_shape(with_snapshots[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_and_names),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_damaged_l1),
		cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_bitmaps),
		cmocka_unit_test_setup_teardown(test_qemu, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables made by hand: what is right is found, and what is wrong is named and harms nothing else.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "image/partition-find.h"
#include "image/partition-table.h"

enum {
	DISK_SIZE = 4 << 20,
};

static uint8_t disk[DISK_SIZE];
static struct diag diag;

static int set_up(void **state)
{
	memset(disk, 0, sizeof(disk));
	diag = (struct diag){0};
	return 0;
}

static int read_size(size_t size, struct partition_table **ret)
{
	const struct image_options options = {.format = "raw", .read_only = true};
	struct store *store;
	struct image *img;
	int r;

	assert_int_equal(store_memory_from("disk", disk, size, size, &store), 0);
	assert_int_equal(image_open(store, &options, &img, &diag), 0);
	r = partition_read(img, ret, &diag);
	assert_int_equal(image_close(img), 0);
	return r;
}

static struct partition_table *read_table(void)
{
	struct partition_table *t = NULL;

	if (read_size(DISK_SIZE, &t) < 0)
		fail_msg("%s", diag.text);
	return t;
}

/* MBR */

static void mbr_entry(uint64_t off, unsigned i, uint8_t type, uint32_t lba, uint32_t n)
{
	struct mbr *m = (void *)(disk + off);

	m->Signature[0] = 0x55;
	m->Signature[1] = 0xaa;
	m->PartitionRecord[i].OSType = type;
	le32_put(m->PartitionRecord[i].StartingLBA, lba);
	le32_put(m->PartitionRecord[i].SizeInLBA, n);
}

static void assert_place(const struct partition *p, unsigned number, uint64_t lba, uint64_t n)
{
	assert_int_equal(p->number, number);
	assert_int_equal(p->off, lba * 512);
	assert_int_equal(p->len, n * 512);
}

static void test_none(void **state)
{
	_cleanup_free_ struct partition_table *t = read_table(), *tiny = NULL;

	assert_null(t->kind);
	assert_int_equal(t->n, 0);
	assert_int_equal(read_size(100, &tiny), 0);
	assert_null(tiny->kind);
}

static void test_mbr(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;

	mbr_entry(0, 0, 0x83, 8, 100);
	mbr_entry(0, 3, 0x82, 200, 10);
	le32_put(disk + 440, 0x1234abcd);
	disk[446] = 0x80;
	t = read_table();
	assert_string_equal(t->kind, "dos");
	assert_string_equal(t->id, "0x1234abcd");
	assert_int_equal(t->sector, 512);
	assert_int_equal(t->n, 2);
	assert_place(&t->entries[0], 1, 8, 100);
	assert_string_equal(t->entries[0].type, "0x83");
	assert_string_equal(t->entries[0].uuid, "1234abcd-01");
	assert_int_equal(t->entries[0].attributes, 0x80);
	assert_place(&t->entries[1], 4, 200, 10);
	assert_string_equal(t->entries[1].uuid, "1234abcd-04");
}

/* Two links; the second has rubbish in its third record. */
static void test_mbr_logical(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;

	mbr_entry(0, 0, 0x83, 8, 92);
	mbr_entry(0, 1, 0x0f, 100, 1000);
	mbr_entry(100 * 512, 0, 0x83, 8, 50);
	mbr_entry(100 * 512, 1, 0x05, 500, 100);
	mbr_entry(600 * 512, 0, 0x07, 1, 60);
	mbr_entry(600 * 512, 2, 0x83, 4000000000U, 4000000000U);
	t = read_table();
	assert_int_equal(t->n, 4);
	assert_int_equal(t->entries[1].flaw, PARTITION_CONTAINER);
	assert_place(&t->entries[2], 5, 108, 50);
	assert_place(&t->entries[3], 6, 601, 60);
	assert_string_equal(t->entries[3].type, "0x07");
	for (unsigned i = 2; i < 4; i++)
		assert_int_equal(t->entries[i].flaw, PARTITION_GOOD);
}

static void test_mbr_circle(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;

	mbr_entry(0, 0, 0x05, 100, 1000);
	mbr_entry(100 * 512, 0, 0x83, 8, 50);
	mbr_entry(100 * 512, 1, 0x05, 200, 100);
	mbr_entry(300 * 512, 0, 0x83, 8, 50);
	mbr_entry(300 * 512, 1, 0x05, 0, 100); /* back to the first */
	t = read_table();
	assert_int_equal(t->n, PARTITIONS_MAX);
	assert_true(t->more > 0);
	for (unsigned i = 1; i < t->n; i++)
		assert_int_equal(t->entries[i].flaw, PARTITION_OVERLAPS);
}

static void test_mbr_flaws(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;
	char buf[64];

	mbr_entry(0, 0, 0x83, 10, 100);
	mbr_entry(0, 1, 0x83, 109, 100);
	mbr_entry(0, 2, 0x83, DISK_SIZE / 512 - 1, 2);
	mbr_entry(0, 3, 0x83, UINT32_MAX, UINT32_MAX);
	t = read_table();
	assert_int_equal(t->n, 4);
	assert_string_equal(partition_flaw_text(&t->entries[0], buf, sizeof(buf)),
			    "overlaps part2");
	assert_string_equal(partition_flaw_text(&t->entries[1], buf, sizeof(buf)),
			    "overlaps part1");
	assert_int_equal(t->entries[2].flaw, PARTITION_BEYOND);
	assert_int_equal(t->entries[3].flaw, PARTITION_BEYOND);
}

static void assert_no_table(void)
{
	_cleanup_free_ struct partition_table *t = read_table();

	assert_null(t->kind);
	assert_int_equal(t->n, 0);
}

/* What ends in 55 aa and is something else. */
static void test_boot_sectors(void **state)
{
	static const uint8_t fat[] = {0xeb, 0x3c, 0x90, 'm', 'k', 'f', 's', '.', 'f', 'a', 't',
				      0,    2,	  4,	1,   0,	  2,   0,   2,	 0,   8,   0xf8};

	mbr_entry(0, 0, 0x83, 10, 100);
	memcpy(disk, fat, sizeof(fat));
	assert_no_table();
	memcpy(disk, "\xeb\x52\x90NTFS    ", 11);
	assert_no_table();
	memset(disk, 0, 446);
	disk[446] = 'x'; /* no boot indicator */
	assert_no_table();
}

/* GPT */

static void put_guid(uint8_t *p, uint8_t seed)
{
	for (uint8_t i = 0; i < 16; i++)
		p[i] = (uint8_t)(seed + i);
}

struct gpt_place {
	unsigned sector;
	uint64_t lba, entries;
	uint32_t n;
};

static struct gpt_entry *gpt_entry(struct gpt_place g, unsigned i)
{
	return (void *)(disk + g.entries * g.sector + i * sizeof(struct gpt_entry));
}

static void put_gpt_entry(struct gpt_place g, unsigned i, uint64_t first, uint64_t last)
{
	struct gpt_entry *e = gpt_entry(g, i);

	put_guid(e->PartitionTypeGUID, 0x10);
	put_guid(e->UniquePartitionGUID, (uint8_t)(0x80 + i));
	le64_put(e->StartingLBA, first);
	le64_put(e->EndingLBA, last);
}

/* The header for the entries that are there, and the protective MBR. */
static struct gpt_header *put_gpt(struct gpt_place g)
{
	struct gpt_header *h = (void *)(disk + g.lba * g.sector);

	mbr_entry(0, 0, MBR_TYPE_PROTECTIVE, 1, UINT32_MAX);
	*h = (struct gpt_header){.Signature = "EFI PART"};
	le32_put(h->Revision, 0x10000);
	le32_put(h->HeaderSize, sizeof(*h));
	le64_put(h->MyLBA, g.lba);
	put_guid(h->DiskGUID, 1);
	le64_put(h->PartitionEntryLBA, g.entries);
	le32_put(h->NumberOfPartitionEntries, g.n);
	le32_put(h->SizeOfPartitionEntry, sizeof(struct gpt_entry));
	le32_put(h->PartitionEntryArrayCRC32,
		 (uint32_t)crc32(0, disk + g.entries * g.sector,
				 g.n * (unsigned)sizeof(struct gpt_entry)));
	le32_put(h->HeaderCRC32, (uint32_t)crc32(0, (void *)h, sizeof(*h)));
	return h;
}

static const struct gpt_place primary = {512, 1, 2, 128};

static void test_gpt(void **state)
{
	static const uint8_t name[] = {'a',  0, 0xfc, 0, 0xac, 0x20, 0x3d,
				       0xd8, 0, 0xde, 0, 0xdc, 'z',  0};
	_cleanup_free_ struct partition_table *t = NULL;

	put_gpt_entry(primary, 0, 40, 99);
	put_gpt_entry(primary, 127, 100, 100);
	memcpy(gpt_entry(primary, 0)->PartitionName, name, sizeof(name));
	le64_put(gpt_entry(primary, 0)->Attributes, UINT64_C(1) << 63 | 4);
	put_gpt(primary);
	t = read_table();
	assert_string_equal(t->kind, "gpt");
	assert_string_equal(t->id, "04030201-0605-0807-090a-0b0c0d0e0f10");
	assert_false(t->backup);
	assert_int_equal(t->n, 2);
	assert_place(&t->entries[0], 1, 40, 60);
	assert_place(&t->entries[1], 128, 100, 1);
	assert_string_equal(t->entries[0].type, "13121110-1514-1716-1819-1a1b1c1d1e1f");
	assert_string_equal(t->entries[0].uuid, "83828180-8584-8786-8889-8a8b8c8d8e8f");
	/* the last half of a pair without the first */
	assert_string_equal(t->entries[0].name, "aü€😀\xef\xbf\xbdz");
	assert_int_equal(t->entries[0].attributes, UINT64_C(1) << 63 | 4);
}

static void test_gpt_longest_name(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;

	put_gpt_entry(primary, 0, 40, 99);
	for (unsigned i = 0; i < 36; i++)
		le16_put(gpt_entry(primary, 0)->PartitionName + 2 * i, 0x20ac);
	put_gpt(primary);
	t = read_table();
	assert_int_equal(strlen(t->entries[0].name), PARTITION_NAME_MAX - 1);
}

static void test_gpt_sectors(void **state)
{
	static const unsigned sectors[] = {512, 1024, 2048, 4096};

	for (size_t i = 0; i < ARRAY_SIZE(sectors); i++) {
		const struct gpt_place g = {sectors[i], 1, 2, 16};
		_cleanup_free_ struct partition_table *t = NULL;

		set_up(NULL);
		put_gpt_entry(g, 0, 40, 49);
		put_gpt(g);
		t = read_table();
		assert_int_equal(t->sector, sectors[i]);
		assert_int_equal(t->entries[0].off, 40 * sectors[i]);
		assert_int_equal(t->entries[0].len, 10 * sectors[i]);
	}
}

/* The one at the beginning is damaged, in its header or in its entries. */
static void test_gpt_backup(void **state)
{
	const struct gpt_place backup = {512, DISK_SIZE / 512 - 1, DISK_SIZE / 512 - 33, 128};

	for (int i = 0; i < 2; i++) {
		_cleanup_free_ struct partition_table *t = NULL;

		set_up(NULL);
		put_gpt_entry(primary, 0, 40, 99);
		put_gpt_entry(backup, 0, 40, 99);
		put_gpt(primary);
		put_gpt(backup);
		disk[i == 0 ? 512 + 60 : 1024 + 60] ^= 1;
		t = read_table();
		assert_true(t->backup);
		assert_int_equal(t->n, 1);
		assert_place(&t->entries[0], 1, 40, 60);
	}
}

static void test_gpt_flaws(void **state)
{
	static const struct {
		uint64_t first, last;
		enum partition_flaw flaw;
	} cases[] = {
		{40, 99, PARTITION_OVERLAPS},
		{99, 200, PARTITION_OVERLAPS},
		{201, 201, PARTITION_GOOD},
		{300, 299, PARTITION_EMPTY},
		{300, DISK_SIZE / 512, PARTITION_BEYOND},
		{UINT64_MAX, UINT64_MAX, PARTITION_BEYOND},
		{0, UINT64_MAX, PARTITION_EMPTY}, /* 2^64 sectors */
		{1, UINT64_MAX, PARTITION_BEYOND},
		{UINT64_MAX / 512, UINT64_MAX / 512 + 1, PARTITION_BEYOND},
		{400, DISK_SIZE / 512 - 1, PARTITION_GOOD},
	};
	_cleanup_free_ struct partition_table *t = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		put_gpt_entry(primary, i, cases[i].first, cases[i].last);
	put_gpt(primary);
	t = read_table();
	assert_int_equal(t->n, ARRAY_SIZE(cases));
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		if (t->entries[i].flaw != cases[i].flaw)
			fail_msg("entry %u has flaw %d", i, (int)t->entries[i].flaw);
}

static void test_gpt_too_many(void **state)
{
	const struct gpt_place g = {512, 1, 2, PARTITIONS_MAX + 10};
	_cleanup_free_ struct partition_table *t = NULL;

	for (unsigned i = 0; i < g.n; i++)
		put_gpt_entry(g, i, 100 + i, 100 + i);
	put_gpt(g);
	t = read_table();
	assert_int_equal(t->n, PARTITIONS_MAX);
	assert_int_equal(t->more, 10);
}

static void assert_no_gpt(void)
{
	struct partition_table *t = NULL;

	diag = (struct diag){0};
	assert_int_equal(read_size(DISK_SIZE, &t), -EUCLEAN);
	assert_non_null(strstr(diag.text, "there must be a GUID partition table"));
	assert_null(t);
}

/* A header that is well formed and claims what cannot be. */
static void test_gpt_insane(void **state)
{
	static const struct {
		size_t field;
		uint32_t value;
	} claims[] = {
		{offsetof(struct gpt_header, HeaderSize), 91},
		{offsetof(struct gpt_header, HeaderSize), 513},
		{offsetof(struct gpt_header, HeaderSize), UINT32_MAX},
		{offsetof(struct gpt_header, MyLBA), 2},
		{offsetof(struct gpt_header, PartitionEntryLBA), DISK_SIZE / 512},
		{offsetof(struct gpt_header, PartitionEntryLBA) + 4, UINT32_MAX},
		{offsetof(struct gpt_header, NumberOfPartitionEntries), 0},
		{offsetof(struct gpt_header, NumberOfPartitionEntries), UINT32_MAX},
		{offsetof(struct gpt_header, SizeOfPartitionEntry), 0},
		{offsetof(struct gpt_header, SizeOfPartitionEntry), 64},
		{offsetof(struct gpt_header, SizeOfPartitionEntry), 1U << 31},
	};

	assert_no_table();
	mbr_entry(0, 2, MBR_TYPE_PROTECTIVE, 1, 1);
	assert_no_gpt();
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		struct gpt_header *h = put_gpt(primary);

		le32_put((uint8_t *)h + claims[i].field, claims[i].value);
		le32_put(h->HeaderCRC32, 0);
		le32_put(h->HeaderCRC32, (uint32_t)crc32(0, (void *)h, sizeof(*h)));
		assert_no_gpt();
	}
}

/* Finding one */

static int find(const struct partition_table *t, const char *text)
{
	struct selector selector;
	unsigned number = 0;
	int r;

	diag = (struct diag){0};
	assert_int_equal(selector_parse(text, &selector), 0);
	r = partition_find(NULL, t, &selector, &number, &diag);
	return r < 0 ? r : (int)number;
}

static void test_find(void **state)
{
	_cleanup_free_ struct partition_table *t = NULL;

	for (unsigned i = 0; i < 4; i++)
		put_gpt_entry(primary, i, 40 + i, 40 + i);
	memcpy(gpt_entry(primary, 1)->PartitionName, "d\0a\0t\0a\0", 8);
	memcpy(gpt_entry(primary, 2)->PartitionName, "t\0w\0o\0", 6);
	memcpy(gpt_entry(primary, 3)->PartitionName, "t\0w\0o\0", 6);
	le64_put(gpt_entry(primary, 0)->Attributes, UINT64_C(1) << 63);
	put_gpt_entry(primary, 5, DISK_SIZE, DISK_SIZE);
	put_gpt(primary);
	t = read_table();
	assert_int_equal(find(t, "3"), 3);
	assert_int_equal(find(t, "5"), -ENOENT);
	assert_int_equal(find(t, "6"), -ENOENT); /* beyond the end */
	assert_int_equal(find(t, "PARTLABEL=data"), 2);
	assert_int_equal(find(t, "PARTLABEL=Data"), -ENOENT);
	assert_int_equal(find(t, "PARTUUID=82838485-8687-8889-8A8B-8C8D8E8F9091"), -ENOENT);
	assert_int_equal(find(t, "PARTUUID=85848382-8786-8988-8A8B-8C8D8E8F9091"), 3);
	/* the first is marked */
	assert_int_equal(find(t, "TYPE=13121110-1514-1716-1819-1A1B1C1D1E1F"), 2);
	assert_int_equal(find(t, "swap"), -ENOENT);
	assert_int_equal(find(t, "PARTLABEL=two"), -ENOTUNIQ);
	assert_string_equal(diag.text, "part3 and part4 are both the partition with PARTLABEL=two: "
				       "say which by its number");
	find(t, "PARTLABEL=\033[31m");
	assert_string_equal(diag.text, "there is no partition with PARTLABEL=\\x1b[31m (fuseimg "
				       "info lists them)");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, set_up)
	const struct CMUnitTest tests[] = {
		TEST(test_none),	TEST(test_mbr),
		TEST(test_mbr_logical), TEST(test_mbr_circle),
		TEST(test_mbr_flaws),	TEST(test_boot_sectors),
		TEST(test_gpt),		TEST(test_gpt_longest_name),
		TEST(test_gpt_sectors), TEST(test_gpt_backup),
		TEST(test_gpt_flaws),	TEST(test_gpt_too_many),
		TEST(test_gpt_insane),	TEST(test_find),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}

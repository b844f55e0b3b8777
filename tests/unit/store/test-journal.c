/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "store/fault.h"

enum {
	SECTOR = 512,
	SEEDS = 64,
};

static struct store *memory_of_size(uint64_t size)
{
	struct store *s;

	assert_int_equal(store_memory_new("disk.img", MIB(16), &s), 0);
	assert_int_equal(store_resize(s, size), 0);
	return s;
}

static struct store *attach(struct journal *j, uint64_t size)
{
	struct store *s;

	assert_int_equal(journal_attach(j, memory_of_size(size), &s), 0);
	return s;
}

static struct store *cut(struct journal *j, unsigned disk, size_t k, enum journal_loss loss,
			 uint64_t seed)
{
	struct store *s;

	assert_int_equal(journal_cut(j, disk, k, loss, seed, &s), 0);
	return s;
}

static void write_char(struct store *s, char c, size_t len, uint64_t off)
{
	char buf[8192];

	memset(buf, c, len);
	assert_int_equal(store_write(s, buf, len, off), 0);
}

static char char_at(struct store *s, uint64_t off)
{
	char c;

	assert_int_equal(store_read_full(s, &c, 1, off), 0);
	return c;
}

static uint64_t size_of(struct store *s)
{
	uint64_t size;

	assert_int_equal(store_size(s, &size), 0);
	return size;
}

static void assert_same(struct store *a, struct store *b)
{
	uint64_t size = size_of(a);
	_cleanup_free_ char *x = malloc(size + 1), *y = malloc(size + 1);

	assert_int_equal(size_of(b), size);
	assert_int_equal(store_read_full(a, x, size, 0), 0);
	assert_int_equal(store_read_full(b, y, size, 0), 0);
	assert_memory_equal(x, y, size);
}

static void test_records(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 10000);
	char text[100];

	write_char(s, 'a', 100, 50);
	assert_int_equal(store_zero(s, 10, 20), 0);
	assert_int_equal(store_discard(s, 9990, 100), 0);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_resize(s, 4000), 0);
	assert_int_equal(store_allocate(s, 0, 10), 0);
	assert_int_equal(store_write(s, "x", 1, MIB(17)), -ENOSPC);

	assert_string_equal(s->name, "disk.img");
	assert_int_equal(journal_length(j), 5);
	assert_int_equal(journal_at(j, 0)->kind, JOURNAL_WRITE);
	assert_memory_equal(journal_at(j, 0)->data, "aaaa", 4);
	assert_int_equal(journal_at(j, 1)->kind, JOURNAL_ZERO);
	assert_int_equal(journal_at(j, 2)->len, 10); /* cut at the end of the store */
	assert_int_equal(journal_at(j, 4)->off, 4000);
	assert_int_equal(journal_at(j, 4)->len, 6000);
	assert_string_equal(journal_describe(j, 0, text, sizeof(text)),
			    "write of 100 bytes at 0x32 of disk 0");
	assert_string_equal(journal_describe(j, 3, text, sizeof(text)), "flush of disk 0");
	assert_string_equal(journal_describe(j, 4, text, sizeof(text)),
			    "resize of disk 0 from 10000 to 4000 bytes");
}

/* A life with everything in it; *ret[k] is a copy of the store as it was after k records. */
enum { LIFE = 60 };

static void live(struct journal *j, struct store *s, struct store **then, size_t *flushed)
{
	uint64_t seed = 88172645463325252ull;

	for (size_t k = 0;; k++) {
		uint64_t off = host_random(&seed) % 20000, len = 1 + host_random(&seed) % 3000;

		assert_int_equal(journal_length(j), k);
		then[k] = cut(j, 0, k, JOURNAL_KEEP, 0);
		assert_same(then[k], s);
		flushed[k] = k && journal_at(j, k - 1)->kind == JOURNAL_FLUSH ? k
			     : k					      ? flushed[k - 1]
									      : 0;
		if (k == LIFE)
			return;
		switch (host_random(&seed) % 8) {
		case 0:
		case 1:
			assert_int_equal(store_flush(s), 0);
			break;
		case 2:
			assert_int_equal(store_resize(s, off + 1), 0);
			break;
		case 3:
			off = min_u64(off, size_of(s) - 1);
			assert_int_equal(store_zero(s, off, len), 0);
			break;
		case 4:
			off = min_u64(off, size_of(s) - 1);
			assert_int_equal(store_discard(s, off, len), 0);
			break;
		default:
			write_char(s, (char)('a' + k % 26), len, off);
		}
	}
}

static bool sector_equal(struct store *a, struct store *b, uint64_t off)
{
	char x[SECTOR] = {0}, y[SECTOR] = {0};

	assert_true(store_read(a, x, SECTOR, off) >= 0);
	assert_true(store_read(b, y, SECTOR, off) >= 0);
	return memcmp(x, y, SECTOR) == 0;
}

/* The size, and each sector that it shows, is as it was at some time since the last flush. */
static void assert_possible(struct store *after, struct store **then, size_t first, size_t k)
{
	bool found = false;

	for (size_t i = first; i <= k; i++)
		found |= size_of(then[i]) == size_of(after);
	assert_true(found);
	/* The sector in which the file ends may be cut by another time's size: not compared */
	for (uint64_t off = 0; off + SECTOR <= size_of(after); off += SECTOR) {
		found = false;
		for (size_t i = first; i <= k && !found; i++)
			found = sector_equal(after, then[i], off);
		assert_true(found);
	}
}

static void test_every_cut_of_a_life(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 5000);
	struct store *then[LIFE + 1];
	size_t flushed[LIFE + 1];

	live(j, s, then, flushed);
	/* Falling, so that nothing can be kept from the cut before */
	for (size_t k = LIFE + 1; k-- > 0;) {
		_cleanup_store_ struct store *lost = cut(j, 0, k, JOURNAL_LOSE, 0);

		assert_same(lost, then[flushed[k]]);
		for (uint64_t seed = 0; seed < 6; seed++) {
			enum journal_loss loss = seed % 2 ? JOURNAL_DROP : JOURNAL_TORN;
			_cleanup_store_ struct store *a = cut(j, 0, k, loss, seed);
			_cleanup_store_ struct store *b = cut(j, 0, k, loss, seed);

			assert_same(a, b);
			assert_possible(a, then, flushed[k], k);
		}
	}
	for (size_t k = 0; k <= LIFE; k++)
		store_close(then[k]);
}

/* Over many seeds everything that can happen does: none, the first, the second, both; and torn. */
static void test_loss_reaches_all_outcomes(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 4 * SECTOR);
	unsigned dropped = 0, torn = 0;

	write_char(s, 'a', 2 * SECTOR, 0);
	write_char(s, 'b', 2 * SECTOR, 2 * SECTOR);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *drop = cut(j, 0, 2, JOURNAL_DROP, seed);
		_cleanup_store_ struct store *tear = cut(j, 0, 2, JOURNAL_TORN, seed);

		assert_int_equal(char_at(drop, 0), char_at(drop, 2 * SECTOR - 1));
		assert_int_equal(char_at(drop, 2 * SECTOR), char_at(drop, 4 * SECTOR - 1));
		dropped |= 1u << (!!char_at(drop, 0) + 2 * !!char_at(drop, 2 * SECTOR));
		for (unsigned i = 0; i < 4; i++)
			torn |= 1u << (2 * i + !!char_at(tear, i * SECTOR));
		if (!char_at(tear, 0) && char_at(tear, SECTOR))
			torn |= 1u << 8;
	}
	assert_int_equal(dropped, 0xf);
	assert_int_equal(torn, 0x1ff);
}

/* Two changes to one sector: the later one never without the earlier. */
static void test_a_sector_keeps_its_order(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, SECTOR);
	unsigned seen = 0;

	write_char(s, 'a', 8, 0);
	write_char(s, 'b', 8, 8);
	for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
		enum journal_loss loss = seed % 2 ? JOURNAL_DROP : JOURNAL_TORN;
		_cleanup_store_ struct store *after = cut(j, 0, 2, loss, seed / 2);

		seen |= 1u << (!!char_at(after, 0) + 2 * !!char_at(after, 8));
	}
	assert_int_equal(seen, 1 << 0 | 1 << 1 | 1 << 3);
}

static void test_flush_is_for_ever(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 0);

	write_char(s, 'a', 3000, 0);
	assert_int_equal(store_flush(s), 0);
	write_char(s, 'b', 3000, 3000);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *after = cut(j, 0, 3, JOURNAL_TORN, seed);

		assert_true(size_of(after) == 3000 || size_of(after) == 6000);
		for (uint64_t off = 0; off < 3000; off += 100)
			assert_int_equal(char_at(after, off), 'a');
	}
}

/* A durable write survives alone: not what was written before it, and a size that shows it. */
static void test_durable_write(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 0);
	uint8_t byte = 'd';
	unsigned seen = 0;

	write_char(s, 'a', SECTOR, 0);
	assert_int_equal(store_resize(s, 8 * SECTOR), 0);
	assert_int_equal(store_write_durable(s, &byte, 1, 8 * SECTOR - 1), 0);
	write_char(s, 'b', SECTOR, 8 * SECTOR);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *after = cut(j, 0, 4, JOURNAL_TORN, seed);
		_cleanup_store_ struct store *least = cut(j, 0, 4, JOURNAL_LOSE, seed);

		assert_true(size_of(after) >= 8 * SECTOR);
		assert_int_equal(char_at(after, 8 * SECTOR - 1), 'd');
		/* While it was under way nothing was certain of it */
		_cleanup_store_ struct store *begun = cut(j, 0, 3, JOURNAL_TORN, seed);

		seen |= size_of(begun) < 8 * SECTOR		? 4
			: char_at(begun, 8 * SECTOR - 1) == 'd' ? 8
								: 16;
		seen |= char_at(after, 0) == 'a' ? 1 : 2;
		assert_int_equal(size_of(least), 8 * SECTOR);
		assert_int_equal(char_at(least, 0), 0);
		assert_int_equal(char_at(least, 8 * SECTOR - 1), 'd');
	}
	assert_int_equal(seen & 7, 7);
	assert_true(seen & 8 && seen & 16);
}

/* The size may come without the data, which then reads as zeroes, and the data without the size. */
static void test_growth(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, SECTOR);
	unsigned seen = 0;

	write_char(s, 'a', 8 * SECTOR, SECTOR);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *after = cut(j, 0, 1, JOURNAL_TORN, seed);

		if (size_of(after) == SECTOR)
			seen |= 1;
		else
			seen |= char_at(after, SECTOR) ? 2 : 4;
	}
	assert_int_equal(seen, 7);
}

/* What was cut off never comes back when the file grows again. */
static void test_shrunk_and_grown(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 0);
	unsigned seen = 0;

	write_char(s, 'a', 8 * SECTOR, 0);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_resize(s, SECTOR), 0);
	assert_int_equal(store_resize(s, 6 * SECTOR), 0);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *after = cut(j, 0, 4, JOURNAL_TORN, seed);
		uint64_t size = size_of(after);

		for (uint64_t off = SECTOR; off < size; off += SECTOR)
			assert_int_equal(char_at(after, off), size == 8 * SECTOR ? 'a' : 0);
		seen |= 1u << size / SECTOR;
	}
	assert_int_equal(seen, 1 << 8 | 1 << 1 | 1 << 6);
}

static void test_disks_are_flushed_apart(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *tables = attach(j, SECTOR), *data = attach(j, SECTOR);
	_cleanup_store_ struct store *tables_after = NULL, *data_after = NULL;

	write_char(data, 'd', SECTOR, 0);
	write_char(tables, 't', SECTOR, 0);
	assert_int_equal(store_flush(tables), 0);
	tables_after = cut(j, 0, 3, JOURNAL_LOSE, 0);
	data_after = cut(j, 1, 3, JOURNAL_LOSE, 0);
	assert_int_equal(char_at(tables_after, 0), 't');
	assert_int_equal(char_at(data_after, 0), 0);
}

/* All outcomes, each by its number: two sectors with three contents each, two with two. */
static void test_every_outcome(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 4 * SECTOR);
	unsigned char seen[256] = {0};
	uint64_t n, different = 0;

	write_char(s, '1', 4 * SECTOR, 0);
	write_char(s, '2', 2 * SECTOR, SECTOR);
	assert_int_equal(journal_outcomes(j, 0, 2, &n), 0);
	assert_int_equal(n, 3 * 3 * 2 * 2);
	for (uint64_t i = 0; i < n; i++) {
		_cleanup_store_ struct store *after = cut(j, 0, 2, JOURNAL_NTH, i);
		unsigned sum = 0;

		for (unsigned k = 0; k < 4; k++)
			sum = sum * 3 + (char_at(after, k * SECTOR) & 3);
		different += !seen[sum]++;
		assert_int_equal(char_at(after, SECTOR), char_at(after, 2 * SECTOR - 1));
	}
	assert_int_equal(different, n);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(journal_outcomes(j, 0, 3, &n), 0);
	assert_int_equal(n, 1);
}

static void test_every_size(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, SECTOR);
	unsigned seen = 0;
	uint64_t n;

	assert_int_equal(store_resize(s, 2 * SECTOR), 0);
	assert_int_equal(store_resize(s, 3 * SECTOR), 0);
	assert_int_equal(journal_outcomes(j, 0, 2, &n), 0);
	assert_int_equal(n, 3);
	for (uint64_t i = 0; i < n; i++) {
		_cleanup_store_ struct store *after = cut(j, 0, 2, JOURNAL_NTH, i);

		seen |= 1u << size_of(after) / SECTOR;
	}
	assert_int_equal(seen, 1 << 1 | 1 << 2 | 1 << 3);
}

/* What a failed flush was to write may be lost for good; what was changed again is not. */
static void test_failed_flush(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 3 * SECTOR);
	unsigned seen = 0;

	journal_fail_flush(j, 1);
	write_char(s, 'a', SECTOR, 0);
	assert_int_equal(store_flush(s), 0);
	write_char(s, 'b', 3 * SECTOR, 0);
	assert_int_equal(store_flush(s), -EIO);
	write_char(s, 'c', 8, 2 * SECTOR);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(store_flush(s), 0);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		_cleanup_store_ struct store *after =
			cut(j, 0, journal_length(j), JOURNAL_TORN, seed);

		seen |= char_at(after, 0) == 'a' ? 1 : 2;
		seen |= char_at(after, SECTOR) == 0 ? 4 : 8;
		assert_true(char_at(after, 0) == 'a' || char_at(after, 0) == 'b');
		assert_int_equal(char_at(after, 2 * SECTOR), 'c');
		assert_int_equal(char_at(after, 2 * SECTOR + 8), 'b');
	}
	assert_int_equal(seen, 15);
}

static void test_failed_durable_write(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, SECTOR);

	journal_fail_flush(j, 0);
	assert_int_equal(store_write_durable(s, "abcd", 4, 0), -EIO);
	assert_false(journal_at(j, 0)->durable);
	assert_true(journal_at(j, 1)->failed);
	assert_int_equal(store_write_durable(s, "abcd", 4, 0), 0);
	assert_true(journal_at(j, 2)->durable);
}

struct slow_flush {
	struct store *s;
	_Atomic bool done;
};

static void *slow_flush_main(void *arg)
{
	struct slow_flush *f = arg;
	intptr_t r = store_flush(f->s);

	atomic_store(&f->done, true);
	return (void *)r;
}

/* What is written while a flush runs is not its business. */
static void test_flush_takes_time(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 2 * SECTOR);
	struct slow_flush f = {.s = s};
	size_t written = 1;
	pthread_t thread;
	void *r;

	journal_slow_flushes(j, 500000); /* a busy machine, too, finds time to write */
	write_char(s, 'a', SECTOR, 0);
	assert_int_equal(pthread_create(&thread, NULL, slow_flush_main, &f), 0);
	while (!atomic_load(&f.done)) {
		write_char(s, 'b', SECTOR, SECTOR);
		written++;
		usleep(1000);
	}
	assert_int_equal(pthread_join(thread, &r), 0);
	assert_ptr_equal(r, NULL);
	for (size_t i = 0; i < journal_length(j); i++) {
		_cleanup_store_ struct store *after = cut(j, 0, i + 1, JOURNAL_LOSE, 0);

		if (journal_at(j, i)->kind != JOURNAL_FLUSH)
			continue;
		assert_true(i > 1 && journal_at(j, i)->upto < i);
		assert_int_equal(char_at(after, 0), journal_at(j, i)->upto > 0 ? 'a' : 0);
		assert_int_equal(char_at(after, SECTOR), journal_at(j, i)->upto > 1 ? 'b' : 0);
	}
	assert_int_equal(journal_length(j), written + 1);
}

static void test_cut_after_close(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *after = NULL;
	struct store *s = attach(j, SECTOR);

	write_char(s, 'a', SECTOR, 0);
	store_close(s);
	after = cut(j, 0, 1, JOURNAL_KEEP, 0);
	assert_int_equal(char_at(after, 0), 'a');
}

static void test_half_a_write(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = NULL, *after = NULL;

	assert_int_equal(store_fault_new(attach(j, 2 * SECTOR), &s), 0);
	assert_int_equal(store_fault_add(s, &(struct fault_rule){.ops = FAULT_WRITE,
								 .times = 1,
								 .error = -EIO,
								 .half = true}),
			 0);
	assert_int_equal(store_zero(s, 0, 1), 0);
	assert_int_equal(store_write(s, (char[2 * SECTOR]){[0 ... 1023] = 'b'}, 2 * SECTOR, 0),
			 -EIO);
	assert_int_equal(journal_at(j, 1)->len, SECTOR);
	after = cut(j, 0, 2, JOURNAL_KEEP, 0);
	assert_int_equal(char_at(after, SECTOR - 1), 'b');
	assert_int_equal(char_at(after, SECTOR), 0);
}

static int work(struct store *s, unsigned id)
{
	for (unsigned i = 0; i < 50; i++)
		if (store_write(s, "x", 1, i * 8 + id) < 0 || store_flush(s) < 0)
			return -1;
	return 0;
}

static void test_threads(void **state)
{
	_cleanup_journal_ struct journal *j = journal_new();
	_cleanup_store_ struct store *s = attach(j, 400), *after = NULL;

	host_threads(8, work, s);
	assert_int_equal(journal_length(j), 800);
	after = cut(j, 0, 800, JOURNAL_LOSE, 0);
	assert_same(after, s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),
		cmocka_unit_test(test_every_cut_of_a_life),
		cmocka_unit_test(test_loss_reaches_all_outcomes),
		cmocka_unit_test(test_a_sector_keeps_its_order),
		cmocka_unit_test(test_flush_is_for_ever),
		cmocka_unit_test(test_durable_write),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_shrunk_and_grown),
		cmocka_unit_test(test_disks_are_flushed_apart),
		cmocka_unit_test(test_every_outcome),
		cmocka_unit_test(test_every_size),
		cmocka_unit_test(test_failed_flush),
		cmocka_unit_test(test_failed_durable_write),
		cmocka_unit_test(test_flush_takes_time),
		cmocka_unit_test(test_cut_after_close),
		cmocka_unit_test(test_half_a_write),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("store/journal", tests, NULL, NULL);
}

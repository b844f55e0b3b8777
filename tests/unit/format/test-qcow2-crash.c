/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The power goes at any point, and what was not flushed is lost, reordered or torn: the image
 * opens, QEMU finds no corruption in it (leaks are allowed), and what was flushed is there.
 */

#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "store/journal.h"

enum {
	SECTOR = 512,
	DISK = 1 << 20, /* bytes of the disk that is written */
	SECTORS = DISK / SECTOR,
	WRITES = 48,
	FLUSH_EVERY = 8,
	CUTS = 12,	 /* that QEMU judges as well, which takes its time */
	CUTS_READ = 120, /* that only we read */
};

/* What the journal knows of a run. */
struct history {
	struct journal *j;
	size_t n_flushes;
	struct {
		size_t at; /* records when the flush had returned */
		char content[DISK];
	} flushes[WRITES / FLUSH_EVERY + 1];
	/* For each sector and flush: records when the first write after the flush began */
	size_t dirty_at[WRITES / FLUSH_EVERY + 1][SECTORS];
	char content[DISK];
};

static void history_flushed(struct history *h)
{
	h->flushes[h->n_flushes].at = journal_length(h->j);
	memcpy(h->flushes[h->n_flushes].content, h->content, DISK);
	memset(h->dirty_at[h->n_flushes], 0xff, sizeof(h->dirty_at[0]));
	h->n_flushes++;
}

static void history_write(struct history *h, uint64_t off, size_t len)
{
	size_t *dirty = h->dirty_at[h->n_flushes - 1];

	for (uint64_t s = off / SECTOR; s <= (off + len - 1) / SECTOR; s++)
		if (dirty[s] == SIZE_MAX)
			dirty[s] = journal_length(h->j);
}

/* The first DISK bytes; what lies behind the end is zero. */
static void read_all(struct disk *d, char *content)
{
	size_t inside = (size_t)min_u64(d->img.size, DISK);

	memset(content + inside, 0, DISK - inside);
	assert_int_equal(disk_read(d, content, inside, 0), 0);
}

static void run_writes(struct history *h, struct disk *d, uint64_t seed)
{
	static char buf[40000];

	read_all(d, h->content);
	history_flushed(h);
	for (int i = 0; i < WRITES; i++) {
		size_t len = (size_t)(random_next(&seed) % (i % 4 ? 3000 : sizeof(buf)) + 1);
		uint64_t off = random_next(&seed) % (DISK - len);

		pattern(buf, len, off, (uint64_t)i + 1);
		history_write(h, off, len);
		memcpy(h->content + off, buf, len);
		assert_int_equal(disk_write(d, buf, len, off), 0);
		if (i % FLUSH_EVERY == FLUSH_EVERY - 1) {
			assert_int_equal(disk_flush(d), 0);
			history_flushed(h);
		}
	}
}

/* Another size. What grows was zero before, so growing is no write. */
static void change_size(struct history *h, struct disk *d, uint64_t size)
{
	size_t inside = (size_t)min_u64(size, DISK);

	if (size < d->img.size && inside < DISK) {
		history_write(h, inside, DISK - inside);
		memset(h->content + inside, 0, DISK - inside);
	}
	assert_int_equal(disk_resize(d, size), 0);
}

static void change_range(struct history *h, struct disk *d, uint64_t kind, uint64_t *seed)
{
	static char buf[60000];
	size_t len = (size_t)(random_next(seed) % (random_next(seed) % 2 ? 3000 : sizeof(buf)) + 1);
	uint64_t off = random_next(seed) % (min_u64(d->img.size, DISK) - len);

	history_write(h, off, len);
	memset(buf, 0, len);
	if (kind < 2) {
		assert_int_equal(disk_unmap(d, off, len, kind == 0 ? UNMAP_ZERO : UNMAP_DISCARD),
				 0);
	} else {
		pattern(buf, len, off, *seed);
		assert_int_equal(disk_write(d, buf, len, off), 0);
	}
	memcpy(h->content + off, buf, len);
}

/* Writes, zeroes, discards, and other sizes, up to where the L1 table has to move. */
static void run_changes(struct history *h, struct disk *d, uint64_t seed)
{
	d->img.discard = true;
	read_all(d, h->content);
	history_flushed(h);
	for (int i = 0; i < WRITES; i++) {
		uint64_t kind = random_next(&seed) % 5;

		if (kind == 4)
			change_size(h, d, DISK / 4 + random_next(&seed) % (3 * DISK));
		else
			change_range(h, d, kind, &seed);
		if (i % FLUSH_EVERY == FLUSH_EVERY - 1) {
			assert_int_equal(disk_flush(d), 0);
			history_flushed(h);
		}
	}
}

/* Every sector that nobody wrote between the last flush before cut k and k itself is as flushed. */
static void assert_flushed(struct history *h, struct disk *d, size_t k)
{
	static char have[DISK];
	size_t f = 0;

	while (f + 1 < h->n_flushes && h->flushes[f + 1].at <= k)
		f++;
	read_all(d, have);
	for (size_t s = 0; s < SECTORS; s++)
		if (h->dirty_at[f][s] >= k &&
		    memcmp(have + s * SECTOR, h->flushes[f].content + s * SECTOR, SECTOR) != 0)
			fail_msg("cut %zu: sector %zu, durable since record %zu, is lost", k, s,
				 h->flushes[f].at);
}

/* A point for a cut. Just before a flush most is in flight, so every second is such a point. */
static size_t random_cut(struct history *h, uint64_t *seed)
{
	size_t n = journal_length(h->j), k = (size_t)(random_next(seed) % (n + 1));

	if (random_next(seed) % 2)
		while (k < n && journal_at(h->j, k)->kind != JOURNAL_FLUSH)
			k++;
	return k;
}

/* What we make of it alone. */
static void judge_read(struct history *h, size_t k, enum journal_loss loss, uint64_t seed)
{
	struct store *after;
	struct diag diag = {0};
	struct disk d;

	assert_int_equal(journal_cut(h->j, 0, k, loss, seed, &after), 0);
	assert_int_equal(disk_open_store(&d, after, "qcow2", false, &diag), 0);
	assert_flushed(h, &d, k);
	disk_close(&d);
}

static void judge(struct history *h, size_t k, enum journal_loss loss, uint64_t seed)
{
	struct store *after;
	struct diag diag = {0};
	struct disk d;
	char last[200];

	assert_int_equal(journal_cut(h->j, 0, k, loss, seed, &after), 0);
	store_dump(after, "after");
	if (k > 0)
		journal_describe(h->j, k - 1, last, sizeof(last));
	if (sh_status("qemu-img check -q after >check.out 2>&1; test $? = 0 -o $? = 3") != 0) {
		sh_status("grep -v Leaked check.out | head -5");
		fail_msg("cut %zu of %zu, loss %d, seed %llu, after %s", k, journal_length(h->j),
			 loss, (unsigned long long)seed, k ? last : "nothing");
	}
	assert_int_equal(disk_open_store(&d, after, "qcow2", true, &diag), 0);
	assert_flushed(h, &d, k);
	disk_close(&d);
}

/* The header changes when the refcount table grows: rare, so every time is looked at. */
static void judge_growth(struct history *h, uint64_t *seed)
{
	for (size_t i = 0; i < journal_length(h->j); i++) {
		const struct journal_record *r = journal_at(h->j, i);

		if (r->kind != JOURNAL_WRITE || r->off >= SECTOR)
			continue;
		judge(h, i + 1, JOURNAL_DROP, random_next(seed));
		judge(h, i + 1, JOURNAL_TORN, random_next(seed));
	}
}

static void crash(const char *shape, const char *prepare,
		  void (*run)(struct history *h, struct disk *d, uint64_t seed))
{
	_cleanup_free_ struct history *h = calloc(1, sizeof(*h));
	_cleanup_journal_ struct journal *j = journal_new();
	struct diag diag = {0};
	struct store *store;
	struct disk d;
	uint64_t seed = 99;

	print_message("%s\n", shape);
	sh("rm -f img raw; seq 1 100000 >raw; truncate -s %d raw", DISK);
	sh("qemu-img create -q -f qcow2 -o %s img %d", shape, DISK);
	sh("%s", prepare);
	store_load("img", &store);
	h->j = j;
	assert_int_equal(journal_attach(j, store, &store), 0);
	assert_int_equal(disk_open_store(&d, store, "qcow2", true, &diag), 0);
	run(h, &d, 5);
	disk_close(&d);

	for (int i = 0; i < CUTS; i++) {
		judge(h, random_cut(h, &seed), JOURNAL_DROP, random_next(&seed));
		judge(h, random_cut(h, &seed), JOURNAL_TORN, random_next(&seed));
	}
	for (int i = 0; i < CUTS_READ; i++)
		judge_read(h, random_cut(h, &seed), i % 2 ? JOURNAL_DROP : JOURNAL_TORN,
			   random_next(&seed));
	judge_growth(h, &seed);
	for (size_t f = 0; f < h->n_flushes; f++)
		judge(h, h->flushes[f].at, JOURNAL_LOSE, 0);
	judge(h, journal_length(j), JOURNAL_LOSE, 0);
	judge(h, journal_length(j), JOURNAL_KEEP, 0);
}

static void test_new(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=512,refcount_bits=64",
					   "cluster_size=4k",  "cluster_size=64k",
					   "compat=0.10",      "extended_l2=on,cluster_size=16k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		crash(some[i], "true", run_writes);
}

static void test_compressed(void **state)
{
	static const char *const some[] = {"cluster_size=4k", "cluster_size=64k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		crash(some[i], "qemu-img convert -n -c -f raw -O qcow2 raw img", run_writes);
}

static void test_snapshot(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=4k",
					   "cluster_size=64k", "extended_l2=on,cluster_size=16k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		crash(some[i],
		      "qemu-img convert -n -f raw -O qcow2 raw img && "
		      "qemu-img snapshot -c one img",
		      run_writes);
}

static void test_changes(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=4k", "compat=0.10",
					   "extended_l2=on,cluster_size=16k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		crash(some[i], "qemu-img convert -n -f raw -O qcow2 raw img", run_changes);
}

static void test_changes_packed(void **state)
{
	if (!harness_have_qemu())
		skip();
	crash("cluster_size=4k", "qemu-img convert -n -c -f raw -O qcow2 raw img", run_changes);
}

static void test_changes_snapshot(void **state)
{
	static const char *const some[] = {"cluster_size=512", "extended_l2=on,cluster_size=16k"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		crash(some[i],
		      "qemu-img convert -n -f raw -O qcow2 raw img && "
		      "qemu-img snapshot -c one img",
		      run_changes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_new, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_compressed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_changes, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_changes_packed, harness_setup,
						harness_teardown),
		cmocka_unit_test_setup_teardown(test_changes_snapshot, harness_setup,
						harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

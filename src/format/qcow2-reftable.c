/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The refcount table: where the refcount blocks stand. It is in memory as a whole (8 MiB at most).
 *
 * A new block counts itself: it stands in the first of the clusters that it counts, which is free
 * because nothing counted it so far. It is complete on stable storage before the table names it.
 *
 * Clusters in a row that are more than a block counts stand behind several blocks, which count each
 * other: these are named in their order, and one that is on stable storage never lacks another.
 *
 * A new table is placed behind all that the old one can count, where everything is free for the
 * same reason, behind the blocks that count these blocks and the table itself. All of it is on
 * stable storage before the header names it; only then the old table's clusters are given back.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

#define QCOW2_NEW_BLOCKS_BYTES MIB(1)  /* written at once, ahead of one flush; or a single block */
enum { QCOW2_SECTOR_WORDS = 512 / 8 }; /* of a table, that a power cut leaves old or new */

static uint64_t qcow2_reftable_clusters(struct qcow2 *q) REQUIRES(q->refcount_lock)
{
	return q->reftable_entries * 8 >> q->cluster_bits;
}

static int qcow2_reftable_check_entries(struct qcow2 *q, struct diag *diag)
	REQUIRES(q->refcount_lock)
{
	for (uint64_t i = 0; i < q->reftable_entries; i++) {
		uint64_t entry = q->reftable[i];

		if (entry & (q->cluster_size - 1))
			return diag_set(
				diag, -EUCLEAN,
				"%s: entry %llu of the refcount table is 0x%llx, not a cluster "
				"boundary",
				q->img->name, (ull)i, (ull)entry);
		if (entry && qcow2_beyond_end(q, entry))
			return diag_set(diag, -EUCLEAN,
					"%s: the refcount block at 0x%llx is outside the file",
					q->img->name, (ull)entry);
	}
	return 0;
}

static int qcow2_reftable_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/*
 * A block that two entries name would count clusters of two places at once. It is also how a small
 * file could have so many clusters in use that the search for a free one never ends: blocks of its
 * own are no more than the file has bytes for.
 */
static int qcow2_reftable_check_blocks(struct qcow2 *q, struct diag *diag)
	REQUIRES(q->refcount_lock)
{
	size_t n = (size_t)q->reftable_entries;
	_cleanup_free_ uint64_t *sorted = malloc(n * sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, q->reftable, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), qcow2_reftable_compare);
	for (size_t i = 1; i < n; i++)
		if (sorted[i] && sorted[i] == sorted[i - 1])
			return diag_set(diag, -EUCLEAN,
					"%s: two entries of the refcount table name the block at "
					"0x%llx: run fuseimg check --repair",
					q->img->name, (ull)sorted[i]);
	return 0;
}

/* An allocator that trusts wrong refcounts would hand out the tables themselves. */
static int qcow2_reftable_check_counted(struct qcow2 *q, struct diag *diag)
	REQUIRES(q->refcount_lock)
{
	const struct {
		const char *what;
		uint64_t off, bytes;
	} tables[] = {
		{"header", 0, q->cluster_size},
		{"L1 table", q->l1_offset, q->l1_size * UINT64_C(8)},
		{"refcount table", q->reftable_offset, q->reftable_entries * 8},
	};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		struct qcow2_run run = {.first = tables[i].off >> q->cluster_bits,
					.n = div_round_up(tables[i].bytes, q->cluster_size)};
		int r = qcow2_refcount_within(q, &run, 1, UINT64_MAX);

		if (r < 0)
			return diag_errno(diag, r, "%s: cannot read the refcounts", q->img->name);
		if (r == 0)
			return diag_set(
				diag, -EUCLEAN,
				"%s: the %s has a refcount of 0: run fuseimg check --repair",
				q->img->name, tables[i].what);
	}
	return 0;
}

static int qcow2_reftable_read(struct qcow2 *q, struct diag *diag) REQUIRES(q->refcount_lock)
{
	uint64_t bytes = q->reftable_entries * 8;
	int r;

	if (bytes == 0)
		return diag_set(diag, -EUCLEAN,
				"%s: has no refcount table: run fuseimg check --repair",
				q->img->name);
	if (qcow2_beyond_end(q, q->reftable_offset + bytes - 1))
		return diag_set(diag, -EUCLEAN,
				"%s: the refcount table at 0x%llx is outside the file",
				q->img->name, (ull)q->reftable_offset);
	q->reftable = malloc(bytes);
	if (!q->reftable)
		return -ENOMEM;
	r = store_read_full(q->img->store, q->reftable, bytes, q->reftable_offset);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot read the refcount table", q->img->name);
	for (uint64_t i = 0; i < q->reftable_entries; i++)
		q->reftable[i] = be64_get(&q->reftable[i]);
	return 0;
}

int qcow2_reftable_load(struct qcow2 *q, struct diag *diag)
{
	uint64_t size;
	int r = store_size(q->img->store, &size);

	if (r < 0)
		return diag_errno(diag, r, "%s: cannot read its size", q->img->name);
	mutex_lock(&q->refcount_lock);
	if (q->img->store->fixed) {
		q->cluster_limit = size >> q->cluster_bits;
		q->fresh_from = UINT64_MAX; /* a disk is full of what was there before */
	} else {
		q->cluster_limit = QCOW2_OFFSET >> q->cluster_bits;
		q->fresh_from = div_round_up(size, q->cluster_size);
	}
	r = qcow2_reftable_read(q, diag);
	if (r == 0)
		r = qcow2_reftable_check_entries(q, diag);
	if (r == 0)
		r = qcow2_reftable_check_blocks(q, diag);
	if (r == 0)
		r = qcow2_reftable_check_counted(q, diag);
	mutex_unlock(&q->refcount_lock);
	return r;
}

/* True where [off, off + bytes) touches a run. */
static bool qcow2_run_meets(const struct qcow2 *q, const struct qcow2_run *run, uint64_t off,
			    uint64_t bytes)
{
	uint64_t first = off >> q->cluster_bits;
	uint64_t end = first + div_round_up(bytes, q->cluster_size);

	return first < run->first + run->n && run->first < end;
}

const char *qcow2_reftable_meets(struct qcow2 *q, const struct qcow2_run *run)
{
	const char *what = NULL;

	if (run->first == 0)
		return "header";
	if (qcow2_run_meets(q, run, q->l1_offset, q->l1_size * UINT64_C(8)))
		return "L1 table";
	if (qcow2_run_meets(q, run, q->reftable_offset, q->reftable_entries * 8))
		return "refcount table";
	for (uint64_t i = 0; i < q->reftable_entries; i++)
		if (q->reftable[i] && qcow2_run_meets(q, run, q->reftable[i], q->cluster_size))
			return "refcount table's blocks";
	rwlock_read(&q->map_lock);
	for (uint32_t i = 0; !what && i < q->l1_needed; i++)
		if ((q->l1[i] & QCOW2_OFFSET) &&
		    qcow2_run_meets(q, run, q->l1[i] & QCOW2_OFFSET, q->cluster_size))
			what = "L2 tables";
	rwlock_unread(&q->map_lock);
	return what;
}

int qcow2_reftable_check_free(struct qcow2 *q, const struct qcow2_run *run)
{
	const char *what = qcow2_reftable_meets(q, run);

	if (!what)
		return 0;
	return image_damaged(q->img,
			     "%s: clusters at 0x%llx have a refcount of 0 but hold the %s: run "
			     "fuseimg check --repair",
			     q->img->name, (ull)(run->first << q->cluster_bits), what);
}

/* Writes a block that counts clusters [0, used) of its own as used; block: a cluster of zeroes, and
 * that again afterwards. */
static int qcow2_block_write(struct qcow2 *q, uint8_t *block, uint64_t cluster, uint64_t used)
	REQUIRES(q->refcount_lock)
{
	int r;

	for (uint64_t i = 0; i < used; i++)
		qcow2_refcount_put(q, block, i, 1);
	r = store_write(q->img->store, block, q->cluster_size, cluster << q->cluster_bits);
	for (uint64_t i = 0; i < used; i++)
		qcow2_refcount_put(q, block, i, 0);
	return r;
}

/* Writes blocks for table entries from index on, each in the first cluster that it counts. Returns
 * how many, fewer than n only where there is no room for more. */
static int qcow2_reftable_write_blocks(struct qcow2 *q, uint64_t index, int n)
	REQUIRES(q->refcount_lock)
{
	_cleanup_free_ uint8_t *block = calloc(1, q->cluster_size);

	if (!block)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		struct qcow2_run run = {
			.first = (index + (uint64_t)i) << qcow2_block_bits(q),
			.n = 1,
		};
		int r = run.first < q->cluster_limit ? qcow2_reftable_check_free(q, &run) : -ENOSPC;

		if (r == 0)
			r = qcow2_block_write(q, block, run.first, 1);
		if (r < 0)
			return r == -ENOSPC && i > 0 ? i : r;
	}
	return n;
}

/* Names n new blocks, the first at `off` and so on every `step` bytes, in the table: on disk and
 * then in memory. */
static int qcow2_reftable_name_blocks(struct qcow2 *q, uint64_t index, uint64_t n, uint64_t off,
				      uint64_t step) REQUIRES(q->refcount_lock)
{
	_cleanup_free_ uint64_t *disk = calloc(n, sizeof(*disk));
	int r;

	if (!disk)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++)
		be64_put(&disk[i], off + i * step);
	q->reftable_dirty = true;
	r = store_write(q->img->store, disk, n * sizeof(*disk), q->reftable_offset + index * 8);
	for (uint64_t i = 0; r == 0 && i < n; i++)
		q->reftable[index + i] = off + i * step;
	return r;
}

int qcow2_reftable_add_blocks(struct qcow2 *q, uint64_t index, uint64_t clusters)
{
	uint64_t most = max_u64(QCOW2_NEW_BLOCKS_BYTES >> q->cluster_bits, 1);
	uint64_t wanted = min_u64(most, div_round_up(clusters, UINT64_C(1) << qcow2_block_bits(q)));
	unsigned shift = qcow2_block_bits(q) + q->cluster_bits;
	int n = 1, r;

	while ((uint64_t)n < wanted && index + (uint64_t)n < q->reftable_entries &&
	       !q->reftable[index + (uint64_t)n])
		n++;
	r = qcow2_reftable_write_blocks(q, index, n);
	if (r > 0) {
		n = r;
		r = store_flush(q->img->store);
	}
	if (r == 0)
		r = qcow2_reftable_name_blocks(q, index, (uint64_t)n, index << shift,
					       UINT64_C(1) << shift);
	if (r < 0)
		/* These clusters are free and no longer zeroes */
		q->fresh_from =
			max_u64(q->fresh_from, (index + (uint64_t)n) << qcow2_block_bits(q));
	return r;
}

/* A larger table on its way. Clusters [first, first + n_blocks) hold the blocks that count all of
 * it, the table follows. */
struct qcow2_growth {
	uint64_t first, n_blocks, entries;
	uint64_t clusters; /* blocks and table */
};

/* From cluster `first` on, which no block counts so far: as many blocks as it takes to count
 * themselves and n clusters behind them. */
static int qcow2_growth_place(struct qcow2 *q, uint64_t first, uint64_t n, struct qcow2_growth *g)
	REQUIRES(q->refcount_lock)
{
	g->first = first;
	g->n_blocks = 1;
	while (g->n_blocks << qcow2_block_bits(q) < g->n_blocks + n)
		g->n_blocks++;
	g->clusters = g->n_blocks + n;
	if (!range_inside(g->first, g->clusters, q->cluster_limit))
		return -ENOSPC;
	return qcow2_reftable_check_free(q,
					 &(struct qcow2_run){.first = g->first, .n = g->clusters});
}

static int qcow2_growth_plan(struct qcow2 *q, struct qcow2_growth *g) REQUIRES(q->refcount_lock)
{
	g->entries = min_u64(q->reftable_entries * 2, QCOW2_REFTABLE_BYTES_MAX / 8);
	if (g->entries == q->reftable_entries)
		return -ENOSPC;
	return qcow2_growth_place(q, q->reftable_entries << qcow2_block_bits(q),
				  g->entries * 8 >> q->cluster_bits, g);
}

static int qcow2_growth_write_blocks(struct qcow2 *q, const struct qcow2_growth *g)
	REQUIRES(q->refcount_lock)
{
	_cleanup_free_ uint8_t *block = calloc(1, q->cluster_size);
	uint64_t left = g->clusters, counted = UINT64_C(1) << qcow2_block_bits(q);
	int r = block ? 0 : -ENOMEM;

	for (uint64_t i = 0; r == 0 && i < g->n_blocks; i++) {
		uint64_t used = min_u64(left, counted);

		r = qcow2_block_write(q, block, g->first + i, used);
		left -= used;
	}
	return r;
}

/* The table's new content in memory; NULL when there is none. */
static uint64_t *qcow2_growth_table(struct qcow2 *q, const struct qcow2_growth *g)
	REQUIRES(q->refcount_lock)
{
	uint64_t *table = calloc(g->entries, sizeof(*table));

	if (!table)
		return NULL;
	for (uint64_t i = 0; i < q->reftable_entries; i++)
		table[i] = q->reftable[i];
	for (uint64_t i = 0; i < g->n_blocks; i++)
		table[q->reftable_entries + i] = (g->first + i) << q->cluster_bits;
	return table;
}

static int qcow2_growth_write_table(struct qcow2 *q, const struct qcow2_growth *g,
				    const uint64_t *table)
{
	_cleanup_free_ uint64_t *disk = malloc(g->entries * sizeof(*disk));

	if (!disk)
		return -ENOMEM;
	for (uint64_t i = 0; i < g->entries; i++)
		be64_put(&disk[i], table[i]);
	return store_write(q->img->store, disk, g->entries * sizeof(*disk),
			   (g->first + g->n_blocks) << q->cluster_bits);
}

/* The header names a table, durably; offset and size stand side by side, in one sector. */
static int qcow2_reftable_publish(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
	uint8_t disk[12];
	int r;

	be64_put(disk, offset);
	be32_put(disk + 8, (uint32_t)clusters);
	r = store_write(q->img->store, disk, sizeof(disk),
			offsetof(struct qcow2_disk_header, refcount_table_offset));
	return r < 0 ? r : store_flush(q->img->store);
}

static int qcow2_growth_publish(struct qcow2 *q, const struct qcow2_growth *g)
	REQUIRES(q->refcount_lock)
{
	int r = qcow2_reftable_publish(q, (g->first + g->n_blocks) << q->cluster_bits,
				       g->clusters - g->n_blocks);

	/* Unless the old one is named for certain, either table may be the one on disk, and no
	 * refcount can be changed any more */
	if (r < 0 && qcow2_reftable_publish(q, q->reftable_offset, qcow2_reftable_clusters(q)) < 0)
		q->reftable_lost = true;
	return r;
}

/* The new table takes the place of the old one in memory; the old one's clusters are free. */
static void qcow2_growth_adopt(struct qcow2 *q, const struct qcow2_growth *g, uint64_t *table)
	REQUIRES(q->refcount_lock)
{
	struct qcow2_run old = {
		.first = q->reftable_offset >> q->cluster_bits,
		.n = qcow2_reftable_clusters(q),
	};

	free(q->reftable);
	q->reftable = table;
	q->reftable_entries = g->entries;
	q->reftable_offset = (g->first + g->n_blocks) << q->cluster_bits;
	/* A failure leaks them, no more */
	qcow2_refcount_lower(q, &old);
}

int qcow2_reftable_grow(struct qcow2 *q)
{
	_cleanup_free_ uint64_t *table = NULL;
	struct qcow2_growth g;
	int r = qcow2_growth_plan(q, &g);

	if (r < 0)
		return r;
	table = qcow2_growth_table(q, &g);
	if (!table)
		return -ENOMEM;
	r = qcow2_growth_write_blocks(q, &g);
	if (r == 0)
		r = qcow2_growth_write_table(q, &g, table);
	if (r == 0)
		r = store_flush(q->img->store);
	if (r == 0)
		r = qcow2_growth_publish(q, &g);
	if (r < 0) {
		/* These clusters are free and no longer zeroes */
		q->fresh_from = max_u64(q->fresh_from, g.first + g.clusters);
		return r;
	}
	qcow2_growth_adopt(q, &g, TAKE_PTR(table));
	return 0;
}

/* The first entry behind the last that names a block. */
static uint64_t qcow2_reftable_end(struct qcow2 *q) REQUIRES(q->refcount_lock)
{
	uint64_t end = q->reftable_entries;

	while (end > 0 && !q->reftable[end - 1])
		end--;
	return end;
}

/* After a write that failed, and may have been done: unless the disk surely names none of the n
 * blocks, they cannot be free again. */
static void qcow2_reftable_unname(struct qcow2 *q, uint64_t index, uint64_t n)
	REQUIRES(q->refcount_lock)
{
	static const uint64_t none[QCOW2_SECTOR_WORDS];
	int r = store_write(q->img->store, none, n * sizeof(*none),
			    q->reftable_offset + index * sizeof(*none));

	if (r == 0)
		r = store_flush(q->img->store);
	if (r < 0)
		q->reftable_lost = true;
}

/* The same for blocks that stand side by side and count each other: a sector of the table at a
 * time, each durable before the next. */
static int qcow2_reftable_name_row(struct qcow2 *q, uint64_t index, const struct qcow2_growth *g)
	REQUIRES(q->refcount_lock)
{
	uint64_t n;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < g->n_blocks; i += n) {
		n = min_u64(g->n_blocks - i, QCOW2_SECTOR_WORDS - (index + i) % QCOW2_SECTOR_WORDS);
		r = qcow2_reftable_name_blocks(q, index + i, n, (g->first + i) << q->cluster_bits,
					       q->cluster_size);
		if (r < 0)
			qcow2_reftable_unname(q, index + i, n);
		else
			r = store_flush(q->img->store);
	}
	return r;
}

int qcow2_reftable_claim_row(struct qcow2 *q, uint64_t n, struct qcow2_run *ret)
{
	struct qcow2_growth g;
	uint64_t index;
	int r;

	if (q->reftable_lost)
		return -EIO;
	for (;;) {
		index = qcow2_reftable_end(q);
		r = qcow2_growth_place(q, index << qcow2_block_bits(q), n, &g);
		if (r < 0 || index + g.n_blocks <= q->reftable_entries)
			break;
		/* Its own blocks go behind the table: look again */
		r = qcow2_reftable_grow(q);
		if (r < 0)
			break;
	}
	if (r < 0)
		return r;
	q->fresh_from = max_u64(q->fresh_from, g.first + g.clusters);
	r = qcow2_growth_write_blocks(q, &g);
	if (r == 0)
		r = store_flush(q->img->store);
	if (r == 0)
		r = qcow2_reftable_name_row(q, index, &g);
	if (r == 0)
		*ret = (struct qcow2_run){.first = g.first + g.n_blocks, .n = n};
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "store/journal-core.h"

/*
 * The power cut. The records of a disk that a power cut may take back are the window: those since
 * its last flush, and where a flush failed, those since the last one before. For each sector that
 * they touch, and for the size, the newest record that has reached the disk is drawn; what that
 * sector then holds is the work of all records up to it, see the model in journal.h.
 */

/* Where the draw for a disk's size takes the number of a sector. */
#define CUT_SIZE_CELL UINT64_MAX

/* Of a sector. Records that have reached it for certain are not among those that are counted. */
struct cut_cell {
	uint32_t newest; /* 1 + the newest record that has reached it */
	uint32_t count;	 /* records that touch it */
	uint32_t passed; /* of these, while drawing */
	uint32_t nth;	 /* the one to be the newest; 0: none of them */
};

struct cut {
	const struct journal_record *records; /* the window */
	size_t n;
	bool *certain; /* for each: has reached the disk, whatever is drawn */
	unsigned disk;
	enum journal_loss loss;
	uint64_t seed;
	size_t size_upto;    /* the size is the work of the records before this one */
	uint64_t outcomes;   /* of the cells that were counted */
	struct store *cells; /* struct cut_cell per sector */
	struct store *out;
};

int journal_copy(struct store *s, struct store **ret)
{
	_cleanup_free_ char *buf = malloc(KIB(64));
	_cleanup_store_ struct store *copy = NULL;
	uint64_t size, len;
	bool data;
	int r;

	if (!buf)
		return -ENOMEM;
	r = store_memory_new(s->name, INT64_MAX, &copy);
	if (r < 0)
		return r;
	r = store_size(s, &size);
	for (uint64_t off = 0; r == 0 && off < size; off += len) {
		r = store_map(s, off, min_u64(size - off, KIB(64)), &data, &len);
		if (r == 0 && data)
			r = store_read_full(s, buf, len, off) ?: store_write(copy, buf, len, off);
	}
	if (r == 0)
		r = store_resize(copy, size);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(copy);
	return 0;
}

/* splitmix64: well spread, the same everywhere. */
static uint64_t cut_mix(uint64_t v)
{
	v += UINT64_C(0x9e3779b97f4a7c15);
	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

/* Has record i of the window reached this cell? How many do, of eight, is the seed's choice too. */
static bool cut_reached(const struct cut *c, size_t i, uint64_t cell)
{
	uint64_t share = 1 + cut_mix(c->seed) % 7;
	uint64_t draw = cut_mix(cut_mix(c->seed) + i);

	switch (c->loss) {
	case JOURNAL_KEEP:
		return true;
	case JOURNAL_DROP:
		return draw % 8 < share;
	case JOURNAL_TORN:
		return cut_mix(draw + cell) % 8 < share;
	case JOURNAL_LOSE:
	case JOURNAL_NTH: /* see cut_pick() */
		return false;
	}
	return false;
}

/* Does it change bytes? Growing shows zeroes where there was nothing. */
static bool cut_changes(const struct cut *c, const struct journal_record *rec)
{
	return rec->disk == c->disk && rec->kind != JOURNAL_FLUSH && rec->len > 0 &&
	       (rec->kind != JOURNAL_RESIZE || rec->size_after < rec->size_before);
}

/* Does [off, off + len) of record rec, on the new disk. */
static int cut_apply(struct store *out, const struct journal_record *rec, uint64_t off,
		     uint64_t len)
{
	if (rec->kind == JOURNAL_WRITE)
		return store_write(out, (const char *)rec->data + (off - rec->off), len, off);
	return store_zero(out, off, len);
}

/* A short read: nothing has been noted of it. */
static int cut_load(const struct cut *c, uint64_t sector, struct cut_cell *ret)
{
	ssize_t n;

	*ret = (struct cut_cell){0};
	n = store_read(c->cells, ret, sizeof(*ret), sector * sizeof(*ret));
	return n < 0 ? (int)n : 0;
}

static int cut_save(const struct cut *c, uint64_t sector, const struct cut_cell *cell)
{
	return store_write(c->cells, cell, sizeof(*cell), sector * sizeof(*cell));
}

/* What a cut off part loses hangs on the size. */
static bool cut_is_free(const struct cut *c, size_t i)
{
	return !c->certain[i] && c->records[i].kind != JOURNAL_RESIZE;
}

static int cut_count_sector(struct cut *c, size_t i, uint64_t sector)
{
	struct cut_cell cell;
	int r = cut_load(c, sector, &cell);

	if (r < 0 || !cut_is_free(c, i))
		return r;
	cell.count++;
	return cut_save(c, sector, &cell);
}

/* One digit of the outcome's number: 0 to n. */
static uint32_t cut_pick(struct cut *c, uint64_t n)
{
	uint32_t digit = (uint32_t)(c->seed % (n + 1));

	c->seed /= n + 1;
	if (__builtin_mul_overflow(c->outcomes, n + 1, &c->outcomes))
		c->outcomes = UINT64_MAX;
	return digit;
}

static int cut_pick_sector(struct cut *c, size_t i, uint64_t sector)
{
	struct cut_cell cell;
	int r = cut_load(c, sector, &cell);

	if (r < 0 || cell.count == 0)
		return r;
	cell.nth = cut_pick(c, cell.count);
	cell.count = 0; /* so that it is done once */
	return cut_save(c, sector, &cell);
}

static int cut_draw_sector(struct cut *c, size_t i, uint64_t sector)
{
	bool reached = c->certain[i];
	struct cut_cell cell;
	int r = cut_load(c, sector, &cell);

	if (r < 0)
		return r;
	if (c->records[i].kind == JOURNAL_RESIZE)
		reached = i < c->size_upto;
	else if (!reached)
		reached = cut_reached(c, i, sector) || ++cell.passed == cell.nth;
	if (reached)
		cell.newest = (uint32_t)i + 1;
	return cut_save(c, sector, &cell);
}

static int cut_apply_sector(struct cut *c, size_t i, uint64_t sector)
{
	const struct journal_record *rec = &c->records[i];
	uint64_t from = max_u64(sector * JOURNAL_SECTOR, rec->off);
	uint64_t to = min_u64((sector + 1) * JOURNAL_SECTOR, rec->off + rec->len);
	struct cut_cell cell;
	int r = cut_load(c, sector, &cell);

	if (r < 0 || i >= cell.newest)
		return r;
	return cut_apply(c->out, rec, from, to - from);
}

/* Calls f for every sector that a record of the window changes, in order. */
static int cut_each_sector(struct cut *c, int (*f)(struct cut *c, size_t i, uint64_t sector))
{
	for (size_t i = 0; i < c->n; i++) {
		const struct journal_record *rec = &c->records[i];
		uint64_t sector = rec->off / JOURNAL_SECTOR;

		if (!cut_changes(c, rec))
			continue;
		for (; sector * JOURNAL_SECTOR < rec->off + rec->len; sector++) {
			int r = f(c, i, sector);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* For JOURNAL_NTH: which record is to be the newest in each sector. */
static int cut_pick_sectors(struct cut *c)
{
	int r = cut_each_sector(c, cut_count_sector);

	return r ?: cut_each_sector(c, cut_pick_sector);
}

/* Some of the window, sector by sector. */
static int cut_sectors(struct cut *c)
{
	_cleanup_store_ struct store *cells = NULL;
	int r = store_memory_new("cells", INT64_MAX, &cells);

	if (r < 0)
		return r;
	c->cells = cells;
	if (c->loss == JOURNAL_NTH)
		r = cut_pick_sectors(c);
	if (r == 0)
		r = cut_each_sector(c, cut_draw_sector);
	return r ?: cut_each_sector(c, cut_apply_sector);
}

/* All of the window. */
static int cut_all(struct cut *c)
{
	int r = 0;

	for (size_t i = 0; i < c->n && r == 0; i++)
		if (cut_changes(c, &c->records[i]))
			r = cut_apply(c->out, &c->records[i], c->records[i].off, c->records[i].len);
	return r;
}

/* Does the size hang on record i, if that has reached the disk? */
static bool cut_resizes(const struct cut *c, size_t i)
{
	const struct journal_record *rec = &c->records[i];

	return rec->disk == c->disk && rec->size_after != rec->size_before;
}

/* Draws the size of the disk, which is *size before the window. */
static void cut_draw_size(struct cut *c, uint64_t *size)
{
	uint32_t passed = 0, nth = 0;

	for (size_t i = 0; i < c->n; i++)
		passed += cut_resizes(c, i) && !c->certain[i];
	if (c->loss == JOURNAL_NTH)
		nth = cut_pick(c, passed);
	passed = 0;
	for (size_t i = 0; i < c->n; i++) {
		const struct journal_record *rec = &c->records[i];
		bool reached = cut_reached(c, i, CUT_SIZE_CELL);

		if (rec->disk != c->disk)
			continue;
		if (cut_resizes(c, i) && !c->certain[i])
			reached |= ++passed == nth;
		/* A durable write brings the size along where it needs it */
		if (rec->durable && c->certain[i]
			    ? rec->off + rec->len > *size
			    : cut_resizes(c, i) && (reached || c->certain[i])) {
			*size = rec->size_after;
			c->size_upto = i + 1;
		}
	}
}

/* Lets the window happen to c->out, as far as it has reached the disk. */
static int cut_window(struct cut *c)
{
	uint64_t size;
	int r = store_size(c->out, &size);

	if (r < 0)
		return r;
	c->outcomes = 1;
	cut_draw_size(c, &size);
	r = c->loss == JOURNAL_KEEP ? cut_all(c) : cut_sectors(c);
	return r ?: store_resize(c->out, size);
}

/* Is there a flush of the disk behind record i, in the first k records, and does it succeed? */
static bool journal_is_certain(struct journal *j, unsigned disk, size_t i, size_t k)
	REQUIRES(j->lock)
{
	for (size_t f = i; f < k; f++) {
		const struct journal_record *rec = &j->records[f];

		if (rec->kind == JOURNAL_FLUSH && rec->disk == disk && rec->upto > i)
			return !rec->failed;
	}
	return false;
}

/* Records before this one have reached the disk when the power goes after k of them. */
static size_t journal_durable(struct journal *j, unsigned disk, size_t k) REQUIRES(j->lock)
{
	size_t durable = 0;

	for (size_t f = 0; f < k; f++) {
		const struct journal_record *rec = &j->records[f];

		if (rec->kind != JOURNAL_FLUSH || rec->disk != disk)
			continue;
		if (rec->failed)
			break;
		durable = max_u64(durable, rec->upto);
	}
	return durable;
}

/* The records [from, to), of which the first k of the journal decide what is certain. */
static int journal_window(struct journal *j, struct cut *c, size_t from, size_t to, size_t k)
	REQUIRES(j->lock)
{
	c->records = j->records ? j->records + from : NULL;
	c->n = to - from;
	c->certain = calloc(c->n + 1, sizeof(*c->certain));
	if (!c->certain)
		return -ENOMEM;
	for (size_t i = 0; i < c->n; i++)
		c->certain[i] = (c->records[i].durable && from + i + 1 < k) ||
				journal_is_certain(j, c->disk, from + i, k);
	return 0;
}

/* Brings disk->durable to where all records before `upto` are on it. */
static int journal_replay(struct journal *j, unsigned disk, size_t upto) REQUIRES(j->lock)
{
	struct journal_disk *d = &j->disks[disk];
	struct cut c = {.disk = disk, .loss = JOURNAL_KEEP};
	int r = 0;

	if (!d->durable || d->upto > upto) {
		d->durable = store_close(d->durable);
		d->upto = 0;
		r = journal_copy(d->base, &d->durable);
	}
	if (r == 0)
		r = journal_window(j, &c, d->upto, upto, upto);
	if (r < 0)
		return r;
	c.out = d->durable;
	r = cut_window(&c);
	free(c.certain);
	if (r == 0)
		d->upto = upto;
	else
		d->durable = store_close(d->durable);
	return r;
}

static int journal_cut_locked(struct journal *j, struct cut *c, size_t k, struct store **ret)
	REQUIRES(j->lock)
{
	_cleanup_store_ struct store *out = NULL;
	size_t durable = journal_durable(j, c->disk, k);
	int r = journal_replay(j, c->disk, durable);

	if (r == 0)
		r = journal_copy(j->disks[c->disk].durable, &out);
	if (r == 0)
		r = journal_window(j, c, durable, k, k);
	if (r < 0)
		return r;
	c->out = out;
	r = cut_window(c);
	free(c->certain);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(out);
	return 0;
}

int journal_cut(struct journal *j, unsigned disk, size_t k, enum journal_loss loss, uint64_t seed,
		struct store **ret)
{
	struct cut c = {.disk = disk, .loss = loss, .seed = seed};
	int r;

	mutex_lock(&j->lock);
	assert(disk < j->n_disks && k <= j->n_records);
	r = journal_cut_locked(j, &c, k, ret);
	mutex_unlock(&j->lock);
	return r;
}

int journal_outcomes(struct journal *j, unsigned disk, size_t k, uint64_t *ret)
{
	struct cut c = {.disk = disk, .loss = JOURNAL_NTH};
	_cleanup_store_ struct store *out = NULL;
	int r;

	mutex_lock(&j->lock);
	assert(disk < j->n_disks && k <= j->n_records);
	r = journal_cut_locked(j, &c, k, &out);
	mutex_unlock(&j->lock);
	if (r == 0)
		*ret = c.outcomes;
	return r;
}

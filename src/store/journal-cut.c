/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "store/journal-core.h"

/*
 * The power cut. The records since the disk's last flush are the window. For each sector that they
 * touch, and for the size, the newest record that has reached the disk is drawn; what that sector
 * then holds is the work of all records up to it, see the model in journal.h.
 */

/* Where the draw for a disk's size takes the number of a sector. */
#define CUT_SIZE_CELL UINT64_MAX

struct cut {
	const struct journal_record *records; /* the window */
	size_t n;
	unsigned disk;
	enum journal_loss loss;
	uint64_t seed;
	size_t size_upto;     /* the size is the work of the records before this one */
	struct store *newest; /* uint32_t per sector: 1 + the newest record that reached it */
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

	if (c->records[i].durable)
		return true;
	switch (c->loss) {
	case JOURNAL_KEEP:
		return true;
	case JOURNAL_LOSE:
		return false;
	case JOURNAL_DROP:
		return draw % 8 < share;
	case JOURNAL_TORN:
		return cut_mix(draw + cell) % 8 < share;
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

static int cut_draw_sector(struct cut *c, size_t i, uint64_t sector)
{
	bool resize = c->records[i].kind == JOURNAL_RESIZE;
	uint32_t mark = (uint32_t)i + 1;

	if (resize ? i >= c->size_upto : !cut_reached(c, i, sector))
		return 0;
	return store_write(c->newest, &mark, sizeof(mark), sector * sizeof(mark));
}

static int cut_apply_sector(struct cut *c, size_t i, uint64_t sector)
{
	const struct journal_record *rec = &c->records[i];
	uint64_t from = max_u64(sector * JOURNAL_SECTOR, rec->off);
	uint64_t to = min_u64((sector + 1) * JOURNAL_SECTOR, rec->off + rec->len);
	uint32_t mark = 0; /* a short read: no record has reached it */
	ssize_t n = store_read(c->newest, &mark, sizeof(mark), sector * sizeof(mark));

	if (n < 0)
		return (int)n;
	return i < mark ? cut_apply(c->out, rec, from, to - from) : 0;
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

/* Some of the window, sector by sector. */
static int cut_sectors(struct cut *c)
{
	_cleanup_store_ struct store *newest = NULL;
	int r = store_memory_new("newest", INT64_MAX, &newest);

	if (r < 0)
		return r;
	c->newest = newest;
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

/* Lets the window happen to c->out, as far as it has reached the disk. */
static int cut_window(struct cut *c)
{
	uint64_t size;
	int r = store_size(c->out, &size);

	if (r < 0)
		return r;
	for (size_t i = 0; i < c->n; i++) {
		const struct journal_record *rec = &c->records[i];

		if (rec->disk != c->disk)
			continue;
		/* A durable write brings the size along where it needs it */
		if (rec->durable ? rec->off + rec->len > size
				 : rec->size_after != rec->size_before &&
					   cut_reached(c, i, CUT_SIZE_CELL)) {
			size = rec->size_after;
			c->size_upto = i + 1;
		}
	}
	r = c->loss == JOURNAL_KEEP ? cut_all(c) : cut_sectors(c);
	return r ?: store_resize(c->out, size);
}

/* Record i, or one behind the last; NULL while there are none. */
static const struct journal_record *journal_from(struct journal *j, size_t i) REQUIRES(j->lock)
{
	return j->records ? j->records + i : NULL;
}

/* Brings disk->durable to the state that a flush at record `upto` leaves. */
static int journal_replay(struct journal *j, unsigned disk, size_t upto) REQUIRES(j->lock)
{
	struct journal_disk *d = &j->disks[disk];
	struct cut c = {.disk = disk, .loss = JOURNAL_KEEP};
	int r;

	if (!d->durable || d->upto > upto) {
		d->durable = store_close(d->durable);
		d->upto = 0;
		r = journal_copy(d->base, &d->durable);
		if (r < 0)
			return r;
	}
	c.records = journal_from(j, d->upto);
	c.n = upto - d->upto;
	c.out = d->durable;
	r = cut_window(&c);
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
	size_t durable = k;
	int r;

	while (durable > 0 && !(j->records[durable - 1].kind == JOURNAL_FLUSH &&
				j->records[durable - 1].disk == c->disk))
		durable--;
	r = journal_replay(j, c->disk, durable);
	if (r < 0)
		return r;
	r = journal_copy(j->disks[c->disk].durable, &out);
	if (r < 0)
		return r;
	c->records = journal_from(j, durable);
	c->n = k - durable;
	c->out = out;
	r = cut_window(c);
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

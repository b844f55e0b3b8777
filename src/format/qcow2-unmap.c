/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Zeroes and discards. The caller is alone in the driver, so nobody reads or writes the clusters
 * that lose their name here; they are freed as all that is replaced, behind a flush (qcow2-free.c).
 *
 * What the entries can say is a matter of whole subclusters (without extended L2: clusters):
 *
 *   nothing         where no backing image would show
 *   zero            version 3: the zero flag, or the bits of subclusters
 *   zero, and where the same, and the host cluster stays the disk's own
 *
 * All else is written, by image/. A raw external data file is what others read without us, so there
 * the zeroes stand in the data file, and no entry changes.
 */

#include <errno.h>

#include "format/qcow2.h"

/* True where bytes of the backing image would show if the cluster's entry said nothing. */
static bool qcow2_unmap_shows(const struct qcow2 *q, const struct qcow2_unmap *u, uint64_t start)
{
	return !u->bare && start < q->img->parent_size;
}

/* May the host cluster of an entry stay behind zeroes? */
static bool qcow2_unmap_keeps(const struct qcow2 *q, const struct qcow2_unmap *u, uint64_t entry)
{
	return u->keep && q->version >= 3 && (q->data_file || (entry & QCOW2_COPIED));
}

static uint64_t qcow2_unmap_plain(const struct qcow2 *q, const struct qcow2_unmap *u,
				  uint64_t entry, bool shows)
{
	uint64_t named = entry & (QCOW2_OFFSET | QCOW2_COPIED);

	if (entry & QCOW2_COMPRESSED)
		return shows ? QCOW2_ZERO : 0;
	if (!named)
		return shows ? QCOW2_ZERO : entry;
	if (qcow2_unmap_keeps(q, u, entry))
		return named | QCOW2_ZERO;
	return shows ? QCOW2_ZERO : 0;
}

/* The same for the subclusters in `mask`: 0, or 1 where the entry cannot say it. */
static int qcow2_unmap_extended(const struct qcow2 *q, const struct qcow2_unmap *u, uint32_t mask,
				bool shows, uint64_t *e)
{
	uint64_t named = e[0] & (QCOW2_OFFSET | QCOW2_COPIED);
	uint64_t allocated = (uint32_t)e[1] & ~mask, zero = e[1] >> 32 | mask;
	bool packed = e[0] & QCOW2_COMPRESSED;

	if (packed && mask != UINT32_MAX)
		return 1;
	if (packed || (allocated == 0 && !qcow2_unmap_keeps(q, u, e[0])))
		named = allocated = 0;
	e[0] = named;
	e[1] = named || shows ? zero << 32 | allocated : 0;
	return 0;
}

/* Bytes [from, to) of the cluster at guest offset `start`, whole subclusters. e: its entry; what it
 * no longer names goes to *ret_gone. 0, or 1 where the entry cannot say it. */
static int qcow2_unmap_entry(struct qcow2 *q, struct qcow2_unmap *u, uint64_t start, uint64_t to,
			     uint64_t *e, struct qcow2_run *ret_gone)
{
	uint64_t old = e[0], old_bitmap = q->extended_l2 ? e[1] : 0, from = u->off - start;
	bool shows = qcow2_unmap_shows(q, u, start);
	int r = qcow2_check_entry(q, start, old, old_bitmap);

	if (r < 0)
		return r;
	if (q->extended_l2) {
		uint64_t below = (UINT64_C(1) << (to >> q->subcluster_bits)) - 1;
		uint64_t skip = (UINT64_C(1) << (from >> q->subcluster_bits)) - 1;

		r = qcow2_unmap_extended(q, u, (uint32_t)(below & ~skip), shows, e);
		if (r > 0)
			return r;
	} else {
		e[0] = qcow2_unmap_plain(q, u, old, shows);
	}
	*ret_gone = (struct qcow2_run){0};
	if (!q->data_file && !(e[0] & QCOW2_OFFSET))
		*ret_gone = qcow2_entry_clusters(q, old);
	u->changed |= e[0] != old || (q->extended_l2 && e[1] != old_bitmap);
	return 0;
}

/* The entries in c up to guest offset `end`. Moves u->off as far as it came; 1 where that is
 * nowhere. */
static int qcow2_unmap_entries(struct qcow2 *q, struct qcow2_unmap *u, uint64_t end,
			       struct qcow2_change *c, struct qcow2_runs *gone)
{
	uint64_t begin = u->off, start = round_down(begin, q->cluster_size);

	for (uint64_t *e = c->words; u->off < end; e += q->entry_words) {
		uint64_t to = min_u64(end - start, q->cluster_size);
		int r = qcow2_unmap_entry(q, u, start, to, e, &gone->at[gone->n]);

		if (r != 0)
			return r > 0 && u->off > begin ? 0 : r;
		gone->n += gone->at[gone->n].n > 0;
		u->off = start + to;
		start += q->cluster_size;
	}
	return 0;
}

/*
 * After an I/O error the disk may have the new entries or the old ones. Memory takes the new ones:
 * with the old ones a later write would go in place, where perhaps no entry leads to it any more.
 * Nothing is freed then, and who tries again writes them again, though they are the same in memory.
 */
static int qcow2_unmap_write(struct qcow2 *q, const struct qcow2_change *c) REQUIRES(q->table_lock)
{
	int r = qcow2_change_write(q, c);

	if (r < 0 && !qcow2_link_untouched(r)) {
		qcow2_change_remember(q, c);
		atomic_store(&q->img->unsure, true);
	}
	return r;
}

/* Within one slice. */
static int qcow2_unmap_slice(struct qcow2 *q, struct qcow2_unmap *u, uint64_t end)
{
	struct qcow2_run at[QCOW2_PIECE_WORDS + 1];
	struct qcow2_runs gone = {.at = at};
	uint64_t n = ((end - 1) >> q->cluster_bits) - (u->off >> q->cluster_bits) + 1;
	bool before = u->changed;
	struct qcow2_change c;
	int r;

	u->changed = false;
	mutex_lock(&q->table_lock);
	r = qcow2_change_begin(q, u->off, (size_t)n * q->entry_words, &c);
	if (r == 0)
		r = qcow2_unmap_entries(q, u, end, &c, &gone);
	if (r == 0 && (u->changed || atomic_load(&q->img->unsure)))
		r = qcow2_unmap_write(q, &c);
	mutex_unlock(&q->table_lock);
	if (r == 0)
		qcow2_free_later(q, &gone);
	u->changed |= before;
	return r;
}

static bool qcow2_unmap_no_table(struct qcow2 *q, uint64_t off)
{
	bool none;

	rwlock_read(&q->map_lock);
	none = q->l1[off >> qcow2_table_bits(q)] == 0;
	rwlock_unread(&q->map_lock);
	return none;
}

int qcow2_unmap_piece(struct qcow2 *q, struct qcow2_unmap *u)
{
	unsigned bits = qcow2_table_bits(q);
	uint64_t end;
	int r;

	if (q->version < 3 && qcow2_unmap_shows(q, u, u->off))
		return 1;
	if (qcow2_unmap_no_table(q, u->off) && !qcow2_unmap_shows(q, u, u->off)) {
		u->off = min_u64(u->end, ((u->off >> bits) + 1) << bits);
		return 0;
	}
	r = qcow2_table_ensure(q, u->off);
	if (r < 0)
		return r;
	bits = q->cluster_bits + q->slice_bits;
	end = min_u64(u->end, ((u->off >> bits) + 1) << bits);
	end = min_u64(end, round_down(u->off, QCOW2_FREE_STEP) + QCOW2_FREE_STEP);
	return qcow2_unmap_slice(q, u, end);
}

/* Physically, whatever the entries say; they say it still. */
static int qcow2_unmap_data(struct image *img, uint64_t off, uint64_t len, enum unmap_how how)
{
	int r = how == UNMAP_DISCARD ? store_discard(img->data, off, len) : -EOPNOTSUPP;

	return r == -EOPNOTSUPP ? store_zero(img->data, off, len) : r;
}

/* A part of a subcluster, or of what the entries cannot say. */
static int qcow2_unmap_rest(uint64_t off, uint64_t end, uint64_t unit, uint64_t *ret_done)
{
	*ret_done = min_u64(end, round_down(off, unit) + unit) - off;
	return 1;
}

int qcow2_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
		uint64_t *ret_done)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t granule = UINT64_C(1) << q->subcluster_bits, end = off + len;
	struct qcow2_unmap u = {.off = off, .keep = how == UNMAP_ZERO};
	int r;

	if (q->data_file && (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW)) {
		*ret_done = len;
		return off < img->parent_size ? 1 : qcow2_unmap_data(img, off, len, how);
	}
	u.end = end == img->size ? round_up(end, q->cluster_size) : round_down(end, granule);
	if ((off & (granule - 1)) || u.end <= off)
		return qcow2_unmap_rest(off, end, granule, ret_done);
	r = qcow2_unmap_piece(q, &u);
	if (r > 0)
		return qcow2_unmap_rest(off, end, q->cluster_size, ret_done);
	if (r < 0)
		return r;
	*ret_done = min_u64(u.off, end) - off;
	/* Should it fail, the bytes stay where nobody reads them */
	if (q->data_file && how == UNMAP_DISCARD)
		store_discard(img->data, off, *ret_done);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Publishing: the L2 entries of an extent, by one write within one slice.
 *
 * Order: the entries on disk, then the slice in memory, then what they replaced goes to the list of
 * things to free, where it waits for a flush (qcow2-free.c).
 */

#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "format/qcow2.h"

/* Brings the slice in first where it is not in memory. */
int qcow2_change_begin(struct qcow2 *q, uint64_t off, size_t n_words, struct qcow2_change *c)
{
	for (;;) {
		const uint64_t *words;
		int r;

		rwlock_read(&q->map_lock);
		r = qcow2_locate(q, off, &c->slice, &c->word);
		words = r == 0 ? qcow2_cache_find(q, c->slice) : NULL;
		c->n_words = n_words;
		if (words)
			memcpy(c->words, words + c->word, n_words * sizeof(*words));
		rwlock_unread(&q->map_lock);
		if (r == 0 && !words)
			r = qcow2_cache_load_locked(q, c->slice);
		if (r < 0 || words)
			return r;
	}
}

void qcow2_change_remember(struct qcow2 *q, const struct qcow2_change *c)
{
	uint64_t *words;

	rwlock_write(&q->map_lock);
	words = qcow2_cache_find(q, c->slice);
	if (words)
		memcpy(words + c->word, c->words, c->n_words * sizeof(*words));
	rwlock_unwrite(&q->map_lock);
}

bool qcow2_link_untouched(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -EFBIG || error == -EROFS;
}

/* Are the entries on disk those in memory still? A write that was cut short has reached some. */
static bool qcow2_change_missed(struct qcow2 *q, const struct qcow2_change *c)
{
	uint64_t disk[QCOW2_PIECE_WORDS];
	const uint64_t *words;
	bool missed;

	if (store_read_full(q->img->store, disk, c->n_words * sizeof(*disk),
			    c->slice + c->word * sizeof(*disk)) < 0)
		return false;
	rwlock_read(&q->map_lock);
	words = qcow2_cache_find(q, c->slice);
	missed = words;
	for (size_t i = 0; missed && i < c->n_words; i++)
		missed = be64_get(&disk[i]) == words[c->word + i];
	rwlock_unread(&q->map_lock);
	return missed;
}

int qcow2_change_write(struct qcow2 *q, const struct qcow2_change *c)
{
	uint64_t disk[QCOW2_PIECE_WORDS];
	int r;

	for (size_t i = 0; i < c->n_words; i++)
		be64_put(&disk[i], c->words[i]);
	/* Odd: who reads the slice meanwhile must not keep it (qcow2-cache.c) */
	atomic_fetch_add(&q->table_seq, 1);
	r = store_write(q->img->store, disk, c->n_words * sizeof(*disk),
			c->slice + c->word * sizeof(*disk));
	if (r == 0)
		qcow2_change_remember(q, c);
	else if (qcow2_link_untouched(r) && !qcow2_change_missed(q, c))
		r = -EIO;
	atomic_fetch_add(&q->table_seq, 1);
	return r;
}

struct qcow2_run qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry)
{
	uint64_t off = entry & QCOW2_OFFSET, len = off ? q->cluster_size : 0;
	struct qcow2_run run = {0};

	if (entry & QCOW2_COMPRESSED)
		qcow2_packed_range(q, entry, &off, &len);
	if (len == 0)
		return run;
	run.first = off >> q->cluster_bits;
	run.n = ((off + len - 1) >> q->cluster_bits) - run.first + 1;
	return run;
}

/* Subcluster bits after [from, to) bytes of the cluster were written; new: into a new cluster. */
static uint64_t qcow2_entry_bitmap(const struct qcow2 *q, uint64_t bitmap, uint64_t from,
				   uint64_t to, bool new)
{
	unsigned first = (unsigned)(from >> q->subcluster_bits);
	unsigned n = (unsigned)(to >> q->subcluster_bits) - first;
	uint64_t range = ((UINT64_C(1) << n) - 1) << first;
	uint64_t allocated = new ? 0 : (uint32_t)bitmap, zero = bitmap >> 32;

	return (zero & ~range) << 32 | allocated | range;
}

/* Turns the old entries into the new ones and gathers what they replace. */
static int qcow2_link_entries(struct qcow2 *q, const struct extent *ext, struct qcow2_change *c,
			      struct qcow2_run *replaced, size_t *ret_n)
{
	uint64_t host = round_down(ext->host_off, q->cluster_size);
	uint64_t start = round_down(ext->off, q->cluster_size), end = ext->off + ext->len;
	size_t n = 0;

	for (uint64_t *e = c->words; e < c->words + c->n_words; e += q->entry_words) {
		uint64_t from = max_u64(ext->off, start) - start;
		uint64_t to = min_u64(end - start, q->cluster_size);
		int r = qcow2_check_entry(q, start, e[0], q->extended_l2 ? e[1] : 0);

		if (r < 0)
			return r;
		if (!ext->reused) {
			replaced[n] = qcow2_entry_clusters(q, e[0]);
			n += replaced[n].n > 0;
		}
		if (q->extended_l2)
			e[1] = e[0] & QCOW2_COMPRESSED
				       ? qcow2_entry_bitmap(q, 0, from, to, true)
				       : qcow2_entry_bitmap(q, e[1], from, to, !ext->reused);
		e[0] = host | QCOW2_COPIED;
		host += q->cluster_size;
		start += q->cluster_size;
	}
	*ret_n = n;
	return 0;
}

int qcow2_link(struct image *img, const struct extent *ext)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_run replaced[QCOW2_PIECE_WORDS];
	uint64_t first = ext->off >> q->cluster_bits;
	uint64_t last = (ext->off + ext->len - 1) >> q->cluster_bits;
	struct qcow2_change c;
	bool written = false, unsure;
	size_t n = 0;
	int r;

	mutex_lock(&q->table_lock);
	r = qcow2_change_begin(q, ext->off, (size_t)(last - first + 1) * q->entry_words, &c);
	if (r == 0)
		r = qcow2_link_entries(q, ext, &c, replaced, &n);
	if (r == 0) {
		written = true;
		r = qcow2_change_write(q, &c);
	}
	mutex_unlock(&q->table_lock);

	if (r == 0)
		qcow2_free_later(q, &(struct qcow2_runs){.at = replaced, .n = n});
	unsure = r < 0 && written && !qcow2_link_untouched(r);
	if (unsure)
		atomic_store(&img->unsure, true);
	/* After an I/O error the disk may name the clusters all the same: they are leaked */
	if (r < 0 && (ext->reused || !unsure))
		qcow2_abandon(img, ext);
	return r;
}

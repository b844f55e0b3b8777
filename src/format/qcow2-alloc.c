/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Host space for guest bytes. An L2 entry is in one of three states:
 *
 *   none    names no host bytes: a new cluster, and with extended L2 only the subclusters that are
 *           written need to be filled
 *   copy    names bytes that may not be written, compressed or shared with a snapshot: a new
 *           cluster, all of it
 *   own     names a cluster of its own that is not read (zero, or subclusters not in use), or the
 *           place in an external data file that is fixed: that cluster
 *
 * An extent never leaves a slice, so that link() is one write.
 */

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "format/qcow2.h"

enum qcow2_state { QCOW2_NONE, QCOW2_COPY, QCOW2_OWN };

static enum qcow2_state qcow2_alloc_state(const struct qcow2 *q, uint64_t entry)
{
	if (q->data_file)
		return QCOW2_OWN;
	if (entry & QCOW2_COMPRESSED)
		return QCOW2_COPY;
	if (!(entry & QCOW2_OFFSET))
		return QCOW2_NONE;
	return entry & QCOW2_COPIED ? QCOW2_OWN : QCOW2_COPY;
}

/* May the cluster after a run be a part of it? With extended L2 only what link() treats alike. */
static bool qcow2_alloc_joins(const struct qcow2 *q, enum qcow2_state first, uint64_t first_entry,
			      enum qcow2_state next, uint64_t next_entry, uint64_t n)
{
	if (first == QCOW2_OWN || next == QCOW2_OWN)
		return first == next && !q->extended_l2 &&
		       (q->data_file || (next_entry & QCOW2_OFFSET) ==
						(first_entry & QCOW2_OFFSET) + n * q->cluster_size);
	return first == next || !q->extended_l2;
}

/* Subclusters from `in` bytes of a cluster on that are not in use, at least one. */
static uint64_t qcow2_alloc_unused(const struct qcow2 *q, uint64_t bitmap, uint64_t in)
{
	unsigned first = (unsigned)(in >> q->subcluster_bits), last = first + 1;

	while (last < QCOW2_SUBCLUSTERS && !(bitmap >> last & 1))
		last++;
	return (uint64_t)(last - first) << q->subcluster_bits;
}

/* Counts the clusters from off on, at most n, that one extent can hold. */
static int qcow2_alloc_count(struct qcow2 *q, const uint64_t *entries, uint64_t off, uint64_t n,
			     uint64_t *ret)
{
	enum qcow2_state state = qcow2_alloc_state(q, entries[0]);
	uint64_t i;

	for (i = 0; i < n; i++) {
		uint64_t entry = entries[i * q->entry_words];
		uint64_t bitmap = q->extended_l2 ? entries[i * q->entry_words + 1] : 0;
		int r;

		if (i > 0 &&
		    !qcow2_alloc_joins(q, state, entries[0], qcow2_alloc_state(q, entry), entry, i))
			break;
		r = qcow2_check_entry(q, off + (i << q->cluster_bits), entry, bitmap);
		if (r < 0)
			return r;
	}
	*ret = i;
	return 0;
}

/* Sets what of ret follows from the tables: off, len, and for clusters of its own where they are.
 */
static int qcow2_alloc_plan(struct qcow2 *q, const uint64_t *entries, uint64_t most, uint64_t off,
			    uint64_t len, struct extent *ret)
{
	enum qcow2_state state = qcow2_alloc_state(q, entries[0]);
	uint64_t start = round_down(off, q->cluster_size);
	uint64_t wanted = ((off + len - 1) >> q->cluster_bits) - (off >> q->cluster_bits) + 1;
	uint64_t granule =
		state == QCOW2_COPY ? q->cluster_size : UINT64_C(1) << q->subcluster_bits;
	uint64_t n, end;
	int r = qcow2_alloc_count(q, entries, start, min_u64(most, wanted), &n);

	if (r < 0)
		return r;
	*ret = (struct extent){.kind = EXTENT_DATA, .store = q->img->data};
	ret->off = round_down(off, granule);
	end = min_u64(round_up(off + len, granule), start + (n << q->cluster_bits));
	ret->len = end - ret->off;
	if (state != QCOW2_OWN)
		return 0;
	ret->reused = true;
	ret->host_off = (q->data_file ? start : entries[0] & QCOW2_OFFSET) + (ret->off - start);
	if (q->extended_l2)
		ret->len = min_u64(ret->len, qcow2_alloc_unused(q, entries[1], ret->off - start));
	return 0;
}

/* -EAGAIN: the slice at *ret_missing is not in memory. There is a table: ensure() was called. */
static int qcow2_alloc_look(struct qcow2 *q, uint64_t off, uint64_t len, struct extent *ret,
			    uint64_t *ret_missing) REQUIRES_SHARED(q->map_lock)
{
	const uint64_t *words;
	size_t word;
	int r = qcow2_locate(q, off, ret_missing, &word);

	if (r < 0)
		return r;
	words = qcow2_cache_find(q, *ret_missing);
	if (!words)
		return -EAGAIN;
	return qcow2_alloc_plan(q, words + word,
				(UINT64_C(1) << q->slice_bits) - word / q->entry_words, off, len,
				ret);
}

/* Gives an extent host clusters out of the reservation, and cuts it to as many as there are. */
static int qcow2_alloc_take(struct qcow2 *q, struct extent *ret)
{
	uint64_t start = round_down(ret->off, q->cluster_size), end = ret->off + ret->len;
	struct qcow2_run run;
	int r = qcow2_reserve_take(q, div_round_up(end - start, q->cluster_size), &run);

	if (r < 0)
		return r;
	ret->len = min_u64(end, start + (run.n << q->cluster_bits)) - ret->off;
	ret->host_off = (run.first << q->cluster_bits) + (ret->off - start);
	ret->fresh = run.fresh;
	return 0;
}

/* True where the bytes are read and all of them are zero. */
static bool qcow2_alloc_reads_zero(const struct extent *ext)
{
	static const char zeroes[4096];
	char buf[sizeof(zeroes)];

	for (uint64_t done = 0; done < ext->len; done += sizeof(buf)) {
		size_t n = (size_t)min_u64(sizeof(buf), ext->len - done);

		if (store_read_full(ext->store, buf, n, ext->host_off + done) < 0 ||
		    memcmp(buf, zeroes, n) != 0)
			return false;
	}
	return true;
}

/*
 * Do host bytes that were named before read as zeroes, and will after a power cut? The host knows,
 * by its blocks; subclusters may be smaller than these, but then there is little to read. What was
 * so when the image was opened is so on stable storage (see open_write and keep), and since then
 * nobody wrote there without naming what he wrote, but for those who gave up.
 */
static bool qcow2_alloc_is_zero(const struct qcow2 *q, const struct extent *ext)
{
	uint64_t len;
	bool data;

	if (atomic_load_explicit(&q->gave_up, memory_order_relaxed))
		return false;
	/* An external data file of another program's may be short, and a power cut keeps it so */
	if (q->data_file && min_u64(ext->host_off + ext->len, q->img->size) > q->data_end)
		return false;
	if (store_map(ext->store, ext->host_off, ext->len, &data, &len) == 0 && !data &&
	    len >= ext->len)
		return true;
	return q->extended_l2 && ext->len < q->cluster_size && qcow2_alloc_reads_zero(ext);
}

int qcow2_alloc(struct image *img, uint64_t off, uint64_t len, struct extent *ret)
{
	struct qcow2 *q = qcow2_of(img);
	struct extent ext = {0};
	int r = qcow2_table_ensure(q, off);

	while (r == 0) {
		uint64_t missing = 0;

		rwlock_read(&q->map_lock);
		r = qcow2_alloc_look(q, off, len, &ext, &missing);
		rwlock_unread(&q->map_lock);
		if (r != -EAGAIN)
			break;
		r = qcow2_cache_load(q, missing);
	}
	if (r < 0)
		return r;
	if (ext.reused)
		ext.fresh = qcow2_alloc_is_zero(q, &ext);
	else
		r = qcow2_alloc_take(q, &ext);
	if (r == 0)
		*ret = ext;
	return r;
}

void qcow2_abandon(struct image *img, const struct extent *ext)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t first = ext->host_off >> q->cluster_bits;
	uint64_t last = (ext->host_off + ext->len - 1) >> q->cluster_bits;

	/* It may have been written: not fresh any more */
	if (ext->reused)
		atomic_store(&q->gave_up, true);
	else
		qcow2_reserve_give(q, &(struct qcow2_run){.first = first, .n = last - first + 1});
}

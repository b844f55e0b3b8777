/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Refcounts, a piece of a block at a time. Nothing is kept in memory: a batch of clusters is
 * claimed at once, so a piece is read and written rarely, and the host's page cache holds it.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

/* A part of a refcount block. */
struct qcow2_piece {
	uint64_t host_off;
	uint64_t first, n; /* clusters that it counts */
	uint8_t bytes[QCOW2_PIECE_BYTES];
};

uint64_t qcow2_refcount_get(const struct qcow2 *q, const uint8_t *bytes, uint64_t i)
{
	unsigned order = q->refcount_order, per_byte;

	switch (order) {
	case 6:
		return be64_get(bytes + i * 8);
	case 5:
		return be32_get(bytes + i * 4);
	case 4:
		return be16_get(bytes + i * 2);
	default:
		/* The first of a byte is in its lowest bits */
		per_byte = 8u >> order;
		return (unsigned)bytes[i / per_byte] >> (i % per_byte << order) &
		       ((1u << (1u << order)) - 1);
	}
}

void qcow2_refcount_put(const struct qcow2 *q, uint8_t *bytes, uint64_t i, uint64_t v)
{
	unsigned order = q->refcount_order, per_byte, shift, mask;

	switch (order) {
	case 6:
		be64_put(bytes + i * 8, v);
		break;
	case 5:
		be32_put(bytes + i * 4, (uint32_t)v);
		break;
	case 4:
		be16_put(bytes + i * 2, (uint16_t)v);
		break;
	default:
		per_byte = 8u >> order;
		shift = (unsigned)(i % per_byte) << order;
		mask = ((1u << (1u << order)) - 1) << shift;
		bytes[i / per_byte] =
			(uint8_t)((bytes[i / per_byte] & ~mask) | ((unsigned)v << shift));
	}
}

/* The piece that counts a cluster. There is a block for it. */
static int qcow2_piece_read(struct qcow2 *q, uint64_t cluster, struct qcow2_piece *p)
	REQUIRES(q->refcount_lock)
{
	unsigned bits = qcow2_piece_bits(q);
	uint64_t block = q->reftable[cluster >> qcow2_block_bits(q)];
	uint64_t in_block = cluster & ((UINT64_C(1) << qcow2_block_bits(q)) - 1);
	ssize_t n;

	p->first = cluster >> bits << bits;
	p->n = UINT64_C(1) << bits;
	p->host_off = block + (in_block >> bits) * q->slice_bytes;
	n = store_read(q->img->store, p->bytes, q->slice_bytes, p->host_off);
	if (n < 0)
		return (int)n;
	if ((size_t)n < q->slice_bytes)
		return image_damaged(q->img,
				     "%s: the file ends inside the refcount block at 0x%llx",
				     q->img->name, (ull)block);
	return 0;
}

/* The bytes that hold refcounts [i, i + n), of a block or a part of one. */
static void qcow2_refcount_bytes(const struct qcow2 *q, uint64_t i, uint64_t n, uint64_t *ret_from,
				 uint64_t *ret_to)
{
	*ret_from = (i << q->refcount_order) / 8;
	*ret_to = div_round_up((i + n) << q->refcount_order, 8);
}

static int qcow2_piece_write(struct qcow2 *q, const struct qcow2_piece *p, uint64_t i, uint64_t n)
{
	uint64_t from, to;

	qcow2_refcount_bytes(q, i, n, &from, &to);
	return store_write(q->img->store, p->bytes + from, to - from, p->host_off + from);
}

/* Refcounts of 0 in a row: at most `most`, at or behind i. n is 0 where there are none. */
static struct qcow2_run qcow2_piece_free(const struct qcow2 *q, const struct qcow2_piece *p,
					 uint64_t i, uint64_t most)
{
	struct qcow2_run run = {0};

	while (i < p->n && qcow2_refcount_get(q, p->bytes, i) != 0)
		i++;
	run.first = p->first + i;
	while (run.n < most && i + run.n < p->n && qcow2_refcount_get(q, p->bytes, i + run.n) == 0)
		run.n++;
	return run;
}

/* Makes the file long enough for the run, or the run short enough for the file. */
static int qcow2_refcount_extend(struct qcow2 *q, struct qcow2_run *run) REQUIRES(q->refcount_lock)
{
	uint64_t size;
	int r;

	if (run->first >= q->cluster_limit)
		return -ENOSPC;
	run->n = min_u64(run->n, q->cluster_limit - run->first);
	if (q->img->store->fixed)
		return 0;
	r = store_size(q->img->store, &size);
	/* The file is cut only under refcount_lock, and only behind what is handed out: nobody's
	 * write is cut off by it. It may grow at any time, by a write to its last cluster. */
	while (r == 0 && (run->first + run->n) << q->cluster_bits > size) {
		r = store_resize(q->img->store, (run->first + run->n) << q->cluster_bits);
		if (r != -ENOSPC || run->n == 1)
			break;
		run->n /= 2;
		r = 0;
	}
	return r;
}

static int qcow2_piece_raise(struct qcow2 *q, struct qcow2_piece *p, struct qcow2_run *run)
	REQUIRES(q->refcount_lock)
{
	int r = qcow2_reftable_check_free(q, run);

	if (r == 0)
		r = qcow2_refcount_extend(q, run);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < run->n; i++)
		qcow2_refcount_put(q, p->bytes, run->first - p->first + i, 1);
	r = qcow2_piece_write(q, p, run->first - p->first, run->n);
	if (r < 0)
		return r;
	run->fresh = run->first >= q->fresh_from;
	q->fresh_from = max_u64(q->fresh_from, run->first + run->n);
	return 0;
}

/* A block that counts the cluster. */
static int qcow2_refcount_need_block(struct qcow2 *q, uint64_t cluster, uint64_t most)
	REQUIRES(q->refcount_lock)
{
	uint64_t index = cluster >> qcow2_block_bits(q);
	int r = 0;

	while (r == 0 && index >= q->reftable_entries)
		r = qcow2_reftable_grow(q);
	if (r == 0 && !q->reftable[index]) {
		q->reftable_dirty = true;
		r = qcow2_reftable_add_blocks(q, index, most);
	}
	return r;
}

int qcow2_refcount_claim(struct qcow2 *q, uint64_t most, struct qcow2_run *ret)
{
	struct qcow2_piece p;

	if (q->reftable_lost)
		return -EIO;
	while (q->scan_from < q->cluster_limit) {
		uint64_t at = q->scan_from;
		struct qcow2_run run;
		int r = qcow2_refcount_need_block(q, at, most);

		if (r == 0 && q->scan_from != at)
			continue; /* the old refcount table became free */
		if (r == 0)
			r = qcow2_piece_read(q, at, &p);
		if (r < 0)
			return r;
		run = qcow2_piece_free(q, &p, at - p.first, most);
		q->scan_from = run.first;
		if (run.n == 0)
			continue;
		r = qcow2_piece_raise(q, &p, &run);
		if (r < 0)
			return r;
		q->scan_from = run.first + run.n;
		*ret = run;
		return 0;
	}
	return -ENOSPC;
}

/* A file is as long as its last durable byte asks for. */
static int qcow2_refcount_harden_size(struct qcow2 *q, const struct qcow2_run *run)
	REQUIRES(q->refcount_lock)
{
	uint64_t end = (run->first + run->n) << q->cluster_bits;
	int r;

	if (end <= q->durable_end)
		return 0;
	/* Nobody has the cluster yet, and it reads as zeroes */
	r = store_write_durable(q->img->store, "", 1, end - 1);
	if (r == 0)
		q->durable_end = end;
	return r;
}

/* Writes refcounts once more, all of one block at once, and durably. */
static int qcow2_refcount_harden_block(struct qcow2 *q, uint64_t first, uint64_t n)
	REQUIRES(q->refcount_lock)
{
	uint64_t block = q->reftable[first >> qcow2_block_bits(q)];
	_cleanup_free_ uint8_t *bytes = NULL;
	uint64_t from, to;
	int r;

	qcow2_refcount_bytes(q, first & ((UINT64_C(1) << qcow2_block_bits(q)) - 1), n, &from, &to);
	bytes = malloc(to - from);
	if (!bytes)
		return -ENOMEM;
	r = store_read_full(q->img->store, bytes, to - from, block + from);
	return r < 0 ? r : store_write_durable(q->img->store, bytes, to - from, block + from);
}

int qcow2_refcount_harden(struct qcow2 *q, const struct qcow2_run *run)
{
	uint64_t end = run->first + run->n, next;
	int r = qcow2_refcount_harden_size(q, run);

	for (uint64_t at = run->first; r == 0 && at < end; at = next) {
		next = min_u64(end, ((at >> qcow2_block_bits(q)) + 1) << qcow2_block_bits(q));
		r = qcow2_refcount_harden_block(q, at, next - at);
	}
	return r;
}

/* Lowers refcounts [i, i + n) of a piece; none goes below 0. */
static int qcow2_piece_lower(struct qcow2 *q, struct qcow2_piece *p, uint64_t i, uint64_t n)
	REQUIRES(q->refcount_lock)
{
	int r = 0;

	for (uint64_t k = i; k < i + n; k++) {
		uint64_t v = qcow2_refcount_get(q, p->bytes, k);

		if (v == 0)
			r = image_damaged(q->img,
					  "%s: the cluster at 0x%llx was in use with a refcount "
					  "of 0",
					  q->img->name, (ull)((p->first + k) << q->cluster_bits));
		else
			qcow2_refcount_put(q, p->bytes, k, v - 1);
		if (v == 1) {
			q->scan_from = min_u64(q->scan_from, p->first + k);
			q->fresh_from = max_u64(q->fresh_from, p->first + k + 1);
		}
	}
	return r < 0 ? r : qcow2_piece_write(q, p, i, n);
}

/* Gives the host what became free of [i, i + n), where it takes it back. */
static void qcow2_piece_discard(struct qcow2 *q, const struct qcow2_piece *p, uint64_t i,
				uint64_t n) REQUIRES(q->refcount_lock)
{
	struct qcow2_run run;

	if (!q->img->discard)
		return;
	for (uint64_t at = i; at < i + n; at = run.first - p->first + run.n) {
		run = qcow2_piece_free(q, p, at, i + n - at);
		if (run.n == 0 || run.first >= p->first + i + n)
			break;
		run.n = min_u64(run.n, p->first + i + n - run.first);
		store_discard(q->img->store, run.first << q->cluster_bits,
			      run.n << q->cluster_bits);
	}
}

int qcow2_refcount_lower(struct qcow2 *q, const struct qcow2_run *run)
{
	uint64_t end = run->first + run->n;
	struct qcow2_piece p;
	int error = 0;

	for (uint64_t at = run->first; at < end; at = p.first + p.n) {
		uint64_t index = at >> qcow2_block_bits(q);
		int r;

		if (index >= q->reftable_entries || !q->reftable[index])
			return image_damaged(q->img,
					     "%s: the cluster at 0x%llx was in use and has no "
					     "refcount",
					     q->img->name, (ull)(at << q->cluster_bits));
		r = qcow2_piece_read(q, at, &p);
		if (r == 0)
			r = qcow2_piece_lower(q, &p, at - p.first,
					      min_u64(end, p.first + p.n) - at);
		if (r == 0)
			qcow2_piece_discard(q, &p, at - p.first, min_u64(end, p.first + p.n) - at);
		if (r < 0)
			error = r;
	}
	return error;
}

int qcow2_refcount_within(struct qcow2 *q, const struct qcow2_run *run, uint64_t min, uint64_t max)
{
	struct qcow2_piece p;

	for (uint64_t at = run->first; at < run->first + run->n; at = p.first + p.n) {
		uint64_t index = at >> qcow2_block_bits(q), end;
		int r;

		if (index >= q->reftable_entries || !q->reftable[index])
			return false;
		r = qcow2_piece_read(q, at, &p);
		if (r < 0)
			return r;
		end = min_u64(run->first + run->n, p.first + p.n);
		for (uint64_t i = at; i < end; i++) {
			uint64_t v = qcow2_refcount_get(q, p.bytes, i - p.first);

			if (v < min || v > max)
				return false;
		}
	}
	return true;
}

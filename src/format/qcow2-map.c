/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guest offset to host offset: L1 entry, L2 entry, and with extended L2 the bit of a subcluster.
 * The common case, a slice in memory, takes map_lock shared and writes no memory that others read.
 */

#include <errno.h>

#include "format/qcow2.h"

/* Pieces that one call joins at most: bounds the time under the lock. Who asks again and again
 * counts extent.entries. */
enum { QCOW2_MAP_PIECES = 65536 };

/* A position in the tables, good for guest bytes [begin, end). */
struct qcow2_cursor {
	uint64_t begin, end;
	const uint64_t *words; /* the slice; NULL: there is no table, all of this is the parent's */
	bool shared;	       /* a snapshot has the table too, so all that it names */
};

bool qcow2_beyond_end(struct qcow2 *q, uint64_t host_off)
{
	uint64_t end = atomic_load_explicit(&q->store_end, memory_order_relaxed);

	if (host_off < end)
		return false;
	/* A host that does not say is not a damaged image; who reads there will see */
	if (store_size(q->img->store, &end) < 0)
		return false;
	atomic_store_explicit(&q->store_end, end, memory_order_relaxed);
	return host_off >= end;
}

int qcow2_locate(struct qcow2 *q, uint64_t off, uint64_t *ret_slice, size_t *ret_word)
{
	uint64_t l1 = q->l1[off >> qcow2_table_bits(q)], table = l1 & QCOW2_OFFSET;
	uint64_t entry = (off >> q->cluster_bits) & ((UINT64_C(1) << q->l2_bits) - 1);

	if ((l1 & QCOW2_L1_RESERVED) || (table & (q->cluster_size - 1)))
		return image_damaged(q->img, "%s: the L1 entry of guest offset 0x%llx is 0x%llx",
				     q->img->name, (ull)off, (ull)l1);
	*ret_slice = table ? table + (entry >> q->slice_bits) * q->slice_bytes : 0;
	*ret_word = (size_t)(entry & ((UINT64_C(1) << q->slice_bits) - 1)) * q->entry_words;
	return 0;
}

void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *ret_off, uint64_t *ret_len)
{
	unsigned sector_bits = q->cluster_bits - 8, off_bits = 62 - sector_bits;
	uint64_t off = entry & ((UINT64_C(1) << off_bits) - 1);
	uint64_t sectors = ((entry >> off_bits) & ((UINT64_C(1) << sector_bits) - 1)) + 1;

	*ret_off = off;
	*ret_len = sectors * 512 - (off & 511);
}

static int qcow2_bad_entry(struct qcow2 *q, uint64_t off, uint64_t entry, const char *why)
{
	return image_damaged(q->img, "%s: the L2 entry of guest offset 0x%llx is 0x%llx: %s",
			     q->img->name, (ull)round_down(off, q->cluster_size), (ull)entry, why);
}

static int qcow2_check_packed(struct qcow2 *q, uint64_t off, uint64_t entry)
{
	uint64_t host_off, host_len;

	if (q->data_file)
		return qcow2_bad_entry(q, off, entry, "compressed in an external data file");
	qcow2_packed_range(q, entry, &host_off, &host_len);
	if (host_off < q->cluster_size)
		return qcow2_bad_entry(q, off, entry, "compressed data inside the header");
	if (qcow2_beyond_end(q, host_off))
		return qcow2_bad_entry(q, off, entry, "compressed data outside the file");
	return 0;
}

/* A host offset that is not 0. */
static int qcow2_check_host(struct qcow2 *q, uint64_t off, uint64_t entry, bool data)
{
	uint64_t host_off = entry & QCOW2_OFFSET;

	if (host_off & (q->cluster_size - 1))
		return qcow2_bad_entry(q, off, entry, "not a cluster boundary");
	/* In an external data file every cluster stands at its guest offset */
	if (q->data_file)
		return host_off == round_down(off, q->cluster_size)
			       ? 0
			       : qcow2_bad_entry(q, off, entry, "moved inside the data file");
	if (host_off - q->l1_offset < q->l1_size * UINT64_C(8))
		return qcow2_bad_entry(q, off, entry, "inside the L1 table");
	if (data && qcow2_beyond_end(q, host_off))
		return qcow2_bad_entry(q, off, entry, "outside the file");
	return 0;
}

int qcow2_check_entry(struct qcow2 *q, uint64_t off, uint64_t entry, uint64_t bitmap)
{
	uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
	bool zero_flag = q->version >= 3 && !q->extended_l2 && (entry & QCOW2_ZERO);
	bool data = q->extended_l2 ? allocated != 0 : !zero_flag;
	bool no_host = !(entry & QCOW2_OFFSET);

	if (entry & QCOW2_COMPRESSED)
		return qcow2_check_packed(q, off, entry);
	if ((entry & QCOW2_L2_RESERVED) || (!zero_flag && (entry & QCOW2_ZERO)))
		return qcow2_bad_entry(q, off, entry, "reserved bits are set");
	if (allocated & zero)
		return qcow2_bad_entry(q, off, entry, "subclusters both allocated and zero");
	if (!no_host)
		return qcow2_check_host(q, off, entry, data);
	/* Host offset 0 is a cluster only in an external data file, and only with COPIED */
	if (q->data_file && (entry & QCOW2_COPIED))
		return qcow2_check_host(q, off, entry, data);
	if (entry & QCOW2_COPIED || allocated)
		return qcow2_bad_entry(q, off, entry, "data in the header");
	return 0;
}

/* -EAGAIN: the slice at *ret_missing is not in memory. */
static int qcow2_cursor_seek(struct qcow2 *q, struct qcow2_cursor *cur, uint64_t off,
			     uint64_t *ret_missing) REQUIRES_SHARED(q->map_lock)
{
	uint64_t slice;
	unsigned bits;
	size_t word;
	int r;

	if (off >= cur->begin && off < cur->end)
		return 0;
	r = qcow2_locate(q, off, &slice, &word);
	if (r < 0)
		return r;
	cur->words = slice ? qcow2_cache_find(q, slice) : NULL;
	if (slice && !cur->words) {
		*ret_missing = slice;
		return -EAGAIN;
	}
	bits = slice ? q->cluster_bits + q->slice_bits : qcow2_table_bits(q);
	cur->begin = round_down(off, UINT64_C(1) << bits);
	cur->end = cur->begin + (UINT64_C(1) << bits);
	cur->shared = !(q->l1[off >> qcow2_table_bits(q)] & QCOW2_COPIED);
	return 0;
}

/* How many bits of v are like its lowest, counted from there; at least 1. */
static unsigned qcow2_alike(uint32_t v)
{
	uint64_t differ = v & 1 ? ~(uint64_t)v : v | UINT64_C(1) << 32;

	return (unsigned)__builtin_ctzll(differ);
}

/* Kind of the subcluster at `in` bytes of the cluster; cuts *len where the kind may change. */
static enum extent_kind qcow2_subcluster_kind(const struct qcow2 *q, uint64_t bitmap, uint64_t in,
					      uint64_t *len)
{
	unsigned first = (unsigned)(in >> q->subcluster_bits), left = QCOW2_SUBCLUSTERS - first;
	uint32_t allocated = (uint32_t)bitmap >> first, zero = (uint32_t)(bitmap >> 32) >> first;
	unsigned a = qcow2_alike(allocated), z = qcow2_alike(zero);
	uint64_t n = min_u64(min_u64(a, z), left);

	*len = min_u64(*len, ((first + n) << q->subcluster_bits) - in);
	return allocated & 1 ? EXTENT_DATA : zero & 1 ? EXTENT_ZERO : EXTENT_PARENT;
}

static enum extent_kind qcow2_cluster_kind(const struct qcow2 *q, uint64_t entry)
{
	if (q->version >= 3 && (entry & QCOW2_ZERO))
		return EXTENT_ZERO;
	if (entry & QCOW2_OFFSET || (q->data_file && (entry & QCOW2_COPIED)))
		return EXTENT_DATA;
	return EXTENT_PARENT;
}

/* What the L2 entry at the cursor says of off, up to the end of its cluster. */
static int qcow2_map_entry(struct qcow2 *q, const struct qcow2_cursor *cur, uint64_t off,
			   uint64_t len, struct extent *ret)
{
	size_t word = (size_t)((off - cur->begin) >> q->cluster_bits) * q->entry_words;
	uint64_t entry = cur->words[word];
	uint64_t bitmap = q->extended_l2 ? cur->words[word + 1] : 0;
	uint64_t in = off & (q->cluster_size - 1);
	int r = qcow2_check_entry(q, off, entry, bitmap);

	if (r < 0)
		return r;
	*ret = (struct extent){.off = off, .len = min_u64(len, q->cluster_size - in)};
	if (entry & QCOW2_COMPRESSED) {
		ret->kind = EXTENT_PACKED;
		ret->off = off - in;
		ret->len = q->cluster_size;
		ret->store = q->img->store;
		qcow2_packed_range(q, entry, &ret->host_off, &ret->host_len);
		return 0;
	}
	ret->kind = q->extended_l2 ? qcow2_subcluster_kind(q, bitmap, in, &ret->len)
				   : qcow2_cluster_kind(q, entry);
	if (ret->kind == EXTENT_DATA) {
		ret->store = q->img->data;
		ret->host_off = (entry & QCOW2_OFFSET) + in;
		ret->shared = !q->data_file && (cur->shared || !(entry & QCOW2_COPIED));
	}
	return 0;
}

static int qcow2_map_piece(struct qcow2 *q, struct qcow2_cursor *cur, uint64_t off, uint64_t len,
			   struct extent *ret, uint64_t *ret_missing) REQUIRES_SHARED(q->map_lock)
{
	int r = qcow2_cursor_seek(q, cur, off, ret_missing);

	if (r < 0)
		return r;
	if (cur->words)
		return qcow2_map_entry(q, cur, off, len, ret);
	*ret = (struct extent){
		.kind = EXTENT_PARENT, .off = off, .len = min_u64(len, cur->end - off)};
	return 0;
}

static bool qcow2_map_joins(const struct extent *a, const struct extent *b)
{
	if (a->kind != b->kind || a->kind == EXTENT_PACKED)
		return false;
	return a->kind != EXTENT_DATA ||
	       (a->host_off + a->len == b->host_off && a->shared == b->shared);
}

static int qcow2_map_run(struct qcow2 *q, uint64_t off, uint64_t len, struct extent *ret,
			 uint64_t *ret_missing) REQUIRES_SHARED(q->map_lock)
{
	struct qcow2_cursor cur = {0};
	struct extent next;
	uint32_t entries = 1;
	int r = qcow2_map_piece(q, &cur, off, len, ret, ret_missing);

	for (; r == 0 && ret->len < len && entries < QCOW2_MAP_PIECES; entries++) {
		if (qcow2_map_piece(q, &cur, off + ret->len, len - ret->len, &next, ret_missing) <
			    0 ||
		    !qcow2_map_joins(ret, &next))
			break;
		ret->len += next.len;
	}
	if (r == 0)
		ret->entries = entries;
	return r;
}

int qcow2_map(struct image *img, uint64_t off, uint64_t len, unsigned flags, struct extent *ret)
{
	struct qcow2 *q = qcow2_of(img);

	for (;;) {
		uint64_t missing = 0;
		int r;

		rwlock_read(&q->map_lock);
		r = qcow2_map_run(q, off, len, ret, &missing);
		rwlock_unread(&q->map_lock);
		if (r != -EAGAIN || (flags & MAP_NOWAIT))
			return r;
		r = qcow2_cache_load(q, missing);
		if (r < 0)
			return r;
	}
}

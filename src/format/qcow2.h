/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_QCOW2_H
#define FUSEIMG_QCOW2_H

/*
 * The qcow2 driver's own state, private to qcow2*.c.
 *
 *   qcow2.c           the driver's entry in the table; open, close, info
 *   qcow2-header.c    the header and its extensions
 *   qcow2-cache.c     slices of L2 tables in memory
 *   qcow2-map.c       guest offset -> L1 -> L2 -> extent
 *   qcow2-unpack.c    deflate and zstd
 *   qcow2-refcount.c  refcount blocks: raise, lower, find what is free
 *   qcow2-reftable.c  the table of refcount blocks: load, new blocks, growth
 *   qcow2-reserve.c   host clusters whose refcount is raised ahead of their use
 *   qcow2-table.c     new and copied L2 tables
 *   qcow2-alloc.c     space for guest bytes
 *   qcow2-link.c      publishing it
 *   qcow2-free.c      what was replaced: flush, settle, finish
 *
 * Nothing here is written back later: whatever changes on disk is written when the function that
 * changes it returns, and memory is changed only after that write succeeded. So memory equals disk,
 * and the order of writes is the order of the code.
 *
 * Lock order, outermost first (io_lock is image/'s and stands above all of them):
 *
 *   table_lock      who changes L1 or L2 entries on disk. Never held across a flush.
 *   refcount_lock   refcount table and blocks, and the end of the file. Held across flushes.
 *   alloc_lock      the reservation and the lists of what is to be freed. No I/O under it.
 *   map_lock        L1 and cached slices in memory. Shared for a lookup, exclusive for a change or
 * an insertion, never held across I/O.
 *
 * table_lock and refcount_lock are never held together.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/checked.h"
#include "base/thread.h"
#include "format/format.h"
#include "format/qcow2-disk.h"

#define QCOW2_L1_BYTES_MAX MIB(32)
#define QCOW2_REFTABLE_BYTES_MAX MIB(8)
#define QCOW2_CACHE_BYTES MIB(8) /* L2 slices in memory, at most */

enum {
	QCOW2_CLUSTER_BITS_MIN = 9,
	QCOW2_CLUSTER_BITS_MAX = 21,
	QCOW2_EXTENDED_L2_CLUSTER_BITS_MIN = 14,
	QCOW2_REFCOUNT_ORDER_MAX = 6,
	QCOW2_SNAPSHOTS_MAX = 65536,
	QCOW2_BACKING_NAME_MAX = 1023,
	QCOW2_PIECE_BYTES = 4096, /* of a table that is read and written at once, or less */
	QCOW2_PIECE_WORDS = QCOW2_PIECE_BYTES / 8,
};

typedef unsigned long long ull; /* what %llx wants */

/* Host clusters in a row. */
struct qcow2_run {
	uint64_t first, n;
	bool fresh; /* never written: they read as zeroes */
};

/* A growing list of runs. */
struct qcow2_runs {
	struct qcow2_run *at;
	size_t n, room;
};

/*
 * Slices of L2 tables by their host offset, in numbers of this host. A hash table with chains in
 * slots[].next; the CLOCK hand looks for a slot not used since it last came by. Memory is touched
 * only as slots come into use.
 */
struct qcow2_slot {
	uint64_t host_off;    /* 0: empty */
	uint32_t next;	      /* of the same bucket, QCOW2_NO_SLOT at the end */
	_Atomic uint8_t used; /* set by lookups, only when clear, so that hits share the line */
};

#define QCOW2_NO_SLOT UINT32_MAX

struct qcow2_cache {
	uint32_t n_slots, n_buckets; /* n_buckets is a power of two */
	uint32_t hand;
	struct qcow2_slot *slots;
	uint32_t *buckets;
	uint64_t *words; /* n_slots slices */
};

/* Host clusters with a raised refcount that nothing names yet. */
struct qcow2_pool {
	struct qcow2_runs runs;
	uint64_t clusters;	  /* in runs */
	uint64_t batch;		  /* clusters of the next refill */
	bool refilling;		  /* a thread is at it */
	struct cond refilled;	  /* it is done, well or not */
	struct qcow2_runs tables; /* single clusters that are zero on stable storage */
};

struct qcow2 {
	/* Constant after open */
	struct image *img;
	unsigned version;
	unsigned cluster_bits;
	uint64_t cluster_size;
	unsigned subcluster_bits; /* without extended L2 a cluster is its only subcluster */
	bool extended_l2, data_file;
	unsigned entry_words; /* of an L2 entry: 2 with extended L2, else 1 */
	unsigned l2_bits;     /* log2 of entries in an L2 table */
	unsigned slice_bits;  /* log2 of entries in a slice */
	uint32_t slice_bytes;
	unsigned refcount_order;
	uint64_t incompatible, compatible;
	uint32_t header_length;
	enum qcow2_compression compression;
	uint64_t l1_offset;
	uint32_t l1_size;   /* entries on disk */
	uint32_t l1_needed; /* entries that the size asks for */
	uint32_t nb_snapshots;

	_Atomic uint64_t autoclear;
	_Atomic uint64_t store_end; /* size of img->store when somebody last looked */

	struct rwlock map_lock;
	uint64_t *l1 PT_GUARDED_BY(map_lock); /* l1_needed entries */
	struct qcow2_cache cache GUARDED_BY(map_lock);

	struct mutex table_lock;
	_Atomic uint64_t
		table_seq; /* odd while L2 entries on disk change; written under table_lock */

	struct mutex refcount_lock;
	uint64_t *reftable GUARDED_BY(refcount_lock); /* NULL until open_write */
	uint64_t reftable_offset GUARDED_BY(refcount_lock);
	uint64_t reftable_entries GUARDED_BY(refcount_lock);
	uint64_t scan_from GUARDED_BY(refcount_lock);  /* no cluster below is free */
	uint64_t fresh_from GUARDED_BY(refcount_lock); /* free clusters from here on are fresh */

	struct mutex alloc_lock;
	struct qcow2_pool pool GUARDED_BY(alloc_lock);
	struct qcow2_runs replaced GUARDED_BY(alloc_lock); /* since the last flush began */
	struct qcow2_runs settled GUARDED_BY(alloc_lock);  /* a flush came after: free when alone */
};

/* qcow2-header.c: fills q and what image/ wants to know of the header. */
int qcow2_header_read(struct image *img, struct qcow2 *q, struct diag *diag);
/* Clears the autoclear bits that we do not maintain; durable when it returns. */
int qcow2_header_clear_auto(struct image *img, struct diag *diag);

/* qcow2-cache.c */
int qcow2_cache_init(struct qcow2 *q);
void qcow2_cache_done(struct qcow2 *q);
/* The slice that begins at host_off, or NULL where it is not in memory. */
uint64_t *qcow2_cache_find(struct qcow2 *q, uint64_t host_off) REQUIRES_SHARED(q->map_lock);
/* Brings it in, after checking that a table may stand there. It may be gone again when the caller
 * looks: look in a loop. */
int qcow2_cache_load(struct qcow2 *q, uint64_t host_off) EXCLUDES(q->table_lock, q->map_lock);
int qcow2_cache_load_locked(struct qcow2 *q, uint64_t host_off) REQUIRES(q->table_lock)
	EXCLUDES(q->map_lock);
/* Forgets the slices of a table, whose cluster begins a new life. */
void qcow2_cache_drop_table(struct qcow2 *q, uint64_t table_off) REQUIRES(q->map_lock);

/* qcow2-map.c */
int qcow2_map(struct image *img, uint64_t off, uint64_t len, unsigned flags, struct extent *ret);
/* Where the L2 entry of a guest offset stands: the slice's place in the store (0: there is no
 * table), and the entry's first word in it. */
int qcow2_locate(struct qcow2 *q, uint64_t off, uint64_t *ret_slice, size_t *ret_word)
	REQUIRES_SHARED(q->map_lock);
/* 0, or -EUCLEAN with its sentence where the L2 entry of a guest offset cannot be. */
int qcow2_check_entry(struct qcow2 *q, uint64_t off, uint64_t entry, uint64_t bitmap);
/* True where nothing of the store stands at host_off. */
bool qcow2_beyond_end(struct qcow2 *q, uint64_t host_off);
/* Host bytes of a compressed cluster; the length is an upper bound in whole sectors. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *ret_off,
			uint64_t *ret_len);

/* qcow2-unpack.c */
int qcow2_unpack(struct image *img, const struct extent *ext, void *buf);

static inline struct qcow2 *qcow2_of(struct image *img)
{
	return img->driver;
}

/* Guest bytes that one L2 table stands for, as a power of two. */
static inline unsigned qcow2_table_bits(const struct qcow2 *q)
{
	return q->cluster_bits + q->l2_bits;
}

#endif

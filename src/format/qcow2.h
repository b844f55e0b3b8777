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
 *   qcow2-refcount.c  refcounts: raise, lower, find what is free
 *   qcow2-reftable.c  the table of refcount blocks: load, new blocks, growth
 *   qcow2-reserve.c   host clusters whose refcount is raised ahead of their use
 *   qcow2-spare.c     what is reserved outlives the process
 *   qcow2-table.c     new and copied L2 tables
 *   qcow2-alloc.c     space for guest bytes
 *   qcow2-link.c      publishing it
 *   qcow2-free.c      what was replaced: flush, settle, finish
 *   qcow2-unmap.c     zeroes and discards
 *   qcow2-resize.c    the size of the disk
 *   qcow2-l1.c        a larger L1 table
 *   qcow2-runs.c      lists of host clusters
 *   qcow2-records.c   lists of records in the file
 *   qcow2-snapshot.c  internal snapshots: list them, read one
 *   qcow2-bitmap.c    persistent bitmaps: list them, say that they are out of date
 *   qcow2-check*.c    check and repair (qcow2-check.h)
 *
 * Nothing here is written back later: whatever changes on disk is written when the function that
 * changes it returns, and memory is changed only after that write succeeded. So memory equals disk,
 * and the order of writes is the order of the code.
 *
 * Lock order, outermost first (io_lock is image/'s and stands above all of them):
 *
 *   table_lock      who changes L1 or L2 entries on disk. Never held across a flush.
 *   refcount_lock   refcount table and blocks, and the end of the file. Held across flushes.
 *   alloc_lock      the reservation, and the lists of what was replaced. No I/O under it.
 *   map_lock        L1 and cached slices in memory. Shared for a lookup, exclusive for a change or
 *                   an insertion, never held across I/O.
 *
 * Of the first three only one is held at a time.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/checked.h"
#include "base/thread.h"
#include "format/format.h"
#include "format/qcow2-disk.h"

#define QCOW2_L1_BYTES_MAX MIB(32)
#define QCOW2_REFTABLE_BYTES_MAX MIB(8)
#define QCOW2_SNAPSHOT_TABLE_MAX MIB(64)
#define QCOW2_BITMAP_DIRECTORY_MAX MIB(64)

enum {
	QCOW2_CLUSTER_BITS_MIN = 9,
	QCOW2_CLUSTER_BITS_MAX = 21,
	QCOW2_EXTENDED_L2_CLUSTER_BITS_MIN = 14,
	QCOW2_REFCOUNT_ORDER_MAX = 6,
	QCOW2_SNAPSHOTS_MAX = 65536,
	QCOW2_SNAPSHOT_EXTRA_MAX = 1024, /* bytes of an entry's extra data; QEMU's limit */
	QCOW2_BACKING_NAME_MAX = 1023,
	QCOW2_PIECE_BYTES = 4096, /* of a table that is read and written at once, or less */
	QCOW2_PIECE_WORDS = QCOW2_PIECE_BYTES / 8,
};

typedef unsigned long long ull; /* what %llx wants */

/* Host clusters in a row. */
struct qcow2_run {
	uint64_t first, n;
	bool fresh; /* they read as zeroes */
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

/* Bitmaps that were marked as in use, and what their flags were. */
struct qcow2_bitmap_mark {
	uint64_t at; /* of the directory entry */
	uint32_t flags;
};

struct qcow2_bitmap_marks {
	struct qcow2_bitmap_mark *at;
	size_t n;
};

/* Host clusters with a raised refcount that nothing names yet. */
struct qcow2_pool {
	struct qcow2_runs runs;
	uint64_t clusters;    /* in runs */
	uint64_t batch;	      /* clusters of the last refill */
	time_t filled;	      /* when it began, by the monotonic clock */
	bool refilling;	      /* a thread is at it */
	bool used;	      /* since qcow2_idle() looked */
	struct cond refilled; /* it is done, well or not */
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
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;

	/* Changed only by who is alone (resize) */
	uint64_t l1_offset;
	uint32_t l1_size;   /* entries on disk */
	uint32_t l1_needed; /* entries that the size asks for */

	_Atomic uint64_t autoclear;
	_Atomic uint64_t store_end; /* size of img->store when somebody last looked */

	_Atomic bool gave_up; /* a write into unused bytes of clusters in use was abandoned */
	bool l1_lost; /* two L1 tables, and no telling which is read. Only with io_lock alone */
	uint64_t data_end; /* the external data file is this long after a power cut, or longer.
			      Changed only with io_lock alone */
	bool end_sealed;   /* behind the end its cluster holds zeroes. Only with io_lock alone */
	struct qcow2_bitmap_marks marks; /* since open_write. Only with io_lock alone */

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
	uint64_t durable_end GUARDED_BY(refcount_lock); /* a power cut leaves the file this long */
	bool reftable_dirty
		GUARDED_BY(refcount_lock);	      /* it names blocks that a flush must follow */
	uint64_t scan_from GUARDED_BY(refcount_lock); /* no cluster below is free */
	uint64_t fresh_from GUARDED_BY(refcount_lock); /* free clusters from here on are fresh */
	uint64_t cluster_limit; /* no cluster at or above can be had. Constant after open_write */
	bool reftable_lost GUARDED_BY(refcount_lock); /* two tables, and no telling which is read */

	uint64_t batch_min, batch_max; /* clusters to reserve at once. Constant after open_write */
	struct mutex alloc_lock;
	struct qcow2_pool pool GUARDED_BY(alloc_lock);
	struct format_spare *spare GUARDED_BY(alloc_lock); /* says what is in the pool; or NULL */
	uint64_t dev, ino;				   /* with spare */
	/* A cluster stands here once for every reference that is gone */
	struct qcow2_runs replaced GUARDED_BY(alloc_lock); /* since the last flush began */
	struct qcow2_runs settled GUARDED_BY(alloc_lock); /* a flush came after: lower when alone */
	uint64_t waiting GUARDED_BY(alloc_lock);	  /* clusters in these, or between them */
};

/* qcow2-header.c: fills q and what image/ wants to know of the header. */
int qcow2_header_read(struct image *img, struct qcow2 *q, struct diag *diag);
/* A table that the header names, or a snapshot: aligned, not in the first cluster, inside what can
 * be addressed. */
int qcow2_header_table(struct image *img, struct qcow2 *q, const char *what, uint64_t off,
		       uint64_t bytes, struct diag *diag);
/* Sets the disk's size and the entries of its L1 table, which must be enough for it. */
int qcow2_header_size(struct image *img, struct qcow2 *q, uint64_t size, uint32_t l1_size,
		      struct diag *diag);
/* The first len bytes of a header extension: 1, or 0 where there is none. Reads the header again.
 */
int qcow2_header_extension(struct image *img, uint32_t type, void *buf, size_t len,
			   struct diag *diag);
/* Clears the autoclear bits but for those in `kept`; durable when it returns. */
int qcow2_header_clear_auto(struct image *img, uint64_t kept, struct diag *diag);

/* qcow2-cache.c */
int qcow2_cache_init(struct qcow2 *q);
void qcow2_cache_done(struct qcow2 *q);
/* Makes it larger where the disk became much larger. Out of memory it stays as it is. */
void qcow2_cache_grow(struct qcow2 *q) EXCLUDES(q->map_lock);
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

/* qcow2-refcount.c */
/*
 * Raises the refcount of the first free clusters in a row, at most `most` of them. The file is long
 * enough for them then. Not durable before the next flush. -ENOSPC: there are none, or the host has
 * no room for them.
 */
int qcow2_refcount_claim(struct qcow2 *q, uint64_t most, struct qcow2_run *ret)
	REQUIRES(q->refcount_lock);
/* Makes the refcounts of a claimed run of zeroes, and a file that is long enough for it, durable.
 * Not the blocks that hold them: see reftable_dirty. */
int qcow2_refcount_harden(struct qcow2 *q, const struct qcow2_run *run) REQUIRES(q->refcount_lock);
/* One reference to each is gone. Goes on behind an error: what is not lowered is leaked. */
int qcow2_refcount_lower(struct qcow2 *q, const struct qcow2_run *run) REQUIRES(q->refcount_lock);
/* True where each has a refcount of min to max; -EUCLEAN or -EIO where that cannot be read. */
int qcow2_refcount_within(struct qcow2 *q, const struct qcow2_run *run, uint64_t min, uint64_t max)
	REQUIRES(q->refcount_lock);
/* Refcount i of a block, or of a part of one. */
uint64_t qcow2_refcount_get(const struct qcow2 *q, const uint8_t *bytes, uint64_t i);
void qcow2_refcount_put(const struct qcow2 *q, uint8_t *bytes, uint64_t i, uint64_t v);

/* qcow2-reftable.c */
int qcow2_reftable_load(struct qcow2 *q, struct diag *diag) EXCLUDES(q->refcount_lock);
/* Refcount blocks for clusters from that of table entry `index` on, enough for `clusters` of them
 * or fewer. Durable but for the entries that name them. */
int qcow2_reftable_add_blocks(struct qcow2 *q, uint64_t index, uint64_t clusters)
	REQUIRES(q->refcount_lock);
/* n clusters in a row, however few of them a block counts: behind all that is counted so far, and
 * behind the blocks for themselves. Durable when it returns. */
int qcow2_reftable_claim_row(struct qcow2 *q, uint64_t n, struct qcow2_run *ret)
	REQUIRES(q->refcount_lock);
/* A larger table. Durable when it returns. */
int qcow2_reftable_grow(struct qcow2 *q) REQUIRES(q->refcount_lock);
/* Which of the tables in use a run touches, or NULL. */
const char *qcow2_reftable_meets(struct qcow2 *q, const struct qcow2_run *run)
	REQUIRES(q->refcount_lock);
/* -EUCLEAN where the tables in use stand in clusters that claim to be free. */
int qcow2_reftable_check_free(struct qcow2 *q, const struct qcow2_run *run)
	REQUIRES(q->refcount_lock);

/* qcow2-reserve.c */
/* 1 to n clusters in a row, whose refcounts of 1 are on stable storage. */
int qcow2_reserve_take(struct qcow2 *q, uint64_t n, struct qcow2_run *ret)
	EXCLUDES(q->alloc_lock, q->refcount_lock);
void qcow2_reserve_give(struct qcow2 *q, const struct qcow2_run *run) EXCLUDES(q->alloc_lock);
/* One cluster that is all zeroes on stable storage. */
int qcow2_reserve_take_zeroed(struct qcow2 *q, uint64_t *ret_cluster)
	EXCLUDES(q->alloc_lock, q->refcount_lock);
/* Lowers all that is reserved, cuts the file where that was at its end, and flushes. */
int qcow2_reserve_end(struct qcow2 *q) EXCLUDES(q->alloc_lock, q->refcount_lock);
/* True where something is reserved that nobody has taken from since the last call. */
bool qcow2_reserve_unused(struct qcow2 *q) EXCLUDES(q->alloc_lock);

/* qcow2-spare.c */
void qcow2_keep(struct image *img, struct format_spare *spare);
/* The pool has changed. Nobody has used what was taken from it. */
void qcow2_spare_note(struct qcow2 *q) REQUIRES(q->alloc_lock);

/* qcow2-table.c: an L2 table of its own for the guest offset. */
int qcow2_table_ensure(struct qcow2 *q, uint64_t off) EXCLUDES(q->table_lock);

/* qcow2-alloc.c */
int qcow2_alloc(struct image *img, uint64_t off, uint64_t len, struct extent *ret);
void qcow2_abandon(struct image *img, const struct extent *ext);

/* qcow2-link.c */
int qcow2_link(struct image *img, const struct extent *ext);
/* A change of entries: words [word, word + n_words) of the slice at `slice`. */
struct qcow2_change {
	uint64_t slice;
	size_t word, n_words;
	uint64_t words[QCOW2_PIECE_WORDS]; /* the old ones, then the new ones */
};
/* Copies the entries from guest offset off on out of their slice. */
int qcow2_change_begin(struct qcow2 *q, uint64_t off, size_t n_words, struct qcow2_change *c)
	REQUIRES(q->table_lock);
/* Writes them, to the disk and then to the slice in memory. Where the host has no room that changes
 * nothing: -EIO if it came after a part of them. */
int qcow2_change_write(struct qcow2 *q, const struct qcow2_change *c) REQUIRES(q->table_lock);
/* The slice in memory alone. */
void qcow2_change_remember(struct qcow2 *q, const struct qcow2_change *c) REQUIRES(q->table_lock);
/* What an entry names: clusters that lose a reference when it goes. n is 0 for none. */
struct qcow2_run qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry);
/* True where a failed write surely did not reach the entries. */
bool qcow2_link_untouched(int error);

/* qcow2-free.c */
/* Guest bytes that one step may free, at most. */
#define QCOW2_FREE_STEP MIB(16)
/* These clusters lost a reference by entries that were just written. */
void qcow2_free_later(struct qcow2 *q, const struct qcow2_runs *runs) EXCLUDES(q->alloc_lock);
int qcow2_flush(struct image *img);
void qcow2_settle(struct image *img);
int qcow2_idle(struct image *img);
int qcow2_finish(struct image *img);

/* qcow2-unmap.c */
int qcow2_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
		uint64_t *ret_done);
struct qcow2_unmap {
	uint64_t off, end; /* guest bytes, whole subclusters, where the L1 table reaches */
	bool keep;	   /* host clusters of its own */
	bool bare;	   /* nobody will read what the entries say: behind the end */
	bool changed;	   /* an entry was written */
};
/* Does at least one entry, at most a table, and moves off. 1 where zeroes must be written. */
int qcow2_unmap_piece(struct qcow2 *q, struct qcow2_unmap *u) EXCLUDES(q->table_lock);

/* qcow2-resize.c */
int qcow2_resize(struct image *img, uint64_t size, struct diag *diag);

/* qcow2-l1.c: room for so many entries, on disk and in memory. The caller is alone. */
int qcow2_l1_extend(struct qcow2 *q, uint32_t needed, struct diag *diag);
/* Writes size and L1 table of the header, which stand in one sector. */
int qcow2_l1_publish(struct qcow2 *q, uint64_t size, uint64_t l1_offset, uint32_t l1_size);

/* qcow2-records.c */
/* A list in the file of records of any length, each beginning at a multiple of 8. */
struct qcow2_records {
	struct image *img;
	const char *what; /* "snapshot table" */
	uint64_t at, end;
	struct diag *diag;
};
/* The list of snapshots, which states its end nowhere: that of the file, or what is bearable. */
int qcow2_records_snapshots(const struct qcow2 *q, struct qcow2_records *ret, struct diag *diag);
/* The next record begins. */
void qcow2_records_align(struct qcow2_records *list);
/* The next len bytes into buf (NULL: nowhere). -EUCLEAN where the list ends before. */
int qcow2_records_take(struct qcow2_records *list, void *buf, size_t len);
/* The same as a string of its own. */
int qcow2_records_take_string(struct qcow2_records *list, size_t len, char **ret);

/* qcow2-snapshot.c */
int qcow2_snapshots(struct image *img, format_snapshot_fn *fn, void *data, struct diag *diag);
/* Puts the snapshot that img->snapshot names in the place of the active layer: L1 table and size.
 * Between reading the header and reading the L1 table. */
int qcow2_snapshot_choose(struct qcow2 *q, struct diag *diag);

/* qcow2-bitmap.c */
int qcow2_bitmaps(struct image *img, format_bitmap_fn *fn, void *data, struct diag *diag);
/* The directory of bitmaps. */
struct qcow2_bitmap_list {
	uint64_t off, bytes;
	uint32_t n;
};
/* Where it is: 1, or 0 where there are no bitmaps. */
int qcow2_bitmap_directory(struct image *img, struct qcow2_bitmap_list *ret, struct diag *diag);
struct qcow2_bitmap {
	unsigned number; /* from 0 */
	uint64_t at;	 /* of the entry */
	struct qcow2_disk_bitmap head;
	char *name;
};
/* What is not 0 ends the walk, which returns it. */
typedef int qcow2_bitmap_fn(void *data, const struct qcow2_bitmap *b);
/* Every entry of the directory. -EUCLEAN where it is cut off. */
int qcow2_bitmap_each(struct image *img, const struct qcow2_bitmap_list *bitmaps,
		      qcow2_bitmap_fn *fn, void *data, struct diag *diag);
/* -EUCLEAN where it cannot be right: QEMU opens no image that has such a one. */
int qcow2_bitmap_verify(const struct image *img, const struct qcow2_bitmap *b, struct diag *diag);
/* True where a write to the disk makes it wrong. */
bool qcow2_bitmap_follows(const struct qcow2_bitmap *b);
enum qcow2_bitmap_which { QCOW2_BITMAPS_FOLLOWING, QCOW2_BITMAPS_ALL };
/* Marks bitmaps as in use, durably, and remembers those of FOLLOWING: 1, or 0 where there are none.
 * -EUCLEAN or -EFBIG where they are damaged; nothing was written then. The caller is alone. */
int qcow2_bitmaps_mark(struct qcow2 *q, enum qcow2_bitmap_which which, struct diag *diag);
/* Takes the remembered marks away: the disk is as it was. Not durable before the next flush. */
int qcow2_bitmaps_unmark(struct qcow2 *q);

/* qcow2-check.c */
int qcow2_check(struct image *img, struct check *check, struct diag *diag);
/* For an image that was not closed cleanly (dirty bit), before anybody writes to it: counts
 * references anew. -EUCLEAN where that is not all that is wrong with it. */
int qcow2_check_repair_dirty(struct image *img, struct diag *diag);

/* qcow2-runs.c */
int qcow2_runs_room(struct qcow2_runs *runs, size_t more);
/* Appends, or makes the last run longer. -ENOMEM never comes where there was room. */
int qcow2_runs_add(struct qcow2_runs *runs, const struct qcow2_run *run);
/* For qsort(3): by the first cluster. */
int qcow2_run_compare(const void *a, const void *b);
/* Puts a run where it continues another, else appends it. */
int qcow2_runs_merge(struct qcow2_runs *runs, const struct qcow2_run *run);
void qcow2_runs_done(struct qcow2_runs *runs);

static inline struct qcow2 *qcow2_of(struct image *img)
{
	return img->driver;
}

/* Guest bytes that one L2 table stands for, as a power of two. */
static inline unsigned qcow2_table_bits(const struct qcow2 *q)
{
	return q->cluster_bits + q->l2_bits;
}

/* log2 of the clusters that a refcount block counts. */
static inline unsigned qcow2_block_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->refcount_order;
}

/* The same for a piece of one. */
static inline unsigned qcow2_piece_bits(const struct qcow2 *q)
{
	return (unsigned)__builtin_ctz(q->slice_bytes) + 3 - q->refcount_order;
}

#endif

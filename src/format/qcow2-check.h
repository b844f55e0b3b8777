/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_QCOW2_CHECK_H
#define FUSEIMG_QCOW2_CHECK_H

/*
 * Check and repair, private to qcow2-check*.c.
 *
 *   qcow2-check.c          the order of it all; findings, progress, the header's marks
 *   qcow2-check-zones.c    which host clusters hold metadata
 *   qcow2-check-tables.c   the tables that the header names: refcounts, L1
 *   qcow2-check-named.c    snapshots and bitmaps
 *   qcow2-check-walk.c     every L2 entry
 *   qcow2-check-count.c    references, a window of host clusters at a time, against refcounts
 *   qcow2-check-flags.c    COPIED
 *   qcow2-check-rebuild.c  new refcount table and blocks
 *   qcow2-check-patch.c   what repair overwrites is saved first
 *
 * Two steps. First all that can be said of an entry without counting: is it well formed, inside the
 * file, and not on top of metadata? Repair drops what is not. Then references are counted for as
 * many host clusters as fit into the counters, by a walk through all tables for each such window,
 * and are compared with the refcounts.
 *
 * Bounds: an L2 table is read once per walk however many L1 entries name it (its entries then count
 * that often), and holes of the file are not read at all. So the time is bounded by what the file
 * really holds, and the memory by the counters and by a zone for each table.
 */

#include "format/qcow2.h"

#define QCOW2_CHECK_CLUSTERS_MAX (UINT64_C(1) << 31)   /* of the file */
#define QCOW2_CHECK_ZONES_MAX ((size_t)6 << 20)	       /* tables */
#define QCOW2_CHECK_L1_ENTRIES_MAX (UINT64_C(1) << 28) /* of all L1 tables together */
#define QCOW2_BITMAPS_MAX 65535
#define QCOW2_BITMAP_TABLE_MAX (UINT64_C(1) << 27) /* entries of all bitmaps together */

enum qcow2_zone_kind {
	QCOW2_ZONE_HEADER,
	QCOW2_ZONE_L1,
	QCOW2_ZONE_SNAPSHOTS,
	QCOW2_ZONE_SNAPSHOT_L1,
	QCOW2_ZONE_BITMAPS,
	QCOW2_ZONE_L2,
	QCOW2_ZONE_REFTABLE,
	QCOW2_ZONE_BLOCK,
};

/* Host clusters that hold metadata. */
struct qcow2_zone {
	uint64_t first;
	uint32_t n;
	uint32_t refs;	/* L2: how many L1 entries name it. Else 1 */
	uint32_t index; /* L2: of an L1 entry that names it, in the active table where active */
	enum qcow2_zone_kind kind;
	bool active; /* L2: the active L1 table names it */
	bool bad;    /* L2: something else stands there, so it is not walked */
};

/* Sorted by `first` after qcow2_zones_sort(). */
struct qcow2_zones {
	struct qcow2_zone *at;
	size_t n, room, sorted; /* the first `sorted` have no doubles any more */
	uint64_t gap, gap_end;	/* no zone has clusters [gap, gap_end): data is seldom alone */
};

struct qcow2_check_l1 {
	uint64_t off;
	uint32_t size; /* entries */
	bool active;
};

struct qcow2_patch {
	uint64_t off;
	size_t len;
	uint8_t bytes[QCOW2_PIECE_BYTES];
};

enum { QCOW2_PATCHES_MAX = 256 };

struct qcow2_check {
	struct qcow2 *q;
	struct check *check;
	struct diag *diag;
	struct qcow2_disk_header header;

	enum check_repair repair; /* of this pass */
	bool quiet;		  /* findings are counted, not told */
	uint64_t leaks, corruptions;
	uint64_t unsound;  /* corruptions that are not of refcounts: references may be missing */
	bool tables_sound; /* nothing is wrong with the tables that the header and L1 tables name */
	bool blind;	   /* ... are missing: something that names clusters was not read */
	bool rebuild;	   /* the refcounts' own structures are broken */
	bool drop_bitmaps; /* the bitmaps are broken: without them all is well */
	bool dropped;	   /* entries were, in any pass: the disk reads otherwise */
	bool kept_leaks;
	bool written; /* to the image, since the last flush */

	uint64_t clusters; /* of the file, the last one perhaps in part */
	struct qcow2_zones zones;
	uint64_t n_tables; /* zones that are L2 */
	struct qcow2_check_l1 *l1s;
	size_t n_l1s;
	uint64_t *reftable; /* offsets, 0 for what cannot be one */
	uint64_t reftable_entries;
	uint64_t fragment_next; /* where the next cluster of the L2 table would stand */

	/* The window: counters for clusters [first, first + n). References, then refcounts. */
	uint32_t *counts;
	uint64_t first, n, room;
	uint8_t *touched; /* for each window: something is counted in it */
	uint64_t n_windows;
	uint64_t end; /* first cluster behind all that are in use */

	struct qcow2_patch *patches; /* QCOW2_PATCHES_MAX; not written yet */
	size_t n_patches;
	uint64_t done, work; /* for progress, in tables */
};

/* qcow2-check.c */
enum qcow2_finding {
	QCOW2_LEAK,
	QCOW2_MISCOUNT, /* refcounts and flags */
	QCOW2_UNSOUND,	/* entries that cannot be right */
};
void qcow2_found(struct qcow2_check *c, enum qcow2_finding what, uint64_t n, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* So many tables were walked. */
void qcow2_check_progress(struct qcow2_check *c, uint64_t tables);
/* All bytes of the range are a hole of the file. */
bool qcow2_check_hole(struct qcow2_check *c, uint64_t off, uint64_t len);
/* A table may stand there: cluster-aligned, inside the file, not the header. */
bool qcow2_check_place(const struct qcow2_check *c, uint64_t off, uint64_t bytes);

/* qcow2-check-zones.c */
int qcow2_zones_add(struct qcow2_check *c, const struct qcow2_zone *zone);
/* For bytes that qcow2_check_place() has accepted. */
int qcow2_zones_add_bytes(struct qcow2_check *c, enum qcow2_zone_kind kind, uint64_t off,
			  uint64_t bytes);
void qcow2_zones_sort(struct qcow2_zones *zones);
/* The zone that holds a cluster, or NULL. */
struct qcow2_zone *qcow2_zones_find(struct qcow2_zones *zones, uint64_t cluster);
/* Finds zones on top of each other; marks L2 tables bad, and refcounts for rebuilding. */
void qcow2_zones_overlaps(struct qcow2_check *c);
/* True where a zone has to make room for data (or an L2 table) on top of it, or nobody can say. */
bool qcow2_zone_yields(struct qcow2_check *c, const struct qcow2_zone *zone);
const char *qcow2_zone_name(enum qcow2_zone_kind kind);
static inline bool qcow2_zone_refcounts(enum qcow2_zone_kind kind)
{
	return kind == QCOW2_ZONE_REFTABLE || kind == QCOW2_ZONE_BLOCK;
}

/* qcow2-check-tables.c: fills zones, reftable and l1s. */
int qcow2_check_tables(struct qcow2_check *c);
/* Calls fn for every entry of an L1 table, which may change it: 1, else 0 or an error. */
typedef int qcow2_l1_fn(struct qcow2_check *c, const struct qcow2_check_l1 *l1, uint32_t index,
			uint64_t *entry);
int qcow2_check_each_l1(struct qcow2_check *c, const struct qcow2_check_l1 *l1, qcow2_l1_fn *fn);

/* qcow2-check-named.c */
int qcow2_check_snapshots(struct qcow2_check *c);
int qcow2_check_bitmaps(struct qcow2_check *c);
/* What the disk reads as has changed: says so of the bitmaps that follow it. */
int qcow2_check_outdate_bitmaps(struct qcow2_check *c);

/* qcow2-check-walk.c */
/* Calls fn for every L2 entry that is not empty; e has q->entry_words words in this host's order.
 * It may change them: 1, else 0 or an error. */
typedef int qcow2_entry_fn(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
			   uint64_t *e);
int qcow2_check_walk(struct qcow2_check *c, bool active_only, qcow2_entry_fn *fn);
/* Every entry by itself: findings, repair, figures; which windows have references. */
int qcow2_check_entries(struct qcow2_check *c);
/* Makes a copy of an entry into what repair would make of it. */
void qcow2_entry_mend(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
		      uint64_t *e);
/* The host clusters that a mended entry names. n is 0 for none. */
struct qcow2_run qcow2_entry_names(const struct qcow2 *q, const uint64_t *e);

/* qcow2-check-count.c */
/* Counts the references to the window that begins at a cluster. */
int qcow2_count_window(struct qcow2_check *c, uint64_t first);
/* Counts, compares and repairs all windows. */
int qcow2_check_counts(struct qcow2_check *c);
/* The largest refcount that there can be. */
uint64_t qcow2_refcount_most(const struct qcow2 *q);

/* qcow2-check-flags.c: COPIED of what stands in the window, whose counters are refcounts. */
int qcow2_check_flags(struct qcow2_check *c);

/* qcow2-check-rebuild.c: behind the end of what is in use; the header names them when it returns.
 */
int qcow2_check_rebuild(struct qcow2_check *c);

/* qcow2-check-patch.c */
/* Bytes to be written, at most a piece. Nothing reads them back before they are. */
int qcow2_patch_add(struct qcow2_check *c, const void *bytes, size_t len, uint64_t off);
/* Saves what they replace, then writes them. */
int qcow2_patches_apply(struct qcow2_check *c);
/* The same, and on stable storage. */
int qcow2_patches_flush(struct qcow2_check *c);

#endif

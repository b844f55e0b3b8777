/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FORMAT_H
#define FUSEIMG_FORMAT_H

/*
 * What a format driver is.
 *
 * A driver answers one question: where are these guest bytes? It never moves guest bytes; image/
 * alone reads, copies and writes them. A driver owns the tables of its format, on disk and in
 * memory, and their locks.
 *
 * Trust: image/ checks every argument before it calls (ranges lie inside the image, len > 0,
 * the image is writable where that matters), so a driver does not check again. The bytes of the
 * image are trusted by nobody: every number taken from them goes through checked.h and a named
 * limit, and every inconsistency is -EUCLEAN with a sentence, never an assertion.
 *
 * Locking: image/ holds its io_lock shared around map, unpack, alloc, link, abandon and flush, so
 * any number of these run at once and the driver must lock its own tables; it holds io_lock
 * exclusively around unmap (but see unmap_shared), resize, settle and finish: then nobody else is
 * in the driver, no write is in flight, and host bytes may be freed or moved. Around open,
 * open_write, keep, check and close it holds nothing: nobody else has the image. image/ also
 * promises that two allocations in flight never touch the same allocation unit.
 *
 * Errors (negative errno): -EUCLEAN the image is corrupt, -EOPNOTSUPP a known feature that we lack,
 * -EMEDIUMTYPE not this format, -ENOENT and -ENOTUNIQ no snapshot of this name, or more than one,
 * -EFBIG a declared size is over a named limit, -EROFS, -ENOSPC, -EIO from the host.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "store/store.h"

struct image;
struct image_core; /* image/'s part: locks, allocations in flight, backing image */

enum extent_kind {
	EXTENT_ZERO,   /* reads as zeroes, no host bytes are asked */
	EXTENT_DATA,   /* stands unchanged at host_off of store */
	EXTENT_PACKED, /* compressed: one allocation unit, to be had from unpack() */
	EXTENT_PARENT, /* not in this file: ask the backing image, or zeroes where there is none */
};

/* A run of guest bytes of one kind, and where it stands. */
struct extent {
	enum extent_kind kind;
	bool shared;	     /* DATA: a snapshot names these host bytes too: never write in place */
	bool fresh;	     /* from alloc(): the host bytes read as zeroes already */
	bool reused;	     /* from alloc(): these host bytes were the disk's before. Who has not
				written there may forget it: no link(), no abandon() */
	uint64_t off, len;   /* guest bytes */
	struct store *store; /* DATA, PACKED: where the bytes are */
	uint64_t host_off;   /* DATA, PACKED */
	uint64_t host_len;   /* PACKED: upper bound of the compressed bytes at host_off */
	uint32_t entries;    /* from map(): of tables, that it had to look at */
};

/* A signature; a format matches when any of its magics does. len 0 ends the list. */
struct magic {
	uint64_t off;
	uint8_t len;
	uint8_t bytes[8];
};

enum map_flags {
	/* Answer -EAGAIN rather than read a table from the host: for callers that may not block. */
	MAP_NOWAIT = 1 << 0,
};

enum unmap_how {
	UNMAP_DISCARD, /* reads as zeroes afterwards; give host space back where possible */
	UNMAP_ZERO,    /* reads as zeroes afterwards; keep host space where possible */
};

/* Figures for people and scripts (fuseimg info); filled by format->info on top of zeroes. */
#define FORMAT_INFO_MAX 24
struct format_info_item {
	const char *key; /* snake_case, static */
	char value[128];
};
struct format_info {
	size_t n;
	struct format_info_item items[FORMAT_INFO_MAX];
};
/* Appends an item; silently full. */
void format_info_add(struct format_info *info, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* What check() may change. Each does what those above it do. */
enum check_repair {
	CHECK_ONLY,	     /* nothing */
	CHECK_REPAIR_LEAKS,  /* gives back host space that nothing names */
	CHECK_REPAIR_COUNTS, /* raises what is counted too low; loses nothing */
	CHECK_REPAIR_ALL,    /* drops entries that cannot be right, too */
};

/*
 * A walk through the tables of an image. The caller sets the first block; the rest is zero and is
 * filled by check(). Callbacks may be NULL.
 */
struct check {
	enum check_repair repair;
	uint64_t memory; /* for counters, bytes; 0: CHECK_MEMORY. Less takes more time */
	void *data;	 /* the caller's */
	/* Something was found, n times; text says what, in one sentence. leak: host space that
	 * nothing names, which is all that is wrong with it; else the image is corrupt. */
	void (*found)(struct check *check, bool leak, uint64_t n, const char *text);
	/* Called often; total may change on the way. */
	void (*progress)(struct check *check, uint64_t done, uint64_t total);
	/* Metadata is about to be overwritten: these bytes stand at off now. Several calls, then
	 * one of save_flush(), which returns when they are on stable storage. An error stops the
	 * repair before the image is touched. */
	int (*save)(struct check *check, const void *bytes, size_t len, uint64_t off);
	int (*save_flush)(struct check *check);

	/* What is wrong now, and what was but is no more */
	uint64_t leaks, corruptions;
	uint64_t leaks_fixed, corruptions_fixed;
	bool kept_leaks; /* leaks were left alone, since damaged tables may name them */
	bool marked_dirty, marked_corrupt; /* the image itself says so (still) */
	const char *format;		   /* by image_check() */
	uint32_t unit;			   /* allocation unit, likewise */
	/* Allocation units: of the disk, in this file, of those not behind their neighbour, packed
	 */
	uint64_t total, allocated, fragmented, packed;
	uint64_t end; /* host bytes up to here are in use */
};

#define FORMAT_TABLE_CACHE (UINT64_C(8) << 20)
#define CHECK_MEMORY (UINT64_C(64) << 20)

/* What stands in an image beside its disk. The strings are the image's (any bytes), and are good
 * only during the call that shows them. */
struct format_snapshot {
	const char *id, *name;
	uint32_t date_sec, date_nsec; /* since 1970 */
	uint64_t vm_clock_nsec;	      /* how long the machine had been running */
	uint64_t vm_state_size;	      /* bytes of its memory and devices; 0: only the disk */
	bool has_size;		      /* the disk's size is stated */
	uint64_t size;
};

struct format_bitmap {
	const char *name;
	uint64_t granularity; /* bytes that one bit stands for */
	bool automatic;	      /* it follows every write */
	bool in_use;	      /* was not closed in order: its content means nothing */
};

/* Called for each; what is not 0 ends the walk, which returns it. */
typedef int format_snapshot_fn(void *data, const struct format_snapshot *s);
typedef int format_bitmap_fn(void *data, const struct format_bitmap *b);

/*
 * Host space that a driver has set aside for later use, in memory that outlives its process: who
 * comes after a process that was killed takes it over. All zero when new. It belongs to the driver;
 * `valid` is 0 while it is changed, so a process that dies in between leaves nothing.
 */
enum { FORMAT_SPARE_RUNS = 120 };
struct format_spare {
	_Atomic uint32_t valid;
	uint32_t n;
	uint64_t dev, ino; /* of the file */
	uint64_t sum;	   /* over all but itself and valid */
	struct format_spare_run {
		uint64_t first, n;
		uint64_t fresh;
	} runs[FORMAT_SPARE_RUNS];
};

struct format {
	const char *name;
	const char *description;
	struct magic magics[4];
	bool read_only; /* images are refused for writing, by image/ */

	/*
	 * Always there: open, close, map.
	 *
	 * open() reads the header, checks all that needs no walk through the tables, and sets the
	 * fields of struct image that are its to set. It opens no other file: it only names them.
	 * It must not write. On failure it leaves nothing behind (close is not called).
	 */
	int (*open)(struct image *img, struct diag *diag);
	/*
	 * Called once, when the first write is near (from image_open of a writable image, after
	 * backing and data files were opened): refuse what may be read but not written, clear
	 * autoclear bits, load what allocation needs. NULL: nothing to do.
	 */
	int (*open_write)(struct image *img, struct diag *diag);
	/* Frees the driver's memory. Writes nothing (see finish); the last flush was image/'s. */
	void (*close)(struct image *img);

	/*
	 * The longest run of one kind that starts at off, at most len bytes; moves no guest bytes.
	 * ret->off == off, 0 < ret->len <= len, but for PACKED: there ret is the whole unit, which
	 * contains off. DATA runs are contiguous on the host. flags: enum map_flags.
	 */
	int (*map)(struct image *img, uint64_t off, uint64_t len, unsigned flags,
		   struct extent *ret);

	/* The bytes of a PACKED extent into buf (ret->len of the extent, at most img->unit). */
	int (*unpack)(struct image *img, const struct extent *ext, void *buf);

	/*
	 * Writing into what is not DATA, or is shared. All of the next four or none.
	 *
	 * alloc(): host space for guest bytes that contain off, and as many of the len bytes behind
	 * it as fit in one host run. ret is widened to the granularity that link() can publish, so
	 * ret->off <= off and the end may lie past off + len (never past the end of the image
	 * rounded up to img->unit). No table names the space yet; until link() readers see the old
	 * mapping. The store reaches behind the space: what is mapped and lies a whole unit or more
	 * past the end was cut off by somebody. image/ fills all of ret's host bytes before link
	 * (but for zeroes where ret->fresh, and what lies behind the disk's end in another store
	 * than the image's own) and hands it back to link() or abandon() unchanged.
	 * -ENOSPC where the host is full or the format is.
	 */
	int (*alloc)(struct image *img, uint64_t off, uint64_t len, struct extent *ret);
	/* Publishes an extent from alloc(), after its bytes were written; frees what it replaces.
	 * When it returns the entries have been handed to the host. On failure the old mapping
	 * stands, and the space is the driver's again (no abandon). */
	int (*link)(struct image *img, const struct extent *ext);
	/* Takes back space from alloc() that will not be published. */
	void (*abandon)(struct image *img, const struct extent *ext);

	/*
	 * Zeroes and discards. May do less than len: 0 and the bytes done in *ret_done, or 1 where
	 * the tables cannot say it (a part of a unit, say): then zeroes must be written to the
	 * first *ret_done bytes, which is image/'s to do. NULL: -EOPNOTSUPP.
	 */
	int (*unmap)(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
		     uint64_t *ret_done);
	/* unmap() changes no tables: it is called as map() is, with io_lock held shared. */
	bool unmap_shared;
	/*
	 * Sets img->size. New bytes read as zeroes, whatever the host or the backing image have
	 * there, and after a power cut too: it leaves the old size or the new one. Before a disk
	 * grows, image/ sees to it that its last byte is DATA of its own, or reads as zero together
	 * with the rest of the unit. NULL: -EOPNOTSUPP.
	 */
	int (*resize)(struct image *img, uint64_t size, struct diag *diag);
	/*
	 * All that was acknowledged is on stable storage: every table write was issued, then the
	 * stores are flushed. NULL: store and data are flushed.
	 */
	int (*flush)(struct image *img);
	/*
	 * Host bytes that link() replaced may still be read by those who mapped them before, and a
	 * power cut may bring their old table entries back until a flush came after. The driver
	 * keeps them aside, and sets img->settle_wanted once a flush has made their end durable.
	 * image/ looks at that flag after every flush() and link() (one relaxed load); when it is
	 * set, it takes io_lock exclusively and calls this, which clears the flag and makes the
	 * bytes free for reuse. Nothing depends on how soon. NULL: never asked for.
	 *
	 * What waits for that is leaked when the process is killed. While there is more than the
	 * driver wants to answer for it sets img->crowded, and image/ flushes and settles before
	 * another request may add to it.
	 */
	void (*settle)(struct image *img);
	/*
	 * Nothing much has happened for some seconds: gives unused reservations back, and flushes
	 * if there were any. Called with io_lock shared, again and again; the driver knows what it
	 * did since the last call. NULL: nothing to do.
	 */
	int (*idle)(struct image *img);
	/*
	 * Takes over what the driver of a process that was killed has noted in `spare`, and notes
	 * there what is set aside from now on, until finish(). Called once, after open_write() and
	 * before the first write; the memory outlives the image. See `again`. NULL: nothing to
	 * note.
	 */
	void (*keep)(struct image *img, struct format_spare *spare);
	/* Orderly end of a writable image, before close: gives unused reservations back, flushes.
	 * NULL: flush. */
	int (*finish)(struct image *img);

	void (*info)(struct image *img, struct format_info *info);

	/*
	 * The internal snapshots and persistent bitmaps, in the order of the file. What has been
	 * shown before damage is met stays shown. NULL: the format knows none, and an image whose
	 * `snapshot` is set is not opened.
	 */
	int (*snapshots)(struct image *img, format_snapshot_fn *fn, void *data, struct diag *diag);
	int (*bitmaps)(struct image *img, format_bitmap_fn *fn, void *data, struct diag *diag);

	/*
	 * Looks for what is wrong with the tables, and repairs it as check->repair allows. Between
	 * open() and close() of an image of its own: read_only (open_write was not called), alone,
	 * img->data not opened. To repair, the store is writable. Writes are ordered such that a
	 * power cut at any moment leaves nothing worse than it was. 0: the check ran to its end,
	 * whatever it found; else it could not, and what it counted so far means nothing. NULL:
	 * there is nothing to check.
	 */
	int (*check)(struct image *img, struct check *check, struct diag *diag);
};

/*
 * One file of a chain as its driver sees it. image/ sets the first block before open(); open()
 * sets the second, image/ the third before open_write(); nothing changes afterwards but size (under
 * io_lock, exclusively).
 */
struct image {
	const struct format *format;
	struct store *store; /* the image file. Owned by image/ */
	const char *name;    /* store->name, for sentences */
	bool read_only;
	/* The internal snapshot that is the disk, by id or else by name; NULL: the active layer.
	 * Only with read_only. Good only during open(). */
	const char *snapshot;
	uint64_t table_cache; /* bytes of tables kept in memory, at most; 0: FORMAT_TABLE_CACHE */
	/* A process that had it open was killed: the driver's flush at opening is keep()'s to do,
	 * which surely follows. By then a failure is remembered, and it is no reason to refuse. */
	bool again;

	uint64_t size;	    /* guest bytes, at most INT64_MAX */
	uint32_t unit;	    /* allocation unit (cluster), a power of two of 512 or more; 1: none */
	bool padded;	    /* DATA may lie past the end of a store and then reads as zeroes */
	char *backing_name; /* as the image names it; NULL: none. Owned by the image */
	char *backing_format;	    /* NULL: not stated */
	char *data_name;	    /* external data file; NULL: none */
	void *driver;		    /* the driver's own state */
	_Atomic bool settle_wanted; /* see settle(); set by the driver at any time */
	_Atomic bool crowded;	    /* likewise; cleared by the driver's settle() */
	/* After a failed write the tables on disk may say otherwise than map() does. So what must
	 * be zero is written, though it seems to be. Set by the driver at any time */
	_Atomic bool unsure;
	_Atomic bool written; /* set by image/ when the disk may change, and before it does */
	/* The first sentence about damage that map, unpack, alloc or link met, or NULL. Set once by
	 * image_damaged(), freed by image/ after close(). */
	_Atomic(char *) damage;

	struct store *data;   /* where DATA stands: store, or the external data file. By image/ */
	uint64_t parent_size; /* bytes of the backing image: behind them PARENT reads as zeroes */
	bool discard;	      /* host space that becomes free is given back to the host */
	struct image_core *core;
};

/* All drivers, probed in this order; NULL ends the list. raw is last and has no magic. */
extern const struct format *const formats[];

/*
 * Damage met while the image is in use, where there is no diag to fill: remembers the first such
 * sentence (see format.h's rules on diag) in img->damage. Returns -EUCLEAN.
 */
int image_damaged(struct image *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const struct format *format_by_name(const char *name);

/*
 * The format whose magic stands in the store, or NULL when none does (the image may then be raw,
 * which is nobody's to guess). -EIO and friends when the store cannot be read.
 */
int format_probe(struct store *store, const struct format **ret);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_IMAGE_H
#define FUSEIMG_IMAGE_H

/*
 * An image is a disk: a flat array of guest bytes that a chain of files makes up, each read by its
 * format driver. This is the only layer that moves guest bytes.
 *
 * Every function but open and close may be called by any number of threads at once. Returns are 0
 * or negative errno (see format/format.h for the vocabulary). Ranges must lie inside the image:
 * what a short read or a write past the end means is the caller's protocol, not ours (-EINVAL).
 *
 * Durability: image_write() returns when data and the tables that name it were handed to the host
 * kernel; image_flush() when all that returned before it was called is on stable storage.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/diag.h"
#include "format/format.h"
#include "store/store.h"

enum {
	IMAGE_CHAIN_MAX = 32, /* files in a backing chain, the image itself included */
};

enum image_role {
	IMAGE_ROLE_TOP,
	IMAGE_ROLE_BACKING, /* opened for reading only */
	IMAGE_ROLE_DATA,    /* a qcow2's external data file */
};

/*
 * Who opens the files that an image names. The image layer has no access to paths of its own: in
 * the worker this asks the supervisor, on the command line it opens by the same policy.
 *
 * parent is the name of the store that holds the file name (NULL for the top image, which is then
 * called by name alone). On success *ret is a store whose name is what a person would call
 * the file; it is the caller's. On failure diag says which file and why.
 */
struct image_opener {
	int (*open)(struct image_opener *opener, const char *parent, enum image_role role,
		    const char *name, bool writable, struct store **ret, struct diag *diag);
};

struct image_options {
	const char *format; /* NULL or "auto": by magic */
	bool read_only;
	const char *snapshot; /* id or name of an internal snapshot of the top image, which is then
				 the disk; with read_only. NULL: the disk as it is now */
	bool discard;	      /* image_discard() gives host space back; else it only zeroes */
	uint64_t table_cache; /* bytes of each file's tables in memory; 0: FORMAT_TABLE_CACHE */
	bool again; /* after a process that was killed: image_keep() follows. Only then is flushed
		       what that one wrote, since whoever hears that it failed must note it */
	const char *settings; /* for sentences: the file that all this comes from, NULL: -o */
	struct image_opener *opener; /* NULL: images that name other files are refused */
};

/*
 * Opens the image in a store, and the files it names. Takes over the store, also on failure.
 * Writable images must state "raw" to be opened as raw: a disk whose content a guest chose must not
 * be able to turn itself into a qcow2 (or back). Read-only, what has no magic is raw. Errors:
 * -EMEDIUMTYPE unknown format, -ELOOP the chain has a cycle or is deeper than IMAGE_CHAIN_MAX, and
 * those of the driver and the opener.
 */
int image_open(struct store *store, const struct image_options *options, struct image **ret,
	       struct diag *diag);

/*
 * Orderly end: waits for nobody (the caller has stopped all users), gives reservations back,
 * flushes, closes, frees. Takes NULL. The image is gone also when an error is returned; the error
 * then means that something of what was written may not be on stable storage.
 */
int image_close(struct image *img);

/* Bytes of the guest's disk. */
uint64_t image_size(struct image *img);
/*
 * The sentence that goes with the first -EUCLEAN (-EIO) that reading or writing met in this chain,
 * or NULL. It stays as it is until image_close().
 */
const char *image_damage(struct image *img);
/* The files of the chain: NULL behind the last. */
struct image *image_backing(struct image *img);

int image_read(struct image *img, void *buf, size_t len, uint64_t off);
int image_write(struct image *img, const void *buf, size_t len, uint64_t off);
int image_flush(struct image *img);
/* To be called every few seconds: what was set aside for writes, and was not used since the last
 * call, is given back. */
int image_idle(struct image *img);
/* What who comes after a process that was killed must know of its image. Zero at first; the memory
 * outlives the image. */
struct image_kept {
	struct format_spare spare; /* see format->keep() */
	atomic_int lost[2];	   /* see store_keep(): of the image file, of its data file */
};
/* Once, before the first write: goes on from what stands there, and notes there what comes. */
void image_keep(struct image *img, struct image_kept *kept);
/* Reads as zeroes afterwards, always; gives host space back with options.discard. */
int image_discard(struct image *img, uint64_t off, uint64_t len);
/* Reads as zeroes afterwards. */
int image_zero(struct image *img, uint64_t off, uint64_t len);
/* Host space stands behind the range afterwards, its content is unchanged. */
int image_allocate(struct image *img, uint64_t off, uint64_t len);
/* New bytes read as zeroes. */
int image_resize(struct image *img, uint64_t size, struct diag *diag);

/* Where guest bytes stand, seen through the whole chain. */
struct image_extent {
	uint64_t off, len;
	bool zero;	/* reads as zeroes, no host bytes are asked */
	bool packed;	/* compressed */
	bool mapped;	/* !zero && !packed: stands unchanged at host_off of store */
	bool present;	/* this file or one below says what is here; false: nobody does, so zero */
	unsigned depth; /* 0: the image itself, 1: its backing image, ... */
	struct store *store; /* mapped */
	uint64_t host_off;   /* mapped */
};

/* A run at off, at most len bytes, that is alike; as long as possible, but for runs of very many
 * extents. Holes of the host's files are zero. */
int image_map(struct image *img, uint64_t off, uint64_t len, struct image_extent *ret);

/* lseek(2)'s SEEK_DATA (data true) and SEEK_HOLE, as if the disk ended at end (or where it does):
 * the offset in *ret, or -ENXIO. Where the search would take very long, what was not looked at
 * counts as data, as lseek(2) allows. */
int image_seek(struct image *img, uint64_t off, uint64_t end, bool data, uint64_t *ret);

/* Bytes of the range that do not read as zeroes for want of data. Of many extents only the first
 * are looked at, and of damaged tables what stands before the damage; the rest counts as data. */
int image_allocated(struct image *img, uint64_t off, uint64_t len, uint64_t *ret);

/* Size, allocation (of the image's own files, not of its backing chain), times. block: img->unit or
 * 4096. */
int image_stat(struct image *img, struct store_stat *ret);

/*
 * Checks the tables of the image in a store (of this one file, not of its chain), and repairs them
 * as check->repair allows: see struct check. The store stays the caller's, who makes sure that
 * nobody else writes to it, and to repair that nobody else reads. format: NULL or "auto": by magic.
 * 0: the check ran to its end, whatever it found. -EOPNOTSUPP: this format has nothing to check.
 */
int image_check(struct store *store, const char *format, struct check *check, struct diag *diag);

#endif

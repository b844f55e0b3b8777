/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CORE_H
#define FUSEIMG_CORE_H

/*
 * What image/ keeps of one file of a chain, private to this folder.
 *
 * Lock order, outermost first: io_lock of an image, inflight (waited for, and held as a range),
 * then the driver's own locks; below an image come the same locks of its backing image. io_lock is
 * shared by every request and exclusive for what frees or moves host bytes; while it is held
 * shared, a mapping that a driver gave out stays readable.
 */

#include <stdatomic.h>

#include "base/thread.h"
#include "image/barrier.h"
#include "image/image.h"
#include "image/inflight.h"
#include "image/unpack.h"

struct image_core {
	struct rwlock io_lock;
	struct inflight inflight; /* first writes under way, in allocation units */
	struct barrier barrier;	  /* bytes before the entry that publishes them */
	struct mutex room_lock;	  /* outside io_lock: one who flushes where it is crowded */
	struct unpack_cache unpack;
	struct image *backing; /* NULL: none. Constant after open */
	_Atomic uint64_t size; /* published copy of img->size, for image_size() */
	_Atomic int64_t mtime; /* of the disk, see image_hold_mtime(); 0: that of the files */
};

/* The format that is called so, or -EMEDIUMTYPE. */
int image_format_named(const char *name, const struct store *store, const struct format **ret,
		       struct diag *diag);
/* Frees what a driver's open() and use have put into it. */
void image_free_names(struct image *img);

/* The parts of reading that a writer needs while it holds io_lock already. */
int image_read_locked(struct image *img, void *buf, size_t len, uint64_t off)
	REQUIRES_SHARED(img->core->io_lock);

/* -EINVAL where [off, off + len) leaves the image, -EROFS where it may not change. */
int image_check_range(struct image *img, uint64_t off, uint64_t len)
	REQUIRES_SHARED(img->core->io_lock);
int image_check_write(struct image *img, uint64_t off, uint64_t len)
	REQUIRES_SHARED(img->core->io_lock);

/* Allocates and publishes what is not the image's own yet in the range, contents unchanged; writes
 * buf (at off) into it unless that is NULL. Does at least one extent, *ret_done bytes from off. */
int image_write_new(struct image *img, const void *buf, uint64_t len, uint64_t off,
		    uint64_t *ret_done) REQUIRES_SHARED(img->core->io_lock);

/* image_write() for who holds io_lock already. */
int image_write_locked(struct image *img, const void *buf, size_t len, uint64_t off)
	REQUIRES_SHARED(img->core->io_lock);

/*
 * Tidying up changes the files of an image and not the disk, whose time of change stays as it was:
 * image_idle() holds it before, and gives it up behind where nothing was done. What is held is good
 * until the disk changes.
 */
void image_hold_mtime(struct image *img);
void image_give_mtime(struct image *img);
/* The disk has changed, or may have. */
static inline void image_changed(struct image *img)
{
	if (atomic_load_explicit(&img->core->mtime, memory_order_relaxed))
		atomic_store(&img->core->mtime, 0);
}

/* Frees what was replaced, when the driver says that it is time: nobody reads it now. Where it is
 * crowded, waits until there is room; when that fails there will be none. */
void image_settle(struct image *img) EXCLUDES(img->core->io_lock);

/* True where an extent reads as zeroes whatever the host has. */
static inline bool image_reads_zero(const struct image *img, const struct extent *ext)
{
	return ext->kind == EXTENT_ZERO ||
	       (ext->kind == EXTENT_PARENT && ext->off >= img->parent_size);
}

/* True where the host bytes of an extent may be written in place. */
static inline bool image_owned(const struct extent *ext)
{
	return ext->kind == EXTENT_DATA && !ext->shared;
}

#endif

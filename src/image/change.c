/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Changes that are not writes: zeroes, discards, preallocation, the size. */

#include <errno.h>

#include "base/checked.h"
#include "image/core.h"

/* Source of zeroes; aligned so that O_DIRECT takes it as it is. */
static const _Alignas(4096) unsigned char change_zeroes[64 * 1024];

/* Where the host cannot give space back it writes zeroes: that is as long as one request may take,
 * and others may have to wait. */
#define CHANGE_UNMAP_STEP MIB(64)

static int change_unmap_locked(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
			       uint64_t *ret_done) REQUIRES_SHARED(img->core->io_lock)
{
	int r = image_check_write(img, off, len);

	return r < 0 ? r
		     : img->format->unmap(img, off, min_u64(len, CHANGE_UNMAP_STEP), how, ret_done);
}

/* Asks the driver, alone where it says so. 1: *ret_done bytes are to be written instead. */
static int change_unmap_step(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
			     uint64_t *ret_done)
{
	int r;

	if (img->format->unmap_shared) {
		rwlock_read(&img->core->io_lock);
		r = change_unmap_locked(img, off, len, how, ret_done);
		rwlock_unread(&img->core->io_lock);
	} else {
		rwlock_write(&img->core->io_lock);
		r = change_unmap_locked(img, off, len, how, ret_done);
		rwlock_unwrite(&img->core->io_lock);
	}
	return r;
}

/* Writes zeroes to the run of one kind at off, unless that reads as zeroes. */
static int change_write_run(struct image *img, uint64_t off, uint64_t len, uint64_t *ret_done)
	REQUIRES_SHARED(img->core->io_lock)
{
	struct extent ext;
	int r = image_check_write(img, off, len);

	if (r == 0)
		r = img->format->map(img, off, len, 0, &ext);
	if (r < 0)
		return r;
	*ret_done = min_u64(len, ext.off + ext.len - off);
	if (image_reads_zero(img, &ext) && !atomic_load(&img->unsure))
		return 0;
	*ret_done = min_u64(*ret_done, sizeof(change_zeroes));
	return image_write_locked(img, change_zeroes, *ret_done, off);
}

/*
 * Zeroes that the tables cannot say are written like any others, beside other requests: whoever
 * writes other bytes of the same unit at this moment waits in flight, or is waited for, so nothing
 * of his is lost.
 */
static int change_write_zeroes(struct image *img, uint64_t off, uint64_t len)
{
	int r = 0;

	while (r == 0 && len > 0) {
		uint64_t done = 0;

		rwlock_read(&img->core->io_lock);
		r = change_write_run(img, off, len, &done);
		rwlock_unread(&img->core->io_lock);
		off += done;
		len -= done;
	}
	return r;
}

/* The lock is given up between the pieces, so that a large discard does not stop everybody, and
 * what it frees does not pile up. */
static int change_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how)
{
	int r = 0;

	if (!img->format->unmap)
		return -EOPNOTSUPP;
	while (r == 0 && len > 0) {
		uint64_t done = 0;

		r = change_unmap_step(img, off, len, how, &done);
		assert(r < 0 || (done > 0 && done <= len));
		if (r > 0)
			r = change_write_zeroes(img, off, done);
		off += done;
		len -= done;
		image_changed(img);
		image_settle(img);
	}
	return r;
}

int image_discard(struct image *img, uint64_t off, uint64_t len)
{
	return change_unmap(img, off, len, img->discard ? UNMAP_DISCARD : UNMAP_ZERO);
}

int image_zero(struct image *img, uint64_t off, uint64_t len)
{
	return change_unmap(img, off, len, UNMAP_ZERO);
}

/* Host space for the run of one kind at off. */
static int change_allocate_run(struct image *img, uint64_t off, uint64_t len, uint64_t *ret_done)
	REQUIRES_SHARED(img->core->io_lock)
{
	struct extent ext;
	int r = img->format->map(img, off, len, 0, &ext);

	if (r < 0)
		return r;
	len = min_u64(len, ext.off + ext.len - off);
	if (!image_owned(&ext))
		return image_write_new(img, NULL, len, off, ret_done);
	*ret_done = len;
	return store_allocate(ext.store, ext.host_off + (off - ext.off), len);
}

int image_allocate(struct image *img, uint64_t off, uint64_t len)
{
	int r;

	rwlock_read(&img->core->io_lock);
	r = image_check_write(img, off, len);
	while (r == 0 && len > 0) {
		uint64_t done = 0;

		r = change_allocate_run(img, off, len, &done);
		off += done;
		len -= min_u64(len, done);
	}
	rwlock_unread(&img->core->io_lock);
	image_changed(img);
	image_settle(img);
	return r;
}

/* See resize() in format.h. A unit that is copied here ends in zeroes. */
static int change_own_end(struct image *img) REQUIRES_SHARED(img->core->io_lock)
{
	struct extent ext;
	uint64_t done;
	int r;

	if (!img->format->alloc || img->size % img->unit == 0)
		return 0;
	r = img->format->map(img, img->size - 1, 1, 0, &ext);
	if (r < 0 || image_owned(&ext) || ext.kind == EXTENT_ZERO ||
	    (ext.kind == EXTENT_PARENT && img->parent_size <= img->size))
		return r;
	return image_write_new(img, NULL, 1, img->size - 1, &done);
}

int image_resize(struct image *img, uint64_t size, struct diag *diag)
{
	int r;

	if (img->read_only)
		return diag_set(diag, -EROFS, "%s: is open for reading only", img->name);
	if (!img->format->resize)
		return diag_set(diag, -EOPNOTSUPP, "%s: %s images cannot be resized", img->name,
				img->format->name);
	if (size > INT64_MAX)
		return diag_set(diag, -EFBIG, "%s: a disk of %llu bytes is too large", img->name,
				(unsigned long long)size);
	rwlock_write(&img->core->io_lock);
	atomic_store(&img->written, true);
	r = size > img->size ? change_own_end(img) : 0;
	if (r < 0)
		diag_errno(diag, r, "%s: cannot write its last bytes", img->name);
	else
		r = img->format->resize(img, size, diag);
	atomic_store(&img->core->size, img->size);
	rwlock_unwrite(&img->core->io_lock);
	image_changed(img);
	image_settle(img);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Changes that are not writes: zeroes, discards, preallocation, the size. */

#include <errno.h>

#include "base/checked.h"
#include "image/core.h"

static int change_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how)
{
	int r;

	rwlock_write(&img->core->io_lock);
	r = image_check_write(img, off, len);
	if (r == 0 && !img->format->unmap)
		r = -EOPNOTSUPP;
	while (r == 0 && len > 0) {
		uint64_t done = 0;

		r = img->format->unmap(img, off, len, how, &done);
		assert(r < 0 || done > 0);
		off += done;
		len -= done;
	}
	rwlock_unwrite(&img->core->io_lock);
	return r;
}

int image_discard(struct image *img, uint64_t off, uint64_t len)
{
	return change_unmap(img, off, len, img->core->discard ? UNMAP_DISCARD : UNMAP_ZERO);
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
	return r;
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
	r = img->format->resize(img, size, diag);
	atomic_store(&img->core->size, img->size);
	rwlock_unwrite(&img->core->io_lock);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reading and writing guest bytes: ask the driver where they are, then move them.
 *
 * A write goes in place where the driver says that the bytes are the image's own. Everything else
 * (never written, zero, compressed, shared with a snapshot, still in the backing image) is a first
 * write: space is allocated, filled with the new bytes and with the old ones around them, and only
 * then published. A reader therefore sees the old bytes or the new ones.
 *
 * So does whoever opens the image after a power cut. The host may bring the entry that publishes
 * the space to the disk before the bytes in it, and would then show neither; so the bytes are
 * flushed before the entry is written. The one case that needs no flush is also the common one:
 * what was there read as zeroes, and the new space reads as zeroes until the bytes arrive.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/core.h"

enum {
	/* old bytes around a first write are copied in pieces of at most this */
	IMAGE_COPY_MAX = 1 << 18,
};

int image_check_range(struct image *img, uint64_t off, uint64_t len)
{
	return range_inside(off, len, img->size) ? 0 : -EINVAL;
}

int image_check_write(struct image *img, uint64_t off, uint64_t len)
{
	if (img->read_only)
		return -EROFS;
	if (!atomic_load_explicit(&img->written, memory_order_relaxed))
		atomic_store(&img->written, true);
	return image_check_range(img, off, len);
}

/* A file of the host ends at or before host_end, which the tables say is data. Formats with padding
 * may leave the last unit unfinished; anything more was cut off while we were not looking. */
static int image_read_past_end(struct image *img, struct store *store, uint64_t host_end)
{
	uint64_t size;
	int r = store_size(store, &size);

	if (r < 0 || (img->padded && host_end <= round_up(size, img->unit)))
		return r;
	return image_damaged(img, "%s: ends at byte %llu, before data that is in use: it was cut",
			     store->name, (unsigned long long)size);
}

static int image_read_data(struct image *img, const struct extent *ext, void *buf, size_t len,
			   uint64_t off)
{
	ssize_t n = store_read(ext->store, buf, len, ext->host_off + (off - ext->off));

	if (n < 0)
		return (int)n;
	if ((size_t)n == len)
		return 0;
	memset((char *)buf + n, 0, len - (size_t)n);
	return image_read_past_end(img, ext->store, ext->host_off + (off - ext->off) + len);
}

/* Past the end of a backing image there are zeroes. */
static int image_read_parent(struct image *img, void *buf, size_t len, uint64_t off)
{
	struct image *backing = img->core->backing;
	uint64_t size = backing ? image_size(backing) : 0;
	size_t there = off < size ? (size_t)min_u64(len, size - off) : 0;
	int r = there ? image_read(backing, buf, there, off) : 0;

	if (r == 0)
		memset((char *)buf + there, 0, len - there);
	return r;
}

static int image_read_extent(struct image *img, const struct extent *ext, void *buf, size_t len,
			     uint64_t off)
{
	switch (ext->kind) {
	case EXTENT_ZERO:
		memset(buf, 0, len);
		return 0;
	case EXTENT_DATA:
		return image_read_data(img, ext, buf, len, off);
	case EXTENT_PACKED:
		return unpack_read(&img->core->unpack, img, ext, buf, len, off);
	case EXTENT_PARENT:
		return image_read_parent(img, buf, len, off);
	}
	return -EIO;
}

int image_read_locked(struct image *img, void *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		struct extent ext;
		size_t n;
		int r = img->format->map(img, off, len, 0, &ext);

		if (r < 0)
			return r;
		n = (size_t)min_u64(len, ext.off + ext.len - off);
		r = image_read_extent(img, &ext, buf, n, off);
		if (r < 0)
			return r;
		buf = (char *)buf + n;
		len -= n;
		off += n;
	}
	return 0;
}

int image_read(struct image *img, void *buf, size_t len, uint64_t off)
{
	int r;

	rwlock_read(&img->core->io_lock);
	r = image_check_range(img, off, len);
	if (r == 0)
		r = image_read_locked(img, buf, len, off);
	rwlock_unread(&img->core->io_lock);
	return r;
}

/* Old guest bytes, where the last unit may reach past the end of the image. */
static int image_read_old(struct image *img, void *buf, size_t len, uint64_t off)
	REQUIRES_SHARED(img->core->io_lock)
{
	size_t there = off < img->size ? (size_t)min_u64(len, img->size - off) : 0;
	int r = image_read_locked(img, buf, there, off);

	if (r == 0)
		memset((char *)buf + there, 0, len - there);
	return r;
}

static bool image_all_zero(const unsigned char *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* True where it is certain, without reading guest bytes, that [off, off + len) reads as zeroes. */
static bool image_surely_zero(struct image *img, uint64_t off, uint64_t len)
	REQUIRES_SHARED(img->core->io_lock)
{
	struct extent ext;

	if (off >= img->size)
		return true;
	len = min_u64(len, img->size - off);
	if (img->format->map(img, off, len, 0, &ext) < 0 || ext.off + ext.len < off + len)
		return false;
	return image_reads_zero(img, &ext);
}

/* Copies the old bytes [off, off + len) to their place in the new extent; zeroes need no copy where
 * the new place holds zeroes already. */
static int image_copy_old(struct image *img, const struct extent *to, uint64_t off, uint64_t len)
	REQUIRES_SHARED(img->core->io_lock)
{
	_cleanup_free_ void *buf = NULL;

	if (len == 0 || (to->fresh && image_surely_zero(img, off, len)))
		return 0;
	buf = malloc(min_u64(len, IMAGE_COPY_MAX));
	if (!buf)
		return -ENOMEM;
	while (len > 0) {
		size_t n = (size_t)min_u64(len, IMAGE_COPY_MAX);
		int r = image_read_old(img, buf, n, off);

		if (r == 0 && !(to->fresh && image_all_zero(buf, n)))
			r = store_write(to->store, buf, n, to->host_off + (off - to->off));
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* Where the host bytes of a new extent end that have to be filled. An external data file is no
 * longer than the disk, and may be a device that cannot be: behind the end there is nothing to
 * fill. */
static uint64_t image_fill_end(const struct image *img, const struct extent *to)
{
	uint64_t end = to->off + to->len;

	return to->store == img->store ? end : min_u64(end, img->size);
}

/* Host space, where the host can promise any. */
static int image_reserve(struct image *img, const struct extent *to)
{
	int r = store_allocate(to->store, to->host_off, image_fill_end(img, to) - to->off);

	return r == -EOPNOTSUPP ? 0 : r;
}

/* The new bytes, and the old ones before and behind them. */
static int image_fill(struct image *img, const struct extent *to, const void *buf, uint64_t len,
		      uint64_t off) REQUIRES_SHARED(img->core->io_lock)
{
	uint64_t end = image_fill_end(img, to);
	int r;

	if (!buf) {
		/* Preallocation */
		r = image_reserve(img, to);
		return r < 0 ? r : image_copy_old(img, to, to->off, end - to->off);
	}
	r = image_copy_old(img, to, to->off, off - to->off);
	if (r == 0)
		r = image_copy_old(img, to, off + len, end - (off + len));
	if (r == 0)
		r = store_write(to->store, buf, len, to->host_off + (off - to->off));
	return r;
}

/* image_write_new() with the range entered in flight. */
static int image_allocate_run(struct image *img, const void *buf, uint64_t len, uint64_t off,
			      uint64_t *ret_done) REQUIRES_SHARED(img->core->io_lock)
{
	struct extent ext;
	int r = img->format->map(img, off, len, 0, &ext);

	if (r < 0)
		return r;
	len = min_u64(len, ext.off + ext.len - off);
	if (image_owned(&ext)) { /* by the one that we waited for */
		*ret_done = len;
		return buf ? store_write(ext.store, buf, len, ext.host_off + (off - ext.off)) : 0;
	}
	if (!img->format->alloc)
		return -EOPNOTSUPP;
	r = img->format->alloc(img, off, len, &ext);
	if (r < 0)
		return r;
	len = min_u64(len, ext.off + ext.len - off);
	if (!buf && ext.reused && image_surely_zero(img, ext.off, ext.len)) {
		/* Space stands there already, and the tables say what to read: as good as any */
		*ret_done = len;
		return image_reserve(img, &ext);
	}
	r = image_fill(img, &ext, buf, len, off);
	if (r == 0 && !(ext.fresh && image_surely_zero(img, ext.off, ext.len)))
		r = barrier_pass(&img->core->barrier, ext.store);
	if (r < 0) {
		img->format->abandon(img, &ext);
		return r;
	}
	*ret_done = len;
	return img->format->link(img, &ext);
}

int image_write_new(struct image *img, const void *buf, uint64_t len, uint64_t off,
		    uint64_t *ret_done)
{
	struct inflight_range range;
	int r;

	inflight_enter(&img->core->inflight, &range, round_down(off, img->unit),
		       round_up(off + len, img->unit));
	r = image_allocate_run(img, buf, len, off, ret_done);
	inflight_leave(&img->core->inflight, &range);
	return r;
}

int image_write_locked(struct image *img, const void *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		struct extent ext;
		uint64_t n;
		int r = img->format->map(img, off, len, 0, &ext);

		if (r < 0)
			return r;
		n = min_u64(len, ext.off + ext.len - off);
		if (image_owned(&ext))
			r = store_write(ext.store, buf, n, ext.host_off + (off - ext.off));
		else
			r = image_write_new(img, buf, n, off, &n);
		if (r < 0)
			return r;
		buf = (const char *)buf + n;
		len -= n;
		off += n;
	}
	return 0;
}

static void image_settle_alone(struct image *img) EXCLUDES(img->core->io_lock)
{
	rwlock_write(&img->core->io_lock);
	if (img->format->settle)
		img->format->settle(img);
	rwlock_unwrite(&img->core->io_lock);
}

/* Whoever comes meanwhile waits, so that nothing is added while we are at it. */
static void image_make_room(struct image *img) EXCLUDES(img->core->io_lock)
{
	int r = 0;

	mutex_lock(&img->core->room_lock);
	while (r == 0 && atomic_load(&img->crowded)) {
		rwlock_read(&img->core->io_lock);
		r = img->format->flush(img);
		rwlock_unread(&img->core->io_lock);
		image_settle_alone(img);
	}
	mutex_unlock(&img->core->room_lock);
}

void image_settle(struct image *img)
{
	if (atomic_load_explicit(&img->crowded, memory_order_relaxed))
		image_make_room(img);
	if (atomic_load_explicit(&img->settle_wanted, memory_order_relaxed))
		image_settle_alone(img);
}

int image_write(struct image *img, const void *buf, size_t len, uint64_t off)
{
	int r;

	rwlock_read(&img->core->io_lock);
	r = image_check_write(img, off, len);
	if (r == 0)
		r = image_write_locked(img, buf, len, off);
	rwlock_unread(&img->core->io_lock);
	image_changed(img);
	image_settle(img);
	return r;
}

int image_idle(struct image *img)
{
	int r;

	if (img->read_only || !img->format->idle)
		return 0;
	image_hold_mtime(img);
	rwlock_read(&img->core->io_lock);
	r = img->format->idle(img);
	rwlock_unread(&img->core->io_lock);
	image_settle(img);
	image_give_mtime(img);
	return r;
}

void image_keep(struct image *img, struct image_kept *kept)
{
	if (img->read_only)
		return;
	store_keep(img->store, &kept->lost[0]);
	if (img->data != img->store)
		store_keep(img->data, &kept->lost[1]);
	if (img->format->keep)
		img->format->keep(img, &kept->spare);
}

static int image_flush_stores(struct image *img)
{
	int r = img->data != img->store ? store_flush(img->data) : 0;
	int r2 = store_flush(img->store);

	return r < 0 ? r : r2;
}

int image_flush(struct image *img)
{
	int r;

	if (img->read_only)
		return 0;
	rwlock_read(&img->core->io_lock);
	r = img->format->flush ? img->format->flush(img) : image_flush_stores(img);
	rwlock_unread(&img->core->io_lock);
	image_settle(img);
	return r;
}

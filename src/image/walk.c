/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where guest bytes stand, seen through the whole chain: extents, holes, allocation. */

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "image/core.h"

/*
 * Some images have billions of table entries, and a hostile one has them in a few bytes that it
 * names again and again: nobody is to wait for all of them, nor hold the lock as long. So each
 * answer has a budget, counted in entries. A question to a driver or to the host costs as much as
 * some of them.
 */
enum {
	WALK_BUDGET = 4 << 20,
	WALK_QUESTION = 64,
	WALK_COUNT_MAX = 256, /* extents looked at for one answer to stat(2) */
};

static int walk_chain(struct image *img, uint64_t off, uint64_t len, unsigned depth,
		      struct image_extent *ret, int64_t *budget);

static void walk_zero(uint64_t off, uint64_t len, unsigned depth, bool present,
		      struct image_extent *ret)
{
	*ret = (struct image_extent){
		.off = off, .len = len, .depth = depth, .present = present, .zero = true};
}

/* What a file does not hold its backing image does, as far as that reaches. */
static int walk_parent(struct image *img, uint64_t off, uint64_t len, unsigned depth,
		       struct image_extent *ret, int64_t *budget)
{
	struct image *backing = img->core->backing;
	uint64_t size = backing ? image_size(backing) : 0;
	int r;

	if (off >= size) {
		walk_zero(off, len, depth, false, ret);
		return 0;
	}
	rwlock_read(&backing->core->io_lock);
	r = walk_chain(backing, off, min_u64(len, size - off), depth + 1, ret, budget);
	rwlock_unread(&backing->core->io_lock);
	return r;
}

/* The host's file may have holes where the format says data. */
static int walk_data(struct image *img, const struct extent *ext, uint64_t off, uint64_t len,
		     unsigned depth, struct image_extent *ret)
{
	uint64_t host_off = ext->host_off + (off - ext->off), size, run = len;
	bool data = true;
	int r = store_size(ext->store, &size);

	if (r < 0)
		return r;
	if (host_off >= size) /* padding, or a file that shrank: reading tells which */
		data = !img->padded;
	else
		r = store_map(ext->store, host_off, min_u64(len, size - host_off), &data, &run);
	if (r < 0)
		return r;
	if (!data) {
		walk_zero(off, run, depth, true, ret);
		return 0;
	}
	*ret = (struct image_extent){.off = off,
				     .len = run,
				     .depth = depth,
				     .present = true,
				     .mapped = true,
				     .store = ext->store,
				     .host_off = host_off};
	return 0;
}

static int walk_chain(struct image *img, uint64_t off, uint64_t len, unsigned depth,
		      struct image_extent *ret, int64_t *budget)
{
	struct extent ext;
	int r = img->format->map(img, off, len, 0, &ext);

	if (r < 0)
		return r;
	*budget -= WALK_QUESTION + ext.entries;
	len = min_u64(len, ext.off + ext.len - off);
	switch (ext.kind) {
	case EXTENT_ZERO:
		walk_zero(off, len, depth, true, ret);
		return 0;
	case EXTENT_PACKED:
		*ret = (struct image_extent){
			.off = off, .len = len, .depth = depth, .present = true, .packed = true};
		return 0;
	case EXTENT_PARENT:
		return walk_parent(img, off, len, depth, ret, budget);
	case EXTENT_DATA:
		return walk_data(img, &ext, off, len, depth, ret);
	}
	return -EIO;
}

static bool walk_continues(const struct image_extent *a, const struct image_extent *b)
{
	return a->zero == b->zero && a->packed == b->packed && a->mapped == b->mapped &&
	       a->present == b->present && a->depth == b->depth && a->store == b->store &&
	       (!a->mapped || a->host_off + a->len == b->host_off);
}

static int walk_run(struct image *img, uint64_t off, uint64_t len, struct image_extent *ret,
		    int64_t *budget)
{
	struct image_extent whole, next;
	int r;

	rwlock_read(&img->core->io_lock);
	r = len > 0 ? image_check_range(img, off, len) : -EINVAL;
	if (r == 0)
		r = walk_chain(img, off, len, 0, &whole, budget);
	while (r == 0 && whole.len<len && * budget> 0) {
		r = walk_chain(img, off + whole.len, len - whole.len, 0, &next, budget);
		if (r == 0 && !walk_continues(&whole, &next))
			break;
		if (r == 0)
			whole.len += next.len;
	}
	rwlock_unread(&img->core->io_lock);
	if (r == 0)
		*ret = whole;
	return r;
}

int image_map(struct image *img, uint64_t off, uint64_t len, struct image_extent *ret)
{
	int64_t budget = WALK_BUDGET;

	return walk_run(img, off, len, ret, &budget);
}

int image_seek(struct image *img, uint64_t off, uint64_t end, bool data, uint64_t *ret)
{
	int64_t budget = WALK_BUDGET;

	end = min_u64(end, image_size(img));
	if (off >= end)
		return -ENXIO;
	while (off < end) {
		struct image_extent ext;
		int r;

		/* Data may always be claimed: here, or from here to the end */
		if (budget <= 0) {
			*ret = data ? off : end;
			return 0;
		}
		r = walk_run(img, off, end - off, &ext, &budget);
		if (r < 0)
			return r;
		if (ext.zero != data) {
			*ret = off;
			return 0;
		}
		off += ext.len;
	}
	if (data)
		return -ENXIO;
	*ret = end; /* the hole behind the end */
	return 0;
}

int image_allocated(struct image *img, uint64_t off, uint64_t len, uint64_t *ret)
{
	int64_t budget = WALK_BUDGET;
	uint64_t done = 0, zero = 0;
	int r;

	rwlock_read(&img->core->io_lock);
	r = image_check_range(img, off, len);
	for (int i = 0; r == 0 && done < len && i < WALK_COUNT_MAX && budget > 0; i++) {
		struct image_extent ext;

		/* Who wants to read there will be told */
		if (walk_chain(img, off + done, len - done, 0, &ext, &budget) < 0)
			break;
		done += ext.len;
		zero += ext.zero ? ext.len : 0;
	}
	rwlock_unread(&img->core->io_lock);
	if (r == 0)
		*ret = len - zero;
	return r;
}

static bool walk_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Of the image's own files. */
static int walk_stat(struct image *img, struct store_stat *ret)
{
	struct store_stat st, data;
	int r = store_stat(img->store, &st);

	if (r == 0 && img->data != img->store) {
		r = store_stat(img->data, &data);
		if (r < 0)
			return r;
		st.allocated += data.allocated;
		if (walk_later(&data.mtime, &st.mtime))
			st.mtime = data.mtime;
		if (walk_later(&data.ctime, &st.ctime))
			st.ctime = data.ctime;
	}
	if (r == 0)
		*ret = st;
	return r;
}

static const int64_t walk_second = 1000000000;
/* Held from here on, though it is not known yet: who changes the disk meanwhile ends it */
static const int64_t walk_asking = INT64_MIN;

static int64_t walk_mtime(struct image *img)
{
	struct store_stat st;
	int64_t ns;

	if (walk_stat(img, &st) != 0 ||
	    __builtin_mul_overflow((int64_t)st.mtime.tv_sec, walk_second, &ns) ||
	    __builtin_add_overflow(ns, st.mtime.tv_nsec, &ns))
		return 0;
	return ns;
}

void image_hold_mtime(struct image *img)
{
	int64_t none = 0, asking = walk_asking;

	if (atomic_compare_exchange_strong(&img->core->mtime, &none, asking))
		atomic_compare_exchange_strong(&img->core->mtime, &asking, walk_mtime(img));
}

void image_give_mtime(struct image *img)
{
	int64_t now = walk_mtime(img);

	atomic_compare_exchange_strong(&img->core->mtime, &now, 0);
}

int image_stat(struct image *img, struct store_stat *ret)
{
	int64_t held = atomic_load(&img->core->mtime);
	struct store_stat st;
	int r = walk_stat(img, &st);

	if (r < 0)
		return r;
	st.size = image_size(img);
	st.block = img->unit > 1 ? img->unit : 4096;
	if (held != 0 && held != walk_asking) {
		st.mtime.tv_nsec = held % walk_second + (held % walk_second < 0 ? walk_second : 0);
		st.mtime.tv_sec = (held - st.mtime.tv_nsec) / walk_second;
	}
	*ret = st;
	return 0;
}

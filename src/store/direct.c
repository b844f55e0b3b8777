/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/thread.h"

/*
 * Aligned transfers go straight through. The others go through a buffer of our own, and a write
 * that begins or ends inside a unit (a sector, or what the file system wants) reads that unit,
 * changes it and writes it back. Meanwhile no one else may change bytes of it: they would be
 * written back as they were before.
 *
 * Therefore each writer stands in a list while it writes. It waits for those who came before it,
 * and touch the same units, where they or it must be alone; aligned writers do not wait for each
 * other. Since one only waits for those before, nobody starves and nobody waits in a circle.
 *
 * A unit that the end of the file cuts cannot be written back whole, the file would grow. Such a
 * write is rare: it waits until it is alone in the whole file, and goes through the page cache.
 */

enum {
	DIRECT_CHUNK = 256 * 1024,
	DIRECT_ALIGN = 4096, /* where the kernel does not say (before 6.1) */
};

struct direct {
	int fd;
	bool device;
	uint32_t unit; /* offsets and lengths are multiples of it, at most DIRECT_CHUNK */
	uint32_t mem;  /* and buffers of this */
	struct mutex lock;
	struct cond left;
	struct direct_range *first GUARDED_BY(lock); /* in the order of arrival */
};

static bool direct_usable(uint32_t align)
{
	return is_pow2(align) && align <= DIRECT_CHUNK;
}

/* What the kernel wants of offsets and buffers; the buffers of direct_buffer() always fit. */
static void direct_find_alignment(struct direct *d, uint32_t sector)
{
	struct statx st = {0};

	d->unit = sector ? sector : DIRECT_ALIGN;
	d->mem = (uint32_t)max_u64(d->unit, DIRECT_ALIGN);
#ifdef STATX_DIOALIGN
	if (statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) < 0 ||
	    !(st.stx_mask & STATX_DIOALIGN))
		return;
	if (direct_usable(st.stx_dio_offset_align) && direct_usable(st.stx_dio_mem_align)) {
		d->unit = st.stx_dio_offset_align;
		d->mem = st.stx_dio_mem_align;
	}
#endif
}

int direct_new(int fd, uint32_t sector, struct direct **ret)
{
	struct direct *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->fd = fd;
	d->device = sector != 0;
	direct_find_alignment(d, sector);
	mutex_init(&d->lock);
	cond_init(&d->left);
	*ret = d;
	return 0;
}

struct direct *direct_free(struct direct *d)
{
	if (!d)
		return NULL;
	cond_done(&d->left);
	mutex_done(&d->lock);
	free(d);
	return NULL;
}

static bool direct_in_the_way(const struct direct_range *a, const struct direct_range *b)
{
	return (a->alone || b->alone) && a->start < b->end && b->start < a->end;
}

/* Is somebody before `range` whom it has to wait for? */
static bool direct_must_wait(struct direct *d, const struct direct_range *range) REQUIRES(d->lock)
{
	for (const struct direct_range *r = d->first; r != range; r = r->next)
		if (direct_in_the_way(r, range))
			return true;
	return false;
}

void direct_enter(struct direct *d, struct direct_range *range, uint64_t off, uint64_t len,
		  bool alone)
{
	struct direct_range **end;

	if (!d)
		return;
	*range = (struct direct_range){
		.start = round_down(off, d->unit),
		.end = round_up(off + len, d->unit),
		.alone = alone,
	};
	mutex_lock(&d->lock);
	for (end = &d->first; *end;)
		end = &(*end)->next;
	*end = range;
	while (direct_must_wait(d, range))
		cond_wait(&d->left, &d->lock);
	mutex_unlock(&d->lock);
}

void direct_leave(struct direct *d, struct direct_range *range)
{
	struct direct_range **at;

	if (!d)
		return;
	mutex_lock(&d->lock);
	for (at = &d->first; *at != range;)
		at = &(*at)->next;
	*at = range->next;
	cond_broadcast(&d->left);
	mutex_unlock(&d->lock);
}

static void *direct_buffer(const struct direct *d, size_t len)
{
	void *buf;

	return posix_memalign(&buf, max_u64(d->mem, d->unit), len) == 0 ? buf : NULL;
}

static bool direct_fits_memory(const struct direct *d, const void *buf)
{
	return ((uintptr_t)buf & (d->mem - 1)) == 0;
}

static bool direct_fits_file(const struct direct *d, uint64_t off, uint64_t len)
{
	return ((off | len) & (d->unit - 1)) == 0;
}

/* Everything is aligned. A count that is not ends at the end of the file. */
static ssize_t direct_pread(const struct direct *d, char *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len && direct_fits_file(d, done, 0)) {
		ssize_t n = pread(d->fd, buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t direct_read(struct direct *d, void *buf, size_t len, uint64_t off)
{
	_cleanup_free_ char *bounce = NULL;
	size_t done = 0;

	/* Rounding up would leave off_t, and no file ends there */
	if (off + len > INT64_MAX - DIRECT_CHUNK)
		return 0;
	if (direct_fits_memory(d, buf) && direct_fits_file(d, off, len))
		return direct_pread(d, buf, len, off);
	bounce = direct_buffer(d, DIRECT_CHUNK);
	if (!bounce)
		return -ENOMEM;
	while (done < len) {
		uint64_t start = round_down(off + done, d->unit), skip = off + done - start;
		uint64_t want = round_up(off + len, d->unit) - start;
		size_t span = (size_t)min_u64(want, DIRECT_CHUNK), take;
		ssize_t n = direct_pread(d, bounce, span, start);

		if (n < 0)
			return n;
		take = (uint64_t)n > skip ? (size_t)min_u64((size_t)n - skip, len - done) : 0;
		memcpy((char *)buf + done, bounce + skip, take);
		done += take;
		if ((size_t)n < span)
			break;
	}
	return (ssize_t)done;
}

/* Whole units from any buffer. */
static int direct_write_units(const struct direct *d, const char *buf, size_t len, uint64_t off)
{
	_cleanup_free_ char *bounce = NULL;
	int r = 0;

	if (direct_fits_memory(d, buf))
		return io_pwrite(d->fd, buf, len, off);
	bounce = direct_buffer(d, min_u64(len, DIRECT_CHUNK));
	if (!bounce)
		return -ENOMEM;
	for (size_t done = 0, n; r == 0 && done < len; done += n) {
		n = (size_t)min_u64(len - done, DIRECT_CHUNK);
		memcpy(bounce, buf + done, n);
		r = io_pwrite(d->fd, bounce, n, off + done);
	}
	return r;
}

/* Part of one unit, which is the caller's alone. */
static int direct_write_part(const struct direct *d, const char *buf, size_t len, uint64_t off)
{
	_cleanup_free_ char *unit = direct_buffer(d, d->unit);
	uint64_t start = round_down(off, d->unit);
	ssize_t n;

	if (!unit)
		return -ENOMEM;
	n = direct_pread(d, unit, d->unit, start);
	if (n < 0)
		return (int)n;
	memset(unit + n, 0, d->unit - (size_t)n); /* somebody outside is cutting the file */
	memcpy(unit + (off - start), buf, len);
	return io_pwrite(d->fd, unit, d->unit, start);
}

/* Through the page cache; the caller is alone in the file. */
static int direct_write_cached(const struct direct *d, const char *buf, size_t len, uint64_t off)
{
	int flags = fcntl(d->fd, F_GETFL), r;

	if (flags < 0 || fcntl(d->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return -errno;
	/* Who reads or writes aligned now is served from the page cache, and gets the same bytes */
	r = io_pwrite(d->fd, buf, len, off);
	if (fcntl(d->fd, F_SETFL, flags) < 0 && r == 0)
		r = -errno;
	return r;
}

static int direct_write_pieces(const struct direct *d, const char *buf, size_t len, uint64_t off)
{
	int r = 0;

	for (size_t n; r == 0 && len > 0; buf += n, off += n, len -= n) {
		size_t in_unit = (size_t)(off & (d->unit - 1));

		if (in_unit == 0 && len >= d->unit) {
			n = (size_t)round_down(len, d->unit);
			r = direct_write_units(d, buf, n, off);
		} else {
			n = (size_t)min_u64(len, d->unit - in_unit);
			r = direct_write_part(d, buf, n, off);
		}
	}
	return r;
}

/* Does the file end before this offset? */
static int direct_ends_before(const struct direct *d, uint64_t off)
{
	struct stat st;

	if (d->device) /* whose size is a multiple of the unit */
		return 0;
	if (fstat(d->fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size < off;
}

int direct_write(struct direct *d, const void *buf, size_t len, uint64_t off)
{
	struct direct_range range;
	int r = 0;

	direct_enter(d, &range, off, len, !direct_fits_file(d, off, len));
	if (range.alone)
		r = direct_ends_before(d, range.end);
	if (r > 0) {
		direct_leave(d, &range);
		direct_enter(d, &range, 0, INT64_MAX, true);
		r = direct_write_cached(d, buf, len, off);
	} else if (r == 0) {
		r = direct_write_pieces(d, buf, len, off);
	}
	direct_leave(d, &range);
	return r;
}

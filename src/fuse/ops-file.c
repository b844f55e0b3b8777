/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests on the content of the disk. The image layer refuses ranges that reach past the end, so
 * what a short read or a write past the end means is said here. Growable images can change their
 * size between our look at it and the image's: then -EINVAL comes back, and we look again.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/checked.h"
#include "fuse/nodes.h"
#include "fuse/ops.h"

/* Offsets are loff_t on the other side. */
static const uint64_t ops_off_max = INT64_MAX;

static bool ops_on(const struct request *rq, enum node node)
{
	return node_by_id(rq->share, rq->in->nodeid) == node;
}

/* Did the image shrink under a range that was inside it? */
static bool ops_shrunk(const struct request *rq, int r, uint64_t end)
{
	return r == -EINVAL && end > image_size(rq->share->image);
}

static int ops_read_status(struct request *rq, const struct fuse_read_in *in)
{
	char text[STATUS_MAX];
	size_t len = status_text(rq->share, text, sizeof(text));

	if (in->offset >= len)
		return 0;
	rq->payload_len = min_u64(in->size, len - in->offset);
	memcpy(rq->payload, text + in->offset, rq->payload_len);
	return 0;
}

static int ops_read_disk(struct request *rq, const struct fuse_read_in *in)
{
	uint64_t size, len;
	int r;

	do {
		size = image_size(rq->share->image);
		if (in->offset >= size)
			return 0;
		len = min_u64(in->size, size - in->offset);
		r = image_read(rq->share->image, rq->payload, len, in->offset);
	} while (ops_shrunk(rq, r, in->offset + len));
	if (r < 0)
		return ops_failed_at(rq, r, in->offset, len, "reading");
	rq->payload_len = len;
	ops_count(&rq->slot->counters.reads, 1);
	ops_count(&rq->slot->counters.read_bytes, len);
	return 0;
}

int ops_read(struct request *rq)
{
	const struct fuse_read_in *in = rq->arg;

	if (in->size > SLOT_DATA_MAX)
		return -EINVAL;
	if (ops_on(rq, NODE_DISK))
		return ops_read_disk(rq, in);
	if (ops_on(rq, NODE_STATUS))
		return ops_read_status(rq, in);
	return ops_on(rq, NODE_DIRECTORY) ? -EISDIR : -ENOENT;
}

/* May the disk of the request be written, and does [off, off + len) make sense? */
static int ops_may_change(const struct request *rq, uint64_t off, uint64_t len)
{
	if (!ops_on(rq, NODE_DISK))
		return -EBADF;
	if (rq->share->read_only)
		return -EROFS;
	return range_inside(off, len, ops_off_max) ? 0 : -EFBIG;
}

/* Makes the disk reach to end, where it may. 0 also where it may not. */
static int ops_reach(struct request *rq, uint64_t end)
{
	if (!rq->share->config.growable || end <= image_size(rq->share->image))
		return 0;
	return share_grow(rq->share, end);
}

int ops_write(struct request *rq)
{
	const struct fuse_write_in *in = rq->arg;
	uint64_t size, len;
	int r;

	if (in->size > rq->arg_len - sizeof(*in))
		return -EIO;
	r = ops_may_change(rq, in->offset, in->size);
	if (r < 0)
		return r;
	do {
		r = ops_reach(rq, in->offset + in->size);
		if (r == -EOPNOTSUPP) /* the format cannot grow: the disk ends where it ends */
			r = 0;
		if (r < 0)
			return ops_failed(rq, r);
		size = image_size(rq->share->image);
		if (in->offset >= size)
			return in->size ? -ENOSPC : 0;
		len = min_u64(in->size, size - in->offset);
		r = len ? image_write(rq->share->image, in + 1, len, in->offset) : 0;
	} while (ops_shrunk(rq, r, in->offset + len));
	if (r < 0)
		return ops_failed_at(rq, r, in->offset, len, "writing");
	OPS_ANSWER(rq, struct fuse_write_out)->size = (uint32_t)len;
	node_touched(rq->share);
	ops_count(&rq->slot->counters.writes, 1);
	ops_count(&rq->slot->counters.write_bytes, len);
	return 0;
}

/* The modes of FALLOCATE that exist here, and what they do inside the disk. */
static const struct ops_range {
	uint32_t mode;	/* without KEEP_SIZE */
	bool keep_only; /* means something only together with KEEP_SIZE */
	int (*change)(struct image *img, uint64_t off, uint64_t len);
	const char *what;
} ops_ranges[] = {
	{0, false, image_allocate, "allocating"},
	{FALLOC_FL_PUNCH_HOLE, true, image_discard, "discarding"},
	{FALLOC_FL_ZERO_RANGE, false, image_zero, "zeroing"},
};

static const struct ops_range *ops_range_find(uint32_t mode)
{
	for (size_t i = 0; i < ARRAY_SIZE(ops_ranges); i++)
		if (ops_ranges[i].mode == (mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE))
			return ops_ranges[i].keep_only && !(mode & FALLOC_FL_KEEP_SIZE)
				       ? NULL
				       : &ops_ranges[i];
	return NULL;
}

/* The part of the range that lies inside the disk; the rest of a KEEP_SIZE range is nothing. */
static int ops_change_range(struct request *rq, const struct ops_range *range,
			    const struct fuse_fallocate_in *in)
{
	uint64_t size, len;
	int r;

	do {
		size = image_size(rq->share->image);
		if (in->offset >= size)
			return 0;
		len = min_u64(in->length, size - in->offset);
		r = range->change(rq->share->image, in->offset, len);
	} while (ops_shrunk(rq, r, in->offset + len));
	if (r == -EOPNOTSUPP)
		return r;
	if (r < 0)
		return ops_failed_at(rq, r, in->offset, len, range->what);
	return 0;
}

int ops_fallocate(struct request *rq)
{
	const struct fuse_fallocate_in *in = rq->arg;
	const struct ops_range *range = ops_range_find(in->mode);
	uint64_t end;
	int r;

	r = ops_may_change(rq, in->offset, in->length);
	if (r < 0)
		return r;
	if (!range)
		return -EOPNOTSUPP;
	if (in->length == 0)
		return -EINVAL;
	end = in->offset + in->length;
	if (!(in->mode & FALLOC_FL_KEEP_SIZE)) {
		if (!rq->share->config.growable && end > image_size(rq->share->image))
			return -ENOSPC;
		r = ops_reach(rq, end);
		if (r < 0)
			return r == -EOPNOTSUPP ? r : ops_failed(rq, r);
	}
	r = ops_change_range(rq, range, in);
	if (r < 0)
		return r;
	node_touched(rq->share);
	if (range->mode)
		ops_count(&rq->slot->counters.discards, 1);
	return 0;
}

int ops_lseek(struct request *rq)
{
	const struct fuse_lseek_in *in = rq->arg;
	uint64_t off;
	int r;

	if (!ops_on(rq, NODE_DISK))
		return -EINVAL;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	if (in->offset >= image_size(rq->share->image))
		return -ENXIO;
	r = image_seek(rq->share->image, in->offset, in->whence == SEEK_DATA, &off);
	if (r == -ENXIO)
		return r;
	if (r < 0)
		return ops_failed_at(rq, r, in->offset, image_size(rq->share->image) - in->offset,
				     "looking for data or holes in");
	OPS_ANSWER(rq, struct fuse_lseek_out)->offset = off;
	return 0;
}

int ops_fsync(struct request *rq)
{
	int r;

	if (rq->share->read_only || ops_on(rq, NODE_STATUS))
		return 0;
	r = image_flush(rq->share->image);
	if (r < 0)
		return ops_failed_at(rq, r, UINT64_MAX, image_size(rq->share->image),
				     "flushing the disk of");
	ops_count(&rq->slot->counters.flushes, 1);
	return 0;
}

/*
 * Which way the bytes of an open file go.
 *
 * With CACHE=auto a file opened with O_DIRECT goes past the page cache with parallel writes, and
 * every other one through it. The kernel keeps the two of them coherent: a direct write drops the
 * pages it covers before it is sent. But it does so since 6.6 only (7.39, when DIRECT_IO_ALLOW_MMAP
 * came); before, such a write would leave old pages behind. So there O_DIRECT gets no
 * flag of ours, and takes the kernel's ordinary path, which cares for the cache but writes
 * one at a time.
 *
 * Even since 6.6, a cached read that runs at the same moment as a direct write can bring the old
 * bytes back into the cache after they were dropped. They must not outlive the reader: once the
 * disk was opened directly, a later open starts with an empty cache (no KEEP_CACHE). The host's
 * cache still has the bytes.
 */
static uint32_t ops_open_flags(struct share *share, uint32_t flags)
{
	const uint32_t direct = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	_Atomic uint32_t *direct_opened = &share->slots.head->direct_opened;

	if (!share->config.page_cache)
		return direct;
	if ((flags & O_DIRECT) && (share->granted.flags & FUSE_DIRECT_IO_ALLOW_MMAP)) {
		atomic_store(direct_opened, 1);
		return direct;
	}
	return atomic_load(direct_opened) ? 0 : FOPEN_KEEP_CACHE;
}

int ops_open(struct request *rq)
{
	const struct fuse_open_in *in = rq->arg;
	bool writes = (in->flags & O_ACCMODE) != O_RDONLY;

	if (ops_on(rq, NODE_STATUS)) {
		if (writes)
			return -EACCES;
		OPS_ANSWER(rq, struct fuse_open_out)->open_flags = FOPEN_DIRECT_IO;
		return 0;
	}
	if (!ops_on(rq, NODE_DISK))
		return ops_on(rq, NODE_DIRECTORY) ? -EISDIR : -ENOENT;
	if (writes && rq->share->read_only)
		return -EROFS;
	/* O_TRUNC is ignored, as by a block device */
	OPS_ANSWER(rq, struct fuse_open_out)->open_flags = ops_open_flags(rq->share, in->flags);
	return 0;
}

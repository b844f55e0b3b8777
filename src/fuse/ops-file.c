/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests on the content of the disk, or of a part of it. The image layer refuses ranges that
 * reach past the end, so what a short read or a write past the end means is said here. Growable
 * images can change their size between our look at it and the image's: then -EINVAL comes back, and
 * we look again.
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

static bool ops_has_span(const struct request *rq)
{
	return ops_on(rq, NODE_DISK) || ops_on(rq, NODE_PART);
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

static int ops_read_span(struct request *rq, const struct fuse_read_in *in)
{
	struct node_span span;
	uint64_t off, len;
	int r;

	do {
		if (!node_span(rq->share, rq->in->nodeid, &span) || in->offset >= span.size)
			return 0;
		off = span.off + in->offset;
		len = min_u64(in->size, span.size - in->offset);
		r = image_read(rq->share->image, rq->payload, len, off);
	} while (ops_shrunk(rq, r, off + len));
	if (r < 0)
		return ops_failed_at(rq, r, off, len, "reading");
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
	if (ops_has_span(rq))
		return ops_read_span(rq, in);
	if (ops_on(rq, NODE_STATUS))
		return ops_read_status(rq, in);
	return ops_on(rq, NODE_DIRECTORY) ? -EISDIR : -ENOENT;
}

/* May the node of the request be written, and does [off, off + len) make sense? */
static int ops_may_change(const struct request *rq, uint64_t off, uint64_t len)
{
	if (!ops_has_span(rq))
		return -EBADF;
	if (rq->share->read_only)
		return -EROFS;
	return range_inside(off, len, ops_off_max) ? 0 : -EFBIG;
}

/* Only the disk itself can grow. */
static bool ops_can_grow(const struct request *rq)
{
	return rq->share->config.growable && ops_on(rq, NODE_DISK);
}

/* Makes the disk reach to end, where it may. 0 also where it may not. */
static int ops_reach(struct request *rq, uint64_t end)
{
	if (!ops_can_grow(rq) || end <= image_size(rq->share->image))
		return 0;
	return share_grow(rq->share, end);
}

int ops_write(struct request *rq)
{
	const struct fuse_write_in *in = rq->arg;
	struct node_span span;
	uint64_t off, len;
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
		if (!node_span(rq->share, rq->in->nodeid, &span) || in->offset >= span.size)
			return in->size ? -ENOSPC : 0;
		off = span.off + in->offset;
		len = min_u64(in->size, span.size - in->offset);
		r = len ? image_write(rq->share->image, in + 1, len, off) : 0;
	} while (ops_shrunk(rq, r, off + len));
	if (r < 0)
		return ops_failed_at(rq, r, off, len, "writing");
	OPS_ANSWER(rq, struct fuse_write_out)->size = (uint32_t)len;
	node_touched(rq->share, rq->in->nodeid);
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

/* What of the range lies inside; the rest of a KEEP_SIZE range is nothing. */
static int ops_change_range(struct request *rq, const struct ops_range *range,
			    const struct fuse_fallocate_in *in)
{
	struct node_span span;
	uint64_t off, len;
	int r;

	do {
		if (!node_span(rq->share, rq->in->nodeid, &span) || in->offset >= span.size)
			return 0;
		off = span.off + in->offset;
		len = min_u64(in->length, span.size - in->offset);
		r = range->change(rq->share->image, off, len);
	} while (ops_shrunk(rq, r, off + len));
	if (r == -EOPNOTSUPP)
		return r;
	if (r < 0)
		return ops_failed_at(rq, r, off, len, range->what);
	return 0;
}

/* A range that must lie inside: the disk may grow for it, or it does not fit. */
static int ops_make_room(struct request *rq, uint64_t end)
{
	struct node_span span;
	int r;

	if (!ops_can_grow(rq))
		return node_span(rq->share, rq->in->nodeid, &span) && end <= span.size ? 0
										       : -ENOSPC;
	r = ops_reach(rq, end);
	return r < 0 && r != -EOPNOTSUPP ? ops_failed(rq, r) : r;
}

int ops_fallocate(struct request *rq)
{
	const struct fuse_fallocate_in *in = rq->arg;
	const struct ops_range *range = ops_range_find(in->mode);
	int r;

	r = ops_may_change(rq, in->offset, in->length);
	if (r < 0)
		return r;
	if (!range)
		return -EOPNOTSUPP;
	if (in->length == 0)
		return -EINVAL;
	if (!(in->mode & FALLOC_FL_KEEP_SIZE))
		r = ops_make_room(rq, in->offset + in->length);
	if (r == 0)
		r = ops_change_range(rq, range, in);
	if (r < 0)
		return r;
	node_touched(rq->share, rq->in->nodeid);
	if (range->mode)
		ops_count(&rq->slot->counters.discards, 1);
	return 0;
}

int ops_lseek(struct request *rq)
{
	const struct fuse_lseek_in *in = rq->arg;
	struct node_span span;
	uint64_t off;
	int r;

	if (!node_span(rq->share, rq->in->nodeid, &span))
		return -EINVAL;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	if (in->offset >= span.size)
		return -ENXIO;
	r = image_seek(rq->share->image, span.off + in->offset, span.off + span.size,
		       in->whence == SEEK_DATA, &off);
	if (r == -ENXIO)
		return r;
	if (r < 0)
		return ops_failed_at(rq, r, span.off + in->offset, span.size - in->offset,
				     "looking for data or holes in");
	OPS_ANSWER(rq, struct fuse_lseek_out)->offset = off - span.off;
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
 *
 * The disk and its partitions show the same bytes, but the kernel has a cache for each: what was
 * opened for writing on the one side lets the other side begin with an empty cache, too. Who has
 * both sides open at a time is as well off as with a block device and its partitions.
 */
static uint32_t ops_open_flags(struct request *rq, uint32_t flags, bool writes)
{
	const uint32_t direct = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	const bool part = ops_on(rq, NODE_PART);
	const uint32_t spoils = part ? SLOTS_OPENED_DISK_WRITE : SLOTS_OPENED_PART_WRITE;
	_Atomic uint32_t *opened = &rq->share->slots.head->opened;

	if (writes)
		atomic_fetch_or(opened, part ? SLOTS_OPENED_PART_WRITE : SLOTS_OPENED_DISK_WRITE);
	if (!rq->share->config.page_cache)
		return direct;
	if ((flags & O_DIRECT) && (rq->share->granted.flags & FUSE_DIRECT_IO_ALLOW_MMAP)) {
		atomic_fetch_or(opened, SLOTS_OPENED_DIRECT);
		return direct;
	}
	return atomic_load(opened) & (spoils | SLOTS_OPENED_DIRECT) ? 0 : FOPEN_KEEP_CACHE;
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
	if (!ops_has_span(rq))
		return ops_on(rq, NODE_DIRECTORY) ? -EISDIR : -ENOENT;
	if (writes && rq->share->read_only)
		return -EROFS;
	OPS_ANSWER(rq, struct fuse_open_out)->open_flags = ops_open_flags(rq, in->flags, writes);
	return 0;
}

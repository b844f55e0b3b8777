/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Requests on names and attributes. */

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "fuse/nodes.h"
#include "fuse/ops.h"

enum {
	OPS_STATFS_BLOCK = 4096,
	OPS_NAME_MAX = 255,
};

static int ops_entry(struct share *share, uint64_t id, struct fuse_entry_out *ret)
{
	int r = node_attr(share, id, &ret->attr);

	if (r < 0)
		return r;
	ret->nodeid = id;
	ret->generation = 0;
	ret->entry_valid = node_entry_valid(share, id);
	ret->attr_valid = node_attr_valid(share, id);
	ret->entry_valid_nsec = ret->attr_valid_nsec = 0;
	return 0;
}

int ops_lookup(struct request *rq)
{
	size_t len = strnlen(rq->arg, rq->arg_len);
	uint64_t id;

	if (len == rq->arg_len)
		return -EIO;
	id = node_lookup(rq->share, rq->in->nodeid, rq->arg, len);
	if (id == 0)
		return -ENOENT;
	return ops_entry(rq->share, id, OPS_ANSWER(rq, struct fuse_entry_out));
}

int ops_readlink(struct request *rq)
{
	char *name = (char *)rq->payload;

	if (node_by_id(rq->share, rq->in->nodeid) != NODE_LINK)
		return -EINVAL;
	if (!windows_selected(rq->share, name))
		return -ENOENT;
	rq->payload_len = strlen(name);
	return 0;
}

static int ops_answer_attr(struct request *rq)
{
	struct fuse_attr_out *out = OPS_ANSWER(rq, struct fuse_attr_out);

	out->attr_valid = node_attr_valid(rq->share, rq->in->nodeid);
	return node_attr(rq->share, rq->in->nodeid, &out->attr);
}

int ops_getattr(struct request *rq)
{
	return ops_answer_attr(rq);
}

/*
 * O_TRUNC is ignored, as by a block device: who writes `> disk` means the bytes, not the size.
 * After OPEN the kernel asks for no bytes, in the same words as for truncate(2) of a name, which
 * then does nothing, too; an ftruncate(2) comes with the handle. That the size stays as it was is
 * what it goes by, and keeps its pages.
 */
static bool ops_is_open_truncate(const struct fuse_setattr_in *in)
{
	return in->size == 0 && !(in->valid & FATTR_FH);
}

static int ops_set_size(struct request *rq, const struct fuse_setattr_in *in)
{
	uint64_t size = in->size;
	struct node_span span;
	int r;

	if (!node_span(rq->share, rq->in->nodeid, &span))
		return -EPERM;
	if (rq->share->read_only)
		return -EROFS;
	if (size == span.size || ops_is_open_truncate(in))
		return 0;
	if (!rq->share->config.growable || node_by_id(rq->share, rq->in->nodeid) != NODE_DISK)
		return -EPERM;
	if (size > INT64_MAX)
		return -EFBIG;
	r = share_resize(rq->share, size);
	if (r == -EOPNOTSUPP)
		return r;
	if (r < 0)
		return ops_failed(rq, r);
	node_touched(rq->share, rq->in->nodeid);
	return 0;
}

int ops_setattr(struct request *rq)
{
	const struct fuse_setattr_in *in = rq->arg;
	int r = node_may_set_attr(rq->share, rq->in->nodeid, in);

	/* The size first: it is what can still fail, and then nothing has changed */
	if (r == 0 && in->valid & FATTR_SIZE)
		r = ops_set_size(rq, in);
	if (r < 0)
		return r;
	r = node_set_attr(rq->share, rq->in->nodeid, in);
	if (r < 0)
		return r;
	return ops_answer_attr(rq);
}

int ops_opendir(struct request *rq)
{
	if (node_by_id(rq->share, rq->in->nodeid) != NODE_DIRECTORY)
		return -ENOTDIR;
	/* Nothing to keep in the kernel: it is short, and a reload may change it */
	OPS_ANSWER(rq, struct fuse_open_out);
	return 0;
}

/* The index-th entry of the directory: its node, 0 behind the last. */
static uint64_t ops_dir_entry(const struct share *share, unsigned index, char buf[NODE_NAME_MAX])
{
	if (index >= 2)
		return node_name(share, index - 2, buf);
	strcpy(buf, index == 0 ? "." : "..");
	return NODE_ID_ROOT;
}

static uint32_t ops_dir_type(const struct share *share, uint64_t id)
{
	switch (node_by_id(share, id)) {
	case NODE_DIRECTORY:
		return 4; /* DT_DIR */
	case NODE_LINK:
		return 10; /* DT_LNK */
	default:
		return 8; /* DT_REG */
	}
}

/*
 * Entries from the offset on, which is an index, as many as fit. With plus, each is preceded by
 * what LOOKUP would say; for "." and ".." that stays zero, since they take no reference.
 */
static int ops_fill_dir(struct request *rq, bool plus)
{
	const struct fuse_read_in *in = rq->arg;
	const size_t head = plus ? sizeof(struct fuse_entry_out) : 0;
	const size_t room = min_u64(in->size, SLOT_DATA_MAX);
	char name[NODE_NAME_MAX];
	uint64_t id;

	if (node_by_id(rq->share, rq->in->nodeid) != NODE_DIRECTORY)
		return -ENOTDIR;
	for (uint64_t i = in->offset; i < UINT32_MAX; i++) {
		uint8_t *p = rq->payload + rq->payload_len;
		struct fuse_dirent *d = (void *)(p + head);
		size_t len, all;

		id = ops_dir_entry(rq->share, (unsigned)i, name);
		if (id == 0)
			break;
		len = strlen(name);
		all = head + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);
		if (all > room - rq->payload_len)
			break;
		memset(p, 0, all);
		if (plus && i >= 2) {
			int r = ops_entry(rq->share, id, (void *)p);

			if (r < 0)
				return r;
		}
		d->ino = id;
		d->off = i + 1;
		d->namelen = (uint32_t)len;
		d->type = ops_dir_type(rq->share, id);
		memcpy(d->name, name, len);
		rq->payload_len += all;
	}
	return 0;
}

int ops_readdir(struct request *rq)
{
	return ops_fill_dir(rq, false);
}

int ops_readdirplus(struct request *rq)
{
	return ops_fill_dir(rq, true);
}

/* The disk as df sees it: what is not allocated is free. */
int ops_statfs(struct request *rq)
{
	struct fuse_kstatfs *st = &OPS_ANSWER(rq, struct fuse_statfs_out)->st;
	struct store_stat image;
	uint64_t used;
	int r;

	r = image_stat(rq->share->image, &image);
	if (r < 0)
		return ops_failed(rq, r);
	used = div_round_up(image.allocated, OPS_STATFS_BLOCK);
	st->bsize = st->frsize = OPS_STATFS_BLOCK;
	st->blocks = div_round_up(image_size(rq->share->image), OPS_STATFS_BLOCK);
	st->bfree = st->bavail = st->blocks - min_u64(used, st->blocks);
	st->files = 1;
	st->namelen = OPS_NAME_MAX;
	return 0;
}

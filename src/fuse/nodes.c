/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/nodes.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/checked.h"

enum {
	NODE_MODE_BITS = 0777, /* a disk has no use for set-id bits: they are never kept */
	NODE_MODE_WRITE = 0222,
	NODE_BLOCK_MIN = 4096,
	NODE_BLOCK_MAX = SLOT_DATA_MAX, /* what one request carries */
	NODE_ENTRY_VALID = 24 * 3600,	/* seconds: these names never change */
};

static const struct node_entry {
	const char *name;
	uint64_t id;
} node_entries[] = {
	{"disk", NODE_ID_DISK},
	{"status", NODE_ID_STATUS},
};

static const char node_link[] = "partition";
static const int64_t node_second = 1000000000;

enum node node_by_id(const struct share *share, uint64_t id)
{
	if (id == NODE_ID_ROOT)
		return share->config.directory ? NODE_DIRECTORY : NODE_DISK;
	if (!share->config.directory)
		return NODE_NONE;
	if (id == NODE_ID_DISK)
		return NODE_DISK;
	if (id == NODE_ID_STATUS)
		return NODE_STATUS;
	if (id == NODE_ID_LINK)
		return NODE_LINK;
	return windows_place(share, id, NULL, NULL) ? NODE_PART : NODE_NONE;
}

bool node_span(const struct share *share, uint64_t id, struct node_span *ret)
{
	uint64_t size = image_size(share->image), len;

	if (node_by_id(share, id) == NODE_DISK) {
		*ret = (struct node_span){0, size};
		return true;
	}
	if (!share->config.directory || !windows_place(share, id, &ret->off, &len))
		return false;
	/* A growable disk can have become shorter */
	ret->off = min_u64(ret->off, size);
	ret->size = min_u64(len, size - ret->off);
	return true;
}

uint64_t node_name(const struct share *share, unsigned index, char buf[NODE_NAME_MAX])
{
	if (index < ARRAY_SIZE(node_entries)) {
		strcpy(buf, node_entries[index].name);
		return node_entries[index].id;
	}
	index -= (unsigned)ARRAY_SIZE(node_entries);
	if (index < windows_count(share))
		return windows_name(share, index, buf);
	if (index > windows_count(share) || !windows_selected(share, buf))
		return 0;
	strcpy(buf, node_link);
	return NODE_ID_LINK;
}

uint64_t node_lookup(const struct share *share, uint64_t parent, const char *name, size_t len)
{
	if (node_by_id(share, parent) != NODE_DIRECTORY)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(node_entries); i++)
		if (strlen(node_entries[i].name) == len &&
		    memcmp(node_entries[i].name, name, len) == 0)
			return node_entries[i].id;
	if (len == strlen(node_link) && memcmp(node_link, name, len) == 0)
		return windows_selected(share, (char[WINDOWS_NAME_MAX]){}) ? NODE_ID_LINK : 0;
	return windows_lookup(share, name, len);
}

/* Where the attributes that clients set are kept. The disk's are in one place, whatever the target
 * is. */
static struct slots_attr *node_kept(struct share *share, uint64_t id)
{
	if (node_by_id(share, id) == NODE_DISK)
		id = NODE_ID_DISK;
	return &share->slots.head->attr[id - 1];
}

static uint64_t node_attr_second(int64_t ns)
{
	int64_t s = ns / node_second - (ns % node_second < 0);

	return (uint64_t)s;
}

static uint32_t node_attr_nsec(int64_t ns)
{
	int64_t rest = ns % node_second;

	return (uint32_t)(rest < 0 ? rest + node_second : rest);
}

/* The disk's space is the image's; a partition's has to be looked up. */
static int node_attr_span(struct share *share, enum node node, const struct store_stat *st,
			  struct fuse_attr *a)
{
	struct node_span span;
	uint64_t allocated = st->allocated;
	int r = 0;

	if (!node_span(share, a->ino, &span))
		return -ENOENT;
	if (node == NODE_PART)
		r = image_allocated(share->image, span.off, span.size, &allocated);
	a->size = span.size;
	a->blocks = div_round_up(allocated, 512);
	a->blksize = (uint32_t)min_u64(max_u64(st->block, NODE_BLOCK_MIN), NODE_BLOCK_MAX);
	return r == -EINVAL ? 0 : r; /* the disk has just become shorter */
}

/* What would be said of the node if nobody had set anything. */
static int node_attr_default(struct share *share, enum node node, struct fuse_attr *a)
{
	uint32_t mode = share->config.mode & NODE_MODE_BITS;
	struct store_stat st;
	int r;

	r = image_stat(share->image, &st);
	if (r < 0)
		return r;
	a->mtime = a->atime = (uint64_t)st.mtime.tv_sec;
	a->mtimensec = a->atimensec = (uint32_t)st.mtime.tv_nsec;
	a->ctime = (uint64_t)st.ctime.tv_sec;
	a->ctimensec = (uint32_t)st.ctime.tv_nsec;
	a->uid = share->config.uid;
	a->gid = share->config.gid;
	a->nlink = 1;
	a->blksize = NODE_BLOCK_MIN;
	if (share->read_only)
		mode &= ~(uint32_t)NODE_MODE_WRITE;
	switch (node) {
	case NODE_DISK:
	case NODE_PART:
		a->mode = S_IFREG | mode;
		return node_attr_span(share, node, &st, a);
	case NODE_STATUS: {
		char text[STATUS_MAX];

		a->mode = S_IFREG | (mode & ~(uint32_t)NODE_MODE_WRITE);
		a->size = status_text(share, text, sizeof(text));
		a->blocks = div_round_up(a->size, 512);
		break;
	}
	case NODE_LINK: {
		char target[WINDOWS_NAME_MAX];

		if (!windows_selected(share, target))
			return -ENOENT;
		a->mode = S_IFLNK | 0777;
		a->size = strlen(target);
		break;
	}
	case NODE_DIRECTORY:
		/* Whoever may read the files may enter */
		a->mode = S_IFDIR | mode | (mode & 0444) >> 2;
		a->nlink = 2;
		break;
	case NODE_NONE:
		break;
	}
	return 0;
}

static void node_attr_kept(struct share *share, struct fuse_attr *a)
{
	const struct slots_attr *kept = node_kept(share, a->ino);
	uint32_t set;

	mutex_lock(&share->attr_lock);
	set = atomic_load_explicit(&kept->set, memory_order_relaxed);
	if (set & FATTR_MODE)
		a->mode = (a->mode & S_IFMT) | kept->mode;
	if (set & FATTR_UID)
		a->uid = kept->uid;
	if (set & FATTR_GID)
		a->gid = kept->gid;
	if (set & FATTR_ATIME) {
		a->atime = node_attr_second(kept->atime_ns);
		a->atimensec = node_attr_nsec(kept->atime_ns);
	}
	if (set & FATTR_MTIME) {
		a->mtime = node_attr_second(kept->mtime_ns);
		a->mtimensec = node_attr_nsec(kept->mtime_ns);
	}
	if (kept->ctime_ns > (int64_t)a->ctime * node_second + a->ctimensec) {
		a->ctime = node_attr_second(kept->ctime_ns);
		a->ctimensec = node_attr_nsec(kept->ctime_ns);
	}
	mutex_unlock(&share->attr_lock);
}

int node_attr(struct share *share, uint64_t id, struct fuse_attr *ret)
{
	enum node node = node_by_id(share, id);
	struct fuse_attr a = {.ino = id};
	int r;

	if (node == NODE_NONE)
		return -ENOENT;
	r = node_attr_default(share, node, &a);
	if (r < 0)
		return r;
	node_attr_kept(share, &a);
	*ret = a;
	return 0;
}

uint64_t node_attr_valid(const struct share *share, uint64_t id)
{
	return node_by_id(share, id) == NODE_STATUS ? 0 : 1;
}

/* What a reload changes must not be believed for longer than the change takes. */
uint64_t node_entry_valid(const struct share *share, uint64_t id)
{
	enum node node = node_by_id(share, id);

	return node == NODE_PART || node == NODE_LINK ? 0 : NODE_ENTRY_VALID;
}

static int64_t node_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * node_second + ts.tv_nsec;
}

/* False where the time is no time, or lies beyond what 64 bits of nanoseconds hold (year 2262). */
static bool node_time(uint64_t sec, uint32_t nsec, bool now, int64_t *ret)
{
	int64_t ns;

	if (now) {
		*ret = node_now();
		return true;
	}
	if (nsec >= node_second || __builtin_mul_overflow((int64_t)sec, node_second, &ns) ||
	    __builtin_add_overflow(ns, nsec, &ns))
		return false;
	*ret = ns;
	return true;
}

/* What of a SETATTR is wrong, but for the size; its times. */
static int node_check_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in,
			   int64_t *ret_atime, int64_t *ret_mtime)
{
	enum node node = node_by_id(share, id);

	if (node == NODE_NONE)
		return -ENOENT;
	if (node == NODE_LINK)
		return -EPERM;
	if ((in->valid & FATTR_MODE) && (in->mode & NODE_MODE_WRITE) &&
	    (share->read_only || node == NODE_STATUS))
		return -EROFS;
	if ((in->valid & FATTR_ATIME) &&
	    !node_time(in->atime, in->atimensec, in->valid & FATTR_ATIME_NOW, ret_atime))
		return -EINVAL;
	if ((in->valid & FATTR_MTIME) &&
	    !node_time(in->mtime, in->mtimensec, in->valid & FATTR_MTIME_NOW, ret_mtime))
		return -EINVAL;
	return 0;
}

int node_may_set_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in)
{
	int64_t atime, mtime;

	return node_check_attr(share, id, in, &atime, &mtime);
}

int node_set_attr(struct share *share, uint64_t id, const struct fuse_setattr_in *in)
{
	const uint32_t kept_bits = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_ATIME | FATTR_MTIME;
	struct slots_attr *kept;
	int64_t atime = 0, mtime = 0;
	int r = node_check_attr(share, id, in, &atime, &mtime);

	if (r < 0 || !(in->valid & kept_bits))
		return r;

	kept = node_kept(share, id);
	mutex_lock(&share->attr_lock);
	if (in->valid & FATTR_MODE)
		kept->mode = in->mode & NODE_MODE_BITS;
	if (in->valid & FATTR_UID)
		kept->uid = in->uid;
	if (in->valid & FATTR_GID)
		kept->gid = in->gid;
	if (in->valid & FATTR_ATIME)
		kept->atime_ns = atime;
	if (in->valid & FATTR_MTIME)
		kept->mtime_ns = mtime;
	kept->ctime_ns = node_now();
	/* Last, so that a successor never takes a value for set that is not there yet */
	atomic_fetch_or(&kept->set, in->valid & kept_bits);
	mutex_unlock(&share->attr_lock);
	return 0;
}

static void node_touched_one(struct slots_attr *kept)
{
	if (atomic_load_explicit(&kept->set, memory_order_relaxed) & FATTR_MTIME)
		atomic_fetch_and(&kept->set, ~(uint32_t)FATTR_MTIME);
}

void node_touched(struct share *share, uint64_t id)
{
	node_touched_one(&share->slots.head->attr[NODE_ID_DISK - 1]);
	if (node_by_id(share, id) == NODE_PART)
		node_touched_one(node_kept(share, id));
}

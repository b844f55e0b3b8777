/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/thread.h"

/*
 * Sparse memory: pages hang in a tree of fan-out 512, like a processor's page table. Its height
 * grows with the highest page that was written, so a small store is one node and its pages, and a
 * byte at 1 TiB costs four nodes and a page.
 *
 * A page that is not there reads as zeroes. Bytes of a page past the end of the store are zero, so
 * that growing it again never shows what was cut off.
 *
 * One lock: readers share it, whoever changes a byte holds it alone. That is slower than it could
 * be and right under any mix of threads, which is what tests want of it.
 */

enum {
	MEMORY_PAGE_BITS = 12,
	MEMORY_PAGE = 1 << MEMORY_PAGE_BITS,
	MEMORY_NODE_BITS = 9,
	MEMORY_FANOUT = 1 << MEMORY_NODE_BITS,
};

struct memory_node {
	void *slots[MEMORY_FANOUT]; /* pages at height 1, nodes above */
};

struct memory {
	struct store store;
	uint64_t limit;
	struct rwlock lock;
	struct memory_node *root GUARDED_BY(lock);
	unsigned height GUARDED_BY(lock); /* 0: no root */
	uint64_t size GUARDED_BY(lock);
	uint64_t pages GUARDED_BY(lock);
	struct timespec mtime GUARDED_BY(lock);
};

static struct memory *memory_of(struct store *s)
{
	return (struct memory *)s;
}

/* Does a tree of this height reach the page? */
static bool memory_reaches(unsigned height, uint64_t page)
{
	unsigned bits = height * MEMORY_NODE_BITS;

	return bits >= 64 || page >> bits == 0;
}

/* The slot of a node at this height through which page is reached. */
static unsigned memory_slot(unsigned height, uint64_t page)
{
	return (unsigned)(page >> ((height - 1) * MEMORY_NODE_BITS)) & (MEMORY_FANOUT - 1);
}

/* Where the pointer to a page stands; NULL where no node leads to it. */
static void **memory_find(struct memory *m, uint64_t page) REQUIRES_SHARED(m->lock)
{
	struct memory_node *node = m->root;

	if (!node || !memory_reaches(m->height, page))
		return NULL;
	for (unsigned h = m->height; h > 1; h--) {
		node = node->slots[memory_slot(h, page)];
		if (!node)
			return NULL;
	}
	return &node->slots[memory_slot(1, page)];
}

/* Puts new roots on top until the tree reaches the page. */
static int memory_raise(struct memory *m, uint64_t page) REQUIRES(m->lock)
{
	while (m->height == 0 || !memory_reaches(m->height, page)) {
		struct memory_node *root = calloc(1, sizeof(*root));

		if (!root)
			return -ENOMEM;
		root->slots[0] = m->root;
		m->root = root;
		m->height++;
	}
	return 0;
}

/* The page, made where it is missing. */
static int memory_make(struct memory *m, uint64_t page, unsigned char **ret) REQUIRES(m->lock)
{
	void **slot = (void **)&m->root;
	int r = memory_raise(m, page);

	if (r < 0)
		return r;
	for (unsigned h = m->height; h > 0; h--) {
		slot = &((struct memory_node *)*slot)->slots[memory_slot(h, page)];
		if (!*slot) {
			*slot = calloc(1, h > 1 ? sizeof(struct memory_node) : MEMORY_PAGE);
			if (!*slot)
				return -ENOMEM;
			m->pages += h == 1;
		}
	}
	*ret = *slot;
	return 0;
}

/* The first page at or behind `page` that is there, or UINT64_MAX. */
static uint64_t memory_next(struct memory *m, uint64_t page) REQUIRES_SHARED(m->lock)
{
	while (m->root && memory_reaches(m->height, page)) {
		struct memory_node *node = m->root;
		unsigned h = m->height;

		while (h > 1 && node->slots[memory_slot(h, page)])
			node = node->slots[memory_slot(h--, page)];
		if (h == 1 && node->slots[memory_slot(1, page)])
			return page;
		/* Nothing under this slot: on to the first page under the next */
		h = (h - 1) * MEMORY_NODE_BITS;
		page = ((page >> h) + 1) << h;
	}
	return UINT64_MAX;
}

/* The range reads as zeroes; whole pages are freed. */
static void memory_clear(struct memory *m, uint64_t off, uint64_t len) REQUIRES(m->lock)
{
	uint64_t end = off + len;

	for (uint64_t page = memory_next(m, off >> MEMORY_PAGE_BITS);
	     page != UINT64_MAX && page << MEMORY_PAGE_BITS < end;
	     page = memory_next(m, page + 1)) {
		uint64_t base = page << MEMORY_PAGE_BITS;
		uint64_t from = max_u64(off, base), to = min_u64(end, base + MEMORY_PAGE);
		void **slot = memory_find(m, page);

		if (to - from < MEMORY_PAGE) {
			memset((char *)*slot + (from - base), 0, to - from);
		} else {
			free(*slot);
			*slot = NULL;
			m->pages--;
		}
	}
}

static void memory_free_node(struct memory_node *node, unsigned height)
{
	if (!node)
		return;
	for (unsigned i = 0; i < MEMORY_FANOUT; i++)
		if (height > 1)
			memory_free_node(node->slots[i], height - 1);
		else
			free(node->slots[i]);
	free(node);
}

/* Nobody else has the store any more, so there is no lock to take. */
static void memory_close(struct store *s) NO_THREAD_SAFETY_ANALYSIS
{
	struct memory *m = memory_of(s);

	memory_free_node(m->root, m->height);
	rwlock_done(&m->lock);
	free(m);
}

static size_t memory_read_locked(struct memory *m, char *buf, size_t len, uint64_t off)
	REQUIRES_SHARED(m->lock)
{
	size_t done = 0;

	if (off >= m->size)
		return 0;
	len = (size_t)min_u64(len, m->size - off);
	while (done < len) {
		uint64_t at = off + done;
		size_t in_page = at & (MEMORY_PAGE - 1);
		size_t n = (size_t)min_u64(len - done, MEMORY_PAGE - in_page);
		void **slot = memory_find(m, at >> MEMORY_PAGE_BITS);

		if (slot && *slot)
			memcpy(buf + done, (char *)*slot + in_page, n);
		else
			memset(buf + done, 0, n);
		done += n;
	}
	return len;
}

static ssize_t memory_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	struct memory *m = memory_of(s);
	size_t n;

	rwlock_read(&m->lock);
	n = memory_read_locked(m, buf, len, off);
	rwlock_unread(&m->lock);
	return (ssize_t)n;
}

static int memory_write_locked(struct memory *m, const char *buf, size_t len, uint64_t off)
	REQUIRES(m->lock)
{
	for (size_t done = 0; done < len;) {
		uint64_t at = off + done;
		size_t in_page = at & (MEMORY_PAGE - 1);
		size_t n = (size_t)min_u64(len - done, MEMORY_PAGE - in_page);
		unsigned char *page;
		int r = memory_make(m, at >> MEMORY_PAGE_BITS, &page);

		if (r < 0)
			return r;
		memcpy(page + in_page, buf + done, n);
		done += n;
		/* Page by page, so that running out of memory never leaves bytes past the end */
		m->size = max_u64(m->size, at + n);
	}
	return 0;
}

static void memory_touch(struct memory *m) REQUIRES(m->lock)
{
	clock_gettime(CLOCK_REALTIME, &m->mtime);
}

static int memory_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct memory *m = memory_of(s);
	int r;

	if (!range_inside(off, len, m->limit))
		return -ENOSPC;
	rwlock_write(&m->lock);
	r = memory_write_locked(m, buf, len, off);
	memory_touch(m);
	rwlock_unwrite(&m->lock);
	return r;
}

static int memory_flush(struct store *s)
{
	return 0;
}

/* Discard and zero. */
static int memory_zero(struct store *s, uint64_t off, uint64_t len)
{
	struct memory *m = memory_of(s);

	rwlock_write(&m->lock);
	memory_clear(m, off, len);
	memory_touch(m);
	rwlock_unwrite(&m->lock);
	return 0;
}

static int memory_allocate(struct store *s, uint64_t off, uint64_t len)
{
	struct memory *m = memory_of(s);
	unsigned char *page;
	int r = 0;

	if (!range_inside(off, len, m->limit))
		return -ENOSPC;
	rwlock_write(&m->lock);
	for (uint64_t at = round_down(off, MEMORY_PAGE); r == 0 && at < off + len;
	     at += MEMORY_PAGE)
		r = memory_make(m, at >> MEMORY_PAGE_BITS, &page);
	rwlock_unwrite(&m->lock);
	return r;
}

static int memory_resize(struct store *s, uint64_t size)
{
	struct memory *m = memory_of(s);

	if (size > m->limit)
		return -ENOSPC;
	rwlock_write(&m->lock);
	if (size < m->size)
		memory_clear(m, size, round_up(m->size, MEMORY_PAGE) - size);
	m->size = size;
	memory_touch(m);
	rwlock_unwrite(&m->lock);
	return 0;
}

static int memory_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data,
		      uint64_t *ret_len)
{
	struct memory *m = memory_of(s);
	uint64_t first = off >> MEMORY_PAGE_BITS, end, page;
	bool data;

	rwlock_read(&m->lock);
	page = memory_next(m, first);
	data = page == first;
	if (data)
		while (page << MEMORY_PAGE_BITS < off + len && memory_next(m, page) == page)
			page++;
	rwlock_unread(&m->lock);

	end = page > INT64_MAX >> MEMORY_PAGE_BITS ? INT64_MAX : page << MEMORY_PAGE_BITS;
	*ret_data = data;
	*ret_len = min_u64(len, end - off);
	return 0;
}

static int memory_stat(struct store *s, struct store_stat *ret)
{
	struct memory *m = memory_of(s);

	rwlock_read(&m->lock);
	*ret = (struct store_stat){
		.size = m->size,
		.allocated = m->pages * MEMORY_PAGE,
		.block = MEMORY_PAGE,
		.mtime = m->mtime,
		.ctime = m->mtime,
	};
	rwlock_unread(&m->lock);
	return 0;
}

static const struct store_ops memory_ops = {
	.kind = "memory",
	.close = memory_close,
	.read = memory_read,
	.write = memory_write,
	.flush = memory_flush,
	.discard = memory_zero,
	.zero = memory_zero,
	.allocate = memory_allocate,
	.resize = memory_resize,
	.map = memory_map,
	.stat = memory_stat,
};

int store_memory_new(const char *name, uint64_t limit, struct store **ret)
{
	_cleanup_free_ struct memory *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	r = store_init(&m->store, &memory_ops, name, false);
	if (r < 0)
		return r;
	m->limit = min_u64(limit, INT64_MAX);
	rwlock_init(&m->lock);
	rwlock_write(&m->lock);
	memory_touch(m);
	rwlock_unwrite(&m->lock);
	*ret = &TAKE_PTR(m)->store;
	return 0;
}

int store_memory_from(const char *name, const void *data, size_t len, uint64_t limit,
		      struct store **ret)
{
	_cleanup_store_ struct store *s = NULL;
	int r = store_memory_new(name, limit, &s);

	if (r < 0)
		return r;
	r = store_write(s, data, len, 0);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lend.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

struct lend {
	struct store store;
	struct store *inner;
	atomic_int *lost; /* what the first flush that failed said */
	atomic_int own_lost;
};

static struct store *lend_inner(struct store *s)
{
	return ((struct lend *)s)->inner;
}

static void lend_close(struct store *s)
{
	free(s);
}

static ssize_t lend_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	return store_read(lend_inner(s), buf, len, off);
}

static int lend_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return store_write(lend_inner(s), buf, len, off);
}

static int lend_flush(struct store *s)
{
	struct lend *lend = (struct lend *)s;
	int r = atomic_load(lend->lost);

	if (r < 0)
		return r;
	r = store_flush(lend->inner);
	if (r < 0)
		atomic_store(lend->lost, r);
	return atomic_load(lend->lost);
}

static int lend_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct lend *lend = (struct lend *)s;
	int r = store_write(lend->inner, buf, len, off);

	if (r == 0)
		r = atomic_load(lend->lost);
	if (r < 0)
		return r;
	r = store_write_durable(lend->inner, buf, len, off);
	if (r < 0)
		atomic_store(lend->lost, r);
	return atomic_load(lend->lost);
}

static int lend_discard(struct store *s, uint64_t off, uint64_t len)
{
	return store_discard(lend_inner(s), off, len);
}

static int lend_zero(struct store *s, uint64_t off, uint64_t len)
{
	return store_zero(lend_inner(s), off, len);
}

static int lend_allocate(struct store *s, uint64_t off, uint64_t len)
{
	return store_allocate(lend_inner(s), off, len);
}

static int lend_resize(struct store *s, uint64_t size)
{
	return store_resize(lend_inner(s), size);
}

static int lend_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len)
{
	return store_map(lend_inner(s), off, len, ret_data, ret_len);
}

static int lend_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(lend_inner(s), ret);
}

static void lend_keep(struct store *s, atomic_int *lost)
{
	struct lend *lend = (struct lend *)s;
	int own = atomic_load(lend->lost);

	if (own < 0)
		atomic_store(lost, own);
	lend->lost = lost;
}

static const struct store_ops lend_ops = {
	.kind = "lent",
	.close = lend_close,
	.read = lend_read,
	.write = lend_write,
	.write_durable = lend_write_durable,
	.flush = lend_flush,
	.discard = lend_discard,
	.zero = lend_zero,
	.allocate = lend_allocate,
	.resize = lend_resize,
	.map = lend_map,
	.stat = lend_stat,
	.keep = lend_keep,
};

struct store *lend_new(struct store *inner, bool read_only)
{
	struct lend *lend = calloc(1, sizeof(*lend));

	assert(lend && store_init(&lend->store, &lend_ops, inner->name, read_only) == 0);
	lend->store.fixed = inner->fixed;
	lend->store.fixed_size = inner->fixed_size;
	lend->inner = inner;
	lend->lost = &lend->own_lost;
	return &lend->store;
}

int lend_lost(struct store *s)
{
	assert(s->ops == &lend_ops);
	return atomic_load(((struct lend *)s)->lost);
}

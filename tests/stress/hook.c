/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hook.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/checked.h"

struct hook_store {
	struct store store;
	struct store *inner;
	struct hook *hook;
};

static struct store *hook_inner(struct store *s, bool writes)
{
	struct hook_store *h = (struct hook_store *)s;

	h->hook->before(h->hook, writes);
	return h->inner;
}

static void hook_close(struct store *s)
{
	struct hook_store *h = (struct hook_store *)s;

	store_close(h->inner);
	free(h);
}

static ssize_t hook_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	return store_read(hook_inner(s, false), buf, len, off);
}

static int hook_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return store_write(hook_inner(s, true), buf, len, off);
}

static int hook_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return store_write_durable(hook_inner(s, true), buf, len, off);
}

static int hook_flush(struct store *s)
{
	return store_flush(hook_inner(s, true));
}

static int hook_discard(struct store *s, uint64_t off, uint64_t len)
{
	return store_discard(hook_inner(s, true), off, len);
}

static int hook_zero(struct store *s, uint64_t off, uint64_t len)
{
	return store_zero(hook_inner(s, true), off, len);
}

static int hook_allocate(struct store *s, uint64_t off, uint64_t len)
{
	return store_allocate(hook_inner(s, true), off, len);
}

static int hook_resize(struct store *s, uint64_t size)
{
	return store_resize(hook_inner(s, true), size);
}

static int hook_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len)
{
	return store_map(hook_inner(s, false), off, len, ret_data, ret_len);
}

static int hook_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(((struct hook_store *)s)->inner, ret);
}

static const struct store_ops hook_ops = {
	.kind = "hook",
	.close = hook_close,
	.read = hook_read,
	.write = hook_write,
	.write_durable = hook_write_durable,
	.flush = hook_flush,
	.discard = hook_discard,
	.zero = hook_zero,
	.allocate = hook_allocate,
	.resize = hook_resize,
	.map = hook_map,
	.stat = hook_stat,
};

int hook_store_new(struct store *inner, struct hook *hook, struct store **ret)
{
	struct hook_store *h;
	int r;

	if (!hook) {
		*ret = inner;
		return 0;
	}
	h = calloc(1, sizeof(*h));
	r = h ? store_init(&h->store, &hook_ops, inner->name, inner->read_only) : -ENOMEM;
	if (r < 0) {
		free(h);
		store_close(inner);
		return r;
	}
	h->inner = inner;
	h->hook = hook;
	*ret = &h->store;
	return 0;
}

/* Relaxed: the number must not order the threads that the sanitizer watches. */
static void hook_jitter_before(struct hook *hook, bool writes)
{
	static _Atomic uint32_t calls;
	uint32_t n = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);

	n *= UINT32_C(2654435761);
	if (n >> 29 == 0)
		sched_yield();
	if (n >> 26 == 63)
		usleep(30);
}

struct hook hook_jitter = {hook_jitter_before};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/activity.h"
#include "base/checked.h"

/*
 * The wrapper: what every kind of store has in common is checked here, once.
 */

/* Source of zeroes for stores that cannot zero; aligned so that O_DIRECT takes it as it is. */
static const _Alignas(4096) unsigned char store_zeroes[64 * 1024];

int store_init(struct store *s, const struct store_ops *ops, const char *name, bool read_only)
{
	char *copy;

	assert(ops->close && ops->read && ops->stat);
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	*s = (struct store){
		.ops = ops,
		.name = copy,
		.read_only = read_only || !ops->write,
	};
	return 0;
}

struct store *store_close(struct store *s)
{
	char *name;

	if (!s)
		return NULL;
	name = s->name;
	s->ops->close(s);
	free(name);
	return NULL;
}

/* May [off, off + len) be written at all? */
static int store_check_write(const struct store *s, uint64_t off, uint64_t len)
{
	if (s->read_only)
		return -EROFS;
	if (!range_inside(off, len, INT64_MAX))
		return -EFBIG;
	if (s->fixed && !range_inside(off, len, s->fixed_size))
		return -ENOSPC;
	return 0;
}

/* Cuts *len at the end of the store; 0 remains where the range starts behind it. */
static int store_clip(struct store *s, uint64_t off, uint64_t *len)
{
	uint64_t size;
	int r = store_size(s, &size);

	if (r < 0)
		return r;
	*len = off < size ? min_u64(*len, size - off) : 0;
	return 0;
}

ssize_t store_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	ACTIVITY_HOST;

	if (off >= INT64_MAX)
		return 0;
	len = (size_t)min_u64(len, INT64_MAX - off);
	if (len == 0)
		return 0;
	return s->ops->read(s, buf, len, off);
}

int store_read_full(struct store *s, void *buf, size_t len, uint64_t off)
{
	ssize_t n = store_read(s, buf, len, off);

	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : -EIO;
}

int store_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	ACTIVITY_HOST;
	int r = store_check_write(s, off, len);

	if (r < 0 || len == 0)
		return r;
	return s->ops->write(s, buf, len, off);
}

int store_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	ACTIVITY_HOST;
	int r = store_check_write(s, off, len);

	if (r < 0 || len == 0)
		return r;
	if (s->ops->write_durable)
		return s->ops->write_durable(s, buf, len, off);
	r = s->ops->write(s, buf, len, off);
	return r < 0 ? r : store_flush(s);
}

int store_flush(struct store *s)
{
	ACTIVITY_HOST;

	if (s->read_only || !s->ops->flush)
		return 0;
	return s->ops->flush(s);
}

void store_keep(struct store *s, atomic_int *lost)
{
	if (!s->read_only && s->ops->keep)
		s->ops->keep(s, lost);
}

int store_discard(struct store *s, uint64_t off, uint64_t len)
{
	ACTIVITY_HOST;
	int r;

	if (s->read_only)
		return -EROFS;
	if (!s->ops->discard)
		return -EOPNOTSUPP;
	r = store_clip(s, off, &len);
	if (r < 0 || len == 0)
		return r;
	return s->ops->discard(s, off, len);
}

/* The range lies inside the store, so this does not make it grow. */
static int store_write_zeroes(struct store *s, uint64_t off, uint64_t len)
{
	while (len > 0) {
		size_t n = (size_t)min_u64(len, sizeof(store_zeroes));
		int r = s->ops->write(s, store_zeroes, n, off);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

int store_zero(struct store *s, uint64_t off, uint64_t len)
{
	ACTIVITY_HOST;
	int r;

	if (s->read_only)
		return -EROFS;
	r = store_clip(s, off, &len);
	if (r < 0 || len == 0)
		return r;
	r = s->ops->zero ? s->ops->zero(s, off, len) : -EOPNOTSUPP;
	if (r == -EOPNOTSUPP)
		return store_write_zeroes(s, off, len);
	return r;
}

int store_allocate(struct store *s, uint64_t off, uint64_t len)
{
	ACTIVITY_HOST;
	int r = store_check_write(s, off, len);

	if (r < 0 || len == 0)
		return r;
	return s->ops->allocate ? s->ops->allocate(s, off, len) : -EOPNOTSUPP;
}

int store_resize(struct store *s, uint64_t size)
{
	ACTIVITY_HOST;

	if (s->read_only)
		return -EROFS;
	if (size > INT64_MAX)
		return -EFBIG;
	if (s->fixed && size == s->fixed_size)
		return 0;
	if (s->fixed)
		return size > s->fixed_size ? -ENOSPC : -EOPNOTSUPP;
	return s->ops->resize ? s->ops->resize(s, size) : -EOPNOTSUPP;
}

int store_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len)
{
	ACTIVITY_HOST;
	uint64_t inside = len;
	int r;

	assert(len > 0);
	r = store_clip(s, off, &inside);
	if (r < 0)
		return r;
	if (inside > 0 && s->ops->map)
		return s->ops->map(s, off, inside, ret_data, ret_len);
	*ret_data = inside > 0;
	*ret_len = inside > 0 ? inside : len;
	return 0;
}

int store_stat(struct store *s, struct store_stat *ret)
{
	ACTIVITY_HOST;
	struct store_stat st = {0};
	int r = s->ops->stat(s, &st);

	if (r < 0)
		return r;
	*ret = st;
	return 0;
}

int store_size(struct store *s, uint64_t *ret)
{
	struct store_stat st;
	int r;

	if (s->fixed) {
		*ret = s->fixed_size;
		return 0;
	}
	r = store_stat(s, &st);
	if (r < 0)
		return r;
	*ret = st.size;
	return 0;
}

int store_fd(struct store *s)
{
	return s->ops->fd ? s->ops->fd(s) : -1;
}

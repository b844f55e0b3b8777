/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/metasum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/image.h"

enum {
	METASUM_BLOCK = 64 << 10,
};

/* A store that is another one, and remembers what was read. */
struct metasum {
	struct store store;
	struct store *inner;
	uint64_t sum;
};

static void metasum_fold(struct metasum *m, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		m->sum = (m->sum ^ p[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
}

static void metasum_fold_number(struct metasum *m, uint64_t value)
{
	metasum_fold(m, &value, sizeof(value)); /* read again on the same machine */
}

static void metasum_close(struct store *s)
{
	free(s); /* the other one stays */
}

static ssize_t metasum_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	struct metasum *m = (struct metasum *)s;
	ssize_t n = store_read(m->inner, buf, len, off);

	metasum_fold_number(m, off);
	metasum_fold_number(m, (uint64_t)n);
	if (n > 0)
		metasum_fold(m, buf, (size_t)n);
	return n;
}

static int metasum_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data,
		       uint64_t *ret_len)
{
	return store_map(((struct metasum *)s)->inner, off, len, ret_data, ret_len);
}

static int metasum_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(((struct metasum *)s)->inner, ret);
}

static const struct store_ops metasum_ops = {
	.kind = "metasum",
	.close = metasum_close,
	.read = metasum_read,
	.map = metasum_map,
	.stat = metasum_stat,
};

static int metasum_new(struct store *inner, struct store **ret)
{
	struct metasum *m = calloc(1, sizeof(*m));
	int r = m ? store_init(&m->store, &metasum_ops, inner->name, true) : -ENOMEM;

	if (r < 0) {
		free(m);
		return r;
	}
	m->inner = inner;
	m->sum = UINT64_C(0xcbf29ce484222325);
	m->store.fixed = inner->fixed;
	m->store.fixed_size = inner->fixed_size;
	*ret = &m->store;
	return 0;
}

/* What is zero counts for nothing, whether it is a hole or not. */
static int metasum_fold_data(struct metasum *m, uint64_t off, uint64_t len)
{
	_cleanup_free_ uint8_t *block = malloc(METASUM_BLOCK);

	if (!block)
		return -ENOMEM;
	while (len > 0) {
		size_t n = (size_t)min_u64(len, METASUM_BLOCK - off % METASUM_BLOCK);
		int r = store_read_full(m->inner, block, n, off);

		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			if (block[i]) {
				metasum_fold_number(m, off + i);
				metasum_fold(m, block + i, 1);
			}
		off += n;
		len -= n;
	}
	return 0;
}

static int metasum_fold_behind(struct metasum *m, uint64_t off)
{
	uint64_t size, len;
	bool data;
	int r = store_size(m->inner, &size);

	for (; r == 0 && off < size; off += len) {
		r = store_map(m->inner, off, size - off, &data, &len);
		if (r == 0 && data)
			r = metasum_fold_data(m, off, len);
	}
	return r;
}

static void metasum_found(struct check *check, bool leak, uint64_t n, const char *text)
{
}

int metasum_take(struct store *store, const char *format, uint64_t from, const struct check *show,
		 uint64_t *ret, struct diag *diag)
{
	_cleanup_store_ struct store *s = NULL;
	struct check check = {.repair = CHECK_ONLY,
			      .data = show->data,
			      .found = metasum_found,
			      .progress = show->progress};
	int r = metasum_new(store, &s);

	if (r < 0)
		return diag_errno(diag, r, "%s", store->name);
	r = image_check(s, format, &check, diag);
	if (r < 0)
		return r;
	r = metasum_fold_behind((struct metasum *)s, from);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be read", store->name);
	*ret = ((struct metasum *)s)->sum;
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "toy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static const char toy_magic[8] = {'T', 'O', 'Y', '!'};

struct toy *toy_of(struct image *img)
{
	return img->driver;
}

uint8_t toy_packed_byte(uint64_t off)
{
	return (uint8_t)(0x80 | off / TOY_UNIT);
}

/* The toy that watches a store; tests run one at a time. */
static struct toy *toy_watching;
static const struct store_ops *toy_real_ops;
static struct store_ops toy_ops;

static int toy_store_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct toy *t = toy_watching;
	int fail;

	mutex_lock(&t->lock);
	t->dirty = true;
	fail = t->fail_write;
	t->fail_write = 0;
	mutex_unlock(&t->lock);
	return fail ? fail : toy_real_ops->write(s, buf, len, off);
}

static int toy_store_flush(struct store *s)
{
	struct toy *t = toy_watching;

	mutex_lock(&t->lock);
	t->dirty = false;
	t->flushes++;
	mutex_unlock(&t->lock);
	return toy_real_ops->flush(s);
}

struct store *toy_store(const char *name, const char *backing)
{
	struct store *s;
	char head[512] = {0};

	memcpy(head, toy_magic, sizeof(toy_magic));
	if (backing)
		strncpy(head + 8, backing, sizeof(head) - 9);
	return store_memory_from(name, head, sizeof(head), MIB(1), &s) < 0 ? NULL : s;
}

static int toy_open(struct image *img, struct diag *diag)
{
	char head[512];
	struct toy *t;

	if (store_read_full(img->store, head, sizeof(head), 0) < 0)
		return diag_set(diag, -EUCLEAN, "%s: too short for a toy", img->name);
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	mutex_init(&t->lock);
	t->next = TOY_HOST;
	for (unsigned i = 0; i < TOY_UNITS; i++)
		t->units[i].kind = EXTENT_PARENT;
	img->driver = t;
	img->size = TOY_SIZE;
	img->unit = TOY_UNIT;
	img->padded = true;
	if (head[8])
		img->backing_name = strdup(head + 8);
	if (strcmp(head + 8, "base") == 0)
		img->backing_format = strdup("raw");
	return 0;
}

static int toy_open_write(struct image *img, struct diag *diag)
{
	toy_watching = img->driver;
	toy_real_ops = img->store->ops;
	toy_ops = *toy_real_ops;
	toy_ops.write = toy_store_write;
	toy_ops.flush = toy_store_flush;
	img->store->ops = &toy_ops;
	return 0;
}

static void toy_close(struct image *img)
{
	struct toy *t = img->driver;

	if (img->store->ops == &toy_ops)
		img->store->ops = toy_real_ops;
	mutex_done(&t->lock);
	free(t);
}

static int toy_map(struct image *img, uint64_t off, uint64_t len, unsigned flags,
		   struct extent *ret)
{
	struct toy *t = img->driver;
	uint64_t in = off % TOY_UNIT;
	struct toy_unit u;

	mutex_lock(&t->lock);
	u = t->units[off / TOY_UNIT];
	mutex_unlock(&t->lock);
	*ret = (struct extent){.kind = u.kind,
			       .shared = u.shared,
			       .off = off,
			       .len = min_u64(len, TOY_UNIT - in),
			       .store = img->data,
			       .host_off = u.host_off + in};
	if (u.kind == EXTENT_PACKED) {
		ret->off -= in;
		ret->len = TOY_UNIT;
		ret->host_off = off / TOY_UNIT * 7 + 1;
		ret->host_len = 7;
	}
	return 0;
}

static int toy_unpack(struct image *img, const struct extent *ext, void *buf)
{
	toy_of(img)->unpacks++;
	memset(buf, toy_packed_byte(ext->off), TOY_UNIT);
	return 0;
}

static int toy_alloc(struct image *img, uint64_t off, uint64_t len, struct extent *ret)
{
	struct toy *t = img->driver;
	uint64_t start = round_down(off, TOY_UNIT), end = round_up(off + len, TOY_UNIT), size;
	int r;

	mutex_lock(&t->lock);
	*ret = (struct extent){.kind = EXTENT_DATA,
			       .fresh = !t->stale,
			       .off = start,
			       .len = end - start,
			       .store = img->data,
			       .host_off = t->next};
	t->next += end - start;
	t->allocs++;
	r = store_size(img->data, &size);
	if (r == 0 && size < t->next)
		r = store_resize(img->data, t->next);
	mutex_unlock(&t->lock);
	return r;
}

static int toy_link(struct image *img, const struct extent *ext)
{
	struct toy *t = img->driver;
	int r;

	mutex_lock(&t->lock);
	r = t->fail_link;
	t->fail_link = 0;
	t->unflushed_links += t->dirty;
	t->links++;
	for (uint64_t off = 0; r == 0 && off < ext->len; off += TOY_UNIT)
		t->units[(ext->off + off) / TOY_UNIT] =
			(struct toy_unit){.kind = EXTENT_DATA, .host_off = ext->host_off + off};
	atomic_store(&img->settle_wanted, true);
	mutex_unlock(&t->lock);
	return r;
}

static void toy_abandon(struct image *img, const struct extent *ext)
{
	struct toy *t = img->driver;

	mutex_lock(&t->lock);
	t->abandons++;
	mutex_unlock(&t->lock);
}

/* One unit at a time, so that the caller's loop is seen; parts of a unit cannot be said. */
static int toy_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
		     uint64_t *ret_done)
{
	struct toy *t = img->driver;
	uint64_t n = min_u64(len, TOY_UNIT - off % TOY_UNIT);
	struct toy_unit *u = &t->units[off / TOY_UNIT];

	*ret_done = n;
	if (n < TOY_UNIT)
		return 1;
	u->kind = EXTENT_ZERO;
	return 0;
}

/* Asked for after each link, as a driver that is short of space would. */
static void toy_settle(struct image *img)
{
	atomic_store(&img->settle_wanted, false);
	toy_of(img)->settles++;
}

static int toy_resize(struct image *img, uint64_t size, struct diag *diag)
{
	if (size > TOY_UNIT * TOY_UNITS)
		return diag_set(diag, -EFBIG, "%s: too large for a toy", img->name);
	img->size = size;
	return 0;
}

static const struct format toy_format = {
	.name = "toy",
	.magics = {{0, 4, {'T', 'O', 'Y', '!'}}},
	.open = toy_open,
	.open_write = toy_open_write,
	.close = toy_close,
	.map = toy_map,
	.unpack = toy_unpack,
	.alloc = toy_alloc,
	.link = toy_link,
	.abandon = toy_abandon,
	.settle = toy_settle,
	.unmap = toy_unmap,
	.resize = toy_resize,
};

/* raw, as far as these tests need it */
static int toy_raw_open(struct image *img, struct diag *diag)
{
	return store_size(img->store, &img->size);
}

static void toy_raw_close(struct image *img)
{
}

static int toy_raw_map(struct image *img, uint64_t off, uint64_t len, unsigned flags,
		       struct extent *ret)
{
	*ret = (struct extent){
		.kind = EXTENT_DATA, .off = off, .len = len, .store = img->data, .host_off = off};
	return 0;
}

static const struct format toy_raw = {.name = "raw",
				      .read_only = true,
				      .open = toy_raw_open,
				      .close = toy_raw_close,
				      .map = toy_raw_map};

const struct format *const formats[] = {&toy_format, &toy_raw, NULL};

int image_damaged(struct image *img, const char *fmt, ...)
{
	return -EUCLEAN;
}

const struct format *format_by_name(const char *name)
{
	for (unsigned i = 0; formats[i]; i++)
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	return NULL;
}

int format_probe(struct store *store, const struct format **ret)
{
	char head[4] = {0};
	ssize_t n = store_read(store, head, sizeof(head), 0);

	if (n < 0)
		return (int)n;
	*ret = memcmp(head, toy_magic, 4) == 0 ? &toy_format : NULL;
	return 0;
}

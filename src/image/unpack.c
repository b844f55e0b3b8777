/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/unpack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum {
	/* at most this much for small units, and two of the largest */
	UNPACK_BYTES = 1 << 20,
	UNPACK_ENTRIES_MIN = 2,
};

void unpack_init(struct unpack_cache *c, uint64_t unit)
{
	uint64_t n = max_u64(UNPACK_BYTES / max_u64(unit, 1), UNPACK_ENTRIES_MIN);

	memset(c, 0, sizeof(*c));
	c->n = (unsigned)min_u64(n, UNPACK_ENTRIES_MAX);
	for (unsigned i = 0; i < c->n; i++)
		mutex_init(&c->entries[i].lock);
}

void unpack_done(struct unpack_cache *c) NO_THREAD_SAFETY_ANALYSIS
{
	for (unsigned i = 0; i < c->n; i++) {
		free(c->entries[i].unit);
		mutex_done(&c->entries[i].lock);
	}
	c->n = 0;
}

/* Neighbouring units are a compressed size apart, which may be any number: mix the bits. */
static struct unpack_entry *unpack_entry(struct unpack_cache *c, uint64_t host_off)
{
	return &c->entries[(host_off * UINT64_C(0x9e3779b97f4a7c15) >> 32) % c->n];
}

static int unpack_fill(struct unpack_entry *e, struct image *img, const struct extent *ext)
	REQUIRES(e->lock)
{
	int r;

	if (e->valid && e->host_off == ext->host_off && e->host_len == ext->host_len)
		return 0;
	if (!e->unit)
		e->unit = malloc(img->unit);
	if (!e->unit)
		return -ENOMEM;
	e->valid = false;
	r = img->format->unpack(img, ext, e->unit);
	if (r < 0)
		return r;
	e->host_off = ext->host_off;
	e->host_len = ext->host_len;
	e->valid = true;
	return 0;
}

int unpack_read(struct unpack_cache *c, struct image *img, const struct extent *ext, void *buf,
		size_t len, uint64_t off)
{
	struct unpack_entry *e = unpack_entry(c, ext->host_off);
	int r;

	/* a whole unit will hardly be asked for again soon */
	if (off == ext->off && len == img->unit)
		return img->format->unpack(img, ext, buf);
	mutex_lock(&e->lock);
	r = unpack_fill(e, img, ext);
	if (r == 0)
		memcpy(buf, (char *)e->unit + (off - ext->off), len);
	mutex_unlock(&e->lock);
	return r;
}

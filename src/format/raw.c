/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Raw: guest bytes are host bytes. Nothing is allocated and nothing linked; holes are the host's
 * own and store_map() knows them.
 */

#include <errno.h>
#include <string.h>

#include "format/drivers.h"

static int raw_open(struct image *img, struct diag *diag)
{
	int r = store_size(img->store, &img->size);

	if (r < 0)
		return diag_errno(diag, r, "%s: cannot read its size", img->name);
	img->unit = 1;
	img->padded = false;
	return 0;
}

static void raw_close(struct image *img)
{
}

static int raw_map(struct image *img, uint64_t off, uint64_t len, unsigned flags,
		   struct extent *ret)
{
	*ret = (struct extent){
		.kind = EXTENT_DATA,
		.off = off,
		.len = len,
		.store = img->data,
		.host_off = off,
	};
	return 0;
}

static int raw_unmap(struct image *img, uint64_t off, uint64_t len, enum unmap_how how,
		     uint64_t *ret_done)
{
	int r = -EOPNOTSUPP;

	if (how == UNMAP_DISCARD)
		r = store_discard(img->store, off, len);
	if (r == -EOPNOTSUPP)
		r = store_zero(img->store, off, len);
	if (r < 0)
		return r;
	*ret_done = len;
	return 0;
}

static int raw_resize(struct image *img, uint64_t size, struct diag *diag)
{
	int r = store_resize(img->store, size);

	if (r < 0)
		return diag_errno(diag, r, "%s: cannot change its size to %llu bytes", img->name,
				  (unsigned long long)size);
	img->size = size;
	return 0;
}

const struct format format_raw = {
	.name = "raw",
	.description = "plain bytes, or a disk",
	.open = raw_open,
	.close = raw_close,
	.map = raw_map,
	.unmap = raw_unmap,
	.unmap_shared = true,
	.resize = raw_resize,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Persistent bitmaps, which say what was written since a backup: told of, not used. Whoever opens
 * the image for writing clears the autoclear bit that vouches for them (qcow2_header_clear_auto());
 * without it they are as good as not there.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

static int qcow2_bitmap_bad(struct qcow2_records *list, unsigned number, const char *what,
			    uint64_t value)
{
	return diag_set(list->diag, -EUCLEAN, "%s: bitmap %u has the %s %llu", list->img->name,
			number, what, (ull)value);
}

static int qcow2_bitmap_verify(struct qcow2_records *list, unsigned number,
			       const struct qcow2_disk_bitmap *b)
{
	uint32_t flags = be32_get(&b->flags);

	if (b->type != QCOW2_BITMAP_DIRTY_TRACKING)
		return qcow2_bitmap_bad(list, number, "unknown type", b->type);
	if (flags & ~(uint32_t)QCOW2_BITMAP_FLAGS)
		return qcow2_bitmap_bad(list, number, "unknown flags", flags);
	if (b->granularity_bits < QCOW2_BITMAP_GRANULARITY_MIN ||
	    b->granularity_bits > QCOW2_BITMAP_GRANULARITY_MAX)
		return qcow2_bitmap_bad(list, number, "granularity_bits", b->granularity_bits);
	if (be16_get(&b->name_size) > QCOW2_BITMAP_NAME_MAX)
		return qcow2_bitmap_bad(list, number, "name_size", be16_get(&b->name_size));
	return 0;
}

/* The next one of the directory. */
static int qcow2_bitmap_show(struct qcow2_records *list, unsigned number, format_bitmap_fn *fn,
			     void *data)
{
	_cleanup_free_ char *name = NULL;
	struct format_bitmap shown;
	struct qcow2_disk_bitmap b;
	int r;

	qcow2_records_align(list);
	r = qcow2_records_take(list, &b, sizeof(b));
	if (r == 0)
		r = qcow2_bitmap_verify(list, number, &b);
	if (r == 0)
		r = qcow2_records_take(list, NULL, be32_get(&b.extra_data_size));
	if (r == 0)
		r = qcow2_records_take_string(list, be16_get(&b.name_size), &name);
	if (r < 0)
		return r;
	shown = (struct format_bitmap){
		.name = name,
		.granularity = UINT64_C(1) << b.granularity_bits,
		.automatic = be32_get(&b.flags) & QCOW2_BITMAP_AUTO,
		.in_use = be32_get(&b.flags) & QCOW2_BITMAP_IN_USE,
	};
	return fn(data, &shown);
}

int qcow2_bitmaps(struct image *img, format_bitmap_fn *fn, void *data, struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_records list = {.img = img, .what = "bitmap directory", .diag = diag};
	struct qcow2_disk_bitmaps ext;
	uint64_t bytes;
	int r;

	if (!(atomic_load(&q->autoclear) & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = qcow2_header_extension(img, QCOW2_EXT_BITMAPS, &ext, sizeof(ext), diag);
	if (r <= 0)
		return r;
	list.at = be64_get(&ext.bitmap_directory_offset);
	bytes = be64_get(&ext.bitmap_directory_size);
	if (bytes > QCOW2_BITMAP_DIRECTORY_MAX)
		return diag_set(diag, -EFBIG,
				"%s: a bitmap directory of %llu bytes is over the limit of %llu",
				img->name, (ull)bytes, (ull)QCOW2_BITMAP_DIRECTORY_MAX);
	r = qcow2_header_table(img, q, "bitmap directory", list.at, bytes, diag);
	if (r == 0 && qcow2_beyond_end(q, list.at + bytes - 1))
		r = diag_set(diag, -EUCLEAN,
			     "%s: the bitmap directory at 0x%llx is outside the file", img->name,
			     (ull)list.at);
	list.end = list.at + bytes;
	for (unsigned i = 0; r == 0 && i < be32_get(&ext.nb_bitmaps); i++)
		r = qcow2_bitmap_show(&list, i, fn, data);
	return r;
}

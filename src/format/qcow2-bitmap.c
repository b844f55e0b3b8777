/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Persistent bitmaps, which say what was written since a backup: told of, not kept up to date. So
 * before the first write those that promise to follow every write get the mark "in use", as the
 * specification has it for whoever has the image open: until that is taken away they may be wrong,
 * and nobody makes an incremental backup by them. All else about them stays as it is: their
 * clusters, and those that do not follow writes.
 *
 *   marked, durable  ->  writes  ->  still marked: QEMU calls them inconsistent, people remove them
 *                    ->  closed in order without a single write: the marks go, they are right
 *
 * A mark is one word inside a sector, so each state on the way is a valid image. Who opens the
 * image after a crash finds the marks of the one before, which are not his to take away.
 */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

int qcow2_bitmap_directory(struct image *img, struct qcow2_bitmap_list *ret, struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_disk_bitmaps ext;
	struct qcow2_bitmap_list list;
	int r;

	/* Without the bit somebody has written who knows nothing of bitmaps: there are none */
	if (!(atomic_load(&q->autoclear) & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = qcow2_header_extension(img, QCOW2_EXT_BITMAPS, &ext, sizeof(ext), diag);
	if (r <= 0)
		return r;
	list.off = be64_get(&ext.bitmap_directory_offset);
	list.bytes = be64_get(&ext.bitmap_directory_size);
	list.n = be32_get(&ext.nb_bitmaps);
	if (list.bytes > QCOW2_BITMAP_DIRECTORY_MAX)
		return diag_set(diag, -EFBIG,
				"%s: a bitmap directory of %llu bytes is over the limit of %llu",
				img->name, (ull)list.bytes, (ull)QCOW2_BITMAP_DIRECTORY_MAX);
	r = qcow2_header_table(img, q, "bitmap directory", list.off, list.bytes, diag);
	if (r < 0)
		return r;
	if (qcow2_beyond_end(q, list.off + list.bytes - 1))
		return diag_set(diag, -EUCLEAN,
				"%s: the bitmap directory at 0x%llx is outside the file", img->name,
				(ull)list.off);
	*ret = list;
	return 1;
}

int qcow2_bitmap_each(struct image *img, const struct qcow2_bitmap_list *bitmaps,
		      qcow2_bitmap_fn *fn, void *data, struct diag *diag)
{
	struct qcow2_records list = {
		.img = img,
		.what = "bitmap directory",
		.at = bitmaps->off,
		.end = bitmaps->off + bitmaps->bytes,
		.diag = diag,
	};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < bitmaps->n; i++) {
		struct qcow2_bitmap b = {.number = i};

		qcow2_records_align(&list);
		b.at = list.at;
		r = qcow2_records_take(&list, &b.head, sizeof(b.head));
		if (r == 0)
			r = qcow2_records_take(&list, NULL, be32_get(&b.head.extra_data_size));
		if (r == 0)
			r = qcow2_records_take_string(&list, be16_get(&b.head.name_size), &b.name);
		if (r == 0)
			r = fn(data, &b);
		free(b.name);
	}
	return r;
}

static int qcow2_bitmap_bad(const struct image *img, const struct qcow2_bitmap *b,
			    struct diag *diag, const char *what, uint64_t value)
{
	return diag_set(diag, -EUCLEAN, "%s: bitmap %u has the %s %llu", img->name, b->number, what,
			(ull)value);
}

/* A bit for each granule of the disk; the mark says that this may not be so. */
static bool qcow2_bitmap_covers(const struct image *img, const struct qcow2_bitmap *b)
{
	uint64_t bytes = be32_get(&b->head.bitmap_table_size) * (uint64_t)img->unit;
	uint64_t bits = div_round_up(img->size, UINT64_C(1) << b->head.granularity_bits);

	return (be32_get(&b->head.flags) & QCOW2_BITMAP_IN_USE) || div_round_up(bits, 8) <= bytes;
}

int qcow2_bitmap_verify(const struct image *img, const struct qcow2_bitmap *b, struct diag *diag)
{
	uint32_t flags = be32_get(&b->head.flags);
	uint16_t name_size = be16_get(&b->head.name_size);
	uint8_t bits = b->head.granularity_bits;

	if (b->head.type != QCOW2_BITMAP_DIRTY_TRACKING)
		return qcow2_bitmap_bad(img, b, diag, "unknown type", b->head.type);
	if (flags & ~(uint32_t)QCOW2_BITMAP_FLAGS)
		return qcow2_bitmap_bad(img, b, diag, "unknown flags", flags);
	if (bits < QCOW2_BITMAP_GRANULARITY_MIN || bits > QCOW2_BITMAP_GRANULARITY_MAX)
		return qcow2_bitmap_bad(img, b, diag, "granularity_bits", bits);
	if (name_size == 0 || name_size > QCOW2_BITMAP_NAME_MAX)
		return qcow2_bitmap_bad(img, b, diag, "name_size", name_size);
	if (!qcow2_bitmap_covers(img, b))
		return qcow2_bitmap_bad(img, b, diag, "bitmap_table_size",
					be32_get(&b->head.bitmap_table_size));
	return 0;
}

/* For those who only look */

struct qcow2_bitmap_show {
	struct image *img;
	format_bitmap_fn *fn;
	void *data;
	struct diag *diag;
};

static int qcow2_bitmap_show_one(void *data, const struct qcow2_bitmap *b)
{
	const struct qcow2_bitmap_show *show = data;
	struct format_bitmap shown = {
		.name = b->name,
		.granularity = UINT64_C(1) << (b->head.granularity_bits & 63),
		.automatic = be32_get(&b->head.flags) & QCOW2_BITMAP_AUTO,
		.in_use = be32_get(&b->head.flags) & QCOW2_BITMAP_IN_USE,
	};
	int r = qcow2_bitmap_verify(show->img, b, show->diag);

	return r < 0 ? r : show->fn(show->data, &shown);
}

int qcow2_bitmaps(struct image *img, format_bitmap_fn *fn, void *data, struct diag *diag)
{
	struct qcow2_bitmap_show show = {.img = img, .fn = fn, .data = data, .diag = diag};
	struct qcow2_bitmap_list list;
	int r = qcow2_bitmap_directory(img, &list, diag);

	return r <= 0 ? r : qcow2_bitmap_each(img, &list, qcow2_bitmap_show_one, &show, diag);
}

/* For those who write */

struct qcow2_bitmap_marking {
	struct qcow2 *q;
	enum qcow2_bitmap_which which;
	struct qcow2_bitmap_marks *marks; /* with room for all */
	size_t written;
};

static int qcow2_bitmap_write_flags(struct qcow2 *q, uint64_t at, uint32_t flags)
{
	uint32_t disk;

	be32_put(&disk, flags);
	return store_write(q->img->store, &disk, sizeof(disk),
			   at + offsetof(struct qcow2_disk_bitmap, flags));
}

bool qcow2_bitmap_follows(const struct qcow2_bitmap *b)
{
	/* Of what we do not know we do not know either whether it depends on the disk's content */
	return (be32_get(&b->head.flags) & (QCOW2_BITMAP_AUTO | ~(uint32_t)QCOW2_BITMAP_FLAGS)) ||
	       b->head.type != QCOW2_BITMAP_DIRTY_TRACKING;
}

static int qcow2_bitmap_mark_one(void *data, const struct qcow2_bitmap *b)
{
	struct qcow2_bitmap_marking *m = data;
	uint32_t flags = be32_get(&b->head.flags);
	int r;

	if ((flags & QCOW2_BITMAP_IN_USE) ||
	    (m->which == QCOW2_BITMAPS_FOLLOWING && !qcow2_bitmap_follows(b)))
		return 0;
	r = qcow2_bitmap_write_flags(m->q, b->at, flags | QCOW2_BITMAP_IN_USE);
	if (r < 0)
		return r;
	m->written++;
	if (m->marks)
		m->marks->at[m->marks->n++] =
			(struct qcow2_bitmap_mark){.at = b->at, .flags = flags};
	return 0;
}

/* A directory on top of the tables in use would take them with it. */
static int qcow2_bitmap_check_place(struct qcow2 *q, const struct qcow2_bitmap_list *list,
				    struct diag *diag)
{
	struct qcow2_run run = {.first = list->off >> q->cluster_bits,
				.n = div_round_up(list->bytes, q->cluster_size)};
	const char *what;

	mutex_lock(&q->refcount_lock);
	what = qcow2_reftable_meets(q, &run);
	mutex_unlock(&q->refcount_lock);
	return what ? diag_set(diag, -EUCLEAN, "%s: the bitmap directory overlaps the %s",
			       q->img->name, what)
		    : 0;
}

static int qcow2_bitmap_nothing(void *data, const struct qcow2_bitmap *b)
{
	return 0;
}

int qcow2_bitmaps_mark(struct qcow2 *q, enum qcow2_bitmap_which which, struct diag *diag)
{
	struct qcow2_bitmap_marking m = {.q = q, .which = which};
	struct qcow2_bitmap_list list;
	int r = qcow2_bitmap_directory(q->img, &list, diag);

	if (r <= 0)
		return r;
	r = qcow2_bitmap_check_place(q, &list, diag);
	/* All of it can be read before any of it is written */
	if (r == 0)
		r = qcow2_bitmap_each(q->img, &list, qcow2_bitmap_nothing, NULL, diag);
	if (r < 0)
		return r;
	if (which == QCOW2_BITMAPS_FOLLOWING) {
		q->marks.at = calloc(list.n + UINT64_C(1), sizeof(*q->marks.at));
		if (!q->marks.at)
			return -ENOMEM;
		m.marks = &q->marks;
	}
	r = qcow2_bitmap_each(q->img, &list, qcow2_bitmap_mark_one, &m, diag);
	/* One that stands there already may be from a time whose flush failed */
	if (r == 0 && (m.written > 0 || which == QCOW2_BITMAPS_ALL))
		r = store_flush(q->img->store);
	return r < 0 ? diag_errno(diag, r, "%s: cannot mark its bitmaps as in use", q->img->name)
		     : 1;
}

int qcow2_bitmaps_unmark(struct qcow2 *q)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < q->marks.n; i++)
		r = qcow2_bitmap_write_flags(q, q->marks.at[i].at, q->marks.at[i].flags);
	q->marks.n = 0;
	return r;
}

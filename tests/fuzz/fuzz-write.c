/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Changing: any bytes give a changed image or a clean error. An image that a check found clean is
 * clean afterwards, too, has what was written, and its snapshots are what they were.
 */

#include <string.h>

#include "base/checked.h"
#include "fuzz.h"

enum { FUZZ_CHANGES = 20 };

enum fuzz_kind {
	FUZZ_WRITE,
	FUZZ_ZERO,
	FUZZ_DISCARD,
	FUZZ_ALLOCATE,
	FUZZ_RESIZE,
	FUZZ_FLUSH,
	FUZZ_IDLE,
};

/* One change, and what it leaves: `done` is the byte that all of it reads as then; else nobody
 * knows, and with len 0 nothing has changed. */
struct fuzz_change {
	enum fuzz_kind kind;
	uint64_t off, len, size;
	uint8_t byte;
	bool done;
};

static uint8_t fuzz_buf[FUZZ_PIECE];

static struct fuzz_change fuzz_plan(uint64_t disk, uint64_t seed, unsigned i)
{
	static const enum fuzz_kind kinds[] = {
		FUZZ_WRITE, FUZZ_WRITE,	  FUZZ_WRITE,	 FUZZ_ZERO,   FUZZ_DISCARD,
		FUZZ_WRITE, FUZZ_DISCARD, FUZZ_ALLOCATE, FUZZ_RESIZE, FUZZ_FLUSH};
	uint64_t mixed = fuzz_offset(UINT64_MAX, seed, 100 + i);
	struct fuzz_change c = {.kind = kinds[mixed / FUZZ_PIECE % ARRAY_SIZE(kinds)],
				.off = fuzz_offset(disk, seed, 8 + i)};

	c.len = min_u64(1 + mixed % FUZZ_PIECE, disk - c.off);
	if (c.kind == FUZZ_WRITE)
		c.byte = (uint8_t)(i + 1);
	if (c.kind == FUZZ_RESIZE) /* a little more or less, or anything, or beyond this L1 table */
		c.size = i % 2	 ? disk + mixed % (2 * FUZZ_PIECE) - min_u64(FUZZ_PIECE, disk)
			 : i % 4 ? fuzz_offset(2 * disk, seed, 50 + i)
				 : disk + mixed % (64 * FUZZ_STORE_MAX);
	return c;
}

/* New bytes are zeroes, and so are those that were cut off should they come back. */
static int fuzz_resize(struct image *img, struct fuzz_change *c)
{
	uint64_t disk = image_size(img);
	struct diag diag = {0};
	int r = image_resize(img, c->size, &diag);

	c->off = min_u64(disk, c->size);
	c->len = r < 0 ? 0 : max_u64(disk, c->size) - c->off;
	fuzz_must(r == 0 || diag.text[0], "a refusal says why");
	fuzz_must(image_size(img) == (r < 0 ? disk : c->size), "the size is what it was set to");
	return r;
}

static int fuzz_do(struct image *img, struct fuzz_change *c)
{
	switch (c->kind) {
	case FUZZ_WRITE:
		memset(fuzz_buf, c->byte, (size_t)c->len);
		return image_write(img, fuzz_buf, (size_t)c->len, c->off);
	case FUZZ_ZERO:
		return image_zero(img, c->off, c->len);
	case FUZZ_DISCARD:
		return image_discard(img, c->off, c->len);
	case FUZZ_RESIZE:
		return fuzz_resize(img, c);
	case FUZZ_ALLOCATE:
		image_allocate(img, c->off, c->len);
		c->len = 0;
		return 0;
	case FUZZ_FLUSH:
		image_flush(img);
		c->len = 0;
		return 0;
	case FUZZ_IDLE: /* the first one finds that something has happened */
		image_idle(img);
		image_idle(img);
		c->len = 0;
		return 0;
	}
	return -1;
}

/* Who changed the byte last? NULL: nobody. */
static const struct fuzz_change *fuzz_last(const struct fuzz_change *c, uint64_t off)
{
	for (unsigned i = FUZZ_CHANGES; i > 0; i--)
		if (off >= c[i - 1].off && off - c[i - 1].off < c[i - 1].len)
			return &c[i - 1];
	return NULL;
}

static void fuzz_verify(struct image *img, const struct fuzz_change *c)
{
	for (unsigned i = 0; i < FUZZ_CHANGES; i++) {
		uint64_t disk = image_size(img), off = min_u64(c[i].off, disk);
		size_t len = (size_t)min_u64(min_u64(c[i].len, FUZZ_PIECE), disk - off);

		if (!c[i].done || len == 0)
			continue;
		/* compressed data that is not changed here may be damaged in a clean image */
		fuzz_must(image_read(img, fuzz_buf, len, off) == 0, "it can be read");
		for (size_t k = 0; k < len; k++) {
			const struct fuzz_change *last = fuzz_last(c, off + k);

			fuzz_must(!last->done || fuzz_buf[k] == last->byte,
				  "what was written is there");
		}
	}
}

static void fuzz_change_all(struct image *img, struct fuzz_change *c, uint64_t seed)
{
	for (unsigned i = 0; i < FUZZ_CHANGES; i++) {
		c[i] = fuzz_plan(image_size(img), seed, i);
		c[i].done = fuzz_do(img, &c[i]) == 0;
		if (i % 5 == 4)
			image_flush(img);
	}
}

/* Dirty bitmaps are dropped by a writer, and what they took is leaked until a repair. */
static bool fuzz_has_bitmaps(const uint8_t *data, size_t size)
{
	return size > 95 && (data[95] & 1); /* autoclear_features, bit 0 */
}

static void fuzz_still_clean(struct store *store, bool leaks_allowed)
{
	struct check check;
	bool clean = fuzz_clean(store, CHECK_ONLY, &check);

	fuzz_must(clean || (leaks_allowed && check.corruptions == 0), "a clean image stays clean");
}

/* Refcounts of clusters behind the end of the file are seen only once the file reaches there. */
static bool fuzz_clean_throughout(const uint8_t *data, size_t size)
{
	_cleanup_store_ struct store *longer = fuzz_store(data, size);

	fuzz_must(store_resize(longer, FUZZ_STORE_MAX) == 0, "memory");
	return fuzz_clean(longer, CHECK_ONLY, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options options = {.format = "qcow2", .discard = true, .opener = &fuzz_opener};
	_cleanup_store_ struct store *store = fuzz_store(data, size);
	bool clean = fuzz_clean_throughout(data, size) && fuzz_clean(store, CHECK_ONLY, NULL);
	uint64_t snapshots = clean ? fuzz_snapshots(&options, store) : 0;
	struct fuzz_change changes[FUZZ_CHANGES];
	struct image_kept kept = {0};
	struct fuzz_window window;
	struct image *img;
	int r;

	fuzz_window_init(&window, store);
	img = fuzz_open(&window.store, &options);
	if (!img)
		return 0;
	image_keep(img, &kept);
	fuzz_change_all(img, changes, fuzz_seed(data, size));
	if (clean)
		fuzz_verify(img, changes);
	r = image_close(img);
	if (!clean)
		return 0;
	fuzz_must(r == 0, "memory can be flushed");
	fuzz_still_clean(store, fuzz_has_bitmaps(data, size));
	fuzz_must(fuzz_snapshots(&options, store) == snapshots, "snapshots stay what they are");
	return 0;
}

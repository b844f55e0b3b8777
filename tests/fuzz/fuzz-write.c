/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Writing: any bytes give a written image or a clean error. An image that a check found clean is
 * clean afterwards, too, and has what was written.
 */

#include <string.h>

#include "base/checked.h"
#include "fuzz.h"
#include "image/image.h"

enum { FUZZ_WRITES = 16 };

struct fuzz_write {
	uint64_t off;
	size_t len;
	uint8_t byte;
	bool done;
};

static uint8_t fuzz_buf[FUZZ_PIECE];

static struct fuzz_write fuzz_plan(uint64_t disk, uint64_t seed, unsigned i)
{
	uint64_t mixed = fuzz_offset(UINT64_MAX, seed, 100 + i);
	struct fuzz_write w = {.off = fuzz_offset(disk, seed, 8 + i), .byte = (uint8_t)(i + 1)};

	w.len = (size_t)min_u64(1 + mixed % FUZZ_PIECE, disk - w.off);
	return w;
}

/* Who wrote the byte last? */
static const struct fuzz_write *fuzz_last(const struct fuzz_write *w, uint64_t off)
{
	for (unsigned i = FUZZ_WRITES; i > 0; i--)
		if (off >= w[i - 1].off && off - w[i - 1].off < w[i - 1].len)
			return &w[i - 1];
	return NULL;
}

static void fuzz_verify(struct image *img, const struct fuzz_write *w)
{
	for (unsigned i = 0; i < FUZZ_WRITES; i++) {
		if (!w[i].done) /* compressed data may be damaged in an image that checks clean */
			continue;
		fuzz_must(image_read(img, fuzz_buf, w[i].len, w[i].off) == 0, "it can be read");
		for (size_t k = 0; k < w[i].len; k++) {
			const struct fuzz_write *last = fuzz_last(w, w[i].off + k);

			fuzz_must(!last->done || fuzz_buf[k] == last->byte,
				  "what was written is there");
		}
	}
}

/* Returns whether every write succeeded or failed for want of space. */
static void fuzz_write_all(struct image *img, struct fuzz_write *w, uint64_t seed)
{
	for (unsigned i = 0; i < FUZZ_WRITES; i++) {
		w[i] = fuzz_plan(image_size(img), seed, i);
		memset(fuzz_buf, w[i].byte, w[i].len);
		w[i].done = image_write(img, fuzz_buf, w[i].len, w[i].off) == 0;
		if (i % 5 == 4)
			image_flush(img);
	}
}

/* image_close() takes the store along; what it left is looked at through a window that stays. */
static ssize_t fuzz_window_read(struct store *s, void *buf, size_t len, uint64_t off);
static int fuzz_window_write(struct store *s, const void *buf, size_t len, uint64_t off);
static int fuzz_window_resize(struct store *s, uint64_t size);
static int fuzz_window_stat(struct store *s, struct store_stat *ret);
static void fuzz_window_close(struct store *s);

static const struct store_ops fuzz_window_ops = {
	.kind = "window",
	.close = fuzz_window_close,
	.read = fuzz_window_read,
	.write = fuzz_window_write,
	.resize = fuzz_window_resize,
	.stat = fuzz_window_stat,
};

struct fuzz_window {
	struct store store;
	struct store *inner;
};

static struct store *fuzz_inner(struct store *s)
{
	return ((struct fuzz_window *)s)->inner;
}

static ssize_t fuzz_window_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	return store_read(fuzz_inner(s), buf, len, off);
}

static int fuzz_window_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return store_write(fuzz_inner(s), buf, len, off);
}

static int fuzz_window_resize(struct store *s, uint64_t size)
{
	return store_resize(fuzz_inner(s), size);
}

static int fuzz_window_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(fuzz_inner(s), ret);
}

static void fuzz_window_close(struct store *s)
{
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
	struct image_options options = {.format = "qcow2"};
	_cleanup_store_ struct store *store = fuzz_store(data, size);
	bool clean = fuzz_clean_throughout(data, size) && fuzz_clean(store, CHECK_ONLY, NULL);
	struct fuzz_window window = {.inner = store};
	struct fuzz_write writes[FUZZ_WRITES];
	struct image *img = NULL;
	struct diag diag = {0};
	int r;

	fuzz_must(store_init(&window.store, &fuzz_window_ops, "input", false) == 0, "memory");
	r = image_open(&window.store, &options, &img, &diag);
	if (r < 0) {
		fuzz_must(diag.text[0], "a refusal says why");
		return 0;
	}
	fuzz_write_all(img, writes, fuzz_seed(data, size));
	if (clean)
		fuzz_verify(img, writes);
	r = image_close(img);
	if (clean) {
		fuzz_must(r == 0, "memory can be flushed");
		fuzz_still_clean(store, fuzz_has_bitmaps(data, size));
	}
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

void fuzz_must(bool kept, const char *promise)
{
	if (kept)
		return;
	fprintf(stderr, "broken: %s\n", promise);
	abort();
}

struct store *fuzz_store(const uint8_t *data, size_t size)
{
	struct store *s = NULL;

	fuzz_must(store_memory_from("input", data, size, FUZZ_STORE_MAX, &s) == 0, "memory");
	return s;
}

uint64_t fuzz_offset(uint64_t size, uint64_t seed, unsigned i)
{
	uint64_t last = size > FUZZ_PIECE ? size - FUZZ_PIECE : 0;

	if (i < 8)
		return min_u64((uint64_t)i * FUZZ_PIECE, last);
	if (i == 8)
		return last;
	/* splitmix64: the same input, the same offsets */
	seed += i * UINT64_C(0x9e3779b97f4a7c15);
	seed = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	seed ^= seed >> 31;
	return last ? seed % last : 0;
}

uint64_t fuzz_seed(const uint8_t *data, size_t size)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < size; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h;
}

bool fuzz_clean(struct store *store, enum check_repair repair, struct check *ret)
{
	struct check check = {.repair = repair, .memory = MIB(1)};
	struct diag diag = {0};
	int r = image_check(store, "qcow2", &check, &diag);

	fuzz_must(r == 0 || diag.text[0], "a check that fails says why");
	if (ret)
		*ret = check;
	return r == 0 && check.leaks == 0 && check.corruptions == 0 && !check.marked_dirty &&
	       !check.marked_corrupt;
}

static int fuzz_open_named(struct image_opener *opener, const char *parent, enum image_role role,
			   const char *name, bool writable, struct store **ret, struct diag *diag)
{
	uint8_t disk[100 * 1000];

	for (size_t i = 0; i < sizeof(disk); i++)
		disk[i] = (uint8_t)(i / 512 % 5);
	if (strlen(name) > 64)
		return diag_set(diag, -ENOENT, "no such file");
	return store_memory_from(name, disk, role == IMAGE_ROLE_BACKING ? sizeof(disk) : 0,
				 FUZZ_STORE_MAX, ret);
}

struct image_opener fuzz_opener = {fuzz_open_named};

struct image *fuzz_open(struct store *store, const struct image_options *options)
{
	struct image *img = NULL;
	struct diag diag = {0};

	if (image_open(store, options, &img, &diag) < 0) {
		fuzz_must(diag.text[0], "a refusal says why");
		return NULL;
	}
	fuzz_must(options->opener || (!img->backing_name && !img->data_name),
		  "other files are opened by the opener alone");
	return img;
}

static ssize_t fuzz_window_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	return store_read(((struct fuzz_window *)s)->inner, buf, len, off);
}

static int fuzz_window_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return store_write(((struct fuzz_window *)s)->inner, buf, len, off);
}

static int fuzz_window_discard(struct store *s, uint64_t off, uint64_t len)
{
	return store_discard(((struct fuzz_window *)s)->inner, off, len);
}

static int fuzz_window_resize(struct store *s, uint64_t size)
{
	return store_resize(((struct fuzz_window *)s)->inner, size);
}

static int fuzz_window_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data,
			   uint64_t *ret_len)
{
	return store_map(((struct fuzz_window *)s)->inner, off, len, ret_data, ret_len);
}

static int fuzz_window_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(((struct fuzz_window *)s)->inner, ret);
}

static void fuzz_window_close(struct store *s)
{
}

static const struct store_ops fuzz_window_ops = {
	.kind = "window",
	.close = fuzz_window_close,
	.read = fuzz_window_read,
	.write = fuzz_window_write,
	.discard = fuzz_window_discard,
	.resize = fuzz_window_resize,
	.map = fuzz_window_map,
	.stat = fuzz_window_stat,
};

void fuzz_window_init(struct fuzz_window *w, struct store *inner)
{
	*w = (struct fuzz_window){.inner = inner};
	fuzz_must(store_init(&w->store, &fuzz_window_ops, "input", false) == 0, "memory");
}

/* The ids of the first snapshots. */
struct fuzz_ids {
	unsigned n;
	char id[3][32];
};

static int fuzz_snapshot_id(void *data, const struct format_snapshot *s)
{
	struct fuzz_ids *ids = data;

	if (ids->n == 3)
		return 1;
	snprintf(ids->id[ids->n++], sizeof(ids->id[0]), "%s", s->id);
	return 0;
}

static uint64_t fuzz_snapshot(const struct image_options *options, struct store *store,
			      const char *id)
{
	struct image_options one = {.format = options->format,
				    .read_only = true,
				    .snapshot = id,
				    .opener = options->opener};
	static uint8_t buf[FUZZ_PIECE];
	struct fuzz_window window;
	struct image *img;
	uint64_t h = 0;

	fuzz_window_init(&window, store);
	img = fuzz_open(&window.store, &one);
	for (unsigned i = 0; img && i < 12; i++) {
		uint64_t off = fuzz_offset(image_size(img), 0, i);
		size_t len = (size_t)min_u64(FUZZ_PIECE, image_size(img) - off);

		h = h * 31 + (image_read(img, buf, len, off) < 0 ? i : fuzz_seed(buf, len));
	}
	fuzz_must(image_close(img) == 0, "nothing was written, so nothing can fail");
	return h;
}

uint64_t fuzz_snapshots(const struct image_options *options, struct store *store)
{
	struct image_options active = {
		.format = options->format, .read_only = true, .opener = options->opener};
	struct fuzz_ids ids = {0};
	struct fuzz_window window;
	struct diag diag = {0};
	struct image *img;
	uint64_t h = 0;

	fuzz_window_init(&window, store);
	img = fuzz_open(&window.store, &active);
	if (img && img->format->snapshots(img, fuzz_snapshot_id, &ids, &diag) < 0)
		fuzz_must(diag.text[0], "who cannot list them says why");
	fuzz_must(image_close(img) == 0, "nothing was written, so nothing can fail");
	for (unsigned i = 0; i < ids.n; i++)
		h = h * 31 + fuzz_snapshot(options, store, ids.id[i]);
	return h;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Opening and reading: any bytes give data or a clean error, and the extents agree with the data.
 */

#include "base/checked.h"
#include "fuzz.h"
#include "image/image.h"

static uint8_t fuzz_buf[FUZZ_PIECE];

/* What the extents call zero reads as zeroes. */
static void fuzz_piece(struct image *img, uint64_t off, size_t len)
{
	struct image_extent ext;

	if (image_read(img, fuzz_buf, len, off) < 0)
		return;
	for (size_t done = 0; done < len; done += (size_t)ext.len) {
		if (image_map(img, off + done, len - done, &ext) < 0)
			return;
		fuzz_must(ext.len > 0 && ext.len <= len - done, "an extent lies in its range");
		for (size_t i = 0; ext.zero && i < ext.len; i++)
			fuzz_must(fuzz_buf[done + i] == 0, "a zero extent reads as zeroes");
	}
}

static int fuzz_bitmap(void *data, const struct format_bitmap *b)
{
	fuzz_must(b->name != NULL, "a bitmap has a name");
	return 0;
}

static void fuzz_look(struct image *img, uint64_t seed)
{
	struct format_info info = {0};
	uint64_t disk = image_size(img), off;
	struct diag diag = {0};

	for (unsigned i = 0; i < 24; i++) {
		off = fuzz_offset(disk, seed, i);
		fuzz_piece(img, off, (size_t)min_u64(FUZZ_PIECE, disk - off));
	}
	if (image_seek(img, fuzz_offset(disk, seed, 24), UINT64_MAX, true, &off) == 0)
		fuzz_must(off < disk, "data is inside the disk");
	if (img->format->info)
		img->format->info(img, &info);
	if (img->format->bitmaps(img, fuzz_bitmap, NULL, &diag) < 0)
		fuzz_must(diag.text[0], "who cannot list them says why");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options alone = {.format = "qcow2", .read_only = true};
	struct image_options options = {
		.format = "qcow2", .read_only = true, .opener = &fuzz_opener};
	_cleanup_store_ struct store *store = fuzz_store(data, size);
	struct image *img = fuzz_open(fuzz_store(data, size), &alone);

	if (!img) /* maybe because it names other files */
		img = fuzz_open(fuzz_store(data, size), &options);
	if (!img)
		return 0;
	fuzz_look(img, fuzz_seed(data, size));
	fuzz_must(image_close(img) == 0, "nothing was written, so nothing can fail");
	fuzz_snapshots(&options, store);
	return 0;
}

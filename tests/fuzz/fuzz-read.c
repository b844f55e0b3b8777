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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options options = {.format = "qcow2", .read_only = true};
	uint64_t seed = fuzz_seed(data, size);
	struct format_info info = {0};
	struct image *img = NULL;
	struct diag diag = {0};
	uint64_t disk;

	if (image_open(fuzz_store(data, size), &options, &img, &diag) < 0) {
		fuzz_must(diag.text[0], "a refusal says why");
		return 0;
	}
	disk = image_size(img);
	for (unsigned i = 0; i < 24; i++) {
		uint64_t off = fuzz_offset(disk, seed, i);

		fuzz_piece(img, off, (size_t)min_u64(FUZZ_PIECE, disk - off));
	}
	if (img->format->info)
		img->format->info(img, &info);
	fuzz_must(image_close(img) == 0, "nothing was written, so nothing can fail");
	return 0;
}

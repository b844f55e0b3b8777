/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Compressed clusters of writers other than QEMU, and bombs. */

#include "crafted.h"
#include "harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2-disk.h"

enum { ROOM = CRAFTED_CLUSTER };

/* Text whose matches are further away than 4 KiB. */
static void far_text(uint8_t *p, size_t len)
{
	uint64_t state = 3;

	for (size_t i = 0; i < len; i++)
		p[i] = i < 30000 ? (uint8_t)random_next(&state) : p[i - 30000];
}

static size_t deflate_raw(const uint8_t *in, size_t len, uint8_t *out, int window, bool finish)
{
	z_stream z = {
		.next_in = (Bytef *)in, .avail_in = (uInt)len, .next_out = out, .avail_out = ROOM};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -window, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_true(deflate(&z, finish ? Z_FINISH : Z_SYNC_FLUSH) >= 0);
	deflateEnd(&z);
	return z.total_out;
}

/* An image whose first cluster is these compressed bytes, with rubbish behind them. */
static void open_packed(struct disk *d, const uint8_t *packed, size_t len, bool zstd)
{
	_cleanup_free_ uint8_t *image = crafted_new();
	struct qcow2_disk_header *h = (void *)image;
	struct diag diag = {0};
	struct store *s;

	if (zstd) {
		be64_put(&h->incompatible_features, QCOW2_INCOMPAT_COMPRESSION);
		be32_put(&h->header_length, sizeof(*h));
		h->compression_type = QCOW2_COMPRESSION_ZSTD;
	}
	memcpy(image + CRAFTED_DATA, packed, len);
	be64_put(image + CRAFTED_L2,
		 QCOW2_COMPRESSED | CRAFTED_DATA | (uint64_t)((len - 1) / 512) << 54);
	assert_int_equal(store_memory_from("img", image, CRAFTED_BYTES, MIB(1), &s), 0);
	if (disk_open_store(d, s, "qcow2", false, &diag) < 0)
		fail_msg("%s", diag.text);
}

static int read_packed(const uint8_t *packed, size_t len, bool zstd, uint8_t *ret)
{
	struct disk d;
	int r;

	open_packed(&d, packed, len, zstd);
	r = disk_read(&d, ret, CRAFTED_CLUSTER, 0);
	assert_true(r == 0 || strstr(d.img.damage, "does not unpack"));
	disk_close(&d);
	return r;
}

static void test_deflate_window(void **state)
{
	_cleanup_free_ uint8_t *text = malloc(CRAFTED_CLUSTER), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);

	far_text(text, CRAFTED_CLUSTER);
	for (int window = 9; window <= 15; window += 3) {
		size_t len = deflate_raw(text, CRAFTED_CLUSTER, packed, window, true);

		if (len >= ROOM) /* a small window finds nothing to pack here */
			continue;
		assert_int_equal(read_packed(packed, len, false, have), 0);
		assert_memory_equal(have, text, CRAFTED_CLUSTER);
	}
}

/* All bytes are there, the end marker is not. */
static void test_deflate_no_end(void **state)
{
	_cleanup_free_ uint8_t *text = calloc(1, CRAFTED_CLUSTER), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);
	size_t len = deflate_raw(text, CRAFTED_CLUSTER, packed, 12, false);

	assert_int_equal(read_packed(packed, len, false, have), 0);
	assert_memory_equal(have, text, CRAFTED_CLUSTER);
}

/* More than a cluster comes out: the first cluster of it counts, and no memory beyond is touched.
 */
static void test_too_long(void **state)
{
	_cleanup_free_ uint8_t *text = calloc(1, MIB(16)), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);
	size_t len = deflate_raw(text, MIB(16), packed, 15, true);

	assert_int_equal(read_packed(packed, len, false, have), 0);
	assert_memory_equal(have, text, CRAFTED_CLUSTER);
	len = ZSTD_compress(packed, ROOM, text, MIB(16), 1);
	assert_false(ZSTD_isError(len));
	assert_int_equal(read_packed(packed, len, true, have), 0);
	assert_memory_equal(have, text, CRAFTED_CLUSTER);
}

/* A frame that makes its reader allocate 128 MiB before the first byte. */
static void test_zstd_window(void **state)
{
	_cleanup_free_ uint8_t *text = calloc(1, CRAFTED_CLUSTER), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	ZSTD_inBuffer in = {.src = text, .size = CRAFTED_CLUSTER};
	ZSTD_outBuffer out = {.dst = packed, .size = ROOM};

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, 27);
	assert_false(ZSTD_isError(ZSTD_compressStream2(ctx, &out, &in, ZSTD_e_flush)));
	assert_int_equal(ZSTD_compressStream2(ctx, &out, &in, ZSTD_e_end), 0);
	ZSTD_freeCCtx(ctx);
	assert_int_equal(read_packed(packed, out.pos, true, have), -EUCLEAN);
}

static void test_too_short(void **state)
{
	_cleanup_free_ uint8_t *text = calloc(1, CRAFTED_CLUSTER), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);
	size_t len = deflate_raw(text, CRAFTED_CLUSTER - 1, packed, 12, true);

	assert_int_equal(read_packed(packed, len, false, have), -EUCLEAN);
	len = ZSTD_compress(packed, ROOM, text, CRAFTED_CLUSTER - 1, 1);
	assert_int_equal(read_packed(packed, len, true, have), -EUCLEAN);
}

static void test_zstd(void **state)
{
	_cleanup_free_ uint8_t *text = malloc(CRAFTED_CLUSTER), *packed = malloc(ROOM),
			       *have = malloc(CRAFTED_CLUSTER);
	size_t len;

	far_text(text, CRAFTED_CLUSTER);
	len = ZSTD_compress(packed, ROOM, text, CRAFTED_CLUSTER, 19);
	assert_false(ZSTD_isError(len));
	assert_int_equal(read_packed(packed, len, true, have), 0);
	assert_memory_equal(have, text, CRAFTED_CLUSTER);
	/* Cut in the middle */
	assert_int_equal(read_packed(packed, 600, true, have), -EUCLEAN);
}

static void test_noise(void **state)
{
	_cleanup_free_ uint8_t *noise = malloc(ROOM), *have = malloc(CRAFTED_CLUSTER);
	uint64_t random = 1;

	for (int round = 0; round < 300; round++) {
		for (size_t i = 0; i < 2048; i++)
			noise[i] = (uint8_t)random_next(&random);
		read_packed(noise, 2048, round % 2, have);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deflate_window), cmocka_unit_test(test_deflate_no_end),
		cmocka_unit_test(test_too_long),       cmocka_unit_test(test_too_short),
		cmocka_unit_test(test_zstd),	       cmocka_unit_test(test_zstd_window),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

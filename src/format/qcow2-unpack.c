/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Compressed clusters. What comes out is at most one cluster and what goes in at most two, so the
 * work is bounded whatever the bytes say.
 */

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "format/qcow2.h"

enum {
	/* QEMU writes raw deflate with a window of 4 KiB; other writers use zlib's full 32 KiB */
	QCOW2_DEFLATE_WINDOW_BITS = 15,
	/* A frame holds one cluster of at most 2 MiB, so no window needs to be larger; a frame that
	 * asks for more would make us allocate it */
	QCOW2_ZSTD_WINDOW_LOG_MAX = 23,
};

/* Both return -EUCLEAN when no full cluster comes out. */
static int qcow2_unpack_deflate(const uint8_t *in, size_t in_len, void *out, size_t out_len)
{
	z_stream z = {
		.next_in = (Bytef *)in,
		.avail_in = (uInt)in_len,
		.next_out = out,
		.avail_out = (uInt)out_len,
	};

	if (inflateInit2(&z, -QCOW2_DEFLATE_WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* The sector behind the last byte may hold anything, and QEMU's writer may leave out the
	 * end marker: a full cluster is what counts */
	return z.avail_out == 0 ? 0 : -EUCLEAN;
}

static void qcow2_zstd_freep(ZSTD_DCtx **ctx)
{
	ZSTD_freeDCtx(*ctx);
}

static int qcow2_unpack_zstd(const uint8_t *in, size_t in_len, void *out, size_t out_len)
{
	__attribute__((cleanup(qcow2_zstd_freep))) ZSTD_DCtx *ctx = ZSTD_createDCtx();
	ZSTD_inBuffer src = {.src = in, .size = in_len};
	ZSTD_outBuffer dst = {.dst = out, .size = out_len};

	if (!ctx)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, QCOW2_ZSTD_WINDOW_LOG_MAX);
	while (dst.pos < dst.size) {
		size_t in_before = src.pos, out_before = dst.pos;
		size_t r = ZSTD_decompressStream(ctx, &dst, &src);

		if (ZSTD_isError(r) || (src.pos == in_before && dst.pos == out_before))
			return -EUCLEAN;
	}
	return 0;
}

int qcow2_unpack(struct image *img, const struct extent *ext, void *buf)
{
	struct qcow2 *q = qcow2_of(img);
	_cleanup_free_ uint8_t *in = malloc(ext->host_len);
	ssize_t n;
	int r;

	if (!in)
		return -ENOMEM;
	/* The last sector may be cut off by the end of the file */
	n = store_read(ext->store, in, ext->host_len, ext->host_off);
	if (n < 0)
		return (int)n;
	if (q->compression == QCOW2_COMPRESSION_ZSTD)
		r = qcow2_unpack_zstd(in, (size_t)n, buf, ext->len);
	else
		r = qcow2_unpack_deflate(in, (size_t)n, buf, ext->len);
	if (r == -EUCLEAN)
		return image_damaged(img,
				     "%s: the compressed cluster at 0x%llx (for guest offset "
				     "0x%llx) does not unpack",
				     img->name, (ull)ext->host_off, (ull)ext->off);
	return r;
}

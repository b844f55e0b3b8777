/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The header: every number in it is checked here against the specification and our limits, so that
 * the rest of the driver can rely on the geometry. Nothing is walked: the cost is that of the first
 * cluster, whatever the image says.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

static int qcow2_header_version(struct image *img, struct qcow2 *q,
				const struct qcow2_disk_header *h, struct diag *diag)
{
	static const uint8_t magic[] = {QCOW2_MAGIC_BYTES};

	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return diag_set(diag, -EMEDIUMTYPE, "%s: not a qcow2 image", img->name);
	q->version = be32_get(&h->version);
	if (q->version != 2 && q->version != 3)
		return diag_set(diag, -EOPNOTSUPP,
				"%s: qcow2 version %u is not supported, only 2 and 3 are",
				img->name, q->version);
	q->header_length = q->version == 2 ? QCOW2_V2_HEADER : be32_get(&h->header_length);
	return 0;
}

static int qcow2_header_geometry(struct image *img, struct qcow2 *q,
				 const struct qcow2_disk_header *h, struct diag *diag)
{
	q->cluster_bits = be32_get(&h->cluster_bits);
	if (q->cluster_bits < QCOW2_CLUSTER_BITS_MIN || q->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return diag_set(diag, -EUCLEAN, "%s: cluster_bits is %u, allowed are %u to %u",
				img->name, q->cluster_bits, QCOW2_CLUSTER_BITS_MIN,
				QCOW2_CLUSTER_BITS_MAX);
	q->cluster_size = UINT64_C(1) << q->cluster_bits;

	if (q->version >= 3 &&
	    (q->header_length < QCOW2_V3_HEADER || q->header_length > q->cluster_size))
		return diag_set(diag, -EUCLEAN,
				"%s: header_length is %u, allowed are %u to the cluster size %llu",
				img->name, q->header_length, QCOW2_V3_HEADER, (ull)q->cluster_size);

	q->refcount_order = q->version == 2 ? 4 : be32_get(&h->refcount_order);
	if (q->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
		return diag_set(diag, -EUCLEAN, "%s: refcount_order is %u, allowed are 0 to %u",
				img->name, q->refcount_order, QCOW2_REFCOUNT_ORDER_MAX);
	return 0;
}

/* What stands between the header and the backing file's name. */
struct qcow2_area {
	const uint8_t *at;
	size_t len;
};

struct qcow2_extension {
	uint32_t type;
	const uint8_t *at;
	size_t len;
};

/* The extension at *pos, which moves behind it: 1, or 0 at the end. */
static int qcow2_extension_next(struct image *img, const struct qcow2_area *area, size_t *pos,
				struct qcow2_extension *ret, struct diag *diag)
{
	const struct qcow2_disk_extension *e = (const void *)(area->at + *pos);
	size_t left = area->len - *pos;

	if (left < sizeof(*e) || be32_get(&e->type) == QCOW2_EXT_END)
		return 0;
	left -= sizeof(*e);
	ret->type = be32_get(&e->type);
	ret->len = be32_get(&e->length);
	ret->at = area->at + *pos + sizeof(*e);
	if (ret->len > left)
		return diag_set(diag, -EUCLEAN,
				"%s: header extension 0x%x says %zu bytes, %zu are left", img->name,
				ret->type, ret->len, left);
	*pos += sizeof(*e) + (size_t)min_u64(round_up(ret->len, 8), left);
	return 1;
}

/* The first extension of a type: 1, or 0 where there is none. */
static int qcow2_extension_find(struct image *img, const struct qcow2_area *area, uint32_t type,
				struct qcow2_extension *ret, struct diag *diag)
{
	size_t pos = 0;
	int r;

	do
		r = qcow2_extension_next(img, area, &pos, ret, diag);
	while (r > 0 && ret->type != type);
	return r;
}

static int qcow2_extension_check_all(struct image *img, const struct qcow2_area *area,
				     struct diag *diag)
{
	struct qcow2_extension ext;
	size_t pos = 0;
	int r;

	do
		r = qcow2_extension_next(img, area, &pos, &ext, diag);
	while (r > 0);
	return r;
}

/* A string out of an extension, which ends at a NUL or with the extension. */
static int qcow2_extension_string(struct image *img, const struct qcow2_area *area, uint32_t type,
				  char **ret, struct diag *diag)
{
	struct qcow2_extension ext;
	int r = qcow2_extension_find(img, area, type, &ext, diag);

	if (r <= 0)
		return r;
	if (ext.len > QCOW2_BACKING_NAME_MAX)
		return diag_set(diag, -EUCLEAN,
				"%s: header extension 0x%x is %zu bytes long, not a name",
				img->name, type, ext.len);
	*ret = strndup((const char *)ext.at, ext.len);
	return *ret ? 0 : -ENOMEM;
}

/* What the image itself calls an incompatible feature, quoted into dst; "" where it does not say.
 */
static void qcow2_feature_name(const struct qcow2_area *area, struct image *img, unsigned bit,
			       char *dst, size_t dst_size)
{
	struct qcow2_extension ext;

	*dst = '\0';
	if (qcow2_extension_find(img, area, QCOW2_EXT_FEATURE_NAMES, &ext, NULL) <= 0)
		return;
	for (size_t i = 0; i < ext.len / sizeof(struct qcow2_disk_feature_name); i++) {
		const struct qcow2_disk_feature_name *f =
			(const struct qcow2_disk_feature_name *)ext.at + i;

		if (f->type != QCOW2_FEATURE_INCOMPATIBLE || f->bit != bit)
			continue;
		diag_quote(dst, dst_size, f->name, strnlen(f->name, sizeof(f->name)));
		return;
	}
}

static int qcow2_header_unknown(struct image *img, struct qcow2 *q, const struct qcow2_area *area,
				struct diag *diag)
{
	uint64_t unknown = q->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	char name[128];
	unsigned bit;

	if (!unknown)
		return 0;
	bit = (unsigned)__builtin_ctzll(unknown);
	qcow2_feature_name(area, img, bit, name, sizeof(name));
	if (*name)
		return diag_set(
			diag, -EOPNOTSUPP,
			"%s: uses the qcow2 feature \"%s\" (incompatible bit %u), which is not "
			"supported",
			img->name, name, bit);
	return diag_set(diag, -EOPNOTSUPP,
			"%s: uses an unknown qcow2 feature (incompatible bit %u)", img->name, bit);
}

static int qcow2_header_compression(struct image *img, struct qcow2 *q,
				    const struct qcow2_disk_header *h, struct diag *diag)
{
	bool stated = q->incompatible & QCOW2_INCOMPAT_COMPRESSION;
	bool present = q->header_length > offsetof(struct qcow2_disk_header, compression_type);
	unsigned type = present ? h->compression_type : QCOW2_COMPRESSION_DEFLATE;

	if (type > QCOW2_COMPRESSION_ZSTD)
		return diag_set(diag, -EOPNOTSUPP, "%s: compression type %u is not supported",
				img->name, type);
	if (stated != (type != QCOW2_COMPRESSION_DEFLATE))
		return diag_set(diag, -EUCLEAN,
				"%s: compression type %u does not agree with incompatible bit 3",
				img->name, type);
	q->compression = type;
	return 0;
}

static int qcow2_header_features(struct image *img, struct qcow2 *q,
				 const struct qcow2_disk_header *h, const struct qcow2_area *area,
				 struct diag *diag)
{
	uint32_t crypt = be32_get(&h->crypt_method);
	int r;

	if (q->version >= 3) {
		q->incompatible = be64_get(&h->incompatible_features);
		q->compatible = be64_get(&h->compatible_features);
		q->autoclear = be64_get(&h->autoclear_features);
	}
	r = qcow2_header_unknown(img, q, area, diag);
	if (r < 0)
		return r;
	if (crypt > 2)
		return diag_set(diag, -EUCLEAN, "%s: unknown encryption method %u", img->name,
				crypt);
	if (crypt != 0)
		return diag_set(diag, -EOPNOTSUPP, "%s: is encrypted (%s), which is not supported",
				img->name, crypt == 1 ? "AES" : "LUKS");
	r = qcow2_header_compression(img, q, h, diag);
	if (r < 0)
		return r;

	q->data_file = q->incompatible & QCOW2_INCOMPAT_DATA_FILE;
	q->extended_l2 = q->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
	if (q->extended_l2 && q->cluster_bits < QCOW2_EXTENDED_L2_CLUSTER_BITS_MIN)
		return diag_set(
			diag, -EUCLEAN,
			"%s: extended L2 entries need clusters of 16 KiB or more, these have "
			"%llu bytes",
			img->name, (ull)q->cluster_size);
	return 0;
}

/* What follows from cluster size and entry width. */
static void qcow2_header_derive(struct qcow2 *q)
{
	unsigned entry_bits = q->extended_l2 ? 4 : 3;

	q->entry_words = q->extended_l2 ? 2 : 1;
	q->l2_bits = q->cluster_bits - entry_bits;
	q->slice_bytes = (uint32_t)min_u64(QCOW2_PIECE_BYTES, q->cluster_size);
	q->slice_bits = (unsigned)__builtin_ctz(q->slice_bytes) - entry_bits;
	q->subcluster_bits = q->extended_l2 ? q->cluster_bits - 5 : q->cluster_bits;
}

int qcow2_header_table(struct image *img, struct qcow2 *q, const char *what, uint64_t off,
		       uint64_t bytes, struct diag *diag)
{
	if (off & (q->cluster_size - 1))
		return diag_set(diag, -EUCLEAN, "%s: %s offset 0x%llx is not a cluster boundary",
				img->name, what, (ull)off);
	if (off == 0)
		return diag_set(diag, -EUCLEAN, "%s: %s overlaps the header", img->name, what);
	if (!range_inside(off, bytes, UINT64_C(1) << 56))
		return diag_set(diag, -EUCLEAN, "%s: %s offset 0x%llx is outside any file",
				img->name, what, (ull)off);
	return 0;
}

int qcow2_header_size(struct image *img, struct qcow2 *q, uint64_t size, uint32_t l1_size,
		      struct diag *diag)
{
	uint64_t needed;

	img->size = size;
	needed = div_round_up(img->size, UINT64_C(1) << qcow2_table_bits(q));
	if (img->size > INT64_MAX || needed > QCOW2_L1_BYTES_MAX / 8)
		return diag_set(
			diag, -EFBIG,
			"%s: a disk of %llu bytes is more than clusters of %llu bytes can hold",
			img->name, (ull)img->size, (ull)q->cluster_size);
	q->l1_size = l1_size;
	q->l1_needed = (uint32_t)needed;
	if (q->l1_size > QCOW2_L1_BYTES_MAX / 8)
		return diag_set(diag, -EFBIG,
				"%s: an L1 table of %u entries is over the limit of %llu",
				img->name, q->l1_size, (ull)(QCOW2_L1_BYTES_MAX / 8));
	if (q->l1_size < q->l1_needed)
		return diag_set(diag, -EUCLEAN,
				"%s: the L1 table has %u entries, the disk size asks for %u",
				img->name, q->l1_size, q->l1_needed);
	return 0;
}

static int qcow2_header_tables(struct image *img, struct qcow2 *q,
			       const struct qcow2_disk_header *h, struct diag *diag)
	NO_THREAD_SAFETY_ANALYSIS /* nobody else has q yet */
{
	uint64_t l1_bytes = q->l1_size * UINT64_C(8);
	uint64_t ref_bytes = be32_get(&h->refcount_table_clusters) * q->cluster_size;
	int r;

	q->l1_offset = be64_get(&h->l1_table_offset);
	if (q->l1_size > 0) {
		r = qcow2_header_table(img, q, "L1 table", q->l1_offset, l1_bytes, diag);
		if (r < 0)
			return r;
	}
	if (ref_bytes > QCOW2_REFTABLE_BYTES_MAX)
		return diag_set(diag, -EFBIG,
				"%s: a refcount table of %llu bytes is over the limit of %llu",
				img->name, (ull)ref_bytes, (ull)QCOW2_REFTABLE_BYTES_MAX);
	q->reftable_offset = be64_get(&h->refcount_table_offset);
	q->reftable_entries = ref_bytes / 8;
	if (ref_bytes > 0) {
		r = qcow2_header_table(img, q, "refcount table", q->reftable_offset, ref_bytes,
				       diag);
		if (r < 0)
			return r;
	}
	if (l1_bytes > 0 && ref_bytes > 0 && q->l1_offset < q->reftable_offset + ref_bytes &&
	    q->reftable_offset < q->l1_offset + l1_bytes)
		return diag_set(diag, -EUCLEAN, "%s: L1 table and refcount table overlap",
				img->name);
	return 0;
}

static int qcow2_header_snapshots(struct image *img, struct qcow2 *q,
				  const struct qcow2_disk_header *h, struct diag *diag)
{
	q->nb_snapshots = be32_get(&h->nb_snapshots);
	if (q->nb_snapshots > QCOW2_SNAPSHOTS_MAX)
		return diag_set(diag, -EFBIG, "%s: %u snapshots are over the limit of %u",
				img->name, q->nb_snapshots, QCOW2_SNAPSHOTS_MAX);
	if (q->nb_snapshots == 0)
		return 0;
	q->snapshots_offset = be64_get(&h->snapshots_offset);
	return qcow2_header_table(img, q, "snapshot table", q->snapshots_offset, 0, diag);
}

static int qcow2_header_backing(struct image *img, struct qcow2 *q, const uint8_t *cluster,
				struct diag *diag)
{
	const struct qcow2_disk_header *h = (const void *)cluster;
	uint64_t off = be64_get(&h->backing_file_offset);
	uint32_t len = be32_get(&h->backing_file_size);

	if (off == 0 || len == 0)
		return 0;
	if (len > QCOW2_BACKING_NAME_MAX)
		return diag_set(diag, -EUCLEAN,
				"%s: the backing file's name has %u bytes, at most %u are allowed",
				img->name, len, QCOW2_BACKING_NAME_MAX);
	if (off < q->header_length || !range_inside(off, len, q->cluster_size))
		return diag_set(
			diag, -EUCLEAN,
			"%s: the backing file's name at 0x%llx is outside the first cluster",
			img->name, (ull)off);
	img->backing_name = strndup((const char *)cluster + off, len);
	return img->backing_name ? 0 : -ENOMEM;
}

static int qcow2_header_names(struct image *img, struct qcow2 *q, const uint8_t *cluster,
			      const struct qcow2_area *area, struct diag *diag)
{
	int r = qcow2_header_backing(img, q, cluster, diag);

	if (r == 0 && img->backing_name)
		r = qcow2_extension_string(img, area, QCOW2_EXT_BACKING_FORMAT,
					   &img->backing_format, diag);
	if (r < 0 || !q->data_file)
		return r;
	r = qcow2_extension_string(img, area, QCOW2_EXT_DATA_FILE, &img->data_name, diag);
	if (r == 0 && (!img->data_name || !*img->data_name))
		return diag_set(diag, -EUCLEAN,
				"%s: needs an external data file, but does not say which",
				img->name);
	return r;
}

static struct qcow2_area qcow2_header_area(const struct qcow2 *q, const uint8_t *cluster)
{
	const struct qcow2_disk_header *h = (const void *)cluster;
	uint64_t end = be64_get(&h->backing_file_offset);

	if (end < q->header_length || end > q->cluster_size)
		end = q->cluster_size;
	return (struct qcow2_area){
		.at = cluster + q->header_length,
		.len = (size_t)end - q->header_length,
	};
}

/* Everything but what the header points to. cluster: the first one, zeroes past the file's end. */
static int qcow2_header_parse(struct image *img, struct qcow2 *q, const uint8_t *cluster,
			      struct diag *diag)
{
	const struct qcow2_disk_header *h = (const void *)cluster;
	struct qcow2_area area = qcow2_header_area(q, cluster);
	int r;

	r = qcow2_header_features(img, q, h, &area, diag);
	if (r == 0)
		r = qcow2_extension_check_all(img, &area, diag);
	if (r < 0)
		return r;
	qcow2_header_derive(q);
	r = qcow2_header_size(img, q, be64_get(&h->size), be32_get(&h->l1_size), diag);
	if (r == 0)
		r = qcow2_header_tables(img, q, h, diag);
	if (r == 0)
		r = qcow2_header_snapshots(img, q, h, diag);
	if (r == 0)
		r = qcow2_header_names(img, q, cluster, &area, diag);
	return r;
}

int qcow2_header_read(struct image *img, struct qcow2 *q, struct diag *diag)
{
	struct qcow2_disk_header h = {0};
	_cleanup_free_ uint8_t *cluster = NULL;
	ssize_t n;
	int r;

	n = store_read(img->store, &h, sizeof(h), 0);
	if (n < 0)
		return diag_errno(diag, (int)n, "%s: cannot read the header", img->name);
	r = qcow2_header_version(img, q, &h, diag);
	if (r == 0)
		r = qcow2_header_geometry(img, q, &h, diag);
	if (r < 0)
		return r;

	cluster = calloc(1, q->cluster_size);
	if (!cluster)
		return -ENOMEM;
	n = store_read(img->store, cluster, q->cluster_size, 0);
	if (n < 0)
		return diag_errno(diag, (int)n, "%s: cannot read the header", img->name);
	if ((size_t)n < q->header_length)
		return diag_set(diag, -EUCLEAN, "%s: ends inside its header", img->name);
	return qcow2_header_parse(img, q, cluster, diag);
}

int qcow2_header_extension(struct image *img, uint32_t type, void *buf, size_t len,
			   struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	_cleanup_free_ uint8_t *cluster = calloc(1, q->cluster_size);
	struct qcow2_extension ext;
	struct qcow2_area area;
	ssize_t n;
	int r;

	if (!cluster)
		return -ENOMEM;
	n = store_read(img->store, cluster, q->cluster_size, 0);
	if (n < 0)
		return diag_errno(diag, (int)n, "%s: cannot read the header", img->name);
	area = qcow2_header_area(q, cluster);
	r = qcow2_extension_find(img, &area, type, &ext, diag);
	if (r <= 0)
		return r;
	if (ext.len < len)
		return diag_set(diag, -EUCLEAN,
				"%s: header extension 0x%x is %zu bytes long, expected are %zu",
				img->name, type, ext.len, len);
	memcpy(buf, ext.at, len);
	return 1;
}

int qcow2_header_clear_auto(struct image *img, uint64_t kept, struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t disk;
	int r;

	kept &= q->autoclear;
	if (kept == q->autoclear)
		return 0;
	be64_put(&disk, kept);
	r = store_write(img->store, &disk, sizeof(disk),
			offsetof(struct qcow2_disk_header, autoclear_features));
	if (r == 0)
		r = store_flush(img->store);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot write the header", img->name);
	q->autoclear = kept;
	return 0;
}

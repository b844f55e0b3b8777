/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The driver's entry in the table of formats. See qcow2.h for how the parts fit. */

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/drivers.h"
#include "format/qcow2.h"

/* Host clusters reserved at once, as bytes of the disk. Space that has to be zeroed for it is
 * reserved in smaller batches, as is what only holds L2 tables. */
#define QCOW2_BATCH_MIN_BYTES MIB(8)
#define QCOW2_BATCH_MAX_BYTES MIB(256)
#define QCOW2_BATCH_MAX_BYTES_FIXED MIB(64)
#define QCOW2_BATCH_BYTES_TABLES MIB(1)
enum { QCOW2_BATCH_CLUSTERS_MIN = 4 };

static void qcow2_free(struct qcow2 *q) NO_THREAD_SAFETY_ANALYSIS /* everybody has left */
{
	if (!q)
		return;
	qcow2_cache_done(q);
	free(q->l1);
	free(q->reftable);
	free(q->marks.at);
	qcow2_runs_done(&q->pool.runs);
	qcow2_runs_done(&q->replaced);
	qcow2_runs_done(&q->settled);
	cond_done(&q->pool.refilled);
	rwlock_done(&q->map_lock);
	mutex_done(&q->table_lock);
	mutex_done(&q->refcount_lock);
	mutex_done(&q->alloc_lock);
	free(q);
}
DEFINE_CLEANUP(struct qcow2 *, qcow2_free);

static struct qcow2 *qcow2_new(struct image *img) NO_THREAD_SAFETY_ANALYSIS
{
	struct qcow2 *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->img = img;
	rwlock_init(&q->map_lock);
	mutex_init(&q->table_lock);
	mutex_init(&q->refcount_lock);
	mutex_init(&q->alloc_lock);
	cond_init(&q->pool.refilled);
	return q;
}

static int qcow2_read_l1(struct qcow2 *q,
			 struct diag *diag) NO_THREAD_SAFETY_ANALYSIS /* nobody else has q yet */
{
	size_t bytes = q->l1_needed * sizeof(uint64_t);
	int r;

	q->l1 = malloc(bytes + 1); /* an empty disk has none */
	if (!q->l1)
		return -ENOMEM;
	if (qcow2_beyond_end(q, q->l1_offset + bytes - (bytes > 0)))
		return diag_set(diag, -EUCLEAN, "%s: the L1 table at 0x%llx is outside the file",
				q->img->name, (ull)q->l1_offset);
	r = store_read_full(q->img->store, q->l1, bytes, q->l1_offset);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot read the L1 table", q->img->name);
	for (uint32_t i = 0; i < q->l1_needed; i++)
		q->l1[i] = be64_get(&q->l1[i]);
	return 0;
}

/* What a failed open may have put into the image. */
static void qcow2_forget_names(struct image *img)
{
	free(TAKE_PTR(img->backing_name));
	free(TAKE_PTR(img->backing_format));
	free(TAKE_PTR(img->data_name));
}

static int qcow2_open(struct image *img, struct diag *diag)
{
	_cleanup_(qcow2_freep) struct qcow2 *q = qcow2_new(img);
	int r;

	if (!q)
		return -ENOMEM;
	r = qcow2_header_read(img, q, diag);
	if (r == 0 && img->snapshot)
		r = qcow2_snapshot_choose(q, diag);
	if (r == 0)
		r = qcow2_read_l1(q, diag);
	if (r == 0)
		r = qcow2_cache_init(q);
	if (r < 0) {
		qcow2_forget_names(img);
		return r;
	}
	img->unit = (uint32_t)q->cluster_size;
	img->padded = true;
	img->driver = TAKE_PTR(q);
	return 0;
}

/* What may be read but must not be written. */
static int qcow2_refuse_write(struct qcow2 *q, struct diag *diag)
{
	const char *name = q->img->name;

	if (q->incompatible & QCOW2_INCOMPAT_CORRUPT)
		return diag_set(diag, -EUCLEAN,
				"%s: is marked corrupt, so it can only be read: run fuseimg check "
				"--repair",
				name);
	if (q->data_file && q->nb_snapshots > 0)
		return diag_set(
			diag, -EOPNOTSUPP,
			"%s: has an external data file and internal snapshots, which cannot be "
			"written together",
			name);
	return 0;
}

static void qcow2_set_batch(struct qcow2 *q)
{
	uint64_t min = QCOW2_BATCH_MIN_BYTES, max = QCOW2_BATCH_MAX_BYTES;

	if (q->img->store->fixed)
		max = QCOW2_BATCH_MAX_BYTES_FIXED;
	if (q->data_file)
		min = max = QCOW2_BATCH_BYTES_TABLES;
	q->batch_min = max_u64(min >> q->cluster_bits, QCOW2_BATCH_CLUSTERS_MIN);
	q->batch_max = max_u64(max >> q->cluster_bits, QCOW2_BATCH_CLUSTERS_MIN);
}

/* Autoclear bits say that what they stand for is kept up to date, or marked where it is not. */
static int qcow2_keep_auto(struct qcow2 *q, struct diag *diag)
{
	uint64_t kept = QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	int r = qcow2_bitmaps_mark(q, QCOW2_BITMAPS_FOLLOWING, diag);

	/* Nobody can mark what is damaged; nor free its clusters, which check will */
	if (r < 0 && r != -EUCLEAN && r != -EFBIG)
		return r;
	if (r > 0)
		kept |= QCOW2_AUTOCLEAR_BITMAPS;
	return qcow2_header_clear_auto(q->img, kept, diag);
}

static int qcow2_open_write(struct image *img, struct diag *diag)
{
	struct qcow2 *q = qcow2_of(img);
	int r = qcow2_refuse_write(q, diag);

	if (r == 0 && (q->incompatible & QCOW2_INCOMPAT_DIRTY))
		r = qcow2_check_repair_dirty(img, diag);
	if (r == 0)
		r = qcow2_reftable_load(q, diag);
	if (r == 0)
		r = qcow2_keep_auto(q, diag);
	if (r < 0)
		return r;
	qcow2_set_batch(q);
	r = store_size(img->data, &q->data_end);
	/* What reads as zeroes now must not be something else after a power cut: we build on it */
	if (r == 0 && !img->again)
		r = qcow2_flush(img);
	return r < 0 ? diag_errno(diag, r, "%s: cannot flush", img->name) : 0;
}

static void qcow2_close(struct image *img)
{
	qcow2_free(TAKE_PTR(img->driver));
}

static const char *qcow2_yes_no(uint64_t v)
{
	return v ? "yes" : "no";
}

static void qcow2_info(struct image *img, struct format_info *info)
{
	struct qcow2 *q = qcow2_of(img);

	format_info_add(info, "version", "%u", q->version);
	format_info_add(info, "cluster_size", "%llu", (ull)q->cluster_size);
	format_info_add(info, "refcount_bits", "%u", 1u << q->refcount_order);
	format_info_add(info, "compression", "%s",
			q->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "deflate");
	format_info_add(info, "extended_l2", "%s", qcow2_yes_no(q->extended_l2));
	format_info_add(info, "lazy_refcounts", "%s",
			qcow2_yes_no(q->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
	format_info_add(info, "snapshots", "%u", q->nb_snapshots);
	format_info_add(info, "dirty", "%s", qcow2_yes_no(q->incompatible & QCOW2_INCOMPAT_DIRTY));
	format_info_add(info, "corrupt", "%s",
			qcow2_yes_no(q->incompatible & QCOW2_INCOMPAT_CORRUPT));
	if (q->data_file)
		format_info_add(info, "data_file_raw", "%s",
				qcow2_yes_no(q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW));
}

const struct format format_qcow2 = {
	.name = "qcow2",
	.description = "QEMU copy-on-write, versions 2 and 3",
	.magics = {{.off = 0, .len = 4, .bytes = {QCOW2_MAGIC_BYTES}}},
	.open = qcow2_open,
	.open_write = qcow2_open_write,
	.close = qcow2_close,
	.map = qcow2_map,
	.unpack = qcow2_unpack,
	.alloc = qcow2_alloc,
	.link = qcow2_link,
	.abandon = qcow2_abandon,
	.unmap = qcow2_unmap,
	.resize = qcow2_resize,
	.flush = qcow2_flush,
	.settle = qcow2_settle,
	.idle = qcow2_idle,
	.keep = qcow2_keep,
	.finish = qcow2_finish,
	.info = qcow2_info,
	.snapshots = qcow2_snapshots,
	.bitmaps = qcow2_bitmaps,
	.check = qcow2_check,
};

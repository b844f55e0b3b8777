/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../unit/format/harness.h"
#include "base/checked.h"
#include "base/io.h"
#include "ops.h"

typedef unsigned long long ull;

const struct rig_shape rig_shapes[] = {
	{"cluster_size=512", 512, .snapshot = true, .compress = true},
	{"cluster_size=1k", KIB(1)},
	{"cluster_size=2k", KIB(2), .compress = true},
	{"cluster_size=4k", KIB(4), .snapshot = true},
	{"cluster_size=8k", KIB(8)},
	{"cluster_size=16k", KIB(16), .snapshot = true},
	{"cluster_size=32k", KIB(32)},
	{"cluster_size=64k", KIB(64), .snapshot = true, .compress = true},
	{"cluster_size=128k", KIB(128)},
	{"cluster_size=256k", KIB(256), .snapshot = true},
	{"cluster_size=512k", KIB(512)},
	{"cluster_size=1M", MIB(1)},
	{"cluster_size=2M", MIB(2), .snapshot = true},
	{"cluster_size=512,refcount_bits=1", 512, .compress = true},
	{"cluster_size=1k,refcount_bits=2", KIB(1), .snapshot = true},
	{"cluster_size=512,refcount_bits=4", 512, .snapshot = true},
	{"cluster_size=4k,refcount_bits=8", KIB(4), .snapshot = true},
	{"cluster_size=512,refcount_bits=32", 512, .compress = true},
	{"cluster_size=512,refcount_bits=64", 512, .snapshot = true},
	{"extended_l2=on,cluster_size=16k", KIB(16), .snapshot = true, .compress = true},
	{"extended_l2=on,cluster_size=64k", KIB(64)},
	{"extended_l2=on,cluster_size=1M", MIB(1), .snapshot = true},
	{"compression_type=zstd,cluster_size=4k", KIB(4), .snapshot = true, .compress = true},
	{"compression_type=zstd,cluster_size=256k", KIB(256), .compress = true},
	{"lazy_refcounts=on,cluster_size=4k", KIB(4), .snapshot = true},
	{"data_file=img.data,cluster_size=4k", KIB(4), .data_file = true},
	{"data_file=img.data,cluster_size=16k,extended_l2=on", KIB(16), .data_file = true},
	{"data_file=img.data,data_file_raw=on,cluster_size=64k", KIB(64), .data_file = true},
	{"compat=0.10,cluster_size=512", 512, .compress = true, .version2 = true},
	{"compat=0.10,cluster_size=64k", KIB(64), .snapshot = true, .version2 = true},
	{NULL, 0},
};

int rig_setup(void **state)
{
	char dir[] = "/dev/shm/fuseimg-stress-XXXXXX";

	if (!mkdtemp(dir) || chdir(dir) < 0)
		return harness_setup(state);
	*state = strdup(dir);
	return 0;
}

int rig_teardown(void **state)
{
	return harness_teardown(state);
}

static int rig_store(struct rig *rig, const char *name, bool writable, struct store **ret,
		     struct diag *diag)
{
	int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, fd = -1, r;
	struct store *store;

	if (rig->direct)
		fd = open(name, flags | O_DIRECT);
	if (fd < 0)
		fd = open(name, flags);
	if (fd < 0)
		return diag_errno(diag, -errno, "%s", name);
	r = store_file_new(fd, name, &store, diag);
	return r < 0 ? r : hook_store_new(store, rig->hook, ret);
}

static int rig_open_named(struct image_opener *opener, const char *parent, enum image_role role,
			  const char *name, bool writable, struct store **ret, struct diag *diag)
{
	return rig_store((struct rig *)opener, name, writable, ret, diag);
}

static int rig_try_open(struct rig *rig, const struct image_options *options, struct image **ret,
			struct diag *diag)
{
	struct store *store;
	int r = rig_store(rig, "img", !options->read_only, &store, diag);

	return r < 0 ? r : image_open(store, options, ret, diag);
}

/* What is compressed is whole clusters, and comes first: qemu-io compresses only into what is not
 * there yet. "pool" is longer than most writes. */
static void rig_fill(const struct rig *rig)
{
	uint64_t c = rig->shape->cluster, n = rig->size / c, s = rig->size / 512;

	if (rig->shape->compress)
		sh("qemu-io -c 'write -q -c -s pool %llu %llu' -c 'write -q -c -s pool %llu %llu' "
		   "-c 'write -q -c -s pool %llu %llu' -c 'write -q -c -s pool %llu %llu' t.img",
		   (ull)(n / 5 * c), (ull)c, (ull)((n / 5 + 1) * c), (ull)c, (ull)(n / 3 * c),
		   (ull)c, (ull)(n * 3 / 4 * c), (ull)c);
	sh("qemu-io -c 'write -q -s pool 0 %llu' -c 'write -q -s pool %llu %llu' "
	   "-c 'write -q -z %llu %llu' -c 'discard -q %llu %llu' -c 'write -q -s pool %llu 512' "
	   "t.img",
	   (ull)(s / 9 * 512), (ull)(s / 2 * 512 + 512), (ull)(s / 8 * 512), (ull)(s / 20 * 512),
	   (ull)(s / 10 * 512), (ull)(s / 2 * 512), (ull)(s / 16 * 512), (ull)(rig->size - 512));
}

static void rig_make_below(const struct rig *rig)
{
	uint64_t s = rig->size / 512;

	if (rig->backing == RIG_OVER_RAW)
		sh("truncate -s %llu base && dd if=pool of=base conv=notrunc bs=%llu count=1 "
		   "status=none && cat pool >>base && truncate -s %llu base",
		   (ull)(rig->size / 3), (ull)(rig->size / 4), (ull)(rig->size * 3 / 4 + 77));
	else
		sh("qemu-img create -q -f qcow2 -o cluster_size=4k base %llu && qemu-io "
		   "-c 'write -q -s pool 0 %llu' -c 'write -q -s pool %llu %llu' base",
		   (ull)(rig->backing == RIG_OVER_LONGER ? rig->size + rig->size / 8 / 512 * 512
							 : s * 2 / 3 * 512),
		   (ull)(s / 4 * 512), (ull)(s / 3 * 512), (ull)(s / 3 * 512));
}

static void rig_make_files(const struct rig *rig)
{
	const char *below = "";

	sh("rm -f t.* img img.data base");
	if (rig->backing != RIG_ALONE) {
		rig_make_below(rig);
		below = rig->backing == RIG_OVER_RAW ? "-b base -F raw" : "-b base -F qcow2";
	}
	sh("qemu-img create -q -f qcow2 -o %s %s t.img %llu", rig->shape->options, below,
	   (ull)rig->size);
	rig_fill(rig);
	if (rig->shape->snapshot)
		sh("qemu-img snapshot -c one t.img && "
		   "qemu-img convert -f qcow2 -O raw -l snapshot.name=one t.img t.snapshot && "
		   "qemu-io -c 'write -q -s pool %llu %llu' t.img",
		   (ull)(rig->size / 2048 * 512 + 1024), (ull)(rig->size / 5120 * 512));
	sh("qemu-img convert -f qcow2 -O raw t.img t.flat");
	if (rig->shape->data_file)
		sh("mv img.data t.data");
}

static char *rig_read_file(const char *name, uint64_t size)
{
	size_t len;
	char *bytes;

	assert_int_equal(io_read_file(AT_FDCWD, name, MIB(64), &bytes, &len), 0);
	assert_int_equal(len, size);
	return bytes;
}

/* Odd grains, and whole sectors: what qemu-img can create. */
static void rig_choose_sizes(struct rig *rig)
{
	uint64_t wanted = min_u64(max_u64(30 * (uint64_t)rig->shape->cluster, KIB(200)), MIB(10));
	uint64_t piece;

	rig->grain = wanted > MIB(1) ? 4099 : 397;
	piece = 512 * (uint64_t)rig->grain;
	rig->size = div_round_up(wanted, piece) * piece;
	rig->max = rig->size + rig->size / 3 / rig->grain * rig->grain;
	rig->resizable = !rig->shape->version2;
}

/* Lines that compress, and tell where they are. */
static void rig_make_pool(void)
{
	_cleanup_fclose_ FILE *f = fopen("pool", "we");

	assert_non_null(f);
	for (uint64_t i = 0, x = 1; i < MIB(1); i += 32)
		fprintf(f, "%08llx and then the rest %06llx\n", (ull)i,
			(ull)(random_next(&x) & 0xffffff));
}

void rig_make(struct rig *rig, const struct rig_shape *shape, enum rig_backing backing)
{
	*rig = (struct rig){.opener = {rig_open_named}, .shape = shape, .backing = backing};
	/* a raw data file stands for the disk alone: what is not in it is zeroes */
	if (strstr(shape->options, "data_file_raw"))
		rig->backing = RIG_ALONE;
	rig_choose_sizes(rig);
	rig_make_pool();
	rig_make_files(rig);
	rig->flat = rig_read_file("t.flat", rig->size);
	if (shape->snapshot)
		rig->flat_snapshot = rig_read_file("t.snapshot", rig->size);
}

void rig_done(struct rig *rig)
{
	free(rig->flat);
	free(rig->flat_snapshot);
}

const char *rig_name(const struct rig *rig)
{
	static const char *const below[] = {"", " over a shorter image", " over a raw image",
					    " over a longer image"};
	static char name[128];

	snprintf(name, sizeof(name), "%s%s", rig->shape->options, below[rig->backing]);
	return name;
}

/* Holes stay holes. */
static void rig_copy_file(const char *from, const char *to)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	_cleanup_free_ char *buf = malloc(MIB(1));
	off_t off = 0, end;
	struct stat st;

	assert_true(in >= 0 && out >= 0 && fstat(in, &st) == 0);
	while ((off = lseek(in, off, SEEK_DATA)) >= 0) {
		end = lseek(in, off, SEEK_HOLE);
		while (off < end) {
			size_t n = (size_t)min_u64(MIB(1), (uint64_t)(end - off));

			assert_int_equal(io_pread(in, buf, n, (uint64_t)off), n);
			assert_int_equal(io_pwrite(out, buf, n, (uint64_t)off), 0);
			off += (off_t)n;
		}
	}
	assert_int_equal(ftruncate(out, st.st_size), 0);
}

void rig_copy(const struct rig *rig, struct model *m)
{
	rig_copy_file("t.img", "img");
	if (rig->shape->data_file)
		rig_copy_file("t.data", "img.data");
	model_set(m, rig->flat, rig->size);
}

struct image *rig_open(struct rig *rig, struct model *m, bool discard)
{
	struct image_options options = {
		.discard = discard, .table_cache = rig->table_cache, .opener = &rig->opener};
	struct image *img = NULL;
	struct diag diag = {0};

	if (rig_try_open(rig, &options, &img, &diag) < 0)
		model_wrong(m, "%s", diag.text);
	return img;
}

static void rig_found(struct check *check, bool leak, uint64_t n, const char *text)
{
	model_wrong(check->data, "%llu %s: %s", (ull)n, leak ? "leaks" : "corruptions", text);
}

static bool rig_check(struct model *m)
{
	struct check check = {.memory = MIB(1), .found = rig_found, .data = m};
	_cleanup_store_ struct store *store = NULL;
	struct diag diag = {0};
	struct rig plain = {0};
	int r = rig_store(&plain, "img", false, &store, &diag);

	if (r == 0)
		r = image_check(store, NULL, &check, &diag);
	if (r < 0)
		return model_wrong(m, "check: %s", diag.text);
	if (check.leaks || check.corruptions || check.marked_dirty || check.marked_corrupt)
		return model_wrong(m, "check: %llu leaks, %llu corruptions, marks %d %d",
				   (ull)check.leaks, (ull)check.corruptions, check.marked_dirty,
				   check.marked_corrupt);
	return true;
}

/* "img", or a snapshot in it, reads as these bytes. */
static bool rig_compare(struct rig *rig, struct model *m, const char *snapshot, const void *want,
			uint64_t size)
{
	struct image_options options = {
		.read_only = true, .snapshot = snapshot, .opener = &rig->opener};
	_cleanup_free_ char *have = malloc(size);
	const char *what = snapshot ? "the snapshot" : "the disk";
	struct image *img = NULL;
	struct diag diag = {0};
	bool good;

	if (rig_try_open(rig, &options, &img, &diag) < 0)
		return model_wrong(m, "%s: %s", what, diag.text);
	if (image_size(img) != size)
		good = model_wrong(m, "%s has %llu bytes, not %llu", what, (ull)image_size(img),
				   (ull)size);
	else if (image_read(img, have, size, 0) < 0)
		good = model_wrong(m, "%s cannot be read", what);
	else if (memcmp(have, want, size) != 0)
		good = model_wrong(m, "%s is not what it was", what);
	else
		good = true;
	return image_close(img) == 0 && good;
}

bool rig_close(struct rig *rig, struct model *m, struct image *img)
{
	_cleanup_free_ uint8_t *content = op_read_all(img, m);
	uint64_t size = image_size(img);
	bool good = content != NULL;

	if (image_close(img) < 0)
		good = model_wrong(m, "the image cannot be closed");
	return good && rig_check(m) && rig_compare(rig, m, NULL, content, size) &&
	       (!rig->shape->snapshot || rig_compare(rig, m, "one", rig->flat_snapshot, rig->size));
}

void rig_judge(const struct rig *rig, struct model *m)
{
	_cleanup_close_ int fd = open("model", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	mutex_lock(&m->lock);
	/* what is behind the last whole sector is not there for QEMU */
	assert_int_equal(io_pwrite(fd, m->first, m->size / 512 * 512, 0), 0);
	mutex_unlock(&m->lock);
	assert_check("img", false);
	sh("qemu-img compare -q -f raw -F qcow2 model img");
}

double rig_seconds(double quick)
{
	const char *text = getenv("FUSEIMG_TEST_SECONDS");

	return text ? strtod(text, NULL) : quick;
}

double rig_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

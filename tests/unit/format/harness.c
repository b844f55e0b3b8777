/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

int harness_setup(void **state)
{
	char dir[] = "/tmp/fuseimg-format-XXXXXX";

	if (!mkdtemp(dir) || chdir(dir) < 0)
		return -1;
	*state = strdup(dir);
	return 0;
}

int harness_teardown(void **state)
{
	if (chdir("/") < 0)
		return -1;
	sh("rm -rf '%s'", (const char *)*state);
	free(*state);
	return 0;
}

bool harness_have_qemu(void)
{
	bool have = sh_status("command -v qemu-img qemu-io >/dev/null") == 0;

	if (!have && getenv("CI"))
		fail_msg("qemu-img and qemu-io are missing, and CI is set");
	return have;
}

static int sh_run(const char *fmt, va_list ap)
{
	char cmd[4096];
	int r;

	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	r = system(cmd);
	return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

int sh_status(const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = sh_run(fmt, ap);
	va_end(ap);
	return r;
}

void sh(const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = sh_run(fmt, ap);
	va_end(ap);
	if (r != 0)
		fail_msg("exit status %d: %s", r, fmt);
}

static struct store *harness_store(const char *path, bool writable)
{
	struct diag diag = {0};
	struct store *store = NULL;
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);

	assert_true(fd >= 0);
	if (store_file_new(fd, path, &store, &diag) < 0)
		fail_msg("%s", diag.text);
	return store;
}

static int disk_start(struct disk *d, bool writable, struct diag *diag)
{
	struct image *img = &d->img;
	int r = img->format->open(img, diag);

	if (r < 0)
		return r;
	if (img->data_name)
		img->data = harness_store(img->data_name, writable);
	r = writable && img->format->open_write ? img->format->open_write(img, diag) : 0;
	if (r < 0)
		img->format->close(img);
	return r;
}

static void disk_free(struct disk *d)
{
	if (d->img.data != d->img.store)
		store_close(d->img.data);
	store_close(d->img.store);
	free(d->img.backing_name);
	free(d->img.backing_format);
	free(d->img.data_name);
	free(d->img.damage);
	rwlock_done(&d->io_lock);
}

static void disk_init(struct disk *d, struct store *store, const char *format, bool writable)
{
	*d = (struct disk){.img = {
				   .format = format_by_name(format),
				   .store = store,
				   .data = store,
				   .name = store->name,
				   .read_only = !writable,
			   }};
	rwlock_init(&d->io_lock);
}

int disk_open_store(struct disk *d, struct store *store, const char *format, bool writable,
		    struct diag *diag)
{
	int r;

	disk_init(d, store, format, writable);
	r = disk_start(d, writable, diag);
	if (r < 0)
		disk_free(d);
	return r;
}

int disk_open_snapshot(struct disk *d, struct store *store, const char *snapshot, struct diag *diag)
{
	int r;

	disk_init(d, store, "qcow2", false);
	d->img.snapshot = snapshot;
	r = disk_start(d, false, diag);
	d->img.snapshot = NULL;
	if (r < 0)
		disk_free(d);
	return r;
}

void disk_open(struct disk *d, const char *path, bool writable)
{
	struct diag diag = {0};

	if (disk_open_store(d, harness_store(path, writable), "qcow2", writable, &diag) < 0)
		fail_msg("%s", diag.text);
}

void disk_open_bounded(struct disk *d, const char *path, uint64_t table_cache)
{
	struct diag diag = {0};

	disk_init(d, harness_store(path, false), "qcow2", false);
	d->img.table_cache = table_cache;
	if (disk_start(d, false, &diag) < 0)
		fail_msg("%s", diag.text);
}

void disk_kill(struct disk *d)
{
	d->img.format->close(&d->img);
	disk_free(d);
}

void disk_close(struct disk *d)
{
	if (!d->img.read_only && d->img.format->finish)
		assert_int_equal(d->img.format->finish(&d->img), 0);
	disk_kill(d);
}

/* DATA, with what lies past the end of the store as zeroes. */
static int disk_read_data(const struct extent *ext, void *buf)
{
	ssize_t n = store_read(ext->store, buf, ext->len, ext->host_off);

	if (n < 0)
		return (int)n;
	memset((char *)buf + n, 0, ext->len - (size_t)n);
	return 0;
}

static int disk_read_packed(struct disk *d, const struct extent *ext, void *buf, uint64_t off,
			    size_t len)
{
	_cleanup_free_ char *unit = malloc(d->img.unit);
	int r = d->img.format->unpack(&d->img, ext, unit);

	if (r == 0)
		memcpy(buf, unit + (off - ext->off), len);
	return r;
}

static int disk_read_extent(struct disk *d, const struct extent *ext, void *buf, uint64_t off,
			    size_t len)
{
	if (ext->kind == EXTENT_DATA)
		return disk_read_data(ext, buf);
	if (ext->kind == EXTENT_PACKED)
		return disk_read_packed(d, ext, buf, off, len);
	if (ext->kind == EXTENT_PARENT && d->backing && off < d->backing->img.size) {
		size_t inside = (size_t)min_u64(len, d->backing->img.size - off);

		memset((char *)buf + inside, 0, len - inside);
		return disk_read(d->backing, buf, inside, off);
	}
	memset(buf, 0, len);
	return 0;
}

static int disk_read_locked(struct disk *d, char *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		struct extent ext;
		size_t n;
		int r = d->img.format->map(&d->img, off, len, 0, &ext);

		if (r < 0)
			return r;
		assert_true(ext.off <= off && ext.off + ext.len > off);
		n = (size_t)min_u64(len, ext.off + ext.len - off);
		r = disk_read_extent(d, &ext, buf, off, n);
		if (r < 0)
			return r;
		buf += n;
		off += n;
		len -= n;
	}
	return 0;
}

int disk_read(struct disk *d, void *buf, size_t len, uint64_t off)
{
	int r;

	rwlock_read(&d->io_lock);
	r = disk_read_locked(d, buf, len, off);
	rwlock_unread(&d->io_lock);
	return r;
}

static bool all_zero(const char *p, size_t len)
{
	return len == 0 || (*p == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* New space: all of it is filled with what was there, then what is written goes on top. */
static int disk_write_new(struct disk *d, const char *buf, uint64_t len, uint64_t off,
			  uint64_t *ret_done)
{
	_cleanup_free_ char *all = NULL;
	struct extent ext;
	bool barrier;
	int r = d->img.format->alloc(&d->img, off, len, &ext);

	if (r < 0)
		return r;
	assert_true(ext.kind == EXTENT_DATA && !ext.shared);
	assert_true(ext.off <= off && ext.off + ext.len > off);
	all = calloc(1, ext.len);
	r = disk_read_locked(d, all, (size_t)min_u64(ext.len, d->img.size - ext.off), ext.off);
	*ret_done = min_u64(len, ext.off + ext.len - off);
	/* What was there may be durable, then a power cut must not take it away */
	barrier = !ext.fresh || !all_zero(all, ext.len);
	memcpy(all + (off - ext.off), buf, *ret_done);
	if (r == 0)
		r = store_write(ext.store, all, ext.len, ext.host_off);
	if (r == 0 && barrier)
		r = store_flush(ext.store);
	if (r < 0) {
		d->img.format->abandon(&d->img, &ext);
		return r;
	}
	return d->img.format->link(&d->img, &ext);
}

static int disk_write_locked(struct disk *d, const char *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		struct extent ext;
		uint64_t done;
		int r = d->img.format->map(&d->img, off, len, 0, &ext);

		if (r < 0)
			return r;
		done = min_u64(len, ext.off + ext.len - off);
		if (ext.kind == EXTENT_DATA && !ext.shared)
			r = store_write(ext.store, buf, done, ext.host_off);
		else
			r = disk_write_new(d, buf, done, off, &done);
		if (r < 0)
			return r;
		buf += done;
		off += done;
		len -= done;
	}
	return 0;
}

static void disk_settle(struct disk *d)
{
	if (!atomic_load(&d->img.settle_wanted))
		return;
	rwlock_write(&d->io_lock);
	d->img.format->settle(&d->img);
	assert_false(atomic_load(&d->img.settle_wanted));
	rwlock_unwrite(&d->io_lock);
}

int disk_write(struct disk *d, const void *buf, size_t len, uint64_t off)
{
	int r;

	atomic_store(&d->img.written, true);
	rwlock_read(&d->io_lock);
	r = disk_write_locked(d, buf, len, off);
	rwlock_unread(&d->io_lock);
	disk_settle(d);
	return r;
}

int disk_flush(struct disk *d)
{
	int r;

	rwlock_read(&d->io_lock);
	r = d->img.format->flush(&d->img);
	rwlock_unread(&d->io_lock);
	disk_settle(d);
	return r;
}

/* Asks the driver, alone; 1: the first *ret_done bytes are to be written. */
static int disk_unmap_tables(struct disk *d, uint64_t off, uint64_t len, enum unmap_how how,
			     uint64_t *ret_done)
{
	int r;

	atomic_store(&d->img.written, true);
	rwlock_write(&d->io_lock);
	r = d->img.format->unmap(&d->img, off, len, how, ret_done);
	rwlock_unwrite(&d->io_lock);
	assert_true(r < 0 || (*ret_done > 0 && *ret_done <= len));
	return r;
}

int disk_unmap(struct disk *d, uint64_t off, uint64_t len, enum unmap_how how)
{
	int r = 0;

	while (r == 0 && len > 0) {
		_cleanup_free_ void *zeroes = NULL;
		uint64_t done = 0;

		r = disk_unmap_tables(d, off, len, how, &done);
		if (r > 0) {
			zeroes = calloc(1, done);
			r = disk_write(d, zeroes, done, off);
		}
		off += done;
		len -= done;
	}
	disk_settle(d);
	return r;
}

/* The unit that the disk ends in becomes its own, unless it reads as zeroes. */
static int disk_own_end(struct disk *d)
{
	uint64_t done, end = d->img.size;
	struct extent ext;
	char last;
	int r;

	if (end % d->img.unit == 0)
		return 0;
	r = d->img.format->map(&d->img, end - 1, 1, 0, &ext);
	if (r < 0 || (ext.kind == EXTENT_DATA && !ext.shared) || ext.kind == EXTENT_ZERO ||
	    (ext.kind == EXTENT_PARENT && d->img.parent_size <= end))
		return r;
	r = disk_read_locked(d, &last, 1, end - 1);
	return r < 0 ? r : disk_write_new(d, &last, 1, end - 1, &done);
}

int disk_resize(struct disk *d, uint64_t size)
{
	struct diag diag = {0};
	int r;

	atomic_store(&d->img.written, true);
	rwlock_write(&d->io_lock);
	r = size > d->img.size ? disk_own_end(d) : 0;
	if (r == 0)
		r = d->img.format->resize(&d->img, size, &diag);
	assert_true(r == 0 || diag.text[0]);
	rwlock_unwrite(&d->io_lock);
	disk_settle(d);
	return r;
}

const char *const shapes[] = {
	"compat=0.10",
	"compat=0.10,cluster_size=512",
	"cluster_size=512",
	"cluster_size=1k",
	"cluster_size=2k",
	"cluster_size=4k",
	"cluster_size=8k",
	"cluster_size=16k",
	"cluster_size=32k",
	"cluster_size=64k",
	"cluster_size=128k",
	"cluster_size=256k",
	"cluster_size=512k",
	"cluster_size=1M",
	"cluster_size=2M",
	"refcount_bits=1",
	"refcount_bits=64,cluster_size=4k",
	"compression_type=zstd",
	"compression_type=zstd,cluster_size=4k",
	"compression_type=zstd,cluster_size=2M",
	"extended_l2=on,cluster_size=16k",
	"extended_l2=on",
	"extended_l2=on,cluster_size=2M",
	"extended_l2=on,compression_type=zstd",
	"lazy_refcounts=on",
	"preallocation=metadata",
	"preallocation=falloc,cluster_size=16k",
	"data_file=img.data",
	"data_file=img.data,data_file_raw=on",
	"data_file=img.data,extended_l2=on",
	NULL,
};

void shape_fill(const char *shape)
{
	bool compress = !strstr(shape, "data_file") && !strstr(shape, "prealloc");

	sh("qemu-img create -q -f qcow2 -o %s img %d", shape, SHAPE_SIZE);
	sh("qemu-io -c 'write -P 1 0 100k' -c 'write -P 2 300k 512' -c 'write -P 3 1000001 70001' "
	   "-c 'write -P 4 2M 3M' -c 'write -z 2500k 300k' -c 'write -z 5M 100k' "
	   "-c 'discard 3M 400k' -c 'write -P 6 8999936 1024' img >/dev/null");
	if (compress)
		sh("qemu-io -c 'write -c -P 5 6M 2M' img >/dev/null");
	sh("qemu-io -c 'write -P 9 6300k 20k' img >/dev/null");
}

uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

void store_load(const char *path, struct store **ret)
{
	_cleanup_free_ char *bytes = NULL;
	size_t len;

	assert_int_equal(io_read_file(AT_FDCWD, path, MIB(64), &bytes, &len), 0);
	assert_int_equal(store_memory_from(path, bytes, len, GIB(1), ret), 0);
}

void store_dump(struct store *s, const char *path)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	_cleanup_free_ char *buf = malloc(MIB(1));
	uint64_t size;

	assert_int_equal(store_size(s, &size), 0);
	for (uint64_t off = 0; off < size; off += MIB(1)) {
		size_t n = (size_t)min_u64(MIB(1), size - off);
		bool data;
		uint64_t len;

		assert_int_equal(store_map(s, off, n, &data, &len), 0);
		if (!data && len >= n)
			continue;
		assert_int_equal(store_read_full(s, buf, n, off), 0);
		assert_int_equal(io_pwrite(fd, buf, n, off), 0);
	}
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

void pattern(void *buf, size_t len, uint64_t off, uint64_t seed)
{
	char *p = buf;

	for (size_t i = 0; i < len; i++) {
		uint64_t at = off + i;
		uint64_t word = (at / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (seed * 0x10001);

		p[i] = (char)(word >> (at % 8 * 8));
	}
}

void assert_reads_as(struct disk *d, const char *raw_path)
{
	enum { CHUNK = 1 << 20 };
	_cleanup_store_ struct store *raw = harness_store(raw_path, false);
	_cleanup_free_ char *want = malloc(CHUNK), *have = malloc(CHUNK);

	for (uint64_t off = 0; off < d->img.size; off += CHUNK) {
		size_t n = (size_t)min_u64(CHUNK, d->img.size - off);

		assert_int_equal(store_read_full(raw, want, n, off), 0);
		assert_int_equal(disk_read(d, have, n, off), 0);
		for (size_t i = 0; memcmp(want, have, n) != 0 && i < n; i++)
			if (want[i] != have[i])
				fail_msg("differs at 0x%llx", (unsigned long long)(off + i));
	}
}

void assert_check(const char *path, bool leaks_allowed)
{
	int r = sh_status("qemu-img check -q '%s' >check.out 2>&1", path);

	/* 3: leaks but no corruption */
	if (r == 0 || (leaks_allowed && r == 3))
		return;
	sh_status("head -20 check.out");
	fail_msg("qemu-img check %s: exit status %d", path, r);
}

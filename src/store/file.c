/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/io.h"
#include "store/direct.h"

/*
 * A regular file or a block device behind a file descriptor.
 *
 * The size of a block device is asked once: it is fixed. That of a regular file is asked each time,
 * because others may change it under us.
 */

struct file {
	struct store store;
	int fd;
	struct direct *direct; /* the fd is O_DIRECT; else NULL */
	uint32_t sector;       /* block device: its logical block, else 1 */
	atomic_bool no_zero;   /* the host knows no FALLOC_FL_ZERO_RANGE here */
	atomic_bool no_punch;
	atomic_int *lost; /* what the first flush that failed said; 0: none did */
	atomic_int own_lost;
};

#define FILE_ALLOCATE_STEP MIB(64)
enum { FILE_ERRNO_MAX = 4095 };

/* Zeroes for the ends of a range that are no whole sectors (a logical block is at most a page). */
static const unsigned char file_zeroes[64 * 1024];

static struct file *file_of(struct store *s)
{
	return (struct file *)s;
}

static void file_close(struct store *s)
{
	struct file *f = file_of(s);

	direct_free(f->direct);
	closep(&f->fd);
	free(f);
}

static ssize_t file_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	struct file *f = file_of(s);

	return f->direct ? direct_read(f->direct, buf, len, off) : io_pread(f->fd, buf, len, off);
}

static int file_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct file *f = file_of(s);

	return f->direct ? direct_write(f->direct, buf, len, off) : io_pwrite(f->fd, buf, len, off);
}

/*
 * The kernel tells of bytes that it could not write back once, to whoever flushes first, and then
 * forgets them: the next flush succeeds. That first one may be a barrier of some other request, and
 * whoever asks for his bytes must not be told that they are safe. So all later flushes fail too,
 * also those of the process that comes after one that was killed, by file_keep(); and those that
 * were under way at that moment, which is why they look once more when they are done.
 */
static int file_lost(struct file *f, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(f->lost, &none, error);
	return error;
}

static int file_flush(struct store *s)
{
	struct file *f = file_of(s);
	int lost = atomic_load(f->lost);

	while (lost == 0 && fdatasync(f->fd) < 0)
		if (errno != EINTR)
			lost = file_lost(f, -errno);
	return lost < 0 ? lost : atomic_load(f->lost);
}

static void file_keep(struct store *s, atomic_int *lost)
{
	struct file *f = file_of(s);
	int said = atomic_load(lost), own = atomic_load(f->lost);

	/* Who was killed may have died of writing where he should not */
	if (said > 0 || said < -FILE_ERRNO_MAX)
		atomic_store(lost, -EIO);
	f->lost = lost;
	if (own < 0)
		file_lost(f, own);
}

/* RWF_DSYNC (Linux 4.7) writes back this range alone, where fdatasync(2) takes the whole file. */
static int file_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
	struct file *f = file_of(s);
	/* Where there is no room that shows here, where nothing is lost by it */
	int r = file_write(s, buf, len, off);

	if (r == 0)
		r = atomic_load(f->lost);
	if (r < 0 || f->direct) /* its pieces need not be one write */
		return r < 0 ? r : file_flush(s);
	while (iov.iov_len > 0) {
		ssize_t n = pwritev2(f->fd, &iov, 1, (off_t)off, RWF_DSYNC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return file_lost(f, n < 0 ? -errno : -EIO);
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		off += (uint64_t)n;
	}
	return atomic_load(f->lost);
}

static int file_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	while (fallocate(f->fd, mode, (off_t)off, (off_t)len) < 0)
		if (errno == ENOSYS)
			return -EOPNOTSUPP;
		else if (errno != EINTR)
			return -errno;
	return 0;
}

/* file_fallocate() that is not tried again where the host said once that it cannot. */
static int file_try(struct file *f, int mode, atomic_bool *cannot, uint64_t off, uint64_t len)
{
	struct direct_range range;
	int r;

	if (atomic_load_explicit(cannot, memory_order_relaxed))
		return -EOPNOTSUPP;
	direct_enter(f->direct, &range, off, len, true);
	r = file_fallocate(f, mode | FALLOC_FL_KEEP_SIZE, off, len);
	direct_leave(f->direct, &range);
	if (r == -EOPNOTSUPP)
		atomic_store_explicit(cannot, true, memory_order_relaxed);
	return r;
}

/* Gives the space of whole sectors back; they read as zeroes, on block devices too (Linux 4.9). */
static int file_punch(struct file *f, uint64_t off, uint64_t len)
{
	return file_try(f, FALLOC_FL_PUNCH_HOLE, &f->no_punch, off, len);
}

/* Zeroes whole sectors and keeps their space, unless the host can only punch, or is too full. */
static int file_zero_range(struct file *f, uint64_t off, uint64_t len)
{
	int r = file_try(f, FALLOC_FL_ZERO_RANGE, &f->no_zero, off, len);

	return r == -EOPNOTSUPP || r == -ENOSPC ? file_punch(f, off, len) : r;
}

/*
 * A block device takes whole sectors only: `clear` gets those, and the bytes before and behind them
 * are written.
 */
static int file_clear(struct file *f, uint64_t off, uint64_t len,
		      int (*clear)(struct file *f, uint64_t off, uint64_t len))
{
	uint64_t end = off + len;
	uint64_t from = min_u64(round_up(off, f->sector), end);
	uint64_t to = max_u64(round_down(end, f->sector), from);
	int r = 0;

	if (from < to)
		r = clear(f, from, to - from);
	if (r == 0 && off < from)
		r = file_write(&f->store, file_zeroes, from - off, off);
	if (r == 0 && to < end)
		r = file_write(&f->store, file_zeroes, end - to, to);
	return r;
}

static int file_discard(struct store *s, uint64_t off, uint64_t len)
{
	return file_clear(file_of(s), off, len, file_punch);
}

static int file_zero(struct store *s, uint64_t off, uint64_t len)
{
	return file_clear(file_of(s), off, len, file_zero_range);
}

static int file_allocate(struct store *s, uint64_t off, uint64_t len)
{
	int r = 0;

	if (s->fixed)
		return 0; /* a device has all of its space */
	/* In steps: tmpfs starts over after every signal, and must come to an end between two */
	for (uint64_t n; r == 0 && len > 0; off += n, len -= n) {
		n = min_u64(len, FILE_ALLOCATE_STEP);
		r = file_fallocate(file_of(s), FALLOC_FL_KEEP_SIZE, off, n);
	}
	return r;
}

static int file_resize(struct store *s, uint64_t size)
{
	struct file *f = file_of(s);
	struct direct_range range;
	int r;

	direct_enter(f->direct, &range, 0, INT64_MAX, true);
	do
		r = ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	while (r == -EINTR);
	direct_leave(f->direct, &range);
	return r;
}

/* Where the kernel or the file system cannot tell holes, all of it is data. */
static int file_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len)
{
	int fd = file_of(s)->fd;
	off_t data = -1, end = -1;
	bool is_data = true;

	if (!s->fixed) {
		data = lseek(fd, (off_t)off, SEEK_DATA);
		if (data < 0 && errno != ENXIO && errno != EINVAL && errno != EOPNOTSUPP)
			return -errno;
		is_data = data == (off_t)off || (data < 0 && errno != ENXIO);
		end = data == (off_t)off ? lseek(fd, (off_t)off, SEEK_HOLE) : data;
	}
	*ret_data = is_data;
	/* end is not behind off where the file is being cut under us */
	*ret_len = end > (off_t)off ? min_u64(len, (uint64_t)end - off) : len;
	return 0;
}

static int file_stat(struct store *s, struct store_stat *ret)
{
	struct stat st;

	if (fstat(file_of(s)->fd, &st) < 0)
		return -errno;
	*ret = (struct store_stat){
		.size = s->fixed ? s->fixed_size : (uint64_t)st.st_size,
		.allocated = s->fixed ? s->fixed_size : (uint64_t)st.st_blocks * 512,
		.block = (uint32_t)st.st_blksize,
		.mtime = st.st_mtim,
		.ctime = st.st_ctim,
		.dev = s->fixed ? st.st_rdev : st.st_dev,
		.ino = s->fixed ? 0 : st.st_ino,
	};
	return 0;
}

/* None where every use of it would have to be aligned. */
static int file_fd(struct store *s)
{
	struct file *f = file_of(s);

	return f->direct ? -1 : f->fd;
}

static const struct store_ops file_ops = {
	.kind = "file",
	.close = file_close,
	.read = file_read,
	.write = file_write,
	.write_durable = file_write_durable,
	.flush = file_flush,
	.discard = file_discard,
	.zero = file_zero,
	.allocate = file_allocate,
	.resize = file_resize,
	.map = file_map,
	.stat = file_stat,
	.fd = file_fd,
	.keep = file_keep,
};

static int file_init_device(struct file *f, struct diag *diag)
{
	const char *name = f->store.name;
	uint64_t size;
	int sector;

	if (ioctl(f->fd, BLKGETSIZE64, &size) < 0)
		return diag_errno(diag, -errno, "cannot ask for the size of block device %s", name);
	if (ioctl(f->fd, BLKSSZGET, &sector) < 0)
		return diag_errno(diag, -errno, "cannot ask for the sector size of block device %s",
				  name);
	if (size == 0)
		return diag_set(diag, -ENOMEDIUM, "block device %s has no medium (its size is 0)",
				name);
	if (sector <= 0 || !is_pow2((uint64_t)sector) || (size_t)sector > sizeof(file_zeroes))
		return diag_set(diag, -EOPNOTSUPP, "block device %s has sectors of %d bytes", name,
				sector);
	f->store.fixed = true;
	f->store.fixed_size = size;
	f->sector = (uint32_t)sector;
	return 0;
}

static int file_init(struct file *f, struct diag *diag)
{
	const char *name = f->store.name;
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return diag_errno(diag, -errno, "cannot stat %s", name);
	if (S_ISBLK(st.st_mode))
		return file_init_device(f, diag);
	if (!S_ISREG(st.st_mode))
		return diag_set(diag, -EMEDIUMTYPE,
				"%s is neither a regular file nor a block device", name);
	return 0;
}

int store_file_new(int fd, const char *name, struct store **ret, struct diag *diag)
{
	_cleanup_store_ struct store *s = NULL;
	_cleanup_close_ int owned = fd;
	struct file *f;
	int flags, r;

	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return diag_errno(diag, -errno, "cannot use the file descriptor of %s", name);
	if (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
		return diag_set(diag, -EBADF, "%s is not open for reading", name);
	if (flags & O_APPEND) /* pwrite(2) would not care for its offset */
		return diag_set(diag, -EBADF, "%s is open for appending", name);
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	r = store_init(&f->store, &file_ops, name, (flags & O_ACCMODE) == O_RDONLY);
	if (r < 0) {
		free(f);
		return r;
	}
	s = &f->store;
	f->fd = TAKE_FD(owned);
	f->sector = 1;
	f->lost = &f->own_lost;
	r = file_init(f, diag);
	if (r == 0 && flags & O_DIRECT)
		r = direct_new(f->fd, s->fixed ? f->sector : 0, &f->direct);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

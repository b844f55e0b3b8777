/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* On ext4 (or what /var/tmp is), tmpfs, ramfs, and a loop device. */

#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"

static const char *const dirs[] = {HOST_DISK, HOST_TMPFS};

static unsigned char buf[MIB(1)];

static uint64_t size_of(struct store *s)
{
	uint64_t size;

	assert_int_equal(store_size(s, &size), 0);
	return size;
}

static uint64_t allocated(struct store *s)
{
	struct store_stat st;

	assert_int_equal(store_stat(s, &st), 0);
	return st.allocated;
}

/* A file of MIB(1) that is all pattern 1. */
static struct store *full_file(const char *dir)
{
	struct store *s = host_store(dir, O_RDWR, 0);

	host_pattern(buf, sizeof(buf), 0, 1);
	assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
	assert_int_equal(store_flush(s), 0);
	return s;
}

/* Pattern 1 but for zeroes in the range. */
static void assert_only_zeroed(struct store *s, uint64_t off, uint64_t len)
{
	assert_int_equal(size_of(s), sizeof(buf));
	assert_int_equal(store_read_full(s, buf, sizeof(buf), 0), 0);
	host_assert_pattern(buf, off, 0, 1);
	host_assert_zero(buf + off, len);
	host_assert_pattern(buf + off + len, sizeof(buf) - off - len, off + len, 1);
}

static void test_read_and_write(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_store_ struct store *s = full_file(dirs[i]);

		assert_false(s->read_only);
		assert_false(s->fixed);
		assert_true(store_fd(s) >= 0);
		assert_only_zeroed(s, 0, 0);
		assert_int_equal(store_read(s, buf, 1000, MIB(1) - 1), 1);
		assert_int_equal(store_read(s, buf, 1000, MIB(1)), 0);
		assert_int_equal(store_read(s, buf, 1000, (uint64_t)INT64_MAX - 1), 0);
		assert_int_equal(store_write(s, "end", 3, MIB(2)), 0);
		assert_int_equal(size_of(s), MIB(2) + 3);
		assert_int_equal(store_write_durable(s, "more", 4, MIB(3)), 0);
		assert_int_equal(store_read(s, buf, 1000, MIB(3)), 4);
		assert_memory_equal(buf, "more", 4);
	}
}

static void test_size_is_asked_each_time(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK);

	assert_return_code(ftruncate(store_fd(s), 5000), errno);
	assert_int_equal(size_of(s), 5000);
	assert_int_equal(store_read(s, buf, sizeof(buf), 0), 5000);
	assert_int_equal(store_resize(s, 7000), 0);
	assert_int_equal(store_read(s, buf, sizeof(buf), 0), 7000);
	host_assert_pattern(buf, 5000, 0, 1);
	host_assert_zero(buf + 5000, 2000);
}

static void test_read_only(void **state)
{
	_cleanup_store_ struct store *s = host_store(HOST_DISK, O_RDONLY, 1000);

	assert_true(s->read_only);
	assert_int_equal(store_write(s, "x", 1, 0), -EROFS);
	assert_int_equal(store_read(s, buf, sizeof(buf), 0), 1000);
}

static void assert_refused(int fd, int error, const char *why)
{
	struct store *s = NULL;
	struct diag diag = {0};

	assert_true(fd >= 0);
	assert_int_equal(store_file_new(fd, "thing", &s, &diag), error);
	assert_int_equal(diag.error, error);
	assert_non_null(strstr(diag.text, why));
	assert_null(s);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was taken over all the same */
}

static void test_refused(void **state)
{
	int ends[2];

	assert_refused(open("/tmp", O_RDONLY | O_CLOEXEC), -EMEDIUMTYPE,
		       "thing is neither a regular file nor a block device");
	assert_refused(open("/dev/null", O_RDWR | O_CLOEXEC), -EMEDIUMTYPE, "neither");
	assert_refused(socket(AF_UNIX, SOCK_STREAM, 0), -EMEDIUMTYPE, "neither");
	assert_return_code(pipe(ends), errno);
	assert_refused(ends[0], -EMEDIUMTYPE, "neither");
	close(ends[1]);
	assert_refused(host_file(HOST_DISK, O_WRONLY, 0), -EBADF, "not open for reading");
	assert_refused(host_file(HOST_DISK, O_RDWR | O_APPEND, 0), -EBADF, "open for appending");
	assert_refused(open("/etc/passwd", O_PATH | O_CLOEXEC), -EBADF, "not open for reading");
	assert_int_equal(store_file_new(-1, "thing", NULL, NULL), -EBADF);
}

static void test_discard(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_store_ struct store *s = full_file(dirs[i]);
		uint64_t before = allocated(s);

		assert_int_equal(store_discard(s, 10001, 500000), 0);
		assert_only_zeroed(s, 10001, 500000);
		assert_true(allocated(s) <= before - 480000);
		assert_int_equal(store_discard(s, MIB(1), MIB(1)), 0);
		assert_int_equal(store_discard(s, MIB(2), MIB(1)), 0);
		assert_only_zeroed(s, 10001, 500000);
	}
}

static void test_zero(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_store_ struct store *s = full_file(dirs[i]);

		assert_int_equal(store_zero(s, 4097, 100), 0);
		assert_only_zeroed(s, 4097, 100);
		assert_int_equal(store_zero(s, 4097, MIB(4)), 0);
		assert_only_zeroed(s, 4097, MIB(1) - 4097);
	}
}

/* Zeroing is no reason to give space back: a later write must not run out of it. */
static void test_zero_keeps_space(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK);
	uint64_t before = allocated(s);

	assert_int_equal(store_zero(s, 0, MIB(1)), 0);
	assert_int_equal(store_flush(s), 0);
	assert_true(allocated(s) >= before);
}

static void test_allocate(void **state)
{
	_cleanup_store_ struct store *s = host_store(HOST_DISK, O_RDWR, 100);

	assert_int_equal(store_allocate(s, 0, MIB(1)), 0);
	assert_true(allocated(s) >= MIB(1));
	assert_int_equal(size_of(s), 100);
}

static void assert_map(struct store *s, uint64_t off, uint64_t len, bool is_data, uint64_t run)
{
	uint64_t got;
	bool data;

	assert_int_equal(store_map(s, off, len, &data, &got), 0);
	assert_int_equal(data, is_data);
	assert_int_equal(got, run);
}

static void test_map(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_store_ struct store *s = host_store(dirs[i], O_RDWR, MIB(4));

		host_pattern(buf, sizeof(buf), 0, 1);
		assert_int_equal(store_write(s, buf, sizeof(buf), MIB(1)), 0);
		assert_map(s, 0, MIB(8), false, MIB(1));
		assert_map(s, 5, 10, false, 10);
		assert_map(s, MIB(1), MIB(8), true, MIB(1));
		assert_map(s, MIB(1) + 7, MIB(8), true, MIB(1) - 7);
		assert_map(s, MIB(2), MIB(8), false, MIB(2));
		assert_map(s, MIB(4), MIB(8), false, MIB(8));
	}
}

static void test_stat(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK);
	struct store_stat st;
	struct stat host;

	assert_return_code(fstat(store_fd(s), &host), errno);
	assert_int_equal(store_stat(s, &st), 0);
	assert_int_equal(st.size, MIB(1));
	assert_int_equal(st.allocated, host.st_blocks * 512);
	assert_int_equal(st.block, host.st_blksize);
	assert_int_equal(st.dev, host.st_dev);
	assert_int_equal(st.ino, host.st_ino);
	assert_memory_equal(&st.mtime, &host.st_mtim, sizeof(st.mtime));
}

static void test_host_that_cannot(void **state)
{
	const char *dir = host_ramfs();
	_cleanup_store_ struct store *s = NULL;

	if (!dir)
		skip();
	s = full_file(dir);
	for (int i = 0; i < 2; i++) /* the second time it knows without asking */
		assert_int_equal(store_discard(s, 0, 4096), -EOPNOTSUPP);
	assert_only_zeroed(s, 0, 0);
	assert_int_equal(store_zero(s, 777, 300000), 0);
	assert_int_equal(store_zero(s, MIB(1), 300000), 0);
	assert_only_zeroed(s, 777, 300000);
	assert_int_equal(store_allocate(s, 0, 4096), -EOPNOTSUPP);
}

static struct store *loop_store(int flags)
{
	int fd = host_loop(flags, MIB(1), 512);
	struct store *s = NULL;

	if (fd < 0)
		skip();
	assert_int_equal(store_file_new(fd, "loop", &s, NULL), 0);
	return s;
}

static void test_device(void **state)
{
	_cleanup_store_ struct store *s = loop_store(O_RDWR);
	struct store_stat st;
	struct stat host;

	assert_true(s->fixed);
	assert_int_equal(s->fixed_size, MIB(1));
	host_pattern(buf, sizeof(buf), 0, 1);
	assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
	assert_int_equal(store_flush(s), 0);
	assert_only_zeroed(s, 0, 0);
	assert_int_equal(store_read(s, buf, 100, MIB(1) - 10), 10);
	assert_int_equal(store_read(s, buf, 100, MIB(1)), 0);

	assert_int_equal(store_write(s, "xy", 2, MIB(1) - 1), -ENOSPC);
	assert_int_equal(store_resize(s, MIB(2)), -ENOSPC);
	assert_int_equal(store_resize(s, MIB(1)), 0);
	assert_int_equal(store_allocate(s, 0, MIB(1)), 0);
	assert_map(s, 0, MIB(1), true, MIB(1));
	assert_map(s, MIB(1), 512, false, 512);

	assert_return_code(fstat(store_fd(s), &host), errno);
	assert_int_equal(store_stat(s, &st), 0);
	assert_int_equal(st.size, MIB(1));
	assert_int_equal(st.allocated, MIB(1));
	assert_int_equal(st.dev, host.st_rdev);
	assert_int_equal(st.ino, 0);
}

/* The ends of the range are no whole sectors. */
static void test_device_zero_and_discard(void **state)
{
	static const struct {
		uint64_t off, len;
	} ranges[] = {{0, 512},	    {100, 50},	   {100, 412},	     {511, 2},
		      {1000, 5000}, {1024, 65536}, {700001, 123456}, {MIB(1) - 1, 1}};
	_cleanup_store_ struct store *s = loop_store(O_RDWR);

	for (size_t i = 0; i < 2 * ARRAY_SIZE(ranges); i++) {
		uint64_t off = ranges[i / 2].off, len = ranges[i / 2].len;
		int (*clear)(struct store *, uint64_t, uint64_t) =
			i % 2 ? store_discard : store_zero;

		host_pattern(buf, sizeof(buf), 0, 1);
		assert_int_equal(store_write(s, buf, sizeof(buf), 0), 0);
		assert_int_equal(clear(s, off, len), 0);
		assert_only_zeroed(s, off, len);
	}
}

static void test_device_read_only(void **state)
{
	_cleanup_store_ struct store *s = loop_store(O_RDONLY);

	assert_int_equal(store_write(s, "x", 1, 0), -EROFS);
	assert_int_equal(store_zero(s, 0, 1), -EROFS);
}

/* The store's next flush fails, the host's later ones do not: it tells once. */
static void fail_flush(struct store *s)
{
	int ends[2], file = dup(store_fd(s));

	assert_true(file >= 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(dup2(ends[1], store_fd(s)), store_fd(s)); /* which cannot be flushed */
	assert_int_equal(store_flush(s), -EINVAL);
	assert_int_equal(dup2(file, store_fd(s)), store_fd(s));
	close(file);
	close(ends[0]);
	close(ends[1]);
}

/* What could not be written back is told once by the kernel, and by us from then on. */
static void test_flush_error_stays(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK);

	assert_int_equal(store_write_durable(s, "x", 1, 0), 0);
	fail_flush(s);
	assert_int_equal(store_write(s, "y", 1, 0), 0);
	assert_int_equal(store_flush(s), -EINVAL);
	assert_int_equal(store_write_durable(s, "z", 1, 0), -EINVAL);
}

/* Whose next flush fails while one of another thread's is in the kernel's hands. */
static struct store *fails_meanwhile;

static void somebody_else_flushes(void)
{
	struct store *s = fails_meanwhile;

	fails_meanwhile = NULL;
	if (s)
		fail_flush(s);
}

/* These two stand before the C library's. */
int fdatasync(int fd)
{
	int r = (int)syscall(SYS_fdatasync, fd);

	somebody_else_flushes();
	return r;
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	ssize_t r = syscall(SYS_pwritev2, fd, iov, n, (long)off, 0L, flags);

	somebody_else_flushes();
	return r;
}

/* Of two flushes at once the kernel tells one, and it may be the bytes of the other. */
static void test_flush_error_is_shared(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK), *t = full_file(HOST_DISK);

	fails_meanwhile = s;
	assert_int_equal(store_flush(s), -EINVAL);
	fails_meanwhile = t;
	assert_int_equal(store_write_durable(t, "x", 1, 0), -EINVAL);
}

/* ... and by who comes after us. */
static void test_flush_error_is_kept(void **state)
{
	struct store *s = full_file(HOST_DISK), *next = full_file(HOST_DISK);
	atomic_int lost = 0;

	store_keep(s, &lost);
	assert_int_equal(store_flush(s), 0);
	assert_int_equal(lost, 0);
	fail_flush(s);
	assert_int_equal(lost, -EINVAL);
	store_close(s);
	assert_int_equal(store_flush(next), 0);
	store_keep(next, &lost);
	assert_int_equal(store_flush(next), -EINVAL);
	assert_int_equal(store_write_durable(next, "z", 1, 0), -EINVAL);
	store_close(next);
}

/* One that failed before there was a place to keep it; and a place that somebody has spoilt. */
static void test_flush_error_is_kept_late(void **state)
{
	_cleanup_store_ struct store *s = full_file(HOST_DISK), *next = full_file(HOST_DISK);
	atomic_int lost = 0;

	fail_flush(s);
	store_keep(s, &lost);
	assert_int_equal(lost, -EINVAL);
	assert_int_equal(store_flush(s), -EINVAL);
	lost = 4711;
	store_keep(next, &lost);
	assert_int_equal(store_flush(next), -EIO);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_and_write),
		cmocka_unit_test(test_size_is_asked_each_time),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_zero),
		cmocka_unit_test(test_zero_keeps_space),
		cmocka_unit_test(test_allocate),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_stat),
		cmocka_unit_test(test_host_that_cannot),
		cmocka_unit_test(test_flush_error_stays),
		cmocka_unit_test(test_flush_error_is_shared),
		cmocka_unit_test(test_flush_error_is_kept),
		cmocka_unit_test(test_flush_error_is_kept_late),
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_device_zero_and_discard),
		cmocka_unit_test(test_device_read_only),
	};

	return cmocka_run_group_tests_name("store/file", tests, NULL, NULL);
}

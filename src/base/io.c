/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { IO_STREAM = -1 };

/* At an offset, or where the stream stands. */
static ssize_t io_read_some(int fd, void *buf, size_t len, off_t off)
{
	return off == IO_STREAM ? read(fd, buf, len) : pread(fd, buf, len, off);
}

static ssize_t io_write_some(int fd, const void *buf, size_t len, off_t off)
{
	return off == IO_STREAM ? write(fd, buf, len) : pwrite(fd, buf, len, off);
}

static ssize_t io_read_on(int fd, void *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = io_read_some(fd, (char *)buf + done, len - done,
					 off == IO_STREAM ? off : off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int io_write_on(int fd, const void *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = io_write_some(fd, (const char *)buf + done, len - done,
					  off == IO_STREAM ? off : off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

ssize_t io_pread(int fd, void *buf, size_t len, uint64_t off)
{
	return io_read_on(fd, buf, len, (off_t)off);
}

int io_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	return io_write_on(fd, buf, len, (off_t)off);
}

ssize_t io_read(int fd, void *buf, size_t len)
{
	return io_read_on(fd, buf, len, IO_STREAM);
}

int io_write(int fd, const void *buf, size_t len)
{
	return io_write_on(fd, buf, len, IO_STREAM);
}

int io_read_file(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_len)
{
	_cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	_cleanup_free_ char *buf = NULL;
	ssize_t n;

	if (fd < 0)
		return -errno;
	buf = malloc(max + 2);
	if (!buf)
		return -ENOMEM;
	n = io_read(fd, buf, max + 1);
	if (n < 0)
		return (int)n;
	if ((size_t)n > max)
		return -EFBIG;
	buf[n] = '\0';
	*ret = TAKE_PTR(buf);
	if (ret_len)
		*ret_len = (size_t)n;
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_IO_H
#define FUSEIMG_IO_H

/*
 * read(2) and friends, continued over short transfers and EINTR. Returns are bytes or negative
 * errno.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads until len bytes or the end of the file; a count below len means the end. */
ssize_t io_pread(int fd, void *buf, size_t len, uint64_t off);

/* Writes all of it, or fails: 0 or negative errno. A device that takes nothing answers -EIO. */
int io_pwrite(int fd, const void *buf, size_t len, uint64_t off);

/* The same on a stream. */
ssize_t io_read(int fd, void *buf, size_t len);
int io_write(int fd, const void *buf, size_t len);

/* Reads a whole small file, at most max bytes, into a new NUL-terminated buffer that the caller
 * frees. -EFBIG when there is more. */
int io_read_file(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_len);

#endif

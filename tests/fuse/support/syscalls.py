# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls that os lacks, or that the C library would imitate."""

import ctypes
import mmap
import os

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 16, 32, 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, off, length):
    if _libc.fallocate(fd, mode, off, length) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def aligned(length):
    """A buffer for O_DIRECT."""
    return mmap.mmap(-1, length)


def direct_read(fd, length, off):
    buffer = aligned(length)
    got = os.preadv(fd, [buffer], off)
    return buffer[:got]


def direct_write(fd, data, off):
    buffer = aligned(len(data))
    buffer[:] = data
    return os.pwritev(fd, [buffer], off)


def segments(fd, size):
    """The (offset, end) of every data segment that SEEK_DATA and SEEK_HOLE tell of."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == 6:    # ENXIO: a hole up to the end
                break
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        assert at <= start < end <= size, f"SEEK_DATA({at}) = {start}, SEEK_HOLE = {end}, size {size}"
        found.append((start, end))
        at = end
    return found


def fsync_error(fd):
    """What fsync(2) fails with, or 0."""
    try:
        os.fsync(fd)
    except OSError as error:
        return error.errno
    return 0

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every kind of request must answer (the contract stands in ARCHITECTURE.md and fuse/ops-*.c), and
the faults of QEMU's export that we must not have."""

import errno
import fcntl
import mmap
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import time

import pytest

from support import images, mounts, proc
from support.content import GiB, KiB, MiB, in_threads, random_bytes, write_all
from support.export import fuseimg
from support.syscalls import (COLLAPSE_RANGE, INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE, UNSHARE_RANGE, ZERO_RANGE,
                              direct_read, direct_write, fallocate)

pytestmark = pytest.mark.core

SIZE = 8 * MiB + 5 * 512    # a multiple of a sector, and of nothing else
BOTH = pytest.mark.parametrize("format", ["raw", "qcow2"])


class Disk:
    """An export, an open descriptor of it, and what it should hold."""

    def __init__(self, mount, work, format="raw", size=SIZE, content=True, name="disk.img", **options):
        self.image = work / name
        if format == "raw":     # by qemu-img its first block would be data
            self.image.touch()
            os.truncate(self.image, size)
        else:
            images.create(self.image, size, format=format)
        self.model = bytearray(size)
        if content:
            # seconds ago, so that a fabricated time stamp is another one
            self.model[:] = random_bytes(1, size)
            (work / "content").write_bytes(self.model)
            proc.run("qemu-img", "convert", "-n", "-f", "raw", "-O", format, work / "content",
                     self.image)
            (work / "content").unlink()
        os.utime(self.image, (1_600_000_000, 1_600_000_000))
        self.export = mount(self.image, format=format, **options)
        self.path = self.export.path
        self.fd = os.open(self.path, os.O_RDONLY if "ro" in options else os.O_RDWR)

    @property
    def size(self):
        return os.fstat(self.fd).st_size

    def close(self):
        os.close(self.fd)
        self.export.umount()

    def same(self):
        assert os.pread(self.fd, len(self.model) + 1, 0) == self.model


@pytest.fixture
def disk(mount, work):
    """A factory of disks."""
    return lambda *args, **options: Disk(mount, work, *args, **options)


def error_of(call, *args):
    """The name of the errno that the call raises, or None."""
    try:
        call(*args)
    except OSError as error:
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]
    return None


def status(export):
    """The counters of a directory target."""
    text = (export.target / "status").read_text()
    return {key: value.strip() for key, value in re.findall(r"^(\w+): (.*)$", text, re.MULTILINE)}


def directory_target(work):
    target = work / "directory"
    target.mkdir()
    return target


# INIT

def test_requests_are_large(disk, work):
    """1 MiB in one request, both ways: max_pages was granted."""
    d = disk(target=directory_target(work))
    before = status(d.export)
    direct_write(d.fd, random_bytes(7, MiB), MiB)
    assert direct_read(d.fd, MiB, MiB) == random_bytes(7, MiB)
    after = status(d.export)
    assert int(after["writes"]) - int(before["writes"]) == 1
    assert int(after["write_bytes"]) - int(before["write_bytes"]) == MiB
    assert int(after["reads"]) - int(before["reads"]) <= 2
    d.close()


# LOOKUP

def test_file_target_has_no_names(disk):
    d = disk()
    assert error_of(os.stat, f"{d.path}/disk") == "ENOTDIR"
    d.close()


def test_directory_target_has_its_names(disk, work):
    d = disk(target=directory_target(work))
    root = d.export.target
    assert sorted(os.listdir(root)) == ["disk", "status"]
    assert stat.S_ISDIR(os.stat(root).st_mode)
    assert {entry.name: entry.is_file() for entry in os.scandir(root)} == {"disk": True, "status": True}
    for name in ("part1", "nothing", "DISK", "d" * 255, "\xff"):
        assert error_of(os.stat, root / name) == "ENOENT"
    assert error_of(os.stat, root / ("d" * 256)) in ("ENAMETOOLONG", "ENOENT")
    assert os.stat(root / "disk").st_ino == next(e.inode() for e in os.scandir(root) if e.name == "disk")
    d.close()


def test_names_cannot_be_changed(disk, work):
    d = disk(target=directory_target(work))
    root = d.export.target
    assert error_of(os.mkdir, root / "new")
    assert error_of(os.open, root / "new", os.O_CREAT | os.O_WRONLY)
    assert error_of(os.unlink, root / "disk")
    assert error_of(os.rmdir, root / "disk")
    assert error_of(os.rename, root / "disk", root / "other")
    assert error_of(os.link, root / "disk", root / "other")
    assert error_of(os.symlink, "disk", root / "other")
    assert error_of(os.mknod, root / "other")
    assert sorted(os.listdir(root)) == ["disk", "status"]
    assert error_of(os.open, root / "status", os.O_WRONLY)
    d.same()
    d.close()


def test_status_counts(disk, work):
    d = disk(target=directory_target(work))
    text = status(d.export)
    assert text["format"] == "raw" and text["read_only"] == "no" and int(text["size"]) == SIZE
    assert text["image"] == str(d.image)
    before = int(text["flushes"])
    os.fsync(d.fd)
    assert int(status(d.export)["flushes"]) == before + 1
    with open(d.export.target / "status", "rb", buffering=0) as f:
        pieces = b"".join(iter(lambda: f.read(16), b""))
    assert pieces.startswith(b"image: ") and pieces.endswith(b"\n")
    d.close()


# GETATTR

@BOTH
def test_stat(disk, format):
    d = disk(format)
    first, host = os.stat(d.path), os.stat(d.image)
    assert stat.S_ISREG(first.st_mode) and first.st_size == SIZE
    assert first.st_nlink == 1
    assert first.st_blksize == (64 * KiB if format == "qcow2" else 4096)
    assert abs(first.st_blocks - host.st_blocks) <= 2048 and first.st_blocks > 0
    # when the image last changed; not "now"
    assert int(first.st_mtime) == int(host.st_mtime) == 1_600_000_000
    time.sleep(1.1)
    again = os.stat(d.path)
    assert again.st_mtime_ns == first.st_mtime_ns and again.st_ctime_ns == first.st_ctime_ns
    d.close()


@BOTH
def test_blocks_are_what_is_allocated(disk, format):
    d = disk(format, size=256 * MiB, content=False)
    assert os.fstat(d.fd).st_blocks * 512 < 2 * MiB
    write_all(d.fd, random_bytes(1, 4 * MiB), 100 * MiB)
    os.fsync(d.fd)
    time.sleep(1.1)     # attributes may be cached for a moment
    taken = os.stat(d.path).st_blocks * 512
    assert 4 * MiB <= taken < 80 * MiB
    d.close()


@BOTH
def test_mtime_follows_a_write(disk, format):
    d = disk(format)
    before = time.time() - 2
    os.pwrite(d.fd, b"x" * 4096, 0)
    os.fsync(d.fd)
    time.sleep(1.1)
    assert before <= os.stat(d.path).st_mtime <= time.time() + 2
    d.close()


def test_ownership_as_configured(disk):
    d = disk(mode="0640", owner="nobody", group="65533")
    st = os.stat(d.path)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o640, 65534, 65533)
    d.close()


@pytest.mark.parametrize("options,mode", [({}, 0o600), ({"ro": True}, 0o400)])
def test_ownership_by_default(disk, options, mode):
    d = disk(**options)
    st = os.stat(d.path)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (mode, 0, 0)
    d.close()


# SETATTR

@BOTH
def test_fixed_size_stays(disk, format):
    d = disk(format)
    for size in (0, SIZE - 512, SIZE - 1, SIZE + 1, 4 * GiB):
        assert error_of(os.ftruncate, d.fd, size) == "EPERM", size
        assert size == 0 or error_of(os.truncate, d.path, size) == "EPERM", size
        assert os.stat(d.path).st_size == SIZE
    d.same()
    d.close()


@BOTH
def test_growable_resizes(disk, format):
    d = disk(format, growable=True)
    for size in (SIZE + 123, 2 * SIZE + 369, SIZE - 123, 4219, SIZE):
        os.ftruncate(d.fd, size)
        assert d.size == size
        del d.model[size:]
        d.model.extend(bytes(size - len(d.model)))
        d.same()
    d.close()
    if format == "raw":
        assert d.image.stat().st_size == SIZE


def test_mode_and_owner_change(disk):
    d = disk()
    os.chmod(d.path, 0o640)
    os.chown(d.path, 65534, 65533)
    st = os.stat(d.path)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o640, 65534, 65533)
    assert stat.S_IMODE(d.image.stat().st_mode) == 0o644, "the image's own mode is not ours to change"
    d.close()


def test_no_write_permission_on_read_only(disk):
    d = disk(ro=True)
    for mode in (0o600, 0o420, 0o402, 0o777):
        assert error_of(os.chmod, d.path, mode) == "EROFS"
    d.close()


def test_times_are_kept(disk, work):
    d = disk()
    os.utime(d.path, ns=(1_500_000_000_123_456_789, 1_500_000_001_987_654_321))
    st = os.stat(d.path)
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_500_000_000_123_456_789, 1_500_000_001_987_654_321)
    proc.run("touch", d.path)
    assert abs(os.stat(d.path).st_mtime - time.time()) < 5
    proc.run("touch", "-d", "2001-02-03 04:05:06 UTC", d.path)
    assert os.stat(d.path).st_mtime == 981173106
    # cp -p sets the times of its target and must not truncate it
    source = work / "source"
    source.write_bytes(random_bytes(5, SIZE))
    os.utime(source, (1_400_000_000, 1_400_000_000))
    proc.run("cp", "-p", source, d.path)
    assert os.stat(d.path).st_mtime == 1_400_000_000
    d.model[:] = random_bytes(5, SIZE)
    d.same()
    d.close()


# OPEN

@BOTH
def test_open_truncates_nothing(disk, format):
    """As on a block device: `cat x > disk` writes, and what it does not reach stays."""
    for growable in (True, False):
        d = disk(format, growable=growable, name=f"disk{growable}")
        fd = os.open(d.path, os.O_WRONLY | os.O_TRUNC)
        assert os.fstat(fd).st_size == SIZE
        os.pwrite(fd, b"new", 0)
        os.close(fd)
        os.truncate(d.path, 0)      # the kernel asks for the same
        d.model[:3] = b"new"
        assert d.size == SIZE
        d.same()
        d.close()


def test_open_truncates_no_page(disk):
    """What another program has mapped stays there, written or not."""
    d = disk()
    with mmap.mmap(d.fd, SIZE) as pages:
        pages[2 * MiB:2 * MiB + 5] = b"dirty"
        os.close(os.open(d.path, os.O_WRONLY | os.O_TRUNC))
        os.fsync(d.fd)
        d.model[2 * MiB:2 * MiB + 5] = b"dirty"
        d.same()
        assert pages[:] == d.model
    d.close()


@BOTH
def test_read_only(disk, format):
    d = disk(format, ro=True)
    before = images.digest(d.image)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        assert error_of(os.open, d.path, flags) == "EROFS", flags
    assert error_of(os.truncate, d.path, 0) == "EROFS"
    d.same()
    d.close()
    assert images.digest(d.image) == before


# READ

@BOTH
@pytest.mark.parametrize("options", [{}, {"cache": "none"}], ids=["cached", "uncached"])
def test_read_at_the_end(disk, format, options):
    d = disk(format, **options)
    end = d.model[-1000:]
    assert os.pread(d.fd, 1000, SIZE - 1000) == end
    assert os.pread(d.fd, 4096, SIZE - 1000) == end
    assert os.pread(d.fd, 1, SIZE - 1) == end[-1:]
    for off in (SIZE, SIZE + 1, SIZE + 511, 2 * SIZE, 1 << 40, (1 << 63) - 4096 - 1, (1 << 63) - 1 - 1):
        assert os.pread(d.fd, 1, off) == b"", off
    direct = os.open(d.path, os.O_RDONLY | os.O_DIRECT)
    assert direct_read(direct, MiB, SIZE - 512) == end[-512:]
    for off in (SIZE, SIZE + 512, 1 << 40, (1 << 63) - MiB - 4096):
        assert direct_read(direct, MiB, off) == b"", off
    os.close(direct)
    d.close()


# WRITE

@BOTH
@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "direct"])
@pytest.mark.parametrize("options", [{}, {"cache": "none"}], ids=["cached", "uncached"])
def test_write_past_the_end_of_a_fixed_size(disk, format, options, flags):
    d = disk(format, **options)
    fd = os.open(d.path, os.O_RDWR | flags)
    assert direct_write(fd, b"t" * 4096, SIZE - 512) == 512
    d.model[-512:] = b"t" * 512
    for off in (SIZE, SIZE + 512, 2 * SIZE, 1 << 40, (1 << 62)):
        assert error_of(direct_write, fd, b"u" * 4096, off) == "ENOSPC", off
    assert os.fstat(fd).st_size == SIZE
    os.close(fd)
    d.same()
    d.close()


@pytest.mark.parametrize("options", [{}, {"cache": "none"}], ids=["cached", "uncached"])
def test_write_grows(disk, options):
    d = disk("raw", growable=True, **options)
    assert os.pwrite(d.fd, b"a" * 1000, SIZE - 500) == 1000
    d.model[-500:] = b"a" * 1000
    assert d.size == SIZE + 500
    assert os.pwrite(d.fd, b"b" * 1000, SIZE + MiB + 3) == 1000
    d.model.extend(bytes(SIZE + MiB + 3 - len(d.model)) + b"b" * 1000)
    assert d.size == len(d.model)
    d.same()
    with open(d.path, "ab") as f:
        f.write(b"appended")
    d.model.extend(b"appended")
    assert os.stat(d.path).st_size == len(d.model)
    d.same()
    d.close()
    assert d.image.read_bytes() == d.model


@pytest.mark.parametrize("options", [{}, {"cache": "none"}], ids=["cached", "uncached"])
def test_qcow2_grows_and_shrinks(disk, options):
    d = disk("qcow2", growable=True, **options)
    assert os.pwrite(d.fd, b"a" * 1000, SIZE - 500) == 1000
    d.model[-500:] = b"a" * 1000
    assert os.pwrite(d.fd, b"b" * 1000, SIZE + MiB + 3) == 1000
    d.model.extend(bytes(SIZE + MiB + 3 - len(d.model)) + b"b" * 1000)
    d.same()
    for size in (3 * MiB + 77, 9 * MiB, 512, 70 * MiB):
        os.ftruncate(d.fd, size)
        d.model[size:] = bytes(max(size - len(d.model), 0))
        assert os.stat(d.path).st_size == size
        d.same()
    os.ftruncate(d.fd, 2 << 40)
    os.pwrite(d.fd, b"far", (1 << 40) + 5)
    assert os.pread(d.fd, 8, (1 << 40) + 3) == b"\0\0far\0\0\0"
    os.ftruncate(d.fd, 70 * MiB)
    d.same()
    d.close()
    images.check(d.image)
    assert images.to_raw(d.image, d.image.with_suffix(".out"), "-f", "qcow2").read_bytes() == d.model


@BOTH
def test_writers_of_grown_space(disk, format):
    """Several writers past the end at once: everybody's bytes are there."""
    d = disk(format, growable=True, content=False, size=512)
    jobs = [lambda n=n: os.pwrite(d.fd, random_bytes(n, 70001), 512 + n * 70001) for n in range(16)]
    in_threads(jobs)
    d.model.extend(b"".join(random_bytes(n, 70001) for n in range(16)))
    assert d.size == len(d.model)
    d.same()
    d.close()


# FALLOCATE

@BOTH
@pytest.mark.parametrize("mode", [0, KEEP_SIZE])
def test_allocate_inside(disk, format, mode):
    d = disk(format, size=64 * MiB, content=False)
    os.pwrite(d.fd, b"x" * 100, 3 * MiB)
    d.model[3 * MiB:3 * MiB + 100] = b"x" * 100
    fallocate(d.fd, mode, MiB + 5, 8 * MiB)
    time.sleep(1.1)
    assert os.stat(d.path).st_blocks * 512 >= 8 * MiB
    assert d.size == 64 * MiB
    d.same()
    d.close()


@BOTH
def test_allocate_past_the_end_of_a_fixed_size(disk, format):
    d = disk(format)
    for off, length in ((SIZE, 4096), (SIZE - 4096, 8192), (4 * GiB, MiB)):
        assert error_of(fallocate, d.fd, 0, off, length) == "ENOSPC"
        assert error_of(fallocate, d.fd, KEEP_SIZE, off, length) is None
    assert d.size == SIZE
    d.same()
    d.close()
    assert format == "qcow2" or d.image.stat().st_size == SIZE


@BOTH
def test_allocate_grows(disk, format):
    d = disk(format, growable=True)
    fallocate(d.fd, 0, SIZE + 1000, 2345)
    d.model.extend(bytes(3345))
    assert d.size == SIZE + 3345
    d.same()
    d.close()


HOLES = [PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]


@BOTH
@pytest.mark.parametrize("mode", HOLES, ids=["punch", "zero", "zero-keep"])
@pytest.mark.parametrize("options", [{}, {"cache": "none"}, {"discard": "ignore"}],
                         ids=lambda options: "-".join(options) or "default")
def test_zeroes_afterwards(disk, format, mode, options):
    d = disk(format, **options)
    os.pread(d.fd, SIZE, 0)     # into the page cache: it must not answer afterwards
    fallocate(d.fd, mode, 0, 4096)
    d.model[:4096] = bytes(4096)
    for off, length in ((64 * KiB, 64 * KiB), (300001, 3), (200 * KiB, 3 * MiB + 777), (SIZE - 5, 5)):
        fallocate(d.fd, mode, off, length)
        d.model[off:off + length] = bytes(length)
        d.same()
    assert d.size == SIZE
    d.close()


@BOTH
@pytest.mark.parametrize("mode", HOLES, ids=["punch", "zero", "zero-keep"])
def test_zeroing_never_grows_a_fixed_size(disk, format, mode):
    d = disk(format)
    across = error_of(fallocate, d.fd, mode, SIZE - 4096, 8192)
    beyond = error_of(fallocate, d.fd, mode, SIZE + 4096, 8192)
    if mode & PUNCH_HOLE:
        assert beyond is None and across is None
    else:
        assert across in (None, "ENOSPC") and beyond in (None, "ENOSPC")
    if across is None:
        d.model[-4096:] = bytes(4096)
    assert os.stat(d.path).st_size == SIZE
    d.same()
    d.close()


@BOTH
def test_punched_space_goes_back(disk, format):
    d = disk(format, size=16 * MiB)
    before = os.stat(d.image).st_blocks
    fallocate(d.fd, PUNCH_HOLE | KEEP_SIZE, 4 * MiB, 8 * MiB)
    os.fsync(d.fd)
    assert (before - os.stat(d.image).st_blocks) * 512 >= 8 * MiB - 128 * KiB
    assert os.lseek(d.fd, 4 * MiB, os.SEEK_DATA) == 12 * MiB
    d.close()


@BOTH
def test_punched_space_stays_where_asked(disk, format):
    d = disk(format, size=16 * MiB, discard="ignore")
    before = os.stat(d.image).st_blocks
    fallocate(d.fd, PUNCH_HOLE | KEEP_SIZE, 4 * MiB, 8 * MiB)
    os.fsync(d.fd)
    assert os.stat(d.image).st_blocks >= before
    d.model[4 * MiB:12 * MiB] = bytes(8 * MiB)
    d.same()
    d.close()


@BOTH
@pytest.mark.parametrize("mode", [COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE],
                         ids=["collapse", "insert", "unshare"])
def test_unknown_allocations(disk, format, mode):
    d = disk(format)
    assert error_of(fallocate, d.fd, mode, 64 * KiB, 64 * KiB) == "EOPNOTSUPP"
    assert d.size == SIZE
    d.same()
    d.close()


# LSEEK

@BOTH
def test_seek(disk, format):
    d = disk(format, size=16 * MiB, content=False)
    assert error_of(os.lseek, d.fd, 0, os.SEEK_DATA) == "ENXIO"
    assert os.lseek(d.fd, 0, os.SEEK_HOLE) == 0
    os.pwrite(d.fd, b"x" * 128 * KiB, 4 * MiB)
    os.fsync(d.fd)
    assert os.lseek(d.fd, 0, os.SEEK_DATA) == 4 * MiB
    assert os.lseek(d.fd, 4 * MiB + 5, os.SEEK_DATA) == 4 * MiB + 5
    assert os.lseek(d.fd, 4 * MiB + 5, os.SEEK_HOLE) == 4 * MiB + 128 * KiB
    assert os.lseek(d.fd, 5 * MiB, os.SEEK_HOLE) == 5 * MiB
    assert error_of(os.lseek, d.fd, 5 * MiB, os.SEEK_DATA) == "ENXIO"
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for off in (16 * MiB, 16 * MiB + 1, 1 << 50, -1, -(1 << 40)):
            assert error_of(os.lseek, d.fd, off, whence) == "ENXIO", (off, whence)
    assert error_of(os.lseek, d.fd, 0, 77) == "EINVAL"
    assert os.lseek(d.fd, 0, os.SEEK_END) == 16 * MiB
    d.close()


def test_seek_to_the_implied_hole(disk):
    d = disk("raw")
    assert os.lseek(d.fd, 0, os.SEEK_HOLE) == SIZE
    assert os.lseek(d.fd, SIZE - 1, os.SEEK_HOLE) == SIZE
    assert os.lseek(d.fd, SIZE - 1, os.SEEK_DATA) == SIZE - 1
    d.close()


# FSYNC, FLUSH

@BOTH
def test_fsync_and_close(disk, format, work):
    d = disk(format, target=directory_target(work))
    before = int(status(d.export)["flushes"])
    for _ in range(20):
        fd = os.open(d.path, os.O_RDWR)
        os.pwrite(fd, b"z" * 512, 512)
        os.close(fd)
    assert int(status(d.export)["flushes"]) == before, "closing is not flushing"
    os.fsync(d.fd)
    os.fdatasync(d.fd)
    assert int(status(d.export)["flushes"]) == before + 2
    synchronous = os.open(d.path, os.O_RDWR | os.O_DSYNC)
    os.pwrite(synchronous, b"y" * 512, 0)
    os.close(synchronous)
    assert int(status(d.export)["flushes"]) > before + 2
    d.close()


def test_fsync_of_a_directory_target(disk, work):
    d = disk(target=directory_target(work))
    fd = os.open(d.export.target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    d.close()


def test_fsync_reaches_the_disk(disk):
    """An fsync is answered after an fdatasync of the image, not before."""
    d = disk("raw")
    trace = f"{d.image}.trace"
    tracer = subprocess.Popen(["strace", "-f", "-e", "trace=fdatasync,fsync", "-o", trace, "-p", str(d.export.worker)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in tracer.stderr.readline()
        time.sleep(0.3)
        os.pwrite(d.fd, b"k" * 4096, 0)
        os.fsync(d.fd)
        proc.wait_until(lambda: "sync(" in open(trace, encoding="utf-8").read(), 5, what="fdatasync in the trace")
    finally:
        tracer.terminate()
        tracer.wait()
    d.close()


# STATFS

@BOTH
def test_statfs(disk, format, work):
    d = disk(format, size=64 * MiB, content=False, target=directory_target(work))
    write_all(d.fd, b"d" * 4 * MiB, 0)
    os.fsync(d.fd)
    for path in (d.path, d.export.target):
        numbers = os.statvfs(path)
        assert abs(numbers.f_blocks * numbers.f_frsize - 64 * MiB) <= 64 * KiB
        used = (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize
        # what qcow2 keeps in reserve counts or not
        assert 4 * MiB <= used <= 64 * MiB + 64 * KiB
        assert numbers.f_bavail <= numbers.f_bfree
    out = proc.run("df", "--output=size", "-B1", d.export.target).stdout.split()
    assert int(out[-1]) > 0
    d.close()


# INTERRUPT

@BOTH
def test_a_killed_reader_goes(disk, format):
    d = disk(format, cache="none")
    worker = d.export.worker
    # it waits before it reads: what starts a process while the worker is stopped may hang itself
    reader = subprocess.Popen(["sh", "-c", f"read -r go; exec dd if={d.path} of=/dev/null bs=1M"],
                              stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    proc.freeze(worker)
    reader.stdin.write(b"go\n")
    reader.stdin.close()
    proc.wait_until(lambda: proc.comm(reader.pid) == "dd", what="the reader")
    time.sleep(0.5)
    reader.kill()
    time.sleep(0.2)
    os.kill(worker, signal.SIGCONT)
    assert reader.wait(10 * proc.PATIENCE) == -signal.SIGKILL
    d.same()
    d.close()


def test_interrupted_writers_lose_nothing(disk):
    """Signals in the middle of requests are the kernel's and ours to sort out, not the data's."""
    d = disk("qcow2", cache="none")
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for n in range(60):
            data = random_bytes(n, 200 * KiB)
            write_all(d.fd, data, n * 100 * KiB)
            d.model[n * 100 * KiB:n * 100 * KiB + len(data)] = data
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    d.same()
    d.close()


# what callers must be able to fall back from

@BOTH
def test_copy_falls_back(disk, format, work):
    d = disk(format)
    # inside one file system the kernel copies itself when we have no such request
    assert os.copy_file_range(d.fd, d.fd, MiB, 0, 5 * MiB) == MiB
    d.model[5 * MiB:6 * MiB] = d.model[:MiB]
    d.same()
    out = os.open(work / "copy", os.O_RDWR | os.O_CREAT)
    assert error_of(os.copy_file_range, d.fd, out, 4096, 0, 0) in (None, "EXDEV")
    assert os.sendfile(out, d.fd, 0, 65536) == 65536
    os.close(out)
    shutil.copyfile(d.path, work / "again")
    assert (work / "again").read_bytes() == d.model
    proc.run("cp", "--reflink=auto", "--sparse=always", d.path, work / "sparse")
    assert (work / "sparse").read_bytes() == d.model
    d.close()


def test_ioctl_xattr_poll(disk):
    d = disk()
    assert error_of(fcntl.ioctl, d.fd, 0x1268, b"\0" * 8) == "ENOTTY"      # BLKSSZGET
    assert error_of(fcntl.ioctl, d.fd, 0x80041272, b"\0" * 8) == "ENOTTY"   # BLKGETSIZE64
    for call, args in ((os.getxattr, ("user.x",)), (os.setxattr, ("user.x", b"y")), (os.removexattr, ("user.x",))):
        assert error_of(call, d.path, *args) in ("EOPNOTSUPP",)
    assert error_of(os.listxattr, d.path) in (None, "EOPNOTSUPP")
    poll = select.poll()
    poll.register(d.fd, select.POLLIN | select.POLLOUT)
    assert poll.poll(1000) == [(d.fd, select.POLLIN | select.POLLOUT)]
    fcntl.flock(d.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(d.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        assert fcntl.ioctl(d.fd, 1, bytes(4)) == bytes(4)   # FIBMAP: no block is known
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.ENOTTY)
    d.same()
    d.close()


# mmap (fault 7)

@BOTH
@pytest.mark.parametrize("options", [{}, {"cache": "none"}], ids=["cached", "uncached"])
def test_shared_mmap(disk, format, options):
    d = disk(format, **options)
    with mmap.mmap(d.fd, 2 * MiB) as area:
        assert area[:] == d.model[:2 * MiB]
        area[1000:1010] = b"mapped now"
        area[MiB:MiB + 5000] = b"m" * 5000
        area.flush()
    d.model[1000:1010] = b"mapped now"
    d.model[MiB:MiB + 5000] = b"m" * 5000
    os.fsync(d.fd)
    d.same()
    with mmap.mmap(d.fd, MiB, mmap.MAP_PRIVATE, mmap.PROT_READ) as area:
        assert area[1000:1010] == b"mapped now"
    d.close()
    out = images.to_raw(d.image, d.image.with_suffix(".out"), "-f", format)
    assert out.read_bytes() == d.model


@BOTH
def test_a_program_runs_from_it(disk, format):
    """execve and its MAP_PRIVATE pages."""
    program = open("/bin/true", "rb").read()
    d = disk(format)
    write_all(d.fd, program, 0)
    os.chmod(d.path, 0o700)
    os.close(d.fd)
    proc.run(d.path)
    d.fd = os.open(d.path, os.O_RDWR)
    d.close()


# the mount

@BOTH
def test_mount_table(disk, format):
    d = disk(format)
    mount = mounts.at(d.path)
    assert mount.source == str(d.image)
    assert mount.kind == "fuse.fuseimg"
    assert {"nosuid", "nodev", "noatime", "rw"} <= set(mount.options)
    assert {"default_permissions", "allow_other", "user_id=0"} <= set(mount.super_options)
    d.close()


def test_mount_table_read_only(disk):
    d = disk(ro=True)
    assert "ro" in mounts.at(d.path).options
    d.close()


@pytest.mark.parametrize("name", ["with space.img", "with,comma.img", "back\\slash.img", "new\nline.img", "ümlaut.img",
                                  "-dash.img", "quote'\".img"])
def test_names_of_images(disk, name, work):
    d = disk(name=name)
    assert mounts.at(d.path).source == str(work / name)
    d.same()
    d.close()


@pytest.mark.parametrize("name", ["with space", "with,comma", "back\\slash", "new\nline", "ümlaut", "#hash"])
def test_names_of_targets(disk, name, work):
    target = work / name
    target.touch()
    d = disk(target=target)
    d.same()
    d.close()


def test_relative_and_dash_names(work):
    images.create(work / "disk.img", MiB).rename(work / "-disk.img")
    (work / "-target").touch()
    fuseimg("mount", "--", "-disk.img", "-target", cwd=work)
    assert (work / "-target").stat().st_size == MiB
    assert mounts.at(work / "-target").source == str(work / "-disk.img")
    fuseimg("umount", "--", "-target", cwd=work)


def test_other_users_may_enter_when_allowed(disk, work):
    d = disk(mode="0644")
    proc.run("setpriv", "--reuid=65534", "--clear-groups", "cat", d.path)
    d.close()
    os.unlink(d.image)
    d = disk()
    assert proc.run("setpriv", "--reuid=65534", "--clear-groups", "cat", d.path, check=False).returncode != 0
    d.close()


# an outside umount is an orderly end (fault 13)

@BOTH
def test_outside_umount(disk, format):
    d = disk(format)
    write_all(d.fd, random_bytes(9, MiB), 0)
    d.model[:MiB] = random_bytes(9, MiB)
    os.close(d.fd)
    proc.run("umount", d.path)
    d.export.wait_end(10)
    out = images.to_raw(d.image, d.image.with_suffix(".out"), "-f", format)
    assert out.read_bytes() == d.model
    if format == "qcow2":
        images.check(d.image)
    assert str(d.path) not in fuseimg("list").stdout


# stop waits while somebody uses it (fault 1)

@BOTH
def test_sigterm_waits(disk, format):
    d = disk(format)
    os.kill(d.export.supervisor, signal.SIGTERM)
    time.sleep(1)
    write_all(d.fd, random_bytes(3, MiB), 0)
    d.model[:MiB] = random_bytes(3, MiB)
    os.fsync(d.fd)
    d.same()
    assert d.export.mounted and proc.alive(d.export.supervisor)
    os.close(d.fd)
    d.export.wait_end(10)
    assert not d.export.mounted
    out = images.to_raw(d.image, d.image.with_suffix(".out"), "-f", format)
    assert out.read_bytes() == d.model


def test_sigterm_when_unused(disk):
    d = disk("qcow2")
    os.close(d.fd)
    os.kill(d.export.supervisor, signal.SIGTERM)
    d.export.wait_end(10)
    assert not d.export.mounted


def test_umount_refuses_while_used(disk):
    d = disk("qcow2")
    done = fuseimg("umount", d.path, check=False, timeout=30)
    assert done.returncode == 1
    assert str(d.path) in done.stderr and "use" in done.stderr or "busy" in done.stderr
    assert str(os.getpid()) in done.stderr, "busy means: says who"
    d.same()
    d.close()


# the worker's cage

def test_the_worker_may_do_nothing(disk):
    d = disk("qcow2")
    worker = d.export.worker
    assert proc.status_field(worker, "NoNewPrivs") == "1"
    assert int(proc.status_field(worker, "CapEff"), 16) == 0
    assert int(proc.status_field(worker, "CapBnd"), 16) == 0
    assert int(proc.status_field(worker, "Uid").split()[0]) != 0
    assert not proc.status_field(worker, "Groups")
    if not d.export.process:    # sanitizer builds leave the filter out
        assert proc.status_field(worker, "Seccomp") == "2"
    for namespace in ("mnt", "net", "ipc"):
        assert os.readlink(f"/proc/{worker}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
    assert os.listdir(f"/proc/{worker}/root") == []
    d.close()


def test_nothing_of_ours_stays(disk, work):
    """Neither a process, nor a mount, nor a registry entry, nor a file."""
    d = disk("qcow2")
    pids = [d.export.supervisor, *proc.descendants(d.export.supervisor)]
    d.close()
    for pid in pids:
        proc.wait_until(lambda pid=pid: not proc.alive(pid), 5)
    assert str(work) not in fuseimg("list").stdout
    assert not mounts.below(work)
    assert set(os.listdir(work)) <= {"disk.img", "export0", "export0.log"}

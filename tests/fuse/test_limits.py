# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image claims costs no more than it holds: memory and time of the process that serves it."""

import os
import random
import struct

import pytest

from support import hostile, images, proc
from support.content import GiB, KiB, MiB, TiB, in_threads
from support.export import PROGRAM, fuseimg

# Of the worker alone: its libraries and the request slots, one of a megabyte and a bit for each thread, are there
# before any image is.
BOUND = 16 * MiB
# What a sanitizer keeps
ALLOWANCE = 1 if proc.SLOW == 1 else 40


def private(pid):
    """Bytes that the process alone has, and shares with nobody."""
    return int(proc.status_field(pid, "RssAnon").split()[0]) * KiB


@pytest.fixture
def small(work, mount):
    """What a worker with a tiny image takes."""
    export = mount(images.create(work / "small.img", MiB))
    export.read()
    taken = private(export.worker)
    export.umount()
    return taken


def assert_bounded(export, small, bound=BOUND):
    taken = private(export.worker) - small
    print(f"{taken / MiB:.1f} MiB more than a worker with a tiny image")
    assert taken < bound * ALLOWANCE, f"{taken / MiB:.1f} MiB"


@pytest.mark.core
def test_64_tib(work, mount, small):
    image = images.create(work / "disk.img", 64 * TiB)
    rng = random.Random(64)
    places = [rng.randrange(64 * TiB // 4096) * 4096 for _ in range(1500)]
    export = mount(image)
    took = proc.cpu(export.supervisor, export.worker)
    assert took < 1 * proc.SLOW, f"{took:.2f} s of CPU time until it was mounted"
    assert os.stat(export.path).st_size == 64 * TiB
    fd = export.open()
    for off in places:      # a table each
        os.pwrite(fd, off.to_bytes(8, "big"), off)
    for off in places:
        assert os.pread(fd, 8, off) == off.to_bytes(8, "big")
    started = proc.cpu(export.worker)
    assert os.lseek(fd, 0, os.SEEK_DATA) <= min(places)
    assert proc.cpu(export.worker) - started < 1 * proc.SLOW
    assert_bounded(export, small)
    os.close(fd)
    export.umount()
    images.check(image)
    started = proc.cpu()
    assert fuseimg("info", image).returncode == 0
    assert proc.cpu() - started < 1 * proc.SLOW


def crafted(path, l1_size, cluster_bits=16, table_clusters=1, size=None, **fields):
    """Every L1 entry names one L2 table, every entry of that one cluster; the refcount table names one block all
    over. L1 stands last, so that the file is mostly it."""
    cluster = 1 << cluster_bits
    header = bytearray(cluster)
    header[0:4] = b"QFI\xfb"
    table, block = cluster, cluster * (1 + table_clusters)
    l2, data = block + cluster, block + 2 * cluster
    l1 = block + 3 * cluster
    for name, value in {"version": 3, "cluster_bits": cluster_bits, "l1_size": l1_size, "l1_table_offset": l1,
                        "size": size or l1_size * cluster * (cluster // 8), "refcount_table_offset": table,
                        "refcount_table_clusters": table_clusters, "refcount_order": 4, "header_length": 104,
                        **fields}.items():
        hostile.put(header, name, value)
    with open(path, "wb") as f:
        f.write(header)
        f.write(struct.pack(">Q", block) * (table_clusters * cluster // 8))
        f.write(b"\xff" * cluster)
        f.write(struct.pack(">Q", data | hostile.COPIED) * (cluster // 8))
        f.write(b"d" * cluster)
        f.write(struct.pack(">Q", l2 | hostile.COPIED) * l1_size)
        f.truncate(-(-f.tell() // cluster) * cluster)
    return path


def test_largest_l1(work, mount, small):
    """32 MiB, the limit of the format: 2 PiB, and all of it is data. The table itself is what it costs."""
    image = crafted(work / "disk.img", 32 * MiB // 8)
    export = mount(image, ro=True)
    fd = export.open(os.O_RDONLY)
    size = os.fstat(fd).st_size
    assert size == 2 * 1024 * TiB
    rng = random.Random(32)
    for _ in range(500):
        assert os.pread(fd, 4096, rng.randrange(size // 4096) * 4096) == b"d" * 4096
    os.lseek(fd, 0, os.SEEK_HOLE)
    assert_bounded(export, small, BOUND + 32 * MiB)
    os.close(fd)
    export.umount()


@pytest.mark.parametrize("claim", [
    {"l1_size": 32 * MiB // 8 + 1},
    {"l1_size": (1 << 32) - 1},
    {"refcount_table_clusters": 8 * MiB // (64 * KiB) + 1},
    {"refcount_table_clusters": (1 << 32) - 1},
    {"nb_snapshots": 65537, "snapshots_offset": 64 * KiB},
    {"nb_snapshots": (1 << 32) - 1, "snapshots_offset": 64 * KiB},
    {"backing_file_offset": 512, "backing_file_size": (1 << 32) - 1},
    {"header_length": (1 << 32) - 8},
], ids=str)
def test_claims_over_the_limits(claim, work):
    """Refused by what they say; nothing as large is allocated first: there is no memory for it."""
    image = crafted(work / "disk.img", 8, size=GiB)
    with open(image, "r+b") as f:
        header = bytearray(f.read(64 * KiB))
        for name, value in claim.items():
            hostile.put(header, name, value)
        f.seek(0)
        f.write(header)
    for verb in ("info", "map", "check"):
        done = limited(verb, image)
        assert done.returncode == 1 and done.stderr.startswith("fuseimg: ") and "memory" not in done.stderr, done.stderr


def limited(*words, memory=64 * MiB):
    """Runs the program in an address space of that size; a sanitizer needs more than there is."""
    limit = [] if proc.SLOW != 1 else ["prlimit", f"--data={memory}"]
    return proc.run(*limit, PROGRAM, *words, check=False, timeout=20)


def test_most_snapshots(work, mount, small):
    """65536 of them, all with one L1 table of 4 MiB: listed, checked and opened in little memory."""
    image = crafted(work / "disk.img", 4 * MiB // 8, size=16 * TiB)
    with open(image, "r+b") as f:
        header = bytearray(f.read(64 * KiB))
        l1 = hostile.get(header, "l1_table_offset")
        f.seek(0, 2)
        start = f.tell()
        for n in range(65536):
            ident = b"%d" % n
            record = struct.pack(">QIHHIIQII", l1, 4 * MiB // 8, len(ident), 0, 0, 0, 0, 0, 24)
            record += struct.pack(">QQQ", 0, 16 * TiB, 0) + ident
            f.write(record + bytes(-len(record) % 8))
        hostile.put(header, "nb_snapshots", 65536)
        hostile.put(header, "snapshots_offset", start)
        f.truncate(-(-f.tell() // (64 * KiB)) * 64 * KiB)
        f.seek(0)
        f.write(header)
    started = proc.cpu()
    for verb in ("info", "check"):
        done = limited(verb, image, memory=128 * MiB)
        assert done.returncode in (0, 1) and "memory" not in done.stderr, done.stderr
    export = mount(image, ro=True, snapshot="65535")
    fd = export.open(os.O_RDONLY)
    assert os.pread(fd, 4, 5 * TiB) == b"dddd"
    os.close(fd)
    assert_bounded(export, small)
    export.umount()
    assert proc.cpu() - started < 20 * proc.SLOW    # the export has ended, too


@pytest.mark.parametrize("bits", [12, 16, 21])
def test_bomb_from_many_threads(bits, work, mount, small):
    """1 TiB out of one compressed cluster: what is unpacked at a time is bounded by the threads."""
    image = hostile.bomb(work / "bomb.img", TiB, bits, b"boom")
    export = mount(image, ro=True, threads=8)

    def reader(seed):
        rng = random.Random(seed)
        fd = export.open(os.O_RDONLY)
        for _ in range(60):
            assert os.pread(fd, 8, rng.randrange(TiB // 4096) * 4096) == b"boomboom"
        os.close(fd)

    in_threads([lambda n=n: reader(n) for n in range(16)])
    # two clusters of each thread, and the cache of those that were unpacked last
    assert_bounded(export, small, BOUND + 8 * 2 * (1 << bits) + 32 * MiB)
    export.umount()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several writers wrote through us is what qemu-img finds, and the image is sound."""

import json
import os
import random
import time

import pytest

from support import fio, images, proc
from support.content import (KiB, MiB, apply, assert_same, execute, in_processes, in_threads, plan, random_bytes,
                             stripes, write_all)
from support.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from test_formats import SHAPES, params

SHAPE = {shape.name: shape for shape in SHAPES}
WRITERS = 4


def judge(image, model, work, leaks=0, format="qcow2"):
    path = work / "model"
    path.write_bytes(model)
    if format != "raw":
        images.check(image, leaks)
    images.compare(image, path, format)
    path.unlink()


def write_with(runner, path, model, seed, count):
    """WRITERS writers with ranges of their own; the model follows."""
    owned = stripes(seed, len(model), WRITERS)
    plans = [plan(f"{seed} {n}", owned[n], count) for n in range(WRITERS)]
    runner([lambda n=n: execute(path, plans[n]) for n in range(WRITERS)])
    for writes in plans:
        apply(model, writes)


@pytest.mark.parametrize("shape", params(SHAPES))
def test_written_by_threads(shape, work, maker, mount):
    image = maker.make(shape, work)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    below = [path for path in work.glob("base*.img")]
    before = {path: images.digest(path) for path in below}
    export = mount(image, **images.to_write(shape.name, work))
    write_with(in_threads, export.path, model, shape.name, 120)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work)
    assert {path: images.digest(path) for path in below} == before


@pytest.mark.parametrize("raw", ["off", "on"])
def test_data_file_ends_with_the_disk(raw, work, mount):
    """A block device of the disk's size would have no room for more; nor does a later growth show what stands there."""
    size = MiB + 4096
    image = images.create(work / "disk.img", size, data_file="data.bin", data_file_raw=raw)
    os.truncate(work / "data.bin", size)    # QEMU rounds the length of a raw one up
    export = mount(image, growable=True, backing=work)
    fd = export.open()
    os.pwrite(fd, b"end", size - 3)
    fallocate(fd, 0, MiB, 4096)
    fallocate(fd, ZERO_RANGE, MiB, 100)
    os.fsync(fd)
    assert os.path.getsize(work / "data.bin") == size
    os.truncate(work / "data.bin", size + 4096)
    with open(work / "data.bin", "r+b") as data:
        os.pwrite(data.fileno(), b"x" * 8192, size)
    os.ftruncate(fd, size + 512)
    os.pwrite(fd, b"y", size + 511)
    os.ftruncate(fd, size + 8192)
    assert os.pread(fd, 8192, size) == bytes(511) + b"y" + bytes(8192 - 512)
    os.close(fd)
    export.umount()
    images.check(image, leaks=0)


def test_zeroes_with_space_are_preallocated(work, mount):
    """Where entries say zero and keep their clusters, preallocation has nothing to write."""
    image = images.create(work / "disk.img", 64 * MiB)
    export = mount(image)
    fd = export.open()
    write_all(fd, b"x" * (4 * MiB), 0)
    fallocate(fd, ZERO_RANGE, 0, 4 * MiB)
    fallocate(fd, 0, 0, 4 * MiB)
    assert os.pread(fd, 4 * MiB, 0) == bytes(4 * MiB)
    os.pwrite(fd, b"y" * 5, 100)
    assert os.pread(fd, 110, 0) == bytes(100) + b"y" * 5 + bytes(5)
    os.close(fd)
    export.umount()
    images.check(image, leaks=0)
    runs = json.loads(proc.run("qemu-img", "map", "--output=json", image).stdout)
    assert sum(run["length"] for run in runs if run["data"]) == 64 * KiB
    assert os.stat(image).st_blocks * 512 > 4 * MiB


def test_tidying_up_is_no_change(work, mount):
    """Some seconds after the last write the file becomes shorter; the disk's time is that of the write."""
    image = images.create(work / "disk.img", 64 * MiB)
    export = mount(image)
    fd = export.open()
    os.pwrite(fd, b"x" * MiB, 0)
    reserved, before = os.stat(image).st_size, os.fstat(fd).st_mtime_ns
    proc.wait_until(lambda: os.stat(image).st_size < reserved, 20, what="the end of the reservation")
    time.sleep(1.5)     # for which the kernel believes what it knows
    assert os.stat(image).st_mtime_ns > before
    assert os.fstat(fd).st_mtime_ns == before
    os.pwrite(fd, b"y", 5)
    time.sleep(1.5)
    assert os.fstat(fd).st_mtime_ns > before
    os.close(fd)
    export.umount()


@pytest.mark.core
def test_written_by_processes(work, maker, mount):
    """Over a chain, with an fsync now and then."""
    image = maker.make(SHAPE["chain-4"], work)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    export = mount(image, threads=4)
    for seed in range(3):
        write_with(in_processes, export.path, model, seed, 60)
        fd = export.open()
        os.fsync(fd)
        os.close(fd)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work)


def test_written_uncached(work, maker, mount):
    """Without the page cache any mixture of writers is exact, and unaligned requests reach us as they are."""
    image = maker.make(SHAPE["chain-4"], work)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    export = mount(image, cache="none")
    write_with(in_threads, export.path, model, "uncached", 300)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work)


@pytest.mark.parametrize("options", [{}, {"cache": "none"}, {"direct_io": True}, {"threads": 1}, {"threads": 16}],
                         ids=lambda options: "-".join(f"{k}-{v}" for k, v in options.items()) or "default")
def test_raw_written(options, work, mount):
    image = images.sparse_file(work / "disk.raw", 6 * MiB + 512 * 5)
    model = bytearray(image.read_bytes())
    export = mount(image, format="raw", **options)
    write_with(in_threads, export.path, model, "raw", 150)
    assert_same(export.path, model)
    export.umount()
    assert_same(image, model)


def test_raw_odd_size(work, mount):
    """The last bytes of a raw image whose size no sector divides."""
    image = images.sparse_file(work / "disk.raw", MiB + 123)
    model = bytearray(image.read_bytes())
    export = mount(image, format="raw")
    fd = export.open()
    write_all(fd, b"the end" * 10, len(model) - 70)
    model[-70:] = b"the end" * 10
    os.close(fd)
    assert_same(export.path, model)
    export.umount()
    assert_same(image, model)


@pytest.mark.core
@pytest.mark.parametrize("name", ["cluster-16", "cluster-12", "extended-16", "chain-2", "zstd-16", "data-file"])
def test_snapshots_keep_their_content(name, work, maker, mount):
    """Clusters that an internal snapshot names too are copied before they are written."""
    image = maker.make(SHAPE[name], work)
    if name == "data-file":
        # qemu-img has no snapshots with an external data file: its clusters cannot be shared
        assert images.run("qemu-img", "snapshot", "-c", "one", image, check=False).returncode != 0
        return
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    old = {}
    for step in range(2):
        snapshot = f"before{step}"
        images.run("qemu-img", "snapshot", "-c", snapshot, image)
        old[snapshot] = bytes(model)
        export = mount(image)
        write_with(in_threads, export.path, model, step, 50)
        assert_same(export.path, model)
        export.umount()
        judge(image, model, work)
    for snapshot, content in old.items():
        out = images.to_raw(image, work / "out", "-l", f"snapshot.name={snapshot}")
        assert_same(out, content)


def test_same_sectors_by_all(work, mount):
    """Writers of one cluster at once: the neighbour's bytes survive the copy-on-write of each."""
    base = images.sparse_file(work / "base.img", 8 * MiB, share=1.0)
    image = images.create(work / "disk.img", 8 * MiB, backing=("base.img", "raw"))
    model = bytearray(base.read_bytes())
    export = mount(image, cache="none", threads=8)

    def writer(n):
        fd = export.open()
        for cluster in range(0, len(model), 64 * KiB):
            os.pwrite(fd, random_bytes(f"{n} {cluster}", 1000), cluster + 1000 * n)
        os.close(fd)

    in_threads([lambda n=n: writer(n) for n in range(8)])
    for n in range(8):
        for cluster in range(0, len(model), 64 * KiB):
            model[cluster + 1000 * n:cluster + 1000 * n + 1000] = random_bytes(f"{n} {cluster}", 1000)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_discards_beside_writes(format, work, mount):
    """Holes punched into a cluster while its other half is first written lose no write."""
    image = work / "disk.img"
    images.create(image, 8 * MiB, format=format)
    model = bytearray(8 * MiB)
    export = mount(image, format=format, cache="none", threads=8)
    fd = export.open()
    os.pwrite(fd, b"\xff" * len(model), 0)
    model[:] = b"\xff" * len(model)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 4096)
    model[:4096] = bytes(4096)

    def writer(part):
        mine = export.open()
        rng = random.Random(part)
        for cluster in range(0, len(model), 64 * KiB):
            off = cluster + part * 16 * KiB
            if part % 2:
                fallocate(mine, rng.choice([PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]), off, 16 * KiB)
            else:
                os.pwrite(mine, random_bytes(off, 16 * KiB), off)
        os.close(mine)

    for _ in range(3):
        in_threads([lambda part=part: writer(part) for part in range(4)])
        in_threads([lambda: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, MiB), lambda: os.pwrite(fd, b"z" * MiB, MiB)])
        in_threads([lambda part=part: writer(part) for part in range(4)])
    for cluster in range(0, len(model), 64 * KiB):
        for part in range(4):
            off = cluster + part * 16 * KiB
            model[off:off + 16 * KiB] = bytes(16 * KiB) if part % 2 else random_bytes(off, 16 * KiB)
    os.close(fd)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work, format=format)


@pytest.mark.parametrize("bits", [1, 16, 64])
def test_refcount_table_grows(bits, work, mount):
    """512-byte clusters: the refcount table outgrows its place several times while clusters are handed out."""
    image = images.create(work / "disk.img", 12 * MiB, cluster_size=512, refcount_bits=bits)
    model = bytearray(12 * MiB)
    export = mount(image)
    for off in range(0, len(model), 128 * KiB):
        model[off:off + 128 * KiB] = random_bytes(off, 128 * KiB)
    fd = export.open()
    order = list(range(0, len(model), 16 * KiB))
    random.Random(1).shuffle(order)
    for off in order:
        write_all(fd, model[off:off + 16 * KiB], off)
    os.close(fd)
    assert_same(export.path, model)
    export.umount()
    judge(image, model, work)


def test_reopened_again_and_again(work, maker, mount):
    """What one session reserved and gave back, the next one finds."""
    image = maker.make(SHAPE["cluster-16"], work)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    for seed in range(6):
        export = mount(image)
        write_with(in_threads, export.path, model, seed, 15)
        export.umount()
        images.check(image)
    judge(image, model, work)


def test_nothing_written_changes_nothing(work, maker, mount):
    """A writable mount that nobody writes to leaves the file as it was."""
    image = maker.make(SHAPE["chain-2"], work)
    before, times = images.digest(image), os.stat(image).st_mtime_ns
    export = mount(image)
    export.read()
    export.umount()
    assert images.digest(image) == before
    assert os.stat(image).st_mtime_ns == times


def test_fills_no_more_than_written(work, mount):
    """Writing 1 MiB into an empty image takes about 1 MiB, not a reservation."""
    image = images.create(work / "disk.img", 1024 * MiB)
    export = mount(image)
    fd = export.open()
    write_all(fd, random_bytes(1, MiB), 300 * MiB)
    os.close(fd)
    export.umount()
    assert image.stat().st_blocks * 512 < 2 * MiB
    assert image.stat().st_size < 3 * MiB


FIO_SHAPES = ["cluster-16", "cluster-12", "extended-16", "chain-4", "raw"]


@pytest.mark.limit(180)
@pytest.mark.parametrize("name", FIO_SHAPES)
def test_fio_verify(name, work, maker, mount):
    """Fault 5 of the reference: 4k, 68k, 512 and 256k in parallel, direct, depth 8."""
    image = work / "disk.img"
    size = 64 * MiB
    if name == "raw":
        images.create(image, size, format="raw")
        options = {"format": "raw"}
    elif name == "chain-4":
        maker.make(SHAPE[name], work)
        image.rename(work / "below.img")
        images.create(image, size, backing=("below.img", "qcow2"))
        options = {}
    else:
        images.create(image, size, **SHAPE[name].chain[0].options)
        options = {}
    export = mount(image, **options)
    fio.run_job(work, fio.verify_job(export.path, 16 * MiB))
    fio.run_job(work, fio.verify_job(export.path, 16 * MiB, direct=0, depth=1))
    model = export.read()
    export.umount()
    judge(image, model, work, format="raw" if name == "raw" else "qcow2")


@pytest.mark.long
@pytest.mark.limit(1200)
@pytest.mark.parametrize("seed", range(20))
def test_soak(seed, work, maker, mount):
    """Random shapes, more writes, remounts in between."""
    rng = random.Random(seed)
    shape = rng.choice(SHAPES)
    image = maker.make(shape, work, seed=seed * 100)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    for step in range(4):
        export = mount(image, threads=rng.choice([1, 2, 4, 8]), cache=rng.choice(["auto", "none"]))
        write_with(rng.choice([in_threads, in_processes]), export.path, model, f"{seed} {step}", 400)
        assert_same(export.path, model)
        export.umount()
        judge(image, model, work)

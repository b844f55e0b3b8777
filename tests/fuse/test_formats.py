# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every shape of qcow2 that qemu-img makes reads through us as qemu-img reads it."""

import os
import random

import pytest

from support import images
from support.content import KiB, MiB, assert_same, in_threads
from support.syscalls import direct_read, segments

CORE = {"cluster-9", "cluster-16", "zlib-16", "zstd-12", "extended-16", "chain-4", "data-file", "raw-backing"}


def params(shapes, core=frozenset(CORE)):
    return [pytest.param(shape, id=shape.name, marks=[pytest.mark.core] if shape.name in core else [])
            for shape in shapes]


SHAPES = images.shapes()
shape_param = pytest.mark.parametrize("shape", params(SHAPES))


@shape_param
def test_same_bytes_and_holes(shape, work, maker, mount):
    image = maker.make(shape, work)
    flat = images.to_raw(image, work / "flat")
    qemu = images.qemu_map(image, "qcow2")
    export = mount(image, ro=True)
    assert_same(export.path, flat)
    check_holes(export, flat.read_bytes(), qemu)
    check_small_reads(export, flat.read_bytes())
    export.umount()


def check_holes(export, model, qemu):
    """What we call a hole is zero, and what qemu calls data-less is a hole, to the byte."""
    fd = export.open(os.O_RDONLY)
    ours = segments(fd, len(model))
    os.close(fd)
    at = 0
    for start, end in [*ours, (len(model), len(model))]:
        assert not any(model[at:start]), f"the hole {at}..{start} is not empty"
        at = end
    theirs = [(entry["start"], entry["start"] + entry["length"]) for entry in qemu if entry["data"]]
    for start, end in ours:
        inside = [pair for pair in theirs if pair[0] < end and pair[1] > start]
        covered = sum(min(end, pair[1]) - max(start, pair[0]) for pair in inside)
        # qemu rounds what stands in a raw backing file to sectors
        assert end - start - covered < 512, f"{start}..{end} is data for us, not for qemu: {inside}"


def check_small_reads(export, model, count=200):
    """Any offset, any length, past the end too, cached and not, from several threads."""
    def reader(seed, flags):
        rng = random.Random(seed)
        fd = export.open(os.O_RDONLY | flags)
        for _ in range(count):
            off = rng.randrange(len(model) + 4096)
            length = rng.choice([1, 17, 512, 4096, 70000])
            assert os.pread(fd, length, off) == model[off:off + length], f"{length} bytes at {off}"
        os.close(fd)

    in_threads([lambda n=n: reader(n, os.O_DIRECT if n % 2 else 0) for n in range(4)])


@pytest.mark.core
def test_raw(work, mount):
    image = images.sparse_file(work / "disk.raw", 5 * MiB + 4321)
    model = image.read_bytes()
    export = mount(image, ro=True, format="raw")
    assert_same(export.path, model)
    fd, host = export.open(os.O_RDONLY), os.open(image, os.O_RDONLY)
    assert segments(fd, len(model)) == segments(host, len(model))
    os.close(fd)
    os.close(host)
    check_small_reads(export, model)
    export.umount()


def test_block_device(work, mount):
    """A qcow2 on a block device reads and writes like one in a file."""
    from support import loop
    image = images.create(work / "disk.img", 8 * MiB)
    images.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 2M", image)
    flat = images.to_raw(image, work / "flat").read_bytes()
    with image.open("r+b") as f:
        f.truncate(32 * MiB)
    with loop.device(image) as device:
        export = mount(device)
        assert_same(export.path, flat)
        fd = export.open()
        os.pwrite(fd, b"x" * 100000, 5 * MiB + 77)
        os.close(fd)
        export.umount()
    model = bytearray(flat)
    model[5 * MiB + 77:5 * MiB + 77 + 100000] = b"x" * 100000
    (work / "model").write_bytes(model)
    images.check(image)
    images.compare(image, work / "model")


def test_raw_block_device(work, mount):
    from support import loop
    image = images.sparse_file(work / "disk.raw", 4 * MiB)
    with loop.device(image) as device:
        export = mount(device, format="raw")
        assert_same(export.path, image.read_bytes())
        fd = export.open()
        os.pwrite(fd, b"y" * 70000, 123456)
        os.fsync(fd)
        os.close(fd)
        export.umount()
    assert image.read_bytes()[123456:123456 + 70000] == b"y" * 70000


@pytest.mark.parametrize("options", [{"cache": "none"}, {"direct_io": True}, {"threads": 1}, {"threads": 16}],
                         ids=lambda options: "-".join(f"{k}-{v}" for k, v in options.items()))
def test_options_change_no_byte(options, work, maker, mount):
    shape = next(shape for shape in SHAPES if shape.name == "chain-4")
    image = maker.make(shape, work)
    flat = images.to_raw(image, work / "flat")
    export = mount(image, ro=True, **options)
    assert_same(export.path, flat)
    check_small_reads(export, flat.read_bytes())
    export.umount()


def test_large_sparse(work, mount):
    """Offsets beyond 32 bits, and a size that is not a multiple of anything."""
    image = images.create(work / "disk.img", (5 << 40) + 512)
    places = [0, (1 << 32) - 4096, (1 << 32), (1 << 40) + 777 * 512, (5 << 40) - 65536]
    for n, off in enumerate(places):
        images.run("qemu-io", "-f", "qcow2", "-c", f"write -q -P {n + 1} {off} 4096", image)
    export = mount(image, ro=True)
    assert os.stat(export.path).st_size == (5 << 40) + 512
    fd = export.open(os.O_RDONLY)
    for n, off in enumerate(places):
        assert os.pread(fd, 4096, off) == bytes([n + 1]) * 4096
        assert os.lseek(fd, off, os.SEEK_HOLE) <= off + 128 * KiB
    assert os.lseek(fd, 64 * KiB, os.SEEK_DATA) <= places[1]
    assert direct_read(fd, 4096, (5 << 40)) == bytes(512)
    os.close(fd)
    export.umount()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""File systems on a loop device over the export: written, unmounted, found again, and fsck is content."""

import hashlib
import os
import random

import pytest

from support import images, loop, mounts, proc
from support.content import GiB, MiB, random_bytes
from support.export import fuseimg

MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
CHECK = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}

KINDS = pytest.mark.parametrize("kind", ["ext4", "xfs"])


def image_of(format, work, size=GiB, **options):
    image = work / "disk.img"
    images.create(image, size, format=format, **options)
    return image


def fill(directory, seed, count=60):
    """Files and folders of all sizes, some rewritten, some gone again; what must be found."""
    rng = random.Random(seed)
    wanted = {}
    for n in range(count):
        folder = directory / f"seed{seed}" / f"folder{rng.randrange(5)}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file{n}"
        data = random_bytes(f"{seed} {n}", rng.choice([0, 1, 4000, 100_000, 2_000_000]))
        path.write_bytes(data)
        wanted[path.relative_to(directory)] = data
    for name in rng.sample(sorted(wanted), count // 4):
        if rng.random() < 0.5:
            (directory / name).unlink()
            del wanted[name]
        else:
            data = wanted[name] + random_bytes(f"more {name}", 50_000)
            (directory / name).write_bytes(data)
            wanted[name] = data
    return {name: hashlib.sha256(data).hexdigest() for name, data in wanted.items()}


def find(directory, wanted):
    for name, digest in wanted.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest, name


@KINDS
@pytest.mark.core
@pytest.mark.limit(120)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_file_system(kind, format, work, mount):
    image = image_of(format, work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image, format=format)
    wanted = {}
    with loop.device(export.path) as device:
        proc.run(*MAKE[kind], device)
        for seed in range(2):
            with loop.mounted(device, inside):
                find(inside, wanted)
                wanted = {**wanted, **fill(inside, seed)}
                proc.run("sync", "-f", inside)
                find(inside, wanted)
        proc.run(*CHECK[kind], device)
    export.umount()
    if format == "qcow2":
        images.check(image)
    # a session of its own, and read only
    export = mount(image, format=format, ro=True)
    with loop.device(export.path, "--read-only") as device:
        proc.run(*CHECK[kind], device)
        with loop.mounted(device, inside, "-o", "ro"):
            find(inside, wanted)
    export.umount()


@KINDS
def test_fsck_of_what_qemu_sees(kind, work, mount):
    """The file system in the image as qemu-img converts it, not as we show it."""
    image = image_of("qcow2", work, cluster_size=4096)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image)
    with loop.device(export.path) as device:
        proc.run(*MAKE[kind], device)
        with loop.mounted(device, inside):
            wanted = fill(inside, 7)
    export.umount()
    images.check(image)
    flat = images.to_raw(image, work / "flat")
    with loop.device(flat) as device:
        proc.run(*CHECK[kind], device)
        with loop.mounted(device, inside, "-o", "ro"):
            find(inside, wanted)


def test_over_a_backing_image(work, mount):
    """An installed system as base, an overlay that is written to: the base stays."""
    base = image_of("qcow2", work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(base)
    with loop.device(export.path) as device:
        proc.run(*MAKE["ext4"], device)
        with loop.mounted(device, inside):
            wanted = fill(inside, 1)
    export.umount()
    base.rename(work / "base.img")
    before = images.digest(work / "base.img")
    overlay = images.create(work / "overlay.img", 2 * GiB, backing=("base.img", "qcow2"))
    export = mount(overlay)
    with loop.device(export.path) as device:
        with loop.mounted(device, inside):
            find(inside, wanted)
            wanted = {**wanted, **fill(inside, 2)}
        proc.run("e2fsck", "-fp", device)
        proc.run("resize2fs", device)
        with loop.mounted(device, inside):
            find(inside, wanted)
            assert os.statvfs(inside).f_blocks * os.statvfs(inside).f_frsize > 1.5 * GiB
        proc.run(*CHECK["ext4"], device)
    export.umount()
    images.check(overlay)
    assert images.digest(work / "base.img") == before


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_fstrim(kind, work, mount):
    """Discards through the loop device: what was trimmed is zero or as before, the rest is untouched."""
    image = image_of(kind, work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image, format=kind)
    with loop.device(export.path) as device:
        proc.run(*MAKE["ext4"], device)
        with loop.mounted(device, inside):
            wanted = fill(inside, 3)
            (inside / "large").write_bytes(random_bytes(1, 100 * MiB))
            proc.run("sync", "-f", inside)
            full = image.stat().st_blocks
            (inside / "large").unlink()
            proc.run("sync", "-f", inside)
            proc.run("fstrim", inside)
            find(inside, wanted)
        proc.run("sync", export.path)
        assert (full - image.stat().st_blocks) * 512 > 80 * MiB
        proc.run(*CHECK["ext4"], device)
    export.umount()


def test_direct_loop(work, mount):
    """A loop device with O_DIRECT on our file: nothing is cached twice."""
    image = image_of("qcow2", work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image, cache="none")
    with loop.device(export.path, "--direct-io=on") as device:
        proc.run(*MAKE["ext4"], device)
        with loop.mounted(device, inside):
            wanted = fill(inside, 4)
        with loop.mounted(device, inside):
            find(inside, wanted)
        proc.run(*CHECK["ext4"], device)
    export.umount()
    images.check(image)


@pytest.mark.core
def test_umount_in_the_wrong_order(work, mount):
    """The disk is in use: our umount refuses and says by whom; nothing of the file system is lost."""
    image = image_of("qcow2", work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image)
    with loop.device(export.path) as device:
        proc.run(*MAKE["ext4"], device)
        with loop.mounted(device, inside):
            wanted = fill(inside, 5)
            done = fuseimg("umount", export.path, check=False, timeout=30)
            assert done.returncode == 1
            assert os.path.basename(device) in done.stderr, done.stderr
            find(inside, wanted)
            (inside / "after").write_bytes(b"still here")
        proc.run(*CHECK["ext4"], device)
        done = fuseimg("umount", export.path, check=False, timeout=30)
        assert done.returncode == 1 and os.path.basename(device) in done.stderr, done.stderr
    assert mounts.at(export.path)
    export.umount()
    images.check(image)


def test_lazily_detached_loop(work, mount):
    """`umount` of the file system with an autoclear loop device, then ours at once, as shutdown does it."""
    image = image_of("qcow2", work)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image)
    loop.ensure_nodes()
    proc.run(*MAKE["ext4"], export.path)
    for n in range(3):
        proc.run("mount", "-o", "loop", export.path, inside)
        (inside / f"file{n}").write_bytes(random_bytes(n, MiB))
        proc.run("umount", inside)
    export.umount()
    images.check(image)
    flat = images.to_raw(image, work / "flat")
    proc.run("e2fsck", "-fn", flat)
    found = proc.run("debugfs", "-R", "ls", flat).stdout
    assert all(f"file{n}" in found for n in range(3))

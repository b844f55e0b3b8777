# SPDX-License-Identifier: LGPL-2.1-or-later
"""Partitions as files beside the disk: the same that libblkid and sfdisk see, and nothing but their own bytes."""

import errno
import json
import os
import random
import struct

import pytest

from support import images, loop, proc, syscalls, tables
from support.content import KiB, MiB, apply, assert_same, execute, in_threads, plan, random_bytes, stripes, write_all
from support.damage import Metadata
from support.export import MountFailed, fuseimg
from test_filesystems import fill, find
from test_reload import reload

KINDS = pytest.mark.parametrize("kind", sorted(tables.SCRIPTS))
FORMATS = pytest.mark.parametrize("format", ["raw", "qcow2"])


def image_of(disk, format):
    """The disk in an image of this format."""
    if format == "raw":
        return disk
    image = disk.with_suffix(".qcow2")
    proc.run("qemu-img", "convert", "-f", "raw", "-O", format, disk, image)
    return image


def fill_with_data(disk):
    """Random bytes and holes between what the table occupies."""
    rng = random.Random(1)
    with open(disk, "r+b") as f:
        for off in range(MiB, os.path.getsize(disk) - MiB, 256 * KiB):
            sector = os.pread(f.fileno(), 512, off)
            if rng.random() < 0.6 and sector == bytes(512):
                os.pwrite(f.fileno(), rng.randbytes(200 * KiB), off + 4096)


@pytest.fixture
def show(work, mount):
    """show(IMAGE, key=value...) -> Export, on a directory."""
    def on_directory(image, **options):
        target = work / f"dir{len(list(work.glob('dir*')))}"
        target.mkdir()
        options.setdefault("format", "qcow2" if image.suffix == ".qcow2" else "raw")
        return mount(image, target, **options)
    return on_directory


def parts(export):
    return {int(name[4:]): export.target / name for name in os.listdir(export.target) if name[4:].isdigit()}


def info(image):
    return json.loads(fuseimg("info", "--json", image).stdout)["partition-table"]


@KINDS
@pytest.mark.core
@pytest.mark.parametrize("sector", [512, 4096])
def test_same_as_others_see(kind, sector, work, show):
    """Numbers, places and sizes as libblkid has them; names and ids as sfdisk has; the bytes of the disk."""
    if sector == 4096 and kind.startswith("mbr"):
        sector = 512    # such a table does not say how large its sectors are
    disk = tables.make(work / "disk.img", kind, sector=sector)
    fill_with_data(disk)
    theirs = tables.by_blkid(disk, sector)
    assert theirs
    shown = {p["number"]: p for p in info(disk)["partitions"]}
    export = show(disk, read_only=True)
    found = parts(export)
    for number, (start, size) in theirs.items():
        if shown[number].get("not-shown") == "only holds the logical partitions":
            assert number not in found
            continue
        assert (shown[number]["start"], shown[number]["size"]) == (start, size)
        with open(disk, "rb") as f:
            assert_same(found.pop(number), os.pread(f.fileno(), size, start))
    assert not found
    export.umount()
    if sector == 512:
        for number, entry in tables.by_sfdisk(disk).items():
            ours = shown[number]
            assert (ours["start"], ours["size"]) == (entry["start"], entry["size"])
            assert ours["partlabel"] == entry.get("name", "")
            if kind.startswith("gpt"):
                assert (ours["type"], ours["partuuid"]) == (entry["type"].lower(), entry["uuid"].lower())
            else:
                assert int(ours["type"], 16) == int(entry["type"], 16)


@FORMATS
@pytest.mark.core
def test_written_from_all_sides(format, work, show):
    """Every partition and what lies between them have a writer each; the model of the disk follows."""
    disk = tables.make(work / "disk.img", "mbr-logical")
    fill_with_data(disk)
    model = bytearray(disk.read_bytes())
    image = image_of(disk, format)
    export = show(image)
    jobs, writes = [], []
    for number, (start, size) in places(disk).items():
        if number not in parts(export):
            continue    # the extended one
        own = plan(f"{format} {number}", stripes(number, size, 1)[0], 60)
        writes += [(start + off, length, seed) for off, length, seed in own]
        jobs.append(lambda path=parts(export)[number], own=own: execute(path, own))
    in_threads(jobs)
    apply(model, writes)
    assert_same(export.path, model)
    export.umount()
    (work / "model").write_bytes(model)
    images.compare(image, work / "model", format)
    if format == "qcow2":
        images.check(image, leaks=0)


def places(disk):
    return {p["number"]: (p["start"], p["size"]) for p in info(disk)["partitions"]}


@FORMATS
@pytest.mark.core
def test_discard_spares_the_neighbours(format, work, show):
    """Holes at odd places, up to and beyond the end of the partition."""
    disk = tables.make(work / "disk.img", "gpt-128")
    with open(disk, "r+b") as f:
        os.pwrite(f.fileno(), random_bytes(1, 128 * 64 * KiB), MiB)
    model = bytearray(disk.read_bytes())
    image = image_of(disk, format)
    export = show(image)
    rng = random.Random(format)
    for number, (start, size) in rng.sample(sorted(places(disk).items()), 40):
        fd = os.open(export.target / f"part{number}", os.O_RDWR)
        off = rng.choice([0, 1, 511, 4096, rng.randrange(size)])
        length = rng.choice([1, 4096, size - off, size, 10 * MiB])
        mode = rng.choice([syscalls.PUNCH_HOLE, syscalls.ZERO_RANGE]) | syscalls.KEEP_SIZE
        syscalls.fallocate(fd, mode, off, length)
        end = min(off + length, size)
        model[start + off:start + end] = bytes(end - off)
        os.close(fd)
    assert_same(export.path, model)
    export.umount()


def test_edges(work, show):
    """A partition answers as a block device does; the disk behind it does not grow."""
    disk = tables.make(work / "disk.img", "mbr")
    export = show(disk, growable="yes")
    path = parts(export)[1]
    fd = os.open(path, os.O_RDWR)
    size = os.fstat(fd).st_size
    assert os.pwrite(fd, b"12345", size - 2) == 2
    for call in (lambda: os.pwrite(fd, b"x", size), lambda: os.posix_fallocate(fd, 0, size + 1)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENOSPC
    for length in (0, size - 1, size + 1):
        with pytest.raises(OSError) as caught:
            os.ftruncate(fd, length)
        assert caught.value.errno == errno.EPERM
    os.ftruncate(fd, size)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert os.fstat(fd).st_size == size and os.pread(fd, 10, size - 2) == b"12"
    assert os.lseek(fd, 0, os.SEEK_END) == size
    with pytest.raises(OSError):
        (export.target / "part3").touch()
    os.close(fd)
    assert os.path.getsize(export.path) == tables.SIZE
    export.umount()


@FORMATS
def test_holes(format, work, show):
    """SEEK_DATA, SEEK_HOLE and st_blocks are the partition's own."""
    disk = tables.make(work / "disk.img", "mbr")
    image = image_of(disk, format)
    export = show(image)
    first, second = parts(export)[1], parts(export)[2]
    fd = os.open(second, os.O_RDWR)
    assert os.stat(second).st_blocks == 0
    write_all(fd, random_bytes(1, 256 * KiB), MiB)
    os.fsync(fd)
    assert syscalls.segments(fd, os.fstat(fd).st_size) == [(MiB, MiB + 256 * KiB)]
    os.close(fd)
    assert os.stat(second).st_blocks == 512
    fd = os.open(first, os.O_RDONLY)
    assert syscalls.segments(fd, os.fstat(fd).st_size) == [] and os.fstat(fd).st_blocks == 0
    os.close(fd)
    copy = work / "copy"
    proc.run("cp", "--sparse=auto", second, copy)
    assert_same(copy, second.read_bytes())
    assert copy.stat().st_blocks * 512 <= 256 * KiB
    export.umount()


@FORMATS
@pytest.mark.core
@pytest.mark.limit(120)
def test_file_system(format, work, show):
    """mkfs, files and fsck on a loop device over a partition, found again through the disk itself."""
    disk = tables.make(work / "disk.img", "mbr-logical", size=200 * MiB)
    tables.write(disk, "label: dos\n1: size=20M\n2: size=170M, type=5\n5: size=64M\n6: size=64M\n")
    place = places(disk)
    image = image_of(disk, format)
    inside = work / "inside"
    inside.mkdir()
    export = show(image)
    with loop.device(parts(export)[6]) as device:
        proc.run("mkfs.ext4", "-q", "-F", device)
        with loop.mounted(device, inside, "-o", "discard"):
            wanted = fill(inside, 1, count=20)
    proc.run("e2fsck", "-fn", parts(export)[6])
    assert not any(parts(export)[5].read_bytes())
    export.umount()
    export = show(image, read_only=True)
    with loop.device(export.path, "--read-only", "--offset", place[6][0], "--sizelimit", place[6][1]) as device:
        proc.run("e2fsck", "-fn", device)
        with loop.mounted(device, inside, "-o", "ro"):
            find(inside, wanted)
    export.umount()


@FORMATS
@pytest.mark.core
@pytest.mark.limit(120)
def test_worker_killed_under_writers(format, work, show):
    """Writers on three partitions, and meanwhile another table is written to the disk: whoever has a partition
    goes on with the place that he has."""
    disk = tables.make(work / "disk.img", "mbr-logical")
    model = bytearray(disk.read_bytes())
    place = places(disk)
    image = image_of(disk, format)
    export = show(image, cache="none")
    numbers = (1, 3, 5)
    plans = {n: plan(f"{format} {n}", stripes(n, place[n][1], 1)[0], 3000) for n in numbers}
    done = dict.fromkeys(numbers, 0)
    stopped = []

    def writer(number):
        fd = os.open(parts(export)[number], os.O_WRONLY)
        for off, length, seed in plans[number]:
            if stopped:
                break
            assert os.pwrite(fd, random_bytes(seed, length), off) == length
            done[number] += 1
        os.close(fd)

    def kills():
        try:
            for turn in range(5):
                proc.wait_until(lambda turn=turn: min(done.values()) > 10 * (turn + 1), what="the writers")
                if turn == 2:
                    fd = os.open(export.path, os.O_WRONLY)
                    os.pwrite(fd, struct.pack("<B3xB3xII", 0, 0x83, 40, 4000), 446)
                    os.close(fd)
                killed = export.kill_worker()
                export.wait_worker(other_than=killed)
        finally:
            stopped.append(True)

    in_threads([kills, *(lambda n=n: writer(n) for n in numbers)])
    model[446:462] = struct.pack("<B3xB3xII", 0, 0x83, 40, 4000)
    for number in numbers:
        start = place[number][0]
        apply(model, [(start + off, length, seed) for off, length, seed in plans[number][:done[number]]])
    assert_same(export.path, model)
    assert os.path.getsize(parts(export)[1]) == place[1][1]
    export.umount()


def told(export):
    """How many there are, by the file with the counters."""
    lines = (export.target / "status").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(": ", 1) for line in lines)["partitions"])


def test_reread_on_reload(work, manager):
    """A new table is in force after a reload: what stays keeps its node, what moves gets another one."""
    disk = tables.make(work / "disk.img", "gpt")
    place = places(disk)
    manager.configure("disk", image=disk, format="raw")
    service = manager.start("disk")
    fds = {n: os.open(service.target / f"part{n}", os.O_RDWR) for n in (1, 2, 3)}
    kept = os.fstat(fds[1]).st_ino
    tables.write(service.path, "label: gpt\nsize=2M, name=first\nstart=16M, size=1M\n4: start=4M, size=1M\n")
    assert sorted(os.listdir(service.target)) == ["disk", "part1", "part2", "part3", "status"]
    assert ", 3 partitions" in service.status and told(service) == 3
    reload(service)
    assert sorted(os.listdir(service.target)) == ["disk", "part1", "part2", "part4", "status"]
    assert os.fstat(fds[1]).st_size == 2 * MiB and os.stat(service.target / "part1").st_ino == kept
    assert os.stat(service.target / "part2").st_ino != os.fstat(fds[2]).st_ino
    assert os.fstat(fds[2]).st_size == place[2][1]
    assert os.pwrite(fds[2], b"old place", 0) == 9 and os.pwrite(fds[3], b"gone", 0) == 4
    fd = os.open(service.target / "part2", os.O_RDWR)
    assert os.pwrite(fd, b"new place", 0) == 9
    with open(service.path, "rb", buffering=0) as f:
        assert os.pread(f.fileno(), 9, place[2][0]) == b"old place"
        assert os.pread(f.fileno(), 4, place[3][0]) == b"gone"
        assert os.pread(f.fileno(), 9, 16 * MiB) == b"new place"
    for each in (fd, *fds.values()):
        os.close(each)
    manager.configure("disk", image=disk, format="raw", partitions="no")
    reload(service)
    assert sorted(os.listdir(service.target)) == ["disk", "status"]
    service.wait_value("STATUS", lambda status: "partition" not in status)
    assert told(service) == 0
    service.stop()


def damage(path, off):
    with open(path, "r+b") as f:
        byte = os.pread(f.fileno(), 1, off)
        os.pwrite(f.fileno(), bytes([byte[0] ^ 1]), off)


def test_damaged_gpt(work, show):
    disk = tables.make(work / "disk.img", "gpt")
    damage(disk, 512 + 60)
    theirs = tables.by_blkid(disk)
    assert info(disk)["backup"]
    export = show(disk)
    assert {n: os.path.getsize(path) for n, path in parts(export).items()} == {n: k[1] for n, k in theirs.items()}
    assert "the partition table at the beginning of the disk is damaged" in export.log.read_text()
    export.umount()
    damage(disk, tables.SIZE - 512 + 60)
    assert tables.by_blkid(disk) == {}
    assert info(disk) == {"error": "there must be a GUID partition table, but neither the one at the beginning of the "
                                   "disk nor the one at its end is valid"}
    export = show(disk)
    assert parts(export) == {} and "neither the one at the beginning" in export.log.read_text()
    export.umount()
    with pytest.raises(MountFailed, match="neither the one at the beginning"):
        show(disk, partitions="yes")


def test_impossible_entries(work, show):
    """What overlaps or leaves the disk is not shown, and the log and `info` say why."""
    disk = work / "disk.img"
    record = struct.pack("<440x4sH", b"id..", 0)
    for first, count in [(100, 1000), (1099, 50), (2000, 3000), (40000, 20000)]:
        record += struct.pack("<B3xB3xII", 0, 0x83, first, count)
    disk.write_bytes(record + b"\x55\xaa" + bytes(tables.SIZE - 512))
    export = show(disk)
    assert sorted(parts(export)) == [3]
    log = export.log.read_text()
    for line in ("part1 is left out: it overlaps part2", "part2 is left out: it overlaps part1",
                 "part4 is left out: it reaches beyond the end of the disk"):
        assert line in log
    export.umount()
    assert "not shown: overlaps part2" in fuseimg("info", disk).stdout


def test_damage_hides_no_partition(work, show):
    """A table entry that is wrong: what it stands for cannot be read, and all else is as it was."""
    disk = tables.make(work / "disk.img", "mbr")
    fill_with_data(disk)
    image = image_of(disk, "qcow2")
    with Metadata(image) as m:
        at = m.l2_tables[0] + 2 * MiB // m.cluster * m.width
        m.put(at, m.get(at) | 512)
    export = show(image)
    assert parts(export).keys() == tables.by_blkid(disk).keys()
    proc.run("ls", "-l", export.target)
    part = parts(export)[1]
    start, size = tables.by_blkid(disk)[1]
    assert 0 < os.stat(part).st_blocks * 512 <= size
    with open(part, "rb") as file:
        assert os.pread(file.fileno(), 4096, 0) == disk.read_bytes()[start:start + 4096]
        with pytest.raises(OSError) as error:
            os.pread(file.fileno(), 4096, 2 * MiB - start)
        assert error.value.errno == errno.EIO
    export.umount()


@pytest.mark.core
def test_when_partitions_are_shown(work, mount, show):
    disk = tables.make(work / "disk.img", "mbr")
    empty = images.create(work / "empty.qcow2", MiB)
    export = show(disk, partitions="no")
    assert parts(export) == {}
    export.umount()
    with pytest.raises(MountFailed, match="empty.qcow2: the disk has no partition table"):
        show(empty, partitions="yes")
    export = show(empty)
    assert sorted(os.listdir(export.target)) == ["disk", "status"]
    export.umount()
    with pytest.raises(MountFailed, match="is not a directory: partitions=yes needs one"):
        mount(disk, format="raw", partitions="yes")
    export = mount(disk, format="raw")
    assert_same(export.path, disk.read_bytes())
    export.umount()


@pytest.fixture
def several(work):
    """A disk with file systems of several kinds, each with a label."""
    disk = work / "disk.img"
    images.run("truncate", "-s", "64M", disk)
    tables.write(disk, "label: gpt\nsize=8M, type=uefi, name=boot\nsize=8M, name=\"old data\"\nsize=8M, name=data\n"
                       "size=8M, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709\n")
    for number, (start, size) in places(disk).items():
        part = work / f"fs{number}"
        images.run("truncate", "-s", size, part)
        if number == 1:
            images.run("mkfs.vfat", "-i", "1234abcd", "-n", "BOOT", part)
        elif number == 4:
            images.run("mkfs.ntfs", "-q", "-F", "-L", "Käse", part)
        else:
            images.run("mkfs.ext4", "-q", "-L", f"label {number}", "-U", f"00000000-0000-4000-8000-00000000000{number}", part)
        with open(disk, "r+b") as f:
            os.pwrite(f.fileno(), part.read_bytes(), start)
    return disk


SELECTED = [("2", 2), ("part3", 3), ("LABEL=BOOT", 1), ("UUID=1234-ABCD", 1), ("LABEL=label 3", 3),
            ("UUID=00000000-0000-4000-8000-000000000002", 2), ("PARTLABEL=old data", 2), ("esp", 1), ("TYPE=esp", 1),
            ("TYPE=0FC63DAF-8483-4772-8E79-3D69D8477DE4", 2)]
if os.uname().machine == "x86_64":
    SELECTED.append(("root", 4))


@pytest.mark.core
def test_selected(several, show):
    """"partition" leads to what the selector means: the worker finds labels behind its sandbox, and
    info shows them."""
    shown = {p["number"]: p for p in info(several)["partitions"]}
    assert [(shown[n]["fstype"], shown[n]["label"]) for n in (1, 2, 3, 4)] == [
        ("vfat", "BOOT"), ("ext4", "label 2"), ("ext4", "label 3"), ("ntfs", "Käse")]
    assert shown[3]["uuid"] == "00000000-0000-4000-8000-000000000003"
    image = image_of(several, "qcow2")
    for selector, number in SELECTED:
        export = show(image, read_only=True, partition=selector)
        link = export.target / "partition"
        assert os.readlink(link) == f"part{number}" and link.samefile(parts(export)[number])
        assert sorted(os.listdir(export.target)) == ["disk", "part1", "part2", "part3", "part4", "partition", "status"]
        export.umount()


def test_selected_none(several, show):
    for selector, said in [("LABEL=none", "there is no partition with LABEL=none"), ("9", "there is no partition with number 9"),
                           ("home", "there is no partition with TYPE=933ac7e1")]:
        export = show(several, partition=selector)
        assert not os.path.lexists(export.target / "partition") and sorted(parts(export)) == [1, 2, 3, 4]
        assert said in export.log.read_text()
        export.umount()
        with pytest.raises(MountFailed, match=said):
            show(several, partition=selector, partitions="yes")
    with pytest.raises(MountFailed, match="partition=first: must be N.LABEL="):
        show(several, partition="first")


def test_selected_after_kill_and_reload(several, manager):
    """The link survives the worker; a reload looks again."""
    manager.configure("disk", image=several, format="raw", partition="LABEL=label 3")
    service = manager.start("disk")
    link = service.target / "partition"
    assert os.readlink(link) == "part3"
    killed = service.worker
    proc.kill(killed)
    proc.wait_until(lambda: service.worker not in (None, killed), what="a new worker")
    assert os.readlink(link) == "part3"
    with loop.device(service.target / "part2") as device:
        proc.run("tune2fs", "-L", "label 3", device)
    with loop.device(service.target / "part3") as device:
        proc.run("tune2fs", "-L", "other", device)
    assert os.readlink(link) == "part3"
    reload(service)
    assert os.readlink(link) == "part2"
    service.wait_value("STATUS", lambda status: ", 4 partitions, LABEL=label 3 is part2" in status)
    manager.configure("disk", image=several, format="raw", partition="LABEL=nobody")
    reload(service)
    service.wait_value("STATUS", lambda status: ", 4 partitions, none of them is LABEL=nobody" in status)
    service.stop()


def test_busy_says_by_whom(several, show):
    """A loop device on a partition holds the export, and umount names it."""
    export = show(several)
    with loop.device(parts(export)[2]) as device:
        done = fuseimg("umount", export.target, check=False)
        assert done.returncode == 1 and device in done.stderr, done.stderr
    export.umount()

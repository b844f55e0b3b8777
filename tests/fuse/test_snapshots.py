# SPDX-License-Identifier: LGPL-2.1-or-later
"""Internal snapshots as disks: what qemu-img converts out of them is what we show, and nothing that is
written to the image changes them."""

import errno
import json
import os

import pytest

from support import export as exports
from support import images
from support.content import MiB, assert_same, in_threads, random_bytes, write_all
from support.export import MountFailed, fuseimg
from test_formats import SHAPES
from test_write import write_with

SHAPE = {shape.name: shape for shape in SHAPES}
NAMES = ["before", "two words", "1", "Käse, 1/2 ½"]     # "1" is also the id of the first


def snapshot(image, name):
    images.run("qemu-img", "snapshot", "-c", name, image)


def by_qemu(image, work, name):
    """By id or else by name, in this form."""
    return images.to_raw(image, work / "by-qemu", "-l", str(name)).read_bytes()


@pytest.mark.core
@pytest.mark.parametrize("shape", ["cluster-16", "cluster-9", "cluster-21", "v2-16", "extended-16", "chain-longer",
                                   "zstd-16", "refcount-8"])
def test_each_snapshot(shape, work, maker, mount):
    """Written by us between the snapshots; all are mounted at once, by name and by id."""
    image = maker.make(SHAPE[shape], work)
    model = bytearray(images.to_raw(image, work / "flat").read_bytes())
    old = []
    for step, name in enumerate(NAMES):
        snapshot(image, name)
        old.append(bytes(model))
        export = mount(image)
        write_with(in_threads, export.path, model, step, 12)
        export.umount()
    wanted = {**dict(zip(NAMES, old)), **{str(number): content for number, content in enumerate(old, 1)}}
    exported = {name: mount(image, read_only=True, snapshot=name) for name in wanted}
    active = mount(image, read_only=True)
    assert_same(active.path, model)
    for name, export in exported.items():
        assert_same(export.path, wanted[name])
        assert export.path.stat().st_mode & 0o222 == 0
        export.umount()
        assert by_qemu(image, work, name) == wanted[name]
    active.umount()
    images.check(image)


@pytest.mark.core
def test_sizes_of_their_time(work, mount):
    """Each snapshot has the size that the disk had; qemu-img goes back to it to compare."""
    image = images.create(work / "disk.img", 3 * MiB + 512)
    content = {}
    for size in (3 * MiB + 512, 9 * MiB, 40 * MiB + 1024):
        images.run("qemu-img", "resize", "-q", image, size)
        export = mount(image)
        fd = export.open()
        write_all(fd, random_bytes(size, 100000), size - 100000)
        os.close(fd)
        export.umount()
        snapshot(image, f"of-{size}")
    for name in ("of-3146240", "of-9437184", "of-41944064"):
        export = mount(image, read_only=True, snapshot=name)
        content[name] = export.read()
        assert len(content[name]) == int(name[3:])
        export.umount()
    for name, shown in content.items():
        images.run("qemu-img", "snapshot", "-a", name, image)
        assert images.to_raw(image, work / "by-qemu").read_bytes() == shown


@pytest.mark.core
def test_only_for_reading(work, mount):
    image = images.create(work / "disk.img", MiB)
    snapshot(image, "one")
    digest = images.digest(image)
    with pytest.raises(MountFailed, match="snapshot can only be read: .* -o ro"):
        mount(image, snapshot="one")
    export = mount(image, read_only=True, snapshot="one")
    with pytest.raises(OSError) as caught:
        export.open()
    assert caught.value.errno == errno.EROFS
    export.umount()
    assert images.digest(image) == digest


def test_which_is_meant(work, mount):
    image = images.create(work / "disk.img", MiB)
    with pytest.raises(MountFailed, match="has no internal snapshots"):
        mount(image, read_only=True, snapshot="one")
    for name in ("one", "two", "two"):
        snapshot(image, name)
    with pytest.raises(MountFailed, match='there is no snapshot "three"; there are: 1 "one", 2 "two", 3 "two"'):
        mount(image, read_only=True, snapshot="three")
    with pytest.raises(MountFailed, match='2 snapshots are called "two"; say which by its id: 2 "two", 3 "two"'):
        mount(image, read_only=True, snapshot="two")
    raw = images.sparse_file(work / "raw.img", MiB)
    with pytest.raises(MountFailed, match="raw images have no internal snapshots"):
        mount(raw, read_only=True, snapshot="one")


def test_worker_is_replaced(work, mount):
    """The next worker shows the same snapshot."""
    image = images.create(work / "disk.img", 4 * MiB)
    export = mount(image)
    model = random_bytes(1, 4 * MiB)
    fd = export.open()
    write_all(fd, model, 0)
    os.close(fd)
    export.umount()
    snapshot(image, "one")
    images.run("qemu-io", "-c", "write -P 7 0 4M", image)
    export = mount(image, read_only=True, snapshot="one", cache="none")
    assert_same(export.path, model)
    export.kill_worker()
    assert_same(export.path, model)
    export.umount()


@pytest.mark.core
def test_info_agrees_with_qemu(work):
    image = images.create(work / "disk.img", 20 * MiB)
    for name in NAMES:
        snapshot(image, name)
    images.run("qemu-img", "bitmap", "--add", image, "daily")
    images.run("qemu-img", "bitmap", "--add", "-g", "1M", "--disable", image, "weekly")
    ours = json.loads(fuseimg("info", "--json", image).stdout)
    theirs = images.info(image)
    for mine, other in zip(ours["snapshots"], theirs["snapshots"], strict=True):
        assert mine.pop("disk-size") == 20 * MiB
        assert mine == {key: other[key] for key in mine}
    assert [s["name"] for s in ours["snapshots"]] == NAMES
    assert ours["bitmaps"] == theirs["format-specific"]["data"]["bitmaps"]
    text = fuseimg("info", image).stdout
    assert '2 "two words", ' in text and '"weekly", granularity 1 MiB (1048576 bytes)\n' in text


def test_info_of_damaged_lists(work):
    """What can be read is shown, with an error for the rest; also of a file below the image."""
    image = images.create(work / "disk.img", 20 * MiB)
    for name in NAMES[:2]:
        snapshot(image, name)
    images.run("qemu-img", "bitmap", "--add", image, "daily")
    above = images.create(work / "above.img", 20 * MiB, backing=(image.name, "qcow2"))
    good = json.loads(fuseimg("info", "--json", image).stdout)
    assert good["errors"] == []
    data = bytearray(image.read_bytes())
    table = int.from_bytes(data[64:72], "big")
    data[table + 36:table + 40] = (5000).to_bytes(4, "big")
    extension = data.index((0x23852875).to_bytes(4, "big"))
    directory = int.from_bytes(data[extension + 24:extension + 32], "big")
    data[directory + 16] = 9
    image.write_bytes(data)
    for path in (image, above):
        done = fuseimg("info", "--json", path, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        shown = json.loads(done.stdout)
        shown = shown if path == image else shown["backing"][0]
        assert len(shown["errors"]) == 2
        assert "5000 bytes of extra data" in shown["errors"][0]
        assert "bitmap 0 has the unknown type 9" in shown["errors"][1]
        for key in ("virtual-size", "cluster-size", "features"):
            assert shown[key] == good[key]
        done = fuseimg("info", path, check=False)
        assert done.returncode == 1 and "unknown type 9" in done.stdout and "20 MiB" in done.stdout
        assert "5000 bytes of extra data" in done.stdout and "5000 bytes of extra data" in done.stderr


def test_bitmaps_of_what_was_written(work, mount):
    """Mounted for writing: bitmaps stay valid until somebody writes, and then say that they are not."""
    def flags():
        images.check(image)
        return [b["flags"] for b in images.info(image)["format-specific"]["data"]["bitmaps"]]

    image = images.create(work / "disk.img", 20 * MiB)
    images.run("qemu-img", "bitmap", "--add", image, "daily")
    images.run("qemu-img", "bitmap", "--add", "--disable", image, "stopped")
    export = mount(image)
    export.path.read_bytes()
    export.umount()
    assert flags() == [["auto"], []]
    export = mount(image)
    with open(export.path, "r+b") as f:
        f.write(b"x")
    export.umount()
    assert flags() == [["in-use", "auto"], []]


def test_map_of_a_snapshot(work):
    """map heeds -o snapshot, and agrees with the bytes."""
    image = images.create(work / "disk.img", MiB)
    images.run("qemu-io", "-c", "write -P 1 64k 64k", image)
    snapshot(image, "one")
    images.run("qemu-io", "-c", "write -P 2 0 1M", image)
    extents = json.loads(fuseimg("map", "--json", *exports.option_words({"snapshot": "one"}), image).stdout)
    assert [(e["start"], e["length"], e["data"]) for e in extents] == [
        (0, 65536, False), (65536, 65536, True), (131072, MiB - 131072, False)]
    with open(image, "rb") as f:
        f.seek(extents[1]["offset"])
        assert f.read(65536) == b"\1" * 65536


def test_which_one_is_told(work, mount):
    """In the list of exports and in the status file."""
    image, target = images.create(work / "disk.qcow2", MiB), work / "directory"
    snapshot(image, "two words")
    target.mkdir()
    export = mount(image, target=target, read_only=True, snapshot="two words")
    other = mount(image, read_only=True)
    told = {entry["target"]: entry["snapshot"] for entry in exports.listed()}
    assert told[str(target)] == "two words" and told[str(other.target)] is None
    assert f"{image} (snapshot two words)" in fuseimg("list").stdout
    assert "\nsnapshot: two words\n" in (target / "status").read_text()
    export.umount()
    other.umount()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""mount.fuseimg and umount.fuseimg as mount(8) and umount(8) call them, on a machine without systemd (with it: tests/system)."""

import concurrent.futures
import json
import os
from pathlib import Path

import pytest

from conftest import why_no_mounts
from support import export, images, loop, mounts, proc, tables
from support.content import MiB

HELPER = export.BUILD / "src/mount-helper/mount.fuseimg"
FAILED, USAGE = 32, 1


class Helper:
    """Both helpers, with directories of their own in the place of /etc/fuseimg and /run/fuseimg."""

    def __init__(self, work):
        self.run_dir, self.umount_program = work / "run", work / "umount.fuseimg"
        self.umount_program.symlink_to(HELPER)
        self.env = {"FUSEIMG_RUNTIME_DIR": str(self.run_dir), "FUSEIMG_PROGRAM": str(export.PROGRAM),
                    "FUSEIMG_WORKER": str(export.WORKER), "FUSEIMG_CONFIG_DIR": str(work / "etc"),
                    "SYSTEMD_FSTAB": str(work / "fstab")}

    def mount(self, *words, status=0):
        loop.ensure_nodes()
        done = proc.run(HELPER, *words, env=self.env, check=False)
        assert done.returncode == status, done.stderr
        return done.stderr

    def umount(self, *words, status=0):
        done = proc.run(self.umount_program, *words, env=self.env, check=False)
        assert done.returncode == status, done.stderr
        return done.stderr

    def exports(self):
        return [target for target in mounts.below(self.run_dir) if mounts.at(target).kind == "fuse.fuseimg"]

    def wait_no_export(self):
        proc.wait_until(lambda: not self.exports(), what="the end of the export")


@pytest.fixture
def helper(work):
    reason = why_no_mounts()
    if reason:
        pytest.skip(reason)
    if os.path.exists("/run/systemd/system"):
        pytest.skip("needs a machine without systemd")
    made = Helper(work)
    yield made
    for target in mounts.below(work):
        if mounts.at(target).kind != "fuse.fuseimg":
            proc.run("umount", "-i", target, check=False)
    for target in made.exports():
        proc.run(export.PROGRAM, "umount", target, env=made.env, check=False)


@pytest.fixture
def image(work):
    """A qcow2 with ext4 in it."""
    path, flat = work / "my disk.qcow2", work / "flat"
    with flat.open("wb") as file:
        file.truncate(16 * MiB)
    proc.run("mkfs.ext4", "-q", "-F", flat)
    proc.run("qemu-img", "convert", "-O", "qcow2", flat, path)
    flat.unlink()
    return path


@pytest.fixture
def place(work):
    """place(NAME) -> a new directory to mount on."""
    def make(name):
        path = work / name
        path.mkdir()
        return path

    return make


def check(image):
    images.check(image)
    flat = image.with_suffix(".raw")
    images.to_raw(image, flat)
    proc.run("e2fsck", "-fn", flat)
    return flat


def test_there_and_back(helper, image, place):
    where = place("mnt with blank")
    helper.mount(image, where, "-o", "rw,noatime,nosuid,nofail,x-systemd.automount")
    mounted = mounts.at(where)
    assert mounted.kind == "ext4" and {"noatime", "nosuid", "rw"} <= set(mounted.options)
    assert len(helper.exports()) == 1
    (where / "hello").write_text("there")
    helper.umount(where)
    assert not mounts.at(where)
    helper.wait_no_export()
    assert proc.run("debugfs", "-R", "cat /hello", check(image)).stdout == "there"
    # the same again, from what the first one left
    helper.mount(image, where)
    assert (where / "hello").read_text() == "there"
    helper.umount(where)
    helper.wait_no_export()


def test_read_only_and_remount(helper, image, place):
    where = place("mnt")
    before = image.read_bytes()
    helper.mount(image, where, "-o", "ro,noload,threads=1")
    assert "ro" in mounts.at(where).options
    with pytest.raises(OSError):
        (where / "x").touch()
    helper.mount(image, where, "-o", "remount,ro,nodev")
    assert {"ro", "nodev"} <= set(mounts.at(where).options)
    assert "not a block device" not in helper.mount(image, where, "-o", "remount,rw", status=FAILED)
    helper.umount(where)
    helper.wait_no_export()
    assert image.read_bytes() == before


def test_two_mounts_share_an_export(helper, image, place):
    one, other = place("one"), place("other")
    helper.mount(image, one, "-o", "ro,noload")
    helper.mount(image, other, "-o", "ro,noload")
    assert len(helper.exports()) == 1
    # who wants it otherwise is told so, and nothing changes
    assert "with other options" in helper.mount(image, place("third"), "-o", "rw", status=FAILED)
    helper.umount(one)
    assert len(helper.exports()) == 1 and list(other.iterdir())
    helper.umount(other)
    helper.wait_no_export()


def test_one_goes_while_another_comes(helper, image, place):
    """The unmount sees that nobody is left on the export, and stops it, or sees the new one: nothing in between."""
    places = [place("one"), place("other")]
    helper.mount(image, places[0], "-o", "ro,noload")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for i in range(20):
            old, new = places[i % 2], places[(i + 1) % 2]
            going = pool.submit(helper.umount, old)
            helper.mount(image, new, "-o", "ro,noload")
            going.result()
            assert len(helper.exports()) == 1 and list(new.iterdir())
    helper.umount(places[0])
    helper.wait_no_export()


def test_named_as_in_fstab(helper, image, place, work):
    """As the generator has named it, though mount(8) resolves links."""
    link, where, fstab = work / "link", place("mnt"), work / "fstab"
    link.symlink_to(image.name)
    fstab.write_text(f"/dev/sda1 / ext4 defaults 0 0\n{link} {where} fuseimg noauto 0 0\n")
    helper.mount(image, where)
    assert [Path(target).name.split(":")[0] for target in helper.exports()] == ["link"]
    helper.umount(where)
    helper.wait_no_export()


def test_a_mount_that_fails_leaves_nothing(helper, work, place):
    empty, where = work / "empty.qcow2", place("mnt")
    images.create(empty, 16 * MiB)
    assert "part=3" in helper.mount(empty, where, "-o", "part=3", status=FAILED)
    assert "part=LABEL=none" in helper.mount(empty, where, "-o", "part=LABEL=none", status=FAILED)
    helper.wait_no_export()
    helper.mount(empty, where, status=FAILED)       # no file system
    helper.wait_no_export()
    assert not mounts.at(where)


def test_data_file(helper, work, place):
    """Written to only where the options list it."""
    where, flat, image = place("mnt"), work / "flat", work / "disk.qcow2"
    with flat.open("wb") as file:
        file.truncate(16 * MiB)
    proc.run("mkfs.ext4", "-q", "-F", flat)
    proc.run("qemu-img", "convert", "-O", "qcow2", "-o", f"data_file={work / 'disk.data'}", flat, image)
    assert "disk.data is only written to where" in helper.mount(image, where, status=FAILED)
    helper.mount(image, where, "-o", f"backing={work / 'disk.data'}")
    (where / "hello").write_text("there")
    helper.umount(where)
    helper.wait_no_export()
    helper.mount(image, where, "-o", "ro")
    assert (where / "hello").read_text() == "there"
    helper.umount(where)
    helper.wait_no_export()


def test_refusals(helper, image, place):
    where = place("mnt")
    assert "/nowhere/x" in helper.mount("/nowhere/x", where, status=FAILED)
    assert "does not run" in helper.mount("disk", where, status=FAILED)
    assert "must be" in helper.mount(image, where, "-o", "threads=many", status=USAGE)
    assert "needed" in helper.mount(image, status=USAGE)
    assert "-q" in helper.mount(image, where, "-q", status=USAGE)
    assert "needed" in helper.umount(status=USAGE)
    helper.mount(image, where, "-s", "-f", "-v", "-n", "-t", "fuseimg")
    assert not helper.exports() and not Path(helper.run_dir).exists()


def test_busy_and_lazy(helper, image, place):
    where = place("mnt")
    helper.mount(image, where)
    with (where / "open").open("w") as file:
        helper.umount(where, status=FAILED)
        assert len(helper.exports()) == 1
        helper.umount(where, "-l")
        file.write("x")
    # the export stays for as long as the loop device does, and is then somebody's to take away
    assert not mounts.at(where)


def test_what_is_not_ours(helper, mount, image, place):
    """A file system on an export that somebody else has made: its end is not ours to decide."""
    exported = mount(image)
    where = place("mnt")
    with loop.mounted(exported.path, where, "-o", "loop"):
        helper.umount(where)
    assert mounts.at(exported.target)


def test_partitions(helper, work, place):
    """By number several of one image at a time; by what it is, one."""
    image = tables.make(work / "disk.img", "gpt")
    table = {p["number"]: p for p in json.loads(export.fuseimg("info", "--json", image).stdout)["partition-table"]["partitions"]}
    for number in (2, 3):
        with loop.device(image, "--offset", table[number]["start"], "--sizelimit", table[number]["size"]) as device:
            proc.run("mkfs.ext4", "-q", "-F", "-b", "1024", "-L", f"number{number}", device)
    first, second = place("first"), place("second")
    for part in ("LABEL=number3", "PARTLABEL=root", "3", "part3"):
        helper.mount(image, first, "-o", f"format=raw,part={part}")
        assert proc.run("findmnt", "-no", "LABEL", first).stdout.strip() == "number3"
        other = helper.mount(image, second, "-o", "format=raw,part=LABEL=number2", status=FAILED)
        assert "there is no such partition" not in other
        helper.umount(first)
        helper.wait_no_export()
    assert "has partitions" in helper.mount(image, first, "-o", "format=raw", status=FAILED)
    helper.wait_no_export()
    helper.mount(image, first, "-o", "format=raw,part=2")
    helper.mount(image, second, "-o", "format=raw,part=3")
    assert len(helper.exports()) == 1
    helper.umount(first)
    helper.umount(second)
    helper.wait_no_export()

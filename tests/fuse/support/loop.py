# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loop devices and what is mounted from them; only our own are ever detached."""

import contextlib
import os
from pathlib import Path

from support.proc import run, wait_until


def ensure_nodes():
    """A container or a machine without udev has no nodes for loop devices; losetup does not make them."""
    make_node("/dev/loop-control", 0o020000, os.makedev(10, 237))
    free = int(run("losetup", "--find", check=False).stdout.strip().removeprefix("/dev/loop") or 0)
    # others may take the next ones meanwhile
    for number in range(free, free + 8):
        make_node(f"/dev/loop{number}", 0o060000, os.makedev(7, number))


def make_node(path, kind, number):
    with contextlib.suppress(FileExistsError):
        os.mknod(path, 0o600 | kind, number)


@contextlib.contextmanager
def device(path, *options):
    """A loop device over a file."""
    ensure_nodes()
    name = run("losetup", "--find", "--show", *options, path).stdout.strip()
    try:
        yield name
    finally:
        detach(name)


def detach(name):
    number = name.removeprefix("/dev/loop")
    backing = Path(f"/sys/block/loop{number}/loop/backing_file")
    ours = content(backing)
    run("losetup", "--detach", name, check=False)
    # detaching is lazy while somebody (blkid, udev) still looks at it; then it may be somebody else's at once
    wait_until(lambda: ours is None or content(backing) != ours, 10, what=f"the end of {name}")


def content(path):
    """What a file of sysfs says, or None."""
    try:
        return path.read_text()
    except OSError:
        return None


@contextlib.contextmanager
def mounted(source, directory, *options):
    run("mount", *options, source, directory)
    try:
        yield Path(directory)
    finally:
        run("umount", directory, check=False)


@contextlib.contextmanager
def small_file_system(directory, size):
    """A file system of that size to fill up."""
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", directory)
    try:
        yield Path(directory)
    finally:
        run("umount", "--lazy", directory, check=False)


@contextlib.contextmanager
def overbooked(directory):
    """A block device of 48 MiB, of which the host has room for 16: what is written there it cannot write back."""
    directory.mkdir()
    with small_file_system(directory, 16 << 20):
        run("truncate", "--size", 48 << 20, directory / "disk")
        with device(directory / "disk") as name:
            yield name


@contextlib.contextmanager
def overbooked_directory(directory):
    """The same with a file system on it."""
    top = directory.with_name(directory.name + "-files")
    top.mkdir()
    with overbooked(directory) as name:
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", name)
        with mounted(name, top) as files:
            yield files

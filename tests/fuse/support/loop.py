# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loop devices and what is mounted from them; only our own are ever detached."""

import contextlib
import os
from pathlib import Path

from support.proc import run, wait_until


def ensure_nodes():
    """A container or a machine without udev has no nodes for loop devices; losetup does not make them."""
    if not os.path.exists("/dev/loop-control"):
        os.mknod("/dev/loop-control", 0o600 | 0o020000, os.makedev(10, 237))
    number = int(run("losetup", "--find", check=False).stdout.strip().removeprefix("/dev/loop") or 0)
    node = f"/dev/loop{number}"
    if not os.path.exists(node):
        os.mknod(node, 0o600 | 0o060000, os.makedev(7, number))


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
    run("losetup", "--detach", name, check=False)
    number = name.removeprefix("/dev/loop")
    backing = Path(f"/sys/block/loop{number}/loop/backing_file")
    # detaching is lazy while somebody (blkid, udev) still looks at it
    wait_until(lambda: not backing.exists(), 10, what=f"the end of {name}")


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

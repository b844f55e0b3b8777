# SPDX-License-Identifier: LGPL-2.1-or-later
"""The qcow2 images that are exported: a full one for all rounds, a new empty one per first-write cell."""

import os
import subprocess

from rows import EMPTY_SIZE, FULL_SIZE, MIB

PATTERN = 0xa5          # not zero, so that nobody may take a cluster for a hole


class ImageError(Exception):
    """The image could not be made, or is damaged after a run."""


def qemu_img(*args):
    done = subprocess.run(["qemu-img", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    return done.returncode, done.stdout.strip()


def make_empty(path):
    status, said = qemu_img("create", "-q", "-f", "qcow2", path, str(EMPTY_SIZE))
    if status:
        raise ImageError(f"cannot create {path}: {said}")


def make_full(path):
    """Every cluster allocated and written once, through the format, front to back."""
    status, said = qemu_img("create", "-q", "-f", "qcow2", path, str(FULL_SIZE))
    if not status:
        status, said = qemu_img("bench", "-q", "-f", "qcow2", "-w", f"--pattern={PATTERN}", "-s", "1M",
                                "-d", "4", "-c", str(FULL_SIZE // MIB), path)
    if status:
        raise ImageError(f"cannot fill {path}: {said}")
    settle(path)


def settle(path):
    """Writes dirty pages back, so that no cell pays for the one before it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def warm(path):
    """Reads the whole file once: it is in the host's page cache afterwards."""
    buffer = bytearray(4 * MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def check(path):
    """A fast daemon that damages the image has measured nothing. Leaked clusters (3) are no damage."""
    status, said = qemu_img("check", "-q", path)
    if status not in (0, 3):
        raise ImageError(f"qemu-img check of {os.path.basename(path)}: {said.splitlines()[-1:]}")


def compare(export, path):
    """What the export shows, read with O_DIRECT as fio does it, against what QEMU finds in the image."""
    status, said = qemu_img("compare", "-q", "-U", "-T", "none", "-f", "raw", "-F", "qcow2", export, path)
    if status:
        raise ImageError(f"the export differs from the image: {said or 'status ' + str(status)}")

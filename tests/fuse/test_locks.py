# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image is used by one writer at a time, be it us or QEMU: the same locks, tried both ways."""

import contextlib
import subprocess

import pytest

from support import images, proc
from support.content import MiB
from support.export import MountFailed

pytestmark = pytest.mark.core


@contextlib.contextmanager
def virtual_machine(image, read_only=False):
    """QEMU with the image open, as a running machine has it."""
    words = ["qemu-io", *(["-r"] if read_only else []), str(image)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        qemu.stdin.write("read 0 512\n")        # the answer tells that it is open
        qemu.stdin.flush()
        assert "512" in qemu.stdout.readline()
        yield qemu
        qemu.stdin.close()


def qemu_writes(image):
    return proc.run("qemu-io", "-c", "write 0 64k", str(image), check=False).returncode == 0


def qemu_reads(image):
    return proc.run("qemu-io", "-r", "-c", "read 0 64k", str(image), check=False).returncode == 0


@pytest.fixture
def image(work):
    path = work / "disk.qcow2"
    images.create(path, 8 * MiB)
    return path


def test_writable_export_excludes_everybody(image, mount):
    export = mount(image)
    assert not qemu_writes(image) and not qemu_reads(image)
    export.umount()
    assert qemu_writes(image)


def test_read_only_export_shares_with_readers(image, work, mount):
    mount(image, ro=True)
    assert not qemu_writes(image) and qemu_reads(image)
    mount(image, ro=True)
    with pytest.raises(MountFailed) as caught:
        mount(image)
    assert "in use" in caught.value.stderr and str(image) in caught.value.stderr


def test_machine_excludes_us(image, mount):
    with virtual_machine(image) as qemu:
        for options in {}, {"ro": True}:
            with pytest.raises(MountFailed) as caught:
                mount(image, **options)
            assert "in use" in caught.value.stderr
            assert f"PID {qemu.pid}, qemu-io" in caught.value.stderr
        mount(image, ro=True, lock="no").umount()
    mount(image)


def test_reading_machine_excludes_writers_only(image, mount):
    with virtual_machine(image, read_only=True):
        mount(image, ro=True)
        with pytest.raises(MountFailed):
            mount(image)


def test_backing_file_is_locked(image, work, mount):
    """Whoever writes the backing file changes what every overlay shows."""
    overlay = work / "overlay.qcow2"
    images.create(overlay, 8 * MiB, backing=(image.name, "qcow2"))
    with virtual_machine(image):
        with pytest.raises(MountFailed) as caught:
            mount(overlay)
        assert str(image) in caught.value.stderr
    mount(overlay)
    assert not qemu_writes(image) and qemu_reads(image)


def test_lock_outlives_the_worker(image, mount):
    export = mount(image)
    for _ in range(3):
        export.kill_worker()
        assert not qemu_writes(image)
        with open(export.path, "r+b", buffering=0) as f:
            f.write(b"x" * 4096)             # served by the successor
    assert not qemu_writes(image)

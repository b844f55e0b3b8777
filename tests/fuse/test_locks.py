# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image is used by one writer at a time, be it us or QEMU: the same locks, tried both ways."""

import contextlib
import signal
import subprocess

import pytest

from support import images, mounts, proc
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


@contextlib.contextmanager
def storage_daemon(image, work):
    """qemu-storage-daemon with the image exported through FUSE, for writing."""
    target = work / "theirs"
    target.touch()
    words = ["qemu-storage-daemon", "--blockdev", f"qcow2,node-name=disk,file.driver=file,file.filename={image}", "--export",
             f"fuse,id=export,node-name=disk,mountpoint={target},writable=on"]
    with subprocess.Popen(words) as daemon:
        try:
            proc.wait_until(lambda: mounts.at(target) or daemon.poll() is not None, what="its export")
            yield daemon
        finally:
            daemon.terminate()


def test_storage_daemon(image, work, mount):
    with storage_daemon(image, work) as daemon:
        assert daemon.poll() is None
        with pytest.raises(MountFailed) as caught:
            mount(image)
        assert f"PID {daemon.pid}, qemu-storage-da" in caught.value.stderr
    export = mount(image)
    with storage_daemon(image, work) as daemon:
        assert daemon.wait(20 * proc.PATIENCE) == 1
    export.umount()


def test_waits_for_the_lock(image, manager):
    """The service manager is told who is waited for, and given reason to wait longer."""
    manager.configure("disk", image=image, lock_wait=60)
    with virtual_machine(image) as qemu:
        service = manager.start("disk", ready=False)
        service.wait_value("STATUS", lambda status: status.startswith("Waiting: ") and f"PID {qemu.pid}, qemu-io" in status)
        service.wait_value("EXTEND_TIMEOUT_USEC")
        assert not service.values("READY")
    service.wait_ready()
    assert not qemu_writes(image)
    service.stop()
    assert qemu_writes(image)


def test_backing_file_is_waited_for(image, work, manager):
    images.create(work / "overlay.qcow2", 8 * MiB, backing=(image.name, "qcow2"))
    manager.configure("disk", image=work / "overlay.qcow2", lock_wait=60)
    with virtual_machine(image):
        service = manager.start("disk", ready=False)
        service.wait_value("STATUS", lambda status: "Waiting: " in status and str(image) in status)
    service.wait_ready()
    service.stop()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_waiting(image, manager, sig):
    manager.configure("disk", image=image, lock_wait=60)
    with virtual_machine(image):
        service = manager.start("disk", ready=False)
        service.wait_value("STATUS", lambda status: "Waiting: " in status)
        service.process.send_signal(sig)
        assert service.process.wait(5 * proc.PATIENCE) == 0
    assert "no longer waiting" in service.log.read_text() and not mounts.at(service.target)


def test_time_is_up(image, mount):
    with virtual_machine(image):
        with pytest.raises(MountFailed) as caught:
            mount(image, lock_wait=1)
    assert "in use" in caught.value.stderr

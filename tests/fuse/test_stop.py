# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGTERM at bad moments: it ends when it can, never before all is on stable storage, and never not at all."""

import os
import signal
import threading
import time

import pytest

from support import images, mounts, proc
from support.content import MiB, random_bytes
from test_reload import reload
from test_resume import timed


@pytest.fixture
def image(work):
    return images.create(work / "disk.qcow2", 16 * MiB)


def test_while_the_disk_is_slow(work, manager):
    """The image is in another export whose worker is frozen: the last flush waits for it, and so do we."""
    images.create(work / "outer.raw", 16 * MiB, format="raw")
    manager.configure("outer", image=work / "outer.raw", format="raw")
    outer = manager.start("outer")
    manager.configure("inner", image=outer.path, format="raw")
    inner = manager.start("inner")
    fd = os.open(inner.path, os.O_RDWR)
    os.pwrite(fd, random_bytes(1, MiB), 0)
    proc.freeze(outer.worker)
    try:
        os.close(fd)
        inner.process.send_signal(signal.SIGTERM)
        proc.wait_until(lambda: not mounts.at(inner.target), what="the unmount")
        inner.wait_value("STATUS", lambda status: status.startswith("Unmounted, writing the last of it"), timeout=15)
        assert inner.process.poll() is None
    finally:
        os.kill(outer.worker, signal.SIGCONT)
    assert inner.process.wait(20 * proc.PATIENCE) == 0, inner.log.read_text()
    assert inner.values("STOPPING") == ["1"]
    outer.stop()
    assert (work / "outer.raw").read_bytes()[:MiB] == random_bytes(1, MiB)


def test_with_a_worker_that_hangs(image, manager):
    """It is replaced, and its successor closes the image."""
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="4000000")
    service.path.write_bytes(random_bytes(2, MiB))
    proc.freeze(service.worker)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30 * proc.PATIENCE) == 0, service.log.read_text()
    assert "hangs" in service.log.read_text()
    images.check(image, leaks=0)
    assert images.to_raw(image, image.parent / "flat").read_bytes()[:MiB] == random_bytes(2, MiB)


def test_with_a_worker_that_hangs_and_a_writer(image, manager):
    """The export is in use by somebody who waits for that worker."""
    manager.configure("disk", image=image, cache="none")
    service = manager.start("disk", WATCHDOG_USEC="4000000")
    fd = os.open(service.path, os.O_RDWR)
    proc.freeze(service.worker)
    done = []
    writer = threading.Thread(target=lambda: done.append(os.pwrite(fd, random_bytes(3, MiB), 0)), daemon=True)
    writer.start()
    time.sleep(0.2)
    service.process.send_signal(signal.SIGTERM)
    writer.join(30 * proc.PATIENCE)
    assert done == [MiB]
    assert "STOPPING" not in {key for _, message in service.messages for key in message}
    os.close(fd)
    assert service.process.wait(20 * proc.PATIENCE) == 0, service.log.read_text()
    images.check(image, leaks=0)


def test_during_a_reload(image, manager):
    """A stop is stronger: whatever a reload is at, the end is an orderly one."""
    manager.configure("disk", image=image)
    for part in (None, 0, 0.2, 0.5, 0.8, 1):
        service = manager.start("disk")
        service.path.write_bytes(random_bytes(4, MiB))
        if part is None:
            took = timed(lambda: reload(service))
        else:
            service.process.send_signal(signal.SIGHUP)
            time.sleep(part * took)
        service.stop()
        images.check(image, leaks=0)


def test_busy_during_a_reload(image, manager):
    """Told to stop while the old worker does not come to its end: that is not forgotten."""
    manager.configure("disk", image=image)
    service = manager.start("disk")
    fd = os.open(service.path, os.O_RDWR)
    proc.freeze(service.worker)
    service.process.send_signal(signal.SIGHUP)
    proc.wait_until(lambda: "reloading" in service.log.read_text(), what="the reload")
    time.sleep(1)
    service.process.send_signal(signal.SIGTERM)
    service.wait_value("STATUS", lambda status: status.startswith("Waiting to unmount"), timeout=20)
    os.pwrite(fd, random_bytes(6, MiB), 0)
    os.close(fd)
    assert service.process.wait(20 * proc.PATIENCE) == 0, service.log.read_text()
    assert "it is being stopped" in service.log.read_text()
    images.check(image, leaks=0)


def test_the_supervisor_is_killed_while_it_waits(image, manager):
    """Nobody goes on with it here: the export ends, and what was flushed is there."""
    manager.configure("disk", image=image)
    service = manager.start("disk")
    fd = os.open(service.path, os.O_RDWR)
    os.pwrite(fd, random_bytes(5, MiB), 0)
    os.fsync(fd)
    service.process.send_signal(signal.SIGTERM)
    service.wait_value("STATUS", lambda status: status.startswith("Waiting to unmount"), timeout=15)
    worker = service.worker
    proc.kill(service.process.pid)
    proc.wait_until(lambda: not proc.alive(worker), 10, what="the worker's end")
    with pytest.raises(OSError):
        os.pread(fd, 4096, 8 * MiB)
    try:
        os.close(fd)
    except OSError:
        pass
    images.check(image, leaks=None)
    assert images.to_raw(image, image.parent / "flat").read_bytes()[:MiB] == random_bytes(5, MiB)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGHUP: another configuration and another program for a mount that is in use."""

import errno
import os
import shutil
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from support import images, loop, mounts, proc
from support.content import KiB, MiB, random_bytes
from support.export import BUILD, WORKER
from support.syscalls import fsync_error
from test_resume import timed, under_fio_verify


def reload(service, good=True):
    """SIGHUP, until it is ready again; says whether the configuration was taken."""
    before = len(service.values("READY"))
    text = service.log.read_text()
    service.process.send_signal(signal.SIGHUP)
    proc.wait_until(lambda: len(service.values("READY")) > before, 20, what="READY=1 after the reload")
    said = service.log.read_text()[len(text):]
    assert ("reload failed" not in said) == good, said
    assert service.process.poll() is None
    return said


def refused(service, *words):
    """A reload that changes nothing, and says why in the journal and in STATUS=."""
    worker, options = service.worker, mounts.at(service.target).options
    said = reload(service, good=False)
    for word in words:
        assert word in said, said
        assert word in service.status, service.status
    assert service.worker == worker
    assert mounts.at(service.target).options == options


@pytest.fixture
def image(work):
    return images.create(work / "disk.qcow2", 16 * MiB)


@pytest.mark.core
def test_nothing_changed(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    worker, pid = service.worker, service.process.pid
    fd = os.open(service.path, os.O_RDWR)
    os.pwrite(fd, random_bytes(1, MiB), 0)
    opened = None
    for _ in range(3):
        reload(service)
        assert os.pread(fd, MiB, 0) == random_bytes(1, MiB)
        opened = opened or len(os.listdir(f"/proc/{pid}/fd"))
        # it may be at something that needs one for a moment
        proc.wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= opened, what="no pile of descriptors")
    assert service.worker != worker and service.process.pid == pid
    assert "RELOADING" in {key for _, message in service.messages for key in message}
    os.close(fd)
    service.stop()
    images.check(image, leaks=0)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_failed_write_back_is_told(format, work, manager):
    """The host could not write back what it took, and nobody of ours has heard of it when the reload begins."""
    with loop.overbooked_directory(work / "room") as files:
        image = images.create(files / "disk.img", 40 * MiB, format=format)
        manager.configure("disk", image=image, format=format)
        service = manager.start("disk")
        with open(service.path, "r+b", buffering=0) as disk, open(image, "rb") as host:
            for n in range(32):
                os.pwrite(disk.fileno(), random_bytes(n, MiB), n * MiB)
            assert fsync_error(host.fileno()) in (errno.EIO, errno.ENOSPC)
            assert "may not be on stable storage" in reload(service)
            for _ in range(2):
                assert fsync_error(disk.fileno()) != 0
        service.stop(status=1)
        assert "may not be on stable storage" in service.log.read_text()


@pytest.mark.core
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_image_grown_by_another_program(format, work, manager):
    image = images.create(work / "disk.img", 16 * MiB, format=format)
    manager.configure("disk", image=image, format=format, lock="no")
    service = manager.start("disk")
    fd = os.open(service.path, os.O_RDWR)
    before = random_bytes(2, 16 * MiB)
    os.pwrite(fd, before, 0)
    os.fsync(fd)
    assert os.pread(fd, 10, 16 * MiB) == b""
    proc.run("qemu-img", "resize", "-f", format, image, f"{16 * MiB + 5 * KiB}")
    reload(service)
    assert os.fstat(fd).st_size == 16 * MiB + 5 * KiB
    assert os.pread(fd, 32 * MiB, 0) == before + bytes(5 * KiB)
    os.pwrite(fd, b"end!", 16 * MiB + 5 * KiB - 4)
    os.close(fd)
    assert service.path.read_bytes()[-4:] == b"end!"
    service.stop()


@pytest.mark.core
def test_read_only_and_back(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    service.path.write_bytes(b"x" * MiB)
    manager.configure("disk", image=image, read_only="yes")
    reload(service)
    assert "ro" in mounts.at(service.target).options
    with pytest.raises(OSError):
        service.path.open("r+b")
    with service.path.open("rb") as reader:
        assert reader.read(MiB) == b"x" * MiB
        manager.configure("disk", image=image, read_only="no")
        reload(service)
        assert reader.read(MiB) == bytes(MiB)
    proc.wait_until(lambda: "rw" in mounts.at(service.target).options, 5)
    service.path.open("r+b").write(b"y" * MiB)
    # the image is locked against writers again
    assert proc.run("qemu-img", "resize", image, "64M", check=False).returncode != 0
    service.stop()
    images.check(image, leaks=0)
    assert images.to_raw(image, image.parent / "flat").read_bytes()[:MiB] == b"y" * MiB


def test_not_read_only_under_writers(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    with loop.device(service.path) as device:
        manager.configure("disk", image=image, read_only="yes")
        refused(service, "cannot be made read-only", str(device))
        with open(device, "r+b", buffering=0) as disk:
            disk.write(b"z" * 4096)
            os.fsync(disk.fileno())
    reload(service)
    service.stop()


@pytest.mark.core
@pytest.mark.parametrize("listed", ["base.data", "disk.data"])
def test_writable_with_data_files(listed, work, manager):
    """What is written then, too, is the image's own data file where it is listed, and no data file of a backing file."""
    images.create(work / "base.qcow2", 16 * MiB, data_file="base.data")
    image = images.create(work / "disk.qcow2", 16 * MiB, data_file="disk.data", backing=("base.qcow2", "qcow2"))
    before = images.digest(work / "base.data")
    settings = {"image": image, "backing": f"{work}:{work / listed}" if listed == "disk.data" else work.parent}
    manager.configure("disk", **settings, read_only="yes")
    service = manager.start("disk")
    manager.configure("disk", **settings, read_only="no")
    if listed != "disk.data":
        refused(service, "disk.data is only written to where it")
        service.stop()
        return
    reload(service)
    proc.wait_until(lambda: "rw" in mounts.at(service.target).options, 5)
    with service.path.open("r+b") as disk:
        disk.write(b"y" * MiB)
    service.stop()
    assert (work / "disk.data").read_bytes()[:MiB] == b"y" * MiB
    assert images.digest(work / "base.data") == before
    images.check(image)


def test_not_writable(image, work, manager):
    """A file system that can only be read: the reload fails, reading goes on."""
    place = work / "place"
    place.mkdir()
    proc.run("mount", "-t", "tmpfs", "none", place)
    shutil.copy(image, place / "disk.qcow2")
    proc.run("mount", "-o", "remount,ro", place)
    manager.configure("disk", image=place / "disk.qcow2", read_only="yes")
    service = manager.start("disk")
    manager.configure("disk", image=place / "disk.qcow2")
    refused(service, "cannot be opened for writing")
    assert service.path.read_bytes() == bytes(16 * MiB)
    service.stop()


@pytest.mark.core
def test_mode_and_owner(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    os.chmod(service.path, 0o666)
    manager.configure("disk", image=image, owner="65534", group="65533", mode="0640")
    reload(service)
    st = os.stat(service.path)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o640, 65534, 65533)
    # what clients have set stays, as long as the configuration says nothing new of it
    os.chmod(service.path, 0o600)
    manager.configure("disk", image=image, owner="65534", group="65532", mode="0640")
    reload(service)
    st = os.stat(service.path)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o600, 65534, 65532)
    service.stop()


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task")) - 1


@pytest.mark.core
def test_threads(image, manager):
    manager.configure("disk", image=image, threads=2)
    service = manager.start("disk")
    others = threads_of(service.worker) - 2     # a sanitizer's
    fd = os.open(service.path, os.O_RDWR)
    for n in (5, 1, 64, 3):
        manager.configure("disk", image=image, threads=n)
        reload(service)
        assert threads_of(service.worker) == n + others
        os.pwrite(fd, bytes([n]) * MiB, n * 64 * KiB)
        assert os.pread(fd, MiB, n * 64 * KiB) == bytes([n]) * MiB
    os.close(fd)
    service.stop()
    images.check(image, leaks=0)


@pytest.mark.core
def test_another_image_is_refused(image, work, manager):
    other = images.create(work / "other.qcow2", 16 * MiB)
    manager.configure("disk", image=image)
    service = manager.start("disk")
    manager.configure("disk", image=other)
    refused(service, "is not the file that is mounted", "other.qcow2")
    # another name of the same file is none
    os.link(image, work / "alias.qcow2")
    manager.configure("disk", image=work / "alias.qcow2")
    reload(service)
    service.stop()


@pytest.mark.parametrize("key,value", [("format", "raw"), ("snapshot", "s"), ("backing", "none"), ("direct_io", "yes"),
                                       ("lock", "no"), ("allow_other", "no")])
def test_what_only_a_start_can_change(key, value, image, manager):
    manager.configure("disk", image=image, read_only="yes")
    service = manager.start("disk")
    manager.configure("disk", image=image, read_only="yes", **{key: value})
    refused(service, f"{key.upper()}= cannot be changed while")
    service.stop()


@pytest.mark.core
@pytest.mark.parametrize("text", ["IMAGE={image}\nTHREADS=many\n", "IMAGE={image}\nNONSENSE=1\n", "THREADS=2\n"])
def test_invalid_configuration(text, image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    manager.configure("disk", text.format(image=image))
    refused(service, "disk.conf")
    manager.configure("disk").unlink()
    refused(service, "there is no such file")
    service.path.write_bytes(b"x" * 4096)
    service.stop()


@pytest.fixture
def installed(work, monkeypatch):
    """A copy of the program, to be replaced as by an upgrade."""
    from support import export
    program = work / "bin" / "fuseimg"
    program.parent.mkdir()
    shutil.copy(BUILD / "src/cli/fuseimg", program)
    monkeypatch.setattr(export, "PROGRAM", program)

    def install(source):
        shutil.copy(source, program.parent / "new")
        (program.parent / "new").chmod(0o755)
        os.rename(program.parent / "new", program)

    return install


def test_upgraded_program(image, manager, installed):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    exe = f"/proc/{service.process.pid}/exe"
    installed(BUILD / "src/cli/fuseimg")
    assert os.readlink(exe).endswith("(deleted)")
    reload(service)
    assert not os.readlink(exe).endswith("(deleted)")
    service.path.write_bytes(b"x" * 4096)
    service.stop()


@pytest.mark.parametrize("broken", ["#!/nonexistent/interpreter\n", "#!/bin/sh\nexit 3\n", "#!/bin/sh\nkill -SEGV $$\n", "junk"])
def test_upgrade_that_does_not_work(broken, image, work, manager, installed):
    """The program that is installed now cannot take over: the old one goes on."""
    manager.configure("disk", image=image)
    service = manager.start("disk")
    (work / "broken").write_text(broken)
    installed(work / "broken")
    refused(service)
    service.path.write_bytes(b"x" * 4096)
    installed(BUILD / "src/cli/fuseimg")
    reload(service)
    service.stop()


def test_worker_that_does_not_end(image, manager):
    """It is stopped (SIGSTOP) when it should drain: after a while it is killed, and the next one goes on."""
    manager.configure("disk", image=image, cache="none")
    service = manager.start("disk")
    fd = os.open(service.path, os.O_RDWR)
    os.kill(service.worker, signal.SIGSTOP)
    done = []
    writer = threading.Thread(target=lambda: done.append(os.pwrite(fd, b"x" * MiB, 0)), daemon=True)
    writer.start()
    reload(service)
    writer.join(20 * proc.PATIENCE)
    assert done == [MiB]
    os.close(fd)
    service.stop()


def reload_command(export):
    export.workers_died = True
    worker = export.worker
    os.truncate(export.image, 32 * MiB)
    os.kill(export.supervisor, signal.SIGHUP)
    proc.wait_until(lambda: export.worker not in (None, worker), 10, what="another worker")


@pytest.mark.parametrize("daemon", [False, True])
def test_as_a_command(daemon, work, mount):
    """`fuseimg mount` reloads as well, in the foreground and as a daemon."""
    image = images.create(work / "disk.img", 16 * MiB, format="raw")
    export = mount(image, daemon=daemon, format="raw")
    reload_command(export)
    proc.wait_until(lambda: os.stat(export.path).st_size == 32 * MiB, 10)
    export.umount()


def test_a_daemon_still_logs(work, mount, monkeypatch):
    """Also after the second reload; and its command line does not grow."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(work / "log"))
        log.settimeout(20 * proc.SLOW)
        monkeypatch.setenv("FUSEIMG_SYSLOG_SOCKET", str(work / "log"))
        export = mount(images.create(work / "disk.img", 16 * MiB, format="raw"), daemon=True, format="raw")
        export.workers_died = True
        for _ in range(3):
            os.kill(export.supervisor, signal.SIGHUP)
            while b"reloaded" not in log.recv(4096):
                pass
        words = Path(f"/proc/{export.supervisor}/cmdline").read_bytes().split(b"\0")
        assert words.count(b"--foreground") == 1, words
        export.umount()


def test_as_an_ordinary_user(work, mount, user):
    image = images.create(work / "disk.img", 16 * MiB, format="raw")
    os.chown(image, user.uid, user.gid)
    export = mount(image, user=user, format="raw")
    reload_command(export)
    export.umount()


def test_unmounted_meanwhile(image, manager):
    """An unmount from outside is an orderly end at every moment of a reload."""
    manager.configure("disk", image=image)
    for part in (None, 0, 0.1, 0.2, 0.4, 0.6, 0.8, 1):
        service = manager.start("disk")
        service.path.write_bytes(b"x" * MiB)
        if part is None:
            took = timed(lambda: reload(service))
        else:
            service.process.send_signal(signal.SIGHUP)
            time.sleep(part * took)
        proc.run("umount", service.target)
        assert service.process.wait(20 * proc.PATIENCE) == 0, service.log.read_text()
        assert not mounts.at(service.target), service.log.read_text()
        images.check(image, leaks=0)


@pytest.mark.limit(180)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_under_fio_verify(format, work, manager):
    """Nothing fails and nothing is reordered, however often; threads and modes change on the way."""
    image = images.create(work / "disk.img", 128 * MiB, format=format)
    settings = {"image": image, "format": format}
    manager.configure("disk", **settings)
    service = manager.start("disk")

    def reloads(stop):
        for turn in range(20):
            if stop.wait(0.2):
                return turn
            manager.configure("disk", **settings, threads=1 + turn % 7, mode="0600" if turn % 2 else "0640")
            reload(service)
        return 20

    assert under_fio_verify(service, work, reloads) == 20
    service.stop()
    if format == "qcow2":
        images.check(image, leaks=0)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reload that brings a program with another layout of the request memory (fuseimg-other: another version
number, and everything in another place)."""

import itertools
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time

import pytest

from conftest import why_no_mounts
from support import export, images, mounts, proc, tables
from support.content import MiB, random_bytes
from support.fdstore import StoredService
from test_reload import reload
from test_resume import timed, under_fio_verify


class Installed:
    """What is installed: supervisor and worker, replaced as a package manager does it."""

    def __init__(self, directory):
        directory.mkdir()
        self.program, self.worker = directory / "fuseimg", directory / "fuseimg-worker"
        self.version = None

    def install(self, version):
        """"": the one that all tests use; "-other"."""
        self.version = version
        cli, worker = ("src/cli", "src/worker") if not version else ("tests/fuse", "tests/fuse")
        for source, place in ((f"{cli}/fuseimg{version}", self.program), (f"{worker}/fuseimg-worker{version}", self.worker)):
            shutil.copy(export.BUILD / source, f"{place}.new")
            os.rename(f"{place}.new", place)

    def other(self):
        self.install("-other" if not self.version else "")

    def executed_by(self, pid):
        """Whether the process has become the program that is installed now."""
        return os.path.samefile(f"/proc/{pid}/exe", self.program)


@pytest.fixture
def installed(work, monkeypatch):
    reason = why_no_mounts()
    if reason:
        pytest.skip(reason)
    what = Installed(work / "bin")
    what.install("")
    monkeypatch.setattr(export, "PROGRAM", what.program)
    monkeypatch.setattr(export, "WORKER", what.worker)
    return what


def runs(pid):
    """The version of the program that a process runs, while its file is still there."""
    with open(f"/proc/{pid}/exe", "rb") as exe:
        return "-other" if exe.read() == (export.BUILD / "tests/fuse/fuseimg-other").read_bytes() else ""


@pytest.mark.core
def test_what_goes_over(installed, work, manager):
    """There and back: open files, what was set on them, partitions, counters, clients' writes."""
    image = tables.make(work / "disk.img", "gpt")
    manager.configure("disk", image=image, format="raw", partition="PARTLABEL=root", threads=3)
    service = manager.start("disk")
    part = service.target / "part2"
    fd = os.open(part, os.O_RDWR)
    os.chmod(part, 0o640)
    os.chown(service.path, 65534, 65533)
    os.utime(service.path, ns=(10**18 + 7, 10**18 + 9))
    os.pwrite(fd, b"before", 0)
    for turn in range(4):
        place, disk = os.stat(part), os.stat(service.path)
        counted = (service.target / "status").read_text()
        installed.other()
        reload(service)
        assert runs(service.process.pid) == installed.version
        now = os.stat(part)
        assert (now.st_ino, now.st_size, now.st_mode) == (place.st_ino, place.st_size, place.st_mode)
        assert stat.S_IMODE(now.st_mode) == 0o640
        now = os.stat(service.path)
        assert (now.st_uid, now.st_gid, now.st_atime_ns) == (disk.st_uid, disk.st_gid, disk.st_atime_ns)
        assert os.pread(fd, 6, 0) == (b"before" if turn == 0 else b"turn %d" % (turn - 1))
        os.pwrite(fd, b"turn %d" % turn, 0)
        assert os.readlink(service.target / "partition") == "part3"
        before, after = (dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                         for text in (counted, (service.target / "status").read_text()))
        assert writes(after) == writes(before) + 1, (before, after)
    os.close(fd)
    service.stop()
    with open(image, "rb") as file:
        assert os.pread(file.fileno(), 6, 4 * MiB) == b"turn 3"


def writes(status):
    return int(status["writes"].split()[0])


def test_a_table_that_changes_at_the_same_time(installed, work, manager):
    """The file that somebody has open shows the same bytes of the disk as before, under no name any more."""
    image = tables.make(work / "disk.img", "gpt")
    manager.configure("disk", image=image, format="raw")
    service = manager.start("disk")
    fd = os.open(service.target / "part2", os.O_RDWR)
    os.pwrite(fd, b"mine", 0)
    with open(service.path, "r+b", buffering=0) as disk:
        disk.write(bytes(32 * 1024))
        disk.seek(disk.seek(0, os.SEEK_END) - 32 * 1024)
        disk.write(bytes(32 * 1024))
    installed.other()
    reload(service)
    assert not (service.target / "part2").exists()
    assert os.pread(fd, 4, 0) == b"mine"
    os.close(fd)
    service.stop()


@pytest.mark.limit(300)
def test_a_worker_that_does_not_end(installed, work, manager):
    """It is killed with requests in hand, which only one of its kind can take up: one more does, and ends."""
    image = images.create(work / "disk.qcow2", 16 * MiB)
    manager.configure("disk", image=image, cache="none")
    service = manager.start("disk")
    stop, failed = threading.Event(), []

    def write(n):
        fd, content = os.open(service.path, os.O_RDWR), None
        while not stop.is_set() and not failed:
            content = random_bytes(time.monotonic_ns(), MiB)
            if os.pwrite(fd, content, n * MiB) != MiB or os.pread(fd, MiB, n * MiB) != content:
                failed.append(n)
        os.close(fd)

    writers = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(4)]
    for writer in writers:
        writer.start()
    # who writes past the cache all the time, in processes of their own: hardly ever has the worker nothing in hand
    floods = [subprocess.Popen(["sh", "-c", f"while dd if=/dev/zero of={service.path} bs=1M seek={n} count=2 conv=notrunc oflag=direct; do :; done"],
                               stderr=subprocess.DEVNULL, start_new_session=True) for n in (4, 6, 8)]
    try:
        for _ in range(20):
            time.sleep(0.3)
            os.kill(service.worker, signal.SIGSTOP)
            installed.other()
            said = reload(service)
            assert runs(service.process.pid) == installed.version
            if "another worker finishes" in said:
                break
    finally:
        for flood in floods:
            os.killpg(flood.pid, signal.SIGKILL)
            flood.wait()
    stop.set()
    for writer in writers:
        writer.join(20 * proc.PATIENCE)
    assert not failed and "another worker finishes" in said
    service.stop()
    images.check(image, leaks=None)


@pytest.mark.limit(180)
def test_under_fio_verify(installed, work, manager):
    """Nothing fails and nothing is reordered, there and back, with other numbers of threads."""
    image = images.create(work / "disk.img", 128 * MiB)
    manager.configure("disk", image=image)
    service = manager.start("disk")

    def there_and_back(stop):
        for turn in itertools.count():
            if stop.wait(0.1) or turn == 12:
                return turn
            manager.configure("disk", image=image, threads=1 + turn * 5 % 7)
            installed.other()
            reload(service)
        return None

    assert under_fio_verify(service, work, there_and_back) == 12
    service.stop()
    images.check(image, leaks=0)


def start_either(stored, installed):
    """As the unit's next start: the program that is installed, and where that cannot go on, the other one."""
    try:
        stored.start()
    except AssertionError as error:
        assert "go on with the version of fuseimg" in str(error)
        installed.other()
        stored.log.write_text("")
        stored.start()
        return True
    return False


def kill_in_reload(stored, installed, moment, pause, both):
    """A reload, and kill -9 of the supervisor (both: and of the worker) so long after: before it has become the other
    program, as the worker, which is stopped, does not come to its end; after that; or whenever it is."""
    worker = proc.wait_until(lambda: stored.worker, 60, what="a worker")
    installed.other()
    stored.log.write_text("")
    if moment == "before":
        os.kill(worker, signal.SIGSTOP)
    os.kill(stored.supervisor, signal.SIGHUP)
    if moment == "before":
        proc.wait_until(lambda: "reloading" in stored.log.read_text(), 60, what="the reload")
    elif moment == "after":
        proc.wait_until(lambda: installed.executed_by(stored.supervisor), 60, every=0.001, what="the other program")
        worker = stored.worker
    time.sleep(pause)
    stored.kill(*([worker] if both else []))
    if moment == "before":
        proc.kill(worker, signal.SIGCONT)


@pytest.mark.limit(900)
@pytest.mark.parametrize("times", [12, pytest.param(100, marks=pytest.mark.long)])
def test_killed_on_the_way(times, installed, work):
    """kill -9 of the supervisor at any moment of such a reload: one of the two goes on, and nothing is lost."""
    image = images.create(work / "disk.img", 128 * MiB)
    target = work / "export"
    target.mkdir()
    (work / "export.conf").write_text(f"IMAGE={image}\n")
    stored = StoredService(work, target, ["serve", "export"],
                           {"FUSEIMG_CONFIG_DIR": str(work), "FUSEIMG_RUNTIME_DIR": str(work), "FUSEIMG_WORKER": str(installed.worker)},
                           program=installed.program)
    stored.path = target / "disk"
    rng = random.Random(5)

    def kills(stop):
        installed.other()
        took = timed(stored.reload)
        for turn, moment in zip(range(times), itertools.cycle(("before", "after", "whenever"))):
            if stop.wait(0.1):
                return turn
            kill_in_reload(stored, installed, moment, rng.uniform(0, took), turn % 2)
            said = stored.log.read_text()
            turned_back = start_either(stored, installed)
            # the supervisor waits ten seconds for a worker that is stopped
            assert turned_back or moment != "before" or "does not come to its end" in said, said
            assert not turned_back or moment != "after", said
        return times

    try:
        stored.start()
        (target / "disk").open("r+b").write(random_bytes(1, MiB))
        assert under_fio_verify(stored, work, kills) == times
        proc.wait_until(lambda: len([name for name in list(stored.store) if name.startswith("slots-")]) == 1, 30,
                        what="one request memory in the store")
        stored.stop()
    finally:
        stored.close()
    assert not mounts.at(target)
    images.check(image, leaks=None)

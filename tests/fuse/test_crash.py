# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of either process, again and again, under load: clients notice a pause or a clear end, and
what was acknowledged is there."""

import contextlib
import errno
import itertools
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from support import export as exports
from support import fio, images, loop, mounts, proc
from support.content import GiB, KiB, MiB, apply, assert_same, endless, execute, in_threads, plan, random_bytes, stripes
from support.export import PROGRAM, as_user, fuseimg
from support.syscalls import fsync_error
from test_formats import SHAPES

SHAPE = {shape.name: shape for shape in SHAPES}

# What a killed worker leaves behind that no table names: what its requests had in hand or had replaced. Its
# reservation the next one takes over
LEFT = 8 * MiB


@contextlib.contextmanager
def killer(export, pauses):
    """kill -9 of the worker after each of the pauses, over and over; yields the list of killed pids."""
    killed, stop = [], threading.Event()

    def loop_forever():
        while True:
            for pause in pauses:
                if stop.wait(pause * proc.SLOW):
                    return
                pid = export.worker
                if pid and pid not in killed:
                    export.workers_died = True
                    proc.kill(pid)
                    killed.append(pid)

    thread = threading.Thread(target=loop_forever, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


# Every few hundred milliseconds
PAUSES = [0.3, 0.25, 0.45]


def more_of_each(lists):
    """Waits until every writer has entered some more of what it has done."""
    before = list(map(len, lists))
    proc.wait_until(lambda: all(len(now) > then for now, then in zip(lists, before)), 30, what="some writes of each")


def check(image, kills):
    """No corruption; leaks of no more than what the killed workers held."""
    result = images.check(image, leaks=None)
    cluster = images.info(image)["cluster-size"]
    assert result.get("leaks", 0) * cluster <= kills * LEFT, result
    return result


@pytest.mark.core
@pytest.mark.limit(120)
@pytest.mark.parametrize("name", ["raw", "cluster-16", "cluster-9", "extended-16", "chain-4", "data-file"])
def test_worker_killed_under_writers(name, work, maker, mount):
    """Several writers and the model; five kills at random moments."""
    if name == "raw":
        image, format = images.sparse_file(work / "disk.img", 12 * MiB), "raw"
    else:
        image, format = maker.make(SHAPE[name], work), "qcow2"
    model = bytearray(images.to_raw(image, work / "flat", "-f", format).read_bytes())
    export = mount(image, format=format, **images.to_write(name, work))
    owned = stripes(name, len(model), 4)
    done = [[] for _ in range(4)]
    stop = threading.Event()

    def writer(n):
        fd = os.open(export.path, os.O_WRONLY)
        for write in endless(f"{name} {n}", owned[n]):
            off, length, seed = write
            assert os.pwrite(fd, random_bytes(seed, length), off) == length
            done[n].append(write)
            if len(done[n]) % 40 == 0:
                os.fsync(fd)
            if stop.is_set():
                break
        os.close(fd)

    def kills():
        try:
            rng = random.Random(name)
            for _ in range(5):
                time.sleep(rng.uniform(0.2, 0.5) * proc.SLOW)
                more_of_each(done)
                killed = export.kill_worker()
                export.wait_worker(other_than=killed)
            proc.wait_until(lambda: min(map(len, done)) > 20, 60, what="some writes")
            time.sleep(0.3)
        finally:
            stop.set()

    in_threads([kills, *(lambda n=n: writer(n) for n in range(4))])
    for writes in done:
        apply(model, writes)
    assert_same(export.path, model)
    export.umount()
    if format == "qcow2":
        check(image, kills=5)
    (work / "model").write_bytes(model)
    images.compare(image, work / "model", format)


@pytest.mark.limit(180)
@pytest.mark.parametrize("name", ["raw", "cluster-16", "cluster-12"])
def test_worker_killed_under_fio(name, work, mount):
    image = work / "disk.img"
    format = "raw" if name == "raw" else "qcow2"
    images.create(image, 128 * MiB, format=format, **(SHAPE[name].chain[0].options if name != "raw" else {}))
    export = mount(image, format=format)
    with killer(export, PAUSES) as killed:
        for _ in range(10):
            fio.run_job(work, fio.verify_job(export.path, 32 * MiB, loops=2, extra=["rate=12m", "fsync=64"]))
            if len(killed) >= 3:
                break
    assert len(killed) >= 3
    fio.run_job(work, fio.verify_job(export.path, 32 * MiB))
    export.umount()
    if format == "qcow2":
        check(image, len(killed))


def test_failed_flush_outlives_the_worker(work, mount):
    """The host cannot write back what it took, and says so once: no later fsync succeeds, whoever serves it."""
    with loop.overbooked(work / "room") as device:
        export = mount(device, format="raw")
        fd = export.open()
        os.pwrite(fd, b"a" * MiB, 0)
        assert fsync_error(fd) == 0
        for n in range(32):
            os.pwrite(fd, random_bytes(n, MiB), n * MiB)
        first = fsync_error(fd)
        assert first in (errno.EIO, errno.ENOSPC)
        os.truncate(work / "room/disk", 8 * MiB)    # room for what comes
        os.truncate(work / "room/disk", 48 * MiB)
        for _ in range(2):
            os.pwrite(fd, b"b", 0)
            assert fsync_error(fd) == first
            killed = export.kill_worker()
            export.wait_worker(other_than=killed)
        os.close(fd)
        done = fuseimg("umount", export.target, check=False)
        assert done.returncode == 1 and "may not be on stable storage" in done.stderr


def test_failed_write_back_before_the_kill(work, mount):
    """No worker has heard of it yet: the next one opens the image all the same, and does."""
    with loop.overbooked_directory(work / "room") as files:
        image = images.create(files / "disk.img", 40 * MiB)
        export = mount(image)
        fd = export.open()
        with open(image, "rb") as host:
            for n in range(32):
                os.pwrite(fd, random_bytes(n, MiB), n * MiB)
            assert fsync_error(host.fileno()) in (errno.EIO, errno.ENOSPC)
        for _ in range(2):
            killed = export.kill_worker()
            export.wait_worker(other_than=killed)
            assert fsync_error(fd) != 0
        os.close(fd)
        done = fuseimg("umount", export.target, check=False)
        assert done.returncode == 1 and "may not be on stable storage" in done.stderr
        assert "trying again" not in export.log.read_text()


@pytest.mark.limit(120)
def test_worker_killed_under_a_file_system(work, mount):
    """ext4 on a loop device, writers with O_SYNC: no error, and every acknowledged write is there."""
    image = images.create(work / "disk.img", GiB)
    inside = work / "inside"
    inside.mkdir()
    export = mount(image)
    with loop.device(export.path) as device:
        proc.run("mkfs.ext4", "-q", "-F", device)
        with loop.mounted(device, inside):
            stop = threading.Event()
            acknowledged = [[] for _ in range(3)]

            def writer(n):
                fd = os.open(inside / f"file{n}", os.O_RDWR | os.O_CREAT | os.O_SYNC)
                for turn in itertools.count():
                    if stop.is_set():
                        break
                    data = random_bytes(f"{n} {turn}", 20_001)
                    assert os.pwrite(fd, data, turn * 20_001) == len(data)
                    acknowledged[n].append(data)
                os.close(fd)

            def kills():
                try:
                    for pause in PAUSES:
                        time.sleep(pause * proc.SLOW)
                        more_of_each(acknowledged)
                        killed = export.kill_worker()
                        export.wait_worker(other_than=killed)
                    more_of_each(acknowledged)
                finally:
                    stop.set()

            in_threads([kills, *(lambda n=n: writer(n) for n in range(3))])
            for n in range(3):
                assert acknowledged[n]
                assert (inside / f"file{n}").read_bytes() == b"".join(acknowledged[n])
        proc.run("e2fsck", "-fn", device)
    export.umount()
    check(image, len(PAUSES))
    flat = images.to_raw(image, work / "flat")
    proc.run("e2fsck", "-fn", flat)


@pytest.mark.core
def test_worker_killed_while_idle(work, mount):
    image = images.create(work / "disk.img", 16 * MiB)
    export = mount(image)
    fd = export.open()
    for n in range(3):
        os.pwrite(fd, random_bytes(n, 100_000), n * MiB)
        export.wait_worker(other_than=export.kill_worker())
        assert os.pread(fd, 100_000, n * MiB) == random_bytes(n, 100_000)
    os.close(fd)
    export.umount()
    check(image, kills=3)


def test_killed_right_after_the_answer(work, mount):
    """An answered write must never be executed again: a later one to the same bytes would be undone."""
    image = images.create(work / "disk.img", 8 * MiB)
    export = mount(image, cache="none", threads=2)
    fd = export.open()
    rng = random.Random(1)
    kills = 5
    for n in range(2000):
        os.pwrite(fd, n.to_bytes(8, "big") * 512, 64 * KiB * (n % 4))
        assert os.pread(fd, 8, 64 * KiB * (n % 4)) == n.to_bytes(8, "big")
        if kills and rng.random() < 0.01:
            kills -= 1
            killed = export.kill_worker()
            assert os.pread(fd, 8, 64 * KiB * (n % 4)) == n.to_bytes(8, "big")
            export.wait_worker(other_than=killed)
    os.close(fd)
    export.umount()
    check(image, kills=5)


def test_metadata_survives_the_worker(work, mount):
    """What chmod, chown and touch set is the session's, not the worker's."""
    image = images.create(work / "disk.img", 8 * MiB, format="raw")
    export = mount(image, format="raw", growable=True)
    os.chmod(export.path, 0o640)
    os.chown(export.path, 65534, 65533)
    os.truncate(export.path, 9 * MiB + 5)
    os.utime(export.path, (1_500_000_000, 1_500_000_000))
    export.wait_worker(other_than=export.kill_worker())
    time.sleep(1.1)
    st = os.stat(export.path)
    assert (st.st_mode & 0o777, st.st_uid, st.st_gid) == (0o640, 65534, 65533)
    assert (st.st_mtime, st.st_size) == (1_500_000_000, 9 * MiB + 5)
    export.umount()


def test_mapped_pages_survive_the_worker(work, mount):
    import mmap
    image = images.create(work / "disk.img", 8 * MiB)
    export = mount(image)
    fd = export.open()
    with mmap.mmap(fd, 8 * MiB) as area:
        area[:MiB] = random_bytes(1, MiB)
        killed = export.kill_worker()
        area[MiB:2 * MiB] = random_bytes(2, MiB)
        area.flush()
        export.wait_worker(other_than=killed)
        assert area[5 * MiB:5 * MiB + 4] == bytes(4)
    os.close(fd)
    assert export.read()[:2 * MiB] == random_bytes(1, MiB) + random_bytes(2, MiB)
    export.umount()
    check(image, kills=1)


def test_an_ordinary_users_worker_is_replaced_too(work, mount, user):
    image = images.create(work / "disk.img", 8 * MiB)
    os.chown(image, user.uid, user.gid)
    export = mount(image, user=user)
    command = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "dd", f"of={export.path}", "conv=notrunc", "bs=64k",
               "if=/dev/urandom", "count=16", "status=none"]
    proc.run(*command)
    export.wait_worker(other_than=export.kill_worker())
    proc.run(*command)
    export.umount()
    check(image, kills=1)


def kill_all(export, number, most):
    """The signal to every worker that comes up, until the supervisor has ended, or so many were killed; returns when
    each of them was."""
    export.workers_died = True
    killed, times = set(), []

    def over():
        pid = export.worker
        if pid and pid not in killed:
            proc.kill(pid, number)
            killed.add(pid)
            times.append(time.monotonic())
        return not proc.alive(export.supervisor) or len(times) == most

    proc.wait_until(over, 30, what="the end")
    return times


def test_crashing_for_ever_ends(work, mount):
    """More than 5 crashes in 10 s: the supervisor gives up, clients get errors, nothing hangs. A machine that is too busy
    for so many is given some time."""
    image = images.create(work / "disk.img", 8 * MiB)
    export = mount(image, cache="none")
    fd = export.open()
    times = kill_all(export, signal.SIGSEGV, most=100)
    assert not proc.alive(export.supervisor)
    assert len(times) > 5 and len([when for when in times if when > times[-1] - 10]) <= 8
    with pytest.raises(OSError):
        os.pread(fd, 4096, 0)
    with contextlib.suppress(OSError):
        os.close(fd)
    images.check(image, leaks=None)


def test_killed_for_ever_goes_on(work, mount):
    """kill -9 comes from outside and says nothing about us."""
    image = images.create(work / "disk.img", 8 * MiB)
    export = mount(image)
    fd = export.open()
    os.pwrite(fd, b"k" * MiB, MiB)
    assert len(kill_all(export, signal.SIGKILL, most=20)) == 20
    assert os.pread(fd, MiB, MiB) == b"k" * MiB
    os.close(fd)
    export.umount()
    images.check(image, leaks=None)


@pytest.mark.core
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_supervisor_killed(format, work, mount):
    """Clients get an error, not a hang; the image is consistent; the next mount finds the target usable."""
    image = images.create(work / "disk.img", 32 * MiB, format=format)
    export = mount(image, format=format)
    worker = export.worker
    written = []
    failures = []

    def writer():
        fd = os.open(export.path, os.O_WRONLY)
        try:
            for n in range(100_000):
                if os.pwrite(fd, random_bytes(n, 30_000), n % 900 * 30_000) == 30_000:
                    written.append(n)
        except OSError as error:
            failures.append(error)
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    thread = threading.Thread(target=writer, daemon=True)
    thread.start()
    proc.wait_until(lambda: len(written) > 50, 20)
    os.kill(export.supervisor, signal.SIGKILL)
    thread.join(20 * proc.PATIENCE)
    assert not thread.is_alive(), "a writer hangs after the supervisor's death"
    assert failures
    proc.wait_until(lambda: not proc.alive(worker), 10, what="the worker's end after its supervisor's")
    if format == "qcow2":
        images.check(image, leaks=None)
    content = images.to_raw(image, work / "flat", "-f", format).read_bytes()
    last = {n % 900: n for n in written}
    for place, n in last.items():
        got = content[place * 30_000:(place + 1) * 30_000]
        later = n + 900
        # the request that got the error may have been executed, in whole or in part
        if got != random_bytes(n, 30_000):
            assert later == len(written), f"write {n} was acknowledged and is lost"
    # the stale mount is ours to clean
    again = mount(image, target=export.target, format=format)
    assert_same(again.path, content)
    again.umount()
    if format == "qcow2":
        images.check(image, leaks=None)


def test_list_and_umount_after_the_supervisor_was_killed(work, mount):
    image = images.create(work / "disk.img", 8 * MiB)
    export = mount(image)
    os.kill(export.supervisor, signal.SIGKILL)
    proc.wait_until(lambda: not proc.alive(export.supervisor), 5)
    assert str(export.target) not in fuseimg("list").stdout
    done = fuseimg("umount", export.target, check=False)
    assert done.returncode == 1 and "may be lost" in done.stderr, done.stderr
    assert not export.mounted


@pytest.mark.core
def test_nobody_reads_what_it_logs(work, mount):
    """In the foreground, behind a pipe whose reader has gone."""
    image, target = images.create(work / "disk.img", 8 * MiB), work / "export0"
    target.touch()
    export = mount(image, target, daemon=True)
    export.umount()
    command, env = as_user([PROGRAM, "mount", "-f", image, target], None)
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, **env}) as process:
        process.stdout.readline()
        process.stdout.close()
        proc.wait_until(lambda: mounts.at(target), 10)
        worker = next(pid for pid in proc.descendants(process.pid) if proc.comm(pid) == "fuseimg-worker")
        proc.kill(worker)       # which is logged
        with target.open("r+b") as disk:
            disk.write(b"x" * 4096)
            os.fsync(disk.fileno())
        assert process.poll() is None
        fuseimg("umount", target)
        assert process.wait(20 * proc.PATIENCE) == 0


@pytest.mark.core
@pytest.mark.parametrize("how", ["umount", "SIGTERM"])
def test_parent_of_the_target_renamed(how, work, mount):
    image = images.create(work / "disk.img", 8 * MiB)
    (work / "p" / "raw").mkdir(parents=True)
    export = mount(image, work / "p" / "raw", daemon=True)
    with export.path.open("r+b") as disk:
        disk.write(b"x" * MiB)
    (work / "p").rename(work / "q")
    if how == "umount":
        done = fuseimg("umount", work / "q" / "raw")
        assert not done.stderr
    else:
        os.kill(export.supervisor, signal.SIGTERM)
    proc.wait_until(lambda: not proc.alive(export.supervisor), 10)
    assert not mounts.at(work / "q" / "raw")
    exports.live.remove(export)
    images.check(image, leaks=0)


@pytest.mark.parametrize("late", [0, 0.5])
def test_supervisor_killed_with_a_directory_target(late, work, mount):
    """Mounted again at once, when the worker has not found out yet, which on a busy machine takes a while."""
    image = images.create(work / "disk.img", 8 * MiB)
    target = work / "directory"
    target.mkdir()
    export = mount(image, target=target)
    worker = export.worker
    if late:
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(late, proc.kill, [worker, signal.SIGCONT]).start()
    os.kill(export.supervisor, signal.SIGKILL)
    proc.wait_until(lambda: not proc.alive(export.supervisor), 5)
    again = mount(image, target=target, directory=True)
    assert sorted(os.listdir(target)) == ["disk", "status"]
    again.umount()
    assert not mounts.at(target)


@pytest.mark.long
@pytest.mark.limit(10_000)
@pytest.mark.parametrize("name", ["cluster-16", "cluster-9", "chain-4", "raw"])
def test_worker_killed_for_minutes(name, work, maker, mount):
    if name == "raw":
        image, format = images.sparse_file(work / "disk.img", 12 * MiB), "raw"
    else:
        image, format = maker.make(SHAPE[name], work), "qcow2"
    model = bytearray(images.to_raw(image, work / "flat", "-f", format).read_bytes())
    export = mount(image, format=format)
    end = time.monotonic() + float(os.environ.get("FUSEIMG_TEST_SECONDS", "240"))
    turn = 0
    with killer(export, PAUSES):
        while time.monotonic() < end:
            owned = stripes(f"{name} {turn}", len(model), 4)
            plans = [plan(f"{name} {turn} {n}", owned[n], 200) for n in range(4)]
            in_threads([lambda n=n: execute(export.path, plans[n]) for n in range(4)])
            for writes in plans:
                apply(model, writes)
            assert_same(export.path, model)
            turn += 1
    export.umount()
    if format == "qcow2":
        check(image, kills=1000)


def write_somewhere(export, model, off):
    data = random_bytes(off, 3 * MiB)
    with open(export.path, "r+b") as f:
        f.seek(off)
        f.write(data)
        os.fsync(f.fileno())
    model[off:off + len(data)] = data


@pytest.mark.core
def test_reservation_survives_its_worker(work, mount):
    """Killed between requests, again and again: the image that is closed in order has no leaks."""
    image = images.create(work / "disk.img", 64 * MiB)
    model = bytearray(64 * MiB)
    export = mount(image)
    for n in range(6):
        write_somewhere(export, model, n * 5 * MiB)
        export.kill_worker()
    write_somewhere(export, model, 40 * MiB)
    assert_same(export.path, model)
    export.umount()
    images.check(image)
    assert image.stat().st_size < 64 * MiB


def test_reservation_is_given_back_when_idle(work, mount):
    """An export that nobody uses is an image without leaks, even to who looks at it meanwhile."""
    image = images.create(work / "disk.img", 64 * MiB)
    model = bytearray(64 * MiB)
    export = mount(image)
    for _ in range(20):     # it is busy for some seconds more
        write_somewhere(export, model, MiB)
        if images.check(image, leaks=None, in_use=True).get("leaks", 0) > 0:
            break
    else:
        raise AssertionError("there is no reservation, or it is given back at once")
    proc.wait_until(lambda: images.check(image, leaks=None, in_use=True).get("leaks", 0) == 0, timeout=30, every=1,
                    what="the image without leaks")
    write_somewhere(export, model, 30 * MiB)
    assert_same(export.path, model)
    export.umount()
    images.check(image)

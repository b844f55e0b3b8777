# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of the supervisor where somebody (systemd's fd store, played by support/fdstore.py) keeps its
descriptors: the next one goes on, and clients notice a pause."""

import ctypes
import os
import random
import signal
import struct
import subprocess
import threading
import time

import pytest

from conftest import why_no_mounts
from support import fio, images, mounts, proc, tables
from support.content import MiB, random_bytes
from support.export import fuseimg, listed
from support.fdstore import StoredService, mount_words


@pytest.fixture
def service(work):
    """service(IMAGE, key=value...): a StoredService that was started."""
    reason = why_no_mounts()
    if reason:
        pytest.skip(reason)
    made = []

    def make(image, words=None, environment=None, directory=False, **options):
        target = work / "export"
        if directory:
            target.mkdir()
        elif not words:
            target.touch()
        made.append(StoredService(work, target, words or mount_words(image, target, **options), environment))
        if words:
            made[-1].path = target / "disk"
        return made[-1].start()

    yield make
    for item in made:
        item.close()


@pytest.mark.core
def test_what_is_kept(service, work):
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image, threads=3)
    assert sorted(export.store) == ["clone-0", "clone-1", "clone-2", "entry", "fuse", "image-w", "life", "slots-2-3", "state"]
    assert all(len(fds) == 1 for fds in export.store.values())
    export.stop()


@pytest.mark.core
@pytest.mark.parametrize("both", [False, True])
def test_killed_while_idle(both, service, work):
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image)
    fd = os.open(export.path, os.O_RDWR)
    for n in range(3):
        os.pwrite(fd, random_bytes(n, 100_000), n * MiB)
        export.kill(*([export.worker] if both else []))
        assert mounts.at(export.target)
        export.start()
        assert os.pread(fd, 100_000, n * MiB) == random_bytes(n, 100_000)
    os.close(fd)
    export.stop()
    images.check(image, leaks=None)


def test_partitions_stay(service, work):
    """Also where the disk says something else by now: that is for a reload."""
    image = tables.make(work / "disk.img", "gpt")
    export = service(image, directory=True, format="raw", partition="PARTLABEL=root")
    part = export.target / "part2"
    fd, place = os.open(part, os.O_RDWR), os.stat(part)
    os.pwrite(fd, b"before", 0)
    with open(export.target / "disk", "r+b", buffering=0) as disk:
        disk.write(bytes(32 * 1024))
    export.kill(export.worker)
    export.start()
    assert os.pread(fd, 6, 0) == b"before" and os.pwrite(fd, b"after!", 0) == 6
    assert (os.stat(part).st_ino, os.stat(part).st_size) == (place.st_ino, place.st_size)
    assert os.readlink(export.target / "partition") == "part3"
    os.close(fd)
    export.stop()
    with open(image, "rb") as file:
        assert os.pread(file.fileno(), 6, 4 * MiB) == b"after!"


def test_a_client_waits_meanwhile(service, work):
    """Nobody serves for a second; nothing on the way to the next worker asks the mount for anything."""
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image, cache="none")
    fd = os.open(export.path, os.O_RDWR)
    export.kill(export.worker)
    done = []
    thread = threading.Thread(target=lambda: done.append(os.pwrite(fd, b"x" * MiB, MiB)), daemon=True)
    thread.start()
    time.sleep(1)
    assert not done
    export.start()
    thread.join(10 * proc.PATIENCE)
    assert done == [MiB]
    assert os.pread(fd, MiB, MiB) == b"x" * MiB
    os.close(fd)
    export.stop()


def test_the_last_worker_is_waited_for(service, work):
    """A worker that outlives its supervisor still holds requests: two must never serve at once."""
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image, cache="none")
    fd = os.open(export.path, os.O_RDWR)
    worker = export.worker
    os.kill(worker, signal.SIGSTOP)
    export.kill()
    starter = threading.Thread(target=export.start, daemon=True)
    starter.start()
    proc.wait_until(lambda: "waiting for the end of the last worker" in export.log.read_text(), 10)
    time.sleep(0.5)
    assert export.worker is None
    os.kill(worker, signal.SIGCONT)
    starter.join(20 * proc.PATIENCE)
    assert export.worker
    os.pwrite(fd, b"y" * MiB, 0)
    os.close(fd)
    export.stop()


def test_locks_stay(service, work):
    """While nobody runs, the image is still taken."""
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image)
    export.kill(export.worker)
    refused = proc.run("qemu-img", "resize", image, "32M", check=False)
    assert refused.returncode != 0 and "lock" in refused.stderr
    export.start()
    refused = proc.run("qemu-img", "resize", image, "32M", check=False)
    assert refused.returncode != 0 and "lock" in refused.stderr
    export.stop()
    proc.run("qemu-img", "resize", image, "32M")


def test_the_list_of_exports(service, work):
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image)
    export.kill(export.worker)
    export.start()
    entries = [entry for entry in listed() if entry["target"] == str(export.target)]
    assert [entry["pid"] for entry in entries] == [export.supervisor]
    export.stop()
    assert not [entry for entry in listed() if entry["target"] == str(export.target)]


def test_unmounted_meanwhile(service, work):
    """There is nothing to go on with: the start is an ordinary one."""
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image)
    export.kill(export.worker)
    proc.run("umount", export.target)
    export.start()
    assert "starting anew" in export.log.read_text()
    export.path.write_bytes(b"anew")
    export.stop()


def test_backing_files_are_kept(service, work):
    base = images.create(work / "base.img", 16 * MiB)
    middle = images.create(work / "middle.img", 16 * MiB, backing_file="base.img", backing_fmt="qcow2")
    image = images.create(work / "disk.img", 16 * MiB, backing_file="middle.img", backing_fmt="qcow2")
    export = service(image)
    assert {"file-0-r", "file-1-r"} <= set(export.store)
    base.rename(work / "moved.img")
    middle.unlink()
    export.kill(export.worker)
    export.start()
    assert export.path.read_bytes() == bytes(16 * MiB)
    export.stop()


def cleanup(export):
    return fuseimg("cleanup", "-v", export.target.name, check=False, env={"FUSEIMG_RUNTIME_DIR": str(export.target.parent)})


def test_cleanup_takes_away_what_is_dead(service, work):
    """And nothing else: neither what lives nor what can be gone on with."""
    image = images.create(work / "disk.img", 16 * MiB)
    export = service(image)
    done = cleanup(export)
    assert done.returncode == 1 and "is in use" in done.stderr
    export.kill(export.worker)
    done = cleanup(export)
    assert done.returncode == 1 and "is in use" in done.stderr
    export.start()
    export.path.write_bytes(b"goes on")
    worker = export.worker
    export.kill(worker)
    export.drop()
    proc.wait_until(lambda: not proc.alive(worker), 20, what="the worker's end")
    done = cleanup(export)
    assert done.returncode == 0 and "the dead mount is gone" in done.stdout
    assert not mounts.at(export.target)
    done = cleanup(export)
    assert done.returncode == 0 and "nothing to clean up" in done.stdout


@pytest.fixture
def mute(work):
    """A mount of our kind whose server reads requests and answers none, which not even SIGKILL ends."""
    target = work / "mute"
    target.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    assert libc.mount(b"mute", str(target).encode(), b"fuse.fuseimg", 0, options.encode()) == 0, os.strerror(ctypes.get_errno())
    unique = struct.unpack_from("=IIQ", os.read(fuse, 1 << 20))[2]
    answer = struct.pack("=IIIIHHIII", 7, 31, 1 << 17, 0, 0, 0, 1 << 17, 0, 0).ljust(64, b"\0")
    os.write(fuse, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
    reader = threading.Thread(target=lambda: [os.read(fuse, 1 << 20) for _ in range(4)], daemon=True)
    reader.start()
    yield target
    libc.umount2(str(target).encode(), 2)
    os.close(fuse)


def test_a_mount_that_does_not_answer(mute):
    """It is looked at in vain, and not for ever."""
    def clean_up():
        done = fuseimg("cleanup", "-v", mute.name, check=False, env={"FUSEIMG_RUNTIME_DIR": str(mute.parent)})
        assert done.returncode == 1 and "is in use" in done.stderr

    proc.soon(clean_up, 15)


def kill_and_start(export, kills, supervisors, stop):
    """So many deaths of workers, and among them so many of supervisors (every other one with its worker);
    returns how many there were when stop is set before the end."""
    rng = random.Random(1)
    done = {"worker": 0, "supervisor": 0}
    order = ["worker"] * kills + ["supervisor"] * supervisors
    rng.shuffle(order)
    for what in order:
        if stop.wait(rng.uniform(0.02, 0.3)):
            break
        worker = proc.wait_until(lambda: export.worker, 20, what="a worker")
        if what == "worker":
            proc.kill(worker)
            proc.wait_until(lambda: export.worker not in (None, worker), 20, what="the next worker")
        else:
            export.kill(*([worker] if done["supervisor"] % 2 else []))
            export.start()
        done[what] += 1
    return done


@pytest.mark.limit(120)
def test_killed_while_the_configuration_changes(service, work):
    """Whatever moment it is killed at: it goes on with the old or the new one, and the next reload finds its way."""
    image = images.create(work / "disk.img", 16 * MiB)
    conf = work / "export.conf"
    environment = {"FUSEIMG_CONFIG_DIR": str(work), "FUSEIMG_RUNTIME_DIR": str(work)}
    conf.write_text(f"IMAGE={image}\n")
    export = service(image, ["serve", "export"], environment)
    export.path.write_bytes(random_bytes(7, MiB))
    rng, took = random.Random(3), 1.5 * timed(export.reload)
    for turn in range(24):
        read_only = turn % 2 == 0
        conf.write_text(f"IMAGE={image}\nREAD_ONLY={'yes' if read_only else 'no'}\nTHREADS={1 + turn % 9}\n")
        export.process.send_signal(signal.SIGHUP)
        time.sleep(rng.uniform(0, took))
        export.kill(*([export.worker] if turn % 3 else []))
        export.start()
        assert export.path.read_bytes()[:MiB] == random_bytes(7, MiB)
        export.reload()
        proc.wait_until(lambda: ("ro" if read_only else "rw") in mounts.at(export.target).options, 10)
        if not read_only:
            with export.path.open("r+b") as disk:
                disk.seek(MiB)
                disk.write(bytes([turn]) * MiB)
    # nobody has written the image behind the locks of the descriptors that came and went
    assert proc.run("qemu-img", "resize", image, "64M", check=False).returncode != 0
    export.stop()
    images.check(image, leaks=None)


def timed(act):
    """How many seconds that took."""
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def kill_in_reloads(export, times, stop):
    """kill -9 of the supervisor at any moment of a reload."""
    rng, took = random.Random(2), 1.5 * timed(export.reload)
    for turn in range(times):
        if stop.wait(0.1):
            return turn
        worker = proc.wait_until(lambda: export.worker, 20, what="a worker")
        export.process.send_signal(signal.SIGHUP)
        time.sleep(rng.uniform(0, took))
        export.kill(*([worker] if turn % 2 else []))
        export.start()
    return times


def under_fio_verify(export, work, act):
    """What act(stop) answers, while fio writes and verifies; it finds no error."""
    (work / "job").write_text(fio.verify_job(export.path, 32 * MiB, extra=["rate=8m", "fsync=64", "time_based=1", "runtime=3600"]))
    with (work / "fio.log").open("w") as log:
        process = subprocess.Popen(["fio", str(work / "job")], stdout=log, stderr=log, cwd=work)
    stop = threading.Event()
    try:
        threading.Thread(target=lambda: (process.wait(), stop.set()), daemon=True).start()
        answer = act(stop)
        assert process.poll() is None, (work / "fio.log").read_text()
        process.send_signal(signal.SIGINT)
        process.wait(60 * proc.PATIENCE)
    finally:
        process.kill()
        process.wait()
    text = (work / "fio.log").read_text()
    assert "verify:" not in text.lower() and "error" not in text.lower().replace("interrupt", ""), text
    fio.run_job(work, fio.verify_job(export.path, 32 * MiB))
    return answer


@pytest.mark.limit(900)
@pytest.mark.parametrize("kills,supervisors", [(20, 5), pytest.param(200, 20, marks=pytest.mark.long)])
def test_killed_under_fio_verify(kills, supervisors, service, work):
    image = images.create(work / "disk.img", 128 * MiB)
    export = service(image)
    done = under_fio_verify(export, work, lambda stop: kill_and_start(export, kills, supervisors, stop))
    assert done == {"worker": kills, "supervisor": supervisors}
    export.stop()
    images.check(image, leaks=None)


@pytest.mark.limit(300)
@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.long)])
def test_killed_in_reloads(times, service, work):
    image = images.create(work / "disk.img", 128 * MiB)
    export = service(image)
    assert under_fio_verify(export, work, lambda stop: kill_in_reloads(export, times, stop)) == times
    export.stop()
    images.check(image, leaks=None)

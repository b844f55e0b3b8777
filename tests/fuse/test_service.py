# SPDX-License-Identifier: LGPL-2.1-or-later
"""`fuseimg serve` and `fuseimg check-config`: what a service manager sees of an export."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support import export, images, mounts, proc
from support.content import MiB

pytestmark = pytest.mark.core

NAMES = ["disk", "my-disk", "my disk", "Übung", "a%b\\c"]


@pytest.fixture
def image(work):
    return images.create(work / "disk.qcow2", 8 * MiB)


@pytest.mark.parametrize("name", ["back\\slash", "a\\x2db", "end\\"])
def test_backslashes_in_the_status(name, work, manager):
    """systemd would lose one that stands alone, and the whole message with one at its end."""
    manager.configure("disk", image=images.create(work / name, MiB))
    service = manager.start("disk")
    assert service.status.startswith(f"{name} (")
    service.stop()
    manager.configure("disk", image=work / f"none/{name}")
    manager.start("disk", ready=False).wait_value("STATUS", lambda status: status.startswith(f"{work}/none/{name}"))


@pytest.mark.parametrize("name", NAMES)
def test_serve(name, image, manager):
    manager.configure(name, image=image)
    service = manager.start(name)
    assert mounts.at(service.target)
    assert service.path.stat().st_size == 8 * MiB
    assert "format: qcow2" in (service.target / "status").read_text()
    assert [entry["service"] for entry in json.loads(manager.fuseimg("list", "--json").stdout)] == [name]
    service.path.write_bytes(b"x" * 4096)
    service.stop()
    assert not service.target.exists()
    assert b"x" * 4096 in image.read_bytes()


def test_ready_only_when_usable(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk", ready=False)
    proc.wait_until(lambda: service.values("READY"), what="READY=1")
    assert (service.path).stat().st_size == 8 * MiB
    service.stop()
    assert service.values("READY") == ["1"]


@pytest.mark.parametrize("name,text,words", [
    ("disk", "IMAGE={image}\nTHREADS=many\n", "disk.conf:2: THREADS=many: must be auto|1..64"),
    ("disk", "IMAGE={image}\nREADONLY=yes\n", "disk.conf:2: READONLY: no such setting; did you mean READ_ONLY?"),
    ("disk", "THREADS=2\n", "IMAGE= is missing"),
    ("other", "", "other.conf: there is no such file"),
    ("my/disk", "", "fuseimg@my\\x2ddisk.service"),
])
def test_bad_configuration(name, text, words, image, manager):
    manager.configure("disk", text.format(image=image))
    service = manager.start(name, ready=False)
    assert service.process.wait(10 * proc.PATIENCE) == 2
    assert words in service.log.read_text()
    service.wait_value("STATUS", lambda status: words in status)
    assert not service.values("READY") and not mounts.at(service.target)


def test_status_is_for_people(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="4000000")
    assert service.status.startswith("disk.qcow2 (qcow2, 8 MiB, ")
    service.path.write_bytes(b"x" * 3 * MiB)
    service.wait_value("STATUS", lambda status: "writes (3 MiB)" in status and "3.2 MiB allocated" in status)
    loop = proc.run("losetup", "--find", "--show", service.path).stdout.strip()
    try:
        service.path.read_bytes()
        service.wait_value("STATUS", lambda status: status.endswith(f"; used by {loop}"))
    finally:
        proc.run("losetup", "--detach", loop)
    proc.kill(service.worker)
    service.path.read_bytes()
    service.wait_value("STATUS", lambda status: "the worker was killed by SIGKILL" in status)
    assert len(service.values("STATUS")) < 20
    service.stop()


def test_busy_stop_says_who(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="4000000")
    with service.path.open("rb"):
        service.process.send_signal(signal.SIGTERM)
        service.wait_value("STATUS", lambda status: f"in use by python3 (pid {os.getpid()})" in status)
        service.wait_value("EXTEND_TIMEOUT_USEC")
        assert not service.values("STOPPING")
    assert service.process.wait(10 * proc.PATIENCE) == 0
    assert service.values("STOPPING") == ["1"]


def pauses_of(service):
    """Seconds between the messages that feed the watchdog."""
    times = [when for when, message in list(service.messages) if "WATCHDOG" in message]
    return [b - a for a, b in zip(times, times[1:])]


def test_watchdog_is_fed(image, manager):
    """In time, and that is told by the number of messages, too: half the time is what the manager recommends."""
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="2000000")

    def fed():
        """Four times one after the other; a busy machine may bring us the news late, or hold it up, once."""
        pauses = pauses_of(service)
        return any(max(pauses[n:n + 4]) < 2 * proc.SLOW for n in range(len(pauses) - 3))

    proc.wait_until(fed, what="a watchdog that is fed")
    service.stop()


def test_short_pauses_are_kept(image, manager):
    """sd-event makes what is left to it late by up to 250 ms, every time: a third of this dog's time is 100 ms."""
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="300000")
    proc.wait_until(lambda: any(pause < 0.2 for pause in pauses_of(service)[1:]), what="a short pause")
    service.stop()


def test_missing_image(image, manager):
    manager.configure("disk", image=image)
    image.unlink()
    service = manager.start("disk", ready=False)
    assert service.process.wait(10 * proc.PATIENCE) == 2        # trying again is of no use
    assert str(image) in service.log.read_text()


# What does not go, and what the configuration would have to say for it
WAYS_OUT = {
    "raw unstated": ("disk.raw", {}, "say so with FORMAT=raw in {conf}"),
    "file elsewhere": ("elsewhere.qcow2", {}, "allow it with BACKING={work}/far in {conf}"),
    "no file at all": ("elsewhere.qcow2", {"backing": "none"}, "BACKING=none in {conf} forbids any"),
    "data file": ("data.qcow2", {}, "allow it with BACKING={work}/near/data.bin in {conf}, or use READ_ONLY=yes"),
    "no partitions": ("disk.raw", {"format": "raw", "partitions": "yes"}, "PARTITIONS=auto in {conf} does without"),
}


def make_ways_out(work):
    """The images above."""
    near, far = work / "near", work / "far"
    near.mkdir()
    far.mkdir()
    images.create(near / "disk.raw", MiB, format="raw")
    images.create(far / "base.qcow2", MiB)
    images.create(near / "elsewhere.qcow2", MiB)
    proc.run("qemu-img", "rebase", "-q", "-u", "-b", far / "base.qcow2", "-F", "qcow2", near / "elsewhere.qcow2")
    images.create(near / "data.qcow2", MiB, data_file="data.bin")
    return near


@pytest.mark.parametrize("case", WAYS_OUT)
def test_names_the_setting_and_its_file(case, work, manager):
    name, settings, words = WAYS_OUT[case]
    image = make_ways_out(work) / name
    conf = manager.configure("disk", image=image, **settings)
    service = manager.start("disk", ready=False)
    service.process.wait(10)
    words = words.format(conf=conf, work=work)
    assert words in service.log.read_text() and " -o " not in service.log.read_text()
    service.wait_value("STATUS", lambda status: words in status)


def test_names_the_option_where_fstab_gave_it(work, manager):
    """mount.fuseimg(8) writes down what stands behind -o: that file is nobody's to change."""
    (manager.runtime / ".conf").mkdir()
    (manager.runtime / ".conf/disk.conf").write_text(f"IMAGE={make_ways_out(work)}/disk.raw\n")
    service = manager.start("disk", ready=False)
    service.process.wait(10)
    assert "say so with -o format=raw, or" in service.log.read_text()


def test_stop_by_sigint_and_unmount(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk")
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(10 * proc.PATIENCE) == 0
    service = manager.start("disk")
    proc.run("umount", service.target)
    assert service.process.wait(10 * proc.PATIENCE) == 0


def test_check_config(image, manager):
    path = manager.configure("my disk", image=image, mode="0640")
    for word in "my disk", path:
        done = manager.fuseimg("check-config", word)
        assert done.stdout == done.stderr == ""
    assert json.loads(manager.fuseimg("check-config", "--json", "my disk").stdout) == {
        "file": str(path), "settings": {"IMAGE": str(image), "MODE": "0640"}}
    manager.configure("my disk", image=image, mode="9")
    done = manager.fuseimg("check-config", "my disk", check=False)
    assert done.returncode == 2 and f"{path}:2: MODE=9: must be 000..777" in done.stderr
    manager.configure("my disk", image=image.parent / "gone")
    done = manager.fuseimg("check-config", "my disk", check=False)
    assert done.returncode == 1 and str(image.parent / "gone") in done.stderr
    for word, words in (("my disk.conf", "my disk.conf.conf: there is no such file; one elsewhere"),
                        ("./none.conf", "./none.conf: No such file")):
        done = manager.fuseimg("check-config", word, check=False)
        assert done.returncode == 2 and words in done.stderr


def test_worker_that_hangs_is_replaced(image, manager):
    manager.configure("disk", image=image)
    service = manager.start("disk", WATCHDOG_USEC="4000000")
    service.path.write_bytes(b"x" * MiB)
    first = service.worker
    proc.freeze(first)
    assert service.path.read_bytes()[:MiB] == b"x" * MiB      # by its successor
    assert service.worker != first and not proc.alive(first)
    assert "hangs" in service.log.read_text()
    service.wait_value("STATUS", lambda status: "did not answer and was ended" in status)
    assert len(service.values("WATCHDOG")) >= 1
    service.stop()


@pytest.mark.limit(120)
def test_storage_that_hangs_is_reported(work, manager):
    """The image is in another export, whose worker is stopped: nobody is to be killed for that."""
    images.create(work / "outer.raw", 16 * MiB, format="raw")
    manager.configure("outer", image=work / "outer.raw", format="raw")
    outer = manager.start("outer")
    manager.configure("inner", image=outer.path, format="raw", direct_io="yes")
    inner = manager.start("inner", WATCHDOG_USEC="4000000")
    worker, blocked = inner.worker, outer.worker
    proc.freeze(blocked)
    try:
        with subprocess.Popen(["dd", f"if={inner.path}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct"],
                              stderr=subprocess.DEVNULL) as reader:
            inner.wait_value("STATUS", lambda status: status.startswith("The storage of the image does not answer: "))
            fed = len(inner.values("WATCHDOG"))
            proc.wait_until(lambda: len(inner.values("WATCHDOG")) > fed + 3)
            assert inner.worker == worker and reader.poll() is None
            os.kill(blocked, signal.SIGCONT)
            assert reader.wait(20 * proc.PATIENCE) == 0
    finally:
        os.kill(blocked, signal.SIGCONT)
    inner.wait_value("STATUS", lambda status: "had not answered for" in status)
    log = inner.log.read_text()
    assert "its storage has not answered for" in log and "its storage answers again" in log
    assert inner.worker == worker
    inner.stop()
    outer.stop()


@pytest.fixture
def journal(work):
    """Where journald listens; call it for all that has come: a list of {field: value}."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    listener.bind(str(work / "journal"))
    got = []

    def entries(**wanted):
        try:
            while True:
                got.append(dict(line.split("=", 1) for line in listener.recv(65536).decode().splitlines()))
        except BlockingIOError:
            return [entry for entry in got if all(entry.get(key) == value for key, value in wanted.items())]

    yield entries
    listener.close()


def test_events_in_the_journal(image, work, manager, journal):
    """Identifiers as the manual page has them, and the fields that it names."""
    page = (export.ROOT / "man/fuseimg@.service.8.scd").read_text()
    ids = dict(re.findall(r"^\|  _([a-z ]+)_\n:  ([0-9a-f]{32})$", page, re.MULTILINE))
    manager.configure("disk", image=image)
    log = (work / "0.log")
    log.touch()
    stat = log.stat()
    service = manager.start("disk", FUSEIMG_JOURNAL_SOCKET=str(work / "journal"), WATCHDOG_USEC="4000000",
                            JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
    proc.kill(service.worker)
    service.path.read_bytes()
    died = proc.wait_until(lambda: journal(MESSAGE_ID=ids["worker died"]), what="the event")[0]
    assert died["FUSEIMG_INSTANCE"] == "disk" and died["FUSEIMG_IMAGE"] == str(image)
    assert died["FUSEIMG_TARGET"] == str(service.target) and died["FUSEIMG_FORMAT"] == "qcow2"
    assert died["PRIORITY"] == "4" and died["SYSLOG_IDENTIFIER"] == "fuseimg" and "SIGKILL" in died["MESSAGE"]
    proc.freeze(service.worker)
    assert proc.wait_until(lambda: journal(MESSAGE_ID=ids["worker hangs"]), what="the event")
    assert service.log.read_text().startswith("<6>")     # what is no event keeps its priority
    service.stop()


def test_io_error_in_the_journal(work, manager, journal):
    """The offset in the disk, and errno: the image has lost its end."""
    image = images.create(work / "disk.qcow2", 8 * MiB)
    proc.run("qemu-io", "-c", "write -P 7 0 8M", str(image))
    manager.configure("disk", image=image)
    log = (work / "0.log")
    log.touch()
    stat = log.stat()
    service = manager.start("disk", FUSEIMG_JOURNAL_SOCKET=str(work / "journal"),
                            JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
    os.truncate(image, 4 * MiB)
    with pytest.raises(OSError), service.path.open("rb", buffering=0) as disk:
        os.pread(disk.fileno(), 4096, 7 * MiB)
    error = proc.wait_until(lambda: [entry for entry in journal() if "ERRNO" in entry], what="the event")[0]
    assert error["ERRNO"] in (str(errno.EIO), str(errno.EUCLEAN))
    assert 7 * MiB <= int(error["FUSEIMG_OFFSET"]) < 8 * MiB
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(20 * proc.PATIENCE)


@pytest.fixture
def device(work):
    """A block device of 8 MiB, on a file of its own; both may get another size."""
    backing = work / "device"
    backing.touch()
    os.truncate(backing, 8 * MiB)
    name = proc.run("losetup", "--find", "--show", backing).stdout.strip()
    yield name, backing
    proc.run("losetup", "--detach", name)


def test_device_that_grows(device, manager):
    name, backing = device
    manager.configure("disk", image=name, format="raw")
    service = manager.start("disk")
    assert service.path.stat().st_size == 8 * MiB
    service.path.open("r+b").write(b"x" * 4096)
    os.truncate(backing, 16 * MiB)
    proc.run("losetup", "--set-capacity", name)
    proc.wait_until(lambda: os.stat(service.path).st_size == 16 * MiB, what="the new size")
    with service.path.open("r+b", buffering=0) as disk:
        assert disk.read(4096) == b"x" * 4096
        os.pwrite(disk.fileno(), b"y" * 4096, 15 * MiB)
    assert "has grown from 8 MiB to 16 MiB" in service.log.read_text()
    service.stop()
    assert backing.read_bytes()[15 * MiB:15 * MiB + 4] == b"yyyy"


def test_device_that_goes(device, manager):
    """The kernel says that it is gone; a user who has it open gets an error, and nobody waits."""
    name, _ = device
    manager.configure("disk", image=name, format="raw")
    service = manager.start("disk")
    disk = os.open(service.path, os.O_RDONLY)
    Path(f"/sys/class/block/{Path(name).name}/uevent").write_text("remove")
    assert service.process.wait(20 * proc.PATIENCE) == 1
    for attempt in lambda: os.pread(disk, 4096, 4 * MiB), lambda: os.close(disk):
        with pytest.raises(OSError):
            attempt()
    assert "the block device is gone" in service.log.read_text()
    assert "its block device is gone" in service.status
    assert not mounts.at(service.target)

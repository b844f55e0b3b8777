# SPDX-License-Identifier: LGPL-2.1-or-later
"""Inside the worker's confinement: act.c is the worker, started by the supervisor like any other, that tries
what it is told by a write."""

import errno
import os
import re
import sys
import threading
import time
from pathlib import Path

import pytest

from support import export as support_export
from support import images, proc
from support.content import KiB, MiB, random_bytes
from support.export import BUILD

# Sanitizers need what the filter forbids: there the other layers have to do
FILTERED = "#define FUSEIMG_SECCOMP 1" in (BUILD / "config.h").read_text()

REFUSED = ["open", "open_root", "create", "open_process", "open_parent"]
# what act.c does, and the system call that the journal has to name
FORBIDDEN = [("mkdir", "mkdirat"), ("unlink", "unlinkat"), ("inet", "socket"), ("unix", "socket"), ("netlink", "socket"),
             ("execve", "execve"), ("fork", "clone"), ("ptrace", "ptrace"), ("kill", "kill"), ("pidfd", "pidfd_open"),
             ("peek", "process_vm_readv"), ("mount", "mount"), ("unshare", "unshare"), ("setuid", "setuid"), ("bpf", "bpf"),
             ("io_uring", "io_uring_setup"), ("code", "mmap"), ("hide", "rt_sigaction")]
if not FILTERED:
    # what nothing but the filter forbids, harmless as it is in an empty root without rights
    REFUSED.remove("open_root")
    ONLY_FILTERED = {"fork", "code", "hide", "unix", "inet", "netlink", "io_uring", "kill", "pidfd"}
    FORBIDDEN = [pair for pair in FORBIDDEN if pair[0] not in ONLY_FILTERED]


@pytest.fixture
def acting(work, mount, monkeypatch):
    """An export whose worker acts, and the function that tells it what to try: the errno, 0 for success."""
    monkeypatch.setattr(support_export, "WORKER", BUILD / "tests/fuse/fuseimg-worker-act")
    image = images.create(work / "disk.img", 16 * MiB, format="raw")

    def make(**options):
        made = mount(image, format="raw", cache="none", **options)
        made.workers_died = True
        return made

    return make


def act(export, name, offset=0):
    fd = os.open(export.path, os.O_WRONLY)
    try:
        os.pwrite(fd, f"ACT:{name}".encode().ljust(4 * KiB, b"\0"), offset)
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)


def goes_on(export):
    export.path.open("r+b").write(random_bytes(5, 64 * KiB))
    assert export.path.read_bytes()[:64 * KiB] == random_bytes(5, 64 * KiB)
    export.umount()


@pytest.mark.core
def test_no_file_can_be_opened(acting):
    export = acting()
    for name in REFUSED:
        result = act(export, name)
        assert result == errno.EDQUOT or not FILTERED and result == errno.EFBIG, (name, errno.errorcode.get(result, result))
    assert export.worker == export.first_worker
    goes_on(export)


@pytest.mark.core
@pytest.mark.parametrize("name,call", FORBIDDEN)
def test_forbidden(name, call, acting):
    """Each try ends the worker, and the journal says which call it was; the request is poison, the rest goes on."""
    export = acting()
    result = act(export, name)
    if FILTERED:
        assert result == errno.EIO
        log = export.log.read_text()
        assert "was killed for a forbidden system call (SIGSYS)" in log
        assert log.count("poison request") == 1
        assert re.search(rf"the worker \(pid \d+\) used the system call {call} \(\d+\), which its sandbox forbids", log)
    else:
        assert result not in (0, errno.EROFS), name
    goes_on(export)


def test_who_it_is(work, acting):
    """No root, no capability, no way to get any, no terminal, nothing of ours but what it was given."""
    export = acting()
    worker = export.worker
    status = {key: proc.status_field(worker, key) for key in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}
    assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
    assert status["Groups"] == "" and status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert os.listdir(f"/proc/{worker}/root/") == []
    for kind in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{worker}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    links = [os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
    allowed = ("/dev/null", "/dev/fuse", "pipe:", "socket:", "anon_inode:[eventfd]", "/memfd:", str(export.image), str(export.log))
    assert not [link for link in links if not link.startswith(allowed)], links
    export.umount()


@pytest.mark.core
def test_poison(acting):
    """Three crashes: that request fails, and only that one."""
    export = acting()
    assert act(export, "abort") == errno.EIO
    log = export.log.read_text()
    assert log.count("SIGABRT") == 3 and log.count("poison request") == 1
    goes_on(export)


def test_bystanders(acting):
    """Requests that were in hand each time a worker died are executed nevertheless."""
    export = acting(threads=8)
    stop = threading.Event()
    failures, written = [], [0] * 6

    def writer(n):
        fd = os.open(export.path, os.O_RDWR)
        try:
            while not stop.is_set():
                block = random_bytes(f"{n} {written[n]}", 256 * KiB)
                if os.pwrite(fd, block, (n + 1) * MiB) != len(block) or os.pread(fd, len(block), (n + 1) * MiB) != block:
                    failures.append(n)
                written[n] += 1
        except OSError as error:
            failures.append(error)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=writer, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert act(export, "abort") == errno.EIO
        before = list(written)
        proc.wait_until(lambda: all(now > then for now, then in zip(written, before)), 20)
        time.sleep(3 * proc.SLOW)   # not more than five different ones in ten seconds
    stop.set()
    for thread in threads:
        thread.join(20 * proc.PATIENCE)
    assert not failures, failures
    assert export.log.read_text().count("poison request") == 3
    export.umount()


def test_where_landlock_is_refused(work, acting, monkeypatch):
    """As docker's filter once did: it is done without, the log says so, and once; nothing can be opened all the same."""
    wrapper = work / "wrapper"
    refuse = Path(support_export.__file__).with_name("refuse.py")
    create_ruleset = 444        # on every architecture
    wrapper.write_text(f"#!/bin/sh\nexec {sys.executable} {refuse} {create_ruleset} {errno.EPERM} {support_export.PROGRAM} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(support_export, "PROGRAM", wrapper)
    export = acting()
    for name in ["open", "create", "open_process"]:
        assert act(export, name) in (errno.EDQUOT, errno.EFBIG), name
    worker = export.worker
    proc.kill(worker)
    proc.wait_until(lambda: export.worker not in (None, worker), 20, what="another worker")
    goes_on(export)
    assert export.log.read_text().count("the worker goes without Landlock") == 1

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cannot go on: requests that no worker survives, and a service that systemd gives up."""

import errno
import mmap
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from box.export import Client
from support import proc
from support.content import KiB, MiB

BUILD = Path(os.environ.get("FUSEIMG_BUILD", Path(__file__).parents[2] / "build"))
ACTING_WORKER = BUILD / "tests/fuse/fuseimg-worker-act"


def test_poison_request(machine, export, table):
    """A request that crashes three workers fails, alone; who writes at the same time sees a pause."""
    exported = export(machine, "poison")
    shutil.copy(ACTING_WORKER, machine.srv)
    exported.change_unit(Environment=f"FUSEIMG_WORKER=/srv/{ACTING_WORKER.name}")
    exported.start()
    client = Client(machine, exported.disk)
    time.sleep(0.7)
    fd = os.open(machine.path(exported.disk), os.O_WRONLY | os.O_DIRECT)
    begin = time.monotonic()
    with pytest.raises(OSError) as failed, memory() as request:
        request.write(b"ACT:abort")
        os.pwritev(fd, [request], 64 * MiB)
    end = time.monotonic()
    os.close(fd)
    assert failed.value.errno == errno.EIO
    time.sleep(0.7)
    seen = client.finish()
    assert not seen.errors and seen.writes[-1][0] > end
    assert "poison request" in machine.journal("--unit", exported.unit)
    table.note("a request that crashes every worker", "raw file being written",
               f"{seen.describe(begin, end)}; that request: an error")
    exported.systemctl("stop")
    exported.check(file_system=False)


def memory():
    """A page, aligned as O_DIRECT wants it."""
    return mmap.mmap(-1, 4 * KiB)


@pytest.mark.limit(120)
def test_killed_too_often(machine, export, table):
    """Past the start limit the unit has failed. Where systemd keeps the descriptors, users wait until an
    administrator starts it again; elsewhere they get errors, and the dead mount is taken away."""
    exported = export(machine, "hopeless")
    assert exported.show("StartLimitIntervalUSec") == "1min" and exported.show("StartLimitBurst") == "20"
    # a busy machine may not start so often in a minute
    machine.write(f"/etc/systemd/system/{exported.unit}.d/limit.conf", "[Unit]\nStartLimitIntervalSec=20min\n")
    machine.systemctl("daemon-reload")
    exported.start()
    client = Client(machine, exported.disk)
    kept = machine.version >= 254
    while exported.active != "failed":
        supervisor = exported.supervisor
        if supervisor:
            proc.kill(supervisor)
        time.sleep(0.02)
    if kept:
        assert exported.show("NFileDescriptorStore") != "0"
        exported.systemctl("reset-failed")
        exported.start()
        seen = client.finish()
        assert not seen.errors
        exported.systemctl("stop")
    else:
        seen = client.finish()
        assert seen.errors
        proc.wait_until(lambda: not exported.mounted(), 10, what="the end of the dead mount")
    table.note("21 kills of the supervisor in a minute", "raw file being written",
               "waits until it is started again" if kept else "an error")
    exported.check(file_system=False)


@pytest.mark.parametrize("who", ["fuseimg", "fuseimg-worker"])
def test_hung(who, machine, export, table):
    """systemd finds a supervisor that hangs, and the supervisor such a worker, within WatchdogSec=."""
    exported = export(machine, f"hung_{who}")
    exported.change_unit(WatchdogSec="4s")
    exported.start()
    client = Client(machine, exported.disk)
    hung = exported.processes()[who]
    time.sleep(0.7)
    begin = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    proc.wait_until(lambda: exported.processes().get(who) not in (None, hung), 20, what="another one")
    machine.wait_state(exported.unit, "active")
    exported.wait_worker(other_than=hung)
    end = time.monotonic()
    time.sleep(0.7)
    seen = client.finish()
    assert not seen.errors and seen.writes[-1][0] > end
    assert 1 < end - begin < 60
    name = "supervisor" if who == "fuseimg" else "worker"
    table.note(f"the {name} hangs (WatchdogSec=4s)", "raw file being written", seen.describe(begin, end))
    exported.systemctl("stop")
    exported.check(file_system=False)


def test_image_taken_away(machine, export):
    """Unlinked while in use: it lives on until the export ends; the next start says what is missing."""
    exported = export(machine, "unlinked")
    exported.start()
    client = Client(machine, exported.disk)
    exported.image.unlink()
    proc.kill(exported.supervisor)
    time.sleep(1)
    assert not client.finish().errors
    exported.systemctl("stop")
    done = exported.systemctl("start", check=False)
    assert done.returncode != 0
    assert "/srv/unlinked.img" in machine.journal("--unit", exported.unit)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that does not answer: the image of one export is the disk of another, whose processes are stopped. That is
nobody's fault here: nobody is killed for it, and who uses the export is told, and waits."""

import os
import signal
import time

import pytest

from box.export import Client
from support import proc
from support.content import MiB

HANGS = "The storage of the image does not answer: "


class Stacked:
    """`upper` stands on `lower`, which can be frozen."""

    def __init__(self, machine, export, name, **unit):
        self.lower = export(machine, f"{name}_lower", size=64 * MiB, image_format="raw")
        self.upper = export(machine, name, size=64 * MiB, image_format="raw")
        self.lower.change_unit(WatchdogSec=0)
        self.lower.start()
        self.upper.image.unlink()
        self.upper.image = self.lower.image
        self.upper.configure(IMAGE=self.lower.disk, FORMAT="raw")
        self.upper.change_unit(WatchdogSec=4, **unit)
        self.upper.start()
        self.processes = self.upper.processes()
        self.stopped = []

    def freeze(self):
        self.stopped = [self.lower.supervisor, self.lower.worker]
        for pid in self.stopped:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.stopped:
            proc.kill(pid, signal.SIGCONT)
        self.stopped = []

    def stop_lower(self):
        self.lower.systemctl("stop")
        return self.lower.image.read_bytes()


@pytest.fixture
def stacked(machine, export):
    made = []

    def make(name, **unit):
        made.append(Stacked(machine, export, name, **unit))
        return made[-1]

    yield make
    for one in made:
        one.thaw()


@pytest.mark.limit(120)
def test_waits_and_goes_on(stacked, machine, table):
    """Also a stop that comes meanwhile: it says what it waits for."""
    pair = stacked("waits")
    upper = pair.upper
    client = Client(machine, upper.disk)
    time.sleep(0.7)
    pair.freeze()
    begin = time.monotonic()
    proc.wait_until(lambda: upper.status.startswith(HANGS), 20, every=0.1, what="a status that tells of the storage")
    time.sleep(9)       # more than two WatchdogSec=
    assert upper.processes() == pair.processes and upper.show("NRestarts") == "0"
    upper.systemctl("stop", "--no-block")
    proc.wait_until(lambda: "in use by" in upper.status and "python3" in upper.status, 20, every=0.1,
                    what=f"who is in the way, in the status, which is {upper.status}")
    assert upper.status.startswith(HANGS) and upper.active == "deactivating"
    pair.thaw()
    proc.wait_until(lambda: not upper.status.startswith(HANGS), 10, every=0.1, what="a status that tells of no hang any more")
    end = time.monotonic()
    time.sleep(0.7)
    seen = client.finish()
    assert not seen.errors and seen.writes[-1][0] > end
    assert seen.longest(begin, end) > 9000, "who was meant to wait?"
    table.note("the image's storage does not answer for a while", "raw file being written", "waits, and goes on when it does")
    machine.wait_state(upper.unit, "inactive")
    assert upper.show("Result") == "success"
    log = machine.journal("--unit", upper.unit)
    assert "its storage has not answered for" in log and "its storage answers again" in log
    assert seen.holds(pair.stop_lower()[:MiB])


@pytest.mark.limit(150)
def test_a_stop_that_cannot_end(stacked, machine):
    """What is left to be written cannot be: the stop says so, and ends by its timeout. Nothing keeps the storage in use
    then, and what was on stable storage is there."""
    pair = stacked("cut", TimeoutStopSec=12)
    upper = pair.upper
    machine.forgiven.append("State 'stop-sigterm' timed out")
    machine.run("dd", "if=/dev/urandom", f"of={upper.disk}", "bs=1M", "count=4", "conv=notrunc,fsync")
    kept = machine.path(upper.disk).read_bytes()[:4 * MiB]
    pair.freeze()
    begin = time.monotonic()
    stop = machine.start("systemctl", "stop", upper.unit)
    seen = set()
    while stop.poll() is None:
        seen.add(upper.status)
        time.sleep(0.2)
    took = time.monotonic() - begin
    assert any(one.startswith(f"{HANGS}Unmounted, writing the last of it") for one in seen), seen
    assert "its storage does not answer" in machine.journal("--unit", upper.unit)
    assert took < 120 and upper.show("Result") == "timeout"
    pair.thaw()
    proc.wait_until(lambda: not any(map(proc.alive, pair.processes.values())), 20, what="the end of the processes")
    assert upper.show("NFileDescriptorStore") == "0" and not upper.mounted()
    assert pair.stop_lower()[:4 * MiB] == kept

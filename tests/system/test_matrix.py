# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to the service, by what uses it meanwhile: what did the user see? Nothing is lost, whatever happens;
the longest pause goes into the table."""

import os
import time
from pathlib import Path

import pytest

from box.export import Client
from support import proc
from support.content import MiB

SETTLE = 0.7    # seconds of quiet before and after an event


class Idle:
    """Exported, and nobody looks at it."""
    name = "not in use"
    inside = False

    def __init__(self, export):
        self.export = export

    def begin(self):
        pass

    def end(self):
        return None

    def leave(self):
        """Lets go of the export."""


class RawFile(Idle):
    """A program writes to the raw file."""
    name = "raw file being written"

    def begin(self):
        self.client = Client(self.export.machine, self.export.disk)

    def end(self):
        return self.client.finish()

    def user(self):
        return "python3"


class FileSystem(RawFile):
    """A program writes to a file of an ext4 inside, mounted through a loop device."""
    name = "ext4 inside being written"
    inside = True

    def begin(self):
        self.export.make_file_system()
        self.where = self.export.mount_inside()
        self.client = Client(self.export.machine, f"{self.where}/file")

    def leave(self):
        self.export.machine.systemctl("stop", self.export.inside_unit)

    def user(self):
        return self.where


STATES = [Idle, RawFile, FileSystem]


def wait_served(export, supervisor, worker):
    """Until both are others than these, and the service is up."""
    export.machine.wait_state(export.unit, "active")
    proc.wait_until(lambda: export.supervisor not in (None, *supervisor), 30, what="a supervisor")
    export.wait_worker(other_than=worker)


def kill_worker(export):
    worker = export.worker
    proc.kill(worker)
    export.wait_worker(other_than=worker)


def kill_supervisor(export):
    supervisor, worker = export.supervisor, export.worker
    proc.kill(supervisor)
    wait_served(export, [supervisor], worker)


def kill_both(export):
    supervisor, worker = export.supervisor, export.worker
    proc.kill(supervisor)
    proc.kill(worker)
    wait_served(export, [supervisor], worker)


def reload(export):
    worker = export.worker
    export.systemctl("reload")
    export.wait_worker(other_than=worker)


EVENTS = {
    "kill -9 of the worker": kill_worker,
    "kill -9 of the supervisor": kill_supervisor,
    "kill -9 of both": kill_both,
    "reload": reload,
}


def finish(export, state, seen):
    """Everything ends in order, and what was written is there."""
    state.leave()
    export.systemctl("stop")
    assert export.show("Result") == "success"
    assert export.show("NFileDescriptorStore") == "0", "systemd still holds the image"
    flat = export.check(file_system=state.inside)
    if seen and state.inside:
        dumped = flat.with_suffix(".file")
        proc.run("debugfs", "-R", f'dump /file "{dumped}"', flat)
        content = dumped.read_bytes()
    elif seen:
        content = flat.read_bytes()[:MiB]
    if seen:
        assert seen.holds(content), "what was acknowledged is not there"


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
@pytest.mark.parametrize("event", EVENTS)
def test_goes_on(event, state, machine, export, table):
    exported = export(machine, f"{event} {STATES.index(state)}".replace(" ", "_"))
    exported.start()
    state = state(exported)
    state.begin()
    time.sleep(SETTLE)
    begin = time.monotonic()
    EVENTS[event](exported)
    end = time.monotonic()
    time.sleep(SETTLE)
    if state.inside:
        assert machine.show(exported.inside_unit, "ActiveState") == "active"
    seen = state.end()
    if seen:
        assert not seen.errors
        assert seen.writes[-1][0] > end, "the client wrote no more"
    table.note(event, state.name, seen.describe(begin, end) if seen else "nothing")
    finish(exported, state, seen)


def test_start_and_stop_idle(machine, export, table):
    exported = export(machine, "simple")
    begin = time.monotonic()
    exported.start()
    started = time.monotonic()
    assert machine.run("stat", "--format=%s", exported.disk).stdout.strip() == str(128 * MiB)
    stopping = time.monotonic()
    exported.systemctl("stop")
    stopped = time.monotonic()
    table.note("start", "not in use", f"there after {1000 * (started - begin):.0f} ms")
    table.note("stop", "not in use", f"gone after {1000 * (stopped - stopping):.0f} ms")
    assert exported.show("Result") == "success"
    exported.check(file_system=False)


def test_restart_idle(machine, export, table):
    exported = export(machine, "again")
    exported.start()
    before = exported.supervisor
    exported.systemctl("restart")
    assert exported.supervisor not in (None, before)
    table.note("restart", "not in use", "nothing")
    exported.systemctl("stop")
    exported.check(file_system=False)


@pytest.mark.parametrize("state", STATES[1:], ids=lambda state: state.name)
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_waits_for_who_uses_it(verb, state, machine, export, table):
    """Nothing is taken away from anybody: the status says who is in the way, and it goes on when they have gone."""
    exported = export(machine, f"{verb}-{STATES.index(state)}")
    exported.start()
    before = exported.supervisor
    state = state(exported)
    state.begin()
    time.sleep(SETTLE)
    begin = time.monotonic()
    if state.inside:    # which is busy, too
        machine.forgiven.append(f"Failed unmounting {exported.inside_unit}")
    exported.systemctl(verb, "--no-block")
    proc.wait_until(lambda: state.user() in exported.status, 10, every=0.1,
                    what=f"{state.user()} in the status, which is: {exported.status}")
    end = time.monotonic()
    time.sleep(SETTLE)
    seen = state.end()
    assert not seen.errors
    assert seen.writes[-1][0] > end, "the client wrote no more"
    table.note(verb, state.name, f"{seen.describe(begin, end)}; the {verb} waits, and says for whom")
    state.leave()
    if verb == "restart":
        proc.wait_until(lambda: exported.active == "active" and exported.supervisor not in (None, before), 30,
                        what="the start after the stop")
        exported.systemctl("stop")
    else:
        machine.wait_state(exported.unit, "inactive")
    finish(exported, Idle(exported), None)
    assert not os.path.exists(Path(machine.path(exported.disk)))


def test_stop_is_patient_with_a_client_that_hangs(machine, export):
    """A client that was stopped (SIGSTOP) holds the file open; it gets its answer after it goes on."""
    exported = export(machine, "patient")
    exported.start()
    client = Client(machine, exported.disk)
    client.freeze()
    exported.systemctl("stop", "--no-block")
    proc.wait_until(lambda: "python3" in exported.status, 10, what="python3 in the status")
    client.thaw()
    assert not client.finish().errors
    machine.wait_state(exported.unit, "inactive")

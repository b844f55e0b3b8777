# SPDX-License-Identifier: LGPL-2.1-or-later
"""A supervisor that hangs (SIGSTOP) is killed by systemd's watchdog and started again; whoever uses the export, through
a file system inside, notices nothing: the worker serves all the time."""

import os
import signal
import time

import pytest

from box.export import Client
from support import proc

SHIPPED = 60


@pytest.mark.limit(200)
@pytest.mark.parametrize("seconds", [6, pytest.param(SHIPPED, marks=pytest.mark.long)])
def test_hung_supervisor(seconds, machine, export):
    exported = export(machine, f"watched_{seconds}")
    if seconds != SHIPPED:
        exported.change_unit(WatchdogSec=seconds)
    exported.start()
    assert exported.show("WatchdogUSec") == ("1min" if seconds == SHIPPED else f"{seconds}s")
    exported.make_file_system()
    where = exported.mount_inside()
    client = Client(machine, f"{where}/file")
    hung, mounted = exported.supervisor, machine.say("findmnt", "--noheadings", "--output=ID", exported.directory)
    os.kill(hung, signal.SIGSTOP)
    begin = time.monotonic()
    proc.wait_until(lambda: exported.supervisor not in (None, hung), seconds + 20, what="another supervisor")
    took = time.monotonic() - begin
    assert took < seconds + 30
    machine.wait_state(exported.unit, "active")
    exported.wait_worker()
    end = time.monotonic()
    time.sleep(0.7)
    seen = client.finish()
    assert not seen.errors and seen.writes[-1][0] > end
    # while it hung, nobody waited for it; then for the next worker
    assert any(begin < at and at + write < begin + 0.5 * seconds for at, write in seen.writes)
    assert machine.say("findmnt", "--noheadings", "--output=ID", exported.directory) == mounted
    assert machine.show(exported.inside_unit, "ActiveState") == "active"
    assert exported.show("NRestarts") == "1"
    log = machine.journal("--unit", exported.unit)
    assert "Watchdog timeout" in log and "goes on where it was" in log
    machine.systemctl("stop", exported.inside_unit)
    exported.systemctl("stop")
    exported.check()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The end of the machine while everything is in use: quick, in order, and nothing is lost."""

import time

import pytest

from box import journal
from support import proc

def judge(machine, exported, took, table, state):
    said = machine.journal_of_the_dead()
    assert not journal.complaints(said)
    assert "I/O error" not in said and "Transport endpoint" not in said
    assert f"Stopped {exported.unit}" in said
    assert took < 75     # what does not end is killed after 90 s
    table.note("power-off of the machine", state, f"in order, after {took:.1f} s")


def test_idle(boot, export, table):
    machine = boot()
    exported = export(machine, "idle")
    exported.start()
    judge(machine, exported, machine.poweroff(), table, "not in use")
    exported.check(file_system=False)


@pytest.mark.parametrize("times_killed", [0, 3])
def test_file_system_in_use(times_killed, boot, export, table):
    """A service of the machine writes to a file system inside; what it wrote and synced is there. With the supervisor
    killed before, which must make no difference."""
    machine = boot()
    exported = export(machine, "busy-disk")
    exported.start()
    exported.make_file_system()
    where = exported.mount_inside()
    machine.run("systemd-run", "--unit=writer", f'--property=RequiresMountsFor="{where}"', "--", "sh", "-c",
                f"n=0; while n=$((n + 1)); do echo $n >'{where}/new' && sync '{where}/new' && "
                f"mv '{where}/new' '{where}/counter' && echo $n >/srv/new && mv /srv/new /srv/acknowledged; done")
    for _ in range(times_killed):
        time.sleep(0.7)
        before = exported.supervisor
        proc.kill(before)
        proc.wait_until(lambda: exported.supervisor not in (None, before), 20, what="a supervisor")
        machine.wait_state(exported.unit, "active")
    acknowledged = machine.srv / "acknowledged"
    proc.wait_until(lambda: acknowledged.exists() and int(acknowledged.read_text(encoding="ascii")) > 10, what="some writes")
    took = machine.poweroff()
    judge(machine, exported, took, table, "ext4 inside being written")
    flat = exported.check()
    counter = int(proc.run("debugfs", "-R", "cat /counter", flat).stdout)
    assert counter >= int(acknowledged.read_text(encoding="ascii")) > 10

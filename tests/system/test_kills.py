# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9, again and again, under fio, which verifies all that it wrote."""

import subprocess
import time

import pytest

from support import fio, images, proc
from support.content import MiB

WORKER_PAUSE = 0.35


def processes_of(export):
    """Both, or none: then one of them is just being started."""
    found = export.processes()
    return found if {"fuseimg", "fuseimg-worker"} <= set(found) else {}


def kill_in_turn(export, plan, pause, running):
    """plan: "worker" or "supervisor", one after the other, as long as there is somebody to see it; how many were killed."""
    killed = []
    for who in plan:
        if not running():
            break
        name = "fuseimg-worker" if who == "worker" else "fuseimg"
        pid = proc.wait_until(lambda name=name: processes_of(export).get(name), 20, what=f"a {who} to kill")
        proc.kill(pid)
        killed.append(who)
        if who == "supervisor":
            proc.wait_until(lambda: export.processes().get("fuseimg") not in (None, pid), 20,
                            what="the next supervisor")
        time.sleep(pause)
    return killed


def plan(workers, supervisors):
    """Evenly mixed."""
    every = workers // supervisors
    return (["worker"] * every + ["supervisor"]) * supervisors


def killed_under_fio(machine, exported, workers, supervisors):
    exported.start()
    job = machine.srv / "verify.fio"
    # as long as there is somebody to kill
    job.write_text(fio.verify_job(machine.path(exported.disk), 16 * MiB, loops=1000,
                                  extra=["rate=6m", "fsync=64", "time_based=0"]), encoding="utf-8")
    with subprocess.Popen(["fio", "--output-format=terse", job], cwd=machine.srv, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        wanted = plan(workers, supervisors)
        killed = kill_in_turn(exported, wanted, WORKER_PAUSE, lambda: process.poll() is None)
        time.sleep(1)
        still = process.poll() is None
        process.terminate()
        out, err = process.communicate(timeout=60 * proc.PATIENCE)
    assert len(killed) == len(wanted) and still, f"fio ended after {len(killed)} kills\n{out}\n{err}"
    assert "verify" not in err and "error" not in err.lower(), err
    # everything is as it was written: one round more, without anybody dying
    fio.run_job(machine.srv, fio.verify_job(machine.path(exported.disk), 16 * MiB))
    exported.systemctl("stop")
    images.check(exported.image, leaks=None)


@pytest.mark.limit(150)
def test_killed_under_fio(machine, export):
    killed_under_fio(machine, export(machine, "killed"), 20, 5)


@pytest.mark.long
@pytest.mark.limit(900)
def test_killed_for_minutes(machine, export):
    killed_under_fio(machine, export(machine, "killed-for-long"), 200, 20)

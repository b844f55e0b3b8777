# SPDX-License-Identifier: LGPL-2.1-or-later
"""A newer package over exports that are in use: their programs go on, and a reload brings the new ones."""

import os
import re
import time

import pytest

from box.export import Client
from support import proc
from support.content import MiB

VERSION = "99.0-1"


def repack(package, directory):
    """The same package with a higher version."""
    tree, newer = directory / "tree", directory / "newer.deb"
    proc.run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {VERSION}", control.read_text(encoding="utf-8")), encoding="utf-8")
    proc.run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, newer)
    return newer


def programs(export):
    """What both processes run; a file that was replaced meanwhile counts as deleted."""
    return {name: os.readlink(f"/proc/{pid}/exe") for name, pid in export.processes().items()}


def installed(export):
    return not any(path.endswith("(deleted)") for path in programs(export).values())


@pytest.mark.limit(150)
def test_newer_package_under_load(boot, export, package, tmp_path):
    machine = boot()
    raw, inside = export(machine, "raw"), export(machine, "inside")
    raw.start()
    inside.start()
    inside.make_file_system()
    where = inside.mount_inside()
    clients = [Client(machine, raw.disk), Client(machine, f"{where}/file")]
    before = {one.name: one.processes() for one in (raw, inside)}
    (machine.srv / "newer.deb").write_bytes(repack(package, tmp_path).read_bytes())
    machine.run("dpkg", "--install", "/srv/newer.deb")
    assert machine.say("dpkg-query", "--show", "--showformat=${Version}", "fuseimg") == VERSION
    for one in (raw, inside):
        assert one.active == "active" and one.processes() == before[one.name]
        assert not installed(one)
        assert one.show("NeedDaemonReload") == "no"
    time.sleep(0.5)
    raw.systemctl("reload")
    if machine.version < 254:   # which does not always wait for it on a busy machine
        proc.wait_until(lambda: raw.worker != before["raw"]["fuseimg-worker"] and raw.worker, what="another worker")
    assert installed(raw), programs(raw)
    assert raw.processes()["fuseimg"] == before["raw"]["fuseimg"]
    # whom nobody reloaded before it died is followed by the new one, too
    proc.kill(before["inside"]["fuseimg"])
    proc.wait_until(lambda: inside.supervisor not in (None, before["inside"]["fuseimg"]), 20, what="a supervisor")
    inside.wait_worker(other_than=before["inside"]["fuseimg-worker"])
    machine.wait_state(inside.unit, "active")
    assert installed(inside), programs(inside)
    end = time.monotonic()
    time.sleep(0.7)
    seen = [client.finish() for client in clients]
    assert not any(one.errors for one in seen) and all(one.writes[-1][0] > end for one in seen)
    machine.systemctl("stop", inside.inside_unit)
    for one in (raw, inside):
        one.systemctl("stop")
        assert one.show("Result") == "success" and one.show("NFileDescriptorStore") == "0"
        said = machine.journal("--unit", one.unit, "--priority=err")
        assert "fuseimg" not in said, said
    assert seen[0].holds(raw.check(file_system=False).read_bytes()[:MiB])
    flat = inside.check()
    proc.run("debugfs", "-R", f'dump /file "{flat}.file"', flat)
    assert seen[1].holds(flat.with_name(f"{flat.name}.file").read_bytes())
    machine.poweroff()

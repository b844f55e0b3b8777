# SPDX-License-Identifier: LGPL-2.1-or-later
"""One instance and its configuration: names, mistakes, several at a time, what systemctl shows."""

import json
import os

import pytest

from box.export import Client
from support import images, proc
from support.content import MiB

# Of fuseimg@.service(8), EVENTS
WORKER_DIED = "1ca8b3ccced14a05b80dbc792efc401a"


def start_fails(exported):
    """What systemctl said and what the journal has."""
    done = exported.systemctl("start", check=False)
    assert done.returncode != 0, "a start that should have failed"
    return done.stderr + exported.machine.journal("--unit", exported.unit)


@pytest.mark.parametrize("name", ["simple", "with-dash", "two--dashes", "with space", "Größe_π", "a.b:c", "back\\slash",
                                  "-leading", "$HOME"])
def test_names(name, machine, export):
    """Every name that a person may choose, with the unit's name as systemd-escape has it."""
    exported = export(machine, name, size=8 * MiB)
    exported.start()
    assert machine.say("stat", "--format=%s", "--", exported.disk) == str(8 * MiB)
    # the drop-in for the mount's unit finds the service
    proc.wait_until(lambda: exported.unit in machine.related(exported.mount_unit, "After"), 10, every=0.1,
                    what=f"{exported.mount_unit} after {exported.unit}")
    assert "umount.target" in machine.related(exported.mount_unit, "Conflicts")
    assert "local-fs.target" not in machine.related(exported.mount_unit, "Before")
    assert exported.status.startswith(f"{exported.image.name} (")
    exported.systemctl("stop")
    exported.check(file_system=False)


def test_a_name_that_was_not_escaped(machine, export):
    """The usual mistake is answered with the name that was meant."""
    exported = export(machine, "not-escaped")
    machine.systemctl("start", "fuseimg@not-escaped.service", check=False)
    assert "fuseimg@not\\x2descaped.service" in machine.journal("--unit", "fuseimg@not-escaped.service")
    exported.start()


def test_the_worker_is_nobody_and_sees_nothing(machine, export):
    exported = export(machine, "confined")
    exported.start()
    worker = exported.wait_worker()
    uid = machine.say("id", "--user", "fuseimg")
    assert proc.status_field(worker, "Uid").split() == [uid] * 4
    assert int(proc.status_field(worker, "CapEff"), 16) == 0
    assert proc.status_field(worker, "NoNewPrivs") == "1" and proc.status_field(worker, "Seccomp") == "2"
    for kind in ("mnt", "net", "ipc"):
        assert os.readlink(f"/proc/{worker}/ns/{kind}") != os.readlink(f"/proc/{machine.leader}/ns/{kind}"), kind


def test_status_is_for_people(machine, export):
    exported = export(machine, "shown")
    exported.start()
    assert "qcow2" in exported.status and "128" in exported.status, exported.status


def test_two_instances(machine, export):
    """They have nothing to do with each other."""
    one, two = export(machine, "one"), export(machine, "two")
    machine.systemctl("start", one.unit, two.unit)
    client = Client(machine, one.disk)
    two.systemctl("stop")
    two.check(file_system=False)
    proc.kill(one.supervisor)
    two.start()
    assert not client.finish().errors
    machine.systemctl("stop", one.unit, two.unit)
    one.check(file_system=False)


def test_no_configuration(machine, export):
    exported = export(machine, "unknown")
    os.unlink(machine.path("/etc/fuseimg/unknown.conf"))
    said = start_fails(exported)
    assert "/etc/fuseimg/unknown.conf" in said and "fuseimg.conf(5)" in said
    assert exported.show("NRestarts") == "0", "it was tried again without a reason"


@pytest.mark.parametrize("line, named", [("THREADS=many", "THREADS"), ("IMAGES=/srv/x", "IMAGE"),
                                         ("no equals sign", "wrong.conf:2"), ("MODE=999", "MODE")])
def test_wrong_configuration(line, named, machine, export):
    """The line is named, and what would be right; nothing is tried again, nothing is mounted."""
    exported = export(machine, "wrong")
    machine.write("/etc/fuseimg/wrong.conf", f"IMAGE=/srv/wrong.img\n{line}\n")
    said = start_fails(exported)
    assert "wrong.conf:2" in said and named in said
    assert exported.show("NRestarts") == "0"
    assert not exported.mounted()


def test_a_wrong_configuration_changes_nothing_at_a_reload(machine, export):
    exported = export(machine, "rewritten")
    exported.start()
    client = Client(machine, exported.disk)
    processes = exported.processes()
    exported.configure(IMAGE="/srv/rewritten.img", FORMAT="qcow2", THREADS="many")
    done = exported.systemctl("reload", check=False)
    assert done.returncode != 0
    assert "THREADS" in machine.journal("--unit", exported.unit)
    assert exported.active == "active" and exported.processes() == processes
    # nor to a supervisor that takes over
    proc.kill(processes["fuseimg"])
    proc.wait_until(lambda: exported.supervisor not in (None, processes["fuseimg"]), 20, what="a supervisor")
    machine.wait_state(exported.unit, "active")
    exported.wait_worker(other_than=processes["fuseimg-worker"])
    assert not client.finish().errors
    # what is put right is taken
    exported.configure(IMAGE="/srv/rewritten.img", FORMAT="qcow2", THREADS=2, MODE="0640")
    exported.systemctl("reload")
    # systemctl has waited for it; before 254 it does so where the supervisor began within the time that ExecReload= takes
    if machine.version < 254:
        proc.wait_until(lambda: machine.say("stat", "--format=%a", exported.disk) == "640", what="the new mode")
    assert machine.say("stat", "--format=%a", exported.disk) == "640"
    exported.systemctl("stop")


def test_another_image_takes_a_restart(machine, export):
    """A configuration that is good, but not for this mount: the man page has where to look."""
    exported, other = export(machine, "kept"), export(machine, "other", size=8 * MiB)
    exported.start()
    processes = exported.processes()
    exported.configure(IMAGE=f"/srv/{other.image.name}")
    exported.systemctl("reload")
    refused = f"reload failed, everything stays as it was: IMAGE=/srv/{other.image.name} is not the file that is mounted"
    proc.wait_until(lambda: refused in exported.status, 20, every=0.1, what=f"{refused} in the status")
    assert exported.active == "active" and exported.processes() == processes
    exported.systemctl("restart")
    assert machine.say("stat", "--format=%s", exported.disk) == str(8 * MiB)
    exported.systemctl("stop")


def test_an_image_that_is_none(machine, export):
    """Tried once, since the next try would say the same; nothing is left behind."""
    exported = export(machine, "broken")
    os.truncate(exported.image, 100)
    said = start_fails(exported)
    assert "/srv/broken.img" in said
    machine.wait_state(exported.unit, "failed")
    assert exported.show("NRestarts") == "0" and exported.show("ExecMainStatus") == "2"
    assert not exported.mounted() and not exported.processes()
    # put right, it starts
    images.create(exported.image, MiB)
    exported.systemctl("reset-failed")
    exported.start()


def test_owner_may_use_it(machine, export):
    """The way to the disk is open to whom MODE= and OWNER= let in, and closed to others."""
    exported = export(machine, "owned", OWNER="games", MODE="0600")
    exported.start()
    command = ["setpriv", "--reuid=games", "--clear-groups", "dd", f"if={exported.disk}", "of=/dev/null", "count=1"]
    machine.run(*command)
    command[1] = "--reuid=nobody"
    assert "Permission denied" in machine.run(*command, check=False).stderr


def test_enabled_at_boot(boot, export):
    """With a file system inside as a hard requirement of local-fs.target, from boot to boot."""
    machine = boot()
    exported = export(machine, "data-disk")
    exported.start()
    exported.make_file_system()
    where = exported.mount_inside(required_by="local-fs.target")
    machine.run("sh", "-c", f"echo kept >'{where}/file'")
    machine.systemctl("enable", exported.unit, exported.inside_unit)
    machine.restart()
    assert machine.say("cat", f"{where}/file") == "kept"
    assert "ordering cycle" not in machine.journal("--boot")
    assert machine.poweroff() < 75      # what does not end is killed after 90 s
    exported.check()


def test_journal_has_fields(machine, export):
    """systemd's own journal takes the events as fuseimg@.service(8) describes them, and only once."""
    exported = export(machine, "logged")
    exported.start()
    killed = exported.worker
    proc.kill(killed)
    exported.wait_worker(other_than=killed)
    found = machine.say("journalctl", "--output=json", "--unit", exported.unit, f"MESSAGE_ID={WORKER_DIED}").splitlines()
    assert len(found) == 1
    event = json.loads(found[0])
    assert event["FUSEIMG_INSTANCE"] == "logged" and event["FUSEIMG_IMAGE"] == "/srv/logged.img"
    assert event["PRIORITY"] == "4" and event["SYSLOG_IDENTIFIER"] == "fuseimg"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that are mounted at boot, by the generator and by /etc/fstab; first and last things, in order."""

import time

import pytest

from box import journal
from box import machine as box_machine
from support import images, proc
from support.content import MiB

pytestmark = pytest.mark.limit(150)


class Disk:
    """A qcow2 with ext4 in it, in /srv of the machines."""

    def __init__(self, srv, name):
        self.path, self.inside = srv / f"{name}.qcow2", f"/srv/{name}.qcow2"
        flat = srv / f"{name}.flat"
        with flat.open("wb") as file:
            file.truncate(32 * MiB)
        proc.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", flat)
        proc.run("qemu-img", "convert", "-O", "qcow2", flat, self.path)
        flat.unlink()

    def content(self, name):
        """Of a file in it, once the machine is gone; the file system is in order."""
        images.check(self.path, leaks=None)
        flat = self.path.with_suffix(".raw")
        images.to_raw(self.path, flat)
        proc.run("e2fsck", "-fn", flat)
        return proc.run("debugfs", "-R", f"cat {name}", flat).stdout


def prepare(machine):
    """Without udev, what makes nodes for loop devices before the first file system is mounted."""
    nodes = range(box_machine.LOOP_NODES)
    machine.write("/etc/tmpfiles.d/loop.conf", "".join(f"b /dev/loop{n} 0600 root root - 7:{n}\n" for n in nodes))


def configure(machine, name, **config):
    machine.write(f"/etc/fuseimg/{name}.conf", "".join(f'{key}="{value}"\n' for key, value in config.items()))


def kind(machine, where):
    """Of the file system at a place, without waking an automount."""
    return machine.run("findmnt", "--noheadings", "--output=FSTYPE", "--mountpoint", where,
                       check=False).stdout.split()


def write(machine, path):
    machine.run("sh", "-c", 'echo -n "written" >"$1"', "sh", path)


def unit(machine, path):
    return machine.say("systemd-escape", "--path", "--suffix=mount", path)


def assert_good_end(machine, harmless="\0"):
    took = machine.poweroff()
    said = machine.journal_of_the_dead()
    assert not [line for line in journal.complaints(said) if harmless not in line]
    assert "I/O error" not in said and "Transport endpoint" not in said
    assert took < 15
    return said


def assert_order(said, *sentences):
    """In this order, each for the last time."""
    lines = said.splitlines()
    found = [max((n for n, line in enumerate(lines) if sentence in line), default=-1) for sentence in sentences]
    assert -1 not in found and found == sorted(found), list(zip(sentences, found)) + lines[-60:]


def test_configured(boot):
    """Plain, required, on first use, and two that cannot be: what works is there, and what was written stays."""
    machine = boot()
    prepare(machine)
    plain, needed, lazy = (Disk(machine.srv, name) for name in ("plain disk", "needed", "lazy"))
    configure(machine, "plain disk", IMAGE=plain.inside, MOUNT="/mnt/plain disk")
    configure(machine, "needed", IMAGE=needed.inside, MOUNT="/mnt/needed", NOFAIL="no")
    configure(machine, "lazy", IMAGE=lazy.inside, MOUNT="/mnt/lazy", AUTOMOUNT="yes", AUTOSTART="no")
    configure(machine, "absent", IMAGE="/srv/absent.qcow2", MOUNT="/mnt/absent")
    configure(machine, "broken", IMAGE="/srv/broken.qcow2", MUONT="/mnt/broken")
    machine.restart()

    proc.wait_until(lambda: kind(machine, "/mnt/plain disk") == ["ext4"], 20, what="the mount that boot does not wait for")
    assert kind(machine, "/mnt/needed") == ["ext4"]
    assert unit(machine, "/mnt/needed") in machine.related("local-fs.target", "After")
    assert unit(machine, "/mnt/plain disk") not in machine.related("local-fs.target", "After")
    assert kind(machine, "/mnt/lazy") == ["autofs"]
    assert machine.show("fuseimg@lazy.service", "ActiveState") == "inactive"
    machine.wait_state("fuseimg@absent.service", "failed")
    assert machine.show("fuseimg@broken.service", "DropInPaths") == ""
    for name in ("plain disk", "needed", "lazy"):
        write(machine, f"/mnt/{name}/file")
    assert kind(machine, "/mnt/lazy") == ["autofs", "ext4"]
    said = assert_good_end(machine)
    assert_order(said, "Unmounted mnt-needed.mount", "Stopped fuseimg@needed.service")
    for disk in (plain, needed, lazy):
        assert disk.content("/file") == "written"


def test_idle_automount(boot):
    machine = boot()
    disk = Disk(machine.srv, "idle-automount")
    configure(machine, "idle", IMAGE=disk.inside, MOUNT="/mnt/idle", AUTOMOUNT="yes", IDLE_TIMEOUT="1s")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "mnt-idle.automount")
    for _ in range(2):
        write(machine, "/mnt/idle/file")
        machine.wait_state("mnt-idle.mount", "active")
        machine.wait_state("mnt-idle.mount", "inactive", timeout=20)
        assert machine.show("fuseimg@idle.service", "ActiveState") == "active"
    write(machine, "/mnt/idle/file")
    assert_good_end(machine)
    assert disk.content("/file") == "written"


def test_stop_of_each_piece(boot):
    machine = boot()
    disk = Disk(machine.srv, "pieces")
    service, mount = "fuseimg@pieces.service", "mnt-pieces.mount"
    configure(machine, "pieces", IMAGE=disk.inside, MOUNT="/mnt/pieces")
    machine.systemctl("daemon-reload")
    for first, second in ((mount, service), (service, mount)):
        machine.systemctl("start", mount)
        write(machine, "/mnt/pieces/file")
        machine.systemctl("stop", "--no-block", first)
        if first == mount:
            machine.wait_state(mount, "inactive")
        elif machine.version < 254:
            # the export waits for who uses it, and says who that is
            proc.wait_until(lambda: "/mnt/pieces" in machine.show(service, "StatusText"), what="the reason")
        machine.systemctl("stop", second)
        machine.wait_state(service, "inactive")
        machine.wait_state(mount, "inactive")
        assert machine.show(service, "Result") == machine.show(mount, "Result") == "success"
    # 257 unmounts the export at the same moment as the service that is stopped: one of the two comes too late
    assert_good_end(machine, "run-fuseimg-pieces.mount: Mount disappeared")
    assert disk.content("/file") == "written"


def test_busy_at_the_end(boot):
    """A program sits in the inner mount, as its working directory and with an open file."""
    machine = boot()
    disk = Disk(machine.srv, "busy-end")
    configure(machine, "busy", IMAGE=disk.inside, MOUNT="/mnt/busy")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "mnt-busy.mount")
    machine.run("systemd-run", "--unit=sitter", "--property=RequiresMountsFor=/mnt/busy",
                "--property=WorkingDirectory=/mnt/busy", "--", "sh", "-c", "exec >file; printf written; exec sleep 1000")
    time.sleep(1)
    said = assert_good_end(machine)
    assert_order(said, "Stopped sitter.service", "Unmounted mnt-busy.mount", "Stopped fuseimg@busy.service")
    assert disk.content("/file") == "written"


def exports(machine):
    """Instances of the service that are there."""
    units = machine.say("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "fuseimg@*.service")
    return [line.split()[0] for line in units.splitlines()]


def test_fstab(boot):
    """One line, one on first use, one by the name of an export, and the two-line form."""
    machine = boot()
    prepare(machine)
    line, lazy, named, two = (Disk(machine.srv, f"fstab {name}") for name in ("line", "lazy", "named", "two"))
    for name, disk in (("named", named), ("two", two)):
        configure(machine, name, IMAGE=disk.inside, AUTOSTART="yes" if disk is two else "no")
    tie = "x-systemd.requires" if machine.version >= 254 else "x-systemd.after"
    machine.write("/etc/fstab", f"""
/srv/fstab\\040line.qcow2 /mnt/line fuseimg nofail,noatime 0 0
/srv/fstab\\040lazy.qcow2 /mnt/lazy fuseimg noauto,x-systemd.automount 0 0
named /mnt/named fuseimg defaults 0 0
/run/fuseimg/two/disk /mnt/two ext4 loop,nofail,{tie}=fuseimg@two.service 0 0
""")
    machine.restart()
    for name in ("line", "two"):
        proc.wait_until(lambda name=name: kind(machine, f"/mnt/{name}") == ["ext4"], 20, what=f"the mount of {name}")
    assert kind(machine, "/mnt/named") == ["ext4"]
    assert kind(machine, "/mnt/lazy") == ["autofs"]
    assert len(exports(machine)) == 3
    for name in ("line", "lazy", "named", "two"):
        write(machine, f"/mnt/{name}/file")
    assert len(exports(machine)) == 4
    # no process of ours is in the mount's unit
    assert machine.show("mnt-line.mount", "TasksCurrent") in ("0", "[not set]")
    said = assert_good_end(machine)
    service = [line for line in said.splitlines() if "Stopped fuseimg@fstab" in line and "line" in line]
    assert service, said
    assert_order(said, "Unmounted mnt-line.mount", service[-1].split("]: ")[1])
    for disk in (line, lazy, named, two):
        assert disk.content("/file") == "written"


def test_mount_by_hand(boot):
    """mount(8) finds the helper, and umount(8) the other one; between them the supervisor dies."""
    machine = boot()
    disk = Disk(machine.srv, "by hand")
    machine.run("mkdir", "/mnt/hand")
    machine.run("mount", "-t", "fuseimg", "-o", "noatime", disk.inside, "/mnt/hand")
    assert kind(machine, "/mnt/hand") == ["ext4"]
    service, = exports(machine)
    write(machine, "/mnt/hand/file")
    machine.systemctl("kill", "--kill-who=main", "--signal=KILL", service)
    machine.run("sync", "-f", "/mnt/hand/file")
    machine.wait_state(service, "active")
    assert "with other options" in machine.run("mount", "-t", "fuse.fuseimg", "-o", "ro", disk.inside, "/srv", check=False).stderr
    machine.run("umount", "/mnt/hand")
    machine.wait_state(service, "inactive")
    assert machine.show(service, "Result") == "success"
    failed = machine.run("mount", "-t", "fuseimg", "-o", "part=7", disk.inside, "/mnt/hand", check=False)
    assert failed.returncode == 32 and "part=7" in failed.stderr
    machine.wait_state(service, "inactive")
    # and one that is left for the end
    machine.run("mount", "-t", "fuseimg", disk.inside, "/mnt/hand")
    assert_good_end(machine)
    assert disk.content("/file") == "written"

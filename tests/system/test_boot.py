# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that are mounted at boot, by the generator and by /etc/fstab; first and last things, in order."""

import itertools
import time

import pytest

from box import journal, layers
from box import machine as box_machine
from support import images, proc, tables
from support.content import MiB

pytestmark = pytest.mark.limit(150)

# seconds: less than systemd waits for what does not come, or does not end (90), and time enough for a busy machine
QUICK = 75


class Disk:
    """A qcow2 with ext4 in it, in /srv of the machines; in a partition where it does not start at 0 (MiB)."""

    def __init__(self, srv, name, start=0):
        self.path, self.inside, self.offset = srv / f"{name}.qcow2", f"/srv/{name}.qcow2", start * MiB
        flat = srv / f"{name}.flat"
        flat.parent.mkdir(exist_ok=True)
        with flat.open("wb") as file:
            file.truncate(32 * MiB)
        size = f"{32 - 2 * start}M"
        if start:
            tables.write(flat, f"label: gpt\nstart={start}M, size={size}\n")
        proc.run("mkfs.ext4", "-q", "-F", "-E", f"offset={self.offset},lazy_itable_init=0", flat, size)
        proc.run("qemu-img", "convert", "-O", "qcow2", flat, self.path)
        flat.unlink()

    def content(self, name):
        """Of a file in it, once the machine is gone; the file system is in order."""
        images.check(self.path, leaks=None)
        flat = self.path.with_suffix(".raw")
        images.to_raw(self.path, flat)
        inside = f"{flat}?offset={self.offset}"
        proc.run("e2fsck", "-fn", inside)
        return proc.run("debugfs", "-R", f"cat {name}", inside).stdout


# There is nobody at the console, and without this systemd would try again and again
SHELL_OF_NOBODY = "[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/sleep infinity\n"


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


def assert_good(said, forgiven=()):
    assert not journal.complaints(said, forgiven)
    assert "I/O error" not in said and "Transport endpoint" not in said


def assert_good_end(machine, forgiven=(), verb="poweroff"):
    took = machine.poweroff(verb=verb)
    said = machine.journal_of_the_dead()
    assert_good(said, forgiven)
    assert took < QUICK
    return said


def settle_mounts(machine, *names):
    """systemd reads the mount table five times a second at most. Told to power off before it has seen that an export
    is gone, it would unmount that once more, and say that this came too late."""
    for name in names:
        # where an unmount was refused before, 252 calls that a failure to the end
        machine.wait_state(f"run-fuseimg-{name}.mount", "inactive", "failed")


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
        before = machine.show("mnt-idle.mount", "ActiveEnterTimestampMonotonic")
        write(machine, "/mnt/idle/file")
        # it may be idle again by now
        proc.wait_until(lambda before=before: machine.show("mnt-idle.mount", "ActiveEnterTimestampMonotonic") != before,
                        what="the mount")
        machine.wait_state("mnt-idle.mount", "inactive", timeout=20)
        assert machine.show("fuseimg@idle.service", "ActiveState") == "active"
    write(machine, "/mnt/idle/file")
    assert_good_end(machine)
    assert disk.content("/file") == "written"


PIECES = {"inner": "mnt-pieces.mount", "outer": "run-fuseimg-pieces.mount", "service": "fuseimg@pieces.service"}


def stop_piece(machine, name):
    """Returns when that piece is gone, or when it is clear what it waits for."""
    used = machine.show(PIECES["inner"], "ActiveState") == "active"
    if name == "outer" and used:
        # refused, and nothing is taken from anybody
        assert machine.systemctl("stop", PIECES[name], check=False).returncode != 0
        assert kind(machine, "/mnt/pieces") == ["ext4"]
        return
    machine.systemctl("stop", "--no-block", PIECES[name])
    if name == "service" and used and machine.version < 254:
        # the mount only wants it: the export waits for who uses it, and says who that is
        proc.wait_until(lambda: "/mnt/pieces" in machine.show(PIECES[name], "StatusText"), what="the reason")
    else:
        machine.wait_state(PIECES[name], "inactive", *(["failed"] if name == "outer" else []))
        settle_mounts(machine, *(["pieces"] if name == "service" else []))


def test_stop_of_each_piece(boot):
    """In each order: who is stopped while others stand on it waits for them, takes them along, or is refused."""
    machine = boot()
    disk = Disk(machine.srv, "pieces")
    configure(machine, "pieces", IMAGE=disk.inside, MOUNT="/mnt/pieces")
    machine.systemctl("daemon-reload")
    for order in itertools.permutations(PIECES):
        machine.systemctl("reset-failed")
        machine.systemctl("start", PIECES["inner"])
        write(machine, "/mnt/pieces/file")
        for name in order:
            stop_piece(machine, name)
        for name in ("inner", "service"):
            machine.wait_state(PIECES[name], "inactive")
        settle_mounts(machine, "pieces")
        assert machine.show(PIECES["service"], "Result") == machine.show(PIECES["inner"], "Result") == "success"
    assert_good_end(machine, forgiven=["Failed unmounting run-fuseimg-pieces.mount"])
    assert disk.content("/file") == "written"


def sit(machine, where):
    """A program in a directory, with an open file, of whose need systemd knows nothing."""
    machine.run("systemd-run", "--unit=sitter", "--", "sh", "-c", f"cd {where}; exec >file; printf written; exec sleep 1000")
    proc.wait_until(lambda: machine.run("test", "-s", f"{where}/file", check=False).returncode == 0, what="the sitter")


def test_stop_while_busy(boot):
    """No piece is taken from who sits in the file system; the service says who, and ends when that has gone."""
    machine = boot()
    disk = Disk(machine.srv, "pieces")
    service = PIECES["service"]
    configure(machine, "pieces", IMAGE=disk.inside, MOUNT="/mnt/pieces")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", PIECES["inner"])
    sit(machine, "/mnt/pieces")
    for name in ("inner", "outer"):
        assert machine.systemctl("stop", PIECES[name], check=False).returncode != 0
        assert kind(machine, "/mnt/pieces") == ["ext4"]
    machine.systemctl("stop", "--no-block", service)
    proc.wait_until(lambda: "(mounted on /mnt/pieces)" in machine.show(service, "StatusText"), what="the reason")
    machine.systemctl("stop", "sitter.service")
    machine.systemctl("stop", PIECES["inner"])
    machine.wait_state(service, "inactive")
    assert machine.show(service, "Result") == "success"
    settle_mounts(machine, "pieces")
    assert_good_end(machine, forgiven=["Failed unmounting"])
    assert disk.content("/file") == "written"


def test_stop_with_automount(boot):
    """What is in use does not expire; without its automount the file system goes on; then each piece is stopped."""
    machine = boot()
    disk = Disk(machine.srv, "pieces")
    configure(machine, "pieces", IMAGE=disk.inside, MOUNT="/mnt/pieces", AUTOMOUNT="yes", IDLE_TIMEOUT="1s")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "mnt-pieces.automount")
    sit(machine, "/mnt/pieces")
    time.sleep(3)
    assert machine.show(PIECES["inner"], "ActiveState") == "active"
    machine.systemctl("stop", "sitter.service")
    machine.wait_state(PIECES["inner"], "inactive", timeout=20)
    for order in itertools.permutations(["mnt-pieces.automount", PIECES["inner"], PIECES["service"]]):
        machine.systemctl("reset-failed")
        machine.systemctl("start", "mnt-pieces.automount")
        write(machine, "/mnt/pieces/file")
        machine.systemctl("stop", "--no-block", *order)
        for name in order:
            machine.wait_state(name, "inactive")
        assert machine.show(PIECES["service"], "Result") == "success"
        settle_mounts(machine, "pieces")
    assert_good_end(machine)
    assert disk.content("/file") == "written"


def test_isolate_and_reboot(boot):
    """Another target leaves exports alone, and so does the way back; a reboot is as good an end as a power-off."""
    machine = boot()
    prepare(machine)
    machine.write("/etc/systemd/system/rescue.service.d/test.conf", SHELL_OF_NOBODY)
    disk = Disk(machine.srv, "isolated")
    configure(machine, "isolated", IMAGE=disk.inside, MOUNT="/mnt/isolated", NOFAIL="no")
    machine.restart()
    began = machine.show("fuseimg@isolated.service", "ActiveEnterTimestampMonotonic")
    for target in ("rescue.target", "multi-user.target"):
        machine.systemctl("isolate", target)
        machine.wait_state(target, "active")
        write(machine, f"/mnt/isolated/{target}")
    assert machine.show("fuseimg@isolated.service", "ActiveEnterTimestampMonotonic") == began
    said = assert_good_end(machine, verb="reboot")
    assert_order(said, "Unmounted mnt-isolated.mount", "Stopped fuseimg@isolated.service")
    machine.boot()
    assert kind(machine, "/mnt/isolated") == ["ext4"]
    assert machine.run("ls", "/mnt/isolated").stdout.split() == ["lost+found", "multi-user.target", "rescue.target"]
    assert_good_end(machine)
    assert disk.content("/multi-user.target") == "written"


def test_required_and_missing(boot):
    """NOFAIL=no means it: without the image the boot ends in the emergency shell, soon, and says why."""
    machine = boot()
    prepare(machine)
    machine.write("/etc/systemd/system/emergency.service.d/test.conf", SHELL_OF_NOBODY)
    configure(machine, "needed", IMAGE="/srv/missing.qcow2", MOUNT="/mnt/needed", NOFAIL="no")
    begin = time.monotonic()
    machine.restart()
    assert time.monotonic() - begin < QUICK
    assert machine.run("systemctl", "is-system-running", check=False).stdout.strip() == "maintenance"
    assert machine.show("local-fs.target", "ActiveState") == "inactive"
    said = machine.journal("--boot")
    assert "fuseimg@needed.service" in said and "Dependency failed for local-fs.target" in said
    # once: trying again would bury it
    assert len([line for line in said.splitlines() if "/srv/missing.qcow2 does not exist" in line]) == 1
    # once the image is there, the way out of the emergency shell leads on
    disk = Disk(machine.srv, "missing")
    machine.systemctl("reset-failed")
    machine.systemctl("default", "--no-block")
    machine.wait_state("multi-user.target", "active")
    write(machine, "/mnt/needed/file")
    machine.poweroff()
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
    proc.wait_until(lambda: machine.run("test", "-s", "/mnt/busy/file", check=False).returncode == 0, what="the sitter")
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


def recipe(title):
    """One of mount.fuseimg(8), as it stands there."""
    page = (layers.TREE / "man/mount.fuseimg.8.scd").read_text(encoding="utf-8")
    return page.split(f"\n## {title}\n")[1].split("```\n")[1]


def test_recipes(boot):
    """Those that say more than the lines above."""
    machine = boot()
    prepare(machine)
    disk, alice = Disk(machine.srv, "images/disk", start=1), Disk(machine.srv, "images/alice")
    archive = Disk(machine.srv, "archive/2024")
    before = archive.path.read_bytes()
    configure(machine, "disk", IMAGE=disk.inside, AUTOSTART="no")
    machine.write("/etc/systemd/system/srv-data.mount", recipe("A .mount unit"))
    machine.write("/etc/systemd/system/srv-data.automount", recipe("An .automount unit"))
    machine.write("/etc/fstab", recipe("A home directory in an image, no part of which reaches the swap") +
                  recipe("A read-only archive"))
    machine.systemctl("enable", "srv-data.automount")
    machine.restart()

    # boot waits for what others need, although it may fail; not so for the archive
    assert kind(machine, "/home/alice") == ["ext4"]
    assert "home-alice.mount" in machine.related("systemd-user-sessions.service", "After")
    machine.wait_state("srv-archive-2024.mount", "active")
    assert machine.run("touch", "/srv/archive/2024/file", check=False).returncode != 0
    assert kind(machine, "/srv/data") == ["autofs"] and machine.show("fuseimg@disk.service", "ActiveState") == "inactive"
    for where in ("/srv/data", "/home/alice"):
        write(machine, f"{where}/file")
    assert kind(machine, "/srv/data") == ["autofs", "ext4"]
    said = assert_good_end(machine)
    assert_order(said, "Unmounted srv-data.mount", "Stopped fuseimg@disk.service")
    for one in (disk, alice):
        assert one.content("/file") == "written"
    assert archive.path.read_bytes() == before


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
    assert failed.returncode == 32 and "part=7" in failed.stderr and "No such file" not in failed.stderr
    # the service's reason, and none of systemctl's advice
    failed = machine.run("mount", "-t", "fuseimg", "none-such", "/mnt/hand", check=False)
    assert failed.returncode == 32 and "/etc/fuseimg/none-such.conf: there is no such file" in failed.stderr
    assert "journalctl" not in failed.stderr and len(failed.stderr.splitlines()) == 1
    machine.wait_state(service, "inactive")
    # and one that is left for the end; that its options are others is nothing to warn of
    machine.run("mount", "-t", "fuseimg", "-o", "cache=none", disk.inside, "/mnt/hand")
    assert machine.show(service, "NeedDaemonReload") == "no"
    # systemd knows of the mount by now: see test_what_systemd_does_not_end
    machine.wait_state("mnt-hand.mount", "active")
    assert_good_end(machine)
    assert disk.content("/file") == "written"


# Mounts /mnt/late and powers off while systemd does not know of it yet
LATE = """mkdir /mnt/churn /mnt/late
while mount -t tmpfs none /mnt/churn && umount /mnt/churn; do :; done &
for turn in 1 2 3 4 5 6 7 8 9; do
    mount -t fuseimg /srv/late.qcow2 /mnt/late
    printf written >/mnt/late/file
    systemctl is-active --quiet mnt-late.mount || break
    umount /mnt/late
done
kill $!
exec systemctl poweroff --no-block
"""


def test_what_systemd_does_not_end(boot):
    """It reads the mount table with a limit on the rate, and what was mounted just before the end is missing in its
    plans; of a loop device by losetup(8) it knows nothing. The export must not wait for them until it is killed."""
    machine = boot()
    disk, bare = Disk(machine.srv, "late"), Disk(machine.srv, "bare")
    configure(machine, "bare", IMAGE=bare.inside)
    machine.systemctl("start", "fuseimg@bare.service")
    device = machine.say("losetup", "--find", "--show", "/run/fuseimg/bare/disk")
    machine.run("sh", "-c", f"printf written | dd of={device} bs=1M seek=31 status=none")
    machine.run("sh", "-ec", LATE)
    said = assert_good_end(machine, verb=None, forgiven=["Failed unmounting run-fuseimg-", "mnt-churn"])
    assert "/mnt/late (/dev/loop" in said and f"{device}: detached" in said
    assert disk.content("/file") == "written"
    flat = bare.path.with_suffix(".raw")
    images.to_raw(bare.path, flat)
    assert flat.read_bytes()[31 * MiB:].startswith(b"written")

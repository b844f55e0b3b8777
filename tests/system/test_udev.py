# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules, with a running udev: names of loop devices, what is said of devices that hold an image, and instances
that come and go with their device."""

import contextlib
import os
import time

import pytest

from box import layers
from box.export import Client
from box.machine import Machine
from support import images, proc
from support.content import MiB

RULES = "/usr/lib/udev/rules.d/61-fuseimg.rules"
# Stands in for a disk that is plugged in and out
TEST_RULE = 'KERNEL=="loop*", ATTR{loop/backing_file}=="/srv/plugged.qcow2", SYMLINK+="test-disk"\n'


@pytest.fixture(scope="module")
def machine(work, suite, package):
    state, srv = work / "machine-udev", work / "srv-udev"
    srv.mkdir()
    made = Machine(layers.make(suite, work / "layer-udev", package, "udev"), state, srv, udev=True)
    made.wait_state("systemd-udevd.service", "active")
    yield made
    made.destroy()


@contextlib.contextmanager
def loop(machine, path, *options):
    device = machine.say("losetup", "--find", "--show", *options, path)
    machine.run("udevadm", "settle")
    try:
        yield device
    finally:
        machine.run("losetup", "--detach", device)
        machine.run("udevadm", "settle")


def make_image(path, image_format="qcow2"):
    """As it stands on a device: that is longer than the image, and never ends inside a table."""
    images.create(path, 64 * MiB, format=image_format)
    os.truncate(path, max(path.stat().st_size, 4 * MiB))


def properties(machine, device):
    lines = machine.say("udevadm", "info", "--query=property", f"--name={device}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def link(machine, path):
    return machine.run("readlink", "-f", path, check=False).stdout.strip() if there(machine, path) else None


def there(machine, path):
    return machine.run("test", "-e", path, check=False).returncode == 0


def test_verify(machine):
    if machine.version < 254:
        # there is no such verb yet; a mistake is in the journal of udev
        assert "61-fuseimg" not in machine.journal("--unit=systemd-udevd.service")
        return
    machine.run("udevadm", "verify", RULES)


def test_names_of_loop_devices(machine, export):
    exported = export(machine, "my disk")
    exported.start()
    with loop(machine, exported.disk) as device:
        assert link(machine, "/dev/disk/by-fuseimg/my\\x20disk") == device
        found = properties(machine, device)
        assert found["ID_FUSEIMG_EXPORT"] == "my\\x20disk" and "ID_FUSEIMG_PART" not in found
        assert found["UDISKS_IGNORE"] == "1" and found.get("SYSTEMD_READY") != "0"
    proc.wait_until(lambda: not there(machine, "/dev/disk/by-fuseimg/my\\x20disk"), what="the end of the name")
    exported.systemctl("stop")


def test_devices_that_hold_an_image(machine):
    """They are told apart, and that is all: nothing is exported by itself."""
    found = {}
    for name, image_format in (("known", "qcow2"), ("zeroes", "raw")):
        path = machine.srv / f"{name}.img"
        make_image(path, image_format)
        with loop(machine, f"/srv/{path.name}") as device:
            found[name] = properties(machine, device)
    assert found["known"]["ID_FUSEIMG_FORMAT"] == "qcow2"
    assert found["known"]["ID_FUSEIMG_SIZE"] == str(64 * MiB)
    assert "UDISKS_IGNORE" not in found["known"]
    assert not [key for key in found["zeroes"] if "FUSEIMG" in key]
    assert machine.say("systemctl", "list-units", "--no-legend", "--all", "fuseimg@*.service") == ""


def look_again(machine):
    """udev's word does not reach a manager in a container; it looks for itself at a reload."""
    machine.run("udevadm", "settle")
    machine.systemctl("daemon-reload")


def set_rule(machine, there):
    machine.write("/etc/udev/rules.d/60-test.rules", TEST_RULE if there else "")
    machine.run("udevadm", "control", "--reload")


@contextlib.contextmanager
def plugged(machine):
    """The disk is there. A loop device stays for as long as it is open: so only its name can be pulled out."""
    set_rule(machine, True)
    with loop(machine, "/srv/plugged.qcow2") as device:
        look_again(machine)
        yield device


def pull_out(machine, device):
    set_rule(machine, False)
    machine.run("udevadm", "trigger", "--action=change", f"--name-match={device}")
    look_again(machine)


def configure(machine, **config):
    machine.write("/etc/fuseimg/plugged.conf", "".join(f'{key}="{value}"\n' for key, value in config.items()))
    machine.systemctl("daemon-reload")


SERVICE, MOUNT = "fuseimg@plugged.service", "mnt-plugged.mount"


def test_instance_of_a_device(machine):
    """Configured for a device by its name: starts when that appears, stops when it goes."""
    make_image(machine.srv / "plugged.qcow2")
    configure(machine, IMAGE="/dev/test-disk")
    look_again(machine)
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    for _ in range(2):
        with plugged(machine) as device:
            machine.wait_state(SERVICE, "active")
            assert there(machine, "/run/fuseimg/plugged/disk")
            pull_out(machine, device)
            machine.wait_state(SERVICE, "inactive")
            assert machine.show(SERVICE, "Result") == "success"


@pytest.fixture
def mounted(machine):
    """A qcow2 with a file system, on the disk that is plugged in, mounted by its configuration."""
    flat, image = machine.srv / "plugged.flat", machine.srv / "plugged.qcow2"
    flat.touch()
    os.truncate(flat, 64 * MiB)
    proc.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", flat)
    proc.run("qemu-img", "convert", "-O", "qcow2", flat, image)
    os.truncate(image, 128 * MiB)
    configure(machine, IMAGE="/dev/test-disk", MOUNT="/mnt/plugged")
    machine.systemctl("reset-failed")
    with plugged(machine) as device:
        machine.wait_state(MOUNT, "active")
        yield device
    machine.wait_state(SERVICE, "inactive", "failed")


def assert_consistent(machine):
    flat = machine.srv / "plugged.flat"
    images.check(machine.srv / "plugged.qcow2", leaks=None)
    images.to_raw(machine.srv / "plugged.qcow2", flat)
    proc.run("e2fsck", "-fn", flat)
    return flat


@pytest.mark.limit(120)
def test_file_system_on_a_device(machine, mounted):
    """Written to for a while, then the disk goes: all of it is there, and so it is when the disk comes back."""
    client = Client(machine, "/mnt/plugged/file", 4 * MiB, least=101)
    time.sleep(8)
    seen = client.finish()
    assert not seen.errors and len(seen.writes) > 100
    pull_out(machine, mounted)
    machine.wait_state(SERVICE, "inactive")
    assert machine.show(SERVICE, "Result") == machine.show(MOUNT, "Result") == "success"
    flat = assert_consistent(machine)
    proc.run("debugfs", "-R", f"dump /file {flat}.file", flat)
    assert seen.holds((machine.srv / "plugged.flat.file").read_bytes())
    set_rule(machine, True)
    machine.run("udevadm", "trigger", "--action=change", f"--name-match={mounted}")
    look_again(machine)
    machine.wait_state(MOUNT, "active")
    machine.run("cmp", "/srv/plugged.flat.file", "/mnt/plugged/file")
    pull_out(machine, mounted)


@pytest.mark.limit(120)
def test_pulled_out_while_busy(machine, mounted):
    """Somebody sits in the file system: served on until that ends, and the service says what it waits for."""
    machine.run("systemd-run", "--unit=sitter", "--", "sh", "-c", "cd /mnt/plugged; exec >file; printf one; exec sleep 1000")
    proc.wait_until(lambda: machine.run("test", "-s", "/mnt/plugged/file", check=False).returncode == 0, what="the sitter")
    pull_out(machine, mounted)
    proc.wait_until(lambda: "(mounted on /mnt/plugged)" in machine.show(SERVICE, "StatusText"), 20, what="the reason")
    machine.run("sh", "-c", "echo two >/mnt/plugged/other && sync -f /mnt/plugged/other")
    machine.systemctl("stop", "sitter.service")
    # systemd has given up to unmount it, after some tries
    machine.run("umount", "/mnt/plugged")
    machine.wait_state(SERVICE, "inactive")
    assert machine.show(SERVICE, "Result") == "success"
    flat = assert_consistent(machine)
    assert proc.run("debugfs", "-R", "cat /other", flat).stdout == "two\n"


@pytest.mark.limit(120)
def test_gone_for_good(machine, mounted):
    """The device itself goes: users get errors at once, nothing starts again and again, and when there is a disk again
    it is served again."""
    machine.run("udevadm", "trigger", "--action=remove", f"--name-match={mounted}")
    look_again(machine)
    machine.wait_state(SERVICE, "failed", "inactive")
    assert int(machine.show(SERVICE, "NRestarts")) < 3
    machine.wait_state(MOUNT, "inactive", "failed")
    machine.run("udevadm", "trigger", "--action=add", f"--name-match={mounted}")
    look_again(machine)
    machine.systemctl("start", MOUNT)
    assert there(machine, "/mnt/plugged/lost+found")
    pull_out(machine, mounted)
    machine.wait_state(SERVICE, "inactive")
    assert_consistent(machine)


def test_device_that_grows(machine):
    """So does the export, at once."""
    path = machine.srv / "plugged.qcow2"
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 8 * MiB)
    configure(machine, IMAGE="/dev/test-disk", FORMAT="raw")
    machine.systemctl("reset-failed")
    with plugged(machine) as device:
        machine.wait_state(SERVICE, "active")
        os.truncate(path, 16 * MiB)
        machine.run("losetup", "--set-capacity", device)
        proc.wait_until(lambda: machine.say("stat", "--format=%s", "/run/fuseimg/plugged/disk") == str(16 * MiB), 20,
                        what="the new size")
        machine.run("sh", "-c", "printf end | dd of=/run/fuseimg/plugged/disk bs=1M seek=15 conv=notrunc,fsync status=none")
        pull_out(machine, device)
        machine.wait_state(SERVICE, "inactive")
    assert path.read_bytes()[15 * MiB:].startswith(b"end")

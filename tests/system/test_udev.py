# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules, with a running udev: names of loop devices, what is said of devices that hold an image, and instances
that come and go with their device."""

import contextlib
import os

import pytest

from box import layers
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


def test_instance_of_a_device(machine):
    """Configured for a device by its name: starts when that appears, stops when it goes."""
    service = "fuseimg@plugged.service"
    make_image(machine.srv / "plugged.qcow2")
    machine.write("/etc/fuseimg/plugged.conf", "IMAGE=/dev/test-disk\n")
    machine.write("/etc/udev/rules.d/60-test.rules", TEST_RULE)
    machine.run("udevadm", "control", "--reload")
    look_again(machine)
    assert machine.show(service, "ActiveState") == "inactive"
    for _ in range(2):
        with loop(machine, "/srv/plugged.qcow2") as device:
            look_again(machine)
            machine.wait_state(service, "active")
            assert there(machine, "/run/fuseimg/plugged/disk")
            # a loop device stays for as long as it is open: so its name is pulled out instead
            machine.write("/etc/udev/rules.d/60-test.rules", "")
            machine.run("udevadm", "control", "--reload")
            machine.run("udevadm", "trigger", "--action=change", f"--name-match={device}")
            look_again(machine)
            machine.wait_state(service, "inactive")
            assert machine.show(service, "Result") == "success"
            machine.write("/etc/udev/rules.d/60-test.rules", TEST_RULE)
            machine.run("udevadm", "control", "--reload")

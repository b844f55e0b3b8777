# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that are mounted at boot: plain, on first use, and a partition; through a reboot and a power-off."""

from guest.images import Image, judge_disk
from guest.look import complaints

PLAIN, LAZY, PARTED = Image("plain"), Image("lazy", format="raw"), Image("parted", parted=True)
ALL = (PLAIN, LAZY, PARTED)


MORE = {PLAIN: "NOFAIL=no\n", LAZY: "FORMAT=raw\nAUTOMOUNT=yes\n", PARTED: 'PARTITION="PARTLABEL=the data"\n'}
# As /srv/NAME, each
CONFIGURATION = {f"/etc/fuseimg/{image.name}.conf": f"IMAGE={image.inside}\nMOUNT=/srv/{image.name}\n{more}"
                 for image, more in MORE.items()}


def kind(machine, where):
    return machine.run(f"findmnt --noheadings --output=FSTYPE --mountpoint {where}", check=False).split()


def assert_mounted(machine):
    machine.wait_for("mountpoint -q /srv/parted")
    assert kind(machine, "/srv/plain") == kind(machine, "/srv/parted") == ["ext4"]
    assert kind(machine, "/srv/lazy") == ["autofs"]


def test_boots(boot):
    machine = boot(*ALL, files=CONFIGURATION)
    assert_mounted(machine)
    for image in ALL:
        machine.run(f"echo {image.name} >/srv/{image.name}/file; sync /srv/{image.name}/file")
    machine.reboot()

    assert_mounted(machine)
    for image in ALL:
        assert machine.run(f"cat /srv/{image.name}/file") == image.name
    machine.poweroff()
    assert not complaints(machine)
    judge_disk(machine.disk.path, ALL)

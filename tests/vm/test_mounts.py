# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that are mounted at boot, through a reboot and a power-off."""

from guest.images import judge_disk
from guest.look import complaints
from guest.three import ALL, CONFIGURATION, assert_files, assert_mounted, write_files


def test_boots(boot):
    machine = boot(*ALL, files=CONFIGURATION)
    assert_mounted(machine)
    write_files(machine, "first")
    machine.reboot()

    assert_mounted(machine)
    assert_files(machine, "first")
    write_files(machine, "second")
    machine.poweroff()
    assert not complaints(machine)
    judge_disk(machine.disk.path, ALL)

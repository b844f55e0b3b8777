# SPDX-License-Identifier: LGPL-2.1-or-later
"""Power cuts. What is lost: the machine's memory, with the page cache of its kernel and all our processes; and half of
what its disk had in its own cache, by chance (guest/disk.py). What is not: anything that fsync() was answered for."""

import time

from guest.images import judge_disk
from guest.look import complaints
from guest.three import ALL, CONFIGURATION, Writer, assert_durable, assert_files, assert_mounted, told, write_files


# What is not flushed is soon on its way nevertheless, and so in the disk's cache
HASTE = {"/etc/sysctl.d/haste.conf": "vm.dirty_expire_centisecs=100\nvm.dirty_writeback_centisecs=50\n"}


def test_power_cuts(boot):
    machine = boot(*ALL, files={**CONFIGURATION, **HASTE})
    assert_mounted(machine)
    assert machine.run("cat /sys/block/vdb/queue/write_cache") == "write back"
    write_files(machine, "fsynced")
    # something to lose
    for image in ALL:
        machine.run(f"head -c 3M /dev/urandom >{image.where}/unsynced")
    time.sleep(2)
    machine.cut_power()

    machine.boot()
    assert_mounted(machine)
    assert_files(machine, "fsynced")
    writer = Writer(machine)
    writer.wait_progress()
    writer.wait_progress()
    counts = told(machine.cut_power())

    machine.boot()
    assert_mounted(machine)
    assert_files(machine, "fsynced")
    assert_durable(machine, counts)
    # and work goes on
    Writer(machine).wait_progress()
    machine.poweroff()
    assert not complaints(machine)
    judge_disk(machine.disk.path, ALL, leaks=None)

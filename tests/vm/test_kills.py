# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of our processes while file systems in their images are written to, on the kernel of the release: that of
Debian 12 cannot be asked to send requests again."""

from guest.images import judge_disk
from guest.look import complaints
from guest.three import ALL, CONFIGURATION, PARTED, PLAIN, Writer, assert_durable, assert_mounted, told

KERNELS = {"bookworm": "6.1.", "trixie": "6.12."}
# What a worker dies with in hand is not given back
LEAKS = 64


def kill_workers(machine, *images):
    for image in images:
        group = machine.show(f"fuseimg@{image.name}.service", "ControlGroup")
        machine.run(f"for pid in $(cat /sys/fs/cgroup{group}/cgroup.procs); do "
                    "[ $(cat /proc/$pid/comm) != fuseimg-worker ] || kill -9 $pid; done")


def kill_supervisor(machine, image):
    unit = f"fuseimg@{image.name}.service"
    pid = machine.show(unit, "MainPID")
    machine.run(f"kill -9 {pid}")
    machine.wait_for(f"systemctl is-active --quiet {unit} && "
                     f"[ $(systemctl show --value --property=MainPID {unit}) != {pid} ]")


def test_kills(boot, suite):
    machine = boot(*ALL, files=CONFIGURATION)
    assert_mounted(machine)
    kernel = machine.run("uname -r")
    print(f"{machine.name}: kernel {kernel}")
    assert kernel.startswith(KERNELS.get(suite, ""))
    writer = Writer(machine)
    writer.wait_progress()
    for _ in range(6):
        kill_workers(machine, *ALL)
        writer.wait_progress()
    for image in (PLAIN, PARTED, PLAIN):
        kill_supervisor(machine, image)
        kill_workers(machine, image)
        writer.wait_progress()
    assert machine.run("systemctl is-active writer") == "active", writer.status()
    assert_durable(machine, told(machine.witness.lines))
    writer.wait_progress()
    machine.poweroff()
    assert not complaints(machine)
    judge_disk(machine.disk.path, ALL, leaks=LEAKS)

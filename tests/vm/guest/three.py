# SPDX-License-Identifier: LGPL-2.1-or-later
"""Three images that a machine mounts at boot, by our configuration: plain, on first use, and a partition."""

from guest.images import Image
from guest.machine import LIMIT

PLAIN, LAZY, PARTED = Image("plain"), Image("lazy", format="raw"), Image("parted", parted=True)
ALL = (PLAIN, LAZY, PARTED)
MORE = {PLAIN: "NOFAIL=no\n", LAZY: "FORMAT=raw\nAUTOMOUNT=yes\n", PARTED: 'PARTITION="PARTLABEL=the data"\n'}
# As /srv/NAME, each
CONFIGURATION = {f"/etc/fuseimg/{image.name}.conf": f"IMAGE={image.inside}\nMOUNT={image.where}\n{more}"
                 for image, more in MORE.items()}


def assert_mounted(machine):
    """What boot has left, without waking the automount."""
    def kind(image):
        return machine.run(f"findmnt --noheadings --output=FSTYPE --mountpoint {image.where}", check=False).split()

    machine.wait_for(f"mountpoint -q {PARTED.where}")
    assert kind(PLAIN) == kind(PARTED) == ["ext4"]
    assert kind(LAZY) == ["autofs"]


def write_files(machine, text):
    """A file in each, on stable storage."""
    for image in ALL:
        machine.run(f"echo '{text} {image.name}' >{image.where}/file && sync {image.where}/file")


def assert_files(machine, text):
    for image in ALL:
        assert machine.run(f"cat {image.where}/file") == f"{text} {image.name}"


class Writer:
    """guest/writer.py at work in all of them, as a service."""

    def __init__(self, machine):
        self.machine = machine
        self.directories = " ".join(image.where for image in ALL)
        machine.run(f"systemd-run --quiet --unit=writer --property='RequiresMountsFor={self.directories}' -- "
                    f"python3 /usr/local/lib/writer.py write {self.directories}")

    def wait_progress(self, timeout=LIMIT):
        """Five more writes in each file system, from here on."""
        before = told(self.machine.witness.lines)
        for image in ALL:
            wanted = before[image.where] + 5
            found = self.machine.witness.wait(f"{image.where} {wanted}", timeout)
            assert found is not None, f"nothing gets on in {image.where}:\n{self.status()}"

    def status(self):
        return self.machine.run("systemctl status --no-pager writer", check=False)


def told(lines):
    """How many writes were said to be durable, for each file system."""
    counts = {image.where: 0 for image in ALL}
    for line in lines:
        where, number = line.split()
        counts[where] = int(number)
    return counts


def assert_durable(machine, counts):
    """At least these writes are there; what is there."""
    machine.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    for where, count in counts.items():
        log, counter = map(int, machine.run(f"python3 /usr/local/lib/writer.py check {where}").split())
        print(f"{machine.name}: {where}: {count} writes were told to be durable, {log} are there")
        assert log >= count and counter >= count, f"{where}: {count} were told, {log} and {counter} are there"

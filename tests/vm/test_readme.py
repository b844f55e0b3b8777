# SPDX-License-Identifier: LGPL-2.1-or-later
"""The session in README.md: install the package, write six lines, reboot; pull the plug. The data is there."""

from guest.images import Image, judge_disk
from guest.look import complaints
from guest.machine import LIMIT

DATA = Image("data", parted=True)
CONFIGURATION = """IMAGE=/var/lib/images/data.qcow2
PARTITION=2
MOUNT=/srv/data
FSTYPE=ext4
MOUNT_OPTIONS=noatime
NOFAIL=no
"""


class Session:
    """What is typed, and what it says, in a file."""

    def __init__(self, machine, path):
        self.machine, self.path = machine, path
        path.write_text("", encoding="utf-8")

    def note(self, text):
        with self.path.open("a", encoding="utf-8") as file:
            print(text, file=file)

    def type(self, command, timeout=LIMIT):
        said = self.machine.run(command, timeout)
        self.note(f"# {command}\n{said}".rstrip("\n"))
        return said


def test_readme(boot, artifacts):
    machine = boot(DATA, installed=False)
    session = Session(machine, artifacts / "session")
    session.type("apt-get install -y ./fuseimg_*.deb", 5 * LIMIT)
    session.type("fuseimg info /var/lib/images/data.qcow2")
    session.type(f"cat >/etc/fuseimg/data.conf <<EOF\n{CONFIGURATION}EOF")
    session.note("# systemctl reboot")
    machine.reboot()

    assert "ext4" in session.type("findmnt /srv/data")
    session.type("echo hello >/srv/data/hello.txt && sync /srv/data/hello.txt")
    session.note("[the power is pulled, and comes back]")
    machine.cut_power()

    machine.boot()
    assert session.type("cat /srv/data/hello.txt") == "hello"
    assert "active (running)" in session.type("systemctl status --no-pager --lines=0 fuseimg@data")
    session.note("# systemctl poweroff")
    machine.poweroff()
    assert not complaints(machine)
    judge_disk(machine.disk.path, [DATA], leaks=None)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""One instance of the service in a machine: its image, its configuration, what is mounted from it."""

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path

from support import images, proc
from support.content import MiB

CLIENT = Path(__file__).with_name("client.py")


class Client:
    """A program in the machine that writes to a file with O_SYNC, so many times at least, and times that. Its last write
    begins after finish()."""

    def __init__(self, machine, path, size=MiB, least=1):
        shutil.copy(CLIENT, machine.srv)
        self.process = machine.start("python3", "/srv/client.py", path, size, least, stdin=-1, stdout=-1, stderr=-1)
        assert self.process.stdout.readline().strip() == "writing", self.process.communicate()

    def freeze(self):
        """SIGSTOP. nsenter, our child, stops itself when it sees that, and passes on the SIGCONT."""
        proc.kill(proc.children(self.process.pid)[0], signal.SIGSTOP)
        proc.wait_until(lambda: proc.stat(self.process.pid)[0] == "T", 10, what="a stopped nsenter")

    def thaw(self):
        proc.kill(self.process.pid, signal.SIGCONT)

    def finish(self, timeout=60):
        out, err = self.process.communicate(timeout=timeout * proc.PATIENCE)
        assert self.process.returncode == 0, err
        return Seen(**json.loads(out))


class Seen:
    """What a client saw."""

    def __init__(self, writes, errors, sha256):
        self.writes, self.errors, self.sha256 = writes, errors, sha256

    def holds(self, content):
        return hashlib.sha256(content).hexdigest() == self.sha256

    def longest(self, begin, end=float("inf")):
        """Of the writes that were under way between two times: how long the longest took, in ms."""
        return max((1000 * took for at, took in self.writes if at + took >= begin and at <= end), default=0)

    def describe(self, begin, end):
        """What it noticed between two times, against what it was used to before."""
        usual, longest = self.longest(0, begin - 0.01), self.longest(begin, end)
        if longest <= max(10, 2 * usual):
            return "nothing"
        return f"a pause of {longest:.0f} ms"


class Export:
    def __init__(self, machine, name, size=128 * MiB, image_format="qcow2", **config):
        self.machine, self.name = machine, name
        escaped = machine.say("systemd-escape", "--", name)
        self.unit = f"fuseimg@{escaped}.service"
        self.mount_unit = f"run-fuseimg-{escaped}.mount"
        self.directory = f"/run/fuseimg/{name}"
        self.disk = f"{self.directory}/disk"
        self.format = image_format
        self.inside_unit = None
        # -f is none for qemu-img
        self.image = machine.srv / f"{name.lstrip('-')}.img".replace(":", "_")
        images.create(self.image, size, format=image_format)
        self.configure(IMAGE=f"/srv/{self.image.name}", FORMAT=image_format, **config)

    def configure(self, **config):
        text = "".join(f'{key}="{value}"\n' for key, value in config.items())
        self.machine.write(f"/etc/fuseimg/{self.name}.conf", text)

    def change_unit(self, **settings):
        """A drop-in for its [Service]."""
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        self.machine.write(f"/etc/systemd/system/{self.unit}.d/test.conf", f"[Service]\n{text}")
        self.machine.systemctl("daemon-reload")

    def systemctl(self, *words, **options):
        return self.machine.systemctl(*words, self.unit, **options)

    def start(self):
        self.systemctl("start")

    def show(self, name):
        return self.machine.show(self.unit, name)

    @property
    def active(self):
        return self.show("ActiveState")

    @property
    def status(self):
        return self.show("StatusText")

    def processes(self):
        """Those of the service by name, as the host numbers them."""
        group = self.machine.path("/sys/fs/cgroup" + self.show("ControlGroup")) / "cgroup.procs"
        try:
            pids = [int(pid) for pid in group.read_text(encoding="ascii").split()]
        except OSError:
            return {}
        # the supervisor's children for a moment's work have its name, too: the eldest counts
        return {proc.comm(pid): pid for pid in sorted(pids, reverse=True)}

    @property
    def supervisor(self):
        return self.processes().get("fuseimg")

    @property
    def worker(self):
        return self.processes().get("fuseimg-worker")

    def wait_worker(self, other_than=None, timeout=20):
        return proc.wait_until(lambda: self.worker not in (None, other_than) and self.worker, timeout,
                               what=f"a worker of {self.unit}")

    def mounted(self):
        return self.machine.run("mountpoint", "-q", self.directory, check=False).returncode == 0

    # a file system in it, by a unit as an administrator would write it

    def make_file_system(self):
        self.machine.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", self.disk)

    def mount_inside(self, required_by="local-fs.target"):
        """Mounts it, through a unit; where."""
        escaped = self.machine.say("systemd-escape", "--", f"inside {self.name}")
        where = f"/inside {self.name}"
        requires = "Requires" if self.machine.version >= 254 else "Wants"
        self.inside_unit = f"{escaped}.mount"
        self.machine.write(f"/etc/systemd/system/{self.inside_unit}", f"""[Unit]
{requires}={self.unit}
After={self.unit}
[Mount]
What={self.disk}
Where={where}
Type=ext4
Options=loop
[Install]
RequiredBy={required_by}
""")
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("start", self.inside_unit)
        return where

    # afterwards

    def check(self, file_system=True):
        """The service, or its machine, has ended: what it left is in order. The image's content, as a raw file."""
        assert not self.machine.alive or not self.mounted(), f"{self.directory} is still mounted"
        if self.format == "qcow2":
            images.check(self.image, leaks=None)
        flat = self.image.with_suffix(".raw")
        images.to_raw(self.image, flat, "-f", self.format)
        if file_system:
            proc.run("e2fsck", "-fn", flat)
        return flat

    def give_up(self):
        """After a test that may have failed: nothing of it stays in the machine."""
        if self.inside_unit:
            self.machine.systemctl("stop", self.inside_unit, check=False)
        self.machine.systemctl("stop", "--no-block", self.unit, check=False)
        end = time.monotonic() + 10
        while self.active in ("deactivating", "active") and time.monotonic() < end:
            time.sleep(0.1)
        self.systemctl("kill", "--signal=KILL", check=False)
        self.machine.run("umount", "--lazy", self.directory, check=False)
        self.systemctl("reset-failed", check=False)

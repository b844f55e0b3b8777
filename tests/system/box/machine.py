# SPDX-License-Identifier: LGPL-2.1-or-later
"""Booting a machine, running commands in it, its orderly and its forced end.

Nothing here speaks to the host's PID 1, and only processes that were started here are ever killed."""

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from support import mounts, proc

LAUNCH = Path(__file__).with_name("launch")
LOOP_NODES = 64
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
               "HOME": "/root", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}

# Every machine that may be alive
live = []


class Machine:
    """`srv` is a directory of the host, /srv in the machine; it outlives the machine."""

    def __init__(self, lower, state, srv, udev=False):
        self.lower, self.state, self.srv = lower, Path(state), Path(srv)
        self.group = f"fuseimg-test-{os.getpid()}-{self.state.name}"
        self.forgiven = []      # what its journal may say, although it looks bad (journal.complaints)
        # udev only runs where /sys can be written
        self.environment = {**os.environ, **({"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"} if udev else {})}
        self.state.mkdir(parents=True)
        self.boot()

    def boot(self):
        with open(self.state / "console", "w", encoding="utf-8") as console:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", LAUNCH, self.group, ":".join(map(str, self.lower)),
                 self.state, f"--bind={self.srv}:/srv", f"--machine={self.group}"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, env=self.environment)
        live.append(self)
        try:
            self.leader = proc.wait_until(self.find_leader, 20, what="a PID 1 in the machine")
            self.make_loop_nodes()
            proc.wait_until(self.booted, 60, every=0.1, what="the end of the boot")
            self.version = int(self.say("systemctl", "--version").split()[1])
        except BaseException:
            self.destroy()
            raise

    def restart(self):
        """With what is on its disk."""
        self.poweroff()
        self.boot()

    @property
    def alive(self):
        return self.process.poll() is None

    def find_leader(self):
        """The process that is PID 1 in a PID namespace of its own."""
        assert self.alive, f"the machine does not start:\n{self.console_text()}"
        for pid in proc.descendants(self.process.pid):
            with contextlib.suppress(OSError, KeyError):
                ids = proc.status_field(pid, "NSpid").split()
                if len(ids) > 1 and ids[-1] == "1" and proc.comm(pid) == "systemd":
                    return pid
        return None

    def make_loop_nodes(self):
        """The kernel makes nodes for the host alone, and udev, where it runs, none at all."""
        for number in range(LOOP_NODES):
            with contextlib.suppress(FileExistsError):
                os.mknod(self.path(f"/dev/loop{number}"), 0o600 | 0o060000, os.makedev(7, number))

    def booted(self):
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded", "maintenance")

    def console_text(self):
        return Path(self.state / "console").read_text(encoding="utf-8", errors="replace")

    def path(self, inside):
        """A path of the machine as the host reaches it."""
        return Path(f"/proc/{self.leader}/root", str(inside).lstrip("/"))

    def words(self, *command):
        environment = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        return ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--",
                "env", "-i", *environment, *map(str, command)]

    def run(self, *command, **options):
        """A command in the machine, to its end."""
        return proc.run(*self.words(*command), **options)

    def start(self, *command, **options):
        """A command in the machine, which goes on."""
        return subprocess.Popen(self.words(*command), text=True, **options)

    def say(self, *command):
        return self.run(*command).stdout.strip()

    def write(self, inside, text):
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def journal(self, *options):
        return self.run("journalctl", "--no-pager", "-o", "short-monotonic", *options).stdout

    # units

    def systemctl(self, *words, **options):
        return self.run("systemctl", *words, **options)

    def show(self, unit, name):
        return self.say("systemctl", "show", "--value", f"--property={name}", unit)

    def related(self, unit, name):
        """The units in one of its properties."""
        return shlex.split(self.show(unit, name))

    def wait_state(self, unit, *states, timeout=30):
        return proc.wait_until(lambda: self.show(unit, "ActiveState") in states, timeout, every=0.05,
                               what=f"{unit} to become {' or '.join(states)}")

    # the end

    def poweroff(self, timeout=60, verb="poweroff"):
        """An orderly end; the seconds that it took. The journal stays readable (journal_of_the_dead). (nspawn, started
        as here, ends at a reboot, too.) verb: None where the machine was told already."""
        begin = time.monotonic()
        if verb:
            self.systemctl(verb, "--no-block")
        self.process.wait(timeout * proc.PATIENCE)
        took = time.monotonic() - begin
        self.destroy()
        return took

    def journal_of_the_dead(self):
        directory = self.state / "upper/var/log/journal"
        return proc.run("journalctl", "--no-pager", "-o", "short-monotonic", "--directory", directory).stdout

    def destroy(self):
        """Whatever is left: the processes of our group, the group, the namespace with its mounts."""
        if self.alive:
            self.process.kill()
        group = cgroup2() / self.group
        if group.exists():
            kill_group(group)
        self.process.wait(20 * proc.PATIENCE)
        if self in live:
            live.remove(self)
        with contextlib.suppress(OSError):      # nspawn leaves it
            Path("/run/systemd/nspawn/propagate", self.group).rmdir()

    def forget(self):
        shutil.rmtree(self.state, ignore_errors=True)


def cgroup2():
    """Where the host has its cgroup2 tree."""
    found = [mount.target for mount in mounts.table() if mount.kind == "cgroup2"]
    assert found, "this host has no cgroup2 tree mounted"
    return Path(found[0])


def kill_group(group):
    (group / "cgroup.kill").write_text("1", encoding="ascii")
    events = group / "cgroup.events"
    proc.wait_until(lambda: "populated 0" in events.read_text(encoding="ascii"), 20, what=f"the end of {group}")
    for below in sorted(group.glob("**/"), key=lambda path: len(path.parts), reverse=True):
        below.rmdir()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""One export: `fuseimg mount` run, its processes, its orderly and its forced end."""

import json
import os
import signal
import subprocess
from pathlib import Path

from support import mounts, proc

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("FUSEIMG_BUILD", ROOT / "build"))
PROGRAM = Path(os.environ.get("FUSEIMG", BUILD / "src/cli/fuseimg"))
WORKER = Path(os.environ.get("FUSEIMG_WORKER", BUILD / "src/worker/fuseimg-worker"))
# Most exports run in the foreground: what their supervisor logs is how a test learns of a worker that
# crashed and was replaced without a trace. 0: as daemons, which is how people use them.
FOREGROUND = os.environ.get("FUSEIMG_TEST_FOREGROUND", "1") == "1"

# Every export that may be alive
live = []


def fuseimg(*words, user=None, env=None, **kwargs):
    """Runs the program to its end."""
    command, as_env = as_user([PROGRAM, *words], user)
    return proc.run(*command, env={**as_env, **(env or {})}, **kwargs)


def as_user(command, user):
    env = {"FUSEIMG_WORKER": str(WORKER)}
    if user is None:
        return command, env
    env.update(HOME=str(user.home), XDG_RUNTIME_DIR=str(user.runtime), USER=user.name)
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--", *command], env


def option_words(options):
    """Keyword arguments as the words behind -o: True is the key alone."""
    words = []
    for key, value in options.items():
        escaped = str(value).replace("\\", "\\\\").replace(",", "\\,")
        words.append(key if value is True else f"{key}={escaped}")
    return ["-o", ",".join(words)] if words else []


def listed(user=None):
    return json.loads(fuseimg("list", "--json", user=user).stdout)


class MountFailed(AssertionError):
    """`fuseimg mount` answered with an error: what it said, and how it ended."""

    def __init__(self, words, returncode, stderr):
        super().__init__(f"fuseimg {' '.join(map(str, words))} ended with {returncode}\n{stderr}")
        self.returncode, self.stderr = returncode, stderr


class Export:
    """An image mounted at a target (a file, or a directory that then holds `disk`)."""

    def __init__(self, image, target, user=None, directory=None, daemon=False, **options):
        self.image, self.target, self.user = Path(image), Path(target), user
        # a dead mount may stand there, which nobody may touch
        self.directory = not mounts.at(target) and self.target.is_dir() if directory is None else directory
        self.path = self.target / "disk" if self.directory else self.target
        self.process = None
        self.log = None
        self.said = ""
        self.workers_died = False   # a test that kills workers says so
        live.append(self)
        words = ["mount", image, target, *option_words(options)]
        if FOREGROUND and not daemon:
            self.start_foreground(words)
        else:
            done = fuseimg(*words, user=user, check=False)
            if done.returncode != 0:
                live.remove(self)
                raise MountFailed(words, done.returncode, done.stderr)
            self.said = done.stdout + done.stderr
        self.supervisor = self.find_supervisor()
        self.first_worker = self.worker

    def start_foreground(self, words):
        command, env = as_user([PROGRAM, *words, "-f"], self.user)
        self.log = Path(f"{self.target}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **env})
        proc.wait_until(lambda: "is mounted on" in self.log.read_text() or self.process.poll() is not None,
                        what="the mount")
        if self.process.poll() is not None:
            live.remove(self)
            raise MountFailed(words, self.process.returncode, self.log.read_text())

    def find_supervisor(self):
        if self.process:
            return self.process.pid
        for entry in listed(self.user):
            if entry["target"] == str(self.target.parent.resolve() / self.target.name):
                return entry["pid"]
        raise AssertionError(f"fuseimg list does not show {self.target}: {listed(self.user)}")

    @property
    def mounted(self):
        return mounts.at(self.target) is not None

    @property
    def worker(self):
        """The process that serves, or None while there is none."""
        return proc.worker_of(self.supervisor)

    def wait_worker(self, other_than=None):
        return proc.wait_until(lambda: self.worker not in (None, other_than) and self.worker, what="a new worker")

    def kill_worker(self):
        """kill -9 of the worker that is there; its pid."""
        self.workers_died = True
        pid = self.wait_worker()
        proc.kill(pid)
        return pid

    def open(self, flags=os.O_RDWR):
        return os.open(self.path, flags)

    def read(self):
        return self.path.read_bytes()

    def umount(self, timeout=60):
        """The orderly end: durable, both processes gone, and the worker was the first one's."""
        if not self.workers_died:
            assert self.worker == self.first_worker, f"the worker of {self.image} died and was replaced"
        fuseimg("umount", self.target, user=self.user, timeout=timeout)
        assert not self.mounted
        self.wait_end()

    def wait_end(self, timeout=20):
        if self.process:
            status = self.process.wait(timeout * proc.PATIENCE)
            log = self.log.read_text()
            assert status == 0, f"the supervisor ended with {status}\n{log}"
            assert "Sanitizer" not in log and "runtime error" not in log, log
            assert self.workers_died or "next worker" not in log, log
        else:
            proc.wait_until(lambda: not proc.alive(self.supervisor), timeout, what="the end of the supervisor")
        live.remove(self)

    def abort(self):
        """By force: whoever waits for an answer gets an error."""
        pids = []
        if getattr(self, "supervisor", None):
            pids = [self.supervisor, *proc.descendants(self.supervisor)]
        elif self.process:
            pids = [self.process.pid, *proc.descendants(self.process.pid)]
        for pid in pids:
            proc.kill(pid)
        mount = mounts.at(self.target)
        if mount:
            minor = mount.device.split(":")[1]
            try:
                Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
            except OSError:
                pass

    def close(self):
        """For fixtures: nothing stays behind, whatever the test did. Never raises."""
        if self not in live:
            return
        live.remove(self)
        if self.mounted:
            try:
                fuseimg("umount", self.target, user=self.user, check=False, timeout=10)
            except subprocess.TimeoutExpired:
                pass
        if self.process:
            proc.kill(self.process.pid, signal.SIGTERM)
        else:
            self.stop_quietly()
        self.abort()
        while self.mounted:
            if proc.run("umount", "--lazy", self.target, check=False).returncode != 0:
                break
        if self.process:
            self.process.wait()

    def stop_quietly(self):
        pid = getattr(self, "supervisor", None)
        if pid:
            try:
                proc.wait_until(lambda: not proc.alive(pid), 2)
            except AssertionError:
                pass

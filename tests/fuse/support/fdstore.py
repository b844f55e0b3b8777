# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service as systemd runs it, as far as its process can tell: a notification socket with an fd store
behind it, and a new start that is handed what was stored."""

import array
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from support import mounts, proc
from support.export import PROGRAM, WORKER, option_words

# Puts the inherited descriptors where sd_listen_fds(3) says they are, then becomes the program
LAUNCHER = """
import fcntl, os, sys
fds = [int(word) for word in sys.argv[1].split(",") if word]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for fd in fds]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, inheritable=True)
for fd in high:
    os.close(fd)
if fds:
    os.closerange(3 + len(fds), 500)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class StoredService:
    """`fuseimg WORDS...`, started again by start() after its death. Its export stands at target."""

    def __init__(self, work, target, words, environment=None, program=PROGRAM):
        self.program = program
        self.target, self.words, self.environment = Path(target), words, environment or {}
        self.path = self.target
        self.log = Path(f"{target}.log")
        self.store = {}             # name -> [fd]
        self.said = []              # every message, as text
        self.lock = threading.Lock()
        self.settled = threading.Event()
        self.process = None
        address = str(work / "notify")
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            try:
                text, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(4 * 256))
            except OSError:
                return
            fds = array.array("i")
            for level, kind, data in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(data)
            if text == b"end":
                return
            if text == b"settle":
                self.settled.set()
                continue
            with self.lock:
                self.hear(text.decode(), list(fds))

    def hear(self, text, fds):
        self.said.append(text)
        pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        name = pairs.get("FDNAME", "stored")
        if "FDSTORE" in pairs:
            self.store.setdefault(name, []).extend(fds)
            return
        if "FDSTOREREMOVE" in pairs:
            fds += self.store.pop(name, [])
        for fd in fds:              # also what BARRIER=1 brings: closing it is the answer
            os.close(fd)

    def tell(self, text):
        """A message from us to listen()."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text, self.address)

    def settle(self):
        """Returns when all that the program has said before was heard; systemd, too, hears that before it learns that
        a process has ended, and starts the next one."""
        self.settled.clear()
        self.tell(b"settle")
        assert self.settled.wait(60), "what keeps the descriptors does not listen"

    def start(self):
        """Starts the program with all that is stored, in an order of its own; returns when it is ready."""
        before = self.ready_count()
        self.settle()
        with self.lock:
            stored = sorted((name, fd) for name, fds in self.store.items() for fd in fds)
        stored.reverse()
        words = [sys.executable, "-c", LAUNCHER, ",".join(str(fd) for _, fd in stored),
                 ":".join(name for name, _ in stored), self.program, *self.words]
        with self.log.open("a") as log:
            self.process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, pass_fds=[fd for _, fd in stored],
                                            env={**os.environ, "FUSEIMG_WORKER": str(WORKER), "NOTIFY_SOCKET": self.address, **self.environment})
        proc.wait_until(lambda: self.ready_count() > before or self.process.poll() is not None, 60, what="the start")
        assert self.process.poll() is None, self.log.read_text()
        if before == 0:
            # The kernel learns that it need not ask at close(2). Otherwise the child that we fork for the
            # next start would ask, and wait for the program that it is to become.
            os.close(os.open(self.path, os.O_RDONLY))
        self.settle()
        return self

    def ready_count(self):
        """How often a worker came to serve."""
        if not self.log.exists():
            return 0
        text = self.log.read_text()
        return text.count("is mounted on") + text.count("the next worker")

    @property
    def supervisor(self):
        return self.process.pid

    @property
    def worker(self):
        return proc.worker_of(self.process.pid)

    def kill(self, *pids):
        """kill -9 of the supervisor, and of others at the same time; returns when it is dead."""
        for pid in (self.process.pid, *pids):
            if pid:
                proc.kill(pid)
        self.process.wait()

    def reload(self):
        before = self.ready_count()
        os.kill(self.process.pid, signal.SIGHUP)
        proc.wait_until(lambda: self.ready_count() > before, 60, what="the reload")

    def stop(self, timeout=60):
        """SIGTERM, and all that an orderly end leaves: nothing."""
        device = mounts.at(self.target).device
        os.kill(self.process.pid, signal.SIGTERM)
        try:
            status = self.process.wait(timeout * proc.PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end; also mounted for {mounts.elsewhere(device)}\n{self.log.read_text()}") from None
        text = self.log.read_text()
        assert status == 0, text
        assert "Sanitizer" not in text and "runtime error" not in text, text
        assert mounts.at(self.target) is None
        proc.wait_until(lambda: not self.store, 30, what="an empty fd store")

    def drop(self):
        """As systemd does when it gives up on a service."""
        with self.lock:
            for fds in self.store.values():
                for fd in fds:
                    os.close(fd)
            self.store = {}

    def close(self):
        if self.process and self.process.poll() is None:
            workers = proc.descendants(self.process.pid)
            self.kill(*workers)
        self.drop()
        while mounts.at(self.target):
            if proc.run("umount", "--lazy", self.target, check=False).returncode != 0:
                break
        self.tell(b"end")
        self.thread.join(5)
        self.socket.close()


def mount_words(image, target, **options):
    return ["mount", "-f", image, target, *option_words(options)]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A time limit for a test that may hang in a system call on our own mount.

A signal alone does not help: a request that the worker has taken over is waited for until it is
answered. So the exports of this run are killed first, which answers it with an error; then a signal
raises TestTimeout in the test. All this happens in a process of its own: a thread would need the
interpreter's lock, which a hanging fork holds."""

import faulthandler
import os
import select
import signal
import sys
from pathlib import Path

from support import proc

GRACE = 30  # seconds from the limit to the end of the whole run


class TestTimeout(Exception):
    __test__ = False


def raise_timeout(_number, _frame):
    raise TestTimeout("the test took longer than its limit")


class Watchdog:
    """One per run. mark: what the command line of every process that we start for a test contains."""

    def __init__(self, mark):
        self.mark = mark
        signal.signal(signal.SIGUSR1, raise_timeout)
        faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
        reading, self.writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.writing)
            try:
                self.watch(reading, os.getppid())
            finally:
                os._exit(0)
        os.close(reading)

    def start(self, seconds):
        os.write(self.writing, f"{seconds}\n".encode())

    def stop(self):
        os.write(self.writing, b"0\n")

    def close(self):
        os.close(self.writing)
        os.waitpid(self.pid, 0)

    # the other process

    def watch(self, reading, tests):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        limit, bitten = 0.0, False
        while True:
            ready, _, _ = select.select([reading], [], [], limit or None)
            if ready:
                words = os.read(reading, 4096).split()
                if not words:
                    return
                limit, bitten = float(words[-1]), False
            elif bitten:
                print("\nwatchdog: the test does not end; ending the run", file=sys.__stderr__, flush=True)
                os.kill(tests, signal.SIGKILL)
                return
            else:
                print(f"\nwatchdog: {limit:g} s are over, here is where everybody stands", file=sys.__stderr__, flush=True)
                self.bite(tests)
                limit, bitten = GRACE, True

    def bite(self, tests):
        os.kill(tests, signal.SIGUSR2)
        for pid in self.exports():
            for each in (pid, *proc.descendants(pid)):
                proc.kill(each)
        os.kill(tests, signal.SIGUSR1)

    def exports(self):
        for entry in os.listdir("/proc"):
            if entry.isdigit() and proc.comm(entry) == "fuseimg":
                try:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                if self.mark.encode() in command:
                    yield int(entry)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""One running export: started, awaited, and ended for certain.

The target is an empty placeholder file that the daemon mounts over. All daemons are started the same way,
in the foreground, and watched from outside, so that "ready" means the same for each: the first read of
the export succeeded. A daemon that hangs would hang whoever touches its mount, this program included;
therefore a timer kills it, which ends the waiting with an error.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass, field

import process

START_LIMIT_S = 20
STOP_LIMIT_S = 60
POLL_S = 0.0003


class ExportError(Exception):
    """The daemon did not serve, or did not stop as it should."""


@dataclass
class Launch:
    """How to run a daemon. Without a stop command SIGTERM stops it."""

    command: list
    environment: dict = field(default_factory=dict)
    stop: list = field(default_factory=list)


class Export:
    """Context manager: the export stands between enter and exit."""

    def __init__(self, launch, target, size):
        self.target = target
        self.ready_ms = 0.0
        self._launch = launch
        self._size = size
        self._process = None
        self._log = target + ".log"

    def __enter__(self):
        with open(self.target, "wb"):
            pass
        placeholder = os.stat(self.target).st_dev
        try:
            self._start(placeholder)
        except BaseException:
            self._end_hard()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            self._stop()
        except (OSError, subprocess.SubprocessError) as error:
            if kind is None:
                raise ExportError(f"stopping {self._name()}: {error}") from None
        finally:
            self._end_hard()

    def resident_mib(self):
        return process.resident_mib(self._process.pid)

    def _start(self, placeholder):
        began = time.monotonic()
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(self._launch.command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, start_new_session=True,
                                             env={**os.environ, **self._launch.environment})
        guard = threading.Timer(START_LIMIT_S, process.kill_tree, [self._process.pid])
        guard.start()
        try:
            self._await_read(placeholder)
        except OSError as error:
            raise ExportError(f"{self._name()} does not serve: {error}; {self._said()}") from None
        finally:
            guard.cancel()
        self.ready_ms = (time.monotonic() - began) * 1000

    def _await_read(self, placeholder):
        while os.stat(self.target).st_dev == placeholder:
            status = self._process.poll()
            if status is not None:
                raise ExportError(f"{self._name()} ended with {status}: {self._said()}")
            time.sleep(POLL_S)
        with open(self.target, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if len(file.read(4096)) != 4096 or size != self._size:
                raise ExportError(f"{self._name()} shows {size} bytes, not {self._size}")

    def _stop(self):
        if self._launch.stop:
            done = subprocess.run(self._launch.stop, env={**os.environ, **self._launch.environment},
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=STOP_LIMIT_S, check=False)
            if done.returncode:
                raise OSError(f"exit status {done.returncode} of its stop command: {done.stdout.strip()}")
        else:
            self._process.terminate()
        status = self._process.wait(STOP_LIMIT_S)
        if status:
            raise OSError(f"exit status {status}: {self._said()}")

    def _end_hard(self):
        """Whatever happened before: no process and no mount is left."""
        if self._process and self._process.poll() is None:
            process.kill_tree(self._process.pid)
            self._process.wait()
        while mounted_under(self.target):
            subprocess.run(["umount", "--lazy", self.target], stderr=subprocess.DEVNULL, check=True)

    def _name(self):
        return os.path.basename(self.target)

    def _said(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return " / ".join(file.read().splitlines()[-3:]) or "(it said nothing)"


def mounted_under(path):
    """Mount points at or below `path`; looks at no file, so that no dead mount can hang it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        points = [line.split()[4] for line in file]
    return [point for point in points if point == path or point.startswith(path + "/")]

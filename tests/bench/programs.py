# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that are compared, and the setting in which each runs.

QEMU's export is given what measured best on the machine of record (2 cores, kernel 6.18), page cache on
as in fuseimg (cache.direct=off is its default):

* io_uring instead of its default of threads for reads (twice the requests at depth 32) and for parallel
  writes; threads for writes at depth 1, where handing over to the kernel's workers costs 10 % more;
* an I/O thread for reads, two from 10.1 on, which spreads one export over several;
  none for writes before that, where it costs a tenth.

With `tuned` off it runs as it comes, with its default of threads and no I/O thread.
"""

import json
import os
import re
import subprocess

from export import ExportError, Launch

WRITE_SAFE_SINCE = (10, 0)      # earlier: data of parallel direct writes may be overwritten in flight
MULTITHREADED_SINCE = (10, 1)   # one export on several I/O threads


class Fuseimg:
    """The build under test."""

    key = "fuseimg"
    label = "fuseimg"

    def __init__(self, build):
        self._program = os.path.join(os.path.abspath(build), "src/cli/fuseimg")
        worker = os.path.join(os.path.abspath(build), "src/worker/fuseimg-worker")
        for path in (self._program, worker):
            if not os.access(path, os.X_OK):
                raise ExportError(f"{path}: not built (ninja -C {build})")
        self._environment = {"FUSEIMG_WORKER": worker}
        self.version = _first_line([self._program, "--version"])
        self.setting = f"defaults; built as {_buildtype(build)}"

    def can(self, _row):
        return True

    def launch(self, image, target, _row):
        return Launch([self._program, "mount", image, target, "-f"], self._environment,
                      [self._program, "umount", target])


class Qemu:
    """A qemu-storage-daemon, from the command that runs it."""

    def __init__(self, key, command, tuned=True):
        self.key = key
        self._command = command
        self._tuned = tuned
        self.version = _first_line([*command, "--version"])
        self._number = _number(self.version)
        self.label = f"QEMU {self._number[0]}.{self._number[1]}"
        self.setting = "defaults" if not tuned else (
            f"reads: io_uring, I/O threads: {self._iothreads(False)}; "
            f"writes: threads at depth 1, io_uring else, I/O threads: {self._iothreads(True)}")

    def can(self, row):
        return self._number >= WRITE_SAFE_SINCE or not row.parallel_writes

    def launch(self, image, target, row):
        threads = [f"io{i}" for i in range(self._iothreads(row.writes))]
        options = [option for name in threads for option in ("--object", f"iothread,id={name}")]
        return Launch([*self._command, *options,
                       "--blockdev", json.dumps(_blockdev(image, self._aio(row))),
                       "--export", json.dumps(_export(target, threads))])

    def _aio(self, row):
        threads = not self._tuned or (row.writes and not row.parallel_writes)
        return "threads" if threads else "io_uring"

    def _iothreads(self, writes):
        if not self._tuned:
            return 0
        if self._number >= MULTITHREADED_SINCE:
            return 2
        return 0 if writes else 1


def _buildtype(build):
    """As meson has it, with the sanitizers, which explain slow numbers."""
    try:
        with open(os.path.join(build, "meson-info/intro-buildoptions.json"), encoding="utf-8") as file:
            options = {option["name"]: option["value"] for option in json.load(file)}
    except OSError:
        return "unknown"
    sanitizers = "".join(options.get("b_sanitize", [])) or "none"   # a list since meson 1.8
    return options["buildtype"] + ("" if sanitizers == "none" else f", sanitizers: {sanitizers}")


def _blockdev(image, aio):
    return {"driver": "qcow2", "node-name": "disk", "discard": "unmap",
            "file": {"driver": "file", "filename": image, "aio": aio, "discard": "unmap"}}


def _export(target, threads):
    export = {"type": "fuse", "id": "export", "node-name": "disk", "mountpoint": target,
              "writable": True, "growable": False, "allow-other": "off"}
    if threads:
        export["iothread"] = threads[0] if len(threads) == 1 else threads
    return export


def _first_line(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode or not done.stdout:
        raise ExportError(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout.splitlines()[0]


def _number(version):
    found = re.search(r"(\d+)\.(\d+)", version)
    if not found:
        raise ExportError(f"no version number in '{version}'")
    return int(found[1]), int(found[2])

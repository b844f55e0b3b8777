# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mount table."""

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def begin_namespace():
    """What this process and its children mount from now on is seen by nobody else. Else another test's machine, which
    begins with a copy of all mounts, keeps a file system alive when we unmount it, and its device in use."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace for the tests")


@dataclass
class Mount:
    device: str     # major:minor
    target: str
    options: list   # of the mount
    kind: str
    source: str
    super_options: list


def unescape(field):
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


def table():
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, right = line.split(" - ", 1)
        left, right = left.split(), right.split(" ")
        found.append(Mount(left[2], unescape(left[4]), left[5].split(","), right[0], unescape(right[1]),
                           right[2].split(",")))
    return found


def at(target):
    """The topmost mount at a target, or None. Does not touch the target itself."""
    parent, name = os.path.split(os.path.abspath(target))
    path = os.path.join(os.path.realpath(parent), name)
    found = [mount for mount in table() if mount.target == path]
    return found[-1] if found else None


def below(directory):
    """Targets at or below a directory, innermost first."""
    directory = os.path.realpath(directory)
    return [mount.target for mount in reversed(table())
            if mount.target == directory or mount.target.startswith(directory + "/")]


def elsewhere(device):
    """Processes in other mount namespaces that still have this file system: it lives as long as they do."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
            if any(line.split()[2] == device and " fuse.fuseimg " in line for line in lines):
                found.append((int(pid), Path(f"/proc/{pid}/comm").read_text().strip()))
        except OSError:
            continue
    return found

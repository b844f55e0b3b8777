# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon's processes, by pid only: who they are, what they hold in memory, how to end them."""

import contextlib
import glob
import os
import signal


def tree(pid):
    """`pid` and all its descendants that live."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(_children(one))
    return found


def _children(pid):
    children = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            children.extend(int(word) for word in file.read().split())
    return children


def resident_mib(pid):
    """Proportional set size of the whole tree: shared pages count once, not once per process."""
    return sum(_pss_kib(one) for one in tree(pid)) / 1024


def _pss_kib(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def kill_tree(pid):
    for one in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)

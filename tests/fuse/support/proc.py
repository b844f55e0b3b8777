# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes: running them, waiting for them, finding them in /proc."""

import os
import signal
import subprocess
import time
from pathlib import Path

# Sanitizer builds are several times slower
SLOW = float(os.environ.get("FUSEIMG_TEST_SLOW", "1"))
# All limits are for a quiet machine: one that does other things has so many times as long
PATIENCE = SLOW + 5


def run(*command, check=True, timeout=60, env=None, **kwargs):
    """Runs to the end, output captured as text; a failure shows all of it."""
    command = [str(word) for word in command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace",
                          timeout=timeout * PATIENCE, stdin=subprocess.DEVNULL,
                          env={**os.environ, **env} if env else None, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_until(condition, timeout=10, every=0.02, what="the condition"):
    """The first true value of condition()."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout * PATIENCE:g} s")
        time.sleep(every)


def soon(act, seconds, tries=10):
    """Does it again until it took less than that: where it has to wait for something that takes longer, it never will,
    and a machine that does other things may keep anybody waiting once."""
    took = []
    for _ in range(tries):
        begin = time.monotonic()
        act()
        took.append(time.monotonic() - begin)
        if took[-1] < seconds * SLOW:
            return
    raise AssertionError(f"never within {seconds * SLOW:g} s: {took}")


def freeze(pid):
    """SIGSTOP; returns when every thread has noticed."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(stat(f"{pid}/task/{task}")[0] == "T" for task in os.listdir(f"/proc/{pid}/task")),
               what="a process that stands still")


def cpu(*pids):
    """Seconds that the processes, and children of theirs that have ended, have run: what else the machine does is no part
    of that. Without any: those of our children that have ended."""
    if not pids:
        times = os.times()
        return times.children_user + times.children_system
    return sum(int(field) for pid in pids for field in stat(pid)[11:15]) / os.sysconf("SC_CLK_TCK")


def alive(pid):
    """Runs, with any of its threads; a zombie does not."""
    try:
        return stat(pid)[0] not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def stat(pid):
    """State, parent and the rest of /proc/PID/stat."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = stat(entry)
            except OSError:
                continue
            if fields[1] == str(pid) and fields[0] not in "ZX":
                found.append(int(entry))
    return found


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def worker_of(supervisor):
    """The process that serves, or None while there is none."""
    return next((pid for pid in descendants(supervisor) if comm(pid) == "fuseimg-worker"), None)


def kill(pid, number=signal.SIGKILL):
    """Sends the signal; no complaint about a process that is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def status_field(pid, key):
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split(":", 1)[1].strip()
    raise KeyError(key)

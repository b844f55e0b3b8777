# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the numbers were measured on."""

import contextlib
import datetime
import os
import subprocess

BUSY_LOAD = 0.5


def describe(directory):
    return {"date": datetime.date.today().isoformat(),
            "cpu": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
            "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
            "kernel": os.uname().release,
            "image on": _output(["findmnt", "-no", "FSTYPE", "-T", directory]),
            "fio": _output(["fio", "--version"]),
            "load before": f"{os.getloadavg()[0]:.2f}"}


def busy():
    """True where something else computes: the numbers will not be worth much."""
    return os.getloadavg()[0] > BUSY_LOAD


@contextlib.contextmanager
def awake(wanted):
    """Keeps idle CPUs polling while it lasts (PM QoS: no wake-up latency allowed; ends with the fd).

    A virtual CPU that goes idle is halted and has to be woken through the hypervisor. At depth 1 that is
    most of a request: with it, 13k and 45k requests per second come from one and the same daemon, as the
    scheduler happens to place it. Without it what is left is the daemon's own path."""
    with contextlib.ExitStack() as held:
        if wanted:
            qos = held.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
            qos.write(bytes(4))
        yield


def _field(path, name):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return "unknown"


def _output(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip() or "unknown"

#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in the machine: writes with fsync, and tells the host of each write that is on stable storage.

writer.py write DIR...: a thread for each appends blocks to DIR/log and overwrites DIR/counter, again and again. What is
durable is told through the port that machine.py listens to, as `DIR NUMBER`.
writer.py check DIR: prints how many blocks the log holds without a mistake, and the counter."""

import hashlib
import os
import sys
import threading
from pathlib import Path

PORT = "/dev/virtio-ports/witness"
BLOCK = 16 << 10
MOST = 2000     # 32 MiB


def block(number):
    return hashlib.sha256(str(number).encode()).digest() * (BLOCK // 32)


def durable(fd, off, data):
    if os.pwrite(fd, data, off) != len(data):
        raise OSError("a short write")
    os.fsync(fd)


def write(directory, port):
    """Goes on where an earlier one ended. An error ends the process, and with it the other threads."""
    try:
        log, counter = (os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT, 0o600) for name in ("log", "counter"))
        for number in range(os.fstat(log).st_size // BLOCK, MOST):
            durable(log, number * BLOCK, block(number))
            durable(counter, 0, f"{number + 1:<4096}".encode())
            os.write(port, f"{directory} {number + 1}\n".encode())
    except OSError as error:
        print(f"{directory}: {error}", flush=True)
        os._exit(1)


def check(directory):
    """What is no block of its number, or only half of one, ends the log."""
    content = Path(directory, "log").read_bytes()
    number = 0
    while content[number * BLOCK:(number + 1) * BLOCK] == block(number):
        number += 1
    return number, int(Path(directory, "counter").read_text(encoding="ascii") or 0)


def main():
    what, *directories = sys.argv[1:]
    if what == "check":
        print(*check(directories[0]))
        return
    port = os.open(PORT, os.O_WRONLY)
    for directory in directories:
        threading.Thread(target=write, args=(directory, port)).start()


main()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in the machine: writes to a file with O_SYNC until its standard input is closed, then says what it saw.

client.py PATH BYTES [COUNT]: the file's first BYTES are written over and over, block by block, COUNT times at least,
and once more after it was told to stop. Prints a line when it has begun, and at its end one of JSON: when each write began and how long it took (CLOCK_MONOTONIC, the same
in and outside of the machine), errors, and the hash of what the file must hold."""

import hashlib
import json
import os
import select
import sys
import time

BLOCK = 4096


def stopped():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main():
    path, size, least = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    content = bytearray(size)
    flags = os.O_RDWR | os.O_SYNC | (0 if os.path.exists(path) else os.O_CREAT)
    fd = os.open(path, flags, 0o600)
    writes, errors = [], []
    os.pwrite(fd, content, 0)
    print("writing", flush=True)
    last = False
    while not last and not errors:
        last = len(writes) >= least and stopped()
        turn = len(writes)
        off = turn * BLOCK % size
        data = turn.to_bytes(8, "little") * (BLOCK // 8)
        begin = time.monotonic()
        try:
            if os.pwrite(fd, data, off) != BLOCK:
                errors.append("a short write")
            content[off:off + BLOCK] = data
            if os.pread(fd, BLOCK, off) != data:
                errors.append("read back something else than was written")
        except OSError as error:
            errors.append(error.strerror)
        writes.append((begin, time.monotonic() - begin))
    try:
        os.close(fd)
    except OSError as error:
        errors.append(error.strerror)
    print(json.dumps({"writes": writes, "errors": errors, "sha256": hashlib.sha256(content).hexdigest()}))


main()

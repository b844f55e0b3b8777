# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes that tell where they belong, and a flat model of a disk that several writers write to."""

import itertools
import os
import random
import threading
import traceback
from pathlib import Path

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def random_bytes(seed, length):
    return random.Random(seed).randbytes(length)


def squeezable(seed, length):
    """Unique in every sector, and still half its size when compressed."""
    rng = random.Random(seed)
    lines = (b"%08x the rest of this line repeats all over the disk image %08x\n" % (n, rng.getrandbits(32))
             for n in range(length // 64 + 1))
    return b"".join(lines)[:length]


def first_difference(a, b):
    """Index of the first differing byte of two equally long buffers, or None."""
    if a == b:
        return None
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def assert_same(path, model, chunk=MiB):
    """The file holds exactly the model's bytes (a buffer, or another file's path)."""
    if isinstance(model, (str, Path)):
        model = Path(model).read_bytes()
    size = os.stat(path).st_size
    assert size == len(model), f"{path}: {size} bytes, not {len(model)}"
    view = memoryview(model)
    with open(path, "rb", buffering=0) as f:
        for off in range(0, size, chunk):
            want = view[off:off + chunk]
            got = f.read(len(want))
            if got != want:
                assert len(got) == len(want), f"{path}: short read of {len(got)} at {off}"
                at = first_difference(got, bytes(want))
                raise AssertionError(f"{path}: differs at {off + at:#x}: {got[at:at + 16].hex()}, "
                                     f"should be {bytes(want[at:at + 16]).hex()}")


def stripes(seed, size, writers):
    """Cuts [0, size) at odd places and deals the pieces out: each writer owns bytes, shares clusters."""
    rng = random.Random(seed)
    owned = [[] for _ in range(writers)]
    off, turn = 0, 0
    while off < size:
        length = min(size - off, rng.choice([1, 511, 512, 700, 3000, 4096, 10007, 65536, 200003]))
        owned[turn % writers].append((off, length))
        off += length
        turn += 1
    return owned


def endless(seed, owned):
    """Writes (offset, length, seed) inside what a writer owns."""
    rng = random.Random(seed)
    weights = list(itertools.accumulate(length + 512 for _, length in owned))
    while True:
        start, length = rng.choices(owned, cum_weights=weights)[0]
        if rng.random() < 0.3:
            begin, end = 0, length
        else:
            begin, end = sorted((rng.randrange(length + 1), rng.randrange(length + 1)))
        if end > begin:
            yield start + begin, end - begin, rng.getrandbits(64)


def plan(seed, owned, count):
    """The first so many of them."""
    return list(itertools.islice(endless(seed, owned), count))


def apply(model, writes):
    for off, length, seed in writes:
        model[off:off + length] = random_bytes(seed, length)


def write_all(fd, data, off):
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, off)
        view, off = view[done:], off + done


def execute(path, writes, flags=os.O_WRONLY):
    """The writes of one writer, through a descriptor of its own."""
    fd = os.open(path, flags)
    try:
        for off, length, seed in writes:
            write_all(fd, random_bytes(seed, length), off)
    finally:
        os.close(fd)


def in_threads(jobs):
    """Runs the callables at once and raises what the first failed one raised."""
    errors = []

    def guarded(job):
        try:
            job()
        except BaseException as error:  # pylint: disable=broad-except
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def in_processes(jobs):
    """The same, each in a process of its own."""
    pids = []
    for job in jobs:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                job()
                status = 0
            except BaseException:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                os._exit(status)
        pids.append(pid)
    failed = [pid for pid in pids if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0]
    assert not failed, "a writing process failed"

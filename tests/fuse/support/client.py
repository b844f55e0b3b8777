# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that does at random what can be done to a mounted file, in bytes that are its own, and knows
what they must be. The model is memory that all such processes share."""

import mmap
import os
import random
import time

from support.content import first_difference, write_all
from support.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, direct_read, direct_write, fallocate


def shared(content, size):
    """A model of size bytes: content, and zeroes behind it."""
    model = mmap.mmap(-1, size)
    model[:len(content)] = content
    return model


class Client:
    """owned: the (offset, length) that nobody else changes."""

    def __init__(self, path, model, owned, seed, direct):
        self.path, self.model, self.owned = path, model, owned
        self.rng = random.Random(seed)
        self.direct = direct
        self.weights = [length + 512 for _, length in owned]
        self.done = 0

    def run(self, seconds):
        self.buffered_fd = os.open(self.path, os.O_RDWR)
        self.direct_fd = os.open(self.path, os.O_RDWR | os.O_DIRECT) if self.direct else self.buffered_fd
        end = time.monotonic() + seconds
        kinds = [self.write] * 8 + [self.read] * 4 + [self.punch] * 3 + [self.zero] * 2 + [self.allocate, self.sync]
        while time.monotonic() < end or self.done < 20:
            off, length = self.somewhere()
            self.rng.choice(kinds)(off, length)
            self.done += 1
        os.close(self.buffered_fd)

    def somewhere(self):
        start, length = self.rng.choices(self.owned, self.weights)[0]
        unit = 4096 if self.direct else 1
        first, last = sorted(self.rng.randrange(length // unit + 1) for _ in range(2))
        if self.rng.random() < 0.3 or first == last:
            return start, length
        return start + first * unit, (last - first) * unit

    def uncached(self):
        return self.direct and self.rng.random() < 0.5

    def write(self, off, length):
        data = self.rng.randbytes(length)
        if self.uncached():
            assert direct_write(self.direct_fd, data, off) == length, f"a short write of {length} bytes at {off}"
        else:
            write_all(self.buffered_fd, data, off)
        self.model[off:off + length] = data

    def read(self, off, length):
        if self.uncached():
            data = bytes(direct_read(self.direct_fd, length, off))
        else:
            data = os.pread(self.buffered_fd, length, off)
        want = self.model[off:off + length]
        if data != want:
            assert len(data) == length, f"a short read of {len(data)} bytes at {off}"
            at = first_difference(data, want)
            raise AssertionError(f"byte {off + at} is {data[at]:#x}, not {want[at]:#x} (operation {self.done})")

    def punch(self, off, length):
        fallocate(self.buffered_fd, PUNCH_HOLE | KEEP_SIZE, off, length)
        self.model[off:off + length] = bytes(length)

    def zero(self, off, length):
        fallocate(self.buffered_fd, ZERO_RANGE | self.rng.choice([0, KEEP_SIZE]), off, length)
        self.model[off:off + length] = bytes(length)

    def allocate(self, off, length):
        fallocate(self.buffered_fd, self.rng.choice([0, KEEP_SIZE]), off, length)

    def sync(self, _off, _length):
        self.rng.choice([os.fsync, os.fdatasync])(self.buffered_fd)


class Grower(Client):
    """Has all behind the first `base` bytes, and makes the file longer and shorter there."""

    def __init__(self, path, model, base, seed):
        super().__init__(path, model, [(base, len(model) - base)], seed, direct=False)
        self.base = base

    def somewhere(self):
        if self.rng.random() < 0.2:
            self.resize()
        size = os.fstat(self.buffered_fd).st_size
        if size == self.base:
            self.resize(self.base + 5001)
            size = self.base + 5001
        first, last = sorted(self.rng.sample(range(self.base, size + 1), 2))
        return first, last - first

    def resize(self, size=None):
        if size is None:
            size = self.rng.choice([self.base, self.rng.randrange(self.base, len(self.model) + 1)])
        os.ftruncate(self.buffered_fd, size)
        self.model[size:] = bytes(len(self.model) - size)

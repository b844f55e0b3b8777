# SPDX-License-Identifier: LGPL-2.1-or-later
"""The metadata of a qcow2 file, found and spoilt."""

from pathlib import Path

OFFSET = 0x00fffffffffffe00
COPIED = 1 << 63


class Metadata:
    """Where a sound image keeps what; as a context manager, the file is open for writing."""

    def __init__(self, path):
        self.f = open(Path(path), "r+b")
        self.version, self.l1_size = self.get(4, 4), self.get(36, 4)
        self.cluster = 1 << self.get(20, 4)
        self.l1, self.table = self.get(40), self.get(48)
        self.order = self.get(96, 4) if self.version == 3 else 4
        extended = self.version == 3 and self.get(72) & 16
        self.width = 16 if extended else 8
        self.size = self.f.seek(0, 2)
        self.l1_entries = [at for at in range(self.l1, self.l1 + 8 * self.l1_size, 8) if self.get(at)]
        self.l2_tables = [self.get(at) & OFFSET for at in self.l1_entries]
        table_end = self.table + self.get(56, 4) * self.cluster
        self.table_entries = [at for at in range(self.table, table_end, 8) if self.get(at)]
        self.blocks = [self.get(at) for at in self.table_entries]
        self.entries = [at for table in self.l2_tables for at in range(table, table + self.cluster, self.width)
                        if self.get(at)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.f.close()

    def get(self, off, length=8):
        self.f.seek(off)
        return int.from_bytes(self.f.read(length).ljust(length, b"\0"), "big")

    def put(self, off, value, length=8):
        self.f.seek(off)
        self.f.write((value & ((1 << 8 * length) - 1)).to_bytes(length, "big"))

    def data(self):
        """An L2 entry with a cluster of its own."""
        return next(at for at in self.entries if self.get(at) & COPIED and self.get(at) & OFFSET and not self.get(at) & 1)

    def spoil(self, rng):
        """One change at a random place; says what it was."""
        flip, somewhere = 1 << rng.randrange(64), rng.randrange(0, self.size + 2 * self.cluster, self.cluster)
        counted = max(8, (self.size // self.cluster << self.order) // 8)
        kind = rng.choice(["l1", "entry", "entry", "entry", "copied", "block", "block", "table"])
        off = {"l1": lambda: rng.choice(self.l1_entries), "entry": lambda: rng.choice(self.entries),
               "copied": lambda: rng.choice(self.entries), "table": lambda: rng.choice(self.table_entries),
               "block": lambda: rng.choice(self.blocks) + rng.randrange(0, min(self.cluster, counted), 8)}[kind]()
        if kind == "entry" and self.width == 16 and rng.random() < 0.3:
            off += 8
        old = self.get(off)
        new = old ^ COPIED if kind == "copied" else rng.choice([old ^ flip, 0, somewhere, somewhere | COPIED])
        self.put(off, new)
        return f"{kind} at {off:#x}: {old:#x} becomes {new:#x}"

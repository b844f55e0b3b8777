# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: one Row per line of the table.

Every row but one opens the export with O_DIRECT, so that each request reaches the daemon and none is
answered by the kernel's cache of the export. The image itself stays in the host's page cache (it is read
once before each round): the daemons are measured, not the disk.

Sequential rows come at depth 1, as dd and cp do it, and at depth 4, as a virtual machine or a loop device
with read-ahead does. "Buffered" reads a freshly mounted export without O_DIRECT, so that the kernel's cache
of it starts empty, and no byte twice.

First writes go to a new image each time and move a fixed amount of data, since what they cost depends on
how much was allocated before. No row syncs per request.
"""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30

FULL_SIZE = 2 * GIB     # the image of all overwrite and read rows, every cluster allocated
EMPTY_SIZE = 16 * GIB   # the image of the first-write rows, nothing allocated

# Of first writes and buffered reads. More would measure how fast a virtual machine's host hands out fresh memory for the page
# cache: at 1 GiB of first writes that took two thirds of the time.
SCATTERED = 64 * MIB
STREAMED = 256 * MIB

WANTED_MOST = 2.0
WANTED = 1.3


@dataclass(frozen=True)
class Row:
    """One measurement; `volume` set means: move that much, else run for the time that --runtime says."""

    name: str
    title: str
    rw: str             # as fio names it
    block: str
    depth: int = 1
    jobs: int = 1
    wanted: float = WANTED
    direct: bool = True
    empty: bool = False
    volume: int = 0

    @property
    def writes(self):
        return self.rw.endswith("write")

    @property
    def parallel_writes(self):
        return self.writes and self.depth * self.jobs > 1

    @property
    def unit(self):
        return "IOPS" if self.block == "4k" else "MiB/s"


ROWS = (
    Row("rand-read-4k-d1", "random read 4k, depth 1", "randread", "4k", wanted=WANTED_MOST),
    Row("rand-read-4k-d32", "random read 4k, depth 32", "randread", "4k", 32, wanted=WANTED_MOST),
    Row("rand-read-4k-4jobs", "random read 4k, 4 jobs of depth 8", "randread", "4k", 8, 4, WANTED_MOST),
    Row("rand-write-4k-d1", "random write 4k, depth 1", "randwrite", "4k", wanted=WANTED_MOST),
    Row("rand-write-4k-d32", "random write 4k, depth 32", "randwrite", "4k", 32, wanted=WANTED_MOST),
    Row("rand-write-4k-4jobs", "random write 4k, 4 jobs of depth 8", "randwrite", "4k", 8, 4, WANTED_MOST),
    Row("seq-read-128k-d1", "sequential read 128k, depth 1", "read", "128k"),
    Row("seq-read-128k-d4", "sequential read 128k, depth 4", "read", "128k", 4),
    Row("seq-read-1m-d1", "sequential read 1M, depth 1", "read", "1M", wanted=WANTED_MOST),
    Row("seq-read-1m-d4", "sequential read 1M, depth 4", "read", "1M", 4, wanted=WANTED_MOST),
    Row("seq-read-1m-buffered", "sequential read 1M, buffered", "read", "1M", wanted=WANTED_MOST,
        direct=False, volume=STREAMED),
    Row("seq-write-128k-d1", "sequential write 128k, depth 1", "write", "128k"),
    Row("seq-write-128k-d4", "sequential write 128k, depth 4", "write", "128k", 4),
    Row("seq-write-1m-d1", "sequential write 1M, depth 1", "write", "1M"),
    Row("seq-write-1m-d4", "sequential write 1M, depth 4", "write", "1M", 4),
    Row("first-rand-4k-d1", "first write, random 4k, depth 1", "randwrite", "4k",
        empty=True, volume=SCATTERED),
    Row("first-rand-4k-d32", "first write, random 4k, depth 32", "randwrite", "4k", 32,
        empty=True, volume=SCATTERED),
    Row("first-seq-128k", "first write, sequential 128k, depth 1", "write", "128k",
        empty=True, volume=STREAMED),
    Row("first-seq-1m", "first write, sequential 1M, depth 1", "write", "1M",
        empty=True, volume=STREAMED),
)


@dataclass(frozen=True)
class SideRow:
    """A by-product of every cell, for which less is better."""

    name: str
    title: str
    unit: str
    wanted: float = WANTED


READY = SideRow("time-to-ready", "time to ready, exec to first read", "ms")
MEMORY = SideRow("memory", "resident memory (PSS), highest of a round", "MiB")

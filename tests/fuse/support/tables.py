# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks with partition tables made by sfdisk, and what sfdisk and libblkid read in them."""

import json
import subprocess
from pathlib import Path

from support import loop
from support.content import MiB
from support.proc import run

# One line per partition, as sfdisk takes them
SCRIPTS = {
    "gpt": "label: gpt\nsize=3M, type=uefi, name=boot\nsize=5M, name=\"Käse, ½ 'x'\"\n"
           "size=1M, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, name=root, attrs=\"GUID:63\"\n",
    "gpt-holes": "label: gpt\n3: start=8M, size=1M\n1: start=2M, size=512K\n100: start=12M, size=2M\n",
    "gpt-128": "label: gpt\n" + "".join(f"start={1024 + 64 * n}K, size=64K\n" for n in range(128)),
    "mbr": "label: dos\nsize=3M, bootable\nsize=5M, type=82\n",
    "mbr-logical": "label: dos\n1: size=2M\n2: size=10M, type=f\n3: size=1M, type=7\n5: size=3M\n6: size=1M, type=82\n"
                   "7: size=2M\n",
}
SIZE = 24 * MiB


def write(path, script):
    """The table; path is a file or a device."""
    done = subprocess.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path], input=script, text=True,
                          capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def make(path, kind, size=SIZE, sector=512):
    """A raw disk with that table."""
    path = Path(path)
    with path.open("wb") as f:
        f.truncate(size)
    if sector == 512:
        write(path, SCRIPTS[kind])
    else:
        with loop.device(path, "--sector-size", sector) as device:
            write(device, SCRIPTS[kind])
    return path


def by_sfdisk(path):
    """{number: {start, size, type, uuid, name}}, in bytes."""
    table = json.loads(run("sfdisk", "--json", path).stdout)["partitiontable"]
    unit = table.get("sectorsize", 512)
    return {int(p["node"].removeprefix(str(path)).removeprefix("p")):
            {**p, "start": p["start"] * unit, "size": p["size"] * unit} for p in table["partitions"]}


def by_blkid(path, sector=512):
    """{number: (start, size)} as libblkid (partx, and with it udev) reads them, in bytes. A kernel need not know any
    kind of table, as those of small virtual machines do not."""
    done = run("partx", "--show", "--noheadings", "--bytes", "--output", "NR,START,SIZE", "--sector-size", sector,
               path, check=False)
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    return {number: (start * 512, size) for number, start, size in rows}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several processes change one export in every way there is, in bytes of their own, while its worker is
killed every few hundred milliseconds; the disk is what they made it, the image is consistent."""

import os
import random

import pytest

from support import images, proc
from support.client import Client, Grower, shared
from support.content import MiB, assert_same, in_processes, stripes
from test_crash import PAUSES, killer
from test_formats import SHAPES

SHAPE = {shape.name: shape for shape in SHAPES}
PROCESSES = 3
# What a killed worker leaves behind that no table names: what waited for a flush (8 MiB on a small disk), and
# what requests had in hand
LEFT = 16 * MiB
PAGE = 4096


def page_stripes(seed, size, writers):
    """Pages are cached by the kernel: who writes past that cache shares none with others."""
    rng = random.Random(seed)
    owned = [[] for _ in range(writers)]
    off, turn = 0, 0
    while off < size // PAGE * PAGE:
        length = min(size // PAGE * PAGE - off, rng.choice([1, 2, 7, 16, 40]) * PAGE)
        owned[turn % writers].append((off, length))
        off += length
        turn += 1
    return owned


def stress(work, maker, mount, name, seconds, seed=0, direct=False, **options):
    """options: of the mount. What is growable gets a process that makes it longer and shorter."""
    if name == "raw":
        image, format = images.sparse_file(work / "disk.img", 10 * MiB + 77), "raw"
    else:
        image, format = maker.make(SHAPE[name], work, seed=seed), "qcow2"
    flat = image.read_bytes() if format == "raw" else images.to_raw(image, work / "flat").read_bytes()
    growable = options.get("growable")
    model = shared(flat, len(flat) + (3 * MiB + 11 if growable else 0))
    export = mount(image, format=format, discard=["unmap", "ignore"][seed % 2],
                   **images.to_write(name, work), **options)
    owned = (page_stripes if direct else stripes)(f"{name} {seed}", len(flat), PROCESSES)
    clients = [Client(export.path, model, owned[n], f"{name} {seed} {n}", direct) for n in range(PROCESSES)]
    if growable:
        clients.append(Grower(export.path, model, len(flat), f"{name} {seed} tail"))
    least = min(3, seconds)
    with killer(export, PAUSES) as killed:
        for _ in range(10):     # a busy machine may need more than one round for so many kills
            in_processes([lambda client=client: client.run(seconds * proc.SLOW) for client in clients])
            if len(killed) >= least:
                break
    size = os.stat(export.path).st_size
    assert size >= len(flat) and not any(model[size:])
    assert_same(export.path, model[:size])
    export.umount()
    if format == "qcow2":
        left = images.check(image, leaks=None).get("leaks", 0) * images.info(image)["cluster-size"]
        print(f"{name}: {len(killed)} kills, {left / MiB:g} MiB leaked")
        assert left <= len(killed) * LEFT
    sectors = size // 512 * 512     # QEMU counts in them
    (work / "model").write_bytes(model[:sectors])
    if size == sectors or format == "qcow2":
        images.compare(image, work / "model", format)
    else:
        assert image.read_bytes() == model[:size]
    assert len(killed) >= least


@pytest.mark.limit(120)
@pytest.mark.parametrize("name, options", [
    pytest.param("cluster-9", {"growable": True}, marks=pytest.mark.core),
    ("extended-16", {"growable": True, "cache": "none"}),
    ("chain-4", {"direct": True}),
    ("raw", {"growable": True}),
], ids=lambda value: value if isinstance(value, str) else "+".join(value))
def test_killed_under_everything(name, options, work, maker, mount):
    stress(work, maker, mount, name, 3, **options)


LONG = ["cluster-9", "cluster-12", "cluster-16", "cluster-21", "extended-14", "extended-21", "zstd-12", "v2-zlib",
        "refcount-1", "refcount-64", "lazy-refcounts", "data-file", "data-file-extended", "chain-longer",
        "chain-shorter", "raw-backing", "raw"]


@pytest.mark.long
@pytest.mark.limit(1000)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LONG)
def test_killed_under_everything_long(name, seed, work, maker, mount):
    options = {"growable": True} if not name.startswith("v2") else {}
    if seed:
        options["direct"] = True
    else:
        options["cache"] = "none" if name in LONG[::2] else "auto"
    seconds = max(3, float(os.environ.get("FUSEIMG_TEST_SECONDS", "240")) / 16)
    stress(work, maker, mount, name, seconds, seed=seed + 1, **options)

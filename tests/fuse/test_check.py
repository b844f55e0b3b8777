# SPDX-License-Identifier: LGPL-2.1-or-later
"""fuseimg check against qemu-img check, on images that are damaged in known ways and by chance."""

import contextlib
import json
import os
import pty
import random
import shutil
import subprocess
import time

import pytest

from support import export as exports
from support import images, loop, proc
from support.content import KiB, MiB, assert_same
from support.damage import COPIED, OFFSET, Metadata
from support.export import fuseimg
from test_formats import SHAPES, params
from test_locks import virtual_machine

CLEAN, FAILED, USAGE, LEAKS, CORRUPT = 0, 1, 2, 3, 4
FIGURES = ["image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters", "compressed-clusters"]


def check(image, *options, status=None):
    """Our judgement; its exit status says the same as its figures."""
    done = fuseimg("check", "--json", *options, image, check=False)
    assert done.returncode in (CLEAN, LEAKS, CORRUPT), done.stderr
    found = json.loads(done.stdout)
    wanted = CORRUPT if found["corruptions"] else LEAKS if found["leaks"] else CLEAN
    assert done.returncode == wanted
    assert status is None or wanted == status, done.stdout
    return found


def qemu(image):
    """qemu-img's judgement as one of our exit statuses, and its figures."""
    done = proc.run("qemu-img", "check", "-f", "qcow2", "--output=json", image, check=False, cwd=image.parent)
    found = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return {0: CLEAN, 2: CORRUPT, 3: LEAKS}.get(done.returncode, FAILED), found


@pytest.fixture
def image(work):
    """Some clusters, some of them shared with a snapshot."""
    path = images.create(work / "disk.img", 16 * MiB)
    proc.run("qemu-io", "-c", "write -P 1 0 1M", "-c", "write -P 2 9M 1M", path)
    proc.run("qemu-img", "snapshot", "-c", "one", path)
    proc.run("qemu-io", "-c", "write -P 3 0 512k", path)
    return path


def spoil(image, what):
    with Metadata(image) as m:
        DIRECTED[what](m)


def add_refcount(m, cluster, value):
    m.put(m.blocks[0] + 2 * cluster, value, 2)


# what: a change that everybody has to find, and as what
DIRECTED = {
    "leak": lambda m: (m.f.truncate(m.size + m.cluster), add_refcount(m, m.size // m.cluster, 1)),
    "free-in-use": lambda m: add_refcount(m, (m.get(m.data()) & OFFSET) // m.cluster, 0),
    "free-l1": lambda m: add_refcount(m, m.l1 // m.cluster, 0),
    "no-block": lambda m: m.put(m.table, 0),
    "block-unaligned": lambda m: m.put(m.table, m.blocks[0] + 512),
    "block-outside": lambda m: m.put(m.table + 8, 1 << 50),
    "block-twice": lambda m: m.put(m.table + 8, m.blocks[0]),
    "block-is-l1": lambda m: m.put(m.table + 8, m.l1),
    "table-outside": lambda m: m.put(48, 1 << 40),
    "table-empty": lambda m: m.put(56, 0, 4),
    "copied-missing": lambda m: m.put(m.data(), m.get(m.data()) & ~COPIED),
    "copied-wrong": lambda m: m.put(m.entries[-1], m.get(m.entries[-1]) | COPIED),
    "entry-outside": lambda m: m.put(m.data(), COPIED | 1 << 45),
    "entry-unaligned": lambda m: m.put(m.data(), m.get(m.data()) + 512),
    "entry-reserved": lambda m: m.put(m.data(), m.get(m.data()) | 2),
    "entry-is-l1": lambda m: m.put(m.data(), m.l1 | COPIED),
    "entry-is-block": lambda m: m.put(m.data(), m.blocks[0] | COPIED),
    "entry-is-l2": lambda m: m.put(m.data(), m.l2_tables[0] | COPIED),
    "entry-twice": lambda m: m.put(m.entries[1], m.get(m.entries[0])),
    "compressed-outside": lambda m: m.put(m.data(), 1 << 62 | 1 << 45),
    "l2-outside": lambda m: m.put(m.l1, COPIED | 1 << 45),
    "l2-unaligned": lambda m: m.put(m.l1, m.get(m.l1) + 512),
    "l2-reserved": lambda m: m.put(m.l1, m.get(m.l1) | 1 << 57),
    "l2-is-header": lambda m: m.put(m.l1, COPIED),
}


@pytest.mark.core
@pytest.mark.parametrize("shape", params(SHAPES))
def test_sound_images(shape, work, maker):
    """Nothing wrong with them, and the same figures."""
    image = maker.make(shape, work)
    before = images.digest(image)
    ours, (status, theirs) = check(image, status=CLEAN), qemu(image)
    assert status == CLEAN
    assert {key: ours[key] for key in FIGURES} == {key: theirs.get(key, 0) for key in FIGURES}
    check(image, "--repair", status=CLEAN)
    assert images.digest(image) == before
    assert sorted(image.parent.glob("*.fuseimg-check-*")) == []


@pytest.mark.core
@pytest.mark.parametrize("what", DIRECTED)
def test_directed(what, image, work):
    spoil(image, what)
    damaged = images.digest(image)
    found = check(image, status=LEAKS if what == "leak" else CORRUPT)
    assert images.digest(image) == damaged
    assert found["findings"]
    status, theirs = qemu(image)
    # qemu-img cannot count where the refcounts cannot be read at all, and opens without a table
    assert status == (LEAKS if what == "leak" else CORRUPT) or (status == FAILED and "-" in what)
    if what == "leak":
        assert found["leaks"] == theirs["leaks"]

    repaired = check(image, "--repair=all", status=CLEAN)
    assert repaired["leaks-fixed"] + repaired["corruptions-fixed"] > 0
    images.check(image)
    check(image, status=CLEAN)
    fuseimg("check", f"--undo={repaired['saved']}", image)
    assert images.digest(image) == damaged


@pytest.mark.core
@pytest.mark.parametrize("what", ["block-outside", "table-outside", "leak"])
def test_undo_refuses_what_has_changed(what, image, work):
    """Allocated since, longer, another image, undone already: nothing of it is touched."""
    spoil(image, what)
    damaged = images.digest(image)
    saved = check(image, "--repair=all", status=CLEAN)["saved"]
    repaired = work / "repaired"
    shutil.copy(image, repaired)

    def refused(path, *words):
        before = images.digest(path)
        done = fuseimg("check", f"--undo={saved}", path, check=False)
        assert done.returncode == FAILED and "nothing was changed" in done.stderr, done.stderr
        assert all(word in done.stderr for word in (saved, *words)), done.stderr
        assert images.digest(path) == before

    proc.run("qemu-io", "-c", "write -P 9 14M 2M", image)
    refused(image, str(image))
    shutil.copy(repaired, image)
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size + 512)
    refused(image, "its size has changed")
    refused(images.create(work / "other.img", 8 * MiB))
    shutil.copy(repaired, image)
    fuseimg("check", f"--undo={saved}", image)
    assert images.digest(image) == damaged
    refused(image)


@pytest.mark.core
def test_undo_keeps_what_was_written_in_place(image):
    spoil(image, "table-outside")
    saved = check(image, "--repair=all", status=CLEAN)["saved"]
    proc.run("qemu-io", "-c", "write -P 8 0 64k", image)
    fuseimg("check", f"--undo={saved}", image)
    check(image, status=CORRUPT)
    check(image, "--repair=all", status=CLEAN)
    proc.run("qemu-io", "-c", "read -P 8 0 64k", image)


def test_undo_of_half_a_repair(image):
    spoil(image, "block-outside")
    done = fuseimg("check", "--undo=x", "--repair", image, check=False)
    assert done.returncode == USAGE and "exclude each other" in done.stderr
    saved = check(image, "--repair=all", status=CLEAN)["saved"]
    os.truncate(saved, os.path.getsize(saved) - 1)
    before = images.digest(image)
    done = fuseimg("check", f"--undo={saved}", image, check=False)
    assert done.returncode == FAILED and "did not come to its end" in done.stderr
    assert images.digest(image) == before


def stricter(texts):
    """
    Whether we found something that qemu-img check lets pass, rightly by the specification: bit 0 of a version 2 or
    extended L2 entry ("always 0", and its reading refuses it), COPIED without an offset, a place in a data file that is
    not the guest's. It sees by refcounts alone what is used for two things: not an L2 table that is also a
    snapshot's data where that makes two references, as many as are counted. (It fails where it reads no refcounts.)
    """
    return any(text in texts for text in ("data in the header", "moved inside", "reserved bits", ": L2 table"))


def compare_random(image, rng, refcounts_can_be_two):
    with Metadata(image) as m:
        what = [m.spoil(rng) for _ in range(rng.choice([1, 1, 1, 2, 5]))]
    before = images.digest(image)
    ours, (status, _) = check(image), qemu(image)
    mine = CORRUPT if ours["corruptions"] else LEAKS if ours["leaks"] else CLEAN
    texts = " ".join(f["text"] for f in ours["findings"])
    assert mine == status or (mine == CORRUPT and (stricter(texts) or status == FAILED)), (what, texts)

    repaired = check(image, "--repair")
    if refcounts_can_be_two and not repaired["corruptions"]:
        assert (repaired["leaks"], qemu(image)[0]) == (0, CLEAN), (what, texts)
    if repaired["saved"]:
        fuseimg("check", f"--undo={repaired['saved']}", image)
        os.unlink(repaired["saved"])
    assert images.digest(image) == before, what
    return repaired["corruptions"] > 0


def spoil_many(work, maker, rounds, seed=0):
    rng = random.Random(rounds + seed)
    shapes = rng.sample([s for s in SHAPES if len(s.chain) == 1 and s.name != "empty"], min(rounds // 10, 20))
    left = 0
    for n in range(rounds):
        shape = shapes[n % len(shapes)]
        directory = work / shape.name
        if not directory.exists():
            directory.mkdir()
            original = maker.make(shape, directory)
            if "data" not in shape.name and "refcount-1" != shape.name:
                proc.run("qemu-img", "snapshot", "-c", "one", original)
                proc.run("qemu-io", "-c", "write 0 1M", "-c", "write 3M 200k", original)
        copy = shutil.copy(original := directory / "disk.img", directory / "damaged.img")
        assert original
        wide = shape.name not in ("refcount-1", "refcount-2")
        left += compare_random(copy, rng, wide) and wide
    assert left <= rounds // 20 + 1


@pytest.mark.limit(200)
def test_random(work, maker):
    spoil_many(work, maker, 60)


@pytest.mark.long
@pytest.mark.limit(600)
@pytest.mark.parametrize("seed", range(8))
def test_random_long(seed, work, maker):
    spoil_many(work, maker, 250, seed)


def test_guest_data_survives(image, work):
    """Refcounts that are gone altogether cost nothing of the content."""
    before = images.to_raw(image, work / "before.raw")
    spoil(image, "no-block")
    spoil(image, "copied-missing")
    check(image, "--repair", status=CLEAN)
    images.compare(image, before)
    proc.run("qemu-img", "snapshot", "-a", "one", image)
    proc.run("qemu-io", "-c", "read -P 1 0 1M", image)
    images.check(image)


def test_leaks_are_kept_while_tables_are_damaged(image):
    spoil(image, "l2-unaligned")
    found = check(image, "--repair=leaks", status=CORRUPT)
    assert found["leaks"] > 0 and found["leaks-fixed"] == 0


BITMAPS = [("table", 0, 8, 1 << 40), ("size", 8, 4, 1 << 31), ("empty", 8, 4, 0), ("flags", 12, 4, 1 << 9),
           ("type", 16, 1, 2), ("granularity", 17, 1, 70), ("name", 18, 2, 0), ("name-long", 18, 2, 2000)]


@pytest.mark.parametrize("what,off,width,value", BITMAPS, ids=[row[0] for row in BITMAPS])
def test_bitmaps(image, what, off, width, value):
    """Persistent bitmaps have references of their own; damaged ones are given up."""
    proc.run("qemu-img", "bitmap", "--add", image, "b0")
    check(image, status=CLEAN)
    data = image.read_bytes()
    extension = data.index((0x23852875).to_bytes(4, "big"))
    directory = int.from_bytes(data[extension + 24:extension + 32], "big")
    with Metadata(image) as m:
        m.put(directory + off, value, width)
    assert qemu(image)[0] != CLEAN, what
    check(image, status=CORRUPT)
    check(image, "--repair=all", status=CLEAN)
    images.check(image)


@pytest.mark.core
def test_snapshot_with_much_extra_data(image):
    """Which neither QEMU nor we read; QEMU alone can rewrite the table."""
    data = image.read_bytes()
    with Metadata(image) as m:
        m.put(int.from_bytes(data[64:72], "big") + 36, 1025, 4)
    check(image, status=CORRUPT)
    check(image, "--repair=all", status=CORRUPT)


@pytest.mark.core
def test_dirty_image(work, mount):
    """Lazy refcounts, and a machine that was killed: mounting repairs it, as check does."""
    image = images.create(work / "disk.img", 8 * MiB, lazy_refcounts="on", cluster_size=4 * KiB)
    with subprocess.Popen(["qemu-io", "-c", "write -P 7 1M 1M", "-c", "flush", "-c", "sigraise 9", str(image)],
                          stdout=subprocess.DEVNULL) as machine:
        machine.wait()
    copy = shutil.copy(image, work / "copy.img")
    found = check(copy)
    assert found["dirty"]
    assert not check(copy, "--repair", status=CLEAN)["dirty"]
    export = mount(image)
    with open(export.path, "r+b") as f:
        f.write(b"x" * 4096)
    export.umount()
    images.check(image)
    assert not images.info(image)["format-specific"]["data"].get("corrupt")
    proc.run("qemu-io", "-c", "read -P 7 1M 1M", image)
    proc.run("qemu-io", "-c", "read -P 7 1M 1M", copy)


def test_block_device(image, work):
    """A disk cannot grow: new refcounts stand behind what is in use."""
    spoil(image, "block-unaligned")
    before = images.to_raw(image, work / "before.raw", "-U")
    os.truncate(image, 32 * MiB)
    with loop.device(image) as device:
        found = check(device, f"--save-dir={work}", status=CORRUPT)
        found = check(device, f"--save-dir={work}", "--repair", status=CLEAN)
        assert found["saved"].startswith(str(work))
        check(device, status=CLEAN)
    assert image.stat().st_size == 32 * MiB
    images.check(image)
    images.compare(image, before)


@pytest.mark.core
def test_locks(image, mount):
    with virtual_machine(image):
        done = fuseimg("check", image, check=False)
        assert done.returncode == FAILED and "in use" in done.stderr
        done = fuseimg("check", "-o", "lock=no", image, check=False)
        assert done.returncode == CLEAN and "may therefore be wrong" in done.stderr
        assert fuseimg("check", "--repair", image, check=False).returncode == FAILED
    with virtual_machine(image, read_only=True):
        check(image, status=CLEAN)
        assert fuseimg("check", "--repair", image, check=False).returncode == FAILED
    export = mount(image)
    assert fuseimg("check", image, check=False).returncode == FAILED
    export.umount()
    check(image, "--repair", status=CLEAN)


def test_text(image):
    """What a person reads, and in the last line what to do."""
    assert fuseimg("check", image).stdout.startswith("No errors\n")
    spoil(image, "leak")
    done = fuseimg("check", image, check=False)
    assert done.returncode == LEAKS
    assert f"fuseimg check --repair=leaks {image}" in done.stdout.splitlines()[-1]
    spoil(image, "entry-outside")
    done = fuseimg("check", image, check=False)
    assert done.returncode == CORRUPT and "the image is corrupt" in done.stdout
    assert f"--repair=all {image}" in done.stdout.splitlines()[-1]
    done = fuseimg("check", "--repair", image)
    assert "No errors any more" in done.stdout and "is saved in" in done.stdout


def test_errors(image, work):
    assert fuseimg("check", "--repair=some", image, check=False).returncode == USAGE
    (work / "raw").write_bytes(b"x" * 1024)
    for words in (["check", work / "raw"], ["check", "-o", "format=raw", work / "raw"], ["check", work / "none"],
                  ["check", f"--undo={work / 'raw'}", image], ["check", f"--undo={work / 'none'}", image]):
        done = fuseimg(*words, check=False)
        assert done.returncode == FAILED and done.stderr.count("\n") == 1
    spoil(image, "leak")
    before = images.digest(image)
    done = fuseimg("check", "--repair", f"--save-dir={work / 'no'}", image, check=False)
    assert done.returncode == FAILED and "--save-dir" in done.stderr
    assert images.digest(image) == before


@pytest.mark.limit(120)
def test_repair_of_what_cannot_be_written(work):
    place = work / "place"
    place.mkdir()
    with loop.small_file_system(place, "8m"):
        image = images.create(place / "disk.qcow2", MiB)
        proc.run("mount", "-o", "remount,ro", place)
        check(image, status=CLEAN)
        done = fuseimg("check", "--repair", image, check=False)
    assert done.returncode == FAILED
    assert f"{image} can be read, and checked, but not written: Read-only file system" in done.stderr


def test_large_disk(work):
    """1 TiB, all of it mapped: its references are counted in 64 MiB, with progress on the terminal."""
    image = images.create(work / "disk.img", 1 << 40, preallocation="metadata")
    for _ in range(5):
        peak = check_large_disk(image)
        if peak > 60 * 1024:    # otherwise a busy machine has kept us from looking in time
            break
    if proc.SLOW == 1:
        assert 60 * 1024 < peak < 80 * 1024     # KiB


def check_large_disk(image):
    master, slave = pty.openpty()
    peak = 0
    with subprocess.Popen([exports.PROGRAM, "check", "--json", image], stdout=subprocess.PIPE, stderr=slave) as run:
        while run.poll() is None:
            with contextlib.suppress(OSError, KeyError):    # it may end meanwhile
                peak = max(peak, int(proc.status_field(run.pid, "VmHWM").split()[0]))
            time.sleep(0.02)
        found = json.loads(run.stdout.read())
    assert run.returncode == CLEAN and found["allocated-clusters"] == 1 << 24
    os.set_blocking(master, False)
    assert b"Checking:" in os.read(master, 65536)
    os.close(slave)
    os.close(master)
    return peak


def test_data_file(work):
    """Its clusters have no refcounts; the image's own tables do."""
    image = images.create(work / "disk.img", 8 * MiB, data_file="data.bin")
    proc.run("qemu-io", "-c", "write -P 5 1M 1M", image, cwd=work)
    before = images.to_raw(image, work / "before.raw")
    spoil(image, "free-l1")
    check(image, status=CORRUPT)
    check(image, "--repair", status=CLEAN)
    images.check(image)
    assert_same(images.to_raw(image, work / "after.raw"), before.read_bytes())

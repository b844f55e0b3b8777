# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: help, version, info, map, list, exit statuses."""

import json
import os
import re
import select
import subprocess

import pytest

from support import export as exports
from support import images, proc
from support.content import KiB, MiB
from support.export import fuseimg
from test_formats import SHAPES, params

VERBS = ["mount", "umount", "info", "map", "check", "serve", "check-config", "cleanup", "list"]
SOME = [shape for shape in SHAPES if shape.name in ("cluster-16", "cluster-9", "v2-16", "zstd-12", "extended-16", "chain-4",
                                                    "raw-backing", "data-file", "refcount-64", "empty")]


def test_help():
    done = fuseimg("--help")
    assert done.stderr == ""
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", done.stdout)
        own = fuseimg(verb, "--help")
        assert verb in own.stdout and own.stderr == ""
    assert fuseimg("-h").stdout == done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version():
    version = re.search(r"version: '([^']+)'", (exports.ROOT / "meson.build").read_text())[1]
    assert fuseimg("--version").stdout.strip() == f"fuseimg {version}"


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["cleanup", "a/b"], ["mount", "-o", "format=vmdk", "a", "b"], ["mount"],
                                   ["mount", "only-one"], ["mount", "a", "b", "c"], ["umount"],
                                   ["info"], ["map"], ["list", "what"], ["--nonsense"], ["info", "--nonsense", "x"],
                                   ["mount", "-o"], ["mount", "-x", "a", "b"]], ids=" ".join)
def test_usage_errors(words):
    done = fuseimg(*words, check=False)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr


@pytest.mark.parametrize("option,wanted", [("thread=3", "threads"), ("threads=0", "1..64"), ("threads=65", "1..64"),
                                           ("mode=9", "mode"), ("mode=7777", "mode"), ("discard=maybe", "unmap"),
                                           ("backing=relative", "backing"), ("owner=nobody-of-this-name", "user"),
                                           ("readonly", "read_only"), ("cache=write", "none"), ("growable=perhaps", "yes"),
                                           ("format", "format"), ("image=x", "image")])
def test_bad_options(option, wanted, work):
    images.create(work / "disk.img", MiB)
    (work / "target").touch()
    done = fuseimg("mount", "-o", option, work / "disk.img", work / "target", check=False)
    assert done.returncode == 2, done.stderr
    assert wanted in done.stderr and "--help" in done.stderr


def test_suggestions():
    assert '"mount"' in fuseimg("mout", check=False).stderr or "mount" in fuseimg("mout", check=False).stderr


def test_options_in_any_place(work, mount):
    image, target = images.create(work / "disk.img", MiB), work / "target"
    target.touch()
    for words in (["-o", "ro", image, target], [image, "-o", "ro", target], [image, target, "-oro"],
                  [image, target, "-o", "ro", "-o", "threads=2"], ["--options=ro", image, target]):
        fuseimg("mount", *words)
        fuseimg("umount", target)
    mount(image, target).umount()


@pytest.mark.core
@pytest.mark.parametrize("shape", params(SOME))
def test_info(shape, work, maker):
    image = maker.make(shape, work)
    ours, theirs = json.loads(fuseimg("info", "--json", image).stdout), images.info(image)
    for key in ("format", "virtual-size", "cluster-size"):
        assert ours[key] == theirs[key], key
    assert ours["filename"] == str(image)
    assert ours.get("backing-filename") == theirs.get("backing-filename")
    assert ours.get("backing-filename-format") == theirs.get("backing-filename-format")
    assert ours.get("data-filename") == theirs["format-specific"]["data"].get("data-file")
    assert len(ours["backing"]) == len(shape.chain) - 1
    features, data = ours["features"], theirs["format-specific"]["data"]
    assert features["refcount_bits"] == data["refcount-bits"]
    text = fuseimg("info", image).stdout
    assert str(image) in text and "qcow2" in text
    assert text.count("backed by") == len(shape.chain) - 1


def test_info_of_raw(work):
    image = images.sparse_file(work / "disk.raw", 3 * MiB + 17)
    for words in ([image], ["-o", "format=raw", image]):
        ours = json.loads(fuseimg("info", "--json", *words).stdout)
        assert (ours["format"], ours["virtual-size"]) == ("raw", 3 * MiB + 17)
        assert ours["actual-size"] == image.stat().st_blocks * 512


def merged(entries):
    """(start, length, kind) with neighbours of one kind joined; depth and host offsets left out."""
    found = []
    for entry in entries:
        kind = "zero" if entry["zero"] else "data"
        if found and found[-1][2] == kind and found[-1][0] + found[-1][1] == entry["start"]:
            found[-1][1] += entry["length"]
        else:
            found.append([entry["start"], entry["length"], kind])
    return found


@pytest.mark.core
@pytest.mark.parametrize("shape", params(SOME))
def test_map(shape, work, maker):
    image = maker.make(shape, work)
    ours, theirs = json.loads(fuseimg("map", "--json", image).stdout), images.qemu_map(image, "qcow2")
    size = shape.chain[-1].size
    at = 0
    for entry in ours:
        assert entry["start"] == at and entry["length"] > 0
        at += entry["length"]
    assert at == size
    # we see the holes of the host's files inside clusters too, qemu-img only whole clusters
    data = [(start, start + length) for start, length, kind in merged(theirs) if kind == "data"]
    for start, length, kind in merged(ours):
        assert kind == "zero" or any(first <= start and start + length <= end for first, end in data)
    # depth and place of what is data
    places = {}
    for entry in theirs:
        if entry["data"] and "offset" in entry:
            places[entry["start"]] = (entry["depth"], entry["offset"])
    for entry in ours:
        if entry["start"] in places and "offset" in entry:
            assert (entry["depth"], entry["offset"]) == places[entry["start"]]
    # bytes are where the map says
    flat = images.to_raw(image, work / "flat").read_bytes()
    for entry in ours:
        if entry["zero"]:
            assert flat[entry["start"]:entry["start"] + entry["length"]].count(0) == entry["length"]
        if "offset" in entry:
            with open(entry["file"], "rb") as f:
                f.seek(entry["offset"])
                assert f.read(entry["length"]).ljust(entry["length"], b"\0") == \
                    flat[entry["start"]:entry["start"] + entry["length"]]
    # how many rows there are changes while the host writes the file back: holes come and go
    rows = [line.split() for line in fuseimg("map", image).stdout.splitlines()[1:]]
    assert sum(int(row[1], 16) for row in rows) == size
    assert {row[2] for row in rows} <= {"data", "compressed", "zero", "absent"}


def test_map_into_a_closed_pipe(work):
    image = images.create(work / "disk.img", 64 * MiB, cluster_size=512)
    proc.run("qemu-io", "-f", "qcow2", *[word for n in range(2000) for word in ("-c", f"write -q {n * 2048} 512")], image)
    process = subprocess.Popen([str(exports.PROGRAM), "map", str(image)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(10 * proc.PATIENCE) in (0, 1, -13)
    process.stderr.close()


def test_output_that_cannot_be_written(work):
    """A full disk behind standard output is an error, not a short answer."""
    image = images.create(work / "disk.img", MiB)
    with open("/dev/full", "w", encoding="utf-8") as full:
        for words in (["info", image], ["map", image], ["--help"], ["--version"]):
            done = subprocess.run([str(exports.PROGRAM), *map(str, words)], stdout=full, stderr=subprocess.PIPE, text=True,
                                  check=False)
            assert done.returncode == 1 and "space" in done.stderr, words


@pytest.mark.core
def test_list(work, mount):
    one, two = images.create(work / "one.img", MiB), images.create(work / "two.img", 2 * MiB)
    assert str(work) not in fuseimg("list").stdout
    first, second = mount(one), mount(two, ro=True)
    entries = {entry["target"]: entry for entry in exports.listed() if entry["target"].startswith(str(work))}
    assert set(entries) == {str(first.target), str(second.target)}
    entry = entries[str(second.target)]
    assert entry["image"] == str(two) and entry["format"] == "qcow2"
    assert entry["virtual-size"] == 2 * MiB and entry["read-only"] is True
    assert entry["pid"] == second.supervisor
    text = fuseimg("list").stdout
    assert str(first.target) in text and str(two) in text
    first.umount()
    assert str(first.target) not in fuseimg("list").stdout
    assert str(second.target) in fuseimg("list").stdout
    second.umount()


def test_list_of_nothing(user):
    """An ordinary user sees his own exports and root's: here, those of whatever else runs."""
    roots = json.loads(fuseimg("list", "--json").stdout)
    assert json.loads(fuseimg("list", "--json", user=user).stdout) == roots
    if not roots:
        assert fuseimg("list", user=user).stdout == ""


@pytest.mark.core
def test_foreground(work):
    """-f stays; SIGTERM ends it in order, with status 0."""
    image, target = images.create(work / "disk.img", MiB), work / "target"
    target.touch()
    env = {**os.environ, "FUSEIMG_WORKER": str(exports.WORKER)}
    process = subprocess.Popen([str(exports.PROGRAM), "mount", "-f", str(image), str(target)], env=env,
                               stderr=subprocess.PIPE, text=True)
    try:
        proc.wait_until(lambda: target.stat().st_size == MiB or process.poll() is not None)
        assert process.poll() is None
        process.terminate()
        assert process.wait(20 * proc.PATIENCE) == 0
        assert target.stat().st_size == 0
    finally:
        process.kill()
        process.stderr.close()
        proc.run("umount", "--lazy", target, check=False)


def test_mount_tells_where(work, mount):
    image, target = images.create(work / "disk.img", MiB), work / "target"
    target.touch()
    assert fuseimg("mount", image, target).stdout == "", "quiet when no person looks on"
    fuseimg("umount", target)
    done = fuseimg("mount", "-v", image, target)
    assert str(target) in done.stdout
    fuseimg("umount", target)
    mount(image, target).umount()


def test_mount_returns_when_usable(work, mount):
    """No moment after the return in which the target is not yet the disk."""
    image = images.create(work / "disk.img", 3 * MiB)
    for _ in range(5):
        export = mount(image)
        assert export.path.stat().st_size == 3 * MiB
        export.umount()


def test_daemon_holds_nothing_of_the_caller(work, mount):
    """A pipeline or a script that mounts is not kept waiting by the daemon's descriptors."""
    image, target = images.create(work / "disk.img", MiB), work / "target"
    target.touch()
    env = {**os.environ, "FUSEIMG_WORKER": str(exports.WORKER)}
    read, write = os.pipe()
    os.set_inheritable(write, True)
    done = subprocess.run([str(exports.PROGRAM), "mount", str(image), str(target)], env=env, close_fds=False, timeout=20 * proc.PATIENCE,
                          cwd=work, capture_output=True, check=True)
    assert done.returncode == 0
    os.close(write)
    assert select.select([read], [], [], 10 * proc.PATIENCE)[0] and os.read(read, 1) == b"", "who reads from the pipe sees its end"
    entry = next(entry for entry in exports.listed() if entry["target"] == str(target))
    for pid in (entry["pid"], *proc.descendants(entry["pid"])):
        for fd in range(0 if pid == entry["pid"] else 1, 3):    # the worker's 0 shows the supervisor's successor that it lives
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/cwd") == "/" or pid != entry["pid"]
    os.close(read)
    fuseimg("umount", target)
    mount(image, target).umount()


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_caller_without_standard_descriptors(closed, work, mount):
    """As with a daemon or a boot script that has closed them."""
    image, target = images.create(work / "disk.img", MiB), work / "target"
    target.touch()
    env = {**os.environ, "FUSEIMG_WORKER": str(exports.WORKER)}
    subprocess.run(["sh", "-c", f'"$0" mount "$1" "$2" {closed}', exports.PROGRAM, image, target], env=env, timeout=20 * proc.PATIENCE,
                   check=True)
    assert target.stat().st_size == MiB
    fuseimg("umount", target)
    mount(image, target).umount()


def test_umount_timeout(work, mount):
    export = mount(images.create(work / "disk.img", MiB))
    fd = export.open()
    done = fuseimg("umount", "--timeout", "1", export.target, check=False)
    assert done.returncode == 1 and str(export.target) in done.stderr
    os.close(fd)
    export.umount()


def test_umount_of_one_place_of_two(work, mount):
    """A bind mount keeps the export: that is said, and nothing is waited for."""
    export = mount(images.create(work / "disk.img", MiB))
    other = work / "other"
    (other.mkdir if export.target.is_dir() else other.touch)()
    proc.run("mount", "--bind", export.target, other)
    try:
        done = fuseimg("umount", export.target, check=False)
        assert done.returncode == 1 and f"also stands at {other}: fuseimg umount {other}" in done.stderr, done.stderr
    finally:
        done = fuseimg("umount", other, check=False)
    assert done.returncode == 0, done.stderr


def test_umount_says_what_it_was_given(work, mount):
    """The image or the disk inside instead of the target: the right word is in the message."""
    target = work / "directory"
    target.mkdir()
    export = mount(images.create(work / "disk.img", MiB), target)
    for word in (export.image, target / "disk"):
        done = fuseimg("umount", word, check=False)
        assert done.returncode == 1 and f"umount {target}" in done.stderr, done.stderr
    export.umount()


def test_map_and_info_need_no_write_access(work, user):
    image = images.create(work / "disk.img", 64 * KiB)
    image.chmod(0o444)
    assert fuseimg("info", image, user=user).stdout
    assert fuseimg("map", image, user=user).stdout

#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""test-look.py FUSEIMG: `info` and `map` against what qemu-img says of the same images, and what
they say of images that cannot be opened."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

FUSEIMG = os.path.abspath(sys.argv.pop(1))
SKIPPED = 77


def run(*args):
    return subprocess.run(args, capture_output=True, check=False, timeout=60)


def fuseimg_json(*args):
    done = run(FUSEIMG, *args)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode())
    return json.loads(done.stdout)


def qemu(*args):
    return subprocess.run(args, capture_output=True, check=True, timeout=60).stdout


class Look(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.before = os.getcwd()
        self.addCleanup(os.chdir, self.before)
        os.chdir(self.folder.name)

    def create(self, name, *options, size="20M", io=()):
        qemu("qemu-img", "create", "-q", "-f", "qcow2", *options, name, *([size] if size else []))
        for command in io:
            qemu("qemu-io", "-f", "qcow2", "-c", command, name)

    def assert_same_map(self, name):
        def runs(extents):
            """Equal neighbours joined: where a run is cut is nobody's business."""
            joined = []
            for extent in extents:
                last = joined[-1] if joined else None
                meets = last and all(last[key] == extent[key] for key in ("depth", "zero", "data", "present"))
                if meets and last.get("offset") is not None and extent.get("offset") is not None:
                    meets = last["offset"] + last["length"] == extent["offset"]
                elif meets:
                    meets = last.get("offset") == extent.get("offset")
                if meets:
                    last["length"] += extent["length"]
                else:
                    keys = ("start", "length", "depth", "present", "zero", "data", "offset")
                    joined.append({key: extent[key] for key in keys if key in extent})
            return joined

        theirs = json.loads(qemu("qemu-img", "map", "--output=json", name))
        ours = fuseimg_json("map", "--json", name)
        self.assertEqual(runs(ours), runs(theirs))
        self.assertEqual(ours[0]["start"], 0)
        for before, after in zip(ours, ours[1:]):
            self.assertEqual(before["start"] + before["length"], after["start"])

    # Writes fill whole clusters of every size: what copy-on-write leaves unwritten in a cluster is a
    # hole of the host's file, which we show and qemu-img does not.

    def test_map_of_one_file(self):
        for cluster in ("512", "4k", "64k", "2M"):
            with self.subTest(cluster=cluster):
                self.create("a", "-o", f"cluster_size={cluster}",
                            io=("write 2M 2M", "write 6M 4M", "write -z 12M 2M", "write 18M 2M"))
                self.assert_same_map("a")

    def test_map_of_a_chain(self):
        self.create("base", io=("write 1M 3M", "write 10M 64k"))
        qemu("qemu-img", "convert", "-c", "-O", "qcow2", "base", "packed")
        self.create("middle", "-b", "packed", "-F", "qcow2", size=None, io=("write 2M 64k", "write -z 3M 64k"))
        self.create("top", "-b", "middle", "-F", "qcow2", size=None, io=("write 2560k 64k",))
        self.assert_same_map("top")
        self.assertTrue(any(e["compressed"] for e in fuseimg_json("map", "-j", "top")))

    def test_map_names_the_file(self):
        self.create("base", io=("write 0 64k",))
        self.create("top", "-b", "base", "-F", "qcow2", size=None, io=("write 64k 64k",))
        files = [os.path.basename(e["file"]) for e in fuseimg_json("map", "--json", "top") if "file" in e]
        self.assertEqual(files, ["base", "top"])

    def test_map_as_text(self):
        self.create("a", io=("write 1M 64k",))
        lines = run(FUSEIMG, "map", "a").stdout.decode().splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[2].split()[:4], ["0x100000", "0x10000", "data", "0"])
        self.assertEqual(lines[3].split()[2], "absent")

    def test_info_agrees_with_qemu(self):
        self.create("base", io=("write 0 1M",))
        self.create("top", "-b", "base", "-F", "qcow2", "-o", "cluster_size=4k,refcount_bits=8", size="40M")
        theirs = json.loads(qemu("qemu-img", "info", "--output=json", "top"))
        ours = fuseimg_json("info", "--json", "top")
        for key in ("format", "virtual-size", "actual-size", "cluster-size", "backing-filename",
                    "backing-filename-format"):
            self.assertEqual(ours[key], theirs[key], key)
        self.assertEqual(ours["features"]["refcount_bits"], 8)
        self.assertEqual(ours["features"]["version"], 3)
        self.assertEqual([os.path.basename(b["filename"]) for b in ours["backing"]], ["base"])

    def test_info_counts_snapshots(self):
        self.create("a")
        for name in ("one", "two"):
            qemu("qemu-img", "snapshot", "-c", name, "a")
        self.assertEqual(fuseimg_json("info", "--json", "a")["features"]["snapshots"], 2)

    def test_names_that_are_not_text(self):
        for name in (b"\xff\xfe.raw", b"new\nline", "Käse".encode(), b'quote"'):
            with self.subTest(name=name):
                with open(name, "wb") as f:
                    f.truncate(1 << 20)
                for verb in ("info", "map"):
                    done = run(FUSEIMG.encode(), verb.encode(), b"--json", name)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    json.loads(done.stdout)
                self.assertNotIn(b"\n\n", run(FUSEIMG.encode(), b"info", name).stdout)

    def test_a_huge_image_is_mapped_in_little_memory(self):
        self.create("a", size="60T", io=("write 50T 64k",))
        with open("map", "wb") as out:
            process = subprocess.Popen([FUSEIMG, "map", "--json", "a"], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        self.assertEqual(status, 0)
        self.assertLess(usage.ru_maxrss, 256 * 1024)  # KiB; sanitizers take most of that
        with open("map", "rb") as f:
            self.assertEqual([e["start"] for e in json.load(f) if e["data"]], [50 << 40])

    def assert_fails(self, status, sentence, *args):
        done = run(FUSEIMG, *args)
        self.assertEqual(done.returncode, status, done)
        self.assertIn(sentence, done.stderr.decode())
        self.assertEqual(done.stdout, b"")

    def test_failures_say_why(self):
        os.mkfifo("fifo")
        self.create("base")
        self.create("orphan", "-b", "base", "-F", "qcow2", size=None)
        os.unlink("base")
        for verb in ("info", "map"):
            self.assert_fails(1, "nowhere", verb, "nowhere")
            self.assert_fails(1, "fifo", verb, "fifo")
            self.assert_fails(1, "directory", verb, ".")
            self.assert_fails(1, "base", verb, "orphan")
            self.assert_fails(2, "IMAGE", verb)
            self.assert_fails(2, "did you mean --json", verb, "--jsn", "orphan")

    def test_backing_policy(self):
        os.mkdir("elsewhere")
        self.create("elsewhere/base")
        self.create("top", "-b", os.path.abspath("elsewhere/base"), "-F", "qcow2", size=None)
        os.mkdir("here")
        os.rename("top", "here/top")
        self.assert_fails(1, "backing=", "info", "here/top")
        self.assert_fails(1, "base", "info", "-o", "backing=none", "here/top")
        fuseimg_json("info", "--json", "-o", "backing=" + os.path.abspath("elsewhere"), "here/top")

    def test_a_full_disk_is_reported(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([FUSEIMG, "--help"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)


if __name__ == "__main__":
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        sys.exit(SKIPPED)
    unittest.main()

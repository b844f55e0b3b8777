#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""test-probe.py PROGRAM: what fuseimg-udev-probe says of what may stand on a device."""

import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

MiB = 1 << 20


def probe(*words):
    run = subprocess.run([sys.argv[1], *words], capture_output=True, text=True, timeout=20, check=False)
    return run.returncode, run.stdout, run.stderr


def header(size=64 * MiB, backing=0, version=3, bits=16):
    """A qcow2's first cluster, by its specification, as a device would hold it: with all that follows empty."""
    names = (backing, 16 if backing else 0)
    fields = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, *names, bits, size, 0, 1, 3 << bits, 1 << bits, 1, 0, 0)
    fields += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    return fields.ljust(1 << bits, b"\0")


def main():
    answers = {
        "an image": (header().ljust(4 * MiB, b"\0"), (0, f"image qcow2 {64 * MiB}\n")),
        "one that names a file": (header(backing=512).ljust(4 * MiB, b"\0"), (0, "image qcow2\n")),
        "one that is damaged": (header(bits=5).ljust(4 * MiB, b"\0"), (0, "image qcow2\n")),
        "nothing but a magic": (b"QFI\xfb", (0, "image qcow2\n")),
        "nothing": (b"", (1, "")),
        "zeroes": (bytes(MiB), (1, "")),
        "a boot sector": (bytes(510) + b"\x55\xaa", (1, "")),
    }
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "device")
        for name, (content, wanted) in answers.items():
            path.write_bytes(content)
            got = probe(path)
            if got[:2] != wanted:
                print(f"{name}: {got}, and not {wanted}")
                failed += 1
        if not re.search("No such file", probe(Path(directory, "none"))[2]) or probe()[0] != 2 or probe("/dev/null")[0] != 1:
            print("what cannot be opened is not told")
            failed += 1
    sys.exit(failed > 0)


main()

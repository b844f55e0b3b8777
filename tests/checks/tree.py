# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the checks share: which files the tree has, and how a check ends."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(*patterns):
    """Files that git knows or would add (a new file is checked before its first commit)."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z",
               "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in sorted(filter(None, names)) if (ROOT / name).is_file()]


def scripts(interpreter):
    """Files whose first line calls the interpreter."""
    found = []
    for path in files():
        with path.open("rb") as f:
            first = f.readline(200)
        if first.startswith(b"#!") and interpreter.encode() in first:
            found.append(path)
    return found


def name(path):
    return str(path.relative_to(ROOT))


def finish(problems):
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def skip(reason):
    print(reason)
    sys.exit(77)

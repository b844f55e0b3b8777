#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""test-golden.py GENERATOR UNITS UNIT_DIR WHAT-MOUNTS-DO: what the generator makes of the files in golden/*.in is
golden/*.out (--update: write them), and systemd has nothing to say about it. UNITS: the folder with the built
units, which are for UNIT_DIR; WHAT-MOUNTS-DO: "Requires" or "Wants", by the release of systemd that it is built for."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
HEAD = re.compile(r"^==> (.*) <==\n", re.MULTILINE)


def unpack(text, directory):
    parts = HEAD.split(text)
    for name, body in zip(parts[1::2], parts[2::2]):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if body.startswith("-> "):
            path.symlink_to(body[3:].strip())
        elif body.strip() == "fifo":
            os.mkfifo(path)
        else:
            path.write_text(body)


def pack(directory):
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_symlink():
            yield f"==> {name} -> {path.readlink()} <==\n"
        elif path.is_file():
            yield f"==> {name} <==\n{path.read_text()}"


def generate(generator, given, out):
    """What the generator warns about."""
    given.mkdir(exist_ok=True)
    (given / "etc").mkdir(exist_ok=True)
    for folder in ("normal", "early", "late"):
        (out / folder).mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "FUSEIMG_CONFIG_DIR": f"{given}/etc", "SYSTEMD_FSTAB": f"{given}/fstab"}
    environment.update((key, value) for key, value in os.environ.items() if "SAN_OPTIONS" in key)
    run = subprocess.run([generator, out / "normal", out / "early", out / "late"], env=environment, timeout=20,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stdout == "", run
    assert not list((out / "early").iterdir()) + list((out / "late").iterdir())
    return run.stderr


def verify(normal, units, work):
    """systemd's opinion of the units, with the package's own beside them."""
    beside = work / "units"
    shutil.copytree(units, beside)
    template = beside / "fuseimg@.service"
    template.write_text(re.sub(r"(?m)^(Exec\w+=)\S*/fuseimg ", r"\1/bin/true ", template.read_text()))
    names = [str(path) for path in normal.iterdir() if path.is_file()]
    names += [f"fuseimg@{path.name[8:-2]}" for path in normal.glob("fuseimg@*.d")]
    environment = dict(os.environ, SYSTEMD_UNIT_PATH=f"{normal}:{beside}:", SYSTEMD_LOG_LEVEL="warning")
    run = subprocess.run(["systemd-analyze", "verify", "--man=no", "--", *names], env=environment, timeout=60,
                         capture_output=True, text=True, check=False)
    # this machine's own units may be lacking, and are not ours to judge
    ours = [line for line in (run.stdout + run.stderr).splitlines() if str(work) in line or "fuseimg" in line]
    return "\n".join(ours)


def compare(case, got, update):
    path = case.with_suffix(".out")
    if update:
        path.write_text(got)
    if got == path.read_text():
        return True
    with tempfile.NamedTemporaryFile("w", suffix=".out") as new:
        new.write(got)
        new.flush()
        subprocess.run(["diff", "-u", path, new.name], check=False)
    return False


def main(generator, units, unit_dir, needs, update=False):
    failed = 0
    analyze = shutil.which("systemd-analyze")
    for case in sorted(GOLDEN.glob("*.in")):
        with tempfile.TemporaryDirectory() as directory:
            work = Path(directory)
            unpack(case.read_text(), work / "given")
            warnings = generate(generator, work / "given", work / "out")
            got = "".join(pack(work / "out/normal")) + "==> warnings <==\n" + warnings
            got = got.replace(str(work / "given/"), "").replace(unit_dir, "UNIT-DIR")
            got = re.sub(rf"(?m)^{needs}=fuseimg@", "NEEDS=fuseimg@", got)
            complaints = verify(work / "out/normal", units, work) if analyze else ""
        if not compare(case, got, update) or complaints:
            print(f"{case.name}: not as expected\n{complaints}")
            failed += 1
    sys.exit(failed > 0)


main(*sys.argv[1:5], "--update" in sys.argv)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/run itself, on a tree whose stages do next to nothing: what runs beside what, what is said, how it ends."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The files unit, fuse and system are there while such a stage runs
MESON = """#!/bin/bash
cd {tree}
case $1 in
setup) mkdir -p "${{@: -1}}" && touch "${{@: -1}}/build.ninja" ;;
compile) [[ ! -e $3/cannot ]] ;;
test)
    touch unit
    {unit}
    rm unit
    mkdir -p "$3/meson-logs"
    echo '{{"name": "one", "result": "OK"}}' >"$3/meson-logs/testlog.json"
    ;;
esac
"""
PYTHON = """import os, time
import pytest

def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

@pytest.fixture(autouse=True)
def running():
    open("{name}", "w").close()
    yield
    os.unlink("{name}")

@pytest.mark.core
def test_it():
    {body}

@pytest.mark.core
def test_other():
    pass
"""
INI = "[pytest]\naddopts = -p no:cacheprovider\nmarkers =\n    core: all\n"
OPTIONS = "def pytest_addoption(parser):\n    parser.addoption('--suite')\n    parser.addoption('--long', action='store_true')\n"


class Tree:
    def __init__(self, path):
        self.path = path
        for name in ("tests/run", "tests/lib/count"):
            self.write(name, (ROOT / name).read_text(encoding="utf-8"), 0o755)
        self.write("packaging/deps", "deps_install() { :; }\n")
        self.write("tests/checks/test_nothing.py", "def test_nothing():\n    pass\n")
        for name in ("fuse", "system"):
            self.write(f"tests/{name}/pytest.ini", INI)
            self.write(f"tests/{name}/conftest.py", OPTIONS)
        self.fill()

    def write(self, name, text, mode=0o644):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def fill(self, unit="true", fuse="pass", system="pass"):
        """What the stages do."""
        self.write("bin/meson", MESON.format(tree=self.path, unit=unit), 0o755)
        self.write("tests/fuse/test_fuse.py", PYTHON.format(name="fuse", body=fuse))
        self.write("tests/system/test_system.py", PYTHON.format(name="system", body=system))

    def start(self, *options):
        # whoever runs us in the background may have set aside SIGINT
        return subprocess.Popen(["env", "--default-signal=INT", self.path / "tests/run", *options], text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "PATH": f"{self.path}/bin:{os.environ['PATH']}"})

    def run(self, *options):
        """Status and lines of output."""
        process = self.start(*options)
        text, _ = process.communicate(timeout=120)
        return process.returncode, text.splitlines()

    def processes(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                here = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                continue
            if str(self.path).encode() in command or here == str(self.path):
                found.append(command)
        return found


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


def results(lines):
    """{stage: result}, in the order of the output."""
    split = [line.split() for line in lines]
    return {words[1]: words[0] for words in split if len(words) > 2 and words[0] in ("ok", "FAILED", "skipped")
            and words[1].count(":") == 1 and not words[1].endswith(":")}


def test_stages_beside_each_other(tree):
    """Each of them waits until it has seen the other: one after the other, both would fail."""
    tree.fill(unit="touch unit-was; for _ in {1..600}; do [[ -e fuse-was ]] && break; sleep 0.05; done; [[ -e fuse-was ]] || exit 1",
              fuse='open("fuse-was", "w").close(); wait_for(lambda: os.path.exists("unit-was"))')
    status, lines = tree.run("--quick", "--only", "[fu]*:*")
    assert results(lines) == {"build:gcc": "ok", "fuse:gcc": "ok", "unit:gcc": "ok"}
    assert status == 0 and lines[-1] == "4 passed, 0 failed, 0 skipped"


def test_stages_apart(tree):
    tree.fill(fuse='assert not os.path.exists("system"); time.sleep(0.3)',
              system='assert not os.path.exists("fuse"); time.sleep(0.3)')
    status, lines = tree.run("--quick")
    assert list(results(lines).values()) == ["ok"] * 5 and lines[-1] == "7 passed, 0 failed, 0 skipped", lines
    assert status == 0


def test_one_at_a_time(tree):
    tree.fill(unit="[[ ! -e fuse && ! -e system ]]", fuse='assert not os.path.exists("unit"); time.sleep(0.3)',
              system='assert not os.path.exists("unit"); time.sleep(0.3)')
    status, lines = tree.run("--quick", "--serial")
    assert status == 0 and lines[-1] == "7 passed, 0 failed, 0 skipped", lines


def test_what_failed_is_said_last(tree):
    tree.fill(unit="exit 3", fuse='assert "this" == "that"')
    status, lines = tree.run("--quick")
    assert status == 1
    assert results(lines)["fuse:gcc"] == results(lines)["unit:gcc"] == "FAILED"
    end = lines.index("", len(lines) - 6)
    assert sorted(lines[end + 1:-3]) == ["FAILED fuse:gcc: test_fuse::test_it: AssertionError: assert 'this' == 'that'",
                                         "FAILED unit:gcc: (no test: it ended with status 3)"]
    assert lines[-1] == "5 passed, 2 failed, 0 skipped"


def test_without_a_build(tree):
    tree.write("build/cannot", "")
    status, lines = tree.run("--quick", "--only", "fuse:*")
    assert status == 1 and results(lines) == {"build:gcc": "FAILED"}
    assert "FAILED build:gcc: ended with status 1" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_from_outside(tree, number):
    """In good order: what a fixture does at the end is done, and nobody goes on."""
    tree.fill(unit="exec sleep 1000", fuse='time.sleep(1000)')
    process = tree.start("--quick", "--only", "[fu]*")
    end = time.monotonic() + 60
    while not ((tree.path / "unit").exists() and (tree.path / "fuse").exists()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not (tree.path / "fuse").exists()
    assert not tree.processes()

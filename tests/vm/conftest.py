# SPDX-License-Identifier: LGPL-2.1-or-later
"""Virtual machines of one Debian release, with its kernel and our package. How the package is made, and what drives
images and processes, is shared with tests/system and tests/fuse."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / name) for name in ("vm", "system", "fuse")]

# pylint: disable=wrong-import-position
from box import layers
from guest import build, machine
from guest.disk import Disk
from guest.images import make_disk


def pytest_addoption(parser):
    parser.addoption("--suite", default=layers.roots.host_suite(), help="Debian release (this host's)")
    parser.addoption("--packages", type=Path, metavar="DIR",
                     help="take the package from DIR/SUITE instead of building it")
    parser.addoption("--artifacts", type=Path, metavar="DIR", help="keep consoles, journals and sessions there")


def why_no_machines():
    if os.geteuid() != 0:
        return "needs root, for debootstrap"
    if not shutil.which("qemu-system-x86_64"):
        return "needs qemu-system-x86_64"
    return None


def pytest_collection_modifyitems(items):
    reason = why_no_machines()
    for item in items if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def suite(request):
    return request.config.getoption("--suite")


@pytest.fixture(scope="session")
def work():
    """Where machines and their disks are, gone after the run."""
    directory = Path(tempfile.mkdtemp(prefix="fuseimg-vm-", dir=os.environ.get("FUSEIMG_TEST_DIR", "/var/tmp")))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def systems(request, suite, work):
    """With our package, and without it. Where there are none the last that is said must be why."""
    given = request.config.getoption("--packages")
    try:
        package = next((given / suite).glob("fuseimg_*.deb")) if given else layers.build_package(suite)
        return build.make(suite, work, package)
    except layers.roots.RootError as error:
        pytest.exit(f"There are no machines of {suite}: {error}", returncode=1)


@pytest.fixture(scope="session")
def artifacts(request, work):
    directory = request.config.getoption("--artifacts") or work / "artifacts"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def boot(request, work, systems, artifacts):
    """boot(IMAGE...) -> a Machine with these images in /var/lib/images, and files (path: text), which has booted."""
    made = []

    def make(*images, files=None, installed=True):
        name = request.node.name
        disk = Disk(work / f"{name}.images", name)
        make_disk(disk.path, images)
        made.append(machine.Machine(systems[0 if installed else 1], work, name, disk, files or {}))
        made[-1].boot()
        return made[-1]

    yield make
    for one in made:
        one.destroy()
        shutil.move(one.console, artifacts / one.console.name)
        one.disk.forget()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What a machine said last when a test failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in machine.live:
            report.sections += one.last_words()

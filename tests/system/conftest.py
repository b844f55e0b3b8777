# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package of one Debian release, and machines with it. What drives images, mounts and processes is shared
with tests/fuse."""

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "fuse")]

# pylint: disable=wrong-import-position
from box import journal, layers
from box.export import Export
from box.machine import Machine, live as machine_live
from box.table import Table
from support import proc


PAGE = layers.TREE / "man/fuseimg@.service.8.scd"


def pytest_addoption(parser):
    parser.addoption("--suite", default=layers.roots.host_suite(), help="Debian release (this host's)")
    parser.addoption("--packages", type=Path, metavar="DIR",
                     help="take the package from DIR/SUITE instead of building it")
    parser.addoption("--long", action="store_true", help="also the tests that take minutes")
    parser.addoption("--document", action="store_true", help=f"write what clients saw into {PAGE}")


def why_no_machines():
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    return None


def pytest_collection_modifyitems(config, items):
    reason = why_no_machines()
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))
    if not config.getoption("--long"):
        # deselected, not skipped: a run without --long is complete in itself
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def suite(request):
    return request.config.getoption("--suite")


@pytest.fixture(scope="session")
def work():
    """Where machines and their images are, gone after the run."""
    directory = Path(tempfile.mkdtemp(prefix="fuseimg-system-", dir=os.environ.get("FUSEIMG_TEST_DIR", "/var/tmp")))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def package(request, suite):
    """Without one there is nothing to test, and the reason must be the last that is said."""
    given = request.config.getoption("--packages")
    if given:
        return next((given / suite).glob("fuseimg_*.deb"))
    try:
        return layers.build_package(suite)
    except layers.roots.RootError as error:
        pytest.exit(f"There is no package for {suite}: {error}", returncode=1)


@pytest.fixture(scope="session")
def lower(work, suite, package):
    try:
        return layers.make(suite, work / "layer", package)
    except layers.roots.RootError as error:
        pytest.exit(f"There is no {suite} with the package: {error}", returncode=1)


@pytest.fixture(scope="session")
def boot(work, lower):
    """boot() -> a Machine of one's own; /srv is the same directory in all of them."""
    numbers, made = itertools.count(), []
    srv = work / "srv"
    srv.mkdir()

    def make():
        machine = Machine(lower, work / f"machine{next(numbers)}", srv)
        made.append(machine)
        return machine

    yield make
    for machine in made:
        machine.destroy()


@pytest.fixture(scope="module")
def machine(boot):
    """Shared by the tests of a module, each of which has exports of its own."""
    machine = boot()
    yield machine
    complaints = journal.complaints(machine.journal(), machine.forgiven) if machine.alive else []
    machine.destroy()
    assert not complaints, "\n".join(complaints)


@pytest.fixture(autouse=True)
def limit(request):
    """When a test takes too long all machines are ended, and so is whatever waits for one."""
    marker = request.node.get_closest_marker("limit")
    timer = threading.Timer((marker.args[0] if marker else 60) * proc.PATIENCE, lambda: [one.destroy() for one in list(machine_live)])
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@pytest.fixture
def export(request):
    """export(machine, NAME, KEY=value...) -> Export; stopped after the test, and its journal shown where that failed."""
    made = []

    def make(machine, name, **options):
        made.append(Export(machine, name, **options))
        return made[-1]

    yield make
    for item in made:
        if item.machine.alive:
            with contextlib.suppress(AssertionError):
                item.give_up()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What the machine said during a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in machine_live:
            if one.alive:
                report.sections.append(("journal", one.journal(f"--since=@{call.start:.0f}", "--lines=80")))


@pytest.fixture(scope="session")
def table(request, suite):
    """What clients saw; printed at the end, and written into a document where --document asks for that."""
    rows = Table(suite)
    yield rows
    request.config.table = rows
    if request.config.getoption("--document"):
        rows.write(PAGE)


def pytest_terminal_summary(terminalreporter, config):
    rows = getattr(config, "table", None)
    if rows:
        terminalreporter.section("what a client saw")
        terminalreporter.write_line(rows.text())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures: a directory, a mount that is always cleaned up, and a watchdog around every test."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support import export, images, mounts, proc, service, users
from support.watchdog import Watchdog


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    # deselected, not skipped: a run without --long is complete in itself
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def why_no_mounts():
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    return None


# In the name of every test's directory, and so in the command line of what is started for it
MARK = f"fuseimg-{os.getpid()}-"


def pytest_sessionstart(session):
    if os.geteuid() == 0:
        mounts.begin_namespace()
    session.config.watchdog = Watchdog(MARK)


def pytest_sessionfinish(session):
    session.config.watchdog.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    marker = item.get_closest_marker("limit")
    item.config.watchdog.start((marker.args[0] if marker else 60) * proc.PATIENCE)
    yield
    item.config.watchdog.stop()


@pytest.fixture
def work():
    """A directory that everybody may look into, gone after the test with all that is mounted there."""
    base = os.environ.get("FUSEIMG_TEST_DIR", "/var/tmp")
    directory = Path(tempfile.mkdtemp(prefix=MARK, dir=base))
    directory.chmod(0o755)
    yield directory
    for target in mounts.below(directory):
        proc.run("umount", "--lazy", target, check=False)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def mount(work):
    """mount(IMAGE, [TARGET], key=value...) -> Export; TARGET is a new empty file when not given."""
    reason = why_no_mounts()
    if reason:
        pytest.skip(reason)
    made = []

    def make(image, target=None, user=None, **options):
        if target is None:
            target = work / f"export{len(made)}"
            target.touch()
            if user:
                os.chown(target, user.uid, user.gid)
        made.append(target)
        return export.Export(image, target, user=user, **options)

    yield make
    for item in reversed(list(export.live)):
        if item.target in made:
            item.close()


@pytest.fixture
def manager(work):
    """What a service manager is to `fuseimg serve`."""
    reason = why_no_mounts()
    if reason:
        pytest.skip(reason)
    made = service.Manager(work)
    yield made
    made.close()


@pytest.fixture(scope="session")
def maker(tmp_path_factory):
    """Makes images of all shapes."""
    return images.Maker(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def user(work):
    """An ordinary user with a home and a run-time directory below the test's."""
    reason = why_no_mounts() or users.why_not()
    if reason:
        pytest.skip(reason)
    users.let_everybody_use_fuse()
    return users.make(work)

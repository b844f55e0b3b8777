# SPDX-License-Identifier: LGPL-2.1-or-later
"""An ordinary user for the tests of use without root."""

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from support.proc import run, wait_until

NAME = "fuseimg-test"


@dataclass
class User:
    name: str
    uid: int
    gid: int
    home: Path
    runtime: Path


def make(directory):
    """The user (made on first use, kept: a system user without a login) and directories of his own."""
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        # another run may make it at the same time
        done = run("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
                   shutil.which("nologin") or "/usr/sbin/nologin", NAME, check=False)
        wait_until(lambda: NAME in (known.pw_name for known in pwd.getpwall()), what=f"the user {NAME} ({done.stderr})")
        entry = pwd.getpwnam(NAME)
    user = User(NAME, entry.pw_uid, entry.pw_gid, Path(directory) / "home", Path(directory) / "runtime")
    for path in (user.home, user.runtime):
        path.mkdir(mode=0o700)
        os.chown(path, user.uid, user.gid)
    return user


def let_everybody_use_fuse():
    """udev makes /dev/fuse 0666 on every Debian; a container or a machine without udev has the kernel's
    0600, with which no ordinary user can mount anything."""
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) != 0o666:
        os.chmod("/dev/fuse", 0o666)


def why_not():
    """Why an ordinary user cannot mount here, or None."""
    helper = shutil.which("fusermount3")
    if not helper:
        return "fusermount3 is not installed"
    if not os.stat(helper).st_mode & stat.S_ISUID:
        return f"{helper} is not setuid root"
    return None

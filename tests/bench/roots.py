# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the tools come from: packages of this host, and cached debootstrap roots for other QEMUs."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile

CACHE = "/var/cache/fuseimg-tests"
PACKAGES = {"fio": "fio", "qemu-img": "qemu-utils", "qemu-storage-daemon": "qemu-system-common",
            "debootstrap": "debootstrap"}
STORAGE_DAEMON = "qemu-storage-daemon"


class RootError(Exception):
    """A tool that the benchmark needs cannot be had."""


def host_suite():
    """Debian's code name of this host, "" where there is none."""
    with open("/etc/os-release", encoding="utf-8") as file:
        fields = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def package_of_daemon(suite):
    return "qemu-system-common" if suite == "bookworm" else "qemu-utils"


def install_tools():
    """Installs what is missing on this host."""
    wanted = {**PACKAGES, STORAGE_DAEMON: package_of_daemon(host_suite())}
    missing = sorted({package for tool, package in wanted.items() if not shutil.which(tool)})
    if not missing:
        return
    _say(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        _run(["apt-get", "-qq", *step], environment)


def storage_daemon(suite):
    """The command that runs the qemu-storage-daemon of Debian `suite` on this host.

    Another suite's binary is run by its own dynamic linker with its own libraries. No chroot: the mount
    has to show up here, and so it does."""
    if suite == host_suite():
        return [STORAGE_DAEMON]
    root = _root(suite)
    libraries = f"{root}/usr/lib/x86_64-linux-gnu"
    return [f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", libraries,
            f"{root}/usr/bin/{STORAGE_DAEMON}"]


@contextlib.contextmanager
def lock(name, wait):
    """Held by one process at a time; without `wait` a second one is refused."""
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/{name}.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RootError(f"another {name} is running: both would measure each other") from None
        yield


def _root(suite):
    """The root of `suite`, made on first use. It appears under its name only when it is complete."""
    path = f"{CACHE}/qemu-{suite}"
    with lock("roots", wait=True):
        if not os.path.exists(f"{path}/usr/bin/{STORAGE_DAEMON}"):
            _bootstrap(suite, path)
    return path


def _bootstrap(suite, path):
    """debootstrap mounts /proc and /sys in the root: in a mount namespace of its own they end with it."""
    _say(f"making {path} (half a minute)")
    with contextlib.ExitStack() as cleanup:
        new = tempfile.mkdtemp(prefix=f".{suite}-", dir=CACHE)
        cleanup.callback(shutil.rmtree, new, ignore_errors=True)
        os.chmod(new, 0o755)
        _run(["unshare", "--mount", "debootstrap", "--variant=minbase",
              f"--include={package_of_daemon(suite)}", suite, new])
        if os.path.exists(path):
            shutil.rmtree(path)
        os.rename(new, path)


def _run(command, environment=None):
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-5:])
        raise RootError(f"{' '.join(command)} exited with {done.returncode}:\n{tail}")


def _say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)

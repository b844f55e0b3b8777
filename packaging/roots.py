# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small Debian systems in directories, made by debootstrap on first use and kept between runs.

For the benchmark (another release's QEMU), the tests of the service (a system to boot) and
build-deb (another release's compiler)."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = os.environ.get("FUSEIMG_TEST_CACHE", "/var/cache/fuseimg-tests")
# In a root: what it was made of, so that one made of something else is made anew
STAMP = "etc/fuseimg-root"
MIRROR = "http://deb.debian.org/debian"


class RootError(Exception):
    """A root, or a tool to make it with, cannot be had."""


def host_suite():
    """Debian's code name of this host, "" where there is none."""
    with open("/etc/os-release", encoding="utf-8") as file:
        fields = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def install(packages):
    """Installs packages on this host."""
    if not packages:
        return
    say(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        run(["apt-get", "-qq", *step], environment)


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


def root(kind, suite, packages):
    """The path of a root of Debian `suite` with these packages. It appears there only when it is complete."""
    path = f"{CACHE}/{kind}-{suite}"
    made_of = f"{suite} {' '.join(sorted(packages))}\n"
    with lock("roots", wait=True):
        if _made_of(path) != made_of:
            _bootstrap(suite, packages, path, made_of)
    return path


def _made_of(path):
    try:
        return Path(path, STAMP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _bootstrap(suite, packages, path, made_of):
    """debootstrap mounts /proc and /sys in the root."""
    if not shutil.which("debootstrap"):
        install(["debootstrap"])
    say(f"making {path} (about a minute)")
    with contextlib.ExitStack() as cleanup:
        new = tempfile.mkdtemp(prefix=f".{suite}-", dir=CACHE)
        cleanup.callback(shutil.rmtree, new, ignore_errors=True)
        os.chmod(new, 0o755)
        run_apart('exec debootstrap --variant=minbase "$@"', f"--include={','.join(packages)}", suite, new, MIRROR)
        Path(new, STAMP).write_text(made_of, encoding="utf-8")
        if os.path.exists(path):
            shutil.rmtree(path)
        os.rename(new, path)


def run(command, environment=None, **options):
    """To the end; when it fails, the last lines that it said are the reason."""
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False, **options)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        name = " ".join(str(word) for word in command if "\n" not in str(word))
        raise RootError(f"{name} exited with {done.returncode}:\n{tail}")
    return done.stdout


def run_apart(script, *words, environment=None):
    """A script of the shell in a mount namespace of its own: what it mounts ends with it. The namespace begins as a
    copy, and an export cannot end while a copy of its mount is held."""
    script = f"umount --all --lazy --types fuse.fuseimg || true\n{script}"
    return run(["unshare", "--mount", "--propagation=private", "sh", "-euc", script, "sh", *words], environment)


def say(text):
    print(text, file=sys.stderr, flush=True)

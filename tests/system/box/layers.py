# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a machine is made of: a root of its release, and on top of it what installing our package changes."""

import os
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
sys.path.append(str(TREE / "packaging"))
import roots    # pylint: disable=wrong-import-position

PACKAGES = ["systemd", "systemd-sysv", "dbus", "e2fsprogs", "mount", "python3"]
# Units that cannot work in a container and would make it "degraded"
MASKED = ["systemd-modules-load.service", "console-getty.service"]

# Packages that ours depends on are kept for the next time
INSTALL = """lower=$1 layer=$2 archives=$3 package=$4
shift 4
mkdir -p "$layer"/upper "$layer"/work "$layer"/root "$archives"/partial
mount -t overlay -o "lowerdir=$lower,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
cd "$layer/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --bind "$archives" var/cache/apt/archives
cp "$package" srv/
set -- apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \\
    install "/srv/${package##*/}" "$@"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot . "$@" || { chroot . apt-get -qq update; chroot . "$@"; }
"""


def build_package(suite):
    """Our package for that release, made from this tree."""
    output = TREE / "build-deb" / suite
    made = roots.run([TREE / "packaging/build-deb", f"--suite={suite}", f"--output={output}"])
    return next(Path(line) for line in made.splitlines() if "/fuseimg_" in line)


def make(suite, layer, package, *more):
    """The directories, uppermost first. `more`: Debian's packages to install as well."""
    base = roots.root("system", suite, PACKAGES)
    roots.run_apart(INSTALL, base, layer, f"{roots.CACHE}/archives-{suite}", package, *more)
    upper = Path(layer, "upper")
    for unit in MASKED:
        link = upper / "etc/systemd/system" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink("/dev/null", link)
    # so that the journal outlives the machine
    (upper / "var/log/journal").mkdir(parents=True, exist_ok=True)
    return [upper, Path(base)]

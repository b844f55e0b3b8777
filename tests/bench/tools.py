# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the tools come from: packages of this host, and cached roots for other QEMUs."""

import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "packaging"))
import roots    # pylint: disable=wrong-import-position

PACKAGES = {"fio": "fio", "qemu-img": "qemu-utils", "qemu-storage-daemon": "qemu-system-common",
            "debootstrap": "debootstrap"}
STORAGE_DAEMON = "qemu-storage-daemon"


def package_of_daemon(suite):
    return "qemu-system-common" if suite == "bookworm" else "qemu-utils"


def install():
    """Installs what is missing on this host."""
    wanted = {**PACKAGES, STORAGE_DAEMON: package_of_daemon(roots.host_suite())}
    roots.install(sorted({package for tool, package in wanted.items() if not shutil.which(tool)}))


def storage_daemon(suite):
    """The command that runs the qemu-storage-daemon of Debian `suite` on this host.

    Another suite's binary is run by its own dynamic linker with its own libraries. No chroot: the mount
    has to show up here, and so it does."""
    if suite == roots.host_suite():
        return [STORAGE_DAEMON]
    root = roots.root("qemu", suite, [package_of_daemon(suite)])
    libraries = f"{root}/usr/lib/x86_64-linux-gnu"
    return [f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", libraries,
            f"{root}/usr/bin/{STORAGE_DAEMON}"]

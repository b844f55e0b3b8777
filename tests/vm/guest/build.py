# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a machine boots: disks made of a root of its release, with our package or with what installs it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from box import layers

PACKAGES = ["systemd", "systemd-sysv", "udev", "dbus", "kmod", "e2fsprogs", "mount", "python3", "qemu-utils",
            "linux-image-cloud-amd64"]
HERE = Path(__file__).parent

# The distribution's initrd with the drivers that are needed: it is read, unpacked and searched by an emulated CPU
SMALL_INITRD = """
printf 'MODULES=list\\nBUSYBOX=n\\n' >etc/initramfs-tools/conf.d/small
printf 'virtio_pci\\nvirtio_blk\\n' >>etc/initramfs-tools/modules
chroot . update-initramfs -u
"""
# The directories, uppermost first, as one file system
DISK = """directory=$(mktemp -d)
mount -t overlay -o "lowerdir=$1" overlay "$directory"
mkfs.ext4 -q -F -E lazy_itable_init=0 -d "$directory" "$2" "$3"
umount "$directory"
rmdir "$directory"
"""
# Of what Debian starts, that which is not for mounts, images or disks: each costs a second
MASKED = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "dev-hugepages.mount", "dev-mqueue.mount", "getty.target", "modprobe@configfs.service",
    "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
    "proc-sys-fs-binfmt_misc.automount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "systemd-binfmt.service", "systemd-logind.service", "systemd-networkd.service",
    "systemd-timesyncd.service", "systemd-update-utmp.service",
]
MASKED_GENERATORS = ["bless-boot", "cryptsetup", "debug", "getty", "gpt-auto", "hibernate-resume", "integritysetup",
                     "rc-local", "run", "ssh", "system-update", "sysv", "tpm2", "veritysetup"]
AGENT = """[Unit]
Description=Commands from the host
DefaultDependencies=no
[Service]
ExecStart=/usr/local/lib/agent
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive
WorkingDirectory=/root
Restart=always
[Install]
WantedBy=sysinit.target
"""
# As an administrator would have it: images are on a disk of their own
FSTAB = """/dev/vda / ext4 errors=remount-ro 0 1
LABEL=images /var/lib/images ext4 defaults 0 2
"""


@dataclass(frozen=True)
class System:
    image: Path
    kernel: Path
    initrd: Path


def make(suite, work, package):
    """Two systems: one with our package installed, and one that has it as /root/fuseimg.deb, with what it depends on in
    apt's cache."""
    base = layers.roots.root("vm", suite, PACKAGES)
    layer, ours = work / "layer", work / "ours"
    archives = f"{layers.roots.CACHE}/archives-{suite}"
    layers.roots.run_apart(layers.INSTALL + SMALL_INITRD, base, layer, archives, package)
    upper = layer / "upper"
    customise(ours)
    initrd, = (upper / "boot").glob("initrd.img-*")
    kernel, = Path(base, "boot").glob("vmlinuz-*")
    cache = work / "cache"
    shutil.copytree(archives, cache / "var/cache/apt/archives", ignore=shutil.ignore_patterns("partial", "lock"))
    shorten_lists(Path(base), cache)
    (cache / "root").mkdir(mode=0o700)
    shutil.copy(package, cache / "root")
    return (System(disk(work / "installed", ours, upper, base), kernel, initrd),
            System(disk(work / "bare", ours, cache, base), kernel, initrd))


def shorten_lists(base, layer):
    """Only what is in apt's cache is left in its lists: to read all of Debian takes an emulated CPU minutes."""
    names = {path.name.split("_")[0] for path in (layer / "var/cache/apt/archives").glob("*.deb")}
    for path in (base / "var/lib/apt/lists").glob("*_Packages"):
        packages = path.read_text(encoding="utf-8").split("\n\n")
        short = layer / path.relative_to(base)
        short.parent.mkdir(parents=True, exist_ok=True)
        short.write_text("\n\n".join(text for text in packages if text.partition("\n")[0][9:] in names) + "\n\n",
                         encoding="utf-8")


def disk(image, *directories):
    layers.roots.run_apart(DISK, ":".join(map(str, directories)), image, "1200M")
    return image


def customise(directory):
    """What our machines have that nobody's has."""
    def put(path, text, mode=0o644):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    put("usr/local/lib/agent", (HERE / "agent").read_text(encoding="utf-8"), 0o755)
    put("usr/local/lib/writer.py", (HERE / "writer.py").read_text(encoding="utf-8"))
    put("etc/systemd/system/agent.service", AGENT)
    put("etc/fstab", FSTAB)
    put("etc/hostname", "debian\n")
    # fuse3 would have it made anew, for minutes, and we boot the one that we have
    put("etc/initramfs-tools/update-initramfs.conf", "update_initramfs=no\nbackup_initramfs=no\n")
    link(directory / "etc/systemd/system/sysinit.target.wants/agent.service", "/etc/systemd/system/agent.service")
    for unit in MASKED:
        link(directory / "etc/systemd/system" / unit, "/dev/null")
    for name in MASKED_GENERATORS:
        link(directory / f"etc/systemd/system-generators/systemd-{name}-generator", "/dev/null")
    for path in ("var/log/journal", "var/lib/images", "etc/sysctl.d"):
        (directory / path).mkdir(parents=True)


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)

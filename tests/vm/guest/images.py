# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images with file systems in them, and what a machine has left of them."""

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import images, proc, tables
from support.content import MiB

SIZE = 96 * MiB
START, PART_END = MiB, 80 * MiB     # of the partition


@dataclass(frozen=True)
class Image:
    """A file in /var/lib/images, with ext4 on the whole disk or in its second partition."""
    name: str
    format: str = "qcow2"
    parted: bool = False

    @property
    def file(self):
        return f"{self.name}.{self.format}"

    @property
    def inside(self):
        return f"/var/lib/images/{self.file}"

    @property
    def where(self):
        return f"/srv/{self.name}"

    def make(self, directory):
        flat = directory / f"{self.name}.flat"
        with flat.open("wb") as file:
            file.truncate(SIZE)
        options = []
        if self.parted:
            tables.write(flat, f'label: gpt\nstart={PART_END // MiB + 1}M, size=8M, name=other\n'
                               f'start={START // MiB}M, size={(PART_END - START) // MiB}M, name="the data"\n')
            options = ["-E", f"offset={START},lazy_itable_init=0", f"{(PART_END - START) // MiB}M"]
        proc.run("mkfs.ext4", "-q", "-F", flat, *options)
        proc.run("qemu-img", "convert", "-O", self.format, flat, directory / self.file)
        flat.unlink()

    def judge(self, disk, directory, leaks=0):
        """The machine that used it is off: image and file system are in order."""
        image = directory / self.file
        proc.run("debugfs", "-R", f'dump "/{self.file}" {image}', disk)
        if self.format == "qcow2":
            images.check(image, leaks=leaks)
            assert not images.info(image)["format-specific"]["data"].get("dirty-flag"), "the image is dirty"
        flat = image.with_suffix(".flat")
        images.to_raw(image, flat, "-f", self.format)
        proc.run("e2fsck", "-fn", f"{flat}?offset={START}" if self.parted else flat)


@contextmanager
def scratch(directory):
    path = Path(tempfile.mkdtemp(prefix="images-", dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def make_disk(path, made):
    """A disk with a file system that holds the images."""
    with scratch(path.parent) as directory:
        for image in made:
            image.make(directory)
        proc.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", "-L", "images", "-d", directory, path, "512M")


def judge_disk(path, made, leaks=0):
    with scratch(path.parent) as directory:
        proc.run("e2fsck", "-fn", path)
        for image in made:
            image.judge(path, directory, leaks)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What people get wrong, and what the world does to them: a clear sentence that names the file and a way
out, nothing mounted, nothing changed."""

import contextlib
import errno
import os
import random
import shutil
import socket
import stat
import subprocess

import pytest

from support import export as exports
from support import images, loop, mounts, proc
from support.content import KiB, MiB, assert_same, random_bytes, write_all
from support.export import MountFailed, fuseimg

MAGIC = b"QFI\xfb"


@pytest.fixture
def target(work):
    path = work / "target"
    path.touch()
    return path


def refused(image, target, *wanted, user=None, **options):
    """The sentence with which a mount is refused; it holds every wanted word, and the image's name."""
    with pytest.raises(MountFailed) as caught:
        exports.Export(image, target, user=user, daemon=True, **options)
    assert caught.value.returncode == 1
    text = caught.value.stderr
    assert text.startswith("fuseimg: ") and text.count("\n") == 1, text
    for word in wanted:
        assert str(word) in text, text
    if os.path.lexists(target):
        assert mounts.at(target) is None
    assert fuseimg("list").stdout.find(str(target)) < 0
    return text


def poke(path, off, data):
    with open(path, "r+b") as f:
        f.seek(off)
        f.write(data)


# the image

@pytest.mark.core
def test_no_such_file(work, target):
    refused(work / "nothing.img", target, work / "nothing.img", "exist")


def test_dangling_symlink(work, target):
    (work / "link").symlink_to("nothing")
    refused(work / "link", target, work / "link")


def test_no_such_directory(work, target):
    refused(work / "no/thing.img", target, work / "no/thing.img")


@pytest.mark.core
def test_not_an_image(work, target, mount):
    """Writable, an unknown image may be raw only when a person says so."""
    image = work / "text.img"
    image.write_bytes(b"just text\n" * 1000)
    refused(image, target, image, "format=raw")
    export = mount(image, target, ro=True)
    assert_same(export.path, image.read_bytes())
    export.umount()
    export = mount(image, target, format="raw")
    export.umount()


def test_a_guest_cannot_turn_raw_into_qcow2(work, target, mount):
    """A disk whose first sector claims to be qcow2 stays raw when raw was stated."""
    image = images.sparse_file(work / "disk.raw", MiB)
    inner = images.create(work / "inner.img", MiB, backing=("disk.raw", "raw")).read_bytes()
    poke(image, 0, inner[:4096])
    export = mount(image, target, format="raw")
    assert export.read()[:4] == MAGIC
    assert export.path.stat().st_size == MiB
    export.umount()


@pytest.mark.parametrize("size", [0, 1, 511])
def test_tiny_files(work, target, size):
    image = work / "tiny.img"
    image.write_bytes(b"x" * size)
    refused(image, target, image)


@pytest.mark.parametrize("format", ["vmdk", "vdi", "vhdx", "vpc", "luks"])
def test_other_formats(work, target, format):
    """Nothing that we do not know may be taken for raw when writable."""
    image = work / "disk.img"
    if format == "luks":    # qemu-img would benchmark the machine first
        image.write_bytes((b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64").ljust(8 * MiB, b"\0"))
    else:
        proc.run("qemu-img", "create", "-q", "-f", format, image, "8M")
    refused(image, target, image)


def test_wrong_format_stated(work, target):
    image = images.sparse_file(work / "disk.raw", MiB)
    refused(image, target, image, "qcow2", format="qcow2")
    # no such format: a mistake in the command line
    with pytest.raises(MountFailed) as caught:
        exports.Export(image, target, daemon=True, format="raww")
    assert caught.value.returncode == 2 and "auto|raw|qcow2" in caught.value.stderr


@pytest.mark.core
@pytest.mark.parametrize("bit", [5, 17, 63])
def test_unknown_feature(work, target, bit):
    image = images.create(work / "disk.img", MiB)
    poke(image, 72, (1 << bit).to_bytes(8, "big"))
    refused(image, target, image, bit)


def test_unknown_feature_with_a_name(work, target):
    """The name comes from the image's own table."""
    image = images.create(work / "disk.img", MiB)
    poke(image, 72, (1 << 40).to_bytes(8, "big"))
    data = image.read_bytes()
    table = data.index(0x6803f857.to_bytes(4, "big"))
    poke(image, table + 8, bytes([0, 40]) + b"levitation".ljust(46, b"\0"))
    refused(image, target, image, "levitation")


def test_corrupt_bit(work, target, mount):
    """An image marked corrupt is shown, but not written."""
    image = images.create(work / "disk.img", MiB)
    poke(image, 72, (2).to_bytes(8, "big"))
    refused(image, target, image, "corrupt", "read", "check")
    mount(image, target, ro=True).umount()


@pytest.mark.parametrize("method", [1, 2], ids=["aes", "luks"])
def test_encrypted(work, target, method):
    image = images.create(work / "disk.img", MiB)
    poke(image, 32, method.to_bytes(4, "big"))
    assert "ncrypt" in refused(image, target, image)
    assert "ncrypt" in refused(image, target, image, ro=True)


def test_directory_as_image(work, target):
    refused(work, target, work)


def test_fifo_as_image(work, target):
    os.mkfifo(work / "fifo")
    refused(work / "fifo", target, work / "fifo")


def test_socket_as_image(work, target):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
        refused(work / "socket", target, work / "socket")


def test_device_as_image(work, target):
    refused("/dev/zero", target, "/dev/zero")


# the files that an image names

@pytest.fixture
def overlay(work):
    images.sparse_file(work / "base.img", MiB)
    return images.create(work / "disk.img", MiB, backing=("base.img", "raw"))


def name_backing(image, name, format="raw"):
    proc.run("qemu-img", "rebase", "-q", "-u", "-b", name, "-F", format, image)


@pytest.mark.core
def test_missing_backing_file(work, target, overlay):
    (work / "base.img").unlink()
    refused(overlay, target, work / "base.img")
    refused(overlay, target, work / "base.img", ro=True)


def test_backing_format_must_be_stated_for_raw(work, target, overlay):
    proc.run("qemu-img", "rebase", "-q", "-u", "-b", "base.img", overlay, check=False)
    data = bytearray(overlay.read_bytes())
    at = data.find(0xe2792aca.to_bytes(4, "big"))
    if at >= 0:     # qemu-img would not leave it out
        poke(overlay, at, (0x11111111).to_bytes(4, "big"))
    refused(overlay, target, "base.img")


def test_backing_outside(work, target, overlay, mount):
    outside = work / "outside"
    outside.mkdir()
    base = (work / "base.img").rename(outside / "base.img")
    inside = work / "inside"
    inside.mkdir()
    image = overlay.rename(inside / "disk.img")
    for name in (base, "../outside/base.img"):
        name_backing(image, name)
        text = refused(image, target, base, "backing=")
        assert str(outside) in text
        export = mount(image, target, backing=f"/nowhere:{outside}")
        assert_same(export.path, base.read_bytes())
        export.umount()
    # what is opened counts, not how it is spelled
    (inside / "base.img").symlink_to(base)
    name_backing(image, "base.img")
    refused(image, target, base, "backing=")
    # a directory whose name merely begins alike
    refused(image, target, base, "backing=", backing=str(outside)[:-1])


def test_backing_below_is_allowed(work, target, overlay, mount):
    below = work / "below/deeper"
    below.mkdir(parents=True)
    base = (work / "base.img").rename(below / "base.img")
    name_backing(overlay, "below/deeper/base.img")
    export = mount(overlay, target)
    assert_same(export.path, base.read_bytes())
    export.umount()


def test_backing_forbidden(target, overlay):
    refused(overlay, target, "base.img", "backing=none", backing="none")


def test_data_file_missing_or_outside(work, target):
    image = images.create(work / "disk.img", MiB, data_file="data.bin")
    (work / "data.bin").rename(work / "data.away")
    refused(image, target, work / "data.bin", backing=work)
    (work / "data.bin").symlink_to("/etc/passwd")
    refused(image, target, "/etc/passwd", "backing=", backing=work)
    refused(image, target, "/etc/passwd", "backing=", ro=True)


def test_symlinked_image_is_where_it_leads(work, target, overlay, mount):
    """The directory that counts is that of the real file."""
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.img").symlink_to(overlay)
    export = mount(elsewhere / "link.img", target)
    assert_same(export.path, (work / "base.img").read_bytes())
    export.umount()


# the target

@pytest.mark.core
def test_target_missing(work):
    image = images.create(work / "disk.img", MiB)
    text = refused(image, work / "nothing", work / "nothing")
    assert "touch" in text or "mkdir" in text or "directory" in text
    refused(image, work / "no/thing", work / "no/thing")


@pytest.mark.core
def test_target_not_empty(work, target):
    image = images.create(work / "disk.img", MiB)
    target.write_text("precious")
    refused(image, target, target, "empty")
    directory = work / "directory"
    directory.mkdir()
    (directory / "precious").touch()
    refused(image, directory, directory, "empty")


@pytest.mark.core
def test_target_busy(work, target, mount):
    image, other = images.create(work / "disk.img", MiB), images.create(work / "other.img", MiB)
    export = mount(image, target)
    for again in (other, image):
        done = fuseimg("mount", again, target, check=False)
        assert done.returncode == 1 and str(target) in done.stderr, done.stderr
        assert done.stderr.startswith("fuseimg: ") and done.stderr.count("\n") == 1
    assert_same(export.path, bytes(MiB))
    export.umount()
    assert mounts.at(target) is None


def test_target_inside_an_export(work, mount):
    directory = work / "directory"
    directory.mkdir()
    image, other = images.create(work / "disk.img", MiB), images.create(work / "other.img", MiB)
    export = mount(image, directory)
    done = fuseimg("mount", other, directory / "disk", check=False)
    assert done.returncode == 1 and str(directory) in done.stderr, done.stderr
    export.umount()


def test_two_at_once_on_one_target(work, target, mount):
    image, other = images.create(work / "disk.img", MiB), images.create(work / "other.img", 2 * MiB)
    command = [exports.PROGRAM, "mount", None, target]
    env = {**os.environ, "FUSEIMG_WORKER": str(exports.WORKER)}
    started = []
    for path in (image, other):
        command[2] = path
        started.append(subprocess.Popen(list(map(str, command)), env=env, stderr=subprocess.PIPE, text=True))
    ends = sorted(one.wait(20 * proc.PATIENCE) for one in started)
    for one in started:
        one.stderr.close()
    assert ends == [0, 1]
    fuseimg("umount", target)
    assert mounts.at(target) is None


@pytest.mark.core
def test_target_is_the_image(work):
    image = images.create(work / "disk.img", MiB)
    (work / "symlink").symlink_to("disk.img")
    os.link(image, work / "hardlink")
    for a, b in ((image, image), (work / "symlink", image), (image, work / "symlink"), (work / "hardlink", image),
                 (image, work / "hardlink")):
        refused(a, b, "itself")
    raw = work / "empty.raw"
    raw.touch()
    refused(raw, raw, raw, format="raw")


def test_target_is_something_else(work):
    image = images.create(work / "disk.img", MiB)
    os.mkfifo(work / "fifo")
    refused(image, work / "fifo", work / "fifo")
    refused(image, "/dev/null", "/dev/null")
    (work / "dangling").symlink_to("nothing")
    refused(image, work / "dangling", work / "dangling", "create")


def test_target_is_the_backing_file(work, target, overlay):
    """Hiding a file of the chain under the export would be a loop."""
    (work / "base.img").write_bytes(b"")
    (work / "base.img").touch()
    done = fuseimg("mount", overlay, work / "base.img", check=False)
    if done.returncode == 0:    # the worker holds the file itself: the mount above it hides nothing from it
        assert (work / "base.img").read_bytes() == bytes(MiB)
        fuseimg("umount", work / "base.img")
    else:
        assert str(work / "base.img") in done.stderr


def test_target_through_a_symlink(work, target, mount):
    image = images.create(work / "disk.img", MiB)
    (work / "link").symlink_to("target")
    done = fuseimg("mount", image, work / "link")
    assert done.returncode == 0
    assert mounts.at(target)
    fuseimg("umount", work / "link")
    assert not mounts.at(target)


def test_umount_of_what_is_not_ours(work, target):
    for path in (target, work / "nothing", "/"):
        done = fuseimg("umount", path, check=False)
        assert done.returncode == 1 and str(path) in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


# the host

@pytest.mark.core
def test_read_only_file_system(work, target, mount):
    place = work / "place"
    place.mkdir()
    with loop.small_file_system(place, "8m"):
        image = images.create(place / "disk.img", MiB)
        proc.run("mount", "-o", "remount,ro", place)
        refused(image, target, image, "-o ro")
        export = mount(image, target, ro=True)
        assert_same(export.path, bytes(MiB))
        export.umount()


def test_read_only_image_file(work, target, user, mount):
    """An ordinary user may read it but not write it."""
    image = images.create(work / "disk.img", MiB)
    os.chown(target, user.uid, user.gid)
    image.chmod(0o444)
    refused(image, target, image, "-o ro", user=user)
    mount(image, target, user=user, ro=True).umount()


def write_until_full(fd, model, seed):
    """Random writes until ENOSPC; what was acknowledged is in the model, and the failed place is returned."""
    rng = random.Random(seed)
    for _ in range(10_000):
        off = rng.randrange(len(model) // 4096) * 4096
        data = random_bytes(rng.getrandbits(64), min(rng.choice([4096, 65536, 200_000]), len(model) - off))
        try:
            done = os.pwrite(fd, data, off)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return off, len(data)
        model[off:off + done] = data[:done]
    raise AssertionError("the disk never filled up")


@contextlib.contextmanager
def place_to_fill(kind, work, place):
    """A small file system at place."""
    if kind == "tmpfs":
        with loop.small_file_system(place, "16m"):
            yield
        return
    disk = work / "place.ext4"
    disk.touch()
    os.truncate(disk, 24 * MiB)
    proc.run("mkfs.ext4", "-q", "-m", "0", disk)
    with loop.device(disk) as device, loop.mounted(device, place):
        yield


@pytest.mark.core
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("options", [{"format": "raw"}, {}, {"cluster_size": 512}, {"extended_l2": "on"}],
                         ids=lambda options: "-".join(map(str, options.values())) or "qcow2")
def test_full_disk(work, mount, options, kind):
    """ENOSPC reaches the writer, nothing acknowledged is lost, and after making room writing goes on."""
    place = work / "place"
    place.mkdir()
    format = options.get("format", "qcow2")
    with place_to_fill(kind, work, place):
        ballast = place / "ballast"
        ballast.write_bytes(b"b" * 6 * MiB)
        image = images.create(place / "disk.img", 64 * MiB, **options)
        model = bytearray(64 * MiB)
        export = mount(image, format=format, cache="none")
        worker = export.worker
        fd = export.open()
        for turn in range(2):
            off, length = write_until_full(fd, model, turn)
            # the failed one may have been written in part: make it known
            model[off:off + length] = os.pread(fd, length, off)
            os.fsync(fd)
        if format == "qcow2":
            images.check(image, leaks=None, in_use=True)
        ballast.unlink()
        data = random_bytes(99, 2 * MiB)
        write_all(fd, data, 8 * MiB)
        model[8 * MiB:10 * MiB] = data
        os.fsync(fd)
        os.close(fd)
        assert export.worker == worker
        assert_same(export.path, model)
        export.umount()
        if format == "qcow2":
            images.check(image)
        (work / "model").write_bytes(model)
        images.compare(image, work / "model", format)


def test_image_on_a_full_disk_can_be_read(work, target, mount):
    place = work / "place"
    place.mkdir()
    with loop.small_file_system(place, "4m"):
        image = images.create(place / "disk.img", 64 * MiB)
        with open(place / "ballast", "wb", buffering=0) as f, pytest.raises(OSError):
            while True:
                f.write(bytes(64 * KiB))
        export = mount(image, target)
        assert_same(export.path, bytes(64 * MiB))
        export.umount()
        images.check(image)


@pytest.mark.core
@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("left", [0, 100_000, 1_000_000])
def test_image_shrinks_under_us(work, mount, format, left):
    """Somebody truncates the image file: errors or zeroes for what is gone, no crash, no hang."""
    image = work / "disk.img"
    flat = images.sparse_file(work / "flat", 4 * MiB, share=1.0)
    proc.run("qemu-img", "convert", "-f", "raw", "-O", format, flat, image)
    export = mount(image, format=format, cache="none")
    fd = export.open()
    assert os.pread(fd, 4096, 3 * MiB) == flat.read_bytes()[3 * MiB:3 * MiB + 4096]
    os.truncate(image, left)
    for off in range(0, 4 * MiB, 256 * KiB):
        try:
            got = os.pread(fd, 4096, off)
            assert len(got) in (0, 4096)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EUCLEAN), error
    for off in (0, 3 * MiB):
        try:
            os.pwrite(fd, b"w" * 4096, off)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EUCLEAN, errno.ENOSPC), error
    os.close(fd)
    assert export.worker == export.first_worker
    done = fuseimg("umount", export.path, check=False)
    assert done.returncode in (0, 1)
    assert not export.mounted
    proc.wait_until(lambda: not proc.alive(export.supervisor), 10)


def test_image_is_deleted_under_us(work, mount):
    """As with any open file: it lives until we close it. But nobody is told that its bytes are safe."""
    image = images.create(work / "disk.img", 4 * MiB)
    export = mount(image)
    image.unlink()
    fd = export.open()
    write_all(fd, b"w" * MiB, 0)
    os.fsync(fd)
    assert os.pread(fd, 10, 0) == b"w" * 10
    os.close(fd)
    done = fuseimg("umount", export.path, check=False)
    assert done.returncode == 1 and f"{image} was removed while it was mounted" in done.stderr
    proc.wait_until(lambda: not proc.alive(export.supervisor), 60)


def test_image_that_is_read_is_deleted_under_us(work, mount):
    """Nothing was written, so nothing is lost."""
    image = images.create(work / "disk.img", 4 * MiB)
    export = mount(image, ro=True)
    image.unlink()
    assert export.path.read_bytes() == bytes(4 * MiB)
    export.umount()


@pytest.mark.core
def test_no_worker_program(work, target, monkeypatch):
    image = images.create(work / "disk.img", MiB)
    monkeypatch.setattr(exports, "WORKER", work / "no-worker")
    refused(image, target, "no-worker")


def test_worker_program_is_something_else(work, target, monkeypatch):
    image = images.create(work / "disk.img", MiB)
    monkeypatch.setattr(exports, "WORKER", "/bin/true")
    proc.soon(lambda: refused(image, target), 5)


# an ordinary user

def as_user(user, *command, check=True):
    return proc.run("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--", *command,
                    check=check)


@pytest.mark.core
def test_user_mounts(work, mount, user):
    image = images.create(work / "disk.img", 4 * MiB)
    os.chown(image, user.uid, user.gid)
    export = mount(image, user=user, daemon=True)
    assert export.said == "", "no stray line from fusermount3"
    (work / "content").write_bytes(random_bytes(1, 4 * MiB))
    (work / "content").chmod(0o644)
    as_user(user, "dd", f"if={work / 'content'}", f"of={export.path}", "bs=64k", "conv=notrunc,fsync")
    assert as_user(user, "cmp", export.path, work / "content").returncode == 0
    assert as_user(user, "stat", "-c", "%u %g %a", export.path).stdout.split() == [str(user.uid), str(user.gid), "600"]
    # it is the user's alone
    with pytest.raises(PermissionError):
        export.path.stat()
    mount_entry = mounts.at(export.target)
    assert mount_entry.kind == "fuse.fuseimg" and mount_entry.source == str(image)
    worker = export.worker
    assert proc.status_field(worker, "NoNewPrivs") == "1"
    assert str(export.target) in fuseimg("list", user=user).stdout
    export.umount()
    images.check(image)
    images.compare(image, work / "content")


def test_user_mounts_a_directory(work, mount, user):
    image = images.create(work / "disk.img", MiB)
    os.chown(image, user.uid, user.gid)
    target = work / "directory"
    target.mkdir()
    os.chown(target, user.uid, user.gid)
    export = mount(image, target, user=user)
    assert as_user(user, "ls", target).stdout.split() == ["disk", "status"]
    as_user(user, "fusermount3", "-u", target)
    export.wait_end()


def test_user_without_rights(work, target, user, mount):
    image = images.create(work / "disk.img", MiB)
    image.chmod(0o600)
    os.chown(target, user.uid, user.gid)
    refused(image, target, image, user=user)
    os.chown(image, user.uid, user.gid)
    os.chown(target, 0, 0)
    refused(image, target, target, user=user)
    directory = work / "directory"
    directory.mkdir()
    refused(image, directory, directory, user=user)


def test_user_may_not_show_it_to_others(work, target, user):
    """allow_other needs a line in /etc/fuse.conf, and that is what the message says."""
    conf = open("/etc/fuse.conf", encoding="utf-8").read().splitlines() if os.path.exists("/etc/fuse.conf") else []
    image = images.create(work / "disk.img", MiB)
    for path in (image, target):
        os.chown(path, user.uid, user.gid)
    if "user_allow_other" in (line.strip() for line in conf):
        exports.Export(image, target, user=user, allow_other=True).umount()
    else:
        refused(image, target, "user_allow_other", "/etc/fuse.conf", user=user, allow_other=True)


def test_user_without_fusermount(work, target, user):
    """A PATH without fusermount3: the package is named."""
    image = images.create(work / "disk.img", MiB)
    for path in (image, target):
        os.chown(path, user.uid, user.gid)
    real = os.path.realpath(shutil.which("fusermount3"))
    # for those who see our mounts; others may need it right now
    powerless = shutil.copy(real, work / "helper")
    os.chmod(powerless, 0o755)
    with loop.mounted(powerless, real, "--bind"):
        text = refused(image, target, user=user)
    assert "fusermount3" in text


def test_user_without_dev_fuse(work, target, user):
    image = images.create(work / "disk.img", MiB)
    for path in (image, target):
        os.chown(path, user.uid, user.gid)
    os.mknod(work / "fuse", 0o600 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    with loop.mounted(work / "fuse", "/dev/fuse", "--bind"):
        refused(image, target, "/dev/fuse", user=user)


def test_user_cannot_umount_roots(work, mount, user):
    image = images.create(work / "disk.img", MiB)
    export = mount(image)
    done = fuseimg("umount", export.target, user=user, check=False)
    assert done.returncode == 1 and str(export.target) in done.stderr
    assert export.mounted
    export.umount()

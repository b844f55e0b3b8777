# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images made to harm: every answer is a clean error or a success, soon, and never a crash or a hang."""

import contextlib
import errno
import os
import random
import socket
import subprocess

import pytest

from support import export as exports
from support import hostile, images, proc
from support.content import GiB, KiB, MiB, TiB, execute, plan, random_bytes, stripes
from support.export import Export, MountFailed, fuseimg

SOON = 3 * proc.SLOW    # seconds of CPU time, for what takes a fraction of one
READ_ERRORS = (errno.EIO, errno.EUCLEAN, errno.EOPNOTSUPP)
WRITE_ERRORS = (*READ_ERRORS, errno.ENOSPC, errno.EFBIG, errno.EROFS)


class Ordeal:
    """Does with an image all that one can do, and judges every answer."""

    def __init__(self, work):
        self.target = work / "target"
        self.target.touch()

    def command(self, *words, name):
        started = proc.cpu()
        done = fuseimg(*words, check=False)
        took = proc.cpu() - started
        assert done.returncode in (0, 1), f"{words} ended with {done.returncode}\n{done.stderr}"
        assert took < SOON, f"{words} took {took:.1f} s"
        if done.returncode == 1:
            self.judge_text(done.stderr, name)
        return done.returncode

    @staticmethod
    def judge_text(text, name):
        assert text.startswith("fuseimg: ") and text.count("\n") == 1, text
        assert name in text, f"the message does not name {name}: {text}"
        assert text.isprintable() or all(character.isprintable() or character == "\n" for character in text), text

    def mount(self, image, name, **options):
        """Mounted and used, or refused. True when it was mounted."""
        started = proc.cpu()
        try:
            export = Export(image, self.target, **options)
        except MountFailed as failed:
            assert failed.returncode == 1
            self.judge_text(failed.stderr, name)
            return False
        finally:
            assert proc.cpu() - started < SOON
        try:
            assert proc.cpu(export.supervisor, export.worker) < SOON
            self.use(export, write="ro" not in options)
            assert export.worker == export.first_worker, "the worker died"
            done = fuseimg("umount", self.target, check=False)
            assert done.returncode in (0, 1), done.stderr
            assert not export.mounted
            proc.wait_until(lambda: not proc.alive(export.supervisor), 10)
        finally:
            export.close()
        return True

    @staticmethod
    def use(export, write):
        size = os.stat(export.path).st_size
        fd = export.open(os.O_RDWR if write else os.O_RDONLY)
        rng = random.Random(size)
        places = [0, 64 * KiB, max(size - 4096, 0), *(rng.randrange(max(size, 1)) for _ in range(5))]
        for off in places:
            try:
                os.pread(fd, 128 * KiB, off)
            except OSError as error:
                assert error.errno in READ_ERRORS, error
            with contextlib.suppress(OSError):
                os.lseek(fd, off, os.SEEK_DATA)
        if write:
            for off in places:
                try:
                    os.pwrite(fd, random_bytes(off, 5000), off)
                except OSError as error:
                    assert error.errno in WRITE_ERRORS, error
            with contextlib.suppress(OSError):
                os.fsync(fd)
        os.close(fd)

    def all(self, image, name=None, **options):
        """info, map, and both mounts. True when the last was possible, to which the options belong."""
        name = name or str(image)
        before = image.read_bytes() if image.is_file() and image.stat().st_size < 64 * MiB else None
        self.command("info", image, name=name)
        self.command("info", "--json", image, name=name)
        self.command("map", image, name=name)
        self.mount(image, name, ro=True)
        if before is not None:
            assert image.read_bytes() == before, "looking at an image changed it"
        return self.mount(image, name, **options)


@pytest.fixture
def ordeal(work, mount):
    del mount   # for its skips
    return Ordeal(work)


@pytest.fixture(scope="module")
def specimen(tmp_path_factory):
    """A small sound image with data, compressed clusters and a snapshot, as bytes."""
    directory = tmp_path_factory.mktemp("specimen")
    image = images.create(directory / "disk.img", 8 * MiB)
    text = directory / "text"
    text.write_bytes(b"0123456789abcdef" * 4096)
    proc.run("qemu-io", "-f", "qcow2", "-c", f"write -q -c -s {text} 1M 64k", "-c", f"write -q -c -s {text} 1088k 64k",
             "-c", "write -q -P 1 0 300k", "-c", "write -q -P 2 4M 1M", "-c", "write -q -z 6M 128k", image)
    proc.run("qemu-img", "snapshot", "-c", "one", image)
    proc.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 3 100k 100k", image)
    return image.read_bytes()


def each(ordeal, work, cases):
    """Runs the ordeal over (label, bytes) and reports all that failed together."""
    failures = []
    image = work / "disk.img"
    for label, data in cases:
        image.write_bytes(data)
        try:
            ordeal.all(image)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            failures.append(f"{label}: {error}")
            for export in list(exports.live):
                export.close()
    assert not failures, f"{len(failures)} failed:\n" + "\n".join(failures)


CORE_FIELDS = {"cluster_bits", "l1_size", "l1_table_offset", "refcount_table_offset", "size"}


@pytest.mark.limit(180)
@pytest.mark.parametrize("field", [pytest.param(name, marks=[pytest.mark.core] if name in CORE_FIELDS else [])
                                   for name in hostile.HEADER])
def test_header_field(field, ordeal, work, specimen):
    def cases():
        rng = random.Random(field)
        for value in hostile.values(hostile.HEADER[field][1], specimen, rng):
            data = bytearray(specimen)
            hostile.put(data, field, value)
            yield f"{field} = {value:#x}", data

    each(ordeal, work, cases())


def entries(data, kind):
    """Offsets of a few entries of a table in use."""
    cluster = 1 << hostile.get(data, "cluster_bits")
    l1 = hostile.get(data, "l1_table_offset")
    l2 = hostile.get64(data, l1) & 0x00fffffffffffe00
    table = hostile.get(data, "refcount_table_offset")
    block = hostile.get64(data, table)
    return {"l1": [l1], "l2": [l2, l2 + 8, l2 + 8 * (MiB // cluster), l2 + 8 * 96], "refcount-table": [table, table + 8],
            "refcount-block": [block, block + 8], "snapshot": [hostile.get(data, "snapshots_offset") + 8 * n
                                                               for n in range(5)]}[kind]


@pytest.mark.core
@pytest.mark.limit(240)
@pytest.mark.parametrize("kind", ["l1", "l2", "refcount-table", "refcount-block", "snapshot"])
def test_table_entry(kind, ordeal, work, specimen):
    """Entries that point outside, at the header, at the tables themselves, unaligned, with reserved bits."""
    cluster = 1 << hostile.get(specimen, "cluster_bits")
    pointers = {0, 1, 512, cluster, cluster + 512, len(specimen), len(specimen) - cluster, 1 << 40, (1 << 56) - cluster,
                hostile.get(specimen, "l1_table_offset"), hostile.get(specimen, "refcount_table_offset"),
                hostile.get64(specimen, hostile.get(specimen, "refcount_table_offset")),
                hostile.get64(specimen, hostile.get(specimen, "l1_table_offset")) & 0x00fffffffffffe00}
    found = set()
    for pointer in pointers:
        found |= {pointer, pointer | hostile.COPIED}
        if kind == "l2":
            found |= {pointer | 1, pointer | hostile.COMPRESSED, pointer | hostile.COMPRESSED | 0x3fff << 48}
    found |= {(1 << 64) - 1, 1 << 61, hostile.COMPRESSED | hostile.COPIED | 0x3ff0000000000000}

    def cases():
        rng = random.Random(kind)
        for value in rng.sample(sorted(found), min(len(found), 16 if proc.SLOW > 1 else 40)):
            data = bytearray(specimen)
            for off in entries(data, kind)[:1 if rng.random() < 0.5 else None]:
                hostile.put64(data, off, value)
            yield f"{kind} entry {value:#x}", data

    each(ordeal, work, cases())


@pytest.mark.core
@pytest.mark.limit(120)
def test_truncated(ordeal, work, specimen):
    cluster = 1 << hostile.get(specimen, "cluster_bits")
    points = [0, 1, 3, 4, 5, 71, 72, 73, 103, 104, 111, 112, 400, 511, 512, cluster - 1, cluster, cluster + 1,
              2 * cluster, 3 * cluster, 3 * cluster + 8, 4 * cluster - 1, 5 * cluster, 7 * cluster + 100,
              len(specimen) // 2, len(specimen) - 1]
    each(ordeal, work, ((f"the first {point} bytes", specimen[:point]) for point in points))


@pytest.mark.limit(120)
def test_extensions(ordeal, work, specimen):
    """Header extensions of impossible lengths, twice, out of order, without an end."""
    def extension(kind, length, body=b""):
        return kind.to_bytes(4, "big") + (length & 0xffffffff).to_bytes(4, "big") + body

    kinds = {"backing format": 0xe2792aca, "names": 0x6803f857, "bitmaps": 0x23852875, "luks": 0x0537be77,
             "data file": 0x44415441, "unknown": 0x12345678, "end": 0}

    def cases():
        length = hostile.get(specimen, "header_length")
        for name, kind in kinds.items():
            for size in (0, 1, 7, 8, 24, 47, 48, 1000, 65536 - length - 8, 65536, 1 << 31, (1 << 32) - 8, (1 << 32) - 1):
                data = bytearray(specimen)
                body = extension(kind, size, b"\xff" * 200)
                data[length:length + len(body)] = body
                yield f"{name} of {size}", data
        data = bytearray(specimen)
        many = extension(0x12345678, 0) * ((65536 - length) // 8)
        data[length:length + len(many)] = many
        yield "no end", data
        data = bytearray(specimen)
        many = extension(0xe2792aca, 8, b"qcow2\x1b\n\0") * 100
        data[length:length + len(many)] = many
        yield "the same again", data

    each(ordeal, work, cases())


@pytest.mark.limit(240)
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 100))])
def test_random_damage(seed, ordeal, work, specimen):
    """Bytes changed by chance in the header and in the tables."""
    def cases():
        rng = random.Random(seed)
        cluster = 1 << hostile.get(specimen, "cluster_bits")
        tables = [off for kind in ("l1", "l2", "refcount-table", "refcount-block", "snapshot")
                  for off in entries(specimen, kind)]
        for n in range(15):
            data = bytearray(specimen)
            for _ in range(rng.choice([1, 2, 8, 40])):
                base = rng.choice([0, 0, *tables])
                span = 600 if base == 0 else 200
                data[base + rng.randrange(span)] = rng.choice([0, 0xff, rng.getrandbits(8)])
            if rng.random() < 0.3:
                data[:4] = specimen[:4]
            yield f"damage {n} (cluster {cluster})", data

    each(ordeal, work, cases())


def test_damaged_extended_l2(ordeal, work):
    """Subcluster bitmaps with bits that exclude each other, on data and on compressed entries."""
    image = images.create(work / "sound.img", 8 * MiB, extended_l2="on")
    proc.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", image)
    sound = image.read_bytes()
    l2 = hostile.get64(sound, hostile.get(sound, "l1_table_offset")) & 0x00fffffffffffe00

    def cases():
        for bitmap in (0, (1 << 64) - 1, 1 | 1 << 32, 1 << 63, 0xffffffff, 0xffffffff << 32, 0xaaaaaaaa55555555):
            for entry in (None, 0, hostile.COMPRESSED | 0x100000, 1 << 40):
                data = bytearray(sound)
                for n in range(4):
                    hostile.put64(data, l2 + 16 * n + 8, bitmap)
                    if entry is not None:
                        hostile.put64(data, l2 + 16 * n, entry)
                yield f"bitmap {bitmap:#x}, entry {entry}", data

    each(ordeal, work, cases())


# chains

def overlay_of(work, name, backing, format="qcow2", size=MiB, **options):
    path = images.create(work / name, size, **options)
    proc.run("qemu-img", "rebase", "-q", "-u", "-b", backing, "-F", format, path, cwd=work)
    return path


@pytest.mark.core
def test_own_parent(ordeal, work):
    image = overlay_of(work, "disk.img", "disk.img")
    assert not ordeal.all(image)
    os.link(image, work / "other-name.img")
    (work / "symlink.img").symlink_to("disk.img")
    for name in ("other-name.img", "./././disk.img", "symlink.img", str(image)):
        proc.run("qemu-img", "rebase", "-q", "-u", "-b", name, "-F", "qcow2", image, cwd=work)
        assert not ordeal.all(image, name="img")


@pytest.mark.core
def test_loop_in_the_chain(ordeal, work):
    overlay_of(work, "a.img", "c.img")
    overlay_of(work, "b.img", "a.img")
    assert not ordeal.all(overlay_of(work, "c.img", "b.img"), name=".img")
    image = overlay_of(work, "top.img", "c.img")
    assert not ordeal.all(image, name=".img")


def test_deep_chain(ordeal, work):
    images.create(work / "0.img", MiB)
    proc.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 4k", work / "0.img")
    for n in range(1, 33):
        overlay_of(work, f"{n}.img", f"{n - 1}.img")
    assert ordeal.all(work / "31.img"), "32 files are allowed"
    assert not ordeal.all(work / "32.img", name=".img")


def test_deep_chain_of_data_files(ordeal, work):
    """Each file of it names two."""
    images.create(work / "0.img", MiB, data_file="0.raw")
    for n in range(1, 33):
        overlay_of(work, f"{n}.img", f"{n - 1}.img", data_file=f"{n}.raw")
    assert ordeal.all(work / "31.img", backing=work), "32 files are allowed"
    assert not ordeal.all(work / "32.img", name=".img")


@pytest.mark.core
def test_raw_file_as_data_file_of_itself(ordeal, work):
    image = images.create(work / "disk.img", MiB, data_file="data.bin")
    (work / "data.bin").unlink()
    os.link(image, work / "data.bin")
    assert not ordeal.all(image, name=str(work), backing=work)


@pytest.mark.core
@pytest.mark.parametrize("victim", [".ssh/authorized_keys", "victim.qcow2", "data.bin"])
def test_data_file_is_not_written_unasked(victim, ordeal, mount, work):
    """An image that somebody has brought names another file of ours: the guest of a mount could overwrite that."""
    image = images.create(work / "disk.img", MiB, data_file="x" * len(victim))
    image.write_bytes(image.read_bytes().replace(b"x" * len(victim), victim.encode()))
    other = work / victim
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(random_bytes(1, MiB))
    before = images.digest(other)
    for policy in ({}, {"backing": f"{work}/nothing"}, {"backing": work.parent}):
        with pytest.raises(MountFailed, match=f"listed; allow it with -o backing=.*{victim}, or use -o ro"):
            mount(image, **policy)
    assert not ordeal.mount(image, str(other), partitions="no")
    assert ordeal.mount(image, victim, ro=True)
    assert images.digest(other) == before
    for policy in (other, other.parent):
        assert ordeal.mount(image, victim, backing=policy)
        assert images.digest(other) != before, "it was to be written"


# files that are none

def special(work, kind):
    path = work / "special"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "device":
        os.mknod(path, 0o020666, os.makedev(1, 5))     # /dev/zero
    elif kind == "directory":
        path.mkdir()
    elif kind == "tape":
        os.mknod(path, 0o020666, os.makedev(9, 0))      # opening some devices does things
    return path


@pytest.mark.core
@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory", "tape"])
def test_special_file_as_backing_file(kind, format, ordeal, work):
    special(work, kind)
    assert not ordeal.all(overlay_of(work, "disk.img", "special", format), name="special")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory"])
def test_special_file_as_data_file(kind, ordeal, work):
    image = images.create(work / "disk.img", MiB, data_file="special")
    (work / "special").unlink()
    special(work, kind)
    assert not ordeal.all(image, name="special", backing=work)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory", "tape"])
def test_special_file_as_image(kind, ordeal, work):
    path = special(work, kind)
    for words in (["info", path], ["map", path]):
        assert ordeal.command(*words, name=str(path)) == 1
    assert not ordeal.mount(path, str(path))
    assert not ordeal.mount(path, str(path), format="raw", ro=True)


NAMES = ["json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "nbd://localhost:10809/x", "nbd:unix:/tmp/socket",
         "ssh://root@localhost/etc/shadow", "host_device:/dev/zero", "fat:/etc", "blkdebug::base.img", "http://localhost/x",
         "data:text/plain,x", "vvfat:rw:/etc", "null-co://", "rbd:pool/image", "iscsi://127.0.0.1/x/1"]


@pytest.mark.core
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.split(":")[0])
def test_protocol_names(name, ordeal, work):
    images.sparse_file(work / "base.img", MiB)
    assert not ordeal.all(overlay_of(work, "disk.img", name, "raw"), name=name.split(":")[0])


@pytest.mark.parametrize("name", ["/etc/passwd", "/dev/vda", "/dev/mem", "/proc/self/mem", "/proc/self/exe", "/proc/kmsg",
                                  "../../etc/passwd", "/etc/shadow", "/dev/stdin", "/dev/tty", "/sys/power/state",
                                  "/proc/self/fd/0", "file:/etc/passwd"])
def test_names_of_other_peoples_files(name, ordeal, work):
    assert not ordeal.all(overlay_of(work, "disk.img", name, "raw"), name="/")


def test_file_names_with_a_prefix(work, mount):
    """`file:` is how other programs may have spelled an ordinary name."""
    base = images.sparse_file(work / "base.img", MiB)
    export = mount(overlay_of(work, "disk.img", "file:base.img", "raw"))
    assert export.read() == base.read_bytes()
    export.umount()


def test_control_characters_in_names(ordeal, work, specimen):
    """What an image calls its backing file reaches the terminal harmless."""
    data = bytearray(specimen)
    name = b"\x1b]0;owned\x07\x1b[2J\nfuseimg: all is well\r\x9b\xff.img"
    hostile.put(data, "backing_file_offset", 1024)
    hostile.put(data, "backing_file_size", len(name))
    data[1024:1024 + len(name)] = name
    image = work / "disk.img"
    image.write_bytes(data)
    for words in (["info", image], ["info", "--json", image], ["map", image], ["info", "-o", "backing=none", image]):
        done = fuseimg(*words, check=False)
        assert done.returncode in (0, 1)
        assert not set("\x1b\x07\r\x9b") & set(done.stdout + done.stderr), done.stdout + done.stderr
    assert not ordeal.all(image)


def test_nul_in_a_name(ordeal, work, specimen):
    images.sparse_file(work / "base.img", MiB)
    data = bytearray(specimen)
    name = b"base.img\0/../../../etc/passwd"
    hostile.put(data, "backing_file_offset", 1024)
    hostile.put(data, "backing_file_size", len(name))
    data[1024:1024 + len(name)] = name
    (work / "disk.img").write_bytes(data)
    assert not ordeal.all(work / "disk.img")


# bombs

@pytest.mark.parametrize("bits", [16, pytest.param(21, marks=pytest.mark.core)])
def test_compressed_bomb(bits, ordeal, work):
    """1 TiB out of one compressed cluster: bounded memory, quick answers, nothing unpacked twice at once."""
    image = hostile.bomb(work / "bomb.img", TiB, bits, b"boom")
    assert image.stat().st_size < 16 * MiB
    assert ordeal.command("info", image, name="bomb.img") == 0
    export = Export(image, ordeal.target, ro=True)
    try:
        fd = export.open(os.O_RDONLY)
        rng = random.Random(1)
        started = proc.cpu(export.worker)
        for _ in range(200):
            off = rng.randrange(TiB // 4096) * 4096
            assert os.pread(fd, 4096, off) == b"boom" * 1024
        assert os.pread(fd, MiB, TiB - MiB) == b"boom" * (MiB // 4)
        assert proc.cpu(export.worker) - started < 2 * SOON
        resident = int(proc.status_field(export.worker, "VmRSS").split()[0]) * KiB
        assert resident < (256 * MiB if proc.SLOW == 1 else 2 * GiB), f"{resident / MiB:.0f} MiB resident"
        started = proc.cpu(export.worker)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == TiB
        assert os.lseek(fd, TiB // 2, os.SEEK_DATA) == TiB // 2
        assert proc.cpu(export.worker) - started < 2 * SOON
        os.close(fd)
        export.umount()
    finally:
        export.close()
    assert ordeal.mount(image, "bomb.img")


def test_map_of_a_bomb_ends_with_its_reader(work):
    """Its map is as long as it is; who has seen enough closes the pipe."""
    image = hostile.bomb(work / "bomb.img", TiB, 16)
    started = proc.cpu()
    process = subprocess.Popen([str(exports.PROGRAM), "map", str(image)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    assert process.stdout.read(1000)
    process.stdout.close()
    try:
        assert process.wait(20 * proc.PATIENCE) in (0, 1, -13)
    finally:
        process.kill()
    assert proc.cpu() - started < SOON


def test_bomb_of_tiny_clusters(ordeal, work):
    """128 GiB in clusters of 512 bytes: a client's seek may not occupy a thread for minutes."""
    image = hostile.bomb(work / "bomb.img", 128 * GiB, 9)
    export = Export(image, ordeal.target, ro=True)
    try:
        fd = export.open(os.O_RDONLY)
        started = proc.cpu(export.worker)
        with contextlib.suppress(OSError):
            os.lseek(fd, 0, os.SEEK_HOLE)
        took = proc.cpu(export.worker) - started
        os.close(fd)
        assert took < 2 * SOON, f"SEEK_HOLE took {took:.1f} s"
        export.umount()
    finally:
        export.close()


def test_desert(ordeal, work):
    """2^38 entries that all say zero: whoever looks for data does not look at all of them."""
    image = hostile.desert(work / "desert.img")
    export = Export(image, ordeal.target, ro=True)
    try:
        fd = export.open(os.O_RDONLY)
        started = proc.cpu(export.worker)
        assert os.lseek(fd, 0, os.SEEK_DATA) > TiB      # what was not looked at
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        took = proc.cpu(export.worker) - started
        os.close(fd)
        assert took < SOON, f"seeking took {took:.1f} s"
        export.umount()
    finally:
        export.close()


def test_overlapping_tables_written(ordeal, work, specimen):
    """A guest that is given the tables as its disk: nothing it writes may crash us or reach beyond the file."""
    cluster = 1 << hostile.get(specimen, "cluster_bits")
    l1 = hostile.get(specimen, "l1_table_offset")
    l2 = hostile.get64(specimen, l1) & 0x00fffffffffffe00
    table = hostile.get(specimen, "refcount_table_offset")
    block = hostile.get64(specimen, table)
    data = bytearray(specimen)
    for n, victim in enumerate([0, l1, l2, table, block]):
        hostile.put64(data, l2 + 8 * (n + 8), victim | hostile.COPIED)
    image = work / "disk.img"
    image.write_bytes(data)
    try:
        export = Export(image, ordeal.target)
    except MountFailed as failed:
        ordeal.judge_text(failed.stderr, str(image))
        return
    try:
        fd = export.open()
        rng = random.Random(5)
        for _ in range(60):
            off = rng.randrange(5) * cluster + 8 * cluster + rng.randrange(cluster - 512)
            with contextlib.suppress(OSError):
                os.pwrite(fd, rng.choice([b"\0", b"\xff", b"\x80"]) * rng.choice([1, 8, 512]), off)
            with contextlib.suppress(OSError):
                os.pwrite(fd, b"n" * 4096, rng.randrange(8 * MiB - 4096))
            with contextlib.suppress(OSError):
                os.pread(fd, 4096, rng.randrange(8 * MiB))
        with contextlib.suppress(OSError):
            os.fsync(fd)
        os.close(fd)
        assert export.worker == export.first_worker
        assert fuseimg("umount", ordeal.target, check=False).returncode in (0, 1)
    finally:
        export.close()


@pytest.mark.core
def test_damage_far_from_the_tables_is_survivable(ordeal, work, specimen):
    """One bad L2 entry: only its cluster answers with an error, and the message in the log is not our test."""
    data = bytearray(specimen)
    l2 = hostile.get64(data, hostile.get(data, "l1_table_offset")) & 0x00fffffffffffe00
    hostile.put64(data, l2 + 8 * 64, 0x123456789000 | hostile.COPIED | 1 << 57)
    image = work / "disk.img"
    image.write_bytes(data)
    export = Export(image, ordeal.target, ro=True)
    try:
        fd = export.open(os.O_RDONLY)
        assert os.pread(fd, 4096, 0) == b"\1" * 4096
        with pytest.raises(OSError) as caught:
            os.pread(fd, 4096, 4 * MiB)
        assert caught.value.errno in READ_ERRORS
        assert os.pread(fd, 4096, 4 * MiB + 64 * KiB) == b"\2" * 4096
        os.close(fd)
        export.umount()
    finally:
        export.close()


def test_writers_on_damaged_images(ordeal, work, specimen):
    """Refcounts that lie: two names for one cluster may be lost, our process may not."""
    def cases():
        rng = random.Random(3)
        for n in range(6):
            data = bytearray(specimen)
            block = entries(data, "refcount-block")[0]
            for k in range(0, 200):
                if rng.random() < 0.3:
                    data[block + k] = rng.getrandbits(8) if n % 2 else 0
            yield n, data

    for n, data in cases():
        image = work / "disk.img"
        image.write_bytes(data)
        try:
            export = Export(image, ordeal.target)
        except MountFailed as failed:
            ordeal.judge_text(failed.stderr, str(image))
            continue
        try:
            with contextlib.suppress(OSError):
                execute(export.path, plan(n, stripes(n, 8 * MiB, 1)[0], 100))
            assert export.worker == export.first_worker
            assert fuseimg("umount", ordeal.target, check=False).returncode in (0, 1)
        finally:
            export.close()

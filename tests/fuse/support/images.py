# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images by qemu-img and qemu-io, and qemu-img's judgement of what we made of them.

The tools run in the image's directory: QEMU looks for a relative data file where it stands itself,
not (as for backing files, and as we do for both) beside the image."""

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from support.content import KiB, MiB, random_bytes, squeezable
from support.proc import run


@dataclass(frozen=True)
class Link:
    """One file of a chain."""
    size: int = 10 * MiB + 7 * 512
    format: str = "qcow2"
    options: dict = field(default_factory=dict)
    compress: bool = False      # some of its clusters are compressed
    fill: int = 40              # writes that make up its content

    @property
    def cluster(self):
        return int(self.options.get("cluster_size", 64 * KiB))


@dataclass(frozen=True)
class Shape:
    name: str
    chain: tuple    # of Links, the lowest first


def qcow2(size=None, compress=False, fill=40, **options):
    cluster = int(options.get("cluster_size", 64 * KiB))
    return Link(size or max(10 * MiB, 24 * cluster) + 7 * 512, "qcow2", options, compress, fill)


def raw(size):
    return Link(size, "raw")


def shapes():
    """Every way to write a qcow2 that qemu-img has."""
    found = {f"cluster-{bits}": (qcow2(cluster_size=1 << bits),) for bits in range(9, 22)}
    for bits in (9, 16, 21):
        found[f"v2-{bits}"] = (qcow2(cluster_size=1 << bits, compat="0.10"),)
    for bits in (9, 12, 16, 21):
        found[f"zlib-{bits}"] = (qcow2(cluster_size=1 << bits, compress=True),)
        found[f"zstd-{bits}"] = (qcow2(cluster_size=1 << bits, compress=True, compression_type="zstd"),)
    found["v2-zlib"] = (qcow2(compat="0.10", compress=True),)
    for bits in (14, 16, 21):
        found[f"extended-{bits}"] = (qcow2(cluster_size=1 << bits, extended_l2="on"),)
    found["extended-zstd"] = (qcow2(extended_l2="on", compress=True, compression_type="zstd"),)
    for bits in (1, 2, 4, 8, 32, 64):
        found[f"refcount-{bits}"] = (qcow2(cluster_size=4096, refcount_bits=bits),)
    found["lazy-refcounts"] = (qcow2(lazy_refcounts="on"),)
    for how in ("metadata", "falloc"):
        found[f"preallocated-{how}"] = (qcow2(preallocation=how, fill=10),)
    found["data-file"] = (qcow2(data_file="data.bin"),)
    found["data-file-raw"] = (qcow2(data_file="data.bin", data_file_raw="on"),)
    found["data-file-extended"] = (qcow2(data_file="data.bin", extended_l2="on"),)
    found.update(chains())
    return [Shape(name, chain) for name, chain in found.items()]


def chains():
    return {
        "empty": (qcow2(fill=0),),
        "chain-2": (qcow2(), qcow2(fill=12)),
        "chain-longer": (qcow2(size=3 * MiB + 512), qcow2(size=9 * MiB + 1024, fill=12)),
        "chain-shorter": (qcow2(size=9 * MiB), qcow2(size=5 * MiB + 512, fill=8)),
        "chain-4": (qcow2(size=4 * MiB + 1536, cluster_size=512), qcow2(size=12 * MiB, compress=True, fill=15),
                    qcow2(size=7 * MiB + 512, cluster_size=2 * MiB, fill=6),
                    qcow2(size=11 * MiB + 512, cluster_size=4096, fill=15)),
        "chain-extended": (qcow2(extended_l2="on", cluster_size=16 * KiB), qcow2(extended_l2="on", fill=15)),
        "chain-data-file": (qcow2(), qcow2(data_file="data.bin", fill=12)),
        "chain-v2": (qcow2(compat="0.10", compress=True), qcow2(compat="0.10", fill=12)),
        "raw-backing": (raw(6 * MiB + 777), qcow2(size=9 * MiB + 512, fill=8)),
        "raw-backing-512": (raw(3 * MiB + 1), qcow2(size=3 * MiB + 512, cluster_size=512, fill=8)),
        "raw-backing-zstd": (raw(8 * MiB), qcow2(compress=True, compression_type="zstd", fill=12)),
    }


def file_name(depth):
    return "disk.img" if depth == 0 else f"base{depth}.img"


class Maker:
    """Makes shapes; the pool of contents is shared by all of them."""

    def __init__(self, pool):
        self.pool = []
        for n in range(6):
            path = Path(pool) / f"pool{n}"
            path.write_bytes(squeezable(n, 96 * KiB + 512 * n) if n % 2 else random_bytes(n, 80 * KiB + 512 * n))
            self.pool.append(path)

    def make(self, shape, directory, seed=1):
        """The path of the chain's top image, its files in the directory."""
        below = None
        for n, link in enumerate(shape.chain):
            path = Path(directory) / file_name(len(shape.chain) - 1 - n)
            if link.format == "raw":
                sparse_file(path, link.size, seed + n)
            else:
                create(path, link.size, backing=below, **link.options)
                self.fill(path, link, seed + n)
            below = (path.name, link.format)
        return path

    def fill(self, path, link, seed):
        commands = []
        for command in self.fill_commands(link, random.Random(seed)):
            commands += ["-c", command]
        if commands:
            # one command that fails ends the others unseen, but for its message
            done = run("qemu-io", "-f", link.format, *commands, path, cwd=path.parent)
            assert "rror" not in done.stdout + done.stderr, done.stdout + done.stderr

    def fill_commands(self, link, rng):
        if link.compress:
            # first: qemu compresses only into clusters that are not there yet
            clusters = link.size // link.cluster
            for cluster in rng.sample(range(clusters), min(link.fill, clusters * 2 // 3)):
                yield f"write -q -c -s {rng.choice(self.pool)} {cluster * link.cluster} {link.cluster}"
        kinds = ["write"] * 6 + ["zero", "zero-unmap", "discard"]
        for _ in range(link.fill // 2 if link.compress else link.fill):
            kind = rng.choice(kinds)
            source = rng.choice(self.pool)
            off = rng.randrange(link.size // 512) * 512
            length = min(rng.choice([512, 4096, 20 * KiB, 64 * KiB, 300 * KiB]), link.size - off)
            yield {"write": f"write -q -s {source} {off} {length}",
                   "zero": f"write -q -z {off} {length}",
                   "zero-unmap": f"write -q -z -u {off} {length}",
                   "discard": f"discard -q {off} {length}"}[kind]


def to_write(name, directory):
    """The options of a mount that writes to a shape in a directory: a data file has to be listed."""
    return {"backing": directory} if "data-file" in name else {}


def create(path, size, backing=None, format="qcow2", **options):
    """qemu-img create, run where the image is, so that names in it are relative."""
    words = []
    if options:
        words += ["-o", ",".join(f"{key}={value}" for key, value in options.items())]
    if backing:
        words += ["-b", backing[0], "-F", backing[1]]
    path = Path(path)
    run("qemu-img", "create", "-q", "-f", format, *words, path.name, size, cwd=path.parent)
    return path


def sparse_file(path, size, seed=1, share=0.6):
    """A raw file of random bytes and holes, any size."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        off = 0
        while off < size:
            length = min(rng.choice([4096, 32 * KiB, 200 * KiB]), size - off)
            if rng.random() < share:
                f.seek(off)
                f.write(rng.randbytes(length))
            off += length
        f.truncate(size)
    return Path(path)


def to_raw(image, out, *options):
    run("qemu-img", "convert", "-q", "-O", "raw", *options, image, out, cwd=Path(image).parent)
    return Path(out)


def check(image, leaks=0, format="qcow2", in_use=False):
    """qemu-img check: no corruption, at most so many leaked clusters (None: any number)."""
    done = run("qemu-img", "check", *(["-U"] if in_use else []), "-f", format, "--output=json", image, check=False,
               cwd=Path(image).parent)
    assert done.returncode in (0, 3), done.stdout + done.stderr     # 3: leaks only
    result = json.loads(done.stdout)
    assert result.get("corruptions", 0) == 0 and result["check-errors"] == 0, done.stdout
    assert leaks is None or result.get("leaks", 0) <= leaks, done.stdout
    return result


def compare(image, model, format="qcow2"):
    """qemu-img compare against a flat file."""
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", format, model, image, cwd=Path(image).parent)


def info(image):
    return json.loads(run("qemu-img", "info", "--output=json", image, cwd=Path(image).parent).stdout)


def qemu_map(image, format):
    return json.loads(run("qemu-img", "map", "--output=json", "-f", format, image, cwd=Path(image).parent).stdout)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 files written byte by byte, as somebody would who wants to harm the reader."""

import struct
import zlib
from pathlib import Path

# name: (offset, bytes)
HEADER = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8), "backing_file_size": (16, 4),
    "cluster_bits": (20, 4), "size": (24, 8), "crypt_method": (32, 4), "l1_size": (36, 4),
    "l1_table_offset": (40, 8), "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4),
    "nb_snapshots": (60, 4), "snapshots_offset": (64, 8), "incompatible_features": (72, 8),
    "compatible_features": (80, 8), "autoclear_features": (88, 8), "refcount_order": (96, 4),
    "header_length": (100, 4), "compression_type": (104, 1),
}

COPIED, COMPRESSED = 1 << 63, 1 << 62


def put(data, name, value):
    off, length = HEADER[name]
    data[off:off + length] = (value & ((1 << 8 * length) - 1)).to_bytes(length, "big")


def get(data, name):
    off, length = HEADER[name]
    return int.from_bytes(data[off:off + length], "big")


def put64(data, off, value):
    struct.pack_into(">Q", data, off, value & ((1 << 64) - 1))


def get64(data, off):
    return struct.unpack_from(">Q", data, off)[0]


def values(length, data, rng):
    """Limits, neighbours of limits and chance, for a field of that many bytes."""
    bits = 8 * length
    found = {0, 1, 2, (1 << bits) - 1, (1 << bits) - 2, 1 << (bits - 1), (1 << (bits - 1)) - 1,
             *(rng.getrandbits(bits) for _ in range(3))}
    if length == 8:
        found |= {511, 512, 513, len(data) - 512, len(data), len(data) + 65536, 1 << 32, (1 << 56) - 512, (1 << 62),
                  (1 << 63) - 512, (1 << 64) - 512, (1 << 64) - 65536, 65536, 131072}
    if length == 4:
        found |= {8, 9, 16, 21, 22, 63, 64, 65, 1023, 1024, 65536, 65537, 1 << 20, 1 << 22, (1 << 22) + 1, 1 << 30}
    return sorted(found)


def bomb(path, size, cluster_bits, extent=b"\0"):
    """Every guest cluster of a disk of that size is the same compressed cluster; the file stays small."""
    cluster = 1 << cluster_bits
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(extent * cluster) + packer.flush()
    l1_size = -(-size // (cluster * (cluster // 8)))
    header = bytearray(cluster)
    header[0:4] = b"QFI\xfb"
    l1_off, l2_off, table_off, block_off = cluster, 0, 0, 0
    l1_clusters = -(-l1_size * 8 // cluster)
    l2_off = l1_off + l1_clusters * cluster
    data_off = l2_off + cluster
    data_clusters = -(-len(packed) // cluster)
    table_off = data_off + data_clusters * cluster
    block_off = table_off + cluster
    for name, value in {"version": 3, "cluster_bits": cluster_bits, "size": size, "l1_size": l1_size,
                        "l1_table_offset": l1_off, "refcount_table_offset": table_off,
                        "refcount_table_clusters": 1, "refcount_order": 4, "header_length": 104}.items():
        put(header, name, value)
    shift = 62 - (cluster_bits - 8)
    sectors = (data_off % 512 + len(packed) + 511) // 512 - 1
    entry = COMPRESSED | sectors << shift | data_off
    with open(path, "wb") as f:
        f.write(header)
        f.write(struct.pack(">Q", COPIED | l2_off) * l1_size)
        f.seek(l2_off)
        f.write(struct.pack(">Q", entry) * (cluster // 8))
        f.write(packed)
        f.seek(table_off)
        f.write(struct.pack(">Q", block_off))
        f.seek(block_off)
        f.write(b"\0\1" * (block_off // cluster + 1))
        f.truncate(block_off + cluster)
    return Path(path)


def desert(path, l1_size=1 << 20):
    """Nothing but zeroes, said by one L2 table of 2 MiB that each entry of the L1 table names."""
    cluster = 1 << 21
    header = bytearray(4096)
    header[0:4] = b"QFI\xfb"
    for name, value in {"version": 3, "cluster_bits": 21, "size": l1_size << 39, "l1_size": l1_size,
                        "l1_table_offset": 4 * cluster, "refcount_table_offset": cluster,
                        "refcount_table_clusters": 1, "refcount_order": 4, "header_length": 104}.items():
        put(header, name, value)
    with open(path, "wb") as f:
        f.write(header)
        f.seek(cluster)
        f.write(struct.pack(">Q", 2 * cluster))
        f.seek(3 * cluster)
        f.write(struct.pack(">Q", 1) * (cluster // 8))
        f.write(struct.pack(">Q", 3 * cluster) * l1_size)
        f.truncate(-(-f.tell() // cluster) * cluster)
    return Path(path)

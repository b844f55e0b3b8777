# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk with a cache that loses its content with the power.

To kill QEMU takes from its guest what was in the guest's memory, but nothing that a disk of QEMU's was given: that is
in the host's page cache. So this disk is a server of ours (NBD, fixed newstyle). It notes what each sector held when it
was last flushed, and at a power cut some of those that were written since, by chance, hold that again.

What disks write whole or not at all is 4096 bytes, also where they can be told to write 512. File systems rely on more
than 512: the superblock of ext4 has 1024, with its checksum at the end, and is read before the journal is."""

import contextlib
import os
import random
import socket
import struct
import tempfile
import threading
from pathlib import Path

SECTOR = 4096
# https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
OPT_EXPORT_NAME, OPT_GO = 1, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 1 << 31 | 1
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1


class Disk:
    def __init__(self, path, name):
        self.path, self.name = path, name
        self.random = random.Random(name)
        self.undo = {}          # sector: what it held when it was last flushed
        self.flushes = 0
        self.file = self.thread = None
        self.directory = Path(tempfile.mkdtemp(prefix="fuseimg-disk-"))

    @property
    def address(self):
        return f"nbd+unix:///?socket={self.directory}/socket"

    def serve(self):
        """Until whoever connects first has gone."""
        self.file = os.open(self.path, os.O_RDWR)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{self.directory}/socket")
        listener.listen(1)
        self.thread = threading.Thread(target=self.work, args=(listener,), daemon=True)
        self.thread.start()

    def work(self, listener):
        with listener, listener.accept()[0] as client, contextlib.suppress(EOFError, ConnectionError):
            self.negotiate(client)
            while self.request(client):
                pass

    def lose_power(self):
        """QEMU is gone, and with it what it had not sent. Of the sectors that were not flushed half are lost."""
        self.thread.join(20)
        assert not self.thread.is_alive(), "somebody still uses the disk"
        os.unlink(f"{self.directory}/socket")
        lost = [sector for sector in sorted(self.undo) if self.random.random() < 0.5]
        for sector in lost:
            os.pwrite(self.file, self.undo[sector], sector * SECTOR)
        print(f"{self.name}: {self.flushes} flushes; {len(lost)} of {len(self.undo)} sectors in its cache are lost")
        self.undo = {}
        os.close(self.file)
        return len(lost)

    def forget(self):
        self.path.unlink()
        self.directory.rmdir()

    # the protocol

    def negotiate(self, client):
        client.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(client, 4)
        while True:
            option, length = struct.unpack(">8xLL", take(client, 16))
            take(client, length)
            if option == OPT_EXPORT_NAME:
                raise ConnectionError("too old a client")
            if option == OPT_GO:
                size = os.fstat(self.file).st_size
                export = struct.pack(">HQH", 0, size, HAS_FLAGS | SEND_FLUSH | SEND_FUA)
                client.sendall(option_reply(option, REP_INFO, export) + option_reply(option, REP_ACK))
                return
            client.sendall(option_reply(option, REP_ERR_UNSUP))

    def request(self, client):
        flags, kind, cookie, off, length = struct.unpack(">4xHHQQL", take(client, 28))
        data = b""
        if kind == READ:
            data = os.pread(self.file, length, off)
        elif kind == WRITE:
            self.write(off, take(client, length), flags & FUA)
        elif kind == FLUSH:
            self.undo.clear()
            self.flushes += 1
        else:
            return False
        client.sendall(struct.pack(">LLQ", 0x67446698, 0, cookie) + data)
        return True

    def write(self, off, data, durable):
        sectors = range(off // SECTOR, -(-(off + len(data)) // SECTOR))
        for sector in sectors:
            if sector not in self.undo:
                self.undo[sector] = os.pread(self.file, SECTOR, sector * SECTOR)
        os.pwrite(self.file, data, off)
        if durable:
            for sector in sectors:
                del self.undo[sector]


def option_reply(option, kind, data=b""):
    return struct.pack(">QLLL", 0x3e889045565a9, option, kind, len(data)) + data


def take(client, length):
    data = bytearray()
    while len(data) < length:
        piece = client.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)

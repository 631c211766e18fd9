# SPDX-License-Identifier: BSD-3-Clause
"""A guest's writes over NBD, and what its disk must hold then."""

import random

from nbd import FLAG_FUA, FLAG_NO_HOLE, Client
from server import Failure


class Guest:
    """Writes to an export and to a model of it. @disk: its first content.
    @socket: a path, or a client that has not asked for an export."""

    def __init__(self, socket, disk, seed, export=b""):
        self.model = bytearray(disk)
        self.random = random.Random(seed)
        self.client = (Client(socket, 30) if isinstance(socket, str)
                       else socket)
        if self.client.go(export) != len(disk):
            raise Failure(f"the disk has {self.client.size} bytes, "
                          f"{len(disk)} were expected")

    def close(self):
        self.client.socket.close()

    def range(self, longest=200000):
        align = self.random.choice((1, 512, 4096, 65536))
        off = self.random.randrange(len(self.model)) // align * align
        length = (self.random.randrange(longest) // align + 1) * align
        return off, min(length, len(self.model) - off)

    def step(self):
        """One change, or a flush; returns the range that it touched."""
        off, length = self.range(self.random.choice((9000, 200000)))
        what = self.random.randrange(10)
        data = self.random.randbytes(length)
        if what == 0:
            flags = self.random.choice((0, FLAG_NO_HOLE, FLAG_FUA))
            code, data = self.client.zero(off, length, flags), bytes(length)
        elif what == 1:
            code = self.client.trim(off, length)
            if not code:
                code, data = self.client.read(off, length)
        elif what == 2:
            code, length = self.client.flush(), 0
        else:
            flags = FLAG_FUA if self.random.randrange(20) == 0 else 0
            code = self.client.write(off, data, flags)
        if code:
            raise Failure(f"operation {what} of {length} bytes at {off} "
                          f"failed with {code}")
        self.model[off:off + length] = data[:length]
        return off, length

    def compare(self):
        at = 0
        while at < len(self.model):
            length = min(4 << 20, len(self.model) - at)
            code, got = self.client.read(at, length)
            if code or got != self.model[at:at + length]:
                raise Failure(f"reads otherwise than it was written, "
                              f"{length} bytes at {at} (error {code})")
            at += length

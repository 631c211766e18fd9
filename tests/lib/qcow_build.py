# SPDX-License-Identifier: BSD-3-Clause
"""Writes qcow files of version 1. Knows nothing of formats/drivers/qcow.c."""

import struct

from qcow2_build import Expect, deflate

COMPRESSED = 1 << 63


class Qcow:
    def __init__(self, path, size, cluster_bits=12, l2_bits=9, crypt=0,
                 backing=None, base=None, version=1):
        self.path = path
        self.size = size
        self.bits = cluster_bits
        self.l2_bits = l2_bits
        self.crypt = crypt
        self.backing = backing
        self.backing_length = len(backing or b"")
        self.version = version
        self.cs = 1 << cluster_bits
        self.n = -(-size // (self.cs << l2_bits))
        self.l1_at = 48 + 1024
        self.end = self.l1_at + 8 * self.n
        self.l1 = [0] * self.n
        self.l2 = {}
        self.pieces = []        # (off, bytes)
        self.expect = base.copy(size) if base else Expect(size)

    def alloc(self, n, align=None):
        align = align or self.cs
        at = -(-self.end // align) * align
        self.end = at + n
        return at

    def entry(self, guest, value):
        i, k = divmod(guest, 1 << self.l2_bits)
        if not self.l1[i]:
            self.l1[i] = self.alloc(8 << self.l2_bits)
            self.l2[i] = [0] * (1 << self.l2_bits)
        self.l2[i][k] = value

    def data(self, guest, content, at=None):
        content = content.ljust(self.cs, b"\0")
        at = self.alloc(self.cs) if at is None else at
        self.pieces.append((at, content))
        self.entry(guest, at)
        self.expect.put(guest * self.cs, content)

    def compressed(self, guest, content, length=None):
        stream = deflate(content)
        assert len(stream) < self.cs
        at = self.alloc(len(stream), 1)
        self.pieces.append((at, stream))
        length = len(stream) if length is None else length
        self.entry(guest, COMPRESSED | length << (63 - self.bits) | at)
        self.expect.put(guest * self.cs, content)

    def wrong(self, guest, value):
        self.entry(guest, value)
        self.expect.fail(guest * self.cs, self.cs)

    def header(self):
        return b"QFI\xfb" + struct.pack(
            ">IQIIQBBHIQ", self.version, 48 if self.backing else 0,
            self.backing_length, 0, self.size, self.bits, self.l2_bits, 0,
            self.crypt, self.l1_at)

    def finish(self):
        with open(self.path, "wb") as f:
            f.write(self.header() + (self.backing or b""))
            f.seek(self.l1_at)
            f.write(struct.pack(f">{self.n}Q", *self.l1))
            for i, table in self.l2.items():
                f.seek(self.l1[i])
                f.write(struct.pack(f">{1 << self.l2_bits}Q", *table))
            for at, content in self.pieces:
                f.seek(at)
                f.write(content)
            f.truncate(max(self.end, f.tell()))
        return self.expect

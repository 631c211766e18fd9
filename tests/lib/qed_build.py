# SPDX-License-Identifier: BSD-3-Clause
"""Writes QED files from QEMU's docs/interop/qed_spec.txt. Knows nothing of
formats/drivers/qed.c."""

import struct

from qcow2_build import Expect

BACKING, NEED_CHECK, NO_PROBE = 1, 2, 4


class Qed:
    def __init__(self, path, size, cluster=4096, table=1, header=1, features=0,
                 compat=0, autoclear=0, backing=None, base=None):
        self.path = path
        self.size = size
        self.cs = cluster
        self.table = table
        self.header_clusters = header
        self.features = features
        self.compat = compat
        self.autoclear = autoclear
        self.backing = backing
        self.magic = b"QED\0"
        self.n = table * cluster // 8
        self.next = header
        self.content = {}       # cluster number -> bytes
        self.l1_at = self.alloc(table) * cluster
        self.l1 = [0] * self.n
        self.l2 = {}
        self.expect = base.copy(size) if base else Expect(size)

    def alloc(self, n=1):
        at = self.next
        self.next += n
        return at

    def entry(self, guest, value):
        i, k = divmod(guest, self.n)
        if not self.l1[i]:
            self.l1[i] = self.alloc(self.table) * self.cs
            self.l2[i] = [0] * self.n
        self.l2[i][k] = value

    def data(self, guest, content, at=None):
        at = self.alloc() if at is None else at
        self.content[at] = content.ljust(self.cs, b"\0")
        self.entry(guest, at * self.cs)
        self.expect.put(guest * self.cs, self.content[at])

    def zero(self, guest):
        self.entry(guest, 1)
        self.expect.put(guest * self.cs, bytes(self.cs))

    def wrong(self, guest, value):
        self.entry(guest, value)
        self.expect.fail(guest * self.cs, self.cs)

    def header(self):
        name = self.backing or b""
        return self.magic + struct.pack(
            "<IIIQQQQQII", self.cs, self.table, self.header_clusters,
            self.features, self.compat, self.autoclear, self.l1_at, self.size,
            64 if name else 0, len(name)) + name

    def finish(self):
        with open(self.path, "wb") as f:
            f.write(self.header())
            f.seek(self.l1_at)
            f.write(struct.pack(f"<{self.n}Q", *self.l1))
            for i, table in self.l2.items():
                f.seek(self.l1[i])
                f.write(struct.pack(f"<{self.n}Q", *table))
            for at, content in self.content.items():
                f.seek(at * self.cs)
                f.write(content)
            f.truncate(self.next * self.cs)
        return self.expect

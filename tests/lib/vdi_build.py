# SPDX-License-Identifier: BSD-3-Clause
"""Writes VDI files, in every way that their header permits. Knows nothing of
formats/drivers/vdi.c."""

import struct
import uuid

from qcow2_build import Expect

DYNAMIC, FIXED, UNDO, DIFF = 1, 2, 3, 4
FREE, ZERO = 0xFFFFFFFF, 0xFFFFFFFE
NIL = bytes(16)


def ident(rng):
    return uuid.UUID(bytes=rng.randbytes(16), version=4).bytes_le


class Vdi:
    """A disk in the making: blocks are placed in the order of the calls."""

    def __init__(self, path, size, block=1 << 20, extra=0, kind=DYNAMIC,
                 version=(1, 1), header=400, map_off=512, data_off=None,
                 uid=NIL, modify=NIL, parent=NIL, parent_modify=NIL,
                 comment=b"", blocks=None):
        self.path = path
        self.size = size
        self.block = block
        self.extra = extra
        self.kind = kind
        self.version = version
        self.header = header
        self.count = -(-size // block) if blocks is None else blocks
        if version[0] == 0:
            map_off = 0x1A4
            data_off = map_off + 4 * self.count
        self.map_off = map_off
        end = map_off + 4 * self.count
        self.data_off = -(-end // 512) * 512 if data_off is None else data_off
        self.uid, self.modify = uid, modify
        self.parent, self.parent_modify = parent, parent_modify
        self.comment = comment
        self.map = [FREE] * self.count
        self.blocks = []    # contents, as they lie in the file
        self.cut = None     # the file ends so many bytes before its end
        self.expect = Expect(size)

    def data(self, guest, content, place=None):
        """A block of the disk; place: where among those in the file."""
        content = content[:self.block].ljust(self.block, b"\0")
        if place is None:
            place = len(self.blocks)
        while len(self.blocks) <= place:
            self.blocks.append(None)
        self.blocks[place] = content
        self.map[guest] = place
        self.expect.put(guest * self.block, content)

    def zero(self, guest):
        self.map[guest] = ZERO
        self.expect.put(guest * self.block, bytes(self.block))

    def wrong(self, guest, entry):
        """An entry that leads nowhere."""
        self.map[guest] = entry
        self.expect.fail(guest * self.block, self.block)

    def _header(self):
        major, minor = self.version
        head = b"<<< a disk image >>>\n".ljust(64, b"\0")
        head += struct.pack("<II", 0xBEDA107F, major << 16 | minor)
        geometry = struct.pack("<IIII", 0, 0, 0, 512)
        used = sum(e < ZERO for e in self.map)
        comment = self.comment.ljust(256, b"\0")
        if major == 0:
            head += struct.pack("<II", self.kind, 0) + comment + geometry
            head += struct.pack("<QIII", self.size, self.block, self.count,
                                used)
            return head + self.uid + self.modify + self.parent
        head += struct.pack("<III", self.header, self.kind, 0) + comment
        head += struct.pack("<II", self.map_off, self.data_off) + geometry
        head += struct.pack("<IQIIII", 0, self.size, self.block, self.extra,
                            self.count, used)
        head += self.uid + self.modify + self.parent + self.parent_modify
        return head + bytes(16)

    def finish(self):
        """Writes the file; the expectation of the disk."""
        stride = self.block + self.extra
        with open(self.path, "wb") as f:
            f.write(self._header())
            f.seek(self.map_off)
            f.write(struct.pack(f"<{self.count}I", *self.map))
            end = max(f.tell(), self.data_off + len(self.blocks) * stride)
            for i, content in enumerate(self.blocks):
                f.seek(self.data_off + i * stride)
                f.write(b"\xee" * self.extra)
                f.write(content or b"\xdd" * self.block)
            f.truncate(end - (self.cut or 0))
        return self.expect

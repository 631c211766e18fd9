# SPDX-License-Identifier: BSD-3-Clause
"""Writes VHD files from their published specification, nothing else.

For what other programs do not make: differencing disks with partly set
bitmaps, old and lost footers, every kind of parent locator, odd block sizes.
What the disk must read as (class Expect) is kept beside it, independent of
the tables. Byte order on disk is big endian throughout.

Specification: Microsoft, Virtual Hard Disk Image Format Specification 1.0.
"""

import struct
import uuid

from qcow2_build import Expect

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
SECTOR = 512
UNUSED = 0xFFFFFFFF
W2RU, W2KU, MACX = b"W2ru", b"W2ku", b"MacX"


def checksum(data, at):
    return ~sum(data[:at] + data[at + 4:]) & 0xFFFFFFFF


class Vhd:
    def __init__(self, path, size, kind=DYNAMIC, block=2 << 20,
                 creator=b"win ", chs=(0, 0, 0), current=None, uid=None,
                 stamp=1000, parent=None, parent_id=None, parent_stamp=None,
                 name="", locators=(), footer=512, version=0x10000,
                 entries=None, saved=0):
        self.path = path
        self.size = size        # what must be served
        self.kind = kind
        self.block = block
        self.uid = uid or uuid.uuid5(uuid.NAMESPACE_URL, path).bytes
        self.stamp = stamp
        self.parent_id = parent_id or (parent.uid if parent else bytes(16))
        self.parent_stamp = (parent.stamp if parent and parent_stamp is None
                             else parent_stamp or 0)
        self.name = name
        self.locators = list(locators)
        self.footer_bytes = footer
        self.fields = {"creator": creator, "version": version, "chs": chs,
                       "current": size if current is None else current,
                       "kind": kind, "saved": saved, "header": 512}
        need = -(-size // block)
        self.entries = need if entries is None else entries
        self.bat = {}
        self.table = 1536
        self.next = self.table + -(-max(self.entries * 4, 1) // 512) * 512
        self.locator_at = self.next
        self.next += 512 * len(self.locators) * 2
        self.expect = parent.expect.copy(size) if parent else Expect(size)
        # (off, length, what): "data", "zero", "hole"; for the top's map
        self.map = []
        self.file = open(path, "w+b")

    @property
    def bitmap_bytes(self):
        return -(-(-(-(self.block // SECTOR) // 8)) // 512) * 512

    def put(self, off, data):
        self.file.seek(off)
        self.file.write(data)

    def alloc(self, idx, at=None):
        """Gives block idx its place; returns where its bitmap is."""
        at = self.next if at is None else at
        self.bat[idx] = at // SECTOR
        self.next = max(self.next, at + self.bitmap_bytes + self.block)
        # The room is the block's, data or not.
        self.file.seek(self.next - 1)
        self.file.write(b"\0")
        return at

    def write(self, idx, sectors, stale=b""):
        """A block with these sectors ({number: 512 bytes}); below the other
        bits lies what @stale says, which nobody may see."""
        at = self.alloc(idx)
        bitmap = bytearray(self.bitmap_bytes)
        if stale:
            self.put(at + self.bitmap_bytes, stale * (self.block // len(stale)))
        for n, data in sectors.items():
            bitmap[n // 8] |= 0x80 >> n % 8
            self.put(at + self.bitmap_bytes + n * SECTOR, data)
            self.expect.put(idx * self.block + n * SECTOR, data)
        self.put(at, bytes(bitmap))
        self._note(idx, sectors)
        return at

    def _note(self, idx, sectors):
        """The block's runs of set and clear bits, for the map."""
        last = min(self.block, self.size - idx * self.block) // SECTOR
        n = 0
        while n < last:
            run = n
            while run < last and (run in sectors) == (n in sectors):
                run += 1
            self.map.append((idx * self.block + n * SECTOR,
                             (run - n) * SECTOR,
                             "data" if n in sectors else "hole"))
            n = run

    def full(self, idx, data):
        assert len(data) == self.block
        return self.write(idx, {n: data[n * SECTOR:(n + 1) * SECTOR]
                                for n in range(self.block // SECTOR)})

    def fixed_data(self, off, data):
        self.put(off, data)
        self.expect.put(off, data)

    def footer(self):
        f = self.fields
        c, h, s = f["chs"]
        data = bytearray(512)
        struct.pack_into(">8sIIQI4sI4sQQHBBII16sB", data, 0, b"conectix", 2,
                         f["version"],
                         0xFFFFFFFFFFFFFFFF if self.kind == FIXED
                         else f["header"], self.stamp, f["creator"], 0x60001,
                         b"Wi2k", f["current"], f["current"], c, h, s,
                         f["kind"], 0, self.uid, f["saved"])
        struct.pack_into(">I", data, 64, checksum(data, 64))
        return bytes(data)

    def dynamic(self):
        data = bytearray(1024)
        name = self.name.encode("utf-16-be")
        f = self.fields
        struct.pack_into(">8sQQIIII16sII", data, 0, b"cxsparse",
                         0xFFFFFFFFFFFFFFFF, f.get("table", self.table),
                         f.get("header_version", 0x10000), self.entries,
                         f.get("block", self.block), 0, self.parent_id,
                         self.parent_stamp, 0)
        data[64:64 + len(name)] = name
        for i, (code, raw) in enumerate(self.locators):
            at = self.locator_at + i * 1024
            self.put(at, raw)
            struct.pack_into(">4sIIIQ", data, 576 + i * 24, code, 1024,
                             len(raw), 0, at)
        struct.pack_into(">I", data, 36, checksum(data, 36))
        return bytes(data)

    def close(self):
        footer = self.footer()
        if self.kind == FIXED:
            self.file.truncate(self.fields.get("room", self.size))
            self.file.seek(0, 2)
        else:
            self.put(0, footer)
            self.put(512, self.dynamic())
            table = bytearray(b"\xff" * (self.entries * 4))
            for idx, sector in self.bat.items():
                struct.pack_into(">I", table, idx * 4, sector)
            self.put(self.table, bytes(table))
            self.file.seek(self.next)
        self.file.write(footer[:self.footer_bytes])
        self.file.close()
        return self


def utf16(text):
    return text.encode("utf-16-le")

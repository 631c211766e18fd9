# SPDX-License-Identifier: BSD-3-Clause
"""Writes VHDX files from their published specification, nothing else.

For what other programs do not make: differencing disks, logs that wait for
their replay, 4096-byte sectors, every block state, damaged copies. What the
disk must read as (class Expect) is kept beside it, independent of the tables.
Byte order on disk is little endian throughout.

Specification: [MS-VHDX].
"""

import struct
import uuid

from qcow2_build import Expect

MIB = 1 << 20
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED = 0, 1, 2, 3
UNMAPPED_DRAFT, FULL, PARTIAL = 5, 6, 7

BAT = "2DC27766-F623-4200-9D64-115E9BFD4A08"
METADATA = "8B7CA206-4790-4B9A-B8FE-575F050F886E"
FILE_PARAMETERS = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B"
DISK_BYTES = "2FA54224-CD1B-4876-B211-5DBED83BF4B8"
DISK_ID = "BECA12AB-B2E6-4523-93EF-C309E000C746"
LOGICAL = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F"
PHYSICAL = "CDA348C7-445D-4471-9CC9-E9885251C556"
LOCATOR = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"
LOCATOR_TYPE = "B04AEFB7-D19E-4A81-B789-25B8E9445913"
USER, VIRTUAL, REQUIRED = 1, 2, 4

_TABLE = []
for _i in range(256):
    _v = _i
    for _ in range(8):
        _v = _v >> 1 ^ (0x82F63B78 if _v & 1 else 0)
    _TABLE.append(_v)


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


def guid(text):
    return uuid.UUID(text).bytes_le


def name_guid(name):
    return uuid.uuid5(uuid.NAMESPACE_URL, name).bytes_le


def text_guid(raw):
    return "{" + str(uuid.UUID(bytes_le=raw)) + "}"


def sealed(data, at=4):
    data = bytearray(data)
    struct.pack_into("<I", data, at, 0)
    struct.pack_into("<I", data, at, crc32c(data))
    return bytes(data)


class Entry:
    """A log entry: updates are (file offset, 4096 bytes) or
    (file offset, how many zeroes)."""

    def __init__(self, sequence, updates, tail=None, log_guid=None,
                 flushed=0, last=0):
        self.sequence = sequence
        self.updates = updates
        self.tail = tail
        self.guid = log_guid
        self.flushed = flushed
        self.last = last

    @property
    def size(self):
        head = -(-(64 + 32 * len(self.updates)) // 4096) * 4096
        return head + 4096 * sum(isinstance(u[1], bytes)
                                 for u in self.updates)

    def bytes(self, tail, log_guid):
        head = bytearray(-(-(64 + 32 * len(self.updates)) // 4096) * 4096)
        data = b""
        for i, (off, what) in enumerate(self.updates):
            if isinstance(what, bytes):
                desc = struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8],
                                   off, self.sequence)
                data += (struct.pack("<4sI", b"data", self.sequence >> 32) +
                         what[8:-4] +
                         struct.pack("<I", self.sequence & 0xFFFFFFFF))
            else:
                desc = struct.pack("<4sIQQQ", b"zero", 0, what, off,
                                   self.sequence)
            head[64 + 32 * i:96 + 32 * i] = desc
        struct.pack_into("<4sIIIQII16sQQ", head, 0, b"loge", 0, self.size,
                         self.tail if self.tail is not None else tail,
                         self.sequence, len(self.updates), 0,
                         self.guid or log_guid, self.flushed, self.last)
        return sealed(bytes(head) + data)


class Vhdx:
    def __init__(self, path, size, block=2 * MIB, sector=512, parent=None,
                 parent_linkage=None, linkage2=None, locator=(), fixed=False,
                 sequence=(7, 8), data_guid=None, log_bytes=MIB):
        self.path = path
        self.size = size
        self.block = block
        self.sector = sector
        self.parent = parent
        self.data_guid = data_guid or name_guid(path)
        self.file_guid = name_guid(path + " file")
        self.log_guid = None      # set: the log is to be replayed
        self.sequence = sequence
        self.fixed = fixed
        self.chunk = (1 << 23) * sector // block
        self.blocks = -(-size // block)
        chunks = -(-self.blocks // self.chunk)
        self.entries = (chunks * (self.chunk + 1) if parent else
                        self.blocks + (self.blocks - 1) // self.chunk)
        self.log_at, self.log_bytes = MIB, log_bytes
        self.meta_at = self.log_at + log_bytes
        self.bat_at = self.meta_at + MIB
        self.bat_bytes = -(-max(self.entries * 8, 1) // MIB) * MIB
        self.next = self.bat_at + self.bat_bytes
        self.bat = {}             # index in the table -> entry
        self.bitmaps = {}         # chunk -> [place, bytearray]
        self.expect = parent.expect.copy(size) if parent else Expect(size)
        self.map = []
        self.version, self.log_version = 1, 0
        self.regions = [(BAT, self.bat_at, self.bat_bytes, 1),
                        (METADATA, self.meta_at, MIB, 1)]
        self.items = [
            [FILE_PARAMETERS, struct.pack("<II", block,
                                          fixed | (2 if parent else 0)),
             REQUIRED],
            [DISK_BYTES, struct.pack("<Q", size), VIRTUAL | REQUIRED],
            [LOGICAL, struct.pack("<I", sector), VIRTUAL | REQUIRED],
            [PHYSICAL, struct.pack("<I", 4096), VIRTUAL | REQUIRED],
            [DISK_ID, name_guid(path + " disk"), VIRTUAL | REQUIRED]]
        if parent:
            linkage = parent_linkage or text_guid(parent.data_guid)
            pairs = [("parent_linkage", linkage)]
            if linkage2:
                pairs.append(("parent_linkage2", linkage2))
            self.items.append([LOCATOR, self._locator(pairs + list(locator)),
                               REQUIRED])
        self.file = open(path, "w+b")

    @staticmethod
    def _locator(pairs):
        head = guid(LOCATOR_TYPE) + struct.pack("<HH", 0, len(pairs))
        at = len(head) + 12 * len(pairs)
        table = strings = b""
        for key, value in pairs:
            k, v = key.encode("utf-16-le"), value.encode("utf-16-le")
            table += struct.pack("<IIHH", at + len(strings),
                                 at + len(strings) + len(k), len(k), len(v))
            strings += k + v
        return head + table + strings

    def put(self, off, data):
        self.file.seek(off)
        self.file.write(data)

    def alloc(self, length):
        at = self.next
        self.next += length
        return at

    def index(self, idx):
        return idx + idx // self.chunk

    def entry_at(self, idx):
        """Where in the file block idx's BAT entry is."""
        return self.bat_at + 8 * self.index(idx)

    def span(self, idx):
        return idx * self.block, min(self.block, self.size - idx * self.block)

    def state(self, idx, state, place=0):
        """A block of zeroes, of the parent's bytes, or of nothing known."""
        self.bat[self.index(idx)] = place | state
        off, length = self.span(idx)
        if state not in (NOT_PRESENT, FULL, PARTIAL):
            self.expect.put(off, bytes(length))
            self.map.append((off, length, "zero"))
        return place

    def full(self, idx, pieces, place=None):
        """A FULL block: {offset in the block: bytes}, zeroes elsewhere."""
        place = self.alloc(self.block) if place is None else place
        self.bat[self.index(idx)] = place | FULL
        off, length = self.span(idx)
        if self.parent:
            self.expect.put(off, bytes(length))
        for at, data in pieces.items():
            self.put(place + at, data)
            self.expect.put(off + at, data)
            self.map.append((off + at, min(len(data), length - at), "data"))
        return place

    def partial(self, idx, sectors, stale=b""):
        """Sectors ({number: bytes}) of this layer; the parent has the rest.
        Below the clear bits lies what nobody may see."""
        place = self.alloc(self.block)
        chunk, within = divmod(idx, self.chunk)
        if chunk not in self.bitmaps:
            self.bitmaps[chunk] = [self.alloc(MIB), bytearray(MIB)]
        at, bits = self.bitmaps[chunk]
        self.bat[chunk * (self.chunk + 1) + self.chunk] = at | FULL
        self.bat[self.index(idx)] = place | PARTIAL
        if stale:
            self.put(place, stale * (self.block // len(stale)))
        first = within * (self.block // self.sector)
        off, length = self.span(idx)
        for n, data in sectors.items():
            bits[(first + n) // 8] |= 1 << (first + n) % 8
            self.put(place + n * self.sector, data)
            self.expect.put(off + n * self.sector, data)
        n, last = 0, length // self.sector
        while n < last:
            run = n
            while run < last and (run in sectors) == (n in sectors):
                run += 1
            self.map.append((off + n * self.sector, (run - n) * self.sector,
                             "data" if n in sectors else "parent"))
            n = run
        return place

    def header(self, sequence):
        data = bytearray(4096)
        struct.pack_into("<4sIQ16s16s16sHHIQ", data, 0, b"head", 0, sequence,
                         self.file_guid, self.data_guid,
                         self.log_guid or bytes(16), self.log_version,
                         self.version, self.log_bytes, self.log_at)
        return sealed(data)

    def region_table(self):
        data = bytearray(65536)
        struct.pack_into("<4sIII", data, 0, b"regi", 0, len(self.regions), 0)
        for i, (g, off, length, required) in enumerate(self.regions):
            struct.pack_into("<16sQII", data, 16 + 32 * i, guid(g), off,
                             length, required)
        return sealed(data)

    def metadata(self):
        data = bytearray(65536)
        struct.pack_into("<8sHH", data, 0, b"metadata", 0, len(self.items))
        at = 65536
        for i, (g, value, flags) in enumerate(self.items):
            struct.pack_into("<16sIIII", data, 32 + 32 * i, guid(g),
                             at if value else 0, len(value), flags, 0)
            data += value
            at += len(value)
        return bytes(data)

    def bat_sector(self, idx, changes):
        """The 4096 bytes of the BAT around block idx as they are now, with
        {block: entry} put in: what a log writes."""
        start = (8 * self.index(idx)) // 4096 * 4096
        data = bytearray(4096)
        for i, entry in self.bat.items():
            if start <= 8 * i < start + 4096:
                struct.pack_into("<Q", data, 8 * i - start, entry)
        for block, entry in changes.items():
            struct.pack_into("<Q", data, 8 * self.index(block) - start, entry)
        return self.bat_at + start, bytes(data)

    def log(self, entries, start=0, log_guid=b"log of this disk"):
        """Entries side by side from start on, around the log's end."""
        self.log_guid = log_guid
        at = tail = start
        for e in entries:
            raw = e.bytes(tail, log_guid)
            for i in range(0, len(raw), 4096):
                self.put(self.log_at + (at + i) % self.log_bytes,
                         raw[i:i + 4096])
            at = (at + len(raw)) % self.log_bytes
        return at

    def close(self, headers=(True, True), tables=(True, True)):
        self.put(0, b"vhdxfile" + "a builder".encode("utf-16-le"))
        for at, seq, good in zip((65536, 131072), self.sequence, headers):
            data = bytearray(self.header(seq))
            if not good:
                data[100] ^= 1
            self.put(at, bytes(data))
        for at, good in zip((196608, 262144), tables):
            data = bytearray(self.region_table())
            if not good:
                data[40] ^= 1
            self.put(at, bytes(data))
        self.put(self.meta_at, self.metadata())
        for i, entry in self.bat.items():
            self.put(self.bat_at + 8 * i, struct.pack("<Q", entry))
        for at, bits in self.bitmaps.values():
            self.put(at, bytes(bits))
        self.file.seek(0, 2)
        if self.file.tell() < self.next:
            self.file.truncate(self.next)
        self.file.close()
        return self

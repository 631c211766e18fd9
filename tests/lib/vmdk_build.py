# SPDX-License-Identifier: BSD-3-Clause
"""Writes VMDK files from the published descriptions, nothing else.

Made for what qemu-img cannot make: the caller says which grain holds what,
where directories lie and what is wrong with them. What a disk must read as is
kept beside it (class Expect), independent of the tables.

Byte order on disk is little endian; units of header fields are sectors.

Descriptions: VMware's "Virtual Disk Format 5.0" (descriptor, hosted sparse,
streamOptimized), libyal's "VMware Virtual Disk (VMDK) format" (COWD).
seSparse has no document: constant header, directory and table entries are as
ESXi 6.5 and later write them.
"""

import os
import struct
import zlib

from qcow2_build import Expect

SECTOR = 512

# Flags of a hosted sparse header
NEWLINES, REDUNDANT, ZERO_ENTRIES = 1, 2, 4
COMPRESSED, MARKERS = 1 << 16, 1 << 17
GD_AT_END = 2**64 - 1

# Types of markers
EOS, GRAIN_TABLE, GRAIN_DIRECTORY, FOOTER = range(4)

NO_PARENT = 0xFFFFFFFF

# What a grain may hold beside its bytes.
ZERO = "zero"


def descriptor(extents, create_type="monolithicSparse", cid=0x1A2B3C4D,
               parent=NO_PARENT, hint=None, eol="\n", equals="=", more=(),
               first="# Disk DescriptorFile", ddb=None):
    lines = [first, f"version{equals}1", f"CID{equals}{cid:08x}",
             f"parentCID{equals}{parent:08x}"]
    if create_type is not None:
        lines.append(f'createType{equals}"{create_type}"')
    if hint is not None:
        lines.append(f'parentFileNameHint{equals}"{hint}"')
    lines += [*more, "", "# Extent description", *extents, "",
              "# The Disk Data Base", "#DDB", ""]
    for key, value in (ddb or {"adapterType": "ide",
                               "geometry.heads": "16"}).items():
        lines.append(f'ddb.{key} = "{value}"')
    return (eol.join(lines) + eol).encode()


def sectors(n):
    return -(-n // SECTOR)


class File:
    """Bytes at places, with holes between."""

    def __init__(self):
        self.parts = []
        self.end = 0

    def put(self, off, data):
        self.parts.append((off, data))
        self.end = max(self.end, off + len(data))

    def write(self, path, size=None):
        with open(path, "wb") as f:
            for off, data in self.parts:
                f.seek(off)
                f.write(data)
            f.truncate(self.end if size is None else size)
        return path


class Hosted:
    """A hosted sparse extent. grains: {index: bytes, ZERO, or a number that
    goes into the table as it is}."""

    def __init__(self, capacity, grain=128, entries=512, version=1, flags=3,
                 text=None, text_sectors=20, fields=None):
        self.capacity = capacity  # sectors
        self.grain = grain
        self.entries = entries
        self.version = version
        self.flags = flags
        self.text = text
        self.text_sectors = max(text_sectors, sectors(len(text or b"")))
        self.fields = fields or {}
        self.grains = {}
        self.order = None      # in which grains lie in the file
        self.gap = 0           # sectors between grains
        self.no_tables = ()    # of these the directory has 0
        self.pokes = []        # (name of a table, byte, value, width)

    @property
    def gb(self):
        return self.grain * SECTOR

    def header(self, **fields):
        f = {"magic": 0x564D444B, "version": self.version,
             "flags": self.flags, "capacity": self.capacity,
             "grain": self.grain,
             "text_at": 1 if self.text is not None else 0,
             "text_sectors":
                 self.text_sectors if self.text is not None else 0,
             "entries": self.entries, "rgd": 0, "gd": 0, "overhead": 0,
             "unclean": 0, "newlines": b"\n \r\n", "compression": 0}
        f |= fields | self.fields
        return struct.pack("<IIIQQQQIQQQB4sH433x", *f.values())

    def tables(self):
        return -(-self.capacity // (self.grain * self.entries))

    def table_sectors(self):
        return sectors(4 * self.entries)

    def used(self, entry_of):
        """The bytes of every table, by its index."""
        out = []
        for t in range(self.tables()):
            first = t * self.entries
            left = -(-self.capacity // self.grain) - first
            out.append(b"".join(
                struct.pack("<I", entry_of(first + i) if i < left else 0)
                for i in range(self.entries)))
        return out

    def place(self, f, at):
        """Puts the grains from sector at on; {index: entry}."""
        where = {}
        for g in self.order or sorted(self.grains):
            value = self.grains[g]
            if value == ZERO:
                where[g] = 1
            elif isinstance(value, int):
                where[g] = value
            else:
                f.put(at * SECTOR, value)
                where[g] = at
                at += self.grain + self.gap
        return where, at

    def build(self):
        f = File()
        at = 1 + (self.text_sectors if self.text is not None else 0)
        n, per = self.tables(), self.table_sectors()
        gd_sectors = sectors(4 * n)
        places = {}
        for which in ("rgd", "gd"):
            places[which] = at
            at += gd_sectors
            places[which + "-tables"] = at
            at += n * per
        overhead = -(-at // self.grain) * self.grain
        where, _ = self.place(f, overhead)
        for which in ("rgd", "gd"):
            if which == "rgd" and not self.flags & REDUNDANT:
                continue
            base = places[which + "-tables"]
            f.put(places[which] * SECTOR, b"".join(
                struct.pack("<I", 0 if t in self.no_tables else base + t * per)
                for t in range(n)))
            for t, data in enumerate(self.used(lambda g: where.get(g, 0))):
                f.put((base + t * per) * SECTOR, data)
        if self.text is not None:
            f.put(SECTOR, self.text)
        f.put(0, self.header(
            gd=places["gd"], overhead=overhead,
            rgd=places["rgd"] if self.flags & REDUNDANT else 0))
        for name, byte, value, width in self.pokes:
            f.put(places[name] * SECTOR + byte,
                  value.to_bytes(width, "little"))
        self.places = places
        self.where = where
        return f

    def expect(self, size=None, below=None):
        """below: what the parent reads as, where this has nothing."""
        size = self.capacity * SECTOR if size is None else size
        e = below.copy(size) if below else Expect(size)
        for g, value in sorted(self.grains.items()):
            if value == ZERO:
                e.put(g * self.gb, bytes(self.gb))
            elif not isinstance(value, int):
                e.put(g * self.gb, value.ljust(self.gb, b"\0"))
        return e


def marker(value, size, kind, data=b""):
    head = struct.pack("<QI", value, size)
    if size:
        return (head + data).ljust(sectors(12 + len(data)) * SECTOR, b"\0")
    return (head + struct.pack("<I", kind)).ljust(SECTOR, b"\0")


class Stream(Hosted):
    """A streamOptimized extent: what is known late lies at the end."""

    def __init__(self, capacity, grain=128, at_end=True, markers=True,
                 level=6, short_last=False, version=3, **kwargs):
        flags = NEWLINES | COMPRESSED | (MARKERS if markers else 0)
        super().__init__(capacity, grain, version=version, flags=flags,
                         **kwargs)
        self.at_end = at_end
        self.markers = markers
        self.level = level
        self.short_last = short_last
        self.sector_of = {}     # grain: the sector that its header claims
        self.streams = {}       # grain: its bytes as they shall lie there
        self.footer = True
        self.padding = b""
        self.footer_fields = {}

    def place(self, f, at):
        where = {}
        last = -(-self.capacity // self.grain) - 1
        for g in self.order or sorted(self.grains):
            value = self.grains[g]
            if value == ZERO or isinstance(value, int):
                where[g] = 1 if value == ZERO else value
                continue
            data = value.ljust(self.gb, b"\0")
            if g == last and self.short_last:
                data = data[:self.capacity * SECTOR - g * self.gb]
            packed = self.streams.get(g) or zlib.compress(data, self.level)
            if self.markers:
                out = marker(self.sector_of.get(g, g * self.grain),
                             len(packed), None, packed)
            else:
                out = packed.ljust(sectors(len(packed)) * SECTOR, b"\0")
            f.put(at * SECTOR, out)
            where[g] = at
            at += len(out) // SECTOR + self.gap
        return where, at

    def build(self):
        f = File()
        at = 1 + (self.text_sectors if self.text is not None else 0)
        overhead = at = -(-at // self.grain) * self.grain
        self.where, at = self.place(f, at)
        per = self.table_sectors()
        places = []
        for t, data in enumerate(self.used(
                lambda g: self.where.get(g, 0))):
            if not any(data):
                places.append(0)
                continue
            f.put(at * SECTOR, marker(per, 0, GRAIN_TABLE))
            f.put((at + 1) * SECTOR, data.ljust(per * SECTOR, b"\0"))
            places.append(at + 1)
            at += 1 + per
        gd = b"".join(struct.pack("<I", p) for p in places)
        gd = gd.ljust(sectors(len(gd)) * SECTOR, b"\0")
        f.put(at * SECTOR, marker(len(gd) // SECTOR, 0, GRAIN_DIRECTORY))
        f.put((at + 1) * SECTOR, gd)
        gd_at = at + 1
        at = gd_at + len(gd) // SECTOR
        if self.footer:
            f.put(at * SECTOR, marker(1, 0, FOOTER))
            fields = {"gd": gd_at, "overhead": overhead, "compression": 1}
            kept, self.fields = self.fields, self.footer_fields
            f.put((at + 1) * SECTOR, self.header(**fields))
            self.fields = kept
            f.put((at + 2) * SECTOR, marker(0, 0, EOS) + self.padding)
        if self.text is not None:
            f.put(SECTOR, self.text)
        f.put(0, self.header(gd=GD_AT_END if self.at_end else gd_at,
                             overhead=overhead, compression=1))
        return f


class Cowd(Hosted):
    """An ESX sparse extent: 32-bit fields, tables of 4096 entries."""

    def __init__(self, capacity, grain=1, parent=None, generation=1,
                 parent_generation=0, fields=None):
        super().__init__(capacity, grain, entries=4096, flags=3,
                         fields=fields)
        self.parent = parent
        self.generation = generation
        self.parent_generation = parent_generation

    def build(self):
        f = File()
        n, per = self.tables(), self.table_sectors()
        base = 4 + sectors(4 * n)
        overhead = base + n * per
        self.where, end = self.place(f, overhead)
        tables = self.used(lambda g: self.where.get(g, 0))
        f.put(4 * SECTOR, b"".join(
            struct.pack("<I", base + t * per if any(tables[t]) else 0)
            for t in range(n)))
        for t, data in enumerate(tables):
            if any(data):
                f.put((base + t * per) * SECTOR, data)
        v = {"version": 1, "flags": 3, "capacity": self.capacity,
             "grain": self.grain, "gd": 4, "gd_entries": n, "free": end}
        v |= self.fields
        if self.parent is None:
            middle = struct.pack("<III", 100, 16, 63).ljust(1028, b"\0")
        else:
            middle = (self.parent.encode().ljust(1024, b"\0") +
                      struct.pack("<I", self.parent_generation))
        f.put(0, (b"COWD" + struct.pack("<7I", *v.values()) + middle +
                  struct.pack("<I", self.generation)).ljust(2048, b"\0"))
        return f


class SeSparse:
    """grains: {index: bytes, ZERO, "unmapped", or the entry itself}."""

    def __init__(self, capacity, grain=8, fields=None, replay=0):
        self.capacity = capacity
        self.grain = grain
        self.gb = grain * SECTOR
        self.fields = fields or {}
        self.replay = replay
        self.grains = {}
        self.at = {}        # grain: its place among the grains of the file
        self.table_at = {}  # table: its place among the tables
        self.n_tables = None
        self.gd_pokes = {}  # directory index: the entry itself

    def build(self):
        f = File()
        per = 4096
        n = -(-self.capacity // (self.grain * per))
        gd, gd_sectors = 4, sectors(8 * n)
        tables_at = gd + gd_sectors
        n_tables = self.n_tables or n
        grains_at = -(-(tables_at + 64 * n_tables) // 8) * 8
        directory, tables = {}, {}
        free, taken = 0, set(self.at.values())
        for g in sorted(self.grains):
            value = self.grains[g]
            if value == ZERO:
                entry = 2 << 60
            elif value == "unmapped":
                entry = 1 << 60
            elif isinstance(value, int):
                entry = value
            else:
                while free in taken:
                    free += 1
                i = self.at.get(g, free)
                taken.add(i)
                f.put(grains_at * SECTOR + i * self.gb, value)
                entry = 3 << 60 | (i & 0xFFF) << 48 | i >> 12
            t = g // per
            tables.setdefault(t, {})[g % per] = entry
        for t in tables:
            directory[t] = 1 << 60 | self.table_at.get(t, t)
        directory |= self.gd_pokes
        f.put(gd * SECTOR, b"".join(struct.pack("<Q", directory.get(t, 0))
                                    for t in range(n)))
        for t, entries in tables.items():
            data = b"".join(struct.pack("<Q", entries.get(i, 0))
                            for i in range(per))
            f.put((tables_at + 64 * self.table_at.get(t, t)) * SECTOR, data)
        v = {"magic": 0xCAFEBABE, "version": 0x200000001,
             "capacity": self.capacity, "grain": self.grain, "table": 64,
             "flags": 0, "r1": 0, "r2": 0, "r3": 0, "r4": 0, "volatile": 1,
             "volatile_sectors": 1, "jheader": 2, "jheader_sectors": 1,
             "journal": 3, "journal_sectors": 1, "gd": gd,
             "gd_sectors": gd_sectors, "tables": tables_at,
             "tables_sectors": 64 * n_tables, "free": 3, "free_sectors": 1,
             "backmap": 3, "backmap_sectors": 1, "grains": grains_at,
             "grains_sectors": (max(taken, default=0) + 1) * self.grain}
        v |= self.fields
        f.put(0, struct.pack("<26Q", *v.values()).ljust(SECTOR, b"\0"))
        f.put(SECTOR, struct.pack("<4Q", 0xCAFECAFE, 0, 0, self.replay))
        end = max(taken, default=-1) + 1
        f.end = max(f.end, grains_at * SECTOR + end * self.gb)
        return f

    def expect(self, size=None, below=None):
        size = self.capacity * SECTOR if size is None else size
        e = below.copy(size) if below else Expect(size)
        for g, value in sorted(self.grains.items()):
            if value in (ZERO, "unmapped"):
                e.put(g * self.gb, bytes(self.gb))
            elif not isinstance(value, int):
                e.put(g * self.gb, value.ljust(self.gb, b"\0"))
        return e


def flat(path, data, size=None):
    with open(path, "wb") as f:
        f.write(data)
        if size is not None:
            f.truncate(size)
    return os.path.basename(path)

# SPDX-License-Identifier: BSD-3-Clause
"""Writes ploop images and DiskDescriptor.xml bundles. Knows nothing of
formats/drivers/ploop.c."""

import hashlib
import os
import struct
import uuid
from xml.sax.saxutils import escape

from qcow2_build import Expect

V1, V2 = b"WithoutFreeSpace", b"WithouFreSpacExt"
IN_USE, CLOSED = 0x746F6E59, 0x312E3276
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NIL = "{00000000-0000-0000-0000-000000000000}"
EXT_MAGIC, EXT_BITMAP = 0xAB234CEF23DCEA87, 0x20385FAE252CB34A


def guid(rng):
    return "{%s}" % uuid.UUID(bytes=rng.randbytes(16), version=4)


class Delta:
    """One image file; clusters lie in the order of the calls."""

    def __init__(self, path, size, tracks=2048, magic=V2, in_use=CLOSED,
                 data_off=None, entries=None, sectors=None, flags=1, base=None,
                 extension=None):
        self.path = path
        self.size = size
        self.tracks = tracks
        self.magic = magic
        self.in_use = in_use
        self.cs = tracks * 512
        self.count = -(-size // self.cs) if entries is None else entries
        self.sectors = -(-size // 512) if sectors is None else sectors
        unit = 512 if magic == V1 else self.cs
        self.unit = unit
        end = 64 + 4 * self.count
        self.data_off = (-(-end // unit) * unit if data_off is None
                         else data_off)
        self.flags = flags
        self.bat = [0] * self.count
        self.clusters = []
        self.extension = extension  # features, as bytes
        self.file_end = None
        self.type = 2
        self.expect = base.copy(size) if base else Expect(size)

    def place(self, i):
        """The BAT entry of the i-th cluster in the file."""
        return (self.data_off + i * self.cs) // self.unit

    def data(self, guest, content, place=None):
        content = content[:self.cs].ljust(self.cs, b"\0")
        if place is None:
            place = len(self.clusters)
        while len(self.clusters) <= place:
            self.clusters.append(None)
        self.clusters[place] = content
        self.bat[guest] = self.place(place)
        self.expect.put(guest * self.cs, content)

    def wrong(self, guest, entry):
        self.bat[guest] = entry
        self.expect.fail(guest * self.cs, self.cs)

    def header(self, ext_off=0):
        out = self.magic + struct.pack("<IIIII", self.type, 16, 1000,
                                       self.tracks, self.count)
        out += (struct.pack("<II", self.sectors, 0) if self.magic == V1 else
                struct.pack("<Q", self.sectors))
        return out + struct.pack("<IIIQ", self.in_use, self.data_off // 512,
                                 self.flags, ext_off)

    def finish(self):
        end = self.data_off + len(self.clusters) * self.cs
        with open(self.path, "wb") as f:
            f.write(self.header(end // 512 if self.extension else 0))
            f.write(struct.pack(f"<{len(self.bat)}I", *self.bat))
            for i, content in enumerate(self.clusters):
                f.seek(self.data_off + i * self.cs)
                f.write(content or b"\xdd" * self.cs)
            if self.extension:
                body = self.extension.ljust(self.cs - 24, b"\0")
                f.seek(end)
                f.write(struct.pack("<Q", EXT_MAGIC))
                f.write(hashlib.md5(body).digest() + body)
                end += self.cs
            f.truncate(max(end, 64 + 4 * len(self.bat))
                       if self.file_end is None else self.file_end)
        return self.expect


def feature(magic, flags, data=b""):
    return (struct.pack("<QQII", magic, flags, len(data), 0) +
            data.ljust(-(-len(data) // 8) * 8, b"\0"))


class Bundle:
    """The descriptor of a folder. storages: [(start, end, [(guid, type,
    file)])] in sectors; shots: [(guid, parent)]."""

    def __init__(self, folder, size, root="Parallels_disk_image"):
        self.folder = folder
        self.sectors = size // 512
        self.root = root
        self.storages = []
        self.shots = []
        self.top = None
        self.extra = ""
        self.head = "<?xml version='1.0' encoding='UTF-8'?>\n"
        self.padding = "0"

    def xml(self):
        def element(name, text):
            return f"<{name}>{text}</{name}>"
        out = [self.head + f'<{self.root} Version="1.0">',
               "  <Disk_Parameters>",
               element("Disk_size", self.sectors),
               element("Cylinders", 100), element("Heads", 16),
               element("Sectors", 63), element("Padding", self.padding),
               self.extra, "  </Disk_Parameters>", "  <StorageData>"]
        for start, end, images in self.storages:
            out += ["<Storage>", element("Start", start), element("End", end),
                    element("Blocksize", 2048)]
            for ident, kind, name in images:
                out += ["<Image>", element("GUID", ident),
                        element("Type", kind), element("File", escape(name)),
                        "</Image>"]
            out += ["</Storage>"]
        out += ["  </StorageData>", "  <Snapshots>"]
        if self.top:
            out += [element("TopGUID", self.top)]
        for ident, parent in self.shots:
            out += ["<Shot>", element("GUID", ident),
                    element("ParentGUID", parent), "</Shot>"]
        out += ["  </Snapshots>", f"</{self.root}>"]
        return "\n".join(out) + "\n"

    def finish(self):
        path = os.path.join(self.folder, "DiskDescriptor.xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.xml())
        return path

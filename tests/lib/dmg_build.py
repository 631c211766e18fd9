# SPDX-License-Identifier: BSD-3-Clause
"""Writes UDIF images (.dmg): chunks of every kind, in block lists in a
property list or a resource fork. Knows nothing of formats/drivers/dmg.c."""

import base64
import bz2
import lzma
import struct
import zlib

from qcow2_build import Expect

SECTOR = 512
ZERO, RAW, IGNORE, COMMENT, LAST = 0, 1, 2, 0x7FFFFFFE, 0xFFFFFFFF
ADC, ZLIB, BZIP2, LZFSE, LZMA = range(0x80000004, 0x80000009)


def adc(data):
    """Greedy: the longest match of three bytes or more, near or far."""
    out = bytearray()
    plain = bytearray()
    seen = {}

    def flush():
        for i in range(0, len(plain), 128):
            part = plain[i:i + 128]
            out.append(0x80 | len(part) - 1)
            out.extend(part)
        plain.clear()

    i = 0
    while i < len(data):
        key = data[i:i + 3]
        j = seen.get(key, -1) if len(key) == 3 else -1
        seen[key] = i
        n = 0
        if j >= 0 and i - j <= 65536:
            while n < 67 and i + n < len(data) and data[j + n] == data[i + n]:
                n += 1
        distance = i - j - 1
        if 3 <= n <= 18 and distance < 1024:
            flush()
            out += bytes([n - 3 << 2 | distance >> 8, distance & 255])
        elif n >= 4 and j >= 0:
            flush()
            out += bytes([0x40 | n - 4, distance >> 8, distance & 255])
        else:
            plain.append(data[i])
            n = 1
            if len(plain) == 128:
                flush()
        i += n
    flush()
    return bytes(out)


PACK = {
    RAW: bytes,
    ADC: adc,
    ZLIB: lambda data: zlib.compress(data, 6),
    BZIP2: bz2.compress,
    LZMA: lambda data: lzma.compress(data, preset=1),
}


class Dmg:
    """A disk in the making: chunks are placed in the order of the calls."""

    def __init__(self, path, sectors, fork=False, before=b"", pad=0,
                 trailer=None):
        """before: bytes in front of the data fork. pad: bytes behind the
        trailer. trailer: fields of it that are other than they should be."""
        self.path = path
        self.sectors = sectors
        self.fork = fork
        self.before = before
        self.pad = pad
        self.trailer = trailer or {}
        self.data = bytearray()
        self.lists = []  # (first sector, data offset, chunks)
        self.expect = Expect(sectors * SECTOR)

    def list(self, sector=0, data_off=0):
        """A new block list, whose chunks count from these."""
        self.lists.append((sector, data_off, []))
        return self

    def entry(self, kind, sector, n, off=0, length=0):
        """@sector is the disk's, @off the data fork's."""
        if not self.lists:
            self.list()
        first, base, chunks = self.lists[-1]
        chunks.append((kind, sector - first, n, off - base, length))

    def put(self, kind, sector, content, stream=None):
        """A chunk with data; stream: what stands for them in the file."""
        n = len(content) // SECTOR
        stream = PACK[kind](content) if stream is None else stream
        self.entry(kind, sector, n, len(self.data), len(stream))
        self.data += stream
        self.expect.put(sector * SECTOR, content)

    def wrong(self, kind, sector, n, off, length):
        """A chunk that cannot be read."""
        self.entry(kind, sector, n, off, length)
        self.expect.fail(sector * SECTOR, n * SECTOR)

    def _mish(self, sector, data_off, chunks):
        chunks = chunks + [(LAST, 0, 0, 0, 0)]
        end = max((s + n for _, s, n, _, _ in chunks[:-1]), default=0)
        head = struct.pack(">4sIQQQII", b"mish", 1, sector, end % (1 << 64), data_off,
                           2056, 0).ljust(64, b"\0")
        head += struct.pack(">II", 2, 32).ljust(136, b"\0")
        head += struct.pack(">I", len(chunks))
        mask = (1 << 64) - 1
        return head + b"".join(
            struct.pack(">IIQQQQ", kind, 0, s & mask, n, off & mask, length)
            for kind, s, n, off, length in chunks)

    def plist(self):
        entries = ""
        for i, one in enumerate(self.lists):
            data = base64.encodebytes(self._mish(*one)).decode()
            entries += ("<dict><key>Attributes</key><string>0x0050</string>"
                        f"<key>Data</key><data>\n{data}</data>"
                        f"<key>ID</key><string>{i}</string>"
                        "<key>Name</key><string>a &amp; b</string></dict>\n")
        return ('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist '
                'PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" '
                '"http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
                '<plist version="1.0"><dict><key>resource-fork</key><dict>\n'
                f'<key>blkx</key><array>\n{entries}</array>\n'
                '<key>plst</key><array/></dict></dict></plist>\n').encode()

    def resources(self):
        body = b""
        for content in [b"not a list"] + [self._mish(*o) for o in self.lists]:
            body += struct.pack(">I", len(content)) + content
        types = bytes(30)
        return struct.pack(">IIII", 256, 256 + len(body), len(body),
                           len(types)).ljust(256, b"\0") + body + types

    def finish(self):
        """Writes the file; the expectation of the disk."""
        table = self.resources() if self.fork else self.plist()
        at = len(self.before) + len(self.data)
        f = {"segment": 1, "segments": 1, "sectors": self.sectors,
             "data_off": len(self.before), "rsrc": (0, 0), "xml": (0, 0)}
        f["rsrc" if self.fork else "xml"] = (at, len(table))
        f.update(self.trailer)
        t = struct.pack(">4sIIIQQQQQII", b"koly", 4, 512, 1, 0, f["data_off"],
                        len(self.data), *f["rsrc"], f["segment"],
                        f["segments"]).ljust(216, b"\0")
        t += struct.pack(">QQ", *f["xml"]).ljust(272, b"\0")
        t += struct.pack(">IQ", 1, f["sectors"]).ljust(24, b"\0")
        with open(self.path, "wb") as out:
            out.write(self.before + self.data + table + t + bytes(self.pad))
        return self.expect

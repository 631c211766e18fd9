#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes tests/corpus/qcow2: small qcow2 files, each named by what is in it
(valid-*) or wrong with it (hostile-*).

The same files at every run. Findings of a fuzzer are added to the folder by
hand and are left alone.

usage: make-corpus.py [FOLDER]
"""

import hashlib
import os
import struct
import sys
import zlib

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537BE77
EXT_DATA_FILE = 0x44415441

# Header: offset and width of fields
FIELDS = {
    "magic": (0, 4), "version": (4, 4), "backing_off": (8, 8),
    "backing_bytes": (16, 4), "cluster_bits": (20, 4), "size": (24, 8),
    "crypt": (32, 4), "l1_entries": (36, 4), "l1_off": (40, 8),
    "reftable_off": (48, 8), "reftable_clusters": (56, 4),
    "snapshots": (60, 4), "snapshots_off": (64, 8), "incompatible": (72, 8),
    "compatible": (80, 8), "autoclear": (88, 8), "refcount_order": (96, 4),
    "header_bytes": (100, 4), "compression": (104, 1),
}


class Image:
    """Guest clusters go into one L2 table per 64 (or 1024) of them. What the
    caller says stands; refcounts and copied flags are made to fit."""

    def __init__(self, bits=9, clusters=64, version=3, order=4, extl2=False,
                 extensions=(), backing=b"", compression=0):
        self.bits, self.cs = bits, 1 << bits
        self.version, self.order, self.extl2 = version, order, extl2
        self.extensions, self.backing = extensions, backing
        self.compression = compression
        self.size = clusters * self.cs
        self.entry_bytes = 16 if extl2 else 8
        self.per_l2 = self.cs // self.entry_bytes
        self.l1_entries = max(1, -(-clusters // self.per_l2))
        self.parts = {}      # host cluster -> bytes
        self.refs = {0: 1}
        self.next = 4        # header, refcount table, refcount block, L1
        self.l1 = {}         # L1 index -> L2 host cluster
        self.l2 = {}         # (L1 index, L2 index) -> [entry, bitmap]
        self.snapshots = []
        self.fields = {"incompatible": (8 if compression else 0) |
                       (16 if extl2 else 0)}

    def alloc(self, n=1):
        at = self.next
        self.next += n
        for c in range(at, at + n):
            self.refs[c] = 1
        return at

    def put(self, cluster, data):
        for i in range(0, len(data), self.cs):
            self.parts[cluster + i // self.cs] = data[i:i + self.cs]

    def content(self, seed):
        out = b""
        while len(out) < self.cs:
            out += hashlib.sha256(b"%d %d" % (seed, len(out))).digest()
        return out[:self.cs]

    def entry(self, guest, entry, bitmap=0):
        i, j = divmod(guest, self.per_l2)
        if i not in self.l1:
            self.l1[i] = self.alloc()
        self.l2[i, j] = [entry, bitmap]

    def data(self, guest, flags=0, bitmap=0xFFFFFFFF):
        c = self.alloc()
        self.put(c, self.content(c))
        self.entry(guest, c * self.cs | flags | COPIED, bitmap)
        return c

    def compress(self, streams):
        """[(guest cluster, stream)], one behind the other."""
        blob = b"".join(s for _, s in streams)
        n = -(-len(blob) // self.cs)
        first = self.next
        self.next += n
        self.put(first, blob)
        at = first * self.cs
        x = 62 - (self.bits - 8)
        for guest, s in streams:
            end = at + len(s)
            sectors = (end - 1) // 512 - at // 512
            self.entry(guest, COMPRESSED | sectors << x | at)
            last = (at // 512 * 512 + (sectors + 1) * 512 - 1) // self.cs
            for c in range(at // self.cs, last + 1):
                self.refs[c] = self.refs.get(c, 0) + 1
            at = end

    def snapshot(self, extra=None, size=None):
        """The present tables become a snapshot's as well."""
        size = self.size if size is None else size
        l1 = self.alloc()
        self.put(l1, b"".join(struct.pack(
            ">Q", self.l1.get(i, 0) * self.cs)
            for i in range(self.l1_entries)))
        extra = struct.pack(">QQ", 0, size) if extra is None else extra
        name = b"snap %d" % len(self.snapshots)
        self.snapshots.append(
            struct.pack(">QIHHIIQII", l1 * self.cs, self.l1_entries, 1,
                        len(name), 1700000000, 0, 0, 0, len(extra)) + extra +
            b"%d" % (len(self.snapshots) + 1) + name)
        # Everything below is shared now.
        for i, c in self.l1.items():
            self.refs[c] += 1
        for e in self.l2.values():
            if not e[0] & COMPRESSED and e[0] >> self.bits & (1 << 40) - 1:
                self.refs[(e[0] & ~COPIED) >> self.bits] += 1
                e[0] &= ~COPIED

    def header(self):
        length = 112 if self.compression else 104
        exts = b""
        for kind, data in self.extensions:
            exts += struct.pack(">II", kind, len(data)) + data
            exts += bytes(-len(exts) % 8)
        exts += bytes(8)
        at = 72 if self.version == 2 else length
        fields = {
            "magic": 0x514649FB, "version": self.version,
            "backing_off": at + len(exts) if self.backing else 0,
            "backing_bytes": len(self.backing), "cluster_bits": self.bits,
            "size": self.size, "l1_entries": self.l1_entries,
            "l1_off": 3 * self.cs, "reftable_off": self.cs,
            "reftable_clusters": 1, "snapshots": len(self.snapshots),
            "snapshots_off": self.snap_at * self.cs if self.snapshots else 0,
        }
        if self.version == 3:
            fields.update(refcount_order=self.order, header_bytes=length)
            if self.compression:
                fields["compression"] = self.compression
        else:
            self.fields.pop("incompatible", None)
        out = bytearray(at)
        for name, value in (fields | self.fields).items():
            off, width = FIELDS[name]
            out[off:off + width] = value.to_bytes(width, "big")
        return bytes(out) + exts + self.backing

    def tables(self):
        for i, c in self.l1.items():
            table = bytearray(self.cs)
            for (a, j), (entry, bitmap) in self.l2.items():
                if a != i:
                    continue
                struct.pack_into(">Q", table, j * self.entry_bytes, entry)
                if self.extl2:
                    struct.pack_into(">Q", table, j * 16 + 8, bitmap)
            self.put(c, bytes(table))
        self.put(3, b"".join(struct.pack(
            ">Q", self.l1[i] * self.cs |
            (COPIED if self.refs[self.l1[i]] == 1 else 0)
            if i in self.l1 else 0) for i in range(self.l1_entries)))
        width = 1 << self.order
        block = bytearray(self.cs)
        for c, n in self.refs.items():
            if width < 8:
                block[c * width // 8] |= n << c * width % 8
            else:
                w = width // 8
                block[c * w:(c + 1) * w] = n.to_bytes(w, "big")
        self.put(1, struct.pack(">Q", 2 * self.cs))
        self.put(2, bytes(block))

    def bytes(self):
        if self.snapshots:
            table = b""
            for s in self.snapshots:
                table += s + bytes(-len(s) % 8)
            self.snap_at = self.alloc(-(-len(table) // self.cs))
            self.put(self.snap_at, table)
        for c in (1, 2, 3):
            self.refs[c] = 1
        self.tables()
        self.put(0, self.header())
        end = max(self.parts)
        out = b"".join(self.parts.get(c, b"").ljust(self.cs, b"\0")
                       for c in range(end))
        return out + self.parts[end].ljust(
            0 if self.refs.get(end, 0) and self.cut else self.cs, b"\0")

    cut = False


def deflate(data):
    c = zlib.compressobj(9, zlib.DEFLATED, -12)
    return c.compress(data) + c.flush()


def zstd_raw(data):
    """A frame of one stored block, by hand."""
    return (struct.pack("<IBB", 0xFD2FB528, 0, 0x38) +
            struct.pack("<I", len(data) << 3 | 1)[:3] + data)


def plain(**kw):
    """Data, zeroes with and without a place, nothing, more data."""
    img = Image(**kw)
    img.data(0)
    img.data(1)
    if img.extl2:
        img.entry(2, 0, 0xFFFFFFFF << 32)
    elif img.version == 3:
        img.entry(2, ZERO)
        img.data(3, ZERO)
    img.data(5)
    img.data(img.size // img.cs - 1)
    return img


def compressed(bits=10, **kw):
    img = Image(bits=bits, clusters=8, **kw)
    squeeze = zstd_raw if img.compression else deflate
    img.compress([(g, squeeze(img.content(g)[:700] * (img.cs // 700) +
                              bytes(img.cs % 700))) for g in range(3)])
    img.data(4)
    return img


def poke(data, at, value, width=8):
    return data[:at] + value.to_bytes(width, "big") + data[at + width:]


def bitmaps(flag=1):
    img = Image(clusters=64)
    img.data(0)
    bits, table, directory = img.alloc(), img.alloc(), img.alloc()
    img.put(bits, b"\x0f")
    img.put(table, struct.pack(">Q", bits * img.cs))
    entry = struct.pack(">QIIBBHI", table * img.cs, 1, 2, 1, 16, 2, 0) + b"b0"
    entry += bytes(-len(entry) % 8)
    img.put(directory, entry)
    img.extensions = [(EXT_BITMAPS, struct.pack(
        ">IIQQ", 1, 0, len(entry), directory * img.cs))]
    img.fields["autoclear"] = flag
    return img


def luks():
    img = Image(clusters=8)
    img.data(0)
    n = 4
    at = img.alloc(n)
    head = (b"LUKS\xba\xbe" + struct.pack(">H", 1) + b"aes".ljust(32, b"\0") +
            b"xts-plain64".ljust(32, b"\0") + b"sha256".ljust(32, b"\0") +
            struct.pack(">II", 8, 64) + bytes(20 + 32) +
            struct.pack(">I", 1000) +
            b"01234567-89ab-cdef-0123-456789abcdef".ljust(40, b"\0"))
    for _ in range(8):
        head += struct.pack(">II32sII", 0xDEAD, 0, b"", 2, 1)
    img.put(at, head.ljust(n * img.cs, b"\0"))
    img.extensions = [(EXT_CRYPTO, struct.pack(">QQ", at * img.cs,
                                               n * img.cs))]
    img.fields["crypt"] = 2
    return img


def valid():
    yield "data-zeroes-holes", plain()
    yield "version-2", plain(version=2)
    yield "empty", Image(clusters=64)
    yield "size-0", Image(clusters=0)
    odd = plain()
    odd.size -= 100
    yield "size-not-a-multiple-of-512", odd
    for order in range(7):
        yield f"refcounts-of-{1 << order}-bits", plain(order=order)
    yield "two-l2-tables", plain(clusters=100)
    img = plain(clusters=200)
    img.snapshot()
    img.snapshot()
    img.data(70) # in an L2 table that the snapshots do not have
    yield "two-snapshots", img
    img = plain(version=2)
    img.snapshot(extra=b"")
    yield "version-2-snapshot-without-extra-data", img
    img = plain()
    img.snapshot(extra=struct.pack(">QQ", 0, 512) + b"unknown.")
    yield "snapshot-with-own-size-and-unknown-extra-data", img
    yield "deflate", compressed()
    yield "deflate-across-clusters", compressed(bits=9)
    yield "zstd", compressed(compression=1)
    img = Image(bits=14, clusters=4, extl2=True)
    img.entry(0, 0, 0xF0F0 << 32)
    img.entry(1, img.alloc() * img.cs | COPIED, 0x0F0F | 0xF0F00000 << 32)
    img.put(img.next - 1, img.content(1)[:600])
    yield "subclusters", img
    yield "bitmap", bitmaps()
    yield "luks-without-key", luks()
    img = plain()
    img.fields["crypt"] = 1
    yield "legacy-aes", img
    yield "backing-name", plain(backing=b"base.raw", extensions=[
        (EXT_BACKING_FORMAT, b"raw")])
    img = plain(extensions=[(0x12345678, b"what nobody knows")])
    img.fields.update(compatible=1 << 40, autoclear=1 << 41)
    yield "unknown-extension-and-soft-features", img
    img = plain()
    img.fields["incompatible"] = 3
    yield "dirty-and-corrupt-bits", img


def header_fields():
    """What open() must refuse: field, value, name."""
    for field, value, name in (
            ("magic", 0x514649FA, "magic"),
            ("version", 4, "version-4"), ("version", 0, "version-0"),
            ("cluster_bits", 8, "cluster-bits-8"),
            ("cluster_bits", 22, "cluster-bits-22"),
            ("cluster_bits", 0xFFFFFFFF, "cluster-bits-huge"),
            ("size", 1 << 63, "size-2-63"), ("size", 1 << 40, "size-past-l1"),
            ("crypt", 3, "crypt-method-3"), ("crypt", 2, "luks-no-header"),
            ("l1_entries", 0, "l1-empty"),
            ("l1_entries", 0xFFFFFFFF, "l1-huge"),
            ("l1_off", 3 * 512 + 8, "l1-unaligned"),
            ("l1_off", 1 << 40, "l1-past-end"),
            ("l1_off", 2**64 - 512, "l1-wraps"),
            ("reftable_off", 513, "reftable-unaligned"),
            ("reftable_off", 1 << 50, "reftable-past-end"),
            ("reftable_clusters", 0xFFFFFFFF, "reftable-huge"),
            ("snapshots", 65537, "snapshots-too-many"),
            ("snapshots", 1000, "snapshots-past-end"),
            ("incompatible", 1 << 5, "incompatible-bit-5"),
            ("incompatible", 1 << 63, "incompatible-bit-63"),
            ("incompatible", 4, "data-file-no-name"),
            ("incompatible", 8, "compression-bit-only"),
            ("incompatible", 16, "extended-l2-small-clusters"),
            ("refcount_order", 7, "refcount-order-7"),
            ("header_bytes", 103, "header-length-103"),
            ("header_bytes", 513, "header-length-past-cluster")):
        img = plain()
        img.fields[field] = value
        yield name, img


def damaged_tables():
    """What opens, but is damage where it is looked at."""
    base = plain()
    data = base.bytes()
    l1, l2 = 3 * 512, base.l1[0] * 512
    end = len(data)
    for name, at, value in (
            ("l1-entry-unaligned", l1, 512 * 4 + 1024 + 0x100 | COPIED),
            ("l1-entry-past-end", l1, 1 << 40 | COPIED),
            ("l1-entry-at-end", l1, end | COPIED),
            ("l1-entry-reserved-bits", l1, l2 | COPIED | 1 << 57),
            ("l1-entry-is-header", l1, COPIED | 512 * 0 + 512),
            ("l1-entry-is-l1", l1, COPIED | l1),
            ("l2-entry-past-end", l2, 1 << 40 | COPIED),
            ("l2-entry-at-end", l2, end | COPIED),
            ("l2-entry-reserved-bits", l2, 512 * 5 | COPIED | 2),
            ("l2-entry-not-copied", l2, 512 * 5),
            ("l2-entry-is-l2", l2, l2 | COPIED),
            ("l2-entry-is-refcount-block", l2, 2 * 512 | COPIED),
            ("l2-entries-share", l2 + 8, 512 * 5 | COPIED),
            ("compressed-past-end", l2, COMPRESSED | 1 << 40),
            ("compressed-copied", l2, COMPRESSED | COPIED | 512 * 5),
            ("compressed-header", l2, COMPRESSED),
            ("refcount-entry-unaligned", 512, 2 * 512 + 8),
            ("refcount-entry-past-end", 512, 1 << 60),
            ("refcount-entry-self", 512, 512),
            ("refcount-entry-twice", 520, 2 * 512),
            ("refcounts-zero", 1024, 0),
            ("refcounts-high", 1024, 0x0001000100FF0001)):
        yield name, poke(data, at, value)
    yield "leaked-cluster", poke(data, 1024 + end // 512 * 2, 1, 2) + bytes(512)
    yield "cut-in-l2", data[:l2 + 100]
    yield "cut-in-header", data[:60]
    yield "cut-in-l1", data[:l1 + 4]
    yield "all-l1-entries-one-l2", all_one_l2()
    img = plain(version=2)
    img.entry(9, ZERO)
    yield "zero-cluster-in-version-2", img.bytes()


def all_one_l2():
    img = plain(clusters=64 * 64)
    data = bytearray(img.bytes())
    for i in range(img.l1_entries):
        struct.pack_into(">Q", data, 3 * 512 + 8 * i, img.l1[0] * 512)
    return bytes(data)


def damaged_rest():
    img = plain()
    img.snapshot()
    data = img.bytes()
    at = img.snap_at * 512
    yield "snapshot-l1-past-end", poke(data, at, 1 << 40)
    yield "snapshot-l1-huge", poke(data, at + 8, 0xFFFFFFFF, 4)
    yield "snapshot-l1-is-live-l1", poke(data, at, 3 * 512)
    yield "snapshot-extra-huge", poke(data, at + 36, 1025, 4)
    yield "snapshot-extra-short", poke(data, at + 36, 8, 4)
    yield "snapshot-name-past-end", poke(data, at + 14, 0xFFFF, 2)
    yield "snapshot-size-past-l1", poke(data, at + 48, 1 << 60)

    img = bitmaps()
    data = img.bytes()
    directory = max(img.parts)
    yield "bitmap-table-unaligned", poke(data, directory * 512, 7)
    yield "bitmap-table-huge", poke(data, directory * 512 + 8, 0xFFFFFFFF, 4)
    yield "bitmap-name-past-end", poke(data, directory * 512 + 18, 999, 2)
    yield "bitmap-bit-without-bitmaps", (lambda i: (i.fields.update(
        autoclear=1), i.bytes())[1])(plain())
    yield "bitmaps-stale", bitmaps(flag=0).bytes()

    img = Image(bits=14, clusters=4, extl2=True)
    img.entry(0, img.alloc() * img.cs | COPIED, 1 | 1 << 32)
    img.put(img.next - 1, b"data")
    yield "subcluster-data-and-zero", img.bytes()
    img = Image(bits=14, clusters=4, extl2=True)
    img.entry(0, 0, 1)
    yield "subcluster-without-place", img.bytes()

    for name, exts in (
            ("extension-past-header", [(0x77777777, b"x" * 500)]),
            ("crypto-extension-short", [(EXT_CRYPTO, b"8 bytes.")]),
            ("crypto-header-past-end", [(EXT_CRYPTO, struct.pack(
                ">QQ", 512, 1 << 40))]),
            ("backing-format-with-nul", [(EXT_BACKING_FORMAT, b"r\0w")]),
            ("data-file-with-nul", [(EXT_DATA_FILE, b"a\0b")])):
        yield name, plain(extensions=exts).bytes()
    img = plain(extensions=[(EXT_FEATURES, struct.pack(
        ">BB46s", 0, 9, b"time\x1btravel\n"))])
    img.fields["incompatible"] = 1 << 9
    yield "named-unknown-feature", img.bytes()
    img = plain(extensions=[(EXT_DATA_FILE, b"../../etc/passwd")])
    img.fields["incompatible"] = 4
    yield "data-file-outside", img.bytes()
    for name, field, value in (("backing-name-past-cluster", "backing_off",
                                510),
                               ("backing-name-long", "backing_bytes", 1024)):
        img = plain(backing=b"base.raw")
        img.fields[field] = value
        yield name, img.bytes()
    img = plain(backing=b"base\0.raw")
    yield "backing-name-with-nul", img.bytes()
    img = compressed(compression=1)
    img.fields["compression"] = 2
    yield "compression-type-2", img.bytes()
    img = compressed(compression=1)
    img.fields["incompatible"] = 0
    yield "compression-type-without-bit", img.bytes()


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        root, "corpus", "qcow2")
    os.makedirs(folder, exist_ok=True)
    files = {f"valid-{n}": i.bytes() for n, i in valid()}
    files |= {f"hostile-{n}": i.bytes() for n, i in header_fields()}
    files |= {f"hostile-{n}": d for n, d in damaged_tables()}
    files |= {f"hostile-{n}": d for n, d in damaged_rest()}
    for name, data in files.items():
        # Clusters of zeroes at the end are not worth their room.
        with open(os.path.join(folder, name + ".qcow2"), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()

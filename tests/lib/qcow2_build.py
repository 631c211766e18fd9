# SPDX-License-Identifier: BSD-3-Clause
"""Writes qcow2 files from their published specification, nothing else.

Made for what qemu-img cannot make: the caller says where each cluster lies
and what each table entry holds. The refcounts are computed from that, so the
result is sound unless the caller broke it.

A file's expected content (class Expect) is kept beside it, independent of the
tables. Byte order on disk is big endian throughout.

Specification: QEMU's docs/interop/qcow2.
"""

import ctypes
import os
import struct
import zlib

MAGIC = 0x514649FB

# Incompatible features
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTL2 = (1 << n for n in range(5))
# Autoclear features
BITMAPS, DATA_FILE_RAW = 1 << 0, 1 << 1

# Header extensions
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURE_NAMES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

ZLIB, ZSTD = 0, 1


class Expect:
    """What a disk must read as: bytes somewhere, zeroes elsewhere, and
    ranges that must fail. Where a damaged stream begins soundly, a reader
    may give these bytes or fail: maybe."""

    RAW_MAX = 4 << 30

    def __init__(self, size):
        self.size = size
        self.chunks = []  # (off, bytes); a later one hides an earlier one
        self.bad = []     # (off, length)
        self.maybe = []   # (off, length)

    def put(self, off, data):
        data = data[:max(0, self.size - off)]
        if data:
            self.chunks.append((off, data))

    def fail(self, off, length):
        length = min(length, self.size - off)
        if length > 0:
            self.bad.append((off, length))

    def may_fail(self, off, data):
        self.put(off, data)
        length = min(len(data), self.size - off)
        if length > 0:
            self.maybe.append((off, length))

    def eio(self):
        """Ascending; neighbours stay apart, as each fails by itself."""
        return sorted(self.bad)

    def copy(self, size=None):
        other = Expect(self.size if size is None else size)
        for off, data in self.chunks:
            other.put(off, data)
        for off, length in self.bad:
            other.fail(off, length)
        other.maybe = [(off, min(length, other.size - off))
                       for off, length in self.maybe if off < other.size]
        return other

    def write(self, path):
        """Writes the reference. Returns the path of its segments, or None
        when the reference is the raw disk itself."""
        if self.size <= self.RAW_MAX and len(self.chunks) < 100000:
            with open(path, "wb") as f:
                f.truncate(self.size)
                for off, data in self.chunks:
                    f.seek(off)
                    f.write(data)
            return None
        pool = {}
        end = 0
        with open(path, "wb") as f, open(path + ".segments", "w") as s:
            for off, data in sorted(self.chunks, key=lambda c: c[0]):
                assert off >= end, "segments must not overlap"
                end = off + len(data)
                if data not in pool:
                    pool[data] = f.tell()
                    f.write(data)
                s.write(f"{off} {len(data)} {pool[data]}\n")
        return path + ".segments"


def deflate(data, wbits=12, level=9, strategy=zlib.Z_DEFAULT_STRATEGY,
            flush_every=None):
    """A raw deflate stream, as qcow2's "zlib" clusters hold it."""
    c = zlib.compressobj(level, zlib.DEFLATED, -wbits, 9, strategy)
    if not flush_every:
        return c.compress(data) + c.flush()
    out = b""
    for i in range(0, len(data), flush_every):
        out += c.compress(data[i:i + flush_every])
        out += c.flush(zlib.Z_FULL_FLUSH)
    return out + c.flush()


def zstd_by_hand(blocks, window_log=17):
    """A frame without content size and checksum, of raw blocks (bytes) and
    run-length blocks ((byte, count))."""
    out = struct.pack("<IBB", 0xFD2FB528, 0, (window_log - 10) << 3)
    for i, block in enumerate(blocks):
        last = i == len(blocks) - 1
        if isinstance(block, tuple):
            value, count = block
            head, body = count << 3 | 1 << 1 | last, bytes([value])
        else:
            head, body = len(block) << 3 | last, block
        out += struct.pack("<I", head)[:3] + body
    return out


class Zstd:
    """libzstd's own encoder, for blocks that are really compressed."""

    LEVEL, WINDOW_LOG, CONTENT_SIZE, CHECKSUM = 100, 101, 200, 201
    CONTINUE, FLUSH, END = range(3)

    class _Buffer(ctypes.Structure):
        _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t),
                    ("pos", ctypes.c_size_t)]

    def __init__(self):
        self.lib = ctypes.CDLL("libzstd.so.1")
        self.lib.ZSTD_createCCtx.restype = ctypes.c_void_p
        self.lib.ZSTD_freeCCtx.argtypes = [ctypes.c_void_p]
        self.lib.ZSTD_CCtx_setParameter.argtypes = [
            ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        self.lib.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
        self.lib.ZSTD_compressStream2.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self.lib.ZSTD_compressStream2.restype = ctypes.c_size_t
        self.lib.ZSTD_isError.argtypes = [ctypes.c_size_t]

    def _ok(self, r):
        if self.lib.ZSTD_isError(r):
            raise RuntimeError("libzstd refused")
        return r

    def compress(self, data, block=None, level=3, window_log=17,
                 content_size=False, checksum=False):
        """block: flush after so many bytes, each ends a block."""
        c = self.lib.ZSTD_createCCtx()
        for k, v in ((self.LEVEL, level), (self.WINDOW_LOG, window_log),
                     (self.CONTENT_SIZE, content_size),
                     (self.CHECKSUM, checksum)):
            self._ok(self.lib.ZSTD_CCtx_setParameter(c, k, int(v)))
        block = block or len(data)
        # Room enough for every piece, even one that only grows.
        space = len(data) + 256 * (len(data) // block + 2)
        out = ctypes.create_string_buffer(space)
        o = self._Buffer(ctypes.addressof(out), space, 0)
        for i in range(0, len(data), block):
            piece = data[i:i + block]
            mem = ctypes.create_string_buffer(piece, len(piece))
            b = self._Buffer(ctypes.addressof(mem), len(piece), 0)
            end = i + block >= len(data)
            while self._ok(self.lib.ZSTD_compressStream2(
                    c, ctypes.byref(o), ctypes.byref(b),
                    self.END if end else self.FLUSH)):
                pass
        self.lib.ZSTD_freeCCtx(c)
        return out.raw[:o.pos]


class Snapshot:
    def __init__(self, ident, name, size, root, extra):
        self.ident = ident.encode()
        self.name = name.encode()
        self.size = size
        self.root = root
        self.extra = extra


class Qcow2:
    """One file in the making. Guest clusters are named by their index."""

    def __init__(self, path, size, cluster_bits=16, version=3, extl2=False,
                 refcount_order=4, compression=ZLIB, incompatible=0,
                 compatible=0, autoclear=0, header_length=None,
                 header_tail=b"", backing=None, backing_format=None,
                 extensions=(), l1_entries=None, crypt=0):
        self.path = path
        self.size = size
        self.bits = cluster_bits
        self.cs = 1 << cluster_bits
        self.version = version
        self.extl2 = extl2
        self.order = refcount_order
        self.compression = compression
        self.incompatible = (incompatible | (EXTL2 if extl2 else 0) |
                             (COMPRESSION if compression else 0))
        self.compatible = compatible
        self.autoclear = autoclear
        self.header_length = header_length or (112 if compression else 104)
        self.header_tail = header_tail
        self.backing = backing
        self.backing_format = backing_format
        self.extensions = list(extensions)
        self.crypt = crypt
        self.l2_entries = self.cs // (16 if extl2 else 8)
        need = max(1, -(-(-(-size // self.cs)) // self.l2_entries))
        self.l1_entries = need if l1_entries is None else l1_entries
        self.root = {}       # L1 index -> {L2 index -> (entry, bitmap)}
        self.l2_at = {}      # L1 index -> where its table must lie
        self.l1_extra = {}   # L1 index -> raw L1 entry
        self.snapshots = []
        self.refs = {}       # host cluster index -> count
        self.next = 1        # first host cluster that was never given away
        self.expect = Expect(size)
        self.file = open(path, "wb")
        self._hold(0)

    # Host clusters

    def _hold(self, off, length=1):
        for c in range(off // self.cs, (off + length - 1) // self.cs + 1):
            self.refs[c] = self.refs.get(c, 0) + 1

    def alloc(self, count=1):
        """Host offset of new clusters in a row; not counted yet."""
        off = self.next * self.cs
        self.next += count
        return off

    def put(self, off, data):
        self.file.seek(off)
        self.file.write(data)

    # Guest clusters

    def entry(self, guest, entry, bitmap=0):
        """Exactly this L2 entry."""
        i, j = divmod(guest, self.l2_entries)
        self.root.setdefault(i, {})[j] = (entry, bitmap)

    def data(self, guest, content, host=None, bitmap=0xFFFFFFFF):
        """An allocated cluster; content is a whole cluster."""
        assert len(content) == self.cs
        host = self.alloc() if host is None else host
        self.put(host, content)
        self.entry(guest, host, bitmap if self.extl2 else 0)
        self.expect.put(guest * self.cs, content)
        return host

    def zero(self, guest, host=0):
        """Reads as zeroes, with a preallocated cluster or without."""
        if self.extl2:
            self.entry(guest, host, 0xFFFFFFFF << 32)
        else:
            self.entry(guest, host | ZERO)
        self.expect.put(guest * self.cs, bytes(self.cs))

    def descriptor(self, host, length, more_sectors=0):
        """The L2 entry of a compressed cluster."""
        x = 62 - (self.bits - 8)
        sectors = (host + length - 1) // 512 - host // 512 + more_sectors
        assert sectors < 1 << 62 - x and host < 1 << x
        return COMPRESSED | sectors << x | host

    def compressed(self, guest, stream, host, content, more_sectors=0):
        """A stream at any byte of the file. content: of the whole cluster,
        or as far as the stream is sound."""
        at = guest * self.cs
        self.put(host, stream)
        self.entry(guest, self.descriptor(host, len(stream), more_sectors))
        if len(content) == self.cs:
            self.expect.put(at, content)
        else:
            self.expect.may_fail(at, content)
            self.expect.fail(at + len(content), self.cs - len(content))
        return host + len(stream)

    def snapshot(self, ident, name, size=None, extra=None):
        """The present tables become a snapshot's. extra: the bytes behind
        the fixed part of its table entry; None: as version 3 wants them."""
        if size is None:
            size = self.size
        if extra is None:
            extra = struct.pack(">QQ", 0, size)
        root = {i: dict(t) for i, t in self.root.items()}
        self.snapshots.append(Snapshot(ident, name, size, root, extra))

    # Tables

    def _hold_entry(self, entry):
        if entry & COMPRESSED:
            x = 62 - (self.bits - 8)
            host = entry & (1 << x) - 1
            sectors = (entry & ~COMPRESSED) >> x
            first = host & ~511
            self._hold(first, (sectors + 1) * 512)
        elif not self.incompatible & DATA_FILE:
            host = entry & 0x00FFFFFFFFFFFE00
            # Damage that points nowhere needs no refcount.
            if 0 < host < 1 << 40:
                self._hold(host)

    def _place_root(self, root, l2_at):
        """{L1 index: L2 offset}; everything reachable is counted."""
        placed = {}
        for i, table in sorted(root.items()):
            off = l2_at.get(i)
            placed[i] = self.alloc() if off is None else off
            self._hold(placed[i])
            for entry, _ in table.values():
                self._hold_entry(entry)
        return placed

    def _write_l2(self, off, table, active):
        out = bytearray(self.cs)
        for j, (entry, bitmap) in table.items():
            host = entry & 0x00FFFFFFFFFFFE00
            if active and not entry & COMPRESSED:
                if (host and self.refs.get(host // self.cs) == 1) or (
                        self.incompatible & DATA_FILE and
                        (host or bitmap & 0xFFFFFFFF)):
                    entry |= COPIED
            if self.extl2:
                struct.pack_into(">QQ", out, j * 16, entry, bitmap)
            else:
                struct.pack_into(">Q", out, j * 8, entry)
        self.put(off, bytes(out))

    def _write_l1(self, off, entries, placed, active):
        out = bytearray(entries * 8)
        for i, l2 in placed.items():
            flag = COPIED if active and self.refs[l2 // self.cs] == 1 else 0
            struct.pack_into(">Q", out, i * 8, l2 | flag)
        if active:
            for i, raw in self.l1_extra.items():
                struct.pack_into(">Q", out, i * 8, raw)
        self.put(off, bytes(out))

    def _snapshot_table(self, l1_at):
        out = b""
        for s, (off, entries) in zip(self.snapshots, l1_at):
            out += struct.pack(">QIHHIIQII", off, entries, len(s.ident),
                               len(s.name), 1700000000, 5, 6, 0, len(s.extra))
            out += s.extra + s.ident + s.name
            out += bytes(-len(out) % 8)
        return out

    def _table_clusters(self, length):
        return max(1, -(-length // self.cs))

    def _place_refcounts(self):
        """Blocks and table count themselves, so this goes on until it
        holds. Returns {block index: offset}, table offset, its clusters."""
        per_block = self.cs * 8 >> self.order
        blocks = {}

        def cover():
            while True:
                new = {c // per_block for c in self.refs} - set(blocks)
                if not new:
                    return
                for b in sorted(new):
                    blocks[b] = self.alloc()
                    self._hold(blocks[b])

        cover()
        while True:
            clusters = self._table_clusters((max(blocks) + 1) * 8)
            table = self.next
            # One more block may be needed for the table's own clusters.
            highest = (table + clusters) // per_block
            clusters = self._table_clusters((max(highest, max(blocks)) + 1)
                                            * 8)
            off = self.alloc(clusters)
            self._hold(off, clusters * self.cs)
            cover()
            if (max(blocks) + 1) * 8 <= clusters * self.cs:
                return blocks, off, clusters
            for c in range(off // self.cs, off // self.cs + clusters):
                del self.refs[c]

    def _write_refcounts(self, blocks, table):
        per_block = self.cs * 8 >> self.order
        width = 1 << self.order
        content = {b: bytearray(self.cs) for b in blocks}
        for c, count in self.refs.items():
            assert count < 1 << width, "refcount does not fit"
            block, i = content[c // per_block], c % per_block
            if width < 8:
                block[i * width // 8] |= count << (i * width % 8)
            else:
                n = width // 8
                block[i * n:(i + 1) * n] = count.to_bytes(n, "big")
        for b, off in blocks.items():
            self.put(off, bytes(content[b]))
            self.put(table + b * 8, struct.pack(">Q", off))

    def _header(self, l1_at, table, table_clusters, snapshots_at):
        exts = b""
        if self.backing_format:
            name = self.backing_format.encode()
            exts += struct.pack(">II", EXT_BACKING_FORMAT, len(name)) + name
            exts += bytes(-len(exts) % 8)
        for kind, data in self.extensions:
            exts += struct.pack(">II", kind, len(data)) + data
            exts += bytes(-len(exts) % 8)
        exts += bytes(8)
        length = 72 if self.version == 2 else self.header_length
        name = self.backing.encode() if self.backing else b""
        at = length + len(exts) if name else 0
        out = struct.pack(">IIQIIQIIQQIIQ", MAGIC, self.version, at,
                          len(name), self.bits, self.size, self.crypt,
                          self.l1_entries, l1_at, table, table_clusters,
                          len(self.snapshots), snapshots_at)
        if self.version == 3:
            out += struct.pack(">QQQII", self.incompatible, self.compatible,
                               self.autoclear, self.order, length)
            if length > 104:
                tail = bytes([self.compression]) + bytes(7) + self.header_tail
                out += tail[:length - 104].ljust(length - 104, b"\0")
        out += exts + name
        assert len(out) <= self.cs, "the header fits in one cluster"
        return out

    def finish(self, file_end=None):
        """Writes all tables and the header. file_end: cut the file there."""
        placed = self._place_root(self.root, self.l2_at)
        snap_placed, snap_l1 = [], []
        for s in self.snapshots:
            snap_placed.append(self._place_root(s.root, {}))
        l1_len = max(self.l1_entries, 1) * 8
        l1_at = self.alloc(self._table_clusters(l1_len))
        self._hold(l1_at, l1_len)
        for s in self.snapshots:
            entries = max(1, -(-(-(-s.size // self.cs)) // self.l2_entries),
                          *(i + 1 for i in s.root), 1)
            off = self.alloc(self._table_clusters(entries * 8))
            self._hold(off, entries * 8)
            snap_l1.append((off, entries))
        snapshots_at = 0
        if self.snapshots:
            length = len(self._snapshot_table(snap_l1))
            snapshots_at = self.alloc(self._table_clusters(length))
            self._hold(snapshots_at, length)
            self.put(snapshots_at, self._snapshot_table(snap_l1))
        blocks, table, table_clusters = self._place_refcounts()
        self._write_refcounts(blocks, table)
        for i, off in placed.items():
            self._write_l2(off, self.root[i], True)
        self._write_l1(l1_at, max(self.l1_entries, 1), placed, True)
        for s, at, (off, entries) in zip(self.snapshots, snap_placed,
                                         snap_l1):
            for i, l2 in at.items():
                self._write_l2(l2, s.root[i], False)
            self._write_l1(off, entries, at, False)
        self.put(0, self._header(l1_at, table, table_clusters, snapshots_at))
        self.file.flush()
        end = os.fstat(self.file.fileno()).st_size
        self.file.truncate(-(-end // self.cs) * self.cs
                           if file_end is None else file_end)
        self.file.close()
        return self.expect


def feature_names(*names):
    """The header extension: (kind 0 incompatible 1 compatible 2 autoclear,
    bit, name)."""
    return (EXT_FEATURE_NAMES,
            b"".join(struct.pack(">BB46s", kind, bit, name.encode())
                     for kind, bit, name in names))

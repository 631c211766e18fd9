# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 files that qemu-img does not make, each with what it must read as,
or with the refusal that it must meet. Built by qcow2_build alone."""

import json
import os
import random
import struct
import zlib

from qcow2_build import (BITMAPS, COMPRESSION, COPIED, CORRUPT, DATA_FILE,
                         DATA_FILE_RAW, DIRTY, EXT_BITMAPS, EXT_DATA_FILE,
                         EXTL2, ZERO, ZSTD, Expect, Qcow2, Zstd, deflate,
                         feature_names, zstd_by_hand)

KIB, MIB, GIB, TIB = (1 << n for n in (10, 20, 30, 40))

CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


class Built:
    """One file, how to open it, and what must come of it.

    exports: [(export name, Expect)]; refusal: a regular expression that the
    message must match, instead. sound: `qemu-img check` finds nothing wrong.
    judges: who else, of peers.py, reads it right.
    """

    def __init__(self, name, path, expect=None, refusal=None, exports=None,
                 fmt="qcow2", allow=(), sound=True, cluster=65536,
                 sequential=None, reads=None, judges=()):
        self.name = name
        self.path = path
        self.refusal = refusal
        self.exports = exports or ([("", expect)] if expect else [])
        self.fmt = fmt
        self.allow = allow
        self.sound = sound and not refusal
        self.cluster = cluster
        self.sequential = sequential
        self.reads = reads
        self.judges = judges


class Folder:
    def __init__(self, path, seed):
        self.path = path
        self.random = random.Random(seed)
        self.built = []

    def at(self, name):
        return os.path.join(self.path, name)

    def noise(self, n):
        return self.random.randbytes(n)

    def text(self, n):
        """Compresses, with matches near and far."""
        words = [self.noise(self.random.randrange(2, 30)) for _ in range(50)]
        out = bytearray()
        while len(out) < n:
            out += self.random.choice(words)
        return bytes(out[:n])

    def qcow2(self, name, size, **kwargs):
        return Qcow2(self.at(name), size, **kwargs)

    def serve(self, q, name=None, file_end=None, **kwargs):
        expect = q.finish(file_end)
        kwargs.setdefault("cluster", q.cs)
        self.built.append(Built(name or os.path.basename(q.path), q.path,
                                expect, **kwargs))
        return expect

    def refuse(self, q, pattern, name=None, **kwargs):
        q.finish()
        self.built.append(Built(name or os.path.basename(q.path), q.path,
                                refusal=pattern, **kwargs))

    def write(self, name, data):
        with open(self.at(name), "wb") as f:
            f.write(data)
        return self.at(name)


# Compressed clusters


@case
def compressed_straddling(f):
    """Streams begin at every byte before a host cluster's border."""
    q = f.qcow2("4k", 4096 * 800, cluster_bits=12)
    content = f.noise(700) + bytes(4096 - 700)
    length = len(deflate(content))
    for k in range(1, length + 2):
        content = f.noise(700) + bytes(4096 - 700)
        q.compressed(k, deflate(content), q.alloc(2) + 4096 - k, content)
    f.serve(q)
    # A bit for the sector count: two sectors at most.
    q = f.qcow2("512", 512 * 520, cluster_bits=9)
    for at in range(512):
        content = f.noise(300) + bytes(212)
        q.compressed(at, deflate(content), q.alloc(2) + at, content)
    f.serve(q)
    q = f.qcow2("2m", 2 * MIB * 7 + 512, cluster_bits=21)
    host = q.alloc(8) + 1
    for i in range(7):
        content = f.noise(MIB + i) + f.text(MIB - i)
        host = q.compressed(i, deflate(content, level=1), host, content)
    f.serve(q)


@case
def compressed_packed(f):
    """One stream right behind the other, as a writer of backups does."""
    for bits in (9, 12, 16):
        cs = 1 << bits
        n = 300 if bits < 16 else 60
        q = f.qcow2(f"bits{bits}", cs * n - 512, cluster_bits=bits)
        host = q.alloc(n + 8)
        for i in range(n):
            content = f.text(cs)
            if bits > 9 and i % 3 == 0:
                content = f.noise(cs // 2) + bytes(cs // 2)
            stream = deflate(content)
            if bits == 9 and len(stream) > 512:
                content = bytes([i % 255 + 1]) * 512
                stream = deflate(content)
            host = q.compressed(i, stream, host, content)
        f.serve(q)


@case
def compressed_at_unaligned_eof(f):
    for bits, more in ((16, 0), (16, 30), (12, 0), (9, 0)):
        cs = 1 << bits
        content = f.noise(cs // 2 + 7) + bytes(cs // 2 - 7)
        stream = deflate(content)
        q = f.qcow2(f"bits{bits}-more{more}", cs * 3, cluster_bits=bits)
        q.data(0, f.noise(cs))
        host = 300 * cs + cs - 100
        end = q.compressed(1, stream, host, content, more)
        # The refcounts of what lies past the end are another matter.
        f.serve(q, file_end=end, sound=False)
    # Cut inside a stream, and begun behind the end.
    q = f.qcow2("cut", 65536 * 3)
    content = f.noise(65536)
    stream = deflate(content)
    sound = zlib.decompressobj(-15).decompress(stream[:-1000])
    end = q.compressed(1, stream, 300 * 65536, sound)
    q.compressed(2, stream, 310 * 65536 + 5, b"")
    q.data(0, content)
    f.serve(q, file_end=end - 1000, sound=False)


@case
def compressed_with_garbage_behind(f):
    q = f.qcow2("deflate", 65536 * 8)
    for i in range(8):
        content = f.text(65536)
        stream = deflate(content)
        q.compressed(i, stream + f.noise(513 * i + 1), q.alloc(2) + 17 * i,
                     content)
    f.serve(q)
    q = f.qcow2("zstd", 65536 * 4, compression=ZSTD)
    for i in range(4):
        content = f.text(65536)
        q.compressed(i, Zstd().compress(content) + f.noise(513 * i + 1),
                     q.alloc(2) + 17 * i, content)
    f.serve(q)


@case
def deflate_windows_and_blocks(f):
    far = f.noise(30000)
    for bits in (16, 21):
        cs = 1 << bits
        q = f.qcow2(f"bits{bits}", cs * 12, cluster_bits=bits)
        contents = [(far + f.text(cs))[:cs - 30000] + far, f.text(cs)]
        streams = [{"wbits": w} for w in (9, 12, 15)]
        streams += [{"level": 0, "wbits": 15},
                    {"level": 1, "flush_every": 1000, "wbits": 15},
                    {"strategy": zlib.Z_FIXED},
                    {"strategy": zlib.Z_HUFFMAN_ONLY},
                    {"strategy": zlib.Z_RLE}]
        for i, kwargs in enumerate(streams):
            content = contents[i % 2] if i != 2 else contents[0]
            q.compressed(i, deflate(content, **kwargs), q.alloc(2) + i,
                         content)
        q.compressed(9, deflate(bytes(cs)), q.alloc(1) + 9, bytes(cs))
        q.compressed(10, deflate(b"\xff" * cs), q.alloc(1) + 1,
                     b"\xff" * cs)
        # Streams as long as in level 0 may be longer than a cluster.
        f.serve(q)


@case
def streams_longer_than_a_cluster(f):
    q = f.qcow2("deflate", 65536 * 6)
    for i, more in enumerate((1, 511, 65536, 5 * MIB)):
        content = f.text(65536)
        q.compressed(i, deflate(content + bytes([7]) * more), q.alloc(2),
                     content)
    f.serve(q)
    q = f.qcow2("zstd", 65536 * 6, compression=ZSTD)
    for i, more in enumerate((1, 511, 65536)):
        content = f.text(65536)
        q.compressed(i, Zstd().compress(content + bytes([7]) * more),
                     q.alloc(2), content)
    f.serve(q)


@case
def streams_that_are_damaged(f):
    """EIO for their own cluster; the neighbours are whole."""
    q = f.qcow2("deflate", 65536 * 9)
    content = f.text(65536)
    good = deflate(content)
    broken = bytearray(good)
    broken[0] |= 6  # block type 3 is reserved
    q.compressed(1, bytes(broken), q.alloc(2), b"")
    q.compressed(3, deflate(content[:65000]), q.alloc(2), content[:65000])
    q.compressed(5, bytes(600), q.alloc(2), b"")
    q.compressed(7, b"\xff" * 600, q.alloc(2), b"")
    for i in (0, 2, 4, 6, 8):
        content = f.text(65536)
        q.compressed(i, deflate(content), q.alloc(2), content)
    f.serve(q)
    q = f.qcow2("zstd", 65536 * 5, compression=ZSTD)
    content = f.text(65536)
    good = Zstd().compress(content, checksum=True)
    q.compressed(0, good, q.alloc(2), content)
    q.compressed(1, b"\0" + good[1:], q.alloc(2), b"")
    q.compressed(2, Zstd().compress(content[:65000]), q.alloc(2),
                 content[:65000])
    q.compressed(4, good, q.alloc(2), content)
    f.serve(q)


@case
def zstd_frames(f):
    q = f.qcow2("64k", 65536 * 12, compression=ZSTD)
    content = f.text(65536)
    z = Zstd()
    streams = [
        (z.compress(content), content),
        (z.compress(content, block=5000), content),
        (z.compress(content, block=333, level=1), content),
        (z.compress(content, content_size=True, checksum=True), content),
        (z.compress(content, level=19, window_log=10), content),
        (z.compress(content, level=-5), content),
        (zstd_by_hand([content[:1000], content[1000:40000],
                       content[40000:]]), content),
        (zstd_by_hand([(0, 65536)]), bytes(65536)),
        (zstd_by_hand([(9, 60000), content[:5000], b"", (1, 536)]),
         b"\x09" * 60000 + content[:5000] + b"\x01" * 536),
    ]
    host = q.alloc(14) + 3
    for i, (stream, want) in enumerate(streams):
        host = q.compressed(i, stream, host, want)
    f.serve(q)
    q = f.qcow2("2m", 2 * MIB * 3, cluster_bits=21, compression=ZSTD)
    content = f.noise(MIB) + f.text(MIB)
    q.compressed(0, z.compress(content, window_log=21), q.alloc(2) + 99,
                 content)
    q.compressed(2, z.compress(content, block=70000, window_log=23,
                               level=7), q.alloc(2) + 99, content)
    f.serve(q)


# Extended L2 entries


@case
def subclusters_in_every_state(f):
    """Each of the 32 unallocated, allocated or zero, over a backing file."""
    for bits in (14, 16, 21):
        cs = 1 << bits
        sub = cs // 32
        n = 12 if bits < 21 else 4
        base = f.noise(cs * n - sub // 2)
        f.write(f"base{bits}", base)
        q = f.qcow2(f"bits{bits}", cs * n, cluster_bits=bits, extl2=True,
                    backing=f"base{bits}", backing_format="raw")
        q.expect.put(0, base)
        patterns = [[(s + g) % 3 for s in range(32)] for g in range(3)]
        patterns += [[f.random.randrange(3) for _ in range(32)]
                     for _ in range(n - 3)]
        for g, states in enumerate(patterns):
            host = q.alloc()
            alloc = zero = 0
            for s, state in enumerate(states):
                at = g * cs + s * sub
                content = f.noise(sub)
                q.put(host + s * sub, content)
                if state == 1:
                    alloc |= 1 << s
                    q.expect.put(at, content)
                elif state == 2:
                    zero |= 1 << s
                    q.expect.put(at, bytes(sub))
            q.entry(g, host, zero << 32 | alloc)
        f.serve(q)


@case
def subclusters_of_whole_clusters(f):
    cs = 16384
    base = f.noise(cs * 10)
    f.write("base", base)
    q = f.qcow2("mixed", cs * 10, cluster_bits=14, extl2=True,
                backing="base", backing_format="raw")
    q.expect.put(0, base)
    q.data(0, f.noise(cs))
    q.zero(1)
    q.zero(2, q.alloc())
    host = q.alloc()
    q.put(host, f.noise(cs))
    q.entry(3, host, 0)  # a place, but no subcluster in it
    content = f.text(cs)
    q.compressed(4, deflate(content), q.alloc(2) + 77, content)
    q.entry(5, 0, 0xFFFF << 48)  # half zero without a place
    q.expect.put(5 * cs + cs // 2, bytes(cs // 2))
    f.serve(q)
    q = f.qcow2("wrong", cs * 4, cluster_bits=14, extl2=True)
    host = q.data(0, f.noise(cs))
    q.data(3, f.noise(cs))
    other = q.alloc()
    q.put(other, f.noise(cs))
    q.entry(1, other, 0xFFFFFFFFFFFFFFFF)  # both allocated and zero
    q.expect.fail(cs, cs)
    f.serve(q, sound=False)


# Zero clusters, tables, sizes


@case
def zero_clusters(f):
    base = f.noise(65536 * 9)
    f.write("base", base)
    q = f.qcow2("zero", 65536 * 9 + 300, backing="base",
                backing_format="raw")
    q.expect.put(0, base)
    q.zero(0)
    host = q.alloc()
    q.put(host, f.noise(65536))  # preallocated, full of old bytes
    q.zero(2, host)
    q.data(3, f.noise(65536))
    q.zero(8)
    q.zero(9)
    f.serve(q)


@case
def refcount_widths(f):
    for order in range(7):
        q = f.qcow2(f"order{order}", 65536 * 20, refcount_order=order)
        for i in range(0, 20, 2):
            q.data(i, f.noise(65536))
        f.serve(q)
        q = f.qcow2(f"order{order}-512", 512 * 2000, cluster_bits=9,
                    refcount_order=order)
        for i in range(0, 2000, 3):
            q.data(i, f.noise(512))
        f.serve(q)


@case
def sizes(f):
    for size in (0, 1, 511, 513, 65536 * 3 + 77, 65535):
        for version in (2, 3):
            q = f.qcow2(f"v{version}-{size}", size, version=version)
            for i in range(0, -(-size // 65536), 2):
                q.data(i, f.noise(65536))
            f.serve(q)


@case
def tables_at_odd_places(f):
    cs = 4096
    span = cs * 512
    q = f.qcow2("odd", span * 5, cluster_bits=12)
    q.l2_at = {0: 900 * cs, 3: 5 * GIB}
    for g in (0, 511, 512, 1024, 512 * 3 + 7, 512 * 5 - 1):
        q.data(g, f.noise(cs))
    # Neighbours in the guest that lie backwards in the host, and far away.
    run = q.alloc(8)
    for i in range(8):
        q.data(100 + i, f.noise(cs), host=run + (7 - i) * cs)
    q.data(200, f.noise(cs), host=7 * GIB)
    f.serve(q)
    q = f.qcow2("l1-larger", 65536 * 3, l1_entries=20000)
    q.data(1, f.noise(65536))
    f.serve(q)
    q = f.qcow2("l1-larger-v2", 65536 * 3, l1_entries=9, version=2)
    q.data(1, f.noise(65536))
    f.serve(q)


@case
def one_host_cluster_for_many(f):
    q = f.qcow2("shared", 65536 * 64)
    content = f.noise(65536)
    host = q.data(0, content)
    for i in range(1, 64, 3):
        q.data(i, content, host=host)
    f.serve(q)


@case
def sixty_four_tebibytes(f):
    q = f.qcow2("sparse", 64 * TIB)
    last = 64 * TIB // 65536 - 1
    for g in (0, 1, 8191, 8192, last // 2, last - 1, last):
        q.data(g, f.noise(65536))
    q.zero(777)
    f.serve(q, sequential="data")


@case
def a_million_extents(f):
    cs = 4096
    pool = [f.noise(cs) for _ in range(64)]
    q = f.qcow2("million", cs * 1000000, cluster_bits=12)
    hosts = []
    for content in pool:
        host = q.alloc()
        q.put(host, content)
        hosts.append(host)
    for i in range(500000):
        k = i * 7 % 64
        q.entry(2 * i, hosts[k])
        q.expect.put(2 * i * cs, pool[k])
    f.serve(q, sequential="none", reads=200)


# Snapshots


@case
def snapshots_with_their_own_size(f):
    cs = 65536
    for version in (2, 3):
        base = f.noise(cs * 4)
        f.write(f"base{version}", base)
        q = f.qcow2(f"v{version}", cs * 6, version=version,
                    backing=f"base{version}", backing_format="raw")
        q.expect.put(0, base)
        exports = []

        def snap(ident, name, size, extra=None):
            q.snapshot(ident, name, size, extra)
            old = q.expect
            # What lies past the active disk's end was put there, too.
            exports.append((f"@{name}", old.copy(size)))
            exports.append((f"@{ident}", old.copy(size)))

        # The backing file is as long as four clusters for every snapshot.
        q.expect.size = cs * 40
        q.data(0, f.noise(cs))
        snap("1", "same", cs * 6)
        q.data(1, f.noise(cs))
        q.zero(0) if version == 3 else q.data(0, f.noise(cs))
        snap("2", "smaller", cs * 2 + 512)
        q.data(9, f.noise(cs))
        snap("3", "larger", cs * 10 - 1024)
        snap("4", "with more",
             cs * 7 + 5, struct.pack(">QQ", 0, cs * 7 + 5) + f.noise(48))
        snap("5", "\u00fcml\u00e4ut", cs)
        del q.root[0][9]
        active = q.expect
        active.chunks = [c for c in active.chunks if c[0] < 9 * cs]
        q.data(3, f.noise(cs))
        q.data(0, f.noise(cs))
        q.finish()
        exports.append(("", active.copy(cs * 6)))
        f.built.append(Built(f"v{version}", q.path, exports=exports,
                             sound=version == 3))


@case
def snapshots_without_extra_data(f):
    """Version 2 as old writers made it: the size is the disk's."""
    cs = 65536
    q = f.qcow2("v2", cs * 5 + 512, version=2)
    q.data(0, f.noise(cs))
    q.data(5, f.noise(cs))
    q.snapshot("1", "old", extra=b"")
    old = q.expect.copy()
    q.data(0, f.noise(cs))
    q.snapshot("2", "half", extra=struct.pack(">Q", 0))
    half = q.expect.copy()
    q.data(2, f.noise(cs))
    active = q.finish()
    f.built.append(Built("v2", q.path, exports=[
        ("", active), ("@old", old), ("@1", old), ("@half", half)]))


# Headers


@case
def headers_with_unknown_parts(f):
    cs = 65536
    names = feature_names((0, 0, "dirty bit"), (0, 40, "wobbly clusters"),
                          (1, 9, "a harmless one"), (2, 60, "x" * 46))
    variants = {
        "extensions": {"extensions": [(0x12345678, f.noise(37)),
                                      (0xDEADBEEF, b""), names]},
        "compatible": {"compatible": 0xFFFFFFFFFFFFFFFE,
                       "extensions": [names]},
        "autoclear": {"autoclear": 0xFFFFFFFFFFFFFFFC},
        "lazy": {"compatible": 1},
        "length112": {"header_length": 112},
        "length256": {"header_length": 256, "header_tail": f.noise(144)},
        "dirty": {"incompatible": DIRTY, "compatible": 1},
        "corrupt": {"incompatible": CORRUPT},
        "stale-bitmaps": {"extensions": [
            (EXT_BITMAPS, struct.pack(">IIQQ", 1, 0, 64, 0xFFFF0000))]},
        "filled": {"cluster_bits": 9, "extensions": [
            (0x11111111, f.noise(512 - 104 - 8 - 8))]},
    }
    for name, kwargs in variants.items():
        q = f.qcow2(name, cs * 4 + 512, **kwargs)
        for g in (0, 3):
            q.data(g, f.noise(q.cs))
        f.serve(q, sound=name not in ("dirty", "corrupt", "stale-bitmaps"))


@case
def headers_that_are_refused(f):
    names = feature_names((1, 17, "not this one"),
                          (0, 17, "wobbly clusters"))

    def one(name, pattern, patch=None, **kwargs):
        q = f.qcow2(name, kwargs.pop("size", 65536 * 4), **kwargs)
        q.data(0, f.noise(q.cs))
        f.refuse(q, pattern)
        if patch:
            at, data = patch
            with open(q.path, "r+b") as out:
                out.seek(at)
                out.write(data)

    one("named-bit", "wobbly clusters", incompatible=1 << 17,
        extensions=[names])
    one("unnamed-bit", r"\b17\b|0x0*20000\b", incompatible=1 << 17)
    one("highest-bit", r"\b63\b|0x8000000000000000", incompatible=1 << 63)
    one("unknown-compression", "compression", (104, b"\x07"),
        compression=ZSTD)
    one("compression-bit-without-type", "compression", (104, b"\0"),
        compression=ZSTD)
    one("compression-type-without-bit", "compression", (104, b"\x01"),
        header_length=112)
    one("compression-bit-in-short-header", "compression|length",
        incompatible=COMPRESSION)
    one("version4", "version", (4, struct.pack(">I", 4)))
    one("version1", "version", (4, struct.pack(">I", 1)))
    one("cluster-bits8", "cluster", (20, struct.pack(">I", 8)))
    one("cluster-bits22", "cluster", (20, struct.pack(">I", 22)))
    one("extended-l2-small-clusters", "cluster|extended",
        incompatible=EXTL2, cluster_bits=13)
    one("refcount-order7", "refcount", (96, struct.pack(">I", 7)))
    one("header-length96", "header", (100, struct.pack(">I", 96)))
    one("header-length-past-cluster", "header",
        (100, struct.pack(">I", 65544)))
    one("crypt-method3", "crypt", (32, struct.pack(">I", 3)))
    one("l1-too-small", "L1", size=65536 * 8192 * 3,
        patch=(36, struct.pack(">I", 2)))
    one("l1-past-eof", "L1", (40, struct.pack(">Q", 1 << 40)))
    one("l1-unaligned", "L1", (40, struct.pack(">Q", 65536 + 512)))
    one("l1-huge", "L1", (36, struct.pack(">I", 0xFFFFFFFF)))
    one("snapshots-too-many", "snapshot", (60, struct.pack(">I", 65537)))
    one("snapshots-past-eof", "snapshot",
        (60, struct.pack(">IQ", 1, 1 << 40)))
    one("backing-name-too-long", "1023|backing", backing="a",
        backing_format="raw", patch=(16, struct.pack(">I", 1024)))
    one("backing-name-outside-cluster0", "backing", backing="a",
        backing_format="raw", patch=(8, struct.pack(">Q", 65535)))
    f.built.append(Built("not-qcow2", f.write("not", f.noise(4096)),
                         refusal="qcow2|magic"))
    f.built.append(Built("short", f.write("short", b"QFI\xfb\0\0\0\3"),
                         refusal=""))


# Damage: told as EIO for what it touches, and only for that


@case
def truncated_file(f):
    cs = 65536
    q = f.qcow2("running-past", cs * 8)
    q.data(0, f.noise(cs))
    content = f.noise(cs)
    q.data(2, content, host=400 * cs)
    q.expect.put(2 * cs, content[:1000] + bytes(cs - 1000))
    for g, host in ((3, 401), (4, 402), (6, 1 << 24)):
        q.entry(g, host * cs)
        q.expect.fail(g * cs, cs)
    f.serve(q, file_end=400 * cs + 1000, sound=False)
    q = f.qcow2("exactly-at-end", cs * 4)
    q.data(1, f.noise(cs), host=400 * cs)
    q.entry(2, 401 * cs)
    q.expect.fail(2 * cs, cs)
    q.data(3, f.noise(cs))
    f.serve(q, file_end=401 * cs, sound=False)
    # Of a cluster that is gone, what is not in it can be read.
    base = f.noise(cs * 4)
    f.write("base", base)
    q = f.qcow2("subclusters", cs * 4, extl2=True, backing="base",
                backing_format="raw")
    q.expect.put(0, base)
    q.entry(1, 400 * cs, 0xFF00 << 32 | 0xFF)
    q.expect.fail(cs, cs // 4)
    q.expect.put(cs + cs // 4, bytes(cs // 4))
    f.serve(q, file_end=400 * cs, sound=False)


@case
def damaged_tables(f):
    cs = 4096
    span = cs * 512
    q = f.qcow2("l1", span * 6, cluster_bits=12)
    for i in (0, 2, 4, 5):
        q.data(i * 512 + 5, f.noise(cs))
    q.l1_extra = {1: 1 << 45, 3: 7 * cs + 512}
    q.expect.fail(span, span)
    q.expect.fail(3 * span, span)
    f.serve(q, sound=False)
    q = f.qcow2("l2", cs * 40, cluster_bits=12)
    host = q.data(0, f.noise(cs))
    q.data(39, f.noise(cs))
    for g, entry in ((3, host + 512), (4, host + 2048), (7, 1 << 50)):
        q.entry(g, entry)
        q.expect.fail(g * cs, cs)
    f.serve(q, sound=False)


# External data files


@case
def external_data_file(f):
    cs = 65536
    content = f.noise(cs * 6)
    for raw in (False, True):
        for name in ("data.bin", f.at("data.bin")):
            f.write("data.bin", content)
            q = f.qcow2(f"raw{raw}-{'abs' if '/' in name else 'rel'}",
                        cs * 6, incompatible=DATA_FILE,
                        autoclear=DATA_FILE_RAW if raw else 0,
                        extensions=[(EXT_DATA_FILE, name.encode())])
            for g in range(6) if raw else (0, 1, 4):
                q.entry(g, g * cs | (0 if g else COPIED))
                q.expect.put(g * cs, content[g * cs:(g + 1) * cs])
            if not raw:
                q.entry(2, 2 * cs | ZERO)
            # qemu looks for a relative name in its own folder.
            f.serve(q, sound="/" in name)
    f.write("short.bin", content[:cs * 2 + 700])
    q = f.qcow2("short", cs * 6, incompatible=DATA_FILE,
                extensions=[(EXT_DATA_FILE, b"short.bin")])
    for g in (0, 2, 3):
        q.entry(g, g * cs | (0 if g else COPIED))
    q.expect.put(0, content[:cs])
    q.expect.put(2 * cs, content[2 * cs:2 * cs + 700])
    q.expect.fail(3 * cs, cs)
    f.serve(q, sound=False)
    q = f.qcow2("missing", cs, incompatible=DATA_FILE,
                extensions=[(EXT_DATA_FILE, b"nowhere.bin")])
    f.refuse(q, "nowhere.bin|missing")
    q = f.qcow2("outside", cs, incompatible=DATA_FILE,
                extensions=[(EXT_DATA_FILE, b"/etc/hostname")])
    f.refuse(q, "outside|folder|permitted")
    q = f.qcow2("unnamed", cs, incompatible=DATA_FILE)
    f.refuse(q, "data file")


# Backing files


@case
def backing_names(f):
    cs = 65536
    base = f.noise(cs * 3 + 512)
    f.write("base.raw", base)
    os.makedirs(f.at("other"), exist_ok=True)
    f.write("other/base.raw", base)
    overlays = os.path.join(f.path, "overlays")
    os.makedirs(overlays, exist_ok=True)

    def overlay(name, backing, backing_format="raw", shift=0):
        q = f.qcow2(name, cs * 4, backing=backing,
                    backing_format=backing_format)
        q.expect.put(0, base[shift:])
        q.data(1, f.noise(cs))
        return q

    f.serve(overlay("relative", "base.raw"))
    f.serve(overlay("dotted", "./other/../base.raw"))
    f.serve(overlay("below", "other/base.raw"))
    f.serve(overlay("absolute", f.at("base.raw")))
    f.serve(overlay("guessed", "base.raw", None))
    window = json.dumps({"driver": "raw", "offset": 1024, "size": cs,
                         "file": {"driver": "file",
                                  "filename": "base.raw"}})
    plain = json.dumps({"driver": "raw", "file": {"driver": "file",
                                                  "filename": "base.raw"}})
    # qemu looks for these beside itself, not beside the image.
    f.refuse(overlay("json", f"json:{plain}", None), "json:")
    f.serve(overlay("json-allowed", f"json:{plain}", None),
            allow=["json:"], sound=False)
    q = f.qcow2("json-window", cs * 4, backing=f"json:{window}")
    q.expect.put(0, base[1024:1024 + cs])
    q.data(2, f.noise(cs))
    f.serve(q, allow=["json:"], sound=False)
    f.refuse(overlay("file", "file:base.raw"), "file:")
    f.serve(overlay("file-allowed", "file:base.raw"), allow=["file:"],
            sound=False)
    f.refuse(overlay("nbd", "nbd:127.0.0.1:1"), "nbd:")
    f.refuse(overlay("missing", "no-such.raw"), "missing|no-such")
    f.refuse(overlay("unknown-format", "base.raw", "qcow9"), "qcow9")
    f.refuse(overlay("wrong-format", "base.raw", "qcow2"), "qcow2|magic")
    f.refuse(overlay("folder", "other"), "regular|other")
    f.refuse(overlay("itself", "itself", "qcow2"), "loop|itself|again")
    f.refuse(overlay("overlays/up", "../base.raw"),
             "outside|folder|permitted")
    f.serve(overlay("overlays/up-allowed", "../base.raw"),
            allow=[f.path])
    os.symlink("../base.raw", f.at("overlays/link"))
    f.refuse(overlay("overlays/by-link", "link"),
             "outside|folder|permitted")
    f.refuse(overlay("overlays/device", "/dev/zero"),
             "outside|regular|permitted")


@case
def guessed_layers_refer_to_nothing(f):
    cs = 65536
    base = f.noise(cs * 2)
    f.write("base.raw", base)
    middle = f.qcow2("middle", cs * 2, backing="base.raw",
                     backing_format="raw")
    middle.expect.put(0, base)
    middle.data(0, f.noise(cs))
    expect = middle.finish()
    for name, fmt, allow in (("declared", "qcow2", ()), ("guessed", None, ()),
                             ("allowed", None, ("guessed",))):
        q = f.qcow2(name, cs * 2, backing="middle", backing_format=fmt)
        q.expect = expect.copy()
        if name == "guessed":
            f.refuse(q, "guess|declare")
        else:
            f.serve(q, allow=allow)


@case
def lengths_in_a_chain(f):
    """Long, short, long: the middle one ends the base for those above."""
    cs = 4096
    base = f.noise(cs * 30 + 100)
    f.write("base.raw", base)
    for middle_size in (cs * 10 + 77, 1, cs * 10):
        q = f.qcow2(f"middle{middle_size}", middle_size, cluster_bits=12,
                    backing="base.raw", backing_format="raw")
        q.expect.put(0, base)
        if middle_size > cs * 2:
            q.data(2, f.noise(cs))
            q.data(-(-middle_size // cs) - 1, f.noise(cs))
        below = q.finish()
        q = f.qcow2(f"top{middle_size}", cs * 25 + 5,
                    backing=f"middle{middle_size}", backing_format="qcow2",
                    cluster_bits=9)
        q.expect = below.copy(q.size)
        # Bytes past the middle's end do not shine through.
        q.expect.chunks = [(off, data[:max(0, middle_size - off)])
                           for off, data in q.expect.chunks]
        q.data(3, f.noise(512))
        q.data(100, f.noise(512))
        f.serve(q)


@case
def deep_chains(f):
    """256 layers are served, 257 and loops are refused."""
    cs = 512
    size = cs * 300
    expect = Expect(size)
    for i in range(257):
        q = f.qcow2(f"l{i}", size, cluster_bits=9,
                    backing=f"l{i - 1}" if i else None,
                    backing_format="qcow2" if i else None)
        q.expect = expect
        q.data(i, f.noise(cs))
        q.data(299, f.noise(cs))
        expect = q.finish().copy()
        if i in (100, 255):
            f.built.append(Built(q.path.rsplit("/", 1)[1], q.path,
                                 expect.copy(), cluster=cs))
    f.built.append(Built("l256", q.path, refusal="256"))
    for a, b in (("a", "b"), ("b", "c"), ("c", "a")):
        q = f.qcow2(f"loop-{a}", size, cluster_bits=9, backing=f"loop-{b}",
                    backing_format="qcow2")
        q.finish()
    f.built.append(Built("loop", f.at("loop-a"), refusal="loop|again"))


def build(name, path, seed):
    """The files of one case, in the folder path."""
    f = Folder(path, f"{seed} {name}")
    CASES[name](f)
    return f.built

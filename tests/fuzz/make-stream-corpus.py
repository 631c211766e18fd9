#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes tests/corpus/stream-*, from which the fuzzers of compressed streams start
and which a regression test runs: valid-* must be read, hostile-* must be refused
or be found damaged. Needs xz, zstd, lz4 and platter (PLATTER, or in PATH)."""

import bz2
import gzip
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import zlib

DATA = b"".join(b"line %d of a text that is long\n" % (i * i)
                for i in range(3000))
MORE = bytes(range(256)) * 300


def by(*argv, data=DATA):
    return subprocess.run(argv, input=data, capture_output=True,
                          check=True).stdout


def member(data):
    return gzip.compress(data, mtime=0)


def bgzf(data, lie=0, size=0):
    c = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = c.compress(data) + c.flush()
    total = 18 + len(body) + 8
    return (b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff" + struct.pack("<H", 6) +
            b"BC" + struct.pack("<HH", 2, total - 1 + lie) + body +
            struct.pack("<II", zlib.crc32(data), len(data) + size))


def gzips():
    yield "valid-one", member(DATA)
    yield "valid-members", member(DATA) + member(b"") + member(MORE)
    yield "valid-padded", member(DATA) + bytes(600)
    yield "valid-bgzf", bgzf(DATA[:60000]) + bgzf(MORE[:50000]) + bgzf(b"")
    yield "valid-stored", gzip.compress(DATA, 0, mtime=0)
    yield "hostile-cut", member(DATA)[:-1]
    yield "hostile-head", member(DATA)[:18]
    yield "hostile-crc", member(DATA)[:-8] + bytes(4) + member(DATA)[-4:]
    yield "hostile-garbage", member(DATA) + b"garbage"
    yield "hostile-bgzf-size", bgzf(DATA[:60000], size=1) + bgzf(b"")
    yield "hostile-bgzf-smaller", bgzf(DATA[:60000], size=-9) + bgzf(MORE)
    yield "hostile-bgzf-shifted", (bgzf(DATA[:60000], size=-9) +
                                   bgzf(MORE[:50000], size=9))
    yield "hostile-bgzf-2-32", bgzf(b"x", size=(1 << 32) - 2)
    yield "valid-bgzf-lie", bgzf(DATA[:60000], lie=5) + bgzf(MORE[:50000])


def xz(data=DATA, *options):
    return by("xz", "-c", "-0", *options, data=data)


def xz_index_size(data, n):
    """The one block's uncompressed size, of as many bytes, is another."""
    at = data.index(b"\0\x01", len(data) - 40)
    index = bytearray(data[at:-12 - 4])
    i = 2
    while index[i] & 0x80:
        i += 1
    i += 1
    index[i] = (index[i] & 0x80) | (n & 0x7f)
    index += struct.pack("<I", zlib.crc32(bytes(index)))
    return data[:at] + bytes(index) + data[-12:]


def xzs():
    yield "valid-one", xz()
    yield "valid-blocks", xz(DATA, "--block-size=9000")
    yield "valid-streams", (xz(DATA) + bytes(8) + xz(b"") +
                            xz(MORE, "--check=none", "--block-size=4096"))
    yield "valid-filters", xz(DATA, "--delta=dist=4", "--lzma2=preset=0")
    yield "hostile-cut", xz()[:-4]
    yield "hostile-no-end", xz()[:-40]
    yield "hostile-padding", xz() + bytes(3)
    yield "hostile-index-size", xz_index_size(xz(), 1)
    yield "hostile-dictionary-4-gib", dictionary(40)
    yield "hostile-block-flipped", flip(xz(DATA, "--block-size=9000"), 100)


def dictionary(bits):
    """A stream whose block's header wants the largest dictionary."""
    data = bytearray(xz())
    head = data[12:12 + 4 * (data[12] + 1)]
    at = head.index(b"\x21\x01") + 2
    head[at] = bits
    head[-4:] = struct.pack("<I", zlib.crc32(bytes(head[:-4])))
    data[12:12 + len(head)] = head
    return bytes(data)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]


def zstd(data=DATA, *options):
    return by("zstd", "-q", "-c", *options, data=data)


def sized(data):
    return by("zstd", "-q", "-c", f"--stream-size={len(data)}", data=data)


def skippable(data, nibble=0):
    return struct.pack("<II", 0x184d2a50 + nibble, len(data)) + data


def zstds():
    yield "valid-unsized", zstd()
    yield "valid-sized", sized(DATA)
    yield "valid-frames", b"".join(sized(DATA[i:i + 9000])
                                   for i in range(0, 60000, 9000))
    yield "valid-mixed", sized(DATA) + zstd(MORE) + skippable(b"x" * 9)
    yield "valid-skippable-first", skippable(b"abcd") + sized(DATA)
    yield "valid-checked", zstd(DATA, "--check")
    yield "hostile-cut", sized(DATA)[:-1]
    yield "hostile-size", flip(sized(DATA), 6)
    yield "hostile-window", (b"\x28\xb5\x2f\xfd\0" + bytes([0xff]) +
                             zstd()[6:])
    yield "hostile-dictionary", b"\x28\xb5\x2f\xfd\1" + zstd()[5:]
    yield "hostile-reserved-block", (b"\x28\xb5\x2f\xfd\x20\x04" +
                                     b"\x27\0\0abcd")
    yield "hostile-2-63", (b"\x28\xb5\x2f\xfd\xc0\x58" +
                           struct.pack("<Q", 1 << 63) + b"\x03\0\0x")
    yield "hostile-bomb-claimed", b"".join(
        b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 45) + b"\x01\0\0"
        for _ in range(4))
    yield "hostile-skippable-end", zstd() + struct.pack("<II", 0x184d2a50, 9)


def lz4(data=DATA, *options):
    return by("lz4", "-q", "-c", *options, data=data)


def lz4s():
    yield "valid-one", lz4()
    yield "valid-linked", lz4(DATA + MORE, "-B4", "-BD")
    yield "valid-sums", lz4(DATA + MORE, "-B4", "-BX")
    yield "valid-legacy", lz4(DATA, "-l")
    yield "valid-frames", (skippable(b"first", 3) + lz4(DATA, "-B4") +
                           lz4(b"") + lz4(MORE, "-B5"))
    yield "hostile-larger-blocks", lz4() + lz4(MORE, "-l")
    yield "valid-noise", lz4(bytes(
        (i * i >> 3) & 255 for i in range(3000)), "-B4", "--no-frame-crc")
    yield "hostile-cut", lz4()[:-1]
    yield "hostile-header", flip(lz4(), 6)
    yield "hostile-sum", flip(lz4(), len(lz4()) - 1)
    yield "hostile-block-sum", flip(lz4(DATA, "-B4", "-BX"), 500)
    yield "hostile-block-size", lz4()[:7] + b"\xff\xff\xff\x7f" + lz4()[11:]
    yield "hostile-offset", (lz4(b"x")[:7] + struct.pack("<I", 6) +
                             b"\x1fa\xff\xff\0\0" + bytes(8))
    yield "hostile-dictionary", flip(lz4(), 4)
    yield "hostile-garbage", lz4() + b"garbage"


def bz2s():
    yield "valid-one", bz2.compress(DATA)
    yield "valid-blocks", bz2.compress(bytes(
        (i * 7919 >> 4) & 255 for i in range(210000)), 1)
    yield "valid-streams", (bz2.compress(DATA, 1) + bz2.compress(b"") +
                            bz2.compress(MORE))
    yield "valid-zeroes", bz2.compress(bytes(4 << 20), 1)
    yield "hostile-cut", bz2.compress(DATA)[:-1]
    yield "hostile-no-end", bz2.compress(DATA)[:-12]
    yield "hostile-flipped", flip(bz2.compress(DATA), 400)
    yield "hostile-sum", flip(bz2.compress(DATA), len(bz2.compress(DATA)) - 3)
    yield "hostile-garbage", bz2.compress(DATA) + b"garbage"
    yield "hostile-false-end", (bz2.compress(DATA)[:600] +
                                b"\x17\x72\x45\x38\x50\x90" + bytes(20))


M = (1 << 64) - 1
P = (0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9,
     0x85ebca77c2b2ae63, 0x27d4eb2f165667c5)


def rol(x, n):
    return (x << n | x >> (64 - n)) & M


def xxh64(data):
    def mix(acc, lane):
        return rol((acc + lane * P[1]) & M, 31) * P[0] & M

    n, at = len(data), 0
    h = P[4]
    if n >= 32:
        v = [(P[0] + P[1]) & M, P[1], 0, -P[0] & M]
        for at in range(0, n - 31, 32):
            v = [mix(a, x) for a, x in
                 zip(v, struct.unpack_from("<4Q", data, at))]
        at += 32
        h = sum(rol(a, k) for a, k in zip(v, (1, 7, 12, 18))) & M
        for a in v:
            h = ((h ^ mix(0, a)) * P[0] + P[3]) & M
    h = (h + n) & M
    for at in range(at, n - 7, 8):
        h = (rol(h ^ mix(0, struct.unpack_from("<Q", data, at)[0]), 27) *
             P[0] + P[3]) & M
    at = n & ~7
    if n & 4:
        h ^= struct.unpack_from("<I", data, at)[0] * P[0] & M
        h = (rol(h, 23) * P[1] + P[2]) & M
        at += 4
    for x in data[at:]:
        h = rol(h ^ x * P[4] & M, 11) * P[0] & M
    h = (h ^ h >> 33) * P[1] & M
    h = (h ^ h >> 29) * P[2] & M
    return h ^ h >> 32


def packed_by(codec):
    """A disk of four blocks: text, zeroes, some of each, and noise."""
    noise = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(150))
    disk = DATA[:65536] + bytes(65536) + DATA[:9000] + bytes(56536) + noise
    with tempfile.TemporaryDirectory() as folder:
        raw, out = os.path.join(folder, "raw"), os.path.join(folder, "out")
        with open(raw, "wb") as f:
            f.write(disk)
        subprocess.run([os.environ.get("PLATTER", "platter"), "pack", "-q",
                        "-O", codec, "--block-size", "64K", raw, out],
                       check=True)
        with open(out, "rb") as f:
            return f.read()


def with_sums(data, *changes):
    """@changes: (offset in the footer, or in the table from the other end,
    struct's format, value); the sums of both are right again."""
    data = bytearray(data)
    foot = data.rindex(b"PLATTERK")
    table, = struct.unpack_from("<Q", data, foot + 40)
    for at, form, value in changes:
        struct.pack_into(form, data, foot + at if at >= 0 else
                         table - at - 1, value)
    struct.pack_into("<Q", data, table + 4088, xxh64(data[table:table + 4088]))
    struct.pack_into("<Q", data, foot + 120, xxh64(data[foot:foot + 120]))
    return bytes(data)


def packeds(codec):
    data = packed_by(codec)
    # An entry's fields, told from the table's beginning.
    off, size, kind, total = -1, -9, -13, -17
    yield "valid-packed", data
    yield "valid-packed-again", with_sums(data)
    yield "hostile-packed-flipped", flip(data, 300)
    for name, change in (
            ("version", (8, "<I", 2)), ("codec", (12, "<I", 7)),
            ("block-odd", (16, "<I", 65537)), ("block-0", (16, "<I", 0)),
            ("block-huge", (16, "<I", 1 << 31)), ("flags", (20, "<I", 1)),
            ("disk-0", (24, "<Q", 0)), ("disk-huge", (24, "<Q", M)),
            ("disk-longer", (24, "<Q", 1 << 40)),
            ("blocks", (32, "<Q", 5)), ("blocks-huge", (32, "<Q", 1 << 60)),
            ("table-behind", (40, "<Q", len(data) - 100)),
            ("table-wraps", (40, "<Q", M - 100)),
            ("entry-behind", (off, "<Q", len(data))),
            ("entry-wraps", (off, "<Q", M - 3)),
            ("entry-long", (size, "<I", 0xffffffff)),
            ("entry-short", (size, "<I", 3)), ("entry-empty", (size, "<I", 0)),
            ("entry-kind", (kind, "<I", 9)), ("entry-as-it-is", (kind, "<I", 2)),
            ("entry-sum", (total, "<Q", 1))):
        yield "hostile-packed-" + name, with_sums(data, change)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus")
    for form, files in (("gzip", gzips), ("xz", xzs), ("zstd", zstds),
                        ("lz4", lz4s), ("bzip2", bz2s)):
        folder = os.path.join(root, "stream-" + form)
        os.makedirs(folder, exist_ok=True)
        for name, data in files():
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)
    for form, codec in (("lz4", "lz4"), ("zstd", "zst")):
        for name, data in packeds(codec):
            with open(os.path.join(root, "stream-" + form, name), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()

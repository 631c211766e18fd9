#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""cloop and Bochs' growing images, which qemu-img reads and does not make:
built here, and read by both.

  live.py [--keep] [CASE ...]
"""

import os
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import KIB, by_hand, main  # noqa: E402
from qcow2_build import Expect  # noqa: E402
import support  # noqa: E402
from server import Failure, run  # noqa: E402


def same_by_qemu(f, name, fmt, expect):
    """qemu-img has to find in the file what its builder meant."""
    run(["qemu-img", "convert", "-f", fmt, "-O", "raw", f.path(name),
         f.path("theirs")])
    expect.write(f.path("ours"))
    with open(f.path("theirs"), "rb") as a, open(f.path("ours"), "rb") as b:
        if a.read() != b.read():
            raise Failure(f"{name}: qemu-img reads something else")
    support.saw(f.path(name), support.QEMU)


def cloop(f, name, block, contents, change=None):
    expect = Expect(block * len(contents))
    streams = []
    for i, content in enumerate(contents):
        content = content.ljust(block, b"\0")
        expect.put(i * block, content)
        streams.append(zlib.compress(content))
    head = (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && "
            b"mount -r -t iso9660 /dev/cloop $1\nexit $?\n")
    places = [136 + 8 * (len(contents) + 1)]
    for s in streams:
        places.append(places[-1] + len(s))
    if change:
        change(places, expect)
    f.write(name, head.ljust(128, b"\0") +
            struct.pack(f">II{len(places)}Q", block, len(contents), *places) +
            b"".join(streams))
    return expect


@by_hand
def cloop_block_sizes(f):
    for block in (512, 1536, 64 * KIB, 256 * KIB):
        name = f"{block}.cloop"
        expect = cloop(f, name, block, [f.noise(block), b"", b"x" * block,
                                        f.noise(block // 3)] * 5)
        same_by_qemu(f, name, "cloop", expect)
        f.serve(name, expect, cluster=block)


@by_hand
def cloop_damage(f):
    def change(places, expect):
        places[3] = places[2]   # nothing for 2, for 3 too much
        places[8] = 1 << 40
        for block in (2, 3, 7, 8):
            expect.fail(block * 4096, 4096)
    expect = cloop(f, "a.cloop", 4096, [f.noise(4096) for _ in range(12)],
                   change)
    f.serve("a.cloop", expect, cluster=4096)
    for at, value, pattern in ((128, 0, "block size 0"),
                               (128, 513, "block size 513"),
                               (128, 1 << 30, "block size"),
                               (132, 1 << 31, "limit"),
                               (132, 1 << 20, "end past")):
        cloop(f, "h.cloop", 4096, [b""])
        with open(f.path("h.cloop"), "r+b") as out:
            out.seek(at)
            out.write(struct.pack(">I", value))
        f.refuse("h.cloop", pattern)


def bochs(f, name, version=2, extent=64 * KIB, count=10, present=(3, 0, 7),
          bitmap=None, subtype=b"Growing"):
    bits = -(-extent // 512 // 8)
    bitmap = bits if bitmap is None else bitmap
    size = extent * count - 1024
    expect = Expect(size)
    catalog = [0xFFFFFFFF] * count
    body = b""
    for place, guest in enumerate(present):
        catalog[guest] = place
        mask = bytearray(max(bits, bitmap))
        content = bytearray()
        for s in range(extent // 512):
            data = f.noise(512)
            content += data
            if f.random.random() < 0.6 or s in (0, extent // 512 - 1):
                mask[s // 8] |= 1 << s % 8
                expect.put(guest * extent + s * 512, data)
        pad = -(-len(mask) // 512) * 512
        body += bytes(mask).ljust(pad, b"\xff") + bytes(content)
    head = (b"Bochs Virtual HD Image".ljust(32, b"\0") +
            b"Redolog".ljust(16, b"\0") + subtype.ljust(16, b"\0") +
            struct.pack("<IIIII", version << 16, 512, count, bitmap, extent))
    head += struct.pack("<Q", size) if version == 1 else struct.pack(
        "<IQ", 0, size)
    f.write(name, head.ljust(512, b"\0") +
            struct.pack(f"<{count}I", *catalog) + body)
    return expect


@by_hand
def bochs_versions_and_extents(f):
    for version in (1, 2):
        for extent in (512, 4 * KIB, 64 * KIB, 2048 * KIB):
            name = f"v{version}-{extent}.bochs"
            expect = bochs(f, name, version, extent)
            same_by_qemu(f, name, "bochs", expect)
            f.serve(name, expect, cluster=extent)


@by_hand
def bochs_refusals(f):
    bochs(f, "undo.bochs", subtype=b"Undoable")
    f.refuse("undo.bochs", "Undoable")
    for at, value, pattern in ((64, 0x30000, "version 0x00030000"),
                               (72, 1 << 30, "limit"),
                               (72, 1 << 20, "ends past"),
                               (72, 2, "cover"), (76, 1, "bitmap of 1"),
                               (76, 1 << 31, "bitmap"),
                               (80, 0, "extent size 0"),
                               (80, 1 << 24, "extent size"),
                               (32, 0x41414141, "type AAAA")):
        bochs(f, "h.bochs")
        with open(f.path("h.bochs"), "r+b") as out:
            out.seek(at)
            out.write(struct.pack("<I", value))
        f.refuse("h.bochs", pattern)
    # A catalog entry that leads behind the end.
    expect = bochs(f, "end.bochs")
    with open(f.path("end.bochs"), "r+b") as out:
        out.seek(512 + 4 * 5)
        out.write(struct.pack("<I", 1000))
    expect.fail(5 * 64 * KIB, 64 * KIB)
    f.serve("end.bochs", expect, cluster=64 * KIB)


if __name__ == "__main__":
    main(__doc__)

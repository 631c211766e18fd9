#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""UDIF images as their builder makes them, served by platter; where qemu-img
or dmg2img read them, as these do.

  dmg.py [--keep] [CASE ...]
"""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import (KIB, MIB, by_hand, check_command, main)  # noqa: E402
from dmg_build import (ADC, BZIP2, IGNORE, LZFSE, LZMA, RAW, SECTOR,  # noqa
                       ZERO, ZLIB, Dmg, adc)
import support  # noqa: E402
from server import Failure, run, skip  # noqa: E402

PACKED = (ADC, ZLIB, BZIP2, LZMA)


def words(f, n):
    """What compresses, but not to nothing."""
    some = [f.noise(f.random.randrange(3, 30)) for _ in range(20)]
    out = b""
    while len(out) < n:
        out += f.random.choice(some)
    return out[:n]


def same_as(f, name, argv, expect):
    """What a peer makes of the image is what it must read as."""
    run(argv)
    with open(f.path("peer.raw"), "rb") as peer, \
            open(f.path("reference"), "rb") as ours:
        if peer.read(expect.size) != ours.read():
            raise Failure(f"{name}: {argv[0]} reads something else")
    support.saw(f.path(name), argv[0])


def peers(f, name, expect, qemu=True, dmg2img=True):
    out = f.path("peer.raw")
    if qemu:
        same_as(f, name, ["qemu-img", "convert", "-f", "dmg", "-O", "raw",
                          f.path(name), out], expect)
    if dmg2img and shutil.which("dmg2img"):
        same_as(f, name, ["dmg2img", "-s", f.path(name), out], expect)


@by_hand
def kinds(f):
    """Every kind of chunk, in a property list and in a resource fork."""
    for fork in (False, True):
        for kind in (RAW, *PACKED):
            name = f"{kind:x}-{fork}.dmg"
            d = Dmg(f.path(name), 3000, fork=fork)
            d.put(kind, 0, words(f, 512 * SECTOR))
            d.entry(ZERO, 512, 488)
            d.put(kind, 1000, words(f, 1 * SECTOR))
            d.put(RAW, 1001, f.noise(7 * SECTOR))
            d.entry(IGNORE, 1008, 492)
            d.put(kind, 1500, f.noise(500 * SECTOR))
            d.put(kind, 2000, bytes(1000 * SECTOR))
            f.serve(name, d.finish())
            check_command(f.path(name), 0)
            # qemu's other decoders are modules, which need not be there.
            peers(f, name, d.expect, qemu=kind in (RAW, ZLIB) and not fork,
                  dmg2img=kind in (RAW, ADC, ZLIB, BZIP2) and not fork)


@by_hand
def lists(f):
    """Several block lists, as partitions have them, in any order, with
    offsets of their own."""
    d = Dmg(f.path("lists.dmg"), 4096, before=f.noise(1000))
    d.list(sector=2048)
    d.put(ZLIB, 2048, words(f, 64 * KIB))
    d.entry(IGNORE, 2048 + 128, 2048 - 128)
    d.list(sector=0)
    d.put(BZIP2, 40, words(f, 100 * SECTOR))
    d.put(RAW, 0, words(f, 40 * SECTOR))
    d.list(sector=140, data_off=len(d.data))
    d.put(ADC, 140, words(f, 100 * SECTOR))
    d.list()
    d.entry(ZERO, 240, 2048 - 240)
    f.serve("lists.dmg", d.finish())
    check_command(f.path("lists.dmg"), 0)


@by_hand
def sizes(f):
    """Chunks larger than every cache's unit, a disk of no sectors, trailers
    that know of fewer than the chunks have, padding behind the trailer."""
    for kind in PACKED:
        name = f"big-{kind:x}.dmg"
        d = Dmg(f.path(name), 24 * KIB)
        d.put(kind, 0, words(f, 1 * MIB) + bytes(11 * MIB))
        f.serve(name, d.finish())
    d = Dmg(f.path("empty.dmg"), 0)
    d.list()
    f.serve("empty.dmg", d.finish())
    for n in (0, 100):
        d = Dmg(f.path(f"short{n}.dmg"), 300, pad=511, trailer={"sectors": n})
        d.put(ZLIB, 0, words(f, 300 * SECTOR))
        f.serve(f"short{n}.dmg", d.finish())
        check_command(f.path(f"short{n}.dmg"), 2)
    d = Dmg(f.path("long.dmg"), 301)
    d.put(ZLIB, 0, words(f, 300 * SECTOR))
    d.finish()
    f.refuse("long.dmg",
             "trailer has 301 sectors, the block lists' heads have 300")
    d = Dmg(f.path("huge.dmg"), 1 << 40)
    d.put(ZLIB, 0, words(f, 300 * SECTOR))
    d.entry(ZERO, 300, (1 << 40) - 300)
    f.serve("huge.dmg", d.finish(), sequential="data")


@by_hand
def damage(f):
    """What cannot be read is EIO, and the rest is read."""
    d = Dmg(f.path("damage.dmg"), 1000)
    d.put(ZLIB, 0, words(f, 100 * SECTOR))
    d.wrong(ZLIB, 100, 100, 1 << 40, 1000)
    d.put(ADC, 200, words(f, 100 * SECTOR))
    d.wrong(RAW, 300, 100, 0, 99 * SECTOR)
    d.expect.fail(400 * SECTOR, 100 * SECTOR)  # in no chunk
    d.put(BZIP2, 500, words(f, 100 * SECTOR))
    for kind, sector in ((BZIP2, 600), (LZMA, 700)):
        d.wrong(kind, sector, 100, len(d.data), 1000)
        d.data += f.noise(1000)
    d.wrong(ADC, 800, 50, len(d.data), 1)
    d.data += b"\0"
    d.wrong(ZLIB, 850, 50, 0, 0)
    d.put(RAW, 900, words(f, 100 * SECTOR))
    f.serve("damage.dmg", d.finish())
    check_command(f.path("damage.dmg"), 2)


@by_hand
def refusals(f):
    def dmg(name, pattern, fill=None, **kwargs):
        d = Dmg(f.path(name), 100, **kwargs)
        d.put(ZLIB, 0, words(f, 100 * SECTOR))
        if fill:
            fill(d)
        d.finish()
        f.refuse(name, pattern)

    dmg("split", "segment 2 of 3", trailer={"segment": 2, "segments": 3})
    dmg("size", "virtual size", trailer={"sectors": 1 << 60})
    dmg("plist-past-end", "property list at",
        trailer={"xml": (1 << 40, 100)})
    dmg("plist-huge", "over the limit", trailer={"xml": (0, 1 << 40)})
    dmg("no-tables", "neither a property list", trailer={"xml": (0, 0)})
    dmg("no-xml", "well-formed", trailer={"xml": (0, 40)})
    dmg("fork-past-end", "resource fork at", fork=True,
        trailer={"rsrc": (1 << 40, 100)})
    dmg("fork-huge", "over the limit", fork=True,
        trailer={"rsrc": (0, 1 << 40)})
    dmg("lzfse", "LZFSE", lambda d: d.entry(LZFSE, 100, 1, 0, 10))
    dmg("kind", "type 0x80000009",
        lambda d: d.entry(0x80000009, 100, 1, 0, 10))
    dmg("overlap", "overlaps", lambda d: d.entry(ZERO, 99, 1))
    dmg("chunk-huge", "over the limit of 131072",
        lambda d: d.entry(ZLIB, 100, 131073, 0, 10))
    dmg("chunk-far", "over the limit",
        lambda d: d.entry(ZERO, 1 << 62, 1 << 62))

    def patched(name, pattern, old, new):
        d = Dmg(f.path(name), 100)
        d.put(ZLIB, 0, words(f, 100 * SECTOR))
        text = d.plist()
        d.plist = lambda: text.replace(old, new)
        d.finish()
        f.refuse(name, pattern)

    patched("no-blkx", "no resource-fork", b"blkx", b"blky")
    patched("no-data", "no Data", b"Data", b"Date")
    patched("no-base64", "base64", b"<data>\n", b"<data>\n*")
    patched("no-mish", "magic", b"<data>\n", b"<data>\nAAAA")
    patched("entities", "entities", b"<plist", b"<!ENTITY a 'b'><plist")
    patched("nul", "NUL", b"<plist", b"\0<plist")
    patched("deep", "deep", b"<array/>", b"<array>" * 20 + b"</array>" * 20)
    f.write("encrypted.dmg", b"encrcdsa" + f.noise(4096))
    f.refuse("encrypted.dmg", "encrypted")
    f.write("encrypted-1.dmg", f.noise(4096) + b"cdsaencr")
    f.refuse("encrypted-1.dmg", "encrypted")


@by_hand
def streams(f):
    """ADC's items at their limits."""
    data = bytes(range(256)) * 2
    far = data + f.noise(65536 - 512) + data
    for content in (data, far, b"a" * 1024, f.noise(130) + bytes(382)):
        content += bytes(-len(content) % SECTOR)
        d = Dmg(f.path("adc.dmg"), len(content) // SECTOR)
        d.put(ADC, 0, content, adc(content))
        f.serve("adc.dmg", d.finish())


if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        skip("qemu-img is not installed")
    main(__doc__)

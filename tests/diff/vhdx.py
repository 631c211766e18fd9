#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""VHDX files, as their builder and qemu-img make them, served by platter.

  vhdx.py [--seed N] [--keep] [CASE ...]
"""

import os

from hyperv import MIB, Built, QemuImage, bytes_of, main
from vhdx_build import (FULL, LOGICAL, METADATA, NOT_PRESENT,
                        PARTIAL, REQUIRED, UNDEFINED, UNMAPPED,
                        UNMAPPED_DRAFT, USER, ZERO, Entry, Vhdx, name_guid,
                        text_guid)

GIB, TIB = 1 << 30, 1 << 40
OTHER = "11111111-2222-3333-4444-555555555555"


def vhdx(name, image, **kwargs):
    return Built(name, image, fmt="vhdx", **kwargs)


def guess(name, image, **kwargs):
    return Built(name, image, **kwargs)


def simple(folder, rng, file, size=5 * MIB, block=MIB, fill=(1, 3), **kwargs):
    image = Vhdx(os.path.join(folder, file), size, block, **kwargs)
    for idx in fill:
        image.full(idx, {0: bytes_of(rng, min(block, size - idx * block))})
    return image


def geometries(folder, rng):
    for mib in (1, 2, 8, 32, 256):
        for sector in (512, 4096):
            block = mib * MIB
            image = Vhdx(os.path.join(folder, f"{mib}-{sector}.vhdx"),
                         3 * block + 9 * 4096, block, sector)
            image.full(2, {4096: bytes_of(rng, 20000 // 512 * 512)})
            image.full(3, {0: bytes_of(rng, 9 * 4096)})
            image.full(0, {block - 8192: bytes_of(rng, 8192)})
            yield guess(f"blocks of {mib} MiB, sectors of {sector}",
                        image.close(),
                        oracles=["qemu"] if sector == 512 and mib < 256
                        else [], says=[f"logical-sector-size: {sector}"])
    image = Vhdx(os.path.join(folder, "row.vhdx"), 8 * MIB, MIB, fixed=True)
    for idx in range(8):
        image.full(idx, {0: bytes_of(rng, MIB)})
    yield guess("fixed: the blocks in a row", image.close(),
                oracles=["qemu"], says=["subformat: fixed"])
    image = Vhdx(os.path.join(folder, "mixed.vhdx"), 8 * MIB, MIB)
    for idx in (5, 4, 6, 0, 7):
        image.full(idx, {0: bytes_of(rng, MIB)})
    yield guess("blocks in any order", image.close(), oracles=["qemu"])


def large_disks(folder, rng):
    # 16 blocks of 256 MiB are a chunk: bitmaps' entries stand between.
    image = Vhdx(os.path.join(folder, "chunks.vhdx"), 40 * 256 * MIB,
                 256 * MIB)
    for idx in (0, 15, 16, 31, 32, 39):
        image.full(idx, {MIB: bytes_of(rng, 8192)})
    yield guess("entries of chunks without parents", image.close())
    image = Vhdx(os.path.join(folder, "tib.vhdx"), 64 * TIB, 32 * MIB)
    for idx in (0, 1000000, 64 * TIB // (32 * MIB) - 1):
        image.full(idx, {512: bytes_of(rng, 4096)})
    yield guess("64 TiB", image.close())
    image = Vhdx(os.path.join(folder, "tib4k.vhdx"), 64 * TIB, 256 * MIB,
                 4096)
    for idx in (0, 127, 128, 64 * TIB // (256 * MIB) - 1):
        image.full(idx, {4096: bytes_of(rng, 4096)})
    yield guess("64 TiB of 4 KiB sectors", image.close())


def states(folder, rng):
    def make(file, **kwargs):
        image = Vhdx(os.path.join(folder, file), 16 * MIB, MIB, **kwargs)
        for i, state in enumerate((NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED,
                                   UNMAPPED_DRAFT)):
            image.state(i, state)
            # Some writers leave a place where one was.
            place = image.alloc(MIB)
            image.put(place, bytes_of(rng, MIB))
            image.state(8 + i, state, place if state != ZERO else 0)
        image.full(5, {0: bytes_of(rng, MIB)})
        return image
    yield guess("every state without a parent", make("a.vhdx").close())
    # As old ones of QEMU; Hyper-V refuses it.
    image = simple(folder, rng, "z.vhdx", fill=(1, 2))
    image.state(3, ZERO, image.alloc(MIB))
    yield guess("zeroes that have a place", image.close(), check=2)
    base = simple(folder, rng, "base.vhdx", 16 * MIB, fill=range(16)).close()
    image = make("b.vhdx", parent=base, locator=[
        ("relative_path", ".\\base.vhdx")])
    image.partial(6, {n: bytes_of(rng, 512) for n in range(2048)
                      if rng.random() < 0.5})
    image.partial(15, {}, stale=b"old " * 128)
    yield guess("every state over a parent", image.close())


def copies(folder, rng):
    def make(file, **kwargs):
        return simple(folder, rng, file, **kwargs)
    yield guess("the first header alone", make("a.vhdx").close(
        headers=(True, False)), check=2)
    yield guess("the second header alone", make("b.vhdx").close(
        headers=(False, True)), check=2)
    yield guess("the first header newer", make(
        "c.vhdx", sequence=(900, 8)).close())
    yield guess("two equal headers", make("d.vhdx", sequence=(8, 8)).close())
    yield guess("the second region table alone", make("e.vhdx").close(
        tables=(False, True)), check=2)
    # The older header says nonsense: it must not be looked at.
    image = make("f.vhdx")
    image.close()
    good = image.header(10)
    image.version = 99
    with open(image.path, "r+b") as f:
        f.seek(65536)
        f.write(image.header(9))
        f.seek(131072)
        image.version = 1
        f.write(good)
    yield guess("an older header of another version", image)


def parents(folder, rng):
    base = simple(folder, rng, "the base.vhdx", 12 * MIB, fill=(0, 1, 3, 7)).close()
    os.mkdir(os.path.join(folder, "sub"))
    sub = simple(os.path.join(folder, "sub"), rng, "sub.vhdx", 12 * MIB,
                 fill=(0, 2)).close()

    def child(file, parent=base, size=12 * MIB, block=MIB, **kwargs):
        image = Vhdx(os.path.join(folder, file), size, block, parent=parent,
                     **kwargs)
        step = image.sector
        per = block // step
        image.partial(0, {n: bytes_of(rng, step) for n in range(per)
                          if rng.random() < 0.5}, stale=b"old " * 128)
        image.partial(2, {n: bytes_of(rng, step) for n in (0, 7, 8, per - 1)})
        image.state(3 * MIB // block, ZERO)
        image.full(size // block - 1, {0: bytes_of(rng, block)})
        return image.close()
    ways = {
        "relative_path": [("relative_path", ".\\the base.vhdx")],
        "bare relative_path": [("relative_path", "the base.vhdx")],
        "absolute_win32_path": [("absolute_win32_path",
                                 "C:\\vm\\the base.vhdx")],
        "volume_path": [("volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-"
                         "9931-806e6f6e6963}\\vm\\the base.vhdx")],
        "its content": [],
        "another after a stale one": [
            ("relative_path", "..\\gone.vhdx"),
            ("absolute_win32_path", "E:\\the base.vhdx")],
        "keys that are not known": [("some_key", "gone.vhdx"), (
            "relative_path", "the base.vhdx")],
    }
    for i, (name, locator) in enumerate(ways.items()):
        yield guess(f"parent by {name}", child(f"c{i}.vhdx", locator=locator),
                    says=["subformat: differencing"])
    yield guess("parent in a folder below", child(
        "s.vhdx", sub, locator=[("relative_path", "sub\\sub.vhdx")]))
    linkage = text_guid(base.data_guid)
    here = [("relative_path", "the base.vhdx")]
    yield guess("a GUID in capitals", child(
        "u.vhdx", parent_linkage=linkage.upper(), locator=here))
    yield guess("parent_linkage2", child(
        "l.vhdx", parent_linkage="{" + OTHER + "}", linkage2=linkage,
        locator=here))
    wide = simple(folder, rng, "wide.vhdx", 12 * MIB, 2 * MIB, fill=(0, 1, 2),
                  sector=4096).close()
    yield guess("4 KiB sectors over blocks of another size", child(
        "w.vhdx", wide, sector=4096,
        locator=[("relative_path", "wide.vhdx")]))
    two = child("two.vhdx", locator=here)
    three = child("three.vhdx", two, size=16 * MIB, locator=[
        ("relative_path", "two.vhdx")])
    yield guess("a chain of three, the top longer", three)
    far = Vhdx(os.path.join(folder, "far.vhdx"), 40 * 256 * MIB, 256 * MIB,
               parent=base, locator=here)
    # Behind the base's end, as pieces of large disks may not overlap.
    far.partial(0, {n: bytes_of(rng, 512)
                    for n in range(40000, 40030, 3)})
    for idx in (15, 16, 33):
        far.partial(idx, {n: bytes_of(rng, 512) for n in range(5, 700)})
    yield guess("bitmaps of several chunks", far.close())


def whole_bytes(folder, rng):
    """Bitmaps whose bytes are all or nothing: libvhdi reads these."""
    base = simple(folder, rng, "base.vhdx", 6 * MIB, fill=(0, 1, 4)).close()
    image = Vhdx(os.path.join(folder, "top.vhdx"), 6 * MIB, MIB, parent=base,
                 locator=[("relative_path", "base.vhdx")])
    for idx in (0, 2):
        image.partial(idx, {8 * n + k: bytes_of(rng, 512) for n in range(256)
                            if rng.random() < 0.5 for k in range(8)})
    image.full(3, {0: bytes_of(rng, MIB)})
    b = vhdx("bitmaps of whole bytes", image.close(), oracles=["vhdi"])
    b.oracle_chain = [base.path, image.path]
    yield b


def logged(folder, rng, file, **kwargs):
    """A disk in which block 2's entry is still in the log: (image, the BAT
    sector with it, its place, its data)."""
    image = simple(folder, rng, file, fill=(1,), **kwargs)
    data = bytes_of(rng, MIB)
    place = image.alloc(MIB)
    image.put(place, data)
    image.expect.put(2 * MIB, data)
    image.map.append((2 * MIB, MIB, "data"))
    return image, image.bat_sector(2, {2: place | FULL})


def logs(folder, rng):
    dirty = {"says": ["log-replayed-in-memory: yes"]}
    image, update = logged(folder, rng, "one.vhdx")
    image.log([Entry(5, [update])])
    yield guess("one entry", image.close(), **dirty)

    image, update = logged(folder, rng, "split.vhdx")
    image.log([Entry(5, [update])], start=MIB - 4096)
    yield guess("an entry that wraps inside itself", image.close(), **dirty)

    image, update = logged(folder, rng, "many.vhdx")
    place = image.bat[image.index(1)] & ~(MIB - 1)
    new = bytes_of(rng, 4096)
    image.log([Entry(2**32 - 1 + i, [(place + 4096 * i, new)])
               for i in range(3)] + [Entry(2**32 + 2, [update])],
              start=MIB - 8 * 4096)
    for i in range(3):
        image.expect.put(MIB + 4096 * i, new)
    yield guess("data sectors, numbers past 2^32, around the end",
                image.close(), **dirty)

    image, update = logged(folder, rng, "order.vhdx")
    other = image.bat_sector(2, {2: 9 * MIB | UNDEFINED})
    image.log([Entry(5, [update]), Entry(6, [other]), Entry(7, [update]),
               Entry(8, [])])
    yield guess("a later update hides an earlier one, an empty entry last",
                image.close(), **dirty)

    image, update = logged(folder, rng, "tail.vhdx")
    bad = image.bat_sector(2, {2: 4, 1: 4})
    # Entries before the last one's tail were written already.
    image.log([Entry(5, [bad]), Entry(6, [update], tail=0),
               Entry(7, [update], tail=8192)])
    yield guess("replay begins at the last entry's tail", image.close(),
                **dirty)

    image, update = logged(folder, rng, "zero.vhdx")
    place = image.bat[image.index(1)] & ~(MIB - 1)
    image.log([Entry(5, [update, (place + 65536, 131072),
                         (place + 131072, bytes_of(rng, 4096)),
                         (place + 131072, 4096)])])
    image.expect.put(MIB + 65536, bytes(131072))
    image.map = [(MIB, 65536, "data"), (MIB + 65536, 131072, "zero"),
                 (2 * MIB, MIB, "data")]
    yield guess("zero descriptors over data", image.close(), **dirty)

    image, update = logged(folder, rng, "hundreds.vhdx")
    place = image.bat[image.index(1)] & ~(MIB - 1)
    new = bytes_of(rng, 4096)
    image.log([Entry(5, [(place + 4096 * (i % 40), new if i % 3 else 4096)
                         for i in range(200)] + [update])], start=4096)
    for i in range(200):
        image.expect.put(MIB + 4096 * (i % 40),
                         new if i % 3 else bytes(4096))
    image.map = image.map[1:]
    yield guess("descriptors over two sectors", image.close(), **dirty)

    image, update = logged(folder, rng, "torn.vhdx")
    bad = image.bat_sector(2, {2: 4, 1: 4})
    image.log([Entry(5, [update]), Entry(6, [bad])])
    image.put(image.log_at + 8192 + 5000, b"torn")
    yield guess("a torn entry behind the last sound one", image.close(),
                **dirty)

    image, update = logged(folder, rng, "stale.vhdx")
    bad = image.bat_sector(2, {2: 4, 1: 4})
    image.log([Entry(50, [bad]), Entry(51, [bad])], start=65536)
    image.log([Entry(90, [bad], log_guid=b"another log here")], start=262144)
    image.log([Entry(60, [update])], start=131072)
    yield guess("older sequences and another log's", image.close(), **dirty)

    image, update = logged(folder, rng, "longer.vhdx")
    place = image.alloc(MIB)
    data = bytes_of(rng, 4096)
    off, sector = image.bat_sector(2, {2: (place - MIB) | FULL,
                                       4: place | FULL})
    image.log([Entry(5, [(off, sector), (place + 8192, data)],
                     last=place + MIB)])
    image.expect.put(4 * MIB, bytes(MIB))
    image.expect.put(4 * MIB + 8192, data)
    image.next = place
    yield guess("replay makes the file longer", image.close(), **dirty)

    image, update = logged(folder, rng, "large.vhdx", log_bytes=8 * MIB)
    image.log([Entry(5 + i, [update]) for i in range(300)],
              start=8 * MIB - 64 * 4096)
    yield guess("hundreds of entries in a larger log", image.close(),
                **dirty)

    base, update = logged(folder, rng, "base.vhdx")
    base.log([Entry(5, [update])])
    base.close()
    image = Vhdx(os.path.join(folder, "child.vhdx"), 5 * MIB, MIB,
                 parent=base, locator=[("relative_path", "base.vhdx")])
    image.full(0, {0: bytes_of(rng, MIB)})
    yield guess("a parent whose log is to be replayed", image.close())


def log_refusals(folder, rng):
    none = "has no sound entries"

    def make(file, entries, start=0, refusal=none, **kwargs):
        image, update = logged(folder, rng, file + ".vhdx", **kwargs)
        image.log(entries(update), start=start)
        return image, refusal
    rows = [
        make("empty", lambda u: []),
        make("other guid", lambda u: [Entry(5, [u], log_guid=b"x" * 16)]),
        make("tail outside", lambda u: [Entry(5, [u], tail=65536)]),
        make("tail odd", lambda u: [Entry(5, [u], tail=100)]),
        make("number 0", lambda u: [Entry(0, [u])]),
        make("cut", lambda u: [Entry(5, [u], flushed=1 << 40)],
             refusal="the file was cut"),
        make("unaligned", lambda u: [Entry(5, [(u[0] + 512, u[1])])],
             refusal="whole sectors"),
        make("huge", lambda u: [Entry(5, [u], last=1 << 63)],
             refusal="file size"),
    ]
    for image, refusal in rows:
        yield vhdx(os.path.basename(image.path), image.close(),
                   refusal=refusal)
    image, update = logged(folder, rng, "version.vhdx")
    image.log([Entry(5, [update])])
    image.log_version = 1
    yield vhdx("log version", image.close(), refusal="log version 1")
    image, update = logged(folder, rng, "place.vhdx")
    image.log([Entry(5, [update])])
    image.log_at += 4096
    yield vhdx("log place", image.close(), refusal="not at a whole MiB")
    image, update = logged(folder, rng, "end.vhdx")
    image.log([Entry(5, [update])])
    image.log_at = 1 << 40
    yield vhdx("log behind the end", image.close(), refusal="inside the")


def damage(folder, rng):
    """What cannot be read fails by itself, and the rest is served."""
    image = simple(folder, rng, "a.vhdx", 10 * MIB, fill=(0, 9))
    for idx, entry in ((1, 4), (2, 1 << 40 | FULL), (3, 0 | FULL),
                       (4, 20 * MIB | PARTIAL), (5, 2**64 - MIB | FULL)):
        image.bat[image.index(idx)] = entry
        image.expect.fail(idx * MIB, MIB)
    yield guess("entries that are wrong", image.close(), check=2)
    base = simple(folder, rng, "base.vhdx", 5 * MIB, fill=range(5)).close()
    image = Vhdx(os.path.join(folder, "b.vhdx"), 5 * MIB, MIB, parent=base,
                 locator=[("relative_path", "base.vhdx")])
    image.full(0, {0: bytes_of(rng, MIB)})
    image.bat[image.index(1)] = image.next - MIB | PARTIAL
    image.expect.fail(MIB, MIB)
    yield guess("a partial block without a bitmap", image.close(), check=2)
    image = simple(folder, rng, "cut.vhdx", fill=(1, 2))
    data = image.expect.chunks[-1][1]
    image.expect.put(2 * MIB, data[:500 * 1024])
    image.expect.fail(2 * MIB + 500 * 1024, MIB - 500 * 1024)
    image.map = image.map[:1]
    image.close()
    os.truncate(image.path, image.next - MIB + 500 * 1024)
    yield guess("a block that the end cuts is damage behind it", image,
                check=2)


def refusals(folder, rng):
    base = simple(folder, rng, "base.vhdx").close()

    def make(file, change=lambda i: None, close=None, **kwargs):
        image = simple(folder, rng, file + ".vhdx", **kwargs)
        change(image)
        return image.close(**(close or {}))

    def item(name, flags):
        return lambda i: i.items.append([name, b"12345678", flags])

    def region(*r):
        return lambda i: i.regions.append(r)

    def fields(**kwargs):
        return lambda i: [setattr(i, k, v) for k, v in kwargs.items()]

    def value(n, data):
        def change(i):
            i.items[n][1] = data
        return change

    def drop(n):
        return lambda i: i.items.pop(n)

    def child(file, **kwargs):
        return make(file, **{"parent": base, "fill": (), "locator": [
            ("relative_path", "base.vhdx")], **kwargs})

    def le(n, size=4):
        return n.to_bytes(size, "little")
    rows = [
        (make("headers", close={"headers": (False, False)}),
         "neither header is sound"),
        (make("twins", lambda i: None, sequence=(8, 8)), None),
        (make("version", fields(version=2)), "VHDX version 2"),
        (make("tables", close={"tables": (False, False)}),
         "neither region table"),
        (make("region", region(OTHER, 60 * MIB, MIB, 1)), "is required"),
        (make("regions", lambda i: i.regions.extend(
            (OTHER, (100 + n) * MIB, MIB, 0) for n in range(2044))), None),
        (make("overlap", region(OTHER, 2 * MIB, 2 * MIB, 0)), "overlap"),
        (make("over log", region(OTHER, MIB, MIB, 0)), "overlap"),
        (make("odd region", region(OTHER, MIB + 512, MIB, 0)), "whole MiB"),
        (make("empty region", region(OTHER, 90 * MIB, 0, 0)), "whole MiB"),
        (make("two BATs", lambda i: i.regions.append(
            (i.regions[0][0], 90 * MIB, MIB, 1))), "two entries for the BAT"),
        (make("no BAT", lambda i: i.regions.pop(0)), "there is no BAT"),
        (make("no metadata", lambda i: i.regions.pop(1)),
         "there is no metadata"),
        (make("far metadata", lambda i: i.regions.__setitem__(
            1, (METADATA, 1 << 40, MIB, 1))), "metadata region at"),
        (make("far BAT", lambda i: i.regions.__setitem__(
            0, (i.regions[0][0], 1 << 40, MIB, 1))), "BAT at"),
        (make("item", item(OTHER, REQUIRED)), "is required"),
        (make("user item", item(OTHER, USER | REQUIRED)), "is required"),
        (make("twice", item(LOGICAL, REQUIRED)), "two items logical sector"),
        (make("no size", drop(1)), "no metadata item virtual disk size"),
        (make("no parameters", drop(0)), "no metadata item file parameters"),
        (make("no sector", drop(2)), "no metadata item logical sector"),
        (make("long item", value(2, b"\0\2\0\0\0")), "has 5 bytes, not 4"),
        (make("block 3", value(0, le(3 * MIB) + le(0))), "block size 3145728"),
        (make("block 512", value(0, le(512 * MIB) + le(0))), "block size"),
        (make("block half", value(0, le(MIB // 2) + le(0))), "block size"),
        (make("sector", value(2, le(2048))), "logical sector size 2048"),
        (make("large", value(1, le(64 * TIB + 512, 8))), "over the limit"),
        (make("odd size", value(1, le(MIB + 100, 8))), "not whole sectors"),
        (make("BAT room", value(1, le(1 << 40, 8))), "BAT has room"),
        (make("no locator", value(0, le(MIB) + le(2))), "no parent locator"),
        (child("linkage", parent_linkage="{" + OTHER + "}"),
         "DataWriteGuid .*, not 11111111"),
        (child("no guid", parent_linkage="{1234}"), "is not a GUID"),
        (child("missing", locator=[("relative_path", "gone.vhdx")]),
         '"gone.vhdx" is missing'),
        (child("outside", locator=[
            ("absolute_win32_path", "/etc/hostname")]), "missing|outside"),
        (child("up", locator=[("relative_path", "..\\..\\etc\\passwd")]),
         "missing|outside"),
        (child("type", change=lambda i: value(5, b"x" * 40)(i)),
         "unknown type"),
        (child("keyless", change=lambda i: value(5, i.items[5][1][:16] +
                                                 le(0))(i)),
         "no parent_linkage"),
        (child("stranger", locator=[], parent_linkage="{" + OTHER + "}"),
         "not among the files"),
    ]
    for image, refusal in rows:
        name = os.path.basename(image.path)
        if refusal:
            yield vhdx(name, image, refusal=refusal)
        else:
            yield vhdx(name, image)
    image = make("twins2", sequence=(8, 8))
    image.data_guid = name_guid("other")
    with open(image.path, "r+b") as f:
        f.seek(65536)
        f.write(image.header(8))
    yield vhdx("two different headers of one number", image,
               refusal="two different headers")
    image = make("table")
    with open(image.path, "r+b") as f:
        f.seek(image.meta_at)
        f.write(b"metadatA")
    yield vhdx("metadata table", image, refusal="no metadata table")
    image = make("count")
    with open(image.path, "r+b") as f:
        f.seek(image.meta_at + 10)
        f.write(b"\0\x08")
    yield vhdx("metadata count", image, refusal="2048 metadata items")
    for at, data, words in ((16, le(65535), "does not lie"),
                            (16, le(MIB - 4), "does not lie"),
                            (20, le(MIB + 1), "the limit is 1048576")):
        image = make(f"item{at}-{data[0]}")
        with open(image.path, "r+b") as f:
            f.seek(image.meta_at + 32 + at)
            f.write(data)
        yield vhdx(f"metadata item: {words}", image, refusal=words)


def made_by_qemu(folder, rng):
    for subformat in ("dynamic", "fixed"):
        for block in (1, 2, 16):
            for size in (MIB, 20 * MIB, 33 * MIB + 512):
                yield QemuImage(
                    folder, "vhdx", f"{subformat}-{block}-{size}.vhdx", size,
                    ["-o", f"subformat={subformat},block_size={block}M"],
                    rng)
    yield QemuImage(folder, "vhdx", "states.vhdx", 20 * MIB,
                    ["-o", "block_state_zero=off,block_size=1M"], rng)
    yield QemuImage(folder, "vhdx", "empty.vhdx", 64 * GIB, [], rng,
                    writes=0)


if __name__ == "__main__":
    main("vhdx", [geometries, large_disks, states, copies, parents,
                  whole_bytes, logs, log_refusals, damage, refusals],
         [made_by_qemu], same_map=False)

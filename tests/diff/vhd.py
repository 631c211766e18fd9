#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""VHD files, as their builder and qemu-img make them, served by platter.

  vhd.py [--seed N] [--keep] [CASE ...]
"""

import os

from hyperv import KIB, MIB, Built, QemuImage, bytes_of, main
from vhd_build import (DIFFERENCING, DYNAMIC, FIXED, MACX, W2KU, W2RU, Vhd,
                       utf16)


def sectors(rng, numbers):
    return {n: bytes_of(rng, 512) for n in numbers}


def some(rng, count, share=0.5):
    return sectors(rng, [n for n in range(count) if rng.random() < share])


def vhd(name, image, **kwargs):
    return Built(name, image, fmt="vhd", **kwargs)


def guess(name, image, **kwargs):
    return Built(name, image, **kwargs)


def fixed_disks(folder, rng):
    def make(name, size=3 * MIB, fill=None, **kwargs):
        image = Vhd(os.path.join(folder, name), size, FIXED, **kwargs)
        fill = size if fill is None else fill
        image.fixed_data(0, bytes_of(rng, min(fill, 100000)))
        if fill > 200000:
            image.fixed_data(fill - 5000, bytes_of(rng, 5000))
        return image.close()
    yield guess("512-byte footer", make("a.vhd"), says=["subformat: fixed"])
    yield vhd("as qemu takes it", make("q.vhd"), oracles=["qemu"])
    yield guess("511-byte footer", make("b.vhd", footer=511),
                says=["511 bytes"])
    yield guess("size of 513 sectors", make("c.vhd", 513 * 512))
    image = Vhd(os.path.join(folder, "vpc.vhd"), 60 * 4 * 17 * 512, FIXED,
                creator=b"vpc ", chs=(60, 4, 17), current=2 * MIB + 512)
    image.fields["room"] = 2 * MIB + 512
    image.fixed_data(0, bytes_of(rng, 60 * 4 * 17 * 512))
    yield guess("Virtual PC's geometry counts", image.close(),
                says=["size-from: geometry"])
    for creator in (b"vs  ", b"win ", b"d2v ", b"tap\0", b"xyz "):
        yield guess(f"current size counts for {creator}",
                    make(f"{creator[:3].hex()}.vhd", MIB + 512,
                         creator=creator, chs=(10, 4, 17)))
    yield guess("a geometry that cannot count is not counted",
                make("max.vhd", creator=b"vpc ", chs=(65535, 16, 255)))
    yield guess("a saved state is told", make("saved.vhd", saved=1),
                says=["saved-state: yes"])


def dynamic_disks(folder, rng):
    for block, size in ((512, 20 * KIB + 512), (4 * KIB, 100 * KIB),
                        (64 * KIB, MIB + 512), (512 * KIB, 5 * MIB + 7 * 512),
                        (2 * MIB, 9 * MIB), (16 * MIB, 33 * MIB)):
        image = Vhd(os.path.join(folder, f"{block}.vhd"), size, block=block)
        per, n = block // 512, -(-size // block)
        for idx in sorted(rng.sample(range(n), -(-n // 2)), reverse=True):
            if rng.random() < 0.5:
                image.full(idx, bytes_of(rng, block))
            else:
                first = rng.randrange(per)
                image.write(idx, sectors(rng, range(first, min(
                    per, first + rng.randrange(1, 400)))))
        yield vhd(f"blocks of {block}", image.close(),
                  oracles=["qemu"] if block >= 512 * KIB else [])
    image = Vhd(os.path.join(folder, "bits.vhd"), 3 * MIB, block=512 * KIB)
    for idx in range(0, 6, 2):
        image.write(idx, some(rng, 1024), stale=b"stale" * 16)
    yield guess("stale bytes below clear bits are not read", image.close())
    image = Vhd(os.path.join(folder, "empty.vhd"), 1 << 30)
    yield guess("nothing in it", image.close())


def footers(folder, rng):
    def make(name, footer=512):
        image = Vhd(os.path.join(folder, name), 5 * MIB, footer=footer)
        image.write(1, some(rng, 4096))
        return image.close()

    def poke(image, off, data):
        with open(image.path, "r+b") as f:
            f.seek(off, 0 if off >= 0 else 2)
            f.write(data)
        return image
    yield guess("511 bytes at the end", make("a.vhd", 511),
                says=["511 bytes"])
    yield guess("lost: the copy serves", make("b.vhd", 0), check=2,
                says=["copy at the start"])
    yield guess("damaged: the copy serves", poke(make("c.vhd"), -448, b"!"),
                check=2)
    yield guess("a damaged copy does not matter", poke(make("d.vhd"), 300,
                                                       b"!"), check=2)
    image = poke(poke(make("e.vhd"), 300, b"!"), -448, b"!")
    yield vhd("both damaged", image, refusal="checksum of the footer at")


def parents(folder, rng):
    base = Vhd(os.path.join(folder, "base disk.vhd"), 4 * MIB,
               block=512 * KIB)
    for idx in (0, 1, 3, 7):
        base.full(idx, bytes_of(rng, 512 * KIB))
    base.close()
    os.mkdir(os.path.join(folder, "sub"))
    deep = Vhd(os.path.join(folder, "sub", "dp.vhd"), 4 * MIB, FIXED)
    deep.fixed_data(0, bytes_of(rng, 4 * MIB))
    deep.close()

    def child(file, parent=base, size=4 * MIB, block=512 * KIB, **kwargs):
        image = Vhd(os.path.join(folder, file), size, DIFFERENCING,
                    block=block, parent=parent, **kwargs)
        per = block // 512
        image.write(0, some(rng, per), stale=b"old " * 128)
        image.write(2, sectors(rng, range(8, 16)))
        if size > 3 * block:
            image.write(3, sectors(rng, [0, 1, 2, 3, 5, 6, 7, per - 1]))
        return image.close()
    ways = {
        "W2ru": dict(locators=[(W2RU, utf16(".\\base disk.vhd"))]),
        "W2ku": dict(locators=[(W2KU, utf16("C:\\vm\\base disk.vhd"))]),
        "MacX": dict(locators=[
            (MACX, b"file://localhost/Users/me/base%20disk.vhd")]),
        "relative MacX": dict(locators=[(MACX, b"file://./base disk.vhd")]),
        "name": dict(name="base disk.vhd"),
        "long name": dict(name="D:\\folder\\base disk.vhd"),
        "unique id": {},
        "stale first": dict(locators=[
            (W2RU, utf16("..\\gone.vhd")), (W2KU, utf16("E:\\gone too.vhd")),
            (MACX, b"file://localhost/base%20disk.vhd")]),
        "order": dict(locators=[
            (W2KU, utf16("C:\\sub\\gone.vhd")),
            (W2RU, utf16("base disk.vhd"))], name="gone.vhd"),
        "unknown codes": dict(locators=[
            (b"Wi2r", b"gone.vhd"), (b"what", b"\0" * 20),
            (W2RU, utf16("base disk.vhd"))]),
    }
    for i, (name, kwargs) in enumerate(ways.items()):
        image = child(f"child{i}.vhd", **kwargs)
        yield guess(f"parent by {name}", image,
                    says=["subformat: differencing"])
    image = child("back.vhd", deep, locators=[(W2RU, utf16("sub\\dp.vhd"))])
    yield guess("parent in a folder below, fixed", image)
    other = Vhd(os.path.join(folder, "grün 💾.vhd"), 2 * MIB, block=MIB)
    other.full(0, bytes_of(rng, MIB))
    other.close()
    image = child("unicode.vhd", other,
                  locators=[(W2RU, utf16("grün 💾.vhd"))])
    yield guess("a parent with a name beyond ASCII, shorter", image)
    two = child("two.vhd", block=MIB,
                locators=[(W2RU, utf16("base disk.vhd"))])
    three = child("three.vhd", two, size=6 * MIB, block=2 * MIB,
                  locators=[(W2RU, utf16("two.vhd"))])
    yield guess("a chain of three, the top longer", three)


def whole_bytes(folder, rng):
    """Bitmaps whose bytes are all or nothing: libvhdi reads these."""
    base = Vhd(os.path.join(folder, "base.vhd"), 8 * MIB, block=2 * MIB)
    for idx in (0, 1, 3):
        base.full(idx, bytes_of(rng, 2 * MIB))
    base.close()
    image = Vhd(os.path.join(folder, "top.vhd"), 8 * MIB, DIFFERENCING,
                parent=base, locators=[(W2RU, utf16("base.vhd"))])
    for idx in (0, 2):
        image.write(idx, sectors(rng, [
            8 * n + k for n in range(512) if rng.random() < 0.5
            for k in range(8)]))
    b = vhd("bitmaps of whole bytes", image.close(), oracles=["vhdi"])
    b.oracle_chain = [base.path, image.path]
    yield b


def damage(folder, rng):
    """What cannot be read fails by itself, and the rest is served."""
    image = Vhd(os.path.join(folder, "a.vhd"), 10 * MIB, block=2 * MIB)
    image.full(0, bytes_of(rng, 2 * MIB))
    image.full(3, bytes_of(rng, 2 * MIB))
    image.bat[1] = 0
    image.bat[2] = 1 << 30
    image.expect.fail(2 * MIB, 2 * MIB)
    image.expect.fail(4 * MIB, 2 * MIB)
    yield guess("blocks at 0 and behind the end", image.close(), check=2)
    image = Vhd(os.path.join(folder, "cut.vhd"), 4 * MIB, block=2 * MIB)
    data = bytes_of(rng, 2 * MIB)
    image.full(0, data)
    at = image.next
    image.alloc(1)
    image.put(at, b"\xff" * 512 + data[:MIB])
    image.expect.put(2 * MIB, data[:MIB])
    image.expect.fail(3 * MIB, MIB)
    image.close()
    os.truncate(image.path, at + 512 + MIB)
    yield guess("a block that the end cuts is damage behind it", image,
                check=2)
    image = Vhd(os.path.join(folder, "short.vhd"), 4 * MIB, block=2 * MIB)
    image.full(0, data)
    image.full(1, data)
    at = image.bat[1] * 512
    image.expect.chunks = image.expect.chunks[:4096]
    image.expect.fail(2 * MIB, 2 * MIB)
    image.map = image.map[:1]
    image.close()
    os.truncate(image.path, at + 512)
    yield guess("a block of which only the bitmap is left", image, check=2)


def refusals(folder, rng):
    base = Vhd(os.path.join(folder, "base.vhd"), MIB, stamp=5000,
               block=512 * KIB).close()
    loop = os.path.join(folder, "loop.vhd")

    def make(name, fields=None, kind=DYNAMIC, size=MIB, **kwargs):
        image = Vhd(os.path.join(folder, name + ".vhd"), size, kind,
                    **{"block": 512 * KIB, **kwargs})
        if kind == FIXED:
            image.fixed_data(0, bytes_of(rng, size))
        image.fields.update(fields or {})
        return image.close()

    def child(name, **kwargs):
        return make(name, kind=DIFFERENCING,
                    **{"parent": base, "locators": [
                        (W2RU, utf16("base.vhd"))], **kwargs})
    rows = [
        (make("version", version=0x20000), "VHD version 2.0"),
        (make("type", {"kind": 5}), "disk type 5"),
        (make("type0", {"kind": 0}), "disk type 0"),
        (make("big", {"current": 2041 << 30}), "over the limit"),
        (make("wide", {"current": 2 * MIB}, FIXED), "in front of the footer"),
        (make("headerless", {"header": 1 << 40}), "ends past the file"),
        (make("wrap", {"header": 2**64 - 512}), "ends past the file"),
        (make("nowhere", {"header": 0}), "no dynamic header"),
        (make("header", {"header_version": 0x30000}), "version 3.0"),
        (make("odd", {"block": 3 << 19}), "block size 1572864"),
        (make("small", {"block": 256}), "block size 256"),
        (make("none", {"block": 0}), "block size 0"),
        (make("table", entries=1), "needs 2"),
        (make("bat", {"table": 1 << 33}), "ends past the file"),
        (make("far", {"table": 2**64 - 4}), "ends past the file"),
        (child("id", parent_id=b"a stranger's id!"), "unique id"),
        (child("newer", parent_stamp=4999), "time stamp 5000"),
        (child("missing", locators=[(W2RU, utf16("gone.vhd"))]),
         '"gone.vhd" is missing'),
        (child("outside", locators=[(W2RU, utf16("..\\..\\..\\etc\\passwd"))]),
         "missing|outside"),
        (child("absolute", locators=[(W2KU, utf16("/etc/hostname"))]),
         "missing|outside"),
        (child("orphan", locators=[], parent_id=b"nobody's unique."),
         "not among the files"),
        (child("loop", locators=[(W2RU, utf16("loop.vhd"))],
               parent_id=Vhd(loop, MIB).uid), "its own backing file"),
    ]
    for image, refusal in rows:
        yield vhd(refusal, image, refusal=refusal)
    image = make("sum")
    with open(image.path, "r+b") as f:
        f.seek(600)
        f.write(b"!")
    yield vhd("dynamic header's checksum", image,
              refusal="checksum of the dynamic header at 512")
    other = make("nested", kind=FIXED)
    with open(other.path, "r+b") as f:
        f.write(b"QFI\xfb")
    yield guess("a fixed disk that begins as qcow2", other,
                refusal="looks like qcow2 and like vhd")


def made_by_qemu(folder, rng):
    for subformat in ("dynamic", "fixed"):
        for size in (MIB, 10 * MIB, 70 * MIB):
            for force in ("on", "off"):
                yield QemuImage(folder, "vpc",
                                f"{subformat}-{size}-{force}.vhd", size,
                                ["-o", f"subformat={subformat},"
                                       f"force_size={force}"], rng)
    yield QemuImage(folder, "vpc", "empty.vhd", 50 * MIB, [], rng, writes=0)


if __name__ == "__main__":
    main("vhd", [fixed_disks, dynamic_disks, footers, parents, whole_bytes,
                 damage, refusals], [made_by_qemu], same_map=True)

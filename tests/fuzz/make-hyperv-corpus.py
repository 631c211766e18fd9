#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes tests/corpus/{vhd,vhdx}: what the fuzzers start from and the plain
regression test runs, in the short form of expand.h. valid-* must open and be
sound, hostile-* must be refused or be found damaged.

The same files at every run.

  make-hyperv-corpus.py [FOLDER]
"""

import os
import random
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import vhd_build  # noqa: E402
import vhdx_build  # noqa: E402
from vhd_build import MACX, W2KU, W2RU, Vhd  # noqa: E402
from vhdx_build import FULL, PARTIAL, UNMAPPED, ZERO, Entry, Vhdx  # noqa: E402

MIB = 1 << 20
WINDOWS = [(0, 8), (64 << 10, 80), (128 << 10, 80), (192 << 10, 112),
           (256 << 10, 112), (2 * MIB, 256), (2 * MIB + (64 << 10), 640),
           (3 * MIB, 64), (3 * MIB + (32 << 10), 16), (4 * MIB, 512),
           (5 * MIB, 512), (2 * MIB - 8192, 8192), (MIB, 20 << 10)]
RNG = random.Random(1)


def bits(n):
    return {i: RNG.randbytes(512) for i in range(n) if RNG.random() < 0.5}


def vhd(change=None, flags=7, size=9 * 512, **kwargs):
    image = Vhd("image", size, **{"block": 1024, **kwargs})
    if image.kind == vhd_build.FIXED:
        image.fixed_data(0, RNG.randbytes(size))
    else:
        for idx in (0, 1, 3):
            image.write(idx, bits(2))
    if change:
        change(image)
    image.close()
    with open("image", "rb") as f:
        data = f.read()
    return bytes([flags]) + data


def fields(**kwargs):
    return lambda i: i.fields.update(kwargs)


def entry(idx, value):
    return lambda i: i.bat.__setitem__(idx, value)


def vhd_files():
    diff = {"kind": vhd_build.DIFFERENCING, "parent_id": b"a parent's id ok"}
    yield "valid-dynamic", vhd()
    yield "valid-fixed", vhd(kind=vhd_build.FIXED)
    yield "valid-old-footer", vhd(kind=vhd_build.FIXED, footer=511, flags=0)
    yield "valid-geometry", vhd(creator=b"vpc ", chs=(1, 3, 3))
    for name, locators in (
            ("w2ru", [(W2RU, vhd_build.utf16(".\\base.vhd"))]),
            ("w2ku", [(W2KU, vhd_build.utf16("C:\\base.vhd"))]),
            ("macx", [(MACX, b"file://localhost/a%20b.vhd")])):
        yield f"valid-{name}", vhd(locators=locators, **diff)
    yield "valid-parent-name", vhd(name="base.vhd", **diff)
    yield "hostile-lost-footer", vhd(footer=0, flags=0)
    yield "hostile-checksum", vhd(flags=0)[:-200] + b"!" + vhd(flags=0)[-199:]
    for name, change in (
            ("version", fields(version=0x20000)), ("type-5", fields(kind=5)),
            ("size-huge", fields(current=2**64 - 1)),
            ("size-past-bat", fields(current=1 << 20)),
            ("header-past-end", fields(header=1 << 40)),
            ("header-wraps", fields(header=2**64 - 512)),
            ("block-0", fields(block=0)), ("block-odd", fields(block=1536)),
            ("bat-past-end", fields(table=1 << 33)),
            ("bat-wraps", fields(table=2**64 - 4)),
            ("block-at-0", entry(0, 0)), ("block-past-end", entry(0, 1 << 30)),
            ("block-over-header", entry(0, 1)),
            ("blocks-overlap", lambda i: entry(0, i.bat[1])(i))):
        yield f"hostile-{name}", vhd(change)


def vhdx(change=None, flags=31, finish=None, size=4 * MIB, parent=False,
         **kwargs):
    base = None
    if parent:
        base = Vhdx("base", size, MIB)
        base.file.close()
    image = Vhdx("image", size, MIB, parent=base, **kwargs)
    image.file_guid = b"\1" * 16
    if parent:
        image.partial(0, bits(64))
    else:
        image.full(0, {0: RNG.randbytes(512)})
        image.full(1, {0: RNG.randbytes(512)})
    if change:
        change(image)
    image.next = 6 * MIB
    image.close()
    if finish:
        with open("image", "r+b") as f:
            finish(f)
    data = b""
    with open("image", "rb") as f:
        for at, n in WINDOWS:
            f.seek(at)
            data += f.read(n)
    return bytes([flags]) + data.rstrip(b"\0")


def state(idx, value):
    return lambda i: i.bat.__setitem__(i.index(idx), value)


def log(*entries, start=0):
    def change(i):
        update = i.bat_sector(1, {1: ZERO})
        i.log([Entry(n, [u or update for u in updates], **kwargs)
               for n, updates, kwargs in entries], start=start)
    return change


def put(at, data):
    def finish(f):
        f.seek(at)
        f.write(data)
    return finish


def attr(**kwargs):
    return lambda i: [setattr(i, k, v) for k, v in kwargs.items()]


def vhdx_files():
    other = "11111111-2222-3333-4444-555555555555"
    le = struct.pack
    yield "valid-dynamic", vhdx()
    yield "valid-states", vhdx(lambda i: [state(2, UNMAPPED)(i),
                                          state(3, ZERO)(i)])
    yield "valid-4k-sectors", vhdx(sector=4096)
    for key in ("relative_path", "absolute_win32_path", "volume_path"):
        yield f"valid-{key}", vhdx(parent=True, locator=[(key, "..\\b")])
    yield "valid-linkage2", vhdx(parent=True, linkage2="{" + other + "}")
    yield "valid-log", vhdx(log((7, [None], {})))
    yield "valid-log-two", vhdx(log((7, [(4 * MIB, 8192)], {}),
                                    (8, [None], {})))
    yield "valid-log-wraps", vhdx(log((7, [(4 * MIB, 8192)], {}),
                                      (8, [None], {}), start=MIB - 4096))
    yield "valid-log-longer", vhdx(log((7, [None], {"last": 8 * MIB})))
    yield "hostile-headers", vhdx(flags=28, finish=lambda f: [
        put(65576, b"!")(f), put(131112, b"!")(f)])
    yield "hostile-tables", vhdx(flags=19, finish=lambda f: [
        put(196640, b"!")(f), put(262180, b"!")(f)])
    for name, change in (
            ("version", attr(version=2)),
            ("state-4", state(2, 4)), ("block-at-0", state(2, FULL)),
            ("block-past-end", state(2, 1 << 40 | FULL)),
            ("block-wraps", state(2, 2**64 - MIB | FULL)),
            ("partial-without-parent", state(0, 4 * MIB | PARTIAL)),
            ("blocks-overlap", state(2, 4 * MIB | FULL)),
            ("block-over-bat", state(2, 3 * MIB | FULL)),
            ("region-required", lambda i: i.regions.append(
                (other, 5 * MIB, MIB, 1))),
            ("regions-overlap", lambda i: i.regions.append(
                (other, 2 * MIB, 2 * MIB, 0))),
            ("item-required", lambda i: i.items.append([other, b"1", 4])),
            ("log-empty", log()), ("log-tail", log((7, [None], {
                "tail": 65536}))),
            ("log-cut", log((7, [None], {"flushed": 1 << 40}))),
            ("log-longest", log((7, [None], {"last": 2**63}))),
            ("log-update-odd", log((7, [(512, 4096)], {}))),
            ("log-version", lambda i: [log((7, [None], {}))(i),
                                       attr(log_version=1)(i)])):
        yield f"hostile-{name}", vhdx(change)
    for n, name, value in ((0, "block-3-mib", le("<II", 3 * MIB, 0)),
                           (0, "block-512-mib", le("<II", 512 * MIB, 0)),
                           (1, "size-huge", le("<Q", 2**64 - 512)),
                           (1, "size-odd", le("<Q", 513)),
                           (2, "sector-1024", le("<I", 1024)),
                           (2, "item-short", b"\0\2")):
        yield f"hostile-{name}", vhdx(
            lambda i: i.items[n].__setitem__(1, value))
    yield "hostile-no-linkage", vhdx(parent=True, parent_linkage="{}")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.abspath(sys.argv[1] if len(sys.argv) > 1
                             else os.path.join(root, "corpus"))
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)  # ids come from the builders' paths
        for fmt, files in (("vhd", vhd_files()), ("vhdx", vhdx_files())):
            os.makedirs(os.path.join(folder, fmt), exist_ok=True)
            for name, data in files:
                with open(os.path.join(folder, fmt, f"{name}.{fmt}"),
                          "wb") as f:
                    f.write(data)
        os.chdir("/")


if __name__ == "__main__":
    main()

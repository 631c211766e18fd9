#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes tests/corpus/{vdi,ploop,qed,qcow,luks,cloop,bochs}: what the fuzzers start from
and the plain regression test runs. valid-* must open and be sound, hostile-*
must be refused or be found damaged.

  make-small-corpus.py [FOLDER]
"""

import os
import random
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import vdi_build  # noqa: E402
from ploop_build import (EXT_BITMAP, IN_USE, TOP, V1, V2, Bundle,  # noqa: E402
                         Delta, feature)
from qcow_build import Qcow  # noqa: E402
from qed_build import BACKING, NEED_CHECK, NO_PROBE, Qed  # noqa: E402
from vdi_build import DIFF, UNDO, Vdi  # noqa: E402

RNG = random.Random(1)
PATH = None


def result(image, **changes):
    """The file, after its header was written once more with changes."""
    image.finish()
    if changes:
        for field, value in changes.items():
            setattr(image, field, value)
        head = image._header() if isinstance(image, Vdi) else image.header()
        with open(PATH, "r+b") as f:
            f.write(head)
    with open(PATH, "rb") as f:
        return f.read()


def text(n):
    return (b"content " * (n // 8 + 1))[:n]


def vdi(**kwargs):
    v = Vdi(PATH, 512 * 9, block=512, **kwargs)
    for g in (0, 1, 4, 3):
        v.data(g, text(512))
    v.zero(5)
    return v


def vdi_files():
    uid = vdi_build.ident(RNG)
    yield "valid-dynamic", result(vdi())
    yield "valid-fixed", result(vdi(kind=vdi_build.FIXED))
    yield "valid-differencing", result(vdi(kind=DIFF, parent=uid))
    yield "valid-undo", result(vdi(kind=UNDO, parent=uid))
    yield "valid-extra-bytes", result(vdi(extra=16))
    yield "valid-version-0", result(vdi(version=(0, 2)))
    yield "valid-version-1.0", result(vdi(version=(1, 0), header=384))
    for name, changes in (
            ("version-2", {"version": (2, 0)}), ("type-9", {"kind": 9}),
            ("no-parent", {"kind": DIFF}), ("block-0", {"block": 0}),
            ("block-odd", {"block": 513}), ("blocks-few", {"count": 3}),
            ("blocks-huge", {"count": 0xFFFFFFFF}),
            ("map-past-end", {"map_off": 1 << 30}),
            ("size-huge", {"size": 2**64 - 1}),
            ("data-past-end", {"data_off": 1 << 30}),
            ("extra-huge", {"extra": 0xFFFFFFFF})):
        yield f"hostile-{name}", result(vdi(), **changes)
    for name, entry in (("entry-past-end", 8), ("entry-over-blocks", 9),
                        ("entry-twice", 0)):
        v = vdi()
        v.map[8] = entry
        yield f"hostile-{name}", result(v)
    yield "hostile-cut-in-header", result(vdi())[:300]
    yield "hostile-cut-in-map", result(vdi())[:520]


def delta(**kwargs):
    kwargs.setdefault("tracks", 1)
    d = Delta(PATH, kwargs["tracks"] * 512 * 9, **kwargs)
    for g in (0, 1, 4, 3):
        d.data(g, text(d.cs))
    return d


def ploop_files():
    yield "valid-version-1", result(delta(magic=V1))
    yield "valid-version-2", result(delta())
    yield "valid-63-sectors", result(delta(magic=V1, tracks=3, data_off=512))
    yield "valid-bitmap-extension", result(delta(
        extension=feature(EXT_BITMAP, 0, bytes(32)) + bytes(24)))
    for name, changes in (
            ("type-1", {"type": 1}), ("tracks-0", {"tracks": 0}),
            ("tracks-huge", {"tracks": 0xFFFFFFFF}),
            ("entries-huge", {"count": 0xFFFFFFFF}),
            ("bat-past-end", {"count": 5000}),
            ("size-huge", {"sectors": 2**64 - 1}), ("in-use", {
                "in_use": IN_USE})):
        yield f"hostile-{name}", result(delta(), **changes)
    yield "hostile-extension-damaged", result(delta(
        extension=b"\xff" * 480))
    d = delta()
    d.finish()
    with open(PATH, "r+b") as f:
        f.write(d.header(ext_off=1 << 63))
    with open(PATH, "rb") as f:
        yield "hostile-extension-past-end", f.read()
    for name, entry in (("entry-past-end", 999), ("entry-max", 0xFFFFFFFF),
                        ("entry-twice", 1)):
        d = delta()
        d.bat[8] = entry
        yield f"hostile-{name}", result(d)
    d = delta(magic=V1, tracks=3, data_off=512)
    d.bat = d.bat + [0] * 200
    yield "hostile-cut-in-bat", result(delta())[:80]
    b = Bundle(".", 1 << 20)
    b.storages = [(0, 2048, [(TOP, "Compressed", "root.hds")])]
    b.shots = [(TOP, "{00000000-0000-0000-0000-000000000000}")]
    yield "hostile-bundle-alone", b.xml().encode()
    yield "hostile-bundle-cut", b.xml().encode()[:300]
    b.head = "<!DOCTYPE a>"
    yield "hostile-bundle-with-dtd", b.xml().encode()


def qed(**kwargs):
    q = Qed(PATH, 4096 * 600, **kwargs)
    for g in (0, 1, 5, 599):
        q.data(g, text(64))
    q.zero(7)
    return q


def qed_files():
    yield "valid-plain", result(qed())
    yield "valid-needs-check", result(qed(features=NEED_CHECK))
    yield "valid-backing", result(qed(features=BACKING | NO_PROBE,
                                      backing=b"base.raw"))
    for name, changes in (
            ("feature", {"features": 8}), ("clusters-small", {"cs": 512}),
            ("table-3", {"table": 3}), ("header-0", {"header_clusters": 0}),
            ("l1-in-header", {"l1_at": 0}), ("l1-past-end", {
                "l1_at": 1 << 40}),
            ("size-huge", {"size": 1 << 63}), ("size-odd", {"size": 100})):
        yield f"hostile-{name}", result(qed(), **changes)
    for name, entry in (("entry-past-end", 1 << 40), ("entry-odd", 777),
                        ("entry-in-header", 0x0), ("entry-twice", 4096 * 3)):
        q = qed()
        q.l2[0][9] = entry or 2
        yield f"hostile-{name}", result(q)
    q = qed()
    q.l1[3] = q.l1[0]
    yield "hostile-l2-twice", result(q)
    q = qed()
    q.l1[0] = 1 << 62
    q.l2.clear()
    yield "hostile-l2-past-end", result(q)


def qcow(**kwargs):
    kwargs.setdefault("cluster_bits", 9)
    q = Qcow(PATH, 512 * 200, l2_bits=6, **kwargs)
    for g in (0, 1, 5, 199):
        q.data(g, text(512))
    if not kwargs.get("crypt"):
        q.compressed(8, text(512))
        q.compressed(9, bytes(512))
    return q


def qcow_files():
    yield "valid-plain", result(qcow())
    yield "valid-aes", result(qcow(crypt=1))
    yield "valid-backing", result(qcow(backing=b"base.raw"))
    for name, changes in (
            ("version-2", {"version": 2}), ("cluster-bits-8", {"bits": 8}),
            ("l2-bits-14", {"l2_bits": 14}), ("crypt-2", {"crypt": 2}),
            ("size-huge", {"size": 2**64 - 1}),
            ("size-past-l1", {"size": 1 << 30}),
            ("l1-past-end", {"l1_at": 1 << 50})):
        yield f"hostile-{name}", result(qcow(), **changes)
    for name, entry in (("entry-past-end", 1 << 40),
                        ("stream-past-end", 1 << 63 | 1 << 54 | 1 << 40),
                        ("stream-empty", 1 << 63 | 48)):
        q = qcow()
        q.l2[0][20] = entry
        yield f"hostile-{name}", result(q)
    q = qcow()
    q.l1[2] = q.l1[0]
    yield "hostile-l2-twice", result(q)


def luks_files():
    head = bytearray(8192)
    struct.pack_into(">6sH32s32s32sII", head, 0, b"LUKS\xba\xbe", 1, b"aes",
                     b"xts-plain64", b"sha256", 8, 64)
    struct.pack_into(">I", head, 164, 1000)
    for i in range(8):
        struct.pack_into(">I", head, 208 + 48 * i, 0xDEAD)
    yield "valid-without-slots", bytes(head)
    for name, at, value in (("version-2", 6, b"\0\2"),
                            ("cipher", 8, b"camellia\0"),
                            ("mode", 40, b"lrw\0"), ("hash", 72, b"md4\0"),
                            ("payload-0", 104, bytes(4)),
                            ("payload-past-end", 104, b"\xff" * 4),
                            ("slot-state", 208, b"\1\2\3\4")):
        data = bytearray(head)
        data[at:at + len(value)] = value
        yield f"hostile-{name}", bytes(data)
    yield "hostile-cut", bytes(head[:500])


def cloop(places=None, block=512):
    streams = [zlib.compress(text(block)) for _ in range(4)]
    at = [136 + 8 * 5]
    for s in streams:
        at.append(at[-1] + len(s))
    for i, value in (places or {}).items():
        at[i] = value
    return (b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") +
            struct.pack(">II5Q", block, 4, *at) + b"".join(streams))


def cloop_files():
    yield "valid-plain", cloop()
    yield "valid-block-of-1536", cloop(block=1536)
    for name, at, value in (("block-0", 128, 0), ("block-odd", 128, 513),
                            ("block-huge", 128, 1 << 31),
                            ("blocks-huge", 132, 0xFFFFFFFF),
                            ("blocks-past-end", 132, 100)):
        data = bytearray(cloop())
        struct.pack_into(">I", data, at, value)
        yield f"hostile-{name}", bytes(data)
    yield "hostile-place-backwards", cloop({2: 10})
    yield "hostile-place-past-end", cloop({4: 1 << 63})
    yield "hostile-cut", cloop()[:130]


def bochs(version=2, subtype=b"Growing", entry=1, changes=()):
    head = bytearray(512)
    struct.pack_into("<32s16s16sIIIIIIQ", head, 0, b"Bochs Virtual HD Image",
                     b"Redolog", subtype, version << 16, 512, 4, 1, 2048, 0,
                     8192)
    if version == 1:
        struct.pack_into("<Q", head, 84, 8192)
    for at, value in changes:
        struct.pack_into("<I", head, at, value)
    extent = b"\x05".ljust(512, b"\0") + text(2048)
    return (bytes(head) + struct.pack("<4I", 0, 2**32 - 1, entry, 2**32 - 1) +
            2 * extent)


def bochs_files():
    yield "valid-version-1", bochs(1)
    yield "valid-version-2", bochs(2)
    for name, at, value in (("version", 64, 3), ("catalog-huge", 72, 1 << 31),
                            ("catalog-past-end", 72, 5000),
                            ("catalog-short", 72, 2), ("bitmap-0", 76, 0),
                            ("bitmap-huge", 76, 2**32 - 1),
                            ("extent-0", 80, 0), ("extent-odd", 80, 1000),
                            ("extent-huge", 80, 1 << 31),
                            ("disk-huge", 92, 1 << 31)):
        yield f"hostile-{name}", bochs(changes=[(at, value)])
    yield "hostile-undoable", bochs(subtype=b"Undoable")
    yield "hostile-entry-past-end", bochs(entry=9)
    yield "hostile-entry-max", bochs(entry=0xFFFFFFFE)
    yield "hostile-cut", bochs()[:200]


def main():
    global PATH
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    top = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "corpus")
    for kind, files in (("vdi", vdi_files), ("ploop", ploop_files),
                        ("qed", qed_files), ("qcow", qcow_files),
                        ("luks", luks_files),
                        ("cloop", cloop_files), ("bochs", bochs_files)):
        folder = os.path.join(top, kind)
        os.makedirs(folder, exist_ok=True)
        PATH = os.path.join(folder, "in-the-making")
        for name, data in files():
            with open(os.path.join(folder, f"{name}.{kind}"), "wb") as f:
                f.write(data)
        if os.path.exists(PATH):
            os.unlink(PATH)


if __name__ == "__main__":
    main()

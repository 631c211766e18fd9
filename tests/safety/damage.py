#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Sound images of every driver, cut and with single bits of their metadata
flipped (damage.c): refused, or every byte is right or EIO. Never zeroes where
data was, never other data, never a lost parent, never another size.

What a reader that looks at nothing but what it uses cannot see is in UNSEEN,
by field, each with its reason, and with what check() must find of it.

  damage.py [VARIANT...]        PLATTER_FULL=1: 1,000 flips and 200 cuts each
"""

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import vdi_build  # noqa: E402
import vhd_build  # noqa: E402
from dmg_build import IGNORE, RAW, ZERO as DMG_ZERO, ZLIB, Dmg  # noqa: E402
from ploop_build import NIL, TOP, V1, Bundle, Delta  # noqa: E402
from qcow2_build import Expect  # noqa: E402
from qcow_build import Qcow  # noqa: E402
from server import environment, run_with_key  # noqa: E402
from vdi_build import DIFF, Vdi  # noqa: E402
from vhd_build import DIFFERENCING, FIXED, Vhd  # noqa: E402
from vhdx_build import Entry, Vhdx  # noqa: E402
from vmdk_build import (Cowd, Hosted, SeSparse, Stream,  # noqa: E402
                        descriptor)

KIB, MIB = 1024, 1 << 20
VARIANTS = {}


def variant(make):
    VARIANTS[make.__name__.replace("_", "-")] = make
    return make


class Folder:
    """Where a variant's files lie. Data are never zero bytes."""

    def __init__(self, path, name):
        self.path = path
        self.rng = random.Random(name)

    def at(self, name):
        return os.path.join(self.path, name)

    def noise(self, n):
        return bytes(self.rng.randbytes(n)).replace(b"\0", b"\1")

    def write(self, name, data):
        with open(self.at(name), "wb") as f:
            f.write(data)
        return self.at(name)

    def raw(self, name, size, step=256 * KIB, skip=3):
        """Noise, but every third piece is a hole."""
        with open(self.at(name), "wb") as f:
            for i, off in enumerate(range(0, size, step)):
                if i % skip != skip - 1:
                    f.seek(off)
                    f.write(self.noise(min(step, size - off)))
            f.truncate(size)
        return self.at(name)

    def truth(self, expect):
        expect.write(self.at("truth"))
        return self.at("truth")

    def img(self, *args):
        subprocess.run(["qemu-img", *args], check=True,
                       stdout=subprocess.DEVNULL)

    def convert(self, fmt, name, options="", flags=(),
                size=3 * MIB + 64 * KIB):
        self.img("convert", *flags, "-f", "raw", "-O", fmt,
                 *(["-o", options] if options else []),
                 self.raw("truth", size), self.at(name))
        return self.at(name)

    def child(self, fmt, name, base, base_fmt, size, options=""):
        """Over a base of noise: some of its own, some of zeroes."""
        self.img("create", "-q", "-f", fmt, "-b", base, "-F", base_fmt,
                 *(["-o", options] if options else []), self.at(name))
        for off in range(128 * KIB, size, 512 * KIB):
            pattern = 1 + self.rng.randrange(254)
            subprocess.run(
                ["qemu-io", "-f", fmt, "-c",
                 f"write -P {pattern} {off} 128k", self.at(name)],
                check=True, stdout=subprocess.DEVNULL)
        self.img("convert", "-f", fmt, "-O", "raw", self.at(name),
                 self.at("truth"))
        return self.at(name)


class Case:
    def __init__(self, folder, fmt, image, *damaged, truth=None):
        self.fmt = fmt
        self.image = image
        self.damaged = damaged or (image,)
        self.truth = truth or folder.at("truth")


# qcow2, qcow, qed


@variant
def qcow2(f):
    return Case(f, "qcow2", f.convert("qcow2", "a"))


@variant
def qcow2_v2(f):
    return Case(f, "qcow2", f.convert("qcow2", "a", "compat=0.10"))


@variant
def qcow2_subclusters(f):
    return Case(f, "qcow2", f.convert("qcow2", "a", "extended_l2=on"))


@variant
def qcow2_compressed(f):
    return Case(f, "qcow2", f.convert("qcow2", "a", flags=["-c"]))


@variant
def qcow2_small_clusters(f):
    return Case(f, "qcow2", f.convert("qcow2", "a", "cluster_size=4k"))


@variant
def qcow2_child(f):
    f.raw("base", 3 * MIB)
    f.img("convert", "-f", "raw", "-O", "qcow2", f.at("base"), f.at("b"))
    return Case(f, "qcow2", f.child("qcow2", "a", "b", "qcow2", 3 * MIB))


@variant
def qcow2_data_file(f):
    f.convert("qcow2", "a", f"data_file={f.at('d')}")
    return Case(f, "qcow2", f.at("a"), f.at("a"))


@variant
def qcow(f):
    return Case(f, "qcow", f.convert("qcow", "a"))


@variant
def qcow_compressed(f):
    q = Qcow(f.at("a"), 40 * 4096)
    for g in range(40):
        if g % 3 != 2:
            q.compressed(g, f.noise(1024) * 4)
    return Case(f, "qcow", q.path, truth=f.truth(q.finish()))


@variant
def qcow_child(f):
    f.raw("b", 3 * MIB)
    return Case(f, "qcow", f.child("qcow", "a", "b", "raw", 3 * MIB))


@variant
def qed(f):
    return Case(f, "qed", f.convert("qed", "a"))


@variant
def qed_child(f):
    f.raw("b", 3 * MIB)
    return Case(f, "qed", f.child("qed", "a", "b", "raw", 3 * MIB))


# VMDK


def line(kind, n, name=None, off=None, access="RW"):
    text = f"{access} {n} {kind}"
    if name is not None:
        text += f' "{name}"'
    return text if off is None else f"{text} {off}"


def fill(f, image, every=3):
    total = -(-image.capacity // image.grain)
    for g in range(total):
        if g % every != every - 1:
            image.grains[g] = f.noise(image.gb)
    return image


@variant
def vmdk_sparse(f):
    return Case(f, "vmdk", f.convert("vmdk", "a.vmdk"))


@variant
def vmdk_split_sparse(f):
    image = f.convert("vmdk", "a.vmdk", "subformat=twoGbMaxExtentSparse")
    return Case(f, "vmdk", image, image, f.at("a-s001.vmdk"))


@variant
def vmdk_flat(f):
    image = f.convert("vmdk", "a.vmdk", "subformat=monolithicFlat")
    return Case(f, "vmdk", image, image, f.at("a-flat.vmdk"))


@variant
def vmdk_stream_by_qemu(f):
    return Case(f, "vmdk", f.convert("vmdk", "a.vmdk",
                                     "subformat=streamOptimized"))


@variant
def vmdk_stream(f):
    n = 128 * 40 + 37
    s = fill(f, Stream(n, text=descriptor([line("SPARSE", n, "a.vmdk")],
                                          "streamOptimized")))
    return Case(f, "vmdk", s.build().write(f.at("a.vmdk")),
                truth=f.truth(s.expect()))


@variant
def vmdk_one_directory(f):
    n = 16 * 1100
    h = fill(f, Hosted(n, 16, flags=1, text=descriptor(
        [line("SPARSE", n, "a.vmdk")])), every=11)
    return Case(f, "vmdk", h.build().write(f.at("a.vmdk")),
                truth=f.truth(h.expect()))


def vmdk_base(f, n):
    e = Expect(n * 512)
    e.put(0, f.noise(n * 512))
    e.write(f.at("base-flat.vmdk"))
    f.write("base.vmdk", descriptor([line("VMFS", n, "base-flat.vmdk")],
                                    "vmfs", cid=0x51))
    return e


@variant
def vmdk_child(f):
    n = 16 * 200
    base = vmdk_base(f, n)
    h = fill(f, Hosted(n, 16, version=2, flags=7, text=descriptor(
        [line("SPARSE", n, "a.vmdk")], parent=0x51, cid=9,
        hint="base.vmdk")))
    return Case(f, "vmdk", h.build().write(f.at("a.vmdk")),
                truth=f.truth(h.expect(below=base)))


@variant
def vmdk_many_extents(f):
    pool = f.write("pool.raw", f.noise(900 * 512))
    h = fill(f, Hosted(8 * 40, 8))
    h.build().write(f.at("s.vmdk"))
    e = Expect((200 + 50 + h.capacity + 300) * 512)
    with open(pool, "rb") as p:
        data = p.read()
    e.put(0, data[100 * 512:300 * 512])
    for off, piece in h.expect().chunks:
        e.put(250 * 512 + off, piece)
    e.put((250 + h.capacity) * 512, data[300 * 512:600 * 512])
    f.write("a.vmdk", descriptor(
        [line("FLAT", 200, "pool.raw", 100), line("ZERO", 50),
         line("SPARSE", h.capacity, "s.vmdk"),
         line("FLAT", 300, "pool.raw", 300)], "twoGbMaxExtentFlat"))
    return Case(f, "vmdk", f.at("a.vmdk"), f.at("a.vmdk"), f.at("s.vmdk"),
                pool, truth=f.truth(e))


def delta(f, image, kind, create_type):
    n = image.capacity
    base = vmdk_base(f, n)
    fill(f, image).build().write(f.at("a-delta.vmdk"))
    f.write("a.vmdk", descriptor([line(kind, n, "a-delta.vmdk")], create_type,
                                 parent=0x51, cid=9, hint="base.vmdk"))
    return Case(f, "vmdk", f.at("a.vmdk"), f.at("a.vmdk"),
                f.at("a-delta.vmdk"), truth=f.truth(image.expect(below=base)))


@variant
def vmdk_cowd_child(f):
    return delta(f, Cowd(9000, 1), "VMFSSPARSE", "vmfsSparse")


@variant
def vmdk_sesparse_child(f):
    return delta(f, SeSparse(8 * 600), "SESPARSE", "seSparse")


@variant
def vmdk_cowd_alone(f):
    c = fill(f, Cowd(9000, 1))
    return Case(f, "vmdk", c.build().write(f.at("a.vmdk")),
                truth=f.truth(c.expect()))


@variant
def vmdk_redo(f):
    n = 5000
    e = Expect(n * 512)
    e.put(0, f.noise(n * 512))
    e.write(f.at("base.raw"))
    c = fill(f, Cowd(n, 1, parent="base.raw"))
    return Case(f, "vmdk", c.build().write(f.at("a.REDO")),
                truth=f.truth(c.expect(below=e)))


# VHDX, VHD


def vhdx_of(f, name, size=5 * MIB, parent=None, **kwargs):
    v = Vhdx(f.at(name), size, MIB, parent=parent, **kwargs)
    for i in range(-(-size // MIB)):
        if i % 3 != 2 or name == "base.vhdx":
            v.full(i, {0: f.noise(MIB)})
    return v


@variant
def vhdx(f):
    v = vhdx_of(f, "a.vhdx").close()
    return Case(f, "vhdx", v.path, truth=f.truth(v.expect))


@variant
def vhdx_child(f):
    base = vhdx_of(f, "base.vhdx").close()
    v = Vhdx(f.at("a.vhdx"), 5 * MIB, MIB, parent=base,
             locator=[("relative_path", ".\\base.vhdx")])
    v.full(0, {0: f.noise(MIB)})
    v.partial(1, {n: f.noise(512) for n in range(0, 2048, 3)})
    v.full(3, {0: f.noise(MIB)})
    v.close()
    return Case(f, "vhdx", v.path, truth=f.truth(v.expect))


@variant
def vhdx_logged(f):
    v = vhdx_of(f, "a.vhdx")
    at, data = v.bat_sector(0, {2: v.bat[v.index(1)]})
    v.bat[v.index(1)], moved = 0, v.bat[v.index(1)]
    data = bytearray(data)
    struct.pack_into("<Q", data, 8 * v.index(2), 0)
    struct.pack_into("<Q", data, 8 * v.index(1), moved)
    v.log([Entry(5, [(at, bytes(data))])])
    v.close()
    return Case(f, "vhdx", v.path, truth=f.truth(v.expect))


@variant
def vhd(f):
    v = Vhd(f.at("a.vhd"), 3 * MIB, block=256 * KIB)
    for i in range(12):
        if i % 3 != 2:
            v.full(i, f.noise(256 * KIB))
    v.close()
    return Case(f, "vhd", v.path, truth=f.truth(v.expect))


@variant
def vhd_fixed(f):
    v = Vhd(f.at("a.vhd"), 1 * MIB, kind=FIXED)
    v.fixed_data(0, f.noise(MIB))
    v.close()
    return Case(f, "vhd", v.path, truth=f.truth(v.expect))


@variant
def vhd_child(f):
    base = Vhd(f.at("base.vhd"), 2 * MIB, block=256 * KIB)
    for i in range(8):
        base.full(i, f.noise(256 * KIB))
    base.close()
    v = Vhd(f.at("a.vhd"), 2 * MIB, kind=DIFFERENCING, block=256 * KIB,
            parent=base, name="base.vhd",
            locators=[(vhd_build.W2RU, vhd_build.utf16(".\\base.vhd"))])
    for i in (0, 3, 4):
        v.write(i, {n: f.noise(512) for n in range(0, 512, 3)})
    v.full(6, f.noise(256 * KIB))
    v.close()
    return Case(f, "vhd", v.path, truth=f.truth(v.expect))


# VDI


def vdi_of(f, name, **kwargs):
    v = Vdi(f.at(name), 20 * 64 * KIB, block=64 * KIB, **kwargs)
    for g in range(20):
        if g % 3 != 2 or name == "base.vdi":
            v.data(g, f.noise(64 * KIB))
    return v


@variant
def vdi(f):
    v = vdi_of(f, "a.vdi")
    return Case(f, "vdi", v.path, truth=f.truth(v.finish()))


@variant
def vdi_version_0(f):
    v = vdi_of(f, "a.vdi", version=(0, 2))
    return Case(f, "vdi", v.path, truth=f.truth(v.finish()))


@variant
def vdi_by_qemu(f):
    return Case(f, "vdi", f.convert("vdi", "a.vdi"))


@variant
def vdi_child(f):
    uid, modify = vdi_build.ident(f.rng), vdi_build.ident(f.rng)
    base = vdi_of(f, "base.vdi", uid=uid, modify=modify)
    expect = base.finish().copy()
    v = vdi_of(f, "a.vdi", kind=DIFF, parent=uid, parent_modify=modify)
    for off, data in v.finish().chunks:
        expect.put(off, data)
    return Case(f, "vdi", v.path, truth=f.truth(expect))


# ploop


def ploop_of(f, name, every=3, **kwargs):
    d = Delta(f.at(name), 64 * KIB * 20, tracks=128, **kwargs)
    for g in range(20):
        if g % every != every - 1:
            d.data(g, f.noise(d.cs))
    return d


@variant
def ploop(f):
    d = ploop_of(f, "a.hds")
    return Case(f, "ploop", d.path, truth=f.truth(d.finish()))


@variant
def ploop_v1(f):
    d = ploop_of(f, "a.hds", magic=V1)
    return Case(f, "ploop", d.path, truth=f.truth(d.finish()))


@variant
def ploop_bundle(f):
    base = ploop_of(f, "base.hds", every=30)
    e = base.finish()
    top = ploop_of(f, "top.hds", base=e)
    e = top.finish()
    ident = "{11111111-2222-3333-4444-555555555555}"
    b = Bundle(f.path, top.size)
    b.storages = [(0, top.size // 512, [(ident, "Compressed", "base.hds"),
                                        (TOP, "Compressed", "top.hds")])]
    b.shots = [(ident, NIL), (TOP, ident)]
    b.top = TOP
    xml = b.finish()
    return Case(f, "ploop", xml, xml, top.path, truth=f.truth(e))


@variant
def ploop_split(f):
    n = 64 * KIB * 20
    e = Expect(2 * n)
    parts = [ploop_of(f, f"p{i}.hds") for i in range(2)]
    for i, d in enumerate(parts):
        for off, data in d.finish().chunks:
            e.put(i * n + off, data)
    b = Bundle(f.path, 2 * n)
    b.storages = [(i * n // 512, (i + 1) * n // 512,
                   [(TOP, "Compressed", f"p{i}.hds")]) for i in range(2)]
    b.shots = [(TOP, NIL)]
    xml = b.finish()
    return Case(f, "ploop", xml, xml, truth=f.truth(e))


# The rest


@variant
def luks(f):
    status, _, said = run_with_key(
        ["qemu-img", "convert", "--object", "secret,id=s,data=secret",
         "-f", "raw", "-O", "luks", "-o", "key-secret=s,iter-time=10",
         f.raw("truth", 256 * KIB), f.at("a")])
    if status:
        sys.exit(said.strip())
    return Case(f, "luks", f.at("a"))


@variant
def dmg(f):
    return dmg_of(f, False)


@variant
def dmg_fork(f):
    return dmg_of(f, True)


def dmg_of(f, fork):
    d = Dmg(f.at("a.dmg"), 1000, fork=fork)
    d.put(ZLIB, 0, f.noise(100 * 512))
    d.put(RAW, 100, f.noise(200 * 512))
    d.entry(DMG_ZERO, 300, 100)
    d.entry(IGNORE, 400, 100)
    d.list(500)
    d.put(ZLIB, 500, f.noise(300 * 512))
    d.put(RAW, 800, f.noise(200 * 512))
    return Case(f, "dmg", d.path, truth=f.truth(d.finish()))


@variant
def cloop(f):
    blocks = [f.noise(65536) for _ in range(20)]
    streams = [zlib.compress(b) for b in blocks]
    places = [136 + 8 * 21]
    for s in streams:
        places.append(places[-1] + len(s))
    f.write("truth", b"".join(blocks))
    return Case(f, "cloop", f.write(
        "a", b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") +
        struct.pack(">II21Q", 65536, 20, *places) + b"".join(streams)))


@variant
def bochs(f):
    extent, catalog, size = 32 * KIB, 512, 40 * 32 * KIB
    head = struct.pack("<32s16s16sIIIIIIQ", b"Bochs Virtual HD Image",
                       b"Redolog", b"Growing", 0x20000, 512, catalog,
                       extent // 4096, extent, 0, size).ljust(512, b"\0")
    e = Expect(size)
    entries, body = [2**32 - 1] * catalog, b""
    for n, g in enumerate(g for g in range(40) if g % 3 != 2):
        data = f.noise(extent)
        entries[g] = n
        body += (b"\xff" * (extent // 4096)).ljust(512, b"\0") + data
        e.put(g * extent, data)
    return Case(f, "bochs", f.write(
        "a", head + struct.pack(f"<{catalog}I", *entries) + body),
        truth=f.truth(e))


# Where in a file is what? Of sound files, from their own tables.


class Fields:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.data = f.read()
        self.ranges = []    # (start, end, name), the first that fits counts

    def add(self, start, length, name):
        self.ranges.append((start, start + length, name))

    def header(self, base, names):
        """names: {offset: name}, each up to the next."""
        places = sorted(names) + [max(names) + 16]
        for at, end in zip(places, places[1:]):
            self.add(base + at, end - at, names[at])

    def get(self, fmt, at):
        return struct.unpack_from(fmt, self.data, at)[0]

    def array(self, fmt, at, n):
        return [self.get(fmt, at + i * struct.calcsize(fmt))
                for i in range(n)]

    def name(self, place):
        for start, end, name in self.ranges:
            if start <= place < end:
                return name
        return "other"


def fields_qcow2(f):
    f.header(0, {0: "magic", 4: "version", 8: "backing offset",
                 16: "backing size", 20: "cluster_bits", 24: "size",
                 32: "crypt_method", 36: "l1_size", 40: "l1_table_offset",
                 48: "refcount table", 60: "snapshots",
                 72: "incompatible_features", 80: "compatible_features",
                 96: "refcount_order", 100: "header_length",
                 104: "compression type"})
    cs = 1 << f.get(">I", 20)
    f.add(120, cs - 120, "extensions and names")
    l1, n = f.get(">Q", 40), f.get(">I", 36)
    f.add(l1, 8 * n, "L1 entry")
    size = 16 if f.get(">I", 4) > 2 and f.get(">Q", 72) & 16 else 8
    for e in f.array(">Q", l1, n):
        if e & (1 << 56) - 512:
            at = e & (1 << 56) - 512
            for i in range(0, cs, 16):
                f.add(at + i, 8, "L2 entry")
                f.add(at + i + 8, 8,
                      "L2 entry" if size == 8 else "subcluster bitmap")
    return f


def fields_qcow(f):
    f.header(0, {0: "magic", 4: "version", 8: "backing offset",
                 16: "backing size", 20: "mtime", 24: "size",
                 32: "cluster_bits", 33: "l2_bits", 34: "unused",
                 36: "crypt_method", 40: "l1_table_offset"})
    bits, l2 = f.get("B", 32), f.get("B", 33)
    n = -(-f.get(">Q", 24) // (1 << bits + l2))
    at = f.get(">Q", 40)
    f.add(at, 8 * n, "L1 entry")
    for e in f.array(">Q", at, n):
        if e:
            f.add(e, 8 << l2, "L2 entry")
    return f


def fields_qed(f):
    f.header(0, {0: "magic", 4: "cluster_size", 8: "table_size",
                 12: "header_size", 16: "features", 24: "compat_features",
                 32: "autoclear_features", 40: "l1_table_offset",
                 48: "image_size", 56: "backing name"})
    table = f.get("<I", 4) * f.get("<I", 8)
    at = f.get("<Q", 40)
    f.add(at, table, "L1 entry")
    for e in f.array("<Q", at, table // 8):
        if e:
            f.add(e, table, "L2 entry")
    return f


def fields_vmdk(f):
    if os.path.basename(f.path) == "pool.raw":
        return f
    if f.data[:4] == b"KDMV":
        f.header(0, {0: "magic", 4: "version", 8: "flags", 12: "capacity",
                     20: "grainSize", 28: "descriptorOffset",
                     36: "descriptorSize", 44: "numGTEsPerGT",
                     48: "rgdOffset", 56: "gdOffset", 64: "overHead",
                     72: "unclean", 73: "line ends", 77: "compression"})
        f.add(512 * f.get("<Q", 28), 512 * f.get("<Q", 36), "descriptor")
        per, gd = f.get("<I", 44), f.get("<Q", 56)
        n = -(-f.get("<Q", 12) // (f.get("<Q", 20) * per))
        places = [("redundant ", f.get("<Q", 48)), ("", gd)]
        if gd == 2**64 - 1:
            f.add(len(f.data) - 1536, 1536, "footer")
            places = [("", f.get("<Q", len(f.data) - 1024 + 56))]
        for which, at in places:
            if at:
                f.add(512 * at, 4 * n, which + "grain directory")
                for e in f.array("<I", 512 * at, n):
                    f.add(512 * e, 4 * per, which + "grain table")
    elif f.data[:4] == b"COWD":
        f.header(0, {0: "magic", 4: "version", 8: "flags", 12: "capacity",
                     16: "grainSize", 20: "gdOffset", 24: "numGDEntries",
                     28: "freeSector", 32: "parent or geometry"})
        f.add(32, 1028, "parent or geometry")
        f.add(1060, 988, "rest of the header")
        at, n = 512 * f.get("<I", 20), f.get("<I", 24)
        f.add(at, 4 * n, "grain directory")
        for e in f.array("<I", at, n):
            f.add(512 * e, 4 * 4096, "grain table")
    elif f.data[:4] == b"\xbe\xba\xfe\xca":
        f.header(0, {0: "magic", 8: "version", 16: "capacity",
                     24: "grainSize", 32: "tableSize", 40: "flags",
                     80: "places"})
        f.add(96, 112, "places")
        f.add(512 * f.get("<Q", 128), 512 * f.get("<Q", 136),
              "grain directory")
        f.add(512 * f.get("<Q", 144), 512 * f.get("<Q", 152), "grain table")
    else:
        f.add(0, len(f.data), "descriptor")
    return f


def fields_vhdx(f):
    for at, name in ((0, "identifier"), (65536, "header"), (131072, "header"),
                     (196608, "region table"), (262144, "region table"),
                     (MIB, "log")):
        f.add(at, 65536, name)
    f.add(2 * MIB, 65536, "metadata table")
    for i in range(f.get("<H", 2 * MIB + 10)):
        at = 2 * MIB + 32 + 32 * i
        f.add(2 * MIB + f.get("<I", at + 16), f.get("<I", at + 20),
              ["file parameters", "virtual disk size", "logical sector size",
               "physical sector size", "disk id", "parent locator"][i])
    f.add(3 * MIB, MIB, "BAT entry")
    f.add(4 * MIB, len(f.data), "sector bitmap")
    return f


def fields_vhd(f):
    f.add(0, 512, "footer")
    f.add(len(f.data) - 512, 512, "footer")
    if f.data[:8] == b"conectix":
        f.add(512, 1024, "dynamic header")
        f.add(1536, 4 * f.get(">I", 512 + 28), "BAT entry")
        if f.get(">I", 60) == 4:
            f.add(2048, 1024, "parent locator")
        f.add(2048, len(f.data), "sector bitmap")
    return f


def fields_vdi(f):
    if f.get("<I", 0x44) >> 16 == 0:
        f.header(0, {0: "text", 0x40: "signature", 0x44: "version",
                     0x48: "image type", 0x4c: "flags", 0x150: "geometry",
                     0x160: "cbDisk", 0x168: "cbBlock", 0x16c: "cBlocks",
                     0x170: "cBlocksAllocated", 0x174: "uuid"})
        f.add(0x174, 48, "uuid")
        f.add(0x1a4, 4 * f.get("<I", 0x16c), "block map entry")
        return f
    f.header(0, {0: "text", 0x40: "signature", 0x44: "version",
                 0x48: "header size", 0x4c: "image type", 0x50: "flags",
                 0x154: "offBlocks", 0x158: "offData", 0x15c: "geometry",
                 0x170: "cbDisk", 0x178: "cbBlock", 0x17c: "cbBlockExtra",
                 0x180: "cBlocks", 0x184: "cBlocksAllocated", 0x188: "uuid"})
    f.add(0x188, 64, "uuid")
    f.add(f.get("<I", 0x154), 4 * f.get("<I", 0x180), "block map entry")
    return f


def fields_ploop(f):
    if f.data[:1] == b"<":
        f.add(0, len(f.data), "DiskDescriptor.xml")
        return f
    f.add(64, 4 * f.get("<I", 32), "BAT entry")
    f.header(0, {0: "magic", 16: "type", 20: "geometry", 28: "tracks",
                 32: "bat_entries", 36: "nb_sectors", 44: "in_use",
                 48: "data_off", 52: "flags", 56: "ext_off"})
    return f


def fields_dmg(f):
    at = len(f.data) - 512
    f.header(at, {0: "magic", 24: "data fork", 40: "resource fork",
                  56: "segments", 216: "property list", 492: "sector count"})
    f.add(at, 512, "rest of the trailer")
    f.add(0, at, "block lists")
    return f


def fields_luks(f):
    f.header(0, {0: "magic", 8: "cipher", 40: "mode", 72: "hash",
                 104: "payload offset", 108: "key bytes", 112: "digest",
                 168: "uuid"})
    f.add(208, 384, "key slot")
    f.add(592, 512 * f.get(">I", 104) - 592, "key material")
    return f


def fields_cloop(f):
    f.header(0, {0: "magic", 128: "block_size", 132: "num_blocks"})
    f.add(136, 1 << 20, "places")
    return f


def fields_bochs(f):
    f.header(0, {0: "magic", 32: "type", 48: "subtype", 64: "version",
                 68: "header size", 72: "catalog size", 76: "bitmap size",
                 80: "extent size", 84: "timestamp", 88: "disk size"})
    f.add(512, 4 * f.get("<I", 72), "catalog entry")
    f.add(512, len(f.data), "sector bitmap")
    return f


# What a reader that looks at nothing but what it uses does not see:
# (format, field): (what may come of it, must check find it, why).
#
# A pointer that is not checksummed may lead to another place that is as good,
# and nothing but a walk over all of them tells that two lead to one: that is
# check's. Marks beside the data (bitmaps, "zero" bits) are told nowhere else.
# Sizes that are told once can lose a bit inside the last unit of the tables.
POINTER = (("other", "zeroes"), True, "leads to another unit that is there")
MARK = (("zeroes", "other"), False, "the one mark that says what is written")
ONCE = (("size",), False, "told once; as many units all the same")
UNSEEN = {
    ("qcow2", "L2 entry"): (
        ("other", "zeroes"), False, "a pointer, which check finds by "
        "refcounts; but its bit 0 (reads as zeroes) is a mark"),
    ("qcow2", "subcluster bitmap"): MARK,
    ("qcow2", "size"): ONCE,
    ("qcow", "L2 entry"): POINTER,
    ("qcow", "l1_table_offset"): (
        ("zeroes",), False, "leads to zeroes: a table of holes, and qcow "
        "keeps no account of what is used"),
    ("qcow", "size"): ONCE,
    ("qed", "L2 entry"): (
        ("other", "zeroes"), False, "a pointer; but 1 (reads as zeroes) "
        "where 0 was is a mark"),
    ("qed", "image_size"): ONCE,
    ("vmdk", "grain table"): (
        ("other", "zeroes"), False, "a pointer, which check finds by overlaps "
        "and by the redundant table; but entries that mean zeroes (1; types "
        "of seSparse) are marks"),
    ("vmdk", "grain directory"): POINTER,
    ("vmdk", "descriptor"): (
        ("size", "other"), False, "a digit of the size or the place of a flat "
        "extent, which has no header that has it too; check finds what no "
        "extent has, if the file is one extent's"),
    ("vmdk", "the end"): (
        ("size", "other"), True, "a descriptor that ends at a line's end has "
        "lost nothing that can be told from what was never there"),
    ("vhdx", "BAT entry"): (
        ("zeroes", "other"), False, "a pointer, which check finds by "
        "overlaps, with marks: check finds blocks of zeroes that keep a "
        "place, but not a block of a child that is there in parts by the "
        "bitmap, or is zeroes where the parent was"),
    ("vhdx", "sector bitmap"): MARK,
    ("vhdx", "virtual disk size"): ONCE,
    ("vhd", "BAT entry"): POINTER,
    ("vhd", "sector bitmap"): MARK,
    ("vdi", "block map entry"): POINTER,
    ("vdi", "offData"): (
        ("other",), True, "moves all blocks by sectors: some is behind the "
        "end, but not in front of it"),
    ("vdi", "cbBlockExtra"): (("other",), True, "moves blocks as offData"),
    ("vdi", "cbDisk"): ONCE,
    ("ploop", "BAT entry"): POINTER,
    ("ploop", "tracks"): (
        ("other",), True, "version 1 has clusters of any size at any sector"),
    ("ploop", "nb_sectors"): (("size",), True, "the BAT is longer then"),
    ("dmg", "block lists"): (
        ("other",), True, "a raw chunk that leads to other data"),
    ("bochs", "catalog entry"): POINTER,
    ("bochs", "sector bitmap"): MARK,
    ("bochs", "disk size"): ONCE,
    ("luks", "payload offset"): (
        ("other", "size"), False, "told once; nothing in the volume tells "
        "right from wrong"),
    ("luks", "the end"): (
        ("size",), False, "a volume is as long as its file, as raw disks are"),
    ("cloop", "block_size"): (
        ("size",), False, "blocks then cannot be read: all is EIO"),
}


def judge(fmt, file, mode, said):
    """What went wrong, and of which field, without what UNSEEN has."""
    fields = globals()["fields_" + fmt](Fields(file))
    for text in said:
        what, place, bit, found, *rest = text.split()
        field = fields.name(int(place)) if mode == "flip" else "the end"
        kinds, must_find, _ = UNSEEN.get((fmt, field), ((), True, ""))
        if what in kinds and (found == "found" or not must_find):
            continue
        yield f"{fmt}: {field}: {what}, {found}: bit {bit} of {place} " + \
            " ".join(rest)


def main():
    environment("DAMAGE")
    full = os.environ.get("PLATTER_FULL", "0") != "0"
    seed = os.environ.get("PLATTER_SEED", "1")
    flips, cuts = ("1000", "200") if full else ("100", "20")
    names = sys.argv[1:] or list(VARIANTS)
    top = tempfile.mkdtemp(prefix="platter-damage-")
    bad = 0
    for name in names:
        path = os.path.join(top, name)
        os.mkdir(path)
        case = VARIANTS[name](Folder(path, name))
        for file in case.damaged:
            for mode, count in (("flip", flips), ("cut", cuts)):
                p = subprocess.run(
                    [os.environ["DAMAGE"], case.fmt, case.image, file,
                     case.truth, mode, seed, count],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    check=False)
                what = f"{name} {os.path.basename(file)} {mode}"
                if p.returncode:
                    print(f"not ok: {what}: {p.returncode}: {p.stderr}")
                    bad += 1
                    continue
                *lines, last = p.stdout.splitlines()
                print(f"{what}: {last}, unseen {len(lines)}", flush=True)
                for text in judge(case.fmt, file, mode, lines):
                    print(f"not ok: {what}: {text}")
                    bad += 1
        shutil.rmtree(path)
    shutil.rmtree(top)
    print(f"{len(names)} variants, {bad} not ok")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-3-Clause
"""VMDK disks that qemu-img does not make, or does not read right, each with
what it must read as, or with the refusal that it must meet. Built by
vmdk_build alone."""

import os

from qcow2_build import Expect
from qcow2_cases import Built, Folder
from vmdk_build import (GD_AT_END, NO_PARENT, SECTOR, ZERO, Cowd, Hosted,
                        SeSparse, Stream, descriptor, flat)

KIB, MIB = 1024, 1024 * 1024

CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


class Vmdks(Folder):
    def serve(self, name, expect, cluster=65536, **kwargs):
        self.built.append(Built(name, self.at(name), expect, fmt="vmdk",
                                sound=False, cluster=cluster, **kwargs))

    def refuse(self, name, pattern, **kwargs):
        self.built.append(Built(name, self.at(name), refusal=pattern,
                                fmt="vmdk", **kwargs))

    def sparse(self, name, image, size=None, **kwargs):
        image.build().write(self.at(name), size)
        self.serve(name, image.expect(), cluster=image.gb, **kwargs)

    def fill(self, image, every=3, first=0, count=40):
        """Some grains of data, in runs."""
        last = -(-image.capacity // image.grain) - 1
        wanted = [g for g in range(first, last + 1) if g // every % 2 == 0]
        for g in sorted(set(wanted[:count] + wanted[-2:] + [last])):
            image.grains[g] = self.noise(image.gb)
        return image

    def disk(self, name, size):
        """A flat file of noise and its Expect."""
        data = self.noise(size)
        flat(self.at(name), data)
        e = Expect(size)
        e.put(0, data)
        return e


def line(kind, n, name=None, offset=None, access="RW"):
    words = [access, str(n), kind]
    if name is not None:
        words.append(f'"{name}"')
    if offset is not None:
        words.append(str(offset))
    return " ".join(words)


# Hosted sparse files


@case
def hosted_grains(f):
    """Grain sizes, disks that are no multiple of them, short tables."""
    for grain in (1, 8, 16, 128, 4096):
        capacity = grain * 70 + (grain // 2 or 0) + 1
        f.sparse(f"grain{grain}.vmdk", f.fill(Hosted(capacity, grain)))
    f.sparse("tables-of-64.vmdk",
             f.fill(Hosted(8 * 1000, 8, entries=64), count=300))
    f.sparse("tables-of-100.vmdk",
             f.fill(Hosted(8 * 1000, 8, entries=100), count=300))
    for version in (2, 3):
        f.sparse(f"version{version}.vmdk",
                 f.fill(Hosted(128 * 20, version=version)))
    h = f.fill(Hosted(8 * 500, 8), count=200)
    h.order = f.random.sample(sorted(h.grains), len(h.grains))
    f.sparse("shuffled.vmdk", h)
    h = f.fill(Hosted(128 * 600), count=30)
    h.no_tables = (1,)
    for g in list(h.grains):
        if g >= 512:
            del h.grains[g]
    f.sparse("no-second-table.vmdk", h)
    f.sparse("empty.vmdk", Hosted(128 * 3000 + 5))


@case
def hosted_zero_entries(f):
    h = f.fill(Hosted(8 * 200, 8, version=2, flags=7))
    for g in (1, 4, 5, 60, 61):
        h.grains[g] = ZERO
    f.sparse("zero.vmdk", h)
    # Without the flag it is the grain in sector 1, where the text is.
    h = Hosted(8 * 20, 8, flags=3, text=descriptor(
        [line("SPARSE", 160, "x.vmdk")]))
    h.grains[3] = 1
    h.grains[9] = f.noise(h.gb)
    h.build().write(f.at("one.vmdk"))
    e = h.expect()
    e.fail(3 * h.gb, h.gb)
    f.serve("one.vmdk", e, cluster=h.gb)
    # A directory entry of 1: none of the table's grains.
    h = Hosted(8 * 1024, 8, version=2, flags=5)
    h.grains[700] = f.noise(h.gb)
    h.pokes = [("gd", 0, 1, 4)]
    f.sparse("zero-table.vmdk", h)


@case
def hosted_redundant(f):
    def image(**kwargs):
        return f.fill(Hosted(8 * 1400, 8, **kwargs), count=500)

    for name, poke in (("table-past-end", ("gd", 4, 0x7FFFFFFF, 4)),
                       ("table-zeroed", ("gd", 0, 0, 4)),
                       ("grain-past-end", ("gd-tables", 4, 0x7FFFFFFF, 4))):
        h = image()
        h.pokes = [poke]
        f.sparse(name + ".vmdk", h)
    for name, gd in (("directory-past-end", 1 << 40), ("no-directory", 0),
                     ("directory-wraps", 2**64 - 2)):
        f.sparse(name + ".vmdk", image(fields={"gd": gd}))
    # The second copy damaged, the first one good.
    f.sparse("second-past-end.vmdk", image(fields={"rgd": 1 << 40}))
    h = image()
    h.pokes = [("rgd", 0, 0x7FFFFFFF, 4), ("rgd", 8, 0, 4)]
    f.sparse("second-table-past-end.vmdk", h)
    image(fields={"gd": 1 << 40}, flags=1).build().write(f.at("lost.vmdk"))
    f.refuse("lost.vmdk", "grain directory at .* does not lie inside")


@case
def hosted_damage(f):
    h = f.fill(Hosted(128 * 40, flags=1), every=40, count=10)
    h.build()
    end = (h.where[9] + 128) * SECTOR
    f.fill(h)
    h.grains = {g: h.grains[g] for g in range(10)}
    h.grains[20] = 0x40000000
    h.grains[21] = 2**32 - 1
    # Cut in the last grain: what is missing of it cannot be read.
    h.build().write(f.at("grains-past-end.vmdk"), end - 1000)
    e = h.expect()
    e.fail(10 * h.gb - 1000, 1000)
    e.fail(20 * h.gb, h.gb)
    e.fail(21 * h.gb, h.gb)
    f.serve("grains-past-end.vmdk", e)
    h = f.fill(Hosted(8 * 1100, 8, flags=1), count=300)
    h.pokes = [("gd", 4, 0x7FFFFFFF, 4)]
    h.build().write(f.at("table-past-end.vmdk"))
    e = h.expect()
    for g in range(512, 1024):
        e.fail(g * h.gb, h.gb)
    f.serve("table-past-end.vmdk", e, cluster=h.gb)


@case
def hosted_header(f):
    """What the header must not say."""
    for name, fields, pattern in (
            ("version0", {"version": 0}, "version 0 is not supported"),
            ("version4", {"version": 4}, "version 4 is not supported"),
            ("grain0", {"grain": 0}, "grain of 0 sectors"),
            ("grain-3", {"grain": 3}, "not a power of two"),
            ("grain-huge", {"grain": 1 << 22}, "grain of 4194304 sectors"),
            ("entries0", {"entries": 0}, "table of 0 entries"),
            ("entries513", {"entries": 513}, "table of 513 entries"),
            ("capacity-huge", {"capacity": 1 << 60}, "over the limit"),
            ("directory-huge", {"capacity": 1 << 50}, "over the limit"),
            ("compression2", {"compression": 2}, "compression 2"),
            ("compressed-by-nothing", {"flags": 3 | 1 << 16},
             "compressed, but by no method"),
            ("big-compressed-grain", {"grain": 8192, "compression": 1},
             "over the limit of 2097152"),
            ("unix2dos", {"newlines": b"\r\n \r"}, "line ends"),
            ("dos2unix", {"newlines": b"\n \n\0"}, "line ends"),
            ("no-footer", {"gd": GD_AT_END}, "no footer"),
            ("descriptor-past-end", {"text_at": 1 << 40, "text_sectors": 1},
             "descriptor at .* ends past"),
            ("descriptor-huge", {"text_at": 1, "text_sectors": 1 << 50},
             "over the limit of 1048575")):
        Hosted(128 * 9, fields=fields).build().write(f.at(name + ".vmdk"))
        f.refuse(name + ".vmdk", pattern)
    f.write("short.vmdk", Hosted(128).header()[:70])
    f.refuse("short.vmdk", "cut off after 70 bytes")


@case
def hosted_embedded(f):
    """Its descriptor names the file as it was once called."""
    h = f.fill(Hosted(128 * 30, text=descriptor(
        [line("SPARSE", 128 * 30, "C:\\VMs\\old name.vmdk")])))
    f.sparse("renamed.vmdk", h)
    # Its room left empty is none: so QEMU makes extents.
    f.sparse("no-text.vmdk", f.fill(Hosted(128 * 30, text=b"")))
    # Zeroes behind it, and a file.
    n = 128 * 11
    h = f.fill(Hosted(n, text=descriptor(
        [line("ZERO", 77), line("SPARSE", n, "gone.vmdk"),
         line("FLAT", 9, "tail.raw", 1)])))
    h.build().write(f.at("among-others.vmdk"))
    tail = f.noise(10 * SECTOR)
    f.write("tail.raw", tail)
    e = Expect((77 + n + 9) * SECTOR)
    for off, data in h.expect().chunks:
        e.put(77 * SECTOR + off, data[:n * SECTOR - off])
    e.put((77 + n) * SECTOR, tail[SECTOR:])
    f.serve("among-others.vmdk", e, cluster=SECTOR)
    # A header that is only the descriptor's envelope.
    base = f.disk("whole.raw", 100 * SECTOR)
    h = Hosted(0, text=descriptor([line("FLAT", 100, "whole.raw", 0)],
                                  "monolithicFlat"))
    h.build().write(f.at("envelope.vmdk"))
    f.serve("envelope.vmdk", base)
    h = Hosted(128, text=descriptor([line("SPARSE", 128, "x")], "custom"))
    h.build().write(f.at("custom.vmdk"))
    f.serve("custom.vmdk", h.expect())


# streamOptimized


def stream(f, capacity, count=30, every=3, **kwargs):
    s = Stream(capacity, **kwargs)
    f.fill(s, every=every, count=count)
    for g in list(s.grains):
        # Some that shrink, some that do not.
        if g % 3:
            s.grains[g] = f.text(s.gb)
    return s


@case
def streams(f):
    n = 128 * 90 + 37
    text = descriptor([line("SPARSE", n, "s.vmdk")], "streamOptimized")
    f.sparse("footer.vmdk", stream(f, n, text=text))
    f.sparse("no-descriptor.vmdk", stream(f, n))
    f.sparse("header-knows.vmdk", stream(f, n, at_end=False, text=text))
    s = stream(f, n, at_end=False)
    s.footer = False
    f.sparse("no-footer.vmdk", s)
    f.sparse("short-last.vmdk", stream(f, n, short_last=True))
    f.sparse("stored.vmdk", stream(f, n, level=0))
    f.sparse("no-markers.vmdk", stream(f, n, markers=False))
    for grain in (8, 64, 4096):
        f.sparse(f"grain{grain}.vmdk", stream(f, grain * 50 + 3, grain=grain))
    s = stream(f, 128 * 3000, count=5)
    f.sparse("tables-left-out.vmdk", s)
    s = stream(f, n)
    s.order = f.random.sample(sorted(s.grains), len(s.grains))
    s.gap = 2
    f.sparse("any-order.vmdk", s)
    for name, padding in (("padded", bytes(20 * SECTOR)),
                          ("padded-oddly", bytes(1234))):
        s = stream(f, n)
        s.padding = padding
        f.sparse(name + ".vmdk", s)


@case
def stream_damage(f):
    n = 128 * 20
    s = stream(f, n, every=20)
    good = s.grains[4]
    s.sector_of[4] = 5 * 128
    s.streams[7] = b"\x78\x9c" + f.noise(500)
    s.grains[9] = 0x7FFFFFFF
    s.build().write(f.at("grains.vmdk"))
    e = s.expect()
    assert good
    for g in (4, 7, 9):
        e.fail(g * s.gb, s.gb)
    f.serve("grains.vmdk", e)
    s = stream(f, n)
    image = s.build()
    image.write(f.at("cut.vmdk"), image.end - 3 * SECTOR)
    f.refuse("cut.vmdk", "file's end is missing")
    s = stream(f, n)
    s.footer_fields = {"gd": GD_AT_END}
    s.build().write(f.at("footer-to-footer.vmdk"))
    f.refuse("footer-to-footer.vmdk", "place is in a footer")
    s = stream(f, n)
    s.footer_fields = {"entries": 0}
    s.build().write(f.at("footer-bad.vmdk"))
    f.refuse("footer-bad.vmdk", "table of 0 entries")


# COWD and seSparse


@case
def cowd(f):
    f.sparse("bare.vmdk", f.fill(Cowd(4096 * 2 + 77), every=50, count=3000))
    f.sparse("grain7.vmdk", f.fill(Cowd(7 * 5000 + 3, grain=7), count=900))
    f.sparse("grain128.vmdk", f.fill(Cowd(128 * 40, grain=128)))
    c = f.fill(Cowd(9000, grain=1), every=9, count=700)
    c.build().write(f.at("disk-delta.vmdk"))
    f.write("disk.vmdk", descriptor(
        [line("VMFSSPARSE", 9000, "disk-delta.vmdk")], "vmfsSparse"))
    f.serve("disk.vmdk", c.expect(), cluster=SECTOR, judges=["libvmdk"])
    for name, fields, pattern in (
            ("version2", {"version": 2}, "COWD version 2"),
            ("grain0", {"grain": 0}, "grain of 0 sectors"),
            ("short-directory", {"gd_entries": 1}, "needs 3"),
            ("directory-past-end", {"gd": 0x7FFFFFFF}, "does not lie")):
        Cowd(9000, fields=fields).build().write(f.at(name + ".vmdk"))
        f.refuse(name + ".vmdk", pattern)


@case
def cowd_parents(f):
    """Without a descriptor: the header's own parent."""
    base = f.disk("base.vmdk", 5000 * SECTOR)
    c = f.fill(Cowd(5000, parent="/vmfs/volumes/old place/base.vmdk"),
               every=20, count=1500)
    c.build().write(f.at("base.REDO"))
    f.serve("base.REDO", c.expect(below=base), cluster=SECTOR)
    low = f.fill(Cowd(3000, generation=7), every=7, count=900)
    low.build().write(f.at("low.vmdk"))
    for name, generation in (("good", 7), ("bad", 8)):
        c = f.fill(Cowd(4000, parent="low.vmdk",
                        parent_generation=generation), every=5, count=100)
        c.build().write(f.at(name + ".vmdk"))
        if generation == 7:
            f.serve("good.vmdk",
                    c.expect(below=low.expect(4000 * SECTOR)), cluster=SECTOR)
        else:
            f.refuse("bad.vmdk", "parent's generation is 7, not 8")


def se(f, capacity, **kwargs):
    s = f.fill(SeSparse(capacity, **kwargs), count=60)
    s.grains[1] = ZERO
    s.grains[4] = "unmapped"
    return s


@case
def sesparse(f):
    s = se(f, 8 * 300 + 3)
    f.sparse("bare.vmdk", s)
    # Beyond 4096 grains the index is in two pieces.
    s = se(f, 8 * 4096 * 3)
    for g, at in ((0, 4095), (6, 4096), (12, 4097), (13, 4098), (18, 9000)):
        s.grains[g] = f.noise(s.gb)
        s.at[g] = at
    f.sparse("far.vmdk", s)
    s = se(f, 8 * 4096 * 3)
    s.grains[9000] = f.noise(s.gb)
    s.n_tables = 9
    s.table_at = {0: 5, 2: 0}
    f.sparse("tables-anywhere.vmdk", s)
    f.sparse("grain16.vmdk", se(f, 16 * 300, grain=16))
    s = se(f, 8 * 300)
    s.build().write(f.at("disk-sesparse.vmdk"))
    f.write("disk.vmdk", descriptor(
        [line("SESPARSE", 8 * 300, "disk-sesparse.vmdk")], "seSparse"))
    f.serve("disk.vmdk", s.expect(), cluster=s.gb)
    f.write("not-sesparse.vmdk", descriptor(
        [line("SPARSE", 8 * 300, "disk-sesparse.vmdk")], "vmfsSparse"))
    f.refuse("not-sesparse.vmdk", "declared SPARSE")


@case
def sesparse_damage(f):
    s = se(f, 8 * 4096 * 4)
    for g, entry in ((30, 4 << 60), (31, 15 << 60 | 5), (32, 5),
                     (33, 3 << 60 | 0xFFFFFFFFFFF)):
        s.grains[g] = entry
    s.gd_pokes = {1: 2 << 60, 2: 1 << 60 | 1000, 3: 1 << 60 | 1 << 40}
    s.grains = {g: v for g, v in s.grains.items() if g < 4096}
    s.build().write(f.at("entries.vmdk"))
    e = s.expect()
    for g in (*range(30, 34), *range(4096, 4 * 4096)):
        e.fail(g * s.gb, s.gb)
    f.serve("entries.vmdk", e, cluster=s.gb, reads=400)
    for name, fields, pattern in (
            ("version", {"version": 0x300000001}, "seSparse version"),
            ("flags", {"flags": 1}, "seSparse flags 0x1"),
            ("grain0", {"grain": 0}, "grain of 0"),
            ("table0", {"table": 0}, "table of 0 sectors"),
            ("table65", {"table": 65}, "table of 65 sectors"),
            ("capacity", {"capacity": 1 << 60}, "over the limit"),
            ("volatile", {"volatile": 1 << 40}, "volatile header at"),
            ("volatile-magic", {"volatile": 2}, "wrong magic"),
            ("directory", {"gd": 1 << 40}, "grain directory at"),
            ("directory-small", {"gd_sectors": 0}, "grain directory has 0"),
            ("tables", {"tables": 1 << 40}, "grain tables at"),
            ("grains", {"grains": 2**64 - 1}, "grains at")):
        SeSparse(8 * 300, fields=fields).build().write(f.at(name + ".vmdk"))
        f.refuse(name + ".vmdk", pattern)
    SeSparse(8 * 300, replay=1).build().write(f.at("journal.vmdk"))
    f.refuse("journal.vmdk", "journal was not replayed")


# Descriptors


@case
def extents(f):
    """Kinds, places and accesses of extents, one behind the other."""
    pool = f.noise(100 * SECTOR)
    f.write("pool.raw", pool)
    h = f.fill(Hosted(8 * 37 + 5, 8))
    h.build().write(f.at("s1.vmdk"))
    c = f.fill(Cowd(333))
    c.build().write(f.at("c1.vmdk"))
    n = h.capacity
    e = Expect((20 + 7 + n + 30 + 5 + 333 + 11 + 10) * SECTOR)
    at = 0

    def put(sectors, data=None):
        nonlocal at
        if data is not None:
            e.put(at * SECTOR, data)
        at += sectors

    put(20, pool[:20 * SECTOR])
    put(7)
    for off, data in h.expect().chunks:
        e.put(at * SECTOR + off, data[:n * SECTOR - off])
    put(n)
    put(30, pool[40 * SECTOR:70 * SECTOR])
    put(5)
    for off, data in c.expect().chunks:
        e.put(at * SECTOR + off, data)
    put(333)
    put(11, pool[3 * SECTOR:14 * SECTOR])
    put(10, pool[90 * SECTOR:])
    lines = [line("FLAT", 20, "pool.raw", 0), line("ZERO", 7),
             line("SPARSE", n, "s1.vmdk"),
             line("FLAT", 30, "pool.raw", 40, access="RDONLY"),
             line("FLAT", 5, "/dev/sda", 0, access="NOACCESS"),
             line("SPARSE", 333, "c1.vmdk"), line("VMFS", 11, "pool.raw", 3),
             line("FLAT", 10, "pool.raw", 90)]
    f.write("many.vmdk", descriptor(lines, "twoGbMaxExtentSparse"))
    f.serve("many.vmdk", e, cluster=SECTOR)
    f.write("blank-lines.vmdk", descriptor(
        [x for y in lines for x in ("", y, "   ", "# between")],
        "twoGbMaxExtentSparse"))
    f.serve("blank-lines.vmdk", e, cluster=SECTOR)
    # Whole grains in the header; more than that; and less.
    h2 = f.fill(Hosted(8 * 38, 8))
    h2.build().write(f.at("s2.vmdk"))
    f.write("grains.vmdk", descriptor(
        [line("SPARSE", n, "s2.vmdk"), line("ZERO", 3)],
        "twoGbMaxExtentSparse"))
    f.serve("grains.vmdk", h2.expect().copy(n * SECTOR).copy((n + 3) * SECTOR),
            cluster=SECTOR)
    f.write("larger.vmdk", descriptor(
        [line("SPARSE", 100, "s1.vmdk"), line("ZERO", 3)],
        "twoGbMaxExtentSparse"))
    f.refuse("larger.vmdk", "the descriptor wants")
    f.write("smaller.vmdk", descriptor(
        [line("SPARSE", n + 1, "s1.vmdk"), line("ZERO", 3)],
        "twoGbMaxExtentSparse"))
    f.refuse("smaller.vmdk", "the descriptor wants")


@case
def flats(f):
    base = f.disk("disk-flat.vmdk", 300 * SECTOR + 100)
    for kind, lines in (
            ("monolithicFlat", [line("FLAT", 300, "disk-flat.vmdk", 0)]),
            ("custom", [line("FLAT", 300, "disk-flat.vmdk", 0)]),
            ("fullDevice", [line("FLAT", 300, "disk-flat.vmdk", 0)]),
            ("partitionedDevice", [line("FLAT", 300, "disk-flat.vmdk", 0)]),
            ("vmfs", [line("VMFS", 300, "disk-flat.vmdk")]),
            ("vmfsThin", [line("VMFS", 300, "disk-flat.vmdk")]),
            ("twoGbMaxExtentFlat", [line("FLAT", 300, "disk-flat.vmdk")])):
        f.write(f"{kind}.vmdk", descriptor(lines, kind))
        f.serve(f"{kind}.vmdk", base.copy(300 * SECTOR),
                judges=["libvmdk"] if kind in ("vmfs", "twoGbMaxExtentFlat")
                else [])
    f.write("none.vmdk", descriptor(
        [line("FLAT", 300, "disk-flat.vmdk", 0)], None))
    f.refuse("none.vmdk", "descriptor has no createType")
    # Cut off: what is not there cannot be read.
    f.write("cut.vmdk", descriptor([line("FLAT", 310, "disk-flat.vmdk", 0)],
                                   "monolithicFlat"))
    e = base.copy(310 * SECTOR)
    e.fail(300 * SECTOR + 100, 10 * SECTOR - 100)
    f.serve("cut.vmdk", e)
    f.write("far.vmdk", descriptor(
        [line("ZERO", 8), line("FLAT", 100000, "disk-flat.vmdk", 1 << 40)],
        "monolithicFlat"))
    f.refuse("far.vmdk", "ends past its file's")


@case
def spellings(f):
    """As many hands write descriptors."""
    base = f.disk("disk-flat.vmdk", 64 * SECTOR)
    one = [line("FLAT", 64, "disk-flat.vmdk", 0)]

    def serve(name, text):
        f.write(name + ".vmdk", text)
        f.serve(name + ".vmdk", base)

    serve("crlf", descriptor(one, "monolithicFlat", eol="\r\n"))
    serve("spaces", descriptor(one, "monolithicFlat", equals=" = "))
    serve("tabs", descriptor(['\tRW\t64\tFLAT\t"disk-flat.vmdk"\t0\t'],
                             "monolithicFlat", equals="\t=\t"))
    serve("bom", b"\xef\xbb\xbf" + descriptor(one, "monolithicFlat"))
    serve("no-newline", descriptor([], "monolithicFlat") + one[0].encode())
    serve("nul-padded", descriptor(one, "monolithicFlat") + bytes(5000) +
          line("ZERO", 99).encode())
    serve("lower-case", descriptor(
        ['rw 64 flat "disk-flat.vmdk" 0'], "MONOLITHICFLAT",
        first="# disk descriptorfile"))
    serve("no-title", b"\n# no title here\n" +
          descriptor(one, "monolithicFlat", first=""))
    serve("unquoted", descriptor(["RW 64 FLAT disk-flat.vmdk 0"],
                                 "monolithicFlat"))
    serve("short-cid", descriptor(one, "monolithicFlat").replace(
        b"1a2b3c4d", b"d"))
    serve("offset-missing", descriptor(
        ['RW 64 FLAT "disk-flat.vmdk"'], "monolithicFlat"))
    for i, name in enumerate(("with spaces.vmdk", "Größe ☃ 日本.vmdk",
                              'say "hello".vmdk', "a=b # c.vmdk")):
        os.link(f.at("disk-flat.vmdk"), f.at(name))
        serve(f"name{i}", descriptor([line("FLAT", 64, name, 0)],
                                     "monolithicFlat"))
    # In a code page, as it is declared, for a file named in UTF-8.
    os.link(f.at("disk-flat.vmdk"), f.at("Käse.vmdk"))
    serve("code-page", descriptor(
        [line("FLAT", 64, "Käse.vmdk", 0)], "monolithicFlat",
        more=['encoding="windows-1252"']).replace(
            "ä".encode(), "ä".encode("cp1252")))
    # qemu parses these in square time.
    for name, filler in (("lines", b"\n" * 900000), ("spaces2", b" " * 900000),
                         ("comments", b"#\n" * 450000),
                         ("crs", b"\r" * 900000)):
        serve("many-" + name, descriptor(one, "monolithicFlat") + filler)
    f.write("too-long.vmdk", descriptor(one, "monolithicFlat") +
            b"\n" * (1 << 20))
    f.refuse("too-long.vmdk", "over the limit of 1048575")


@case
def descriptor_refusals(f):
    f.disk("disk-flat.vmdk", 64 * SECTOR)
    good = line("FLAT", 64, "disk-flat.vmdk", 0)
    for i, (lines, kind, more, pattern) in enumerate((
            ([line("FLAT", 64, "/dev/zero", 0)], "fullDevice", (),
             "extent lies outside"),
            ([good, line("FLAT", 64, "/dev/zero", 0)], "partitionedDevice",
             (), "extent lies outside"),
            ([good], "vmfsRaw", (), "vmfsRaw"),
            ([good], "vmfsRawDeviceMap", (), "vmfsRawDeviceMap"),
            ([good], "vmfsPassthroughRawDeviceMap", (), "Passthrough"),
            ([line("VMFSRDM", 64, "disk-flat.vmdk")], "vmfs", (), "VMFSRDM"),
            ([line("VMFSRAW", 64, "disk-flat.vmdk")], "vmfs", (), "VMFSRAW"),
            ([line("COMPRESSED", 64, "x")], "vmfs", (), "COMPRESSED"),
            ([], "monolithicFlat", (), "has no extents"),
            (["RW many FLAT \"disk-flat.vmdk\" 0"], "monolithicFlat", (),
             "not a number of sectors"),
            (["RW -1 FLAT \"disk-flat.vmdk\" 0"], "monolithicFlat", (),
             "not a number of sectors"),
            (["RW 64"], "monolithicFlat", (), "has no type"),
            (["RW 64 FLAT"], "monolithicFlat", (), "names no file"),
            (["RW 64 FLAT \"disk-flat.vmdk"], "monolithicFlat", (),
             "names no file"),
            ([line("FLAT", 64, "disk-flat.vmdk", "x")], "monolithicFlat", (),
             "offset \"x\""),
            ([line("FLAT", 1, "disk-flat.vmdk", 1 << 60)], "monolithicFlat",
             (), "over the limit"),
            ([line("ZERO", 1 << 60)], "monolithicFlat", (), "over the limit"),
            ([line("ZERO", (1 << 54) - 1)] * 2, "monolithicFlat", (),
             "sum is over the limit"),
            ([line("ZERO", 2**64)], "monolithicFlat", (), "not a number"),
            ([line("SPARSE", 64, "disk-flat.vmdk")], "monolithicSparse", (),
             "is not a sparse extent"),
            ([line("SPARSE", 64, f"refused{20}.vmdk")] + [good],
             "monolithicSparse", (), "refused"),
            ([good], "monolithicFlat", ["encryptionKeys = \"x\""],
             "encrypted by VMware"),
            ([line("FLAT", 64, "/etc/hostname", 0)], "monolithicFlat", (),
             "extent"),
            ([line("FLAT", 64, "../disk-flat.vmdk", 0)], "monolithicFlat",
             (), "extent"),
            ([line("FLAT", 64, "missing.vmdk", 0)], "monolithicFlat", (),
             "extent.*missing.vmdk"),
            ([line("FLAT", 64, "json:{}", 0)], "monolithicFlat", (),
             "extent"),
            ([line("FLAT", 64, "a\x1b[31mb\x07", 0)], "monolithicFlat", (),
             "extent"))):
        name = f"refused{i}.vmdk"
        f.write(name, descriptor(lines, kind, more=more))
        f.refuse(name, pattern)
    os.mkfifo(f.at("fifo"))
    f.write("fifo.vmdk", descriptor([line("FLAT", 64, "fifo", 0)],
                                    "monolithicFlat"))
    f.refuse("fifo.vmdk", "extent")
    f.write("cid.vmdk", descriptor([good], "monolithicFlat").replace(
        b"1a2b3c4d", b"1a2b3c4d5"))
    f.refuse("cid.vmdk", "CID .* is not a hexadecimal number of 32 bits")


# Delta chains


def base_disk(f, sectors, cid=0x1A2B3C4D):
    e = f.disk("base-flat.vmdk", sectors * SECTOR)
    f.write("base.vmdk", descriptor(
        [line("VMFS", sectors, "base-flat.vmdk")], "vmfs", cid=cid))
    return e


def delta(f, name, image, hint, kind, parent=0x1A2B3C4D, cid=7,
          create_type="vmfsSparse"):
    extent = f"{name}-delta.vmdk"
    image.build().write(f.at(extent))
    f.write(f"{name}.vmdk", descriptor(
        [line(kind, image.capacity, extent)], create_type, cid=cid,
        parent=parent, hint=hint))


@case
def deltas(f):
    n = 8 * 200
    base = base_disk(f, n)
    c = f.fill(Cowd(n, 1), every=11, count=300)
    delta(f, "cowd", c, "base.vmdk", "VMFSSPARSE")
    f.serve("cowd.vmdk", c.expect(below=base), cluster=SECTOR)
    s = se(f, n)
    delta(f, "se", s, "base.vmdk", "SESPARSE", create_type="seSparse")
    f.serve("se.vmdk", s.expect(below=base), cluster=s.gb)
    # Longer than what it changes.
    h = f.fill(Hosted(n + 100, 8, version=2, flags=7, text=descriptor(
        [line("SPARSE", n + 100, "x")], parent=0x1A2B3C4D, cid=9,
        hint="base.vmdk")), first=3)
    h.grains[0] = h.grains[7] = ZERO
    h.build().write(f.at("longer.vmdk"))
    longer = h.expect(below=base)
    f.serve("longer.vmdk", longer, cluster=h.gb)
    # Three layers; zeroes in an extent hide as well.
    f.write("zeroes.vmdk", descriptor(
        [line("ZERO", n // 2), line("VMFSSPARSE", n - n // 2,
                                    "rest-delta.vmdk")],
        "vmfsSparse", parent=9, hint="longer.vmdk", cid=10))
    rest = f.fill(Cowd(n - n // 2, 1), every=13, count=200)
    rest.build().write(f.at("rest-delta.vmdk"))
    e = longer.copy(n * SECTOR)
    e.put(0, bytes(n // 2 * SECTOR))
    for off, data in rest.expect().chunks:
        e.put(n // 2 * SECTOR + off, data)
    f.serve("zeroes.vmdk", e, cluster=SECTOR)


@case
def delta_names(f):
    n = 100
    base = base_disk(f, n)
    c = f.fill(Cowd(n, 1), every=11)
    for i, hint in enumerate((
            "./base.vmdk", f.at("base.vmdk"), "/vmfs/volumes/1-2/vm/base.vmdk",
            "C:\\Virtual Machines\\vm\\base.vmdk", "..\\base.vmdk",
            "../elsewhere/base.vmdk")):
        delta(f, f"hint{i}", c, hint, "VMFSSPARSE")
        f.serve(f"hint{i}.vmdk", c.expect(below=base), cluster=SECTOR)
    # A hint that stayed behind in a disk of its own.
    delta(f, "own", c, "gone.vmdk", "VMFSSPARSE", parent=NO_PARENT)
    f.serve("own.vmdk", c.expect(), cluster=SECTOR)
    for name, hint, parent, pattern in (
            ("changed", "base.vmdk", 0x1A2B3C4E,
             "parent's CID is 1a2b3c4d, not 1a2b3c4e"),
            ("nameless", None, 0x1A2B3C4D, "does not name it"),
            ("empty-name", "", 0x1A2B3C4D, "does not name it"),
            ("gone", "gone.vmdk", 0x1A2B3C4D, "gone.vmdk"),
            ("raw", "base-flat.vmdk", 0x1A2B3C4D, "not vmdk"),
            ("bare", "own-delta.vmdk", 0x1A2B3C4D, "parent has no CID"),
            ("outside", "/etc/hostname", 0x1A2B3C4D, "hostname|backing")):
        delta(f, name, c, hint, "VMFSSPARSE", parent=parent)
        f.refuse(name + ".vmdk", pattern)
    delta(f, "loop", c, "loop.vmdk", "VMFSSPARSE", parent=7)
    f.refuse("loop.vmdk", "its own backing file")


def build(name, folder, seed):
    f = Vmdks(folder, f"{seed} {name}")
    CASES[name](f)
    return f.built

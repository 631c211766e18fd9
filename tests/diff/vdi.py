#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""VDI: qemu-img's images, and those that it does not make or misreads.

  vdi.py [--keep] [CASE ...]
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import (KIB, MIB, by_hand, by_qemu, check_command,  # noqa: E402
                       main)
from vdi_build import DIFF, FIXED, UNDO, Vdi, ident  # noqa: E402


@by_qemu
def dynamic(b):
    b.make("vdi", "a.vdi", 20 * MIB + 7 * 512)
    b.check("vdi", "a.vdi")
    check_command(b.path("a.vdi"), 0)


@by_qemu
def fixed(b):
    b.make("vdi", "a.vdi", 9 * MIB, "static=on")
    b.check("vdi", "a.vdi")
    check_command(b.path("a.vdi"), 0)


@by_qemu
def written_at_random(b):
    b.img("create", "-q", "-f", "vdi", b.path("a.vdi"), "64M")
    for _ in range(20):
        off = b.random.randrange(64 * MIB - 200000)
        b.io("vdi", "a.vdi", f"write -P {b.random.randrange(1, 255)} {off} "
             f"{b.random.randrange(1, 200000)}")
    b.check("vdi", "a.vdi")
    check_command(b.path("a.vdi"), 0)


@by_qemu
def empty(b):
    b.img("create", "-q", "-f", "vdi", b.path("a.vdi"), "5G")
    b.check("vdi", "a.vdi")
    check_command(b.path("a.vdi"), 0)


@by_hand
def block_sizes(f):
    for block in (512, 4 * KIB, 64 * KIB, MIB, 2 * MIB, 8 * MIB):
        name = f"block{block}.vdi"
        v = Vdi(f.path(name), block * 9 + 512 * (block > 512), block=block)
        order = [3, 4, 5, 0, 8, 7]
        for g in order:
            v.data(g, f.noise(block))
        v.zero(1)
        f.serve(name, v.finish())
        check_command(f.path(name), 0)


@by_hand
def extra_bytes_before_each_block(f):
    for extra in (1, 16, 512, 4096):
        name = f"extra{extra}.vdi"
        v = Vdi(f.path(name), 20 * 64 * KIB, block=64 * KIB, extra=extra)
        for g in (0, 1, 2, 19, 9):
            v.data(g, f.noise(64 * KIB))
        v.zero(5)
        f.serve(name, v.finish())
        check_command(f.path(name), 0)


@by_hand
def header_versions(f):
    for version, header in (((1, 1), 400), ((1, 1), 384), ((1, 0), 384),
                            ((0, 2), 0)):
        name = f"v{version[0]}.{version[1]}-{header}.vdi"
        v = Vdi(f.path(name), 10 * 64 * KIB, block=64 * KIB, version=version,
                header=header, comment=b"made in \xff 2007")
        for g in (2, 1, 9):
            v.data(g, f.noise(64 * KIB))
        v.zero(4)
        f.serve(name, v.finish())
        check_command(f.path(name), 0)


@by_hand
def tables_elsewhere(f):
    v = Vdi(f.path("far.vdi"), 3 * MIB, map_off=0x10200, data_off=0x300200)
    for g in range(3):
        v.data(g, f.noise(MIB), place=2 - g)
    f.serve("far.vdi", v.finish())
    # A disk that is no multiple of a sector.
    v = Vdi(f.path("long.vdi"), 2 * MIB + 77, kind=FIXED)
    for g in range(3):
        v.data(g, f.noise(MIB))
    f.serve("long.vdi", v.finish())


@by_hand
def damage_stays_where_it_is(f):
    v = Vdi(f.path("a.vdi"), 12 * 64 * KIB, block=64 * KIB)
    for g in (0, 1, 3):
        v.data(g, f.noise(64 * KIB))
    v.wrong(4, 12)              # over the blocks of the disk
    v.wrong(5, 0x7FFFFFFF)
    v.wrong(7, 5)               # behind the file's end
    v.wrong(8, 0xFFFFFFFD)
    f.serve("a.vdi", v.finish(), cluster=64 * KIB)
    check_command(f.path("a.vdi"), 2)
    # The last block is cut: what is missing of it cannot be read.
    v = Vdi(f.path("cut.vdi"), 3 * 64 * KIB, block=64 * KIB)
    v.data(0, f.noise(64 * KIB))
    v.data(2, f.noise(64 * KIB))
    v.cut = 1000
    v.expect.fail(3 * 64 * KIB - 1000, 1000)
    f.serve("cut.vdi", v.finish(), cluster=64 * KIB)
    check_command(f.path("cut.vdi"), 2)
    # But what is behind the disk's end is not missed.
    v = Vdi(f.path("short.vdi"), 3 * 64 * KIB - 1000, block=64 * KIB)
    v.data(2, f.noise(64 * KIB))
    v.cut = 1000
    f.serve("short.vdi", v.finish(), cluster=64 * KIB)
    # Two blocks of the disk in one place: readable, not sound.
    v = Vdi(f.path("twice.vdi"), 3 * 64 * KIB, block=64 * KIB)
    same = f.noise(64 * KIB)
    v.data(0, same, place=0)
    v.data(2, same, place=0)
    f.serve("twice.vdi", v.finish(), cluster=64 * KIB)
    check_command(f.path("twice.vdi"), 2)


def family(f, name, size, block, kinds):
    """A chain, the base first: [(file, Vdi)]."""
    out = []
    parent = None
    for i, kind in enumerate(kinds):
        uid, modify = ident(f.random), ident(f.random)
        v = Vdi(f.path(f"{name}{i}.vdi"), size, block=block, kind=kind,
                uid=uid, modify=modify,
                **(dict(parent=parent.uid, parent_modify=parent.modify)
                   if parent else {}))
        if parent:
            v.expect = parent.expect.copy(size)
        for g in range(v.count):
            if f.random.random() < 0.4:
                v.data(g, f.noise(block))
            elif f.random.random() < 0.3:
                v.zero(g)
        v.finish()
        out.append((f"{name}{i}.vdi", v))
        parent = v
    return out


@by_hand
def differencing_parents_are_found_by_id(f):
    for kind in (DIFF, UNDO):
        for name, v in family(f, f"k{kind}-", 30 * 64 * KIB, 64 * KIB,
                              [1, kind, kind, kind]):
            f.serve(name, v.expect)
    # Among other files, whatever they are called.
    chain = family(f, "renamed-", 16 * 4 * KIB, 4 * KIB, [FIXED, DIFF])
    os.rename(f.path("renamed-0.vdi"), f.path("base with spaces"))
    f.serve("renamed-1.vdi", chain[1][1].expect)


@by_hand
def parents_in_another_folder_need_leave(f):
    """As VirtualBox has it: the base above, the others in Snapshots/."""
    chain = family(f, "vm-", 16 * 4 * KIB, 4 * KIB, [1, DIFF, DIFF])
    os.mkdir(f.path("Snapshots"))
    for name in ("vm-1.vdi", "vm-2.vdi"):
        os.rename(f.path(name), f.path(f"Snapshots/{name}"))
    f.refuse("Snapshots/vm-2.vdi", "--allow DIR")
    os.mkdir(f.path("empty"))
    for name, v in chain[1:]:
        f.serve(f"Snapshots/{name}", v.expect,
                allow=[f.path("empty"), f.path(".")])
    # A link in the allowed folder leads no further than that.
    os.mkdir(f.path("links"))
    os.rename(f.path("vm-0.vdi"), f.path("empty/vm-0.vdi"))
    os.symlink("../empty/vm-0.vdi", f.path("links/vm-0.vdi"))
    f.refuse("Snapshots/vm-2.vdi", "--allow DIR", allow=[f.path("links")])


@by_hand
def a_wrong_parent_is_refused(f):
    base, child = family(f, "a", 16 * 4 * KIB, 4 * KIB, [1, DIFF])
    v = Vdi(f.path("orphan.vdi"), 64 * KIB, block=4 * KIB, kind=DIFF,
            uid=ident(f.random), parent=ident(f.random))
    v.finish()
    f.refuse("orphan.vdi", "parent is not among the files")
    v = Vdi(f.path("nameless.vdi"), 64 * KIB, block=4 * KIB, kind=DIFF)
    v.finish()
    f.refuse("nameless.vdi", "does not tell its parent")
    me = ident(f.random)
    v = Vdi(f.path("loop.vdi"), 64 * KIB, block=4 * KIB, kind=DIFF, uid=me,
            parent=me)
    v.finish()
    f.refuse("loop.vdi", "its own backing file")
    base[1].modify = ident(f.random)
    base[1].finish()
    f.refuse(child[0], "modified since")


@by_hand
def hostile_headers_are_refused(f):
    for field, value, pattern in (
            ("block", 0, "power of two"), ("block", 3 << 19, "power of two"),
            ("block", 256, "power of two"), ("kind", 5, "type 5"),
            ("kind", 0, "type 0"), ("version", (2, 1), "version 2.1"),
            ("header", 100, "header length 100"),
            ("size", 1 << 62, "blocks of"),
            ("size", 3 * MIB + 1, "blocks of"), ("count", 1 << 29, "limit"),
            ("count", 1 << 24, "blocks of"),
            ("map_off", 1 << 31, "ends past")):
        v = Vdi(f.path("h.vdi"), 3 * MIB)
        v.finish()
        setattr(v, field, value)
        head = v._header()
        with open(v.path, "r+b") as out:
            out.write(head)
        f.refuse("h.vdi", pattern)


if __name__ == "__main__":
    main(__doc__)

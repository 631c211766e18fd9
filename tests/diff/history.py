#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""History: every state of an image, and what changed between any two, in
every format that has snapshots or parents. What stock clients make of the
differences must be the full copies.

  history.py [--keep] [CASE ...]
"""

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import KIB, MIB, by_hand, by_qemu, main  # noqa: E402
from ploop_build import NIL, TOP, V2, Bundle, Delta, guid  # noqa: E402
from server import Failure, Server, run, run_json  # noqa: E402
from vdi_build import DIFF, Vdi  # noqa: E402
from vhd_build import DIFFERENCING, W2RU, Vhd, utf16  # noqa: E402
from vhdx_build import FULL, Vhdx  # noqa: E402

HOLE, ZERO = 1, 2  # flags of base:allocation


def copy_of(uri, path):
    """A full copy; what it is made by does not know of differences."""
    run(["nbdcopy", uri, path])
    with open(path, "rb") as f:
        return f.read()


def states(server):
    """{name: size} of the exports, "@..." without the "@"."""
    listed = run_json(["nbdinfo", "--list", "--json", server.uri()])
    return {e["export-name"][1:]: e["export-size"]
            for e in listed["exports"]}


def check_extents(extents, old, new, size, apply):
    """What is told unchanged is, what is told zero is; how much changed."""
    off = changed = 0
    for e in extents:
        n, kind = e["length"], e["type"]
        a = old[off:off + n].ljust(n, b"\0")
        b = new[off:off + n]
        if e["offset"] != off or kind not in (
                (0, HOLE | ZERO) if apply else (0, HOLE, HOLE | ZERO)):
            raise Failure(f"a strange extent at {off}: {e}")
        if kind == (HOLE | ZERO if apply else HOLE):
            if a != b:
                raise Failure(f"{n} bytes at {off} are told unchanged")
        else:
            changed += n
            if kind and b.strip(b"\0"):
                raise Failure(f"{n} bytes at {off} are told zero")
        off += n
    if off != size:
        raise Failure(f"the extents end at {off}, the disk at {size}")
    return changed


def one_difference(p, servers, export, old, new, a):
    """old, new: the content; a: the file that has old."""
    holes, apply = servers
    out, applied = p.path("out.qcow2"), p.path("applied")
    extents = run_json(["nbdinfo", "--map", "--json", holes.uri(export)])
    changed = check_extents(extents, old, new, len(new), False)
    check_extents(run_json(["nbdinfo", "--map", "--json", apply.uri(export)]),
                  old, new, len(new), True)
    if copy_of(holes.uri(export), p.path("whole")) != new:
        raise Failure("it does not read as the state at its end")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-B", a, "-F",
         "raw", holes.uri(export), out])
    run(["qemu-img", "convert", "-O", "raw", out, p.path("whole")])
    with open(p.path("whole"), "rb") as f:
        if f.read() != new:
            raise Failure("the increment over the old copy is another disk")
    shutil.copy(a, applied)
    os.truncate(applied, len(new))
    # A file that nbdcopy opens itself is emptied first.
    run(["nbdcopy", "-S", "0", "--destination-is-zero", "--",
         apply.uri(export), "[", "nbdkit", "file", applied, "]"])
    with open(applied, "rb") as f:
        if f.read() != new:
            raise Failure("what was applied to the old copy is another disk")
    return changed


def every_pair(p, image, want, **kwargs):
    """Serves the image and looks at all of its states. want: how many there
    are beside the live one. The bytes that changed from each to each."""
    changed = {}
    with Server(image, **kwargs) as holes, \
            Server(image, diff="apply", **kwargs) as apply:
        names = states(holes)
        if len(names) != 1 + want:
            raise Failure(f"{want} states were expected beside the live one, "
                          f"there are: {sorted(names)}")
        content, path = {}, {}
        for i, (name, size) in enumerate(names.items()):
            path[name] = p.path(f"state{i}")
            content[name] = copy_of(holes.uri("@" + name if name else ""),
                                    path[name])
            if len(content[name]) != size:
                raise Failure(f"@{name}: is listed with {size} bytes, has "
                              f"{len(content[name])}")
        for a in names:
            for b in names:
                if a == b:
                    continue
                try:
                    changed[a, b] = one_difference(
                        p, (holes, apply), f"@{a}..{b}", content[a],
                        content[b], path[a])
                except Failure as e:
                    raise Failure(f"@{a}..{b}: {e}") from None
    return changed, content


def at_most(changed, pair, limit):
    if not 0 < changed[pair] <= limit:
        raise Failure(f"{changed[pair]} bytes are told changed from "
                      f"{pair[0]!r} to {pair[1]!r}, at most {limit} are")


def write_some(b, fmt, name, size, byte):
    """Writes at random; may write zeroes. Returns how much, at most."""
    total = 0
    commands = []
    for i in range(5):
        n = b.random.choice([512, 4096, 65536, 200 * KIB])
        off = b.random.randrange(size - n) & ~511
        what = "-z" if i == 3 else f"-P {byte}"
        commands.append(f"write {what} {off} {n}")
        total += n + 128 * KIB  # whole clusters, at both ends
    b.io(fmt, name, *commands)
    return total


@by_qemu
def qcow2_snapshots(b):
    for options in ("cluster_size=4k,compression_type=zstd",
                    "extended_l2=on"):
        b.make("qcow2", "a.qcow2", 9 * MIB + 512, options, flags=["-c"])
        b.img("snapshot", "-c", "one", b.path("a.qcow2"))
        first = write_some(b, "qcow2", "a.qcow2", 9 * MIB, 1)
        b.img("snapshot", "-c", "with @ and ..", b.path("a.qcow2"))
        write_some(b, "qcow2", "a.qcow2", 9 * MIB, 2)
        b.img("resize", "-q", b.path("a.qcow2"), "11M")
        changed = every_pair(b, b.path("a.qcow2"), 2)[0]
        at_most(changed, ("one", "with %40 and .%2E"), first)


@by_qemu
def qcow2_snapshots_over_a_chain(b):
    b.make("qcow2", "base.qcow2", 5 * MIB)
    b.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
          b.path("mid.qcow2"), "7M")
    write_some(b, "qcow2", "mid.qcow2", 7 * MIB, 1)
    b.img("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2",
          b.path("top.qcow2"), "6M")
    first = write_some(b, "qcow2", "top.qcow2", 6 * MIB, 2)
    b.img("snapshot", "-c", "snap", b.path("top.qcow2"))
    b.io("qcow2", "top.qcow2", "discard 1M 1M", "write -P 7 2M 100k")
    changed = every_pair(b, b.path("top.qcow2"), 3)[0]
    at_most(changed, ("mid.qcow2", "snap"), first)
    at_most(changed, ("snap", ""), MIB + 256 * KIB)


@by_qemu
def qcow2_with_luks_and_snapshots(b):
    b.make("qcow2", "a.qcow2", 3 * MIB,
           "encrypt.format=luks,encrypt.key-secret=s,"
           "encrypt.iter-time=10", encrypted=True)
    b.img("snapshot", "-c", "one", *b.secret(), "--image-opts",
          f"driver=qcow2,file.filename={b.path('a.qcow2')},"
          "encrypt.key-secret=s")
    run(["qemu-io", *b.secret(), "--image-opts", "-c", "write -P 5 1M 70k",
         f"driver=qcow2,file.filename={b.path('a.qcow2')},"
         "encrypt.key-secret=s"])
    changed = every_pair(b, b.path("a.qcow2"), 1, key=b.key())[0]
    at_most(changed, ("one", ""), 128 * KIB)


@by_qemu
def chains_that_qemu_makes(b):
    for fmt, options in (("qed", ""), ("vmdk", "zeroed_grain=on"),
                         ("qcow2", "extended_l2=on")):
        b.make(fmt, f"0.{fmt}", 6 * MIB)
        for i in (1, 2):
            b.img("create", "-q", "-f", fmt, "-b", f"{i - 1}.{fmt}", "-F", fmt,
                  *(["-o", options] if options else []), b.path(f"{i}.{fmt}"))
            last = write_some(b, fmt, f"{i}.{fmt}", 6 * MIB, i)
        changed = every_pair(b, b.path(f"2.{fmt}"), 2,
                             allow=["guessed"])[0]
        at_most(changed, (f"1.{fmt}", ""), last)
        chain = run_json([os.environ["PLATTER"], "info", "--json", "--allow",
                          "guessed", b.path(f"2.{fmt}")])["chain"]
        if [e.get("export") for e in chain] != [None, f"@1.{fmt}",
                                                f"@0.{fmt}"]:
            raise Failure(f"platter info has another history: {chain}")


@by_qemu
def a_chain_of_several_formats(b):
    b.raw("base.img", 4 * MIB + 1024)
    b.img("create", "-q", "-f", "qed", "-b", "base.img", "-F", "raw",
          b.path("mid.qed"))
    write_some(b, "qed", "mid.qed", 4 * MIB, 1)
    b.img("create", "-q", "-f", "qcow2", "-b", "mid.qed", "-F", "qed",
          b.path("top.qcow2"))
    write_some(b, "qcow2", "top.qcow2", 4 * MIB, 2)
    content = every_pair(b, b.path("top.qcow2"), 2)[1]
    with open(b.path("base.img"), "rb") as f:
        if content["base.img"] != f.read():
            raise Failure("the base's state is not the base")


def sectors(f, numbers, size=512):
    return {n: f.noise(size) for n in numbers}


def expected(content, name, expect, f):
    reference = f.path("reference")
    expect.write(reference)
    with open(reference, "rb") as g:
        if g.read() != content[name]:
            raise Failure(f"state {name!r} is not what was built")


@by_hand
def vhd_differencing(f):
    base = Vhd(f.path("base.vhd"), 4 * MIB, block=512 * KIB)
    for idx in (0, 1, 3, 7):
        base.full(idx, f.noise(512 * KIB))
    base.close()
    mid = Vhd(f.path("mid.vhd"), 4 * MIB, DIFFERENCING, block=512 * KIB,
              parent=base, locators=[(W2RU, utf16("base.vhd"))])
    mid.write(0, sectors(f, range(5, 100, 3)), stale=b"old " * 128)
    mid.write(2, sectors(f, range(8, 16)))
    mid.close()
    top = Vhd(f.path("top.vhd"), 4 * MIB, DIFFERENCING, block=512 * KIB,
              parent=mid, locators=[(W2RU, utf16("mid.vhd"))])
    top.write(1, sectors(f, range(64)))
    top.close()
    changed, content = every_pair(f, f.path("top.vhd"), 2)
    expected(content, "base.vhd", base.expect, f)
    expected(content, "mid.vhd", mid.expect, f)
    expected(content, "", top.expect, f)
    at_most(changed, ("mid.vhd", ""), 64 * 512)
    at_most(changed, ("base.vhd", "mid.vhd"), 40 * 512)


@by_hand
def vhdx_differencing(f):
    base = Vhdx(f.path("base.vhdx"), 6 * MIB, MIB)
    for idx in (0, 1, 3):
        base.full(idx, {0: f.noise(MIB)})
    base.close()
    mid = Vhdx(f.path("mid.vhdx"), 6 * MIB, MIB, parent=base,
               locator=[("relative_path", "base.vhdx")])
    mid.partial(0, sectors(f, range(5, 100, 3)), stale=b"old " * 128)
    mid.full(2, {4096: f.noise(4096)})
    mid.close()
    top = Vhdx(f.path("top.vhdx"), 8 * MIB, MIB, parent=mid,
               locator=[("relative_path", "mid.vhdx")])
    top.partial(1, sectors(f, range(64)))
    top.full(7, {0: f.noise(MIB)})
    top.close()
    changed, content = every_pair(f, f.path("top.vhdx"), 2)
    expected(content, "base.vhdx", base.expect, f)
    expected(content, "mid.vhdx", mid.expect, f)
    expected(content, "", top.expect, f)
    at_most(changed, ("mid.vhdx", ""), MIB + 64 * 512)


@by_hand
def vdi_differencing(f):
    parent = None
    for i in range(3):
        v = Vdi(f.path(f"{i}.vdi"), 16 * 64 * KIB, block=64 * KIB,
                kind=DIFF if parent else 1, uid=f.noise(16),
                modify=f.noise(16),
                **(dict(parent=parent.uid, parent_modify=parent.modify)
                   if parent else {}))
        if parent:
            v.expect = parent.expect.copy(v.size)
        for g in (i, 4 + i, 8):
            v.data(g, f.noise(64 * KIB))
        v.zero(12 - i)
        v.finish()
        parent = v
    changed, content = every_pair(f, f.path("2.vdi"), 2)
    expected(content, "", parent.expect, f)
    at_most(changed, ("1.vdi", ""), 4 * 64 * KIB)


def ploop_delta(f, folder, name, base, clusters):
    d = Delta(f.path(f"{folder}/{name}"), 20 * 64 * KIB, tracks=128,
              base=base, magic=V2)
    for g in clusters:
        d.data(g, f.noise(d.cs))
    return d.finish()


@by_hand
def ploop_bundles(f):
    """root <- old <- top, and side, which stands upon root too."""
    os.mkdir(f.path("a"))
    root, old, side = (guid(f.random) for _ in range(3))
    at_root = ploop_delta(f, "a", "root.hds", None, range(0, 12))
    at_old = ploop_delta(f, "a", "old.hds", at_root, (3, 15))
    at_side = ploop_delta(f, "a", "side.hds", at_root, (4, 15, 16))
    at_top = ploop_delta(f, "a", "top.hds", at_old, (15, 19))
    b = Bundle(f.path("a"), 20 * 64 * KIB)
    b.storages = [(0, 20 * 128, [
        (ident, "Compressed", name) for ident, name in (
            (root, "root.hds"), (old, "old.hds"), (side, "side.hds"),
            (TOP, "top.hds"))])]
    b.shots = [(root, NIL), (old, root), (side, root), (TOP, old)]
    image = b.finish()
    changed, content = every_pair(f, image, 3)
    for name, expect in ((root, at_root), (old, at_old), (side, at_side),
                         ("", at_top)):
        expected(content, name, expect, f)
    at_most(changed, (old, ""), 2 * 64 * KIB)
    at_most(changed, (old, side), 4 * 64 * KIB)
    at_most(changed, (side, root), 3 * 64 * KIB)
    with Server(image) as server:  # however a GUID is written
        for name in (old.upper(), old.strip("{}"), "old.hds"):
            if copy_of(server.uri("@" + name), f.path("x")) != content[old]:
                raise Failure(f"@{name} is another state than @{old}")


@by_qemu
def an_increment_costs_what_changed(b):
    """1 % of a disk: what qemu-img reads and writes for it."""
    size = 256 * MIB
    with open(b.path("disk.raw"), "wb") as f:
        for _ in range(size // MIB):
            f.write(b.noise(MIB))
    b.img("convert", "-O", "qcow2", b.path("disk.raw"), b.path("a.qcow2"))
    b.img("snapshot", "-c", "full", b.path("a.qcow2"))
    b.io("qcow2", "a.qcow2", *(
        f"write -P {i + 1} {b.random.randrange(size // 65536) * 65536} 64k"
        for i in range(size // 100 // 65536)))
    with Server(b.path("a.qcow2")) as server:
        extents = run_json(["nbdinfo", "--map", "--json",
                            server.uri("@full..")])
        data = sum(e["length"] for e in extents if not e["type"] & HOLE)
        if not 0 < data <= size // 100:
            raise Failure(f"{data} bytes of {size} are told changed")
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-B",
             b.path("disk.raw"), "-F", "raw", server.uri("@full.."),
             b.path("inc.qcow2")])
        run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri(),
             b.path("inc.qcow2")])
    used = os.stat(b.path("inc.qcow2")).st_size
    if used > size // 50:
        raise Failure(f"the increment takes {used} bytes")


@by_qemu
def states_that_there_are_not(b):
    b.make("qcow2", "base.qcow2", MIB)
    b.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
          b.path("top.qcow2"))
    with Server(b.path("top.qcow2")) as server:
        for name in ("@..", "@none", "@none..", "@..none", "@top.qcow2",
                     "@#0", "@#2", "@base.qcow2..none", "@a..b..c",
                     "@..base.qcow2..", "@../base.qcow2"):
            p = subprocess.run(["nbdinfo", server.uri(name)],
                               capture_output=True, check=False)
            if not p.returncode:
                raise Failure(f"{name} was opened")
        for name in ("@base.qcow2", "@#1", "@#1..", "@..%23%31"):
            run(["nbdinfo", server.uri(name)])


@by_qemu
def a_map_is_of_a_state(b):
    b.make("qcow2", "base.qcow2", MIB)
    b.img("snapshot", "-c", "one", b.path("base.qcow2"))
    b.io("qcow2", "base.qcow2", "write -P 1 0 64k")
    b.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
          b.path("top.qcow2"))
    b.io("qcow2", "top.qcow2", "write -P 2 512k 64k")

    def map_of(*args):
        return run_json([os.environ["PLATTER"], "map", "--json", *args])
    base, top = b.path("base.qcow2"), b.path("top.qcow2")
    for ours, same in (([base + "@one"], ["--snapshot", "one", base]),
                       ([top + "@#1"], [base]),
                       ([top + "@base.qcow2"], [base])):
        if map_of(*ours) != map_of(*same):
            raise Failure(f"the map of {ours} is not that of {same}")
    if map_of(base + "@one") == map_of(base):
        raise Failure("a snapshot's map is the live one's")
    p = subprocess.run([os.environ["PLATTER"], "map", top + "@none"],
                       capture_output=True, check=False, text=True)
    if p.returncode != 1 or "none" not in p.stderr:
        raise Failure(f"the map of no state: {p}")


def entry_of(path, at):
    """A table's first entry that is not 0: where it lies, and what it says."""
    with open(path, "rb") as f:
        f.seek(at)
        table = f.read(8 * 64)
    i = next(i for i in range(64) if any(table[8 * i:8 * i + 8]))
    return at + 8 * i, int.from_bytes(table[8 * i:8 * i + 8], "big")


def field(path, at, size):
    with open(path, "rb") as f:
        f.seek(at)
        return int.from_bytes(f.read(size), "big")


@by_qemu
def a_state_is_looked_into(b):
    """info and check of a state, beside those of the image."""
    b.make("qcow2", "base.qcow2", MIB)
    b.io("qcow2", "base.qcow2", "write -P 1 0 256k")
    b.img("snapshot", "-c", "one", b.path("base.qcow2"))
    b.io("qcow2", "base.qcow2", "write -P 2 0 64k")
    b.img("resize", "-q", b.path("base.qcow2"), str(2 * MIB))
    b.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
          b.path("top.qcow2"))

    def look(verb, operand, status=0):
        p = subprocess.run([os.environ["PLATTER"], verb, "--json", operand],
                           capture_output=True, check=False, text=True)
        if p.returncode != status:
            raise Failure(f"{verb} {operand}: {p}")
        return json.loads(p.stdout) if p.stdout else p.stderr
    base, top = b.path("base.qcow2"), b.path("top.qcow2")
    for operand, size, depth in ((base + "@one", MIB, 1),
                                 (base + "@1", MIB, 1),
                                 (top + "@#1", 2 * MIB, 1), (top, 2 * MIB, 2)):
        info = look("info", operand)
        if (info["virtual-size"], len(info["chain"])) != (size, depth):
            raise Failure(f"info {operand}: {info}")
        if info["filename"] != operand:
            raise Failure(f"info {operand} is called {info['filename']}")
    if "none" not in look("info", base + "@none", 1):
        raise Failure("info of a state that there is not")
    one = look("check", base + "@one")
    data = sum(e["length"] for e in look("map", base + "@one")
               if e["present"])
    if (one["total-clusters"], one["allocated-clusters"]) != (
            16, data // (64 * KIB)):
        raise Failure(f"check of a snapshot counts {one}")
    if look("check", base)["total-clusters"] != 32:
        raise Failure("check of an image counts another's clusters")
    look("check", top + "@base.qcow2")
    # Each sees its own tables' damage, and what is damaged beside is not its.
    snapshot = field(base, field(base, 64, 8), 8)
    for l1, sees, does_not in ((field(base, 40, 8), base, base + "@one"),
                               (snapshot, base + "@one", base)):
        at, entry = entry_of(base, l1)
        at, entry = entry_of(base, entry & ((1 << 56) - 512))
        with open(base, "r+b") as f:
            f.seek(at)
            f.write((entry + 512).to_bytes(8, "big"))
        found = look("check", sees, 2)
        if not found["corruptions"]:
            raise Failure(f"check {sees}: {found}")
        if does_not.endswith("@one"):
            look("check", does_not)
        with open(base, "r+b") as f:
            f.seek(at)
            f.write(entry.to_bytes(8, "big"))
    # A place that nothing counts is no place for a snapshot's data.
    at, entry = entry_of(base, snapshot)
    at, entry = entry_of(base, entry & ((1 << 56) - 512))
    blocks = field(base, field(base, 48, 8), 8)
    count_at = blocks + 2 * ((entry & ((1 << 56) - 512)) >> 16)
    with open(base, "r+b") as f:
        f.seek(count_at)
        f.write(b"\0\0")
    found = look("check", base + "@one", 2)
    if found["leaks"] or found["corruptions"] != 1:
        raise Failure(f"check of a snapshot, data not counted: {found}")


if __name__ == "__main__":
    main(__doc__)

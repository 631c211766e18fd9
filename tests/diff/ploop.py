#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""ploop: qemu-img's images (it calls them parallels), and the versions,
cluster sizes and bundles that it does not make.

  ploop.py [--keep] [CASE ...]
"""

import os
import shutil
import sys
from xml.sax.saxutils import escape

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import (KIB, MIB, by_hand, by_qemu, check_command,  # noqa: E402
                       main)
from ploop_build import (EXT_BITMAP, IN_USE, NIL, TOP, V1, V2,  # noqa: E402
                         Bundle, Delta, feature, guid)
from qcow2_build import Expect  # noqa: E402
import support  # noqa: E402
from server import Failure, run, run_json  # noqa: E402

# ploop's exit status for what it cannot mend. What else it does not like of
# sound images (its flags are not set) it would mend.
FATAL = 11


@by_qemu
def converted(b):
    b.make("parallels", "a.hds", 20 * MIB)
    b.check("parallels", "a.hds")
    check_command(b.path("a.hds"), 0)


@by_qemu
def written_at_random(b):
    b.img("create", "-q", "-f", "parallels", "-o", "cluster_size=64k",
          b.path("a.hds"), "64M")
    for _ in range(20):
        off = b.random.randrange(64 * MIB - 200000)
        b.io("parallels", "a.hds", f"write -P {b.random.randrange(1, 255)} "
             f"{off} {b.random.randrange(1, 200000)}")
    b.check("parallels", "a.hds")
    check_command(b.path("a.hds"), 0)


def check_by_ploop(path, sound=True):
    """`ploop check` finds the same tables sound. It knows no header but
    Virtuozzo's, with clusters that are powers of two and 64 KiB at least."""
    if not shutil.which("ploop"):
        return
    status, out, err = run(["ploop", "check", "-r", "-f", "-c", path],
                           ok=None)
    if (status == FATAL) == sound:
        raise Failure(f"ploop check {path}: status {status}: {out}{err}")
    if sound:
        support.saw(path, "ploop check")


def fill(f, d, share=0.4):
    for g in range(d.count):
        if f.random.random() < share:
            d.data(g, f.noise(d.cs))


@by_hand
def versions_and_cluster_sizes(f):
    for magic in (V1, V2):
        for tracks in (1, 8, 63, 504, 512, 2048):
            name = f"{magic[-3:].decode()}{tracks}.hds"
            d = Delta(f.path(name), tracks * 512 * 30 + 512, tracks=tracks,
                      magic=magic)
            order = list(range(0, d.count, 2)) + [11, 13, 15, 17]
            f.random.shuffle(order)
            for g in order[:8] + [3, 5, 7]:
                if not d.bat[g]:
                    d.data(g, f.noise(d.cs))
            f.serve(name, d.finish(), cluster=d.cs)
            check_command(f.path(name), 0)
            if magic == V2 and tracks in (512, 2048):
                check_by_ploop(f.path(name))


@by_hand
def runs_are_long(f):
    d = Delta(f.path("a.hds"), 63 * 512 * 200, tracks=63, magic=V1)
    for g in range(10, 190):
        d.data(g, f.noise(d.cs))
    f.serve("a.hds", d.finish(), cluster=d.cs)


@by_hand
def sizes_of_64_bits(f):
    d = Delta(f.path("big.hds"), (3 << 40) + 512)
    for g in (0, 5, d.count - 1):
        d.data(g, f.noise(d.cs))
    f.serve("big.hds", d.finish(), sequential="data", cluster=d.cs)


@by_hand
def odd_headers_that_are_readable(f):
    # Upper half of a version 1 size is rubbish; data begin elsewhere.
    d = Delta(f.path("v1.hds"), 40 * 63 * 512, tracks=63, magic=V1,
              data_off=8 * 512)
    fill(f, d)
    d.finish()
    with open(d.path, "r+b") as out:
        out.seek(40)
        out.write(b"\xff\xff\xff\xff")
    f.serve("v1.hds", d.expect, cluster=d.cs)
    # In use; its extension is stale then and may be anywhere.
    d = Delta(f.path("used.hds"), 20 * 64 * KIB, tracks=128, in_use=IN_USE)
    fill(f, d)
    d.finish()
    with open(d.path, "r+b") as out:
        out.seek(56)
        out.write(b"\xff\xff\xff\xff\xff\xff\xff\x7f")
    f.serve("used.hds", d.expect, cluster=d.cs)
    check_command(f.path("used.hds"), 2)
    # A BAT that does not reach to the disk's end.
    d = Delta(f.path("short.hds"), 64 * KIB * 20, tracks=128, entries=9)
    fill(f, d)
    d.finish()
    f.refuse("short.hds", "BAT of 9 entries is too short")
    # A tail that was cut off inside the last cluster.
    d = Delta(f.path("cut.hds"), 64 * KIB * 20, tracks=128)
    for g in (3, 4, 9):
        d.data(g, f.noise(d.cs))
    d.file_end = d.data_off + 2 * d.cs + 700
    d.expect.fail(9 * d.cs + 700, d.cs - 700)
    f.serve("cut.hds", d.finish(), cluster=d.cs)
    check_command(f.path("cut.hds"), 2)


@by_hand
def format_extensions_do_not_hinder_reading(f):
    for name, body in (
            ("bitmap", feature(EXT_BITMAP, 1, bytes(32)) + bytes(24)),
            ("unknown", feature(0x1122334455667788, 0, b"what") + bytes(24)),
            ("necessary", feature(0x1122334455667788, 1, b"x" * 99) +
             bytes(24))):
        d = Delta(f.path(name + ".hds"), 64 * KIB * 20, tracks=128,
                  extension=body)
        fill(f, d)
        f.serve(name + ".hds", d.finish(), cluster=d.cs)
        check_command(f.path(name + ".hds"), 0)
    d = Delta(f.path("bad.hds"), 64 * KIB * 20, tracks=128,
              extension=feature(7, 0, b"x")[:-8] + b"\xff" * 60000)
    f.serve("bad.hds", d.finish(), cluster=d.cs)
    check_command(f.path("bad.hds"), 2)


@by_hand
def damage_stays_where_it_is(f):
    for magic in (V1, V2):
        d = Delta(f.path("a.hds"), 64 * KIB * 20, tracks=128, magic=magic)
        for g in (0, 1, 7):
            d.data(g, f.noise(d.cs))
        d.wrong(3, 0xFFFFFFFF)
        d.wrong(4, d.place(3))
        if magic == V1:
            d.data_off = 512
            d.bat[:] = [0] * d.count
            d.clusters.clear()
            d.expect = Expect(d.size)
            d.data(2, f.noise(d.cs))
            d.wrong(3, 1 << 30)
        f.serve("a.hds", d.finish(), cluster=d.cs)
        check_command(f.path("a.hds"), 2)
        check_by_ploop(f.path("a.hds"), sound=False)
    d = Delta(f.path("twice.hds"), 64 * KIB * 20, tracks=128)
    same = f.noise(d.cs)
    d.data(0, same, place=0)
    d.data(5, same, place=0)
    f.serve("twice.hds", d.finish(), cluster=d.cs)
    check_command(f.path("twice.hds"), 2)
    check_by_ploop(f.path("twice.hds"), sound=False)
    d = Delta(f.path("leak.hds"), 64 * KIB * 20, tracks=128)
    d.data(0, f.noise(d.cs), place=3)
    f.serve("leak.hds", d.finish(), cluster=d.cs)
    check_command(f.path("leak.hds"), 3)


@by_hand
def hostile_headers_are_refused(f):
    for field, value, pattern in (
            ("magic", b"WithoutFreeSpacX", "cannot|not ploop|declared"),
            ("type", 1, "type 1"), ("tracks", 0, "0 sectors"),
            ("tracks", 0x7FFFFFFF, "sectors is not in"),
            ("count", 1 << 29, "limit"), ("count", 1 << 20, "ends past"),
            ("sectors", 1 << 62, "limit")):
        d = Delta(f.path("h.hds"), MIB)
        d.finish()
        setattr(d, field, value)
        with open(d.path, "r+b") as out:
            out.write(d.header())
        f.refuse("h.hds", pattern, fmt="ploop")
    d = Delta(f.path("ext.hds"), MIB)
    d.finish()
    with open(d.path, "r+b") as out:
        out.write(d.header(ext_off=1 << 63))
    f.refuse("ext.hds", "format extension at sector")


# Bundles

def chain(f, folder, size, kinds, root="Parallels_disk_image", tracks=128,
          top_is_default=True, split=1):
    """A folder with one layer for each of kinds, the base first. Returns
    ([(guid, [file of each storage], Expect)], Bundle)."""
    os.makedirs(f.path(folder), exist_ok=True)
    b = Bundle(f.path(folder), size, root)
    ids = [guid(f.random) for _ in kinds]
    if top_is_default:
        ids[-1] = TOP
    else:
        b.top = ids[-1]
    part = size // 512 // split
    images = [[] for _ in range(split)]
    below = [Expect(part * 512) for _ in range(split)]
    layers = []
    for i, kind in enumerate(kinds):
        files = []
        whole = Expect(size)
        for s in range(split):
            name = f"root.hds.{s}.{ids[i]}.hds"
            path = os.path.join(f.path(folder), name)
            if kind == "Plain":
                content = f.noise(part * 512)
                with open(path, "wb") as out:
                    out.write(content)
                below[s] = Expect(part * 512)
                below[s].put(0, content)
            else:
                d = Delta(path, part * 512, tracks=tracks, base=below[s],
                          magic=V1 if kind == "V1" else V2)
                fill(f, d, 0.3)
                below[s] = d.finish()
            images[s].append((ids[i], "Plain" if kind == "Plain" else
                              "Compressed", name))
            files.append(name)
            for off, data in below[s].chunks:
                whole.put(s * part * 512 + off, data)
        layers.append((ids[i], files, whole))
    b.storages = [(s * part, (s + 1) * part, images[s])
                  for s in range(split)]
    b.shots = [(ids[i], ids[i - 1] if i else NIL) for i in range(len(ids))]
    return layers, b


def serve_all(f, folder, layers, b):
    """By the descriptor, by each snapshot's GUID, by each delta."""
    descriptor = f"{folder}/DiskDescriptor.xml"
    b.finish()
    f.serve(descriptor, layers[-1][2])
    f.serve(folder, layers[-1][2], reads=10)
    for ident, files, expect in layers:
        f.serve(descriptor, expect, snapshot=ident, reads=10)
        f.serve(descriptor, expect, snapshot=ident.strip("{}").upper(),
                reads=10)
        for name in files:
            path = f"{folder}/{name}"
            with open(f.path(path), "rb") as image:
                if image.read(16) not in (V1, V2):
                    continue
            f.serve(path, expect, reads=10)


def same_snapshots_by_ploop(path):
    """`ploop snapshot-list` tells the same, and the one that is written to
    besides."""
    if not shutil.which("ploop"):
        return
    out = run(["ploop", "snapshot-list", "-H", "-o", "uuid", path])[1]
    theirs = set(out.split()) - {TOP}
    ours = run_json([os.environ["PLATTER"], "info", "--json", path])
    ours = {s["id"] for s in ours["snapshots"]}
    if ours != theirs:
        raise Failure(f"platter has the snapshots {ours}, ploop {theirs}")


@by_hand
def bundles_of_deltas(f):
    for root in ("Parallels_disk_image", "Virtuozzo_disk_image"):
        layers, b = chain(f, root, 40 * 64 * KIB, ["V2"] * 4, root)
        b.storages[0][2].reverse()
        f.random.shuffle(b.shots)
        serve_all(f, root, layers, b)
        same_snapshots_by_ploop(f.path(f"{root}/DiskDescriptor.xml"))
        for _, files, _ in layers:
            check_by_ploop(f.path(f"{root}/{files[0]}"))


@by_hand
def the_top_is_what_the_descriptor_says(f):
    layers, b = chain(f, "a", 20 * 64 * KIB, ["V2"] * 3, top_is_default=False)
    serve_all(f, "a", layers, b)
    b.top = layers[1][0].upper()
    b.finish()
    f.serve("a/DiskDescriptor.xml", layers[1][2])
    # A tree: two snapshots stand upon one.
    layers, b = chain(f, "tree", 20 * 64 * KIB, ["V2"] * 2)
    name = "side.hds"
    side = Delta(f.path("tree/" + name), 20 * 64 * KIB, tracks=128,
                 base=layers[0][2])
    fill(f, side)
    ident = guid(f.random)
    b.storages[0][2].append((ident, "Compressed", name))
    b.shots.append((ident, layers[0][0]))
    layers.insert(1, (ident, [name], side.finish()))
    serve_all(f, "tree", layers, b)


@by_hand
def plain_bases(f):
    for kinds in (["Plain"], ["Plain", "V2"], ["Plain", "V2", "V1", "V2"]):
        folder = "-".join(kinds)
        serve_all(f, folder, *chain(f, folder, 20 * 64 * KIB, kinds))


@by_hand
def sixty_three_sector_clusters_in_a_chain(f):
    serve_all(f, "a", *chain(f, "a", 63 * 512 * 32, ["V1", "V1"], tracks=63))


@by_hand
def split_storage(f):
    for kinds in (["V2"], ["V2", "V2", "V1"], ["Plain"], ["Plain", "V2"],
                  ["Plain", "V2", "V2"]):
        folder = "split-" + "-".join(kinds)
        layers, b = chain(f, folder, 24 * 64 * KIB, kinds, split=3)
        b.storages.reverse()
        serve_all(f, folder, layers, b)


@by_hand
def names_in_the_descriptor(f):
    layers, b = chain(f, "a", 20 * 64 * KIB, ["V2", "V2"])
    start, end, images = b.storages[0]
    for prefix in ("/vz/private/100/root.hdd/", "C:\\disks\\root.hdd\\", ""):
        b.storages = [(start, end, [(g, t, prefix + n)
                                    for g, t, n in images])]
        serve_all(f, "a", layers, b)
    # A delta that the descriptor beside it does not know stands alone.
    d = Delta(f.path("a/other.hds"), 64 * KIB * 5, tracks=128)
    fill(f, d)
    f.serve("a/other.hds", d.finish())
    # Names with what XML has to escape.
    layers, b = chain(f, "b", 20 * 64 * KIB, ["V2", "V2"])
    start, end, images = b.storages[0]
    new = []
    for i, (g, t, n) in enumerate(images):
        odd = f"a & b <{i}> \u00fc.hds"
        os.rename(f.path("b/" + n), f.path("b/" + odd))
        layers[i] = (layers[i][0], [odd], layers[i][2])
        new.append((g, t, odd))
    b.storages = [(start, end, new)]
    serve_all(f, "b", layers, b)


def states(ids, names):
    """Snapshots.xml of a machine: each upon the one before."""
    items = "".join(f'<SavedStateItem guid="{i}" current="no">'
                    f"<Name>{escape(n)}</Name>" for i, n in zip(ids, names))
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<ParallelsSavedStates>'
            f'<SavedStateItem guid="">{items}' +
            "</SavedStateItem>" * (len(ids) + 1) +
            "</ParallelsSavedStates>\n").encode()


def names_of(f, descriptor):
    info = run_json([os.environ["PLATTER"], "info", "--json",
                     f.path(descriptor)])
    return {s["id"]: s["name"] for s in info["snapshots"]}


@by_hand
def snapshots_have_names(f):
    layers, b = chain(f, "vm/root.hdd", 20 * 64 * KIB, ["V2"] * 4)
    b.finish()
    descriptor = "vm/root.hdd/DiskDescriptor.xml"
    ids = [ident for ident, _, _ in layers]
    names = ["first", "before <upgrade> & \u00fc", "twice", "twice"]
    # One folder up: not without leave.
    f.write("vm/Snapshots.xml", states(ids, names))
    got = names_of(f, descriptor)
    if set(got) != set(ids[:3]) or set(got) != set(got.values()):
        raise Failure(f"outside the bundle's folder was read: {got}")
    f.refuse(descriptor, "no snapshot", snapshot="first")
    f.serve(descriptor, layers[0][2], snapshot="first", reads=10,
            allow=[f.path("vm")])
    # Beside the descriptor.
    f.write("vm/root.hdd/Snapshots.xml", states(ids[:3], names[:3]))
    got = names_of(f, descriptor)
    if got != dict(zip(ids[:3], names[:3])):
        raise Failure(f"the snapshots are called {got}")
    for (ident, _, expect), name in zip(layers[:3], names):
        f.serve(descriptor, expect, snapshot=name, reads=10)
        f.serve(descriptor, expect, export=f"@{name}", reads=10)
        f.serve(descriptor, expect, snapshot=ident, reads=10)
    f.write("vm/root.hdd/Snapshots.xml", states(ids, names))
    f.refuse(descriptor, "2 snapshots are called", snapshot="twice")
    # Rubbish takes names away, nothing else.
    f.write("vm/root.hdd/Snapshots.xml", b"<ParallelsSavedStates>")
    f.serve(descriptor, layers[1][2], snapshot=ids[1], reads=10)
    f.refuse(descriptor, "no snapshot", snapshot="first")


@by_hand
def sizes_of_snapshots(f):
    """A disk that grew after its snapshot."""
    os.makedirs(f.path("a"))
    base = Delta(f.path("a/base.hds"), 10 * 64 * KIB, tracks=128)
    fill(f, base)
    below = base.finish()
    top = Delta(f.path("a/top.hds"), 16 * 64 * KIB, tracks=128, base=below)
    fill(f, top)
    b = Bundle(f.path("a"), 16 * 64 * KIB)
    ident = guid(f.random)
    b.storages = [(0, 16 * 128, [(ident, "Compressed", "base.hds"),
                                 (TOP, "Compressed", "top.hds")])]
    b.shots = [(TOP, ident), (ident, NIL)]
    serve_all(f, "a", [(ident, ["base.hds"], below),
                       (TOP, ["top.hds"], top.finish())], b)


@by_hand
def wrong_descriptors_are_refused(f):
    def fresh(name):
        return chain(f, name, 4 * 64 * KIB, ["V2", "V2"])

    def attempt(name, change, pattern, **kwargs):
        layers, b = fresh(name)
        change(b, layers)
        b.finish()
        f.refuse(f"{name}/DiskDescriptor.xml", pattern, fmt="ploop", **kwargs)

    def images(b):
        return b.storages[0][2]

    attempt("dtd", lambda b, la: setattr(
        b, "head", '<!DOCTYPE a [<!ENTITY b "c">]>\n'), "DTD")
    attempt("entity", lambda b, la: setattr(b, "padding", "&b;"),
            "well-formed")
    attempt("deep", lambda b, la: setattr(
        b, "extra", "<a>" * 20 + "</a>" * 20), "deep")
    attempt("deeper", lambda b, la: setattr(
        b, "extra", "<a>" * 5000 + "</a>" * 5000), "well-formed|deep")
    attempt("huge", lambda b, la: setattr(
        b, "extra", "<a>" + "x" * MIB + "</a>"), "limit")
    attempt("open", lambda b, la: setattr(b, "extra", "<a>"), "well-formed")
    attempt("padding", lambda b, la: setattr(b, "padding", "1"), "Padding 1")
    attempt("engine", lambda b, la: setattr(
        b, "extra", "<Encryption><Engine>" + TOP + "</Engine></Encryption>"),
        "encryption engine")
    attempt("size", lambda b, la: setattr(b, "sectors", 1 << 60), "Disk_size")
    attempt("size-", lambda b, la: setattr(b, "sectors", -1), "Disk_size")
    attempt("nothing", lambda b, la: setattr(b, "storages", []), "no Storage")
    attempt("overlap", lambda b, la: b.storages.append(
        (5, 6, images(b))), "overlap")
    attempt("type", lambda b, la: images(b).append(
        (guid(f.random), "Sparse", "x")), 'image type "Sparse"')
    attempt("guid", lambda b, la: images(b).append(
        ("{x}", "Plain", "x")), "not a GUID")
    attempt("twice", lambda b, la: images(b).append(images(b)[0]),
            "two images")
    attempt("top", lambda b, la: setattr(b, "top", guid(f.random)),
            "there is no image")
    attempt("parent", lambda b, la: b.shots.__setitem__(
        1, (TOP, guid(f.random))), "there is no image")
    attempt("missing", lambda b, la: os.unlink(
        f.path("missing/" + la[0][1][0])), "missing|no such|not there")
    attempt("loop", lambda b, la: b.shots.__setitem__(
        0, (la[0][0], TOP)), "its own backing file")
    attempt("outside", lambda b, la: images(b).__setitem__(
        1, (TOP, "Compressed", "../../../etc/hostname")), "outside|folder")
    attempt("snapshot", lambda b, la: None, "no snapshot",
            snapshot=guid(f.random))
    # A delta whose descriptor cannot be understood: what is below it is
    # not known.
    layers, b = fresh("delta")
    b.extra = "<a>"
    b.finish()
    f.refuse("delta/" + layers[1][1][0], "well-formed")


if __name__ == "__main__":
    main(__doc__)

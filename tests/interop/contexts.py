#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What block status tells beside base:allocation: layers, qcow2's bitmaps, what
an overlay has of new since a snapshot. QEMU's server is the oracle, and its
client makes increments."""

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from guest_disk import Guest  # noqa: E402
from nbd import FLAG_ONE, OPT_LIST_CONTEXT, Client, Refused  # noqa: E402
from server import (Failure, Server, environment, listens,  # noqa: E402
                    need_programs, run, run_json)

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE = (24 << 20) + 512
DEPTH = "qemu:allocation-depth"
DIRTY = "qemu:dirty-bitmap:"
BASE = ":base"
# name, granularity
BITMAPS = [("b0", 65536), ("fine", 512), ("coarse", 2 << 20),
           ("with space", 4096), ("ü ☃", 65536), ("a:b/c@d~e+f%20", 65536)]


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.control = self.path("control")

    def path(self, name):
        return os.path.join(self.folder, name)

    def overlay(self, *args):
        return run([os.environ["PLATTER"], "overlay", *args, "--control",
                    self.control])[1]


@contextlib.contextmanager
def qemu_nbd(c, image, *options):
    """The URI of what QEMU's server serves."""
    path = c.path("qemu")
    p = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", path,
                          *options, image])
    try:
        until = time.monotonic() + 60
        while not listens(path):
            is_true(p.poll() is None and time.monotonic() < until,
                    "qemu-nbd did not begin")
            time.sleep(0.01)
        yield "nbd+unix:///?socket=" + urllib.parse.quote(path)
    finally:
        p.terminate()
        p.wait(60)


def nbd_map(uri, context):
    """[(off, length, type)], neighbours of one type joined."""
    joined = []
    for e in run_json(["nbdinfo", f"--map={context}", "--json", uri]):
        if joined and joined[-1][2] == e["type"]:
            joined[-1][1] += e["length"]
        else:
            joined.append([e["offset"], e["length"], e["type"]])
    return joined


def contexts_of(uri):
    return run_json(["nbdinfo", "--json", uri])["exports"][0]["contexts"]


def layers_are_as_deep_as_qemu_finds(c):
    run(["qemu-img", "create", "-q", "-f", "qcow2", c.path("d0"), str(SIZE)])
    run(["qemu-io", "-c", "write -P 1 0 1M", "-c", "write -P 1 8M 64k",
         c.path("d0")])
    for i in range(1, 4):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", c.path(f"d{i-1}"),
             "-F", "qcow2", c.path(f"d{i}"), str(SIZE)])
        run(["qemu-io", "-c", f"write -P 1 {i}00k 300k", "-c",
             f"write -z {i + 8}M 128k", "-c", f"discard {i}M 64k",
             c.path(f"d{i}")])
    with qemu_nbd(c, c.path("d3"), "-A") as uri:
        want = nbd_map(uri, DEPTH)
    with Server(c.path("d3"), allow=[c.folder]) as s:
        is_equal(nbd_map(s.uri(), DEPTH), want, "the map of depths")
        is_true(DEPTH in contexts_of(s.uri()), "it is not listed")
    is_equal(sorted({t for _, _, t in want}), [0, 1, 2, 3, 4], "the depths")


def make_bitmaps(c, name):
    image = c.path(name)
    rnd = random.Random(2)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k",
         image, str(SIZE)])
    for name, granularity in BITMAPS:
        run(["qemu-img", "bitmap", "--add", "-g", str(granularity), image,
             name])
        args = []
        for _ in range(10):
            off = rnd.randrange(SIZE // 512) * 512
            length = min(rnd.choice((512, 4096, 70000, 1 << 20)), SIZE - off)
            args += ["-c", f"write {off} {length // 512 * 512 or 512}"]
        run(["qemu-io", *args, image])
    # All of one cluster of bits: a table entry without a cluster, and with.
    run(["qemu-img", "bitmap", "--add", "-g", "512", image, "all"])
    run(["qemu-io", "-c", f"write 0 {SIZE}", image])
    run(["qemu-img", "bitmap", "--add", image, "none"])
    return image


def bitmaps_say_what_qemu_says(c):
    image = make_bitmaps(c, "bitmaps")
    with Server(image) as s:
        listed = contexts_of(s.uri())
        for name in [name for name, _ in BITMAPS] + ["all", "none"]:
            is_true(DIRTY + name in listed, f"{name} is not in {listed}")
            with qemu_nbd(c, image, "-B", name) as uri:
                want = nbd_map(uri, DIRTY + name)
            is_equal(nbd_map(s.uri(), DIRTY + name), want, f"bitmap {name}")
        is_equal(nbd_map(s.uri(), DIRTY + "none"), [[0, SIZE, 0]], "none")
        is_equal(nbd_map(s.uri(), DIRTY + "all"), [[0, SIZE, 1]], "all")


def says(s, text):
    """The server's lines come by a thread of their own."""
    until = time.monotonic() + 30
    while text not in s.messages():
        is_true(time.monotonic() < until, f"not {text!r}: {s.messages()}")
        time.sleep(0.01)


def poke(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def peek(path, at, n):
    with open(path, "rb") as f:
        f.seek(at)
        return f.read(n)


def directory_of(path):
    """Where the bitmap directory is, by the extensions of the header."""
    at = struct.unpack(">I", peek(path, 100, 4))[0]
    while True:
        kind, size = struct.unpack(">II", peek(path, at, 8))
        if kind == 0x23852875:
            return struct.unpack(">Q", peek(path, at + 8 + 16, 8))[0]
        is_true(kind, "there is no bitmaps extension")
        at += 8 + (size + 7) // 8 * 8


def one_that_may_be_wrong_is_not_offered(c):
    image = make_bitmaps(c, "stale")
    directory = directory_of(image)
    with Server(image) as s:
        is_true(DIRTY + "b0" in contexts_of(s.uri()), "b0 is not offered")
        # Nor where somebody may be writing, or what is read is another state.
    with Server(image, more=["--force-share"]) as s:
        is_true(not any(DIRTY in x for x in contexts_of(s.uri())), "shared")
    run(["qemu-img", "snapshot", "-c", "then", image])
    with Server(image) as s:
        is_true(not any(DIRTY in x for x in contexts_of(s.uri("@then"))),
                "a snapshot's")
        is_true(DIRTY + "b0" in contexts_of(s.uri()), "b0 is not offered")
    with Server(image, more=["--overlay", "temp"]) as s:
        is_equal([x for x in contexts_of(s.uri()) if DIRTY in x],
                 [DIRTY + BASE], "a base's, over which is written")
    directory = directory_of(image)
    flags = struct.unpack(">I", peek(image, directory + 12, 4))[0]
    for wrong in (flags | 1, flags | 8):
        poke(image, directory + 12, struct.pack(">I", wrong))
        with Server(image) as s:
            is_true(DIRTY + "b0" not in contexts_of(s.uri()), "in use")
            is_true(DIRTY + "fine" in contexts_of(s.uri()), "the others go")
            with Client(s.socket) as n:
                is_equal(n.contexts(b"", [b"qemu:dirty-bitmap:b0"]), {},
                         "what was set")
                n.go()
                is_equal(n.status(0, 512)[0], 22, "the error")
    poke(image, directory + 12, struct.pack(">I", flags))
    auto = peek(image, 88, 8)
    poke(image, 88, bytes(8))
    with Server(image) as s:
        is_true(not any(DIRTY in x for x in contexts_of(s.uri())), "stale")
    poke(image, 88, auto)


def damage_is_an_error_and_not_clean(c):
    image = make_bitmaps(c, "damaged")
    directory = directory_of(image)
    table = struct.unpack(">Q", peek(image, directory, 8))[0]
    for entry in (3, 1 << 60, 0x200, 1 << 50):
        poke(image, table, struct.pack(">Q", entry))
        with Server(image) as s, Client(s.socket) as n:
            found = n.contexts(b"", [b"base:allocation",
                                     b"qemu:dirty-bitmap:b0"])
            is_equal(len(found), 2, "contexts")
            n.go()
            is_equal(n.status(0, 65536)[0], 5, f"the error of {entry:#x}")
            says(s, "bitmap table entry" if entry >> 50 != 1 else
                 "end past the file")
    # A directory that contradicts itself: what is behind cannot be had.
    poke(image, directory + 18, struct.pack(">H", 0xffff))
    with Server(image) as s:
        is_equal([x for x in contexts_of(s.uri()) if DIRTY in x], [], "left")
        says(s, "bitmap directory entry")


def several_are_told_in_one_answer(c):
    image = make_bitmaps(c, "several")
    names = [b"base:allocation", DEPTH.encode(),
             (DIRTY + "fine").encode(), (DIRTY + "all").encode()]
    with Server(image) as s, Client(s.socket) as n:
        listed = n.contexts(b"", [b"qemu:"], OPT_LIST_CONTEXT)
        is_equal(len(listed), len(BITMAPS) + 3, "those of qemu")
        is_true(not any(listed.values()), "a list's ids are 0")
        listed = n.contexts(b"", [DIRTY.encode()], OPT_LIST_CONTEXT)
        is_equal(len(listed), len(BITMAPS) + 2, "bitmaps")
        listed = n.contexts(b"", [b"base:", b"other:x"], OPT_LIST_CONTEXT)
        is_equal(list(listed), [b"base:allocation"], "base's")
        everything = n.contexts(b"", [], OPT_LIST_CONTEXT)
        is_equal(len(everything), len(BITMAPS) + 4, "all")
        # A namespace is no context, nor twice the same two.
        is_equal(n.contexts(b"", [b"qemu:", b"base:", DIRTY.encode()]), {},
                 "what was set")
        ids = n.contexts(b"", names + names + [b"x\0y", b""])
        is_equal(sorted(ids), sorted(names), "what was set")
        is_equal(len(set(ids.values())), 4, "ids")
        try:
            n.contexts(b"", [b"x"] * 1000)
            raise Failure("1000 queries were taken")
        except Refused:
            pass
        ids = n.contexts(b"", names)
        n.go()
        code, told = n.status(4096, SIZE - 4096)
        is_equal(code, 0, "the error")
        is_equal(set(told), set(ids.values()), "ids that were told")
        for name in names:
            want = []
            for off, length, kind in nbd_map(s.uri(), name.decode()):
                length = off + length - max(off, 4096)
                if length > 0:
                    want.append((length, kind))
            is_equal(told[ids[name]], want, name.decode())
        code, told = n.status(4096, SIZE - 4096, FLAG_ONE)
        is_equal([len(x) for x in told.values()], [1] * 4, "one each")


def nbd_options(s, export, context):
    return (f"driver=nbd,server.type=unix,server.path={s.socket},"
            f"export={export},x-dirty-bitmap={context}")


def increment(s, export, snapshot, old):
    """What QEMU's client makes of @old with what is new in @export. It takes
    the bitmap for an allocation: what is dirty is no data."""
    new = bytearray(old)
    changed = 0
    with Client(s.socket) as n:
        new += bytes(n.go(export.encode()) - len(new))
        for e in run_json(["qemu-img", "map", "--output=json", "--image-opts",
                           nbd_options(s, export, DIRTY + snapshot)]):
            if e["data"]:
                continue
            for off in range(e["start"], e["start"] + e["length"], 1 << 20):
                end = min(off + (1 << 20), e["start"] + e["length"])
                code, data = n.read(off, end - off)
                is_equal(code, 0, "the error")
                new[off:end] = data
                changed += end - off
    return bytes(new), changed


def increments_of_a_live_overlay_make_the_whole_disk(c):
    folder = c.path("snapped")
    os.mkdir(folder)
    disk = random.Random(9).randbytes(SIZE)
    with open(c.path("base.raw"), "wb") as f:
        f.write(disk)
    with Server(c.path("base.raw"), fmt="raw",
                more=["--overlays", folder, "--control", c.control]) as s:
        guest = Guest(s.socket, disk, 3, b"+vm")
        states = {}
        for name in ("monday", "with.dot", "tuesday"):
            for _ in range(25):
                guest.step()
            c.overlay("snapshot", "+vm", name)
            states[name] = bytes(guest.model)
            new, changed = increment(s, "+vm", name, states[name])
            is_equal(changed, 0, f"bytes changed since {name}")
        for _ in range(25):
            guest.step()
        listed = contexts_of(s.uri("+vm"))
        is_equal(sorted(x for x in listed if DIRTY in x),
                 sorted(DIRTY + name for name in [*states, BASE]),
                 "those of snapshots and of the base")
        states[BASE] = disk
        for name, old in states.items():
            new, changed = increment(s, "+vm", name, old)
            is_true(new == bytes(guest.model), f"since {name}: not the disk")
            is_true(0 < changed < SIZE, f"{changed} bytes since {name}")
        del states[BASE]
        c.overlay("resize", "+vm", str(SIZE + (1 << 20)))
        guest.close()
        new, _ = increment(s, "+vm", "monday", states["monday"])
        is_true(new == bytes(guest.model) + bytes(1 << 20), "a longer disk")
        states_come_and_go(c, s, states)


def virtnbdbackup(c, s, folder, *args):
    out = run(["/usr/bin/python3", "-P",
               os.path.join(HERE, "consumers", "virtnbdbackup-life.py"), *args],
              env={"PATH": os.environ["PATH"], "HOME": c.folder,
                   "FOLDER": folder, "DISK": "+backed",
                   "SOCKET": s.socket})[1]
    is_true("whole" in out, f"virtnbdbackup {args}: {out}")


def virtnbdbackup_takes_snapshots_for_checkpoints(c):
    if not os.path.exists("/usr/bin/virtnbdbackup"):
        print("SKIP: no virtnbdbackup")
        return
    overlays, folder = c.path("backed"), c.path("backup")
    os.mkdir(overlays)
    os.makedirs(folder + "/restored")
    disk = random.Random(10).randbytes(4 << 20) + bytes(SIZE - (4 << 20))
    with open(c.path("backed.raw"), "wb") as f:
        f.write(disk)
    with Server(c.path("backed.raw"), fmt="raw",
                more=["--overlays", overlays, "--control", c.control]) as s:
        guest = Guest(s.socket, disk, 4, b"+backed")
        level, parent = "full", ""
        for name in ("one", "two", "three"):
            for _ in range(25):
                guest.step()
            c.overlay("snapshot", "+backed", name)
            frozen = bytes(guest.model)
            virtnbdbackup(c, s, folder, level, name, parent)
            level, parent = "inc", name
        guest.close()
        virtnbdbackup(c, s, folder, "restore")
    run(["qemu-img", "convert", "-O", "raw", folder + "/restored/+backed",
         folder + "/raw"])
    with open(folder + "/raw", "rb") as f:
        is_true(f.read() == frozen, "what was restored is another disk")
    full = os.path.getsize(folder + "/+backed.full.data")
    for name in ("two", "three"):
        n = os.path.getsize(folder + f"/+backed.inc.{name}.data")
        is_true(100 < n < full, f"{n} bytes since the one before {name}")


def what_a_live_overlay_changed_is_an_export(c):
    """It reads as the overlay does now, and its holes are the base's."""
    os.mkdir(c.path("live"))
    disk = random.Random(10).randbytes(SIZE)
    with open(c.path("live.raw"), "wb") as f:
        f.write(disk)
    with Server(c.path("live.raw"), fmt="raw",
                more=["--overlays", c.path("live"), "--control",
                      c.control]) as s:
        name = "+vm@:base.."
        # Nothing has been written: there is no file, and no difference.
        is_equal(nbd_map(s.uri("+vm"), DIRTY + BASE), [[0, SIZE, 0]], "dirty")
        is_equal(nbd_map(s.uri(name), "base:allocation"), [[0, SIZE, 1]],
                 "the map of no change")
        is_equal(os.listdir(c.path("live")), [], "files")
        with Client(s.socket) as w, Client(s.socket) as n:
            w.go(b"+vm")
            is_equal(w.write(4 << 20, b"x" * 8192), 0, "the error")
            is_equal(w.zero(8 << 20, 65536), 0, "the error")
            is_equal(nbd_map(s.uri(name), "base:allocation"),
                     [[0, 4 << 20, 1], [4 << 20, 8192, 0],
                      [(4 << 20) + 8192, (4 << 20) - 8192, 1],
                      [8 << 20, 65536, 3],
                      [(8 << 20) + 65536, SIZE - (8 << 20) - 65536, 1]],
                     "the map of changes")
            is_equal(n.go(name.encode()), SIZE, "the size")
            is_true(run_json(["nbdinfo", "--json", s.uri(name)])["exports"][0]
                    ["is_read_only"], "it can be written")
            is_true(n.write(0, b"y") != 0, "it was written")
            # It is live: what is written now is there now.
            is_equal(w.write(12 << 20, b"z" * 4096), 0, "the error")
            is_equal(n.read(12 << 20, 4096), (0, b"z" * 4096), "what is new")
            is_equal(n.read(100, 100), (0, disk[100:200]), "what is old")
            c.overlay("snapshot", "+vm", "s1")
            is_equal(w.write(16 << 20, b"1" * 4096), 0, "the error")
            is_equal([e[:2] for e in nbd_map(s.uri("+vm@s1.."),
                                             "base:allocation")
                      if e[2] == 0], [[16 << 20, 4096]], "since s1")
            is_equal(len([e for e in nbd_map(s.uri("+vm@:base..s1"),
                                             "base:allocation")
                          if e[2] == 0]), 2, "up to s1")
        with Client(s.socket) as n, Client(s.socket) as w:
            n.go(b"+vm@:own")
            w.go(b"+vm")
            is_equal(n.write(20 << 20, b"q" * 4096), 0, "the error")
            is_equal(w.read(20 << 20, 4096), (0, b"q" * 4096), "one disk")
            told = nbd_map(s.uri("+vm@:own"), "base:allocation")
            is_equal([e[0] for e in told if e[2] == 0],
                     [4 << 20, 12 << 20, 16 << 20, 20 << 20], "its own")
            w.socket.close()
            status, _, err = run(
                [os.environ["PLATTER"], "overlay", "revert", "--control",
                 c.control, "+vm", "s1"], ok=None)
            is_true(status and "another of its names" in err, f"{err}")
        status, _, err = run([os.environ["PLATTER"], "overlay", "snapshot",
                              "--control", c.control, name, "s2"], ok=None)
        is_true(status and "has no overlay" in err, f"{status}: {err}")
        for wrong in ("+vm@:base", "+vm@..:base", "+vm@:base..nothing"):
            is_true(run(["nbdinfo", s.uri(wrong)], ok=None)[0], wrong)


def dirty_now(n, ident, size):
    """[(off, end)] of what is dirty, by a client that is connected."""
    off, found = 0, []
    while off < size:
        code, told = n.status(off, size - off)
        is_equal(code, 0, "the error")
        for length, state in told[ident]:
            if state:
                found.append((off, off + length))
            off += length
    return found


def covers(found, start, end):
    for a, b in found:
        if a <= start < b:
            start = b
    return start >= end


def states_come_and_go(c, s, states):
    """While a client has one as his context: never is it clean wrongly."""
    query = (DIRTY + "with.dot").encode()
    with Client(s.socket) as n, Client(s.socket) as writer:
        ident = n.contexts(b"+vm", [query])[query]
        size = n.go(b"+vm")
        writer.go(b"+vm")
        is_equal(writer.write(5 << 20, b"x" * 5000), 0, "the error")
        must = [(5 << 20, (5 << 20) + 5000)]
        is_true(covers(dirty_now(n, ident, size), *must[0]), "was written")
        for args in (("snapshot", "+vm", "wednesday"),
                     ("delete", "+vm", "tuesday"), ("delete", "+vm", "monday"),
                     ("delete", "+vm", "with.dot"),
                     ("snapshot", "+vm", "with.dot")):
            before = dirty_now(n, ident, size)
            c.overlay(*args)
            after = dirty_now(n, ident, size)
            for a, b in before:
                is_true(covers(after, a, b), f"{args}: {a} to {b} is clean")
            at = (7 << 20) + len(must) * 70000
            is_equal(writer.write(at, b"y" * 100), 0, "the error")
            must.append((at, at + 100))
            after = dirty_now(n, ident, size)
            for m in must:
                is_true(covers(after, *m), f"{args}: {m} is clean")
        code, now = writer.read(0, 1 << 20)
        is_equal(code, 0, "the error")
        old = states["with.dot"][:1 << 20]
        for off in range(0, 1 << 20, 512):
            if now[off:off + 512] != old[off:off + 512]:
                is_true(covers(after, off, off + 512), f"{off} is clean")
        # Who connects now means the new one, and finds what is new since.
        with Client(s.socket) as late:
            ident = late.contexts(b"+vm", [query])[query]
            late.go(b"+vm")
            found = dirty_now(late, ident, size)
            is_true(covers(found, *must[-1]), "what was written since")
            is_true(sum(b - a for a, b in found) < 1 << 20, f"{found}")
    with Client(s.socket) as n:
        is_equal(n.contexts(b"+vm", [(DIRTY + "monday").encode()]), {},
                 "what is gone")


def main():
    environment("PLATTER")
    need_programs("qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
    run_checks(Context, [
        layers_are_as_deep_as_qemu_finds,
        bitmaps_say_what_qemu_says,
        one_that_may_be_wrong_is_not_offered,
        damage_is_an_error_and_not_clean,
        several_are_told_in_one_answer,
        increments_of_a_live_overlay_make_the_whole_disk,
        virtnbdbackup_takes_snapshots_for_checkpoints,
        what_a_live_overlay_changed_is_an_export,
    ])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compressed disks, made by the tools that people have: served at random, equal to
the same disk unpacked; and what is refused."""

import gzip
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client  # noqa: E402
from server import (Server, Totals, compare, environment,  # noqa: E402
                    need_programs, run)

MIB = 1 << 20
FULL = "PLATTER_FULL" in os.environ
SIZE = (9 if FULL else 3) * MIB - 512

# name: a shell command from {in} to {out}, and the packages' programs it needs.
FORMS = {
    "gz": "gzip -c {in} >{out}",
    "1.gz": "gzip -1 -c {in} >{out}",
    "members.gz": "split -b 1000000 --filter='gzip -c' {in} >{out}",
    "padded.gz": "gzip -c {in} >{out} && truncate -s +5000 {out}",
    "pigz.gz": "pigz -p 3 -c {in} >{out}",
    "bgzip.gz": "bgzip -c {in} >{out}",
    "xz": "xz -0 -c {in} >{out}",
    "blocks.xz": "xz -0 -T2 --block-size=300000 -c {in} >{out}",
    "lists.xz": "xz -0 --block-list=4096,70000,1MiB -C sha256 -c {in} >{out}",
    "streams.xz": "split -b 1000000 --filter='xz -0 --check=none -c' {in}"
                  " >{out} && truncate -s %4 {out} && truncate -s +8 {out}",
    "pixz.xz": "pixz -t -0 -i {in} -o {out}",
    "zst": "zstd -q -c {in} >{out}",
    "stdin.zst": "zstd -q -c <{in} >{out}",
    "T0.zst": "zstd -q -T0 -B512KiB -c {in} >{out}",
    "long.zst": "zstd -q --long=26 -c {in} >{out}",
    "frames.zst": "split -b 200000 --filter='zstd -q -c' {in} >{out}",
    "pzstd.zst": "pzstd -q -c {in} >{out}",
    "lz4": "lz4 -q -c {in} >{out}",
    "4.lz4": "lz4 -q -B4 -BX -c {in} >{out}",
    "BD4.lz4": "lz4 -q -B4 -BD -c {in} >{out}",
    "BD7.lz4": "lz4 -q -9 -B7 -BD --content-size -c {in} >{out}",
    "raw.lz4": "lz4 -q --no-frame-crc -B5 -c {in} >{out}",
    "legacy.lz4": "lz4 -q -l -c {in} >{out}",
    "frames.lz4": "split -b 500000 --filter='lz4 -q -c' {in} >{out}",
    "bz2": "bzip2 -c {in} >{out}",
    "1.bz2": "bzip2 -1 -c {in} >{out}",
    "pbzip2.bz2": "pbzip2 -p2 -c {in} >{out}",
}
# What is looked at each time; the others are like one of these.
FEW = ("members.gz", "padded.gz", "bgzip.gz", "blocks.xz", "streams.xz",
       "stdin.zst", "frames.zst", "pzstd.zst", "4.lz4", "BD4.lz4",
       "legacy.lz4", "1.bz2", "pbzip2.bz2")
UNPACK = {"gz": "gzip", "xz": "xz", "zst": "zstd", "lz4": "lz4",
          "bz2": "bzip2"}


def fill(path):
    """Words, noise, zeroes and repetition: all that packers treat apart."""
    rnd = random.Random(5)
    words = [rnd.randbytes(rnd.randrange(2, 12)) for _ in range(500)]
    lines = [rnd.randbytes(97) for _ in range(40)]
    with open(path, "wb") as f:
        # What was before packs well: places to begin lie near each other.
        f.write(b"".join(rnd.choices(lines, k=23000)))
        while f.tell() < SIZE:
            kind = rnd.randrange(4)
            n = rnd.randrange(1, 700_000)
            if kind == 0:
                f.write(rnd.randbytes(n))
            elif kind == 1:
                f.write(bytes(n))
            elif kind == 2:
                f.write(rnd.randbytes(97) * (n // 97))
            else:
                f.write(b"".join(rnd.choices(words, k=n // 8)))
        f.truncate(SIZE)
        # No boot sector, so that it is nothing but a disk.
        f.seek(510)
        f.write(b"\0\0")


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.raw = self.at("disk.raw")
        fill(self.raw)
        self.totals = Totals()

    def at(self, name):
        return os.path.join(self.folder, name)

    def shell(self, command, **names):
        for key, value in names.items():
            command = command.replace("{%s}" % key, value)
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)

    def pack(self, end, path=None):
        path = path or self.raw
        out = f"{path}.{end}"
        self.shell(FORMS[end], **{"in": path, "out": out})
        return out

    def same(self, path, *options, raw=None):
        raw = raw or self.raw
        with Server(path, more=[*options, "--cache", "4M"]) as s:
            random_reads(s, raw)
            compare(s.uri(), raw, self.totals)
        out = self.at("out.raw")
        run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
             *options, path, out])
        run(["cmp", raw, out])

    def refuse(self, said, *args):
        status, out, err = run([os.environ["PLATTER"], "info", *args],
                               ok=None)
        is_equal(status, 1, f"the status of info {args}: {out}")
        is_true(said in err and err.count("\n") == 1, f"{said!r}: {err!r}")


def xxh64(data):
    """By the published description, for what is made by hand."""
    p1, p2, p3, p4, p5 = (11400714785074694791, 14029467366897019727,
                          1609587929392839161, 9650029242287828579,
                          2870177450012600261)
    m = (1 << 64) - 1

    def rot(v, n):
        return (v << n | v >> (64 - n)) & m

    def one(acc, v):
        return rot((acc + v * p2) & m, 31) * p1 & m

    lanes = [(p1 + p2) & m, p2, 0, -p1 & m]
    at = 0
    while len(data) - at >= 32:
        for i, v in enumerate(struct.unpack_from("<4Q", data, at)):
            lanes[i] = one(lanes[i], v)
        at += 32
    h = p5
    if at:
        h = sum(rot(v, n) for v, n in zip(lanes, (1, 7, 12, 18))) & m
        for v in lanes:
            h = ((h ^ one(0, v)) * p1 + p4) & m
    h = (h + len(data)) & m
    while len(data) - at >= 8:
        h = (rot(h ^ one(0, struct.unpack_from("<Q", data, at)[0]), 27) * p1 +
             p4) & m
        at += 8
    if len(data) - at >= 4:
        h = (rot(h ^ struct.unpack_from("<I", data, at)[0] * p1 & m, 23) *
             p2 + p3) & m
        at += 4
    for byte in data[at:]:
        h = rot(h ^ byte * p5 & m, 11) * p1 & m
    h = (h ^ h >> 33) * p2 & m
    h = (h ^ h >> 29) * p3 & m
    return h ^ h >> 32


def random_reads(server, raw):
    rnd = random.Random(7)
    size = os.path.getsize(raw)
    with Client(server.socket) as client, open(raw, "rb") as f:
        client.go()
        for _ in range(150):
            n = rnd.choice((512, 4096, 70000))
            at = rnd.randrange(0, size - n + 1)
            f.seek(at)
            code, data = client.read(at, n)
            is_true(not code and data == f.read(n), f"{n} bytes at {at}")


def every_form_is_the_disk(c):
    for end in FORMS if FULL else FEW:
        path = c.pack(end)
        c.shell("{tool} -dc {in} 2>/dev/null | cmp - {raw}",
                **{"tool": UNPACK[end.split(".")[-1]], "in": path,
                   "raw": c.raw})
        c.same(path)
        os.unlink(path)
    print(c.totals)


def what_is_inside_is_a_disk_again(c):
    for fmt, options, end in (("qcow2", ["-c"], "gz"), ("vmdk", [], "4.lz4"),
                              ("vmdk", ["-o", "subformat=streamOptimized"],
                               "bgzip.gz"),
                              ("vhdx", [], "bz2"), ("qcow2", [], "blocks.xz"),
                              ("qcow2", [], "frames.zst"))[:6 if FULL else 3]:
        image = c.at(f"d.{fmt}")
        run(["qemu-img", "convert", "-f", "raw", "-O", fmt, *options, c.raw,
             image])
        path = c.pack(end, image)
        raw = c.at("inside.raw")
        run(["qemu-img", "convert", "-f", fmt, "-O", "raw", image, raw])
        os.unlink(image)
        c.same(path, raw=raw)
        c.same(path, "--format", fmt, raw=raw)


def streams_and_containers_nest(c):
    image = c.at("disk.vmdk")
    run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", c.raw, image])
    c.shell("cd {dir} && gzip -f disk.vmdk && echo x >notes.txt && "
            "tar cf - notes.txt disk.vmdk.gz | xz -0 >nest.tar.xz &&"
            "tar cf out.tar nest.tar.xz", dir=c.folder)
    raw = c.at("nest.raw")
    c.shell("cp {raw} {out} && truncate -s %65536 {out}", raw=c.raw, out=raw)
    raw = c.raw
    for path in ("nest.tar.xz", ):
        c.same(c.at(path), raw=raw)
    told = json.loads(run([os.environ["PLATTER"], "list", "--json",
                           c.at("nest.tar.xz")])[1])
    is_equal([m["name"] for m in told["members"]],
             ["notes.txt", "disk.vmdk.gz"], "the members")
    c.same(c.at("out.tar"), "--member", "nest.tar.xz", raw=raw)
    path = c.raw
    for i in range(9):
        run(["bash", "-c", f"gzip -c {path} >{c.at(f'n{i}')}"])
        path = c.at(f"n{i}")
    c.refuse("over 8 streams and containers in each other", path)
    c.same(c.at("n7"))


def a_backing_file_may_be_packed(c):
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", c.raw,
         c.at("base.qcow2")])
    path = c.pack("bgzip.gz", c.at("base.qcow2"))
    raw = c.at("base.out")
    run(["qemu-img", "convert", "-O", "raw", c.at("base.qcow2"), raw])
    top = c.at("top.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         os.path.basename(path), "-F", "qcow2", top,
         str(os.path.getsize(raw))])
    c.same(top, raw=raw)
    # As it is, if it is declared to be so.
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         os.path.basename(path), "-F", "raw", top,
         str(os.path.getsize(path) // 512 * 512)])
    out = c.at("asis")
    run([os.environ["PLATTER"], "convert", "--quiet", top, out])
    c.shell("cmp -n $(stat -c %s {out}) {out} {path}", out=out, path=path)


def packed_files_are_told_apart(c):
    """Two of one archive, or one as it is and unpacked, are not the same."""
    other = c.at("differs.raw")
    c.shell("cp {raw} {other} && printf x | dd of={other} bs=1 seek=70000 "
            "conv=notrunc status=none && cd {dir} && gzip -c {raw} >a.raw.gz "
            "&& gzip -c {other} >b.raw.gz && tar cf two.tar a.raw.gz b.raw.gz",
            raw=c.raw, other=other, dir=c.folder)
    for member, raw in (("a.raw.gz", c.raw), ("b.raw.gz", other)):
        c.same(c.at("two.tar"), "--member", member, raw=raw)
    status, out, err = run([os.environ["PLATTER"], "diff", c.at("a.raw.gz"),
                            c.at("b.raw.gz")], ok=None)
    is_equal(status, 1, f"the status of diff: {out} {err}")
    # One that is its own backing file.
    top = c.at("loop.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         "loop.qcow2.gz", "-F", "qcow2", top, "1M"])
    c.shell("gzip -f {top}", top=top)
    c.refuse("is its own backing file", top + ".gz")


def a_declared_raw_disk_is_not_unpacked(c):
    path = c.pack("gz")
    out = c.at("declared")
    run([os.environ["PLATTER"], "convert", "--quiet", "--format", "raw", path,
         out])
    run(["cmp", path, out])
    # A guest that writes a stream into its disk: who does not declare it is
    # told so.
    for at, mark, said in ((510, b"\x55\xaa", "a disk with a boot sector"),
                           (512, b"EFI PART", "a disk with a GPT")):
        evil = c.at("evil")
        c.shell("cp {path} {evil}", path=path, evil=evil)
        with open(evil, "r+b") as f:
            f.seek(at)
            f.write(mark)
        c.refuse(f"looks like a gzip stream and like {said}: give --format",
                 evil)
        run([os.environ["PLATTER"], "info", "--format", "raw", evil])


def an_overlay_over_it_is_temporary(c):
    path = c.pack("bgzip.gz")
    with Server(path, more=["--overlay", "temp"]) as s:
        run(["qemu-io", "-f", "raw", "-c", "write -P 5 0 64k", "-c",
             "read -P 5 0 64k", s.uri()])
    out = c.at("over.qcow2")
    for args in (["serve", "-U", c.at("s"), "--overlay", out, path],
                 ["create", "--base", path, out]):
        status, _, err = run([os.environ["PLATTER"], *args], ok=None)
        is_true(status == 1 and "or what is compressed, as its base" in err,
                f"{args}: {status} {err}")
        is_true(not os.path.exists(out), f"{args} left a file")


def a_cut_or_damaged_stream_serves_nothing_else(c):
    """Either it is refused, or what is read is the disk's, or EIO."""
    for end in ("gz", "bgzip.gz", "blocks.xz", "zst", "frames.zst", "4.lz4",
                "BD4.lz4", "bz2"):
        path = c.pack(end)
        size = os.path.getsize(path)
        cut = c.at("cut." + end)
        for length in (size - 1, size // 2, 40):
            c.shell("head -c {n} {path} >{cut}", n=str(length), path=path,
                    cut=cut)
            status, out, err = run([os.environ["PLATTER"], "convert",
                                    "--quiet", "--overwrite", cut,
                                    c.at("cut.out")], ok=None)
            is_true(status == 1 and err.count("\n") == 1 and
                    not os.path.exists(c.at("cut.out")),
                    f"{end} cut at {length}: {status} {err}")
        with open(path, "r+b") as f:
            f.seek(size // 2)
            byte = f.read(1)[0]
            f.seek(size // 2)
            f.write(bytes([byte ^ 0x10]))
        status, _, err = run([os.environ["PLATTER"], "convert", "--quiet",
                              "--overwrite", path, c.at("cut.out")], ok=None)
        if status == 0:
            # Checked by nothing that is read: then by what the tool checks.
            is_true(end in ("bgzip.gz",), f"{end}: damage is not seen")
        else:
            is_true(status == 1 and err.count("\n") == 1, f"{end}: {err}")
        os.unlink(path)


# ---- the index that is kept ----

def convert(c, path, *options):
    out = c.at("kept.out")
    run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
         *options, path, out])
    run(["cmp", c.raw, out])


def an_index_is_kept(c):
    folder = c.at("cache")
    keep = ["--cache-dir", folder]
    for end in ("gz", "bgzip.gz", "stdin.zst", "BD4.lz4", "1.bz2"):
        path = c.pack(end)
        convert(c, path, *keep)
        names = os.listdir(os.path.join(folder, "index"))
        is_equal(len(names), 1, "the indexes")
        kept = os.path.join(folder, "index", names[0])
        is_true(os.path.getsize(kept) < SIZE / 200 + 2048,
                f"{end}: an index of {os.path.getsize(kept)} bytes")
        before = os.stat(kept)
        with Server(path, more=keep) as s:
            random_reads(s, c.raw)
        after = os.stat(kept)
        is_equal(after.st_ino, before.st_ino, "the index's inode")
        is_true(after.st_mtime_ns > before.st_mtime_ns, "it was not used")
        # Whatever becomes of it, the disk is the same.
        with open(kept, "rb") as f:
            data = f.read()
        rnd = random.Random(3)
        for i in range(6):
            wrong = bytearray(data)
            if i < 3:
                wrong[rnd.randrange(len(wrong))] ^= 1 << rnd.randrange(8)
            else:
                del wrong[rnd.randrange(len(wrong)):]
            with open(kept, "wb") as f:
                f.write(wrong)
            convert(c, path, *keep)
            if not os.path.exists(kept):
                convert(c, path, *keep)  # a window, which was needed
            with open(kept, "rb") as f:
                made = f.read()
            is_true(made == data or (i < 3 and made == wrong),
                    "it was not made anew")
        # Windows are read when they are needed, and compared then.
        places = struct.unpack_from("<Q", data, 112)[0]
        with open(kept, "wb") as f:
            f.write(data[:128 + 24 * places] +
                    bytes(b ^ 1 for b in data[128 + 24 * places:]))
        with Server(path, more=keep) as s:
            with Client(s.socket) as client, open(c.raw, "rb") as f:
                client.go()
                f.seek(SIZE - 4096)
                is_equal(client.read(SIZE - 4096, 4096), (0, f.read()),
                         "what is read from the last window on")
            random_reads(s, c.raw)
        # It is gone, or made anew when the second client came.
        if os.path.exists(kept):
            with open(kept, "rb") as f:
                is_true(f.read() == data, f"{end}: a wrong index is there")
        convert(c, path, *keep)
        os.unlink(kept)
        os.unlink(path)


def a_hostile_index_is_no_danger(c):
    """With a sum that is right."""
    folder = c.at("cache")
    path = c.pack("gz")
    convert(c, path, "--cache-dir", folder)
    kept = os.path.join(folder, "index",
                        os.listdir(os.path.join(folder, "index"))[0])
    with open(kept, "rb") as f:
        data = f.read()
    top = struct.pack("<Q", (1 << 64) - 1)
    head = 8 + 80 + 32
    sealed = head + 24 * struct.unpack_from("<Q", data, head - 8)[0]
    for at, value in ((88, top), (96, top), (112, top), (head, top),
                      (head + 8, top), (head + 20, top[:4]),
                      (head + 24, top), (head + 32, top),
                      (head + 44, top[:4]), (88, bytes(8)),
                      (head + 24, struct.pack("<Q", 18)),
                      (head + 40, bytes(4))):
        wrong = bytearray(data)
        wrong[at:at + len(value)] = value
        wrong[sealed:sealed + 8] = struct.pack("<Q", xxh64(wrong[:sealed]))
        with open(kept, "wb") as f:
            f.write(wrong)
        status, out, err = run([os.environ["PLATTER"], "convert", "--quiet",
                                "--overwrite", "--cache-dir", folder, path,
                                c.at("kept.out")], ok=None)
        is_true(status in (0, 1) and err.count("\n") == status, err)
        if status == 0:
            run(["cmp", c.raw, c.at("kept.out")])
        if os.path.exists(kept):
            os.unlink(kept)
    os.unlink(path)


def an_index_is_of_the_file_as_it_is(c):
    folder = c.at("cache")
    c.shell("rm -rf {folder}", folder=folder)
    path, other = c.at("stored.gz"), c.at("other.raw")
    with open(c.raw, "rb") as f:
        data = f.read()
    with open(path, "wb") as f:
        f.write(gzip.compress(data, 0, mtime=0))
    convert(c, path, "--cache-dir", folder)
    # In the same inode, with the same size and time: the sum is another.
    data = data[:-5000] + b"other" + data[-4995:]
    with open(other, "wb") as f:
        f.write(data)
    st = os.stat(path)
    with open(path, "r+b") as f:
        f.write(gzip.compress(data, 0, mtime=0))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    is_equal(os.stat(path).st_size, st.st_size, "its size")
    out = c.at("kept.out")
    run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
         "--cache-dir", folder, path, out])
    run(["cmp", other, out])
    is_equal(len(os.listdir(c.at("cache/index"))), 2,
             "the number of indexes, one of the file as it was,")
    os.chmod(folder, 0o777)
    c.refuse("others may write into it", "--cache-dir", folder, path)
    os.chmod(folder, 0o700)
    # Killed while it is made: nothing is left that the next one minds.
    for delay in (0.01, 0.03, 0.06):
        c.shell("rm -rf {folder}/index/*", folder=folder)
        p = subprocess.Popen([os.environ["PLATTER"], "info", "--cache-dir",
                              folder, path], stdout=subprocess.DEVNULL)
        time.sleep(delay)
        p.kill()
        p.wait()
        run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
             "--cache-dir", folder, path, out])
        run(["cmp", other, out])
    os.unlink(path)


# ---- platter pack ----

PAGE, ENTRY, FOOTER = 4096, 24, 128


def parse_packed(path):
    """(footer's fields, entries) by docs/packed.md."""
    with open(path, "rb") as f:
        data = f.read()
    end = len(data)
    if struct.unpack("<I", data[-4:])[0] == 0x8f92eab1:
        end -= 8 + 9 + 12 * struct.unpack("<I", data[-9:-5])[0]
    f = dict(zip(("magic", "version", "codec", "block", "flags", "disk",
                  "blocks", "table", "digest"),
                 struct.unpack("<8sIIIIQQQ32s", data[end - FOOTER:end - 48])))
    entries = []
    for i in range(f["blocks"]):
        at = f["table"] + i // 170 * PAGE + i % 170 * ENTRY
        entries.append(struct.unpack("<QIIQ", data[at:at + ENTRY]))
    return f, entries, data


def packed(c, end, *options):
    out = c.at("packed." + end)
    told = json.loads(run([os.environ["PLATTER"], "pack", "--quiet", "--json",
                           "--overwrite", *options, c.raw, out])[1])
    return out, told


def what_is_packed_is_unpacked_by_the_tools(c):
    for end, options, tool in (("lz4", [], "lz4"), ("zst", [], "zstd"),
                               ("lz4", ["--block-size", "256K", "--level",
                                        "9"], "lz4"),
                               ("zst", ["--block-size", "4K"], "zstd"),
                               ("x", ["-O", "zst", "--level", "1", "-j",
                                      "1"], "zstd")):
        path, told = packed(c, end, *options)
        c.shell("{tool} -dc <{in} | cmp - {raw}",
                **{"tool": tool, "in": path, "raw": c.raw})
        c.same(path)
        f, entries, _ = parse_packed(path)
        with open(c.raw, "rb") as raw:
            whole = hashlib.sha256()
            for off, size, kind, _ in entries:
                block = raw.read(f["block"])
                whole.update(hashlib.sha256(block).digest())
                if len(block) == f["block"]:
                    is_equal(kind == 0, not any(block), "a block of zeroes")
        is_equal(whole.digest(), f["digest"], "the digest by the blocks")
        is_equal(told["digest"], whole.hexdigest(), "the digest that is told")
        is_equal(f["disk"], SIZE, "the disk's size")


def a_packed_zst_has_the_published_table(c):
    path, _ = packed(c, "zst")
    with open(path, "rb") as f:
        data = f.read()
    n, descriptor, magic = struct.unpack("<IBI", data[-9:])
    is_equal((descriptor, magic), (0x80, 0x8f92eab1), "its footer")
    table = data[-9 - 12 * n:-9]
    is_equal(struct.unpack("<II", data[-17 - 12 * n:-9 - 12 * n]),
             (0x184d2a5e, 12 * n + 9), "the frame's header")
    at = out = 0
    with open(c.raw, "rb") as raw:
        for i in range(n):
            size, unpacked, _ = struct.unpack_from("<III", table, 12 * i)
            if i in (0, 1, n // 2, n - 1):
                frame = subprocess.run(["zstd", "-dcq"], check=True,
                                       input=data[at:at + size],
                                       capture_output=True).stdout
                raw.seek(out)
                is_true(frame == raw.read(unpacked), f"frame {i}")
            at += size
            out += unpacked
    is_equal(out, SIZE, "all frames")


def zero_blocks_are_holes(c):
    path, _ = packed(c, "lz4")
    f, entries, _ = parse_packed(path)
    with Server(path) as s:
        told = json.loads(run(["nbdinfo", "--json", "--map", s.uri()])[1])
    holes = set()
    for e in told:
        for at in range(e["offset"], e["offset"] + e["length"]):
            if at % f["block"] == 0 and e["type"] == 3:
                holes.add(at // f["block"])
    is_equal(holes, {i for i, e in enumerate(entries) if e[2] == 0},
             "the holes")
    is_true(holes, "there are some")
    # Of a disk that has none but zeroes little is left, whatever its size.
    empty = c.at("empty")
    run(["truncate", "-s", str((1 << 30) + 512), empty])
    out = c.at("empty.zst")
    run([os.environ["PLATTER"], "pack", "--quiet", empty, out])
    is_true(os.path.getsize(out) < 1 << 20, "an empty disk is small")
    c.shell("zstd -dcq {out} | cmp - {empty}", out=out, empty=empty)


def damage_of_a_packed_disk_is_of_its_block(c):
    for end in ("lz4", "zst"):
        path, _ = packed(c, end)
        f, entries, data = parse_packed(path)
        i = next(i for i, e in enumerate(entries) if i > 3 and e[2] == 1)
        off, size = entries[i][:2]
        with open(path, "r+b") as out:
            out.seek(off + size // 2)
            out.write(bytes([data[off + size // 2] ^ 1]))
        block = f["block"]
        with Server(path) as s, Client(s.socket) as client, \
                open(c.raw, "rb") as raw:
            client.go()
            for j in (i - 1, i, i + 1):
                raw.seek(j * block)
                code, got = client.read(j * block, 4096)
                if j == i:
                    is_equal(code, 5, "the damaged block")
                else:
                    is_true(not code and got == raw.read(4096), "a neighbour")
        status, _, err = run([os.environ["PLATTER"], "convert", "--quiet",
                              "--overwrite", path, c.at("cut.out")], ok=None)
        is_true(status == 1 and f"its block {i}, at {off}, is damaged" in err,
                err)


def check(path, *options):
    status, out, err = run([os.environ["PLATTER"], "check", *options, path],
                           ok=None)
    return status, out + err


def check_decodes_all_of_it(c):
    """As the tools that unpack do; and a byte that is wrong is found."""
    for end in FORMS:
        path = c.pack(end)
        status, said = check(path)
        is_true(not status and said.startswith("All of it is decoded.\n") and
                "No errors" in said, f"{end}: {status}: {said}")
        with open(path, "rb") as f:
            data = bytearray(f.read())
        data[len(data) // 2] ^= 0x55
        bad = c.at("bad")
        with open(bad, "wb") as f:
            f.write(data)
        # Some have no sums; their tools say so. Where nothing but all of it tells
        # its size, damage is found when it is opened.
        sound = run([UNPACK[end.rsplit(".")[-1]], "-dc", bad], ok=None)[0] == 0
        status, said = check(bad)
        is_true(status == 0 if sound else
                status in (1, 2) and "No errors" not in said,
                f"{end}: {status}: {said}")
    for end in ("lz4", "zst"):
        path, _ = packed(c, end)
        is_equal(check(path), (0, "All of it is decoded, and the disk has the "
                                  "digest that it tells.\nNo errors were found.\n"),
                 "check of a packed disk")
        _, entries, data = parse_packed(path)
        at, i = next((e[0] + e[1] // 2, i) for i, e in enumerate(entries)
                     if i > 3 and e[2] == 1)
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(bytes([data[at] ^ 1]))
        status, said = check(path)
        is_true(status == 2 and f"its block {i}, at" in said and
                "1 corruptions" in said, said)
        # The digest of the disk alone.
        path, _ = packed(c, end)
        f, _, data = parse_packed(path)
        data = bytearray(data)
        foot = data.rindex(b"PLATTERK")
        data[foot + 48] ^= 1
        data[foot + 120:foot + 128] = struct.pack(
            "<Q", xxh64(data[foot:foot + 120]))
        with open(path, "wb") as f:
            f.write(data)
        status, said = check(path)
        is_true(status == 2 and "another digest than its table tells" in said,
                said)


def hostile_tables_are_refused_or_eio(c):
    """Everything in the footer, and in a page, made wrong, its sum right."""
    path, _ = packed(c, "lz4")
    f, _, data = parse_packed(path)
    foot = len(data) - FOOTER

    def write(change, said, seal=None):
        out = c.at("hostile.lz4")
        wrong = bytearray(data)
        for at, value in change:
            wrong[at:at + len(value)] = value
        if seal == "footer":
            wrong[-8:] = struct.pack("<Q", xxh64(wrong[foot:foot + 120]))
        if seal == "page":
            wrong[f["table"] + 4088:f["table"] + 4096] = struct.pack(
                "<Q", xxh64(wrong[f["table"]:f["table"] + 4088]))
        with open(out, "wb") as w:
            w.write(wrong)
        status, _, err = run([os.environ["PLATTER"], "convert", "--quiet",
                              "--overwrite", out, c.at("cut.out")], ok=None)
        is_true(status == 1 and said in err and err.count("\n") == 1,
                f"{said!r}: {status} {err!r}")

    write([(foot + 24, b"\xff")], "the sum of its footer")
    write([(foot + 8, b"\2")], "of another version", "footer")
    for at, value, said in (
            (16, struct.pack("<I", 0), "the size of blocks"),
            (16, struct.pack("<I", 1 << 31), "the size of blocks"),
            (24, struct.pack("<Q", (1 << 63)), "the number of blocks"),
            (32, struct.pack("<Q", (1 << 63)), "the number of blocks"),
            (40, struct.pack("<Q", (1 << 64) - 1), "where it begins"),
            (40, struct.pack("<Q", 0), "where it begins")):
        write([(foot + at, value)], said, "footer")
    write([(f["table"], b"\xff")], "the sum of a page")
    entry = f["table"] + 24 * next(
        i for i, e in enumerate(parse_packed(path)[1]) if e[2] == 1)
    for at, value, said in ((0, struct.pack("<Q", 1 << 62), "an entry"),
                            (8, struct.pack("<I", 1 << 31), "an entry"),
                            (12, struct.pack("<I", 9), "an entry"),
                            (0, struct.pack("<Q", 0), "is damaged"),
                            (8, struct.pack("<I", 0), "is damaged")):
        write([(entry + at, value)], said, "page")


def what_fails_leaves_nothing(c):
    out = c.at("none.lz4")
    status, _, err = run([os.environ["PLATTER"], "pack", "--quiet",
                          c.at("absent"), out], ok=None)
    is_true(status == 1 and not os.path.exists(out), err)
    with open(out, "w") as f:
        f.write("mine")
    status, _, err = run([os.environ["PLATTER"], "pack", "--quiet", c.raw,
                          out], ok=None)
    is_true(status == 1 and open(out).read() == "mine", err)
    for args in (["--block-size", "3000"], ["--block-size", "128K"],
                 ["--level", "13"], ["-O", "gz"]):
        status, _, err = run([os.environ["PLATTER"], "pack", *args, c.raw,
                              out], ok=None)
        is_equal(status, 2, f"the status of {args}: {err}")
    before = os.listdir(c.folder)
    p = subprocess.Popen([os.environ["PLATTER"], "pack", "--quiet", "-O",
                          "zst", "--level", "22", c.raw, c.at("killed")])
    time.sleep(0.3)
    p.kill()
    p.wait()
    is_equal(sorted(os.listdir(c.folder)), sorted(before), "the folder")


def main():
    environment("PLATTER", "NBD_COMPARE")
    need_programs("qemu-img", "qemu-io", "nbdinfo", "tar", "gzip", "pigz", "bgzip", "xz",
                  "pixz", "zstd", "pzstd", "lz4", "bzip2", "pbzip2")
    run_checks(Context, [
        every_form_is_the_disk,
        what_is_inside_is_a_disk_again,
        streams_and_containers_nest,
        a_backing_file_may_be_packed,
        packed_files_are_told_apart,
        a_declared_raw_disk_is_not_unpacked,
        an_overlay_over_it_is_temporary,
        a_cut_or_damaged_stream_serves_nothing_else,
        an_index_is_kept,
        a_hostile_index_is_no_danger,
        an_index_is_of_the_file_as_it_is,
        what_is_packed_is_unpacked_by_the_tools,
        a_packed_zst_has_the_published_table,
        zero_blocks_are_holes,
        damage_of_a_packed_disk_is_of_its_block,
        check_decodes_all_of_it,
        hostile_tables_are_refused_or_eio,
        what_fails_leaves_nothing,
    ])


if __name__ == "__main__":
    main()

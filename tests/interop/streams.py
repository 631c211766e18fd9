#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compressed disks, made by the tools that people have: served at random, equal to
the same disk unpacked; and what is refused."""

import json
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client  # noqa: E402
from server import (Server, Totals, compare, environment,  # noqa: E402
                    need_programs, run)

MIB = 1 << 20
FULL = "PLATTER_FULL" in os.environ
SIZE = (64 if FULL else 6) * MIB - 512

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
    "streams.xz": "split -b 3000000 --filter='xz -0 --check=none -c' {in}"
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
    with open(path, "wb") as f:
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
    for fmt, options, end in (("qcow2", [], "gz"), ("qcow2", [], "blocks.xz"),
                              ("qcow2", ["-c"], "frames.zst"),
                              ("vmdk", [], "bz2"), ("vhdx", [], "4.lz4"),
                              ("vmdk", ["-o", "subformat=streamOptimized"],
                               "bgzip.gz")):
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


def main():
    environment("PLATTER", "NBD_COMPARE")
    need_programs("qemu-img", "qemu-io", "tar", "gzip", "pigz", "bgzip", "xz",
                  "pixz", "zstd", "pzstd", "lz4", "bzip2", "pbzip2")
    run_checks(Context, [
        every_form_is_the_disk,
        what_is_inside_is_a_disk_again,
        streams_and_containers_nest,
        a_backing_file_may_be_packed,
        a_declared_raw_disk_is_not_unpacked,
        an_overlay_over_it_is_temporary,
        a_cut_or_damaged_stream_serves_nothing_else,
    ])


if __name__ == "__main__":
    main()

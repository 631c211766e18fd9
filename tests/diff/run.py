#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The differential suite: qcow2 as qemu-img makes it, served by platter.

For every image: each byte through NBD against `qemu-img convert -O raw`, at
random places from 16 threads and from start to end; each extent of
`platter map --json` against `qemu-img map --output=json`; NBD block status
against both, asked by two clients.

The matrix is not a full cross product: each value of each option with every
content, then combinations in which every pair of values of two options
occurs. Chains, snapshots, bitmaps and header bits are made one by one.

  run.py [--quick] [-j N] [--seed N] [--list] [--keep] [NAME ...]
"""

import argparse
import concurrent.futures
import itertools
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import maps  # noqa: E402
import peers  # noqa: E402
import support  # noqa: E402
from server import (Failure, Server, Totals, compare, environment,  # noqa: E402
                    image_options, need_programs, run, run_json,
                    run_with_key, skip)

KIB = 1024
MIB = 1024 * 1024
SECRET = b"correct horse battery staple"
POOLS = 6

AXES = {
    "compat": ["1.1", "0.10"],
    "cluster": [64 * KIB, 512, KIB, 4 * KIB, 256 * KIB, 2 * MIB],
    "compression": ["zlib", "zstd"],
    "extl2": [False, True],
    "data": ["inside", "file", "raw-file"],
    "prealloc": ["off", "metadata", "falloc", "full"],
    "lazy": [False, True],
    "refbits": [16, 1, 2, 4, 8, 32, 64],
    "enc": ["none", "luks-xts", "luks-essiv", "aes"],
    "size": ["plain", "tiny", "odd"],
    "content": ["data", "zeroes", "discard", "unaligned", "write-c",
                "convert-c", "rewrite-c", "empty"],
}
COMPRESSED = ("write-c", "convert-c", "rewrite-c")


def valid(o):
    """Does qemu-img make such an image?"""
    if o["compat"] == "0.10" and (
            o["compression"] != "zlib" or o["extl2"] or o["lazy"] or
            o["data"] != "inside" or o["refbits"] != 16):
        return False
    if o["extl2"] and o["cluster"] < 16 * KIB:
        return False
    if o["content"] in COMPRESSED and (
            o["data"] != "inside" or o["enc"] != "none" or
            o["prealloc"] != "off"):
        return False
    if o["compression"] != "zlib" and o["content"] not in COMPRESSED:
        return False
    return True


def disk_bytes(o):
    cluster = o["cluster"]
    if o["size"] == "tiny":
        return 512
    if o["size"] == "odd":
        return 5 * cluster + 7 * 512 + (64 * KIB if cluster < 64 * KIB else 0)
    if cluster <= KIB:
        return 2 * MIB
    return max(4 * MIB, 7 * cluster)


class Case:
    """One image or chain in a folder of its own, made by its function."""

    def __init__(self, name, make, options=None):
        self.name = name
        self.make = make
        self.options = options


class Bench:
    """A case's folder, and what is done in it."""

    def __init__(self, case, folder, seed):
        self.case = case
        self.folder = folder
        self.random = random.Random(f"{seed} {case.name}")
        self.seed = self.random.getrandbits(48)
        self.totals = Totals()
        self.key = None
        self.pools = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def pool(self):
        """A file of random bytes for `qemu-io write -s`."""
        if not self.pools:
            self.pools = [self.write(f"pool{i}", self.random.randbytes(MIB))
                          for i in range(POOLS)]
        return self.random.choice(self.pools)

    def secret(self):
        if not self.key:
            self.key = self.write("key", SECRET)
        return ["--object", f"secret,id=s,file={self.key}"]

    def raw(self, name, size):
        """Data, zero runs, and data that compresses, as a sparse file."""
        rng = self.random
        with open(self.path(name), "wb") as f:
            off = 0
            while off < size:
                n = min(rng.choice([512, 4096, 65536, 300 * KIB, MIB]),
                        size - off)
                n = max(512, rng.randrange(n) & ~511) if n > 512 else n
                n = min(n, size - off)
                kind = rng.randrange(3)
                if kind == 0:
                    f.write(rng.randbytes(n))
                elif kind == 1:
                    word = rng.randbytes(rng.randrange(3, 40))
                    f.write((word * (n // len(word) + 1))[:n])
                else:
                    f.seek(n, os.SEEK_CUR)
                off += n
            f.truncate(size)
        return self.path(name)

    def image_opts(self, name, enc="none", extra=""):
        """(--object ..., "driver=...") that open an image, its key with it."""
        opts = f"driver=qcow2,file.filename={self.path(name)}{extra}"
        if enc == "none":
            return [], opts
        kind = "aes" if enc == "aes" else "luks"
        return self.secret(), (f"{opts},encrypt.format={kind},"
                               "encrypt.key-secret=s")

    def io(self, name, commands, enc="none", extra="", discard=True):
        """Runs qemu-io; a command of its that fails fails the case."""
        if not commands:
            return
        objects, opts = self.image_opts(name, enc, extra)
        args = [x for c in commands for x in ("-c", c)]
        flags = ["-d", "unmap"] if discard else []
        out = run(["qemu-io", *objects, *flags, "--image-opts", opts, *args])
        bad = [line for line in (out[1] + out[2]).splitlines()
               if "failed" in line or "invalid" in line or "error" in line]
        if bad:
            raise Failure(f"qemu-io: {bad[0]}")

    def writes(self, size, cluster, count, aligned=False, zero=False):
        """Commands that write somewhere; each stays inside the disk."""
        rng = self.random
        commands = []
        for _ in range(count):
            n = rng.choice([1, 513, cluster // 2, cluster, cluster + 1,
                            3 * cluster, 100000])
            if aligned:
                n = cluster * rng.randrange(1, 4)
            n = max(1, min(n, size, MIB))
            off = rng.randrange(size - n + 1)
            if aligned:
                off -= off % cluster
                n = min(n, size - off)
            elif rng.random() < 0.3:
                off -= off % min(cluster, size)
            if zero:
                flag = rng.choice(["-z", "-z -u"])
                commands.append(f"write {flag} {off} {n}")
            else:
                commands.append(f"write -s {self.pool()} {off} {n}")
        return commands

    def check(self, name, fmt="qcow2", cluster=65536, enc="none", export="",
              reference=None, allow=(), nbdinfo=True, check_map=True):
        """The whole comparison of one image as it lies there."""
        image = self.path(name)
        objects, opts = [], image
        img_flags = ["-f", fmt]
        if enc != "none":
            objects, opts = self.image_opts(name, enc)
            img_flags = ["--image-opts"]
        if reference is None:
            reference = self.path("reference.raw")
            out_flags = ["-O", "raw", "-S", "4k"]
            run(["qemu-img", "convert", *objects, *img_flags, *out_flags,
                 opts, reference])
        size = os.stat(reference).st_size
        with Server(image, fmt=fmt, key=self.key if enc != "none" else None,
                    allow=allow) as server:
            status = compare(server.uri(export), reference, self.totals,
                             cluster=cluster, seed=self.seed,
                             map_path=self.path("status.json"))
            if nbdinfo:
                maps.compare_nbdinfo(
                    run_json(["nbdinfo", "--map", "--json",
                              server.uri(export)]), status, size)
        key = self.key if enc != "none" else None
        support.saw(image, support.QEMU, *(["snapshots"] if export else []),
                    *(["map"] if check_map else []), fmt=fmt, key=key,
                    allow=allow)
        if not check_map:
            return
        ours = run_json([os.environ["PLATTER"], "map", "--json",
                         *image_options(fmt, key=self.key if enc != "none"
                                        else None, allow=allow), image])
        theirs = run_json(["qemu-img", "map", "--output=json", *objects,
                           *img_flags, opts])
        layers = maps.Layers(opts, [*objects, *img_flags])
        try:
            maps.compare_qemu(ours, theirs, layers, size)
        finally:
            layers.close()
        maps.compare_nbd(status, ours, size)
        self.totals.maps += 1


def create(b, name, o, size):
    """qemu-img create with the matrix's options."""
    args = [f"compat={o['compat']}", f"cluster_size={o['cluster']}",
            f"preallocation={o['prealloc']}"]
    objects = []
    if o["compat"] != "0.10":
        args += [f"refcount_bits={o['refbits']}",
                 f"lazy_refcounts={'on' if o['lazy'] else 'off'}",
                 f"compression_type={o['compression']}",
                 f"extended_l2={'on' if o['extl2'] else 'off'}"]
    if o["data"] != "inside":
        args += [f"data_file={b.path(name + '.data')}"]
        if o["data"] == "raw-file":
            args += ["data_file_raw=on"]
    if o["enc"] != "none":
        objects = b.secret()
        if o["enc"] == "aes":
            args += ["encrypt.format=aes", "encrypt.key-secret=s"]
        else:
            args += ["encrypt.format=luks", "encrypt.key-secret=s",
                     "encrypt.iter-time=10"]
            args += (["encrypt.cipher-alg=aes-256", "encrypt.cipher-mode=xts",
                      "encrypt.ivgen-alg=plain64"]
                     if o["enc"] == "luks-xts" else
                     ["encrypt.cipher-alg=aes-128", "encrypt.cipher-mode=cbc",
                      "encrypt.ivgen-alg=essiv",
                      "encrypt.ivgen-hash-alg=sha256"])
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *objects, "-o",
            ",".join(args), b.path(name), size]
    status, _, said = run_with_key(argv)
    if status:
        raise Failure(f"{' '.join(map(str, argv))}: {said.strip()}")


def fill(b, name, o, size, compress=False):
    """The random disk, by qemu-img convert into the image."""
    objects, opts = b.image_opts(name, o["enc"])
    run(["qemu-img", "convert", *objects, "-n", "--target-is-zero",
         *(["-c"] if compress else []), "-f", "raw", "--target-image-opts",
         b.raw("source.raw", size), opts])


def matrix_image(b):
    o = b.case.options
    size = disk_bytes(o)
    cluster = o["cluster"]
    content = o["content"]
    name = "image.qcow2"
    create(b, name, o, size)
    if content in ("data", "zeroes", "discard"):
        fill(b, name, o, size)
    if content in ("convert-c", "rewrite-c"):
        fill(b, name, o, size, compress=True)
    commands = []
    if content in ("zeroes", "rewrite-c"):
        commands += b.writes(size, cluster, 8, zero=True)
        commands += b.writes(size, cluster, 3, aligned=True, zero=True)
    if content in ("discard", "rewrite-c"):
        for c in b.writes(size, cluster, 6, aligned=True, zero=True):
            off, n = c.split()[-2:]
            commands.append(f"discard {off} {n}")
    if content == "write-c":
        for i in b.random.sample(range((size + cluster - 1) // cluster),
                                 min(12, size // cluster)):
            commands.append(f"write -c -s {b.pool()} {i * cluster} "
                            f"{min(cluster, size - i * cluster)}")
            if b.random.random() < 0.5:
                commands[-1] = (f"write -c -P {i % 255 + 1} {i * cluster} "
                                f"{min(cluster, size - i * cluster)}")
    if content in ("unaligned", "rewrite-c", "write-c"):
        commands += b.writes(size, cluster, 8)
    b.io(name, commands, o["enc"])
    b.check(name, cluster=cluster, enc=o["enc"])
    if libqcow_reads(o):
        peers.same_as_mounted("libqcow", b.path(name),
                              b.path("reference.raw"), fmt="qcow2")


def libqcow_reads(o):
    """What it knows: not version 3's zero clusters, which it takes for what
    they were before."""
    return (o["content"] not in ("zeroes", "discard", "rewrite-c")
            and not o["extl2"] and o["data"] == "inside"
            and o["enc"] == "none" and o["compression"] == "zlib")


def option_name(o):
    words = [o["content"]]
    for axis, values in AXES.items():
        if axis != "content" and o[axis] != values[0]:
            value = o[axis]
            if isinstance(value, bool):
                value = "on" if value else "off"
            words.append(f"{axis}={value}")
    return ",".join(words)


def every_option_with_every_content():
    for axis, values in AXES.items():
        if axis == "content":
            continue
        for value in values:
            for content in AXES["content"]:
                o = {a: v[0] for a, v in AXES.items()}
                o[axis] = value
                o["content"] = content
                if valid(o):
                    yield o


def pairwise(seed):
    """Combinations in which every possible pair of values occurs."""
    rng = random.Random(f"{seed} pairs")
    names = list(AXES)

    def pairs_of(o):
        return {((a, o[a]), (c, o[c]))
                for a, c in itertools.combinations(names, 2)}

    def draw(fixed):
        for _ in range(200):
            o = {a: rng.choice(v) for a, v in AXES.items()}
            o.update(fixed)
            if valid(o):
                return o
        return None

    missing = []
    for a, c in itertools.combinations(names, 2):
        missing += [((a, x), (c, y)) for x in AXES[a] for y in AXES[c]]
    rng.shuffle(missing)
    left = dict.fromkeys(missing)
    while left:
        pair = next(iter(left))
        tries = [o for o in (draw(dict(pair)) for _ in range(30)) if o]
        if not tries:
            del left[pair]  # these two exclude each other
            continue
        best = max(tries, key=lambda o: sum(p in left for p in pairs_of(o)))
        for p in pairs_of(best):
            left.pop(p, None)
        yield best


def plain_options(**changes):
    o = {a: v[0] for a, v in AXES.items()}
    o.update(changes)
    return o


def snapshots(b):
    """Each snapshot has its own content and its own size."""
    o = b.case.options
    cluster = o["cluster"]
    name = "image.qcow2"
    size = max(2 * MIB, 6 * cluster) + 512
    create(b, name, o, size)
    fill(b, name, o, size)
    names = ["first", "before upgrade", "a/b+c@d%e", "third"]
    wanted = []
    objects, opts = b.image_opts(name, o["enc"])
    for i, snap in enumerate(names):
        ref = b.path(f"snap{i}.raw")
        run(["qemu-img", "convert", *objects, "--image-opts", "-O", "raw",
             opts, ref])
        run(["qemu-img", "snapshot", "-q", *objects, "--image-opts", "-c",
             snap, opts])
        wanted.append((str(i + 1), snap, ref, size))
        if o["compat"] != "0.10":
            # Version 2 cannot grow while it has snapshots.
            size += cluster * (i + 1) + 512 * 3
            run(["qemu-img", "resize", "-q", *objects, "--image-opts", opts,
                 size])
        commands = b.writes(size, cluster, 5)
        commands += b.writes(size, cluster, 3, zero=True)
        commands += [f"discard {i * cluster} {cluster}"]
        b.io(name, commands, o["enc"])
    b.check(name, cluster=cluster, enc=o["enc"])
    key = b.key if o["enc"] != "none" else None
    with Server(b.path(name), fmt="qcow2", key=key) as server:
        for i, (ident, snap, ref, want) in enumerate(wanted):
            if os.stat(ref).st_size != want:
                raise Failure(f"snapshot {snap}: reference is not {want}")
            escaped = snap
            for c in "%@+/":
                escaped = escaped.replace(c, f"%{ord(c):02X}")
            compare(server.uri(f"@{escaped}"), ref, b.totals,
                    cluster=cluster, seed=b.seed)
            compare(server.uri(f"@{ident}"), ref, b.totals, cluster=cluster,
                    seed=b.seed, reads=10)
            support.saw(b.path(name), support.QEMU, "snapshots", fmt="qcow2",
                        key=key)
    ident, snap, ref, want = wanted[1]
    with Server(b.path(name), fmt="qcow2", key=key, snapshot=snap) as server:
        compare(server.uri(), ref, b.totals, cluster=cluster, seed=b.seed)
    # qemu-img reads a snapshot at the active size: equal up to the shorter.
    if o["enc"] == "none":
        other = b.path("by-qemu.raw")
        run(["qemu-img", "convert", "-f", "qcow2", "-l",
             f"snapshot.name={snap}", "-O", "raw", b.path(name), other])
        with open(ref, "rb") as f, open(other, "rb") as g:
            n = min(os.stat(ref).st_size, os.stat(other).st_size)
            if f.read(n) != g.read(n):
                raise Failure("qemu-img -l and the disk at the time of the "
                              "snapshot differ")


def chain(b):
    """Layers, the base first: (format, size, options, contents)."""
    below = None
    for i, (fmt, size, changes, contents) in enumerate(b.case.options):
        name = f"layer{i}.{fmt}"
        cluster = changes.get("cluster", 64 * KIB)
        if fmt == "raw":
            b.raw(name, size)
        else:
            o = plain_options(**changes)
            args = [f"cluster_size={cluster}", f"compat={o['compat']}"]
            if o["extl2"]:
                args += ["extended_l2=on"]
            if below:
                args += [f"backing_file={below[0]}",
                         f"backing_fmt={below[1]}"]
            run(["qemu-img", "create", "-q", "-f", fmt, "-o", ",".join(args),
                 b.path(name), size])
            commands = []
            if "data" in contents:
                commands += b.writes(size, cluster, 6)
            if "zero" in contents:
                commands += b.writes(size, cluster, 6, zero=True)
            if "discard" in contents:
                commands += [c.replace("write -z -u", "discard")
                             .replace("write -z", "discard") for c in
                             b.writes(size, cluster, 4, True, True)]
            if "compressed" in contents:
                for _ in range(4):
                    at = b.random.randrange(size // cluster) * cluster
                    n = min(cluster, size - at)
                    commands.append(f"write -c -s {b.pool()} {at} {n}")
            b.io(name, commands)
        below = (name, fmt)
        if b.case.name.endswith("-each"):
            b.check(name, fmt=fmt, cluster=cluster)
    b.check(name, fmt=fmt, cluster=cluster)


def deep_chain(b):
    """Every layer has one or two clusters of its own."""
    depth = b.case.options
    size = 3 * MIB + 512
    cluster = 4096
    b.raw("layer0.raw", size)
    below = ("layer0.raw", "raw")
    for i in range(1, depth):
        name = f"layer{i}.qcow2"
        run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", below[0],
             "-F", below[1], "-o", f"cluster_size={cluster}", b.path(name),
             size])
        # Whole clusters: nothing below is needed to write them.
        at = [b.random.randrange(size // cluster) * cluster for _ in "ab"]
        b.io(name, [f"write -s {b.pool()} {at[0]} {cluster}",
                    b.random.choice([f"write -z {at[1]} {cluster}",
                                     f"write -s {b.pool()} {at[1]} {cluster}"]
                                    )], extra=",backing=")
        below = (name, "qcow2")
    b.check(name, cluster=cluster)


def patched(b):
    """A sound image with bits of its header set."""
    kind = b.case.options
    o = plain_options(lazy=kind == "dirty")
    name = "image.qcow2"
    size = 4 * MIB
    create(b, name, o, size)
    fill(b, name, o, size)
    if kind == "bitmaps":
        run(["qemu-img", "bitmap", "--add", "-g", "64k", b.path(name), "b0"])
        b.io(name, b.writes(size, 65536, 5))
        run(["qemu-img", "bitmap", "--add", "--disable", b.path(name),
             "name of a bitmap"])
        b.io(name, b.writes(size, 65536, 5, zero=True))
    reference = b.path("reference.raw")
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", b.path(name),
         reference])
    bit = {"dirty": 0, "corrupt": 1}.get(kind)
    if bit is not None:
        with open(b.path(name), "r+b") as f:
            f.seek(72)
            bits = struct.unpack(">Q", f.read(8))[0] | 1 << bit
            f.seek(72)
            f.write(struct.pack(">Q", bits))
    b.check(name, reference=reference)


def declared_raw(b):
    """A raw image is raw, whatever its first bytes look like."""
    name = "looks-like.qcow2"
    create(b, name, plain_options(), 4 * MIB)
    with open(b.path(name), "r+b") as f:
        f.seek(0, os.SEEK_END)
        f.write(b.random.randbytes(777))
    reference = b.path("reference.raw")
    shutil.copy(b.path(name), reference)
    b.check(name, fmt="raw", reference=reference, check_map=False)


def raw_image(b):
    name = "disk.raw"
    size = b.case.options
    b.raw(name, size)
    b.check(name, fmt="raw", reference=b.path(name),
            check_map=size % 512 == 0)


CHAINS = {
    "raw-base": [("raw", 5 * MIB + 512, {}, ""),
                 ("qcow2", 5 * MIB + 512, {}, "data zero discard")],
    "shorter-overlay": [("raw", 8 * MIB, {}, ""),
                        ("qcow2", 3 * MIB + 512, {}, "data zero")],
    "longer-overlay": [("qcow2", 3 * MIB + 1536, {"cluster": 4096}, "data"),
                       ("qcow2", 8 * MIB, {}, "data discard")],
    "long-short-long": [("raw", 8 * MIB, {}, ""),
                        ("qcow2", 2 * MIB + 512, {"cluster": 512}, "data"),
                        ("qcow2", 6 * MIB + 1024, {}, "data")],
    "mixed-each": [("raw", 6 * MIB + 512, {}, ""),
                   ("qcow2", 6 * MIB + 512,
                    {"compat": "0.10", "cluster": 512}, "data zero"),
                   ("qcow2", 7 * MIB, {"cluster": 2 * MIB}, "data zero"),
                   ("qcow2", 5 * MIB, {"cluster": 4096}, "compressed data"),
                   ("qcow2", 9 * MIB, {"extl2": True}, "data zero discard")],
    "subclusters-over-compressed": [
        ("qcow2", 4 * MIB, {}, "data compressed"),
        ("qcow2", 4 * MIB + 512, {"extl2": True, "cluster": 16 * KIB},
         "data zero discard"),
        ("qcow2", 4 * MIB, {"extl2": True, "cluster": 2 * MIB},
         "data zero discard")],
    "v2-over-v3": [("qcow2", 4 * MIB, {"cluster": 256 * KIB}, "data zero"),
                   ("qcow2", 4 * MIB, {"compat": "0.10"},
                    "data compressed discard zero")],
}


def all_cases(seed):
    """Every case once; the quick ones are marked."""
    cases, quick = {}, set()

    def add(name, make, options, in_quick=False):
        if name not in cases:
            cases[name] = Case(name, make, options)
        if in_quick:
            quick.add(name)

    for size in (0, 1, 511, 3 * MIB + 77, 4 * MIB):
        add(f"raw/{size}", raw_image, size, size != 511)
    add("raw/declared", declared_raw, None, True)
    for kind in ("dirty", "corrupt", "bitmaps"):
        add(f"header/{kind}", patched, kind, True)
    for depth in (3, 20, 200):
        add(f"deep/{depth}", deep_chain, depth, depth == 20)
    for name, layers in CHAINS.items():
        add(f"chain/{name}", chain, layers, name in (
            "long-short-long", "subclusters-over-compressed"))
    for changes in ({}, {"compat": "0.10"}, {"cluster": 512},
                    {"extl2": True}, {"cluster": 2 * MIB},
                    {"enc": "luks-xts"}, {"refbits": 64},
                    {"enc": "aes"}):
        o = plain_options(**changes)
        add("snapshots/" + option_name(o), snapshots, o,
            changes in ({}, {"compat": "0.10"}))
    for i, o in enumerate(every_option_with_every_content()):
        add("matrix/" + option_name(o), matrix_image, o, i % 11 == 0)
    for o in pairwise(seed):
        add("matrix/" + option_name(o), matrix_image, o)
    return list(cases.values()), quick


def run_case(case, folder, args):
    where = tempfile.mkdtemp(prefix="case-", dir=folder)
    b = Bench(case, where, args.seed)
    try:
        case.make(b)
        error = None
    except Failure as e:
        error = str(e)
    except Exception:
        error = traceback.format_exc()
    if not args.keep:
        shutil.rmtree(where, ignore_errors=True)
    elif error:
        error += f"\n  kept in {where}"
    return case, error, b.totals


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true",
                   help="a subset that takes less than a minute")
    p.add_argument("--share", type=int, metavar="N",
                   default=1 if os.environ.get("PLATTER_FULL") else 8,
                   help="of the matrix one case in N, drawn anew each time "
                   "(default 8, with PLATTER_FULL in the environment 1)")
    p.add_argument("-j", type=int, default=2, metavar="N",
                   help="cases at a time (default 2)")
    p.add_argument("--seed", default="1", help="of all that is random")
    p.add_argument("--list", action="store_true", help="name the cases")
    p.add_argument("--keep", action="store_true", help="keep the images")
    p.add_argument("names", nargs="*", metavar="NAME",
                   help="only cases whose name begins so")
    args = p.parse_args()
    cases, quick = all_cases(args.seed)
    if args.names:
        cases = [c for c in cases if c.name.startswith(tuple(args.names))]
    elif args.quick:
        cases = [c for c in cases if c.name in quick]
    elif args.share > 1:
        draw = random.Random(args.seed if args.seed != "1" else None)
        cases = [c for c in cases if not c.name.startswith("matrix/")
                 or c.name in quick or not draw.randrange(args.share)]
    if not cases:
        sys.exit("run.py: there is no such case")
    if args.list:
        print("\n".join(c.name for c in cases))
        return
    environment("PLATTER", "NBD_COMPARE")
    need_programs("qemu-img", "qemu-io", "nbdinfo", "nbdkit")
    folder = tempfile.mkdtemp(prefix="platter-diff-")
    start = time.monotonic()
    sums = Totals()
    failed = 0
    try:
        with concurrent.futures.ThreadPoolExecutor(args.j) as pool:
            jobs = [pool.submit(run_case, c, folder, args) for c in cases]
            for job in concurrent.futures.as_completed(jobs):
                case, error, t = job.result()
                for k in vars(sums):
                    setattr(sums, k, getattr(sums, k) + getattr(t, k))
                if error:
                    failed += 1
                    print(f"not equal: {case.name}: {error}", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if not args.names and not args.quick and args.share == 1:
        failed += len(support.verify())
    print(f"{len(cases) - failed} of {len(cases)} cases equal: {sums}; "
          f"seed {args.seed}, {time.monotonic() - start:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

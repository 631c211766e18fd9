#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QED: qemu-img's images, and tables that it does not make.

  qed.py [--keep] [CASE ...]
"""

import itertools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import (KIB, MIB, by_hand, by_qemu, check_command,  # noqa: E402
                       main)
from qed_build import BACKING, NEED_CHECK, NO_PROBE, Qed  # noqa: E402


@by_qemu
def cluster_and_table_sizes(b):
    # qemu-img cannot open its own with tables of one cluster.
    for cluster, table in itertools.product((4 * KIB, 64 * KIB, MIB),
                                            (2, 4, 16)):
        name = f"c{cluster}t{table}.qed"
        b.make("qed", name, 9 * MIB + 512,
               f"cluster_size={cluster},table_size={table}")
        b.check("qed", name)
        check_command(b.path(name), 0)


@by_qemu
def written_at_random(b):
    b.img("create", "-q", "-f", "qed", b.path("a.qed"), "256M")
    for i in range(30):
        off = b.random.randrange(256 * MIB - 300000)
        n = b.random.randrange(1, 300000)
        b.io("qed", "a.qed", f"write -z {off} {n}" if i % 3 == 0 else
             f"write -P {i + 1} {off} {n}")
    b.check("qed", "a.qed")


@by_qemu
def backing_files(b):
    b.raw("base.raw", 5 * MIB)
    b.img("create", "-q", "-f", "qed", "-b", b.path("base.raw"), "-F", "raw",
          b.path("mid.qed"), "8M")
    b.img("create", "-q", "-f", "qed", "-b", b.path("mid.qed"), "-F", "qed",
          b.path("top.qed"), "7M")
    for name in ("mid.qed", "top.qed"):
        for i in range(6):
            off = b.random.randrange(6 * MIB)
            b.io("qed", name, f"write -P {i + 60} {off} 70000",
                 f"write -z {b.random.randrange(6 * MIB) & ~65535} 65536")
        if name == "mid.qed":
            b.check("qed", name)
    # Its middle is not declared: QED cannot, but for raw.
    b.compare_trusting("top.qed")


@by_hand
def tables_of_any_kind(f):
    for cluster, table in ((4096, 1), (4096, 16), (8192, 2)):
        q = Qed(f.path("a.qed"), cluster * (table * cluster // 8) * 3,
                cluster=cluster, table=table, header=3, compat=1 << 40,
                autoclear=1 << 3, features=NEED_CHECK)
        n = q.n
        for g in (0, 1, 2, n - 1, n, 2 * n + 5, 3 * n - 1):
            q.data(g, f.noise(q.cs))
        for g in (5, 6, n - 2, n + 1):
            q.zero(g)
        f.serve("a.qed", q.finish(), cluster=cluster, sequential="all")
        check_command(f.path("a.qed"), 0)


@by_hand
def damage_stays_where_it_is(f):
    q = Qed(f.path("a.qed"), 4096 * 512 * 4)
    for g in (0, 1, 3, 600):
        q.data(g, f.noise(q.cs))
    q.wrong(4, 4096 * 1000)         # behind the end
    q.wrong(5, 12345)               # unaligned
    q.wrong(6, 1 << 63)
    q.l1[2] = 4096 * 2000           # a table behind the end
    q.l1[3] = 4096 * 3 + 8
    expect = q.finish()
    for g in range(1024, 2048):
        expect.fail(g * 4096, 4096)
    f.serve("a.qed", expect, cluster=4096)
    check_command(f.path("a.qed"), 2)
    q = Qed(f.path("leak.qed"), 4096 * 100)
    q.data(3, f.noise(4096))
    q.alloc(5)
    q.data(4, f.noise(4096))
    f.serve("leak.qed", q.finish(), cluster=4096)
    check_command(f.path("leak.qed"), 3)


@by_hand
def backing_names(f):
    base = f.noise(300000)
    f.write("base.raw", base)
    q = Qed(f.path("a.qed"), 4096 * 100, features=BACKING | NO_PROBE,
            backing=b"base.raw")
    q.expect.put(0, base)
    q.data(3, f.noise(4096))
    q.zero(9)
    f.serve("a.qed", q.finish(), cluster=4096)
    for name, pattern in ((b"../../etc/hostname", "outside|folder"),
                          (b"x\0y", "NUL"), (b"y" * 1024, "1024 bytes"),
                          (b"missing", "missing|not there|no such")):
        q = Qed(f.path("b.qed"), 4096 * 100, features=BACKING | NO_PROBE,
                backing=name)
        q.finish()
        f.refuse("b.qed", pattern)


@by_hand
def hostile_headers_are_refused(f):
    for field, value, pattern in (
            ("features", 8, "features 0x8"), ("features", 1 << 63, "features"),
            ("cs", 2048, "cluster size 2048"), ("cs", 5000, "cluster size"),
            ("cs", 1 << 27, "cluster size"), ("table", 0, "table size"),
            ("table", 3, "table size"), ("table", 32, "table size"),
            ("header_clusters", 0, "header of 0"),
            ("header_clusters", 1 << 31, "header of"),
            ("l1_at", 0, "L1 table"), ("l1_at", 4097, "L1 table"),
            ("l1_at", 1 << 40, "L1 table"), ("size", 511, "multiple"),
            ("size", 1 << 62, "more than")):
        q = Qed(f.path("h.qed"), 4096 * 10)
        q.finish()
        setattr(q, field, value)
        with open(q.path, "r+b") as out:
            out.write(Qed.header(q))
        f.refuse("h.qed", pattern)


if __name__ == "__main__":
    main(__doc__)

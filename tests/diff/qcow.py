#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""qcow version 1: qemu-img's images, and those that it does not make.

  qcow.py [--keep] [CASE ...]
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import peers  # noqa: E402
from disk_diff import (KIB, MIB, by_hand, by_qemu, check_command,  # noqa: E402
                       main)
from qcow_build import Qcow  # noqa: E402


@by_qemu
def converted(b):
    b.make("qcow", "a.qcow", 20 * MIB + 512)
    b.check("qcow", "a.qcow")
    peers.same_as_mounted("libqcow", b.path("a.qcow"), b.path("source.raw"))
    check_command(b.path("a.qcow"), 0)


@by_qemu
def compressed(b):
    # All is written, but its status says otherwise.
    b.make("qcow", "a.qcow", 20 * MIB, flags=["-c"], status=None)
    b.check("qcow", "a.qcow", extents=False)
    b.io("qcow", "a.qcow", *(f"write -P {i} {i * 900001} 70000"
                             for i in range(1, 15)))
    b.check("qcow", "a.qcow", extents=False)
    check_command(b.path("a.qcow"), 0)


@by_qemu
def encrypted(b):
    b.make("qcow", "a.qcow", 10 * MIB + 512,
           "encrypt.format=aes,encrypt.key-secret=s", encrypted=True)
    b.check("qcow", "a.qcow", encrypted="encrypt.key-secret")


@by_qemu
def backing_files(b):
    b.raw("base.raw", 5 * MIB)
    b.img("create", "-q", "-f", "qcow", "-b", b.path("base.raw"), "-F", "raw",
          b.path("top.qcow"), "8M")
    b.io("qcow", "top.qcow", *(f"write -P {i} {i * 500001} 70000"
                               for i in range(1, 15)))
    b.check("qcow", "top.qcow")


@by_hand
def cluster_and_table_sizes(f):
    for bits, l2 in ((9, 6), (9, 13), (12, 9), (16, 13), (16, 6), (10, 7)):
        q = Qcow(f.path("a.qcow"), (3 << bits << l2) - 512, bits, l2)
        n = 1 << l2
        for g in (0, 1, 2, n - 1, n, 2 * n + 5, 3 * n - 1):
            q.data(g, f.noise(q.cs))
        q.compressed(7, b"pattern " * (q.cs // 8))
        q.compressed(n + 7, f.noise(100) + bytes(q.cs - 100))
        f.serve("a.qcow", q.finish(), cluster=q.cs)
        check_command(f.path("a.qcow"), 0)


@by_hand
def damage_stays_where_it_is(f):
    q = Qcow(f.path("a.qcow"), 4096 * 512 * 3)
    for g in (0, 1, 3, 600):
        q.data(g, f.noise(q.cs))
    q.wrong(4, 4096 * 1000)
    q.wrong(5, 1 << 62)
    q.wrong(6, 1 << 63 | 100 << 51 | 1 << 40)
    q.wrong(8, 1 << 63 | 4096)      # no bytes
    q.l1[2] = 1 << 40
    expect = q.finish()
    for g in range(1024, 1536):
        expect.fail(g * 4096, 4096)
    f.serve("a.qcow", expect, cluster=4096)
    check_command(f.path("a.qcow"), 2)


@by_hand
def backing_names(f):
    base = f.noise(300 * KIB)
    f.write("base.raw", base)
    q = Qcow(f.path("a.qcow"), 4096 * 100, backing=b"base.raw")
    q.expect.put(0, base)
    q.data(3, f.noise(4096))
    f.serve("a.qcow", q.finish(), cluster=4096)
    for name, pattern in ((b"../../etc/hostname", "outside|folder"),
                          (b"x\0y", "NUL"), (b"y" * 1024, "1024 bytes")):
        q = Qcow(f.path("b.qcow"), 4096 * 100, backing=name)
        q.l1_at = 4096
        q.finish()
        f.refuse("b.qcow", pattern)


@by_hand
def hostile_headers_are_refused(f):
    for field, value, pattern in (
            ("bits", 8, "cluster_bits 8"), ("bits", 17, "cluster_bits 17"),
            ("bits", 255, "cluster_bits 255"), ("l2_bits", 5, "l2_bits 5"),
            ("l2_bits", 14, "l2_bits 14"), ("crypt", 2, "method 2"),
            ("size", 1 << 63, "limit"), ("size", 1 << 50, "limit"),
            ("size", 1 << 40, "ends past"), ("l1_at", 1 << 40, "ends past"),
            ("l1_at", 2**64 - 8, "ends past")):
        q = Qcow(f.path("h.qcow"), 4096 * 10)
        q.finish()
        setattr(q, field, value)
        with open(q.path, "r+b") as out:
            out.write(q.header())
        f.refuse("h.qcow", pattern)
    q = Qcow(f.path("end.qcow"), 4096 * 10, backing=b"name")
    q.backing_length = 1000
    q.finish()
    with open(q.path, "r+b") as out:
        out.seek(8)
        out.write((1 << 40).to_bytes(8, "big"))
    f.refuse("end.qcow", "backing file name at .* ends past")


if __name__ == "__main__":
    main(__doc__)

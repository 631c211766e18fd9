#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes tests/corpus/tar, from which the fuzzer of containers starts and which a
regression test runs. valid-* must be containers, hostile-* must be refused."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from tar_build import (BLOCK, END, base_256, header, long_name,  # noqa: E402
                       member, padded, pax, record)

DATA = bytes(range(256)) * 3


def valid():
    yield "empty-member", member() + END
    yield "one", member(b"disk.img", DATA) + END
    yield "no-end", member(b"disk.img", DATA)
    yield "no-padding", header(b"disk.img", len(DATA)) + DATA
    yield "dot", member(b"./", kind=b"5") + member(b"./disk.img", DATA) + END
    yield "two", member(b"a.img", DATA) + member(b"b.img", DATA) + END
    yield "twice", member(b"a.img", b"1") + member(b"a.img", DATA) + END
    yield "prefix", member(b"disk.img", DATA, prefix=b"some/folder") + END
    yield "gnu", member(b"disk.img", DATA, magic=b"ustar  \0") + END
    yield "long-name", long_name(b"n" * 300 + b".img") + member(
        b"n" * 100, DATA, magic=b"ustar  \0") + END
    yield "pax", pax(record(b"path", b"p" * 200 + b".img"), record(
        b"mtime", b"1.5")) + member(b"x", DATA) + END
    yield "pax-size", pax(record(b"size", b"%d" % len(DATA))) + header(
        b"disk.img", 0) + padded(DATA) + END
    yield "global", pax(record(b"comment", b"c"), kind=b"g") + member(
        b"disk.img", DATA) + END
    yield "base-256", header(b"disk.img", size_field=base_256(
        len(DATA))) + padded(DATA) + END
    yield "signed-sum", member(b"\xe9.img", DATA, checksum=sum(
        b - 256 if b > 127 else b for b in
        header(b"\xe9.img", len(DATA))[:148] + b" " * 8 +
        header(b"\xe9.img", len(DATA))[156:])) + END
    yield "sparse", member(b"s.img", DATA, kind=b"S",
                           magic=b"ustar  \0") + END
    yield "links", member(b"l", kind=b"2") + member(b"h", kind=b"1") + END
    yield "folder-as-file", member(b"x/") + member(b"x/disk.img", DATA) + END
    yield "up", member(b"../../etc/passwd", DATA) + END


def hostile():
    yield "no-tar", DATA
    yield "short", member()[:511]
    yield "checksum", member(b"a", DATA) + member(checksum=1) + END
    yield "past-end", header(b"disk.img", 100 * BLOCK) + DATA
    yield "past-end-2-63", header(
        b"a", size_field=base_256((1 << 63) - 1)) + END
    yield "size-2-64", header(b"a", size_field=base_256(1 << 64)) + END
    yield "size-negative", header(b"a", size_field=b"\xff" * 12) + END
    yield "size-letters", header(b"a", size_field=b"12x4        ") + END
    yield "pax-cut", pax(record(b"path", b"x"))[:BLOCK] + b"99 path=" + END
    yield "pax-length-0", pax(b"0 path=x\n") + member() + END
    yield "pax-no-equals", pax(b"8 path\n\n") + member() + END
    yield "pax-size", pax(record(b"size", b"9" * 19)) + member() + END
    yield "pax-nul", pax(record(b"path", b"a\0b")) + member() + END
    yield "volume", member(b"a", DATA, kind=b"M") + END
    yield "name-huge", long_name(b"n" * 5000) + member() + END


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        root, "corpus", "tar")
    os.makedirs(folder, exist_ok=True)
    files = [("valid-" + n, d) for n, d in valid()]
    files += [("hostile-" + n, d) for n, d in hostile()]
    for name, data in files:
        with open(os.path.join(folder, name + ".tar"), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()

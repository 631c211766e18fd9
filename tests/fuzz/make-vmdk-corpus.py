#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes tests/corpus/vmdk: what the fuzzer starts from and the plain
regression test runs. valid-* must open and be sound, hostile-* must be refused
or be found damaged.

  make-vmdk-corpus.py [FOLDER]
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from vmdk_build import (GD_AT_END, ZERO, Cowd, Hosted,  # noqa: E402
                        SeSparse, Stream, descriptor)


def text(n):
    return (b"content " * (n // 8 + 1))[:n]


def fill(image, grains=(0, 1, 4, 3, 9)):
    for g in grains:
        image.grains[g] = text(image.gb)
    return image


def hosted(capacity=8 * 11 + 3, grain=1, entries=4, **kwargs):
    return fill(Hosted(capacity, grain, entries, **kwargs))


def stream(capacity=8 * 6 - 3, **kwargs):
    return fill(Stream(capacity, 8, entries=4, **kwargs), (0, 1, 3, 5))


def sesparse(**kwargs):
    s = SeSparse(8 * 30, 8, **kwargs)
    s.grains = {0: text(1024), 3: ZERO, 4: "unmapped", 7: text(700)}
    return s


def inside(kind="SPARSE", n=8 * 11 + 3, create_type="monolithicSparse"):
    return descriptor([f'RW {n} {kind} "old name.vmdk"'], create_type)


def with_grain(image, grain, value):
    image.grains[grain] = value
    return image


def with_pokes(image, *pokes):
    image.pokes = pokes
    return image


def valid():
    yield "hosted", hosted()
    yield "hosted-no-redundant", hosted(flags=1)
    yield "hosted-zero-entries", with_grain(
        hosted(version=2, flags=7), 6, ZERO)
    yield "hosted-embedded", hosted(text=inside(), text_sectors=2)
    yield "hosted-empty", Hosted(8 * 3000)
    yield "hosted-version-3", hosted(version=3, entries=512)
    yield "hosted-among-zeroes", hosted(text=descriptor(
        ["RW 3 ZERO", 'RW 91 SPARSE "x"', 'NOACCESS 4 FLAT "/dev/sda" 0']),
        text_sectors=2)
    yield "stream", stream()
    yield "stream-embedded", stream(text=inside(
        n=8 * 6 - 3, create_type="streamOptimized"), text_sectors=2)
    yield "stream-short-last", stream(short_last=True)
    yield "stream-header-knows", stream(at_end=False)
    yield "stream-no-markers", stream(markers=False)
    yield "cowd", fill(Cowd(50))
    yield "cowd-parent", fill(Cowd(50, parent="/vmfs/base.vmdk"))
    yield "sesparse", sesparse()


def texts():
    yield "valid-descriptor", descriptor(["RW 9 ZERO"], "vmfs")
    yield "valid-descriptor-crlf", descriptor(
        ["RW 9 ZERO", "RDONLY 8 ZERO"], "vmfs", eol="\r\n", equals=" = ",
        more=['encoding="GBK"'])
    yield "valid-descriptor-custom", descriptor(["RW 9 ZERO"], "custom")
    yield "valid-delta", descriptor(
        ["RW 9 ZERO"], "vmfsSparse", parent=5, hint="C:\\a \"b\".vmdk")
    for name, lines in (
            ("device", ['RW 9 FLAT "/dev/sda" 0']),
            ("outside", ['RW 9 FLAT "../../etc/passwd" 0']),
            ("rdm", ['RW 9 VMFSRDM "x.vmdk"']),
            ("sum-wraps", ["RW 18014398509481983 ZERO"] * 2),
            ("no-extents", []),
            ("no-type", ["RW 9"]), ("size-negative", ["RW -9 ZERO"]),
            ("open-quote", ['RW 9 FLAT "']),
            ("control-bytes", ['RW 9 FLAT "\x1b[1m" 0'])):
        yield "hostile-descriptor-" + name, descriptor(lines, "vmfs")
    yield "hostile-descriptor-unknown", descriptor(["RW 9 ZERO"], "gravel")
    yield "hostile-delta-without-name", descriptor(["RW 9 ZERO"], parent=5)
    yield "hostile-cut-in-header", Hosted(9, 8).header()[:60]


def hostile():
    for name, fields in (
            ("version-0", {"version": 0}), ("version-4", {"version": 4}),
            ("grain-0", {"grain": 0}), ("grain-3", {"grain": 3}),
            ("grain-huge", {"grain": 1 << 22}),
            ("table-empty", {"entries": 0}), ("table-513", {"entries": 513}),
            ("capacity-2-63", {"capacity": 1 << 54}),
            ("directory-2-33", {"capacity": 1 << 35}),
            ("compression-2", {"compression": 2}),
            ("compressed-by-nothing", {"flags": 1 << 16}),
            ("footer-missing", {"gd": GD_AT_END}),
            ("descriptor-past-end", {"text_at": 1 << 40, "text_sectors": 1}),
            ("descriptor-huge", {"text_at": 1, "text_sectors": 1 << 50}),
            ("envelope-of-nothing", {"capacity": 0, "text_at": 1,
                                     "text_sectors": 1})):
        yield "hosted-" + name, hosted(fields=fields)
    yield "hosted-directories-past-end", hosted(
        fields={"gd": 1 << 40, "rgd": 1 << 41})
    for name, poke in (
            ("table-past-end", ("gd", 0, 0x7FFFFFFF, 4)),
            ("table-is-header", ("gd", 0, 0xFFFFFFFF, 4)),
            ("tables-share", ("gd", 4, 0x0, 4)),
            ("grain-past-end", ("gd-tables", 0, 0xFFFFFFFF, 4)),
            ("grain-is-header", ("gd-tables", 0, 1, 4)),
            ("second-differs", ("rgd-tables", 0, 5, 4))):
        yield "hosted-" + name, with_pokes(hosted(), poke)
    yield "hosted-tables-are-one", with_pokes(
        hosted(flags=1), *(("gd", 4 * i, 3, 4) for i in range(20)))
    yield "stream-footer-to-footer", footer(gd=GD_AT_END)
    yield "stream-footer-grain-0", footer(grain=0)
    s = stream()
    s.sector_of[1] = 0
    yield "stream-other-sector", s
    yield "stream-grain-is-marker", with_grain(stream(), 2, 1)
    yield "stream-entry-past-end", with_grain(stream(), 2, 0x7FFFFFFF)
    s = stream()
    s.streams[1] = bytes(20)
    s.grains[2] = 9
    yield "stream-grain-in-grain", s
    for name, fields in (
            ("version", {"version": 2}), ("grain-0", {"grain": 0}),
            ("directory-short", {"gd_entries": 0}),
            ("directory-past-end", {"gd": 0x7FFFFFFF})):
        yield "cowd-" + name, fill(Cowd(50, fields=fields))
    for name, fields in (
            ("version", {"version": 1}), ("flags", {"flags": 9}),
            ("grain-0", {"grain": 0}), ("table-0", {"table": 0}),
            ("capacity-2-63", {"capacity": 1 << 54}),
            ("volatile-past-end", {"volatile": 2**64 - 1}),
            ("directory-past-end", {"gd": 2**64 - 1}),
            ("tables-none", {"tables_sectors": 0}),
            ("grains-past-end", {"grains": 2**63})):
        yield "sesparse-" + name, sesparse(fields=fields)
    yield "sesparse-journal", sesparse(replay=1)
    for entry in (4 << 60, 5, 3 << 60 | 0xFFFFFFFFFFF, 2**64 - 1):
        yield f"sesparse-entry-{entry:x}", with_grain(sesparse(), 9, entry)
    s = sesparse()
    s.gd_pokes = {0: 1 << 60 | 77}
    yield "sesparse-table-77", s


def footer(**fields):
    s = stream()
    s.footer_fields = fields
    return s


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        root, "corpus", "vmdk")
    os.makedirs(folder, exist_ok=True)
    images = [("valid-" + n, i) for n, i in valid()]
    images += [("hostile-" + n, i) for n, i in hostile()]
    for name, image in images:
        image.build().write(os.path.join(folder, name + ".vmdk"))
    for name, data in texts():
        with open(os.path.join(folder, name + ".vmdk"), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()

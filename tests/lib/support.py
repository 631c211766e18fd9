#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""docs/formats.md's table of what is supported, out of what the differential tests
compare.

A test tells each comparison that held: saw(). At its end, when it ran in full,
what it saw must be what support.txt has of it: verify(). So a row is there
because a test that passes shows it, and is lost with the test.

  SUPPORT=write meson test -C build --suite diff    # support.txt anew
  support.py [--write|--check]                      # the table there
"""

import os
import shutil
import sys

from server import image_options, run_json

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SEEN = os.path.join(ROOT, "tests/diff/support.txt")
TABLE = os.path.join(ROOT, "docs", "formats.md")
BEGIN = "<!-- what tests/lib/support.py --write makes -->\n"
END = "<!-- end of it -->\n"

SPECIFICATION = "specification"
QEMU = "qemu-img"
# Who says what an image must read as, in the table's order; the program that
# a test does without.
JUDGES = {QEMU: "qemu-img", "libvhdi": None, "libvmdk": "vmdkmount",
          "libqcow": "qcowmount", "ploop check": "ploop",
          "dmg2img": "dmg2img", SPECIFICATION: None}
VMDK_TYPES = ("monolithicFlat",)
FACETS = ("map", "snapshots", "chain")

_seen = {}
_without = set()


def _qcow2(d):
    yield {"0.10": "version 2", "1.1": "version 3"}[d["compat"]]
    if d["compression-type"] == "zstd":
        yield "zstd"
    for flag, tag in (("extended-l2", "extended L2 entries"),
                      ("data-file", "external data file"),
                      ("data-file-raw", "raw external data file"),
                      ("bitmaps", "dirty bitmaps (skipped)"),
                      ("corrupt", "marked corrupt"), ("dirty", "dirty")):
        if d.get(flag):
            yield tag
    if "encrypt-format" in d:
        yield {"aes": "legacy AES", "luks": "LUKS"}[d["encrypt-format"]]


def _vmdk(d):
    # Descriptors have it in letters of any size.
    types = {t.lower(): t for t in VMDK_TYPES}
    kind = d.get("create-type")
    yield types.get(kind.lower(), kind) if kind else "extent alone"


def _vhdx(d):
    yield d["subformat"]
    if d["logical-sector-size"] == 4096:
        yield "4096-byte sectors"
    if d["log-replayed-in-memory"]:
        yield "log to be replayed"


def _vhd(d):
    yield d["subformat"]
    if d["footer"] != "end":
        yield f"footer: {d['footer']}"
    if d["size-from"] != "current size":
        yield f"size from its {d['size-from']}"


def _vdi(d):
    yield d["type"]
    if d["version"] != "1.1":
        yield f"header version {d['version']}"
    if d.get("block-extra-bytes"):
        yield "extra bytes before blocks"


def _ploop(d):
    yield f"version {d['version']}" if "version" in d else "plain base"
    if d.get("cluster-sectors") == 63:
        yield "63-sector clusters"
    if "guid" in d:
        yield "bundle"
    if d.get("storages", 1) > 1:
        yield "split storage"
    if d.get("dirty"):
        yield "in use"


def _luks(d):
    yield d["cipher"]


def _dmg(d):
    yield f"tables from the {d['tables-from']}"
    yield from (w.strip() for w in d.get("compression", "").split(",")
                if w.strip())


def _qcow(d):
    yield "AES" if "encrypt-format" in d else "version 1"


def _bochs(d):
    yield f"Growing, version {d['version']}"


_TAGS = {"qcow2": _qcow2, "vmdk": _vmdk, "vhdx": _vhdx, "vhd": _vhd,
         "vdi": _vdi, "ploop": _ploop, "luks": _luks, "dmg": _dmg,
         "qcow": _qcow, "bochs": _bochs}


def _variants(info):
    data = info.get("format-specific", {}).get("data", {})
    tags = _TAGS.get(info["format"], lambda d: ["all"])
    return [(info["format"], t) for t in tags(data)]


def saw(image, judge, *facets, **options):
    """Every byte and what block status tells agreed with @judge (of JUDGES),
    and what @facets (of FACETS) say. options: image_options'."""
    info = run_json([os.environ["PLATTER"], "info", "--json",
                     *image_options(**options), image], ok=(0, 1))
    marks = {judge, *facets}
    assert marks <= {*JUDGES, *FACETS}, marks
    if len(info["chain"]) > 1:
        marks.add("chain")
    for variant in _variants(info):
        _seen.setdefault(variant, set()).update(marks)


def without(judge):
    """It is not installed: what it would say is not missed."""
    _without.add(judge)


def _read():
    """{test: {(format, variant): marks}}"""
    tests = {}
    with open(SEEN, encoding="utf-8") as f:
        for line in f:
            if line.startswith("#") or not line.strip():
                continue
            test, fmt, tag, marks = (w.strip() for w in line.split("|"))
            tests.setdefault(test, {})[fmt, tag] = set(marks.split(", "))
    return tests


def _write(tests):
    lines = ["# What each differential test compares: support.py.\n"]
    for test in sorted(tests):
        lines += [f"{test} | {fmt} | {tag} | {', '.join(sorted(marks))}\n"
                  for (fmt, tag), marks in sorted(tests[test].items())]
    with open(SEEN, "w", encoding="utf-8") as f:
        f.writelines(lines)


def verify():
    """What keeps this test, run in full, from having seen what support.txt
    says and no more: printed, and returned."""
    test = os.path.basename(sys.argv[0])
    tests = _read()
    if os.environ.get("SUPPORT") == "write":
        tests[test] = _seen
        _write(tests)
        return []
    absent = _without | {j for j, program in JUDGES.items()
                         if program and not shutil.which(program)}
    known = tests.get(test, {})
    found = []
    for variant in sorted({*known, *_seen}):
        want, got = known.get(variant, set()), _seen.get(variant, set())
        if got - want if absent else got != want:
            found.append(f"support.txt has of {' '.join(variant)} "
                         f"{sorted(want)}, seen was {sorted(got)}; see "
                         "tests/lib/support.py")
            print(f"not equal: {found[-1]}", flush=True)
    return found


def table():
    rows = {}
    for variants in _read().values():
        for variant, marks in variants.items():
            rows.setdefault(variant, set()).update(marks)
    lines = ["| format | variant | read | block status | snapshots | chain "
             "| compared with |\n", "|---|---|---|---|---|---|---|\n"]
    last = None
    for (fmt, tag), marks in sorted(rows.items()):
        judges = [j for j in JUDGES if j in marks]
        cells = ["" if fmt == last else fmt, tag, "yes",
                 "map" if "map" in marks else "bytes",
                 "yes" if "snapshots" in marks else "",
                 "yes" if "chain" in marks else "", ", ".join(judges)]
        lines.append(f"| {' | '.join(cells)} |\n".replace("  ", " "))
        last = fmt
    return "".join(lines)


def main():
    with open(TABLE, encoding="utf-8") as f:
        before, _, rest = f.read().partition(BEGIN)
    old, _, after = rest.partition(END)
    new = table()
    if sys.argv[1:] == ["--write"]:
        with open(TABLE, "w", encoding="utf-8") as f:
            f.write(before + BEGIN + new + END + after)
    elif sys.argv[1:] == ["--check"]:
        if old != new:
            sys.exit("docs/formats.md has another table; "
                     "tests/lib/support.py --write")
        print(f"{new.count(chr(10)) - 2} rows are in docs/formats.md")
    else:
        print(new, end="")


if __name__ == "__main__":
    main()

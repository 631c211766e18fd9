#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter diff, beside qemu-img compare and cmp."""

import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from disk import MIB, SIZE, Disk  # noqa: E402
from server import environment, need_programs, run  # noqa: E402


def platter(*args, ok=(0,)):
    return run([os.environ["PLATTER"], *args], ok=ok)


def diff(*args, ok=(0, 1)):
    """The exit status and what --json tells."""
    status, out, err = platter("diff", "--json", *args, ok=ok)
    return status, json.loads(out) if status < 2 else err


def read(path):
    with open(path, "rb") as f:
        return f.read()


def ranges_are_true(old, new, told):
    """old, new: the content; every sector told differs, no other does."""
    n = max(len(old), len(new))
    old, new = old.ljust(n, b"\0"), new.ljust(n, b"\0")
    different = bytearray(n // 512)
    for c in told["changes"]:
        for i in range(c["start"] // 512,
                       -(-(c["start"] + c["length"]) // 512)):
            different[i] = 1
        if c["zero"]:
            is_true(not new[c["start"]:c["start"] + c["length"]].strip(b"\0"),
                    f"{c} has data")
    for i, told_different in enumerate(different):
        at = slice(i * 512, i * 512 + 512)
        is_equal(bool(told_different), old[at] != new[at],
                 f"whether sector {i} differs")


def states_differ_where_their_copies_do(d):
    states = {f"{d.path}@{name}": raw for name, raw in d.snapshots.items()}
    states[d.path] = d.raw
    for a, raw_a in states.items():
        for b, raw_b in states.items():
            status, told = diff(a, b)
            is_equal(status, int(a != b), "the exit status")
            is_equal(told["equal"], a == b, "equal")
            ranges_are_true(read(raw_a), read(raw_b), told)


def images_of_two_formats_are_compared_by_their_data(d):
    is_equal(diff(d.path, "-F", "raw", d.raw)[0], 0, "the exit status")
    other = d.at("other.raw")
    shutil.copy(d.raw, other)
    with open(other, "r+b") as f:
        f.seek(5 * MIB + 1000)
        f.write(b"x")
    status, told = diff(d.path, "-F", "raw", other)
    is_equal(status, 1, "the exit status")
    is_equal(told["changes"], [{"start": 5 * MIB + 512, "length": 512,
                                "zero": False}], "the change")
    status, out, _ = platter("diff", "--quiet", d.path, "-F", "raw", other,
                             ok=(1,))
    is_equal(out, "", "what --quiet prints")


def sizes_that_differ_are_a_difference(d):
    longer = d.at("longer.raw")
    shutil.copy(d.raw, longer)
    os.truncate(longer, SIZE + MIB)
    for a, b in ((d.raw, longer), (longer, d.raw)):
        status, told = diff("-f", "raw", a, "-F", "raw", b)
        is_equal((status, told["equal"], told["changes"]), (1, False, []),
                 "the answer")
        is_equal(told["b-size"], os.stat(b).st_size, "b-size")
        status, out, _ = platter("diff", "-f", "raw", a, "-F", "raw", b,
                                 ok=(1,))
        is_true("sizes differ" in out, f"the sizes are not told: {out}")


def a_file_whose_name_has_an_at_sign_is_that_file(d):
    name = d.path + "@clean"
    shutil.copy(d.raw, name)
    is_equal(diff(d.path, "-F", "raw", name)[0], 0, "the exit status")
    os.unlink(name)
    is_equal(diff(d.path, name)[0], 1, "the exit status without the file")


def what_cannot_be_compared_is_status_2(d):
    for args in ([d.path], [d.path, d.path, d.path], [d.path, "none"],
                 [d.path + "@none", d.path], ["-f", "vmdk", d.path, d.path],
                 ["--quiet", d.path, d.path], [d.path, ""]):
        status, said = diff(*args, ok=(2,))
        is_equal(len(said.strip().splitlines()), 1, f"{args}: lines of {said}")


if __name__ == "__main__":
    environment("PLATTER")
    need_programs("qemu-img", "qemu-io")
    run_checks(Disk, [
        states_differ_where_their_copies_do,
        images_of_two_formats_are_compared_by_their_data,
        sizes_that_differ_are_a_difference,
        a_file_whose_name_has_an_at_sign_is_that_file,
        what_cannot_be_compared_is_status_2,
    ])

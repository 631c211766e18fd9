#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The fuzzers' corpora before the platter command: each file is served or
refused in one line that names it, in time, within its memory, by every verb
that looks into an image.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from files import Observed  # noqa: E402
from names import formats  # noqa: E402
from server import Failure, environment  # noqa: E402

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                      "..", "corpus")
# Of these there is what expand.c makes images of.
EXPANDED = ("vhd", "vhdx")
VERBS = (["info"], ["info", "--json"], ["check"], ["map"])


def judge(path, fmt):
    """Returns how many verbs refused it."""
    refused = 0
    for verb in VERBS:
        o = Observed([os.environ["PLATTER"], *verb, "-f", fmt, path])
        # 63: the format has nothing to check.
        if o.status not in (0, 1, 2, 3, 63):
            raise Failure(f"{verb}: status {o.status}")
        lines = o.err.decode().splitlines()
        if o.status == 1 and verb != ["info"]:
            refused += 1
            if verb != ["info", "--json"] and len(lines) != 1:
                raise Failure(f"{verb}: {len(lines)} lines: {lines}")
        if any(os.path.basename(path) not in line for line in lines):
            raise Failure(f"{verb}: does not name the file: {lines}")
    return refused


def main():
    environment("PLATTER")
    failed = seen = refused = 0
    for fmt in sorted(set(formats()) & set(os.listdir(CORPUS)) - set(EXPANDED)):
        folder = os.path.join(CORPUS, fmt)
        for name in sorted(os.listdir(folder)):
            seen += 1
            try:
                refused += judge(os.path.join(folder, name), fmt) > 0
            except (Failure, UnicodeDecodeError) as e:
                failed += 1
                print(f"not ok: {fmt}/{name}: {e}", flush=True)
    print(f"{seen} files, {refused} refused, {failed} not dealt with")
    sys.exit(1 if failed or not refused else 0)


if __name__ == "__main__":
    main()

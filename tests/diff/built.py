#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hand-built qcow2 files, served by platter, against their builder's own
expectation: each byte, each range that must fail, each refusal.

  built.py [--seed N] [--list] [--keep] [CASE ...]
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import maps  # noqa: E402
import qcow2_cases  # noqa: E402
import support  # noqa: E402
from server import (Failure, Refused, Server, Totals, compare,  # noqa: E402
                    environment, image_options, need_programs, run, run_json)

REFUSAL_LINES = 5
SECRET_PLACES = ("/etc/hostname",)


def check_refused(built):
    """The server ends by itself, at once, and says why; map does so too."""
    try:
        with Server(built.path, fmt=built.fmt, allow=built.allow):
            pass
    except Refused as e:
        said, status = e.message, e.status
    else:
        raise Failure("was served, a refusal was expected")
    if status <= 0:
        raise Failure(f"the refusal ended with status {status}: {said}")
    status, _, by_map = run([os.environ["PLATTER"], "map", "--json",
                             *image_options(built.fmt, allow=built.allow),
                             built.path], ok=None)
    if status <= 0:
        raise Failure(f"platter map ended with status {status}: {by_map}")
    for who, text in (("serve", said), ("map", by_map.strip())):
        lines = text.splitlines()
        if not 1 <= len(lines) <= REFUSAL_LINES:
            raise Failure(f"platter {who}: a refusal in {len(lines)} lines: "
                          f"{text}")
        if not re.search(built.refusal, text):
            raise Failure(f"platter {who}: the refusal does not match "
                          f"/{built.refusal}/: {text}")
        if not all(c.isprintable() or c == "\n" for c in text):
            raise Failure(f"platter {who}: a refusal with control "
                          f"characters: {text!r}")
    for place in SECRET_PLACES:
        # What the place outside holds must not be told either.
        with open(place) as f:
            word = f.read().strip()
        if len(word) > 3 and word in said:
            raise Failure(f"the refusal tells what is in {place}")


def check_map(ours, expect, status):
    """What the map calls zero reads as zero (nbd-compare saw to that for
    block status), and what cannot be read is no zero."""
    maps.check_cover(ours, expect.size, "start", "platter map")
    maps.compare_nbd(status, ours, expect.size)
    for off, length in expect.eio():
        for e in ours:
            if (e["start"] < off + length and
                    off < e["start"] + e["length"] and e["zero"]):
                raise Failure(f"map: {e} is told zero, but {length} bytes "
                              f"at {off} cannot be read")


def check_served(built, totals, folder, seed):
    with Server(built.path, fmt=built.fmt, allow=built.allow) as server:
        for export, expect in built.exports:
            reference = os.path.join(folder, "reference")
            segments = expect.write(reference)
            status = compare(server.uri(export), reference, totals,
                             cluster=built.cluster, eio=expect.eio(),
                             maybe=sorted(expect.maybe), segments=segments, size=expect.size,
                             sequential=built.sequential, seed=seed,
                             reads=built.reads,
                             map_path=os.path.join(folder, "status.json"))
            os.unlink(reference)
            support.saw(built.path, support.SPECIFICATION,
                        *(["snapshots"] if export else []), fmt=built.fmt,
                        allow=built.allow)
            if export:
                continue
            ours = run_json([os.environ["PLATTER"], "map", "--json",
                             *image_options(built.fmt, allow=built.allow),
                             built.path])
            check_map(ours, expect, status)
            totals.maps += 1


def check_builder(built):
    """An image that is sound in our eyes is sound in qemu's."""
    status, out, err = run(["qemu-img", "check", "-f", "qcow2", built.path],
                           ok=None)
    # 3: only leaks, as a table may own more than it uses.
    if status != 0:
        raise Failure(f"the builder's image is not sound: {out} {err}")


def run_case(name, args, folder, totals, counts):
    failures = []
    start = time.monotonic()
    for built in qcow2_cases.build(name, folder, args.seed):
        try:
            if built.refusal is not None:
                check_refused(built)
                counts["refusals"] += 1
            else:
                if built.sound and shutil.which("qemu-img"):
                    check_builder(built)
                    counts["sound"] += 1
                check_served(built, totals, folder, args.seed)
        except Failure as e:
            failures.append(f"{name}/{built.name}: {e}")
        except Exception:
            failures.append(f"{name}/{built.name}: {traceback.format_exc()}")
    if args.verbose:
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    return failures


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", default="1", help="of all that is random")
    p.add_argument("--list", action="store_true", help="name the cases")
    p.add_argument("--keep", action="store_true", help="keep the images")
    p.add_argument("--verbose", action="store_true", help="tell the time")
    p.add_argument("names", nargs="*", metavar="CASE")
    args = p.parse_args()
    names = args.names or list(qcow2_cases.CASES)
    for n in names:
        if n not in qcow2_cases.CASES:
            sys.exit(f"built.py: there is no case {n}")
    if args.list:
        print("\n".join(names))
        return
    environment("PLATTER", "NBD_COMPARE")
    need_programs("nbdkit")
    seed = args.seed
    args.seed = int(seed)
    totals = Totals()
    counts = {"refusals": 0, "sound": 0}
    failures = []
    top = tempfile.mkdtemp(prefix="platter-built-")
    try:
        for n in names:
            folder = os.path.join(top, n)
            os.mkdir(folder)
            found = run_case(n, args, folder, totals, counts)
            for line in found:
                print(f"not equal: {line}", flush=True)
            failures += found
            if not args.keep:
                shutil.rmtree(folder)
    finally:
        if args.keep:
            print(f"kept in {top}")
        else:
            shutil.rmtree(top, ignore_errors=True)
    if not args.names:
        failures += support.verify()
    print(f"{len(names)} cases, {len(failures)} not equal: {totals}, "
          f"{counts['refusals']} refusals, {counts['sound']} images checked "
          f"by qemu-img; seed {seed}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

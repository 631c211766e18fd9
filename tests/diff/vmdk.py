#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""VMDK, served by platter: what qemu-img makes, against qemu-img's bytes and
extents; what it does not make, against the builder's own expectation.

  vmdk.py [--seed N] [--list] [--keep] [CASE ...]
"""

import argparse
import os
import random
import shutil
import struct
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import maps  # noqa: E402
import peers  # noqa: E402
import support  # noqa: E402
import vmdk_cases  # noqa: E402
from built import check_refused, check_served  # noqa: E402
from server import (Failure, Refused, Server, Totals, compare, environment,  # noqa: E402
                    image_options, need_programs, run, run_json)

KIB, MIB, GIB = 1024, 1024 * 1024, 1 << 30
SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
              "twoGbMaxExtentFlat", "streamOptimized")


def source(path, size, rng):
    """Data at the places where grains, tables and extents meet."""
    with open(path, "wb") as f:
        f.truncate(size)
        places = {0, 65536 - 512, MIB + 4096, 32 * MIB - 1000, size // 2,
                  max(0, size - 70000), 2 * GIB - 65536, 2 * GIB,
                  4 * GIB - 4096}
        for off in sorted(places):
            n = min(rng.choice([512, 4096, 65536, 300000]), size - off)
            if n <= 0:
                continue
            f.seek(off)
            f.write(rng.randbytes(n) if rng.random() < 0.5 else
                    (rng.randbytes(33) * (n // 33 + 1))[:n])
    return path


def compare_map(ours, theirs, size):
    """What is data, zero or absent; and where, as far as one file has it.
    A hole of the host file is data and zero with qemu, with us zero."""
    theirs = [e for e in theirs if e["length"]]
    maps.check_cover(ours, size, "start", "platter map")
    maps.check_cover(theirs, size, "start", "qemu-img map")
    for off, length, a, b in maps.pieces(ours, theirs, "start"):
        where = f"map of {length} bytes at {off}: platter {a}, qemu-img {b}"
        if a["present"] != b["present"] and not (a["zero"] and b["zero"]):
            raise Failure(f"{where}: present")
        if a["zero"] != b["zero"] or (a["data"] != b["data"] and
                                      not b["zero"]):
            raise Failure(f"{where}: zero and data")
        if a["present"] and b["present"] and a["depth"] != b["depth"]:
            raise Failure(f"{where}: depth")
        if a["data"] and "offset" in a and "offset" in b and (
                a["offset"] + off - a["start"] !=
                b["offset"] + off - b["start"]):
            raise Failure(f"{where}: offset")


def check_image(image, reference, totals, seed, folder):
    size = os.stat(reference).st_size
    with Server(image, fmt="vmdk") as server:
        status = compare(server.uri(), reference, totals, seed=seed,
                         map_path=os.path.join(folder, "status.json"))
    ours = run_json([os.environ["PLATTER"], "map", "--json",
                     *image_options("vmdk"), image])
    theirs = run_json(["qemu-img", "map", "--output=json", "-f", "vmdk",
                       image])
    compare_map(ours, theirs, size)
    support.saw(image, support.QEMU, "map", fmt="vmdk")
    maps.compare_nbd(status, ours, size)
    totals.maps += 1
    found = run_json([os.environ["PLATTER"], "check", "--json", "-f", "vmdk",
                      image])
    if found.get("corruptions") or found.get("check-errors"):
        raise Failure(f"platter check: {found}")


def reference_of(image, folder):
    """As qemu-img reads it."""
    path = os.path.join(folder, "reference.raw")
    run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", "-S", "4k", image,
         path])
    return path


def converted(folder, totals, args):
    """Every subformat, of sizes around the borders of grains and extents."""
    rng = random.Random(f"{args.seed} converted")
    for size in (512, 65536, 33 * MIB + 512 * 3, 2 * GIB + 7 * 512,
                 4 * GIB + MIB):
        raw = source(os.path.join(folder, "source.raw"), size, rng)
        # The larger ones for what they are split into.
        for sub in SUBFORMATS if size < GIB else SUBFORMATS[2:4]:
            image = os.path.join(folder, f"{sub}.vmdk")
            run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o",
                 f"subformat={sub}", raw, image])
            check_image(image, raw, totals, args.seed, folder)
            # libvmdk does not know qemu's flat types.
            if size < GIB and not sub.endswith("Flat"):
                peers.same_as_mounted("libvmdk", image, raw, fmt="vmdk")


def written(folder, totals, args):
    """Zeroed grains, rewritten ones, versions and adapters."""
    rng = random.Random(f"{args.seed} written")
    size = 40 * MIB + 512 * 9
    for sub in SUBFORMATS[:4:2]:
        for more in ("", ",zeroed_grain=on", ",compat6",
                     ",hwversion=10,adapter_type=lsilogic"):
            image = os.path.join(folder, "image.vmdk")
            run(["qemu-img", "create", "-q", "-f", "vmdk", "-o",
                 f"subformat={sub}{more}", image, size])
            commands = []
            for _ in range(25):
                n = rng.choice([512, 4096, 65536, 200 * KIB])
                off = rng.randrange(size - n + 1) & ~511
                commands += ["-c", rng.choice([
                    f"write -P {rng.randrange(1, 255)} {off} {n}",
                    f"write -z {off & ~65535} 65536"])]
            run(["qemu-io", "-f", "vmdk", *commands, image])
            check_image(image, reference_of(image, folder), totals, args.seed,
                        folder)


def chains(folder, totals, args):
    """Deltas as qemu-img makes them, over every sparse subformat."""
    rng = random.Random(f"{args.seed} chains")
    size = 35 * MIB
    raw = source(os.path.join(folder, "source.raw"), size, rng)
    for sub in ("monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat"):
        base = os.path.join(folder, "base.vmdk")
        run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o",
             f"subformat={sub}", raw, base])
        below = base
        for depth in range(3):
            image = os.path.join(folder, f"delta{depth}.vmdk")
            if os.path.exists(image):
                os.unlink(image)
            run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", below, "-F",
                 "vmdk", "-o", "zeroed_grain=on", image])
            commands = []
            for _ in range(8):
                n = rng.choice([512, 65536, 300 * KIB])
                off = rng.randrange(size - n) & ~511
                commands += ["-c", f"write -P {depth + 1} {off} {n}"]
            commands += ["-c", f"write -z {(depth + 2) * 65536} 131072"]
            run(["qemu-io", "-f", "vmdk", *commands, image])
            check_image(image, reference_of(image, folder), totals, args.seed,
                        folder)
            below = image
        # The base is written to once more: its CID is another.
        run(["qemu-io", "-f", "vmdk", "-c", "write -P 9 0 512", base])
        try:
            with Server(image, fmt="vmdk"):
                pass
        except Failure as e:
            if "CID" not in str(e):
                raise
        else:
            raise Failure("a delta of a parent that changed was served")


def bare(folder, totals, args):
    """An extent of a split disk opened alone: its part of the disk, and a
    warning. (qemu-img tells in these headers of a descriptor that it leaves
    empty; others tell of none.)"""
    rng = random.Random(f"{args.seed} bare")
    raw = source(os.path.join(folder, "source.raw"), 2 * GIB + 5 * MIB, rng)
    image = os.path.join(folder, "split.vmdk")
    run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o",
         "subformat=twoGbMaxExtentSparse", raw, image])
    off = 0
    for i in (1, 2):
        extent = os.path.join(folder, f"split-s00{i}.vmdk")
        with open(extent, "rb") as f:
            size = struct.unpack("<Q", f.read(20)[12:])[0] * 512
        part = os.path.join(folder, "part.raw")
        run(["dd", f"if={raw}", f"of={part}", "bs=1M", "conv=sparse",
             "iflag=skip_bytes,count_bytes", f"skip={off}", f"count={size}",
             "status=none"])
        os.truncate(part, size)
        for told in (True, False):
            with open(extent, "r+b") as f:
                f.seek(28)      # the descriptor's place and size
                if not told:
                    f.write(bytes(16))
            with Server(extent, fmt="vmdk") as server:
                compare(server.uri(), part, totals, seed=args.seed)
                if "a part of a disk alone" not in server.messages():
                    raise Failure(f"no warning: {server.messages()}")
        support.saw(extent, support.QEMU, fmt="vmdk")
        off += size
    if off != os.stat(raw).st_size:
        raise Failure(f"the extents have {off} bytes together")


def info(folder, totals, args):
    """ddb.* and ids, as the descriptor has them."""
    image = os.path.join(folder, "image.vmdk")
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o",
         "adapter_type=buslogic", image, "1M"])
    ours = run_json([os.environ["PLATTER"], "info", "--json", image])
    theirs = run_json(["qemu-img", "info", "--output=json", image])
    want = theirs["format-specific"]["data"]
    text = str(ours)
    for word in ("monolithicSparse", "buslogic", "ddb.adapterType",
                 str(want["cid"]), str(want["parent-cid"])):
        if word not in text:
            raise Failure(f"platter info does not tell {word}: {text}")


# What qemu-img makes; the others are vmdk_cases.CASES.
QEMU_CASES = {f.__name__: f for f in (converted, written, chains, bare, info)}


def check_peers(built, folder):
    reference = os.path.join(folder, "reference")
    for judge in built.judges:
        if built.exports[0][1].write(reference):
            raise Failure("too large for a peer")
        peers.same_as_mounted(judge, built.path, reference, fmt=built.fmt)


def run_built(name, folder, totals, args, counts):
    failures = []
    for built in vmdk_cases.build(name, folder, args.seed):
        try:
            if built.refusal is not None:
                check_refused(built)
                counts["refusals"] += 1
            else:
                check_served(built, totals, folder, args.seed)
                check_peers(built, folder)
        except Failure as e:
            failures.append(f"{name}/{built.name}: {e}")
        except Exception:
            failures.append(f"{name}/{built.name}: {traceback.format_exc()}")
    return failures


def run_case(name, folder, totals, args, counts):
    if name in vmdk_cases.CASES:
        return run_built(name, folder, totals, args, counts)
    try:
        QEMU_CASES[name](folder, totals, args)
    except Failure as e:
        return [f"{name}: {e}"]
    except Exception:
        return [f"{name}: {traceback.format_exc()}"]
    return []


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=1, help="of all that is random")
    p.add_argument("--list", action="store_true", help="name the cases")
    p.add_argument("--keep", action="store_true", help="keep the images")
    p.add_argument("names", nargs="*", metavar="CASE")
    args = p.parse_args()
    known = [*QEMU_CASES, *vmdk_cases.CASES]
    names = args.names or known
    for n in names:
        if n not in known:
            sys.exit(f"vmdk.py: there is no case {n}")
    if args.list:
        print("\n".join(names))
        return
    environment("PLATTER", "NBD_COMPARE")
    need_programs("nbdkit", "qemu-img", "qemu-io")
    totals = Totals()
    counts = {"refusals": 0}
    failures = []
    top = tempfile.mkdtemp(prefix="platter-vmdk-")
    try:
        for n in names:
            folder = os.path.join(top, n)
            os.mkdir(folder)
            found = run_case(n, folder, totals, args, counts)
            for text in found:
                print(f"not equal: {text}", flush=True)
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
          f"{counts['refusals']} refusals; seed {args.seed}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

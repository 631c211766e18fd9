# SPDX-License-Identifier: BSD-3-Clause
"""What vhd.py and vhdx.py share: images of their builders and of qemu-img,
served by platter, against what they must read as."""

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import maps  # noqa: E402
import support  # noqa: E402
from built import check_refused, check_served  # noqa: E402
from qcow2_build import Expect  # noqa: E402
from server import (Failure, Server, Totals, compare, environment,  # noqa: E402
                    image_options, need_programs, run, run_json)

KIB, MIB = 1 << 10, 1 << 20


class Built:
    """An image, and what must become of it: served as expect says, or
    refused with words that match refusal. map: pieces of the top's map.
    oracles: who else reads this image right ("qemu", "vhdi")."""

    def __init__(self, name, image, refusal=None, oracles=(), fmt=None,
                 allow=(), check=0, says=()):
        self.name = name
        self.path = image.path
        self.expect = image.expect
        self.map = image.map
        self.exports = [("", image.expect)]
        self.refusal = refusal
        self.oracles = oracles
        self.fmt = fmt
        self.allow = allow
        self.check = check  # exit status of platter check
        self.says = says    # words of platter info
        self.cluster = min(image.block, MIB)
        self.reads = 20 if image.size > 100 * MIB else None
        self.sequential = ("data" if image.size > Expect.RAW_MAX else
                           "none" if image.size > 100 * MIB else None)


def bytes_of(rng, n):
    """Not one aligned 512 bytes of it are zero."""
    return rng.randbytes(n)


def hash_file(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(MIB):
            h.update(piece)
    return h.hexdigest()


def check_pieces(built):
    """The map tells each piece that the builder knows, and where it is."""
    ours = run_json([os.environ["PLATTER"], "map", "--json",
                     *image_options(built.fmt, allow=built.allow),
                     built.path])
    support.saw(built.path, support.SPECIFICATION, "map", fmt=built.fmt,
                allow=built.allow)
    pieces = [{"start": off, "length": length, "what": what}
              for off, length, what in built.map]
    for p in pieces:
        for e in ours:
            start = max(e["start"], p["start"])
            end = min(e["start"] + e["length"], p["start"] + p["length"])
            if start >= end:
                continue
            here = e["present"] and e["depth"] == 0
            good = {"data": here and e["data"] and not e["zero"],
                    "zero": here and e["zero"] and not e["data"],
                    "hole": not here, "parent": not here}[p["what"]]
            if not good:
                raise Failure(f"map: {end - start} bytes at {start} are "
                              f"{p['what']}, platter says {e}")


def check_qemu(built, folder):
    """qemu-img reads the builder's image as the builder meant it."""
    reference = os.path.join(folder, "reference")
    other = os.path.join(folder, "qemu")
    built.expect.write(reference)
    fmt = "vpc" if built.path.endswith(".vhd") else "vhdx"
    run(["qemu-img", "convert", "-O", "raw", "-f", fmt, built.path, other])
    if hash_file(reference) != hash_file(other):
        raise Failure("qemu-img reads the builder's image differently")
    os.unlink(other)
    support.saw(built.path, support.QEMU, fmt=built.fmt, allow=built.allow)


VHDI_READ = """
import sys
try:
    import pyvhdi
except ImportError:
    sys.exit(77)
chain = []
for path in sys.argv[2:]:
    f = pyvhdi.file()
    f.open(path)
    if chain:
        f.set_parent(chain[-1])
    chain.append(f)
with open(sys.argv[1], "wb") as out:
    size = chain[-1].get_media_size()
    for off in range(0, size, 65536):
        n = min(65536, size - off)
        out.write(chain[-1].read_buffer_at_offset(n, off))
"""


def check_vhdi(built, folder):
    """So does libvhdi; False: Debian's python3-libvhdi is not there."""
    reference = os.path.join(folder, "reference")
    other = os.path.join(folder, "vhdi")
    built.expect.write(reference)
    status = run(["/usr/bin/python3", "-c", VHDI_READ, other,
                  *built.oracle_chain], ok=(0, 77))[0]
    if status == 77:
        support.without("libvhdi")
        return False
    if hash_file(reference) != hash_file(other):
        raise Failure("libvhdi reads the builder's image differently")
    support.saw(built.path, "libvhdi", fmt=built.fmt, allow=built.allow)
    return True


def check_command(built):
    status, out, err = run([os.environ["PLATTER"], "check",
                            *image_options(built.fmt, allow=built.allow),
                            built.path], ok=None)
    if status != built.check:
        raise Failure(f"platter check gave {status}, {built.check} was "
                      f"expected: {out}{err}")
    out = run([os.environ["PLATTER"], "info",
               *image_options(built.fmt, allow=built.allow), built.path])[1]
    for word in built.says:
        if word not in out:
            raise Failure(f"platter info does not say {word!r}: {out}")


def check_one(built, folder, totals, counts, seed):
    before = hash_file(built.path) if built.expect.size < 1 << 30 else None
    if built.refusal is not None:
        check_refused(built)
        counts["refusals"] += 1
    else:
        check_served(built, totals, folder, seed)
        check_pieces(built)
        check_command(built)
        if "qemu" in built.oracles and shutil.which("qemu-img"):
            check_qemu(built, folder)
            counts["qemu"] += 1
        if "vhdi" in built.oracles:
            counts["vhdi"] += check_vhdi(built, folder)
    if before and hash_file(built.path) != before:
        raise Failure("the image was written to")


class QemuImage:
    """An image that qemu-img made and qemu-io wrote into."""

    def __init__(self, folder, fmt, name, size, options, rng, writes=40):
        self.fmt, self.size = fmt, size
        self.path = os.path.join(folder, name)
        run(["qemu-img", "create", "-q", "-f", fmt, *options, self.path,
             str(size)])
        pool = os.path.join(folder, "pool")
        with open(pool, "wb") as f:
            f.write(rng.randbytes(MIB))
        args = []
        for _ in range(writes):
            n = rng.choice([512, 513, 4096, 65536, 300000, MIB])
            off = rng.randrange(size - min(n, size) + 1)
            off -= off % rng.choice([1, 512, 65536])
            kind = rng.choice([f"-s {pool}", f"-s {pool}", "-z"])
            args += ["-c", f"write {kind} {off} {min(n, size - off)}"]
        if writes:
            run(["qemu-io", "-f", fmt, *args, self.path])


def check_qemu_made(image, folder, totals, seed, same_map):
    """Every byte against qemu-img convert; the map against qemu-img map
    where that tells more than one extent, and against what reads zero."""
    reference = os.path.join(folder, "reference")
    run(["qemu-img", "convert", "-O", "raw", "-f", image.fmt, image.path,
         reference])
    size = os.stat(reference).st_size
    with Server(image.path) as server:
        status = compare(server.uri(), reference, totals, cluster=65536,
                         seed=seed,
                         map_path=os.path.join(folder, "status.json"))
    ours = run_json([os.environ["PLATTER"], "map", "--json", image.path])
    maps.check_cover(ours, size, "start", "platter map")
    maps.compare_nbd(status, ours, size)
    if same_map:
        theirs = run_json(["qemu-img", "map", "--output=json", "-f",
                           image.fmt, image.path])
        # qemu knows no VHD parents: to it what has no place is there, zero.
        for e in theirs:
            e["present"] = e["present"] and (e["data"] or "offset" in e)
        layers = maps.Layers(image.path, ["-f", image.fmt])
        try:
            maps.compare_qemu(ours, theirs, layers, size)
        finally:
            layers.close()
    totals.maps += 1
    support.saw(image.path, support.QEMU, *(["map"] if same_map else []))
    run([os.environ["PLATTER"], "check", image.path])
    os.unlink(reference)


def main(name, cases, qemu_images, same_map):
    """cases: functions of (folder, rng) that yield Built; qemu_images:
    the same, that yield QemuImage."""
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--keep", action="store_true")
    p.add_argument("names", nargs="*", metavar="CASE")
    args = p.parse_args()
    environment("PLATTER", "NBD_COMPARE")
    need_programs("nbdkit")
    totals, failures = Totals(), []
    counts = {"images": 0, "refusals": 0, "qemu": 0, "vhdi": 0}
    top = tempfile.mkdtemp(prefix=f"platter-{name}-")
    try:
        for make in [*cases, *qemu_images]:
            if args.names and make.__name__ not in args.names:
                continue
            if make in qemu_images and not shutil.which("qemu-img"):
                continue
            folder = os.path.join(top, make.__name__)
            os.mkdir(folder)
            rng = random.Random(f"{args.seed} {make.__name__}")
            for image in make(folder, rng):
                what = f"{make.__name__}/{os.path.basename(image.path)}"
                counts["images"] += 1
                try:
                    if isinstance(image, Built):
                        what += f" ({image.name})"
                        check_one(image, folder, totals, counts, args.seed)
                    else:
                        check_qemu_made(image, folder, totals, args.seed,
                                        same_map)
                except Failure as e:
                    failures.append(f"{what}: {e}")
                except Exception:
                    failures.append(f"{what}: {traceback.format_exc()}")
                else:
                    continue
                print(f"not equal: {failures[-1]}", flush=True)
            if not args.keep:
                shutil.rmtree(folder)
    finally:
        if args.keep:
            print(f"kept in {top}")
        else:
            shutil.rmtree(top, ignore_errors=True)
    if not args.names:
        failures += support.verify()
    print(f"{counts['images']} images, {len(failures)} not equal: {totals}, "
          f"{counts['refusals']} refusals, {counts['qemu']} read by qemu-img "
          f"and {counts['vhdi']} by libvhdi as built; seed {args.seed}")
    sys.exit(1 if failures or not counts["images"] else 0)

# SPDX-License-Identifier: BSD-3-Clause
"""What the differential tests of vdi.c, ploop.c, qed.c, qcow.c and luks.c in
formats/drivers/ share: images that qemu-img makes are compared with what it reads from
them, images of our own builders with what these say.

A test gives its cases by decorating functions: @by_qemu for the first kind,
called with a Bench; @by_hand for the second, called with a Folder.
"""

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import traceback

import maps
import support
from qcow2_build import Expect
from server import (Failure, Refused, Server, Totals, compare, environment,
                    image_options, need_programs, run, run_json, run_with_key)

KIB, MIB = 1024, 1024 * 1024
SECRET = b"correct horse battery staple"
REFUSAL_LINES = 5

_CASES = {}


def by_qemu(make):
    _CASES[make.__name__] = (Bench, make)
    return make


def by_hand(make):
    _CASES[make.__name__] = (Folder, make)
    return make


class Place:
    """A folder of one case, and the random content made in it."""

    judge = None    # of support.JUDGES: who tells what an image reads as

    def __init__(self, folder, name, totals):
        self.folder = folder
        self.random = random.Random(name)
        self.totals = totals
        self.refusals = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def noise(self, n):
        return self.random.randbytes(n)

    def key(self):
        return self.write("key", SECRET)

    def raw(self, name, size):
        """Data, zero runs, and data that compresses, as a sparse file."""
        rng = self.random
        with open(self.path(name), "wb") as f:
            off = 0
            while off < size:
                n = min(rng.choice([512, 4096, 65536, 300 * KIB, MIB]),
                        size - off)
                kind = rng.randrange(3)
                if kind == 0:
                    f.write(rng.randbytes(n))
                elif kind == 1:
                    word = rng.randbytes(rng.randrange(3, 40))
                    f.write((word * (n // len(word) + 1))[:n])
                else:
                    f.seek(n, os.SEEK_CUR)
                off += n
            f.truncate(size)
        return self.path(name)

    def compare(self, image, reference, fmt=None, key=None, snapshot=None,
                export="", allow=(), **kwargs):
        """Bytes and block status; the map of the image agrees with both."""
        with Server(image, fmt=fmt, key=key, snapshot=snapshot,
                    allow=allow) as server:
            status = compare(server.uri(export), reference, self.totals,
                             map_path=self.path("status.json"), **kwargs)
        support.saw(image, self.judge,
                    *(["snapshots"] if export or snapshot else []), fmt=fmt,
                    key=key, allow=allow)
        if export:
            return None
        ours = run_json([os.environ["PLATTER"], "map", "--json",
                         *image_options(fmt, snapshot, key, allow), image])
        size = kwargs.get("size") or os.stat(reference).st_size
        maps.check_cover(ours, size, "start", "platter map")
        maps.compare_nbd(status, ours, size)
        self.totals.maps += 1
        return ours

    def refuse(self, name, pattern, fmt=None, snapshot=None, key=None,
               allow=()):
        """The server ends by itself and says why in a few lines."""
        try:
            with Server(self.path(name), fmt=fmt, snapshot=snapshot,
                        key=key, allow=allow):
                pass
        except Refused as e:
            said, status = e.message, e.status
        else:
            raise Failure(f"{name}: was served, a refusal was expected")
        if status <= 0:
            raise Failure(f"{name}: the refusal ended with {status}: {said}")
        if not 1 <= len(said.splitlines()) <= REFUSAL_LINES:
            raise Failure(f"{name}: not a short refusal: {said}")
        if not all(c.isprintable() or c == "\n" for c in said):
            raise Failure(f"{name}: control characters: {said!r}")
        if not re.search(pattern, said):
            raise Failure(f"{name}: the refusal does not match /{pattern}/: "
                          f"{said}")
        self.refusals += 1


class Bench(Place):
    """Images of qemu-img's."""

    judge = support.QEMU

    def secret(self, wanted=True):
        if not wanted:
            return []
        return ["--object", f"secret,id=s,file={self.key()}"]

    def img(self, *args, ok=(0,)):
        status, out, said = run_with_key(["qemu-img", *args])
        if ok is not None and status not in ok:
            raise Failure(f"qemu-img {' '.join(map(str, args))}: {said}")
        return out

    def io(self, fmt, name, *commands):
        args = [x for c in commands for x in ("-c", c)]
        out = run(["qemu-io", "-f", fmt, *args, self.path(name)])
        bad = [line for line in (out[1] + out[2]).splitlines()
               if "failed" in line or "invalid" in line]
        if bad:
            raise Failure(f"qemu-io: {bad[0]}")

    def make(self, fmt, name, size, options="", flags=(), encrypted=False,
             status=(0,)):
        self.img("convert", "-q", *self.secret(encrypted), *flags, "-f", "raw",
                 "-O", fmt, *(["-o", options] if options else []),
                 self.raw("source.raw", size), self.path(name), ok=status)

    def compare_trusting(self, name):
        """Bytes alone, of a chain whose middle has no declared format."""
        reference = self.path("reference.raw")
        self.img("convert", "-O", "raw", self.path(name), reference)
        with Server(self.path(name), allow=["guessed"]) as server:
            compare(server.uri(), reference, self.totals)
        support.saw(self.path(name), self.judge, allow=["guessed"])

    def check(self, fmt, name, encrypted=None, guess=True, extents=True):
        """Everything that qemu-img says of an image. encrypted: how its
        options name the key ("key-secret", "encrypt.key-secret")."""
        image = self.path(name)
        flags = ["-f", fmt]
        source = image
        if encrypted:
            flags = ["--image-opts"]
            source = f"driver={fmt},file.filename={image},{encrypted}=s"
        reference = self.path("reference.raw")
        self.img("convert", *self.secret(encrypted), *flags, "-O", "raw",
                 "-S", "4k", source, reference)
        ours = self.compare(image, reference, fmt=None if guess else fmt,
                            key=self.key() if encrypted else None)
        if not extents:
            return
        theirs = run_json(["qemu-img", "map", "--output=json",
                           *self.secret(encrypted), *flags, source])
        if fmt in ("vdi", "parallels", "luks"):
            # qemu has present whatever is not of a format with backing files.
            for e in theirs:
                if e["zero"] and not e["data"]:
                    e["present"] = False
        layers = maps.Layers(source, [*self.secret(encrypted), *flags]
                             ) if not encrypted else None
        if layers:
            maps.compare_qemu(ours, theirs, layers,
                              os.stat(reference).st_size)
            layers.close()
            support.saw(image, self.judge, "map", fmt=None if guess else fmt)


class Folder(Place):
    """Images of our own builders."""

    judge = support.SPECIFICATION

    def __init__(self, folder, name, totals):
        super().__init__(folder, name, totals)
        self.failures = []

    def expect(self, size):
        return Expect(size)

    def serve(self, name, expect, fmt=None, snapshot=None, **kwargs):
        """expect: an Expect; kwargs go to nbd-compare."""
        reference = self.path("reference")
        segments = expect.write(reference)
        try:
            ours = self.compare(
                self.path(name), reference, fmt=fmt, snapshot=snapshot,
                eio=expect.eio(), maybe=sorted(expect.maybe),
                segments=segments, size=expect.size, **kwargs)
            for off, length in expect.eio():
                for e in ours or []:
                    if (e["start"] < off + length and
                            off < e["start"] + e["length"] and e["zero"]):
                        raise Failure(f"map: {e} is told zero, but {length} "
                                      f"bytes at {off} cannot be read")
        except Failure as e:
            raise Failure(f"{name}: {e}") from None


def check_command(image, want, fmt=None):
    """`platter check`: its exit status (0 sound, 2 corrupt, 3 leaks)."""
    status, out, err = run([os.environ["PLATTER"], "check",
                            *image_options(fmt), image], ok=None)
    if status != want:
        raise Failure(f"platter check {image}: status {status}, {want} was "
                      f"expected: {out} {err}")


def main(doc):
    p = argparse.ArgumentParser(description=doc.splitlines()[0])
    p.add_argument("--keep", action="store_true", help="keep the images")
    p.add_argument("names", nargs="*", metavar="CASE")
    args = p.parse_args()
    for n in args.names:
        if n not in _CASES:
            sys.exit(f"there is no case {n}")
    environment("PLATTER", "NBD_COMPARE")
    need_programs("nbdkit", "qemu-img", "qemu-io")
    totals = Totals()
    refusals = failed = 0
    top = tempfile.mkdtemp(prefix="platter-diff-")
    names = args.names or list(_CASES)
    for n in names:
        kind, make = _CASES[n]
        folder = os.path.join(top, n)
        os.mkdir(folder)
        place = kind(folder, n, totals)
        try:
            make(place)
        except Failure as e:
            failed += 1
            print(f"not equal: {n}: {e}", flush=True)
        except Exception:
            failed += 1
            print(f"not equal: {n}: {traceback.format_exc()}", flush=True)
        refusals += place.refusals
        if not args.keep:
            shutil.rmtree(folder)
    print(f"kept in {top}" if args.keep else "", end="\n" if args.keep else "")
    if not args.keep:
        shutil.rmtree(top, ignore_errors=True)
    if not args.names:
        failed += len(support.verify())
    print(f"{len(names)} cases, {failed} not equal: {totals}, "
          f"{refusals} refusals")
    sys.exit(1 if failed else 0)

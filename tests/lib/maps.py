# SPDX-License-Identifier: BSD-3-Clause
"""Compares allocation maps that different programs print.

A map is cut into the pieces on which both maps have one answer, so how a
program joins or splits its extents does not matter.
"""

import json
import os

from server import Failure, run_json


def pieces(a, b, start):
    """(off, length, entry of a, entry of b) over both maps' borders."""
    length = "length"
    i = j = 0
    off = 0
    while i < len(a) and j < len(b):
        ends = (a[i][start] + a[i][length], b[j][start] + b[j][length])
        end = min(ends)
        if end > off:
            yield off, end - off, a[i], b[j]
        off = end
        i += ends[0] == end
        j += ends[1] == end
    if i != len(a) or j != len(b):
        raise Failure(f"one map ends at {off}, the other goes on")


def check_cover(entries, size, start, name):
    off = 0
    for e in entries:
        if e[start] != off or e["length"] <= (0 if size else -1):
            raise Failure(f"{name}: an extent at {e[start]} of "
                          f"{e['length']} bytes, {off} was expected")
        off += e["length"]
    if off != size:
        raise Failure(f"{name}: covers {off} of {size} bytes")


class Layers:
    """The chain, the top first: how large each layer's disk is, and the file
    that its data clusters lie in."""

    def __init__(self, image, options=()):
        chain = run_json(["qemu-img", "info", "--output=json",
                          "--backing-chain", *options, image])
        self.sizes = [layer["virtual-size"] for layer in chain]
        self.fds = []
        for layer in chain:
            name = layer["filename"]
            special = layer.get("format-specific", {}).get("data", {})
            if special.get("data-file"):
                name = os.path.join(os.path.dirname(name),
                                    special["data-file"])
            if name.startswith("json:"):
                name = json.loads(name[5:])["file"]["filename"]
            self.fds.append(os.open(name, os.O_RDONLY))

    def close(self):
        for fd in self.fds:
            os.close(fd)

    def is_hole(self, depth, off, length):
        """Are these bytes of the file at this depth a hole?"""
        try:
            data = os.lseek(self.fds[depth], off, os.SEEK_DATA)
        except OSError:
            return True
        return data >= off + length


def compare_qemu(ours, theirs, layers, size):
    """`platter map --json` with `qemu-img map --output=json`.

    Intended differences, each believed only with its proof:
      - a hole of the host file under an allocated cluster: we say that it is
        zero, qemu says so only where it looks for holes (raw, and images
        with preallocated metadata, where it calls it data at the same time).
        lseek() must say that it is one.
      - where a zero cluster is preallocated qemu tells the place; as no data
        are there we need not.
    Data beyond the host file's end (damaged with us, zero with qemu) are not
    made by qemu.
    """
    theirs = [e for e in theirs if e["length"]]
    check_cover(ours, size, "start", "platter map")
    check_cover(theirs, size, "start", "qemu-img map")
    for off, length, a, b in pieces(ours, theirs, "start"):
        where = (f"map of {length} bytes at {off}: platter {json.dumps(a)}, "
                 f"qemu-img {json.dumps(b)}")
        if a["present"] != b["present"]:
            raise Failure(f"{where}: present")
        if a["depth"] != b["depth"]:
            raise Failure(f"{where}: depth")
        a_off = a["offset"] + off - a["start"] if "offset" in a else None
        b_off = b["offset"] + off - b["start"] if "offset" in b else None
        if (a["zero"], a["data"]) != (b["zero"], b["data"]):
            if not (b["data"] and a["zero"] and b_off is not None and
                    layers.is_hole(b["depth"], b_off, length)):
                raise Failure(f"{where}: zero and data")
        if a_off != b_off and not (a["zero"] and a_off is None):
            raise Failure(f"{where}: offset")


def compare_nbd(status, ours, size):
    """NBD block status with `platter map --json` of the same image."""
    check_cover(status, size, "offset", "NBD block status")
    ours = [dict(e, offset=e["start"]) for e in ours]
    for off, length, nbd, e in pieces(status, ours, "offset"):
        where = (f"{length} bytes at {off}: NBD {json.dumps(nbd)}, "
                 f"map {json.dumps(e)}")
        if nbd["zero"] != e["zero"]:
            raise Failure(f"{where}: zero")
        if nbd["hole"] and not nbd["zero"]:
            raise Failure(f"{where}: a hole that is not zero")
        if not e["present"] and not nbd["hole"]:
            raise Failure(f"{where}: absent, but not a hole")


def compare_nbdinfo(info, status, size):
    """`nbdinfo --map --json` with what nbd-compare was told."""
    info = [dict(e, hole=bool(e["type"] & 1), zero=bool(e["type"] & 2))
            for e in info]
    check_cover(info, size, "offset", "nbdinfo --map")
    for off, length, a, b in pieces(info, status, "offset"):
        if (a["hole"], a["zero"]) != (b["hole"], b["zero"]):
            raise Failure(f"block status of {length} bytes at {off}: "
                          f"nbdinfo {a}, nbd-compare {b}")

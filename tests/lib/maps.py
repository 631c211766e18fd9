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


class HostHoles:
    """Are these bytes of the file at this depth a hole?"""

    def __init__(self, files):
        self.fds = [os.open(f, os.O_RDONLY) for f in files]

    def close(self):
        for fd in self.fds:
            os.close(fd)

    def covers(self, depth, off, length):
        try:
            data = os.lseek(self.fds[depth], off, os.SEEK_DATA)
        except OSError:
            return True
        return data >= off + length


def data_files(image, options=()):
    """For each layer, the file that its data clusters lie in."""
    chain = run_json(["qemu-img", "info", "--output=json", "--backing-chain",
                      *options, image])
    files = []
    for layer in chain:
        special = layer.get("format-specific", {}).get("data", {})
        name = special.get("data-file")
        if name and not name.startswith("json:"):
            folder = os.path.dirname(layer["filename"])
            files.append(os.path.join(folder, name))
        else:
            files.append(layer["filename"])
    return files


def compare_qemu(ours, theirs, holes, size):
    """`platter map --json` with `qemu-img map --output=json`.

    Intended differences:
      - a hole of the host file under an allocated cluster: we say that it is
        zero, qemu says so only where it looks for holes (raw, and images
        with preallocated metadata). Believed when lseek() says it is a hole.
      - where no layer has anything, the depth has no meaning.
    Data beyond the host file's end (damaged with us) is not made by qemu.
    """
    check_cover(ours, size, "start", "platter map")
    check_cover(theirs, size, "start", "qemu-img map")
    for off, length, a, b in pieces(ours, theirs, "start"):
        where = (f"map of {length} bytes at {off}: platter {json.dumps(a)}, "
                 f"qemu-img {json.dumps(b)}")
        if a["present"] != b["present"]:
            raise Failure(f"{where}: present")
        if not b["present"]:
            if a["zero"] != b["zero"] or a["data"] != b["data"]:
                raise Failure(f"{where}: absent, but not zero")
            continue
        if a["depth"] != b["depth"]:
            raise Failure(f"{where}: depth")
        a_off = a["offset"] + off - a["start"] if "offset" in a else None
        b_off = b["offset"] + off - b["start"] if "offset" in b else None
        if (a["zero"], a["data"]) != (b["zero"], b["data"]):
            hole = (b["data"] and not b["zero"] and a["zero"] and
                    b_off is not None and
                    holes.covers(b["depth"], b_off, length))
            if not hole:
                raise Failure(f"{where}: zero and data")
        # qemu tells where a zero cluster is preallocated; that is no place
        # of data, so we may leave it out.
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

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Exports as stock clients see them: nbdinfo, nbdcopy, qemu-img, qemu-io."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import maps  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from disk import DATA_MAX, PATTERN, SIZE, Disk, same_bytes  # noqa: E402
from server import (Server, environment, need_programs, run,  # noqa: E402
                    run_json)


class Context:
    def __init__(self, folder):
        self.disk = Disk(folder)
        self.server = Server(self.disk.path, fmt="qcow2")

    def uri(self, export=""):
        return self.server.uri(export)

    def info(self, export=""):
        return run_json(["nbdinfo", "--json", self.uri(export)])["exports"][0]


def nbdinfo_tells_the_exact_size(c):
    is_equal(run(["nbdinfo", "--size", c.uri()])[1].strip(), str(SIZE),
             "the size")


def nbdinfo_finds_a_read_only_export_for_many_connections(c):
    e = c.info()
    is_equal(e["is_read_only"], True, "is_read_only")
    is_equal(e["can_multi_conn"], True, "can_multi_conn")
    is_equal(e["can_trim"], False, "can_trim")
    is_equal(e["can_zero"], False, "can_zero")
    is_true("base:allocation" in e["contexts"], "no base:allocation")


def nbdinfo_finds_sensible_block_sizes(c):
    e = c.info()
    is_equal(e.get("block_size_minimum"), 1, "block_size_minimum")
    preferred = e.get("block_size_preferred", 0)
    is_true(512 <= preferred <= 2 << 20 and not preferred & (preferred - 1),
            f"block_size_preferred is {preferred}")
    is_true(e.get("block_size_maximum", 0) >= 1 << 20,
            f"block_size_maximum is {e.get('block_size_maximum')}")


def nbdinfo_lists_the_snapshots(c):
    listed = run_json(["nbdinfo", "--list", "--json", c.uri()])["exports"]
    names = {e["export-name"]: e for e in listed}
    is_true("" in names, f"the empty export is not in {sorted(names)}")
    for snap in c.disk.snapshots:
        is_true(f"@{snap}" in names, f"@{snap} is not in {sorted(names)}")
        is_equal(names[f"@{snap}"]["export-size"], SIZE, f"size of @{snap}")
    is_equal(len(names), 1 + len(c.disk.snapshots), "how many are listed")


def nbdcopy_copies_the_disk_sparse(c):
    out = c.disk.at("copy.raw")
    run(["nbdcopy", c.uri(), out])
    is_true(same_bytes(out, c.disk.raw), "the copy differs")
    used = os.stat(out).st_blocks * 512
    is_true(0 < used <= DATA_MAX, f"the copy takes {used} bytes")


def nbdcopy_copies_a_snapshot_by_its_name(c):
    for snap, raw in c.disk.snapshots.items():
        out = c.disk.at("copy.raw")
        run(["nbdcopy", c.uri(f"@{snap}"), out])
        is_true(same_bytes(out, raw), f"the copy of @{snap} differs")
        is_true(not same_bytes(out, c.disk.raw),
                f"@{snap} is the live disk")


def nbdcopy_copies_from_several_at_once(c):
    outs = [c.disk.at(f"copy{i}.raw") for i in range(4)]
    jobs = [subprocess.Popen(["nbdcopy", c.uri(), o]) for o in outs]
    for job in jobs:
        is_equal(job.wait(60), 0, "nbdcopy's status")
    for o in outs:
        is_true(same_bytes(o, c.disk.raw), "a copy differs")


def qemu_img_info_finds_the_size(c):
    info = run_json(["qemu-img", "info", "--output=json", c.uri()])
    is_equal(info["virtual-size"], SIZE, "virtual-size")
    is_equal(info["format"], "raw", "format")


def qemu_img_convert_and_compare_find_the_same_disk(c):
    out = c.disk.at("converted.raw")
    run(["qemu-img", "convert", "-f", "raw", "-O", "raw", c.uri(), out])
    is_true(same_bytes(out, c.disk.raw), "the converted disk differs")
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", c.uri(),
         c.disk.path])


def qemu_img_map_finds_the_zeroes_and_the_data(c):
    theirs = run_json(["qemu-img", "map", "--output=json", "-f", "raw",
                       c.uri()])
    direct = run_json(["qemu-img", "map", "--output=json", c.disk.path])
    maps.check_cover(theirs, SIZE, "start", "qemu-img map over NBD")
    for off, n, a, b in maps.pieces(theirs, direct, "start"):
        is_equal(a["zero"], b["zero"], f"zero of {n} bytes at {off}")


def qemu_io_reads_what_was_written(c):
    off, length, byte = PATTERN
    reads = [f"read -P {byte} {off} {length}", "read -P 0 128k 64k",
             f"read -P {byte} {off + 1} 1", f"read -P 0 {SIZE - 512} 512"]
    out = run(["qemu-io", "-r", "-f", "raw",
               *(x for r in reads for x in ("-c", r)), c.uri()])[1]
    is_true("verification failed" not in out, out)
    is_equal(out.count("ops; "), len(reads), "how many reads were done")
    # The check itself can fail.
    out = run(["qemu-io", "-r", "-f", "raw", "-c",
               f"read -P {byte ^ 1} {off} 16", c.uri()], ok=None)
    is_true("verification failed" in out[1] + out[2],
            "a wrong pattern was not noticed")


def writing_is_refused(c):
    status, out, err = run(["qemu-io", "-f", "raw", "-c", "write 0 512",
                            c.uri()], ok=None)
    is_true(status != 0 and ("read-only" in (out + err).lower() or
                             "permission" in (out + err).lower()),
            f"qemu-io: status {status}: {out}{err}")
    status, out, err = run(["nbdcopy", c.disk.raw, c.uri()], ok=None)
    is_true(status != 0, "nbdcopy wrote to the export")
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", c.uri(),
         c.disk.path])


def unknown_exports_are_refused_and_serving_goes_on(c):
    for name in ("nope", "@nope", "@", "@clean@clean", "@clean+vm",
                 "@%zz", "x" * 4000, "../disk.qcow2", "/etc/passwd"):
        status = run(["nbdinfo", c.uri(name)], ok=None)[0]
        is_true(status != 0, f"export {name[:20]!r} was opened")
    is_equal(run(["nbdinfo", "--size", c.uri()])[1].strip(), str(SIZE),
             "the size afterwards")


def the_image_was_not_changed_and_the_server_ends(c):
    run(["qemu-img", "check", c.disk.path])
    out = c.disk.at("after.raw")
    run(["qemu-img", "convert", "-O", "raw", c.disk.path, out])
    is_true(same_bytes(out, c.disk.raw), "the image has changed")
    socket = c.server.socket
    c.server.__exit__(None, None, None)
    is_true(not os.path.exists(socket), "the socket was left behind")


if __name__ == "__main__":
    environment("PLATTER")
    need_programs("nbdinfo", "nbdcopy", "nbdkit", "qemu-img", "qemu-io")
    run_checks(Context, [
        nbdinfo_tells_the_exact_size,
        nbdinfo_finds_a_read_only_export_for_many_connections,
        nbdinfo_finds_sensible_block_sizes,
        nbdinfo_lists_the_snapshots,
        nbdcopy_copies_the_disk_sparse,
        nbdcopy_copies_a_snapshot_by_its_name,
        nbdcopy_copies_from_several_at_once,
        qemu_img_info_finds_the_size,
        qemu_img_convert_and_compare_find_the_same_disk,
        qemu_img_map_finds_the_zeroes_and_the_data,
        qemu_io_reads_what_was_written,
        writing_is_refused,
        unknown_exports_are_refused_and_serving_goes_on,
        the_image_was_not_changed_and_the_server_ends,
    ])

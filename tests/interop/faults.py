#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a server says of requests that fail: which export, which file of all that
are below it, where, and why; once, however often it is asked. Damaged, cut and
full, with qemu-io as the client."""

import contextlib
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from bad_web import BadWeb  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client  # noqa: E402
from server import (Server, environment, need_programs,  # noqa: E402
                    run)

KIB, MIB = 1 << 10, 1 << 20
SIZE = 2 * MIB
CLUSTER = 64 * KIB
WAIT_SEC = 30
BAD = 5 * CLUSTER  # the compressed cluster that is damaged


class Context:
    """base.qcow2, compressed and damaged, below mid.qcow2 below top.qcow2."""

    def __init__(self, folder):
        self.folder = folder
        self.raw = self.at("disk.raw")
        with open(self.raw, "wb") as f:
            f.write(bytes((i * i >> 7) % 251 for i in range(SIZE)))
        run(["qemu-img", "convert", "-c", "-O", "qcow2", self.raw,
             self.at("base.qcow2")])
        for top, below in (("mid", "base"), ("top", "mid")):
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                 "-b", f"{below}.qcow2", self.at(f"{top}.qcow2")])
        where = run([os.environ["PLATTER"], "map", self.at("base.qcow2")])[1]
        with open(self.at("base.qcow2"), "r+b") as f:
            f.seek(int(re.search(rf"^{BAD:#x} .*compressed (0x\w+)", where,
                                 re.M)[1], 16))
            f.write(b"\xff" * 64)

    def at(self, name):
        return os.path.join(self.folder, name)


def io(uri, *commands):
    """How many of the commands failed."""
    argv = ["qemu-io", "-f", "raw"]
    if not any(c.startswith("write") for c in commands):
        argv += ["-r"]
    for c in commands:
        argv += ["-c", c]
    out = run([*argv, uri], ok=None)
    return (out[1] + out[2]).count(" failed: ")


def lines(s, *what, n=1):
    """Those of the server's lines that have all of @what, when there are @n; they
    are written by a process of their own."""
    deadline = time.monotonic() + WAIT_SEC
    while True:
        found = [line for line in s.messages().splitlines()
                 if all(w in line for w in what)]
        if len(found) >= n:
            return found
        is_true(time.monotonic() < deadline,
                f"{n} lines with {what} were expected in {s.messages()}")
        time.sleep(0.02)


def damage_in_a_layer_is_told_with_its_file_once_an_export(c):
    with Server(c.at("top.qcow2"), more=[
            "--export", f"mid={c.at('mid.qcow2')}"]) as s:
        for export in ("", "mid"):
            read = f"read {BAD + 512} 4k"
            is_equal(io(s.uri(export), read, read, read), 3, "failed reads")
            is_equal(io(s.uri(export), f"read {BAD - CLUSTER} 64k"), 0,
                     "failed reads beside it")
        place = f"{c.at('base.qcow2')}: guest offset {BAD}: compressed data at "
        is_equal(len(lines(s, place, n=2)), 2, f"lines of {s.messages()}")
        is_equal(len(lines(s, 'export "mid": ' + place)), 1,
                 f"lines of {s.messages()}")


def a_write_that_needs_what_is_damaged_names_both_files(c):
    with Server(c.raw, more=[
            "--export", f"top={c.at('top.qcow2')}",
            "--overlays", c.folder]) as s:
        is_equal(io(s.uri("top+vm1"), f"write {BAD + 512} 512"), 1,
                 "failed writes")
        is_equal(len(lines(s, f'export "top+vm1": {c.at("top+vm1.qcow2")}: ',
                           f"{c.at('base.qcow2')}: guest offset {BAD}: ")), 1,
                 f"lines of {s.messages()}")


def of_an_overlay_its_own_damage_is_told_with_its_file(c):
    own = c.at("a+vm2.qcow2")
    with Server(c.raw, more=["--export", f"a={c.raw}",
                                        "--overlays", c.folder]) as s:
        is_equal(io(s.uri("a+vm2"), "write 1M 64k", "flush"), 0, "failures")
    with Server(c.raw, more=["--export", f"a={c.raw}",
                                        "--overlays", c.folder]) as s:
        with Client(s.socket) as holds:
            holds.go(b"a+vm2")
            os.truncate(own, CLUSTER)
            is_equal(io(s.uri("a+vm2"), "read 1M 64k", "read 1M 64k"), 2,
                     "failed reads")
        found = lines(s, f'export "a+vm2": {own}: guest offset {MIB}: ')
        is_equal(len(found), 1, f"lines of {s.messages()}")
    os.unlink(own)


def of_several_files_that_which_was_cut_is_told(c):
    run(["qemu-img", "convert", "-O", "vmdk", "-o",
         "subformat=monolithicFlat", c.raw, c.at("flat.vmdk")])
    with Server(c.at("flat.vmdk")) as s:
        os.truncate(c.at("flat-flat.vmdk"), MIB)
        is_equal(io(s.uri(), f"read {MIB + 4096} 4k"), 1, "failed reads")
        is_equal(len(lines(s, f'{c.at("flat.vmdk")}: "flat-flat.vmdk": '
                              f"guest offset {MIB + 4096}: ")), 1,
                 f"lines of {s.messages()}")


def a_source_that_is_gone_is_told_with_its_url(c):
    with open(c.raw, "rb") as f:
        data = f.read()
    with BadWeb(data) as web:
        url = web.url("down")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw",
             "-b", url, c.at("over.qcow2"), SIZE])
        with Server(c.at("over.qcow2"), more=[
                "--export", f"second={c.raw}", "--remote-timeout", 1,
                "--allow", url]) as s:
            is_equal(io(s.uri(), "read 1M 4k"), 1, "failed reads")
            is_equal(len(lines(s, f"{url}: guest offset {MIB}: ")), 1,
                     f"lines of {s.messages()}")


def a_full_disk_is_told_with_the_overlays_file(c):
    """As large as a file may be, which the kernel tells as it does a full disk: by
    the write's end."""
    full = ["prlimit", f"--fsize={MIB}", "sh", "-c",
            'trap "" XFSZ; exec "$@"', "sh"]
    with Server(c.raw, fmt="raw", wrap=full, more=[
            "--export", f"a={c.raw}", "--overlays", c.folder]) as s:
        writes = [f"write {i * CLUSTER} 64k" for i in range(SIZE // CLUSTER)]
        is_true(io(s.uri("a+vm3"), *writes, *writes) > SIZE // CLUSTER // 2,
                "writes went where there is no room")
        told = lines(s, f'export "a+vm3": {c.at("a+vm3.qcow2")}: ',
                     "File too large")
        is_equal(len(told), len(set(told)), f"different lines of {told}")
        is_true(len(told) <= 10, f"{len(told)} lines")
    with Server(c.raw, fmt="raw", wrap=full,
                more=["--overlay", "temp"]) as s:
        is_true(io(s.uri(), *writes), "there was room")
        lines(s, "temporary overlay in ", "File too large")


def what_was_not_told_is_counted_when_something_new_is(c):
    with Server(c.at("top.qcow2"), more=[
            "--export", f"b={c.raw}"]) as s:
        read = f"read {BAD} 4k"
        is_equal(io(s.uri(), *[read] * 7), 7, "failed reads")
        with open(c.at("base.qcow2"), "r+b") as f:
            size = os.path.getsize(f.name)
            f.truncate(CLUSTER * 5 + 100)
            try:
                is_true(io(s.uri(), f"read {SIZE - CLUSTER} 4k"),
                        "it was read from a file that was cut")
            finally:
                f.truncate(size)
        lines(s, "more like the next")
        untold = re.findall(r"(\d+) more like the next were not told",
                            s.messages())
        is_equal(untold, ["6"], f"what was counted in {s.messages()}")


if __name__ == "__main__":
    environment("PLATTER")
    need_programs("qemu-img", "qemu-io", "prlimit")
    run_checks(Context, [
        damage_in_a_layer_is_told_with_its_file_once_an_export,
        a_write_that_needs_what_is_damaged_names_both_files,
        of_an_overlay_its_own_damage_is_told_with_its_file,
        of_several_files_that_which_was_cut_is_told,
        a_source_that_is_gone_is_told_with_its_url,
        a_full_disk_is_told_with_the_overlays_file,
        what_was_not_told_is_counted_when_something_new_is,
    ])

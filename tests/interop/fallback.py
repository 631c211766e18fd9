#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Where io_uring is refused, the same bytes come another way."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_true, run_checks  # noqa: E402
from disk import Disk  # noqa: E402
from server import (Refused, Server, Totals, compare,  # noqa: E402
                    environment, need_programs, run, skip)

DENY = os.environ.get("DENY_URING", "")
totals = Totals()


def served_equal(d, io=None, wrap=(), direct=False):
    with Server(d.path, fmt="qcow2", io=io, wrap=wrap,
                direct=direct) as server:
        compare(server.uri(), d.raw, totals)
        for snap, raw in d.snapshots.items():
            compare(server.uri(f"@{snap}"), raw, totals, reads=10)
        return server.messages()


def io_uring_serves_the_disk(d):
    served_equal(d, io="auto")


def preadv_serves_the_same_disk(d):
    served_equal(d, io="sync")


def direct_reads_give_the_same_disk(d):
    served_equal(d, direct=True)
    served_equal(d, io="sync", direct=True)


def a_small_cache_gives_the_same_disk(d):
    with Server(d.path, fmt="qcow2", cache="64K") as server:
        compare(server.uri(), d.raw, totals)


def a_denied_ring_falls_back_and_says_so_once(d):
    for code in ("EPERM", "ENOSYS"):
        said = served_equal(d, wrap=(DENY, code))
        lines = [x for x in said.splitlines() if "io_uring" in x]
        is_true(len(lines) == 1,
                f"{code}: io_uring is told of in {len(lines)} lines: {said}")


def a_denied_ring_is_not_told_of_when_none_was_wanted(d):
    said = served_equal(d, io="sync", wrap=(DENY, "EPERM"))
    is_true("io_uring" not in said, said)


def a_ring_that_was_demanded_and_is_denied_ends_the_start(d):
    for code in ("EPERM", "ENOSYS"):
        try:
            with Server(d.path, fmt="qcow2", io="uring", wrap=(DENY, code)):
                pass
        except Refused as e:
            is_true("io_uring" in e.message, e.message)
        else:
            is_true(False, f"io=uring was served under {code}")


if __name__ == "__main__":
    environment("PLATTER", "NBD_COMPARE", "DENY_URING")
    need_programs("nbdkit", "qemu-img", "qemu-io")
    if run([DENY, "EPERM", "true"], ok=(0, 77))[0] == 77:
        skip("seccomp filters cannot be installed here")
    try:
        run_checks(Disk, [
            io_uring_serves_the_disk,
            preadv_serves_the_same_disk,
            direct_reads_give_the_same_disk,
            a_small_cache_gives_the_same_disk,
            a_denied_ring_falls_back_and_says_so_once,
            a_denied_ring_is_not_told_of_when_none_was_wanted,
            a_ring_that_was_demanded_and_is_denied_ends_the_start,
        ])
    finally:
        print(totals)

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hostile clients before platter serve: whatever one does, the next one is
served, and memory does not grow with what was asked for."""

import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import CMD_READ, OPT_EXPORT_NAME, Client, Refused  # noqa: E402
from qcow2_build import Qcow2  # noqa: E402
from server import Server, by_nbdkit, environment, peak_kib  # noqa: E402

SIZE = 256 << 16
RSS_KIB = 64 << 10
# nbdkit allocates what a read answers in each of its threads, and glibc keeps
# one or two of them for each.
NBDKIT_RSS_KIB = RSS_KIB + 8 * 2 * (SIZE >> 10)
EPERM, EINVAL = 1, 22
sanitized = os.environ.get("PLATTER_SANITIZE", "none") != "none"


class Context:
    def __init__(self, folder):
        path = os.path.join(folder, "disk.qcow2")
        q = Qcow2(path, SIZE)
        clusters = [struct.pack("<I", i) * 16384 for i in range(SIZE >> 16)]
        for i, data in enumerate(clusters):
            q.data(i, data)
        self.disk = b"".join(clusters)
        q.finish()
        self.path = path

    def server(self):
        return Server(self.path, fmt="qcow2")


def next_client_is_served(c, server, tries=1):
    """A server that died is back at once; who connects meanwhile waits."""
    for left in reversed(range(tries)):
        try:
            with Client(server.socket, 10) as n:
                is_equal(n.go(), SIZE, "the size")
                code, got = n.read(SIZE - 70000, 70000)
                is_equal(code, 0, "the error")
                is_true(got == c.disk[-70000:], "other bytes than the disk's")
                return
        except (OSError, struct.error):
            # The connection went to the server that was dying.
            if not left:
                raise
            time.sleep(0.05)


def a_client_that_queues_reads_and_hangs_up_hurts_nobody_else(c):
    with c.server() as s:
        for _ in range(10):
            with Client(s.socket) as bad:
                try:
                    bad.go()
                    bad.socket.setblocking(False)
                    for i in range(400):
                        bad.request(CMD_READ, i << 9, 1 << 20)
                except (BlockingIOError, ConnectionError):
                    pass  # full; or the one before had killed the server
            next_client_is_served(c, s, tries=5)
        is_true(s.process.poll() is None, "platter serve ended")


def many_clients_that_hang_up_together_hurt_nobody_else(c):
    with c.server() as s:
        clients = []
        for _ in range(20):
            bad = Client(s.socket)
            bad.go()
            for i in range(20):
                bad.request(CMD_READ, i << 16, 1 << 16)
            clients.append(bad)
        for bad in clients:
            bad.socket.close()
        next_client_is_served(c, s, tries=10)


def an_unknown_export_is_refused_and_the_next_client_served(c):
    with c.server() as s:
        for name in (b"nosuch", b"../disk", b"@nosuch", b"+overlay", b"@",
                     b"\x1b[2J\n", b"%00", b"a/b", b"x" * 4000):
            with Client(s.socket) as bad:
                try:
                    bad.go(name)
                except (Refused, ConnectionError):
                    pass
                else:
                    is_true(False, f"{name[:20]!r} was opened")
            next_client_is_served(c, s)
        said = s.messages()
        is_true(all(ch.isprintable() or ch == "\n" for ch in said),
                f"control characters in {said!r}")


def reads_outside_the_disk_are_refused(c):
    with c.server() as s, Client(s.socket) as bad:
        bad.go()
        for off, length in ((SIZE, 1), (SIZE - 1, 2), (1 << 63, 512),
                            ((1 << 64) - 1, 1)):
            code, _ = bad.read(off, length)
            is_equal(code, EINVAL, f"the error of {length} bytes at {off}")
        is_equal(bad.read(0, 16)[1], c.disk[:16], "what is read then")


def a_write_is_refused_and_the_connection_goes_on(c):
    with c.server() as s, Client(s.socket) as bad:
        bad.go()
        is_equal(bad.write(0, b"x" * 512), EPERM, "the error of a write")
        is_equal(bad.read(0, 16)[1], c.disk[:16], "what is read then")


def nonsense_ends_the_connection_and_no_other(c):
    with c.server() as s:
        for junk in (b"", b"\0" * 4, b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 4000,
                     b"\0\0\0\3" + b"\xff" * 64,
                     b"\0\0\0\3IHAVEOPT" + struct.pack(">II", 7, 1 << 31)):
            with socket.socket(socket.AF_UNIX) as bad:
                bad.settimeout(5)
                bad.connect(s.socket)
                try:
                    bad.sendall(junk)
                except OSError:
                    pass
            next_client_is_served(c, s, tries=3)
        for length in (1 << 31, 0xFFFFFFFF, 100):
            with Client(s.socket) as bad:
                try:
                    bad.go(b"abc", length=length)
                except (Refused, OSError, struct.error):
                    pass
                else:
                    is_true(False, f"a name of {length} bytes was taken")
            next_client_is_served(c, s, tries=3)
        with Client(s.socket) as bad:
            bad.go()
            bad.socket.sendall(b"\0" * 28)
        next_client_is_served(c, s, tries=3)


def an_option_of_old_is_answered_too(c):
    with c.server() as s, Client(s.socket) as old:
        old.greet()
        old.option(OPT_EXPORT_NAME, b"")
        size, _ = struct.unpack(">QH", old.take(10))
        is_equal(size, SIZE, "the size")


def clients_that_say_nothing_do_not_keep_others_out(c):
    with c.server() as s:
        silent = [Client(s.socket) for _ in range(30)]
        next_client_is_served(c, s)
        for bad in silent:
            bad.socket.close()


def memory_does_not_grow_with_requests(c):
    with c.server() as s:
        for _ in range(3):
            with Client(s.socket) as greedy:
                greedy.go()
                for _ in range(30):
                    is_equal(greedy.read(0, SIZE)[0], 0, "the error")
        kib = peak_kib(s.process.pid)
        limit = NBDKIT_RSS_KIB if by_nbdkit() else RSS_KIB
        is_true(sanitized or kib <= limit,
                f"the server took {kib} KiB, not {limit} at most")


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    run_checks(Context, [
        a_client_that_queues_reads_and_hangs_up_hurts_nobody_else,
        many_clients_that_hang_up_together_hurt_nobody_else,
        an_unknown_export_is_refused_and_the_next_client_served,
        reads_outside_the_disk_are_refused,
        a_write_is_refused_and_the_connection_goes_on,
        nonsense_ends_the_connection_and_no_other,
        an_option_of_old_is_answered_too,
        clients_that_say_nothing_do_not_keep_others_out,
        memory_does_not_grow_with_requests,
    ])


if __name__ == "__main__":
    main()

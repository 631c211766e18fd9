#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Epochs of overlays: who comes with a lower one than the overlay's is refused,
and writes no more where he is connected already; also after a server died, and
in a second server that takes the file over."""

import json
import os
import random
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client, Refused  # noqa: E402
from server import (Failure, Server, by_nbdkit, environment,  # noqa: E402
                    need_programs, run)

SIZE = 8 << 20
ESHUTDOWN, EIO = 108, 5


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(1).randbytes(SIZE)
        with open(self.path("base.raw"), "wb") as f:
            f.write(self.disk)
        self.count = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def overlays(self):
        self.count += 1
        folder = self.path(f"overlays{self.count}")
        os.mkdir(folder)
        return folder

    def serve(self, folder, name="control"):
        s = Server(self.path("base.raw"), fmt="raw",
                   more=["--overlays", folder, "--control", self.path(name)])
        s.control = self.path(name)
        return s


def ask(s, **question):
    """What the control socket answers."""
    with socket.socket(socket.AF_UNIX) as k:
        k.settimeout(60)
        k.connect(s.control)
        k.sendall(json.dumps(question).encode() + b"\n")
        with k.makefile() as f:
            return json.loads(f.readline())


def fence_by_command(s, epoch):
    return run([os.environ["PLATTER"], "overlay", "fence", "--control",
                s.control, "+vm", str(epoch)], ok=None)


def fence(s, epoch, export="+vm"):
    return ask(s, command="fence", export=export, epoch=epoch)


def is_refused(s, name):
    with Client(s.socket) as n:
        try:
            n.go(name)
        except Refused as e:
            return by_nbdkit() or "epoch is over" in str(e)
        except ConnectionError:
            return by_nbdkit()
    return False


def a_lower_epoch_is_refused_and_writes_no_more(c):
    with c.serve(c.overlays()) as s, Client(s.socket) as old, \
            Client(s.socket) as new:
        old.go(b"+vm")
        is_equal(old.write(0, b"a" * 4096), 0, "the error")
        is_equal(fence(s, 2), {}, "the answer")
        for change in (lambda: old.write(0, b"b" * 4096),
                       lambda: old.zero(0, 4096), lambda: old.trim(0, 4096)):
            is_equal(change(), ESHUTDOWN, "what a change is answered")
        is_equal(old.flush(), 0, "of a flush")
        is_equal(old.read(0, 4096), (0, b"a" * 4096), "what there is")
        for name in (b"+vm", b"+vm=1", b"+vm=0"):
            is_true(is_refused(s, name), f"{name} was let in")
        new.go(b"+vm=2")
        is_equal(new.write(0, b"c" * 4096), 0, "the error")
        is_equal(old.read(0, 4096), (0, b"c" * 4096), "it is one disk")
        told = ask(s, command="list")
        is_equal([e["overlay"]["epoch"] for e in told["exports"]
                  if e["name"] == "+vm"], [2], "the epoch")
        is_equal(sorted(x["epoch"] for x in told["clients"]
                        if x["export"] == "+vm"), [0, 2], "the clients'")
        status, _, err = fence_by_command(s, 1)
        is_true(status == 1 and "epoch 1 is over" in err, f"it fell: {err}")
        is_equal(fence_by_command(s, 3)[0], 0, "the status")
        is_true(is_refused(s, b"+vm=2"), "after the command")
        is_equal(fence(s, 3), {}, "a second time")
        for wrong in (0, -1, "3", None):
            is_true("error" in fence(s, wrong), f"{wrong} was taken")
        for wrong in ("4K", "-4", " 4", "0x4", str(1 << 63)):
            for verb in ("overlay", "migrate"):
                status = run([os.environ["PLATTER"], verb, "fence", "--control",
                              s.control, "+vm", wrong], ok=None)[0]
                is_true(status, f"platter {verb} fence took \"{wrong}\"")
        is_true("error" in fence(s, 4, ""), "an export without an overlay")


def the_first_write_of_a_higher_one_fences(c):
    """So that who is moved to takes the disk when he begins, and not before."""
    with c.serve(c.overlays()) as s, Client(s.socket) as old, \
            Client(s.socket) as new:
        old.go(b"+vm")
        new.go(b"+vm=5")
        is_equal(old.write(0, b"a" * 512), 0, "the error")
        is_equal(new.read(0, 512), (0, b"a" * 512), "what is read")
        is_equal(old.write(0, b"b" * 512), 0, "after another's read")
        is_equal(new.write(512, b"c" * 512), 0, "the error")
        is_equal(old.write(0, b"d" * 512), ESHUTDOWN, "after his write")
        is_equal(new.read(0, 1024), (0, b"b" * 512 + b"c" * 512), "the disk")


def epochs_survive(c):
    """Death, snapshots, reverts: what the file's header says stays with it."""
    folder = c.overlays()
    with c.serve(folder) as s:
        with Client(s.socket) as n:
            n.go(b"+vm=7")
            is_equal(n.write(0, b"a" * 4096), 0, "the error")
        is_equal(ask(s, command="snapshot", export="+vm", name="s1"), {},
                 "a snapshot")
        is_true(is_refused(s, b"+vm=6"), "after a snapshot")
        is_equal(ask(s, command="snapshot", export="+vm", name="s2"), {},
                 "a snapshot")
        is_equal(ask(s, command="revert", export="+vm", name="s2"), {},
                 "a revert")
        is_true(is_refused(s, b"+vm=6"), "after a revert")
        answer = ask(s, command="delete", export="+vm", name="s2")
        is_true("error" not in answer, answer)
        is_true(is_refused(s, b"+vm=6"), "after a merge")
        with Client(s.socket) as n:
            n.go(b"+vm=8")
            is_equal(n.write(0, b"b" * 4096), 0, "the error")
            kill_servers(s)
        wait_for_export(s, b"+vm=8")
        is_true(is_refused(s, b"+vm=7"), "after a death")
        with Client(s.socket) as n:
            n.go(b"+vm=8")
            is_equal(n.read(0, 4096), (0, b"b" * 4096), "what was answered")
    # Others keep what they do not know.
    run(["qemu-img", "rebase", "-q", "-u", "-b", c.path("base.raw"), "-F",
         "raw", os.path.join(folder, "vm.qcow2")])
    with c.serve(folder) as s:
        is_true(is_refused(s, b"+vm=7"), "after qemu-img")


def kill_servers(s):
    """The server, not who watches over it, and starts another."""
    with open(f"/proc/{s.process.pid}/task/{s.process.pid}/children") as f:
        for child in f.read().split():
            os.kill(int(child), signal.SIGKILL)


def wait_for_export(s, name):
    until = time.monotonic() + 60
    while True:
        try:
            with Client(s.socket) as n:
                n.go(name)
                return
        except (OSError, Refused):
            is_true(time.monotonic() < until, "no server takes its place")
            time.sleep(0.05)


def writers_under_load_end_at_the_fence(c):
    """What the lower one was told is written is there; what comes after is not;
    none of it over what the higher one wrote."""
    with c.serve(c.overlays()) as s:
        lasts = [None] * 4

        def hammer(i):
            with Client(s.socket) as n:
                n.go(b"+vm")
                k = 0
                while True:
                    k += 1
                    code = n.write(i * 4096, k.to_bytes(4, "big") * 1024)
                    if code:
                        lasts[i] = (code, k - 1)
                        return

        threads = [threading.Thread(target=hammer, args=(i,))
                   for i in range(4)]
        for t in threads:
            t.start()
        with Client(s.socket) as n:
            n.go(b"+vm=1")
            while any(n.read(i * 4096, 4) == (0, self_at(c, i * 4096))
                      for i in range(4)):
                pass  # until all are at it
            is_equal(n.write(1 << 20, b"x" * 4096), 0, "the error")
            seen = n.read(0, 16384)[1]
            for t in threads:
                t.join(60)
            is_equal(n.read(0, 16384)[1], seen, "what came after the fence")
        for i, last in enumerate(lasts):
            is_true(last, "a writer hangs")
            is_equal(last[0], ESHUTDOWN, "the error")
            is_equal(int.from_bytes(seen[i * 4096:][:4], "big"), last[1],
                     "the last that was answered")


def self_at(c, off):
    return c.disk[off:off + 4]


def a_second_server_takes_the_file_over(c):
    """It is connected to before, and told when it has it."""
    folder = c.overlays()
    with c.serve(folder, "k1") as one, c.serve(folder, "k2") as two:
        with Client(one.socket) as old, Client(two.socket) as new:
            old.go(b"+vm=1")
            is_equal(old.write(0, b"a" * 4096), 0, "the error")
            try:
                with Client(two.socket) as n:
                    n.go(b"+vm")
                raise Failure("another's file was opened")
            except (Refused, ConnectionError):
                pass
            is_equal(new.go(b"+vm=2"), SIZE, "the size of the standby")
            is_equal(new.read(0, 512)[0], EIO, "it is read too early")
            is_equal(new.write(0, b"b" * 512), EIO, "it is written too early")
            is_true("error" in fence(two, 2), "it is fenced too early")
            is_equal(old.write(4096, b"c" * 4096), 0, "after all that")
            is_equal(fence(one, 2), {}, "the fence")
            is_equal(ask(one, command="close", export="+vm"),
                     {"connections": 1}, "the end")
            is_equal(fence(two, 2), {}, "the standby takes it")
            is_equal(new.read(0, 8192), (0, b"a" * 4096 + b"c" * 4096),
                     "what was handed over")
            is_equal(new.write(0, b"d" * 512), 0, "the error")
            is_true(is_refused_at_all(one, b"+vm=1"), "the first has it back")
            with Client(two.socket) as n:
                try:
                    n.go(b"+vm=1")
                    raise Failure("the second lets the first's client in")
                except (Refused, ConnectionError):
                    pass


def is_refused_at_all(s, name):
    with Client(s.socket) as n:
        try:
            n.go(name)
        except (Refused, ConnectionError):
            return True
    return False


def main():
    environment("PLATTER")
    need_programs("qemu-img")
    run_checks(Context, [
        a_lower_epoch_is_refused_and_writes_no_more,
        the_first_write_of_a_higher_one_fences,
        epochs_survive,
        writers_under_load_end_at_the_fence,
        a_second_server_takes_the_file_over,
    ])


if __name__ == "__main__":
    main()

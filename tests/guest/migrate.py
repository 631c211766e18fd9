#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A guest's disk moves, and the guest with it, while the guest writes to it: from
a format that keeps it from migrating, to another server, to another QEMU, back to
where it still has to arrive. Commands and servers are killed at every step, or, but
for PLATTER_FULL, at some that are drawn. The guest finds at each look what it
wrote, as do we on the last of its disks; increments of each disk are whole.

    migrate.py KERNEL INITRAMFS
"""

import os
import random
import re
import shutil
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from moves import (WAIT_SEC, begin, drive, host, kill_server,  # noqa: E402
                   pause_at_switchover, platter, read_all, wait_for_migration,
                   wait_until_open)
from nbd import Client  # noqa: E402
from qemu import Qemu  # noqa: E402
from server import COMMAND_SEC, Failure, run, run_json  # noqa: E402

BLOCK = 4096
BLOCKS = 8192
FULL = bool(os.environ.get("PLATTER_FULL"))
FORMATS = ["vmdk", "vhdx", "vdi", "vpc", "qcow", "parallels"]
ALLOCATION = b"base:allocation"
# Who is killed, and when, at each step of the way: where the disk comes from,
# or goes to, or the command.
UNBLOCK = [(when, who) for when in ("begun", "running", "ready")
           for who in ("command", "to")]
PUSH = [(when, who) for when in ("begun", "running", "ready")
        for who in ("command", "from", "to")]
MOVE = ["nobody", "to"]
PULL = [("prepared", "from"), ("prepared", "to"), ("pulling", "command"),
        ("pulling", "from"), ("pulling", "to")]


def mix(x):
    mask = (1 << 64) - 1
    x = (x + 0x9e3779b97f4a7c15) & mask
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & mask
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & mask
    return x ^ (x >> 31)


def block_of(block, times):
    """See verified-writes.c."""
    return (struct.pack("<QQ", block, times) +
            struct.pack("<Q", mix(block << 32 | times)) * (BLOCK // 8 - 2))


def written(disk):
    """How often the disk's blocks were written, all together."""
    total = 0
    for i in range(BLOCKS):
        got = bytes(disk[i * BLOCK:(i + 1) * BLOCK])
        times = struct.unpack_from("<Q", got, 8)[0]
        is_true(got == block_of(i, times), f"block {i} is of none of its writes")
        total += times
    return total


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.kernel, self.initramfs = sys.argv[1:3]
        with open(self.path("base.raw"), "wb") as f:
            for i in range(BLOCKS):
                f.write(block_of(i, 0))
        self.count = 0
        seed = os.environ.get("PLATTER_SEED") or random.randrange(1 << 32)
        print(f"PLATTER_SEED={seed}", flush=True)
        self.random = random.Random(int(seed))

    def path(self, name):
        return os.path.join(self.folder, name)

    def disk(self, fmt):
        """The base as that, and as raw data as long as that is, for formats round
        a disk's end up."""
        image, raw = self.path(f"disk.{fmt}"), self.path(f"disk.{fmt}.raw")
        run(["qemu-img", "convert", "-q", "-O", fmt, "-f", "raw",
             self.path("base.raw"), image])
        shutil.copy(self.path("base.raw"), raw)
        os.truncate(raw, run_json(["qemu-img", "info", "--output=json", "-f",
                                   fmt, image])["virtual-size"])
        return image, raw

    def serve(self, image, more=()):
        self.count += 1
        return host(self.path(f"host{self.count}"), image, more=more)


class Guest(Qemu):
    """A machine whose kernel has one virtio disk, and writes to it."""

    def __init__(self, c, *disk, more=()):
        c.count += 1
        self.console = c.path(f"console{c.count}")
        super().__init__(
            c.folder, *disk, "-device", "virtio-blk-pci,drive=disk0",
            "-m", "192", "-no-reboot", "-kernel", c.kernel, "-initrd",
            c.initramfs, "-append",
            f"console=ttyS0 quiet panic=-1 blocks={BLOCKS}", "-chardev",
            f"socket,id=con,path={self.console}.s,server=on,wait=off,"
            f"logfile={self.console}", "-serial", "chardev:con",
            more=more, machine="pc")

    def told(self):
        with open(self.console, errors="replace") as f:
            return f.read()

    def writes(self):
        text = self.told()
        is_true("FAILED" not in text, text[-400:])
        found = re.findall(r"^writes (\d+) longest \d+\r?\n", text, re.M)
        return int(found[-1]) if found else 0

    def wait_for_more(self, n):
        """Writes than there are now."""
        begun, until = self.writes(), time.monotonic() + 2 * WAIT_SEC
        while self.writes() < begun + n:
            gone = self.process.poll() is not None
            if gone or time.monotonic() > until:
                with open(self.err.name) as f:
                    raise Failure(f"{'QEMU is gone' if gone else 'it is silent'}"
                                  f": {f.read()[-1000:]}{self.told()[-4000:]}")
            time.sleep(0.02)

    def end(self):
        """Its last word, and how many writes there were."""
        with socket.socket(socket.AF_UNIX) as word:
            word.connect(self.console + ".s")
            word.sendall(b"end\n")
            self.process.wait(2 * WAIT_SEC)
        text = self.told()
        found = re.search(r"^verified (\d+) writes to (\d+) blocks", text, re.M)
        is_true(found, f"it verified nothing: {text[-400:]}")
        longest = re.findall(r"longest (\d+)", text)[-1]
        print(f"  {found[0]}; the longest took {longest} ms", flush=True)
        return int(found[1])


# ---- who is killed ----

def is_at(q, when):
    """Has the mirror come to that?"""
    jobs = [j["status"] for j in q.qmp.run("query-jobs")]
    return when in jobs or (when == "running" and "ready" in jobs)


def kill_at(q, step, command, servers):
    """@command, which runs, or one of @servers, at that step of the mirror; or never,
    where it is past it."""
    when, who = step
    while when != "begun" and command.poll() is None and not is_at(q, when):
        time.sleep(0.001)
    if who == "command":
        command.kill()
    else:
        kill_server(servers[who])
    command.wait(COMMAND_SEC)


def insist(*args):
    """Until it is done: a server that was killed is not there for a moment."""
    until = time.monotonic() + WAIT_SEC
    while True:
        status, _, err = platter(*args, ok=None)
        if not status or "whole" in err:
            return
        is_true(time.monotonic() < until, err)
        time.sleep(0.05)


# ---- the moves ----

def apply_changes(s, name, old):
    """@old with what the difference @name, an export, tells as changed."""
    new = bytearray(old)
    with Client(s.socket) as n, Client(s.socket) as reader:
        n.contexts(name, [ALLOCATION])
        n.go(name)
        reader.go(name)
        off = 0
        while off < len(new):
            _, told = n.status(off, len(new) - off)
            for length, state in next(iter(told.values())):
                if state != 1:
                    code, new[off:off + length] = reader.read(off, length)
                    is_equal(code, 0, "the error")
                off += length
    return new


def increments_go_on(q, s, overlay):
    """A copy of a snapshot and what changed since make the next."""
    def snapshot(name):
        run([os.environ["PLATTER"], "overlay", "snapshot", "--control",
             s.control, overlay, name])

    snapshot("monday")
    old = read_all(s, f"{overlay}@monday")
    q.wait_for_more(50)
    snapshot("tuesday")
    new = read_all(s, f"{overlay}@tuesday")
    is_true(new != old, "nothing was written")
    is_true(apply_changes(s, f"{overlay}@monday..tuesday".encode(), old) == new,
            "the increment is not what changed")


def unblock(q, s, step):
    command = ["unblock", "--qmp", q.monitor, "--to", s.uri("+vm=1")]
    kill_at(q, step, begin("--rate", "16M", *command), {"to": s})
    q.wait_for_more(20)
    insist(*command)
    q.wait_for_more(20)
    told = q.disk()
    is_equal(told["drv"], "nbd", "what the disk is")


def push(q, a, b, step):
    command = ["push", "--qmp", q.monitor, "--to", b.uri("+vm=1"), "--from",
               a.uri("+vm=1")]
    kill_at(q, step, begin("--rate", "1M", *command), {"from": a, "to": b})
    q.wait_for_more(20)
    insist(*command)
    q.wait_for_more(20)


def wake(target):
    """Of what a guest without hardware help writes to its memory while that is
    copied, QEMU loses some: it does not run meanwhile."""
    until = time.monotonic() + WAIT_SEC
    while target.qmp.run("query-status")["status"] != "paused":
        is_true(time.monotonic() < until, "it does not arrive")
        time.sleep(0.002)
    target.qmp.run("cont")


def hand_over(c, q, s, who):
    """To another QEMU on the same export; returns that."""
    address = f"unix:{c.path(f'move{c.count}')}"
    target = Guest(c, *drive(s, "+vm=2"), more=["-incoming", address])
    try:
        q.qmp.run("stop")
        q.qmp.run("migrate", uri=address)
        if who == "to":
            kill_server(s)
        wait_for_migration(q, "completed")
        wake(target)
        q.close()
        target.wait_for_more(20)
    except BaseException:
        target.close()
        raise
    return target


def pull_prepared(c, q, a, b, step):
    address = f"unix:{c.path(f'move{c.count}')}"
    platter("pull", "--prepare", "--control", b.control, "--from",
            a.uri("+vm=2@:base.."), "+vm")
    target = Guest(c, *drive(b, "+vm=1"), more=["-incoming", address])
    try:
        q.wait_for_more(20)
        if step[0] == "prepared":
            kill_server({"from": a, "to": b}[step[1]])
        q.qmp.run("stop")
        pause_at_switchover(q, address)
        wait_until_open(a, b"")
        insist("fence", "--control", a.control, "+vm", "3")
        pull_to_the_end(q, target, a, b, step)
    except BaseException:
        target.close()
        raise
    return target


def wait_until_readable(s, name):
    until = time.monotonic() + WAIT_SEC
    while True:
        try:
            with Client(s.socket) as n:
                n.go(name)
                if not n.read(0, 512)[0]:
                    return
        except OSError:
            pass
        is_true(time.monotonic() < until, "it does not begin")
        time.sleep(0.01)


def pull_to_the_end(q, target, a, b, step):
    command = ["pull", "--control", b.control,
               *(["--base"] if step[1] == "to" else []), "+vm"]
    wait_until_open(b, b"")
    p = begin("--rate", "8M", *command)
    try:
        wait_until_readable(b, b"+vm=1")
        q.qmp.run("migrate-continue", state="pre-switchover")
        wake(target)
        q.close()
        target.wait_for_more(20)
        if step == ("pulling", "command"):
            p.kill()
        elif step[0] == "pulling":
            kill_server({"from": a, "to": b}[step[1]])
        target.wait_for_more(20)
    finally:
        p.terminate()
        p.wait(COMMAND_SEC)
    insist(*command)


def the_whole_way(c, fmt, unblock_step, push_step, move_who, pull_step):
    print(f"{fmt}: {unblock_step}, {push_step}, {move_who}, {pull_step}",
          flush=True)
    image, raw = c.disk(fmt)
    with c.serve(raw) as a, c.serve(raw) as b:
        with c.serve(raw, ["--allow", b.uri("+vm=2@:base.."),
                           "--remote-timeout", "30"]) as d:
            q = Guest(c, "-drive", f"if=none,id=disk0,file={image},format={fmt}")
            try:
                q.wait_for_more(20)
                unblock(q, a, unblock_step)
                increments_go_on(q, a, "+vm")
                push(q, a, b, push_step)
                increments_go_on(q, b, "+vm")
                q = hand_over(c, q, b, move_who)
                q = pull_prepared(c, q, b, d, pull_step)
                increments_go_on(q, d, "+vm")
                total = q.end()
            finally:
                q.close()
            is_equal(written(read_all(d, "+vm=1")), total, "writes on the disk")


def a_guest_finds_what_it_wrote(c):
    formats = FORMATS if FULL else ["vmdk", c.random.choice(FORMATS[1:])]
    steps = [UNBLOCK, PUSH, MOVE, PULL]
    rounds = max(map(len, steps)) if FULL else len(formats)
    for s in steps:
        c.random.shuffle(s)
    for i in range(rounds):
        u, p, m, l = (s[i % len(s)] for s in steps)
        the_whole_way(c, formats[i % len(formats)], u, p, m, l)


if __name__ == "__main__":
    run_checks(Context, [a_guest_finds_what_it_wrote])

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A server that is killed at any moment loses nothing that was flushed.

Each round: a server of an overlay, guests that write, flush and trim, an
administrator who makes, merges and goes back to snapshots, SIGKILL in the
middle, a server again. What was flushed must be there; the file has leaks
at most. (What was not flushed is looked at by unit's test-overlay.)

PLATTER_KILL_ROUNDS: how many [300]
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from guest_disk import Guest  # noqa: E402
from nbd import Client  # noqa: E402
from server import (Failure, bare_server, environment,  # noqa: E402
                    need_programs, run)

SIZE = 6 << 20
SECTOR = 512
GUESTS = 3
FRESH_ROUNDS = 10  # then the file is made anew


class Writer(Guest):
    """A guest that knows of its part of the disk what may be where."""

    def __init__(self, socket, disk, seed, part):
        super().__init__(socket, disk, seed)
        self.part = part
        self.since = []  # (offset, bytes) since the last flush

    def range(self, longest=200000):
        first, end = self.part
        off, length = super().range(longest)
        off = first + off % (end - first)
        return off, min(length, end - off)

    def run(self):
        try:
            while True:
                off, length = self.range(60000)
                self.since.append((off, length))
                data = self.random.randbytes(length)
                what = self.random.randrange(8)
                if what == 0:
                    code, data = self.client.zero(off, length), bytes(length)
                elif what == 1:
                    code = self.client.flush()
                    if not code:
                        self.since = []
                        continue
                else:
                    code = self.client.write(off, data)
                if code:
                    raise Failure(f"error {code} at {off}")
                self.model[off:off + length] = data
        except OSError:
            pass  # the server is gone


class Administrator:
    """Makes snapshots and merges them away, as fast as the server can."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "control")
        self.done = 0

    def ask(self, **what):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path)
            s.sendall(json.dumps({"export": "", **what}).encode() + b"\n")
            with s.makefile() as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "progress" not in answer:
                        return answer
        raise OSError("no answer")

    def run(self):
        try:
            while True:
                for what, name in (("snapshot", "a"), ("snapshot", "b"),
                                   ("delete", "a"), ("delete", "b")):
                    self.ask(command=what, name=name)
                    self.done += 1
        except (OSError, ValueError):
            pass  # the server is gone


def start(folder, top, base):
    path = os.path.join(folder, "s")
    if os.path.exists(path):
        os.unlink(path)
    p = subprocess.Popen(
        bare_server(f"unix:{path}", f"image={base}", f"overlay={top}",
                    "control=" + os.path.join(folder, "control")),
        stdin=subprocess.DEVNULL)
    for _ in range(2000):
        try:
            with Client(path, 10) as client:
                client.greet()
                return p, path
        except OSError:
            if p.poll() is not None:
                break
            time.sleep(0.005)
    raise Failure("the server does not start")


def stop(p, how):
    p.send_signal(how)
    p.wait(20)


def check(top, clean):
    run(["qemu-img", "check", top], ok=(0,) if clean else (0, 3))


def read_disk(path):
    with Client(path, 30) as c:
        c.go()
        code, got = c.read(0, SIZE)
        if code:
            raise Failure(f"reading failed with {code}")
        return got


def verify(got, writers):
    """Sectors that nobody touched since his last flush are as he left them."""
    for w in writers:
        first, end = w.part
        loose = set()
        for off, length in w.since:
            loose.update(range(off // SECTOR, (off + length - 1) // SECTOR + 1))
        for s in range(first // SECTOR, end // SECTOR):
            a, b = s * SECTOR, (s + 1) * SECTOR
            if s not in loose and got[a:b] != w.flushed[a:b]:
                raise Failure(f"sector {s} was flushed and is lost")


def one_round(folder, top, base, disk, rnd):
    """Returns what the disk holds afterwards."""
    p, path = start(folder, top, base)
    part = SIZE // GUESTS // SECTOR * SECTOR
    writers = [Writer(path, disk, rnd.random(), (i * part, (i + 1) * part))
               for i in range(GUESTS)]
    admin = Administrator(folder)
    threads = [threading.Thread(target=w.run) for w in writers]
    if rnd.randrange(2):
        threads.append(threading.Thread(target=admin.run))
    for t in threads:
        t.start()
    time.sleep(rnd.random() * 0.06)
    stop(p, signal.SIGKILL)
    for t in threads:
        t.join()
    for w in writers:
        w.close()
        # Untouched since the last flush: the model is what was flushed.
        w.flushed = w.model
    check(top, clean=False)
    p, path = start(folder, top, base)
    try:
        got = read_disk(path)
        verify(got, writers)
    finally:
        stop(p, signal.SIGTERM)
    check(top, clean=True)  # what had leaked was given back
    return got, admin.done


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    rounds = int(os.environ.get("PLATTER_KILL_ROUNDS", "60"))
    seed = int(os.environ.get("PLATTER_KILL_SEED", "1"))
    rnd = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder:
        base = os.path.join(folder, "base.raw")
        top = os.path.join(folder, "top.qcow2")
        original = rnd.randbytes(SIZE)
        all_changes = 0
        with open(base, "wb") as f:
            f.write(original)
        for n in range(rounds):
            if n % FRESH_ROUNDS == 0:
                for name in os.listdir(folder):
                    if name.startswith("top"):
                        os.unlink(os.path.join(folder, name))
                disk = original
            try:
                disk, changes = one_round(folder, top, base, disk, rnd)
                all_changes += changes
            except Failure as e:
                print(f"round {n} of seed {seed}: {e}")
                sys.exit(1)
    print(f"{rounds} rounds, {all_changes} snapshots made and merged: "
          "nothing was lost")
    if not all_changes:
        sys.exit(1)


if __name__ == "__main__":
    main()

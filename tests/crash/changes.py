#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A death in the middle of a snapshot, a deletion, a revert, a commit or a
rebase: the disk and each snapshot are what they were before it or after it, and
the next who opens the overlay leaves no file that nothing leads to.

PLATTER_CHANGE_KILLS: how many deaths of each kind [40]; PLATTER_KILL_SEED
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
from nbd import Client  # noqa: E402
from server import (Failure, bare_server, environment,  # noqa: E402
                    need_programs, run)

SIZE = 3 << 20
PAGE = 4096
FRESH_ROUNDS = 8


class Overlay:
    """An overlay's server, and what its disk and snapshots must hold."""

    def __init__(self, folder, disk, rnd):
        self.folder, self.rnd = folder, rnd
        self.top = os.path.join(folder, "vms", "vm.qcow2")
        self.model = bytearray(disk)
        self.asked = None  # (off, data)
        self.snapshots = {}  # name: what the disk was
        self.order = []
        self.doing = None  # a command that was not answered
        self.serial = 0
        self.left = 0  # changes, until one is cut short
        self.killer = None

    def start(self):
        path = os.path.join(self.folder, "s")
        if os.path.exists(path):
            os.unlink(path)
        self.p = subprocess.Popen(
            bare_server(f"unix:{path}",
                        "image=" + os.path.join(self.folder, "base.raw"),
                        f"overlay={self.top}",
                        "control=" + os.path.join(self.folder, "c")),
            stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                with Client(path, 60) as client:
                    client.greet()
                self.path = path
                return
            except OSError:
                if self.p.poll() is not None or time.monotonic() > end:
                    raise Failure("the server does not start") from None
                time.sleep(0.005)

    def stop(self, how):
        self.p.send_signal(how)
        self.p.wait(60)

    def ask(self, **what):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.join(self.folder, "c"))
            s.sendall(json.dumps({"export": "", **what}).encode() + b"\n")
            with s.makefile() as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "progress" in answer:
                        continue
                    if "error" in answer:
                        raise Failure(f"{what}: {answer['error']}")
                    return answer
        raise OSError("no answer")

    def write_some(self):
        with Client(self.path, 60) as c:
            c.go()
            for _ in range(self.rnd.randrange(1, 6)):
                off = self.rnd.randrange(SIZE // PAGE) * PAGE
                n = min(self.rnd.randrange(1, 40) * PAGE, SIZE - off)
                data = self.rnd.randbytes(n)
                self.asked = (off, data)
                if c.write(off, data):
                    raise Failure("a write failed")
                self.model[off:off + n] = data
                self.asked = None
            if self.rnd.randrange(2) and c.flush():
                raise Failure("a flush failed")

    def begins(self, *what):
        """The server dies in the middle of one, or a little later."""
        self.doing = what
        self.left -= 1
        if not self.left:
            self.killer = threading.Timer(
                self.rnd.random() ** 2 * 0.03, self.stop, (signal.SIGKILL,))
            self.killer.start()

    def change(self):
        what = self.rnd.choice(("snapshot", "snapshot", "delete", "revert"))
        if what != "snapshot" and not self.order:
            what = "snapshot"
        if what == "snapshot" and len(self.order) > 5:
            what = "delete"
        if what == "snapshot":
            self.serial += 1
            name = f"n{self.serial}"
            self.begins(what, name)
            self.ask(command=what, name=name)
            self.snapshots[name] = bytes(self.model)
            self.order.append(name)
        elif what == "delete":
            name = self.rnd.choice(self.order)
            self.begins(what, name)
            self.ask(command=what, name=name)
            self.order.remove(name)
            del self.snapshots[name]
        else:
            name = self.rnd.choice(self.order)
            self.begins(what, name)
            self.revert(name)
            self.reverted(name)
        self.doing = None

    def revert(self, name):
        """When the server has noticed that we hung up."""
        for _ in range(1000):
            try:
                return self.ask(command="revert", name=name, discard=True)
            except Failure as e:
                if " is open" not in str(e):
                    raise
                time.sleep(0.005)
        raise Failure("a connection does not end")

    def reverted(self, name):
        self.model = bytearray(self.snapshots[name])
        later = self.order[self.order.index(name) + 1:]
        for n in later:
            del self.snapshots[n]
        self.order = self.order[:len(self.order) - len(later)]

    def run_until_it_dies(self):
        try:
            while True:
                self.write_some()
                self.change()
        except OSError:
            pass

    def read(self, export):
        with Client(self.path, 60) as c:
            c.go(export)
            code, got = c.read(0, SIZE)
            if code:
                raise Failure(f"reading {export} fails with {code}")
            return got

    def has(self, got, model):
        if got == model:
            return True
        if not self.asked:
            return False
        off, data = self.asked
        maybe = bytearray(model)
        for s in range(off, off + len(data), 512):
            if got[s:s + 512] == data[s - off:s - off + 512]:
                maybe[s:s + 512] = got[s:s + 512]
        return got == maybe

    def compare(self):
        listed = self.ask(command="list")["exports"][0]["overlay"]["snapshots"]
        disk = self.read(b"")
        what, name = self.doing or (None, None)
        if what == "snapshot" and name in listed:
            self.snapshots[name] = bytes(self.model)
            self.order.append(name)
        elif what == "delete" and name not in listed:
            self.order.remove(name)
            del self.snapshots[name]
        elif what == "revert" and (not self.has(disk, self.model) or
                                   len(listed) < len(self.order)):
            self.reverted(name)
        self.doing = None
        if listed != self.order[::-1]:
            raise Failure(f"snapshots are {listed}, not {self.order[::-1]}, "
                          f"after {what} {name}")
        if not self.has(disk, self.model):
            raise Failure(f"the disk is not what it was, after {what} {name}")
        self.model = bytearray(disk)
        self.asked = None
        for n in self.order:
            if self.read(b"@" + n.encode()) != self.snapshots[n]:
                raise Failure(f"snapshot {n} is not what it was, after {what}")

    def no_file_is_left(self):
        want = {"vm.qcow2"} | {f"vm@{n}.qcow2" for n in self.order}
        has = set(os.listdir(os.path.dirname(self.top)))
        if has != want:
            raise Failure(f"files are {sorted(has)}, not {sorted(want)}")
        run(["qemu-img", "check", self.top])


def kill_changes(folder, disk, rounds, rnd):
    kinds = {}
    for n in range(rounds):
        if n % FRESH_ROUNDS == 0:
            os.makedirs(os.path.join(folder, "vms"), exist_ok=True)
            for name in os.listdir(os.path.join(folder, "vms")):
                os.unlink(os.path.join(folder, "vms", name))
            o = Overlay(folder, disk, rnd)
        o.start()
        o.left = rnd.randrange(1, 6)
        o.run_until_it_dies()
        o.killer.join()
        what = o.doing and o.doing[0]
        kinds[what] = kinds.get(what, 0) + 1
        o.start()
        try:
            o.compare()
        finally:
            o.stop(signal.SIGTERM)
        o.no_file_is_left()
    return kinds


def overlay_command(top, *args):
    return [os.environ["PLATTER"], "overlay", *args, "-q", top]


def kill_offline(folder, disk, rounds, rnd):
    """commit and rebase of a file; what is killed is done again."""
    killed = 0
    for n in range(rounds):
        base, other, top = (os.path.join(folder, x)
                            for x in ("b.qcow2", "o.qcow2", "t.qcow2"))
        raw = os.path.join(folder, "t.raw")
        for path in (base, other):
            with open(raw, "wb") as f:
                f.write(rnd.randbytes(SIZE))
            run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
        run([os.environ["PLATTER"], "create", "--base", "b.qcow2",
             "--base-format", "qcow2", top])
        writes = []
        for _ in range(20):
            off = rnd.randrange(SIZE // PAGE) * PAGE
            writes += ["-c", f"write -q -P {rnd.randrange(1, 256)} {off} {PAGE}"]
        run(["qemu-io", *writes, top])
        run(["qemu-img", "convert", "-O", "raw", top, raw])
        args = ("commit",) if n % 2 else (
            "rebase", "--base", "o.qcow2", "--base-format", "qcow2")
        p = subprocess.Popen(overlay_command(top, *args),
                             stdin=subprocess.DEVNULL)
        time.sleep(rnd.random() * 0.06)
        p.send_signal(signal.SIGKILL)
        killed += p.wait() < 0
        out = os.path.join(folder, "out.raw")
        for again in (False, True):
            if again:
                run(overlay_command(top, *args))
            run([os.environ["PLATTER"], "overlay", "recover", top])
            run([os.environ["PLATTER"], "convert", "--overwrite", top, out])
            with open(out, "rb") as a, open(raw, "rb") as b:
                if a.read() != b.read():
                    raise Failure(f"{args[0]} killed: the disk is another")
        # A copy that is killed leaves nothing, and the old one as it was, or
        # is there whole: it may have been at its very end.
        run(["qemu-img", "convert", "-O", "raw", base, raw + ".new"])
        p = subprocess.Popen([os.environ["PLATTER"], "convert", "--quiet",
                              "--overwrite", base, out],
                             stdin=subprocess.DEVNULL)
        time.sleep(rnd.random() * 0.04)
        p.send_signal(signal.SIGKILL)
        if p.wait() < 0:
            with open(out, "rb") as a, open(raw, "rb") as b, \
                    open(raw + ".new", "rb") as new:
                if a.read() not in (b.read(), new.read()):
                    raise Failure("convert killed: the old copy is another")
        left = set(os.listdir(folder)) - {"b.qcow2", "o.qcow2", "t.qcow2",
                                          "t.raw", "t.raw.new", "out.raw"}
        if left:
            raise Failure(f"left over: {left}")
        for path in (top, base, other):
            run(["qemu-img", "check", path])
        for path in (top, base, other):
            os.unlink(path)
    return killed


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img", "qemu-io")
    rounds = int(os.environ.get("PLATTER_CHANGE_KILLS", "40"))
    seed = int(os.environ.get("PLATTER_KILL_SEED", str(int(time.time()))))
    print(f"seed {seed}", flush=True)
    rnd = random.Random(seed)
    disk = rnd.randbytes(SIZE)
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder:
        with open(os.path.join(folder, "base.raw"), "wb") as f:
            f.write(disk)
        offline = os.path.join(folder, "offline")
        os.mkdir(offline)
        try:
            kinds = kill_changes(folder, disk, rounds, rnd)
            killed = kill_offline(offline, disk, rounds // 2, rnd)
        except Failure as e:
            print(f"seed {seed}: {e}")
            sys.exit(1)
    print(f"killed in {kinds}; {killed} commits and rebases: nothing is lost, "
          "nothing is left over")


if __name__ == "__main__":
    main()

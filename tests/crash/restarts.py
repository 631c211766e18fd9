#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A server that dies under "platter serve" takes no answer along, flushed or not.

Guests write to an overlay, trim, zero and flush it; the server is killed; they
come again to the next one and must find all that they were answered, and what
was on its way whole or not at all, sector by sector. Overlays are a temporary
one, a file, and one of a folder. A guest with an overlay of his connection
alone must be refused when he has written, and let in when he has not.

PLATTER_RESTARTS: how many deaths [45]; PLATTER_KILL_SEED [by the clock]
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from nbd import Client, Refused  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402

SIZE = 8 << 20
SECTOR = 512
GUESTS = 3
DEATHS = 5  # of one "platter serve": then it begins to wait before a start
PATIENCE = 60
KINDS = ("temp", "file", "folder")


class Service:
    """platter serve, and which process serves for it."""

    def __init__(self, folder, base, *options):
        self.path = os.path.join(folder, "s")
        self.log = open(os.path.join(folder, "log"), "w+")
        self.p = subprocess.Popen(
            [os.environ["PLATTER"], "serve", "-U", self.path, base, *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env=dict(os.environ, TMPDIR=folder))

    def pid(self):
        name = f"/proc/{self.p.pid}/task/{self.p.pid}/children"
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.p.poll() is not None:
                break
            with open(name) as f:
                pids = [int(n) for n in f.read().split()]
            for pid in pids:
                with open(f"/proc/{pid}/cmdline") as f:
                    if "image=" in f.read():
                        return pid
            time.sleep(0.005)
        raise Failure(f"no server: {self.said()}")

    def kill(self):
        os.kill(self.pid(), signal.SIGKILL)

    def said(self):
        self.log.flush()
        with open(self.log.name) as f:
            return f.read()

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        self.p.wait(PATIENCE)
        self.log.close()


def connect(path, export):
    """The next server's, however long it takes to come."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            c = Client(path, PATIENCE)
            try:
                c.go(export)
                return c
            except BaseException:
                c.socket.close()
                raise
        except OSError as e:
            if time.monotonic() > end:
                raise Failure(f"no server comes: {e}") from None
            time.sleep(0.005)


class Guest:
    def __init__(self, path, export, part, disk, seed):
        self.path, self.export = path, export
        self.first, self.end = part
        self.model = bytearray(disk[self.first:self.end])
        self.asked = None  # (offset in the part, bytes), not answered
        self.random = random.Random(seed)
        self.client = None
        self.going = threading.Event()
        self.answers = 0

    def range(self):
        align = self.random.choice((512, 4096, 4096, 65536))
        length = self.end - self.first
        off = self.random.randrange(length) // align * align
        n = (self.random.randrange(self.random.choice((8192, 150000))) //
             align + 1) * align
        return off, min(n, length - off)

    def step(self):
        off, n = self.range()
        what = self.random.randrange(10)
        data = self.random.randbytes(n) if what < 7 else bytes(n)
        at = self.first + off
        if what == 9:
            code = self.client.flush()
        else:
            self.asked = (off, data)
            if what < 7:
                code = self.client.write(at, data, 1 if what == 6 else 0)
            elif what == 7:
                code = self.client.zero(at, n)
            else:
                code = self.client.trim(at, n)
                if not code:
                    # What is less than a unit stays as it was.
                    code, data = self.client.read(at, n)
        if code:
            raise Failure(f"error {code}, {n} bytes at {at}")
        if what != 9:
            self.model[off:off + n] = data
            self.asked = None
        self.answers += 1

    def compare(self):
        code, got = self.client.read(self.first, len(self.model))
        if code:
            raise Failure(f"reading fails with {code}")
        off, data = self.asked or (0, b"")
        for s in range(0, len(got), SECTOR):
            was = self.model[s:s + SECTOR]
            is_ = got[s:s + SECTOR]
            if is_ != was and not (
                    off <= s < off + len(data) and
                    is_ == data[s - off:s - off + SECTOR]):
                raise Failure(f"sector at {self.first + s} is not what was "
                              "answered")
        self.model = bytearray(got)
        self.asked = None

    def run(self, deaths):
        """Until the server has died, and what the next one has is right."""
        try:
            self.client = connect(self.path, self.export)
            self.compare()
            self.going.set()
            while True:
                self.step()
        except Failure as e:
            deaths.append(e)
        except OSError:
            pass
        finally:
            self.going.set()
            if self.client:
                self.client.socket.close()


def one_service(folder, base, disk, kind, deaths, rnd):
    top = os.path.join(folder, "top.qcow2")
    options = {"temp": ["--overlay", "temp"],
               "file": ["--overlay", top],
               "folder": ["--overlays", folder]}[kind]
    export = b"+top" if kind == "folder" else b""
    part = SIZE // GUESTS // SECTOR * SECTOR
    service = Service(folder, base, *options)
    guests = [Guest(service.path, export, (i * part, (i + 1) * part), disk,
                    rnd.random()) for i in range(GUESTS)]
    wrong = []
    try:
        connect(service.path, b"").socket.close()
        for _ in range(deaths):
            threads = [threading.Thread(target=g.run, args=(wrong,))
                       for g in guests]
            for g in guests:
                g.going.clear()
            for t in threads:
                t.start()
            for g in guests:
                g.going.wait()
            time.sleep(0.02 + rnd.random() * 0.15)
            service.kill()
            for t in threads:
                t.join()
            if wrong:
                raise wrong[0]
        for g in guests:
            g.client = connect(service.path, export)
            g.compare()
            g.client.socket.close()
    except Refused as e:
        raise Failure(f"{e}: {service.said()}") from None
    finally:
        service.stop()
    left = [n for n in os.listdir(folder) if n not in ("log", "top.qcow2")]
    if left:
        raise Failure(f"left over: {left}")
    if kind != "temp":
        run(["qemu-img", "check", top])
    return sum(g.answers for g in guests)


def lone_guest(path, writes, ready, died):
    """In a process of its own; 0: as it must be."""
    try:
        c = connect(path, b"")
        if writes and c.write(4096, b"x" * 4096):
            return 2
        code, got = c.read(4096, 4096)
        if code or (got == b"x" * 4096) != writes:
            return 3
        os.write(ready, b".")
        os.read(died, 1)
        try:
            c = connect(path, b"")
        except Refused:
            # And so it stays.
            try:
                connect(path, b"")
            except Refused:
                return 0 if writes else 4
            return 5
        return 6 if writes else 0
    except (OSError, Failure) as e:
        print(e)
        return 7


def one_lone(folder, base, rnd):
    service = Service(folder, base, "--overlay", "temp", "--overlay-scope",
                      "connection")
    ready, died = os.pipe(), os.pipe()
    pids = []
    try:
        connect(service.path, b"").socket.close()
        for writes in (True, False, True):
            pid = os.fork()
            if not pid:
                os._exit(lone_guest(service.path, writes, ready[1], died[0]))
            pids.append(pid)
        for _ in pids:
            os.read(ready[0], 1)
        service.kill()
        os.write(died[1], b"...")
        for pid in pids:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                raise Failure(f"a guest alone ended with {status}: "
                              f"{service.said()}")
        # Others are let in.
        if lone_guest(service.path, True, ready[1], os.open("/dev/null", 0)) \
                not in (6,):
            raise Failure("who comes for the first time is refused")
    finally:
        service.stop()
        for fd in (*ready, *died):
            os.close(fd)


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    rounds = int(os.environ.get("PLATTER_RESTARTS", "45"))
    seed = int(os.environ.get("PLATTER_KILL_SEED", str(int(time.time()))))
    print(f"seed {seed}")
    rnd = random.Random(seed)
    disk = rnd.randbytes(SIZE)
    answers = died = lone = 0
    while died < rounds:
        kind = KINDS[died // DEATHS % len(KINDS)]
        with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder:
            base = os.path.join(folder, "base.raw")
            with open(base, "wb") as f:
                f.write(disk)
            inner = os.path.join(folder, "work")
            os.mkdir(inner)
            try:
                answers += one_service(inner, base, disk, kind, DEATHS, rnd)
                if died // DEATHS % 4 == 0:
                    one_lone(inner, base, rnd)
                    lone += 1
            except Failure as e:
                print(f"{kind}, after {died} deaths, seed {seed}: {e}")
                sys.exit(1)
        died += DEATHS
    print(f"{died} deaths, {answers} answers: none is lost; {lone} times guests "
          "alone were told")


if __name__ == "__main__":
    main()

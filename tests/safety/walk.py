#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A client that takes any step of the protocol, legal or not, at random: each has
the answer that the protocol gives it, in whatever pieces the bytes come, or ends
the connection; and the disk is what was written. argv[1]: the seed, else one of
its own, which is told."""

import os
import random
import socket
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true  # noqa: E402
from nbd import Client  # noqa: E402
from server import (Failure, Server, by_nbdkit, environment,  # noqa: E402
                    skip)

SIZE = (2 << 20) + 512
SECONDS = 6
OPT = {"export": 1, "abort": 2, "list": 3, "tls": 5, "info": 6, "go": 7,
       "structured": 8, "list-context": 9, "set-context": 10}
ACK, SERVER, INFO, CONTEXT = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN, TOO_BIG = (0x80000000 | n for n in (1, 3, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
# Flags that each may have, as far as it is told of them: FUA, NO_HOLE, DF, ONE,
# FAST_ZERO.
ALLOWED = {READ: 4, WRITE: 1, FLUSH: 0, TRIM: 1, CACHE: 0, ZERO: 19, STATUS: 8}
EINVAL, ENOSPC, ENOTSUP = 22, 28, 95
CONTEXTS = [b"base:allocation", b"qemu:allocation-depth"]


class Ended(Exception):
    """The server hung up."""


class Walker:
    def __init__(self, rnd, path, disk):
        self.rnd, self.disk = rnd, disk
        self.client = Client(path, 60)
        self.structured = False
        self.ids = []  # of contexts
        self.handle = 0

    # ---- bytes ----

    def send(self, data):
        """In pieces, some of the time."""
        try:
            while data:
                n = len(data)
                if self.rnd.random() < 0.3:
                    n = min(n, self.rnd.choice((1, 3, 17, 28, 1000, 70000)))
                self.client.socket.sendall(data[:n])
                data = data[n:]
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None

    def take(self, n):
        try:
            return self.client.take(n)
        except ConnectionError:
            raise Ended from None

    def must_end(self):
        """Whatever is still answered, then the end."""
        try:
            while self.client.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        raise Ended

    # ---- the handshake ----

    def option(self, number, data=b""):
        self.send(struct.pack(">QII", 0x49484156454F5054, number, len(data)) +
                  data)

    def answers(self, number):
        """[(type, data)], the last of which is the end of it."""
        got = []
        while True:
            magic, of, kind, n = struct.unpack(">QIII", self.take(20))
            is_equal((magic, of), (0x3e889045565a9, number), "an answer's head")
            is_true(n <= 1 << 21, f"an answer of {n} bytes")
            got.append((kind, self.take(n)))
            if kind not in (SERVER, INFO, CONTEXT):
                return got

    def asks(self, number, data, last, before=()):
        self.option(number, data)
        got = self.answers(number)
        is_equal(got[-1][0], last, f"option {number}: the answer")
        for kind, _ in got[:-1]:
            is_true(kind in before, f"option {number}: {kind} among answers")
        return got[:-1]

    def name(self):
        """A name, and whether it is one."""
        name = self.rnd.choice(20 * (b"",) + (b"no", b"+no", b"@no",
                                              b"x" * 4096, b"\xff\x00"))
        return name, name == b""

    def info(self, number):
        name, good = self.name()
        wanted = [self.rnd.randrange(6) for _ in range(self.rnd.randrange(5))]
        data = struct.pack(">I", len(name)) + name
        data += struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)
        spoiled = self.spoil(data)
        last = (INVALID if spoiled != data or b"\0" in name else
                ACK if good else UNKNOWN)
        for _, told in self.asks(number, spoiled, last, (INFO,)):
            if told[:2] == b"\0\0":
                is_equal(struct.unpack(">Q", told[2:10])[0], SIZE, "the size")
        if last != INVALID and not good:
            self.ids = []  # of what was open before
        return last == ACK

    def spoil(self, data):
        """What cannot be right, now and then."""
        if self.rnd.random() < 0.9:
            return data
        return self.rnd.choice((data[:-1], data + b"\0", b"\xff" * 4 + data[4:],
                                b""))

    def contexts(self, number):
        name, good = self.name()
        queries = [self.rnd.choice(3 * CONTEXTS +
                                   [b"base:", b"qemu:", b"", b"x:y",
                                    b"qemu:dirty-bitmap:none"])
                   for _ in range(self.rnd.choice((0, 1, 2, 3, 30, 65)))]
        data = struct.pack(">I", len(name)) + name
        data += struct.pack(">I", len(queries))
        for q in queries:
            data += struct.pack(">I", len(q)) + q
        spoiled = self.spoil(data)
        setting = number == OPT["set-context"]
        if setting:
            self.ids = []
        if not self.structured or b"\0" in name:
            last = INVALID
        elif spoiled != data:
            last = None  # which of the words for it, is not said
        elif len(queries) > 64:
            last = TOO_BIG
        else:
            last = ACK if good else UNKNOWN
        self.option(number, spoiled)
        got = self.answers(number)
        is_true(got[-1][0] == last or
                (last is None and got[-1][0] in (INVALID, TOO_BIG)),
                f"option {number}: {got[-1]}, not {last}")
        if last == UNKNOWN:
            self.ids = []
        if last != ACK:
            return
        found = {d[4:]: struct.unpack(">I", d[:4])[0] for _, d in got[:-1]}
        if setting:
            is_equal(set(found), set(queries) & set(CONTEXTS), "what was set")
            self.ids = sorted(found.values())
            is_equal(len(set(self.ids)), len(self.ids), "different ids")

    def shake(self):
        """Until transmission, or the end."""
        is_equal(self.take(18)[:16], b"NBDMAGICIHAVEOPT", "the greeting")
        flags = self.rnd.choice((3, 3, 3, 3, 3, 1, 0, 2, 1 << 16))
        self.send(struct.pack(">I", flags))
        if flags > 3:
            self.must_end()
        while True:
            step = self.rnd.choice(("list", "info", "structured", "structured",
                                    "contexts", "contexts", "contexts",
                                    "contexts", "go", "export", "tls",
                                    "unknown", "nonsense"))
            if not flags & 1 and step not in ("export", "nonsense"):
                self.option(OPT["list"])
                self.must_end()
            if self.step(step, flags):
                return

    def step(self, step, flags):
        """True: transmission begins."""
        if step == "list":
            spoiled = self.spoil(b"")
            self.asks(OPT["list"], spoiled, INVALID if spoiled else ACK,
                      (SERVER,))
        elif step == "info":
            self.info(OPT["info"])
        elif step == "go":
            return self.info(OPT["go"])
        elif step == "structured":
            spoiled = self.spoil(b"")
            self.asks(OPT["structured"], spoiled, INVALID if spoiled else ACK)
            self.structured |= not spoiled
        elif step == "contexts":
            self.contexts(self.rnd.choice((OPT["list-context"],
                                           OPT["set-context"])))
        elif step == "export":
            if self.rnd.random() < 0.7:
                return False if flags & 1 else self.step("export", flags)
            name, good = self.name()
            self.option(OPT["export"], name)
            if not good:
                self.must_end()
            told = self.take(10 if flags & 2 else 134)
            is_equal(struct.unpack(">Q", told[:8])[0], SIZE, "the size")
            return True
        elif step == "tls":
            self.asks(OPT["tls"], b"", UNSUP)
        elif step == "unknown":
            self.asks(self.rnd.randrange(11, 1 << 32), self.rnd.randbytes(
                self.rnd.randrange(100)), UNSUP)
        elif self.rnd.random() < 0.1:
            self.nonsense()
        return False

    def nonsense(self):
        if self.rnd.random() < 0.3:
            self.option(OPT["abort"])
        elif self.rnd.random() < 0.5:
            self.send(b"\0" + self.rnd.randbytes(15))
        else:
            self.send(struct.pack(">QII", 0x49484156454F5054, 3, 1 << 31))
        self.must_end()

    # ---- transmission ----

    def expected(self, command, flags, off, length):
        if command not in ALLOWED or flags & ~ALLOWED[command]:
            return EINVAL
        if command == FLUSH:
            return EINVAL if off or length else 0
        if off + length > SIZE:
            return ENOSPC if command in (WRITE, ZERO) else EINVAL
        if not length or (command == STATUS and not self.ids):
            return EINVAL
        return 0

    def request(self, slot, slots):
        """One at random, within its own part of the disk, or wrong."""
        first, end = SIZE * slot // slots, SIZE * (slot + 1) // slots
        command = self.rnd.choice((READ, READ, READ, WRITE, WRITE, FLUSH, TRIM,
                                   CACHE, ZERO, STATUS, STATUS, 8, 999))
        off = self.rnd.randrange(first, end)
        length = self.rnd.randrange(0, end - off + 1)
        flags = self.rnd.choice((0, 0, 0, 1, 2, 3, 4, 8, 16, 18, 1 << 15))
        if self.rnd.random() < 0.6:
            flags &= ALLOWED.get(command, 0)
        if command == FLUSH and self.rnd.random() < 0.8:
            off = length = 0
        elif self.rnd.random() < 0.1:
            off, length = self.rnd.choice((
                (SIZE, 1), (SIZE - 1, 2), ((1 << 64) - 1, 512),
                ((1 << 64) - 512, 512), (0, SIZE + 1), (SIZE, 0),
                (1 << 63, 70000)))
        return command, flags, off, length

    def transmit(self):
        for _ in range(self.rnd.randrange(1, 12)):
            self.batch(self.rnd.choice((1, 1, 2, 5, 40)))
        self.last()

    def batch(self, n):
        asked, data = {}, b""
        for slot in range(n):
            command, flags, off, length = self.request(slot, n)
            self.handle += 1
            content = (self.rnd.randbytes(length) if command == WRITE else b"")
            asked[self.handle] = command, flags, off, length, content
            data += struct.pack(">IHHQQI", 0x25609513, flags, command,
                                self.handle, off, length) + content
        self.send(data)
        todo = dict(asked)
        while todo:
            handle, code, told = self.reply(todo)
            self.compare(todo.pop(handle), code, told)
        for command, flags, off, length, content in asked.values():
            if not self.expected(command, flags, off, length):
                self.change(command, off, length, content)

    def compare(self, asked, code, told):
        command, flags, off, length, _ = asked
        want = self.expected(command, flags, off, length)
        if command == ZERO and flags & 16 and not want and code == ENOTSUP:
            raise Failure("zeroes of an overlay are fast")
        is_equal(code, want, f"the error of {asked[:4]}")
        if code:
            return
        if command == READ:
            is_true(told == self.disk[off:off + length], f"{asked[:4]}: data")
        if command == STATUS:
            is_equal(sorted(told), self.ids, "contexts")
            for extents in told.values():
                is_true(extents and all(n for n, _ in extents) and
                        sum(n for n, _ in extents) <= length,
                        f"{asked[:4]}: {extents}")
                is_true(len(extents) == 1 or not flags & 8, "more than one")

    def change(self, command, off, length, content):
        if command == WRITE:
            self.disk[off:off + length] = content
        elif command == ZERO:
            self.disk[off:off + length] = bytes(length)
        elif command == TRIM:
            self.handle += 1
            self.send(struct.pack(">IHHQQI", 0x25609513, 0, READ, self.handle,
                                  off, length))
            _, code, now = self.reply({self.handle: (READ, 0, off, length)})
            is_equal(code, 0, "the error")
            for a, b in zip(self.disk[off:off + length], now):
                is_true(b in (a, 0), "trimmed, and something else")
            self.disk[off:off + length] = now

    def reply(self, asked):
        """(handle, error, data or {context: extents})."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == 0x67446698:
            code, handle = struct.unpack(">IQ", self.take(12))
            is_true(handle in asked, f"an answer to {handle}")
            is_true(not self.structured or (not code and asked[handle][0] not in
                                            (READ, STATUS)), "a simple reply")
            data = None
            if asked[handle][0] == READ and not code:
                data = self.take(asked[handle][3])
            return handle, code, data
        is_equal(magic, 0x668E33EF, "an answer's magic")
        return self.chunks(asked)

    def chunks(self, asked):
        is_true(self.structured, "a chunk, where nobody asked for them")
        first, code, told = None, 0, {}
        data, covered = bytearray(), 0
        while True:
            done, kind, handle, n = struct.unpack(">HHQI", self.take(16))
            is_true(handle in asked and first in (None, handle),
                    f"a chunk for {handle}")
            first = handle
            command, flags, off, length = asked[handle][:4]
            if not data and command == READ:
                data = bytearray(b"?" * length)
            payload = self.take(n)
            if kind == 0x8001:
                code = struct.unpack(">I", payload[:4])[0]
            elif kind == 5:
                told[struct.unpack(">I", payload[:4])[0]] = list(
                    struct.iter_unpack(">II", payload[4:]))
            else:
                at = struct.unpack(">Q", payload[:8])[0] - off
                part = (payload[8:] if kind == 1 else
                        bytes(struct.unpack(">I", payload[8:])[0]))
                is_true(kind == 1 or not flags & 4, "holes in spite of DF")
                is_true(0 <= at and at + len(part) <= length, "a chunk's range")
                data[at:at + len(part)] = part
                covered += len(part)
            if done & 1:
                break
            is_true(magic_of(self.take(4)), "a chunk's magic")
        is_true(code or command != READ or covered == length, "a gap")
        return handle, code, data if command == READ else told

    def last(self):
        """How it ends."""
        how = self.rnd.randrange(6)
        if how == 0:
            self.send(struct.pack(">IHHQQI", 0x25609513, 0, DISC, 0, 0, 0))
        elif how == 1:
            self.send(struct.pack(">IHHQQI", 0x25609514, 0, READ, 0, 0, 512))
        elif how == 2:
            self.send(struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 0, 0,
                                  (32 << 20) + 1))
        elif how == 3:  # in the middle of a request
            self.send(self.rnd.randbytes(0) + struct.pack(
                ">IHHQQI", 0x25609513, 0, WRITE, 0, 0, 4096)[:self.rnd.randrange(
                    1, 28)])
            self.client.socket.shutdown(socket.SHUT_WR)
        elif how == 4:  # of a write's data, none of which may be there then
            self.send(struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 0, 0, 4096) +
                      b"x" * self.rnd.randrange(4096))
            self.client.socket.shutdown(socket.SHUT_WR)
        else:
            self.client.socket.shutdown(socket.SHUT_WR)
        self.must_end()


def magic_of(data):
    return data == struct.pack(">I", 0x668E33EF)


def main():
    environment("PLATTER")
    if by_nbdkit():
        skip("the front end of our own is walked")
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    rnd = random.Random(seed)
    walks = shaken = chosen = 0
    with tempfile.TemporaryDirectory(prefix="platter-walk-") as folder:
        path = os.path.join(folder, "disk")
        disk = bytearray(rnd.randbytes(SIZE))
        disk[1 << 20:(1 << 20) + 300000] = bytes(300000)
        with open(path, "wb") as f:
            f.write(disk)
        with Server(path, fmt="raw", more=["--overlay", "temp"]) as s:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until or not shaken:
                w = Walker(rnd, s.socket, disk)
                try:
                    w.shake()
                    shaken += 1
                    chosen += bool(w.ids)
                    w.transmit()
                except Ended:
                    pass
                w.client.socket.close()
                walks += 1
            w = Walker(rnd, s.socket, disk)
            w.client.go()
            is_true(w.client.read(0, SIZE)[1] == disk, "the disk at the end")
            w.client.socket.close()
    print(f"{walks} connections, {shaken} with transmission, {chosen} of these "
          "with contexts")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hostile files before platter info, map, check and serve.

Whatever is in a file: each ends in time and within its memory, tells what is
wrong in a few clean lines, tells nothing of what lies outside the folder,
changes nothing in it, and the server serves the next client.

Prints each refusal as it goes: file, field, limit, and the line it gave.
"""

import hashlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from nbd import Client  # noqa: E402
from qcow2_build import COPIED, Qcow2, feature_names  # noqa: E402
from server import Failure, Server, environment, front_end  # noqa: E402

SECONDS = 5
RSS_KIB = 256 << 10
LINES = 5
SECRET = b"the-secret-outside-of-the-folder"
SIZE = 4 << 16
EIO = 5

sanitized = os.environ.get("PLATTER_SANITIZE", "none") != "none"
if sanitized:
    SECONDS *= 6


class Row:
    def __init__(self, name, field, limit, says="", fmt=None, serve=False,
                 bad=(), good=(), allow=()):
        """says: must be in the refusal. serve: it is served all the same,
        with @bad ranges EIO and @good ones (off, bytes)."""
        self.name, self.field, self.limit = name, field, limit
        self.says, self.fmt, self.serve = says, fmt, serve
        self.bad, self.good, self.allow = bad, good, allow


class Observed:
    """A command run to its end, and what it took."""

    def __init__(self, argv, timeout=SECONDS):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=err)
            late = threading.Event()

            def end():
                late.set()
                os.kill(p.pid, signal.SIGKILL)

            timer = threading.Timer(timeout, end)
            timer.start()
            # The usage of @p and of all that it has waited for.
            _, status, usage = os.wait4(p.pid, 0)
            timer.cancel()
            p.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            self.out, self.err = out.read(), err.read()
        self.what = " ".join(os.path.basename(a) for a in argv[:2])
        self.status, self.kib = p.returncode, usage.ru_maxrss
        if late.is_set():
            raise Failure(f"{self.what}: not at its end after {timeout} s")
        self.must_be_tame()

    def must_be_tame(self):
        if self.status < 0:
            raise Failure(f"{self.what}: died with signal {-self.status}: "
                          f"{self.err.decode(errors='replace')}")
        if not sanitized and self.kib > RSS_KIB:
            raise Failure(f"{self.what}: took {self.kib} KiB")
        if SECRET in self.out + self.err:
            raise Failure(f"{self.what}: tells the secret")
        for text in (self.out, self.err):
            clean = text.decode("utf-8")  # a UnicodeDecodeError fails us
            if any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160
                   for c in clean):
                raise Failure(f"{self.what}: control characters in {text!r}")

    def must_refuse(self, says, status=(1,)):
        lines = self.err.decode().strip().splitlines()
        if self.status not in status:
            raise Failure(f"{self.what}: status {self.status}, expected "
                          f"{status}: {self.err.decode()}")
        if not 1 <= len(lines) <= LINES:
            raise Failure(f"{self.what}: {len(lines)} lines: {lines}")
        if says not in self.err.decode():
            raise Failure(f"{self.what}: \"{says}\" is not in {lines}")
        return lines


class Folder:
    """in/ is where the images lie; secret is beside it."""

    def __init__(self, path):
        self.path = path
        self.rows = []
        self.digests = {}
        os.mkdir(self.at("in"))
        os.mkdir(self.at("out"))
        self.write("../secret", SECRET * 4096)
        self.write("../out/secret", SECRET * 4096)

    def at(self, name):
        return os.path.join(self.path, name)

    def file(self, name):
        return os.path.normpath(self.at(os.path.join("in", name)))

    def write(self, name, data):
        with open(self.file(name), "wb") as f:
            f.write(data)

    def qcow2(self, name, size=SIZE, data=b"", **kwargs):
        q = Qcow2(self.file(name), size, **kwargs)
        if data:
            q.data(0, data)
        q.finish()

    def patch(self, name, *patches):
        with open(self.file(name), "r+b") as f:
            for at, data in patches:
                f.seek(at)
                f.write(data)

    def add(self, name, field, limit, says="", **kwargs):
        self.rows.append(Row(name, field, limit, says, **kwargs))

    def digest(self, path, st):
        """Read once, if its time is none in which it may change unseen."""
        key = (path, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
        if key in self.digests:
            return self.digests[key]
        settled = time.time_ns() - st.st_ctime_ns > 100_000_000
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read(1 << 24)).digest()
        if settled:
            self.digests[key] = digest
        return digest

    def state(self):
        """Everything in the folder, with what a change would change."""
        found = {}
        for where, folders, names in os.walk(self.path):
            for name in folders + names:
                path = os.path.join(where, name)
                st = os.lstat(path)
                digest = None
                if os.path.isfile(path) and not os.path.islink(path) and \
                        st.st_blocks < 1 << 16:
                    digest = self.digest(path, st)
                found[path] = (st.st_mode, st.st_size, st.st_mtime_ns,
                               st.st_ino, digest)
        return found


def names_outside(f):
    os.symlink("../secret", f.file("link"))
    os.symlink(f.file("../secret"), f.file("abslink"))
    os.symlink("../out", f.file("dirlink"))
    os.symlink("/dev/zero", f.file("devlink"))
    os.mkfifo(f.file("fifo"))
    os.mkdir(f.file("sub"))
    outside = "outside the image's folder"
    for name, backing, says in (
            ("absolute", f.file("../secret"), outside),
            ("dotdot", "../secret", outside),
            ("dotdot-deep", "sub/../../secret", outside),
            ("by-link", "link", outside),
            ("by-absolute-link", "abslink", outside),
            ("by-folder-link", "dirlink/secret", outside),
            ("passwd", "/etc/passwd", outside),
            ("not-there", "/no/such/file", outside),
            ("proc", "/proc/self/environ", outside),
            ("device", "/dev/zero", outside),
            ("device-by-link", "devlink", outside),
            ("fifo-backed", "fifo", "not a regular file"),
            ("folder-backed", "sub", "not a regular file"),
            ("gone", "gone.raw", "missing"),
            ("json", 'json:{"driver":"raw","file":{"driver":"file",'
             '"filename":"/etc/passwd"}}', "--allow json:"),
            ("file", "file:/etc/passwd", "--allow file:"),
            ("nbd", "nbd:127.0.0.1:1", "not supported"),
            ("nbd-unix", "nbd+unix:///?socket=/s",
             "is not permitted"),
            ("http", "http://127.0.0.1:1/x", "is not permitted"),
            ("fat", "fat:rw:/tmp", "not supported"),
            ("terminal", "no\x1b[2J\nplatter: all is well", "\\x1b[2J\\x0a"),
    ):
        f.qcow2(name, backing=backing, backing_format="raw")
        f.add(name, "backing file name", "beneath the folder", says)
        # Not for the top alone: one layer further down.
        f.qcow2(f"over-{name}", backing=name, backing_format="qcow2")
        f.add(f"over-{name}", "backing name, 2nd layer",
              "beneath the folder", says)
    f.qcow2("json-allowed", backing='json:{"driver":"raw","file":{"driver":'
            '"file","filename":"../secret"}}')
    f.add("json-allowed", "json: with allow=json:", "beneath the folder",
          outside, allow=("json:",))
    for name, target, says in (("data-file", b"../secret", outside),
                               ("data-device", b"/dev/zero", outside),
                               ("data-fifo", b"fifo", "not a regular")):
        ext = struct.pack(">II", 0x44415441, len(target)) + target + \
            bytes(-len(target) % 8)
        f.qcow2(name)
        with open(f.file(name), "rb") as g:
            end = struct.unpack(">I", g.read(104)[100:])[0]
        f.patch(name, (72, struct.pack(">Q", 4)), (end, ext + bytes(8)))
        f.add(name, "external data file", "beneath the folder", says)


def loops(f):
    f.qcow2("self", backing="self", backing_format="qcow2")
    f.qcow2("ring-a", backing="ring-b", backing_format="qcow2")
    f.qcow2("ring-b", backing="ring-a", backing_format="qcow2")
    f.qcow2("hard", backing="hard-link", backing_format="qcow2")
    os.link(f.file("hard"), f.file("hard-link"))
    for name in ("self", "ring-a", "hard"):
        f.add(name, "backing file", "no loop", "its own backing file")
    for i in range(257):
        below = f"deep{i + 1}" if i < 256 else None
        f.qcow2(f"deep{i}", size=1 << 16, cluster_bits=9, backing=below,
                backing_format=below and "qcow2")
    f.add("deep0", "layers", "256", "256")
    f.add("deep1", "256 layers", "256", serve=True,
          good=((0, bytes(512)),))


def confusion(f):
    f.qcow2("evil", backing="/etc/passwd", backing_format="raw")
    with open(f.file("evil"), "rb") as g:
        evil = g.read()
    # A machine wrote that to its raw disk.
    f.write("base.raw", evil)
    f.qcow2("declared", size=len(evil), backing="base.raw",
            backing_format="raw")
    f.add("declared", "qcow2 bytes, declared raw", "served raw", serve=True,
          good=((0, evil[:4096]), (200, evil[200:700])))
    f.add("base.raw", "qcow2 bytes, format=raw", "served raw", fmt="raw",
          serve=True, good=((0, evil[:4096]),))
    f.qcow2("undeclared", size=len(evil), backing="base.raw")
    f.add("undeclared", "guessed layer's backing", "--allow guessed",
          "--allow guessed")
    f.write("plain.raw", b"only bytes" * 1000)
    f.add("plain.raw", "raw, format=qcow2", "must match", "qcow2",
          fmt="qcow2")
    f.qcow2("wrong", backing="plain.raw", backing_format="qcow2")
    f.add("wrong", "raw layer declared qcow2", "must match", "qcow2")
    f.qcow2("strange", backing="plain.raw", backing_format="vmdk\x1b")
    f.add("strange", "declared format", "a known one", "vmdk\\x1b")


def claims(f):
    q = struct.pack
    for name, at, data, field, limit, says in (
            ("l1-huge", 36, q(">I", 0xFFFFFFFF), "l1_size", "32 MiB", "L1"),
            ("l1-past", 40, q(">Q", 1 << 40), "l1_table_offset", "file", "L1"),
            ("l1-wrap", 40, q(">Q", (1 << 64) - 65536), "l1_table_offset",
             "file", "L1"),
            ("l1-odd", 40, q(">Q", 65536 + 512), "l1_table_offset", "aligned",
             "aligned"),
            ("l1-short", 24, q(">Q", 1 << 50), "size", "L1 covers", "L1"),
            ("size-negative", 24, q(">Q", 1 << 63), "size", "2^63 - 1",
             "2^63"),
            ("ref-huge", 56, q(">I", 0xFFFFFFFF), "refcount_table_clusters",
             "8 MiB", "refcount"),
            ("ref-past", 48, q(">Q", 1 << 40), "refcount_table_offset",
             "file", "refcount"),
            ("snaps", 60, q(">I", 65537), "nb_snapshots", "65536",
             "65536"),
            ("snaps-past", 60, q(">IQ", 9, 1 << 40), "snapshots_offset",
             "file", "snapshot"),
            ("bits8", 20, q(">I", 8), "cluster_bits", "9..21", "9..21"),
            ("bits22", 20, q(">I", 22), "cluster_bits", "9..21", "9..21"),
            ("bits-wild", 20, q(">I", 0xFFFFFFFF), "cluster_bits", "9..21",
             "9..21"),
            ("version", 4, q(">I", 99), "version", "2, 3", "99"),
            ("header", 100, q(">I", 0xFFFFFFF8), "header_length",
             "a cluster", "header"),
            ("header-short", 100, q(">I", 72), "header_length", ">= 104",
             "104"),
            ("order", 96, q(">I", 7), "refcount_order", "6", "limit of 6"),
            ("crypt", 32, q(">I", 77), "crypt_method", "0..2", "77"),
            ("name-long", 8, q(">QI", 512, 1024), "backing_file_size",
             "1023", "1023"),
            ("name-past", 8, q(">QI", 65530, 100), "backing_file_offset",
             "a cluster", "first cluster"),
            ("ext-past", 104, q(">II", 0x11223344, 0xFFFFFFF0),
             "header extension", "header", "extension"),
            ("comp-type", 72, q(">Q", 8), "compression", "0, 1",
             "compression"),
    ):
        f.qcow2(f"claim-{name}", data=b"x" * 65536)
        f.patch(f"claim-{name}", (at, data))
        f.add(f"claim-{name}", field, limit, says)
    f.qcow2("claim-feature", extensions=[feature_names((0, 40, "fl\x1bip"))],
            incompatible=1 << 40)
    f.add("claim-feature", "incompatible bit 40", "0..4", "fl\\x1bip")
    for n in (0, 3, 4, 71, 103):
        f.write(f"cut{n}", open(f.file("evil"), "rb").read()[:n])
    f.add("cut0", "empty file", "raw", serve=True)
    f.add("cut3", "3 bytes", "raw", serve=True, good=((0, b"QFI"),))
    for n in (4, 71, 103):
        f.add(f"cut{n}", f"header of {n} bytes", "whole", "cut off")
    f.qcow2("huge", size=64 << 40, cluster_bits=21)
    f.add("huge", "64 TiB", "32 MiB of tables", serve=True,
          good=((0, bytes(4096)), ((64 << 40) - 512, bytes(512))))


def damage(f):
    text = bytes(range(256)) * 256
    clusters = [bytes([65 + i]) + text[1:] for i in range(4)]
    cs = 65536

    def make(name, **kwargs):
        q = Qcow2(f.file(name), SIZE, **kwargs)
        for i, data in enumerate(clusters):
            q.data(i, data)
        return q

    good = ((0, clusters[0]), (2 * cs, clusters[2]), (3 * cs, clusters[3]))
    for name, entry, field in (
            ("far", COPIED | 1 << 50, "L2 entry past the end"),
            ("odd", COPIED | (cs * 2 + 512), "L2 entry not aligned"),
            ("comp-far", 1 << 62 | 1 << 50, "compressed, past the end"),
            ("comp-rubbish", 1 << 62 | cs + 7, "compressed, no stream")):
        q = make(f"l2-{name}")
        q.entry(1, entry)
        q.refs.clear()
        q.finish()
        f.add(f"l2-{name}", field, "EIO there", serve=True, good=good,
              bad=((cs, 512), (2 * cs - 1, 2), (0, SIZE)))
    q = Qcow2(f.file("l1-entry"), 8192 * cs + SIZE)
    q.data(0, clusters[0])
    q.l1_extra[1] = COPIED | 1 << 50
    q.finish()
    f.add("l1-entry", "L1 entry past the end", "EIO there", serve=True,
          good=((0, clusters[0]),), bad=((8192 * cs, 512),))
    # The data lie last: two whole, 100 bytes of the third, nothing more.
    q = Qcow2(f.file("cut-off"), SIZE)
    for i, data in enumerate(clusters):
        q.data(i, data, host=(32 + i) * cs)
    q.finish(file_end=34 * cs + 100)
    f.add("cut-off", "data past the file's end", "EIO there", serve=True,
          good=((0, clusters[0]), (cs, clusters[1]),
                (2 * cs, clusters[2][:100] + bytes(cs - 100))),
          bad=((3 * cs, 512), (3 * cs - 1, 2), (SIZE - 1, 1)))


CASES = (names_outside, loops, confusion, claims, damage)


def options(row):
    args = ["--format", row.fmt] if row.fmt else []
    for a in row.allow:
        args += ["--allow", a]
    return args


def judge_refused(f, row):
    platter = os.environ["PLATTER"]
    path = f.file(row.name)
    for verb in (["map"], ["map", "--json"]):
        lines = Observed([platter, *verb, *options(row), path]).must_refuse(
            row.says)
    # These look at one layer, and may find nothing wrong with that.
    for verb in (["info"], ["info", "--json"], ["check"]):
        o = Observed([platter, *verb, *options(row), path])
        if o.status not in (0, 1, 2, 3):
            raise Failure(f"{verb}: status {o.status}")
        if verb == ["info"] and o.status == 0:
            raise Failure("info finds nothing wrong")
        if o.status == 1 and not 1 <= len(o.err.splitlines()) <= LINES:
            raise Failure(f"{verb}: {len(o.err.splitlines())} lines")
    sock = f.at("socket")
    o = Observed([platter, "serve", *front_end(), "-U", sock,
                  *options(row), path])
    lines = o.must_refuse(row.says)
    if os.path.lexists(sock):
        raise Failure("the socket stays behind")
    return lines[0].replace(f.path, "")


def peak_kib(pid):
    """VmHWM of a process and all below it, the greatest."""
    peak = 0
    with open(f"/proc/{pid}/status") as s:
        for line in s:
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1])
    with open(f"/proc/{pid}/task/{pid}/children") as s:
        for child in s.read().split():
            try:
                peak = max(peak, peak_kib(int(child)))
            except (FileNotFoundError, ProcessLookupError):
                pass  # ended meanwhile, as "nbdkit --version" does
    return peak


def judge_served(f, row):
    platter = os.environ["PLATTER"]
    path = f.file(row.name)
    with Server(path, fmt=row.fmt, allow=row.allow) as s:
        for off, length in row.bad:
            with Client(s.socket, SECONDS) as c:
                c.go()
                code, _ = c.read(off, length)
                if code != EIO:
                    raise Failure(f"{length} bytes at {off}: error {code}, "
                                  f"expected EIO")
        # The next client is served, and on one connection with the bad.
        for _ in range(2):
            with Client(s.socket, SECONDS) as c:
                size = c.go()
                for off, want in row.good:
                    code, got = c.read(off, len(want))
                    if code or got != want:
                        raise Failure(f"{len(want)} bytes at {off}: error "
                                      f"{code}, or other bytes")
                for off, length in row.bad[:1]:
                    if c.read(off, length)[0] != EIO:
                        raise Failure("what was EIO is not any more")
                if size and c.write(0, b"x") == 0:
                    raise Failure("a write was taken")
        kib = peak_kib(s.process.pid)
        if not sanitized and kib > RSS_KIB:
            raise Failure(f"the server took {kib} KiB")
        said = s.messages()
        if SECRET.decode() in said or not all(
                c.isprintable() or c == "\n" for c in said):
            raise Failure(f"the server says {said!r}")
    for verb in (["info"], ["map"], ["map", "--json"], ["check"]):
        Observed([platter, *verb, *options(row), path])
    return "(served; damage is EIO)" if row.bad else "(served)"


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="platter-safety-") as path:
        f = Folder(os.path.realpath(path))
        for case in CASES:
            case(f)
        print(f"{'file':22} {'field':26} {'limit':20} line", flush=True)
        for row in f.rows:
            before = f.state()
            try:
                line = (judge_served if row.serve else judge_refused)(f, row)
                if f.state() != before:
                    raise Failure("something in the folder changed")
                print(f"{row.name:22} {row.field:26} {row.limit:20} {line}",
                      flush=True)
            except (Failure, OSError, UnicodeDecodeError) as e:
                failed += 1
                print(f"not ok: {row.name} ({row.field}): "
                      f"{type(e).__name__}: {e}", flush=True)
    print(f"{len(f.rows) - failed} of {len(f.rows)} hostile files were dealt "
          "with")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

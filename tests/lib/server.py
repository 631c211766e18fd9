# SPDX-License-Identifier: BSD-3-Clause
"""Runs the platter command for the suites in Python.

PLATTER is the path of the command, PLATTER_PLUGIN that of the plugin;
NBD_COMPARE that of tests/diff/nbd-compare; PLATTER_VIA: see by_nbdkit().
Exports are served on a unix socket in a folder of the test's own, and a server
ends with its test.
"""

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

SKIP = 77
START_SEC = 60
STOP_SEC = 30
COMMAND_SEC = 300
LOCK_SEC = 20


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def _keep_memory():
    """What is freed is kept: a first touch of memory is dear on a virtual
    machine, and glibc maps what is large anew each time."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_M_TOP_PAD, 1 << 20)


_keep_memory()


class Failure(Exception):
    """What was compared differs, or a command did not do what it must."""


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(SKIP)


def environment(*names):
    """The values of these variables; skips the test where one is not set."""
    values = []
    for name in names:
        value = os.environ.get(name)
        if not value:
            skip(f"{name} is not set")
        if not os.access(value, os.R_OK):
            raise Failure(f"{name}={value}: cannot be read")
        values.append(value)
    return values


def need_programs(*names):
    for name in names:
        if not shutil.which(name):
            skip(f"{name} is not installed")


def dies_with_us(argv):
    """@argv as what ends when this test does. A preexec_fn would make a fork of
    all of Python's memory of what is a vfork else: ten times as slow."""
    return ["setpriv", "--pdeathsig", "TERM", *map(str, argv)]


def run(argv, ok=(0,), timeout=COMMAND_SEC, env=None):
    """Runs a command to its end; (status, stdout, stderr). One that finds a file
    locked is run again for a while: the kernel lets go of a killed process's
    files when it has done with its rings."""
    until = time.monotonic() + LOCK_SEC
    while True:
        p = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, errors="replace",
                           timeout=timeout, env=env)
        if ok is None or p.returncode in ok:
            return p.returncode, p.stdout, p.stderr
        if "Failed to get" not in p.stderr or time.monotonic() > until:
            raise Failure(f"{' '.join(map(str, argv))}: status "
                          f"{p.returncode}: {(p.stderr or p.stdout).strip()}")
        time.sleep(0.1)


def run_with_key(argv):
    """run() for qemu's programs that make keys, whatever comes of it: they
    time PBKDF2, and give up where the clock is too coarse."""
    for _ in range(100):
        ret = run(argv, ok=None)
        if "accurate CPU usage" not in ret[2]:
            break
        time.sleep(0.02)  # another place between two ticks
    return ret


def run_json(argv, **kwargs):
    out = run(argv, **kwargs)[1]
    try:
        return json.loads(out)
    except json.JSONDecodeError as e:
        raise Failure(f"{' '.join(map(str, argv))}: not JSON: {e}") from None


def image_options(fmt=None, snapshot=None, key=None, allow=()):
    """The options that serve, map, info and check have in common."""
    args = []
    if fmt:
        args += ["--format", fmt]
    if snapshot:
        args += ["--snapshot", snapshot]
    if key:
        args += ["--key", key]
    for a in allow:
        args += ["--allow", a]
    return args


def by_nbdkit():
    """The front end that PLATTER_VIA names: nbdkit, or platter's own [that]."""
    return os.environ.get("PLATTER_VIA") == "nbdkit"


def front_end(more=()):
    """Its options of `platter serve`; what @more has behind "--" is nbdkit's."""
    if not by_nbdkit() and "--" not in more:
        return []
    plugin = os.environ.get("PLATTER_PLUGIN")
    return ["--plugin", plugin] if plugin else ["--via", "nbdkit"]


def bare_server(place, *parameters):
    """The command line of a server that nobody supervises, in the foreground, on
    unix:PATH or ADDRESS:PORT."""
    if not by_nbdkit():
        return [os.environ["PLATTER"], "server", "--listen", place,
                *parameters]
    kind, rest = place.split(":", 1)
    where = ["-U", rest] if kind == "unix" else ["-i", kind, "-p", rest]
    return ["nbdkit", "-f", *where, os.environ["PLATTER_PLUGIN"], *parameters]


class Refused(Failure):
    """The server ended before it was ready; .message is what it said."""

    def __init__(self, message, status):
        super().__init__(f"platter serve ended with {status}: {message}")
        self.message = message
        self.status = status


def listens(path):
    """Does anybody on the unix socket @path? Its file is there a moment before.
    Not by a connection, which for some servers is the last."""
    with open("/proc/net/unix") as f:
        return any(words[3] == "00010000" and words[-1] == path
                   for words in map(str.split, f))


def peak_kib(pid):
    """The most memory that a process, or a child of its, has had."""
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


class Server:
    """`platter serve` of one image on a unix socket, as a context."""

    def __init__(self, image, fmt=None, snapshot=None, key=None, allow=(),
                 io=None, cache=None, direct=False, diff=None, wrap=(),
                 more=()):
        self.folder = tempfile.mkdtemp(prefix="platter-")
        self.socket = os.path.join(self.folder, "s")
        argv = [*wrap, os.environ["PLATTER"], "serve", "-U", self.socket]
        argv += front_end(more)
        argv += image_options(fmt, snapshot, key, allow)
        if io:
            argv += ["--io", io]
        if cache:
            argv += ["--cache", str(cache)]
        if direct:
            argv += ["--direct"]
        if diff:
            argv += ["--diff", diff]
        argv += [str(a) for a in more]
        argv += [str(image)]
        self.stdout = open(os.path.join(self.folder, "out"), "w+")
        self.stderr = open(os.path.join(self.folder, "err"), "w+",
                           errors="replace")
        try:
            self.process = subprocess.Popen(
                dies_with_us(argv), stdin=subprocess.DEVNULL,
                stdout=self.stdout, stderr=self.stderr)
        except OSError:
            shutil.rmtree(self.folder)
            raise
        try:
            self._wait_ready()
        except BaseException:
            self._end()
            raise

    def _wait_ready(self):
        deadline = time.monotonic() + START_SEC
        pause = 0.005
        while True:
            status = self.process.poll()
            if status is not None:
                raise Refused(self.messages(), status)
            if self._greeted():
                return
            if time.monotonic() > deadline:
                raise Failure("platter serve was not ready after "
                              f"{START_SEC} s: {self.messages()}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _greeted(self):
        """A greeting alone tells that the image is open and served."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(0.5)
            try:
                s.connect(self.socket)
                if s.recv(8, socket.MSG_WAITALL) != b"NBDMAGIC":
                    return False
                # Leave as the protocol asks: flags, then NBD_OPT_ABORT.
                s.recv(10, socket.MSG_WAITALL)
                s.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\2\0\0\0\0")
                return True
            except OSError:
                return False

    def wait_told(self):
        """Until it has said what it serves, for which it looks at the image by itself;
        it may be served before."""
        deadline = time.monotonic() + START_SEC
        while True:
            with open(self.stdout.name, errors="replace") as f:
                if "\nserving at" in "\n" + f.read():
                    return self
            if time.monotonic() > deadline:
                raise Failure("platter serve did not say that it serves")
            time.sleep(0.005)

    def messages(self):
        self.stderr.flush()
        with open(self.stderr.name, errors="replace") as f:
            return f.read().strip()

    def uri(self, export=""):
        return (f"nbd+unix:///{urllib.parse.quote(export, safe='')}"
                f"?socket={urllib.parse.quote(self.socket)}")

    def _end(self):
        """SIGTERM must be enough; returns the exit status."""
        late = False
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SEC)
            except subprocess.TimeoutExpired:
                late = True
                self.process.kill()
                self.process.wait()
        self.stdout.close()
        self.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if late:
            raise Failure(f"platter serve did not end {STOP_SEC} s "
                          "after SIGTERM")
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        said = self.messages()
        died = self.process.poll()
        try:
            status = self._end()
        except Failure as e:
            if kind is None:
                raise
            raise Failure(f"{value}; moreover, {e}") from value
        if kind is None and died is not None:
            raise Failure(f"platter serve died with {died}: {said}")
        if kind is None and status != 0:
            raise Failure(f"platter serve ended with {status} "
                          f"after SIGTERM: {said}")
        return False


# Of each of 16 threads, unless PLATTER_FULL wants more.
READS = 6
_EQUAL = re.compile(r"^equal: size=(\d+) reads=(\d+) refused=(\d+) "
                    r"bytes=(\d+) extents=(\d+)", re.M)


class Totals:
    """What was compared, summed up for the last line."""

    def __init__(self):
        self.exports = self.reads = self.refused = 0
        self.bytes = self.extents = self.maps = 0

    def add(self, reads, refused, nbytes, extents):
        self.exports += 1
        self.reads += reads
        self.refused += refused
        self.bytes += nbytes
        self.extents += extents

    def __str__(self):
        return (f"{self.exports} exports, {self.reads} reads "
                f"({self.refused} refused as they must), "
                f"{self.bytes / 2**20:.0f} MiB compared, "
                f"{self.extents} extents, {self.maps} maps")


def compare(uri, reference, totals, cluster=65536, eio=(), maybe=(),
            segments=None, size=None, sequential=None, seed=None, reads=None,
            map_path=None):
    """nbd-compare; returns the merged block status when map_path is given."""
    if not os.environ.get("PLATTER_FULL"):
        # Gibibytes of holes are told by block status, which is compared.
        sequential = sequential or "data"
        reads = min(reads or READS, READS)
    argv = [os.environ["NBD_COMPARE"], "--cluster", cluster]
    for off, length in eio:
        argv += ["--eio", f"{off}:{length}"]
    for off, length in maybe:
        argv += ["--maybe", f"{off}:{length}"]
    if segments:
        argv += ["--segments", segments, "--size", size]
    if sequential:
        argv += ["--sequential", sequential]
    if seed is not None:
        argv += ["--seed", seed]
    if reads is not None:
        argv += ["--reads", reads]
    if map_path:
        argv += ["--map", map_path]
    out = run(argv + [uri, reference], timeout=900)[1]
    m = _EQUAL.search(out)
    if not m:
        raise Failure(f"nbd-compare said nothing of equality: {out}")
    totals.add(*(int(n) for n in m.groups()[1:]))
    if map_path:
        with open(map_path) as f:
            return json.load(f)
    return None

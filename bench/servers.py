# SPDX-License-Identifier: BSD-3-Clause
"""Servers under measurement: started, watched and stopped by process id."""

import contextlib
import http.client
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

TICK = os.sysconf('SC_CLK_TCK')
START_SECONDS = 20
STOP_SECONDS = 10


class ServerError(Exception):
    pass


def read_stat(pid):
    """(parent, CPU seconds of the process and of the children it reaped)"""
    with open('/proc/%d/stat' % pid) as f:
        fields = f.read().rpartition(')')[2].split()
    return int(fields[1]), sum(int(x) for x in fields[11:15]) / TICK


def process_tree(root):
    """{pid: CPU seconds} of @root and all below it."""
    parents, cpu = {}, {}
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                parents[int(entry)], cpu[int(entry)] = read_stat(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                pass
    tree, grown = {root}, True
    while grown:
        more = {p for p, up in parents.items() if up in tree} - tree
        tree |= more
        grown = bool(more)
    return {p: cpu[p] for p in tree if p in cpu}


def peak_rss(pid):
    """VmHWM in bytes."""
    try:
        with open('/proc/%d/status' % pid) as f:
            for line in f:
                if line.startswith('VmHWM:'):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


class Process:
    """A server in a folder of its own, gone when the `with` block ends.

    make_argv(folder) gives the command line; ready() waits until it answers.
    """

    def __init__(self, make_argv):
        self.make_argv = make_argv
        self.argv = None
        self.folder = None
        self.proc = None
        self.started = None  # time.monotonic() just before the start

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix='platter-bench-')
        try:
            self.argv = self.make_argv(self.folder)
            self.log = os.path.join(self.folder, 'log')
            with open(self.log, 'wb') as log:
                self.started = time.monotonic()
                self.proc = subprocess.Popen(self.argv, stdout=log,
                                             stderr=log,
                                             stdin=subprocess.DEVNULL)
            self.ready()
        except OSError as e:
            self.stop()
            raise ServerError('%s: %s' % (self.argv[0], e.strerror)) from e
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    def ready(self):
        pass

    def last_words(self):
        with open(self.log, errors='replace') as f:
            lines = [x.strip() for x in f if x.strip()]
        return lines[-1] if lines else 'no message'

    def wait_for(self, connect, pause, seconds=START_SECONDS):
        """What connect() returns, as soon as the server lets it."""
        until = self.started + seconds
        while True:
            if self.proc.poll() is not None:
                raise ServerError('%s ended with status %d: %s' %
                                  (self.argv[0], self.proc.returncode,
                                   self.last_words()))
            with contextlib.suppress(FileNotFoundError,
                                     ConnectionRefusedError):
                return connect()
            if time.monotonic() > until:
                raise ServerError('%s: no answer after %d s' %
                                  (self.argv[0], seconds))
            time.sleep(pause)

    def usage(self):
        """CPU seconds and peak memory so far, of all its processes."""
        tree = process_tree(self.proc.pid)
        if not tree or self.proc.poll() is not None:
            raise ServerError('%s died: %s' %
                              (self.argv[0], self.last_words()))
        return {'cpu': sum(tree.values()), 'pids': sorted(tree),
                'rss': sum(peak_rss(p) for p in tree)}

    def stop(self):
        if self.proc is not None and self.proc.poll() is None:
            below = set(process_tree(self.proc.pid)) - {self.proc.pid}
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
            for pid in below:
                end_leftover(pid, self.argv[0])
        shutil.rmtree(self.folder)


class Server(Process):
    """An NBD server on a unix socket; make_argv(socket path).

    When the block begins, it has greeted a client (a supervisor listens
    before there is anyone to answer); with greet=False it only has a socket,
    which is enough where the client's clock runs from the start.
    """

    def __init__(self, make_argv, greet=True):
        super().__init__(lambda folder: make_argv(self.socket))
        self.greet = greet

    @property
    def socket(self):
        return os.path.join(self.folder, 'nbd')

    @property
    def uri(self):
        return 'nbd+unix:///?socket=' + self.socket

    def ready(self):
        with self.connect() as sock:
            if self.greet:
                leave(sock)

    def connect(self):
        """A connected socket, as soon as the server takes one."""
        def connect():
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self.socket)
            except OSError:
                sock.close()
                raise
            return sock
        return self.wait_for(connect, 0.0002)


class HttpServer(Process):
    """One that answers GET / on a port of 127.0.0.1; make_argv(folder)."""

    START_SECONDS = 60  # Python's imports

    def __init__(self, make_argv, port):
        super().__init__(make_argv)
        self.port = port
        self.url = 'http://127.0.0.1:%d' % port

    def ready(self):
        def connect():
            c = http.client.HTTPConnection('127.0.0.1', self.port, timeout=10)
            with contextlib.closing(c):
                c.request('GET', '/')
                c.getresponse().read()
        self.wait_for(connect, 0.02, self.START_SECONDS)


def end_leftover(pid, name):
    """A child that outlives its server is that server's fault: say it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([fd], [], [], 2)[0]:
            print('note: process %d outlived its server %s; ended' %
                  (pid, name), flush=True)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def receive(sock, n):
    data = b''
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise ServerError('the server hung up')
        data += part
    return data


NBD_MAGIC, OPTION_MAGIC = 0x4e42444d41474943, 0x49484156454f5054
OPTION_EXPORT_NAME, OPTION_ABORT = 1, 2


def handshake(sock):
    """Flags of the server's greeting, answered; options may follow."""
    sock.settimeout(START_SECONDS)
    magic, option_magic, flags = struct.unpack('>QQH', receive(sock, 18))
    if magic != NBD_MAGIC or option_magic != OPTION_MAGIC:
        raise ServerError('not a newstyle NBD server')
    sock.sendall(struct.pack('>I', 1 | flags & 2))
    return flags


def leave(sock):
    """A client that was greeted and wants nothing."""
    handshake(sock)
    sock.sendall(struct.pack('>QII', OPTION_MAGIC, OPTION_ABORT, 0))
    with contextlib.suppress(ServerError, ConnectionError):
        receive(sock, 20)  # some acknowledge it, some hang up


def first_read(sock, length=4096):
    """The shortest NBD session: the export by its name, one read."""
    no_zeroes = handshake(sock) & 2
    sock.sendall(struct.pack('>QII', OPTION_MAGIC, OPTION_EXPORT_NAME, 0))
    receive(sock, 10 if no_zeroes else 134)
    sock.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, 1, 0, length))
    magic, error, _ = struct.unpack('>IIQ', receive(sock, 16))
    if magic != 0x67446698 or error:
        raise ServerError('the first read failed: error %d' % error)
    data = receive(sock, length)
    sock.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 2, 2, 0, 0))
    return data

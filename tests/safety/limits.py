#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What one client or a thousand may take: descriptors, connections, log lines,
other clients' time. Each limit gives a clear answer and a line in the log, and
the others are served on."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import CMD_READ, Client, Refused  # noqa: E402
from qcow2_build import Qcow2  # noqa: E402
from server import (Server, by_nbdkit, environment, front_end,  # noqa: E402
                    need_programs, peak_kib, run, run_json)

SIZE = 256 << 16
sanitized = os.environ.get("PLATTER_SANITIZE", "none") != "none"
LOG_BYTES = 64 << 10
SLOW_SEC = 30  # for who is served at all, on the slowest machine


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "disk.qcow2")
        q = Qcow2(self.path, SIZE)
        for i in range(SIZE >> 16):
            q.data(i, struct.pack("<I", i) * 16384)
        q.finish()
        self.control = os.path.join(folder, "control")
        self.overlays = os.path.join(folder, "overlays")
        os.mkdir(self.overlays)

    def server(self, descriptors=None, more=()):
        wrap = ["prlimit", f"--nofile={descriptors}:{descriptors}"] \
            if descriptors else ()
        return Server(self.path, fmt="qcow2", wrap=wrap, more=more)


def serves(client):
    code, data = client.read(70 << 16, 512)
    is_equal(code, 0, "the error")
    is_equal(data, struct.pack("<I", 70) * 128, "the data")


def join(server, export=b""):
    """A client that is let in, or None."""
    client = Client(server.socket, SLOW_SEC)
    try:
        client.go(export)
        return client
    except (Refused, ConnectionError, struct.error):
        client.socket.close()
        return None


def names_no_descriptors(text):
    return any("file descriptors" in x for x in text.splitlines())


def crowd(c, descriptors, export=lambda i: b""):
    """Clients come until none is let in any more, and then more of them."""
    server = c.server(descriptors, ["--control", c.control,
                                    "--overlays", c.overlays])
    with server, contextlib.ExitStack() as held:
        first = held.enter_context(join(server))
        clients, refused = [], 0
        for i in range(descriptors):
            one = join(server, export(i))
            if one:
                clients.append(held.enter_context(one))
            else:
                refused += 1
                if refused == 40:
                    break
        is_equal(refused, 40, "how many were refused")
        is_true(len(clients) >= descriptors // 12, "few were let in: "
                f"{len(clients)} with {descriptors} descriptors")
        serves(first)
        serves(clients[-1])
        stats = run_json([os.environ["PLATTER"], "overlay", "list", "--json",
                          "--control", c.control])
        is_true(len(stats["clients"]) > len(clients), "the list is short")
        is_true(names_no_descriptors(server.messages()),
                f"the log does not tell: {server.messages()[-2000:]}")
        is_true(len(server.messages()) < LOG_BYTES, "the log is long")
        for one in clients:
            one.socket.close()
        until = time.monotonic() + SLOW_SEC
        while not (again := join(server)):
            is_true(time.monotonic() < until, "nobody is let in again")
            time.sleep(0.05)
        with again:
            serves(again)
        serves(first)


def with_256_descriptors_the_others_are_served_on(c):
    crowd(c, 256)


def with_1024_descriptors_the_others_are_served_on(c):
    crowd(c, 1024)


def overlays_take_what_there_is_and_no_more(c):
    crowd(c, 256, lambda i: b"+vm%d" % i)


def many_clients_are_let_in(c):
    with c.server() as server, contextlib.ExitStack() as held:
        clients = [held.enter_context(join(server)) for _ in range(300)]
        serves(clients[0])
        serves(clients[-1])


def the_limit_is_raised_and_children_have_the_old_one(c):
    with c.server() as server:
        with open(f"/proc/{server.process.pid}/task/"
                  f"{server.process.pid}/children") as f:
            child = int(f.read().split()[0])
        soft, hard = resource.prlimit(child, resource.RLIMIT_NOFILE)
        own_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        is_equal(hard, own_hard, "the hard limit")
        is_equal(soft, min(own_hard, 524288), "the soft limit")


def connections_are_as_many_as_were_allowed(c):
    with c.server(more=["--max-connections", "5"]) as server, \
            contextlib.ExitStack() as held:
        clients = [held.enter_context(join(server)) for _ in range(5)]
        for _ in range(200):
            is_true(join(server) is None, "a sixth was let in")
        serves(clients[4])
        is_true("(--max-connections 5)" in server.messages() or
                "(max-connections=5)" in server.messages(), "the log")
        is_true(server.messages().count("refused") <= 60, "a line for each")
        clients[0].socket.close()
        until = time.monotonic() + SLOW_SEC
        while not (one := join(server)):
            is_true(time.monotonic() < until, "nobody is let in again")
        one.socket.close()


def an_address_has_as_many_as_were_allowed(c):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    path = os.path.join(c.folder, "log")
    log = open(path, "w")
    p = subprocess.Popen(
        [os.environ["PLATTER"], "serve", *front_end(), "--address", "127.0.0.1", "--port",
         str(port), "--max-connections-per-address", "3", c.path],
        stdout=log, stderr=log)

    def connect(source):
        client = Client.__new__(Client)
        client.size, client.handle = None, 0
        until = time.monotonic() + SLOW_SEC
        while True:
            try:
                client.socket = socket.create_connection(
                    ("127.0.0.1", port), SLOW_SEC, (source, 0))
                break
            except ConnectionRefusedError:
                is_true(time.monotonic() < until, "nobody listens")
                time.sleep(0.05)
        try:
            client.go()
        except (Refused, ConnectionError):
            client.socket.close()
            return None
        return client

    try:
        held = [connect("127.0.0.1") for _ in range(3)]
        is_true(all(held), "one of three was refused")
        is_true(connect("127.0.0.1") is None, "a fourth was let in")
        other = connect("127.0.0.2")
        is_true(other, "another address was refused")
        serves(other)
        until = time.monotonic() + SLOW_SEC
        while True:
            with open(path) as f:
                if "max-connections-per-address" in f.read():
                    break
            is_true(time.monotonic() < until, "the log does not tell")
            time.sleep(0.05)
        for client in [*held, other]:
            client.socket.close()
    finally:
        p.terminate()
        p.wait()
        log.close()


def flood(client, off, length, n, code):
    """@n reads that fail, a hundred under way."""
    sent = 0
    for done in range(n):
        while sent < min(n, done + 100):
            client.request(CMD_READ, off, length)
            sent += 1
        is_equal(struct.unpack(">IIQ", client.take(16))[1], code, "the error")


def reads_that_fail_are_told_now_and_then(c):
    path = os.path.join(c.folder, "damaged.qcow2")
    q = Qcow2(path, SIZE)
    q.entry((SIZE >> 16) - 1, 1 << 63 | 1 << 40)  # behind the file's end
    q.finish()
    with Server(path, fmt="qcow2") as server:
        with join(server) as client:
            flood(client, SIZE - 65536, 4096, 20000, 5)
        said = server.messages()
        is_true(1 <= said.count("guest offset") <= 100,
                f"{said.count('guest offset')} lines of 20,000")


def who_reads_the_log_and_stops_stalls_nobody(c):
    sock = os.path.join(c.folder, "s")
    r, w = os.pipe()
    p = subprocess.Popen(
        [os.environ["PLATTER"], "serve", *front_end(), "-U", sock, c.path],
        stdout=subprocess.DEVNULL, stderr=w)
    os.close(w)
    try:
        until = time.monotonic() + SLOW_SEC
        while not os.path.exists(sock):
            is_true(time.monotonic() < until, "it did not start")
            time.sleep(0.05)
        client = Client(sock, SLOW_SEC)
        client.go()
        # nbdkit's own line, of over 100 bytes, for each of them.
        flood(client, SIZE, 512, 20000, 22)
        serves(client)
        client.socket.close()
    finally:
        p.terminate()
        p.wait(SLOW_SEC)
        os.close(r)


def one_image_that_hangs_stops_its_own_clients_alone(c):
    """An overlay on a file system that does not answer, and 20 clients of it."""
    need_programs("nbdfuse", "nbdkit", "qemu-img")
    if not os.path.exists("/dev/fuse"):
        print("skipped: there is no /dev/fuse")
        return
    disk = os.path.join(c.folder, "slow.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
         c.path, disk])
    os.truncate(disk, 1 << 20)
    sock = os.path.join(c.folder, "n")
    overlay = os.path.join(c.overlays, "slow.qcow2")
    open(overlay, "w").close()
    nbdkit = subprocess.Popen(["nbdkit", "-f", "-U", sock, "file", disk])
    fuse = None
    try:
        until = time.monotonic() + SLOW_SEC
        while not os.path.exists(sock):
            is_true(time.monotonic() < until, "nbdkit did not start")
            time.sleep(0.05)
        fuse = subprocess.Popen(["nbdfuse", overlay, "--unix", sock])
        while not os.path.getsize(overlay):
            is_true(time.monotonic() < until, "nbdfuse did not start")
            time.sleep(0.05)
        nbdkit.send_signal(signal.SIGSTOP)
        with c.server(more=["--control", c.control,
                            "--overlays", c.overlays]) as server:
            waiting = [Client(server.socket, SLOW_SEC) for _ in range(20)]
            for one in waiting:
                one.greet()
                one.option(7, struct.pack(">I", 5) + b"+slow" + b"\0\0")
            time.sleep(0.5)
            for i in range(5):
                with join(server, b"+vm%d" % i) as one:
                    serves(one)
                with join(server) as one:
                    serves(one)
            listed = json.loads(run(
                [os.environ["PLATTER"], "overlay", "list", "--json",
                 "--control", c.control])[1])
            is_true(all(x["name"] != "+slow" for x in listed["exports"]),
                    "what hangs is open")
            nbdkit.send_signal(signal.SIGCONT)
            for one in waiting:
                one.take(20)
                one.socket.close()
    finally:
        nbdkit.send_signal(signal.SIGCONT)
        if fuse:
            subprocess.run(["fusermount3", "-u", overlay], check=False)
            fuse.wait(SLOW_SEC)
        nbdkit.terminate()
        nbdkit.wait()


def a_crowd_that_reads_no_answers_costs_a_request_each(c):
    """Of four that each has asked for. The first are let have all."""
    if by_nbdkit() or sanitized:
        return  # nbdkit reads one request at a time; shadows count, too
    with c.server() as s, contextlib.ExitStack() as crowd:
        for _ in range(160):
            client = crowd.enter_context(Client(s.socket, SLOW_SEC))
            client.go()
            for i in range(4):
                client.request(CMD_READ, i << 20, 1 << 20)
        other = crowd.enter_context(Client(s.socket, SLOW_SEC))
        other.go()
        serves(other)
        kib = peak_kib(s.process.pid)
        is_true(kib < 400 << 10, f"they cost {kib} KiB of 640 MiB")


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("prlimit")
    run_checks(Context, [
        with_256_descriptors_the_others_are_served_on,
        with_1024_descriptors_the_others_are_served_on,
        overlays_take_what_there_is_and_no_more,
        many_clients_are_let_in,
        the_limit_is_raised_and_children_have_the_old_one,
        connections_are_as_many_as_were_allowed,
        an_address_has_as_many_as_were_allowed,
        reads_that_fail_are_told_now_and_then,
        who_reads_the_log_and_stops_stalls_nobody,
        one_image_that_hangs_stops_its_own_clients_alone,
        a_crowd_that_reads_no_answers_costs_a_request_each,
    ])


if __name__ == "__main__":
    main()

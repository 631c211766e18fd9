#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""GET /v2/images/ID/nbd: NBD on the port of the image service, by a real
client of it on the upgraded socket, and by some that misbehave."""

import json
import os
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import free_port  # noqa: E402
from libnbd import Handle, need_libnbd  # noqa: E402
from nbd import CMD_READ, Client, Refused as NoExport  # noqa: E402
from server import (Failure, by_nbdkit, environment,  # noqa: E402
                    need_programs, run)

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
UPGRADE = "Connection: keep-alive, Upgrade\r\nUpgrade: nbd\r\n"
DISK_BYTES = 5 << 20
TUNNELS_MAX = 256
WAIT_SEC = 10


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = bytearray(random.Random(5).randbytes(DISK_BYTES))
        self.disk[1 << 20:2 << 20] = bytes(1 << 20)
        with open(self.path("disk.raw"), "wb") as f:
            f.write(self.disk)
        run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk",
             self.path("disk.raw"), self.path("disk.vmdk")])
        with open(self.path("disk.vmdk"), "rb") as f:
            self.vmdk = f.read()

    def path(self, name):
        return os.path.join(self.folder, name)

    def image(self, g, token=None, **fields):
        a = g.request("POST", "/v2/images", {
            "disk_format": "vmdk", "container_format": "bare", **fields},
            token=token)
        is_equal(a.status, 201, "the status of a new image")
        image = a.json["id"]
        a = g.request("PUT", f"/v2/images/{image}/file", self.vmdk, OCTETS,
                      token)
        is_equal(a.status, 204, "the status of an upload")
        return image


class Asked:
    """The answer's head; what follows it stays in .socket."""

    def __init__(self, g, image, headers=UPGRADE, token=None, early=b"",
                 version="1.1"):
        if g.tcp:
            self.socket = socket.create_connection(("127.0.0.1", g.tcp))
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(g.socket)
        self.socket.settimeout(WAIT_SEC)
        if token:
            headers += f"X-Auth-Token: {token}\r\n"
        self.socket.sendall(
            f"GET /v2/images/{image}/nbd HTTP/{version}\r\nHost: localhost\r\n"
            f"{headers}\r\n".encode() + early)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                raise Failure(f"the connection ended after {head!r}")
            head += byte
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {k.lower(): v for k, v in (
            line.split(": ", 1) for line in lines[1:] if line)}

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()


def status_of(g, image, **more):
    with Asked(g, image, **more) as asked:
        return asked.status


def upgraded(g, image, **more):
    asked = Asked(g, image, **more)
    is_equal(asked.status, 101, "the status of an upgrade")
    return asked.socket


def by_hand(g, image):
    """The client of tests/lib/nbd.py on an upgraded socket."""
    client = Client.__new__(Client)
    client.socket, client.size, client.handle = upgraded(g, image), None, 0
    return client


def connections(g):
    text = g.request("GET", "/metrics").text
    return int([line for line in text.split("\n")
                if line.startswith("platter_nbd_connections ")][0].split()[1])


def wait_for(what, message):
    deadline = time.monotonic() + WAIT_SEC
    while not what():
        is_true(time.monotonic() < deadline, message)
        time.sleep(0.05)


def libnbd_reads_the_disk(c):
    with Glance() as g:
        image = c.image(g)
        with Handle(upgraded(g, image)) as h:
            is_equal(h.size, DISK_BYTES, "the size")
            is_true(h.read_only, "an image can be written")
            is_equal(h.read(0, DISK_BYTES), bytes(c.disk), "the disk")
        with Handle(upgraded(g, image), image) as h:
            is_equal(h.read(4096, 512), bytes(c.disk[4096:4608]),
                     "what the id opens")
    # TCP before and behind.
    port, nbd = free_port(), free_port()
    with Glance(f"glance=127.0.0.1:{port}", store=c.path("tcp"), tcp=port,
                nbd_port=nbd) as g:
        with Handle(upgraded(g, c.image(g))) as h:
            is_equal(h.read(0, DISK_BYTES), bytes(c.disk), "the disk by TCP")
        wait_for(lambda: connections(g) == 0, "a connection stays")


def nothing_else_is_there(c):
    overlays = c.path("overlays")
    os.mkdir(overlays)
    with Glance(f"overlays={overlays}") as g:
        image, other = c.image(g), c.image(g, name="other")
        for name in (other, "other", image + "+vm1", image + "@x", "~r",
                     image + "~", image[:-1]):
            with by_hand(g, image) as client:
                try:
                    client.go(name.encode())
                except NoExport:
                    continue
                raise Failure(f"export {name!r} was opened")
        # By NBD's own port all is as ever.
        with Client(g.nbd_socket) as client:
            is_equal(client.go(other.encode()), DISK_BYTES, "the size")
        with Client(g.nbd_socket) as client:
            try:
                client.go(b"")
            except NoExport:
                return
            raise Failure("there is a default export")


def who_does_not_upgrade_is_told_how(c):
    with Glance() as g:
        image = c.image(g)
        for headers in ("", "Upgrade: nbd\r\n", "Connection: Upgrade\r\n",
                        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
                        "Connection: Upgrade\r\nUpgrade: nbdx\r\n"):
            with Asked(g, image, headers) as asked:
                is_equal((asked.status, asked.headers.get("upgrade")),
                         (426, "nbd"), f"the answer to {headers!r}")
        is_equal(status_of(g, image, version="1.0"), 426,
                 "the status by HTTP/1.0")
        is_equal(g.request("HEAD", f"/v2/images/{image}/nbd",
                           headers={"Connection": "Upgrade",
                                    "Upgrade": "nbd"}).status, 426,
                 "the status of HEAD")
        is_equal(g.request("POST", f"/v2/images/{image}/nbd").status, 405,
                 "the status of POST")
        is_equal(status_of(g, "0" * 8), 404, "the status without an image")
        empty = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare"}).json["id"]
        is_equal(status_of(g, empty), 409, "the status without data")
        g.request("POST", f"/v2/images/{image}/actions/deactivate")
        is_equal(status_of(g, image), 403, "the status when deactivated")
        g.request("POST", f"/v2/images/{image}/actions/reactivate")
        # What is sent with the request is NBD already.
        early = struct.pack(">I", 3)
        s = upgraded(g, image, early=early)
        client = Client.__new__(Client)
        client.socket, client.size, client.handle = s, None, 0
        with client:
            client.take(18)
            client.greet = lambda: None
            is_equal(client.go(b""), DISK_BYTES, "the size")


def who_may_read_the_file_may(c):
    with open(c.path("tokens"), "w") as f:
        json.dump({t: {"project": p, "user": "u", "roles": [r]}
                   for t, p, r in (("one", "p1", "member"),
                                   ("two", "p2", "member"),
                                   ("boss", "p0", "admin"))}, f)
    with Glance(f"auth=tokens:{c.path('tokens')}") as g:
        image = c.image(g, "one", visibility="private")
        for token, status in ((None, 401), ("none", 401), ("two", 404)):
            is_equal(status_of(g, image, token=token), status,
                     f"the status for {token}")
        for token in "one", "boss":
            with Handle(upgraded(g, image, token=token)) as h:
                is_equal(h.read(0, 4096), bytes(c.disk[:4096]),
                         f"what {token} reads")


def several_read_at_once(c):
    with Glance() as g:
        image, wrong = c.image(g), []

        def read(seed):
            r = random.Random(seed)
            try:
                with Handle(upgraded(g, image)) as h:
                    for _ in range(50):
                        off = r.randrange(DISK_BYTES - 1)
                        length = min(r.randrange(1, 1 << 18),
                                     DISK_BYTES - off)
                        if h.read(off, length) != c.disk[off:off + length]:
                            wrong.append(off)
            except Exception as e:
                wrong.append(e)
        threads = [threading.Thread(target=read, args=(n,)) for n in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        is_equal(wrong, [], "what 16 readers got wrong")


def clients_may_go_or_sleep(c):
    with Glance() as g:
        image = c.image(g)
        for _ in range(20):
            client = by_hand(g, image)
            client.go(b"")
            for _ in range(100):
                client.request(CMD_READ, 0, 1 << 20)
            client.socket.close()  # 100 MiB are on their way
        # One that asks and does not take: the others do not wait for him.
        with by_hand(g, image) as slow:
            slow.go(b"")
            for n in range(32):
                slow.request(CMD_READ, 0, 1 << 20)
            with Handle(upgraded(g, image)) as h:
                is_equal(h.read(0, DISK_BYTES), bytes(c.disk), "the disk")
            wait_for(lambda: connections(g) == 1, "a connection stays")
            try:
                got = slow.take(32 * ((1 << 20) + 16))
            except ConnectionError as e:
                raise Failure(f"{e}: {g.messages()[-2000:]}") from None
            replies = {got[n * ((1 << 20) + 16) + 16:
                           (n + 1) * ((1 << 20) + 16)] for n in range(32)}
            is_equal(replies == {bytes(c.disk[:1 << 20])}, True,
                     "all that the slow one gets is what he asked for")
        # Nonsense ends it.
        s = upgraded(g, image)
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        while s.recv(65536):
            pass
        s.close()
        wait_for(lambda: connections(g) == 0, "a connection stays")


def who_has_left_http_may_be_silent(c):
    """However long the API's clients may be, and however many these are."""
    with Glance("glance-timeout=1", wrap=["prlimit", "--nofile=256:256"]) as g:
        image, held = c.image(g), []
        with by_hand(g, image) as client:
            client.go(b"")
            time.sleep(3)
            for _ in range(300):
                held.append(socket.socket(socket.AF_UNIX))
                held[-1].connect(g.socket)
                held[-1].sendall(b"GET /")
            wait_for(lambda: "the slowest first" in g.messages(),
                     "nobody has made room")
            is_equal(client.read(0, 512), (0, bytes(c.disk[:512])), "the disk")
        for s in held:
            s.close()


def there_is_a_limit(c):
    with Glance() as g:
        image = c.image(g)
        held = [upgraded(g, image) for _ in range(TUNNELS_MAX)]
        with Asked(g, image) as asked:
            is_equal((asked.status, "retry-after" in asked.headers),
                     (503, True), "the answer to one too many")
        is_equal(g.request("GET", "/healthcheck").status, 200,
                 "the status of another request")
        held.pop().close()
        for _ in range(100):
            again = Asked(g, image)
            if again.status == 101:
                break
            again.socket.close()
            time.sleep(0.05)
        is_equal(again.status, 101, "the status once one has left")
        with Handle(again.socket) as h:
            is_equal(h.size, DISK_BYTES, "the size")
        for s in held:
            s.close()


def a_server_ends_whether_they_have_gone_or_not(c):
    """nbdkit waits for its clients; ours cuts off who stays."""
    for hold in (True, False):
        g = Glance()
        try:
            client, silent = by_hand(g, c.image(g)), upgraded(g, c.image(g))
            client.go(b"")
            g.process.terminate()
            if by_nbdkit():
                time.sleep(0.5)
                is_equal(g.process.poll(), None,
                         "the status before they have gone")
            if not hold or by_nbdkit():
                client.socket.close()
                silent.close()
            g.process.wait(WAIT_SEC)
            client.socket.close()
            silent.close()
        finally:
            status = g.end()
        is_equal(status, 0, "the server's exit status")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    need_libnbd()
    run_checks(Context, [
        libnbd_reads_the_disk, nothing_else_is_there,
        who_does_not_upgrade_is_told_how, who_may_read_the_file_may,
        several_read_at_once, clients_may_go_or_sleep,
        who_has_left_http_may_be_silent, there_is_a_limit,
        a_server_ends_whether_they_have_gone_or_not])

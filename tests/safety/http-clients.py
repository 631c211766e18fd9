#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hostile clients before the image service: whatever one sends, or does not,
the next one is served, nothing is left in the store, no answer is an error of
the server's, and memory does not grow with what was asked for."""

import json
import os
import random
import re
import resource
import socket
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from server import environment  # noqa: E402

IDLE_SEC = 2
CONNECTIONS_MAX = 1000
RSS_KIB = 256 << 10
DATA_BYTES = 24 << 20
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
sanitized = os.environ.get("PLATTER_SANITIZE", "none") != "none"


class Context:
    def __init__(self, folder):
        self.data = random.Random(3).randbytes(DATA_BYTES)
        self.glance = None
        self.image = None

    def start(self, g):
        self.glance = g
        self.image = self.create(name="whole")
        a = g.request("PUT", f"/v2/images/{self.image}/file", self.data, OCTETS)
        is_equal(a.status, 204, "the status of an upload")

    def create(self, **fields):
        a = self.glance.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare", **fields})
        is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
        return a.json["id"]

    def connect(self, timeout=10):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        s.connect(self.glance.socket)
        return s

    def still_serves(self):
        a = self.glance.request("GET", f"/v2/images/{self.image}/file",
                                headers={"Range": "bytes=1000-1999"})
        is_true(a.status == 206 and a.body == self.data[1000:2000],
                "the next client is not served")
        is_equal(os.listdir(os.path.join(self.glance.store, "incoming")), [],
                 "what is left behind")


def rest_of(s):
    got = b""
    try:
        while True:
            more = s.recv(1 << 16)
            if not more:
                return got
            got += more
    except ConnectionError:
        return got


def send(c, data, end=True):
    """All that comes back for @data."""
    with c.connect() as s:
        try:
            s.sendall(data)
            if end:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has refused, and hung up
        return rest_of(s)


def status_of(answer):
    m = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(m.group(1)) if m else None


def refused(c, data, *statuses):
    """Answered with one of @statuses, or the connection ended."""
    answer = send(c, data)
    status = status_of(answer)
    is_true(status in statuses or not answer,
            f"{data[:80]!r} ... {data[-80:]!r}: {answer[:200]!r}, {statuses} was expected")
    c.still_serves()
    return status


def request(method, path, *headers, body=b""):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: h",
                        "Connection: close", *headers, "", ""]).encode() + body


# ---- slow ----

def seconds_until_closed(s, tick=None):
    began = time.monotonic()
    s.settimeout(0.3)
    while time.monotonic() - began < 30:
        try:
            if tick:
                s.sendall(tick)
            if not s.recv(4096):
                break
        except socket.timeout:
            continue
        except OSError:
            break
    return time.monotonic() - began


def slow_clients_are_sent_away(c):
    """All at once: they wait longest."""
    image = c.create(name="slow")
    put = (f"PUT /v2/images/{image}/file HTTP/1.1\r\nHost: h\r\nContent-Type: "
           "application/octet-stream\r\n")
    kinds = {
        "silence": (b"", None),
        "headers": (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        "one header": (b"GET / HTTP/1.1\r\nX: ", b"y"),
        "a body": ((put + "Content-Length: 100000\r\n\r\n").encode(), b"y"),
        "chunks": ((put + "Transfer-Encoding: chunked\r\n\r\n").encode(),
                   b"1\r\ny\r\n"),
        "a chunk's size": ((put + "Transfer-Encoding: chunked\r\n\r\n").encode(),
                           b"0"),
        "silence in a body": ((put + "Content-Length: 9\r\n\r\n").encode(),
                              None),
    }
    took = {}

    def run(kind):
        start, tick = kinds[kind]
        with c.connect() as s:
            s.sendall(start)
            took[kind] = seconds_until_closed(s, tick)

    def never_read():
        with c.connect(30) as s:
            s.sendall(request("GET", f"/v2/images/{c.image}/file"))
            time.sleep(IDLE_SEC * 4)
            took["an answer"] = len(rest_of(s)) >= DATA_BYTES

    threads = [threading.Thread(target=run, args=(k,)) for k in kinds]
    threads.append(threading.Thread(target=never_read))
    for t in threads:
        t.start()
    for _ in range(10):
        c.glance.request("GET", "/v2/images")
        time.sleep(0.1)
    for t in threads:
        t.join()
    is_equal(took.pop("an answer"), False, "whether who never reads gets all")
    late = {k: round(t, 1) for k, t in took.items() if t > IDLE_SEC * 3}
    is_equal(late, {}, "who stayed how many seconds")
    c.still_serves()
    is_equal(c.glance.request("GET", f"/v2/images/{image}").json["status"],
             "queued", "the status of what came slowly")


def too_many_connections_wait_or_are_refused(c):
    held = []
    try:
        for _ in range(CONNECTIONS_MAX + 50):
            try:
                held.append(c.connect(5))
            except OSError:
                break
        is_true(len(held) >= CONNECTIONS_MAX - 20,
                f"only {len(held)} connections are taken")
        # Those that got in last are served; others have made room.
        last = held[-10]
        last.settimeout(60)
        last.sendall(request("GET", "/healthcheck"))
        is_equal(status_of(rest_of(last)), 200, "the status of one of them")
    finally:
        for s in held:
            s.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            c.still_serves()
            return
        except OSError:
            is_true(time.monotonic() < deadline, "nobody is served any more")
            time.sleep(0.1)


def seconds_of(g, n=30):
    """What a request takes, each on a connection of its own: the median."""
    took = []
    for _ in range(n):
        began = time.monotonic()
        a = g.request("GET", "/v2/images?limit=1")
        is_equal(a.status, 200, "a status")
        took.append(time.monotonic() - began)
    return statistics.median(took)


def half_sent_requests_keep_nobody_out(c):
    halves = (b"GET /v2/images HTTP/1.1\r\nX-Slow: ",
              b"PUT /v2/images/00000000-0000-4000-8000-000000000000/file "
              b"HTTP/1.1\r\nHost: h\r\nContent-Type: "
              b"application/octet-stream\r\nContent-Length: 99\r\n\r\nx")
    for files in 1024, 256:
        held = []

        def upload():
            """Goes on while they come: whoever sends is not slow."""
            yield b"x" * 65536
            time.sleep(0.2)
            for n in range(1000):
                s = socket.socket(socket.AF_UNIX)
                s.settimeout(10)
                s.connect(g.socket)
                s.sendall(halves[n % 2])
                held.append(s)
            yield b"x" * 65536

        with Glance(wrap=["prlimit", f"--nofile={files}:{files}"]) as g:
            try:
                a = g.request("POST", "/v2/images", {
                    "disk_format": "raw", "container_format": "bare"})
                usual = seconds_of(g)
                a = g.request("PUT", f"/v2/images/{a.json['id']}/file",
                              upload(), OCTETS)
                is_equal(a.status, 204, "the status of an upload")
                took = seconds_of(g)
                print(f"{files} files: {usual * 1e3:.2f} ms usually, then "
                      f"{took * 1e3:.2f}", flush=True)
                is_true(took < 4 * usual + 0.02,
                        f"a request takes {took} s, {usual} is usual")
                deadline = time.monotonic() + 10
                while "the slowest first" not in g.messages():
                    is_true(time.monotonic() < deadline,
                            f"the log says {g.messages()!r}")
                    time.sleep(0.1)
                is_true(g.messages().count("\n") < 5, g.messages())
            finally:
                for s in held:
                    s.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pages_in_browsers_cannot_use_it(c):
    port = free_port()
    me = f"127.0.0.1:{port}"
    with Glance(f"glance={me}", "glance-hosts=images.example", tcp=port) as g:
        for headers, wanted in (
                ({"Origin": "http://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Origin": f"http://127.0.0.1:{port + 1}"}, 403),
                ({"Host": "evil.example", "Origin": "http://evil.example"},
                 403),
                ({"Host": f"evil.example:{port}"}, 403),
                ({"Host": f"localhost.evil.example:{port}"}, 403),
                ({"Origin": f"http://{me}"}, 201),
                ({"Host": f"localhost:{port}"}, 201),
                ({"Host": "images.example",
                  "Origin": "https://images.example"}, 201),
                ({"Host": f"[::1]:{port}"}, 201), ({}, 201)):
            before = len(g.request("GET", "/v2/images").json["images"])
            a = g.request("POST", "/v2/images", '{"name": "x"}',
                          {"Content-Type": "application/json", **headers})
            is_equal(a.status, wanted, f"the status with {headers}")
            now = len(g.request("GET", "/v2/images").json["images"])
            is_equal(now - before, 1 if wanted == 201 else 0, "new images")
    tokens = os.path.join(c.glance.folder, "tokens-origin")
    with open(tokens, "w") as f:
        json.dump({"t": {"project": "p", "user": "u", "roles": []}}, f)
    with Glance(f"glance={me}", f"auth=tokens:{tokens}", tcp=port) as g:
        a = g.request("GET", "/v2/images", None, {
            "Host": "images.example", "Origin": "http://page.example"}, "t")
        is_equal(a.status, 200, "the status where tokens are asked for")
    # Nobody's browser comes by a unix socket; what it sends is told by Origin.
    a = c.glance.request("GET", "/v2/images", None, {"Host": "any.example"})
    is_equal(a.status, 200, "the status by the unix socket")


def an_address_has_its_share_and_no_more(c):
    port = free_port()
    me = f"glance=127.0.0.1:{port}"
    with Glance(me, "glance-per-address=3", tcp=port) as g:
        time.sleep(0.5)  # the one that asked whether it is there is gone
        held = [socket.create_connection(("127.0.0.1", port))
                for _ in range(12)]
        closed = 0
        for s in held:
            s.settimeout(0.3)
            try:
                closed += not s.recv(1)
            except ConnectionError:
                closed += 1
            except socket.timeout:
                pass
        is_equal(closed, 9, "the connections that are closed")
        for s in held:
            s.close()
        deadline = time.monotonic() + 10
        while "glance-per-address=3" not in g.messages():
            is_true(time.monotonic() < deadline, g.messages())
            time.sleep(0.1)
    log = os.path.join(c.glance.folder, "proxied")
    with Glance("glance-per-address=3", "glance-proxies=unix",
                f"access-log={log}") as g:
        held = []
        a = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare"})
        for n in range(4):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10)
            s.connect(g.socket)
            s.sendall(f"PUT /v2/images/{a.json['id']}/file HTTP/1.1\r\n"
                      "Host: h\r\nX-Forwarded-For: 198.51.100.1\r\n"
                      "Content-Type: application/octet-stream\r\n"
                      "Content-Length: 9\r\n\r\nx".encode())
            held.append(s)
            time.sleep(0.1)

        def status(client):
            a = g.request("GET", "/v2/images", None,
                          {"X-Forwarded-For": client})
            return a.status, a.headers.get("retry-after")

        is_equal(status("198.51.100.1"), (503, "1"), "one too many")
        is_equal(status("198.51.100.1, 198.51.100.2"), (200, None), "another")
        for s in held:
            s.close()
        deadline = time.monotonic() + 10
        while status("198.51.100.1")[0] != 200:
            is_true(time.monotonic() < deadline, "its share is not given back")
            time.sleep(0.1)
        wanted = {"unix", "198.51.100.1", "198.51.100.2"}
        clients = set()
        # A line is written when its connection is done with.
        while clients != wanted and time.monotonic() < deadline + 10:
            with open(log) as f:
                clients = {line.split()[1] for line in f}
            time.sleep(0.1)
        is_equal(clients, wanted, "the clients in the access log")


# ---- large ----

def large_requests_are_refused(c):
    refused(c, request("GET", "/" + "a" * 9000), 414)
    refused(c, request("GET", "/" + "a" * 200000), 414, 431)
    refused(c, request("GET", "/v2/images?" + "a=b&" * 1000), 400, 414)
    refused(c, request("GET", "/a" * 1000), 404, 414)
    refused(c, request("GET", "/", "X-Large: " + "a" * 200000), 431, 413, 400)
    refused(c, request("GET", "/", *[f"X-{n}: {n}" for n in range(20000)]),
            431, 413, 400)
    refused(c, b"A" * 300000 + b" / HTTP/1.1\r\n\r\n", 400, 405, 414, 431, 501)
    post = "POST", "/v2/images", "Content-Type: application/json"
    for body, *statuses in (
            (b"[" * 100000, 400), (b'{"a":' * 100000, 400),
            (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
            (b'{"name": "' + b"a" * 500000 + b'"}', 400, 413),
            (b'{"min_disk": 1e999}', 400), (b'{"min_disk": 1' + b"0" * 5000 + b"}", 400),
            (b'{"name": "\xff\xfe"}', 400), (b'{"name": "a\\u0000b"}', 400),
            (b'{"name": "a", "name": "b"}', 201, 400), (b"\0" * 1000, 400),
            (b'{"tags": [' + b'"a",' * 100000 + b'"b"]}', 201, 400, 413),
            (b"{" + b",".join(b'"p%d": "x"' % n for n in range(20000)) + b"}",
             400, 413), (b" " * (2 << 20), 413, 400), (b"null", 400)):
        refused(c, request(*post, f"Content-Length: {len(body)}", body=body),
                *statuses)
    operations = json.dumps([{"op": "add", "path": "/a/" + "b/" * 5000,
                              "value": "x"}] * 50).encode()
    refused(c, request("PATCH", f"/v2/images/{c.image}",
                       f"Content-Type: {PATCH['Content-Type']}",
                       f"Content-Length: {len(operations)}",
                       body=operations), 400, 403, 413)


# ---- framing ----

def lengths_that_lie_are_refused(c):
    put = "PUT", f"/v2/images/{c.create()}/file", \
        "Content-Type: application/octet-stream"
    for headers in (["Content-Length: 5", "Content-Length: 6"],
                    ["Content-Length: 5", "Content-Length: 5"],
                    ["Content-Length: 5", "Transfer-Encoding: chunked"],
                    ["Transfer-Encoding: chunked", "Content-Length: 5"],
                    ["Transfer-Encoding: gzip, chunked"],
                    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
                    ["Transfer-Encoding: identity"],
                    ["Content-Length: -5"], ["Content-Length: +5"],
                    ["Content-Length: 5, 5"], ["Content-Length: 0x5"],
                    ["Content-Length: five"], ["Content-Length: 5 5"],
                    ["Content-Length: 99999999999999999999999"]):
        status = refused(c, request(*put, *headers, body=b"5\r\nhello\r\n0\r\n\r\n"),
                         400, 413, 501)
        is_true(status != 204, f"{headers}: taken")
    for body in (b"zz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
                 b"fffffffffffffffff\r\nhello", b"ffffffffffffffff\r\nhello",
                 b"7fffffffffffffff\r\nhello", b"5\r\nhelloworld\r\n0\r\n\r\n",
                 b"5\r\nhello",
                 b"5\rhello\r0\r\r", b"\r\n"):
        refused(c, request(*put, "Transfer-Encoding: chunked", body=body), 400,
                413, 431)
    # These libmicrohttpd answers itself, in its own words.
    for body in (b"5;" + b"x" * 200000 + b"\r\nhello\r\n0\r\n\r\n", b"0" * 200000,
                 b"5\r\nhello\r\n0\r\nX: " + b"y" * 200000):
        refused(c, request(*put, "Transfer-Encoding: chunked", body=body),
                400, 413, 431, 500)
    # More is promised than comes: nothing of it stays.
    image = put[1][:-5]
    for lie in 100, 1 << 20, 1 << 62:
        refused(c, request(*put, f"Content-Length: {lie}", body=b"hello"), 400)
        is_equal(c.glance.request("GET", image).json["status"], "queued",
                 "the status after half of the data")
    # Less: what follows is another request, or none.
    answer = send(c, request("GET", "/healthcheck", "Content-Length: 5",
                             body=b"helloGET /v2/images HTTP/1.1\r\n\r\n"))
    is_equal(answer.count(b"HTTP/1.1 "), 1, "the answers after Connection: close")
    c.still_serves()


def what_two_servers_read_differently_is_refused(c):
    """400, and the end: what follows is not taken for a request."""
    length, chunked = b"Content-Length: 5", b"Transfer-Encoding: chunked"
    rows = [(b"\r\n".join(h), b"\r\n") for h in (
        (b"Transfer-Encoding : chunked", length), (b": x", length),
        (b":", length), (b" Transfer-Encoding: chunked", length),
        (b"X: a\rTransfer-Encoding: chunked", length),
        (b"X: a\r", length), (b"X: a\nX: b", length), (b"X: a\n", length),
        (b"X: a", b" folded", length), (b"X: a", b"\tfolded", length),
        (b"Content-Length: 4\n", length), (b"X: a\0b", length),
        (b"X: a\x0b", length), (b"X(: a", length), (b"X y: a", length),
        (b"\x0bX: a", length), (length, length), (length, chunked),
        (chunked, length), (chunked, chunked), (b"Transfer-Encoding: x",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding:\x0bchunked", length),
        (b"Transfer-Encoding: chunked\t",), (b"Content-Length: 5 ",),
        (b"Content-Length: +5",), (b"Content-Length: 5,5",),
        (b"Content-Length:",), (b"Host: i", length), (b"No colon", length))]
    rows.append((length, b"\n"))
    after = b"GET /healthcheck HTTP/1.1\r\nHost: h\r\n\r\n"
    for headers, end in rows:
        for method in b"POST /v2/images", b"GET /healthcheck":
            asked = (method + b" HTTP/1.1\r\nHost: h\r\n" + headers +
                     b"\r\n" + end + b"5\r\nhello\r\n0\r\n\r\n" + after)
            # The connection ends though we do not end it. (libmicrohttpd
            # says what it refuses itself twice.)
            answer = send(c, asked, end=False)
            is_equal(set(re.findall(rb"HTTP/1\.. (\d{3}) ", answer)), {b"400"},
                     f"the answer to {asked!r}, {answer!r},")
    for asked in (b"POST /v2/images HTTP/1.0\r\n" + chunked + b"\r\n\r\n" +
                  b"5\r\nhello\r\n0\r\n\r\n",
                  b"GET /healthcheck HTTP/1.1\r\n\r\n",
                  b"GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n"):
        answer = send(c, asked + after, end=False)
        is_equal(set(re.findall(rb"HTTP/1\.. (\d{3}) ", answer)), {b"400"},
                 f"the answer to {asked!r}, {answer!r},")
    # What is as it must be goes on.
    answer = send(c, after + b"POST /v2/images HTTP/1.1\r\nHost: h\r\n"
                  b"Content-Type: application/json\r\nX:\r\nY: \t a\tb \r\n"
                  b"Content-Length:    2\r\n\r\n{}" + after +
                  b"GET /healthcheck HTTP/1.0\r\n\r\n")
    is_equal([int(n) for n in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)],
             [200, 201, 200, 200], "the statuses")
    c.still_serves()


def pipelined_requests_are_answered_in_order(c):
    paths = ["/healthcheck", "/nothing", "/v2/schemas/image",
             f"/v2/images/{c.image}"] * 25
    asked = b"".join(f"GET {p} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
                     for p in paths)
    answer = send(c, asked)
    is_equal([int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)],
             [200, 300, 200, 200] * 25, "the statuses")
    c.still_serves()


def who_leaves_early_leaves_nothing(c):
    image = c.create()
    for n in range(60):
        with c.connect() as s:
            if n % 3 == 0:
                s.sendall(request("GET", f"/v2/images/{c.image}/file"))
            else:
                s.sendall(request(
                    "PUT", f"/v2/images/{image}/file",
                    "Content-Type: application/octet-stream",
                    "Content-Length: 1000000", body=b"x" * (n * 1000)))
    deadline = time.monotonic() + 10
    while c.glance.request("GET", f"/v2/images/{image}").json["status"] != \
            "queued" or os.listdir(os.path.join(c.glance.store, "incoming")):
        is_true(time.monotonic() < deadline, "half an upload stays")
        time.sleep(0.05)
    c.still_serves()


def malformed_requests_are_refused(c):
    # As to a proxy: RFC 9112, 3.2.2.
    answer = send(c, b"GET http://other/v2/images HTTP/1.1\r\nHost: h\r\n"
                  b"Connection: close\r\n\r\n")
    is_true(answer.startswith(b"HTTP/1.1 200 "), f"{answer[:100]!r}")
    for line in (b"BREW / HTTP/1.1", b"get / HTTP/1.1", b"GET /", b"GET",
                 b"GET / HTTP/9.9", b"GET / HTTP/1.1 x", b"GET  / HTTP/1.1",
                 b"GET http:/other/v2/images HTTP/1.1", b"GET * HTTP/1.1",
                 b"GET \x01 HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"\0\0\0\0",
                 b"CONNECT a:1 HTTP/1.1", b"TRACE / HTTP/1.1", b"GET /%",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 32):
        refused(c, line + b"\r\nHost: h\r\nConnection: close\r\n\r\n", 300, 400,
                404, 405, 501, 505)
    for header in (b"No colon", b": empty", b"Bad : space", b"A: b\r\n folded",
                   b"Nul: a\0b", b"Expect: 200-maybe", b"Bare: a\nX: b",
                   b"Accept: " + b"text/html;q=" * 2000, b"Range: bytes=\xff"):
        refused(c, b"GET /healthcheck HTTP/1.1\r\nHost: h\r\nConnection: close"
                b"\r\n" + header + b"\r\n\r\n", 200, 400, 417)


# ---- meaning ----

def ranges_that_lie_are_harmless(c):
    for text in ("bytes=0-0,1-1", "bytes=" + ",".join(["0-"] * 2000),
                 "bytes=99999999999999999999-", "bytes=-99999999999999999999",
                 "bytes=-0", "bytes=5-1", "bytes=a-b", "bytes=1", "lines=0-1",
                 "bytes=18446744073709551615-", "bytes=--1", "bytes= 1-2",
                 f"bytes={DATA_BYTES}-", "bytes=1-99999999999999999999"):
        for more in "", "?format=raw":
            a = c.glance.request("GET", f"/v2/images/{c.image}/file{more}",
                                 headers={"Range": text})
            is_true(a.status == 400 if "," in text else
                    a.status in (200, 206, 416), f"{text[:40]}: {a.status}")
            if a.status == 200:
                is_true(a.body == c.data, f"{text[:40]}: other data")
            if a.status == 206:
                first, last = re.match(r"bytes (\d+)-(\d+)/",
                                       a.headers["content-range"]).groups()
                is_true(a.body == c.data[int(first):int(last) + 1],
                        f"{text[:40]}: other data")
    c.still_serves()


def no_header_is_put_into_an_answer(c):
    evil = "a\r\nX-Evil: 1\r\n\r\n<script>"
    quoted = "a%0d%0aX-Evil:%201%0d%0a%0d%0a<script>"
    # A name with control characters, as JSON may have it.
    a = c.glance.request("POST", "/v2/images", {
        "name": evil, "disk_format": "raw", "container_format": "bare",
        "colour": evil})
    image = a.json["id"] if a.status == 201 else c.image
    asked = [("GET", f"/v2/images?name={quoted}"),
             ("GET", f"/v2/images?limit=1&name={quoted}"),
             ("GET", f"/v2/images/{quoted}"), ("GET", f"/{quoted}"),
             ("PUT", f"/v2/images/{c.image}/tags/{quoted}"),
             ("GET", f"/v2/images/{image}"), ("HEAD", f"/v1/images/{image}"),
             ("HEAD", f"/image/v1.0/images/{image}"),
             ("GET", "/v1/images/detail"), ("GET", "/v2/images")]
    for method, path in asked:
        for host in ("h", 'h"><script>', "h/../x", "h@evil", ""):
            answer = send(c, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
                          "Connection: close\r\n\r\n".encode())
            head, _, body = answer.partition(b"\r\n\r\n")
            is_true(b"\nX-Evil" not in head and b"\rX-Evil" not in head,
                    f"{method} {path}: {head!r}")
            kind = re.search(rb"(?i)content-type: (\S+)", head)
            is_true(not (kind and b"html" in kind.group(1) and
                         b"<script>" in body), f"{method} {path}: {body!r}")
    c.still_serves()


def names_are_no_paths(c):
    secret = b"SQLite format 3"
    for name in ("..", "../index.sqlite", "..%2findex.sqlite", "%2e%2e",
                 "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", ".",
                 "images%00", "index.sqlite", "....//....//index.sqlite",
                 c.image + "%2f..%2f..%2findex.sqlite", c.image + "%00x"):
        for path in (f"/v2/images/{name}/file", f"/v1/images/{name}",
                     f"/v2/images/{name}", f"/image/v1.0/images/{name}",
                     f"/v2/images/{name}/inspect", f"/v2/images/{name}/nbd"):
            answer = send(c, request("GET", path))
            is_true(status_of(answer) in (300, 400, 404, 405),
                    f"{path}: {answer[:100]!r}")
            is_true(secret not in answer and b"root:" not in answer,
                    f"{path} is read")
    c.still_serves()


def absent_and_foreign_images_look_the_same(c):
    tokens = os.path.join(c.glance.folder, "tokens")
    with open(tokens, "w") as f:
        json.dump({t: {"project": t, "user": "u", "roles": ["member"]}
                   for t in ("one", "two")}, f)
    with Glance(f"auth=tokens:{tokens}") as g:
        mine = g.request("POST", "/v2/images", {"name": "x"}, token="one")
        mine, none = mine.json["id"], "00000000-0000-4000-8000-000000000000"
        for method, path, body in (
                ("GET", "", None), ("GET", "/file", None), ("DELETE", "", None),
                ("PATCH", "", "[]"), ("GET", "/members", None),
                ("GET", "/inspect", None), ("GET", "/nbd", None),
                ("PUT", "/tags/a", None), ("PUT", "/file", b"x"),
                ("POST", "/grants", None), ("GET", "/tasks", None)):
            answers = []
            for i in mine, none:
                a = g.request(method, f"/v2/images/{i}{path}", body,
                              PATCH if method == "PATCH" else OCTETS,
                              token="two")
                answers.append((a.status, a.text.replace(i, "ID"),
                                {k for k in a.headers}))
            is_equal(answers[0], answers[1], f"{method} {path} of another's")


def memory_is_bounded(c):
    with open(f"/proc/{c.glance.process.pid}/status") as f:
        peak = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
    print(f"peak: {peak >> 10} MiB")
    is_true(sanitized or peak < RSS_KIB, f"{peak} KiB were used")
    said = c.glance.messages()
    is_true(all(ch.isprintable() or ch == "\n" for ch in said),
            f"control characters in {said!r}")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    context = None

    def setup(folder):
        global context
        context = Context(folder)
        context.start(server)
        return context

    with Glance(f"glance-timeout={IDLE_SEC}") as server:
        run_checks(setup, [
            slow_clients_are_sent_away,
            too_many_connections_wait_or_are_refused,
            half_sent_requests_keep_nobody_out,
            pages_in_browsers_cannot_use_it,
            an_address_has_its_share_and_no_more,
            what_two_servers_read_differently_is_refused,
            large_requests_are_refused,
            lengths_that_lie_are_refused,
            pipelined_requests_are_answered_in_order,
            who_leaves_early_leaves_nothing,
            malformed_requests_are_refused,
            ranges_that_lie_are_harmless,
            no_header_is_put_into_an_answer,
            names_are_no_paths,
            absent_and_foreign_images_look_the_same,
            memory_is_bounded,
        ])

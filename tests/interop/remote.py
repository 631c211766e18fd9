#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images at web servers: good ones, nginx, and those that do everything wrong."""

import errno
import json
import os
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from bad_web import BadWeb  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import CMD_READ, Client  # noqa: E402
from server import (Server, dies_with_us, environment,  # noqa: E402
                    need_programs, run)

MIB = 1 << 20
SIZE = 4 * MIB + 512
SECONDS = 1  # --remote-timeout
# What may be spent beyond it: starting, and a busy machine.
SLACK = 10
CHANGED = "it has changed since it was opened"


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.raw = self.at("disk.raw")
        # No two sectors are alike, and none is zero.
        self.data = b"".join(b"%015d\n" % i for i in range(SIZE // 16))
        with open(self.raw, "wb") as f:
            f.write(self.data)

    def at(self, name):
        return os.path.join(self.folder, name)

    def web(self, host="127.0.0.1"):
        return BadWeb(self.data, host)

    def copy(self, url, *options, seconds=SECONDS):
        """(status, messages) of a copy, which is equal where it is 0."""
        out = self.at("out.raw")
        begun = time.monotonic()
        status, _, err = run([os.environ["PLATTER"], "convert", "--quiet",
                              "--overwrite", "-f", "raw", "-O", "raw",
                              "--remote-timeout", seconds, *options, url, out],
                             ok=None)
        took = time.monotonic() - begun
        is_true(took < seconds + SLACK, f"{url} took {took:.1f} s")
        if not status:
            with open(out, "rb") as f:
                is_true(f.read() == self.data, f"{url} is another disk")
        return status, err


# What is the disk all the same, and how.
GOOD = ("good", "weak", "nameless", "chunked", "sliced", "cut-once", "lazy",
        "busy", "signed")

# What is refused, and what is said of it.
BAD = (
    ("whole", "the server answers 200, all of it where a range was asked for"),
    ("changed", CHANGED),
    ("changed-silently", CHANGED),
    ("changed-date", CHANGED),
    ("forgets-tag", CHANGED),
    ("grown", CHANGED),
    ("drops", "the server answers with less than was asked for, 5 times"),
    ("cut", "the answer ends early"),
    ("no-range", "the server answers 416, it has no bytes"),
    ("down", "the server answers 503, it cannot be had now"),
    ("later", "the server answers 503, it cannot be had now"),
    ("silent", "the server is silent"),
    ("silent-at-once", "the server is silent"),
    ("trickle", "the server is silent"),
    ("packed", "an encoding that was not asked for"),
    ("elsewhere", " were asked for"),
    ("too-much", " were asked for"),
    ("more-than-said", "the server sends more than it says"),
    ("mute", "without saying which bytes these are"),
    ("many-parts", "without saying which bytes these are"),
    ("endless", "the server tells no size"),
    ("enormous", "without saying which bytes these are"),
    ("many-headers", "over 64 KiB of headers"),
    ("garbage", ""),
    ("loop", "over 5 redirects"),
    ("nowhere", "the server answers 302 to nowhere"),
    ("other-scheme", "redirected: not a URL that can be used"),
    ("gone", "the server answers 404, there is no such file"),
    ("goes", "the server answers 404, there is no such file"),
    ("forbidden", "the server answers 403, access is denied"),
    ("token", "the server answers 401, access is denied"),
    ("page", "the server answers 418"),
    ("trailing", "the server answers 500"),
)


def servers_that_can_be_read_are(c):
    with c.web() as web:
        for kind in GOOD:
            status, err = c.copy(web.url(kind), seconds=5)
            is_equal((kind, status), (kind, 0), f"the copy ({err!r})")
            is_equal(err.count("\n"), kind == "nameless", f"{kind}: {err!r}")
            is_true(all(a[3]["Accept-Encoding"] == "identity"
                        for a in web.asked), "encodings were asked for")
        is_true(web.ranges("good")[0] == "bytes=0-0", "the first range")


def servers_that_cannot_are_refused_in_time(c):
    for kind, said in BAD:
        with c.web() as web:
            status, err = c.copy(web.url(kind))
            web.go.set()
        is_equal((kind, status), (kind, 1), f"the copy ({err!r})")
        is_true(said in err, f"{kind}: {err!r} has no {said!r}")
        is_true(err.count("\n") <= 3, f"{kind}: {err!r} has many lines")
        is_true(f"127.0.0.1:{web.port}/{kind}/disk" in err,
                f"{kind}: {err!r} names no URL")


def redirects_lead_to_where_they_may(c):
    """To the same server; to one that is not public, where that is permitted."""
    with c.web() as web, c.web("127.0.0.2") as other:
        web.to = web.url("good")
        is_equal(c.copy(web.url("moved"))[0], 0, "to the same server")
        is_true(web.count("moved") < web.count("good"),
                "the redirect was not remembered")
        web.to = other.url("good")
        status, err = c.copy(web.url("moved"))
        is_true(status == 1 and "redirected to an address that is not public: "
                "--allow URL permits it" in err, f"{status}: {err}")
        is_equal(other.asked, [], "what the other was asked")
        is_equal(c.copy(web.url("moved"), "--allow", other.url("good"))[0], 0,
                 "to another that is permitted")
        is_equal(c.copy(web.url("moved"), "--allow",
                        other.url("other"))[0], 1, "beside what is permitted")


def ready_line(c, export):
    with subprocess.Popen(
            dies_with_us([os.environ["PLATTER"], "serve", "--json", "-U",
                          c.at("ready"), "--export", export]),
            stdout=subprocess.PIPE, text=True) as serve:
        line = serve.stdout.readline()
        serve.terminate()
    return line


def credentials_go_to_their_servers_alone(c):
    path = c.at("credentials")

    def have(*lines):
        with open(path, "w") as f:
            f.write("# of a test\n\n" + "".join(f"{x}\n" for x in lines))
        return ["--credentials", path]

    def sent(web, kind):
        return {a[3].get("Authorization") for a in web.asked if a[0] == kind}

    with c.web() as web, c.web("127.0.0.2") as other:
        web.token = "Bearer one"
        web.to = other.url("good")
        is_equal(c.copy(web.url("token"), *have("bearer one"))[0], 0, "one's")
        is_equal(c.copy(web.url("token"), *have(
            "bearer two", f"http://127.0.0.1:{web.port}/token/ bearer one"))[0],
                 0, "the nearest URL's")
        is_equal(c.copy(web.url("token"), *have(
            "bearer one", f"http://127.0.0.1:{web.port}/tok bearer two"))[0], 0,
                 "of a URL that it is not beneath")
        c.copy(web.url("moved"), "--allow", other.url("good"), *have(
            "bearer secret"))
        is_equal(sent(web, "moved"), {"Bearer secret"}, "what one was told")
        is_equal(sent(other, "good"), {None}, "what the other was told")
        web.token = "Basic bWU6aXQ="
        is_equal(c.copy(web.url("token"), *have("basic me:it"))[0], 0, "basic")
        login = web.url("token").replace("//", "//me:i%74@")
        is_equal(c.copy(login)[0], 0, "in the URL")
        status, err = c.copy(login.replace("i%74", "no"))
        is_true(status == 1 and "me:" not in err, err)
        status, err = c.copy(web.url("token") + "?sig=abc", *have("bearer no"))
        is_true(status == 1 and "abc" not in err and "disk?...: " in err, err)
        for words in (["list", login + "?sig=abc"],
                      ["convert", "--all", login + "?sig=abc", c.at("all")]):
            _, _, err = run([os.environ["PLATTER"], *words], ok=None)
            is_true("disk?...: is no container" in err and "me:" not in err,
                    err)
        said = ready_line(c, f"one={login}?sig=abc")
        is_true("disk?..." in said and "me:" not in said and
                "abc" not in said, said)
        status, err = c.copy(web.url("token"), *have("me:it"))
        is_true(status == 1 and "a line is not" in err, err)


def client(server, export=b""):
    n = Client(server.socket)
    n.go(export)
    return n


def read_at(n, c, off, length=4096):
    """False: an error."""
    code, data = n.read(off, length)
    is_true(code or data == c.data[off:off + length], f"other bytes at {off}")
    return not code


def a_token_that_expired_is_read_anew(c):
    path = c.at("token")
    with open(path, "w") as f:
        f.write("bearer one\n")
    with c.web() as web:
        web.token = "Bearer one"
        with Server(web.url("token"), fmt="raw",
                    more=["--credentials", path]) as s:
            h = client(s)
            is_true(read_at(h, c, 0), "a read with the first token")
            web.token = "Bearer two"
            is_true(not read_at(h, c, MIB), "it read without a right")
            with open(path, "w") as f:
                f.write("bearer two\n")
            is_true(read_at(h, c, MIB), "a read with the second token")


def a_server_that_is_silent_stops_its_own_clients_alone(c):
    """And reads of it go on when it answers again."""
    with c.web() as web:
        with Server(web.url("good"), fmt="raw", more=[
                "--export", f"dead={web.url('down')}",
                "--remote-timeout", 1]) as s:
            good, dead = client(s), client(s, b"dead")
            begun = time.monotonic()
            for i in range(16):
                dead.request(CMD_READ, MIB + i * 4096, 4096)
            is_true(read_at(good, c, 0), "the other export cannot be read")
            is_true(time.monotonic() - begun < 0.5, "it had to wait")
            codes = {struct.unpack(">IIQ", dead.take(16))[1]
                     for _ in range(16)}
            is_equal(codes, {errno.EIO}, "what the dead one gave")
            took = time.monotonic() - begun
            is_true(0.5 < took < 10, f"16 reads failed after {took:.1f} s")
            web.go.set()
            is_true(read_at(dead, c, MIB), "it cannot be read again")
            time.sleep(1)
            read_at(dead, c, MIB)
            said = s.messages()
            while "can be read again" not in said:
                is_true(time.monotonic() - begun < 30, said)
                time.sleep(0.02)
                said = s.messages()
            is_equal(said.count("the server answers 503"), 1, said)


def who_waits_for_a_server_can_be_stopped(c):
    with c.web() as web:
        with Server(web.url("silent"), fmt="raw",
                    more=["--remote-timeout", 60]) as s:
            h = client(s)
            h.request(CMD_READ, MIB, 4096)
            while web.count("silent") == len(web.opened("silent")):
                time.sleep(0.01)
            begun = time.monotonic()
        took = time.monotonic() - begun
        # Its watcher kills it after three seconds.
        is_true(took < 2.5, f"it ended after {took:.1f} s")


def what_images_name_lies_beside_them_or_is_permitted(c):
    with c.web() as web:
        top = c.at("top.qcow2")

        def over(name):
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", name,
                 "-F", "raw", top, str(SIZE)])
            with open(top, "rb") as f:
                web.files["top.qcow2"] = f.read()

        def told(*options):
            return "".join(run([os.environ["PLATTER"], "info", *options],
                               ok=None)[1:])

        def same(image, *options):
            out = c.at("out.raw")
            run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
                 "-O", "raw", *options, image, out])
            with open(out, "rb") as f:
                is_true(f.read() == c.data, f"{image} is another disk")

        # Of a file: where it is permitted.
        over(web.url("good"))
        is_true("is not permitted: --allow URL" in told(top),
                "it was opened")
        is_equal(web.asked, [], "what was asked for")
        same(top, "--allow", web.url("good", ""))
        is_true("is not permitted" in told(
            top, "--allow", web.url("good", "di")), "beneath a part of a name")
        over("json:" + json.dumps({"driver": "raw", "file": {
            "driver": "http", "url": web.url("good")}}))
        is_true("is not permitted: --allow URL" in told(
            top, "--allow", "json:"), "json: permitted it")
        same(top, "--allow", "json:", "--allow", web.url("good"))
        # Of an image at a server: beside it.
        over("disk")
        same(web.url("files", "top.qcow2"))
        for name in ("../good/disk", "/good/disk", "a/%2e%2e/disk",
                     "a/../../good/disk"):
            over(name)
            is_true("outside the image's folder" in told(
                web.url("files", "top.qcow2")), f"{name} was looked for")
        over(c.raw)
        is_true("outside the image's folder" in told(
            web.url("files", "top.qcow2")), "a file of ours was opened")


def all_that_a_request_needs_goes_out_at_once(c):
    """64 extents of a qcow2 cost the time of one answer, not of 64."""
    path, delay = c.at("spread.qcow2"), 0.2
    run(["qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=4k", c.raw,
         path])
    # Written over in an order of their own, into places anew: 1 MiB of it.
    snapshot = ["qemu-img", "snapshot", "-c", "s", path]
    run(snapshot)
    writes = [x for i in range(128)
              for x in ("-c", f"write -q -P 7 {i * 37 % 128 * 8192} 4k")]
    run(["qemu-io", *writes, path])
    with c.web() as web:
        with open(path, "rb") as f:
            web.files["spread"] = f.read()
        run([os.environ["PLATTER"], "info", web.url("files", "spread")])
        is_true(len(web.asked) <= 5, f"info took {web.ranges('files')}")
        with Server(web.url("files", "spread")) as s:
            h = client(s)
            h.read(2 * MIB - 4096, 4096)  # which has the same table
            web.delay = delay
            asked = len(web.asked)
            begun = time.monotonic()
            got = h.read(0, 256 * 1024)[1]
            took = time.monotonic() - begun
        asked = len(web.asked) - asked
        is_true(got[:4096] == b"\7" * 4096 and got[4096:8192] ==
                c.data[4096:8192], "other bytes")
        is_true(took < 2 * delay, f"{took:.2f} s: over one round trip")
        is_true(asked <= 16, f"{asked} requests")
        print(f"64 extents: {asked} requests, {took:.2f} s where an answer "
              f"takes {delay} s")


def main():
    environment("PLATTER")
    need_programs("qemu-img", "qemu-io")
    run_checks(Context, [
        servers_that_can_be_read_are,
        servers_that_cannot_are_refused_in_time,
        redirects_lead_to_where_they_may,
        credentials_go_to_their_servers_alone,
        a_token_that_expired_is_read_anew,
        a_server_that_is_silent_stops_its_own_clients_alone,
        who_waits_for_a_server_can_be_stopped,
        what_images_name_lies_beside_them_or_is_permitted,
        all_that_a_request_needs_goes_out_at_once,
    ])


if __name__ == "__main__":
    main()

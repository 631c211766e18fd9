#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Who may do what in the image service: tokens in a file. (What a Keystone says
is in keystone-troubles.py.)"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import free_port  # noqa: E402
from libnbd import need_libnbd  # noqa: E402
from nbd import Client, Refused as NoExport  # noqa: E402
from server import Failure, environment, need_programs  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


class Context:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def tokens(self, **who):
        with open(self.path("tokens.new"), "w") as f:
            json.dump(who, f)
        os.rename(self.path("tokens.new"), self.path("tokens"))
        return f"auth=tokens:{self.path('tokens')}"


def member_of(project, *roles):
    return {"project": project, "user": "u-" + project,
            "roles": roles or ["member"]}


def status(g, token, method, path, body=None, headers=None):
    return g.request(method, path, body, headers, token).status


def image_of(g, token, **fields):
    a = g.request("POST", "/v2/images", {
        "disk_format": "raw", "container_format": "bare", **fields},
        token=token)
    is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
    i = "/v2/images/" + a.json["id"]
    is_equal(status(g, token, "PUT", i + "/file", b"\0" * 4096, OCTETS), 204,
             "the status of an upload")
    return i


def the_rules(g, one, two, admin, reader=None):
    """What members of two projects may do with each other's images."""
    private = image_of(g, one, visibility="private")
    shared = image_of(g, one)
    for i in (private, shared):
        is_equal(status(g, one, "GET", i), 200, "the owner's status")
        for method, path, body, headers in (
                ("GET", i, None, None), ("GET", i + "/file", None, None),
                ("DELETE", i, None, None), ("PATCH", i, "[]", PATCH),
                ("PUT", i + "/tags/x", None, None)):
            is_equal(status(g, two, method, path, body, headers), 404,
                     f"another project's status of {method} {path}")
        is_equal(status(g, admin, "GET", i), 200, "an administrator's status")
    listed = [i["id"] for i in
              g.request("GET", "/v2/images", token=two).json["images"]]
    is_equal(listed, [], "what another project lists")
    return shared


def opens(g, export):
    """The first bytes of an export, or None."""
    with Client(g.nbd_socket, 10) as client:
        try:
            client.go(export.encode())
        except NoExport:
            return None
        code, got = client.read(0, 512)
        is_equal(code, 0, "the read's error")
        return got


def grant(g, token, image, **wish):
    a = g.request("POST", image + "/grants", wish or None, token=token)
    is_equal(a.status, 201, f"the status of a grant ({a.text[:200]})")
    is_equal(a.json["export"], image[11:] + "~" + a.json["grant"],
             "the export")
    return a.json


def grants_open_what_is_private(c):
    overlays = c.path("overlays")
    os.mkdir(overlays)
    spec = c.tokens(one=member_of("p1"), two=member_of("p2"),
                    boss=member_of("p0", "admin"))
    with Glance(spec, f"overlays={overlays}") as g:
        private = image_of(g, "one", visibility="private")
        other = image_of(g, "one", visibility="private")
        name, zeroes = private[11:], bytes(512)
        is_equal(opens(g, name), None, "what anybody reads")
        read = grant(g, "one", private)
        is_equal((read["mode"], read["project"], read["overlay"],
                  opens(g, read["export"])), ("r", "p1", "", zeroes),
                 "what a grant opens")
        # For this image, and only as it says.
        for export in (name, other[11:] + "~" + read["grant"],
                       read["export"][:-1] + ("0" if read["export"][-1] != "0"
                                              else "1"),
                       name + "~r", name + "+vm~" + read["grant"]):
            is_equal(opens(g, export), None, f"what {export} reads")
        write = grant(g, "one", private, mode="w", seconds=60)
        with Client(g.nbd_socket, 10) as client:
            client.go(f"{name}+vm~{write['grant']}".encode())
            is_equal(client.write(0, b"x" * 512), 0, "the write's error")
            is_equal(opens(g, f"{name}+vm"), None, "what anybody reads")
            # By another grant it is the same overlay.
            again = grant(g, "boss", private, mode="w", project="p1")
            is_equal(opens(g, f"{name}+vm~{again['grant']}"), b"x" * 512,
                     "what another reads")
        is_equal(opens(g, name + "~" + write["grant"]), zeroes,
                 "what a grant to write reads")
        for token, wish, wanted in (("two", None, 404), (None, None, 401),
                                    ("one", {"mode": "x"}, 400),
                                    ("one", {"seconds": 0}, 400),
                                    ("one", {"seconds": 1 << 40}, 400)):
            is_equal(status(g, token, "POST", private + "/grants", wish),
                     wanted, f"the status of {wish} for {token}")
        brief = grant(g, "one", private, seconds=1)
        time.sleep(2.1)
        is_equal(opens(g, brief["export"]), None, "what an old grant reads")
        status(g, "one", "POST", private + "/actions/deactivate")
        is_equal(status(g, "boss", "POST", private + "/actions/deactivate"),
                 204, "the status of a deactivation")
        is_equal(opens(g, read["export"]), None, "what is deactivated")
        is_equal(status(g, "one", "POST", private + "/grants"), 403,
                 "the status of a grant")
        is_equal(status(g, "one", "DELETE", private), 204, "its deletion")
        is_equal(opens(g, read["export"]), None, "what is gone")


def tokens_of_a_file_say_who_asks(c):
    spec = c.tokens(one=member_of("p1"), two=member_of("p2"),
                    boss=member_of("p0", "admin"), r=member_of("p1", "reader"))
    with Glance(spec) as g:
        for token in (None, "", "nobody"):
            a = g.request("GET", "/v2/images", token=token)
            is_equal(a.status, 401, f"the status with token {token!r}")
            is_true("www-authenticate" in a.headers, "no challenge")
        is_equal(g.request("GET", "/healthcheck").status, 200, "healthcheck")
        is_equal(g.request("GET", "/").status, 300, "versions")
        shared = the_rules(g, "one", "two", "boss")
        is_equal(status(g, "one", "POST", shared + "/members",
                        {"member": "p2"}), 200, "sharing")
        is_equal(status(g, "two", "GET", shared), 200, "a member's status")
        is_equal(status(g, "two", "PATCH", shared,
                        '[{"op":"replace","path":"/name","value":"x"}]',
                        PATCH), 403, "a member's status of PATCH")
        is_equal(status(g, "one", "PUT", shared + "/members/p2",
                        {"status": "accepted"}), 403, "the owner accepts")
        is_equal(status(g, "two", "PUT", shared + "/members/p2",
                        {"status": "accepted"}), 200, "the member accepts")
        is_equal(len(g.request("GET", "/v2/images",
                               token="two").json["images"]), 1, "a list")
        is_equal(status(g, "r", "GET", shared), 200, "a reader's status")
        is_equal(status(g, "r", "POST", "/v2/images", {}), 403, "a reader")
        is_equal(status(g, "r", "DELETE", shared), 403, "a reader")
        public = '[{"op":"replace","path":"/visibility","value":"public"}]'
        is_equal(status(g, "one", "PATCH", shared, public, PATCH), 403,
                 "a member publicises")
        i = shared.rsplit("/", 1)[1].encode()
        try:
            with Client(g.nbd_socket, 10) as n:
                n.go(i)
            raise Failure("a shared image was opened over NBD")
        except NoExport:
            pass
        is_equal(status(g, "boss", "PATCH", shared, public, PATCH), 200,
                 "an administrator publicises")
        with Client(g.nbd_socket, 10) as n:
            is_equal(n.go(i), 4096, "the size of a public image")


def the_file_is_read_again(c):
    with Glance(c.tokens(one=member_of("p1"))) as g:
        is_equal(status(g, "two", "GET", "/v2/images"), 401, "the status")
        c.tokens(two=member_of("p1"))
        is_equal(status(g, "two", "GET", "/v2/images"), 200, "the status")
        is_equal(status(g, "one", "GET", "/v2/images"), 401, "the status")
        with open(c.path("tokens"), "w") as f:
            f.write("{")
        is_equal(status(g, "two", "GET", "/v2/images"), 200,
                 "the status with a broken file")
        is_true("the tokens before are in force" in g.messages(),
                g.messages())


def nobody_is_let_in_from_afar_unasked(c):
    for spec, says in (
            (["auth=none"], "auth=none is for loopback"),
            (["auth=maybe"], "is none of none, tokens"),
            (["auth=tokens:/no/such/file"], "/no/such/file"),
            (["auth=keystone:http://127.0.0.1:1"], "needs keystone-user")):
        try:
            with Glance(f"glance=0.0.0.0:{free_port()}", *spec, tcp=1):
                raise Failure(f"{spec} was taken")
        except Failure as e:
            is_true(says in str(e), str(e))


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_libnbd()
    need_programs("nbdkit")
    run_checks(Context, [
        tokens_of_a_file_say_who_asks,
        grants_open_what_is_private,
        the_file_is_read_again,
        nobody_is_let_in_from_afar_unasked,
    ])

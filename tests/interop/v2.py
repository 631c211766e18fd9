#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""API v2 of the image service by tables, data in and out, and the images as
NBD exports."""

import gzip
import hashlib
import http.client
import json
import os
import random
import socket
import sqlite3
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from guest_disk import Guest  # noqa: E402
from nbd import Client, Refused as NoExport  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402
from web import Web  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
PATCH_20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
A = "/v2/images/11111111-1111-4111-8111-111111111111"
AMI, AKI = (f"{n}1111111-1111-4111-8111-111111111111" for n in "23")
FORMATS = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhdx": "vhdx",
           "vhd": "vpc", "raw": "raw"}
DISK_BYTES = 3 << 20


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(1).randbytes(DISK_BYTES)
        raw = self.path("source.raw")
        with open(raw, "wb") as f:
            f.write(self.disk)
        self.files = {}
        for fmt, qemu in FORMATS.items():
            out = self.path("disk." + fmt)
            more = ["-o", "force_size=on"] if fmt == "vhd" else []
            run(["qemu-img", "convert", "-f", "raw", "-O", qemu, *more, raw,
                 out])
            with open(out, "rb") as f:
                self.files[fmt] = f.read()

    def path(self, name):
        return os.path.join(self.folder, name)


def create(g, fmt="raw", **fields):
    a = g.request("POST", "/v2/images", {
        "disk_format": fmt, "container_format": "bare", **fields})
    is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
    return a.json["id"]


def upload(g, image, data, status=204):
    a = g.request("PUT", f"/v2/images/{image}/file", data, OCTETS)
    is_equal(a.status, status, f"the status of an upload ({a.text[:300]})")
    return a


def show(g, image):
    return g.request("GET", f"/v2/images/{image}").json


def has_not(*names):
    return lambda got: not any(n in got for n in names)


VERSIONS = {"versions": lambda v: [i["id"] for i in v] == [
    f"v2.{n}" for n in range(17, -1, -1)] and [i["status"] for i in v] == [
        "CURRENT"] + 17 * ["SUPPORTED"]}

TABLE = [
    Row("GET", "/", 300, VERSIONS),
    *[Row("GET", f"/v2.{n}/images", 200, {"schema": "/v2/schemas/images"})
      for n in range(18)],
    *[Row("GET", f"/{v}/images", 300, VERSIONS)
      for v in ("v2.18", "v2.", "v2.x", "v2.1x", "v2.01", "v2.-1", "v20",
                "v3", "v1.1", "v2.4294967297")],
    Row("GET", "/versions", 200),
    Row("GET", "/v2/", 200),
    Row("GET", "/healthcheck", 200, "OK"),
    Row("GET", "/v2/images", 200, {"images": [], "first": "/v2/images",
                                   "schema": "/v2/schemas/images"}),
    Row("POST", "/v2/images", 201, {
        "id": A[11:], "name": "a", "status": "queued", "visibility": "shared",
        "size": None, "checksum": None, "protected": False, "min_disk": 1,
        "tags": lambda t: sorted(t) == ["x", "y"], "colour": "red", "self": A,
        "file": A + "/file", "schema": "/v2/schemas/image"},
        {"id": A[11:], "name": "a", "disk_format": "qcow2",
         "container_format": "bare", "min_disk": 1, "tags": ["x", "y"],
         "colour": "red"},
        answer_headers={"Location": lambda v: v.endswith(A)}),
    Row("POST", "/v2/images", 409, "already exists", {"id": A[11:]}),
    Row("POST", "/v2/images", 403, "read-only", {"status": "active"}),
    Row("POST", "/v2/images", 400, None, {"disk_format": "floppy"}),
    Row("POST", "/v2/images", 400, None, {"min_disk": "many"}),
    *[Row("POST", "/v2/images", 201, {"disk_format": disk},
          {"disk_format": disk, "container_format": container, "id": i})
      for disk, container, i in (("ami", "bare", AMI), ("raw", "aki", AKI))],
    Row("PATCH", "/v2/images/" + AKI, 200, {"disk_format": "ari"},
        [{"op": "replace", "path": "/disk_format", "value": "ari"}], PATCH),
    Row("DELETE", "/v2/images/" + AMI, 204),
    Row("DELETE", "/v2/images/" + AKI, 204),
    Row("POST", "/v2/images", 400, None, "no JSON",
        {"Content-Type": "application/json"}),
    *[Row("GET", "/v2/images/%3Ca%20href='x'%3E", 404, says, headers=accept,
          answer_headers={"Content-Type": kind})
      for accept, kind, says in (
          ({}, "text/plain; charset=UTF-8", "404 Not Found\n\n"
           "No image found with ID <a href='x'>\n\n   "),
          ({"Accept": "*/*"}, "text/html; charset=UTF-8",
           "ID &lt;a href=&#x27;x&#x27;&gt;<br />"),
          ({"Accept": "application/json"}, "application/json",
           {"code": "404 Not Found", "title": "Not Found", "message":
            "No image found with ID <a href='x'><br /><br />\n\n\n"}))],
    Row("GET", A, 200, {"id": A[11:]}),
    Row("GET", "/v2/images?name=a&tag=x", 200, {"images": [{"name": "a"}]}),
    Row("GET", "/v2/images?name=in:b,a", 200, {"images": [{"name": "a"}]}),
    Row("GET", "/v2/images?colour=blue", 200, {"images": []}),
    Row("GET", "/v2/images?size_max=9", 200, {"images": []}),
    Row("GET", "/v2/images?size_min=0", 200, {"images": []}),
    Row("GET", "/v2/images?size=0", 200, {"images": []}),
    *[Row(method, path, 400, "A body is not expected", "{}",
          {"Content-Type": "application/json"}) for method, path in (
              ("GET", A), ("DELETE", A), ("GET", A + "/file"),
              ("POST", A + "/actions/deactivate"), ("PUT", A + "/tags/x"),
              ("DELETE", A + "/tags/x"), ("GET", A + "/members"),
              ("GET", "/v2/schemas/image"), ("GET", "/v2/info/import"),
              ("GET", "/v2/metadefs/resource_types"),
              ("POST", "/v2/metadefs/namespaces/x/tags/y"))],
    Row("GET", "/v2/images", 200, None, "{}"),
    *[Row(method, path, 400, None, body, {"Content-Type": kind})
      for body in ("[]", "[1]", '"x"', "5", "null", "", "{", "\0", "\xef\xbb\xbf{}")
      for method, path, kind in (
          ("POST", "/v2/images", "application/json"),
          ("POST", A + "/members", "application/json"),
          ("PUT", A + "/members/x", "application/json"),
          ("POST", A + "/import", "application/json"),
          ("POST", "/v2/tasks", "application/json"),
          ("POST", "/v2/metadefs/namespaces", "application/json"),
          ("PATCH", A, PATCH["Content-Type"])) if (method, body) != (
              "PATCH", "[]")],
    *[Row("GET", "http://elsewhere.example" + path, status)
      for path, status in (("/v2/images", 200), (A, 200), ("/", 300),
                           ("", 300), ("?x=y", 300), ("/v2/none", 404),
                           ("@b/v2/images", 400), ("#/v2/images", 400))],
    Row("GET", "HTTPS://elsewhere.example:99/v2/images", 200),
    Row("GET", "http:///v2/images", 400),
    Row("GET", "ftp://elsewhere.example/v2/images", 400),
    Row("GET", "/v2/images?limit=-1", 400),
    Row("GET", "/v2/images?sort=flavour", 400),
    Row("GET", "/v2/images?limit=1", 200, {
        "next": f"/v2/images?limit=1&marker={A[11:]}"}),
    Row("PATCH", A, 200, {"name": "b", "colour": "blue"},
        [{"op": "replace", "path": "/name", "value": "b"},
         {"op": "add", "path": "/colour", "value": "blue"}], PATCH),
    Row("PATCH", A, 200, has_not("colour"), [{"remove": "/colour"}],
        PATCH_20),
    Row("PATCH", A, 409, "does not exist",
        [{"op": "remove", "path": "/colour"}], PATCH),
    Row("PATCH", A, 403, "may not be removed",
        [{"op": "remove", "path": "/name"}], PATCH),
    Row("PATCH", A, 403, "read-only",
        [{"op": "replace", "path": "/checksum", "value": "x"}], PATCH),
    Row("PATCH", A, 415, None, [], {"Content-Type": "application/json"}),
    Row("PATCH", A, 400, None, "{}", PATCH),
    Row("PUT", A + "/tags/z", 204),
    Row("DELETE", A + "/tags/x", 204),
    Row("DELETE", A + "/tags/x", 404),
    Row("GET", A, 200, {"tags": lambda t: sorted(t) == ["y", "z"]}),
    Row("PUT", A + "/tags/" + "t" * 256, 400),
    Row("GET", A + "/members", 200, {"members": []}),
    Row("POST", A + "/members", 200, {
        "member_id": "p", "status": "pending", "image_id": A[11:],
        "schema": "/v2/schemas/member"}, {"member": "p"}),
    Row("POST", A + "/members", 409, None, {"member": "p"}),
    Row("POST", A + "/members", 400, None, {}),
    Row("PUT", A + "/members/p", 200, {"status": "accepted"},
        {"status": "accepted"}),
    Row("PUT", A + "/members/p", 400, None, {"status": "maybe"}),
    Row("GET", A + "/members/p", 200, {"status": "accepted"}),
    Row("GET", A + "/members/q", 404),
    Row("DELETE", A + "/members/p", 204),
    Row("DELETE", A + "/members/p", 404),
    Row("PATCH", A, 200, {"visibility": "public"},
        [{"op": "replace", "path": "/visibility", "value": "public"}], PATCH),
    Row("POST", A + "/members", 403, None, {"member": "p"}),
    Row("GET", A + "/file", 204),
    Row("PUT", A + "/file", 415, None, "x", {"Content-Type": "text/plain"}),
    Row("POST", A + "/actions/deactivate", 403),
    Row("PATCH", A, 200, {"protected": True},
        [{"op": "replace", "path": "/protected", "value": True}], PATCH),
    Row("DELETE", A, 403, "is protected and cannot be deleted"),
    Row("PATCH", A, 200, {"protected": False},
        [{"op": "replace", "path": "/protected", "value": False}], PATCH),
    Row("DELETE", A, 204),
    Row("GET", A, 404),
    Row("DELETE", A, 404),
    Row("POST", "/v2/images", 409, None, {"id": A[11:]}),
    Row("PUT", "/v2/images", 405),
    Row("GET", "/v2/info/import", 200, {"import-methods": {}}),
    Row("GET", "/v2/info/stores/detail", 404),
    Row("DELETE", "/v2/stores/file/" + A[11:], 404),
    Row("GET", "/v2/info/usage", 200, {"usage": {}}),
    Row("GET", "/v2/cache", 200, {"cached_images": [], "queued_images": []}),
    Row("DELETE", "/v2/cache", 204),
    Row("PUT", "/v2/cache/x", 404, "Image x not found"),
    Row("DELETE", "/v2/cache/x", 404, "Image x not found"),
    Row("GET", "/v2/info/stores", 404),
    Row("GET", "/v2/schemas/image", 200, {"name": "image"}),
]


def each_row_of_the_table_is_answered(c):
    with Glance() as g:
        for row in TABLE:
            run_row(g, row)


def data_come_back_and_are_digested(c):
    with Glance() as g:
        for fmt, data in c.files.items():
            i = create(g, fmt)
            upload(g, i, data)
            got = show(g, i)
            is_equal(got["status"], "active", "the status")
            is_equal(got["size"], len(data), "the size")
            is_equal(got["virtual_size"], DISK_BYTES, f"{fmt}: virtual size")
            is_equal(got["checksum"], hashlib.md5(data).hexdigest(), "MD5")
            is_equal(got["os_hash_value"], hashlib.sha512(data).hexdigest(),
                     "SHA-512")
            a = g.request("GET", f"/v2/images/{i}/file")
            is_true(a.status == 200 and a.body == data, "other data")
            is_equal(a.headers["content-md5"], got["checksum"], "Content-MD5")
            a = g.request("GET", f"/v2/images/{i}/file?format=raw")
            is_true(a.status == 200 and a.body == c.disk, f"{fmt}: other disk")
            upload(g, i, data, 409)


def no_data_are_fine_whatever_they_are_called(c):
    """Nova's snapshot of a volume has none, in the format of its base."""
    with Glance() as g:
        for fmt in (*FORMATS, "iso", "ami"):
            i = create(g, fmt)
            upload(g, i, b"")
            got = show(g, i)
            is_equal((got["status"], got["size"], got["checksum"]),
                     ("active", 0, hashlib.md5(b"").hexdigest()), fmt)
            a = g.request("GET", f"/v2/images/{i}/file")
            is_equal((a.status, a.body), (200, b""), f"data of {fmt}")
            i = create(g, fmt)
            is_equal(g.request("PUT", f"/v2/images/{i}/stage", b"",
                               OCTETS).status, 204, "the status of staging")
            g.request("POST", f"/v2/images/{i}/import",
                      {"method": {"name": "glance-direct"}})
            for _ in range(500):
                if show(g, i)["status"] == "active":
                    break
                time.sleep(0.02)
            is_equal(show(g, i)["status"], "active", f"{fmt}, imported")


def ranges_are_served(c):
    with Glance() as g:
        i = create(g)
        upload(g, i, c.disk)
        for path in (f"/v2/images/{i}/file", f"/v2/images/{i}/file?format=raw"):
            for text, first, last in (
                    ("0-0", 0, 0), ("100-199", 100, 199),
                    (f"{DISK_BYTES - 10}-", DISK_BYTES - 10, DISK_BYTES - 1),
                    ("-7", DISK_BYTES - 7, DISK_BYTES - 1),
                    (f"5-{DISK_BYTES * 2}", 5, DISK_BYTES - 1)):
                a = g.request("GET", path, headers={"Range": "bytes=" + text})
                is_equal(a.status, 206, f"the status of {text}")
                is_true(a.body == c.disk[first:last + 1], f"{text}: other data")
                is_equal(a.headers["content-range"],
                         f"bytes {first}-{last}/{DISK_BYTES}", "Content-Range")
            a = g.request("GET", path,
                          headers={"Range": f"bytes={DISK_BYTES}-"})
            is_equal(a.status, 416, "the status")
            # Glance takes this one too, in a request.
            for text, first, last in (
                    ("2-5/*", 2, 5), (f"2-5/{DISK_BYTES}", 2, 5),
                    ("2-5/6", 2, 5),
                    (f"0-{DISK_BYTES - 1}/*", 0, DISK_BYTES - 1),
                    (f"9-{DISK_BYTES + 9}/{DISK_BYTES * 2}", 9,
                     DISK_BYTES - 1)):
                a = g.request("GET", path,
                              headers={"Content-Range": "bytes " + text})
                is_equal(a.status, 206, f"the status of {text}")
                is_true(a.body == c.disk[first:last + 1], f"{text}: other data")
                is_equal(a.headers["content-range"],
                         f"bytes {first}-{last}/{DISK_BYTES}", "Content-Range")
            for text in ("bytes 2-1/*", f"bytes 0-{DISK_BYTES}/*",
                         f"bytes {DISK_BYTES}-{DISK_BYTES}/*", "bytes 2-5",
                         "bytes=2-5", "bytes 2-5/4", "bytes 2-5/*x",
                         "bytes */9", "bytes -5/*", "bytes 2-/*", "x", "",
                         "bytes 2-99999999999999999999/*"):
                a = g.request("GET", path, headers={"Content-Range": text})
                is_equal(a.status, 416, f"the status of {text!r}")
            a = g.request("GET", path, headers={
                "Range": "bytes=1-2", "Content-Range": "bytes 4-5/*"})
            is_true(a.body == c.disk[1:3], "Range comes first")


def pages_of_other_servers_are_answered(c):
    """CORS, as oslo.middleware answers for Glance: Horizon's pages upload."""
    origin, file = "https://horizon.example", A + "/file"
    ask = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    names = {"Access-Control-Request-Headers": "x-auth-token, Content-Type"}

    def allowed(a):
        return {n[len("access-control-"):]: v for n, v in a.headers.items()
                if n.startswith("access-control-")}

    with Glance(f"cors-origins=http://a.example:8080,{origin}") as g:
        a = g.request("OPTIONS", file, headers={**ask, **names})
        is_equal((a.status, a.body, a.headers["vary"], allowed(a)),
                 (200, b"", "Origin", {
                     "allow-origin": origin, "allow-credentials": "true",
                     "max-age": "3600", "allow-methods": "PUT",
                     "allow-headers": "x-auth-token, Content-Type"}), "PUT")
        for headers in (
                {}, {"Origin": origin},
                {**ask, "Origin": "https://horizon.example.evil"},
                {**ask, "Origin": "https://horizon.exampl"},
                {**ask, "Origin": "null"},
                {**ask, "Access-Control-Request-Method": "TRACE"},
                {**ask, "Access-Control-Request-Headers": "x-auth-token,x-x"}):
            a = g.request("OPTIONS", file, headers=headers)
            is_true(not allowed(a), f"{headers}: {allowed(a)}")
        for method, path, status in (("GET", "/v2/images", 200),
                                     ("GET", file, 404), ("PATCH", file, 405)):
            a = g.request(method, path, headers={"Origin": origin})
            is_equal((a.status, allowed(a).get("allow-origin"),
                      a.headers.get("vary")), (status, origin, "Origin"),
                     f"{method} {path}")
        # Nobody is asked who he is: others' pages stay out.
        a = g.request("GET", "/v2/images", headers={
            "Origin": "https://evil.example"})
        is_equal((a.status, allowed(a)), (403, {}), "a page of somebody else")
    with Glance() as g:
        is_true(not allowed(g.request("OPTIONS", file, headers=ask)),
                "what was not configured is answered")
    for bad in ("horizon.example", "https://", "https://a/b", "*",
                "https://a,,https://b", "https://a, https://b"):
        try:
            with Glance("cors-origins=" + bad):
                raise Failure(f"{bad!r} is taken")
        except Failure as e:
            is_true("cors-origins: " in str(e), str(e))


def what_is_not_what_it_says_is_refused(c):
    backed = c.path("backed.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F",
         "raw", backed])
    with open(backed, "rb") as f:
        backed = f.read()
    with Glance() as g:
        for fmt, data, says in (
                ("qcow2", c.disk, "does not match disk_format"),
                ("vmdk", c.files["qcow2"], "does not match disk_format"),
                ("raw", c.files["qcow2"], "its content is qcow2"),
                ("iso", c.disk, "is not ISO 9660"),
                ("qcow2", backed, "refers to a backing file")):
            i = create(g, fmt)
            a = upload(g, i, data, 400)
            is_true(says in a.text, f"{fmt}: {a.text[:300]}")
            is_equal(show(g, i)["status"], "queued", "the status")
        is_equal(os.listdir(os.path.join(g.store, "incoming")), [],
                 "what is left behind")


def an_upload_that_ends_early_leaves_nothing(c):
    with Glance() as g:
        i = create(g)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(g.socket)
            s.sendall(f"PUT /v2/images/{i}/file HTTP/1.1\r\nHost: x\r\n"
                      "Content-Type: application/octet-stream\r\n"
                      f"Content-Length: {DISK_BYTES}\r\n\r\n".encode())
            s.sendall(c.disk[:100000])
            while show(g, i)["status"] != "saving":
                time.sleep(0.01)
        for _ in range(1000):
            if show(g, i)["status"] == "queued":
                break
            time.sleep(0.01)
        else:
            raise Failure(f"it is {show(g, i)['status']}")
        is_equal(os.listdir(os.path.join(g.store, "incoming")), [],
                 "what is left behind")
        upload(g, i, c.disk)


def a_killed_server_starts_tidy(c):
    g = Glance()
    try:
        i, j = create(g), create(g)
        upload(g, j, c.disk)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(g.socket)
            s.sendall(f"PUT /v2/images/{i}/file HTTP/1.1\r\nHost: x\r\n"
                      "Content-Type: application/octet-stream\r\n"
                      f"Content-Length: {DISK_BYTES}\r\n\r\n".encode())
            s.sendall(c.disk[:100000])
            while show(g, i)["status"] != "saving":
                time.sleep(0.01)
            g.kill()
        store = c.path("killed")
        os.rename(g.store, store)
    finally:
        g.end()
    stray = os.path.join(store, "images", "12")
    os.makedirs(stray, exist_ok=True)
    stray = os.path.join(stray, "12345678-1234-4234-8234-123456789012")
    with open(stray, "w") as f:
        f.write("committed by nobody")
    with Glance(store=store) as g:
        is_equal(show(g, i)["status"], "queued", "the status")
        is_equal(os.listdir(os.path.join(store, "incoming")), [], "left behind")
        is_true(os.path.exists(stray), "data that nobody knows are removed")
        is_true(os.path.basename(stray) in g.messages(), "they are not named")
        upload(g, i, c.disk)
        a = g.request("GET", f"/v2/images/{j}/file")
        is_true(a.body == c.disk, "other data")


def images_are_exports(c):
    overlays = c.path("overlays")
    os.mkdir(overlays)
    with Glance(f"overlays={overlays}") as g:
        i = create(g, "vmdk", name="golden")
        upload(g, i, c.files["vmdk"])
        for name in (i.encode(), b"golden"):
            with Client(g.nbd_socket, 10) as n:
                is_equal(n.go(name), DISK_BYTES, "the size")
                is_equal(n.read(0, DISK_BYTES), (0, c.disk), "the disk")
                is_equal(n.write(0, b"x"), 1, "the error of a write")
        guest = Guest(g.nbd_socket, c.disk, 1, b"golden+vm1")
        for _ in range(60):
            guest.step()
        guest.compare()
        guest.close()
        with Client(g.nbd_socket, 10) as n:
            n.go(i.encode())
            is_equal(g.request("DELETE", f"/v2/images/{i}").status, 204,
                     "the status of DELETE")
            is_equal(n.read(0, 4096), (0, c.disk[:4096]),
                     "what an open export reads")
        for name in (i.encode(), b"golden", b"", b"nobody"):
            try:
                with Client(g.nbd_socket, 10) as n:
                    n.go(name)
            except NoExport:
                continue
            raise Failure(f"{name} was opened")


def sixteen_write_and_sixty_four_read_at_once(c):
    with Glance() as g:
        ids, errors, done = [], [], threading.Event()
        whole = {}  # an image's data, once they are acknowledged

        def read(number):
            r = random.Random(number)
            try:
                while not done.is_set():
                    if not whole:
                        time.sleep(0.01)
                        continue
                    i = r.choice(list(whole))
                    data, kind = whole[i], r.randrange(4)
                    if kind == 0:
                        a = g.request("GET", f"/v2/images/{i}/file")
                        is_true(a.body == data, "a reader got other data")
                    elif kind == 1:
                        is_equal(show(g, i)["status"], "active", "the status")
                    elif kind == 2:
                        a = g.request("GET", "/v2/images?status=active&"
                                      "limit=20")
                        is_true(all(k["size"] for k in a.json["images"]),
                                "an active image has no size")
                    else:
                        off = r.randrange(len(data) - 4096)
                        with Client(g.nbd_socket) as client:
                            client.go(i.encode())
                            is_true(client.read(off, 4096) ==
                                    (0, data[off:off + 4096]),
                                    "NBD gives other data")
            except Exception as e:
                errors.append(e)

        def work(number):
            try:
                for k in range(4):
                    data = c.disk[:200000 + number * 1000 + k]
                    i = create(g, name=f"n{number}-{k}")
                    upload(g, i, data)
                    whole[i] = data
                    ids.append(i)
            except Exception as e:
                errors.append(e)

        writers = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        readers = [threading.Thread(target=read, args=(n,)) for n in range(64)]
        for t in readers + writers:
            t.start()
        for t in writers:
            t.join()
        done.set()
        for t in readers:
            t.join()
        is_equal(errors, [], "the errors")
        seen, path = set(), "/v2/images?limit=7"
        while path:
            page = g.request("GET", path).json
            seen.update(i["id"] for i in page["images"])
            path = page.get("next")
        is_equal(seen, set(ids), "the images")


def limits_hold_each_project_by_itself(c):
    tokens, limits = c.path("tokens"), c.path("limits")
    with open(tokens, "w") as f:
        json.dump({t: {"project": t, "user": t, "roles": ["member"]}
                   for t in ("one", "two")}, f)

    def write(**projects):
        with open(limits + ".new", "w") as f:
            json.dump(projects, f)
        os.rename(limits + ".new", limits)

    image = {"disk_format": "raw", "container_format": "bare"}
    write(default={"image_count_total": 2, "image_size_total": 2},
          two={"image_count_total": -1})
    with Glance(f"auth=tokens:{tokens}", f"limits={limits}") as g:
        def new(token, status=201):
            a = run_row(g, Row("POST", "/v2/images", status, None, image,
                               token=token))
            return a.json["id"] if status == 201 else a

        def put(i, token, status, what="file"):
            return run_row(g, Row("PUT", f"/v2/images/{i}/{what}", status,
                                  None, c.disk, OCTETS, token=token))

        one = [new("one") for _ in range(2)]
        two = [new("two") for _ in range(3)]
        a = new("one", 413)
        is_true("Project one is over a limit for [Resource image_count_total "
                "is over limit of 2 due to current usage 2 and delta 1]"
                in a.text, a.text)
        run_row(g, Row("POST", "/v1/images", 413, None, headers={
            "X-Image-Meta-Name": "v1"}, token="one"))
        put(one[0], "one", 204)  # 3 MiB of 2: the next is refused
        a = put(one[1], "one", 413)
        is_true("image_size_total is over limit of 2 due to current usage 3 "
                "and delta 0" in a.text, a.text)
        is_equal(g.request("GET", f"/v2/images/{one[1]}",
                           token="one").json["status"], "queued", "the status")
        run_row(g, Row("POST", f"/v2/images/{one[1]}/import", 413, None,
                       {"method": {"name": "glance-direct"}}, token="one"))
        run_row(g, Row("GET", "/v2/info/usage", 200, {"usage": {
            "image_size_total": {"usage": 3, "limit": 2},
            "image_stage_total": {"usage": 0, "limit": -1},
            "image_count_total": {"usage": 2, "limit": 2},
            "image_count_uploading": {"usage": 0, "limit": -1}}},
            token="one"))
        write(two={"image_stage_total": 2, "image_count_uploading": 1})
        put(one[1], "one", 204)
        put(two[0], "two", 204, "stage")
        a = put(two[1], "two", 413, "stage")
        is_true("image_stage_total is over" in a.text, a.text)
        a = put(two[1], "two", 413)
        is_true("image_count_uploading is over limit of 1 due to current "
                "usage 2 and delta 0" in a.text, a.text)
        with open(limits, "w") as f:
            f.write("no JSON")
        put(two[1], "two", 413)
        is_true("the limits before are in force" in g.messages(), "no word")
    for text, says in (("[]", "is no JSON object"), ('{"a": 1}', "no object"),
                       ('{"a": {"b": 1}}', '"b" of "a" is no limit'),
                       ('{"a": {"image_size_total": -2}}', "is a number")):
        with open(limits, "w") as f:
            f.write(text)
        try:
            with Glance(f"limits={limits}"):
                pass
        except Failure as e:
            is_true(says in str(e), str(e))
        else:
            raise Failure(f"{text} is taken")


def images_are_registered_in_place(c):
    folder, outside = c.path("in-place"), c.path("disk.raw")
    os.mkdir(folder)
    for name in ("a.qcow2", "b b.qcow2"):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(c.files["qcow2"])
    os.symlink(outside, os.path.join(folder, "link.raw"))
    os.mkfifo(os.path.join(folder, "fifo"))
    url = f"file://{folder}/a.qcow2"
    sha = hashlib.sha512(c.files["qcow2"]).hexdigest()
    data = {"os_hash_algo": "sha512", "os_hash_value": sha}

    def change(g, i, status, op, path, want=None, token=None, **more):
        return run_row(g, Row("PATCH", f"/v2/images/{i}", status, want,
                              [{"op": op, "path": path, **more}], PATCH,
                              token=token))

    def at(url, **more):
        return {"url": url, "metadata": {"a": "b"}, **more}

    with Glance(f"location-dirs={folder}") as g:
        i = create(g, "qcow2")
        is_true("locations" not in show(g, i), "they are shown")
        for op, path, more in (("add", "/locations/-", {"value": at(url)}),
                               ("replace", "/locations", {"value": []}),
                               ("remove", "/locations/0", {})):
            change(g, i, 403, op, path, "if locations are invisible", **more)
    with Glance(f"location-dirs=/usr:{folder}", "show-locations=true",
                "direct-url=nbd://h:1/") as g:
        i = create(g, "qcow2")
        is_equal(show(g, i)["locations"], [], "the locations")
        for value in (f"file://{outside}", f"file://{folder}/../disk.raw",
                      f"file://{folder}/link.raw", f"file://{folder}/fifo",
                      f"file://{folder}", f"file://{folder}/none",
                      f"file://{folder}/%2e%2e/disk.raw"):
            change(g, i, 400, "add", "/locations/-", "there is no file at",
                   value=at(value))
        for value in ("http://a.example/b", "file://a", "/etc/passwd"):
            change(g, i, 400, "add", "/locations/-", "Invalid location",
                   value=at(value))
        change(g, i, 400, "add", "/locations/1", "Invalid position",
               value=at(url))
        change(g, i, 409, "add", "/locations/-", "os_hash_algo must be",
               value=at(url, validation_data=dict(data, os_hash_algo="md5")))
        change(g, i, 409, "add", "/locations/-", "hexadecimal",
               value=at(url, validation_data=dict(data, os_hash_value="x")))
        change(g, i, 409, "remove", "/locations/0", "status is queued")
        is_equal(show(g, i)["status"], "queued", "the status")
        change(g, i, 200, "add", "/locations/-", {
            "status": "active", "size": len(c.files["qcow2"]),
            "virtual_size": DISK_BYTES, "os_hash_value": sha,
            "direct_url": "nbd://h:1/" + i,
            "locations": [{"url": url, "metadata": {"a": "b"}}]},
            value=at(url, validation_data=data))
        change(g, i, 400, "add", "/locations/-", "already exists",
               value=at(url))
        for other in (dict(data, os_hash_value="0" * 128),
                      dict(data, os_hash_algo="sha256")):
            change(g, i, 409, "add", "/locations/-", "a different value",
                   value=at(f"file://{folder}/b%20b.qcow2",
                            validation_data=other))
        change(g, i, 409, "add", "/locations/-", "status is 'queued'",
               value=at(f"file://{folder}/b%20b.qcow2",
                        validation_data=dict(data, checksum="0" * 32)))
        change(g, i, 403, "remove", "/locations/0", "Cannot remove last")
        second = f"file://{folder}/b%20b.qcow2"
        change(g, i, 200, "add", "/locations/0", {"locations": [{}, {}]},
               value=at(second, validation_data=data))
        change(g, i, 400, "remove", "/locations/2", "Invalid position")
        for value in ([at(second)], [at(second), at(second)],
                      [at(second), at(url + "x")]):
            change(g, i, 400, "replace", "/locations", "not empty",
                   value=value)
        change(g, i, 200, "replace", "/locations", {"locations": [
            {"url": url, "metadata": {"c": "d"}}, {"url": second}]},
               value=[{"url": url, "metadata": {"c": "d"}}, at(second)])
        change(g, i, 200, "remove", "/locations/1", {"locations": [
            {"url": url}]})
        change(g, i, 403, "replace", "/locations", value=[])
        a = g.request("GET", f"/v2/images/{i}/file")
        is_true(a.body == c.files["qcow2"], "other data")
        a = g.request("GET", f"/v2/images/{i}/file?format=raw")
        is_true(a.body == c.disk, "another disk")
        with Client(g.nbd_socket, 10) as n:
            n.go(i.encode())
            is_equal(n.read(0, 4096), (0, c.disk[:4096]), "the disk")
        j = create(g, "raw")
        change(g, j, 400, "add", "/locations/-", "its content is qcow2",
               value=at(url))
        upload(g, j, c.disk)
        got = show(g, j)
        is_equal((got["direct_url"], got["locations"]), (
            "nbd://h:1/" + j, [{"url": "nbd://h:1/" + j, "metadata": {}}]),
            "an upload's")
        # Another one beside it, and only that one.
        raw = f"file://{folder}/disk.raw"
        with open(os.path.join(folder, "disk.raw"), "wb") as f:
            f.write(c.disk)
        kept = os.path.join(g.store, "images", j[:2], j)
        change(g, j, 200, "add", "/locations/-", {"locations": [
            {"url": "nbd://h:1/" + j}, {"url": raw}]}, value=at(raw))
        change(g, j, 400, "add", "/locations/-", "already exists",
               value=at("nbd://h:1/" + j))
        is_true(os.path.exists(kept), "the data are gone")
        change(g, j, 200, "remove", "/locations/0", {"locations": [
            {"url": raw}]})
        is_true(not os.path.exists(kept), "the data are there")
        is_true(g.request("GET", f"/v2/images/{j}/file").body == c.disk,
                "other data")
        change(g, j, 403, "remove", "/locations/0", "Cannot remove last")
        is_equal(g.request("DELETE", f"/v2/images/{j}").status, 204, "DELETE")
        os.unlink(os.path.join(folder, "disk.raw"))
        # What was looked at once is looked at again: nothing leads outside.
        os.rename(os.path.join(folder, "a.qcow2"),
                  os.path.join(folder, "moved"))
        os.symlink(outside, os.path.join(folder, "a.qcow2"))
        is_equal(g.request("GET", f"/v2/images/{i}/file").status, 404,
                 "the status of a file that is a link now")
        try:
            with Client(g.nbd_socket, 10) as n:
                n.go(i.encode())
        except NoExport:
            pass
        else:
            raise Failure("it is an export")
        is_equal(g.request("DELETE", f"/v2/images/{i}").status, 204, "DELETE")
        is_equal(sorted(os.listdir(folder)), [
            "a.qcow2", "b b.qcow2", "fifo", "link.raw", "moved"], "what is left")
    tokens = c.path("tokens")
    with open(tokens, "w") as f:
        json.dump({"one": {"project": "one", "user": "u",
                           "roles": ["member"]}}, f)
    with Glance(f"location-dirs={folder}", "show-locations=true",
                f"auth=tokens:{tokens}") as g:
        i = g.request("POST", "/v2/images", {
            "disk_format": "qcow2", "container_format": "bare"},
            token="one").json["id"]
        change(g, i, 400, "add", "/locations/-", "Invalid location",
               token="one", value=at(f"file://{folder}/moved"))
    for parameter, says in (("show-locations=yes", "is true or false"),
                            ("location-dirs=a", "no absolute path"),
                            ("location-dirs=/none/such", "No such file"),
                            ("direct-url=http://a/", "is neither nbd://"),
                            ("direct-url=nbd://a", "is neither nbd://")):
        try:
            with Glance(parameter):
                pass
        except Failure as e:
            is_true(says in str(e), str(e))
        else:
            raise Failure(f"{parameter} is taken")


def web_servers_are_locations(c):
    """As Glance's store for them: owners name what may be imported from, it is
    not read until somebody wants it, and then handed on, in ranges too."""
    tokens = c.path("tokens")
    with open(tokens, "w") as f:
        json.dump({t: {"project": p, "user": "u", "roles": [r]}
                   for t, p, r in (("one", "p1", "member"),
                                   ("two", "p2", "member"),
                                   ("look", "p1", "reader"),
                                   ("boss", "p0", "admin"))}, f)
    with open(c.path("empty"), "wb"):
        pass
    web = Web(c.folder)
    with web, Glance("show-locations=true", f"auth=tokens:{tokens}",
                     *web.allowed()) as g:
        url, image = web.url("disk.raw"), "/v2/images"
        fields = {"disk_format": "raw", "container_format": "bare",
                  "visibility": "community"}

        def change(status, op, path, want=None, token="one", **more):
            return run_row(g, Row("PATCH", image, status, want, [
                {"op": op, "path": path, **more}], PATCH, token=token))

        def at(url, **more):
            return {"url": url, "metadata": {"a": "b"}, **more}

        i = g.request("POST", image, fields, token="one").json["id"]
        image += "/" + i
        for bad in (web.url("none"), "http://127.0.0.1:1/x",
                    web.url("to/http://127.0.0.1:1/"), web.url("empty"),
                    "http://", "https:///x", "gopher://a/b",
                    "file:///etc/passwd", ""):
            change(400, "add", "/locations/-", "Invalid location",
                   value=at(bad))
        asked = web.asked
        for token, status in (("two", 403), ("look", 403)):
            change(status, "add", "/locations/-", token=token, value=at(url))
        is_equal(web.asked, asked, "what others make the server ask for")
        change(200, "add", "/locations/-", {
            "status": "active", "size": DISK_BYTES, "checksum": None,
            "locations": [at(url)]}, value=at(url))
        for token, seen in (("one", [at(url)]), ("look", [at(url)]),
                            ("boss", [at(url)]), ("two", [])):
            is_equal(g.request("GET", image, token=token).json["locations"],
                     seen, f"what {token} sees")
        for headers, first, last in (({}, 0, DISK_BYTES - 1),
                                     ({"Range": "bytes=5-9"}, 5, 9),
                                     ({"Range": "bytes=-3"}, DISK_BYTES - 3,
                                      DISK_BYTES - 1)):
            a = g.request("GET", image + "/file", headers=headers, token="two")
            is_equal(a.status, 206 if headers else 200, "the status")
            is_true(a.body == c.disk[first:last + 1], f"{headers}: other data")
        is_equal(web.ranges[-1], f"bytes={DISK_BYTES - 3}-{DISK_BYTES - 1}",
                 "what is passed on")
        is_equal(g.request("GET", image + "/file",
                           headers={"Range": f"bytes={DISK_BYTES}-"},
                           token="one").status, 416, "behind the end")
        whole = web.url("whole/disk.raw")
        change(200, "add", "/locations/-", {"locations": [
            at(url), at(whole)]}, value=at(whole))
        change(200, "remove", "/locations/0", {"locations": [at(whole)]})
        for first, last in ((0, 0), (7, 99), (DISK_BYTES - 9, DISK_BYTES - 1)):
            a = g.request("GET", image + "/file", token="one",
                          headers={"Range": f"bytes={first}-{last}"})
            is_true(a.status == 206 and a.body == c.disk[first:last + 1],
                    "other data of a server that knows no ranges")
        change(403, "remove", "/locations/0", "Cannot remove last")
        # No disk of ours.
        try:
            with Client(g.nbd_socket, 10) as n:
                n.go(i.encode())
        except NoExport:
            pass
        else:
            raise Failure("it is an export")
        is_equal(g.request("GET", image + "/file?format=raw",
                           token="one").status, 400, "the decoded disk")
        for action, status in (("deactivate", "deactivated"),
                               ("reactivate", "active")):
            run_row(g, Row("POST", f"{image}/actions/{action}", 204,
                           token="boss"))
            is_equal(g.request("GET", image, token="one").json["status"],
                     status, "the status")
        # It may become shorter, and go.
        name = c.path("moving")
        with open(name, "wb") as f:
            f.write(c.disk)
        change(200, "add", "/locations/0", value=at(web.url("moving")))
        change(200, "remove", "/locations/1")
        with open(name, "wb") as f:
            f.write(c.disk[:100])
        try:
            a = g.request("GET", image + "/file", token="one")
            raise Failure(f"{len(a.body)} bytes of 100")
        except http.client.IncompleteRead:
            pass
        os.unlink(name)
        is_equal(g.request("GET", image + "/file", token="one").status, 404,
                 "the status of what is gone")
        # Upload first: the data go when nobody names them any more.
        image = "/v2/images/" + g.request("POST", "/v2/images", fields,
                                          token="one").json["id"]
        run_row(g, Row("PUT", image + "/file", 204, None, c.disk, OCTETS,
                       token="one"))
        kept = os.path.join(g.store, "images", image[11:13], image[11:])
        is_equal(g.request("GET", image, token="one").json["locations"],
                 [{"url": "file://" + kept, "metadata": {}}], "an upload's")
        change(200, "add", "/locations/-", {"locations": [{}, at(url)]},
               value=at(url))
        with Client(g.nbd_socket, 10) as n:
            n.go(grant(g, image, "one"))
            change(200, "remove", "/locations/0", {"locations": [at(url)]})
            is_equal(n.read(0, 512), (0, c.disk[:512]), "who has it open")
        is_true(not os.path.exists(kept), "the data are kept")
        a = g.request("GET", image + "/file", token="one")
        is_true(a.body == c.disk, "other data")
        run_row(g, Row("DELETE", image, 204, token="one"))


def grant(g, image, token):
    a = g.request("POST", image + "/grants", token=token)
    return a.json["export"].encode()


def locations_have_an_endpoint(c):
    """Of API 2.17; POST /v2/images takes none, shown or not."""
    folder, tokens = c.path("endpoint"), c.path("tokens")
    os.mkdir(folder)
    with open(os.path.join(folder, "a.qcow2"), "wb") as f:
        f.write(c.files["qcow2"])
    url = f"file://{folder}/a.qcow2"
    image = {"disk_format": "qcow2", "container_format": "bare"}
    with Glance(f"location-dirs={folder}") as g:
        at = f"/v2/images/{create(g, 'qcow2')}/locations"
        for row in (Row("GET", at, 403, "invisible"),
                    Row("POST", at, 403, "invisible", {"url": url}),
                    Row("POST", "/v2/images", 403, "is reserved", {
                        **image, "locations": [{"url": url,
                                                "metadata": {}}]})):
            run_row(g, row)
    with open(tokens, "w") as f:
        json.dump({t: {"project": "one", "user": "u", "roles": [t]}
                   for t in ("admin", "member")}, f)
    with Glance(f"location-dirs={folder}", "show-locations=true",
                f"auth=tokens:{tokens}") as g:
        a = g.request("POST", "/v2/images", image, token="member")
        at = f"/v2/images/{a.json['id']}/locations"
        none = at.replace(a.json["id"], a.json["id"][::-1])
        sha = hashlib.sha512(c.files["qcow2"]).hexdigest()
        data = {"os_hash_algo": "sha512", "os_hash_value": sha}
        admin = {"token": "admin"}
        for row in (
                Row("GET", at, 403, "get_image_location", token="member"),
                Row("POST", at, 403, "add_image_location", {"url": url},
                    token="member"),
                Row("GET", none, 404, **admin),
                Row("POST", none, 404, None, {"url": url}, **admin),
                Row("GET", at, 200, [], **admin),
                Row("POST", at, 400, None, {}, **admin),
                Row("POST", at, 400, None, {"url": 5}, **admin),
                Row("POST", at, 400, None, "[]", **admin),
                Row("POST", at, 400, "no file", {"url": url + "x"}, **admin),
                Row("POST", at, 400, "Invalid location", {"url": "rbd://a"},
                    **admin),
                Row("POST", at, 202, None, {"url": url,
                                            "validation_data": data}, **admin),
                Row("GET", at, 200, [{"url": url, "metadata": {}}], **admin),
                Row("GET", at[:-10], 200, {"status": "active",
                                           "os_hash_value": sha},
                    token="member"),
                Row("POST", at, 409, "only be added", {"url": url}, **admin),
                Row("DELETE", at, 405, **admin),
                Row("POST", "/v2/images", 403, "is reserved", {
                    **image, "locations": [{"url": url, "metadata": {}}]},
                    **admin)):
            run_row(g, row)
        listed = g.request("GET", "/v2/images", token="admin").json["images"]
        is_equal(len(listed), 1, "the number of images")


def images_are_inspected(c):
    with Glance() as g:
        i = create(g, "qcow2")
        run_row(g, Row("GET", f"/v2/images/{i}/inspect", 409, "has no data"))
        run_row(g, Row("GET", "/v2/images/x/inspect", 404))
        upload(g, i, c.files["qcow2"])
        a = run_row(g, Row("GET", f"/v2/images/{i}/inspect", 200, {
            "filename": i, "format": "qcow2", "declared-format": "qcow2",
            "virtual-size": DISK_BYTES, "encrypted": False, "safe": True,
            "references": [], "dirty-flag": False,
            "glance-disk-format": "qcow2", "cluster-size": 65536,
            "format-specific": {"type": "qcow2"}}))
        want = json.loads(run([os.environ["PLATTER"], "info", "--json",
                               c.path("disk.qcow2")])[1])
        for key in set(want) & set(a.json) - {"filename", "format-guessed",
                                              "actual-size"}:
            is_equal(a.json[key], want[key], key)
        is_true(g.store not in a.text, "the store's folder is told")
        # Somebody changes the file behind the service's back.
        run(["qemu-img", "rebase", "-u", "-b", "/etc/passwd", "-F", "raw",
             os.path.join(g.store, "images", i[:2], i)])
        run_row(g, Row("GET", f"/v2/images/{i}/inspect", 200, {
            "safe": False, "reason": lambda r: "backing file" in r,
            "backing-filename": "/etc/passwd", "references": [{
                "filename": "/etc/passwd", "allowed": False}]}))


def rows(g, sql, *values):
    db = sqlite3.connect(os.path.join(g.store, "index.sqlite"))
    try:
        with db:
            return db.execute(sql, values).fetchall()
    finally:
        db.close()


def with_snapshots(path, count):
    """The qcow2 file, with its one snapshot listed @count times."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    table = struct.unpack_from(">Q", data, 64)[0]
    l1 = data[table:table + 12]
    data += bytes(-len(data) % 65536)
    struct.pack_into(">IQ", data, 60, count, len(data))
    for k in range(count):
        name = b"%d" % (k + 1)
        entry = l1 + struct.pack(">HHIIQII", len(name), len(name), 0, 0, 0, 0,
                                 16) + struct.pack(">QQ", 0, 1 << 20)
        entry += name * 2
        data += entry + bytes(-len(entry) % 8)
    return bytes(data)


def what_is_too_much_to_keep_is_told(c):
    path = c.path("many.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"])
    run(["qemu-img", "snapshot", "-c", "one", path])
    with Glance() as g:
        for count, kept in (1024, 1), (1025, 0):
            i = create(g, "qcow2")
            upload(g, i, with_snapshots(path, count))
            is_equal(rows(g, "SELECT count(*) FROM inspections JOIN images"
                             " ON n = image WHERE id = ?", i), [(kept,)],
                     f"reports kept of an image with {count} snapshots")
            a = g.request("GET", f"/v2/images/{i}/inspect")
            is_equal(len(a.json["snapshots"]), count, "snapshots that are told")
        is_equal(rows(g, "SELECT count(*) FROM snapshots"), [(1024,)],
                 "snapshots that are kept")


def what_was_found_is_kept(c):
    """In the index, from when an image becomes active to when it goes."""
    path = c.path("snapshots.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, "3G"])
    run(["qemu-img", "snapshot", "-c", "monday", path])
    run(["qemu-img", "resize", "-q", path, "5369757696"])
    run(["qemu-img", "snapshot", "-c", "d'or", path])
    with open(path, "rb") as f:
        data = f.read()
    with Glance() as g:
        i = create(g, "qcow2")
        upload(g, i, data)
        n = rows(g, "SELECT n FROM images WHERE id = ?", i)[0][0]
        is_equal(rows(g, "SELECT id, name, bytes FROM snapshots WHERE"
                         " image = ? ORDER BY at", n),
                 [("1", "monday", 3 << 30), ("2", "d'or", 5369757696)],
                 "the snapshots in the index")
        is_equal(rows(g, "SELECT depth, format, bytes, file FROM layers WHERE"
                         " image = ?", n),
                 [(0, "qcow2", 5369757696, i)], "the layers in the index")
        inspect = f"/v2/images/{i}/inspect"
        a = run_row(g, Row("GET", inspect, 200, {
            "safe": True, "min-disk": 6, "virtual-size": 5369757696}))
        is_equal([s["name"] for s in a.json["snapshots"]],
                 ["monday", "d'or"], "the snapshots that are told")
        # Who asks is answered from there, until the file changes.
        rows(g, "UPDATE inspections SET report ="
                " json_set(report, '$.format', 'kept')")
        is_equal(g.request("GET", inspect).json["format"], "kept", "format")
        stored = os.path.join(g.store, "images", i[:2], i)
        run(["qemu-img", "snapshot", "-d", "monday", stored])
        a = run_row(g, Row("GET", inspect, 200, {"format": "qcow2"}))
        is_equal([s["name"] for s in a.json["snapshots"]], ["d'or"],
                 "the snapshots of the file as it is")
        run_row(g, Row("DELETE", f"/v2/images/{i}", 204))
        for table in "inspections", "snapshots", "layers":
            is_equal(rows(g, f"SELECT count(*) FROM {table}"), [(0,)], table)
        # What is not looked into has none.
        i = create(g, "raw", container_format="ova")
        upload(g, i, c.files["qcow2"])
        is_equal(rows(g, "SELECT count(*) FROM inspections"), [(0,)], "ova")


def disks_in_containers_are_the_images(c):
    two = c.path("two.ova")
    one = c.path("one.ova")
    for name in ("a", "b"):
        with open(c.path(f"{name}.qcow2"), "wb") as f:
            f.write(c.files["qcow2"])
    run(["tar", "-cf", one, "-C", c.folder, "a.qcow2"])
    run(["tar", "-cf", two, "-C", c.folder, "a.qcow2", "b.qcow2"])
    with Glance() as g:
        with open(one, "rb") as f:
            i = create(g, "qcow2", container_format="ova")
            upload(g, i, f.read())
        got = show(g, i)
        is_equal((got["virtual_size"], got["min_disk"], got["status"]),
                 (len(c.disk), 1, "active"), "what is known of an OVA")
        raw = g.request("GET", f"/v2/images/{i}/file?format=raw")
        is_true(raw.body == c.disk, "the disk as raw")
        run_row(g, Row("GET", f"/v2/images/{i}/inspect", 200, {
            "format": "qcow2", "safe": True}))
        with Client(g.nbd_socket) as n:
            n.go(i.encode())
            is_equal(n.read(0, 65536), (0, c.disk[:65536]), "the export")
        with Client(g.nbd_socket) as n:
            n.go(f"{i}/a.qcow2".encode())
            is_equal(n.read(0, 65536), (0, c.disk[:65536]), "the export's member")
        with open(two, "rb") as f:
            j = create(g, "qcow2", container_format="ova")
            upload(g, j, f.read())
        is_equal(show(g, j)["virtual_size"], None, "of several disks")
        for name in ("a.qcow2", "b.qcow2"):
            with Client(g.nbd_socket) as n:
                n.go(f"{j}/{name}".encode())
                is_equal(n.read(0, 65536), (0, c.disk[:65536]), name)
        packed = gzip.compress(c.files["qcow2"])
        k = create(g, "qcow2", container_format="compressed")
        upload(g, k, packed)
        is_equal(show(g, k)["virtual_size"], len(c.disk), "of a gzip'd disk")
        with Client(g.nbd_socket) as n:
            n.go(k.encode())
            is_equal(n.read(0, 65536), (0, c.disk[:65536]), "compressed")
        # What unpacks to too much is taken, and not looked into for long.
        bomb = c.path("bomb.zst")
        run(["sh", "-c", f"head -c 1300M /dev/zero | zstd -1 -q -o {bomb}"])
        with open(bomb, "rb") as f:
            k = create(g, "raw", container_format="compressed")
            upload(g, k, f.read())
        is_equal(show(g, k)["virtual_size"], None, "of a bomb")
        # Whatever is called a container is taken, and leads nowhere.
        secret = c.path("secret.img")
        with open(secret, "wb") as f:
            f.write(b"s" * 512)
        evil = ("<Envelope xmlns='envelope'><References><File id='f' href='"
                f"{secret}'/><File id='g' href='../x'/></References>"
                "<DiskSection><Disk diskId='d' fileRef='f'/></DiskSection>"
                "</Envelope>").encode()
        for data in (b"x" * 1000, c.files["qcow2"], evil):
            k = create(g, "qcow2", container_format="ova")
            upload(g, k, data)
            is_equal(show(g, k)["virtual_size"], None, "of no container")
            for name in (k, f"{k}/d", f"{k}/{secret[1:]}",
                         f"{k}/{secret.replace('/', '%2F')}", f"{i}/c.qcow2"):
                with Client(g.nbd_socket) as n:
                    try:
                        n.go(name.encode())
                        is_true(False, f"{name!r} is an export")
                    except NoExport:
                        pass


def the_least_disk_is_what_the_image_needs(c):
    for parameters, least in ((), 1), (("min-disk=asked",), 0):
        with Glance(*parameters) as g:
            for fmt, fields, want in (
                    ("qcow2", {}, least), ("vmdk", {}, least),
                    ("qcow2", {"min_disk": 7}, 7), ("raw", {}, 0)):
                i = create(g, fmt, **fields)
                is_equal(show(g, i)["min_disk"], fields.get("min_disk", 0),
                         "min_disk without data")
                upload(g, i, c.disk if fmt == "raw" else c.files[fmt])
                is_equal(show(g, i)["min_disk"], want,
                         f"min_disk of {fmt} with {parameters}")
            run_row(g, Row("PATCH", f"/v2/images/{i}", 200, {"min_disk": 3},
                           [{"op": "replace", "path": "/min_disk",
                             "value": 3}], headers=PATCH))


# A life by python3-glanceclient, which checks digests as it downloads.
GLANCECLIENT = """
import sys
import glanceclient
url, path, out = sys.argv[1:]
c = glanceclient.Client("2", url, token="t")
i = c.images.create(name="c", disk_format="qcow2", container_format="bare",
                    a="b")
with open(path, "rb") as f:
    c.images.upload(i.id, f)
assert c.images.get(i.id).status == "active"
assert [x.id for x in c.images.list(filters={"name": "c"})] == [i.id]
c.images.update(i.id, remove_props=["a"], name="d", colour="red")
got = c.images.get(i.id)
assert got.name == "d" and got.colour == "red" and "a" not in got
c.image_tags.update(i.id, "t1")
assert c.images.get(i.id).tags == ["t1"]
c.image_tags.delete(i.id, "t1")
c.image_members.create(i.id, "p1")
assert [m.member_id for m in c.image_members.list(i.id)] == ["p1"]
c.image_members.update(i.id, "p1", "accepted")
c.image_members.delete(i.id, "p1")
with open(out, "wb") as f:
    for chunk in c.images.data(i.id, do_checksum=True):
        f.write(chunk)
c.images.deactivate(i.id)
c.images.reactivate(i.id)
c.images.delete(i.id)
assert not list(c.images.list())
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def plain_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("OS_")}


def glanceclient_lives_with_it(c):
    port, out = free_port(), c.path("got")
    with Glance(f"glance=127.0.0.1:{port}", tcp=port):
        run(["/usr/bin/python3", "-c", GLANCECLIENT, f"http://127.0.0.1:{port}",
             c.path("disk.qcow2"), out], env=plain_environment())
    with open(out, "rb") as f:
        is_true(f.read() == c.files["qcow2"], "other data")


def metrics_of(g):
    """By name and labels, as they are written."""
    a = g.request("GET", "/metrics")
    is_equal((a.status, a.headers["content-type"].split(";")[0]),
             (200, "text/plain"), "the answer")
    got, types = {}, set()
    for line in a.text.splitlines():
        if line.startswith("# TYPE "):
            types.add(line.split()[2])
        elif not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            got[name] = float(value)
    for name in got:
        base = name.partition("{")[0]
        for end in ("_bucket", "_sum", "_count"):
            base = base.removesuffix(end)
        is_true(base in types, f"{name} has no type")
    return got


def load_balancers_are_told(c):
    """As oslo.middleware answers."""
    off = c.path("off")
    with Glance(f"health-disable={off}") as g:
        kinds = {None: "text/plain; charset=UTF-8",
                 "text/html": "text/html; charset=UTF-8",
                 "application/json, text/html": "application/json"}
        for status, head, reason in ((200, 204, "OK"),
                                     (503, 503, "DISABLED BY FILE")):
            for accept, kind in kinds.items():
                a = g.request("GET", "/healthcheck", headers={
                    "Accept": accept} if accept else None)
                is_equal((a.status, a.headers["content-type"],
                          reason in a.text), (status, kind, True),
                         f"the answer for {accept}")
            is_equal(a.json, {"detailed": False, "reasons": [reason]},
                     "the reasons")
            is_equal(g.request("GET", "/healthcheck").text, reason, "the text")
            is_equal(g.request("HEAD", "/healthcheck").status, head,
                     "the status of HEAD")
            with open(off, "w"):
                pass
        os.remove(off)
        is_equal(g.request("GET", "/healthcheck").status, 200,
                 "the status when the file has gone")


def operators_see_what_is_asked_for(c):
    log = c.path("access.log")
    with Glance(f"access-log={log}") as g:
        image = create(g, name="seen")
        upload(g, image, c.files["raw"])
        for _ in range(3):
            g.request("GET", "/v2/images/" + image)
        g.request("GET", "/v2/images/no%20thing%C3%A9")
        with Client(g.nbd_socket, 10) as client:
            client.go(image.encode())
            client.read(0, 4096)
            got = metrics_of(g)
        one = '{method="GET",route="/v2/images/{}",status="200"}'
        name = "platter_http_request_duration_seconds"
        is_equal((got[f"{name}_count{one}"],
                  got[f"{name}_bucket{one[:-1]}" + ',le="+Inf"}']), (3, 3),
                 "what was shown")
        is_equal(got['platter_images{status="active"}'], 1, "images")
        is_equal((got["platter_nbd_connections"], got["platter_nbd_exports"],
                  got['platter_nbd_bytes_total{op="read"}']), (1, 1, 4096),
                 "the NBD side")
        os.rename(log, log + ".1")
        g.request("GET", "/v2/images/" + image)
    with open(log + ".1") as f:
        lines = [line.split(" ") for line in f.read().splitlines()]
    is_true(all(len(line) == 11 for line in lines), lines)
    put = [line for line in lines if line[4] == "PUT"]
    is_equal([line[5:7] + [line[8]] for line in put],
             [[f"/v2/images/{image}/file", "204", str(len(c.files["raw"]))]],
             "the upload's line")
    is_equal(put[0][1:4], ["unix", "-", "-"], "who")
    with open(log) as f:
        is_true(f"GET /v2/images/{image} 200 " in f.read(), "after a rename")


def openstackclient_lives_with_it(c):
    port, out = free_port(), c.path("got")
    with Glance(f"glance=127.0.0.1:{port}", tcp=port):
        def image(*args):
            return run(["openstack", "--os-auth-type", "admin_token",
                        "--os-endpoint", f"http://127.0.0.1:{port}/v2",
                        "--os-token", "t", "image", *args],
                       env=plain_environment())[1]

        image("create", "--disk-format", "vmdk", "--container-format", "bare",
              "--property", "a=b", "--tag", "t", "--file",
              c.path("disk.vmdk"), "golden")
        got = json.loads(image("show", "-f", "json", "golden"))
        is_equal(got["status"], "active", "the status")
        is_equal(got["virtual_size"], DISK_BYTES, "the virtual size")
        image("set", "--name", "silver", "--property", "c=d", "golden")
        image("unset", "--property", "a", "--tag", "t", "silver")
        is_equal([i["Name"] for i in json.loads(image("list", "-f", "json"))],
                 ["silver"], "the list")
        image("save", "--file", out, "silver")
        with open(out, "rb") as f:
            is_true(f.read() == c.files["vmdk"], "other data")
        image("delete", "silver")
        is_equal(json.loads(image("list", "-f", "json")), [], "the list")


if __name__ == "__main__":
    environment("PLATTER_PLUGIN", "PLATTER")
    need_programs("nbdkit", "qemu-img", "openstack")
    run_checks(Context, [
        each_row_of_the_table_is_answered,
        data_come_back_and_are_digested,
        no_data_are_fine_whatever_they_are_called,
        ranges_are_served,
        pages_of_other_servers_are_answered,
        what_is_not_what_it_says_is_refused,
        an_upload_that_ends_early_leaves_nothing,
        a_killed_server_starts_tidy,
        images_are_exports,
        sixteen_write_and_sixty_four_read_at_once,
        limits_hold_each_project_by_itself,
        images_are_registered_in_place,
        web_servers_are_locations,
        locations_have_an_endpoint,
        images_are_inspected,
        what_was_found_is_kept,
        what_is_too_much_to_keep_is_told,
        the_least_disk_is_what_the_image_needs,
        disks_in_containers_are_the_images,
        glanceclient_lives_with_it,
        openstackclient_lives_with_it,
        load_balancers_are_told,
        operators_see_what_is_asked_for,
    ])

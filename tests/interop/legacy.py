#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Glance v1 and Cyclades/Image by tables: each row of the guide, both columns."""

import contextlib
import hashlib
import json
import os
import re
import socket
import sqlite3
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from nbd import Client  # noqa: E402
from server import Failure, environment, need_programs  # noqa: E402
from web import Web  # noqa: E402

DATA = bytes(range(256)) * 512
MD5 = hashlib.md5(DATA).hexdigest()
ID = "22222222-2222-4222-8222-222222222222"
OTHER = "44444444-4444-4444-8444-444444444444"


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.pithos = os.path.join(folder, "pithos")
        os.makedirs(os.path.join(self.pithos, "acc", "con"))
        for name in ("disk", "other"):
            with open(os.path.join(self.pithos, "acc", "con", name),
                      "wb") as f:
                f.write(DATA)
        with open(os.path.join(folder, "outside"), "wb") as f:
            f.write(DATA)
        os.symlink("../../outside", os.path.join(self.pithos, "acc", "out"))

    def service(self, store=None, parameters=(), **tokens):
        more = [f"pithos={self.pithos}", *parameters]
        if tokens:
            path = os.path.join(self.folder, "tokens")
            with open(path, "w") as f:
                json.dump({t: {"project": p, "user": p, "roles": roles}
                           for t, (p, *roles) in tokens.items()}, f)
            more.append(f"auth=tokens:{path}")
        return Glance(*more, store=store)


def v1_headers(**more):
    return {"X-Image-Meta-Name": "a", "X-Image-Meta-Disk_format": "raw",
            "X-Image-Meta-Container_format": "bare", **more}


def v1_is_answered_row_by_row(c):
    image, other = f"/v1/images/{ID}", f"/v1/images/{OTHER}"
    meta = {"x-image-meta-id": ID, "x-image-meta-name": "a",
            "x-image-meta-status": "active", "x-image-meta-size": str(len(DATA)),
            "x-image-meta-checksum": MD5, "x-image-meta-is_public": "True",
            "x-image-meta-min_ram": "64", "x-image-meta-disk_format": "raw",
            "x-image-meta-property-os_name": "caf%C3%A9"}
    rows = [
        Row("GET", "/v1/images", 200, {"images": []}),
        Row("GET", "/v1/images/", 200, {"images": []}),
        Row("POST", "/v1/images", 400, "X-Image-Meta-Name"),
        Row("POST", "/v1/images", 400, "Size", headers=v1_headers(
            **{"X-Image-Meta-Size": "much"})),
        Row("POST", "/v1/images", 400, "Is_public", headers=v1_headers(
            **{"X-Image-Meta-Is_public": "perhaps"})),
        Row("POST", "/v1/images", 400, "did not match", DATA, v1_headers(
            **{"X-Image-Meta-Size": "7"})),
        Row("POST", "/v1/images", 400, "did not match", DATA, v1_headers(
            **{"X-Image-Meta-Checksum": "0" * 32})),
        Row("POST", "/v1/images", 400, "External", headers=v1_headers(
            **{"X-Image-Meta-Location": "http://127.0.0.1/a"})),
        Row("POST", "/v1/images", 400, "External", DATA, v1_headers(
            **{"X-Image-Meta-Location": "file:///etc/passwd"})),
        Row("POST", "/v1/images", 400, "External", headers=v1_headers(
            **{"X-Glance-API-Copy-From": "http://127.0.0.1/a"})),
        *[Row("POST", "/v1/images", 400, "reserved", headers=v1_headers(
            **{"X-Image-Meta-Property-" + name: "x"})) for name in (
                "Status", "owner", "Os-Hash-Value", "os_glance_import_task",
                "os_glance_moves_to", "location")],
        *[Row("POST", "/v1/images", 400, "Invalid mix", headers={
            "X-Image-Meta-Name": "a", "X-Image-Meta-Disk_format": disk,
            "X-Image-Meta-Container_format": container})
          for disk, container in (("ami", "bare"), ("raw", "aki"))],
        Row("POST", "/v1/images", 200, {"image": {
            "id": OTHER, "disk_format": "ari", "container_format": "ari"}},
            headers={"X-Image-Meta-Name": "a", "X-Image-Meta-Id": OTHER,
                     "X-Image-Meta-Disk_format": "ari"}),
        Row("PUT", other, 400, "Invalid mix", headers=v1_headers(
            **{"X-Image-Meta-Disk_format": "ami"})),
        Row("PUT", other, 200, {"image": {"disk_format": "ami"}}, headers={
            "X-Image-Meta-Container_format": "ami"}),
        Row("DELETE", other, 200),
        Row("GET", "/v1/images", 200, {"images": []}),
        Row("POST", "/v1/images", 200, {"image": {
            "id": ID, "status": "active", "checksum": MD5, "size": len(DATA),
            "is_public": True, "min_ram": 64,
            "properties": {"os_name": "caf\u00e9"}}}, DATA, v1_headers(**{
                "X-Image-Meta-Id": ID, "X-Image-Meta-Is-Public": "TRUE",
                "X-Image-Meta-Size": str(len(DATA)),
                "X-Image-Meta-Min_ram": "64",
                "X-Image-Meta-Checksum": MD5,
                "X-Image-Meta-Property-OS.Name": urllib.parse.quote(
                    "caf\u00e9")})),
        Row("POST", "/v1/images", 409, None, DATA,
            v1_headers(**{"X-Image-Meta-Id": ID})),
        Row("HEAD", image, 200, answer_headers=meta),
        Row("HEAD", "/v1/images/nothing", 404),
        Row("GET", "/v1/images/detail", 200, {"images": [{
            "id": ID, "min_disk": 0, "deleted_at": None, "created_at":
            lambda t: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+",
                                   t)}]}),
        Row("GET", "/v1/images?name=a&size_min=1&status=active", 200,
            {"images": [{"id": ID}]}),
        Row("GET", "/v1/images?size_max=1", 200, {"images": []}),
        Row("GET", "/v1/images?size_min=x", 400),
        Row("GET", "/v1/images?sort_key=colour", 400),
        Row("GET", "/v1/images?sort_dir=up", 400),
        Row("GET", "/v1/images?sort_key=size&sort_dir=desc", 200),
        Row("PUT", image, 200, {"image": {
            "name": "b", "properties": {"os_name": "caf\u00e9", "x": "1"}}},
            headers={"X-Image-Meta-Name": "b",
                     "X-Image-Meta-Property-x": "1"}),
        Row("PUT", image, 200, {"image": {"properties": {"y": "2"}}},
            headers={"X-Image-Meta-Property-y": "2",
                     "X-Glance-Registry-Purge-Props": "true"}),
        Row("GET", image + "/members", 200, {"members": []}),
        Row("PUT", image, 200, headers={"X-Image-Meta-Is_public": "false"}),
        Row("PUT", image + "/members", 204, None, {"memberships": [
            {"member_id": "p", "can_share": True}, {"member_id": "q"}]}),
        Row("PUT", image + "/members", 400, None, {"memberships": "all"}),
        Row("PUT", image + "/members", 400, None, {"memberships": [{}]}),
        Row("GET", image + "/members", 200, {"members": [
            {"member_id": "p", "can_share": True},
            {"member_id": "q", "can_share": False}]}),
        Row("PUT", image + "/members/r", 204),
        Row("DELETE", image + "/members/q", 204),
        Row("DELETE", image + "/members/q", 404),
        Row("GET", "/v1/shared-images/p", 200, {"shared_images": [
            {"image_id": ID, "can_share": True}]}),
        Row("DELETE", image, 200),
        Row("HEAD", image, 404),
    ]
    with c.service() as g:
        for row in rows:
            run_row(g, row)
            if row.method == "POST" and row.status == 200 and row.send:
                a = g.request("GET", image)
                is_true(a.body == DATA, "other data")
                is_equal(a.headers["x-image-meta-name"], "a", "a header")
                a = g.request("GET", image, headers={"Range": "bytes=1-4"})
                is_true(a.status == 206 and a.body == DATA[1:5], "a range")


def cyclades_headers(location="pithos://acc/con/disk", **more):
    h = {"X-Image-Meta-Name": "a", **more}
    if location is not None:
        h["X-Image-Meta-Location"] = location
    return h


def cyclades_is_answered_row_by_row(c):
    root = "/image/v1.0"
    with c.service() as g:
        for row in (
                Row("GET", "/image/", 200, {"versions": lambda v: v}),
                Row("GET", root + "/images/", 200, []),
                Row("POST", root + "/images/", 400, None,
                    headers={"X-Image-Meta-Location": "pithos://acc/con/disk"}),
                Row("POST", root + "/images/", 501,
                    headers=cyclades_headers(None)),
                Row("POST", root + "/images/", 501,
                    headers=cyclades_headers("")),
                Row("POST", root + "/images/", 404,
                    headers=cyclades_headers("pithos://acc/con/none")),
                Row("POST", root + "/images/", 404,
                    headers=cyclades_headers("pithos://acc/out")),
                Row("POST", root + "/images/", 404,
                    headers=cyclades_headers("pithos://../outside")),
                Row("POST", root + "/images/", 400,
                    headers=cyclades_headers("ftp://a/b")),
                Row("POST", root + "/images/", 400, "did not match",
                    headers=cyclades_headers(**{"X-Image-Meta-Size": "1"})),
                Row("GET", root + "/images/", 200, [])):
            run_row(g, row)
        a = run_row(g, Row("POST", root + "/images/", 200,
                           headers=cyclades_headers(**{
                               "X-Image-Meta-Checksum": MD5,
                               "X-Image-Meta-Is-Public": "TRUE",
                               "X-Image-Meta-Property-OSFAMILY": "linux"})))
        i = a.headers["x-image-meta-id"]
        image = f"{root}/images/{i}"
        for row in (
                Row("HEAD", image, 200, answer_headers={
                    "x-image-meta-status": "available",
                    "x-image-meta-disk-format": "diskdump",
                    "x-image-meta-container-format": "bare",
                    "x-image-meta-is-public": "True",
                    "x-image-meta-location": "pithos://acc/con/disk",
                    "x-image-meta-property-osfamily": "linux",
                    "x-image-meta-deleted-at": "",
                    "x-image-meta-created-at": lambda t: re.fullmatch(
                        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", t)}),
                Row("GET", root + "/images", 200, [{
                    "id": i, "name": "a", "status": "available",
                    "disk_format": "diskdump", "size": len(DATA)}]),
                Row("GET", root + "/images/detail", 200, [{
                    "location": "pithos://acc/con/disk", "is_public": "True",
                    "checksum": MD5, "deleted_at": "",
                    "properties": {"osfamily": "linux"}}]),
                Row("GET", root + "/images?status=available", 200, [{}]),
                Row("PUT", image, 200, headers={"X-Image-Meta-Name": "b"}),
                Row("GET", image + "/members", 200, {"members": []}),
                Row("PUT", image, 200,
                    headers={"X-Image-Meta-Is-Public": "False"}),
                Row("PUT", image + "/members/p", 204),
                Row("GET", image + "/members", 200, {"members": [
                    {"member_id": "p", "can_share": False}]}),
                Row("GET", root + "/shared-images/p", 200, {"shared_images": [
                    {"image_id": i, "can_share": False}]}),
                Row("GET", image, 405)):
            run_row(g, row)
        with Client(g.nbd_socket, 10) as n:
            is_equal(n.go(i.encode()), len(DATA), "the export's size")
            is_equal(n.read(0, len(DATA)), (0, DATA), "the disk")
        # Once more, but not what was meant: the image stays as it is.
        run_row(g, Row("POST", root + "/images/", 400, "did not match",
                       headers=cyclades_headers(
                           **{"X-Image-Meta-Checksum": "0" * 32})))
        run_row(g, Row("GET", root + "/images/detail", 200, [{
            "id": i, "status": "available",
            "properties": {"osfamily": "linux"}}]))
        old = Client(g.nbd_socket, 10)
        is_equal(old.go(i.encode()), len(DATA), "the export's size")
        is_equal(old.read(0, len(DATA)), (0, DATA), "the disk")
        # As it was meant: all is as if new but for the id, and nothing is kept
        # twice.
        run_row(g, Row("PUT", image + "/members/p", 204))
        with open(os.path.join(c.pithos, "acc", "con", "disk"), "wb") as f:
            f.write(DATA[::-1])
        for more in ({"X-Image-Meta-Id": ID}, {"X-Image-Meta-Size": "1"}):
            for method, path in (("POST", root + "/images/"), ("PUT", image)):
                run_row(g, Row(method, path, 400, None, headers={
                    **(cyclades_headers() if method == "POST" else {}),
                    **more}))
        run_row(g, Row("PUT", image, 400, "did not match", headers={
            "X-Image-Meta-Checksum": "0" * 32}))
        run_row(g, Row("PUT", image, 200, headers={
            "X-Image-Meta-Id": i, "X-Image-Meta-Size": str(len(DATA)),
            "X-Image-Meta-Checksum": MD5.upper()}))
        run_row(g, Row("POST", root + "/images/", 400, "gives images their",
                       headers=cyclades_headers("pithos://acc/con/other", **{
                           "X-Image-Meta-Id": ID})))
        for more in ({}, {"X-Image-Meta-Id": i}):
            run_row(g, Row("POST", root + "/images/", 200,
                           headers=cyclades_headers(**more),
                           answer_headers={"x-image-meta-id": i}))
        run_row(g, Row("GET", image + "/members", 200, {"members": []}))
        with Client(g.nbd_socket, 10) as n:
            n.go(i.encode())
            is_equal(n.read(0, 512), (0, DATA[::-1][:512]), "the new disk")
        with old:
            is_equal(old.read(0, 512), (0, DATA[:512]), "what is read on")
        kept = [f for _, _, files in os.walk(os.path.join(g.store, "images"))
                for f in files if not f.endswith(".json")]
        is_equal(len(kept), 1, "the files of data")
        run_row(g, Row("GET", root + "/images/detail", 200, [{
            "id": i, "name": "a", "properties": {}, "is_public": "False"}]))
        for value, status, then in (("deactivated", 200, "deactivated"),
                                    ("saving", 400, "deactivated"),
                                    ("colourful", 400, "deactivated"),
                                    ("available", 200, "available")):
            run_row(g, Row("PUT", image, status,
                           headers={"X-Image-Meta-Status": value}))
            run_row(g, Row("HEAD", image, 200, answer_headers={
                "x-image-meta-status": then}))
        run_row(g, Row("POST", root + "/images/", 200,
                       headers=cyclades_headers("pithos://acc/con/other")))
        pages_are_walked(g, root + "/images/detail", lambda j: j, 2)


def pages_are_walked(g, path, images, n, token=None):
    """One image a page, to the end; and no further than one may see."""
    seen, marker = [], ""
    while True:
        a = run_row(g, Row("GET", f"{path}?limit=1{marker}", 200,
                           token=token))
        if not images(a.json):
            break
        seen.append(images(a.json)[0]["id"])
        marker = "&marker=" + seen[-1]
    is_equal(len(set(seen)), n, "the images on the pages")
    is_equal(len(seen), n, "the pages")
    run_row(g, Row("GET", path + "?limit=x", 400, token=token))
    run_row(g, Row("GET", path + "?marker=" + ID[::-1], 400, token=token))


def v1_data_may_come_later(c):
    with c.service() as g:
        a = run_row(g, Row("POST", "/v1/images", 200, {"image": {
            "status": "queued", "size": 0, "checksum": None}},
            headers=v1_headers()))
        image = "/v1/images/" + a.json["image"]["id"]
        run_row(g, Row("PUT", image, 400, "Is_public", DATA,
                       {"X-Image-Meta-Is_public": "perhaps"}))
        run_row(g, Row("PUT", image, 200, {"image": {
            "status": "active", "size": len(DATA), "checksum": MD5,
            "name": "b"}}, DATA, {"X-Image-Meta-Name": "b",
                                  "X-Image-Meta-Checksum": MD5}))
        run_row(g, Row("PUT", image, 409, None, DATA))
        for k in range(3):
            run_row(g, Row("POST", "/v1/images", 200, None, DATA,
                           v1_headers()))
        pages_are_walked(g, "/v1/images", lambda j: j["images"], 4)
        pages_are_walked(g, "/v1/images/detail", lambda j: j["images"], 4)


def v1_data_that_break_off_kill_the_image(c):
    with c.service() as g:
        for method, image in (("POST", ID), ("PUT", None)):
            if not image:
                image = run_row(g, Row("POST", "/v1/images", 200,
                                       headers=v1_headers())
                                ).json["image"]["id"]
            path = "/v1/images" + ("" if method == "POST" else "/" + image)
            more = v1_headers(**({"X-Image-Meta-Id": image}
                                 if method == "POST" else {}))
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(g.socket)
                s.sendall((f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
                           "Content-Type: application/octet-stream\r\n"
                           f"Content-Length: {len(DATA)}\r\n" + "".join(
                               f"{k}: {v}\r\n" for k, v in more.items())
                           + "\r\n").encode() + DATA[:1000])
                wait_for_status(g, image, "saving")
            wait_for_status(g, image, "killed")
            is_equal(os.listdir(os.path.join(g.store, "incoming")), [],
                     "what is left behind")
            run_row(g, Row("PUT", "/v1/images/" + image, 409, None, DATA))
            run_row(g, Row("GET", "/v1/images", 200, {"images": []}))
            run_row(g, Row("DELETE", "/v1/images/" + image, 200))
        run_row(g, Row("POST", "/v1/images", 400, "did not match", DATA,
                       v1_headers(**{"X-Image-Meta-Size": "7"})))
        run_row(g, Row("GET", "/v2/images?status=killed", 200,
                       {"images": []}))


def v1_registers_files_in_place(c):
    """For administrators, where locations are shown; else see the table."""
    url = f"file://{c.pithos}/acc/con/other"
    with c.service(boss=("p0", "admin"), one=("p1", "member"), parameters=[
            f"location-dirs={c.pithos}", "show-locations=true"]) as g:
        for more, data, token, status in (
                ({"X-Image-Meta-Size": "7"}, None, "boss", 400),
                ({}, DATA, "boss", 400),
                ({}, None, "one", 405),
                ({"X-Image-Meta-Location": f"file://{c.pithos}/acc/out"}, None,
                 "boss", 400),
                ({"X-Image-Meta-Disk_format": "qcow2"}, None, "boss", 400)):
            run_row(g, Row("POST", "/v1/images", status, None, data,
                           v1_headers(**{"X-Image-Meta-Location": url,
                                         **more}), token=token))
        run_row(g, Row("GET", "/v1/images", 200, {"images": []}, token="boss"))
        a = run_row(g, Row("POST", "/v1/images", 200, {"image": {
            "status": "active", "size": len(DATA), "checksum": MD5}},
            headers=v1_headers(**{"X-Image-Meta-Location": url,
                                  "X-Image-Meta-Checksum": MD5,
                                  "X-Image-Meta-Size": str(len(DATA))}),
            token="boss"))
        image = "/v1/images/" + a.json["image"]["id"]
        is_true(g.request("GET", image, token="boss").body == DATA, "other data")
        run_row(g, Row("DELETE", image, 200, token="boss"))
    is_true(os.path.exists(url[7:]), "the file is gone")


def v1_registers_data_at_a_web_server(c):
    folder = os.path.join(c.folder, "web")
    os.makedirs(folder)
    with open(os.path.join(folder, "disk"), "wb") as f:
        f.write(DATA)
    with Web(folder) as web, c.service(one=("p1", "member"), parameters=[
            "show-locations=true", *web.allowed()]) as g:
        def row(status, want=None, location=web.url("disk"), data=None,
                **more):
            return run_row(g, Row("POST", "/v1/images", status, want, data,
                                  v1_headers(**{
                                      "X-Image-Meta-Location": location,
                                      **more}), token="one"))
        row(400, location=web.url("disk").replace("127.0.0.1", "127.0.0.2"))
        row(400, location=f"http://127.0.0.1:{web.port + 1}/")
        row(400, location=web.url("nothing"))
        row(400, data=DATA)
        row(400, "did not match", **{"X-Image-Meta-Size": "7"})
        row(400, location="", **{"X-Glance-API-Copy-From": web.url("disk")})
        run_row(g, Row("GET", "/v1/images", 200, {"images": []}, token="one"))
        a = row(200, {"image": {"status": "active", "size": len(DATA)}},
                **{"X-Image-Meta-Size": str(len(DATA))})
        image = "/v1/images/" + a.json["image"]["id"]
        is_true(g.request("GET", image, token="one").body == DATA,
                "other data")
        run_row(g, Row("DELETE", image, 200, token="one"))
    with Web(folder) as web, c.service(one=("p1", "member"),
                                       parameters=web.allowed()) as g:
        run_row(g, Row("POST", "/v1/images", 400, "not supported", None,
                       v1_headers(**{"X-Image-Meta-Location":
                                     web.url("disk")}), token="one"))


def wait_for_status(g, image, status):
    for _ in range(1000):
        a = g.request("HEAD", "/v1/images/" + image)
        if a.headers.get("x-image-meta-status") == status:
            return
        time.sleep(0.01)
    raise Failure(f"it is {a.headers}, not {status}")


def a_registration_that_is_cut_off_is_finished(c):
    """The server ends when the index has the new image and the data are not
    where they belong yet: made by moving them back, and telling the index."""
    store = os.path.join(c.folder, "cut")
    with c.service(store=store) as g:
        a = run_row(g, Row("POST", "/image/v1.0/images/", 200,
                           headers=cyclades_headers("pithos://acc/con/other")))
        old = a.headers["x-image-meta-id"]
    new = "33333333-3333-4333-8333-333333333333"
    os.makedirs(os.path.join(store, "images", "33"))
    with open(os.path.join(store, "images", "33", new), "wb") as f:
        f.write(DATA[::-1])
    with contextlib.closing(sqlite3.connect(
            os.path.join(store, "index.sqlite"))) as d, d:
        d.execute("INSERT INTO images (id, status, visibility, created_at, "
                  "updated_at) VALUES (?, 'pending_delete', 'shared', 1, 1)",
                  (new,))
        d.execute("INSERT INTO properties (image, name, value) "
                  "SELECT n, 'os_glance_moves_to', ? FROM images WHERE id = ?", (old, new))
    with c.service(store=store) as g:
        a = g.request("GET", f"/v2/images/{old}/file")
        is_true(a.body == DATA[::-1], "the old data are there")
        run_row(g, Row("GET", "/v2/images", 200, {"images": [{"id": old}]}))


def others_may_not_change_what_they_may_see(c):
    with c.service(one=("p1", "member"), two=("p2", "member"),
                   boss=("p0", "admin")) as g:
        a = g.request("POST", "/v1/images", DATA, v1_headers(), token="one")
        is_equal(a.status, 200, "the status")
        image = "/v1/images/" + a.json["image"]["id"]
        for method in ("HEAD", "GET", "PUT", "DELETE"):
            is_equal(g.request(method, image, token="two").status, 404,
                     f"the status of {method}")
        is_equal(g.request("PUT", image, headers={
            "X-Image-Meta-Is_public": "true"}, token="one").status, 405,
            "a member publishes")
        is_equal(g.request("PUT", image, headers={
            "X-Image-Meta-Is_public": "true"}, token="boss").status, 200,
            "an administrator publishes")
        is_equal(g.request("HEAD", image, token="two").status, 200, "HEAD")
        is_equal(g.request("PUT", image, headers={
            "X-Image-Meta-Owner": "p2"}, token="one").status, 405,
            "a member gives an image away")
        for method in ("PUT", "DELETE"):
            is_equal(g.request(method, image, headers={
                "X-Image-Meta-Name": "x"}, token="two").status, 405,
                f"the status of {method}")
        is_equal(g.request("GET", "/v1/images").status, 401, "the status")
        is_equal(g.request("GET", "/v1/shared-images/p1", token="two").status,
                 404, "another's shared images")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit")
    run_checks(Context, [
        v1_is_answered_row_by_row,
        cyclades_is_answered_row_by_row,
        v1_data_may_come_later,
        v1_registers_files_in_place,
        v1_registers_data_at_a_web_server,
        v1_data_that_break_off_kill_the_image,
        a_registration_that_is_cut_off_is_finished,
        others_may_not_change_what_they_may_see,
    ])

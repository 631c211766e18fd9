#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Several stores: what a Glance 25.1 with several answers to the same requests;
copies that come and go; servers that are killed meanwhile."""

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from nbd import Client  # noqa: E402
from server import Failure, environment, need_programs  # noqa: E402
from web import Web  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
WAIT_SEC = 60
ROUNDS = 8
NAMES = ("file", "second", "third")


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(5).randbytes(300000)
        self.n = 0

    def folders(self):
        """Three that are new."""
        self.n += 1
        return [os.path.join(self.folder, f"{self.n}-{n}") for n in NAMES]

    def service(self, folders, *more):
        return Glance(*[f"store={n}={d}"
                        for n, d in list(zip(NAMES, folders))[1:]], *more,
                      store=folders[0])


def new(g, **fields):
    a = g.request("POST", "/v2/images", {
        "disk_format": "raw", "container_format": "bare", **fields})
    is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
    return a.json["id"]


def upload(g, data, store=None):
    i = new(g)
    run_row(g, Row("PUT", f"/v2/images/{i}/file", 204, None, data, {
        **OCTETS, **({"X-Image-Meta-Store": store} if store else {})}))
    return i


def show(g, image):
    return g.request("GET", f"/v2/images/{image}").json


def wait_for_task(g, image):
    """The last task of it, ended."""
    end = time.monotonic() + WAIT_SEC
    while time.monotonic() < end:
        tasks = g.request("GET", f"/v2/images/{image}/tasks").json["tasks"]
        if tasks and tasks[-1]["status"] in ("success", "failure"):
            return tasks[-1]
        time.sleep(0.02)
    raise Failure("it takes too long")


def begin(g, image, method, status=202, **more):
    return run_row(g, Row("POST", f"/v2/images/{image}/import", status, None,
                          {"method": {"name": method}, **more}))


def place(folder, image):
    return os.path.join(folder, "images", image[:2], image)


def kept(folders, image):
    """In which of them its data are."""
    return [n for n, d in zip(NAMES, folders)
            if os.path.exists(place(d, image))]


def left_behind(folders):
    return [os.path.join(d, a, f) for d in folders
            for a in ("incoming", "staging", "lost+found")
            if os.path.isdir(os.path.join(d, a))
            for f in os.listdir(os.path.join(d, a))]


def stores_are_told(c):
    with Glance() as g:
        is_true("openstack-image-store-ids" not in g.request(
            "POST", "/v2/images", {}).headers, "one store is told")
        i = upload(g, c.disk, "nothing")
        is_true("stores" not in show(g, i), "one store is told")
        run_row(g, Row("DELETE", f"/v2/stores/file/{i}", 404))
    folders = c.folders()
    with c.service(folders, "show-locations=true") as g:
        run_row(g, Row("GET", "/v2/info/stores", 200, {"stores": [
            {"id": "file", "default": "true"}, {"id": "second"},
            {"id": "third"}]}))
        run_row(g, Row("GET", "/v2/info/stores/detail", 200, {"stores": [
            {"id": n, "type": "file", "properties": {"data_dir": d}}
            for n, d in zip(NAMES, folders)]}))
        run_row(g, Row("POST", "/v2/images", 201, None, {}, answer_headers={
            "OpenStack-image-store-ids": "file,second,third"}))
        for name in (None, *NAMES):
            i = upload(g, c.disk, name)
            at = name or "file"
            got = show(g, i)
            is_equal((got["stores"], kept(folders, i), got["locations"]),
                     (at, [at], [{"url": "file://" + place(
                         folders[NAMES.index(at)], i),
                         "metadata": {"store": at}}]), f"an image in {at}")
            is_true(g.request("GET", f"/v2/images/{i}/file").body == c.disk,
                    "other data")
            with Client(g.nbd_socket, 10) as n:
                n.go(i.encode())
                is_equal(n.read(512, 512), (0, c.disk[512:1024]), "the disk")
            run_row(g, Row("DELETE", f"/v2/images/{i}", 204))
            is_equal(kept(folders, i), [], "what is left of it")
        i = new(g)
        run_row(g, Row("PUT", f"/v2/images/{i}/file", 400,
                       "Store for identifier nope not found", c.disk, {
                           **OCTETS, "X-Image-Meta-Store": "nope"}))
        is_equal(show(g, i)["status"], "queued", "the status")
        is_equal(left_behind(folders), [], "what is left behind")
    for bad, says in (([f"store={folders[1]}"], "no NAME="),
                      (["store=file=" + folders[1]], "file is there twice"),
                      (["store=a=" + folders[1], "store=a=" + folders[2]],
                       "a is there twice"),
                      (["store=a="], "neither DIR nor NAME=DIR"),
                      (["store=a=" + folders[0]], "")):
        try:
            with Glance(*bad, store=folders[0]):
                raise Failure("it is taken")
        except Failure as e:
            is_true(says in str(e) and "is taken" not in str(e), str(e))


def copies_come_and_go(c):
    folders = c.folders()
    with c.service(folders) as g:
        i = upload(g, c.disk)
        begin(g, i, "copy-image", stores=["second"])
        is_equal(wait_for_task(g, i)["status"], "success", "the task")
        got = show(g, i)
        is_equal((got["status"], got["stores"], kept(folders, i),
                  got["os_glance_importing_to_stores"],
                  got["os_glance_failed_import"],
                  "os_glance_import_task" in got),
                 ("active", "file,second", ["file", "second"], "", "", False),
                 "the image")
        for body, status in (({"stores": ["second"]}, 400), ({}, 400),
                             ({"stores": ["nope"]}, 409),
                             ({"stores": "third"}, 400),
                             ({"stores": [5]}, 400),
                             ({"stores": ["third"], "all_stores": True}, 400)):
            begin(g, i, "copy-image", status, **body)
        begin(g, i, "copy-image", all_stores=True)
        is_equal(wait_for_task(g, i)["status"], "success", "the task")
        is_equal(kept(folders, i), list(NAMES), "where it is")
        begin(g, i, "copy-image", all_stores=True)  # nothing is to be done
        for d in folders:
            with open(place(d, i), "rb") as f:
                is_true(f.read() == c.disk, f"other data in {d}")
        for path, status, says in (
                (f"nope/{i}", 409, "is not available"),
                (f"second/{i[::-1]}", 404, "No image found"),
                (f"file/{i}", 204, ""), (f"file/{i}", 404, "is not stored in"),
                (f"second/{i}", 204, ""), (f"third/{i}", 403, "the only")):
            run_row(g, Row("DELETE", "/v2/stores/" + path, status, says))
        is_equal((show(g, i)["stores"], kept(folders, i)),
                 ("third", ["third"]), "where it is")
        is_true(g.request("GET", f"/v2/images/{i}/file").body == c.disk,
                "other data")
    # And after a new start, where the first has what is said of it alone.
    with c.service(folders) as g:
        is_equal((show(g, i)["stores"], kept(folders, i)),
                 ("third", ["third"]), "where it is")
        is_true("missing" not in g.messages(), g.messages())
        begin(g, i, "copy-image", stores=["file"])
        is_equal(wait_for_task(g, i)["status"], "success", "the task")
        is_equal(show(g, i)["stores"], "third,file", "where it is")
        run_row(g, Row("DELETE", f"/v2/images/{i}", 204))
        is_equal(kept(folders, i) + left_behind(folders), [], "what is left")


def imports_go_to_several(c):
    folders = c.folders()
    with c.service(folders) as g:
        for more, where in (({}, ["file"]), ({"stores": ["third"]}, ["third"]),
                            ({"stores": ["second", "third"]},
                             ["second", "third"]),
                            ({"all_stores": True}, list(NAMES))):
            i = new(g)
            run_row(g, Row("PUT", f"/v2/images/{i}/stage", 204, None, c.disk,
                           OCTETS))
            begin(g, i, "glance-direct", **more)
            is_equal(wait_for_task(g, i)["status"], "success", "the task")
            got = show(g, i)
            is_equal((got["status"], got["stores"].split(","),
                      kept(folders, i), got["os_glance_importing_to_stores"]),
                     ("active", where, where, ""), f"{more}")
            is_true(g.request("GET", f"/v2/images/{i}/file").body == c.disk,
                    "other data")
        is_equal(left_behind(folders), [], "what is left behind")
        # One of them cannot be written.
        os.rename(os.path.join(folders[1], "incoming"),
                  os.path.join(folders[1], "was-incoming"))
        for must, status, where in ((True, "failure", []),
                                    (False, "success", ["file", "third"])):
            i = new(g)
            run_row(g, Row("PUT", f"/v2/images/{i}/stage", 204, None, c.disk,
                           OCTETS))
            begin(g, i, "glance-direct", all_stores=True,
                  all_stores_must_succeed=must)
            t = wait_for_task(g, i)
            got = show(g, i)
            is_equal((t["status"], got["status"], kept(folders, i),
                      got["os_glance_failed_import"]),
                     (status, "queued" if must else "active", where,
                      "" if must else "second"), f"must: {must}: {t}")
            i = upload(g, c.disk)
            begin(g, i, "copy-image", all_stores=True,
                  all_stores_must_succeed=must)
            t = wait_for_task(g, i)
            is_equal((t["status"], show(g, i)["status"], kept(folders, i)),
                     (status, "active", ["file"] if must else where),
                     f"a copy, must: {must}: {t}")


def killed_servers_lose_nothing(c):
    """Wherever a copy, or the removal of one, is cut: each store that the image
    names has it whole, no other has it."""
    folders, rng = c.folders(), random.Random(7)
    big = rng.randbytes(4 << 20) * 6
    image = None
    for n in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            g = c.service(folders)
            stack.callback(lambda g=g: g.end())
            if not image:
                image = upload(g, big)
            else:
                tasks = g.request("GET", f"/v2/images/{image}/tasks"
                                  ).json["tasks"]
                if tasks:
                    wait_for_task(g, image)
                named = show(g, image)["stores"].split(",")
                is_equal(sorted(named), sorted(kept(folders, image)),
                         f"round {n}: where it is")
                for name in named:
                    with open(place(folders[NAMES.index(name)], image),
                              "rb") as f:
                        is_true(f.read() == big, f"round {n}: other data")
                is_equal(left_behind(folders), [], f"round {n}: left behind")
                for name in named[1:]:
                    run_row(g, Row("DELETE", f"/v2/stores/{name}/{image}",
                                   204))
            begin(g, image, "copy-image", all_stores=True)
            time.sleep(rng.random() * 0.25)
            g.kill()
    # What no chance has met: the data are there, the index does not say so.
    with c.service(folders) as g:
        wait_for_task(g, image)
        for name in show(g, image)["stores"].split(",")[1:]:
            run_row(g, Row("DELETE", f"/v2/stores/{name}/{image}", 204))
        first = NAMES.index(kept(folders, image)[0])
    other = (first + 1) % 3
    os.makedirs(os.path.dirname(place(folders[other], image)), exist_ok=True)
    with open(place(folders[other], image), "wb") as f:
        f.write(big[:100])
    with contextlib.closing(sqlite3.connect(
            os.path.join(folders[0], "index.sqlite"))) as d, d:
        d.execute("INSERT INTO tombstones (id, kind, made_at) VALUES "
                  "(?, 'copy', 1)", (image,))
    with c.service(folders) as g:
        is_equal(kept(folders, image), [NAMES[first]], "where it is")
        is_true(g.request("GET", f"/v2/images/{image}/file").body == big,
                "other data")


def what_a_web_server_has_is_copied(c):
    """An image that is nowhere but at a location, whole, or refused."""
    folders, web_folder = c.folders(), os.path.join(c.folder, "web")
    os.mkdir(web_folder)
    with open(os.path.join(web_folder, "disk"), "wb") as f:
        f.write(c.disk)
    sha512 = hashlib.sha512(c.disk).hexdigest()
    with Web(web_folder) as web, c.service(
            folders, "show-locations=true", *web.allowed()) as g:
        images = [new(g), new(g)]
        for i in images:
            run_row(g, Row("PATCH", f"/v2/images/{i}", 200, send=[
                {"op": "add", "path": "/locations/-", "value": {
                    "url": web.url("disk"), "metadata": {},
                    "validation_data": {"os_hash_algo": "sha512",
                                        "os_hash_value": sha512,
                                        "checksum": hashlib.md5(
                                            c.disk).hexdigest()}}}],
                headers=PATCH))
        begin(g, images[0], "copy-image", stores=["second"])
        is_equal(wait_for_task(g, images[0])["status"], "success", "the task")
        is_equal(kept(folders, images[0]), ["second"], "where it is")
        with open(place(folders[1], images[0]), "rb") as f:
            is_true(f.read() == c.disk, "another copy")
        with open(os.path.join(web_folder, "disk"), "r+b") as f:
            f.write(b"another")
        begin(g, images[1], "copy-image", stores=["second"])
        task = wait_for_task(g, images[1])
        is_equal(task["status"], "failure", "the task")
        is_true("digest" in task["message"], task["message"])
        is_equal(show(g, images[1])["os_glance_failed_import"], "second",
                 "what failed")
        is_equal(kept(folders, images[1]), [], "where it is")
        is_equal(left_behind(folders), [], "what is left behind")


def the_cache_tells_what_was_wanted(c):
    with Glance() as g:
        i, j, queued = upload(g, c.disk), upload(g, c.disk), new(g)

        def cached():
            return {e["image_id"]: e["hits"] for e in g.request(
                "GET", "/v2/cache").json["cached_images"]}

        def waiting():
            return g.request("GET", "/v2/cache").json["queued_images"]

        run_row(g, Row("PUT", "/v2/cache/" + i, 202))
        run_row(g, Row("PUT", "/v2/cache/" + queued, 400, "status active"))
        run_row(g, Row("PUT", "/v2/cache/x", 404, "Image x not found."))
        is_equal(waiting() or [i], [i], "what is queued")
        deadline = time.monotonic() + 60
        while waiting():
            is_true(time.monotonic() < deadline, "it is queued for ever")
            time.sleep(0.1)
        is_equal(cached(), {i: 0}, "what is cached")
        for _ in range(2):
            for image in (i, j):
                g.request("GET", f"/v2/images/{image}/file")
        is_equal(cached(), {i: 2, j: 1}, "what is cached")
        entry = g.request("GET", "/v2/cache").json["cached_images"][0]
        is_equal(entry["size"], len(c.disk), "the size")
        is_true(abs(time.time() - entry["last_accessed"]) < 600 and
                entry["last_modified"] <= entry["last_accessed"], str(entry))
        run_row(g, Row("DELETE", "/v2/cache/" + i, 204))
        run_row(g, Row("DELETE", "/v2/cache/x", 404, "Image x not found."))
        run_row(g, Row("DELETE", "/v2/cache", 400, "clear-target", headers={
            "x-image-cache-clear-target": "bad"}))
        run_row(g, Row("DELETE", "/v2/cache", 204, headers={
            "x-image-cache-clear-target": "queue"}))
        is_equal(cached(), {j: 1}, "what is cached")
        run_row(g, Row("DELETE", "/v2/images/" + j, 204))
        is_equal(cached(), {}, "what is deleted")
        g.request("GET", f"/v2/images/{i}/file")
        is_equal(cached(), {i: 0}, "what was downloaded")
        run_row(g, Row("DELETE", "/v2/cache", 204, headers={
            "x-image-cache-clear-target": "Cache"}))
        is_equal(cached(), {}, "what is cleared")
        run_row(g, Row("PUT", "/v2/cache/" + i, 202))
        run_row(g, Row("DELETE", "/v2/cache", 204))
        is_equal((waiting(), cached()), ([], {}), "what is cleared")


def others_may_not(c):
    folders, tokens = c.folders(), os.path.join(c.folder, "tokens")
    with open(tokens, "w") as f:
        json.dump({t: {"project": p, "user": "u", "roles": [r]}
                   for t, p, r in (("one", "p1", "member"),
                                   ("two", "p2", "member"),
                                   ("boss", "p0", "admin"))}, f)
    with c.service(folders, f"auth=tokens:{tokens}") as g:
        a = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare",
            "visibility": "community"}, token="one")
        i = a.json["id"]
        run_row(g, Row("PUT", f"/v2/images/{i}/file", 204, None, c.disk, {
            **OCTETS, "X-Image-Meta-Store": "second"}, token="one"))
        for row in (
                Row("GET", "/v2/info/stores", 401),
                Row("GET", "/v2/info/stores", 200, token="two"),
                Row("GET", "/v2/info/stores/detail", 403, token="two"),
                Row("GET", "/v2/info/stores/detail", 200, token="boss"),
                Row("DELETE", f"/v2/stores/second/{i}", 403, token="two"),
                *[Row(method, path, 403, "not authorized", token=token)
                  for token in ("one", "two") for method, path in (
                      ("GET", "/v2/cache"), ("DELETE", "/v2/cache"),
                      ("PUT", "/v2/cache/" + i), ("DELETE", "/v2/cache/" + i))],
                Row("POST", f"/v2/images/{i}/import", 403, None,
                    {"method": {"name": "copy-image"}, "all_stores": True},
                    token="two")):
            run_row(g, row)


if __name__ == "__main__":
    environment("PLATTER_PLUGIN")
    need_programs("nbdkit")
    run_checks(Context, [
        stores_are_told,
        copies_come_and_go,
        imports_go_to_several,
        killed_servers_lose_nothing,
        the_cache_tells_what_was_wanted,
        what_a_web_server_has_is_copied,
        others_may_not,
    ])

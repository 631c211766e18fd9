#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Import: data that are staged, or come from a real web server; the tasks that
bring them; servers that end in between; the stock clients."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402
from web import Web  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
DISK_BYTES = 3 << 20
WAIT_SEC = 30


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(2).randbytes(DISK_BYTES)
        with open(self.path("disk.raw"), "wb") as f:
            f.write(self.disk)
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2",
             self.path("disk.raw"), self.path("disk.qcow2")])
        with open(self.path("disk.qcow2"), "rb") as f:
            self.qcow2 = f.read()

    def path(self, name):
        return os.path.join(self.folder, name)


def create(g, fmt="raw", **fields):
    fields = {"disk_format": fmt, "container_format": "bare", **fields}
    a = g.request("POST", "/v2/images",
                  {k: v for k, v in fields.items() if v is not None})
    is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
    is_equal(a.headers["openstack-image-import-methods"],
             "glance-direct,web-download,copy-image", "the methods")
    return a.json["id"]


def show(g, image):
    return g.request("GET", f"/v2/images/{image}").json


def stage(g, image, data, status=204):
    a = g.request("PUT", f"/v2/images/{image}/stage", data, OCTETS)
    is_equal(a.status, status, f"the status of staging ({a.text[:300]})")
    return a


def start(g, image, status=202, **method):
    a = g.request("POST", f"/v2/images/{image}/import", {"method": method})
    is_equal(a.status, status, f"the status of an import ({a.text[:300]})")
    return a


def tasks(g, image):
    return g.request("GET", f"/v2/images/{image}/tasks").json["tasks"]


def wait_for(what, sec=WAIT_SEC):
    end = time.monotonic() + sec
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.02)
    raise Failure("it takes too long")


def wait_for_task(g, image):
    """The last task of it, ended."""
    return wait_for(lambda: [t for t in tasks(g, image)[-1:]
                             if t["status"] in ("success", "failure")])[0]


def left_behind(g):
    return [f for d in ("incoming", "staging")
            for f in os.listdir(os.path.join(g.store, d))]


def staged_data_become_the_images(c):
    with Glance() as g:
        i = create(g, "qcow2")
        start(g, i, 409, name="glance-direct")
        stage(g, i, c.qcow2)
        got = show(g, i)
        is_equal((got["status"], got["size"], got["checksum"]),
                 ("uploading", len(c.qcow2), None), "a staged image")
        is_equal(g.request("GET", f"/v2/images/{i}/file").status, 204,
                 "the status of its data")
        stage(g, i, c.qcow2, 409)
        start(g, i, 409, name="web-download", uri="http://a.example/")
        start(g, i, name="glance-direct")
        t = wait_for_task(g, i)
        is_equal(t["status"], "success", f"the task's status {t}")
        got = show(g, i)
        is_equal((got["status"], got["size"], got["virtual_size"],
                  got["os_hash_value"], got.get("os_glance_import_task"),
                  got["os_glance_failed_import"]),
                 ("active", len(c.qcow2), DISK_BYTES,
                  hashlib.sha512(c.qcow2).hexdigest(), None, ""), "the image")
        a = g.request("GET", f"/v2/images/{i}/file?format=raw")
        is_true(a.body == c.disk, "other data")
        is_equal(left_behind(g), [], "what is left behind")
        start(g, i, 409, name="glance-direct")


def what_is_staged_is_looked_at(c):
    with Glance() as g:
        i = create(g, "vmdk")
        stage(g, i, c.qcow2)
        start(g, i, name="glance-direct")
        t = wait_for_task(g, i)
        is_equal(t["status"], "failure", "the task's status")
        is_true("does not match disk_format" in t["message"], t["message"])
        got = show(g, i)
        is_equal((got["status"], got["size"], "os_glance_import_task" in got),
                 ("queued", None, False), "the image")
        is_equal(left_behind(g), [], "what is left behind")
        for path, status in ((f"/v2/images/{i}", 204), ("/v1/images/", 200)):
            if status == 200:
                i = create(g, "vmdk")
                path += i
            stage(g, i, c.qcow2)
            is_equal(g.request("DELETE", path).status, status, "DELETE")
            is_equal(left_behind(g), [], "what is left of a deleted image")


def a_web_server_is_downloaded_from(c):
    web = Web(c.folder)
    try:
        with Glance(*web.allowed()) as g:
            for path in ("disk.qcow2", "to/" + web.url("disk.qcow2")):
                i = create(g, "qcow2")
                start(g, i, name="web-download", uri=web.url(path))
                t = wait_for_task(g, i)
                is_equal(t["status"], "success", f"{path}: {t['message']}")
                is_equal(show(g, i)["checksum"],
                         hashlib.md5(c.qcow2).hexdigest(), "MD5")
            for path, says in (("none", "404"), ("refusal", "404"),
                               ("to/" + "/to/" * 9 + "x", "redirects"),
                               ("to/" + web.url("cut/disk.qcow2"),
                                "partial file"),
                               ("to/file:///etc/passwd", "absolute URL"),
                               ("to/ftp://127.0.0.1/", "scheme is ftp"),
                               ("to/http://127.0.0.1:1/", "port 1 is not"),
                               ("to/http://[::1]:%d/" % web.port,
                                "not public")):
                i = create(g, "qcow2")
                start(g, i, name="web-download", uri=web.url(path))
                t = wait_for_task(g, i)
                is_true(t["status"] == "failure" and says in t["message"],
                        f"{path}: {t}")
                is_equal(show(g, i)["status"], "queued", "the status")
            is_equal(left_behind(g), [], "what is left behind")
    finally:
        web.end()


def what_is_not_public_is_not_asked(c):
    web = Web(c.folder)
    try:
        with Glance(f"import-ports={web.port}", "import-hosts=127.0.0.1") as g:
            i = create(g)
            for uri in ("file:///etc/passwd", "ftp://127.0.0.1/a", "",
                        f"http://localhost:{web.port}/",
                        "http://127.0.0.1:80/", "http://127.0.0.1/"):
                a = start(g, i, 400, name="web-download", uri=uri)
                is_true("does not pass filtering" in a.text, a.text)
            start(g, i, 400, name="web-download")
            start(g, i, name="web-download", uri=web.url("disk.raw"))
            t = wait_for_task(g, i)
            is_true(t["status"] == "failure" and "not public" in t["message"],
                    f"the task is {t}")
            is_true(not web.started.is_set(), "it was asked")
    finally:
        web.end()


def rows_of_import_and_tasks_are_answered(c):
    with Glance() as g:
        i, j = create(g), create(g, None)
        k = create(g)
        g.request("PUT", f"/v2/images/{k}/file", c.disk, OCTETS)
        image = f"/v2/images/{i}/import"
        for row in (
                Row("GET", "/v2/info/import", 200, {"import-methods": {
                    "type": "array", "value": ["glance-direct", "web-download",
                                               "copy-image"]}}),
                Row("POST", image, 400, "requires a 'method'", {}),
                Row("POST", image, 400, "requires a 'name'", {"method": {}}),
                Row("POST", image, 400, "Unknown import method name",
                    {"method": {"name": "x"}}),
                Row("POST", image, 400, "must be boolean",
                    {"method": {"name": "copy-image"}, "all_stores": 1}),
                Row("POST", image, 400, None, "x",
                    {"Content-Type": "application/json"}),
                Row("POST", image, 409, "Only images with status active",
                    {"method": {"name": "copy-image"}}),
                Row("POST", f"/v2/images/{k}/import", 400, "already present",
                    {"method": {"name": "copy-image"}}),
                Row("POST", f"/v2/images/{k}/import", 202, None,
                    {"method": {"name": "copy-image"}, "all_stores": True}),
                Row("POST", f"/v2/images/{j}/import", 409,
                    "needs to be set before import",
                    {"method": {"name": "web-download", "uri": "http://a/"}}),
                Row("POST", "/v2/images/x/import", 404, None,
                    {"method": {"name": "glance-direct"}}),
                Row("PUT", f"/v2/images/{i}/stage", 415, None, "x",
                    {"Content-Type": "text/plain"}),
                Row("PUT", "/v2/images/x/stage", 404, None, "x", OCTETS),
                Row("GET", f"/v2/images/{i}/tasks", 200, {"tasks": []}),
                Row("GET", "/v2/images/x/tasks", 404),
                Row("GET", "/v2/tasks", 200, {
                    "tasks": [], "first": "/v2/tasks",
                    "schema": "/v2/schemas/tasks"}),
                Row("GET", "/v2/tasks?status=x", 400, "Invalid status value"),
                Row("GET", "/v2/tasks?type=x", 400, "Invalid type value"),
                Row("GET", "/v2/tasks?sort_dir=x", 400, "sort direction"),
                Row("GET", "/v2/tasks?sort_key=x", 400, "Sort key"),
                Row("GET", "/v2/tasks?sort_key=n", 400, "Sort key"),
                Row("GET", "/v2/tasks?limit=x", 400, "must be an integer"),
                Row("GET", "/v2/tasks?limit=-1", 400, "must be positive"),
                Row("GET", "/v2/tasks?marker=x", 400, "Invalid marker format"),
                Row("GET", "/v2/tasks/x", 404),
                Row("DELETE", "/v2/tasks/x", 405,
                    answer_headers={"Allow": "GET"}),
                Row("POST", "/v2/tasks", 400, "'type' is required", {}),
                Row("POST", "/v2/tasks", 400, "'input' is required",
                    {"type": "import"}),
                Row("POST", "/v2/tasks", 400, "does not match schema",
                    {"type": "x", "input": {}}),
                Row("POST", "/v2/tasks", 400, "does not pass filtering",
                    {"type": "import", "input": {
                        "import_from": "file:///etc/passwd"}}),
                Row("PATCH", f"/v2/images/{i}", 403, "reserved", [
                    {"op": "add", "path": "/os_glance_import_task",
                     "value": "x"}],
                    {"Content-Type":
                     "application/openstack-images-v2.1-json-patch"})):
            run_row(g, row)


def administrators_import_by_task(c):
    web = Web(c.folder)
    try:
        with Glance(*web.allowed()) as g:
            for path, ends in (("disk.qcow2", "success"), ("no", "failure")):
                a = run_row(g, Row("POST", "/v2/tasks", 201, {
                    "type": "import", "status": "pending"}, {
                        "type": "import", "input": {
                            "import_from": web.url(path),
                            "import_from_format": "qcow2",
                            "image_properties": {"name": "t", "x": "y"}}}))
                task = a.headers["location"]
                is_equal(task, "http://localhost/v2/tasks/" + a.json["id"],
                         "Location")
                task = task[len("http://localhost"):]
                got = wait_for(lambda: [t for t in [
                    g.request("GET", task).json]
                    if t["status"] in ("success", "failure")])[0]
                is_equal(got["status"], ends, f"the end of {got}")
                is_true(got["expires_at"] > got["created_at"], "no end")
            images = g.request("GET", "/v2/images").json["images"]
            is_equal([(i["name"], i["x"], i["status"]) for i in images],
                     [("t", "y", "active")], "the images")
            page = g.request("GET", "/v2/tasks?limit=1&type=import").json
            is_equal(len(page["tasks"]), 1, "the tasks of a page")
            is_true("message" not in page["tasks"][0], "a list has messages")
            last = g.request("GET", page["next"]).json
            is_true(last["tasks"][0]["id"] != page["tasks"][0]["id"],
                    "the same page")
            ids = [t["id"] for t in g.request(
                "GET", "/v2/tasks?sort_dir=asc&status=success").json["tasks"]]
            is_equal(ids, [last["tasks"][0]["id"]], "those that succeeded")
    finally:
        web.end()


def tasks_are_sorted_by_any_column(c):
    """glance task-list sorts by status. Pages walk all of them."""
    with Glance() as g:
        for uri in ("b", "a", "c"):
            run_row(g, Row("POST", "/v2/tasks", 201, None, {
                "type": "import", "input": {
                    "import_from": f"http://{uri}.example/",
                    "image_properties": {}}}))
        wait_for(lambda: all(t["status"] == "failure" for t in g.request(
            "GET", "/v2/tasks").json["tasks"]))
        made = [t["id"] for t in g.request(
            "GET", "/v2/tasks?sort_dir=asc").json["tasks"]]
        for key in ("created_at", "id", "type", "status", "owner",
                    "expires_at", "updated_at", "image_id", "request_id",
                    "user_id", "deleted", "deleted_at"):
            for way in ("asc", "desc"):
                query = f"/v2/tasks?sort_key={key}&sort_dir={way}"
                whole = [t["id"] for t in
                         g.request("GET", query).json["tasks"]]
                is_equal(sorted(whole), sorted(made), key)
                if key not in ("expires_at", "updated_at", "request_id",
                               "image_id"):
                    want = sorted(made) if key == "id" else made
                    is_equal(whole, want[::-1] if way == "desc" else want,
                             f"{key} {way}")
                pages, marker = [], ""
                while True:
                    page = g.request("GET", query + "&limit=1" + marker
                                     ).json["tasks"]
                    if not page:
                        break
                    pages.append(page[0]["id"])
                    marker = "&marker=" + pages[-1]
                is_equal(pages, whole, f"the pages by {key} {way}")


def strangers_see_no_tasks(c):
    path = c.path("tokens")
    with open(path, "w") as f:
        json.dump({t: {"project": t, "user": t, "roles": ["member"]}
                   for t in ("one", "two")}, f)
    with Glance(f"auth=tokens:{path}") as g:
        a = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare",
            "visibility": "community"}, token="one")
        image = "/v2/images/" + a.json["id"]
        for row in (
                Row("PUT", image + "/stage", 403, None, "x", OCTETS,
                    token="two"),
                Row("PUT", image + "/stage", 204, None, "x", OCTETS,
                    token="one"),
                Row("POST", image + "/import", 403, "modify_image",
                    {"method": {"name": "glance-direct"}}, token="two"),
                Row("GET", image + "/tasks", 200, {"tasks": []}, token="two"),
                Row("GET", "/v2/tasks", 403, "tasks_api_access", token="one"),
                Row("GET", "/v2/tasks/x", 403, token="one"),
                Row("POST", "/v2/tasks", 403, None, {}, token="one")):
            run_row(g, row)


def a_killed_server_goes_on_with_imports(c):
    """Once with the download half-way, once with data staged, once with a
    staging that was cut off."""
    web, g = Web(c.folder), None
    store = c.path("killed")
    try:
        g = Glance(*web.allowed(), store=store)
        down, direct, cut = (create(g, "qcow2") for _ in range(3))
        stage(g, direct, c.qcow2)
        start(g, down, name="web-download", uri=web.url("slow/disk.qcow2"))
        is_true(web.started.wait(WAIT_SEC), "it does not begin")
        got = show(g, down)
        is_equal((got["status"], got["os_glance_import_task"]),
                 ("importing", tasks(g, down)[0]["id"]), "a download's image")
        is_equal(tasks(g, down)[0]["status"], "processing", "its task")
        start(g, down, 409, name="web-download", uri=web.url("x"))
        g.request("PUT", f"/v2/images/{down}/file", c.qcow2, OCTETS)
        is_equal(show(g, down)["status"], "importing", "the status")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(g.socket)
            s.sendall(f"PUT /v2/images/{cut}/stage HTTP/1.1\r\nHost: x\r\n"
                      "Content-Type: application/octet-stream\r\n"
                      f"Content-Length: {DISK_BYTES}\r\n\r\nxxx".encode())
            wait_for(lambda: show(g, cut)["status"] == "uploading")
            # What is not there whole is not imported.
            start(g, cut, 409, name="glance-direct")
            g.kill()
        g.end()
        web.go.set()
        g = Glance(*web.allowed(), store=store)
        is_equal(wait_for_task(g, down)["status"], "success", "its task")
        is_equal(len(tasks(g, down)), 1, "the tasks")
        is_equal(show(g, cut)["status"], "queued", "what was cut off")
        got = show(g, direct)
        is_equal((got["status"], got["size"]), ("uploading", len(c.qcow2)),
                 "what was staged")
        start(g, direct, name="glance-direct")
        is_equal(wait_for_task(g, direct)["status"], "success", "its task")
        for i in (down, direct):
            a = g.request("GET", f"/v2/images/{i}/file")
            is_true(a.body == c.qcow2, "other data")
        is_equal(left_behind(g), [], "what is left behind")
    finally:
        web.end()
        if g:
            g.end()


def a_server_that_is_told_to_end_does(c):
    web, g = Web(c.folder), None
    store = c.path("told")
    try:
        g = Glance(*web.allowed(), store=store)
        i = create(g, "qcow2")
        start(g, i, name="web-download", uri=web.url("slow/disk.qcow2"))
        is_true(web.started.wait(WAIT_SEC), "it does not begin")
        is_equal(g.end(), 0, "its status")
        web.go.set()
        g = Glance(*web.allowed(), store=store)
        is_equal(wait_for_task(g, i)["status"], "success", "the task")
    finally:
        web.end()
        if g:
            g.end()


def an_image_that_is_deleted_meanwhile_leaves_nothing(c):
    web = Web(c.folder)
    try:
        with Glance(*web.allowed()) as g:
            i = create(g, "qcow2")
            start(g, i, name="web-download", uri=web.url("slow/disk.qcow2"))
            is_true(web.started.wait(WAIT_SEC), "it does not begin")
            task = "/v2/tasks/" + tasks(g, i)[0]["id"]
            is_equal(g.request("DELETE", f"/v2/images/{i}").status, 204, "it")
            web.go.set()
            wait_for(lambda: g.request("GET", task).json["status"] ==
                     "failure")
            is_equal(left_behind(g), [], "what is left behind")
            is_equal([f for _, _, files in os.walk(
                os.path.join(g.store, "images")) for f in files], [],
                "the data that are left")
    finally:
        web.end()


def images_of(g, token, n):
    made = [g.request("POST", "/v2/images", {
        "disk_format": "qcow2", "container_format": "bare"}, token=token)
        for _ in range(n)]
    return ["/v2/images/" + a.json["id"] for a in made]


def import_all(g, token, images, uri):
    for i in images:
        a = g.request("POST", i + "/import", {"method": {
            "name": "web-download", "uri": uri}}, token=token)
        is_equal(a.status, 202, f"the status of an import ({a.text[:200]})")


def ends_of(g, token, images):
    tasks = [g.request("GET", i + "/tasks", token=token).json["tasks"][0]
             for i in images]
    return [t["status"] for t in tasks]


def under_way(g):
    page = g.request("GET", "/v2/tasks?status=processing", token="boss").json
    return page["tasks"]


def slow_imports_of_one_project_hold_up_no_other(c):
    web, g = Web(c.folder), None
    path, store = c.path("fair-tokens"), c.path("fair")
    with open(path, "w") as f:
        json.dump({t: {"project": t, "user": t, "roles": [
            "admin" if t == "boss" else "member"]}
            for t in ("one", "two", "boss")}, f)
    start_it = (*web.allowed(), f"auth=tokens:{path}")
    try:
        g = Glance(*start_it, store=store)
        slow = images_of(g, "one", 10)
        import_all(g, "one", slow, web.url("slow/disk.qcow2"))
        wait_for(lambda: web.slow == 4)
        quick = images_of(g, "two", 6)
        import_all(g, "two", quick, web.url("disk.qcow2"))
        wait_for(lambda: set(ends_of(g, "two", quick)) == {"success"})
        is_equal({t["owner"] for t in under_way(g)}, {"one"}, "who waits")
        is_equal(len(under_way(g)), 4, "how many of one project's go on")
        # Nor do they wait for each other where a server finds them.
        g.kill()
        g.end()
        g = Glance(*start_it, store=store)
        wait_for(lambda: web.slow == 8)
        # Deletion ends them, though the web server does not.
        ids = [t["id"] for t in under_way(g)]
        for i in slow:
            is_equal(g.request("DELETE", i, token="one").status, 204, "it")
        wait_for(lambda: not under_way(g), WAIT_SEC / 2)
        is_true(web.slow == 8 and not web.go.is_set(), "the server let go")
        for t in ids:
            got = g.request("GET", f"/v2/tasks/{t}", token="boss").json
            is_equal(got["status"], "failure", "the task's status")
            is_true("was deleted" in got["message"], got["message"])
        is_equal(left_behind(g), [], "what is left behind")
    finally:
        web.end()
        if g:
            g.end()


def a_download_that_is_too_slow_is_given_up(c):
    with Web(c.folder) as web:
        with Glance("import-min-rate=1M:1", *web.allowed()) as g:
            i = create(g, "qcow2")
            start(g, i, name="web-download", uri=web.url("slow/disk.qcow2"))
            t = wait_for_task(g, i)
            is_equal(t["status"], "failure", "the task's status")
            is_true("import-min-rate" in t["message"], t["message"])
            is_equal(show(g, i)["status"], "queued", "the image's status")
        with Glance("import-min-rate=1:1", *web.allowed()) as g:
            web.go.set()
            i = create(g, "qcow2")
            start(g, i, name="web-download", uri=web.url("disk.qcow2"))
            is_equal(wait_for_task(g, i)["status"], "success", "the task")
    try:
        with Glance("import-min-rate=0"):
            pass
    except Failure as e:
        is_true("import-min-rate" in str(e), str(e))
    else:
        raise Failure("a rate of 0 is taken")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def plain_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("OS_")}


# Some of the glance command's subcommands name an option twice, which argparse
# of later Pythons refuses: it is told to take the last.
GLANCE = """
import argparse
import sys
old = argparse.ArgumentParser.__init__
def init(self, *args, **more):
    old(self, *args, **dict(more, conflict_handler="resolve"))
argparse.ArgumentParser.__init__ = init
from glanceclient import shell
sys.exit(shell.main())
"""


def the_glance_command_imports(c):
    web, port = Web(c.folder), free_port()
    try:
        with Glance(f"glance=127.0.0.1:{port}", *web.allowed(), tcp=port) as g:
            # Any stdin but a terminal is taken for data.
            terminal = os.openpty()

            def glance(*args):
                r = subprocess.run(
                    ["/usr/bin/python3", "-c", GLANCE, "--os-image-url", f"http://127.0.0.1:{port}", "--os-auth-token", "t", *args],
                    timeout=60, text=True,
                    stdin=terminal[1], capture_output=True,
                    env=plain_environment())
                is_equal(r.returncode, 0, f"glance {args}: {r.stderr}")
                return r.stdout

            is_true("web-download" in glance("import-info"), "no methods")
            for n, more in (("direct", ["--import-method", "glance-direct",
                                        "--file", c.path("disk.qcow2")]),
                            ("web", ["--import-method", "web-download",
                                     "--uri", web.url("disk.qcow2")])):
                glance("image-create-via-import", "--name", n, "--disk-format",
                       "qcow2", "--container-format", "bare", *more)
                i = g.request("GET", f"/v2/images?name={n}").json["images"][0]
                is_equal(wait_for_task(g, i["id"])["status"], "success", n)
                is_equal(show(g, i["id"])["status"], "active", n)
                is_true(i["id"] in glance("image-list"), "it is not listed")
            for fd in terminal:
                os.close(fd)
    finally:
        web.end()


def the_openstack_command_imports(c):
    port = free_port()
    with Glance(f"glance=127.0.0.1:{port}", tcp=port) as g:
        run(["openstack", "--os-auth-type", "admin_token", "--os-endpoint",
             f"http://127.0.0.1:{port}/v2", "--os-token", "t", "image",
             "create", "--import", "--disk-format", "qcow2",
             "--container-format", "bare", "--file", c.path("disk.qcow2"),
             "o"], env=plain_environment())
        i = g.request("GET", "/v2/images?name=o").json["images"][0]["id"]
        is_equal(wait_for_task(g, i)["status"], "success", "the task")
        is_equal(show(g, i)["checksum"], hashlib.md5(c.qcow2).hexdigest(),
                 "MD5")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img", "openstack")
    run_checks(Context, [
        staged_data_become_the_images,
        what_is_staged_is_looked_at,
        a_web_server_is_downloaded_from,
        what_is_not_public_is_not_asked,
        rows_of_import_and_tasks_are_answered,
        administrators_import_by_task,
        tasks_are_sorted_by_any_column,
        strangers_see_no_tasks,
        a_killed_server_goes_on_with_imports,
        a_server_that_is_told_to_end_does,
        an_image_that_is_deleted_meanwhile_leaves_nothing,
        slow_imports_of_one_project_hold_up_no_other,
        a_download_that_is_too_slow_is_given_up,
        the_glance_command_imports,
        the_openstack_command_imports,
    ])

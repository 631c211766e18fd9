#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A store beside an index that is older, lost or damaged; two servers on one
store; platter index status, check, restore, rebuild.

PLATTER_STORE_IMAGES: how many a lost index is rebuilt for [1000]
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from server import Failure, environment, need_programs, run, run_json  # noqa: E402

IMAGES = int(os.environ.get("PLATTER_STORE_IMAGES", "1000"))
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi",
           "vhdx": "vhdx", "vhd": "vpc"}
DISK_BYTES = 256 << 10
NAMES = ["plain", "Überraschung 💾", "../../etc/passwd", "a\nb\t\"'\\", "",
         "-rf", "%s%n", "日本語", "x" * 240, "null"]
FOUND = 3  # exit status: check or rebuild found something
PROJECTS = ["p0", "p1", "p2"]


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.number = 0
        rng = random.Random(14)
        self.data = {}
        raw = self.path("disk.raw")
        with open(raw, "wb") as f:
            f.write(rng.randbytes(DISK_BYTES // 2))
            f.truncate(DISK_BYTES)
        for glance, qemu in FORMATS.items():
            run(["qemu-img", "convert", "-f", "raw", "-O", qemu, raw,
                 self.path(glance)])
            with open(self.path(glance), "rb") as f:
                self.data[glance] = f.read()
        self.tokens = self.path("tokens")
        who = {p: {"project": p, "user": "u", "roles": ["member"]}
               for p in PROJECTS}
        who["admin"] = {"project": "a", "user": "u", "roles": ["admin"]}
        with open(self.tokens, "w", encoding="utf-8") as f:
            json.dump(who, f)

    def path(self, name):
        return os.path.join(self.folder, name)

    def store(self):
        self.number += 1
        return self.path(f"store{self.number}")

    def glance(self, store):
        return Glance(f"auth=tokens:{self.tokens}", store=store)


def index(*argv, status=0):
    return run([os.environ["PLATTER"], "index", *argv], ok=(status,))[1:]


def index_json(*argv, status=0):
    return run_json([os.environ["PLATTER"], "index", *argv, "--json"],
                    ok=(status,))


def create(g, data, fmt="raw", token="p0", **fields):
    """An active image; its id."""
    a = g.request("POST", "/v2/images", {"disk_format": fmt,
                                         "container_format": "bare",
                                         **fields}, token=token)
    is_equal(a.status, 201, f"POST: {a.text}")
    i = a.json["id"]
    a = g.request("PUT", f"/v2/images/{i}/file", data, OCTETS, token=token)
    is_equal(a.status, 204, f"PUT: {a.text}")
    return i


def patch(g, i, *changes, token="p0"):
    a = g.request("PATCH", f"/v2/images/{i}", json.dumps(changes), PATCH,
                  token=token)
    is_equal(a.status, 200, f"PATCH: {a.text}")


def pages(g, token, query):
    found, path = [], f"/v2/images?limit=100&{query}"
    while path:
        page = g.request("GET", path, token=token).json
        found += page["images"]
        path = page.get("next")
    return found


def listed(g, token):
    """All of it, page by page, in order; nobody's community images, nor what
    is hidden, are among the rest."""
    return [i for hidden in ("false", "true")
            for more in ("", "&visibility=community")
            for i in pages(g, token, f"os_hidden={hidden}{more}")]


def members(g, i):
    a = g.request("GET", f"/v2/images/{i}/members", token="admin")
    return a.json if a.status == 200 else None


def data_of(store):
    """{path: digest} of all that is data."""
    found = {}
    for top in "images", "staging", "lost+found":
        for where, _, names in os.walk(os.path.join(store, top)):
            for n in names:
                if not n.endswith((".json", ".json.new")):
                    with open(os.path.join(where, n), "rb") as f:
                        found[n] = hashlib.sha256(f.read()).hexdigest()
    return found


def file_of(store, i, ending=""):
    return os.path.join(store, "images", i[:2], i + ending)


@contextlib.contextmanager
def opened(store):
    db = sqlite3.connect(os.path.join(store, "index.sqlite"))
    try:
        with db:
            yield db
    finally:
        db.close()


def lose_index(store):
    for n in os.listdir(store):
        if n.startswith("index.sqlite"):
            os.unlink(os.path.join(store, n))


def refused(c, store, *parts):
    """A server does not start, and says all of @parts in one line."""
    try:
        with c.glance(store):
            pass
    except Failure as e:
        lines = [n for n in str(e).splitlines() if "platter: " in n or "error: " in n]
        is_equal(len(lines), 1, f"the lines of {e}")
        for p in parts:
            is_true(p in lines[0], f"{p!r} is not in {lines[0]!r}")
        return
    raise Failure("it starts")


def an_older_index_costs_no_data(c):
    store, backup = c.store(), c.path("backup")
    with c.glance(store) as g:
        old = [create(g, c.data["raw"]) for _ in range(3)]
        index("backup", "--store", store, backup)
        new = [create(g, c.data[f], f, name=f) for f in ("qcow2", "vmdk")]
        patch(g, old[0], {"op": "add", "path": "/name", "value": "later"})
        before = data_of(store)
        shown = {i["id"]: i for i in listed(g, "p0")}
    lose_index(store)
    shutil.copyfile(backup, os.path.join(store, "index.sqlite"))
    with c.glance(store) as g:
        is_equal(data_of(store), before, "the data")
        for i in new:
            is_true(f"{i}: the index does not know it" in g.messages(),
                    f"{i} is not named: {g.messages()}")
        # What is known by its sidecar to be newer than the copy holds.
        is_equal({i["id"]: i for i in listed(g, "p0")},
                 {i: shown[i] for i in old}, "what is listed")
        said = index_json("status", "--store", store)
        is_equal(sorted(f["image"] for f in said["findings"]), sorted(new),
                 "what status names")
        index("check", "--store", store, status=FOUND)
    with c.glance(store) as g:
        is_equal(data_of(store), before, "the data after another start")
    is_equal(os.stat(backup).st_mode & 0o777, 0o600, "the backup's mode")
    out = index("rebuild", "--store", store)[0]
    is_true("2 images made (0 of them" in out and "3 as they were" in out, out)
    with c.glance(store) as g:
        is_equal({i["id"]: i for i in listed(g, "p0")}, shown,
                 "what is listed after a rebuild")
        is_equal(data_of(store), before, "the data")
        index("check", "--digests", "--store", store)


def no_index_beside_data_is_refused(c):
    store = c.store()
    with c.glance(store) as g:
        i = create(g, c.data["raw"])
    before = data_of(store)
    ways = ("platter index restore --store " + store,
            "platter index rebuild --store " + store)
    path = os.path.join(store, "index.sqlite")
    with open(path, "rb") as f:
        good = f.read()
    lose_index(store)
    refused(c, store, "there is no index", *ways)
    is_true(not os.path.exists(path), "an index was made")
    is_true("there is no index" in index("scan", "--store", store,
                                         status=1)[1], "scan makes one")
    open(path, "w").close()
    refused(c, store, "there is no index", *ways)
    # Of another, which has no images.
    empty = c.store()
    with c.glance(empty):
        pass
    shutil.copyfile(os.path.join(empty, "index.sqlite"), path)
    refused(c, store, "the index has no image", *ways)
    for at in 0, len(good) // 2:
        with open(path, "wb") as f:
            f.write(good[:at] + b"\xa5" * 4096 + good[at + 4096:])
        try:
            refused(c, store, *ways)
        except Failure:
            is_true(at, "a damaged header is taken")
        run([os.environ["PLATTER"], "index", "check", "--store", store],
            ok=(1, FOUND))
    is_equal(data_of(store), before, "the data")
    index("rebuild", "--store", store)
    with c.glance(store) as g:
        is_equal([n["id"] for n in listed(g, "p0")], [i], "what is listed")
    # In a fresh folder all begins as it did.
    with c.glance(c.store()) as g:
        is_equal(listed(g, "admin"), [], "what is listed in a fresh store")


def what_was_deleted_stays_deleted(c):
    store = c.store()
    with c.glance(store) as g:
        gone, kept, dead = (create(g, c.data["raw"]) for _ in range(3))
        is_equal(g.request("DELETE", f"/v2/images/{gone}",
                           token="p0").status, 204, "DELETE")
        is_true(not os.path.exists(file_of(store, gone)), "its data are there")
    with opened(store) as db:
        is_equal(db.execute("SELECT count(*) FROM tombstones").fetchone(),
                 (0,), "tombstones after an end")
        # As if it had been killed between the commit and what follows.
        db.execute("DELETE FROM images WHERE id = ?", (dead,))
        db.execute("INSERT INTO gone VALUES (?, 1)", (dead,))
        db.execute("INSERT INTO tombstones VALUES (?, 'gone', 1)", (dead,))
    said = index_json("status", "--store", store)
    is_equal((said["tombstones"], said["findings"]), ({"gone": 1}, []),
             "what status has of it")
    # It is not raised from the dead.
    said = index_json("rebuild", "--store", store, status=FOUND)
    is_equal([f["finding"] for f in said["findings"]], ["left"],
             "what rebuild says")
    with c.glance(store) as g:
        is_equal([i["id"] for i in listed(g, "p0")], [kept], "what is listed")
        is_equal(sorted(data_of(store)), [kept], "the data")
        a = g.request("POST", "/v2/images", {"id": gone}, token="p0")
        is_equal(a.status, 409, "the status of an id that was used")


def unknown_data_belong_to_nobody_who_knows_their_id(c):
    store, backup = c.store(), c.path("before")
    with c.glance(store) as g:
        create(g, c.data["raw"])
        index("backup", "--store", store, backup)
        i = create(g, c.data["qcow2"], "qcow2")
    lose_index(store)
    shutil.copyfile(backup, os.path.join(store, "index.sqlite"))
    with c.glance(store) as g:
        for method, path, body, headers in (
                ("POST", "/v2/images", {"id": i}, None),
                ("POST", "/v1/images", None, {"X-Image-Meta-Id": i,
                                              "X-Image-Meta-Name": "n"})):
            a = g.request(method, path, body, headers, token="p1")
            is_equal(a.status, 409, f"{path} with the id of unknown data")
        is_equal(g.request("DELETE", f"/v2/images/{i}", token="p1").status,
                 404, "DELETE")
        is_equal(len(data_of(store)), 2, "files of data")


def unknown_data_that_are_in_the_way_are_put_aside(c):
    store, i = c.store(), str(uuid.UUID(int=7, version=4))
    with c.glance(store) as g:
        create(g, c.data["raw"])
        a = g.request("POST", "/v2/images", {
            "id": i, "disk_format": "qcow2", "container_format": "bare"},
            token="p0")
        is_equal(a.status, 201, "POST")
        os.makedirs(os.path.dirname(file_of(store, i)), exist_ok=True)
        with open(file_of(store, i), "wb") as f:
            f.write(b"of another time")
        a = g.request("PUT", f"/v2/images/{i}/file", c.data["qcow2"], OCTETS,
                      token="p0")
        is_equal(a.status, 204, "PUT")
        a = g.request("GET", f"/v2/images/{i}/file", token="p0")
        is_equal(a.body, c.data["qcow2"], "the data")
        with open(os.path.join(store, "lost+found", i), "rb") as f:
            is_equal(f.read(), b"of another time", "what was put aside")
        is_true(i in g.messages(), "it is not named")
        is_equal(os.stat(os.path.join(store, "lost+found")).st_mode & 0o777,
                 0o700, "the folder's mode")
        is_equal(index_json("status", "--store", store)["lost-found"], 1,
                 "what status counts")
    # The scanner takes neither that nor a sidecar for an image.
    index("scan", "--store", store)
    with c.glance(store) as g:
        is_equal(len(listed(g, "admin")), 2, "how many are listed")


def wait_for(what, message):
    deadline = time.monotonic() + 10
    while not what():
        is_true(time.monotonic() < deadline, message)
        time.sleep(0.02)


def a_second_server_is_told_who_the_first_is(c):
    store, go = c.store(), threading.Event()
    answers = []

    def pieces():
        yield c.data["raw"][:1000]
        go.wait(30)
        yield c.data["raw"][1000:]

    with c.glance(store) as g:
        i = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare"},
            token="p0").json["id"]
        t = threading.Thread(target=lambda: answers.append(g.request(
            "PUT", f"/v2/images/{i}/file", pieces(), OCTETS, token="p0")))
        t.start()
        wait_for(lambda: os.listdir(os.path.join(store, "incoming")),
                 "the upload does not begin")
        who = f"process {g.process.pid} on {socket.gethostname()}"
        refused(c, store, "in use by " + who, store)
        for verb in ("rebuild",), ("restore", c.path("backup")):
            said = index(verb[0], "--store", store, *verb[1:], status=1)[1]
            is_true(who in said, f"{verb[0]} says {said}")
        said = index_json("status", "--store", store)["holder"]
        is_equal((said["process"], said["host"]),
                 (g.process.pid, socket.gethostname()), "what status says")
        # These work beside it.
        is_true(who in index("status", "--store", store)[0], "status")
        index("check", "--store", store)
        index("scan", "--store", store)
        index("backup", "--overwrite", "--store", store, c.path("beside"))
        go.set()
        t.join()
        is_equal(answers[0].status, 204, "the upload's status")
        a = g.request("GET", f"/v2/images/{i}/file", token="p0")
        is_equal(a.body, c.data["raw"], "the data")
    is_equal(os.stat(os.path.join(store, "lock")).st_mode & 0o777, 0o600,
             "the lock's mode")
    is_true("in use       no" in index("status", "--store", store)[0],
            "it is in use after its end")


def a_dead_server_keeps_nobody_out(c):
    store = c.store()
    for _ in range(3):
        g = c.glance(store)
        g.kill()
        g.end()
    # In the background: who forked it has ended, and it has the store.
    pidfile, http = c.path("pid"), c.path("http")
    run(["nbdkit", "-P", pidfile, "-U", c.path("nbd"),
         os.environ["PLATTER_PLUGIN"], f"store={store}",
         f"glance=unix:{http}"])
    wait_for(lambda: os.path.exists(pidfile) and os.path.getsize(pidfile),
             "it does not say its number")
    with open(pidfile, encoding="ascii") as f:
        pid = int(f.read())
    try:
        wait_for(lambda: index_json("status", "--store",
                                    store).get("holder", {}).get("process") ==
                 pid, "it does not have the store")
        refused(c, store, f"process {pid} on ")
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "it does not end")
    with c.glance(store):
        pass


def in_step(store):
    """Each sidecar says what the index does, and there is one for each."""
    with opened(store) as db:
        rows = db.execute(
            "SELECT id, name, status, visibility, owner, changed_at, "
            "checksum, protected FROM images WHERE status IN "
            "('active', 'deactivated')").fetchall()
        for row in rows:
            path = file_of(store, row[0], ".json")
            with open(path, encoding="ascii") as f:
                got = json.load(f)
            is_equal((got["id"], got["name"], got["status"],
                      got["visibility"], got["owner"], got["changed_at"],
                      got["checksum"], got["protected"]),
                     (*row[:7], bool(row[7])), f"what the sidecar has of {row}")
            for table, key in ("tags", "tag"), ("members", "member"), \
                    ("properties", "name"):
                want = [r[0] for r in db.execute(
                    f"SELECT {key} FROM {table} WHERE image = (SELECT n FROM "
                    "images WHERE id = ?) ORDER BY 1", (row[0],))]
                is_equal(sorted(m["member"] for m in got["members"])
                         if table == "members" else sorted(got[table]), want,
                         f"the {table} of {row[0]}")
            st = os.stat(path)
            is_equal((st.st_mode & 0o777, st.st_mtime_ns // 1000),
                     (0o600, row[5]), "the mode and time of a sidecar")
    return len(rows)


def every_dialect_is_followed(c):
    store = c.store()
    with c.glance(store) as g:
        i = create(g, c.data["raw"], name="a", visibility="shared",
                   platter_sidecar="2", changed_at="3")
        is_equal(in_step(store), 1, "images with a sidecar")
        image = "/v2/images/" + i
        v1 = {"X-Image-Meta-Name": "of v1", "X-Image-Meta-Property-k": "v"}
        for method, path, body, headers, token, status in (
                ("PATCH", image, json.dumps([{"op": "add", "path": "/name",
                                              "value": "b"}]), PATCH, "p0",
                 200),
                ("PUT", image + "/tags/t", None, None, "p0", 204),
                ("DELETE", image + "/tags/t", None, None, "p0", 204),
                ("PUT", image + "/tags/u", None, None, "p0", 204),
                ("POST", image + "/members", {"member": "p1"}, None, "p0",
                 200),
                ("PUT", image + "/members/p1", {"status": "accepted"}, None,
                 "p1", 200),
                ("POST", image + "/members", {"member": "p2"}, None, "p0",
                 200),
                ("DELETE", image + "/members/p1", None, None, "p0", 204),
                ("POST", image + "/actions/deactivate", None, None, "admin",
                 204),
                ("POST", image + "/actions/reactivate", None, None, "admin",
                 204),
                ("PUT", "/v1/images/" + i, None, v1, "p0", 200),
                ("PUT", f"/v1/images/{i}/members/p1", None, None, "p0", 204),
                ("PUT", f"/v1/images/{i}/members", {"memberships": [
                    {"member_id": "p0"}]}, None, "p0", 204),
                ("PUT", "/image/v1.0/images/" + i, None,
                 {"X-Image-Meta-Name": "of cyclades"}, "p0", 200),
                # What a client may not say, no sidecar has.
                ("PATCH", image, json.dumps([{
                    "op": "replace", "path": "/status", "value": "queued"}]),
                 PATCH, "p0", 403),
                ("PATCH", image, json.dumps([{
                    "op": "replace", "path": "/owner", "value": "p1"}]),
                 PATCH, "p0", 403),
                ("PATCH", image, json.dumps([{
                    "op": "add", "path": "/visibility", "value": "public"}]),
                 PATCH, "p0", 403)):
            a = g.request(method, path, body, headers, token=token)
            is_equal(a.status, status, f"{method} {path}: {a.text}")
            is_equal(in_step(store), 1, f"images after {method} {path}")
        is_equal(g.request("POST", "/v2/images", {"name": "queued"},
                           token="p0").status, 201, "POST")
        is_equal(len(os.listdir(os.path.dirname(file_of(store, i)))), 2,
                 "the files of one image")
        is_equal(g.request("DELETE", image, token="p0").status, 204, "DELETE")
        is_equal([f for _, _, n in os.walk(os.path.join(store, "images"))
                  for f in n], [], "what is left of it")


def a_store_of_before_is_taken_over(c):
    store = c.store()
    with c.glance(store) as g:
        ids = [create(g, c.data["raw"], name=n) for n in NAMES[:3]] + [
            create(g, c.data["raw"], token="p1") for _ in range(20)]
        before = listed(g, "admin")
    for i in ids:
        os.unlink(file_of(store, i, ".json"))
    with opened(store) as db:
        db.executescript("DROP TABLE tombstones;"
                         "ALTER TABLE images DROP COLUMN changed_at;"
                         "PRAGMA user_version = 4")
    index("check", "--store", store)
    is_equal(index_json("status", "--store", store)["scheme"], 4, "the scheme")
    with c.glance(store) as g:
        is_equal(listed(g, "admin"), before, "what is listed")
        is_equal(in_step(store), len(ids), "images with a sidecar")


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def a_backup_is_restored(c):
    store, backup = c.store(), c.path("good")
    with c.glance(store) as g:
        old = create(g, c.data["raw"])
        gone = create(g, c.data["raw"])
        index("backup", "--store", store, backup)
        shown = [i for i in listed(g, "p0") if i["id"] == old]
        new = create(g, c.data["raw"])
        is_equal(g.request("DELETE", f"/v2/images/{gone}",
                           token="p0").status, 204, "DELETE")
    before = data_of(store)
    path = os.path.join(store, "index.sqlite")
    was = rows(path)
    with open(backup, "rb") as f:
        good = f.read()
    bad = c.path("bad")
    for what, part in ((b"", "is no index"), (b"text" * 5000, "not a database"),
                       (good[:len(good) // 2], ""),
                       (good[:8192] + b"\xa5" * 8192 + good[16384:], "")):
        with open(bad, "wb") as f:
            f.write(what)
        said = index("restore", "--store", store, bad, status=1)[1]
        is_true(part in said, f"it says {said}")
        is_equal(rows(path), was, "the index")
    with contextlib.closing(sqlite3.connect(bad + "2")) as db:
        db.executescript("CREATE TABLE t (a); PRAGMA user_version = 99")
    said = index("restore", "--store", store, bad + "2", status=1)[1]
    is_true("scheme 99" in said, f"it says {said}")
    is_equal([n for n in os.listdir(store) if ".new" in n], [], "left over")
    out = index("restore", "--store", store, backup)[0]
    for part in (f"unknown      images/{new[:2]}/{new}",
                 f"no-data      images/{gone[:2]}/{gone}",
                 "1 files that it does not know, 1 images without data",
                 "index.sqlite.replaced-"):
        is_true(part in out, f"{part!r} is not in {out}")
    kept = [n for n in os.listdir(store) if "replaced" in n]
    is_equal(rows(os.path.join(store, kept[0])), was, "the old index")
    with c.glance(store) as g:
        is_equal([i for i in listed(g, "p0") if i["id"] == old], shown,
                 "what is listed")
        a = g.request("GET", f"/v2/images/{gone}", token="p0")
        is_equal((a.status, a.json["status"]), (200, "active"),
                 "an image without data")
        is_true(g.request("GET", f"/v2/images/{gone}/file",
                          token="p0").status >= 404, "its data are read")
        is_true(f"{gone}: the index has this image" in g.messages(),
                f"it is not named: {g.messages()}")
        is_equal(data_of(store), before, "the data")
    # And where there is no index at all.
    lose_index(store)
    index("restore", "--store", store, backup)
    with c.glance(store):
        pass


def what_is_not_proven_is_private(c):
    store = c.store()
    with c.glance(store) as g:
        made = {n: create(g, c.data["raw"], token="admin", name=n,
                          visibility="public")
                for n in ("alone", "changing", "half", "damaged", "none",
                          "other data", "shorter", "first")}
    side = {n: file_of(store, i, ".json") for n, i in made.items()}
    with open(side["alone"], encoding="ascii") as f:
        text = f.read()
    for n, what in (("changing", text), ("half", text[:100])):
        with open(side[n] + ".new", "w", encoding="ascii") as f:
            f.write(what)
    with open(side["damaged"], "w", encoding="ascii") as f:
        f.write(text.replace('"min_disk": 0', '"min_disk": "x"'))
    os.unlink(side["none"])
    os.rename(side["first"], side["first"] + ".new")
    with open(file_of(store, made["other data"]), "r+b") as f:
        f.seek(5)
        f.write(b"x")
    os.truncate(file_of(store, made["shorter"]), 512)
    lose_index(store)
    said = index_json("rebuild", "--store", store, status=FOUND)
    is_equal({k: v for k, v in said["images"].items() if v},
             {"made": 3, "unproven": 3, "bare": 2, "mismatch": 2},
             "what was made")
    with c.glance(store) as g:
        got = {i["id"]: i for i in listed(g, "admin")}
        is_equal({n: (got[i]["visibility"], got[i]["status"], got[i]["owner"])
                  for n, i in made.items()},
                 {"alone": ("public", "active", "a"),
                  "changing": ("private", "active", "a"),
                  "half": ("private", "active", "a"),
                  "first": ("private", "active", "a"),
                  "damaged": ("private", "active", None),
                  "none": ("private", "active", None),
                  "other data": ("public", "deactivated", "a"),
                  "shorter": ("public", "deactivated", "a")},
                 "what is said of them")
        is_equal(sorted(i["name"] for i in listed(g, "p0")),
                 ["alone", "other data", "shorter"], "what others see")
        is_equal(in_step(store), 8, "images with a sidecar")
        is_equal([n for _, _, names in os.walk(store) for n in names
                  if n.endswith(".new")], [], "left over")
    # What cannot be read by us is kept for who can.
    is_equal(os.listdir(os.path.join(store, "lost+found")),
             [made["damaged"] + ".json"], "what was put aside")


def check_finds_what_is_damaged(c):
    store = c.store()
    with c.glance(store) as g:
        ids = [create(g, c.data["raw"]) for _ in range(4)]
        out = index("check", "--digests", "--store", store)[0]
        is_true("4 digests as they were; 0 findings" in out, out)
    with open(file_of(store, ids[0]), "r+b") as f:
        f.seek(DISK_BYTES - 1)
        f.write(b"\1")
    os.truncate(file_of(store, ids[1]), 1000)
    os.unlink(file_of(store, ids[2]))
    with open(os.path.join(store, "images", "note"), "w") as f:
        f.write("x")
    got = index_json("check", "--store", store, status=FOUND)
    is_equal(sorted((f["finding"], f.get("image")) for f in got["findings"]),
             sorted([("size", ids[1]), ("no-data", ids[2]),
                     ("strange", None)], key=str), "what is found")
    got = index_json("check", "--digests", "--store", store, status=FOUND)
    is_equal(sorted(f["image"] for f in got["findings"]
                    if f["finding"] == "mismatch"), sorted(ids[:2]),
             "whose digests are others")
    is_equal(got["compared"], 1, "how many are as they were")
    for verb in ("status",), ("check",), ("rebuild",), ("restore", "x"):
        said = index(verb[0], "--store", c.path("nowhere"), *verb[1:],
                     status=1)
        is_true(said[0] == "" and "nowhere" in said[1], f"{verb}: {said}")
    is_true(not os.path.exists(c.path("nowhere")), "a store was made")


def one_of_many(c, g, rng, n):
    """Image @n; its id."""
    token = rng.choice(PROJECTS)
    fmt = rng.choice(sorted(FORMATS))
    fields = {"name": rng.choice(NAMES) + (f" {n}" if n % 3 else ""),
              "visibility": rng.choice(["private", "shared", "community"]),
              "min_ram": rng.randrange(3), "protected": n % 7 == 0,
              "os_hidden": n % 11 == 0,
              "tags": rng.sample(["a", "ü", "日本", "x" * 255], n % 4)}
    for k in range(n % 5):
        fields[f"prop.{k}:é"] = rng.choice(NAMES)
    if n % 13 == 0:
        token, fields["visibility"] = "admin", "public"
    i = create(g, c.data[fmt], fmt, token, **fields)
    if fields["visibility"] == "shared":
        for m in ("p1", "p2")[:n % 3]:
            is_equal(g.request("POST", f"/v2/images/{i}/members",
                               {"member": m}, token=token).status, 200, "POST")
    if n % 17 == 0:
        is_equal(g.request("POST", f"/v2/images/{i}/actions/deactivate",
                           token="admin").status, 204, "deactivate")
    return i


def a_lost_index_is_rebuilt_whole(c):
    store = c.store()
    with c.glance(store) as g:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(
                lambda n: one_of_many(c, g, random.Random(n), n),
                range(IMAGES)))
        before = {t: listed(g, t) for t in [*PROJECTS, "admin"]}
        shared = {i: members(g, i) for i in ids[::10]}
        is_equal({i["id"] for i in before["admin"]}, set(ids),
                 "what is listed")
    data = data_of(store)
    lose_index(store)
    refused(c, store, f"there are data ({IMAGES})")
    began = time.monotonic()
    out = index("rebuild", "--store", store)[0]
    print(f"    {time.monotonic() - began:.1f} s: {out.strip()}")
    is_true(f"{IMAGES} images made (0 of them private" in out, out)
    with c.glance(store) as g:
        for t, want in before.items():
            is_equal(listed(g, t), want, f"what {t} sees")
        is_equal({i: members(g, i) for i in shared}, shared, "the members")
        is_equal(in_step(store), IMAGES, "images with a sidecar")
        is_equal(data_of(store), data, "the data")
    index("check", "--digests", "--store", store)


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    run_checks(Context, [
        an_older_index_costs_no_data,
        no_index_beside_data_is_refused,
        what_was_deleted_stays_deleted,
        unknown_data_belong_to_nobody_who_knows_their_id,
        unknown_data_that_are_in_the_way_are_put_aside,
        a_second_server_is_told_who_the_first_is,
        a_dead_server_keeps_nobody_out,
        every_dialect_is_followed,
        a_store_of_before_is_taken_over,
        a_backup_is_restored,
        what_is_not_proven_is_private,
        check_finds_what_is_damaged,
        a_lost_index_is_rebuilt_whole,
    ])


if __name__ == "__main__":
    main()

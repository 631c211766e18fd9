#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An image service that is killed at any stage of an upload loses nothing that
it had acknowledged, and shows nothing that is half there.

Each round: clients make images, upload, stage, import, download and delete them,
and somebody puts image files into the store's folder; SIGKILL in the middle; a
server again, which is killed, too, now and then. Each image must be as it was
acknowledged, or, if a request was under way, as it was before or after that;
each file must be an image; nothing else may lie in the store.

PLATTER_KILL_ROUNDS: how many [60]; PLATTER_SEED
"""

import collections
import hashlib
import http.client
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from glance import Glance  # noqa: E402
from server import (Failure, bare_server, dies_with_us,  # noqa: E402
                    environment, need_programs)
from web import Web  # noqa: E402

ROUNDS = int(os.environ.get("PLATTER_KILL_ROUNDS", "60"))
SEED = int(os.environ.get("PLATTER_SEED", "5"))
CLIENTS = 5
LONGEST_SEC = 0.3
IMPORT_SEC = 20
SETTLE_SEC = 3
STARTING_SEC = 0.2
KEPT = 25  # images that go on to the next round
# lost+found is none of it: nothing was in the way.
OF_A_STORE = {"images", "incoming", "staging", "grant.key", "lock",
              "index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
OCTETS = {"Content-Type": "application/octet-stream"}

# Where the server was killed, by what the client was waiting for.
STAGES = ("creating", "sending", "sent", "staging", "staged", "importing",
          "downloading", "deleting")


class Image:
    """What is known of it. @state is where the last request left it, or, with
    "...", what is under way."""

    def __init__(self, rng):
        self.id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.path = "/v2/images/" + self.id
        self.data = rng.randbytes(rng.randrange(1, 300000))
        self.state = "none"
        self.stage = None  # of what is under way


class Placer(threading.Thread):
    """Puts image files where the scanner finds them."""

    def __init__(self, store, files, seed):
        super().__init__()
        self.store, self.files = store, files
        self.random = random.Random(seed)
        self.end = threading.Event()

    def run(self):
        while not self.end.wait(self.random.random() * 0.1):
            name = f"placed {self.random.getrandbits(64):x}"
            data = self.random.randbytes(65536)
            hidden = os.path.join(self.store, "." + name)
            with open(hidden, "wb") as f:
                f.write(data)
            self.files[name] = data
            os.rename(hidden, os.path.join(self.store, name + ".raw"))


class Client(threading.Thread):
    def __init__(self, glance, images, seed, web, folder):
        super().__init__()
        self.glance, self.images = glance, images
        self.web, self.folder = web, folder
        self.random = random.Random(seed)
        self.wrong = None

    def ask(self, image, before, after, status, method, path, body=None,
            headers=None, stage=None):
        image.state, image.stage = before, stage
        a = self.glance.request(method, path, body, headers)
        if a.status != status:
            raise Failure(f"{method} {path}: status {a.status}: "
                          f"{a.text[:200]}")
        image.state, image.stage = after, None

    def pieces(self, image, last):
        """The data, now and then with a pause; then the stage is @last."""
        at, slow = 0, self.random.random() < 0.5
        while at < len(image.data):
            length = self.random.randrange(1, 100000)
            yield image.data[at:at + length]
            at += length
            if slow:
                time.sleep(self.random.random() * 0.02)
        image.stage = last

    def live(self):
        image = Image(self.random)
        self.images.append(image)
        self.ask(image, "none...queued", "queued", 201, "POST", "/v2/images",
                 {"id": image.id, "disk_format": "raw",
                  "container_format": "bare"}, stage="creating")
        how = self.random.random()
        if how < 0.15:
            with open(os.path.join(self.folder, image.id), "wb") as f:
                f.write(image.data)
            self.ask(image, "queued...active", "importing", 202, "POST",
                     image.path + "/import",
                     {"method": {"name": "web-download",
                                 "uri": self.web.url(image.id)}},
                     stage="downloading")
        elif how < 0.65:
            self.ask(image, "queued...active", "active", 204, "PUT",
                     image.path + "/file", self.pieces(image, "sent"), OCTETS,
                     stage="sending")
        else:
            self.ask(image, "queued...uploading", "uploading", 204, "PUT",
                     image.path + "/stage", self.pieces(image, "staged"),
                     OCTETS, stage="staging")
            self.ask(image, "uploading...active", "importing", 202, "POST",
                     image.path + "/import",
                     {"method": {"name": "glance-direct"}}, stage="importing")

    def run(self):
        try:
            while True:
                self.live()
                old = [i for i in self.images if i.state == "active"]
                if self.random.random() < 0.3 and old:
                    image = self.random.choice(old)
                    image.state = "active...gone"  # nobody else takes it
                    self.ask(image, "active...gone", "gone", 204, "DELETE",
                             image.path, stage="deleting")
        except (OSError, http.client.HTTPException):
            pass  # the server is gone
        except Failure as e:
            self.wrong = e


def settled(g, image):
    """Its status; an import that goes on is waited for."""
    deadline = time.monotonic() + IMPORT_SEC
    while True:
        a = g.request("GET", image.path)
        if a.status == 404:
            return "none", None
        status = a.json["status"]
        if not (status == "importing" or
                (status == "uploading" and image.state == "importing")):
            return status, a.json
        if time.monotonic() > deadline:
            raise Failure(f"{image.id}: the import does not end")
        time.sleep(0.02)


def may_be(image):
    if image.state == "importing":
        return {"active"}
    if image.state == "uploading...active":
        return {"uploading", "active"}
    return {s.replace("gone", "none") for s in image.state.split("...")}


def check_image(g, image):
    status, shown = settled(g, image)
    if status == "uploading" and image.state == "uploading...active":
        # Its import may have been taken, and about to begin.
        time.sleep(0.3)
        status, shown = settled(g, image)
    if status not in may_be(image):
        raise Failure(f"{image.id} is {status}; it was {image.state}")
    if status == "active":
        got = g.request("GET", image.path + "/file").body
        if (got != image.data or shown["size"] != len(image.data) or
                shown["os_hash_value"] !=
                hashlib.sha512(image.data).hexdigest()):
            raise Failure(f"{image.id} has other data")
    elif status == "queued" and (shown["size"] is not None or
                                 shown["checksum"] is not None):
        raise Failure(f"{image.id} is queued, and has a size or a checksum")
    image.state, image.stage = "gone" if status == "none" else status, None


def check_placed(g, store, files):
    """Each is an image, as it is; then they go."""
    deadline = time.monotonic() + IMPORT_SEC
    while True:
        a = g.request("GET", "/v2/images?limit=1000")
        found = {i["name"]: i for i in a.json["images"]
                 if (i["name"] or "").startswith("placed ")}
        if set(found) == set(files):
            break
        if time.monotonic() > deadline:
            raise Failure(f"{set(found) ^ set(files)} are files or images "
                          "alone")
        time.sleep(0.05)
    for name, data in files.items():
        path = os.path.join(store, name + ".raw")
        if found[name]["status"] != "active":
            raise Failure(f"{name} is {found[name]['status']}")
        with open(path, "rb") as f:
            if f.read() != data:
                raise Failure(f"{name} has other data")
        a = g.request("DELETE", "/v2/images/" + found[name]["id"])
        if a.status != 204 or not os.path.exists(path):
            raise Failure(f"{name}: {a.status} to a deletion")
        os.unlink(path)
    files.clear()


def check_store(store, images):
    active = {i.id for i in images if i.state == "active"}
    staged = {i.id for i in images if i.state == "uploading"}
    wanted = active | {i + ".json" for i in active}
    found = {name for _, _, names in os.walk(os.path.join(store, "images"))
             for name in names}
    if found != wanted:
        raise Failure(f"{found ^ wanted} are data or images alone")
    left = set(os.listdir(store)) - OF_A_STORE
    if left:
        raise Failure(f"{left} are left over")
    for folder, wanted in ("incoming", set()), ("staging", staged):
        found = set(os.listdir(os.path.join(store, folder)))
        if found != wanted:
            raise Failure(f"{folder} has {found}, {wanted} was expected")
    db = sqlite3.connect(os.path.join(store, "index.sqlite"))
    said = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    if said != "ok":
        raise Failure(f"the index: {said}")


def settle_store(store, images):
    """The last step of an import, after its image is active, may be under
    way."""
    deadline = time.monotonic() + SETTLE_SEC
    while True:
        try:
            return check_store(store, images)
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def forget(g, images, rng):
    """What the next round need not look at again."""
    for image in [i for i in images if i.state == "gone"]:
        images.remove(image)
    while len(images) > KEPT:
        image = images.pop(rng.randrange(len(images)))
        a = g.request("DELETE", image.path)
        if a.status != 204:
            raise Failure(f"{image.id}: {a.status} to a deletion")


def kill_while_starting(store, rng):
    """What it was about is taken up by the next."""
    socket = store + ".nbd"
    if os.path.exists(socket):
        os.unlink(socket)
    p = subprocess.Popen(
        dies_with_us(bare_server(f"unix:{socket}", f"store={store}")),
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(rng.random() * STARTING_SEC)
    p.kill()
    p.wait()


def one_round(store, images, rng, stages, web, folder):
    files = {}
    g = Glance(*web.allowed(), store=store)
    placer = Placer(store, files, rng.random())
    try:
        clients = [Client(g, images, rng.random(), web, folder)
                   for _ in range(CLIENTS)]
        for c in [*clients, placer]:
            c.start()
        time.sleep(rng.random() * LONGEST_SEC)
        g.kill()
        for c in clients:
            c.join()
    finally:
        placer.end.set()
        placer.join()
        g.end()
    for c in clients:
        if c.wrong:
            raise c.wrong
    stages.update(i.stage for i in images if i.stage)
    if rng.random() < 0.4:
        kill_while_starting(store, rng)
    with Glance(*web.allowed(), store=store) as g:
        check_placed(g, store, files)
        for image in list(images):
            check_image(g, image)
        settle_store(store, images)
        forget(g, images, rng)


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit")
    rng, images, stages = random.Random(SEED), [], collections.Counter()
    print(f"seed {SEED}", flush=True)
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder, \
            tempfile.TemporaryDirectory(prefix="platter-web-") as served, \
            Web(served) as web:
        store = os.path.join(folder, "store")
        for n in range(ROUNDS):
            try:
                one_round(store, images, rng, stages, web, served)
            except Failure as e:
                print(f"round {n}: {e}")
                sys.exit(1)
    print(f"{ROUNDS} kills, requests under way: " +
          ", ".join(f"{stages[s]} {s}" for s in STAGES))
    missed = [s for s in STAGES if not stages[s]]
    if missed and ROUNDS >= 50:
        print(f"never killed while {missed}")
        sys.exit(1)


if __name__ == "__main__":
    main()

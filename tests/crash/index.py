#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter index restore and rebuild, killed at any moment, leave the old index
or the new one, and all data.

Each round: the index is lost, damaged, or older than the store; SIGKILL in the
middle of what mends that. Then a server starts, or refuses because there is
still no index; what mends it is done again; and all images are listed as they
were before.

PLATTER_KILL_ROUNDS: how many [30]; PLATTER_SEED
"""

import collections
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from glance import Glance  # noqa: E402
from server import Failure, dies_with_us, environment, need_programs, run  # noqa: E402

ROUNDS = int(os.environ.get("PLATTER_KILL_ROUNDS", "30"))
SEED = int(os.environ.get("PLATTER_SEED", "14"))
OLD, NEW = 40, 20  # images in the backup, and since
DATA_BYTES = 200000
OCTETS = {"Content-Type": "application/octet-stream"}
OF_A_STORE = {"images", "incoming", "staging", "grant.key", "lock",
              "index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}


def index(*argv, ok=(0,)):
    return run([os.environ["PLATTER"], "index", *argv], ok=ok)[1]


class Store:
    def __init__(self, folder, rng):
        self.path = os.path.join(folder, "store")
        self.backup = os.path.join(folder, "backup")
        self.whole = os.path.join(folder, "whole")
        self.longest = 0.0
        with Glance(store=self.path) as g:
            for n in range(OLD + NEW):
                if n == OLD:
                    index("backup", "--store", self.path, self.backup)
                a = g.request("POST", "/v2/images", {
                    "name": f"image {n}", "disk_format": "raw",
                    "container_format": "bare", "tags": [str(n)]})
                a = g.request("PUT", a.json["file"],
                              rng.randbytes(DATA_BYTES), OCTETS)
                if a.status != 204:
                    raise Failure(f"an upload: {a.text}")
            self.listed = self.list(g)
        shutil.copyfile(os.path.join(self.path, "index.sqlite"), self.whole)
        self.data = self.read()

    @staticmethod
    def list(g):
        return g.request("GET", "/v2/images?limit=1000").json["images"]

    def read(self):
        found = {}
        for where, _, names in os.walk(os.path.join(self.path, "images")):
            for n in names:
                if not n.endswith((".json", ".json.new")):
                    with open(os.path.join(where, n), "rb") as f:
                        found[n] = hashlib.sha256(f.read()).hexdigest()
        return found

    def index(self):
        return os.path.join(self.path, "index.sqlite")

    def spoil(self, how):
        for n in os.listdir(self.path):
            if n.startswith("index.sqlite") and ".new" not in n:
                os.unlink(os.path.join(self.path, n))
        if how == "older":
            shutil.copyfile(self.backup, self.index())
        elif how == "damaged":
            with open(self.whole, "rb") as f:
                data = bytearray(f.read())
            data[8192:12288] = bytes(4096)
            with open(self.index(), "wb") as f:
                f.write(data)

    def check(self):
        """After a server's start: nothing left over, nothing gone."""
        left = {n for n in os.listdir(self.path)
                if not n.startswith("index.sqlite.replaced-")} - OF_A_STORE
        if left:
            raise Failure(f"{left} are left over")
        for n in os.listdir(self.path):
            if os.stat(os.path.join(self.path, n)).st_nlink > 1 and \
                    n.startswith("index"):
                raise Failure(f"{n} has a second name")
        if self.read() != self.data:
            raise Failure("the data are others")


def started(store):
    """Does a server start? If not, it says why in one line."""
    try:
        with Glance(store=store.path) as g:
            store.check()
            return store.list(g)
    except Failure as e:
        if "platter index rebuild" not in str(e):
            raise
        return None


def one_round(store, rng):
    """What was done, and whether it was before it was killed."""
    how = rng.choice(("lost", "older", "damaged"))
    verb = rng.choice(("rebuild", "rebuild", "restore"))
    store.spoil(how)
    argv = [os.environ["PLATTER"], "index", verb, "--store", store.path]
    began = time.monotonic()
    p = subprocess.Popen(
        dies_with_us(argv + [store.whole] * (verb == "restore")),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        p.wait(rng.random() * max(store.longest, 0.2) * 1.1)
    except subprocess.TimeoutExpired:
        p.kill()
    said = p.communicate()[1]
    done = p.returncode
    if done not in (0, 3, -9):
        raise Failure(f"{verb} of a {how} index: {done}: {said}")
    if done != -9:
        store.longest = max(store.longest, time.monotonic() - began)
    if store.read() != store.data:
        raise Failure(f"{verb} of a {how} index changed the data")
    listed = started(store)
    if listed is None and (how == "older" or done != -9):
        raise Failure(f"{verb} of a {how} index, {done}: no server starts")
    if listed != store.listed:
        if done != -9:
            raise Failure(f"{verb} of a {how} index: other images")
        index("rebuild", "--store", store.path, ok=(0, 3))
        if started(store) != store.listed:
            raise Failure(f"{verb} of a {how} index, once more: other images")
    store.check()
    return f"{verb} of a {how} index", "killed" if done == -9 else "whole"


def main():
    environment("PLATTER_PLUGIN", "PLATTER")
    need_programs("nbdkit")
    rng, seen = random.Random(SEED), collections.Counter()
    print(f"seed {SEED}", flush=True)
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder:
        try:
            store = Store(folder, rng)
            for n in range(ROUNDS):
                seen[one_round(store, rng)] += 1
        except Failure as e:
            print(f"round {sum(seen.values())}: {e}")
            sys.exit(1)
    print(f"{ROUNDS} rounds: " + ", ".join(
        f"{n} {what} {end}" for (what, end), n in sorted(seen.items())))
    if not any(end == "killed" for _, end in seen):
        print("never killed in the middle")
        sys.exit(1)


if __name__ == "__main__":
    main()

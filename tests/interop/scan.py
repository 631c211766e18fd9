#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images that lie in the store's folder already: registered in place, and
followed; platter index."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from nbd import Client, Refused as NoExport  # noqa: E402
from server import dies_with_us, environment, need_programs, run  # noqa: E402

DISK_BYTES = 2 << 20
WAIT_SEC = 10


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(9).randbytes(DISK_BYTES)
        with open(self.path("raw"), "wb") as f:
            f.write(self.disk)
        for fmt in "qcow2", "vmdk":
            run(["qemu-img", "convert", "-f", "raw", "-O", fmt,
                 self.path("raw"), self.path(fmt)])

    def path(self, name):
        return os.path.join(self.folder, name)

    def store(self, name, **files):
        """A folder with copies of these files: name of ours by theirs."""
        store = self.path(name)
        for to, what in files.items():
            self.put(store, to.replace("__", "/").replace("_", "."), what)
        return store

    def put(self, store, to, what):
        os.makedirs(os.path.dirname(os.path.join(store, to)), exist_ok=True)
        shutil.copyfile(self.path(what), os.path.join(store, to))


def images(g):
    listed = g.request("GET", "/v2/images?sort=name:asc").json["images"]
    return {i["name"]: i for i in listed}


def wait_for(what, message):
    deadline = time.monotonic() + WAIT_SEC
    while not what():
        is_true(time.monotonic() < deadline, message)
        time.sleep(0.05)


def reads(g, export):
    with Client(g.nbd_socket) as client:
        try:
            client.go(export.encode())
        except NoExport:
            return None
        return client.read(0, 4096)


def index(*argv, status=0):
    return run([os.environ["PLATTER"], "index", *argv], ok=(status,))[1:]


def names_do_not_forge_lines_of_the_log(c):
    name = "a\nplatter: store: forged\x1b[2J\xff.qcow2"
    store = c.store("forged")
    c.put(store, os.fsdecode(name.encode("latin-1")), "qcow2")
    with Glance(store=store) as g:
        wait_for(lambda: "forged" in g.messages(), "it is not told of")
        said = g.messages()
        is_true(not any(line.startswith("platter: store: forged")
                        for line in said.split("\n")), said)
        is_true("\\x0aplatter: store: forged\\x1b[2J\\xff" in said, said)


def what_lies_there_is_served(c):
    store = c.store("lies", gold_qcow2="qcow2", sub__deep__old_vmdk="vmdk",
                    plain_img="raw", plain_txt="raw")
    os.symlink(c.path("qcow2"), os.path.join(store, "link.qcow2"))
    shutil.copyfile(c.path("qcow2"), os.path.join(store, ".hidden.qcow2"))
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
         "gold.qcow2", os.path.join(store, "over.qcow2")])
    before = sorted(os.listdir(store))
    with Glance(store=store) as g:
        got = images(g)
        is_equal({n: (i["disk_format"], i["status"], i["visibility"],
                      i["virtual_size"]) for n, i in got.items()},
                 {"gold": ("qcow2", "active", "private", DISK_BYTES),
                  "old": ("vmdk", "active", "private", DISK_BYTES),
                  "plain": ("raw", "active", "private", DISK_BYTES)},
                 "what was found")
        for name, i in got.items():
            for export in name, i["id"]:
                is_equal(reads(g, export), (0, c.disk[:4096]), f"export {export}")
            a = g.request("HEAD", f"/v1/images/{i['id']}")
            is_equal((a.status, [h for h in a.headers if "location" in h]),
                     (200, []), "what v1 says of where it lies")
            a = g.request("GET", i["file"])
            is_equal(len(a.body), i["size"], f"the size of {name}'s file")
        ids = {n: i["id"] for n, i in got.items()}
    is_true(all(n in os.listdir(store) for n in before), "a file was moved")
    with Glance(store=store) as g:
        is_equal({n: i["id"] for n, i in images(g).items()}, ids,
                 "the ids after a restart")
        # What is deleted by the API is not found again, and not removed.
        a = g.request("DELETE", "/v2/images/" + ids["gold"])
        is_equal(a.status, 204, "the status of a deletion")
        c.put(store, "new.qcow2", "qcow2")
        wait_for(lambda: "new" in images(g), "a new file is not found")
        is_equal("gold" in images(g), False, "what was deleted is there")
        is_true(os.path.exists(os.path.join(store, "gold.qcow2")),
                "a file was removed")


def changes_are_followed(c):
    store = c.store("follow", a_qcow2="qcow2")
    path = os.path.join(store, "a.qcow2")
    with Glance(store=store) as g:
        first = images(g)["a"]
        # Gone, and back.
        os.rename(path, c.path("away"))
        wait_for(lambda: images(g)["a"]["status"] == "deactivated",
                 "a file that has gone is active")
        is_equal(images(g)["a"].get("platter_missing"), "true", "the property")
        is_equal(reads(g, first["id"]), None, "what is read of it")
        os.rename(c.path("away"), path)
        wait_for(lambda: images(g)["a"]["status"] == "active",
                 "a file that is back is not active")
        is_equal("platter_missing" in images(g)["a"], False, "the property")
        is_equal(images(g)["a"]["id"], first["id"], "the id")
        is_equal(reads(g, "a"), (0, c.disk[:4096]), "what is read of it")
        # Deactivated by an administrator, it stays so.
        g.request("POST", f"/v2/images/{first['id']}/actions/deactivate")
        os.rename(path, c.path("away"))
        wait_for(lambda: "platter_missing" in images(g)["a"],
                 "a file that has gone is there")
        os.rename(c.path("away"), path)
        wait_for(lambda: "platter_missing" not in images(g)["a"],
                 "a file that is back is missing")
        is_equal(images(g)["a"]["status"], "deactivated", "the status")
        # In folders that come later, and while they are written.
        os.makedirs(os.path.join(store, "x/y"))
        time.sleep(0.5)
        with open(os.path.join(store, "x/y/slow.qcow2"), "wb") as f:
            with open(c.path("qcow2"), "rb") as source:
                data = source.read()
            f.write(data[:1 << 20])
            f.flush()
            c.put(store, "x/other.vmdk", "vmdk")
            wait_for(lambda: "other" in images(g), "a new file is not found")
            is_equal("slow" in images(g), False, "half a file is an image")
            f.write(data[1 << 20:])
        wait_for(lambda: "slow" in images(g), "it is not found when closed")
        # Another in its place.
        c.put(store, "x/other.vmdk", "qcow2")
        wait_for(lambda: images(g)["other"]["disk_format"] == "qcow2",
                 "another file in its place is not seen")
        is_equal(images(g)["other"]["size"], os.path.getsize(c.path("qcow2")),
                 "its size")


def a_command_scans_and_backs_up(c):
    store, other = c.path("command"), c.store("others", b_vmdk="vmdk",
                                              c_qcow2="qcow2")
    out = json.loads(index("scan", "--json", "--store", store, "--owner", "p",
                           "--visibility", "public", other)[0])
    is_equal((out["known"], sorted(e["event"] for e in out["events"])),
             (0, ["new", "new"]), "what a first scan says")
    again = index("scan", "--store", store, other)[0]
    is_true("2 as they were" in again, f"a second scan says {again!r}")
    os.remove(os.path.join(other, "c.qcow2"))
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "vmdk", "-b",
         "b.vmdk", os.path.join(other, "over.qcow2")])
    said = index("scan", "--store", store, other)[0].split("\n")
    is_true(said[0].startswith("gone ") and said[0].endswith("c.qcow2"),
            f"it says {said[0]!r}")
    is_true(said[1].startswith("refused ") and "backing" in said[1],
            f"it says {said[1]!r}")
    backup = c.path("backup.sqlite")
    # They are served where the server may look.
    with Glance(store=store) as g:
        is_equal(reads(g, "b"), None, "what is read elsewhere")
    with Glance(f"location-dirs={other}", store=store) as g:
        got = images(g)
        is_equal((got["b"]["owner"], got["b"]["visibility"],
                  got["c"]["status"]), ("p", "public", "deactivated"),
                 "what the command registered")
        is_equal(reads(g, "b"), (0, c.disk[:4096]), "what is read there")
        stop = threading.Event()

        def write():
            while not stop.is_set():
                g.request("POST", "/v2/images", {"name": "more"})
        writer = threading.Thread(target=write)
        writer.start()
        try:
            index("backup", "--store", store, backup)
        finally:
            stop.set()
            writer.join()
    with sqlite3.connect(backup) as db:
        is_equal(db.execute("PRAGMA integrity_check").fetchone()[0], "ok",
                 "the backup")
        is_equal(db.execute("SELECT count(*) FROM images WHERE name = 'b'")
                 .fetchone()[0], 1, "the images in it")
    db.close()
    is_true("--overwrite" in index("backup", "--store", store, backup,
                                   status=1)[1], "a backup was replaced")
    index("backup", "--overwrite", "--store", store, backup)
    # The copy is an index.
    copy = c.path("copy")
    os.makedirs(copy)
    os.rename(backup, os.path.join(copy, "index.sqlite"))
    with Glance(f"location-dirs={other}", store=copy) as g:
        is_equal(reads(g, "b"), (0, c.disk[:4096]), "what the copy serves")


def who_writes_meanwhile_harms_nobody(c):
    """Whether anybody writes is looked at by a lease, which a writer breaks."""
    store, files = c.path("busy"), c.path("busy-files")
    os.makedirs(files)
    path = os.path.join(files, "a.raw")
    shutil.copyfile(c.path("raw"), path)
    writers = [subprocess.Popen(
        dies_with_us(["sh", "-c", f"while :; do {what}; done", path]),
        start_new_session=True)
        for what in (': >>"$0"', 'touch "$0"; sleep 0.001')]
    try:
        for _ in range(40):
            index("scan", "--store", store, files)
    finally:
        # With what the shell has started, which may have the file open.
        for p in writers:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
    index("scan", "--store", store, files)
    out = json.loads(index("scan", "--json", "--store", store, files)[0])
    is_equal(out["known"], 1, "the files known in the end")


def what_is_known_follows_the_file(c):
    """The index's snapshots are those of the file that lies there now."""
    store = c.store("known", a_qcow2="qcow2")

    def snapshots():
        db = sqlite3.connect(os.path.join(store, "index.sqlite"))
        try:
            return [r[0] for r in db.execute(
                "SELECT name FROM snapshots ORDER BY at")]
        finally:
            db.close()
    with Glance(store=store) as g:
        is_equal(images(g)["a"]["min_disk"], 1, "min_disk")
        is_equal(snapshots(), [], "snapshots in the index")
        run(["qemu-img", "snapshot", "-c", "s",
             os.path.join(store, "a.qcow2")])
        wait_for(lambda: snapshots() == ["s"], "a snapshot is not known")
        os.remove(os.path.join(store, "a.qcow2"))
        wait_for(lambda: images(g)["a"]["status"] == "deactivated",
                 "a file that has gone is active")
        g.request("DELETE", f"/v2/images/{images(g)['a']['id']}")
        is_equal(snapshots(), [], "snapshots of an image that is gone")


def mistakes_are_one_line(c):
    for status, argv in (
            (2, []), (2, ["scan"]), (2, ["look", "--store", c.folder]),
            (2, ["backup", "--store", c.folder]),
            (2, ["scan", "--store", c.folder, "a", "b"]),
            (2, ["scan", "--store", c.folder, "--visibility", "none"]),
            (1, ["backup", "--store", c.path("nothing"), c.path("x")]),
            (1, ["scan", "--store", c.path("raw")]),
            (1, ["scan", "--store", c.path("s"), c.path("nothing")])):
        err = index(*argv, status=status)[1]
        is_true(err.startswith("platter: ") and err.count("\n") == 1,
                f"{argv}: not one line: {err!r}")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    run_checks(Context, [what_lies_there_is_served,
                         names_do_not_forge_lines_of_the_log, changes_are_followed,
                         a_command_scans_and_backs_up,
                         who_writes_meanwhile_harms_nobody,
                         what_is_known_follows_the_file,
                         mistakes_are_one_line])

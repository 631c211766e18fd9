#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter image, the command, against the image service."""

import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import free_port  # noqa: E402
from server import environment, need_programs, run  # noqa: E402

DISK_BYTES = 5 << 20
USAGE = 2


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = bytearray(random.Random(7).randbytes(DISK_BYTES))
        self.disk[1 << 20:3 << 20] = bytes(2 << 20)
        with open(self.path("a.disk.raw"), "wb") as f:
            f.write(self.disk)
        run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk",
             self.path("a.disk.raw"), self.path("gold.v1.vmdk")])

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()


class Command:
    def __init__(self, g, token=None):
        self.env = dict(os.environ, PLATTER_URL=f"unix:{g.socket}",
                        no_proxy="*")
        if g.tcp:
            self.env["PLATTER_URL"] = f"http://127.0.0.1:{g.tcp}/v2/"
        self.env.pop("OS_TOKEN", None)
        if token:
            self.env["OS_TOKEN"] = token

    def __call__(self, *argv, status=0):
        return run([os.environ["PLATTER"], "image", *argv], ok=(status,),
                   env=self.env)[1:]

    def json(self, *argv):
        return json.loads(self(*argv, "--json")[0])

    def refused(self, *argv, status=1):
        err = self(*argv, status=status)[1]
        is_true(err.startswith("platter: ") and err.count("\n") == 1,
                f"not one line: {err!r}")
        return err[9:-1]


def an_image_lives_its_life(c):
    with Glance() as g:
        p = Command(g)
        made = p.json("create", "--property", "colour=red", "--tag", "x",
                      "--min-disk", "1", c.path("gold.v1.vmdk"))
        is_equal({k: made[k] for k in ("name", "disk_format", "status", "tags",
                                       "container_format", "colour",
                                       "min_disk", "size")},
                 {"name": "gold", "disk_format": "vmdk", "status": "active",
                  "tags": ["x"], "container_format": "bare", "colour": "red",
                  "min_disk": 1, "size": len(c.read("gold.v1.vmdk"))},
                 "a new image")
        is_equal(p.json("list"), [made], "the list")
        is_equal(p.json("list", "--name", "gold", "--property", "colour=red",
                        "--tag", "x", "--status", "active"), [made],
                 "what fits")
        is_equal(p.json("list", "--property", "colour=blue"), [],
                 "what does not fit")
        out = p("list")[0].split("\n")
        is_equal((len(out), made["id"] in out[1], out[1].endswith("  gold")),
                 (3, True, True), f"the table {out}")
        shown = p("show", "gold")[0]
        is_true("colour             red\n" in shown and "tags               x\n"
                in shown, f"show says {shown}")
        p("set", "gold", "--name", "new/~", "--property", "a/b~c=d", "--unset",
          "colour", "--tag", "y", "--protected", "true")
        now = p.json("show", made["id"])
        is_equal((now["name"], now.get("a/b~c"), "colour" in now,
                  sorted(now["tags"]), now["protected"]),
                 ("new/~", "d", False, ["x", "y"], True), "what was set")
        is_true("403 Forbidden" in p.refused("delete", "new/~"),
                "a protected image was deleted, or not for that")
        p("set", "new/~", "--protected", "false")
        for name, what in (("stored", "gold.v1.vmdk"), ("disk", "a.disk.raw")):
            raw = ["--raw"] if name == "disk" else []
            p("save", *raw, made["id"], c.path(name))
            is_equal(c.read(name) == c.read(what), True, f"what {name} has")
        is_true(os.stat(c.path("disk")).st_blocks * 512 < DISK_BYTES,
                "the saved disk has no holes")
        is_true("--overwrite" in p.refused("save", "new/~", c.path("disk")),
                "a file was replaced")
        p("save", "--overwrite", "new/~", c.path("disk"))
        is_equal(c.read("disk") == c.read("gold.v1.vmdk"), True,
                 "what replaced it")
        with open(c.path("piped"), "wb") as f:
            subprocess.run([os.environ["PLATTER"], "image", "save", made["id"],
                            "-"], env=p.env, stdout=f, check=True)
        is_equal(c.read("piped") == c.read("gold.v1.vmdk"), True,
                 "what standard output had")
        p("share", "new/~", "p1", "p2")
        p("share", "new/~", "p1", "--status", "accepted")
        p("share", "new/~", "p2", "--remove")
        is_equal([(m["member_id"], m["status"])
                  for m in p.json("share", made["id"])], [("p1", "accepted")],
                 "the members")
        is_equal(p("share", made["id"])[0], "accepted   p1\n", "their lines")
        p("delete", "new/~")
        is_equal(p.json("list"), [], "the list afterwards")


def names_are_found_and_pages_followed(c):
    port = free_port()
    with Glance(f"glance=127.0.0.1:{port}", tcp=port) as g:
        p = Command(g)
        for n in range(1001):
            g.request("POST", "/v2/images", {"name": f"i{n % 1000}"})
        is_equal(len(p.json("list")), 1001, "the number of images listed")
        is_true("several images" in p.refused("show", "i0"),
                "one of two was taken")
        is_true("no images" in p.refused("show", "i1001"), "a name was found")
        is_true("404 Not Found" in
                p.refused("show", "00000000-0000-4000-8000-000000000000"),
                "an id was found")
        is_equal(p.json("show", "i7")["name"], "i7", "the name")


def mistakes_are_one_line(c):
    with Glance() as g:
        p = Command(g)
        for argv in ([], ["lits"], ["show"], ["show", "a", "b"], ["set", "a"],
                     ["delete"], ["save", "a"], ["share"],
                     ["create", "--min-disk", "x"], ["create", "a", "b"],
                     ["create", "--property", "x"], ["list", "x"],
                     ["create", "--protected", "maybe"], ["list", "--nothing"],
                     ["create", "-"], ["list", "--url"]):
            p.refused(*argv, status=USAGE)
        is_true("400 Bad Request" in
                p.refused("create", "--disk-format", "floppy"),
                "a wrong format is not told")
        # What is refused stays nowhere.
        is_true("content" in p.refused("create", "--disk-format", "qcow2",
                                       c.path("a.disk.raw")),
                "a raw disk is qcow2")
        is_equal(p.json("list"), [], "what a refused upload left")
        p.refused("create", c.path("nothing"))
        empty = p.json("create", "--name", "empty", "--disk-format", "raw",
                       "--container-format", "bare")
        is_equal(empty["status"], "queued", "the status without data")
        is_true("no data" in p.refused("save", "empty", c.path("none")),
                "nothing was saved")
        is_equal(os.path.exists(c.path("none")), False, "what that left")
        for url, why in (("http://127.0.0.1:1", "connect"), ("ftp://x", "URL"),
                         ("unix:/nothing", "connect")):
            is_true(why in p.refused("list", "--url", url),
                    f"{url} is not what is wrong")
        env, p.env = p.env, {k: v for k, v in p.env.items()
                             if not k.startswith(("PLATTER_URL", "OS_"))}
        is_true("--url" in p.refused("list"), "a service was found")
        p.env = env


def tokens_are_taken(c):
    with open(c.path("tokens"), "w") as f:
        json.dump({"one": {"project": "p1", "user": "u", "roles": ["member"]}},
                  f)
    for name, text in (("good", "one\n"), ("bad", "a\r\nX-Evil: b")):
        with open(c.path(name), "w") as f:
            f.write(text)
    with Glance(f"auth=tokens:{c.path('tokens')}") as g:
        p = Command(g)
        is_true("401 Unauthorized" in p.refused("list"), "nobody was let in")
        is_equal(p.json("list", "--token-file", c.path("good")), [],
                 "what a token lists")
        p.refused("list", "--token-file", c.path("bad"))
        p.refused("list", "--token-file", c.path("none"))
        is_equal(Command(g, "one").json("list"), [], "what $OS_TOKEN lists")


def data_come_from_a_pipe_and_may_stop(c):
    with Glance() as g:
        p = Command(g)
        argv = [os.environ["PLATTER"], "image", "create", "--name", "piped",
                "--disk-format", "raw", "-"]
        subprocess.run(argv, env=p.env, input=bytes(c.disk), check=True,
                       stdout=subprocess.DEVNULL)
        is_equal(p.json("show", "piped")["size"], DISK_BYTES, "the size")
        p("delete", "piped")
        with subprocess.Popen(argv, env=p.env, stdin=subprocess.PIPE,
                              stderr=subprocess.PIPE) as upload:
            upload.stdin.write(bytes(1 << 20))
            upload.stdin.flush()
            deadline = time.monotonic() + 10
            while not p.json("list", "--status", "saving"):
                is_true(time.monotonic() < deadline, "no upload began")
                time.sleep(0.05)
            upload.send_signal(signal.SIGINT)
            upload.stdin.close()
            said = upload.stderr.read().decode()
            is_equal(upload.wait(10), 1, "the exit status")
        is_true("interrupted" in said, f"it says {said!r}")
        is_equal(p.json("list"), [], "what an interrupted upload left")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img")
    run_checks(Context, [
        an_image_lives_its_life, names_are_found_and_pages_followed,
        mistakes_are_one_line, tokens_are_taken,
        data_come_from_a_pipe_and_may_stop])

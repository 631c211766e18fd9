#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Disks of a QEMU that writes to them move: from a format that keeps it from
migrating, to another server, the whole or what differs from an image that is
there already. What was written is there at the end; nothing is sent that need not
be; what is killed is gone on with."""

import json
import os
import random
import shutil
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from authority import Authority  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from moves import (begin, drive, host, kill_server, move_guest,  # noqa: E402
                   overlay_of, pause_at_switchover, platter, read_all,
                   wait_for_run, wait_until_open)
from nbd import Client, Refused  # noqa: E402
from qemu import Qemu, Writer  # noqa: E402
from server import (COMMAND_SEC, Server, environment,  # noqa: E402
                    need_programs, run)

SIZE = 32 << 20
FULL = bool(os.environ.get("PLATTER_FULL"))
FORMATS = ["vmdk", "vhdx", "vdi", "vpc", "qcow", "parallels"]


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = bytearray(random.Random(4).randbytes(SIZE))
        self.disk[8 << 20:16 << 20] = bytes(8 << 20)
        with open(self.path("base.raw"), "wb") as f:
            f.write(self.disk)
        self.count = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def serve(self, image="base.raw", detect="zeroes,base", more=(), own=True):
        """A host's server, with overlays in a folder of its own."""
        self.count += 1
        return host(self.path(f"host{self.count}"),
                    self.path(image) if "://" not in image else image,
                    detect, more, own)


def is_disk(s, export, model):
    got = read_all(s, export)
    for off in range(0, len(model), 4096):
        if got[off:off + 4096] != model[off:off + 4096]:
            is_true(False, f"{export}: differs at {off}")


def traffic(s, export, op):
    out = run([os.environ["PLATTER"], "overlay", "stats", "--json",
               "--control", s.control])[1]
    for e in json.loads(out)["exports"]:
        if e["name"] == export:
            return e["traffic"].get(op, {}).get("bytes", 0)
    return 0


def what_libvirt_would_clear_is_not_planned_for_it(c):
    with c.serve() as s:
        for name, can in (("+vm=1", True), ("+vm=1@:own", False)):
            with Qemu(c.folder, "-drive", "if=none,id=disk0,driver=nbd,"
                      f"server.type=unix,server.path={s.socket},"
                      f"export={name}") as q:
                plan = platter("plan", "--qmp", q.monitor, "--to",
                               "nbd://two/+vm=1")[1]
            is_equal("virsh blockcopy DOMAIN" in plan, can, f"a line: {plan}")
            is_equal("would be lost" in plan, not can, f"a warning: {plan}")


def a_running_guest_is_unblocked(c):
    """Of each format that keeps it from migrating; it goes on."""
    for fmt in FORMATS:
        image = c.path(f"disk.{fmt}")
        run(["qemu-img", "convert", "-q", "-O", fmt, "-f", "raw",
             c.path("base.raw"), image])
        # Formats round up: cylinders, or tracks.
        size = json.loads(run(["qemu-img", "info", "--output=json", "-f", fmt,
                               image])[1])["virtual-size"]
        with open(c.path("empty.raw"), "wb") as f:
            f.truncate(size)
        model = bytearray(c.disk) + bytes(size - SIZE)
        with c.serve("empty.raw", "zeroes") as s, \
                Qemu(c.folder, "-drive",
                     f"if=none,id=disk0,file={image},format={fmt}") as q:
            told = json.loads(platter("status", "--qmp", q.monitor,
                                      "--json")[1])
            is_equal(told["disks"][0]["blocked"], True, f"{fmt} is blocked")
            plan = platter("plan", "--qmp", q.monitor, "--to", s.uri("+vm"))[1]
            for line in (f"{fmt}, with which QEMU does not migrate",
                         "platter migrate unblock --qmp", "virsh blockcopy"):
                is_true(line in plan, f"{line!r} is not in {plan}")
            with Writer(q, model, span=SIZE) as w:
                w.wait_for(20)
                platter("unblock", "--qmp", q.monitor, "--to", s.uri("+vm"))
                w.wait_for(w.writes + 20)
            told = json.loads(platter("status", "--qmp", q.monitor,
                                      "--json")[1])
            is_equal((told["disks"][0]["format"], told["disks"][0]["blocked"],
                      told["jobs"]), ("nbd", False, []), "afterwards")
            # It is there already.
            platter("unblock", "--qmp", q.monitor, "--to", s.uri("+vm"))
            q.io("flush")
            is_disk(s, "+vm", model)


def only_what_differs_is_sent_and_stored(c):
    """From a server to one that has the same image, while the guest writes."""
    model = bytearray(c.disk)
    with c.serve() as a, c.serve() as b, c.serve() as d, \
            Qemu(c.folder, *drive(a, "+vm")) as q:
        with Writer(q, model, span=1 << 20) as w:
            w.wait_for(50)
            platter("push", "--qmp", q.monitor, "--to", b.uri("+vm=1"),
                    "--from", a.uri("+vm"))
            w.wait_for(w.writes + 50)
        for off in (9 << 20, 20 << 20):  # new zeroes, and a hole
            is_equal(q.io(f"write -z {off} 64k"), "", "zeroes")
            model[off:off + 65536] = bytes(65536)
        q.io("flush")
        is_disk(b, "+vm=1", model)
        sent = traffic(b, "+vm", "write")
        is_true(sent < 2 * w.writes * 4096 + (1 << 20), f"{sent} bytes sent")
        held = os.stat(os.path.join(b.overlays, "vm.qcow2")).st_blocks * 512
        is_true(held < 3 << 20, f"{held} bytes stored")
        # And on, from there, in the same way.
        with Writer(q, model, seed=2, span=1 << 20) as w:
            platter("push", "--qmp", q.monitor, "--to", d.uri("+x"),
                    "--from", b.uri("+vm=1"))
            w.wait_for(w.writes + 20)
        q.io("flush")
        is_disk(d, "+x", model)


def a_guest_without_platter_is_pushed(c):
    """From QEMU's own qcow2: the whole is sent, what differs is stored; of its
    top layer no more is sent either."""
    for top in (False, True):
        model = bytearray(c.disk)
        image = c.path(f"top{top}.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b",
             c.path("base.raw"), "-F", "raw", image])
        with c.serve() as b, \
                Qemu(c.folder, "-drive",
                     f"if=none,id=disk0,file={image},format=qcow2") as q:
            with Writer(q, model, span=1 << 20) as w:
                w.wait_for(50)
                platter("push", "--qmp", q.monitor, "--to", b.uri("+vm"),
                        *(["--top"] if top else []))
                w.wait_for(w.writes + 20)
            q.io("flush")
            is_disk(b, "+vm", model)
            sent = traffic(b, "+vm", "write")
            is_true((sent < 8 << 20) == top, f"top {top}: {sent} bytes sent")
            held = os.stat(os.path.join(b.overlays, "vm.qcow2")).st_blocks
            is_true(held * 512 < 4 << 20, f"{held} sectors stored")


def a_move_that_fails_leaves_the_guest_as_it_was(c):
    model = bytearray(c.disk)
    with c.serve() as a, Qemu(c.folder, *drive(a, "+vm")) as q:
        node = q.disk()["node-name"]
        with Writer(q, model) as w:
            for to, why in (("nbd+unix:///+vm?socket=/nowhere", "No such"),
                            ("http://h/x", "neither"),
                            (a.uri("nothing"), "export"),
                            (a.uri("+vm@:base.."), "")):
                if to.startswith("http"):
                    # Another disk than the guest's is not taken for it.
                    status, _, err = platter(
                        "push", "--qmp", q.monitor, "--from", a.uri("+x"),
                        "--to", a.uri("+y"), ok=None)
                    is_true(status == 1 and "not what --from" in err, err)
                status, _, err = platter("push", "--qmp", q.monitor, "--to",
                                         to, ok=None)
                is_true(status == 1 and why in err, f"{to}: {status}, {err}")
                is_equal(q.disk()["node-name"], node, "the guest's node")
            # A target that fills up.
            with c.serve(more=["--overlay-max", "2M"]) as b:
                status, _, err = platter("push", "--qmp", q.monitor, "--to",
                                         b.uri("+vm"), "--from", a.uri("+vm"),
                                         ok=None)
                w.wait_for(w.writes + 400)
                if not status:
                    status, _, err = platter("push", "--qmp", q.monitor,
                                             "--to", b.uri("+y"), ok=None)
                is_true(status == 1 and "No space" in err, f"{err}")
            w.wait_for(w.writes + 20)
        q.io("flush")
        is_disk(a, "+vm", model)


def whoever_is_killed_nothing_is_lost(c):
    """The command, either server: at any moment of a push, which is asked for again
    until it is done; the guest writes on all the while."""
    rnd = random.Random(8)
    for step in range(60 if FULL else 5):
        model = bytearray(c.disk)
        with c.serve() as a, c.serve() as b, \
                Qemu(c.folder, *drive(a, "+vm")) as q, \
                Writer(q, model, seed=step) as w:
            w.wait_for(20)
            push = ["push", "--qmp", q.monitor, "--to", b.uri("+vm"),
                    "--from", a.uri("+vm")]
            for victim in rnd.sample(["us", "a", "b", "us"], 3):
                p = begin(*push)
                time.sleep(rnd.uniform(0, 0.3))
                if victim == "us":
                    p.kill()
                else:
                    kill_server(a if victim == "a" else b)
                p.wait(COMMAND_SEC)
                w.wait_for(w.writes + 10)
            platter(*push)
            is_true(q.disk()["node-name"].startswith("platter-n"), "moved")
            told = json.loads(platter("status", "--qmp", q.monitor,
                                      "--json")[1])
            is_equal(told["jobs"], [], "jobs that are left")
            w.wait_for(w.writes + 20)
            w.end()
            q.io("flush")
            is_disk(b, "+vm", model)


def a_move_costs_what_differs(c):
    """One percent of a disk: what the destination takes and holds of it, and what
    it is asked for by who pulls it from there."""
    room = shutil.disk_usage(c.folder).free > 24 << 30
    size = (10 << 30) if FULL and room else (256 << 20)
    piece = random.Random(5).randbytes(1 << 20)
    with open(c.path("large.raw"), "wb") as f:
        for _ in range(size >> 20):
            f.write(piece)
    with c.serve("large.raw") as a, c.serve("large.raw") as b, \
            Qemu(c.folder, *drive(a, "+vm")) as q:
        for off in range(0, size, 100 << 20):
            is_equal(q.io(f"write -P 7 {off + 4096} "
                          f"{min(1 << 20, size - off - 4096)}"), "", "a write")
        began = time.monotonic()
        platter("push", "--qmp", q.monitor, "--to", b.uri("+vm"), "--from",
                a.uri("+vm"))
        took = time.monotonic() - began
        q.io("flush")
        sent = traffic(b, "+vm", "write")
        held = os.stat(os.path.join(b.overlays, "vm.qcow2")).st_blocks * 512
        print(f"of {size >> 20} MiB {100 * sent / size:.2f} % were sent, "
              f"{100 * held / size:.2f} % are held, in {took:.1f} s")
        # Tables and such have a size of their own, that of small disks, too.
        is_true(sent <= size * 0.015 and held <= size * 0.015 + (1 << 20),
                f"{sent} bytes sent, {held} held")
        is_equal(run([os.environ["PLATTER"], "diff", "-q", a.uri("+vm"),
                      b.uri("+vm")], ok=None)[0], 0, "the comparison")
        source = b.uri("+vm@:base..")
        with c.serve("large.raw", more=["--allow", source]) as d, \
                Client(b.socket) as n:
            n.go(b"+vm@:base..")  # it is counted as long as it is open
            platter("pull", "--base", "--control", d.control, "--from", source,
                    "+vm")
            sent = traffic(b, "+vm@:base..", "read")
            held = os.stat(os.path.join(d.overlays, "vm.qcow2")).st_blocks * 512
            print(f"{100 * sent / size:.2f} % were pulled, "
                  f"{100 * held / size:.2f} % are held")
            is_true(size // 200 < sent <= size * 0.015 + (1 << 20) and
                    held <= size * 0.015 + (1 << 20),
                    f"{sent} bytes pulled, {held} held")
            is_equal(run([os.environ["PLATTER"], "diff", "-q", a.uri("+vm"),
                          d.uri("+vm")], ok=None)[0], 0, "the comparison")
    os.unlink(c.path("large.raw"))


def what_is_called_zero_is_not_pulled_as_zeroes(c):
    """With --diff apply, what has not changed."""
    with c.serve(more=["--diff", "apply"]) as a:
        platter("fence", "--control", a.control, "+vm", "1")
        source = a.uri("+vm=1@:base..")
        with c.serve(more=["--allow", source]) as b:
            status, _, err = platter("pull", "--control", b.control, "--from",
                                     source, "+vm", ok=None)
            is_true(status == 1 and "with --diff apply" in err, err)
            is_disk(b, "+vm", c.disk)


def another_image_is_not_taken_for_the_one_below(c):
    """It is noticed before the pull's end, and all is fetched then."""
    model = bytearray(c.disk)
    with open(c.path("other.raw"), "wb") as f:
        f.write(c.disk[:SIZE // 2])
        f.write(random.Random(6).randbytes(SIZE // 2))
    with c.serve() as a:
        with Client(a.socket) as n:
            n.go(b"+vm=1")
            is_equal(n.write(0, b"written" * 512), 0, "the write")
        model[:3584] = b"written" * 512
        source = a.uri("+vm=1@:base..")
        with c.serve("other.raw", more=["--allow", source]) as b:
            pull = ["pull", "--control", b.control]
            status, _, err = platter(*pull, "--from", source, "--base", "+vm",
                                     ok=None)
            is_true(status == 1 and "not the one below" in err, err)
            is_disk(b, "+vm", model)
            platter(*pull, "+vm")
            is_disk(b, "+vm", model)


def a_monitor_that_lies_is_an_error(c):
    """Never a crash, a hang, or memory without an end."""
    hello = b'{"QMP": {}}\n'
    ok = b'{"return": {}}\n'
    disk = {"device": "d", "inserted": {"node-name": "n", "drv": "raw",
                                        "file": "x"}}
    for lie in (b"", b"\n", b"nonsense\n", b"{}\n", hello, hello + b"[]\n",
                hello + ok + b'{"return": 7}\n',
                hello + ok + b'{"return": [1, null, {"inserted": 3}]}\n',
                hello + ok + json.dumps({"return": [disk, disk]}).encode() +
                b"\n",
                hello + ok + b'{"error": 5}\n',
                hello + b"x" * (17 << 20)):
        path = c.path("liar")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            s.listen()

            def lie_to_all():
                k, _ = s.accept()
                with k:
                    try:
                        k.sendall(lie)
                    except OSError:
                        pass

            t = threading.Thread(target=lie_to_all)
            t.start()
            status, _, err = platter("push", "--qmp", path, "--to",
                                     "nbd://127.0.0.1:1/x", ok=None)
            t.join(60)
        os.unlink(path)
        is_true(status == 1 and err.startswith("platter: ") and
                err.count("\n") == 1, f"{lie[:80]}: {status}, {err}")


def a_push_goes_by_tls(c):
    authority = Authority(c.path("ca"))
    keys = c.path("keys")
    authority.sign("server", "/CN=localhost", keys, "serverAuth")
    authority.sign("client", "/CN=client", keys, "clientAuth")
    model = bytearray(c.disk)
    tls = ["--tls", "require", "--tls-certificates", keys]
    with c.serve() as a, c.serve(more=tls) as b, \
            Qemu(c.folder, *drive(a, "+vm")) as q:
        to = b.uri("+vm=1").replace("nbd+unix", "nbds+unix")
        status, _, err = platter("push", "--qmp", q.monitor, "--to", to,
                                 ok=None)
        is_true(status == 1 and "--tls-certificates" in err, err)
        with Writer(q, model) as w:
            w.wait_for(20)
            status, _, err = platter(
                "push", "--qmp", q.monitor, "--from", a.uri("+vm"), "--to",
                to, "--tls-certificates", keys, ok=None)
            w.wait_for(w.writes + 20)
        is_equal((status, err), (0, ""), "a push by TLS")
        is_equal(q.disk()["drv"], "nbd", "where it is")
        q.io("flush")
        out = c.path("out.raw")
        run(["qemu-img", "convert", "-O", "raw", "--object",
             f"tls-creds-x509,id=t,dir={keys},endpoint=client,verify-peer=yes",
             "--image-opts", f"driver=nbd,server.type=unix,server.path="
             f"{b.socket},export=+vm=1,tls-creds=t,tls-hostname=localhost",
             out])
        with open(out, "rb") as f:
            is_true(f.read() == bytes(model), "the disk")


def a_disk_is_pulled_while_its_guest_runs(c):
    """It is there at once; whoever is killed, it is whole in the end, and the other
    server is needed no more."""
    with c.serve() as a:
        model = bytearray(c.disk)
        with Qemu(c.folder, *drive(a, "+vm")) as q, \
                Writer(q, model, span=4 << 20) as w:
            w.wait_for(100)
        platter("fence", "--control", a.control, "+vm", "1")
        source = a.uri("+vm@:base..")  # which nobody can write
        with c.serve() as b:
            # Who has not been told that it may refer to it refuses, and has
            # made nothing.
            status, _, err = platter("pull", "--control", b.control, "--from",
                                     source, "+vm", ok=None)
            is_true(status == 1 and "allow" in err, err)
            is_equal(os.listdir(b.overlays), ["control"], "files")
        with c.serve(more=["--allow", source, "--remote-timeout", "20"]) as b:
            pull = ["pull", "--control", b.control, "--from", source, "+vm"]
            p = begin("--rate", "1M", *pull)
            try:
                wait_for_export(b, "+vm")
                with Qemu(c.folder, *drive(b, "+vm")) as q, \
                        Writer(q, model, seed=3) as w:
                    w.wait_for(50)
                    is_true(overlay_of(b, "+vm")["pulling"], "it is whole")
                    p.kill()
                    p.wait(60)
                    kill_server(b)
                    w.wait_for(w.writes + 50)
                    p = begin("--rate", "4M", *pull)
                    kill_server(a)
                    w.wait_for(w.writes + 50)
                    status, _, err = run(
                        [os.environ["PLATTER"], "overlay", "snapshot",
                         "--control", b.control, "+vm", "s"], ok=None)
                    is_true(status and "not whole" in err, err)
                    p.terminate()
                    p.wait(60)
                    platter(*pull[:3], "+vm")
                    is_true(not overlay_of(b, "+vm")["pulling"], "not whole")
                    w.wait_for(w.writes + 50)
                    status, _, err = platter(*pull[:3], "+vm", ok=None)
                    is_true(status == 1 and "whole" in err, err)
                    q.io("flush")
            finally:
                p.kill()
                p.wait()
            is_disk(b, "+vm", model)
            folder = b.overlays
    # The other is gone; the same file, over the local image.
    info = json.loads(run(["qemu-img", "info", "--output=json",
                           os.path.join(folder, "vm.qcow2")])[1])
    is_equal(info["full-backing-filename"], c.path("base.raw"), "its base")
    run(["qemu-img", "check", "-q", os.path.join(folder, "vm.qcow2")])
    with Server(c.path("base.raw"), fmt="raw",
                more=["--overlays", folder]) as b:
        is_disk(b, "+vm", model)


def a_disk_of_another_size_is_not_pulled_on(c):
    """It is another one, whose end would be taken for zeroes."""
    with c.serve() as a:
        platter("fence", "--control", a.control, "+vm", "1")
        source = a.uri("+vm@:base..")
        with c.serve(more=["--allow", source]) as b:
            pull = ["pull", "--control", b.control, "+vm"]
            p = begin("--rate", "1M", "--from", source, *pull)
            wait_until_pulled(b, "+vm")
            p.terminate()
            p.wait(60)
            err = "somebody else"
            while "somebody else" in err:  # the pull, for a moment
                status, _, err = run(
                    [os.environ["PLATTER"], "overlay", "resize", "--control",
                     b.control, "+vm", str(2 * SIZE)], ok=None)
            is_true(status and "not whole" in err, err)
            run([os.environ["PLATTER"], "overlay", "resize", "--control",
                 a.control, "+vm", str(2 * SIZE)])
            kill_server(b)
            deadline, err = time.monotonic() + 60, "control: "
            while "control: " in err and time.monotonic() < deadline:
                status, _, err = platter(*pull, ok=None)  # till it is there
                time.sleep(0.05)
            is_true(status == 1 and f"has {2 * SIZE} now" in err, err)
            try:
                read_all(b, "+vm")
                is_true(False, "another disk is shown")
            except Refused:
                pass


def the_image_below_is_not_pulled_for_the_disk(c):
    """The source's overlay is gone when its server is started anew, and its export's
    name has the bare image. Who has named the epoch is not shown that."""
    with c.serve() as a:
        with Client(a.socket) as n:
            n.go(b"+vm=1")
            is_equal(n.write(0, b"written"), 0, "the write")
        for name, is_there in ((b"+vm=1@:base..", True), (b"+vm@:base..", True),
                               (b"+vm=2@:base..", False),
                               (b"+none=1@:base..", False),
                               (b"+none@:base..", True)):
            try:
                with Client(a.socket) as n:
                    n.go(name)
                    is_true(is_there, f"{name} is shown")
            except Refused:
                is_true(not is_there, f"{name} is not shown")
        source = a.uri("+vm=1@:base..")
        with c.serve(more=["--allow", source, "--remote-timeout", "5"]) as b:
            pull = ["pull", "--control", b.control, "+vm"]
            p = begin("--rate", "1M", "--from", source, *pull)
            wait_until_pulled(b, "+vm")
            p.terminate()
            p.wait(60)
            kill_server(a)
            kill_server(b)
            os.unlink(os.path.join(a.overlays, "vm.qcow2"))
            deadline, err = time.monotonic() + 60, "control: "
            while "control: " in err and time.monotonic() < deadline:
                status, _, err = platter(*pull, ok=None)  # till it is there
                time.sleep(0.05)
            is_true(status == 1 and "nbd+unix:" in err, err)


def wait_until_pulled(s, name):
    until = time.monotonic() + 60
    while not (overlay_of(s, name) or {}).get("pulling"):
        is_true(time.monotonic() < until, f"{name} is not pulled")
        time.sleep(0.02)


def wait_for_export(s, name):
    until = time.monotonic() + 60
    while not overlay_of(s, name):
        is_true(time.monotonic() < until, f"{name} does not begin")
        time.sleep(0.02)


def a_guest_runs_where_its_disk_still_arrives(c):
    """QEMU waits there, connected to what is not to be read yet."""
    address = f"unix:{c.path('move3')}"
    model = bytearray(c.disk)
    with c.serve() as a:
        source = a.uri("+vm@:base..")
        with c.serve(more=["--allow", source]) as b, \
                Qemu(c.folder, *drive(a, "+vm=1")) as q:
            with Writer(q, model) as w:
                w.wait_for(50)
            platter("pull", "--prepare", "--control", b.control, "--from",
                    source, "+vm")
            kill_server(b)
            wait_until_open(b, b"+vm=1")
            with Qemu(c.folder, *drive(b, "+vm=1"),
                      more=["-incoming", address]) as target:
                with Client(b.socket) as n:
                    n.go(b"+vm=1")
                    is_equal(n.read(0, 512)[0], 5, "read before its time")
                    is_equal(n.write(0, b"x" * 512), 5, "written before")
                with Writer(q, model, seed=2) as w:
                    w.wait_for(50)
                pause_at_switchover(q, address)
                platter("fence", "--control", a.control, "+vm", "2")
                p = begin("pull", "--rate", "8M", "--control", b.control,
                          "+vm")
                until = time.monotonic() + 60
                with Client(b.socket) as n:
                    n.go(b"+vm=1")
                    while n.read(0, 512)[0]:
                        is_true(time.monotonic() < until, "it does not begin")
                        time.sleep(0.01)
                q.qmp.run("migrate-continue", state="pre-switchover")
                wait_for_run(target)
                is_true(overlay_of(b, "+vm")["pulling"], "it is whole already")
                with Writer(target, model, seed=3) as w:
                    w.wait_for(100)
                is_equal(p.wait(COMMAND_SEC), 0, "the pull's end")
                target.io("flush")
                is_disk(b, "+vm=1", model)


def two_hypervisors_share_an_export(c):
    """The guest's last write at the old place and its first at the new are not
    300 ms apart; from then on the old place writes no more."""
    address = f"unix:{c.path('move')}"
    model = bytearray(c.disk)
    with c.serve() as a, Qemu(c.folder, *drive(a, "+vm=1")) as q, \
            Qemu(c.folder, *drive(a, "+vm=2"),
                 more=["-incoming", address]) as target:
        with Writer(q, model) as w:
            w.wait_for(100)
        move_guest(q, target, address)
        ended = w.last
        with Writer(target, model, seed=2) as w:
            w.wait_for(1)
            stall = w.last - ended
            w.wait_for(100)
        print(f"shared hand-over: {stall * 1000:.0f} ms between two writes")
        is_true(stall < 0.3, f"{stall} s")
        # As if it had not been told that it has moved.
        with Client(a.socket) as n:
            try:
                n.go(b"+vm=1")
                is_true(False, "the old place is let in")
            except Refused:
                pass
        is_equal(overlay_of(a, "+vm")["epoch"], 2, "the epoch")
        target.io("flush")
        is_disk(a, "+vm=2", model)


def two_servers_share_a_file(c):
    """The second has it when the first lets go, and its QEMU was there before."""
    address = f"unix:{c.path('move2')}"
    model = bytearray(c.disk)
    with c.serve() as a, \
            c.serve(more=["--overlays", a.overlays], own=False) as b, \
            Qemu(c.folder, *drive(a, "+vm=1")) as q:
        with Writer(q, model) as w:
            w.wait_for(100)
        # The file is there, and the first server's.
        with Qemu(c.folder, *drive(b, "+vm=2"),
                  more=["-incoming", address]) as target:
            with Writer(q, model, seed=2) as w:
                w.wait_for(100)
            pause_at_switchover(q, address)
            platter("fence", "--release", "--control", a.control, "+vm", "2")
            platter("fence", "--control", b.control, "+vm", "2")
            q.qmp.run("migrate-continue", state="pre-switchover")
            wait_for_run(target)
            ended = w.last
            with Writer(target, model, seed=3) as w:
                w.wait_for(1)
                stall = w.last - ended
                w.wait_for(100)
            print(f"file handed over: {stall * 1000:.0f} ms")
            target.io("flush")
            is_disk(b, "+vm=2", model)


def main():
    environment("PLATTER")
    need_programs("qemu-system-x86_64", "qemu-img", "openssl", "stdbuf")
    run_checks(Context, [
        a_running_guest_is_unblocked,
        what_libvirt_would_clear_is_not_planned_for_it,
        only_what_differs_is_sent_and_stored,
        a_guest_without_platter_is_pushed,
        a_move_that_fails_leaves_the_guest_as_it_was,
        a_monitor_that_lies_is_an_error,
        a_push_goes_by_tls,
        whoever_is_killed_nothing_is_lost,
        a_move_costs_what_differs,
        what_is_called_zero_is_not_pulled_as_zeroes,
        another_image_is_not_taken_for_the_one_below,
        a_disk_is_pulled_while_its_guest_runs,
        a_disk_of_another_size_is_not_pulled_on,
        the_image_below_is_not_pulled_for_the_disk,
        a_guest_runs_where_its_disk_still_arrives,
        two_hypervisors_share_an_export,
        two_servers_share_a_file,
    ])


if __name__ == "__main__":
    main()

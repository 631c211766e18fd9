#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Overlays as exports: qcow2 files of ours and of QEMU's, written by a guest
over NBD and read by QEMU, and the other way round."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from guest_disk import Guest  # noqa: E402
from nbd import Client, Refused as NoExport  # noqa: E402
from server import (Failure, Refused, Server, environment,  # noqa: E402
                    listens, need_programs, run, run_json)

SIZE = (9 << 20) + 512
STEPS = 120


class Context:
    def __init__(self, folder):
        self.folder = folder
        rnd = random.Random(1)
        data = bytearray(rnd.randbytes(SIZE))
        data[3 << 20:5 << 20] = bytes(2 << 20)
        self.disk = bytes(data)
        with open(self.path("base.raw"), "wb") as f:
            f.write(self.disk)
        self.base = self.path("base.vmdk")
        run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk",
             self.path("base.raw"), self.base])

    def path(self, name):
        return os.path.join(self.folder, name)

    def serve(self, image=None, **options):
        more = []
        for key, value in options.items():
            more += ["--" + key.replace("_", "-"), str(value)]
        return Server(image or self.base, more=more)

    def holds(self, path, model):
        """QEMU finds the file sound, and reads the model from it."""
        status, out, err = run(["qemu-img", "check", path], ok=None)
        is_equal((status, out + err), (0, out + err), "qemu-img check's status")
        raw = self.path("model.raw")
        with open(raw, "wb") as f:
            f.write(model)
        run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw])


def change(socket, disk, seed, export=b"", steps=STEPS):
    """A guest's session; the disk that it leaves."""
    guest = Guest(socket, disk, seed, export)
    for _ in range(steps):
        guest.step()
    guest.compare()
    guest.close()
    return bytes(guest.model)


def an_overlay_is_made_written_and_read_by_qemu(c):
    top = c.path("made.qcow2")
    with c.serve(overlay=top) as s:
        model = change(s.socket, c.disk, 1)
    c.holds(top, model)
    info = run_json(["qemu-img", "info", "--output=json", top])
    is_equal(info["backing-filename"], "base.vmdk", "the backing file")
    is_equal(info["backing-filename-format"], "vmdk", "its format")
    with c.serve(overlay=top) as s:
        model = change(s.socket, model, 2)
    c.holds(top, model)


def what_qemu_writes_in_between_is_kept(c):
    top = c.path("between.qcow2")
    with c.serve(overlay=top) as s:
        model = bytearray(change(s.socket, c.disk, 3))
    run(["qemu-io", "-c", "write -P 5 100000 300000", "-c",
         "write -z 1M 700000", "-c", "discard 4M 1M", top])
    run(["qemu-img", "convert", "-O", "raw", top, c.path("now.raw")])
    with open(c.path("now.raw"), "rb") as f:
        model = f.read()
    with c.serve(overlay=top) as s:
        model = change(s.socket, model, 4)
    c.holds(top, model)


# Options of qemu-img create; what else is done to the file before.
MADE_BY_QEMU = [
    ("cluster_size=64k", ()),
    ("cluster_size=512", ()),
    ("cluster_size=4k,refcount_bits=1", ()),
    ("cluster_size=2M", ()),
    ("cluster_size=64k,extended_l2=on", ()),
    ("cluster_size=16k,extended_l2=on,refcount_bits=64", ()),
    ("compat=0.10", ()),
    ("refcount_bits=8,lazy_refcounts=on", ()),
    ("cluster_size=64k", ("write -c 64k 256k", "write -P 3 1M 1M")),
    ("cluster_size=4k", ("write -P 3 0 2M", "discard 64k 256k")),
    ("cluster_size=64k", ("write -P 3 0 2M", "snapshot", "write -P 4 1M 2M",
                          "snapshot")),
    ("cluster_size=64k,extended_l2=on",
     ("write -P 3 0 2M", "snapshot", "write -P 4 1M 100k")),
    ("cluster_size=64k,extended_l2=on",
     ("write -z 0 2M", "write -z 2M 34k", "snapshot")),
    ("cluster_size=32k,compression_type=zstd", ("write -c 0 1M",)),
]


def make_by_qemu(c, number, options, steps):
    top = c.path(f"qemu{number}.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.vmdk", "-F",
         "vmdk", "-o", options, top])
    for i, step in enumerate(steps):
        if step == "snapshot":
            run(["qemu-img", "snapshot", "-c", f"s{i}", top])
        else:
            run(["qemu-io", "-c", step, top])
    run(["qemu-img", "convert", "-O", "raw", top, c.path("before.raw")])
    with open(c.path("before.raw"), "rb") as f:
        return top, f.read()


def files_of_qemus_are_written(c):
    for number, (options, steps) in enumerate(MADE_BY_QEMU):
        top, model = make_by_qemu(c, number, options, steps)
        kept = {}
        for snapshot in [s for s in steps if s == "snapshot"] and \
                run_json(["qemu-img", "info", "--output=json",
                          top])["snapshots"]:
            out = c.path("snapshot.raw")
            run(["qemu-img", "convert", "-l", snapshot["name"], "-O", "raw",
                 top, out])
            with open(out, "rb") as f:
                kept[snapshot["name"]] = f.read()
        try:
            with c.serve(overlay=top) as s:
                model = change(s.socket, model, 100 + number)
            c.holds(top, model)
            for name, data in kept.items():
                out = c.path("snapshot.raw")
                run(["qemu-img", "convert", "-l", name, "-O", "raw", top, out])
                with open(out, "rb") as f:
                    is_true(f.read() == data, f"snapshot {name} has changed")
        except Failure as e:
            raise Failure(f"{options} {steps}: {e}") from None


def what_a_killed_qemu_left_is_repaired(c):
    for number, options in enumerate((
            "lazy_refcounts=on", "lazy_refcounts=on,refcount_bits=8",
            "lazy_refcounts=on,cluster_size=512",
            "lazy_refcounts=on,extended_l2=on")):
        top, model = make_by_qemu(c, f"dirty{number}", options,
                                  ("write -c 0 128k", "snapshot"))
        status, _, _ = run(["qemu-io", "-c", "write -P 7 64k 3M", "-c",
                            "flush", "-c", "abort", top], ok=None)
        is_true(status, "qemu-io was not aborted")
        info = run_json(["qemu-img", "info", "-U", "--output=json", top])
        is_true(info["dirty-flag"], "the file is not dirty")
        model = model[:65536] + b"\7" * (3 << 20) + model[65536 + (3 << 20):]
        with c.serve(overlay=top) as s:
            reads(s.socket, b"", model)
            model = change(s.socket, model, 90 + number, steps=30)
        c.holds(top, model)


def several_connections_share_one_overlay(c):
    top = c.path("shared.qcow2")
    with c.serve(overlay=top) as s:
        guests = [Guest(s.socket, c.disk, 10 + i) for i in range(4)]
        part = SIZE // 4 // 4096 * 4096
        model = bytearray(c.disk)
        for n in range(200):
            g = n % 4
            off = g * part + n * 4096 % part
            data = guests[g].random.randbytes(5000)
            is_equal(guests[g].client.write(off, data), 0, "the error")
            model[off:off + 5000] = data
        is_equal(guests[0].client.flush(), 0, "the error of the flush")
        for g in guests:
            g.model = model
            g.compare()
            g.close()
    c.holds(top, model)


def named_overlays_are_made_on_first_use(c):
    folder = c.path("overlays")
    os.mkdir(folder)
    with c.serve(overlays=folder) as s:
        one = change(s.socket, c.disk, 20, b"+vm1")
        two = change(s.socket, c.disk, 21, b"+vm2")
        with Client(s.socket, 10) as base:
            base.go(b"")
            is_equal(base.write(0, b"x"), 1, "the error of a write to the base")
            is_equal(base.read(0, 4096), (0, c.disk[:4096]), "the base")
        names = [e["export-name"] for e in
                 run_json(["nbdinfo", "--list", "--json", s.uri()])["exports"]]
        is_true("+vm1" in names and "+vm2" in names, f"listed are {names}")
        for bad in (b"+.x", b"+a%2Fb", b"+", b"+x@y"):
            try:
                with Client(s.socket, 10) as other:
                    other.go(bad)
            except NoExport:
                continue
            raise Failure(f"{bad} was opened")
    c.holds(os.path.join(folder, "vm1.qcow2"), one)
    c.holds(os.path.join(folder, "vm2.qcow2"), two)


def temporary_ones_are_gone(c):
    with c.serve(overlay="temp") as s:
        model = change(s.socket, c.disk, 30)
        again = Guest(s.socket, model, 31)
        again.compare()
        again.close()
    with c.serve(overlay="temp", overlay_scope="connection") as s:
        change(s.socket, c.disk, 32)
        fresh = Guest(s.socket, c.disk, 33)
        fresh.compare()
        fresh.close()


def two_servers_do_not_meet(c):
    top = c.path("fight.qcow2")
    with c.serve(overlay=top) as s:
        try:
            with c.serve(overlay=top):
                raise Failure("a second server opened it")
        except Refused as e:
            is_true("in use by another process" in e.message, e.message)
        status, _, err = run(["qemu-io", "-c", "write 0 512", top], ok=None)
        is_true(status and "lock" in err, f"qemu-io: {err}")
        change(s.socket, c.disk, 40, steps=20)
    q = subprocess.Popen(["qemu-io", top], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    try:
        q.stdin.write("write 0 512\n")
        q.stdin.flush()
        while "wrote" not in q.stdout.readline():
            pass
        with c.serve(overlay=top):
            raise Failure("it was opened while qemu-io writes it")
    except Refused as e:
        is_true("in use by another process" in e.message, e.message)
    finally:
        q.communicate("quit\n")


def another_images_overlay_is_refused(c):
    top = c.path("other.qcow2")
    other = c.path("other.raw")
    with open(other, "wb") as f:
        f.truncate(1 << 20)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "other.raw", "-F",
         "raw", top])
    try:
        with c.serve(overlay=top):
            raise Failure("it was taken")
    except Refused as e:
        is_true("is an overlay of other.raw, not of" in e.message, e.message)


def a_quota_is_an_error_of_that_write_alone(c):
    top = c.path("quota.qcow2")
    with c.serve(overlay=top, overlay_max="3M") as s:
        g = Guest(s.socket, c.disk, 50)
        full = 0
        for at in range(0, SIZE - 131072, 131072):
            data = g.random.randbytes(131072)
            code = g.client.write(at, data)
            if not code:
                g.model[at:at + 131072] = data
            full += code == 28
        is_true(full > 10, f"{full} writes met the limit")
        is_equal(g.client.flush(), 0, "the error of the flush")
        g.compare()
        g.close()
    c.holds(top, g.model)
    is_true(os.path.getsize(top) <= 3 << 20, "the file is over its quota")


def detected_zeroes_and_copies_take_no_room(c):
    top = c.path("detect.qcow2")
    with c.serve(overlay=top, detect="zeroes,base") as s:
        g = Guest(s.socket, c.disk, 60)
        for at in range(0, 2 << 20, 65536):
            is_equal(g.client.write(at, bytes(c.disk[at:at + 65536])), 0,
                     "the error")
            at += 4 << 20
            is_equal(g.client.write(at, bytes(65536)), 0, "the error")
            g.model[at:at + 65536] = bytes(65536)
        g.compare()
        g.close()
    c.holds(top, g.model)
    is_true(os.stat(top).st_blocks * 512 < 1 << 20,
            f"takes {os.stat(top).st_blocks * 512} bytes")


def control(c, *args):
    return run([os.environ["PLATTER"], "overlay", *args, "--control",
                c.path("control")])[1]


def reads(socket, export, model):
    guest = Guest(socket, model, 0, export)
    guest.compare()
    guest.close()


def snapshots_are_made_under_load_and_read(c):
    folder = c.path("snapped")
    os.mkdir(folder)
    top = os.path.join(folder, "vm1.qcow2")
    with c.serve(overlays=folder, control=c.path("control")) as s:
        guest = Guest(s.socket, c.disk, 70, b"+vm1")
        states = {}
        for name in ("monday", "tuesday"):
            for _ in range(40):
                guest.step()
            control(c, "snapshot", "+vm1", name)
            states[name] = bytes(guest.model)
        for _ in range(40):
            guest.step()
        guest.compare()
        for name, model in states.items():
            reads(s.socket, f"+vm1@{name}".encode(), model)
        listed = control(c, "list")
        is_true("@monday" in listed and "@tuesday" in listed, listed)
        status, _, err = run([os.environ["PLATTER"], "overlay", "snapshot",
                              "+vm1", "monday", "--control",
                              c.path("control")], ok=None)
        is_true(status == 1 and "there is a snapshot" in err, err)
        # What changed from one to the other, by stock qemu-img.
        old, inc = c.path("old.raw"), c.path("inc.qcow2")
        with open(old, "wb") as f:
            f.write(states["monday"])
        run(["qemu-img", "convert", "-f", "raw", "-B", old, "-F", "raw", "-O",
             "qcow2", s.uri("+vm1@monday..tuesday"), inc])
        run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", inc,
             s.uri("+vm1@tuesday")])
        guest.close()
        live = bytes(guest.model)
    c.holds(top, live)
    for name, model in states.items():
        c.holds(os.path.join(folder, f"vm1@{name}.qcow2"), model)
    with c.serve(overlays=folder) as s:
        reads(s.socket, b"+vm1@monday", states["monday"])
        live = change(s.socket, live, 71, b"+vm1", steps=30)
        reads(s.socket, b"+vm1@tuesday", states["tuesday"])
    c.holds(top, live)


def refused(c, *args):
    status, _, err = run([os.environ["PLATTER"], "overlay", *args, "--control",
                          c.path("control")], ok=None)
    is_equal(status, 1, "the status of " + " ".join(args))
    return err


def the_latest_snapshot_can_be_gone_back_to(c):
    folder = c.path("reverted")
    os.mkdir(folder)
    for options, export, top in (
            ({"overlays": folder}, "+vm1", os.path.join(folder, "vm1.qcow2")),
            ({"overlay": c.path("back.qcow2")}, "", c.path("back.qcow2"))):
        name = export.encode()
        with c.serve(control=c.path("control"), **options) as s:
            first = change(s.socket, c.disk, 82, name, steps=40)
            control(c, "snapshot", export, "one")
            change(s.socket, first, 83, name, steps=40)
            guest = Guest(s.socket, first, 84, name)
            is_true("is open: " in
                    refused(c, "revert", export, "one"), "it was reverted")
            guest.client.socket.close()
            is_true("no snapshot" in until_alone(c, "revert", export, "two"),
                    "it was reverted to nothing")
            for _ in range(2):
                is_equal(until_alone(c, "revert", export, "one"), "",
                         "an error")
                reads(s.socket, name, first)
                second = change(s.socket, first, 85, name, steps=40)
            reads(s.socket, name + b"@one", first)
            control(c, "snapshot", export, "two")
            change(s.socket, second, 86, name, steps=40)
            is_true("is not the latest" in
                    until_alone(c, "revert", export, "one"), "two was lost")
            control(c, "revert", export, "two")
        c.holds(top, second)
        earlier_ones_too(c, export, top, options, first, second)
        with c.serve(**options) as s:
            reads(s.socket, name, second)
            reads(s.socket, name + b"@one", first)
        is_equal([f for f in os.listdir(folder) if f.endswith(".new")], [],
                 "files left behind")


def earlier_ones_too(c, export, top, options, first, second):
    """Once more from what is there: one, two; the disk is as two."""
    name = export.encode()
    later = [re.sub(r"[.]qcow2$", f"@{x}.qcow2", top) for x in ("two", "3")]
    with c.serve(control=c.path("control"), **options) as s:
        reads(s.socket, name, second)
        third = change(s.socket, second, 87, name, steps=40)
        control(c, "snapshot", export, "3")
        change(s.socket, third, 88, name, steps=40)
        reads(s.socket, name + b"@3", third)
        with qemu_reads(later[0]):
            is_true("another" in until_alone(c, "revert", export, "one",
                                             "--discard"),
                    "a file was taken away from its reader")
        reads(s.socket, name + b"@3", third)
        is_equal([os.path.exists(f) for f in later], [True, True], "the files")
        is_equal(until_alone(c, "revert", export, "one", "--discard"), "",
                 "an error")
        reads(s.socket, name, first)
        is_equal([os.path.exists(f) for f in later], [False, False],
                 "the files")
        fourth = change(s.socket, first, 89, name, steps=40)
        control(c, "snapshot", export, "two")
        change(s.socket, fourth, 90, name, steps=40)
        reads(s.socket, name + b"@two", fourth)
        is_equal(until_alone(c, "revert", export, "one", "--discard"), "",
                 "an error")
        change(s.socket, first, 85, name, steps=40)
    c.holds(top, second)


@contextlib.contextmanager
def qemu_reads(path):
    """Until then nobody may write the file."""
    q = subprocess.Popen(["qemu-io", "-r", path], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        q.stdin.write(b"read 0 512\n")
        q.stdin.flush()
        is_true(b"read 512/512" in q.stdout.readline(), "qemu-io failed")
        yield
    finally:
        q.communicate(b"quit\n", timeout=20)


def until_alone(c, *args):
    """What it says once nobody is connected; the server takes a moment to see
    that a client has gone."""
    for _ in range(100):
        _, _, err = run([os.environ["PLATTER"], "overlay", *args, "--control",
                         c.path("control")], ok=None)
        if "is open" not in err:
            return err
        time.sleep(0.05)
    raise Failure("the export stays open")


def read_back(c, export):
    return json.loads(control(c, export, "--json"))


def chain_of(path):
    return [os.path.basename(i["filename"]) for i in run_json(
        ["qemu-img", "info", "--backing-chain", "--output=json", path])]


def a_snapshot_goes_while_a_guest_writes(c):
    folder = c.path("deleted")
    os.mkdir(folder)
    top = os.path.join(folder, "vm1.qcow2")
    names = ["a", "b", "c", "d"]
    with c.serve(overlays=folder, control=c.path("control")) as s:
        guest = Guest(s.socket, c.disk, 90, b"+vm1")
        states = {}
        for name in names:
            for _ in range(40):
                guest.step()
            control(c, "snapshot", "+vm1", name)
            states[name] = bytes(guest.model)
        for gone in ("b", "d", "a"):
            p = subprocess.Popen(
                [os.environ["PLATTER"], "overlay", "delete", "+vm1", gone,
                 "--control", c.path("control")], stderr=subprocess.PIPE)
            while p.poll() is None:
                guest.step()
            is_equal((p.wait(), p.stderr.read()), (0, b""), "the deletion")
            del states[gone]
            guest.compare()
            is_true(not os.path.exists(
                os.path.join(folder, f"vm1@{gone}.qcow2")), "it is still there")
            for name, model in states.items():
                reads(s.socket, f"+vm1@{name}".encode(), model)
        is_true("no snapshot \"a\"" in refused(c, "delete", "+vm1", "a"),
                "it was deleted twice")
        guest.close()
        live = bytes(guest.model)
    is_equal(chain_of(top), ["vm1.qcow2", "vm1@c.qcow2", "base.vmdk"],
             "the chain")
    c.holds(top, live)
    c.holds(os.path.join(folder, "vm1@c.qcow2"), states["c"])
    with c.serve(overlays=folder, control=c.path("control")) as s:
        control(c, "delete", "+vm1", "c")
        reads(s.socket, b"+vm1", live)
    c.holds(top, live)
    is_equal(chain_of(top), ["vm1.qcow2", "base.vmdk"], "the chain")


def a_deletion_can_be_interrupted(c):
    top = c.path("interrupted.qcow2")
    rnd = random.Random(3)
    with c.serve(overlay=top, control=c.path("control")) as s:
        guest = Guest(s.socket, c.disk, 92)
        for at in range(0, SIZE - (1 << 20), 1 << 20):
            guest.client.write(at, rnd.randbytes(1 << 20))
        for _ in range(10):
            guest.step()
        code, got = guest.client.read(0, SIZE)
        is_equal(code, 0, "the read's error")
        guest.model[:] = got
        control(c, "snapshot", "", "one")
        for _ in range(20):
            p = subprocess.Popen(
                [os.environ["PLATTER"], "overlay", "delete", "", "one",
                 "--control", c.path("control")], stderr=subprocess.DEVNULL)
            time.sleep(rnd.random() * 0.02)
            p.kill()
            p.wait()
            guest.step()
        # One that goes on to its end, or went before.
        for _ in range(200):
            status, _, err = run([os.environ["PLATTER"], "overlay", "delete",
                                  "", "one", "--control", c.path("control")],
                                 ok=None)
            if not status or "no snapshot" in err:
                break
            time.sleep(0.05)
        guest.compare()
        guest.close()
        live = bytes(guest.model)
    c.holds(top, live)
    is_equal(chain_of(top), ["interrupted.qcow2", "base.vmdk"], "the chain")


def files_of_qemus_lose_their_snapshot(c):
    """Headers with a table of feature names, or of version 2."""
    for number, options in enumerate((
            "compat=1.1", "compat=0.10", "extended_l2=on,cluster_size=16k",
            "cluster_size=512", "cluster_size=2M,lazy_refcounts=on")):
        top = c.path(f"theirs{number}.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b",
             "base.vmdk", "-F", "vmdk", top])
        with c.serve(overlay=top, control=c.path("control")) as s:
            model = change(s.socket, c.disk, 93 + number, steps=30)
            control(c, "snapshot", "", "one")
            live = change(s.socket, model, 94 + number, steps=30)
            control(c, "delete", "", "one")
            reads(s.socket, b"", live)
        c.holds(top, live)
        is_equal(chain_of(top), [os.path.basename(top), "base.vmdk"],
                 "the chain")


def a_disk_grows(c):
    for number, options in enumerate((
            None, "compat=0.10", "cluster_size=512", "cluster_size=2M")):
        top = c.path(f"grown{number}.qcow2")
        if options:
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b",
                 "base.vmdk", "-F", "vmdk", top])
        size = SIZE + (40 << 20) + 512
        with c.serve(overlay=top, control=c.path("control")) as s:
            model = change(s.socket, c.disk, 95, steps=20)
            control(c, "resize", "", str(size))
            model = change(s.socket, model + bytes(size - SIZE), 96, steps=40)
            is_true("cannot shrink" in refused(c, "resize", "", "1M"),
                    "it shrank")
        is_equal(run_json(["qemu-img", "info", "--output=json", top])
                 ["virtual-size"], size, "the virtual size")
        c.holds(top, model)
        with c.serve(overlay=top) as s:
            model = change(s.socket, model, 97, steps=20)
        c.holds(top, model)


def clients_and_their_requests_are_told(c):
    with c.serve(overlay="temp", control=c.path("control")) as s:
        with Client(s.socket, 10) as client:
            client.go()
            for _ in range(7):
                client.read(0, 4096)
            client.write(0, bytes(1024))
            listed = read_back(c, "list")
            is_equal([e["export"] for e in listed["clients"]], [""],
                     "the clients' exports")
            is_equal(listed["clients"][0]["peer"], f"pid {os.getpid()}",
                     "the peer")
            ops = read_back(c, "stats")["exports"][0]["traffic"]
            is_equal((ops["read"]["requests"], ops["read"]["bytes"],
                      sum(ops["read"]["took"])), (7, 7 * 4096, 7), "reads")
            is_equal((ops["write"]["requests"], ops["write"]["bytes"]),
                     (1, 1024), "writes")
            code, _ = client.read(SIZE - 512, 512)
            is_equal(code, 0, "the read's error")
        is_true("read\t8\t" in control(c, "stats"), control(c, "stats"))
        is_equal(read_back(c, "list")["exports"][0]["name"], "", "the export")


def names_that_are_no_utf8_are_told(c):
    """And hide nothing else; who is told one can use it."""
    folder = c.path("latin1")
    os.mkdir(folder)
    with Server(c.base, more=[
            "--export", os.fsdecode(b"caf\xe9=") + c.path("base.raw"),
            "--export", "tea=" + c.path("base.raw"), "--overlays", folder,
            "--control", c.path("control")]) as s:
        with Client(s.socket) as one, Client(s.socket) as two:
            two.go(b"tea+vm")
            one.go(b"caf\xe9+vm")
            is_equal(one.write(0, bytes(512)), 0, "the error")
            for verb in "list", "stats":
                told = json.loads(control(c, verb, "--json"))
                names = {e["name"] for e in told["exports"]}
                is_true({"caf%E9+vm", "tea+vm"} <= names, f"{verb}: {names}")
            control(c, "flush", "caf%E9+vm")


def an_export_can_be_closed_and_served_elsewhere(c):
    folder = c.path("closed")
    os.mkdir(folder)
    with c.serve(overlays=folder, control=c.path("control")) as s:
        guest = Guest(s.socket, c.disk, 98, b"+vm1")
        other = Guest(s.socket, c.disk, 98, b"+vm2")
        for _ in range(30):
            guest.step()
            other.step()
        is_equal(json.loads(control(c, "close", "+vm1", "--json")),
                 {"connections": 1}, "the answer")
        code, _ = guest.client.read(0, 512)
        is_equal(code, 108, "the read's error")  # NBD_ESHUTDOWN
        other.compare()
        with c.serve(overlays=folder) as s2:
            live = change(s2.socket, guest.model, 99, b"+vm1", steps=30)
        guest.close()
        reads(s.socket, b"+vm1", live)


def platter(*args, ok=(0,)):
    return run([os.environ["PLATTER"], *args], ok=ok)


def read_raw(path):
    with open(path, "rb") as f:
        return f.read()


def as_raw(c, path, fmt="qcow2"):
    raw = c.path("as.raw")
    run(["qemu-img", "convert", "-f", fmt, "-O", "raw", path, raw])
    return read_raw(raw)


def make_overlay(c, name, base, base_format, seed, size=None):
    """Of ours, written by a guest; its path, and its disk."""
    top = c.path(name)
    platter("create", "-b", base, "-F", base_format, top,
            *([str(size)] if size else []))
    disk = as_raw(c, c.path(base), base_format)
    if size:
        disk = disk[:size] + bytes(size - len(disk))
    with Server(c.path(base), fmt=base_format, more=["--overlay", top]) as s:
        # Where the sizes differ, the server's own disk is the overlay's.
        model = change(s.socket, disk, seed, steps=40)
    return top, model


def disks_are_created(c):
    for fmt, size in (("qcow2", 1 << 20), ("raw", 12345)):
        path = c.path(f"new.{fmt}")
        platter("create", "-O", fmt, path, str(size))
        info = run_json(["qemu-img", "info", "--output=json", "-f", fmt, path])
        is_equal(info["virtual-size"] // 512, -(-size // 512) if fmt == "raw"
                 else size // 512, "the size")
        status, _, err = platter("create", "-O", fmt, path, "1M", ok=None)
        is_true(status == 1 and path in err, err)
    top = c.path("new-over.qcow2")
    platter("create", "-b", "base.vmdk", top)
    info = run_json(["qemu-img", "info", "--output=json", top])
    is_equal((info["virtual-size"], info["backing-filename"],
              info["backing-filename-format"]), (SIZE, "base.vmdk", "vmdk"),
             "the overlay")
    for args in (("1M", "2M", "3M"), (c.path("x"),), (c.path("x"), "big"),
                 ("-O", "raw", "-b", "base.vmdk", c.path("x"))):
        is_equal(platter("create", *args, ok=None)[0], 2, f"status of {args}")
    is_true(not os.path.exists(c.path("x")), "x was made")


def an_overlay_is_committed(c):
    for number, (fmt, options) in enumerate((
            ("raw", []), ("qcow2", []),
            ("qcow2", ["-o", "extended_l2=on"]),
            ("qcow2", ["-o", "compat=0.10,cluster_size=4k"]))):
        base = f"under{number}"
        run(["qemu-img", "convert", "-f", "raw", "-O", fmt, *options,
             c.path("base.raw"), c.path(base)])
        top, model = make_overlay(c, f"commit{number}.qcow2", base, fmt,
                                  100 + number)
        platter("overlay", "commit", "--keep", top)
        c.holds(top, model)
        is_equal(as_raw(c, c.path(base), fmt) == model, True, "the base")
        with Server(c.path(base), fmt=fmt, more=["--overlay", top]) as s:
            model = change(s.socket, model, 110, steps=20)
            status, _, err = platter("overlay", "commit", top, ok=None)
            is_true(status == 1 and "in use" in err, err)
        # An overlay beside it keeps the base from being written.
        with Server(c.path(base), fmt=fmt,
                    more=["--overlay", c.path(f"beside{number}.qcow2")]):
            status, _, err = platter("overlay", "commit", top, ok=None)
            is_true(status == 1 and "in use" in err and base in err, err)
        platter("overlay", "commit", top)
        is_equal(as_raw(c, c.path(base), fmt) == model, True, "the base")
        c.holds(top, model)
        is_true(os.stat(top).st_blocks * 512 < 600 << 10, "it is not empty")
    top, _ = make_overlay(c, "commit-vmdk.qcow2", "base.vmdk", "vmdk", 120)
    status, _, err = platter("overlay", "commit", top, ok=None)
    is_true(status == 1 and "only raw and qcow2" in err, err)


def a_longer_overlay_makes_its_base_grow(c):
    for fmt in ("raw", "qcow2"):
        base, top = c.path(f"short.{fmt}"), c.path(f"long-{fmt}.qcow2")
        run(["qemu-img", "convert", "-f", "raw", "-O", fmt,
             c.path("base.raw"), base])
        platter("create", "-b", os.path.basename(base), "-F", fmt, top,
                str(SIZE + 70000 * 512))
        run(["qemu-io", "-f", "qcow2", "-c",
             f"write -P 5 {SIZE + 65536} 70000", top])
        model = as_raw(c, top)
        platter("overlay", "commit", top)
        is_equal(as_raw(c, base, fmt) == model, True, "the base")
        c.holds(top, model)


def an_overlay_gets_another_base(c):
    rnd = random.Random(9)
    other = bytearray(c.disk)
    other[1 << 20:2 << 20] = rnd.randbytes(1 << 20)
    other[2 << 20:3 << 20] = bytes(1 << 20)
    other[4 << 20:(4 << 20) + 100] = rnd.randbytes(100)
    others = {"same": c.disk, "other": bytes(other),
              "shorter": bytes(other[:5 << 20]),
              "longer": bytes(other) + rnd.randbytes(1 << 20)}
    for name, data in others.items():
        with open(c.path(name + ".raw"), "wb") as f:
            f.write(data)
    for number, name in enumerate(others):
        top, model = make_overlay(c, f"rebase-{name}.qcow2", "base.vmdk",
                                  "vmdk", 130 + number)
        size = os.stat(top).st_size
        platter("overlay", "rebase", "-b", name + ".raw", "-F", "raw", top)
        is_equal(chain_of(top), [os.path.basename(top), name + ".raw"],
                 "the chain")
        c.holds(top, model)
        if name == "same":
            is_equal(os.stat(top).st_size, size, "the file's size")
        # On from there, to nothing at all, and back.
        with Server(c.path(name + ".raw"), fmt="raw",
                    more=["--overlay", top]) as s:
            model = change(s.socket, model, 140, steps=20)
        platter("overlay", "rebase", "--base", "", top)
        is_equal(chain_of(top), [os.path.basename(top)], "the chain")
        c.holds(top, model)
        platter("overlay", "rebase", "--base", "longer.raw", top)
        c.holds(top, model)
    # Moved: only its name is to be told.
    os.rename(c.path("longer.raw"), c.path("moved.raw"))
    is_equal(platter("overlay", "rebase", "-b", "moved.raw", top, ok=None)[0],
             1, "the status")
    platter("overlay", "rebase", "--unsafe", "-b", "moved.raw", "-F", "raw",
            top)
    c.holds(top, model)
    status, _, err = platter("overlay", "rebase", "-b",
                             os.path.basename(top), top, ok=None)
    is_true(status == 1 and top in err, err)
    is_equal(platter("overlay", "rebase", top, ok=None)[0], 2, "the status")
    platter("overlay", "resize", top, str(SIZE + 4096))
    c.holds(top, model + bytes(4096))


def exports_are_converted_and_compared(c):
    folder = c.path("served")
    os.mkdir(folder)
    with c.serve(overlays=folder, control=c.path("control")) as s:
        model = change(s.socket, c.disk, 150, b"+vm1", steps=30)
        control(c, "snapshot", "+vm1", "then")
        live = change(s.socket, model, 151, b"+vm1", steps=30)
        for export, disk in (("+vm1", live), ("+vm1@then", model),
                             ("", c.disk)):
            for fmt in ("raw", "qcow2"):
                out = c.path(f"copy.{fmt}")
                platter("convert", "--overwrite", "-O", fmt, s.uri(export),
                        out)
                is_equal(as_raw(c, out, fmt) == disk, True,
                         f"the copy of {export} as {fmt}")
        # What is zero there takes no room here.
        is_true(os.stat(c.path("copy.raw")).st_blocks * 512 < SIZE - (1 << 20),
                "the copy is not sparse")
        platter("diff", s.uri("+vm1@then"), s.uri("+vm1@then"))
        status, out, _ = platter("diff", "--json", s.uri("+vm1@then"),
                                 s.uri("+vm1"), ok=(1,))
        changed = json.loads(out)
        is_equal(sum(1 for r in changed["changes"]
                     if model[r["start"]:r["start"] + r["length"]] ==
                     live[r["start"]:r["start"] + r["length"]]), 0,
                 "ranges that are the same")
        for r in changed["changes"]:
            model = (model[:r["start"]] +
                     live[r["start"]:r["start"] + r["length"]] +
                     model[r["start"] + r["length"]:])
        is_equal(model == live, True, "what differs is all that is told")
        platter("diff", "-f", "vmdk", c.base, s.uri())
        for args, said in ((("convert", s.uri("nothing"), c.path("x")),
                            "export"),
                           (("convert", "-f", "qcow2", s.uri(), c.path("x")),
                            "though declared so"),
                           (("convert", "nbd+unix:///?socket=/nowhere",
                             c.path("x")), "/nowhere"),
                           (("convert", "nbd://[/", c.path("x")), "nbd://[/")):
            status, _, err = platter(*args, ok=None)
            is_true(status == 1 and said in err and
                    len(err.strip().splitlines()) == 1, err)
        is_true(not os.path.exists(c.path("x")), "x was made")
    # A server that does one thing at a time, and one that goes away.
    socket = c.path("q")
    q = subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", socket, "-f", "vmdk",
                          c.base])
    while not listens(socket):
        time.sleep(0.02)
    platter("convert", "--overwrite", f"nbd+unix:///?socket={socket}",
            c.path("copy.raw"))
    q.terminate()
    q.wait()
    is_equal(read_raw(c.path("copy.raw")) == c.disk, True, "the copy")


def the_only_overlay_has_snapshots_too(c):
    top = c.path("single.qcow2")
    with c.serve(overlay=top, control=c.path("control")) as s:
        model = change(s.socket, c.disk, 80, steps=30)
        control(c, "snapshot", "", "one")
        live = change(s.socket, model, 81, steps=30)
        reads(s.socket, b"@one", model)
    c.holds(top, live)
    with c.serve(overlay=top) as s:
        reads(s.socket, b"@one", model)
        reads(s.socket, b"", live)


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("qemu-img", "qemu-io", "nbdinfo")
    run_checks(Context, [
        an_overlay_is_made_written_and_read_by_qemu,
        what_qemu_writes_in_between_is_kept,
        files_of_qemus_are_written,
        what_a_killed_qemu_left_is_repaired,
        several_connections_share_one_overlay,
        named_overlays_are_made_on_first_use,
        temporary_ones_are_gone,
        two_servers_do_not_meet,
        another_images_overlay_is_refused,
        a_quota_is_an_error_of_that_write_alone,
        detected_zeroes_and_copies_take_no_room,
        snapshots_are_made_under_load_and_read,
        the_only_overlay_has_snapshots_too,
        the_latest_snapshot_can_be_gone_back_to,
        a_snapshot_goes_while_a_guest_writes,
        a_deletion_can_be_interrupted,
        files_of_qemus_lose_their_snapshot,
        a_disk_grows,
        clients_and_their_requests_are_told,
        names_that_are_no_utf8_are_told,
        an_export_can_be_closed_and_served_elsewhere,
        disks_are_created,
        an_overlay_is_committed,
        a_longer_overlay_makes_its_base_grow,
        an_overlay_gets_another_base,
        exports_are_converted_and_compared,
    ])

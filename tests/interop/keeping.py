#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What keeps disks from being lost beside overlays' own tests: locks that QEMU
heeds, names that mean the file that was named, no disk made by a mistyped
export name, and what a crash leaves of a change of the chain."""

import contextlib
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client, Refused as NoExport, greets  # noqa: E402
from server import (Failure, Refused, Server, bare_server,  # noqa: E402
                    environment, need_programs, run)

SIZE = 1 << 20


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.number = 0

    def fresh(self):
        """A folder for one check."""
        self.number += 1
        path = os.path.join(self.folder, str(self.number))
        os.mkdir(path)
        return path


def platter(*args, ok=(0,)):
    return run([os.environ["PLATTER"], *args], ok=ok)


def fails(*args, says):
    status, _, err = platter(*args, ok=None)
    is_true(status, f"platter {' '.join(map(str, args))} did not fail")
    is_true(says in err, f"platter said {err!r}, not {says!r}")
    is_equal(len(err.strip().splitlines()), 1, "the number of lines")


def make_base(path, seed=7, size=SIZE):
    with open(path, "wb") as f:
        f.write(bytes((seed + i) & 255 for i in range(256)) * (size // 256))


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


@contextlib.contextmanager
def qemu_writes(path, fmt="qcow2", *options):
    """A qemu-nbd that has @path open read-write."""
    sock = path + ".sock"
    p = subprocess.Popen(["qemu-nbd", "-f", fmt, "-k", sock, "-t", *options,
                          path], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not greets(sock):
            if p.poll() is not None or time.monotonic() > end:
                raise Failure("qemu-nbd does not start")
            time.sleep(0.01)
        yield
    finally:
        p.terminate()
        p.wait(20)


# ---- locks ----

def an_image_that_qemu_writes_is_not_read(c):
    d = c.fresh()
    top, raw = os.path.join(d, "a.qcow2"), os.path.join(d, "b.raw")
    make_base(raw)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, top])
    for path, fmt in ((top, "qcow2"), (raw, "raw")):
        out = os.path.join(d, "out")
        with qemu_writes(path, fmt):
            for verb in (("convert", path, out), ("map", path),
                         ("diff", path, path), ("check", path)):
                fails(verb[0], "--format", fmt, *verb[1:],
                      says="is in use by another process")
            is_true(not os.path.exists(out), "something was converted")
            try:
                with Server(path, fmt=fmt):
                    raise Failure("it is served")
            except Refused as e:
                is_true("in use" in e.message, e.message)
            # Who wants to, can.
            platter("convert", "--force-share", "--format", fmt, path, out)
            os.unlink(out)
            with Server(path, fmt=fmt, more=["--force-share"]):
                pass
            _, said, err = platter("info", "--format", fmt, path)
            is_true("1 MiB" in said, f"info says {said}")
            is_true("warning" in err and "in use" in err, f"info warns {err}")
        platter("convert", "--format", fmt, path, out)
        os.unlink(out)


def a_layer_that_qemu_writes_is_not_read(c):
    d = c.fresh()
    base, top = os.path.join(d, "base.qcow2"), os.path.join(d, "top.qcow2")
    flat = os.path.join(d, "flat.vmdk")
    run(["qemu-img", "create", "-q", "-f", "qcow2", base, str(SIZE)])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2",
         top])
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o",
         "subformat=monolithicFlat", flat, str(SIZE)])
    with qemu_writes(base):
        fails("map", top, says="base.qcow2: is in use")
    with qemu_writes(os.path.join(d, "flat-flat.vmdk"), "raw"):
        fails("map", flat, says="flat-flat.vmdk: is in use")


def what_is_served_qemu_does_not_write(c):
    d = c.fresh()
    path = os.path.join(d, "a.raw")
    make_base(path)
    with Server(path, fmt="raw"):
        status, _, err = run(["qemu-io", "-f", "raw", "-c", "write 0 512",
                              path], ok=None)
        is_true(status and "lock" in err, f"qemu-io says {err}")
        # Readers are many.
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw", path,
             os.path.join(d, "b")])
        with Server(path, fmt="raw"):
            pass
    is_equal(read_file(path)[:2], b"\7\10", "what it begins with")


def an_overlay_under_service_is_not_read(c):
    d = c.fresh()
    base, top = os.path.join(d, "b.raw"), os.path.join(d, "top.qcow2")
    make_base(base)
    with Server(base, fmt="raw", more=["--overlay", top]) as s:
        with Client(s.socket) as client:
            client.go()
            is_equal(client.write(0, b"x" * 4096), 0, "the write")
        for verb in ("map", "check"):
            fails(verb, top, says="is in use")
        fails("convert", top, os.path.join(d, "out"), says="is in use")
    platter("check", top)
    out = os.path.join(d, "out")
    platter("convert", top, out)
    is_equal(read_file(out)[:4097], b"x" * 4096 + b"\7", "the disk")


# ---- names ----

NAMES = ["file:foo.qcow2", "colon:b.qcow2", "json:{}", "nbd:h:1", "-dash",
         "--base", "a b:c", "new\nline", "100%41.qcow2", "%00", "a,b", "a@b",
         "+vm", "~g", "grüße-\u2713.img", "\t", "1:x", "file:", "./x",
         "s/u:b/x", "u:b/y", "\\n", "'\"$x`", "z" * 255]


def put_bases(d, names):
    """A base of each name, and of each name that another might be read as."""
    for i, name in enumerate(names):
        path = os.path.join(d, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make_base(path, seed=i + 1)
        wrong = os.path.join(d, name.split(":")[-1] or "wrong")
        os.makedirs(os.path.dirname(wrong), exist_ok=True)
        if not os.path.exists(wrong):
            make_base(wrong, seed=200)


def is_over(top, base, changed=None):
    """Both we and QEMU read the base's data through the overlay."""
    want = read_file(base)
    if changed:
        want = changed + want[len(changed):]
    out = top + ".out"
    for argv in ([os.environ["PLATTER"], "convert", top, out],
                 ["qemu-img", "convert", "-O", "raw", top, out]):
        run(argv)
        is_true(read_file(out) == want,
                f"{argv[0]} reads another disk over {base!r}")
        os.unlink(out)


def names_mean_what_was_named(c):
    for i, name in enumerate(NAMES):
        d = c.fresh()
        put_bases(d, NAMES[i:i + 1])
        base = os.path.join(d, name)
        made = os.path.join(d, "made.over")
        platter("create", "--base", name, "--base-format", "raw", made)
        is_over(made, base)
        moved = os.path.join(d, "moved.over")
        other = os.path.join(d, "other.base")
        make_base(other, seed=99)
        platter("create", "--base", "other.base", "--base-format", "raw",
                moved)
        platter("overlay", "rebase", "--unsafe", "--base", name,
                "--base-format", "raw", moved)
        is_over(moved, base)
        served = os.path.join(d, "served.over")
        with Server(base, fmt="raw", more=["--overlay", served]) as s:
            with Client(s.socket) as client:
                client.go()
                is_equal(client.write(0, b"x" * 4096), 0, "the write")
        is_over(served, base, b"x" * 4096)


def long_names_are_named_or_refused(c):
    d = c.fresh()
    deep = d
    while len(deep) < 1023 - 200:
        deep = os.path.join(deep, "d" * 100)
    os.makedirs(deep)
    for length in (1022, 1023, 1024):
        base = os.path.join(deep, "x" * (length - len(deep) - 1))
        make_base(base, seed=length & 255)
        top = os.path.join(d, f"top{length}")
        args = ("create", "--base", base, "--base-format", "raw", top)
        if length > 1023:
            fails(*args, says="over the limit of 1023")
            is_true(not os.path.exists(top), "a file was made")
        else:
            platter(*args)
            is_over(top, base)
    fails("create", "--base", "", os.path.join(d, "t"), says="")


def snapshots_of_oddly_named_overlays_are_found(c):
    d = c.fresh()
    base, top = os.path.join(d, "b.raw"), os.path.join(d, "vm:1 x.qcow2")
    make_base(base)
    ctl = os.path.join(d, "ctl")
    with Server(base, fmt="raw", more=["--overlay", top, "--control",
                                       ctl]) as s:
        with Client(s.socket) as client:
            client.go()
            client.write(0, b"x" * 4096)
            platter("overlay", "snapshot", "--control", ctl, "", "mon")
            client.write(4096, b"y" * 4096)
    is_over(top, base, b"x" * 4096 + b"y" * 4096)


# ---- no disk by mistake ----

@contextlib.contextmanager
def folder_server(c, *more):
    d = c.fresh()
    base, vms = os.path.join(d, "b.raw"), os.path.join(d, "vms")
    make_base(base)
    os.mkdir(vms)
    ctl = os.path.join(d, "ctl")
    with Server(base, fmt="raw", more=["--overlays", vms, "--control", ctl,
                                       *more]) as s:
        yield s, vms, ctl


def a_mistyped_name_makes_nothing(c):
    with folder_server(c) as (s, vms, ctl):
        for verb in (("snapshot", "+typo", "mon"), ("flush", "+typo"),
                     ("resize", "+typo", "9M"), ("revert", "+typo", "mon"),
                     ("delete", "+typo", "mon")):
            fails("overlay", verb[0], "--control", ctl, *verb[1:],
                  says="there is no overlay")
        run(["nbdinfo", s.uri("+typo")])
        with Client(s.socket) as client:
            client.go(b"+typo")
            is_equal(client.read(0, 2), (0, b"\7\10"), "the base's data")
            is_equal(client.flush(), 0, "a flush")
            is_equal(os.listdir(vms), [], "what lies in the folder")
            fails("overlay", "snapshot", "--control", ctl, "+typo", "mon",
                  says="nothing has been written to it")
        is_equal(os.listdir(vms), [], "what lies in the folder")


def the_first_change_makes_the_file(c):
    changes = {"write": lambda k: k.write(4096, b"z" * 4096),
               "zero": lambda k: k.zero(0, 8192),
               "trim": lambda k: k.trim(0, 8192)}
    with folder_server(c) as (s, vms, ctl):
        for name, change in changes.items():
            with Client(s.socket) as one, Client(s.socket) as two:
                one.go(b"+" + name.encode())
                two.go(b"+" + name.encode())
                is_equal(change(one), 0, f"the first {name}")
                is_true(f"{name}.qcow2" in os.listdir(vms), "no file is made")
                is_equal(two.read(4096, 4096), one.read(4096, 4096),
                         "what the other one reads")
        platter("overlay", "snapshot", "--control", ctl, "+write", "mon")
    run(["qemu-img", "check", os.path.join(vms, "write.qcow2")])


def snapshots_without_their_overlay_are_not_covered(c):
    with folder_server(c) as (s, vms, ctl):
        with Client(s.socket) as client:
            client.go(b"+vm")
            client.write(0, b"x" * 4096)
            platter("overlay", "snapshot", "--control", ctl, "+vm", "mon")
        platter("overlay", "close", "--control", ctl, "+vm")
        os.rename(os.path.join(vms, "vm.qcow2"), os.path.join(vms, "kept"))
        with Client(s.socket) as client:
            try:
                client.go(b"+vm")
                raise Failure("an empty disk is served")
            except NoExport:
                pass
        fails("overlay", "create", "--control", ctl, "+vm",
              says="its snapshot vm@mon.qcow2 is")
        is_equal(sorted(os.listdir(vms)), ["kept", "vm@mon.qcow2"], "files")
        os.rename(os.path.join(vms, "kept"), os.path.join(vms, "vm.qcow2"))
        with Client(s.socket) as client:
            client.go(b"+vm")
            is_equal(client.read(0, 2), (0, b"xx"), "the disk")


def who_wants_no_surprise_creates(c):
    with folder_server(c, "--overlays-create", "explicit") as (s, vms, ctl):
        with Client(s.socket) as client:
            try:
                client.go(b"+vm")
                raise Failure("it is opened")
            except NoExport:
                pass
        platter("overlay", "create", "--control", ctl, "+vm")
        is_equal(os.listdir(vms), ["vm.qcow2"], "files")
        fails("overlay", "create", "--control", ctl, "+vm",
              says="there already")
        with Client(s.socket) as client:
            client.go(b"+vm")
            is_equal(client.write(0, b"x"), 0, "a write")
            fails("overlay", "create", "--control", ctl, "+vm",
                  says="there already")


def a_folder_that_cannot_be_written_is_told_at_once(c):
    with folder_server(c, "--overlay-free", "1000T") as (s, vms, ctl):
        with Client(s.socket) as client:
            try:
                client.go(b"+vm")
                raise Failure("it is opened")
            except NoExport:
                pass


# ---- what a crash leaves ----

def what_a_killed_snapshot_left_goes(c):
    d = c.fresh()
    base, top = os.path.join(d, "b.raw"), os.path.join(d, "vm.qcow2")
    make_base(base)
    ctl = os.path.join(d, "ctl")
    more = ["--overlay", top, "--control", ctl]
    with Server(base, fmt="raw", more=more) as s:
        with Client(s.socket) as client:
            client.go()
            client.write(0, b"x" * 4096)
            platter("overlay", "snapshot", "--control", ctl, "", "old")
            client.write(0, b"y" * 4096)
    # Between link() and rename(); files that never got their names.
    os.link(top, os.path.join(d, "vm@mon.qcow2"))
    for name in ("vm@mon.qcow2.new", "vm.qcow2.new", "vm@mon.qcow2.new.part",
                 "vm.qcow2.part"):
        make_base(os.path.join(d, name), size=256)
    # Others' stay, and so does a snapshot that was to go and had not yet.
    mine = ["vm2@mon.qcow2", "vm.qcow2.bak", "vm@mon.qcow2.bak", "vmx.new"]
    for name in mine:
        make_base(os.path.join(d, name), size=256)
    with open(os.path.join(d, "vm@old.qcow2.doomed"), "w"):
        pass
    # One that had: nothing leads to it.
    run(["qemu-img", "create", "-q", "-f", "qcow2",
         os.path.join(d, "vm@gone.qcow2"), "1M"])
    with open(os.path.join(d, "vm@gone.qcow2.doomed"), "w"):
        pass
    with Server(base, fmt="raw", more=more) as s:
        platter("overlay", "snapshot", "--control", ctl, "", "mon")
        with Client(s.socket) as client:
            client.go()
            is_equal(client.read(0, 2), (0, b"yy"), "the disk")
        with Client(s.socket) as client:
            client.go(b"@old")
            is_equal(client.read(0, 2), (0, b"xx"), "the snapshot")
    is_equal(sorted(n for n in os.listdir(d) if n.startswith("vm")),
             sorted(mine + ["vm.qcow2", "vm@old.qcow2", "vm@mon.qcow2"]),
             "what is left")


def a_closed_overlay_is_read_after_a_death(c):
    d = c.fresh()
    base, top = os.path.join(d, "b.raw"), os.path.join(d, "vm.qcow2")
    make_base(base)
    path = os.path.join(d, "s")
    p = subprocess.Popen(
        bare_server(f"unix:{path}", f"image={base}", f"overlay={top}"),
        stdin=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while True:
        try:
            client = Client(path)
            break
        except OSError:
            if time.monotonic() > end:
                raise Failure("no server") from None
            time.sleep(0.01)
    client.go()
    is_equal(client.write(0, b"x" * 8192), 0, "the write")
    p.send_signal(signal.SIGKILL)
    p.wait()
    client.socket.close()
    log = top + ".platter-log"
    is_true(os.path.exists(log), "there is no log")
    is_equal(os.stat(log).st_mode & 0o777, 0o600, "its mode")
    fails("map", top, says="was left open by a server that died")
    kept = read_file(top), read_file(log)
    platter("overlay", "recover", top)
    is_over(top, base, b"x" * 8192)
    is_true(not os.path.exists(log), "the log is still there")
    # The same without its log.
    with open(top, "r+b") as f:
        f.write(kept[0])
    fails("overlay", "recover", top, says="its log is not there")
    try:
        with Server(base, fmt="raw", more=["--overlay", top]):
            raise Failure("an older disk is served")
    except Refused as e:
        is_true("its log is not there" in e.message, e.message)
    platter("overlay", "recover", "--discard", top)
    is_over(top, base)


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdkit")
    run_checks(Context, [
        an_image_that_qemu_writes_is_not_read,
        a_layer_that_qemu_writes_is_not_read,
        what_is_served_qemu_does_not_write,
        an_overlay_under_service_is_not_read,
        names_mean_what_was_named,
        long_names_are_named_or_refused,
        snapshots_of_oddly_named_overlays_are_found,
        a_mistyped_name_makes_nothing,
        the_first_change_makes_the_file,
        snapshots_without_their_overlay_are_not_covered,
        who_wants_no_surprise_creates,
        a_folder_that_cannot_be_written_is_told_at_once,
        what_a_killed_snapshot_left_goes,
        a_closed_overlay_is_read_after_a_death,
    ])

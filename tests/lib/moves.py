# SPDX-License-Identifier: BSD-3-Clause
"""Hosts whose servers have overlays, and what moves a guest's disk, and the
guest, between them."""

import json
import os
import signal
import subprocess
import time

from checks import is_equal, is_true
from nbd import Client, Refused
from server import Server, run

WAIT_SEC = 60


def host(folder, image, detect="zeroes,base", more=(), own=True):
    """A host's server of @image, raw if it is a file, with its overlays, if they
    are its @own, and its control socket in @folder, which is made."""
    os.mkdir(folder)
    control = os.path.join(folder, "control")
    s = Server(image, fmt=None if "://" in image else "raw",
               more=[*(["--overlays", folder] if own else []),
                     "--control", control, "--detect", detect, *more])
    s.control, s.overlays = control, folder
    return s


def platter(*args, ok=(0,)):
    return run([os.environ["PLATTER"], "migrate", *args], ok=ok)


def begin(*args):
    """One that is to be killed."""
    return subprocess.Popen([os.environ["PLATTER"], "migrate", "-q", *args])


def drive(s, export):
    """A disk over NBD, as QEMU has it from libvirt."""
    return ("-drive", f"if=none,id=disk0,driver=nbd,server.type=unix,"
            f"server.path={s.socket},export={export},reconnect-delay=30")


def read_all(s, export):
    with Client(s.socket) as n:
        size = n.go(export.encode())
        data = bytearray()
        while len(data) < size:
            code, some = n.read(len(data), min(1 << 20, size - len(data)))
            is_equal(code, 0, "the error")
            data += some
    return data


def kill_server(s):
    """Who watches over it starts another."""
    with open(f"/proc/{s.process.pid}/task/{s.process.pid}/children") as f:
        for child in f.read().split():
            os.kill(int(child), signal.SIGKILL)


def overlay_of(s, export):
    for e in json.loads(platter("status", "--control", s.control,
                                "--json")[1])["server"]["exports"]:
        if e["name"] == export:
            return e.get("overlay")
    return None


def wait_until_open(s, name):
    until = time.monotonic() + WAIT_SEC
    while True:
        try:
            with Client(s.socket) as n:
                return n.go(name)
        except (OSError, Refused):
            is_true(time.monotonic() < until, "no server takes its place")
            time.sleep(0.05)


def wait_for_migration(q, status):
    """Until QEMU's own migration says so."""
    until = time.monotonic() + 2 * WAIT_SEC
    while True:
        told = q.qmp.run("query-migrate")
        if told.get("status") == status:
            return
        is_true(told.get("status") != "failed", f"it failed: {told}")
        is_true(time.monotonic() < until, f"it does not come to {status}")
        time.sleep(0.002)


def wait_for_run(q):
    until = time.monotonic() + WAIT_SEC
    while q.qmp.run("query-status")["status"] != "running":
        is_true(time.monotonic() < until, "it does not run there")
        time.sleep(0.002)


def move_guest(q, target, address):
    """QEMU's own migration."""
    q.qmp.run("migrate", uri=address)
    wait_for_migration(q, "completed")
    wait_for_run(target)


def pause_at_switchover(q, address):
    q.qmp.run("migrate-set-capabilities", capabilities=[
        {"capability": "pause-before-switchover", "state": True}])
    q.qmp.run("migrate", uri=address)
    wait_for_migration(q, "pre-switchover")

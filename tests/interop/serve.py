#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter serve as a service: several images and places, whose sockets are,
behind, and replaced by a newer one under its clients' feet. By the front end
that PLATTER_VIA names."""

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client, Refused, greets  # noqa: E402
from server import (Failure, dies_with_us, environment,  # noqa: E402
                    front_end, run)

WAIT_SEC = 30
MIB = 1 << 20
NOBODY = 65534


def wait(what, for_what):
    deadline = time.monotonic() + WAIT_SEC
    while True:
        try:
            got = what()
        except OSError:
            got = None
        if got:
            return got
        if time.monotonic() > deadline:
            raise Failure(f"{for_what}: not within {WAIT_SEC} s")
        time.sleep(0.02)


class Serve:
    """A running `platter serve`, which has said that it is ready."""

    def __init__(self, *args, program=None, via=None):
        how = ["--via", via] if via else front_end()
        self.process = subprocess.Popen(
            dies_with_us([program or os.environ["PLATTER"], "serve", "--json",
                          *how, *args]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"not ready: {self.process.communicate()[1]}")
        self.said = json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.errors = self.process.communicate(timeout=WAIT_SEC)[1]


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.socket = self.path("s")
        for name, byte, mib in (("a.raw", b"a", 1), ("b=b.raw", b"b", 2),
                                ("c d.raw", b"c", 3)):
            with open(self.path(name), "wb") as f:
                f.write(byte * mib * MIB)

    def path(self, name):
        return os.path.join(self.folder, name)

    def client(self, export, path=None):
        c = Client(path or self.socket, WAIT_SEC)
        c.go(export.encode())
        return c

    def first(self, export, path=None):
        with self.client(export, path) as c:
            return c.read(0, 2)[1]


def refused(*args, status=2):
    got, _, err = run([os.environ["PLATTER"], "serve", *args], ok=None)
    is_equal(got, status, f"the status of {args}")
    is_equal(err.count("\n"), 1, f"lines of {err!r}")
    return err


def images_are_exports_by_their_names(c):
    with Serve("-U", c.socket, "--export", f"b={c.path('b=b.raw')}",
               c.path("a.raw"), c.path("c d.raw")) as s:
        is_equal([i["name"] for i in s.said["images"]],
                 ["b", "a.raw", "c d.raw"], "the images")
        is_equal([c.first(n) for n in ("a.raw", "b", "c d.raw")],
                 [b"aa", b"bb", b"cc"], "the first bytes")
        for name in ("", "a", "c", "../a.raw", "a.raw~x", "a.raw+x:y"):
            try:
                c.first(name)
            except Refused:
                continue
            raise Failure(f"there is an export {name!r}")
        listed = run(["nbdinfo", "--list", "--json",
                      f"nbd+unix:///?socket={c.socket}"])[1]
        is_equal({e["export-name"] for e in json.loads(listed)["exports"]},
                 {"a.raw", "b", "c d.raw"}, "the list")


def one_image_stays_the_default_beside_others(c):
    with Serve("-U", c.socket, "--export", f"b={c.path('b=b.raw')}",
               c.path("a.raw")) as s:
        is_equal(s.said["image"], c.path("a.raw"), "the image")
        is_equal([c.first(n) for n in ("", "b")], [b"aa", b"bb"],
                 "the first bytes")


def each_has_overlays_of_its_own(c):
    folder = c.path("overlays")
    os.mkdir(folder)
    with Serve("-U", c.socket, "--overlays", folder, c.path("a.raw"),
               c.path("c d.raw")):
        for export, data in (("a.raw+vm", b"11"), ("c d.raw+vm", b"22")):
            with c.client(export) as client:
                is_equal(client.write(0, data), 0, "the write")
                is_equal(client.flush(), 0, "the flush")
        is_equal([c.first(n) for n in ("a.raw+vm", "c d.raw+vm", "a.raw",
                                       "c d.raw")],
                 [b"11", b"22", b"aa", b"cc"], "the first bytes")
    is_equal(sorted(os.listdir(folder)), ["a.raw+vm.qcow2", "c d.raw+vm.qcow2"],
             "the files")
    shutil.rmtree(folder)


def each_has_a_temporary_overlay_of_its_own(c):
    """What is written to one image is in no other, outlives a server that is
    killed and one that is replaced, and is gone at the end."""
    program = c.path("platter")
    plugin = "nbdkit-platter-plugin.so"
    shutil.copy(os.environ["PLATTER"], program)
    shutil.copy(os.path.join(os.path.dirname(os.environ["PLATTER"]), plugin),
                c.path(plugin))
    names = ("a.raw", "c d.raw", "b")
    with Serve("-U", c.socket, "--overlay", "temp", c.path("a.raw"),
               c.path("c d.raw"), "--export", f"b={c.path('b=b.raw')}",
               program=program) as s:
        for n, name in enumerate(names[:2]):
            with c.client(name) as client:
                is_equal(client.write(0, b"%d%d" % (n, n)), 0, "the write")
                is_equal(client.write(MIB - 2, b"%d!" % n), 0, "the write")
        written = [b"00", b"11", b"bb"]
        is_equal([c.first(n) for n in names], written, "the first bytes")
        os.kill(s.said["server-pid"], signal.SIGKILL)
        wait(lambda: c.first("b") == b"bb", "another server")
        is_equal([c.first(n) for n in names], written, "after a kill")
        os.kill(s.process.pid, signal.SIGUSR2)
        said = ""
        while "in the place of the one before" not in said:
            said += wait(s.process.stderr.readline, "a line")
        is_equal([c.first(n) for n in names], written, "after another start")
        with c.client("c d.raw") as client:
            is_equal(client.read(MIB - 2, 2), (0, b"1!"), "its end")
    with Serve("-U", c.socket, "--overlay", "temp", "--overlay-scope",
               "connection", c.path("a.raw"), c.path("c d.raw")):
        with c.client("a.raw") as client:
            is_equal(client.write(0, b"xy"), 0, "the write")
            is_equal([c.first(n) for n in names[:2]], [b"aa", b"cc"],
                     "what others see")
            is_equal(client.read(0, 2), (0, b"xy"), "what it sees itself")


def what_gives_no_name_is_refused(c):
    is_true("use --export NAME=FILE" in
            refused(c.path("a.raw"), c.path("b=b.raw")), "another message")
    os.symlink(c.path("a.raw"), c.path("link"))
    os.mkdir(c.path("sub"))
    shutil.copy(c.path("a.raw"), c.path("sub/a.raw"))
    is_true("there are two of that name" in
            refused(c.path("a.raw"), c.path("sub/a.raw")), "another message")
    for bad, why in (("x", "not NAME=FILE"), ("=x", "is empty"),
                     ("a/b=x", "no \"/\""), ("..=x", "folder"),
                     ("n=", "not NAME=FILE"),
                     ("01234567-89ab-cdef-0123-456789abcdef=x", "store")):
        is_true(why in refused("--export", bad), f"another message for {bad}")
    is_true("--overlay FILE is of one image" in
            refused("--overlay", c.path("o.qcow2"), c.path("a.raw"),
                    c.path("c d.raw")), "another message")
    many = [f"--export=n{i}={c.path('a.raw')}" for i in range(101)]
    is_true("over the limit of 100" in
            refused("--overlay", "temp", *many, status=1),
            "another message")


def a_store_is_served(c):
    store = c.path("store")
    os.mkdir(store)
    shutil.copy(c.path("a.raw"), os.path.join(store, "cirros.raw"))
    with Serve("-U", c.socket, "--store", store, "--glance",
               f"unix:{c.path('http')}") as s:
        is_equal(s.said["store"], store, "the store")
        wait(lambda: c.first("cirros") == b"aa", "the image of the store")
        with socket.socket(socket.AF_UNIX) as http:
            http.connect(c.path("http"))
            http.sendall(b"GET /versions HTTP/1.0\r\nHost: localhost\r\n\r\n")
            is_true(http.recv(100).startswith(b"HTTP/1.1 "), "no HTTP")
        if s.said["via"] == "platter":
            is_true("image" not in s.said, "there is an image")


def several_places_are_listened_on(c):
    other = c.path("other")
    with Serve("-U", c.socket, "--unix", other, "--listen", "127.0.0.1:0",
               "-l", "[::1]:0", c.path("a.raw")) as s:
        is_equal(len(s.said["uris"]), 4, "URIs")
        is_equal(s.said["uri"], s.said["uris"][0], "the first")
        for uri in s.said["uris"]:
            is_equal(run(["nbdinfo", "--size", uri])[1].strip(), str(MIB),
                     f"the size at {uri}")
    is_true(not os.path.exists(c.socket) and not os.path.exists(other),
            "a socket's file is left")


def guests_come_by_vsock(c):
    """How far depends on the kernel: a guest of the guest suite does it all."""
    try:
        with socket.socket(socket.AF_VSOCK) as s:
            s.bind((socket.VMADDR_CID_ANY, 20809))
    except OSError as e:
        print(f"(not tried: no vsock: {e})")
        return
    with Serve("--listen", "vsock:20809", c.path("a.raw")) as s:
        is_equal(s.said["uri"], "nbd+vsock://2:20809", "the URI")
        line = shlex.split(s.said["commands"]["qemu-nbd"])
        is_true("file.server.cid=2,file.server.port=20809" in line[5], line[5])
        with socket.socket(socket.AF_VSOCK) as to:
            to.settimeout(2)
            try:
                to.connect((1, 20809))
            except OSError as e:
                print(f"(not tried: no vsock to oneself: {e})")
                return
        is_equal(run(["nbdinfo", "--size", "nbd+vsock://1:20809"])[1].strip(),
                 str(MIB), "the size")


def a_socket_is_whose_it_is_told_to_be(c):
    with Serve("-U", c.socket, "--socket-mode", "620", "--socket-group",
               str(NOBODY), c.path("a.raw")):
        st = os.stat(c.socket)
        is_equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid),
                 (0o620, os.geteuid(), NOBODY), "mode, owner, group")
    with Serve("-U", c.socket, "--socket-owner", str(NOBODY),
               c.path("a.raw")):
        st = os.stat(c.socket)
        is_equal((stat.S_IMODE(st.st_mode), st.st_uid), (0o600, NOBODY),
                 "mode, owner")
        os.chmod(c.folder, 0o755)
        is_equal(run(["setpriv", "--reuid", str(NOBODY), "--clear-groups",
                      "nbdinfo", "--size",
                      f"nbd+unix:///?socket={c.socket}"])[1].strip(),
                 str(MIB), "the size that its owner sees")
    for args, why in ((["--socket-mode", "888"], "is octal"),
                      (["--socket-mode", ""], "is octal"),
                      (["--socket-mode", "7777"], "is octal"),
                      (["--socket-owner", "no such"], "there is no user"),
                      (["--socket-group", "-1"], "there is no group")):
        is_true(why in refused(*args, c.path("a.raw")), "another message")


def behind(c, *args):
    """--fork: what it printed, and its pid."""
    pid_file = c.path("pid")
    out = run([os.environ["PLATTER"], "serve", "--fork", "--pid-file",
               pid_file, "--json", "-U", c.socket, *front_end(), *args])[1]
    with open(pid_file) as f:
        return json.loads(out), int(f.read())


def end_behind(c, pid):
    os.kill(pid, signal.SIGTERM)
    wait(lambda: not os.path.exists(c.path("pid")), "the end")
    is_true(not os.path.exists(c.socket), "the socket's file is left")


def it_goes_behind_when_it_serves(c):
    said, pid = behind(c, c.path("a.raw"))
    try:
        is_equal(c.first(""), b"aa", "the first bytes")
        is_equal(os.getsid(pid), pid, "its session")
        is_equal(os.readlink(f"/proc/{pid}/fd/2"), "/dev/null",
                 "where its errors go")
        os.kill(said["server-pid"], signal.SIGKILL)
        wait(lambda: c.first("") == b"aa", "the next server")
    finally:
        end_behind(c, pid)


def who_cannot_serve_does_not_go_behind(c):
    err = refused("--fork", "--pid-file", c.path("pid"), "-U", c.socket,
                  *front_end(), c.path("none"), status=1)
    is_true(c.path("none") in err, "another message")
    is_true(not os.path.exists(c.path("pid")), "the pid file is there")


def who_cannot_serve_leaves_anothers_pid_file(c):
    _, pid = behind(c, c.path("a.raw"))
    try:
        refused("--pid-file", c.path("pid"), "-U", c.path("other"),
                *front_end(), c.path("none"), status=1)
        with open(c.path("pid")) as f:
            is_equal(int(f.read()), pid, "the pid in the file")
    finally:
        end_behind(c, pid)


def a_newer_one_takes_its_place(c):
    """Its process, its sockets and its temporary overlay stay, and a client
    who comes meanwhile waits."""
    program = c.path("platter")
    plugin = "nbdkit-platter-plugin.so"
    built = os.path.dirname(os.environ["PLATTER"])
    shutil.copy(os.environ["PLATTER"], program)
    shutil.copy(os.path.join(built, plugin), c.path(plugin))
    with Serve("-U", c.socket, "--listen", "127.0.0.1:0", "--overlay", "temp",
               c.path("a.raw"), program=program,
               via=os.environ.get("PLATTER_VIA", "platter")) as s:
        pid = s.process.pid
        with c.client("") as client:
            is_equal(client.write(0, b"new!"), 0, "the write")
            is_equal(client.flush(), 0, "the flush")
        # The newer one: the same under the same name, in another file.
        os.rename(program, program + ".old")
        shutil.copy(program + ".old", program)
        os.kill(pid, signal.SIGUSR2)
        wait(lambda: os.readlink(f"/proc/{pid}/exe") == program,
             "the newer one")
        # Who comes to the next server waits; who is at the last is cut off.
        wait(lambda: c.first("") == b"ne", "the overlay's data")
        is_equal(run(["nbdinfo", "--size", s.said["uris"][1]])[1].strip(),
                 str(MIB), "the size by TCP")
        # One that runs, but not as we were called, takes nobody's place.
        os.rename(program, program + ".new")
        with open(program, "w") as f:
            f.write('#!/bin/sh\n[ "$1" = --version ]\n')
        os.chmod(program, 0o755)
        os.kill(pid, signal.SIGUSR2)
        wait(lambda: c.first("") == b"ne", "the overlay's data")
        said = ""
        while "does not take these options" not in said:
            said += wait(s.process.stderr.readline, "a line")
        is_true("in the place of the one before" in said,
                f"it does not say so: {said}")
    is_true(not os.path.exists(c.socket), "the socket's file is left")


def what_is_packed_is_not_taken_for_a_disk_in_silence(c):
    disk = c.path("a.raw")
    with open(disk, "rb") as f:
        data = f.read()
    # What is compressed is unpacked; an archive of this kind is not.
    with zipfile.ZipFile(disk + ".zip", "w") as z:
        z.writestr("a.raw", data)
    for path, what in ((disk + ".zip", "a zip archive"), ):
        with Serve("-U", c.socket, path) as s:
            pass
        is_true(f"{path} looks like {what}" in s.errors,
                f"it does not say so: {s.errors}")
        to = c.path("out")
        for args, told in (([], True), (["--format", "raw"], False)):
            err = run([os.environ["PLATTER"], "convert", "--quiet",
                       "--overwrite", *args, path, to])[2]
            is_equal(f"{path} looks like {what}" in err, told,
                     f"what convert {args} says: {err}")
    with Serve("-U", c.socket, disk) as s:
        pass
    is_true("looks like" not in s.errors, f"of a disk it says {s.errors}")


def a_part_of_a_disk_is_told_as_one(c):
    run(["qemu-img", "convert", "-O", "vmdk", "-o",
         "subformat=twoGbMaxExtentSparse", c.path("a.raw"), c.path("d.vmdk")])
    run(["qemu-img", "convert", "-O", "vmdk", c.path("a.raw"),
         c.path("mono.vmdk")])
    for name, told in (("d-s001.vmdk", True), ("d.vmdk", False),
                       ("mono.vmdk", False)):
        with Serve("-U", c.socket, c.path(name)) as s:
            pass
        err = run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
                   c.path(name), c.path("out")])[2]
        for says in (s.errors, err):
            is_equal(f"{c.path(name)} is an extent without" in says, told,
                     f"what is said of {name}: {says}")


def who_meets_a_lock_is_told(c):
    if front_end():
        return  # nbdkit has no words for it
    os.mkdir(c.path("vms"))
    run([os.environ["PLATTER"], "create", c.path("vms/one.qcow2"), "1M"])
    other = subprocess.Popen(
        dies_with_us(["qemu-nbd", "-t", "-f", "qcow2", "-k", c.path("other"),
                      c.path("vms/one.qcow2")]))
    wait(lambda: greets(c.path("other")), "qemu-nbd")
    with Serve("-U", c.socket, "--overlays", c.path("vms"), c.path("a.raw")):
        for name, told in (("+one", True), ("+/", False)):
            err = run(["qemu-img", "info",
                       f"nbd+unix:///{name}?socket={c.socket}"], ok=(1,))[2]
            is_equal("the export is in use: another process" in err, told,
                     f"what a client of {name} is told: {err}")
    other.terminate()
    other.wait(WAIT_SEC)


def options_are_called_as_they_are_given(c):
    """In messages: --key, not nbdkit's key=."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "--object",
         "secret,id=s,data=x", "-o",
         "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
         c.path("luks.qcow2"), "1M"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/hosts",
         "-F", "raw", c.path("out.qcow2"), "1M"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         "nbd+unix:///?socket=/s", "-F", "raw", c.path("nbd.qcow2"), "1M"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         "ssh://h/x", "-F", "raw", c.path("ssh.qcow2"), "1M"])
    for image, says, says_not in (
            ("luks.qcow2", "--key FILE", "key=FILE"),
            ("out.qcow2", "--allow DIR", "allow=DIR"),
            ("nbd.qcow2", "--allow URL", "allow=URL"),
            ("ssh.qcow2", "are not supported", "allow")):
        err = run([os.environ["PLATTER"], "map", c.path(image)], ok=(1,))[2]
        is_true(says in err and says_not not in err, err)


def the_lines_for_clients_work(c):
    """qemu-nbd's is of options, so that it outlives the server; the URI of
    who has a key says who he is."""
    if front_end():
        return
    folder = c.path("with, comma")
    os.mkdir(folder)
    psk = c.path("psk")
    with open(psk, "w", encoding="ascii") as f:
        f.write("# keys\nal,ice:0123456789abcdef\n")
    os.chmod(psk, 0o600)
    with Serve("-U", os.path.join(folder, "s"), c.path("a.raw")) as s:
        line = shlex.split(s.said["commands"]["qemu-nbd"])
        is_equal(line[:5], ["qemu-nbd", "-c", "/dev/nbd0", "-r",
                            "--image-opts"], "the line")
        is_true("file.reconnect-delay=60" in line[5], line[5])
        run(["qemu-io", "--image-opts", "-r", line[5], "-c",
             "read -P 97 0 1M"])
    for place, host in (("[::]:0", "::1"), ("0.0.0.0:0", "127.0.0.1")):
        with Serve("--listen", place, c.path("a.raw")) as s:
            line = shlex.split(s.said["commands"]["nbd-client"])
            is_equal(line[:2], ["nbd-client", host], "the host")
    with Serve("-U", c.socket, "--tls", "require", "--tls-psk", psk,
               c.path("a.raw")) as s:
        is_true("://al%2Cice@/" in s.said["uri"], s.said["uri"])
        is_equal(run(["nbdinfo", "--size", s.said["uri"]])[1].strip(),
                 str(MIB), "the size at the URI with a user")


def habits_are_answered(c):
    """What people type who know qemu-img and qemu-nbd."""
    for args, ours in ((["resize", "x"], "platter overlay resize"),
                       (["compare", "a", "b"], "platter diff"),
                       (["info", "--output=json", "x"], "--json"),
                       (["map", "-U", "x"], "--force-share"),
                       (["convert", "-l", "s", "a", "b"], "--snapshot"),
                       (["serve", "-x", "name", "x"], "--export"),
                       (["serve", "--persistent", "x"], "until it is ended")):
        status, _, err = run([os.environ["PLATTER"], *args], ok=None)
        is_true(status in (1, 2) and ours in err,
                f"to {args} it says {err!r} and ends with {status}")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    run_checks(Context, [
        images_are_exports_by_their_names,
        one_image_stays_the_default_beside_others,
        each_has_overlays_of_its_own,
        each_has_a_temporary_overlay_of_its_own,
        what_gives_no_name_is_refused,
        habits_are_answered,
        what_is_packed_is_not_taken_for_a_disk_in_silence,
        a_part_of_a_disk_is_told_as_one,
        who_meets_a_lock_is_told,
        options_are_called_as_they_are_given,
        the_lines_for_clients_work,
        a_store_is_served,
        several_places_are_listened_on,
        guests_come_by_vsock,
        a_socket_is_whose_it_is_told_to_be,
        it_goes_behind_when_it_serves,
        who_cannot_serve_does_not_go_behind,
        who_cannot_serve_leaves_anothers_pid_file,
        a_newer_one_takes_its_place,
    ])

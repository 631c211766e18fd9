# SPDX-License-Identifier: BSD-3-Clause
"""Glance's own functional tests, those that talk to a server by HTTP, with platter in
its place. Run as `python3 -P run_functional.py`, for this folder has a glance.py.

What Glance's middleware would take from the requests' headers becomes a token of
platter's, on the way. Prints a line "ok NAME" or "not ok NAME: why" for each test.
"""

import sys

sys.argv[1:], WANTED = [], sys.argv[1:]
from glance.tests import functional, utils  # noqa: E402
# Before what follows: eventlet takes the place of parts of it.
from glance.tests.functional import test_api, test_healthcheck_middleware  # noqa: E402
from glance.tests.functional.v2 import (  # noqa: E402
    test_images, test_metadef_namespaces, test_metadef_objects,
    test_metadef_properties, test_metadef_resourcetypes, test_metadef_tags,
    test_schemas, test_tasks)

import hashlib  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import socketserver  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import unittest  # noqa: E402

START_SEC = 60
TEST_SEC = 40
STORES = {"file1": "images_1", "file2": "images_2", "file3": "images_3"}


def identity(headers, flavor):
    """(user, project, roles); None: nobody. By the policies that its tests have a
    role is wanted for little."""
    if flavor in ("", "caching"):
        return "", "", ["admin"]
    if flavor == "fakeauth":
        user, project, role = headers.get("x-auth-token", "::").split(":")
        return user, "" if project == "none" else project, [role]
    if headers.get("x-identity-status") != "Confirmed":
        return None
    roles = [r.strip().lower() for r in headers.get("x-roles", "").split(",")]
    return (headers.get("x-user-id", ""), headers.get("x-tenant-id", ""),
            roles)


class Believing:
    """Takes connections on a port and passes them to platter."""

    def __init__(self, server, to):
        self.flavor, self.to = server.deployment_flavor, to
        self.tokens = os.path.join(server.test_dir, "tokens")
        self.known = {}
        self.lock = threading.Lock()
        family = socket.AF_INET6 if ":" in server.bind_host else \
            socket.AF_INET
        self.listener = socket.create_server(
            (server.bind_host, server.bind_port), family=family, backlog=64)
        self.write()
        threading.Thread(target=self.accept, daemon=True).start()

    def write(self):
        with open(self.tokens + ".new", "w") as f:
            json.dump(self.known, f)
        os.rename(self.tokens + ".new", self.tokens)

    def token(self, who):
        token = hashlib.sha256(repr(who).encode()).hexdigest()
        with self.lock:
            if token not in self.known:
                user, project, roles = who
                self.known[token] = {"user": user or "nobody",
                                     "roles": [*roles, "member"]}
                if project:
                    self.known[token]["project"] = project
                self.write()
        return token

    def accept(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,),
                             daemon=True).start()

    def rewritten(self, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        who = identity(headers, self.flavor)
        lines = [l for l in lines if l.partition(":")[0].lower() not in
                 ("x-auth-token", "connection")]
        if who:
            lines.append("X-Auth-Token: " + self.token(who))
        return "\r\n".join([first, *lines, "Connection: close", "", ""]) \
            .encode("latin-1")

    def serve(self, s):
        with s, socket.socket(socket.AF_UNIX) as t:
            data = b""
            while b"\r\n\r\n" not in data:
                more = s.recv(65536)
                if not more:
                    return
                data += more
            head, rest = data.split(b"\r\n\r\n", 1)
            back = threading.Thread(target=self.back, args=(t, s), daemon=True)
            try:
                t.connect(self.to)
                back.start()
                t.sendall(self.rewritten(head) + rest)
                while more := s.recv(65536):
                    t.sendall(more)
            except OSError:
                pass
            # An answer may come before all of a body has gone.
            if back.ident:
                back.join(TEST_SEC)

    @staticmethod
    def back(t, s):
        try:
            while more := t.recv(65536):
                s.sendall(more)
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def end(self):
        self.listener.close()


def parameters(server, settings):
    """As platter takes what the test sets."""
    folder = server.test_dir
    several = "default_backend" in server.__dict__
    if several:
        names = sorted(STORES, key=lambda n: n != server.default_backend)
        yield from (f"store={n}={os.path.join(folder, STORES[n])}"
                    for n in names)
    else:
        yield f"store={os.path.join(folder, 'images')}"
    if settings.get("disable_path"):
        yield f"health-disable={settings['disable_path']}"
    if settings.get("show_multiple_locations"):
        yield "show-locations=true"
    if settings.get("allowed_hosts"):
        yield "import-hosts=" + ",".join(settings["allowed_hosts"])
        yield "import-nets=127.0.0.0/8,::1/128"
    yield "import-ports=80,443," + ",".join(map(str, PORTS))
    quota = settings.get("user_storage_quota")
    if quota and int(quota):
        with open(os.path.join(folder, "limits"), "w") as f:
            json.dump({"default": {"image_size_total": 1}}, f)
        yield f"limits={folder}/limits"


def free_ports(n):
    """Of web servers that are not there yet."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


PORTS = free_ports(60)
UNUSED = itertools.cycle(PORTS)
server_bind = socketserver.TCPServer.server_bind


def bind_known(server):
    """In place of any port one of those that platter was told of."""
    host, port = server.server_address[:2]
    server.allow_reuse_address = True
    server.server_address = (host, port or next(UNUSED))
    server_bind(server)


def listens(path):
    """A socket's file is there a moment before anybody listens on it."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except OSError:
            return False
    return True


def start(server, expect_exit=True, expected_exitcode=0, **kwargs):
    if server.sock:
        server.sock.close()
        server.sock = None
    if "api" not in server.server_name:
        return 0, "", ""
    settings = {**server.__dict__, **kwargs}
    place = os.path.join(server.test_dir, "http")
    server.bind_host = settings.get("bind_host", "127.0.0.1")
    server.believing = Believing(server, place)
    server.err = open(os.path.join(server.test_dir, "platter"), "w+")
    server.process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", os.environ["PLATTER"], "server",
         "--listen", "unix:" + os.path.join(server.test_dir, "nbd"),
         f"glance=unix:{place}", f"auth=tokens:{server.believing.tokens}",
         *parameters(server, settings)],
        stdin=subprocess.DEVNULL, stderr=server.err)
    server.process_pid = server.process.pid
    end = time.monotonic() + START_SEC
    while not listens(place):
        if server.process.poll() is not None or time.monotonic() > end:
            server.err.seek(0)
            raise RuntimeError("platter: " + server.err.read())
        time.sleep(0.01)
    return 0, "", ""


def stop(server):
    if getattr(server, "process", None) is None:
        return 0, "", ""
    server.believing.end()
    status = server.process.poll()
    if status is None:
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(START_SEC)
    server.process = server.process_pid = None
    server.err.close()
    if status:
        raise RuntimeError(f"platter ended with {status}")
    return 0, "", ""


def tests_of(suite):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests_of(one)
        else:
            yield one


def copy_data_file(test, name, folder):
    """Policies and the like, which Debian does not have, and platter does not read."""
    path = os.path.join(folder, os.path.basename(name))
    with open(path, "w") as f:
        f.write("{}")
    return path


def too_long(*unused):
    raise TimeoutError(f"it takes over {TEST_SEC} s")


def main():
    signal.signal(signal.SIGALRM, too_long)
    functional.PosixServer.start, functional.PosixServer.stop = start, stop
    socketserver.TCPServer.server_bind = bind_known
    utils.BaseTestCase._copy_data_file = copy_data_file
    functional.FunctionalTest.copy_data_file = copy_data_file
    functional.MultipleBackendFunctionalTest.copy_data_file = copy_data_file
    modules = (test_images, test_metadef_namespaces, test_metadef_objects,
               test_metadef_properties, test_metadef_resourcetypes,
               test_metadef_tags, test_schemas, test_tasks, test_api,
               test_healthcheck_middleware)
    for module in modules:
        for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(
                module)):
            if isinstance(test, functional.SynchronousAPIBase):
                continue  # within one process
            name = test.id().replace("glance.tests.functional.", "")
            if WANTED and not any(w in name for w in WANTED):
                continue
            result = unittest.TestResult()
            began = time.monotonic()
            signal.alarm(TEST_SEC)
            test.run(result)
            signal.alarm(0)
            said = [text for _, text in (*result.errors, *result.failures,
                                         *result.skipped)]
            took = f"{time.monotonic() - began:.1f} s"
            if result.wasSuccessful() and not said:
                print(f"ok {name} ({took})", flush=True)
            else:
                print(f"not ok {name} ({took}): " +
                      repr(said[-1][-1500:]), flush=True)


if __name__ == "__main__":
    main()

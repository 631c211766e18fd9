# SPDX-License-Identifier: BSD-3-Clause
"""The image service on a unix socket, and requests to it.

PLATTER and PLATTER_PLUGIN name what runs, see bare_server(). A server ends with its test.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from server import Failure, START_SEC, STOP_SEC, bare_server, dies_with_us

REQUEST_SEC = 90


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=REQUEST_SEC)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """status, headers (names in lower case), body (bytes)."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode("utf-8", errors="replace")

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failure(f"status {self.status}, not JSON: "
                          f"{self.text[:300]}") from None


class Glance:
    """A server with store=FOLDER, as a context. @store outlives it when it is
    given, else it has a folder of its own."""

    def __init__(self, *parameters, store=None, tcp=None,
                 nbd_port=None, wrap=()):
        self.folder = tempfile.mkdtemp(prefix="platter-glance-")
        self.store = store or os.path.join(self.folder, "store")
        os.makedirs(self.store, exist_ok=True)
        self.socket = os.path.join(self.folder, "http")
        self.tcp = tcp  # a port that a parameter names
        self.nbd_socket = os.path.join(self.folder, "nbd")
        self.stderr = open(os.path.join(self.folder, "err"), "w+",
                           errors="replace")
        self.process = subprocess.Popen(
            dies_with_us(
                [*wrap, *bare_server(
                    f"127.0.0.1:{nbd_port}" if nbd_port
                    else f"unix:{self.nbd_socket}",
                    f"store={self.store}",
                    *([] if tcp else [f"glance=unix:{self.socket}"]),
                    *parameters)]),
            stdin=subprocess.DEVNULL, stderr=self.stderr)
        deadline = time.monotonic() + START_SEC
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.messages()
                self.end()
                raise Failure(f"it did not start: {said}")
            time.sleep(0.02)

    def _answers(self):
        try:
            return self.request("GET", "/healthcheck").status == 200
        except OSError:
            return False

    def request(self, method, path, body=None, headers=None, token=None):
        """@body: bytes or text, an iterable of bytes (sent in chunks), or
        anything else as JSON."""
        headers = dict(headers or {})
        if token:
            headers["X-Auth-Token"] = token
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        if self.tcp:
            c = http.client.HTTPConnection("127.0.0.1", self.tcp,
                                           timeout=REQUEST_SEC)
        else:
            c = _UnixConnection(self.socket)
        try:
            c.request(method, path, body=body, headers=headers)
            return Answer(c.getresponse())
        finally:
            c.close()

    def messages(self):
        with open(self.stderr.name, errors="replace") as f:
            return f.read().strip()

    def kill(self):
        """As if the power had failed, but for what the kernel has."""
        self.process.kill()
        self.process.wait()

    def end(self, signo=signal.SIGTERM):
        late = False
        if self.process.poll() is None:
            self.process.send_signal(signo)
            try:
                self.process.wait(STOP_SEC)
            except subprocess.TimeoutExpired:
                late = True
                self.kill()
        self.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if late:
            raise Failure(f"it did not end {STOP_SEC} s after SIGTERM")
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        died, said = self.process.poll(), self.messages()
        status = self.end()
        if kind is None and (died is not None or status != 0):
            raise Failure(f"it ended with {status}: {said}")
        return False


class Row:
    """A request and what must come of it. @status may be several. @body:
    what the JSON answer must contain (see contains()), or a text that must
    be in the answer."""

    def __init__(self, method, path, status, want=None, send=None,
                 headers=None, answer_headers=None, token=None):
        self.method, self.path, self.status = method, path, status
        self.want, self.send, self.headers = want, send, headers
        self.answer_headers, self.token = answer_headers or {}, token

    def __str__(self):
        return f"{self.method} {self.path}"


def contains(got, want):
    """Every member that @want has, @got has; lists are equal in length; a
    callable judges."""
    if callable(want):
        return want(got)
    if isinstance(want, dict):
        return isinstance(got, dict) and all(
            k in got and contains(got[k], v) for k, v in want.items())
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(
            contains(g, w) for g, w in zip(got, want))
    return got == want


def run_row(glance, row):
    a = glance.request(row.method, row.path, row.send, row.headers, row.token)
    statuses = row.status if isinstance(row.status, tuple) else (row.status,)
    if a.status not in statuses:
        raise Failure(f"{row}: status {a.status}, not {row.status}: "
                      f"{a.text[:300]}")
    if isinstance(row.want, str):
        if row.want not in a.text:
            raise Failure(f"{row}: {row.want!r} is not in {a.text[:500]!r}")
    elif row.want is not None and not contains(a.json, row.want):
        raise Failure(f"{row}: {a.text[:1000]} does not have {row.want}")
    for name, value in row.answer_headers.items():
        got = a.headers.get(name.lower())
        if not (value(got) if callable(value) else got == value):
            raise Failure(f"{row}: header {name} is {got!r}, "
                          f"not {value!r}: {a.headers}")
    return a

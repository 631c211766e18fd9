#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter serve on sockets that somebody else has made, as systemd does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import Client  # noqa: E402
from server import Failure, dies_with_us, environment  # noqa: E402

WAIT_SEC = 20


class Context:
    def __init__(self, folder):
        self.socket = os.path.join(folder, "s")
        self.image = os.path.join(folder, "disk.raw")
        with open(self.image, "wb") as f:
            f.write(b"x" * 65536)

    def serve(self, s, *options):
        """As systemd starts a service: its socket is descriptor 3."""
        def hand_on():
            os.dup2(s.fileno(), 3)
            os.set_inheritable(3, True)
        return subprocess.Popen(
            dies_with_us(
                ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"',
                 os.environ["PLATTER"], "serve", "--plugin",
                 os.environ["PLATTER_PLUGIN"], "--json", *options,
                 self.image]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, close_fds=False, preexec_fn=hand_on,
            text=True)


def listener(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    os.chmod(path, 0o660)
    s.listen()
    return s


def reads(path):
    deadline = time.monotonic() + WAIT_SEC
    while True:
        try:
            with Client(path, 5) as client:
                client.go(b"")
                return client.read(0, 4) == (0, b"xxxx")
        except OSError as e:
            if time.monotonic() > deadline:
                raise Failure(f"nobody answers: {e}") from None
            time.sleep(0.05)


def the_socket_is_the_makers(c):
    s = listener(c.socket)
    p = c.serve(s)
    try:
        # Who comes before the server is there waits.
        is_true(reads(c.socket), "other data")
        said = json.loads(p.stdout.readline())
        is_equal(said["uri"], f"nbd+unix:///?socket={c.socket}", "the URI")
        os.kill(said["server-pid"], signal.SIGKILL)
        is_true(reads(c.socket), "other data")
        p.terminate()
        p.communicate(timeout=WAIT_SEC)
        is_equal(os.stat(c.socket).st_mode & 0o777, 0o660, "the file's mode")
        # It is still there, and who makes it again listens on it.
        p = c.serve(s)
        is_true(reads(c.socket), "other data")
    finally:
        p.terminate()
        p.communicate(timeout=WAIT_SEC)
        s.close()


def who_says_where_is_not_given_another(c):
    path = c.socket + "-other"
    s = listener(c.socket + "-made")
    p = c.serve(s, "--unix", path)
    try:
        said = json.loads(p.stdout.readline())
        is_equal(said["uri"], f"nbd+unix:///?socket={path}", "the URI")
        is_true(reads(path), "other data")
    finally:
        p.terminate()
        p.communicate(timeout=WAIT_SEC)
        s.close()


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    run_checks(Context, [
        the_socket_is_the_makers,
        who_says_where_is_not_given_another,
    ])

# SPDX-License-Identifier: BSD-3-Clause
"""nginx on loopback, with a configuration of the test's own."""

import os
import socket
import subprocess
import time

from server import Failure, dies_with_us

START_SEC = 20


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Nginx:
    """@servers: the text of server {} blocks, where PORT0, PORT1 ... are ports of
    .ports, and FOLDER is @folder, which logs and caches are written to."""

    def __init__(self, folder, servers, n_ports=1):
        self.folder = folder
        self.ports = [free_port() for _ in range(n_ports)]
        self.log = os.path.join(folder, "access.log")
        for i, port in enumerate(self.ports):
            servers = servers.replace(f"PORT{i}", f"127.0.0.1:{port}")
        temps = "".join(f"{x}_temp_path {folder}/{x}-temp;\n" for x in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as f:
            f.write("daemon off; user root; worker_processes 1;\n"
                    f"pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
                    "events { worker_connections 512; }\n"
                    "http {\n"
                    "log_format asked '$server_port $status $request_uri "
                    "$http_range $bytes_sent';\n"
                    f"access_log {self.log} asked;\n{temps}"
                    "keepalive_requests 100000;\n"
                    f"{servers.replace('FOLDER', folder)}\n}}\n")
        self.process = subprocess.Popen(
            dies_with_us(["nginx", "-c", path, "-e", f"{folder}/error.log"]),
            stdin=subprocess.DEVNULL)
        self._wait_ready()

    def _wait_ready(self):
        deadline = time.monotonic() + START_SEC
        for port in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError as e:
                    if self.process.poll() is not None or \
                            time.monotonic() > deadline:
                        raise Failure(f"nginx does not start: {e}") from e
                    time.sleep(0.01)

    def url(self, path, port=0, scheme="http"):
        return f"{scheme}://127.0.0.1:{self.ports[port]}/{path}"

    def asked(self):
        """(status, range, bytes sent) of all requests so far."""
        with open(self.log) as f:
            lines = [x.split() for x in f]
        return [(int(x[1]), x[3], int(x[4])) for x in lines]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait()

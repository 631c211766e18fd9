# SPDX-License-Identifier: BSD-3-Clause
"""What lies between two programs: a network that is slow, cuts, or is silent."""

import select
import socket
import threading
import time


class Proxy:
    """TCP from a port of its own to @to, as a context. .mode is what becomes of
    connections: "pass", "cut", "hang" (nothing is passed on), "404" (of its
    own, in HTML); .delay: seconds before anything is passed on; .count: how many there were; .asked: what each sent
    first, where it was not passed on at once."""

    def __init__(self, to):
        self.to, self.mode, self.delay, self.count = to, "pass", 0, 0
        self.asked = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._serve, args=(s,),
                             daemon=True).start()

    def _serve(self, s):
        with s:
            if self.mode != "pass":
                self.asked.append(s.recv(1 << 16, socket.MSG_PEEK))
            while self.mode == "hang" and not self.ended:
                time.sleep(0.05)
            if self.mode == "cut":
                return
            if self.mode == "404":
                s.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n"
                          b"Connection: close\r\n\r\n<html>")
                return
            time.sleep(self.delay)
            try:
                with socket.create_connection(("127.0.0.1", self.to)) as t:
                    self._pass(s, t)
            except OSError:
                pass

    @staticmethod
    def _pass(s, t):
        other = {s: t, t: s}
        while True:
            for a in select.select([s, t], [], [])[0]:
                data = a.recv(1 << 16)
                if not data:
                    return
                other[a].sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.ended = True
        self.listener.close()

# SPDX-License-Identifier: BSD-3-Clause
"""A web server on loopback, to be downloaded from."""

import http.server
import io
import os
import threading

SLOW_SEC = 120


class Web:
    """Files of @folder on a port of its own; "/to/URL" is a redirect there,
    with a long page, "/cut/..." lacks the last byte, "/slow/..." gives a byte, sets .started and waits for .go; "/refusal" is
    answered 404, with a page that does not end."""

    def __init__(self, folder):
        web = self
        self.go = threading.Event()
        self.started = threading.Event()
        self.slow = 0  # that are under way
        self.asked = 0
        self.ranges = []  # that were asked for

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=folder)

            def send_head(self):
                """One range, which "/whole/..." does not know."""
                web.asked += 1
                part = self.headers.get("Range")
                if part:
                    web.ranges.append(part)
                if self.path.startswith("/whole/"):
                    self.path = self.path[6:]
                elif part and os.path.exists(
                        os.path.join(folder, self.path[1:])):
                    first, last = map(int, part[6:].split("-"))
                    with open(os.path.join(folder, self.path[1:]), "rb") as f:
                        f.seek(first)
                        data = f.read(last - first + 1)
                    self.send_response(206)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    return io.BytesIO(data)
                return super().send_head()

            def do_GET(self):
                if self.path.startswith("/to/"):
                    self.send_response(302)
                    self.send_header("Location", self.path[4:])
                    self.end_headers()
                    try:
                        self.wfile.write(b"a page that is no image" * 10000)
                    except OSError:
                        pass
                elif self.path.startswith("/cut/"):
                    with open(os.path.join(folder, self.path[5:]), "rb") as f:
                        data = f.read()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:-1])
                elif self.path == "/refusal":
                    self.send_response(404)
                    self.end_headers()
                    try:
                        while not web.go.is_set():
                            self.wfile.write(bytes(1 << 16))
                    except OSError:
                        pass
                elif self.path.startswith("/slow/"):
                    with open(os.path.join(folder, self.path[6:]), "rb") as f:
                        data = f.read()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:1])
                    self.wfile.flush()
                    web.slow += 1
                    web.started.set()
                    web.go.wait(SLOW_SEC)
                    web.slow -= 1
                    try:
                        self.wfile.write(data[1:])
                    except OSError:
                        pass
                else:
                    try:
                        super().do_GET()
                    except OSError:
                        pass  # who asked is gone

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def allowed(self):
        return [f"import-ports=80,{self.port}", "import-nets=127.0.0.1/32"]

    def end(self):
        self.go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.end()
        return False

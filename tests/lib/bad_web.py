# SPDX-License-Identifier: BSD-3-Clause
"""A web server that does wrong what no real one does on demand."""

import gzip
import http.server
import re
import threading
import time
import zlib

PAGE = b"<html>a page that is no image</html>"


class BadWeb:
    """@data at "/KIND/disk", where KIND is a method of Answer: what is done to a
    request for a range. .asked: (kind, path, range, headers) of each."""

    def __init__(self, data, host="127.0.0.1"):
        web = self
        self.data = data
        self.asked = []
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.states = {}  # of kinds: whatever they keep
        self.files = {}  # of /files/
        self.delay = 0  # seconds before anything is answered
        self.to = ""  # where redirects lead
        self.token = ""

        class Handler(Answer):
            pass

        Handler.web = web
        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.server.handle_error = lambda *args: None  # who asked is gone
        self.server.daemon_threads = True
        self.host, self.port = self.server.server_address[:2]
        self.thread = threading.Thread(target=self.server.serve_forever,
                                       args=(0.02,))
        self.thread.start()

    def url(self, kind, rest="disk"):
        return f"http://{self.host}:{self.port}/{kind}/{rest}"

    def count(self, kind):
        """How many there were of it, this one with them."""
        with self.lock:
            return sum(a[0] == kind for a in self.asked)

    def opened(self, kind):
        """Those ranges that are asked for when it is opened."""
        size = len(self.data)
        return [r for r in self.ranges(kind)
                if r.startswith("bytes=0-") or r.endswith(f"-{size - 1}")]

    def ranges(self, kind):
        with self.lock:
            return [a[2] for a in self.asked if a[0] == kind]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    web = None

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.send(500, {}, b"")

    def do_GET(self):
        kind = self.path.split("/")[1].split("?")[0]
        part = self.headers.get("Range", "")
        with self.web.lock:
            self.web.asked.append((kind, self.path, part, self.headers))
        m = re.fullmatch(r"bytes=(\d+)-(\d+)", part)
        self.first, self.last = (int(m[1]), int(m[2])) if m else (0, 0)
        if kind != "files":
            self.last = min(self.last, len(self.web.data) - 1)
        self.n = self.web.count(kind)
        # What an image is, and its beginning and end, which are small.
        self.opening = self.last == 0 or self.last - self.first < 1 << 17 and (
            self.first == 0 or self.last == len(self.web.data) - 1)
        time.sleep(self.web.delay)
        try:
            getattr(self, kind.replace("-", "_"))()
        except OSError:
            self.close_connection = True

    # ---- what is sent ----

    def send(self, status, headers, body, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in headers:
            self.send_header("Content-Length",
                             str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def range_of(self, first=None, last=None, size=None):
        return {"Content-Range": "bytes "
                f"{self.first if first is None else first}-"
                f"{self.last if last is None else last}/"
                f"{len(self.web.data) if size is None else size}"}

    def part(self, first=None, last=None, version='"one"', **headers):
        first = self.first if first is None else first
        last = self.last if last is None else last
        told = self.range_of(first, last)
        if version:
            told["ETag"] = version
        told.update({k.replace("_", "-"): v for k, v in headers.items()})
        self.send(206, told, self.web.data[first:last + 1])

    def refuse(self, status, **headers):
        self.send(status,
                  {k.replace("_", "-"): v for k, v in headers.items()}, PAGE)

    # ---- what is right ----

    def good(self):
        self.part()

    def fickle(self):
        """Takes each token six times."""
        token = self.headers.get("X-Auth-Token")
        with self.web.lock:
            used = self.web.states.setdefault("fickle", {})
            used[token] = used.get(token, 0) + 1
        if not token or used[token] > 6:
            self.refuse(401)
        else:
            self.part()

    def files(self):
        data = self.web.files.get(self.path.split("/")[2], self.web.data)
        last = min(self.last, len(data) - 1)
        told = self.range_of(last=last, size=len(data))
        self.send(206, {**told, "ETag": f'"{zlib.crc32(data)}"'},
                  data[self.first:last + 1])

    def weak(self):
        self.part(version='W/"one"',
                  Last_Modified="Mon, 02 Nov 2026 10:00:00 GMT")

    def nameless(self):
        self.part(version=None)

    def chunked(self):
        body = self.web.data[self.first:self.last + 1]
        self.send(206, {**self.range_of(), "ETag": '"one"',
                        "Transfer-Encoding": "chunked"},
                  b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def empty(self):
        self.send(416, {"Content-Range": "bytes */0"}, PAGE)

    # ---- what can be mended ----

    def sliced(self):
        """The first half of whatever is long."""
        self.part(last=(self.first + self.last) // 2
                  if self.last - self.first > 400000 else None)

    def cut_once(self):
        if self.n % 3:
            self.part()
            return
        self.send(206, {**self.range_of(), "ETag": '"one"'},
                  self.web.data[self.first:(self.first + self.last) // 2],
                  self.last - self.first + 1)
        self.close_connection = True

    def lazy(self):
        """Cached ranges are there, others are not at first."""
        with self.web.lock:
            known = self.web.states.setdefault("lazy", set())
            new = self.last not in known
            known.add(self.last)
        if not self.opening and new:
            self.refuse(416, Content_Range=f"bytes */{len(self.web.data)}")
        else:
            self.part()

    def busy(self):
        if self.n in (4, 5, 6):
            self.refuse((503, 429, 502)[self.n - 4], Retry_After="0")
        else:
            self.part()

    def moved(self):
        self.refuse(302, Location=self.web.to)

    def signed(self):
        """Leads to what is good for three requests."""
        self.refuse(307, Location=f"/open/disk?X-Amz-Signature=s{self.n}")

    def open(self):
        sign = self.path.partition("?")[2]
        with self.web.lock:
            used = sum(a[1] == self.path for a in self.web.asked)
        if used > 3 or not sign:
            self.refuse(403)
        else:
            self.part()

    def token(self):
        if self.headers.get("Authorization") == self.web.token:
            self.part()
        else:
            self.refuse(401, WWW_Authenticate="Bearer")

    # ---- what cannot ----

    def whole(self):
        self.send(200, {"ETag": '"one"'}, self.web.data)

    def whole_nameless(self):
        self.send(200, {}, self.web.data)

    def whole_changed(self):
        self.send(200, {"ETag": '"one"' if self.n == 1 else '"two"'},
                  self.web.data)

    def whole_cut(self):
        self.send(200, {"ETag": '"one"'}, self.web.data[:len(self.web.data)
                                                        // 2],
                  len(self.web.data))
        self.close_connection = True

    def changed(self):
        if not self.opening and self.headers.get("If-Match") != '"two"':
            self.refuse(412)
        else:
            self.part()

    def changed_silently(self):
        self.part(version='"one"' if self.opening else '"two"')

    def changed_date(self):
        self.part(version=None, Last_Modified="Mon, 02 Nov 2026 10:00:00 GMT"
                  if self.opening else "Mon, 02 Nov 2026 11:00:00 GMT")

    def forgets_tag(self):
        self.part(version='"one"' if self.opening else None)

    def grown(self):
        size = len(self.web.data) + (not self.opening)
        self.send(206, self.range_of(size=size),
                  self.web.data[self.first:self.last + 1])

    def drops(self):
        """One byte at a time."""
        self.part(last=self.first)

    def cut(self):
        if self.opening:
            self.part()
            return
        self.send(206, {**self.range_of(), "ETag": '"one"'}, b"",
                  self.last - self.first + 1)
        self.close_connection = True

    def no_range(self):
        if self.opening:
            self.part()
        else:
            self.refuse(416)

    def down(self):
        if self.opening or self.web.go.is_set():
            self.part()
        else:
            self.refuse(503)

    def later(self):
        if self.opening:
            self.part()
        else:
            self.refuse(503, Retry_After="3600")

    def silent(self):
        if not self.opening:
            self.web.go.wait(30)
        self.part()

    def silent_at_once(self):
        self.web.go.wait(30)

    def trickle(self):
        if self.opening:
            self.part()
            return
        self.send(206, {**self.range_of(), "ETag": '"one"'}, b"",
                  self.last - self.first + 1)
        for i in range(self.first, self.last + 1):
            self.wfile.write(self.web.data[i:i + 1])
            if self.web.go.wait(0.1):
                break
        self.close_connection = True

    def packed(self):
        self.send(206, {**self.range_of(), "ETag": '"one"',
                        "Content-Encoding": "gzip"},
                  gzip.compress(self.web.data[self.first:self.last + 1]))

    def elsewhere(self):
        shift = 512 * (not self.opening)
        self.part(self.first + shift, min(self.last + shift,
                                          len(self.web.data) - 1))

    def too_much(self):
        self.part(last=min(self.last + (not self.opening),
                           len(self.web.data) - 1))

    def more_than_said(self):
        body = self.web.data[self.first:self.last + 1] + b"x" * (not self.opening)
        self.send(206, {**self.range_of(), "ETag": '"one"',
                        "Transfer-Encoding": "chunked"},
                  b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def mute(self):
        self.send(206, {"ETag": '"one"'}, self.web.data[:1])

    def many_parts(self):
        self.send(206, {"Content-Type": "multipart/byteranges; boundary=b"},
                  b"--b\r\n\r\nx\r\n--b--\r\n")

    def endless(self):
        self.send(206, self.range_of(size="*"), self.web.data[:1])

    def enormous(self):
        self.send(206, self.range_of(size="9" * 25), self.web.data[:1])

    def many_headers(self):
        self.wfile.write(b"HTTP/1.1 206 Partial Content\r\n")
        for i in range(3000):
            self.wfile.write(b"X-%d: %s\r\n" % (i, b"y" * 60))
        self.close_connection = True

    def garbage(self):
        self.wfile.write(b"\0\1\2\3 nothing of HTTP\r\n\r\n" * 20)
        self.close_connection = True

    def loop(self):
        self.refuse(302, Location="/loop/disk")

    def nowhere(self):
        self.refuse(302)

    def other_scheme(self):
        self.refuse(302, Location="file:///etc/passwd")

    def gone(self):
        self.refuse(404)

    def goes(self):
        if not self.opening:
            self.refuse(404)
        else:
            self.part()

    def forbidden(self):
        self.refuse(403)

    def page(self):
        self.refuse(418)

    def trailing(self):
        """A page of a refusal that does not end."""
        self.send(500, {"Transfer-Encoding": "chunked"}, b"")
        end = time.monotonic() + 20
        while time.monotonic() < end and not self.web.go.is_set():
            self.wfile.write(b"1000\r\n" + b"z" * 4096 + b"\r\n")

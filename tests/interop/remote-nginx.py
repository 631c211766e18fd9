#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images at nginx: every format, as the same file of this machine; containers,
overlays, nbdkit; TLS, caches in slices, limits, objects that are replaced."""

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from kept import CHUNK, kept_in  # noqa: E402
from nbd import Client  # noqa: E402
from nginx import Nginx  # noqa: E402
from server import (Server, Totals, compare, dies_with_us,  # noqa: E402
                    environment, need_programs, run)

MIB = 1 << 20
SIZE = 8 * MIB
FORMATS = (("qcow2", []), ("qcow2", ["-c"]), ("vmdk", []),
           ("vmdk", ["-o", "subformat=streamOptimized"]),
           ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]), ("vhdx", []),
           ("vpc", ["-o", "force_size=on"]), ("vdi", []), ("raw", []))

SERVERS = """
proxy_cache_path FOLDER/cache keys_zone=sliced:1m;
limit_req_zone $server_addr zone=few:1m rate=20r/s;
server { listen PORT0; root FOLDER/www;
  location /moved/ { rewrite ^/moved/(.*) /$1 redirect; }
  location /whole/ { alias FOLDER/www/; max_ranges 0; }
  location /few/ { alias FOLDER/www/; limit_req zone=few burst=1 nodelay; }
  location /sliced/ { slice 64k; proxy_cache sliced; proxy_cache_valid 206 1h;
    proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;
    proxy_pass http://PORT0/; }
  location /private/ { alias FOLDER/www/; auth_basic x;
    auth_basic_user_file FOLDER/users; }
}
server { listen PORT1 ssl; root FOLDER/www;
  ssl_certificate FOLDER/tls.pem; ssl_certificate_key FOLDER/key.pem;
  location /down/ { rewrite ^/down/(.*) http://PORT0/$1 redirect; }
}
"""


class Context:
    def __init__(self, folder):
        self.folder = folder
        os.makedirs(self.at("www"))
        self.raw = self.at("disk.raw")
        with open(self.raw, "wb") as f:
            f.truncate(SIZE)
            for at, length in ((0, 5000), (MIB - 700, 1400), (3 * MIB, 3 * MIB)):
                f.seek(at)
                f.write(bytes((at // 512 + i // 3) % 251 + 1
                              for i in range(length)))
        self.image("disk.qcow2", "qcow2")
        with open(self.at("users"), "w") as f:
            f.write("me:{PLAIN}it\n")
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
             "-keyout", self.at("key.pem"), "-out", self.at("tls.pem"),
             "-subj", "/CN=127.0.0.1", "-addext",
             "subjectAltName=IP:127.0.0.1", "-days", "2"])
        self.nginx = Nginx(folder, SERVERS, 2)
        self.totals = Totals()

    def at(self, name):
        return os.path.join(self.folder, name)

    def image(self, name, fmt, *options):
        run(["qemu-img", "convert", "-O", fmt, *options, self.raw,
             self.at(f"www/{name}")])

    def same(self, url, *options, **kw):
        with Server(url, more=options, **kw) as s:
            compare(s.uri(), self.raw, self.totals)

    def refused(self, url, said, *options):
        status, _, err = run([os.environ["PLATTER"], "info",
                              "--remote-timeout", "2", *options, url], ok=None)
        is_true(status == 1 and said in err and err.count("\n") == 1,
                f"{said!r}: {err!r}")


def every_format_is_as_its_file_is(c):
    for i, (fmt, options) in enumerate(FORMATS):
        name = f"disk{i}.{fmt}"
        c.image(name, fmt, *options)
        url = c.nginx.url(name)
        c.same(url)
        if fmt in ("qcow2", "vdi", "vhdx"):
            run([os.environ["PLATTER"], "check", url])
    print(c.totals)


def containers_are_looked_into(c):
    run(["tar", "-cf", c.at("www/vm.ova"), "-C", c.at("www"), "disk.qcow2"])
    url = c.nginx.url("vm.ova")
    is_true("disk.qcow2" in run([os.environ["PLATTER"], "list", url])[1],
            "it lists nothing")
    c.same(url)


def chains_lie_beside_each_other(c):
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F",
         "qcow2", c.at("www/top.qcow2")])
    c.same(c.nginx.url("top.qcow2"))
    local = c.at("local.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         c.nginx.url("disk.qcow2"), "-F", "qcow2", local, str(SIZE)])
    c.same(local, allow=[c.nginx.url("")])
    status, _, err = run([os.environ["PLATTER"], "map", local], ok=None)
    is_true(status == 1 and "--allow URL" in err, err)


def overlays_lie_over_it(c):
    url = c.nginx.url("disk.qcow2")
    with Server(url, more=["--overlay", "temp"]) as s:
        run(["nbdcopy", s.uri(), c.at("out.raw")])
        run(["cmp", c.raw, c.at("out.raw")])
    path = c.at("vm.qcow2")
    for byte in (b"a", b"b"):
        with Server(url, more=["--overlay", path]) as s:
            h = Client(s.socket)
            h.go()
            is_equal(h.read(0, 4), (0, b"aaaa" if byte == b"b" else
                                    b"\1\1\1\2"), "what was written before")
            is_equal(h.write(0, byte * 4096), 0, "a write")
            is_equal(h.flush(), 0, "a flush")
    info = json.loads(run(["qemu-img", "info", "-U", "--output=json",
                           path])[1])
    is_equal(info["backing-filename"], url, "the overlay's base")


def what_was_read_is_kept(c):
    """Of every format; the next server asks for one byte, which says that it is
    the same, and so do other commands."""
    folder = c.at("kept")
    more = ["--cache-dir", folder]
    c.image("kept.qcow2", "qcow2", "-c")
    url = c.nginx.url("kept.qcow2")
    run(["cp", c.raw, c.at("www/kept.raw")])
    for name in ("kept.qcow2", "kept.raw"):
        before = len(c.nginx.asked())
        copy = [os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
                "-O", "raw", *more, c.nginx.url(name), c.at("out.raw")]
        run(copy)
        run(["cmp", c.raw, c.at("out.raw")])
        first = c.nginx.asked()[before:]
        size = os.path.getsize(c.at(f"www/{name}"))
        is_true(size <= sum(n for _, _, n in first) < size + 65536,
                f"{name}: bytes were fetched twice: {first}")
        before = len(c.nginx.asked())
        run(copy)
        run(["cmp", c.raw, c.at("out.raw")])
        is_equal([r for _, r, _ in c.nginx.asked()[before:]], ["bytes=0-0"],
                 f"what {name} was asked for again")
        c.same(c.nginx.url(name), *more)
        # The server's watcher looks at what it is, without the cache.
        is_true(all(r == "bytes=0-0" or n <= 131072 + 1024 for _, r, n in
                    c.nginx.asked()[before:]), f"{name} was fetched again")
    run([os.environ["PLATTER"], "check", *more, url])
    kept = kept_in(folder)
    is_equal({k.text.split(b"\0")[0].decode() for k in kept},
             {url, c.nginx.url("kept.raw")}, "what is kept")
    with open(c.raw, "rb") as f:
        data = f.read()
    for k in kept:
        if k.text.startswith(c.nginx.url("kept.raw").encode()):
            is_equal(k.differences(data), [], "other bytes")
            is_equal(len(k.chunks), SIZE // CHUNK, "chunks of the raw one")
    status = os.stat(folder)
    is_equal(status.st_mode & 0o777, 0o700, "the folder's mode")
    os.chmod(folder, 0o777)
    c.refused(url, "others may write into it", *more)


def nbdkit_serves_it(c):
    plugin = os.environ["PLATTER_PLUGIN"]
    sock = c.at("nbdkit.sock")
    run(["nbdkit", "-U", "-", plugin, c.nginx.url("disk.qcow2"),
         "--run", f"nbdcopy $uri {c.at('out.raw')}"])
    run(["cmp", c.raw, c.at("out.raw")])
    # It goes to the background after it has opened the image.
    run(["nbdkit", "-U", sock, "-P", c.at("pid"), plugin,
         c.nginx.url("disk.qcow2")])
    try:
        compare(f"nbd+unix:///?socket={sock}", c.raw, c.totals)
    finally:
        with open(c.at("pid")) as f:
            os.kill(int(f.read()), 15)


def zeroes(image):
    """[[start, end]] of what reads as zeroes, as platter map tells it."""
    found = []
    for e in json.loads(run([os.environ["PLATTER"], "map", "--json",
                             image])[1]):
        if e["zero"] and found and found[-1][1] == e["start"]:
            found[-1][1] += e["length"]
        elif e["zero"]:
            found.append([e["start"], e["start"] + e["length"]])
    return found


def exports_of_other_servers_are_images(c):
    """Of qemu-nbd and of platter, with their holes; as a base; and
    through the death of their server."""
    sock = c.at("qemu.sock")
    uri = f"nbd+unix:///?socket={sock}"

    def start(image=c.raw):
        p = subprocess.Popen(dies_with_us(
            ["qemu-nbd", "-t", "-r", "-e", "8", "-f", "raw", "-k", sock,
             image]))
        while not os.path.exists(sock):
            time.sleep(0.01)
        return p

    p = start()
    try:
        c.same(uri)
        with Server(c.at("www/disk.qcow2")) as inner:
            c.same(inner.uri())
            is_equal(zeroes(inner.uri()), zeroes(c.at("www/disk.qcow2")),
                     "the holes")
        with Server(uri, more=["--overlay", "temp"]) as s:
            run(["nbdcopy", s.uri(), c.at("out.raw")])
            run(["cmp", c.raw, c.at("out.raw")])
        top = c.at("over.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", uri, "-F",
             "raw", top, str(SIZE)])
        c.same(top, allow=[uri])
        c.refused(top, "is not permitted")
        # What the server serves is raw, unless somebody says else.
        p.terminate()
        p.wait()
        p = start(c.at("www/disk.qcow2"))
        c.same(uri, fmt="qcow2")
        with Server(uri) as s:
            is_equal(int(run(["nbdinfo", "--size", s.uri()])[1]),
                     os.path.getsize(c.at("www/disk.qcow2")), "the size")
        with Server(uri, fmt="qcow2") as s:
            h = Client(s.socket)
            h.go()
            is_equal(h.read(0, 4)[0], 0, "before")
            p.kill()
            p.wait()
            os.unlink(sock)
            p = start(c.at("www/disk.qcow2"))
            with open(c.raw, "rb") as f:
                f.seek(4 * MIB)
                is_equal(h.read(4 * MIB, 65536), (0, f.read(65536)), "after")
    finally:
        p.kill()
        p.wait()


def tls_is_asked_who_it_is(c):
    url = c.nginx.url("disk.qcow2", 1, "https")
    c.refused(url, "certificate")
    c.same(url, "--ca", c.at("tls.pem"))
    c.refused(c.nginx.url("down/disk.qcow2", 1, "https"),
              "it is redirected from https to http", "--ca", c.at("tls.pem"))


def what_nginx_does_to_ranges(c):
    c.same(c.nginx.url("moved/disk.qcow2"))
    c.same(c.nginx.url("sliced/disk.qcow2"))
    c.refused(c.nginx.url("whole/disk.qcow2"), "answers 200, all of it")
    c.refused(c.nginx.url("none.qcow2"), "answers 404, there is no such file")
    c.refused(c.nginx.url("private/disk.qcow2"), "answers 401")
    with open(c.at("credentials"), "w") as f:
        f.write(f"{c.nginx.url('private')} basic me:it\n")
    c.same(c.nginx.url("private/disk.qcow2"), "--credentials",
           c.at("credentials"))


def bursts_are_spread(c):
    """503 for all above 20 requests a second."""
    before = len(c.nginx.asked())
    run(["cp", c.raw, c.at("www/flat.raw")])
    out = c.at("out.raw")
    run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite", "-f",
         "raw", "-O", "raw", c.nginx.url("few/flat.raw"), out])
    run(["cmp", c.raw, out])
    states = [s for s, _, _ in c.nginx.asked()[before:]]
    is_true(503 in states, "nothing was refused")


def a_proxy_is_gone_through(c):
    """By parameter, by the environment, and not at all."""
    hole = "http://127.0.0.1:9"
    url = c.nginx.url("disk.qcow2")
    run([os.environ["PLATTER"], "info", url])
    c.refused(url, "Couldn't connect", "--proxy", hole)
    env = {**os.environ, "http_proxy": hole}
    is_equal(run([os.environ["PLATTER"], "info", "--remote-timeout", "1", url],
                 ok=None, env=env)[0], 1, "with the environment's")
    run([os.environ["PLATTER"], "info", "--proxy", "none", url], env=env)
    # nginx answers whoever asks it as a proxy.
    run([os.environ["PLATTER"], "info", "--proxy", c.nginx.url(""),
         "http://nowhere.invalid/disk.qcow2"])


def an_object_that_is_replaced_is_no_more(c):
    """Never bytes of the new one, whatever its size."""
    path = c.at("www/live.raw")
    for grow in (0, 4096):
        with open(path, "wb") as f:
            f.write(b"a" * SIZE)
        with Server(c.nginx.url("live.raw"), fmt="raw") as s:
            h = Client(s.socket)
            h.go()
            is_equal(h.read(4 * MIB, 4), (0, b"aaaa"), "before")
            time.sleep(1.1)  # nginx's ETag has seconds
            with open(c.at("new"), "wb") as f:
                f.write(b"b" * (SIZE + grow))
            os.rename(c.at("new"), path)
            is_equal(h.read(4 * MIB, 4), (5, None), "after")
            is_equal(h.read(6 * MIB, 4), (5, None), "after")
            said = s.messages()
            while "it has changed since it was opened" not in said:
                time.sleep(0.02)
                said = s.messages()
        with Server(c.nginx.url("live.raw"), fmt="raw") as s:
            h = Client(s.socket)
            h.go()
            is_equal(h.read(4 * MIB, 4), (0, b"bbbb"), "opened anew")


def main():
    environment("PLATTER", "PLATTER_PLUGIN", "NBD_COMPARE")
    need_programs("nginx", "qemu-img", "nbdcopy", "nbdinfo", "qemu-nbd",
                  "nbdkit", "openssl", "tar")
    context = []

    def setup(folder):
        context.append(Context(folder))
        return context[0]

    try:
        run_checks(setup, [
            every_format_is_as_its_file_is,
            containers_are_looked_into,
            chains_lie_beside_each_other,
            overlays_lie_over_it,
            what_was_read_is_kept,
            nbdkit_serves_it,
            exports_of_other_servers_are_images,
            tls_is_asked_who_it_is,
            what_nginx_does_to_ranges,
            bursts_are_spread,
            a_proxy_is_gone_through,
            an_object_that_is_replaced_is_no_more,
        ])
    finally:
        for c in context:
            c.nginx.__exit__()


if __name__ == "__main__":
    main()

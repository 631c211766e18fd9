#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images that come from another region's image service, in the name of who asks:
a real Keystone, another platter, Debian's Glance, and a service that lies."""

import hashlib
import http.server
import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from keystone import PASSWORD, Keystone, free_port  # noqa: E402
from real_glance import GLANCE, RealGlance  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
DISK_BYTES = 1 << 20
WAIT_SEC = 60
SLOW_SEC = 120
ALL = "glance-direct,web-download,copy-image,glance-download"
NOWHERE = "36d4b546-64a2-4bb9-bdd0-ba676aa48f2c"
OWN = {"hw_cpu_cores": "1", "os_distro": "windows"}

# What the lying service does about an image, and what its task says then.
LIES = {
    "longer": "more comes than the",
    "shorter": "Supplied size",
    "sha512": "Supplied os_hash_value",
    "md5": "Supplied checksum",
    "format": "does not match disk_format",
    "unknown-format": "floppy",
    "deep": "nested over 32 deep",
    "endless": "description is over 1048576 bytes",
    "page": "no JSON object",
    "sizeless": "Size attribute of remote image",
    "number": "5 is not",
    "many": "number of allowed image properties",
    "refusal": "the server answers 404",
    "away": "the server redirects",
    "data-away": "the server redirects",
    "queued": "Source image status should be active instead of queued",
}
MODES = ["true", "slow", *LIES]


def id_of(mode):
    return f"{MODES.index(mode):08x}-0000-4000-8000-000000000000"


class Liar:
    """An image service of one image for each of MODES. .caught: what was asked
    where it has redirected to."""

    def __init__(self, data):
        liar = self
        self.data, self.slow, self.caught = data, 0, []
        self.go = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                parts = self.path.split("/")
                if parts[1] != "v2":
                    liar.caught.append((self.path, dict(self.headers)))
                    return self._send(404, b"")
                mode = MODES[int(parts[3][:8], 16)]
                try:
                    if len(parts) > 4:
                        self._data(mode)
                    else:
                        self._describe(mode)
                except OSError:
                    pass  # who asked has heard enough

            def _send(self, status, body, **headers):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _endless(self, status, start):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(start)
                while True:
                    self.wfile.write(b"x" * 65536)

            def _describe(self, mode):
                if mode == "away":
                    self._send(302, b"", Location=liar.url + "/caught")
                elif mode == "refusal":
                    self._endless(404, b"")
                elif mode == "endless":
                    self._endless(200, b'{"x": "')
                elif mode == "deep":
                    self._send(200, b"[" * 100000 + b"]" * 100000)
                elif mode == "page":
                    self._send(200, b"<html>")
                else:
                    self._send(200, json.dumps(liar.told(mode)).encode())

            def _data(self, mode):
                data = liar.data
                if mode == "data-away":
                    self._send(302, b"", Location=liar.url + "/caught")
                elif mode == "longer":
                    self._endless(200, data)
                elif mode == "shorter":
                    self._send(200, data[:-512])
                elif mode == "slow":
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:1])
                    self.wfile.flush()
                    liar.slow += 1
                    liar.go.wait(SLOW_SEC)
                    self.wfile.write(data[1:])
                else:
                    self._send(200, data)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever,
                                       args=(0.05,))
        self.thread.start()

    def told(self, mode):
        """Its description of the image."""
        sha512 = hashlib.sha512(self.data).hexdigest()
        md5 = hashlib.md5(self.data).hexdigest()
        told = {"id": id_of(mode), "status": "active", "disk_format": "qcow2",
                "container_format": "bare", "size": len(self.data),
                "checksum": md5, "os_hash_algo": "sha512",
                "os_hash_value": sha512, "hw_disk_bus": "scsi",
                "os_glance_x": "y", "owner": "x", "speed": "88mph"}
        told.update({
            "sha512": {"os_hash_value": sha512[::-1]},
            "md5": {"checksum": md5[::-1]},
            "format": {"disk_format": "vmdk"},
            "unknown-format": {"disk_format": "floppy"},
            "sizeless": {"size": None},
            "number": {"hw_cpu_cores": 5},
            "many": {f"hw_{i}": "x" for i in range(200)},
            "queued": {"status": "queued"},
        }.get(mode, {}))
        return told

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Context:
    def __init__(self, folder, keystone):
        self.folder, self.k = folder, keystone
        with open(self.path("disk.raw"), "wb") as f:
            f.write(random.Random(3).randbytes(DISK_BYTES))
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2",
             self.path("disk.raw"), self.path("disk.qcow2")])
        with open(self.path("disk.qcow2"), "rb") as f:
            self.qcow2 = f.read()
        self.token, self.project = keystone.add_user("one")
        self.other = keystone.add_user("two")[0]
        self.far_port = free_port()
        keystone.add_image_service(
            "image", f"http://127.0.0.1:{self.far_port}/v2/", "Far")

    def path(self, name):
        return os.path.join(self.folder, name)

    def near(self, *more, **kw):
        return Glance(*self.k.parameters(), *more, **kw)

    def far(self, *more):
        return Glance(f"glance=127.0.0.1:{self.far_port}",
                      *self.k.parameters(), *more, tcp=self.far_port)

    def create(self, g, token=None, **fields):
        a = g.request("POST", "/v2/images", {
            "disk_format": "iso", "container_format": "ovf", **fields},
            token=token or self.token)
        is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
        is_equal(a.headers["openstack-image-import-methods"], ALL,
                 "the methods")
        return a.json["id"]

    def upload(self, g, token=None, **fields):
        """A qcow2 image of @g's."""
        i = self.create(g, token, disk_format="qcow2",
                        container_format="bare", **fields)
        run_row(g, Row("PUT", f"/v2/images/{i}/file", 204, None, self.qcow2,
                       OCTETS, token=token or self.token))
        return i

    def start(self, g, image, region, of, status=202, more=None, **method):
        a = g.request("POST", f"/v2/images/{image}/import", {
            "method": {"name": "glance-download", "glance_region": region,
                       "glance_image_id": of, **method}, **(more or {})},
            token=self.token)
        is_equal(a.status, status, f"the status of an import ({a.text[:300]})")
        return a

    def show(self, g, image):
        return g.request("GET", f"/v2/images/{image}", token=self.token).json

    def task(self, g, image, token=None):
        """The last of @image, ended."""
        end = time.monotonic() + WAIT_SEC
        while time.monotonic() < end:
            t = g.request("GET", f"/v2/images/{image}/tasks",
                          token=token or self.token).json["tasks"][-1]
            if t["status"] in ("success", "failure"):
                return t
            time.sleep(0.05)
        raise Failure(f"it takes too long: {t}")

    def fails(self, g, image, says):
        """Its task, in one line, and the image is what it was before."""
        t = self.task(g, image)
        is_equal(t["status"], "failure", f"the end of {t}")
        is_true(says in t["message"] and "\n" not in t["message"],
                f"{says!r} is not said: {t['message']!r}")
        is_true(self.token not in json.dumps(t), "the task has the token")
        got = self.show(g, image)
        is_equal((got["status"], got["disk_format"], got["container_format"],
                  got["size"], got.get("os_glance_import_task"),
                  {n: got.get(n) for n in OWN}, got.get("hw_disk_bus")),
                 ("queued", "iso", "ovf", None, None, OWN, None),
                 f"the image after {t['message']!r}")


def has_no_trace_of(token, g):
    """What @g has written."""
    paths = [os.path.join(d, f) for top in (g.store, g.folder)
             for d, _, files in os.walk(top) for f in files]
    is_true(any(p.endswith(".sqlite") or "index" in p for p in paths),
            f"no index is among {paths}")
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb") as f:
                is_true(token.encode() not in f.read(), f"{path} has a token")


def left_behind(g):
    return [f for d in ("incoming", "staging")
            for f in os.listdir(os.path.join(g.store, d))]


def wait_until(what, message):
    end = time.monotonic() + WAIT_SEC
    while not what():
        is_true(time.monotonic() < end, message)
        time.sleep(0.02)


def an_image_comes_from_another_platter(c):
    with c.far() as far, c.near(f"store=second={c.path('second')}") as near:
        of = c.upload(far, visibility="private", speed="88mph",
                      hw_cpu_cores="5", os_distro="rhel",
                      **{"trait:STORAGE_DISK_SSD": "required"})
        for more, stores in ((None, None), ({"all_stores": True}, 2)):
            i = c.create(near, **OWN, mine="x")
            c.start(near, i, "fAR", of, more=more)
            t = c.task(near, i)
            is_equal(t["status"], "success", f"the end of {t}")
            is_equal(t["input"]["import_req"]["method"], {
                "name": "glance-download", "glance_region": "fAR",
                "glance_image_id": of, "glance_service_interface": "public"},
                "the task's method")
            got = c.show(near, i)
            is_equal([got.get(n) for n in (
                "status", "disk_format", "container_format", "virtual_size",
                "checksum", "os_hash_value", "hw_cpu_cores", "os_distro",
                "trait:STORAGE_DISK_SSD", "speed", "mine",
                "os_glance_failed_import", "visibility")],
                ["active", "qcow2", "bare", DISK_BYTES,
                 hashlib.md5(c.qcow2).hexdigest(),
                 hashlib.sha512(c.qcow2).hexdigest(), "5", "rhel", "required",
                 None, "x", "", "shared"], "the copy")
            is_equal(len(got["stores"].split(",")), stores or 1, "its stores")
            a = near.request("GET", f"/v2/images/{i}/file", token=c.token)
            is_true(a.body == c.qcow2, "other data")
        # One without data is one, too.
        empty = c.create(far, disk_format="raw")
        run_row(far, Row("PUT", f"/v2/images/{empty}/file", 204, None, b"",
                         OCTETS, token=c.token))
        i = c.create(near)
        c.start(near, i, "Far", empty)
        is_equal(c.task(near, i)["status"], "success", "the end of an empty")
        is_equal(c.show(near, i)["size"], 0, "its size")
        has_no_trace_of(c.token, near)
        is_equal(left_behind(near), [], "what is left behind")


def what_cannot_be_is_refused_at_once(c):
    with c.near() as near:
        info = near.request("GET", "/v2/info/import", token=c.token).json
        is_equal(info["import-methods"]["value"], ALL.split(","), "methods")
        i = c.create(near)
        whole = {"name": "glance-download", "glance_region": "Far",
                 "glance_image_id": NOWHERE}
        for change, says in (
                ({"glance_region": None}, "'glance_region' needs to be set"),
                ({"glance_region": 5}, "'glance_region' needs to be set"),
                ({"glance_image_id": None},
                 "'glance_image_id' needs to be set"),
                ({"glance_image_id": "foo"},
                 "Remote image id does not look like a UUID: foo"),
                ({"glance_image_id": f"{NOWHERE}/../x"}, "look like a UUID"),
                ({"glance_service_interface": 5}, "glance_service_interface")):
            method = {k: v for k, v in {**whole, **change}.items()
                      if v is not None}
            run_row(near, Row("POST", f"/v2/images/{i}/import", 400, says,
                              {"method": method}, token=c.token))
        run_row(near, Row("POST", f"/v2/images/{i}/import", 404, None,
                          {"method": whole}, token=c.other))
        active = c.upload(near)
        c.start(near, active, "Far", NOWHERE, 409)
        run_row(near, Row("PUT", f"/v2/images/{i}/stage", 204, None, "x",
                          OCTETS, token=c.token))
        a = c.start(near, i, "Far", NOWHERE, 409)
        is_true("'queued' state" in a.text, a.text)
    with Glance() as g:
        i = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare"}).json["id"]
        run_row(g, Row("POST", f"/v2/images/{i}/import", 400,
                       "Unknown import method name", {"method": whole}))


def what_is_not_there_leaves_the_image_as_it_was(c):
    with c.far() as far, c.near() as near:
        queued = c.create(far)
        others = c.upload(far, c.other, visibility="private")
        for region, of, interface, says in (
                ("Far", NOWHERE, "public", "the server answers 404"),
                ("Far", others, "public", "the server answers 404"),
                ("Far", queued, "public", "instead of queued"),
                ("Nowhere", queued, "public", "public glance endpoint not "
                 "found for region Nowhere"),
                ("Far", queued, "internal", "internal glance endpoint not "
                 "found for region Far"),
                ("Far", queued, "not one", "not one glance endpoint not")):
            i = c.create(near, **OWN)
            c.start(near, i, region, of, glance_service_interface=interface)
            c.fails(near, i, says)
        is_equal(left_behind(near), [], "what is left behind")


def a_service_that_lies_is_found_out(c):
    with Liar(c.qcow2) as liar, c.near() as near:
        c.k.add_image_service("image", liar.url, "Lies", "internal")
        made = {}
        for mode in ("true", *LIES):
            made[mode] = c.create(near, **OWN)
            c.start(near, made[mode], "Lies", id_of(mode),
                    glance_service_interface="internal")
        is_equal(c.task(near, made["true"])["status"], "success", "the truth")
        got = c.show(near, made["true"])
        is_equal((got["hw_disk_bus"], got.get("os_glance_x"), got["owner"]),
                 ("scsi", None, c.project), "what is copied")
        for mode, says in LIES.items():
            c.fails(near, made[mode], says)
        is_equal(liar.caught, [], "who got what was redirected")
        is_equal(left_behind(near), [], "what is left behind")
        has_no_trace_of(c.token, near)


def the_properties_that_are_copied_can_be_said(c):
    with Liar(c.qcow2) as liar:
        c.k.add_image_service("image", liar.url, "Said")
        for said, speed in (("os_, speed ,,owner,id", "88mph"), ("os", None)):
            with c.near(f"import-properties={said}") as near:
                i = c.create(near, **OWN)
                c.start(near, i, "Said", id_of("true"))
                t = c.task(near, i)
                is_equal(t["status"], "success", f"the import: {t}")
                got = c.show(near, i)
                is_equal((got.get("speed"), got.get("hw_disk_bus"),
                          got.get("os_glance_x"), got["owner"], got["id"]),
                         (speed, None, None, c.project, i),
                         "what is copied")


def a_killed_server_has_no_token_any_more(c):
    store, g = c.path("killed"), None
    with Liar(c.qcow2) as liar:
        c.k.add_image_service("image", liar.url, "Slow")
        try:
            g = c.near(store=store)
            i = c.create(g, **OWN)
            c.start(g, i, "Slow", id_of("slow"))
            wait_until(lambda: liar.slow == 1, "it does not begin")
            is_equal((c.show(g, i)["status"], c.show(g, i)["disk_format"]),
                     ("importing", "iso"), "the image meanwhile")
            has_no_trace_of(c.token, g)
            g.kill()
            g.end()
            liar.go.set()
            g = c.near(store=store)
            c.fails(g, i, "keeps no tokens")
            is_equal(left_behind(g), [], "what is left behind")
            c.start(g, i, "Slow", id_of("slow"))
            is_equal(c.task(g, i)["status"], "success", "the next time")
        finally:
            if g:
                g.end()


def a_token_that_is_revoked_meanwhile_brings_nothing(c):
    """Four of one project are under way, the fifth waits."""
    token, project = c.k.add_user("three")
    with Liar(c.qcow2) as liar, c.near() as near:
        c.k.add_image_service("image", liar.url, "Later")
        made = []
        for n in range(5):
            made.append(c.create(near, token))
            run_row(near, Row("POST", f"/v2/images/{made[n]}/import", 202,
                              None, {"method": {
                                  "name": "glance-download",
                                  "glance_region": "Later",
                                  "glance_image_id": id_of("slow")}},
                              token=token))
        wait_until(lambda: liar.slow == 4, "they do not begin")
        c.k.request("DELETE", "/v3/auth/tokens", None, c.k.token,
                    {"X-Subject-Token": token})
        liar.go.set()
        again = c.k.log_in("three", PASSWORD, "three")[0]
        is_equal([c.task(near, i, again)["status"] for i in made[:4]],
                 ["success"] * 4, "those that were under way")
        t = c.task(near, made[4], again)
        is_true(t["status"] == "failure" and
                "not valid any more" in t["message"], f"the fifth: {t}")


# The glance command of Debian loses these options between two spellings.
CLIENT = """
import sys
import glanceclient
url, token, image, region, of = sys.argv[1:]
c = glanceclient.Client("2", endpoint=url, token=token)
c.images.image_import(image, "glance-download", remote_region=region,
                      remote_image_id=of, remote_service_interface="public")
"""


def glanceclient_asks_for_it(c):
    port = free_port()
    with c.far() as far, Glance(f"glance=127.0.0.1:{port}",
                                *c.k.parameters(), tcp=port) as near:
        i, of = c.create(near), c.upload(far)
        run(["/usr/bin/python3", "-c", CLIENT, f"http://127.0.0.1:{port}",
             c.token, i, "Far", of])
        t = c.task(near, i)
        is_equal(t["status"], "success", f"the end of {t}")


class Theirs:
    """Requests to Debian's Glance, as Glance.request() has them."""

    request = Glance.request

    def __init__(self, port):
        self.tcp = port


def glance_and_platter_take_from_each_other(c):
    port = free_port()
    with RealGlance(more=f"enabled_import_methods = [{ALL}]\n"
                    "[import_filtering_opts]\n"
                    f"allowed_ports = [{port}]\n"
                    "allowed_hosts = [127.0.0.1]\n"
                    "[glance_download_properties]\n"
                    "extra_properties = [os_distro,speed]",
                    keystone=c.k) as real, \
            Glance(f"glance=127.0.0.1:{port}", *c.k.parameters(),
                   "import-properties=os_distro,speed", tcp=port) as ours:
        c.k.add_image_service("image", real.url, "Theirs")
        c.k.add_image_service("image", f"http://127.0.0.1:{port}", "Ours")
        theirs = Theirs(real.port)
        for far, near, region in ((theirs, ours, "Theirs"),
                                  (ours, theirs, "Ours")):
            of = c.upload(far, hw_disk_bus="scsi", os_distro="debian",
                          speed="88mph")
            i = c.create(near, **OWN)
            c.start(near, i, region, of)
            t = c.task(near, i)
            is_equal(t["status"], "success",
                     f"from {region}: {t} {real.messages()}")
            got, want = c.show(near, i), c.show(far, of)
            for name in ("status", "disk_format", "container_format", "size",
                         "checksum", "os_hash_value", "speed",
                         "os_distro"):
                is_equal(got[name], want[name], f"{name} from {region}")
            is_equal(got.get("hw_disk_bus"), None, f"others from {region}")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img", "keystone-manage",
                  "keystone-wsgi-public")
    checks = [
        an_image_comes_from_another_platter,
        what_cannot_be_is_refused_at_once,
        what_is_not_there_leaves_the_image_as_it_was,
        a_service_that_lies_is_found_out,
        the_properties_that_are_copied_can_be_said,
        a_killed_server_has_no_token_any_more,
        a_token_that_is_revoked_meanwhile_brings_nothing,
        glanceclient_asks_for_it,
    ]
    if os.path.exists(GLANCE):
        checks.append(glance_and_platter_take_from_each_other)
    else:
        print("no Glance is installed (python3-glance): it is not asked")
    with Keystone(f"http://127.0.0.1:{free_port()}", cache=True) as keystone:
        run_checks(lambda folder: Context(folder, keystone), checks)

# SPDX-License-Identifier: BSD-3-Clause
"""A real Swift in a folder of the test's own: one device, one copy, S3's dialect
beside its own, the user test:tester of tempauth. Loopback alone."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from server import Failure, dies_with_us, run, skip

START_SEC = 120
USER, KEY = "test:tester", "testing"
ACCOUNT = "AUTH_test"
SERVERS = ("account", "container", "object")

# swift-ring-builder takes a second for each of its steps.
RINGS = """
import os, sys
from swift.common.ring import RingBuilder
for name, port in (a.split("=") for a in sys.argv[2:]):
    b = RingBuilder(4, 1, 1)
    b.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port),
                   device="d1", weight=1.0))
    b.rebalance()
    b.get_ring().save(os.path.join(sys.argv[1], name + ".ring.gz"))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def keeps_attributes(folder):
    path = os.path.join(folder, "x")
    with open(path, "w"):
        pass
    try:
        os.setxattr(path, "user.swift.x", b"1")
        return True
    except OSError:
        return False
    finally:
        os.unlink(path)


class Swift:
    """As a context: .url, .storage (of the account), token(), put()."""

    def __init__(self):
        for name in ("swift-proxy-server", "swift-object-server", "memcached"):
            if not shutil.which(name):
                skip(f"{name} is not installed")
        self.folder = tempfile.mkdtemp(prefix="platter-swift-", dir="/var/tmp")
        self.processes = []
        if not keeps_attributes(self.folder):
            shutil.rmtree(self.folder)
            skip("/var/tmp keeps no extended attributes")
        self.ports = {n: free_port() for n in SERVERS + ("proxy", "cache")}
        self.url = f"http://127.0.0.1:{self.ports['proxy']}"
        self.storage = f"{self.url}/v1/{ACCOUNT}"
        try:
            self._prepare()
            self._start()
        except BaseException:
            self.end()
            raise

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def _write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def _prepare(self):
        os.makedirs(self.path("devices", "d1"))
        self._write("swift.conf", "[swift-hash]\nswift_hash_path_prefix = a\n"
                    "swift_hash_path_suffix = b\n")
        run(["/usr/bin/python3", "-c", RINGS, self.folder] +
            [f"{name}={self.ports[name]}" for name in SERVERS])
        for name in SERVERS:
            self._write(f"{name}-server.conf", f"""[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {self.ports[name]}
swift_dir = {self.folder}
devices = {self.path('devices')}
mount_check = false
workers = 0
user = {os.environ.get('USER') or 'root'}
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
""")
        self._write("proxy-server.conf", f"""[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {self.ports['proxy']}
swift_dir = {self.folder}
workers = 0
user = {os.environ.get('USER') or 'root'}
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{self.ports['cache']}
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {KEY} .admin
""")

    def _spawn(self, name, argv):
        log = open(self.path(f"{name}.log"), "w")
        self.processes.append(subprocess.Popen(
            dies_with_us(argv), stdin=subprocess.DEVNULL, stdout=log,
            stderr=log))
        log.close()

    def _start(self):
        self._spawn("memcached", ["memcached", "-l", "127.0.0.1", "-p",
                                  self.ports["cache"], "-u", "nobody"])
        for name in SERVERS + ("proxy",):
            self._spawn(name, [f"swift-{name}-server",
                               self.path(f"{name}-server.conf")])
        end = time.monotonic() + START_SEC
        while True:
            try:
                self.put("ready", None)
                self.put("ready/x", b"x")
                return
            except (OSError, urllib.error.HTTPError) as e:
                if time.monotonic() > end:
                    raise Failure(f"Swift: {e}: {self.log()}") from None
                time.sleep(0.2)

    def log(self):
        text = ""
        for name in SERVERS + ("proxy",):
            with open(self.path(f"{name}.log")) as f:
                text += f.read()[-2000:]
        return text

    def token(self):
        """A new one, where it has none for the user."""
        r = urllib.request.Request(f"{self.url}/auth/v1.0", headers={
            "X-Auth-User": USER, "X-Auth-Key": KEY})
        with urllib.request.urlopen(r, timeout=30) as answer:
            return answer.headers["X-Auth-Token"]

    def put(self, name, data):
        """An object "CONTAINER/NAME", or (@data None) a container."""
        r = urllib.request.Request(f"{self.storage}/{name}", data or b"",
                                   method="PUT", headers={
                                       "X-Auth-Token": self.token()})
        urllib.request.urlopen(r, timeout=60).close()

    def forget_tokens(self):
        """All that were given are none any more."""
        with socket.create_connection(("127.0.0.1",
                                       self.ports["cache"])) as s:
            s.sendall(b"flush_all\r\n")
            s.recv(64)

    def end(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.end()
        return False

# SPDX-License-Identifier: BSD-3-Clause
"""A real Keystone in a folder of the test's own: SQLite, fernet tokens, the
admin of project admin, and a service "glance" whose endpoint is given."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from contextlib import closing

from server import Failure, dies_with_us, run

START_SEC = 180
PASSWORD = "secret"


EXPIRED = """
import datetime, sys, uuid
import keystone.conf
from keystone.common import utils
from keystone.token import token_formatters as t
keystone.conf.configure()
keystone.conf.CONF([], default_config_files=[sys.argv[1]])
then = datetime.datetime.utcnow() - datetime.timedelta(seconds=60)
print(t.TokenFormatter().create_token(
    sys.argv[2], utils.isotime(then, subsecond=True),
    ["aaaaaaaaaaaaaaaaaaaaaa"], t.ProjectScopedPayload, ["password"],
    project_id=sys.argv[3]))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Keystone:
    """As a context: .url, .password_file, tokens. @cache: it remembers, as most
    do; to be asked about a token takes most of a second else."""

    def __init__(self, image_url, cache=False):
        self.cache = cache
        self.folder = tempfile.mkdtemp(prefix="platter-keystone-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.password_file = self.path("password")
        with open(self.password_file, "w") as f:
            f.write(PASSWORD + "\n")
        try:
            self._prepare()
            self._start()
            self.add_image_service("image", image_url)
        except BaseException:
            self.end()
            raise

    def path(self, name):
        return os.path.join(self.folder, name)

    def _prepare(self):
        conf = self.path("keystone.conf")
        for name in ("fernet", "credential"):
            os.mkdir(self.path(name), 0o700)
        with open(conf, "w") as f:
            f.write(f"""[DEFAULT]
log_file = {self.path('log')}
[database]
connection = sqlite:///{self.path('db')}
[fernet_tokens]
key_repository = {self.path('fernet')}
[credential]
key_repository = {self.path('credential')}
[token]
provider = fernet
[cache]
enabled = {'true' if self.cache else 'false'}
backend = oslo_cache.dict
[identity]
password_hash_rounds = 4
""")
        who = ["--keystone-user", "root", "--keystone-group", "root"] \
            if os.getuid() == 0 else []
        manage = ["keystone-manage", "--config-file", conf]
        run([*manage, "db_sync"], timeout=180)
        # Keystone may read on one connection while it commits on another,
        # which must wait for ever where there is no WAL.
        with closing(sqlite3.connect(self.path("db"))) as db:
            db.execute("PRAGMA journal_mode=WAL")
        run([*manage, "fernet_setup", *who])
        run([*manage, "credential_setup", *who])
        run([*manage, "bootstrap", "--bootstrap-password", PASSWORD,
             "--bootstrap-username", "admin",
             "--bootstrap-project-name", "admin", "--bootstrap-role-name",
             "admin", "--bootstrap-service-name", "keystone",
             "--bootstrap-region-id", "RegionOne",
             "--bootstrap-public-url", self.url + "/v3",
             "--bootstrap-internal-url", self.url + "/v3",
             "--bootstrap-admin-url", self.url + "/v3"])
        self.conf = conf

    def _start(self):
        env = {**os.environ, "OS_KEYSTONE_CONFIG_DIR": self.folder,
               "OS_KEYSTONE_CONFIG_FILES": "keystone.conf"}
        self.out = open(self.path("out"), "w")
        self.process = subprocess.Popen(
            dies_with_us(["/usr/bin/python3", "/usr/bin/keystone-wsgi-public",
                          "--host", "127.0.0.1", "--port", str(self.port)]),
            env=env, stdin=subprocess.DEVNULL, stdout=self.out,
            stderr=self.out)
        deadline = time.monotonic() + START_SEC
        while True:
            try:
                self.token = self.log_in("admin", PASSWORD, "admin")[0]
                return
            except OSError:
                if self.process.poll() is not None or \
                        time.monotonic() > deadline:
                    with open(self.path("out")) as f:
                        raise Failure("Keystone does not start: " +
                                      f.read()[-2000:]) from None
                time.sleep(0.2)

    def request(self, method, path, body=None, token=None, headers=None):
        """(JSON, headers)"""
        headers = {"Content-Type": "application/json", **(headers or {})}
        if token:
            headers["X-Auth-Token"] = token
        r = urllib.request.Request(
            self.url + path, method=method, headers=headers,
            data=json.dumps(body).encode() if body is not None else None)
        with urllib.request.urlopen(r, timeout=30) as a:
            text = a.read()
            return (json.loads(text) if text else None), a.headers

    def log_in(self, user, password, project):
        """(token, its project's id)"""
        body, headers = self.request("POST", "/v3/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": {"id": "default"},
                "password": password}}},
            "scope": {"project": {"name": project,
                                  "domain": {"id": "default"}}}}})
        return (headers["X-Subject-Token"], body["token"]["project"]["id"])

    def add_image_service(self, kind, url, region="RegionOne",
                          interface="public"):
        service = self.request("POST", "/v3/services", {"service": {
            "name": "glance", "type": kind}}, self.token)[0]["service"]
        self.request("POST", "/v3/endpoints", {"endpoint": {
            "service_id": service["id"], "interface": interface, "url": url,
            "region": region}}, self.token)

    def add_role(self, name):
        self.request("POST", "/v3/roles", {"role": {"name": name}}, self.token)

    def expired(self, token):
        """One of the same user and project as @token, as Keystone itself would
        have made it; its time was over a minute ago."""
        of = self.request("GET", "/v3/auth/tokens?nocatalog", None, self.token,
                          {"X-Subject-Token": token})[0]["token"]
        return run(["/usr/bin/python3", "-c", EXPIRED, self.conf,
                    of["user"]["id"], of["project"]["id"]])[1].strip()

    def add_user(self, name, roles=("member",), project=None):
        """A user in a project of the same name, or one that there is, by its
        (name, id); (token, project's id)."""
        where = project[0] if project else name
        project = project[1] if project else self.request(
            "POST", "/v3/projects", {"project": {"name": name}},
            self.token)[0]["project"]["id"]
        user = self.request("POST", "/v3/users", {"user": {
            "name": name, "password": PASSWORD,
            "default_project_id": project}}, self.token)[0]["user"]["id"]
        known = {r["name"]: r["id"] for r in
                 self.request("GET", "/v3/roles", None,
                              self.token)[0]["roles"]}
        for role in roles:
            self.request("PUT", f"/v3/projects/{project}/users/{user}/roles/"
                         + known[role], None, self.token)
        return self.log_in(name, PASSWORD, where)

    def parameters(self, url=None):
        """As platter's plugin takes them; @url: of a proxy."""
        return [f"auth=keystone:{url or self.url}/v3", "keystone-user=admin",
                "keystone-project=admin",
                f"keystone-password={self.password_file}"]

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        p = getattr(self, "process", None)
        if p and p.poll() is None:
            self.go_on()
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if p:
            self.out.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.end()

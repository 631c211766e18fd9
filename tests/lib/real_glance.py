# SPDX-License-Identifier: BSD-3-Clause
"""OpenStack's own Glance in a folder of the test's own: SQLite, stores of files, and
tokens "USER:PROJECT:ROLE", which are believed, or those of a Keystone."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

from keystone import PASSWORD, free_port
from server import Failure, STOP_SEC, dies_with_us, run

START_SEC = 120
# What an operator has from the package glance-common.
SCHEMA = "/usr/share/glance-common/schema-image.json"
GLANCE = "/usr/lib/python3/dist-packages/glance/cmd/api.py"

PASTE = """
[pipeline:glance-api-tokens]
pipeline = cors healthcheck http_proxy_to_wsgi versionnegotiation believe context rootapp
[pipeline:glance-api-keystone]
pipeline = healthcheck versionnegotiation authtoken context rootapp
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:healthcheck]
paste.filter_factory = oslo_middleware:Healthcheck.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:believe]
paste.filter_factory = believe:factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:cors]
paste.filter_factory = oslo_middleware.cors:filter_factory
oslo_config_project = glance
oslo_config_program = glance-api
[filter:http_proxy_to_wsgi]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory
"""

AUTHTOKEN = """
[keystone_authtoken]
www_authenticate_uri = {url}
auth_url = {url}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = admin
username = admin
password = {password}
"""

# What keystonemiddleware would say. (Not those of Glance's own tests: they bring
# all that tests need, and a log of everything.)
BELIEVE = """
def factory(conf, **local):
    def believing(app):
        def ask(environ, start):
            who = environ.get("HTTP_X_AUTH_TOKEN", "").split(":")
            if len(who) == 3:
                environ["HTTP_X_IDENTITY_STATUS"] = "Confirmed"
                environ["HTTP_X_USER_ID"] = who[0]
                environ["HTTP_X_PROJECT_ID"] = who[1]
                environ["HTTP_X_TENANT_ID"] = who[1]
                environ["HTTP_X_ROLES"] = who[2]
            return app(environ, start)
        return ask
    return believing
"""

# Its migrations, one by one, take as long as all the rest: the tables at once are
# the same, but for what they seed.
TABLES = """
import datetime, sys
import sqlalchemy
from glance.db.sqlalchemy import models, models_metadef
engine = sqlalchemy.create_engine("sqlite:///" + sys.argv[1])
models.BASE.metadata.create_all(engine)
models_metadef.BASE_DICT.metadata.create_all(engine)
now = datetime.datetime.utcnow()
with engine.begin() as db:
    db.exec_driver_sql("PRAGMA journal_mode=WAL")
    for name in sys.argv[2:]:
        db.execute(models_metadef.MetadefResourceType.__table__.insert().values(
            name=name, protected=True, created_at=now, updated_at=now))
"""


class RealGlance:
    """As a context: .port, .url. @stores: names; the first is the default."""

    def __init__(self, stores=("file",), more="", resource_types=(),
                 keystone=None):
        self.folder = tempfile.mkdtemp(prefix="platter-real-glance-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        try:
            self._prepare(stores, more, resource_types, keystone)
            self._start()
        except BaseException:
            self.end()
            raise

    def path(self, name):
        return os.path.join(self.folder, name)

    def _prepare(self, stores, more, resource_types, keystone):
        for name, text in (("paste.ini", PASTE), ("believe.py", BELIEVE)):
            with open(self.path(name), "w") as f:
                f.write(text)
        if os.path.exists(SCHEMA):
            shutil.copy(SCHEMA, self.folder)
        several = len(stores) > 1
        backends = ", ".join(f"{s}:file" for s in stores)
        for name in (*stores, "staging", "tasks", "work", "locks"):
            os.mkdir(self.path(name))
        sections = "".join(
            f"[{s}]\nfilesystem_store_datadir = {self.path(s)}\n"
            for s in stores) if several else ""
        if several:
            sections += (f"[os_glance_staging_store]\nfilesystem_store_datadir"
                         f" = {self.path('staging')}\n"
                         f"[os_glance_tasks_store]\nfilesystem_store_datadir"
                         f" = {self.path('tasks')}\n")
        if keystone:
            sections += AUTHTOKEN.format(url=keystone.url, password=PASSWORD)
        stored = f"default_backend = {stores[0]}" if several else \
            "stores = file,http\ndefault_store = file"
        with open(self.path("glance-api.conf"), "w") as f:
            f.write(f"""[DEFAULT]
bind_host = 127.0.0.1
bind_port = {self.port}
workers = 0
log_file = {self.path('log')}
node_staging_uri = file://{self.path('staging')}
{"enabled_backends = " + backends + ", http:http" if several else ""}
{more}
[database]
connection = sqlite:///{self.path('db')}
[glance_store]
{stored}
filesystem_store_datadir = {self.path(stores[0])}
[task]
work_dir = {self.path('work')}
[oslo_concurrency]
lock_path = {self.path('locks')}
[paste_deploy]
flavor = {"keystone" if keystone else "tokens"}
config_file = {self.path('paste.ini')}
{sections}
""")
        run(["/usr/bin/python3", "-c", TABLES, self.path("db"),
             *resource_types])

    def _start(self):
        self.out = open(self.path("out"), "w")
        self.process = subprocess.Popen(
            dies_with_us(["/usr/bin/python3", "-m", "glance.cmd.api",
                          "--config-file", self.path("glance-api.conf")]),
            env={**os.environ, "PYTHONPATH": self.folder},
            stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out,
            cwd=self.folder)
        deadline = time.monotonic() + START_SEC
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or \
                        time.monotonic() > deadline:
                    raise Failure("Glance does not start: " +
                                  self.messages()) from None
                time.sleep(0.1)

    def messages(self):
        said = ""
        for name in ("out", "log"):
            try:
                with open(self.path(name), errors="replace") as f:
                    said += f.read()
            except OSError:
                pass
        return said[-4000:]

    def end(self):
        p = self.process
        if p and p.poll() is None:
            p.terminate()
            try:
                p.wait(STOP_SEC)
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

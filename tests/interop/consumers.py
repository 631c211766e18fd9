#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Those who use an image service: Nova's, Cinder's and Ironic's own code, openstacksdk,
glanceclient as Horizon calls it, and gophercloud's requests; by the tokens of a real
Keystone, and their services' own. Each in a process that has its packages."""

import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import PASSWORD, Keystone, free_port  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
DISTRIBUTION = "/usr/lib/python3/dist-packages"
GOPHERCLOUD = ("/usr/share/gocode/src/github.com/gophercloud/gophercloud/"
               "openstack/imageservice/v2")
CONF = """[DEFAULT]
auth_strategy = keystone
glance_api_servers = {image}
glance_num_retries = 1
[glance]
api_servers = {image}
endpoint_override = {image}
num_retries = 1
auth_type = password
{who}
[service_user]
send_service_user_token = true
auth_type = password
{who}
"""
WHO = """auth_url = {keystone}/v3
username = {user}
password = {password}
project_name = {user}
user_domain_id = default
project_domain_id = default
"""


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = random.Random(3).randbytes(400000)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with open(self.path("disk"), "wb") as f:
            f.write(self.disk)
        self.keystone = Keystone(self.url, cache=True)
        try:
            self.keystone.add_role("service")
            self.keystone.add_user("nova", ("service", "member"))
            self.token, self.project = self.keystone.add_user("alice")
            self.other = self.keystone.add_user("bob")
            self.glance = Glance(
                f"glance=127.0.0.1:{self.port}", f"store=second={folder}/2",
                *self.keystone.parameters(), "show-locations=true",
                tcp=self.port)
        except BaseException:
            self.keystone.end()
            raise
        with open(self.path("conf"), "w") as f:
            f.write(CONF.format(image=self.url, who=WHO.format(
                keystone=self.keystone.url, user="nova", password=PASSWORD)))

    def path(self, name):
        return os.path.join(self.folder, name)

    def end(self):
        self.glance.end()
        self.keystone.end()

    def life(self, script):
        """Runs consumers/SCRIPT, which tells what it downloaded as "got"."""
        got = self.path("got")
        if os.path.exists(got):
            os.unlink(got)
        out = run(
            ["/usr/bin/python3", "-P", os.path.join(HERE, "consumers", script)],
            env={"PATH": os.environ["PATH"], "HOME": self.folder,
                 "FOLDER": self.folder, "IMAGE": self.url,
                 "KEYSTONE": self.keystone.url, "TOKEN": self.token,
                 "PROJECT": self.project, "PASSWORD": PASSWORD,
                 "OTHER": self.other[1], "OTHER_TOKEN": self.other[0]})[1]
        is_true("whole" in out, f"{script}: {out}")
        with open(got, "rb") as f:
            is_true(f.read() == self.disk, f"{script}: other data")
        left = self.glance.request("GET", "/v2/images",
                                   token=self.token).json["images"]
        is_equal([i["name"] for i in left], [], "what is left")


def has(*modules):
    for m in modules:
        if not os.path.isdir(os.path.join(DISTRIBUTION, m)):
            print(f"SKIP: no {m}")
            return False
    return True


def nova_lives_with_it(c):
    if has("nova"):
        c.life("nova-life.py")


def cinder_lives_with_it(c):
    if has("cinder"):
        c.life("cinder-life.py")


def ironic_lives_with_it(c):
    if has("ironic"):
        c.life("ironic-life.py")


def openstacksdk_lives_with_it(c):
    if has("openstack"):
        c.life("sdk-life.py")


def horizons_calls_are_answered(c):
    """As openstack_dashboard.api.glance makes them, with glanceclient."""
    c.life("horizon-life.py")


# Function of gophercloud: its file, the request, its header and body, what it takes.
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
GO = {"Accept": "application/json", "User-Agent": "gophercloud/2.0.0"}


def gophercloud_requests(image, other):
    """In the order of a life. (method, path, body, headers, statuses)"""
    i = f"/v2/images/{image}"
    yield "POST", "/v2/images", {
        "id": image, "name": "go", "container_format": "bare",
        "disk_format": "raw", "min_disk": 0, "protected": False,
        "tags": ["foo", "bar"], "architecture": "x86_64"}, {}, (201,)
    yield "GET", i, None, {}, (200, 203)
    yield "GET", "/v2/images?limit=1&sort=name:asc&tag=foo", None, {}, (200,)
    yield "PUT", i + "/file", b"\7" * 5000, OCTETS, (204,)
    yield "GET", i + "/file", None, {}, (200,)
    yield "PATCH", i, [
        {"op": "replace", "path": "/name", "value": "went"},
        {"op": "replace", "path": "/tags", "value": ["fedora"]},
        {"op": "add", "path": "/hw_disk_bus", "value": "scsi"},
        {"op": "remove", "path": "/hw_disk_bus"}], PATCH, (200,)
    yield "POST", i + "/members", {"member": other}, {}, (200,)
    yield "GET", i + "/members", None, {}, (200,)
    yield "GET", f"{i}/members/{other}", None, {}, (200,)
    yield "DELETE", f"{i}/members/{other}", None, {}, (204,)
    yield "GET", "/v2/info/import", None, {}, (200,)
    yield "DELETE", i, None, {}, (202, 204)


def ok_codes(name):
    """{function: statuses} of a requests.go."""
    with open(os.path.join(GOPHERCLOUD, name, "requests.go")) as f:
        text = f.read()
    ret = {}
    for body in text.split("\nfunc ")[1:]:
        codes = re.search(r"OkCodes: *\[\]int\{([\d, ]+)\}", body)
        if codes:
            ret[body.split("(")[0]] = tuple(
                int(n) for n in codes.group(1).split(","))
    return ret


def gophercloud_is_answered(c):
    image = "60606060-1111-4111-8111-111111111111"
    if os.path.isdir(GOPHERCLOUD):
        codes = {n: ok_codes(n) for n in ("images", "members", "imagedata")}
        is_equal((codes["images"]["Create"], codes["images"]["Update"],
                  codes["imagedata"]["Upload"], codes["members"]["Create"]),
                 ((201,), (200,), (204,), (200,)), "what gophercloud takes")
    for method, path, body, headers, statuses in gophercloud_requests(
            image, c.other[1]):
        a = c.glance.request(method, path, body, {**GO, **headers}, c.token)
        is_true(a.status in statuses,
                f"{method} {path}: {a.status} {a.text[:300]}")
        if path.endswith("/file") and method == "GET":
            is_equal(a.body, b"\7" * 5000, "the data")


def services_speak_for_expired_users(c):
    """A user's token that expired while his service worked."""
    old = c.keystone.expired(c.token)
    nova = c.keystone.log_in("nova", PASSWORD, "nova")[0]
    for service, status in ((None, 401), (nova, 200), (c.token, 401)):
        a = c.glance.request("GET", "/v2/images", token=old, headers={
            "X-Service-Token": service} if service else None)
        is_equal(a.status, status, "the status with a service's token")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "keystone-manage")
    made = []

    def make(folder):
        made.append(Context(folder))
        return made[0]

    try:
        run_checks(make, [
            nova_lives_with_it,
            cinder_lives_with_it,
            ironic_lives_with_it,
            openstacksdk_lives_with_it,
            horizons_calls_are_answered,
            gophercloud_is_answered,
            services_speak_for_expired_users,
        ])
    except Failure as e:
        print(e)
        sys.exit(1)
    finally:
        for one in made:
            one.end()

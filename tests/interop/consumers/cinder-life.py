# SPDX-License-Identifier: BSD-3-Clause
"""cinder.image.glance, as cinder-volume calls it."""

import os

from cinder import context, exception
from cinder.common import config  # noqa: F401
from cinder.image import glance
from oslo_config import cfg

folder = os.environ["FOLDER"]
cfg.CONF([], project="cinder", default_config_files=[folder + "/conf"])


def who(token, project):
    return context.RequestContext(
        user_id="alice", project_id=os.environ[project], is_admin=False,
        auth_token=os.environ[token], roles=["member"])


alice, bob = who("TOKEN", "PROJECT"), who("OTHER_TOKEN", "OTHER")
service = glance.get_default_image_service()
made = service.create(alice, {
    "name": "of a volume", "disk_format": "raw", "container_format": "bare",
    "properties": {"cinder_encryption_key_id": "x"}})
with open(folder + "/disk", "rb") as f:
    service.update(alice, made["id"], {}, data=f, store_id="second")
image = service.show(alice, made["id"])
assert image["status"] == "active" and image["size"] == 400000, image
assert image["cinder_encryption_key_id"] == "x", image
url, locations = service.get_location(alice, made["id"])
assert [l["metadata"]["store"] for l in locations] == ["second"], locations
stores = service.get_stores(alice)["stores"]
assert [s["id"] for s in stores] == ["file", "second"], stores
with open(folder + "/got", "wb") as f:
    service.download(alice, made["id"], f)
found = service.detail(alice, filters={"name": "of a volume"})
assert [i["id"] for i in found] == [made["id"]], found
service.update(alice, made["id"], {"min_disk": 2}, purge_props=True)
image = service.show(alice, made["id"])
assert image["min_disk"] == 2, image
assert "cinder_encryption_key_id" not in image["properties"], image
assert not list(service.list_members(alice, made["id"]))
try:
    service.show(bob, made["id"])
    raise SystemExit("another's image is there")
except exception.ImageNotFound:
    pass
service.delete(alice, made["id"])
print("whole")

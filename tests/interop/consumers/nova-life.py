# SPDX-License-Identifier: BSD-3-Clause
"""nova.image.glance, as nova-compute and nova-api call it."""

import os

import nova.conf
from nova import context, exception
from nova.image import glance

folder = os.environ["FOLDER"]
nova.conf.CONF([], project="nova", default_config_files=[folder + "/conf"])


def who(token, project):
    return context.RequestContext(user_id="alice", project_id=os.environ[
        project], auth_token=os.environ[token], roles=["member"])


alice, bob = who("TOKEN", "PROJECT"), who("OTHER_TOKEN", "OTHER")
api = glance.API()
# What a snapshot does: made queued, then given its data.
made = api.create(alice, {
    "name": "snapshot", "disk_format": "raw", "container_format": "bare",
    "min_disk": 1, "properties": {"image_type": "snapshot", "hw_vif_model":
                                  "virtio", "instance_uuid": "x"}})
assert made["status"] == "queued", made
with open(folder + "/disk", "rb") as f:
    api.update(alice, made["id"], {
        "name": "snapshot", "disk_format": "raw", "container_format": "bare",
        "properties": {"hw_disk_bus": "scsi"}}, data=f,
        purge_props=False)
image = api.get(alice, made["id"], include_locations=True,
                show_deleted=False)
assert image["status"] == "active" and image["size"] == 400000, image
assert image["properties"]["hw_disk_bus"] == "scsi", image
assert image["properties"]["image_type"] == "snapshot", image
assert image["locations"], image
found = api.get_all(alice, filters={"name": "snapshot"}, page_size=1)
assert [i["id"] for i in found] == [made["id"]], found
api.download(alice, made["id"], dest_path=folder + "/got")
api.update(alice, made["id"], {"name": "renamed"}, purge_props=True)
image = api.get(alice, made["id"])
assert image["name"] == "renamed", image
assert "hw_disk_bus" not in image["properties"], image
for call in (lambda: api.get(bob, made["id"]),
             lambda: api.delete(bob, made["id"])):
    try:
        call()
        raise SystemExit("another's image is there")
    except exception.ImageNotFound:
        pass
api.delete(alice, made["id"])
# A volume-backed snapshot has no data, but mappings.
empty = api.create(alice, {
    "name": "of a volume", "disk_format": "qcow2", "container_format": "bare",
    "properties": {"block_device_mapping": [{"snapshot_id": "x"}]}}, data="")
assert api.get(alice, empty["id"])["size"] == 0
api.delete(alice, empty["id"])
print("whole")

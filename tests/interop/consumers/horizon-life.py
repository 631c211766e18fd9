# SPDX-License-Identifier: BSD-3-Clause
"""glanceclient as openstack_dashboard/api/glance.py of Horizon calls it: pages both
ways, images made before their data come, metadata by patches, namespaces."""

import os

import glanceclient

folder, token = os.environ["FOLDER"], os.environ["TOKEN"]
client = glanceclient.Client("2", os.environ["IMAGE"], token=token)
made = []
for i in range(3):
    made.append(client.images.create(
        name=f"page{i}", disk_format="raw", container_format="bare",
        visibility="private", min_ram=0, min_disk=0, protected=False))
# image_list_detailed: a page and one more, from a marker, up and down.
for sort_dir, names in (("asc", ["page1", "page2"]), ("desc", ["page1", "page0"])):
    marker = made[0 if sort_dir == "asc" else 2].id
    page = list(client.images.list(
        page_size=2, limit=3, filters={"owner": os.environ["PROJECT"]},
        sort_dir=sort_dir, sort_key="name", marker=marker))
    assert [i.name for i in page] == names, page
with open(folder + "/disk", "rb") as f:
    client.images.upload(made[0].id, f)
image = client.images.update(made[0].id, remove_props=None, name="renamed",
                             hw_disk_bus="scsi")
assert image.hw_disk_bus == "scsi", image
image = client.images.update(made[0].id, remove_props=["hw_disk_bus"])
assert "hw_disk_bus" not in image, image
with open(folder + "/got", "wb") as f:
    for chunk in client.images.data(made[0].id):
        f.write(chunk)
client.images.update(made[0].id, visibility="shared")
client.image_members.create(made[0].id, os.environ["OTHER"])
bob = glanceclient.Client("2", os.environ["IMAGE"],
                          token=os.environ["OTHER_TOKEN"])
bob.image_members.update(made[0].id, os.environ["OTHER"], "accepted")
shared = list(bob.images.list(filters={"visibility": "shared",
                                       "member_status": "accepted"}))
assert [i.id for i in shared] == [made[0].id], shared
# metadefs_namespace_full_list
assert list(client.metadefs_namespace.list(
    filters={"resource_types": ["OS::Glance::Image"]}, sort_key="namespace",
    sort_dir="asc", page_size=20)) == []
assert "OS::Glance::Image" in [
    t.name for t in client.metadefs_resource_type.list()]
assert client.schemas.get("image").properties
for image in made:
    client.images.delete(image.id)
print("whole")

# SPDX-License-Identifier: BSD-3-Clause
"""openstacksdk: its cloud layer, and its proxy of the image service."""

import os

import openstack

folder = os.environ["FOLDER"]
cloud = openstack.connect(
    auth_type="password", auth={
        "auth_url": os.environ["KEYSTONE"] + "/v3", "username": "alice",
        "password": os.environ["PASSWORD"], "project_name": "alice",
        "user_domain_id": "default", "project_domain_id": "default"},
    region_name="RegionOne", load_envvars=False, load_yaml_config=False)
made = cloud.create_image("sdk", filename=folder + "/disk", wait=True,
                          disk_format="raw", container_format="bare",
                          tags=["a"], hw_disk_bus="scsi",
                          validate_checksum=True)
assert made.status == "active" and made.size == 400000, made
# The same data are not sent twice.
assert cloud.create_image("sdk", filename=folder + "/disk", wait=True,
                          disk_format="raw", container_format="bare",
                          validate_checksum=True).id == made.id
assert cloud.get_image("sdk").id == made.id
with open(folder + "/got", "wb") as f:
    cloud.download_image("sdk", output_file=f)
images = cloud.image
image = images.update_image(made.id, name="sdk2", min_disk=1)
assert (image.name, image.min_disk) == ("sdk2", 1), image
images.add_tag(image, "b")
images.remove_tag(image, "a")
assert images.get_image(image.id).tags == ["b"]
assert [i.id for i in images.images(name="sdk2")] == [made.id]
images.add_member(image, member_id=os.environ["OTHER"])
assert [m.status for m in images.members(image)] == ["pending"]
images.remove_member(os.environ["OTHER"], image)
assert "disk_format" in images.get_images_schema().properties["images"][
    "items"]["properties"]
assert [s.id for s in images.stores()] == ["file", "second"]
cloud.delete_image("sdk2", wait=True)
assert not cloud.get_image("sdk2")
# What is staged becomes an image.
image = images.create_image("staged", disk_format="raw", container_format="bare",
                            allow_duplicates=True)
images.stage_image(image, filename=folder + "/disk")
images.import_image(image, method="glance-direct")
image = images.wait_for_status(images.get_image(image.id), "active", [], .1, 60) \
    if hasattr(images, "wait_for_status") else openstack.resource. \
    wait_for_status(images, images.get_image(image.id), "active", [], .1, 60)
cloud.delete_image(image.id)
print("whole")

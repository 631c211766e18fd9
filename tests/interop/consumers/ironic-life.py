# SPDX-License-Identifier: BSD-3-Clause
"""Ironic's image service, as the conductor deploys by it: it reads alone."""

import os

import glanceclient
from ironic.common import context, exception
from ironic.common.glance_service import image_service
from ironic.conf import CONF

folder = os.environ["FOLDER"]
CONF([], project="ironic", default_config_files=[folder + "/conf"])
client = glanceclient.Client("2", os.environ["IMAGE"],
                             token=os.environ["TOKEN"])
made = client.images.create(name="for metal", disk_format="raw",
                            container_format="bare", visibility="community")
who = context.RequestContext(auth_token=os.environ["TOKEN"])
service = image_service.GlanceImageService(context=who)
try:
    service.show(made.id)
    raise SystemExit("an image without data is there")
except exception.ImageUnacceptable:
    pass
with open(folder + "/disk", "rb") as f:
    client.images.upload(made.id, f)
image = service.show(made.id)
assert image["status"] == "active" and image["size"] == 400000, image
assert image["os_hash_algo"] == "sha512" and image["checksum"], image
with open(folder + "/got", "wb") as f:
    service.download(made.id, f)
try:
    service.show("99999999-1111-4111-8111-111111111111")
    raise SystemExit("an image that is not there is there")
except exception.ImageNotFound:
    pass
client.images.delete(made.id)
print("whole")

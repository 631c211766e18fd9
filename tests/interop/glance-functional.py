#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Glance's own functional tests (Debian's python3-glance) that talk to a server by HTTP,
with platter as the server: as they are, with locations, and with several stores, as each
asks for. Those that cannot pass are listed here, each with the reason; one of them that
passes is a failure, too. Without PLATTER_FULL a part of them is run."""

import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from real_glance import GLANCE  # noqa: E402
from server import Failure, environment, need_programs, run, skip  # noqa: E402

RUNNER = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "lib",
                                      "run_functional.py"))
PART = ["v2.test_metadef", "v2.test_tasks"]
RUN_SEC = 1500

POLICY = "it has a file of policies; platter's are Glance's defaults"
PROTECTION = "it has a file of protected properties, which platter does not know"
QUOTA = "it sets members, tags or properties to 10; in platter they are 128"
SIZE = "it limits bytes; platter's limits are of MiB, as Keystone's"
VERSIONS = "it wants the versions of one configuration; platter has all"
FOLDERS = "it takes away a folder that has files of Glance's places alone"
CANNOT = {
    "v2.test_images.TestCopyImagePermissions."
    "test_copy_public_image_as_non_admin": POLICY,
    "v2.test_images.TestCopyImagePermissions."
    "test_copy_public_image_as_non_admin_permitted": POLICY,
    "v2.test_images.TestImageDirectURLVisibility."
    "test_image_direct_url_visible":
        "it wants a file's URL as direct_url, where platter has that of NBD",
    "v2.test_images.TestImageLocationSelectionStrategy."
    "test_image_locations_with_order_strategy":
        "it wants a file's URL as direct_url, where platter has that of NBD",
    "v2.test_images.TestImageMembers.test_image_member_lifecycle": QUOTA,
    "v2.test_images.TestImages."
    "test_download_image_not_allowed_using_restricted_policy": POLICY,
    "v2.test_images.TestImages."
    "test_download_policy_when_cache_is_not_enabled": POLICY,
    "v2.test_images.TestImages."
    "test_image_additions_works_only_for_specific_tenant_id": POLICY,
    "v2.test_images.TestImages.test_image_lifecycle": QUOTA,
    "v2.test_images.TestImages."
    "test_image_modification_fails_on_mismatched_tenant_ids": POLICY,
    "v2.test_images.TestImages.test_image_size_cap": SIZE,
    "v2.test_images.TestImages.test_image_visibility_to_different_users":
        "images whose owner is nobody: platter's have a project",
    "v2.test_images.TestImages.test_owning_tenant_can_publicize_image":
        POLICY,
    **{f"v2.test_images.TestImages.test_property_protections_{n}": PROTECTION
       for n in ("special_chars_policies", "special_chars_roles",
                 "with_policies", "with_roles")},
    "v2.test_images.TestImages.test_tag_lifecycle": QUOTA,
    "v2.test_images.TestImages.test_web_download_ip_normalization":
        "an address in another spelling is refused when it is connected to, "
        "and the task tells it; not by the request",
    "v2.test_images.TestImagesIPv6.test_image_list_ipv6":
        "what passes its requests on does not speak IPv6",
    "v2.test_images.TestImagesMultipleBackend."
    "test_copy_image_revert_lifecycle": FOLDERS,
    "v2.test_images.TestMultiStoreImageMembers."
    "test_image_member_lifecycle_for_multiple_stores": QUOTA,
    "v2.test_images.TestQuotas.test_chunked_image_upload_exceed_quota": SIZE,
    "v2.test_images.TestQuotas.test_image_upload_exceed_quota": SIZE,
    "v2.test_metadef_resourcetypes.TestMetadefResourceTypes."
    "test_role_base_metadef_resource_types_lifecycle":
        "it wants no kinds of resources but its own; Debian's Glance has some",
    "v2.test_schemas.TestSchemas.test_resource":
        "it wants a schema without the properties of schema-image.json",
    **{f"test_api.TestApiPaths.test_get_{n}": VERSIONS
       for n in ("root_path", "root_path_with_unknown_header",
                 "va1_images_path", "versions_choices", "versions_path")},
    **{f"test_api.TestApiVersions{m}.test_{n}": VERSIONS
       for m in ("", "Multistore")
       for n in ("v2_api_configuration", "version_configurations")},
}


def main():
    platter = os.path.abspath(environment("PLATTER")[0])
    need_programs("setpriv")
    if not os.path.exists(GLANCE):
        skip("no Glance is installed (python3-glance)")
    part = [] if os.environ.get("PLATTER_FULL") else PART
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="platter-functional-") as folder:
        os.chdir(folder)  # where they leave a log
        try:
            out, err = run(["/usr/bin/python3", "-P", RUNNER, *part],
                           timeout=RUN_SEC, env={
                               **os.environ, "TMPDIR": folder,
                               "PLATTER": platter})[1:]
        finally:
            os.chdir(here)
    results = re.findall(r"^(ok|not ok) (\S+) \([\d.]+ s\)(.*)$", out, re.M)
    bad = [f"{name}{said[:1500]}" for result, name, said in results
           if result != "ok" and name not in CANNOT]
    bad += [f"{name} passes, though: {CANNOT[name]}"
            for result, name, _ in results if result == "ok" and name in CANNOT]
    passed = sum(1 for result, *_ in results if result == "ok")
    if bad or passed < (12 if part else 50):
        raise Failure("\n".join(bad) or f"{passed} passed: {out} {err}")
    print(f"{passed} passed, {len(results) - passed} cannot:")
    for result, name, _ in results:
        if result != "ok":
            print(f"  {name}: {CANNOT[name]}")


if __name__ == "__main__":
    try:
        main()
    except Failure as e:
        print(e)
        sys.exit(1)

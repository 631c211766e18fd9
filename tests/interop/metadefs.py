#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Schemas and metadata definitions of the image service, by tables: what a
Glance 25.1 answers to the same requests."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from server import environment, need_programs  # noqa: E402

ROOT = "/v2/metadefs/namespaces"
A = f"{ROOT}/OS::A"
B = f"{ROOT}/OS::B"


def is_time(text):
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text))


def has_not(*names):
    return lambda got: not any(n in got for n in names)


WHOLE = {
    "namespace": "OS::A", "display_name": "A", "description": "of tests",
    "visibility": "public", "protected": True, "owner": "somebody",
    "resource_type_associations": [
        {"name": "OS::Glance::Image", "prefix": "hw_"},
        {"name": "OS::New"}],
    "properties": {"p": {"title": "P", "type": "string", "enum": ["a"],
                         "operators": ["<or>"], "minLength": 1,
                         "readonly": True, "default": "a",
                         "items": {"type": "string"}, "maxItems": 3}},
    "objects": [{"name": "o", "description": "one", "required": ["q"],
                 "properties": {"q": {"title": "Q", "type": "integer",
                                      "minimum": 1, "maximum": 10}}}],
    "tags": [{"name": "t"}, {"name": "u"}],
}

NAMESPACES = [
    Row("GET", "/v2/metadefs/resource_types", 200, {
        "resource_types": lambda l: "OS::Glance::Image" in
        [t["name"] for t in l] and all(is_time(t["created_at"]) for t in l)}),
    Row("GET", ROOT, 200, {"namespaces": [], "first": ROOT,
                           "schema": "/v2/schemas/metadefs/namespaces"}),
    Row("POST", ROOT, 201, {
        "namespace": "OS::A", "display_name": "A", "protected": True,
        "owner": "somebody", "created_at": is_time, "updated_at": is_time,
        "self": A, "schema": "/v2/schemas/metadefs/namespace",
        "properties": {"p": WHOLE["properties"]["p"]},
        "objects": [{"name": "o", "required": ["q"], "self": A + "/objects/o",
                     "schema": "/v2/schemas/metadefs/object"}]}, WHOLE,
        answer_headers={"Location": lambda v: v.endswith(A)}),
    Row("POST", ROOT, 409, "namespace=OS::A already exists.",
        {"namespace": "OS::A"}),
    Row("POST", ROOT, 400, "is a required property", {"display_name": "x"}),
    Row("POST", ROOT, 400, "is not of type", {"namespace": 5}),
    Row("POST", ROOT, 400, "was unexpected", {"namespace": "x", "zzz": 1}),
    Row("POST", ROOT, 400, "is not one of",
        {"namespace": "x", "visibility": "shared"}),
    Row("POST", ROOT, 400, "is too long", {"namespace": "x" * 81}),
    Row("POST", ROOT, 400, "is empty", {"namespace": ""}),
    Row("POST", ROOT, 400, "control characters", {"namespace": "a\nb"}),
    Row("POST", ROOT, 403, "is read-only",
        {"namespace": "x", "created_at": "2014-01-01T00:00:00Z"}),
    Row("POST", ROOT, 403, "is read-only", {"namespace": "x", "self": "y"}),
    Row("POST", ROOT, 400, "Malformed JSON", "{bad"),
    Row("POST", ROOT, 400, "Body expected in request.", ""),
    Row("POST", ROOT, 400, "object", [1]),
    Row("POST", ROOT, 400, "", "[" * 100 + "]" * 100),
    # All or nothing.
    Row("POST", ROOT, 409, "tag with name=A already exists",
        {"namespace": "n", "tags": [{"name": "a"}, {"name": "A"}]}),
    Row("POST", ROOT, 409, "object with name=a already exists",
        {"namespace": "n", "objects": [{"name": "a"}, {"name": "a"}]}),
    Row("POST", ROOT, 400, "is a required property",
        {"namespace": "n", "objects": [{"description": "a"}]}),
    Row("GET", ROOT + "/n", 404, "namespace=n was not found."),
    Row("GET", A, 200, {
        "tags": [{"name": "u"}, {"name": "t"}],
        "resource_type_associations": [
            {"name": "OS::Glance::Image", "prefix": "hw_",
             "created_at": is_time},
            {"name": "OS::New", "updated_at": is_time}]}),
    Row("GET", A + "?resource_type=OS::Glance::Image", 200, {
        "properties": {"hw_p": {"title": "P"}},
        "objects": [{"required": ["hw_q"],
                     "properties": {"hw_q": {"type": "integer"}}}]}),
    Row("GET", A + "?resource_type=OS::New", 200,
        {"properties": {"p": {"title": "P"}}}),
    Row("GET", A + "?resource_type=nothing", 200,
        {"properties": {"p": {"title": "P"}}}),
    Row("DELETE", A, 403, "OS::A is protected and cannot be deleted."),
    Row("DELETE", A + "/objects/o", 403, "object o is protected"),
    Row("DELETE", A + "/properties/p", 403, "property p is protected"),
    Row("DELETE", A + "/tags/t", 403, "tag t is protected"),
    Row("DELETE", A + "/resource_types/OS::New", 403, "is protected"),
    Row("DELETE", A + "/objects", 403, "is protected"),
    Row("DELETE", A + "/properties", 403, "is protected"),
    Row("DELETE", A + "/tags", 403, "is protected"),
    Row("DELETE", ROOT + "/none", 404, "none was not found."),
    Row("PUT", ROOT + "/none", 404, "none was not found.",
        {"namespace": "x"}),
    Row("PUT", A, 400, "is a required property", {"display_name": "x"}),
    Row("PUT", A, 403, "is read-only", {"namespace": "x", "schema": "y"}),
    Row("PUT", A, 200, lambda got: has_not(
        "display_name", "objects")(got) and got["namespace"] == "OS::B" and
        got["visibility"] == "private" and got["protected"] is False,
        {"namespace": "OS::B"}),
    Row("GET", A, 404, ""),
    Row("GET", B, 200, {"objects": [{"self": B + "/objects/o"}]}),
    Row("POST", ROOT, 201, None, {"namespace": "C", "visibility": "public"}),
    Row("PUT", B, 409, "duplicate metadata definition namespace",
        {"namespace": "C"}),
    Row("POST", ROOT, 201, {"self": ROOT + "/a%2Fb%20%C3%A4"},
        {"namespace": "a/b ä"}),
    Row("GET", ROOT + "/a%2Fb%20%C3%A4", 200, {"namespace": "a/b ä"}),
    Row("DELETE", ROOT + "/a%2Fb%20%C3%A4", 204),
    Row("PATCH", B, 405, "", {}, answer_headers={
        "Allow": "GET, PUT, DELETE"}),
    Row("GET", "/v2/metadefs", 404, ""),
]

LISTS = [
    *[Row("POST", ROOT, 201, None,
          {"namespace": f"L{i}", "owner": "zz",
           "visibility": "public" if i % 2 else "private"})
      for i in range(5)],
    Row("GET", ROOT + "?limit=2", 200, {
        "namespaces": [{"namespace": "L4"}, {"namespace": "L3"}],
        "first": ROOT + "?limit=2", "next": ROOT + "?limit=2&marker=L3"}),
    Row("GET", ROOT + "?limit=2&marker=L3", 200, {
        "namespaces": [{"namespace": "L2"}, {"namespace": "L1"}]}),
    Row("GET", ROOT + "?sort_key=namespace&sort_dir=asc&limit=2&marker=L1",
        200, {"namespaces": [{"namespace": "L2"}, {"namespace": "L3"}],
              "next": ROOT + "?sort_key=namespace&sort_dir=asc&limit=2"
              "&marker=L3"}),
    Row("GET", ROOT + "?sort_key=visibility&sort_dir=asc&limit=2", 200,
        {"namespaces": [{"visibility": "private"},
                        {"visibility": "private"}]}),
    Row("GET", ROOT + "?limit=0", 200,
        lambda got: got["namespaces"] == [] and "next" not in got),
    Row("GET", ROOT + "?visibility=public", 200, {
        "namespaces": [{"namespace": "L3"}, {"namespace": "L1"},
                       {"namespace": "C"}]}),
    Row("GET", ROOT + "?resource_types=OS::X,OS::Glance::Image", 200,
        {"namespaces": [{"namespace": "OS::B"}]}),
    Row("GET", ROOT + "?resource_types=OS::Glance", 200, {"namespaces": []}),
    Row("GET", ROOT + "?visibility=maybe", 400, "Invalid visibility value"),
    Row("GET", ROOT + "?marker=none", 404, "none was not found."),
    Row("GET", ROOT + "?limit=x", 400, "must be an integer"),
    Row("GET", ROOT + "?limit=-1", 400, "must be positive"),
    Row("GET", ROOT + "?sort_key=x", 400, "Sort key"),
    Row("GET", ROOT + "?sort_key=name", 400, "Sort key"),
    Row("GET", ROOT + "?sort_dir=x", 400, "Invalid sort direction: x"),
    *[Row("DELETE", f"{ROOT}/L{i}", 204) for i in range(5)],
]

ITEMS = [
    Row("GET", B + "/objects", 200, {
        "objects": [{"name": "o"}], "schema": "v2/schemas/metadefs/objects"}),
    Row("POST", B + "/objects", 201, {
        "name": "o2", "required": [], "created_at": is_time,
        "properties": {"b": {"type": "string", "title": "x"}}},
        {"name": "o2", "properties": {"b": {"type": "string",
                                            "title": "x"}}}),
    Row("POST", B + "/objects", 409, "object with name=o2 already exists",
        {"name": "o2"}),
    Row("POST", B + "/objects", 400, "is a required property", {}),
    Row("POST", B + "/objects", 403, "is read-only",
        {"name": "x", "updated_at": "y"}),
    Row("POST", ROOT + "/none/objects", 404, "", {"name": "x"}),
    Row("GET", B + "/objects/o2", 200, {"name": "o2"}),
    Row("GET", B + "/objects/O2", 404, "Could not find metadata object O2"),
    Row("PUT", B + "/objects/o2", 200, {
        "name": "o3", "description": "d", "properties": {}},
        {"name": "o3", "description": "d"}),
    Row("PUT", B + "/objects/o3", 409, "Invalid update.", {"name": "o"}),
    Row("PUT", B + "/objects/o2", 404, "", {"name": "o4"}),
    Row("GET", B + "/objects", 200, {"objects": [{"name": "o"}, {"name": "o3"}]}),
    Row("DELETE", B + "/objects/o3", 204),
    Row("DELETE", B + "/objects/o3", 404, "metadata object o3"),
    Row("DELETE", B + "/objects", 204),
    Row("DELETE", B + "/objects", 204),
    Row("GET", B + "/objects", 200, {"objects": []}),
    Row("GET", ROOT + "/none/objects", 404, ""),
    Row("PATCH", B + "/objects", 405, "", {}, answer_headers={
        "Allow": "GET, POST, DELETE"}),
    Row("GET", B + "/properties", 200, {
        "properties": {"p": has_not("name")}}),
    # A default is shown as text; lists tell the name of what came alone.
    *[row for value, shown in (
          (5, "5"), (-1.5, "-1.5"), (0.1, "0.1"), (2.0, "2.0"), (True, "True"),
          (False, "False"), ("x", "x"), (None, None), ([1], None),
          ({"a": 1}, None)) for row in (
              Row("POST", B + "/properties", 201, {
                  "name": "d", "default": shown}, {
                      "name": "d", "type": "string", "title": "D",
                      "default": value}),
              Row("GET", B + "/properties", 200, {"properties": {
                  "d": {"name": "d", "default": shown}}}),
              Row("PUT", B + "/properties/d", 200, {
                  "name": "e", "default": shown}, {
                      "name": "e", "type": "string", "title": "D",
                      "default": value}),
              Row("GET", B + "/properties", 200, {"properties": {
                  "e": {"name": "e", "default": shown}}}),
              Row("POST", B + "/objects", 201, {"properties": {
                  "p": {"default": shown}}}, {"name": "d", "properties": {
                      "p": {"type": "string", "title": "D",
                            "default": value}}}),
              Row("DELETE", B + "/objects/d", 204),
              Row("DELETE", B + "/properties/e", 204))],
    Row("POST", B + "/properties", 201, {
        "name": "r", "type": "array", "required": ["a"]},
        {"name": "r", "type": "array", "title": "R", "required": ["a"],
         "items": {"type": "string"}, "maxItems": 3}),
    Row("POST", B + "/properties", 409, "property with name=r",
        {"name": "r", "type": "string", "title": "x"}),
    Row("POST", B + "/properties", 400, "is not one of",
        {"name": "s", "type": "strin", "title": "x"}),
    Row("POST", B + "/properties", 400, "is a required property",
        {"name": "s", "title": "x"}),
    Row("POST", B + "/properties", 400, "less than the minimum",
        {"name": "s", "title": "x", "type": "string", "maxLength": -1}),
    Row("GET", B + "/properties/r", 200, {"name": "r", "title": "R"}),
    Row("GET", B + "/properties/hw_p?resource_type=OS::Glance::Image", 200,
        {"name": "p"}),
    Row("GET", B + "/properties/p?resource_type=OS::Glance::Image", 404,
        "does not start with the expected resource type"),
    Row("GET", B + "/properties/none", 404, "Could not find property none"),
    Row("PUT", B + "/properties/r", 200, {"name": "s", "type": "integer"},
        {"name": "s", "type": "integer", "title": "S"}),
    Row("PUT", B + "/properties/s", 409, "Invalid update.",
        {"name": "p", "type": "integer", "title": "S"}),
    Row("PUT", B + "/properties/none", 404, "",
        {"name": "p", "type": "integer", "title": "S"}),
    Row("DELETE", B + "/properties/s", 204),
    Row("DELETE", B + "/properties/s", 404, "property s"),
    Row("DELETE", B + "/properties", 204),
    Row("GET", B + "/properties", 200, {"properties": {}}),
    Row("GET", B + "/tags", 200, {"tags": [{"name": "u"}, {"name": "t"}]}),
    Row("POST", B + "/tags/a", 201, {"name": "a", "created_at": is_time}),
    Row("POST", B + "/tags/A", 409, "names are case insensitive"),
    Row("POST", B + "/tags/" + "x" * 80, 201),
    Row("DELETE", B + "/tags/" + "x" * 80, 204),
    Row("POST", B + "/tags/" + "x" * 81, 400, "is too long"),
    Row("POST", B + "/tags", 400, "is too long",
        {"tags": [{"name": "x" * 81}]}),
    Row("PUT", B + "/tags/a", 400, "is too long", {"name": "x" * 81}),
    Row("GET", B + "/tags/A", 200, {"name": "a"}),
    Row("GET", B + "/tags/none", 404, "Could not find metadata tag none"),
    Row("PUT", B + "/tags/a", 200, {"name": "b"}, {"name": "b"}),
    Row("PUT", B + "/tags/b", 409, "names are case insensitive",
        {"name": "t"}),
    Row("PUT", B + "/tags/none", 404, "", {"name": "x"}),
    Row("GET", B + "/tags?limit=2", 200, {
        "tags": [{"name": "b"}, {"name": "u"}]}),
    Row("GET", B + "/tags?limit=2&marker=b", 200, {
        "tags": [{"name": "u"}, {"name": "t"}]}),
    Row("GET", B + "/tags?sort_key=name&sort_dir=asc&marker=b", 200, {
        "tags": [{"name": "t"}, {"name": "u"}]}),
    Row("GET", B + "/tags?marker=none", 404, "metadata tag none"),
    Row("GET", B + "/tags?sort_key=owner", 400, "Sort key"),
    Row("GET", B + "/tags?limit=x", 400, ""),
    Row("POST", B + "/tags", 201, {"tags": [{"name": "c"}]},
        {"tags": [{"name": "c"}]}, {"X-Openstack-Append": "true"}),
    Row("GET", B + "/tags", 200, {"tags": [{"name": "c"}, {"name": "b"},
                                           {"name": "u"}, {"name": "t"}]}),
    Row("POST", B + "/tags", 409, "", {"tags": [{"name": "x"},
                                                {"name": "x"}]}),
    Row("GET", B + "/tags?limit=1", 200, {"tags": [{"name": "c"}]}),
    Row("POST", B + "/tags", 201, {"tags": [{"name": "x"}, {"name": "y"}]},
        {"tags": [{"name": "x"}, {"name": "y"}]}),
    Row("GET", B + "/tags", 200, {"tags": [{"name": "y"}, {"name": "x"}]}),
    *[Row("POST", B + "/tags", 400, None, {"tags": tags}) for tags in (
        ["x"], [{}], [None], [[]], "x", None)],
    Row("POST", B + "/tags", 400, "is a required property", {}),
    Row("POST", B + "/tags", 400, "is a required property",
        {"tags": [{}]}),
    Row("DELETE", B + "/tags/x", 204),
    Row("DELETE", B + "/tags/x", 404, "metadata tag x"),
    Row("DELETE", B + "/tags", 204),
    Row("GET", B + "/tags", 200, {"tags": []}),
]

ASSOCIATIONS = [
    Row("GET", B + "/resource_types", 200, {
        "resource_type_associations": [
            {"name": "OS::Glance::Image", "prefix": "hw_"},
            {"name": "OS::New"}]}),
    Row("POST", B + "/resource_types", 201, {
        "name": "OS::X", "prefix": "x_", "properties_target": "image",
        "created_at": is_time},
        {"name": "OS::X", "prefix": "x_", "properties_target": "image"}),
    Row("POST", B + "/resource_types", 409, "already exists",
        {"name": "OS::X"}),
    Row("POST", B + "/resource_types", 400, "is a required property",
        {"prefix": "x_"}),
    Row("POST", B + "/resource_types", 403, "is read-only",
        {"name": "x", "created_at": "y"}),
    Row("DELETE", B + "/resource_types/OS::X", 204),
    Row("DELETE", B + "/resource_types/OS::X", 404,
        "Failed to find resource type OS::X to delete"),
    # Known from now on.
    Row("GET", "/v2/metadefs/resource_types", 200, {
        "resource_types": lambda l: "OS::X" in [t["name"] for t in l]}),
    Row("GET", ROOT + "/none/resource_types", 404, ""),
    Row("DELETE", B, 204),
    Row("GET", B + "/resource_types", 404, ""),
]

SCHEMAS = ["image", "images", "member", "members", "task", "tasks"] + [
    "metadefs/" + n for n in (
        "namespace", "namespaces", "object", "objects", "property",
        "properties", "tag", "tags", "resource_type", "resource_types")]


def run_table(glance, rows):
    for row in rows:
        run_row(glance, row)


def every_schema_is_served(glance):
    for name in SCHEMAS:
        a = run_row(glance, Row("GET", "/v2/schemas/" + name, 200,
                                {"name": lambda n: bool(n)}))
        is_equal(a.headers["content-type"], "application/json", name)
    run_row(glance, Row("GET", "/v2/schemas/nothing", 404))
    run_row(glance, Row("POST", "/v2/schemas/image", 405, "", {},
                        answer_headers={"Allow": "GET"}))


def the_image_schema_tells_base_fields_from_others(glance):
    fields = glance.request("GET", "/v2/schemas/image").json["properties"]
    own = {n for n, rule in fields.items() if rule.get("is_base") is False}
    is_true({"kernel_id", "os_distro", "architecture"} <= own, str(own))
    is_true(not {"name", "size", "disk_format"} & own, str(own))
    is_true("qcow2" in fields["disk_format"]["enum"], "qcow2 is not listed")


def namespaces_come_and_go(glance):
    run_table(glance, NAMESPACES)


def lists_are_filtered_sorted_and_paged(glance):
    run_table(glance, LISTS)


def objects_properties_and_tags_come_and_go(glance):
    run_table(glance, ITEMS)


def associations_come_and_go(glance):
    run_table(glance, ASSOCIATIONS)


CHECKS = [
    every_schema_is_served,
    the_image_schema_tells_base_fields_from_others,
    namespaces_come_and_go,
    lists_are_filtered_sorted_and_paged,
    objects_properties_and_tags_come_and_go,
    associations_come_and_go,
]


def main():
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit")
    with Glance() as glance:
        run_checks(lambda folder: glance, CHECKS)


if __name__ == "__main__":
    main()

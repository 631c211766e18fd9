# SPDX-License-Identifier: BSD-3-Clause
"""What tests/interop/beside-glance.py asks of a Glance and of platter."""

TOKENS = {"boss": "boss:p0:admin", "one": "u1:p1:member",
          "two": "u2:p2:member", "r": "u3:p1:reader",
          "maker": "u4:p4:member"}
RESOURCE_TYPES = ("OS::Cinder::Volume", "OS::Glance::Image",
                  "OS::Nova::Aggregate", "OS::Nova::Flavor",
                  "OS::Nova::Server", "OS::Trove::Instance")
OCTETS = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
PATCH_20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
DATA = bytes(range(256)) * 40
DONE = r"^(?!.*os_glance_import_task).*"  # Glance forgets it later
NOBODYS = "99999999-1111-4111-8111-111111111111"
NS = "/v2/metadefs/namespaces"


def image(n):
    return f"{n:08x}-1111-4111-8111-111111111111"


def at(n, more=""):
    return f"/v2/images/{image(n)}{more}"


class Step:
    """A request. @until: asked again until this is in the answer."""

    def __init__(self, method, path, body=None, headers=None, token="one",
                 until=None, label=None):
        self.method, self.path, self.body = method, path, body
        self.headers = dict(headers or {})
        self.token, self.until = token, until
        self.label = label
        if isinstance(body, (dict, list)) and \
                "Content-Type" not in self.headers:
            self.headers.update(JSON)

    def __str__(self):
        if self.label:
            return f"{self.method} {self.label}"
        said = "" if self.body is None else \
            f" {len(self.body)} bytes" if isinstance(self.body, bytes) else \
            " " + str(self.body)
        more = " ".join(f"{k}: {v}" for k, v in self.headers.items()
                        if k != "Content-Type" or not self.body)
        return f"{self.method} {self.path}{said} {more}".replace("|", "/") \
            .replace("`", "'").replace("-1111-4111-8111-111111111111", "") \
            .strip()[:100]


def replace(path, value, op="replace"):
    return [{"op": op, "path": path, "value": value}]


def new(n, token="one", **fields):
    return Step("POST", "/v2/images", {
        "id": image(n), "disk_format": "raw", "container_format": "bare",
        "name": f"i{n}", **fields}, token=token)


def upload(n, token="one", data=DATA, **headers):
    return Step("PUT", at(n, "/file"), data, {**OCTETS, **headers},
                token=token)


def gone(n):
    return Step("DELETE", at(n))


def versions():
    for path in ("/", "/versions", "/versions/", "/v2", "/v2/", "/v1", "/v3/x",
                 "/v2.9", "/v2.9/", "/x", "/v2/x", "/v2/images/x/y/z",
                 "/v2/images/", "//v2/images", "/v2/schemas",
                 "/v2/schemas/nothing", "/v2/info", "/v2/info/nothing",
                 "/v2/metadefs", "/v2/stores", "/healthcheck"):
        yield Step("GET", path)
    for accept in ("application/vnd.openstack.images-v2",
                   "application/vnd.openstack.images-v2.3",
                   "application/vnd.openstack.images-v1",
                   "application/vnd.openstack.images-v2.99",
                   "application/vnd.openstack.images-v9",
                   "application/vnd.openstack.images-x"):
        for path in ("/images", "/", "/v2/images", "/v2"):
            yield Step("GET", path, headers={"Accept": accept})
    for accept in ("*/*", "text/html", "application/json", "text/plain",
                   "application/xml", "application/json, text/plain, */*",
                   "text/html;q=0.5, application/json;q=0.9", "nonsense"):
        for path in (f"/v2/images/{NOBODYS}", "/v2/images?limit=x"):
            yield Step("GET", path, headers={"Accept": accept})
    for method in ("PUT", "DELETE", "PATCH", "POST", "OPTIONS", "HEAD"):
        for path in ("/", "/v2/images", "/v2/schemas/image",
                     "/v2/info/import", at(1, "/file")):
            if (method, path) not in (("POST", "/v2/images"),
                                      ("PUT", at(1, "/file"))):
                yield Step(method, path)


def schemas():
    for name in ("image", "images", "member", "members", "task", "tasks"):
        yield Step("GET", f"/v2/schemas/{name}")
    for name in ("namespace", "object", "property", "resource_type", "tag"):
        yield Step("GET", f"/v2/schemas/metadefs/{name}")
        yield Step("GET", f"/v2/schemas/metadefs/{name}s")
    for name in ("import", "stores", "stores/detail", "usage"):
        yield Step("GET", f"/v2/info/{name}")
    yield Step("GET", "/v2/info/stores/detail", token="boss")


def life():
    yield new(1, tags=["b", "a"], min_disk=1, colour="red")
    yield Step("GET", at(1))
    yield Step("GET", at(1, "/file"))
    yield upload(1)
    yield Step("GET", at(1))
    yield Step("HEAD", at(1))
    yield Step("GET", at(1, "/file"))
    yield Step("HEAD", at(1, "/file"))
    yield upload(1)
    for body in (replace("/name", "x"), replace("/min_ram", 5),
                 replace("/min_ram", "5"), replace("/min_ram", -1),
                 replace("/colour", "blue"), replace("/none", "x"),
                 replace("/none", "x", "add"), replace("/none", 5, "add"),
                 replace("/none", None, "add"),
                 replace("/a~1b", "c", "add"), replace("/a/b", "c", "add"),
                 replace("/a~2b", "c", "add"),
                 [{"op": "remove", "path": "/none"}],
                 [{"op": "remove", "path": "/none"}],
                 [{"op": "remove", "path": "/name"}],
                 [{"op": "remove", "path": "/tags"}],
                 [{"op": "remove", "path": "/id"}],
                 [{"op": "move", "path": "/x", "from": "/y"}],
                 [{"op": "test", "path": "/name", "value": "x"}],
                 [{"path": "/name", "value": "x"}], [{"op": "replace"}],
                 [{"op": "replace", "path": "/name"}],
                 [{"op": "replace", "path": "name", "value": "x"}],
                 [{"op": "replace", "path": "", "value": "x"}],
                 [{"op": "replace", "path": "/", "value": "x"}],
                 [{"op": "replace", "path": "/name/", "value": "x"}],
                 [{"op": "replace", "path": 5, "value": "x"}], [5], {}, "[",
                 "", "5", "null", [], replace("/id", image(2)),
                 replace("/status", "killed"), replace("/size", 5),
                 replace("/checksum", "x"), replace("/created_at", "x"),
                 replace("/self", "x"), replace("/schema", "x"),
                 replace("/file", "x"), replace("/owner", "p2"),
                 replace("/visibility", "public"),
                 replace("/visibility", "community"),
                 replace("/visibility", "nobody"),
                 replace("/visibility", "shared"),
                 replace("/protected", True), replace("/protected", "yes"),
                 replace("/protected", False),
                 replace("/disk_format", "qcow2"),
                 replace("/container_format", "ovf"),
                 replace("/tags", ["x", "x", "y"]), replace("/tags", "x"),
                 replace("/tags", ["x" * 256]), replace("/tags", [5]),
                 replace("/name", "x" * 256), replace("/name", 5),
                 replace("/name", None), replace("/os_hidden", True),
                 replace("/os_hidden", "x"), replace("/os_hidden", False),
                 replace("/os_hash_algo", "x"),
                 replace("/os_glance_x", "x", "add"),
                 replace("/deleted", True), replace("/is_public", True),
                 replace("/location", "x"), replace("/stores", "x", "add"),
                 replace("/direct_url", "x"), replace("/min_disk", 2 ** 31),
                 replace("/min_disk", 2 ** 31 - 1),
                 replace("/min_disk", 1.5), replace("/min_disk", 0),
                 replace("/virtual_size", 5), replace("/name", "é\U0001f600"),
                 replace("/name", "i1")):
        yield Step("PATCH", at(1), body, PATCH)
    for kind in ("application/json", "text/plain", "", PATCH_20[
            "Content-Type"], "application/openstack-images-v2.2-json-patch"):
        yield Step("PATCH", at(1), replace("/name", "y"),
                   {"Content-Type": kind}, label=f"a change as {kind!r}")
    for body in ([{"replace": "/name", "value": "z"}],
                 [{"add": "/name", "value": "z"}], [{"remove": "/colour"}],
                 [{"remove": "/colour", "replace": "/name"}]):
        yield Step("PATCH", at(1), body, PATCH_20)
    for token in ("two", "boss", "r", "one"):
        yield Step("GET", at(1), token=token)
        yield Step("PATCH", at(1), replace("/name", "w"), PATCH, token=token)
        yield Step("GET", at(1, "/file"), token=token)
    yield Step("DELETE", at(1), token="two")
    for action in ("deactivate", "reactivate"):
        for token in ("two", "one", "boss", "boss"):
            yield Step("POST", at(1, f"/actions/{action}"), token=token)
            yield Step("GET", at(1, "/file"), token="one")
    yield Step("POST", at(1, "/actions/explode"))
    yield Step("GET", at(1, "/actions/deactivate"))
    yield Step("PATCH", at(1), replace("/protected", True), PATCH)
    yield gone(1)
    yield Step("PATCH", at(1), replace("/protected", False), PATCH)
    yield gone(1)
    yield gone(1)
    yield from grown()
    yield Step("GET", at(1))
    yield Step("PATCH", at(1), replace("/name", "x"), PATCH)
    yield upload(1)
    yield new(1)


def grown():
    """Properties that are too long for somebody."""
    yield new(4)
    for body in (replace("/" + "p" * 256, "x", "add"),
                 replace("/big", "x" * 70000, "add")):
        yield Step("PATCH", at(4), body, PATCH)
    yield gone(4)


def creating():
    for body in ({}, {"id": "x"}, {"id": image(2).upper()},
                 {"name": 5}, {"name": "x" * 256}, {"disk_format": "x"},
                 {"container_format": "x"}, {"disk_format": "raw"},
                 {"disk_format": None, "container_format": None},
                 {"visibility": "public"}, {"visibility": "x"},
                 {"owner": "p2"}, {"owner": None}, {"min_disk": -1},
                 {"min_disk": "1"}, {"min_ram": 1.0}, {"min_ram": 2 ** 40},
                 {"protected": "x"}, {"tags": "x"}, {"tags": ["x", "x"]},
                 {"tags": [""]}, {"tags": ["x" * 255]},
                 {"tags": ["x" * 256]}, {"tags": [None]}, {"p": 5},
                 {"p": None}, {"p": ["x"]}, {"p": ""}, {"": "x"},
                 {"p" * 255: "x"}, {"p" * 256: "x"}, {"status": "active"},
                 {"size": 5}, {"checksum": "x"}, {"created_at": "x"},
                 {"self": "x"}, {"file": "x"}, {"schema": "x"},
                 {"os_hash_value": "x"}, {"os_glance_x": "y"},
                 {"locations": []}, {"locations": "x"}, {"deleted": True},
                 {"is_public": True}, {"location": "x"}, {"stores": "x"},
                 {"backend": "x"}, {"direct_url": "x"},
                 {"virtual_size": 5}, {"os_hidden": True},
                 {"os_hidden": "true"}, {"img_signature": "x"},
                 {"instance_uuid": image(2), "kernel_id": image(2)},
                 {"kernel_id": "x"}, {"architecture": "x" * 300},
                 {"os_distro": 5}, [], [{}], 5, "5", "", "{", "{}x", "nul",
                 "\"x\"", "{\"name\": \"\\ud800\"}", b"\xff\xfe",
                 "{\"a\": \"b\", \"a\": \"c\"}"):
        yield Step("POST", "/v2/images", str(body) if body == 5 else body,
                   JSON, token="maker")
    for kind in ("text/plain", "application/x-www-form-urlencoded",
                 "application/json; charset=utf-8", "nonsense"):
        yield Step("POST", "/v2/images", "{}", {"Content-Type": kind},
                   token="maker", label=f"an image as {kind}")
    yield Step("POST", "/v2/images", {"id": image(9), "visibility": "public",
                                      "name": "pub"}, token="boss")
    yield Step("DELETE", at(9), token="boss")
    yield Step("POST", "/v2/images")


def data():
    yield new(10)
    for kind in ("application/json", "text/plain", "", "application/x-gzip"):
        yield Step("PUT", at(10, "/file"), DATA, {"Content-Type": kind},
                   label=f"data as {kind!r}")
    yield Step("PUT", at(10, "/file"), DATA, label="data as nothing")
    yield upload(10, "two")
    yield upload(10, "one", DATA, **{"X-Image-Meta-Store": "none"})
    yield upload(10, "one", DATA, **{"X-Image-Meta-Store": "http"})
    yield upload(10, "one", DATA, **{"x-openstack-image-size": "5"})
    yield upload(10, "one", DATA, **{"X-Image-Meta-Store": "second"})
    yield Step("GET", at(10))
    for r in ("bytes=0-9", "bytes=10-", "bytes=-10", "bytes=0-", "bytes=9-5",
              "bytes=10240-", "bytes=10239-", "bytes=0-999999", "bytes=-0",
              "bytes=-999999", "bytes=0-1,3-4", "bytes=", "bytes=x-y",
              "octets=0-9", "bytes 0-9", "bytes=5", "bytes=-", "0-9",
              "bytes=0-9, ", " bytes=0-9", "bytes=99999999999999999999-",
              "bytes = 0-9", "Bytes=0-9"):
        yield Step("GET", at(10, "/file"), headers={"Range": r})
    for r in ("bytes 0-9/*", "bytes 0-9/10240", "bytes 10-/*", "bytes 9-5/*",
              "bytes 10240-10241/*", "bytes 0-99999/*", "bytes */10240",
              "bytes=0-9", "x", "bytes 0-9", "bytes 0-9/5"):
        yield Step("GET", at(10, "/file"), headers={"Content-Range": r})
    yield Step("GET", at(10, "/file"), headers={
        "Range": "bytes=0-1", "Content-Range": "bytes 5-6/*"})
    yield Step("GET", at(10, "/file"), headers={
        "Range": "bytes=0-9", "If-Range": "x"})
    yield Step("GET", at(10, "/file"), headers={"If-None-Match": "*"})
    yield Step("GET", at(10, "/file"), headers={"Accept": "text/plain"})
    yield Step("DELETE", at(10, "/file"))
    yield Step("POST", at(10, "/file"), DATA)
    yield new(11)
    yield upload(11, "one", b"")
    yield Step("GET", at(11))
    yield Step("GET", at(11, "/file"))
    yield Step("GET", at(11, "/file"), headers={"Range": "bytes=0-9"})
    yield Step("POST", "/v2/images", {"id": image(12)})
    yield upload(12)
    yield Step("POST", "/v2/images", {"id": image(13),
                                      "disk_format": "qcow2"})
    yield upload(13)
    for n in (14, 15):
        yield new(n, disk_format="qcow2")
    yield upload(14, "one", b"QFI\xfb not really" + bytes(600))
    yield upload(15, "one", bytes(4096))
    yield Step("GET", f"/v2/images/{NOBODYS}/file")
    yield Step("PUT", f"/v2/images/{NOBODYS}/file", DATA, OCTETS)
    for n in (10, 11, 12, 13, 14, 15):
        yield gone(n)


def hangers():
    yield new(20)
    for tag in ("x", "x", "a%20b", "x" * 255, "x" * 256, ""):
        yield Step("PUT", at(20, f"/tags/{tag}"))
    yield Step("GET", at(20))
    for tag in ("x", "x", "none"):
        yield Step("DELETE", at(20, f"/tags/{tag}"))
    yield Step("GET", at(20, "/tags/x"))
    yield Step("GET", at(20, "/tags"))
    yield Step("PUT", at(20, "/tags/y"), token="two")
    yield Step("PUT", f"/v2/images/{NOBODYS}/tags/y")
    for body in ({"member": "p2"}, {"member": "p2"}, {"member": ""}, {}, [],
                 "x", "",
                 {"member": "p3", "more": "x"}, {"members": "p3"}, "null"):
        yield Step("POST", at(20, "/members"), body, JSON)
    yield Step("GET", at(20, "/members"))
    yield Step("GET", at(20, "/members"), token="two")
    for token in ("one", "two", "boss", "r"):
        yield Step("GET", at(20, "/members/p2"), token=token)
        yield Step("GET", at(20, "/members/none"), token=token)
    for body in ({"status": "accepted"}, {"status": "x"}, {"status": 5}, {},
                 [], "x", {"status": "rejected", "more": 1},
                 {"status": "pending"}):
        yield Step("PUT", at(20, "/members/p2"), body, JSON, token="two")
    yield Step("PUT", at(20, "/members/p2"), {"status": "accepted"})
    yield Step("PUT", at(20, "/members/p2"), {"status": "accepted"},
               token="boss")
    yield Step("PUT", at(20, "/members/p4"), {"status": "accepted"},
               token="two")
    yield Step("GET", at(20), token="two")
    for query in ("", "?visibility=shared", "?member_status=all",
                  "?member_status=rejected", "?member_status=x",
                  "?visibility=shared&member_status=accepted"):
        yield Step("GET", f"/v2/images{query}", token="two",
                   label=f"the member's list {query}")
    yield Step("DELETE", at(20, "/members/p2"), token="two")
    yield Step("DELETE", at(20, "/members/p2"))
    yield Step("DELETE", at(20, "/members/p2"))
    yield Step("GET", f"/v2/images/{NOBODYS}/members")
    yield Step("PATCH", at(20), replace("/visibility", "private"), PATCH)
    yield Step("POST", at(20, "/members"), {"member": "p2"})
    yield Step("GET", at(20, "/members"))
    yield gone(20)
    yield new(21)
    for tag in ("%C3%A9", "a%2Fb"):
        yield Step("PUT", at(21, f"/tags/{tag}"))
    yield Step("GET", at(21), label="tags in UTF-8 and with a slash")
    for member in (5, "x" * 256):
        yield Step("POST", at(21, "/members"), {"member": member})
    yield gone(21)


def lists():
    for n in range(30, 36):
        yield new(n, name=f"list{n % 3}", colour="red" if n % 2 else "blue",
                  tags=["t1"] if n < 33 else ["t1", "t2"], min_ram=n,
                  disk_format="qcow2" if n == 35 else "raw")
    yield upload(30)
    yield upload(31, "one", DATA * 2)
    mine = "colour=red&sort=min_ram:asc"
    for query in (mine, mine + "&limit=2",
                  mine + f"&limit=2&marker={image(31)}",
                  mine + f"&marker={image(35)}", "marker=x",
                  f"marker={NOBODYS}", "limit=0", "limit=-1", "limit=x",
                  "limit=", "limit=99999&name=none",
                  "limit=99999999999999999999&name=none",
                  *[f"sort_key={k}&sort_dir=asc&name=in:list0,list1"
                    "&sort_key=min_ram&sort_dir=asc"
                    for k in ("name", "status", "container_format",
                              "disk_format", "size", "id")],
                  "sort_key=x", "sort_key=tags", "sort_dir=up",
                  "sort=x", "sort=name:up", "sort=name:&name=none",
                  "sort=&name=none",
                  "sort=name,id:asc&name=none",
                  "sort=name&sort_key=name", "sort=name&sort_dir=asc",
                  "sort_dir=asc&sort_dir=desc&sort_key=name&name=none",
                  "sort_key=name&sort_key=name&name=none",
                  "name=list1&sort=min_ram", "name=in:list1,list2&sort=id",
                  "name=in:%22list1%22,list0&sort=id", "name=in:&tag=none",
                  "name=in:%22list1", "id=in:" + image(30), "id=x",
                  "status=queued&name=list0", "status=in:queued,active&"
                  "name=list0&sort=id", "status=x", "tag=t1&tag=t2&sort=id",
                  "tag=none", "tag=", "visibility=x", "visibility=private",
                  "visibility=all&name=list0&sort=id", "visibility=",
                  "protected=x", "protected=true", "protected=TRUE",
                  "protected=false&name=list0&sort=id", "is_public=true",
                  "size_min=1&sort=size:asc", "size_max=10240", "size_min=x",
                  "size_min=-1", "size_max=0", "size=10240",
                  "min_ram=30", "min_ram=x", "min_ram_min=34", "min_disk=0"
                  "&name=list0&sort=id", "owner=p1&name=list1&sort=id",
                  "owner=p2", "owner=", "os_hidden=true", "os_hidden=x",
                  "os_hidden=false&name=list0&sort=id", "deleted=true",
                  "changes-since=2001-01-01T00:00:00Z&name=none",
                  "created_at=gt:2001-01-01T00:00:00Z&name=list1&sort=id",
                  "created_at=lt:2001-01-01T00:00:00Z", "created_at=x",
                  "created_at=gt:x", "created_at=gte:2001-01-01&name=list1"
                  "&sort=id", "updated_at=neq:2001-01-01T00:00:00Z&name="
                  "list2&sort=id", "created_at=in:2001-01-01T00:00:00Z",
                  "created_at=2001-01-01T00:00:00Z", "checksum=x",
                  "disk_format=in:qcow2,raw&name=list0&sort=id",
                  "disk_format=qcow2&colour=red", "container_format=x",
                  "none=x", "colour=red&colour=blue", "property-x=y",
                  "name=list0&name=list1", "name=%ff", "x" * 300 + "=y",
                  "name", "=x", "&&name=none", "name=list1&sort=id&", "%6eame=list1"
                  "&sort=id", "filters=x", "member_status=accepted",
                  "image_id=x", "fields=name", "self=x", "file=x",
                  "schema=x", "locations=x", "created_at=eq:x"):
        yield Step("GET", f"/v2/images?{query}")
    for n in range(30, 36):
        yield gone(n)


def locations():
    yield new(40)
    value = {"url": "http://<web>/disk", "metadata": {}}
    for body in (replace("/locations", [], "add"),
                 replace("/locations", [value, value]),
                 replace("/locations", [{"url": "http://<web>/none",
                                         "metadata": {}}]),
                 replace("/locations", [{"url": "file:///etc/passwd",
                                         "metadata": {}}]),
                 replace("/locations", [{"url": "x", "metadata": {}}]),
                 replace("/locations", [{"url": "swift://x/y",
                                         "metadata": {}}]),
                 replace("/locations", [{"url": 5, "metadata": {}}]),
                 replace("/locations", [{"metadata": {}}]),
                 replace("/locations", [{"url": "http://<web>/disk"}]),
                 replace("/locations", [{"url": "http://<web>/disk",
                                         "metadata": "x"}]),
                 replace("/locations", "x"), replace("/locations", {}),
                 replace("/locations/-", value, "add"),
                 replace("/locations/-", value, "add"),
                 replace("/locations/5", value, "add"),
                 replace("/locations/x", value, "add"),
                 replace("/locations/0", value),
                 [{"op": "remove", "path": "/locations/5"}],
                 [{"op": "remove", "path": "/locations/x"}]):
        yield Step("PATCH", at(40), body, PATCH)
    yield Step("GET", at(40))
    yield Step("GET", at(40, "/file"))
    yield Step("GET", at(40, "/file"), headers={"Range": "bytes=5-9"})
    yield Step("PATCH", at(40), replace("/locations", []), PATCH, "two")
    yield Step("PATCH", at(40), replace("/locations", []), PATCH, "r")
    yield Step("PATCH", at(40), [{"op": "remove", "path": "/locations/0"}],
               PATCH)
    yield Step("GET", at(40))
    yield Step("PATCH", at(40), replace("/locations", [value]), PATCH)
    yield Step("POST", at(40, "/import"), {
        "method": {"name": "copy-image"}, "stores": ["second"]},
        token="boss", label="a copy of what a web server has")
    yield Step("GET", at(40, "/tasks"), token="boss",
               until="success|failure", label="that copy's tasks")
    yield Step("GET", at(40), until=DONE, label="what came of that copy")
    yield Step("DELETE", f"/v2/stores/http/{image(40)}", token="boss")
    yield gone(40)
    yield new(41)
    yield upload(41)
    yield Step("PATCH", at(41), replace("/locations/-", value, "add"), PATCH)
    yield Step("PATCH", at(41), [{"op": "remove", "path": "/locations/0"}],
               PATCH)
    yield Step("GET", at(41))
    yield gone(41)


def stores():
    yield new(50)
    yield upload(50)
    for store in ("none", "second", "http"):
        yield Step("DELETE", f"/v2/stores/{store}/{image(50)}", token="boss")
    yield Step("DELETE", f"/v2/stores/file/{NOBODYS}", token="boss")
    yield Step("DELETE", f"/v2/stores/file/{image(50)}", token="two")
    yield Step("DELETE", f"/v2/stores/file/{image(50)}", token="one")
    yield Step("DELETE", f"/v2/stores/file/{image(50)}", token="boss")
    for body in ({"method": {"name": "copy-image"}, "stores": ["none"]},
                 {"method": {"name": "copy-image"}, "stores": ["file"]},
                 {"method": {"name": "copy-image"}, "stores": []},
                 {"method": {"name": "copy-image"}, "stores": "x"},
                 {"method": {"name": "copy-image"}},
                 {"method": {"name": "copy-image"}, "all_stores": True,
                  "stores": ["second"]},
                 {"method": {"name": "copy-image"}, "all_stores": "x"},
                 {"method": {"name": "glance-direct"}},
                 {"method": {"name": "none"}}, {"method": {}},
                 {"method": "copy-image"}, {}, [], "x", "",
                 {"method": {"name": "web-download"}},
                 {"method": {"name": "web-download", "uri": "x"}},
                 {"method": {"name": "web-download", "uri": 5}},
                 {"method": {"name": "copy-image"}, "stores": ["second"],
                  "all_stores_must_succeed": "x"}):
        yield Step("POST", at(50, "/import"), body, JSON)
    yield Step("POST", at(50, "/import"), {
        "method": {"name": "copy-image"}, "stores": ["second"]}, token="two")
    yield Step("POST", at(50, "/import"), {
        "method": {"name": "copy-image"}, "stores": ["second"]},
        token="boss", label="a copy")
    yield Step("GET", at(50), until=DONE + '"stores": "[a-z,]*second',
               label="the copied")
    yield Step("GET", at(50, "/tasks"), label="the copy's tasks, the owner's")
    yield Step("GET", at(50, "/tasks"), token="boss", until="success",
               label="the copy's tasks")
    yield Step("DELETE", f"/v2/stores/file/{image(50)}", token="boss")
    yield Step("GET", at(50), label="what is left")
    yield Step("DELETE", f"/v2/stores/second/{image(50)}", token="boss")
    yield gone(50)


def imports():
    yield new(60)
    yield Step("POST", at(60, "/import"), {"method": {
        "name": "glance-direct"}})
    yield Step("PUT", at(60, "/stage"), DATA, JSON)
    yield Step("PUT", at(60, "/stage"), DATA, OCTETS, token="two")
    yield Step("PUT", at(60, "/stage"), DATA, OCTETS)
    yield Step("GET", at(60), label="the staged")
    yield Step("PUT", at(60, "/stage"), DATA, OCTETS)
    yield Step("GET", at(60, "/file"))
    yield Step("GET", at(60, "/stage"))
    yield upload(60)
    yield Step("POST", at(60, "/import"), {
        "method": {"name": "web-download", "uri": "http://<web>/disk"}})
    yield Step("POST", at(60, "/import"), {
        "method": {"name": "glance-direct"}}, label="an import")
    yield Step("GET", at(60), until=DONE + '"status": "active"',
               label="the imported")
    yield Step("GET", at(60, "/tasks"), until="success",
               label="the import's tasks")
    yield Step("POST", at(60, "/import"), {"method": {
        "name": "glance-direct"}})
    yield Step("GET", at(60, "/tasks"), token="two")
    yield gone(60)
    yield Step("GET", at(60, "/tasks"))
    yield Step("POST", "/v2/images", {"id": image(61)})
    yield Step("POST", at(61, "/import"), {
        "method": {"name": "web-download", "uri": "http://<web>/disk"}})
    yield Step("PATCH", at(61), replace("/disk_format", "raw", "add") +
               replace("/container_format", "bare", "add"), PATCH)
    for uri in ("http://<web>/disk/", "ftp://<web>/disk", "http://<web>:1/x",
                "http:///x", "http://127.0.0.1:1/x", "file:///etc/passwd"):
        yield Step("POST", at(61, "/import"), {
            "method": {"name": "web-download", "uri": uri},
            "stores": ["none"] if uri.endswith("/") else ["second"]})
    yield Step("POST", at(61, "/import"), {
        "method": {"name": "web-download", "uri": "http://<web>/disk"}},
        label="a download")
    yield Step("GET", at(61), until=DONE + '"status": "active"',
               label="the downloaded")
    yield gone(61)


def tasks():
    download = {"type": "import", "input": {
        "import_from": "http://<web>/disk", "import_from_format": "raw",
        "image_properties": {"disk_format": "raw",
                             "container_format": "bare"}}}
    yield Step("GET", "/v2/tasks")
    yield Step("POST", "/v2/tasks", download)
    for body in ({}, [], "x", "", {"type": "import"}, {"type": "x",
                 "input": {}}, {"type": "import", "input": {}},
                 {"type": "import", "input": "x"},
                 {"type": "import", "input": {"import_from": "x"}},
                 {"type": "api_image_import", "input": {}},
                 {**download, "status": "success"},
                 {**download, "more": "x"}):
        yield Step("POST", "/v2/tasks", body, JSON, token="boss")
    for query in ("?limit=x", "?sort_key=x", "?sort_dir=x", "?marker=x",
                  "?status=x", "?type=x", "?limit=0", "?x=y&limit=0",
                  f"?marker={NOBODYS}"):
        yield Step("GET", f"/v2/tasks{query}", token="boss")
    yield Step("GET", f"/v2/tasks/{NOBODYS}", token="boss")
    yield Step("GET", "/v2/tasks/x", token="boss")
    yield Step("DELETE", f"/v2/tasks/{NOBODYS}", token="boss")
    yield Step("PUT", "/v2/tasks", {}, token="boss")
    yield Step("PATCH", f"/v2/tasks/{NOBODYS}", {}, token="boss")


def definitions():
    types = "/v2/metadefs/resource_types"
    yield Step("GET", types)
    yield Step("GET", NS)
    for body in ({"namespace": "N", "display_name": "n", "description": "d",
                  "visibility": "public"}, {"namespace": "N"}, {},
                 {"namespace": 5}, {"namespace": "x" * 81},
                 {"namespace": "N2", "visibility": "x"},
                 {"namespace": "N2", "protected": "x"},
                 {"namespace": "N2", "more": 1}, [], "x", "", "null",
                 {"namespace": "N2", "owner": "p2"},
                 {"namespace": "N3", "protected": True},
                 {"namespace": "W", "objects": [
                     {"name": "o", "properties": {"p": {
                         "title": "t", "type": "integer", "minimum": 5}}}],
                  "properties": {"q": {"title": "q", "type": "string"}},
                  "tags": [{"name": "t"}], "resource_type_associations": [
                      {"name": "OS::Glance::Image", "prefix": "x_"}]},
                 {"namespace": "W2", "objects": "x"},
                 {"namespace": "W2", "properties": []},
                 {"namespace": "W2", "tags": ["x"]}):
        yield Step("POST", NS, body, JSON, token="boss")
    yield Step("POST", NS, {"namespace": "mine"})
    for name in ("N", "N2", "W", "none", "a%2Fb"):
        yield Step("GET", f"{NS}/{name}")
    yield Step("GET", f"{NS}/W", token="boss")
    yield Step("GET", f"{NS}/W?resource_type=OS::Glance::Image", token="boss")
    for query in ("", "?limit=1", "?limit=1&marker=N2", "?marker=none",
                  "?limit=x", "?limit=0", "?sort_key=x", "?sort_dir=x",
                  "?sort_key=namespace&sort_dir=asc", "?visibility=public",
                  "?visibility=x", "?resource_types=OS::Glance::Image",
                  "?resource_types=none", "?x=y", "?owner=p0"):
        yield Step("GET", f"{NS}{query}", token="boss")
    for body in ({"namespace": "N", "description": "new"},
                 {"namespace": "N2"}, {"description": "x"}, {}, [], "x",
                 {"namespace": "N", "visibility": "private"},
                 {"namespace": "N", "visibility": "public"}):
        yield Step("PUT", f"{NS}/N", body, JSON, token="boss")
    yield Step("PUT", f"{NS}/N", {"namespace": "N"})
    yield Step("PUT", f"{NS}/none", {"namespace": "none"}, token="boss")
    yield from associations()
    yield from parts()
    yield Step("DELETE", f"{NS}/N3", token="boss")
    yield Step("DELETE", f"{NS}/N")
    for name in ("N", "N", "N2", "W"):
        yield Step("DELETE", f"{NS}/{name}", token="boss")
    yield Step("POST", NS, {"namespace": ""}, token="boss")


def associations():
    where = f"{NS}/N/resource_types"
    for body in ({"name": "OS::Nova::Flavor", "prefix": "p",
                  "properties_target": "t"}, {"name": "OS::Nova::Flavor"},
                 {"name": "My::Type"}, {}, {"name": 5},
                 {"name": "x" * 81}, {"name": "a", "more": 1}, [], "x"):
        yield Step("POST", where, body, JSON, token="boss")
    yield Step("GET", where)
    yield Step("GET", f"{NS}/none/resource_types")
    for name in ("My::Type", "My::Type", "none"):
        yield Step("DELETE", f"{where}/{name}", token="boss")
    yield Step("POST", where, {"name": "b"})
    yield Step("GET", "/v2/metadefs/resource_types")
    yield Step("POST", where, {"name": ""}, token="boss")


def parts():
    """Objects, properties, tags."""
    bodies = {
        "objects": ({"name": "a", "description": "d", "required": ["p"],
                     "properties": {"p": {"title": "t", "type": "string",
                                          "default": "x"}}},
                    {"name": "a"}, {"name": "b"}, {},
                    {"name": "x" * 81}, {"name": 5}, {"name": "c", "more": 1},
                    {"name": "c", "properties": "x"},
                    {"name": "c", "properties": {"p": {"type": "x"}}},
                    [], "x", ""),
        "properties": ({"name": "a", "title": "t", "type": "integer",
                        "minimum": 1, "maximum": 5, "default": 3},
                       {"name": "a", "title": "t", "type": "string"},
                       {"name": "b", "title": "t", "type": "string",
                        "enum": ["x"], "operators": ["<or>"]},
                       {"name": "c"}, {"name": "c", "title": "t"},
                       {"name": "c", "title": "t", "type": "x"},
                       {"name": "x" * 81, "title": "t", "type": "string"},
                       {"name": "d", "title": "t", "type": "array",
                        "items": {"type": "string"}, "uniqueItems": True},
                       {"name": "c", "title": "t", "type": "string",
                        "minLength": -1},
                       {"name": "c", "title": "t", "type": "string",
                        "more": 1}, {}, [], "x", "")}
    for kind, made in bodies.items():
        where = f"{NS}/N/{kind}"
        for body in made:
            yield Step("POST", where, body, JSON, token="boss")
        yield Step("POST", where, made[0])
        yield Step("GET", where)
        for name in ("a", "none"):
            yield Step("GET", f"{where}/{name}")
            yield Step("PUT", f"{where}/{name}",
                       {**made[0], "description": "new"}, token="boss")
            yield Step("PUT", f"{where}/{name}", {**made[0], "name": "b"},
                       token="boss")
            yield Step("DELETE", f"{where}/{name}", token="boss")
        yield Step("GET", f"{where}?limit=1", token="boss")
        yield Step("GET", f"{where}?limit=x", token="boss")
        yield Step("DELETE", where)
        yield Step("DELETE", where, token="boss")
    yield Step("POST", f"{NS}/N/objects", {"name": ""}, token="boss")
    where = f"{NS}/N/tags"
    for body in ({"tags": [{"name": "x"}, {"name": "y"}]},
                 {"tags": [{"name": "x"}, {"name": "x"}]}, {"tags": "x"},
                 {"tags": ["x"]}, {}, {"tags": [{}]}, [], "x",
                 {"tags": [{"name": "x" * 81}]},
                 {"tags": []}, {"tags": [{"name": "z"}, {"name": "y"}]}):
        yield Step("POST", where, body, JSON, token="boss")
    for name in ("a", "a", "x" * 80, "x" * 81):
        yield Step("POST", f"{where}/{name}", token="boss")
    yield Step("GET", f"{where}/a")
    yield Step("GET", f"{where}/none")
    yield Step("GET", where)
    for query in ("?limit=1", "?sort_key=x", "?sort_dir=asc", "?marker=none",
                  "?limit=1&marker=y"):
        yield Step("GET", where + query)
    for body in ({"name": "b"}, {"name": "y"}, {}, {"name": "x" * 81}, "x"):
        yield Step("PUT", f"{where}/a", body, JSON, token="boss")
    yield Step("DELETE", f"{where}/none", token="boss")
    yield Step("DELETE", f"{where}/b")
    yield Step("DELETE", f"{where}/b", token="boss")
    yield Step("DELETE", where, token="boss")


def readers():
    yield Step("POST", "/v2/images", {}, token="r")
    yield new(70)
    yield Step("PUT", at(70, "/tags/y"), token="r")
    yield Step("POST", at(70, "/members"), {"member": "p3"})
    yield Step("GET", at(70, "/members"), token="r")
    yield Step("POST", at(70, "/members"), {"member": "p2"}, token="r")
    yield upload(70, "r")
    yield Step("DELETE", at(70), token="r")


def steps():
    for part in (versions, schemas, life, creating, data, hangers, lists,
                 locations, stores, imports, tasks, definitions, readers):
        yield from part()

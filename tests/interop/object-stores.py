#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images in object stores: a real Swift, by its own dialect and by S3's, and the
signatures that S3 checks. glance:// is platter's own service."""

import json
import os
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from bad_web import BadWeb  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from keystone import PASSWORD, Keystone  # noqa: E402
from nbd import Client  # noqa: E402
from server import Server, environment, run  # noqa: E402
from swift import KEY, USER, Swift, free_port  # noqa: E402

MIB = 1 << 20
SIZE = 5 * MIB + 512
KEYS = f"{USER.replace(':', '%3a')}:{KEY}"


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.data = b"".join(b"%015d\n" % i for i in range(SIZE // 16))
        self.credentials = self.at("credentials")

    def at(self, name):
        return os.path.join(self.folder, name)

    def have(self, *lines):
        with open(self.credentials, "w") as f:
            f.write("".join(f"{line}\n" for line in lines))
        os.chmod(self.credentials, 0o600)

    def copy(self, url, *options):
        """(status, messages) of a copy, which is equal where it is 0."""
        out = self.at("out.raw")
        status, _, err = run([
            os.environ["PLATTER"], "convert", "--quiet", "--overwrite", "-f",
            "raw", "-O", "raw", "--credentials", self.credentials,
            "--remote-timeout", "5", *options, url, out], ok=None)
        if not status:
            with open(out, "rb") as f:
                is_true(f.read() == self.data, f"{url} is another disk")
        return status, err

    def is_equal(self, url, *options):
        is_equal(self.copy(url, *options), (0, ""), f"the copy of {url}")


def s3_is_signed_as_swift_checks_it(c):
    c.swift.put("disks", None)
    for key in ("disk.raw", "a/b c~+é&=@.raw", "100%"):
        name = urllib.parse.quote(key)
        c.swift.put(f"disks/{name}", c.data)
        c.have(f"s3://disks/ s3 {KEYS} endpoint={c.swift.url}")
        c.is_equal(f"s3://disks/{name}")
    c.have(f"s3 {KEYS} endpoint={c.swift.url}/ region=us-east-1")
    c.is_equal("s3://disks/disk.raw")
    c.is_equal("s3://disks/a/b%20c~+%c3%a9&=@.raw")
    c.have(f"{c.swift.url}/disks/ s3 {KEYS}")
    c.is_equal(f"{c.swift.url}/disks/disk.raw")
    for line, said in (
            (f"s3 {KEYS}x endpoint={c.swift.url}", "access is denied"),
            (f"s3 no:{KEY} endpoint={c.swift.url}", "access is denied"),
            (f"s3 {KEYS} endpoint={c.swift.url} region=elsewhere", "answers 4"),
            (f"s3 {KEYS} endpoint=ftp://x", "endpoint: it is not of http"),
            (f"s3://other/ s3 {KEYS} endpoint={c.swift.url}", ""),
            ("s3 secret", "a line is not"),
            (f"s3 {KEYS} endpoint={c.swift.url} color=red", "a line is not")):
        c.have(line)
        status, err = c.copy("s3://disks/disk.raw", "--remote-timeout", "1")
        is_true(status == 1 and said in err and KEY not in err,
                f"{line}: {status}, {err}")
    c.have(f"s3 {KEYS} endpoint={c.swift.url}")
    for url, said in (("s3://disks/none", "there is no such file"),
                      ("s3://disks/", "is not SCHEME://CONTAINER/OBJECT"),
                      ("s3://disks/x?y", "is not SCHEME://CONTAINER/OBJECT"),
                      ("s3://me:you@disks/x", "is not SCHEME://"),
                      ("s3://disks:80/x", "has no port")):
        status, err = c.copy(url)
        is_true(status == 1 and said in err, f"{url}: {status}, {err}")


def a_bucket_can_be_a_part_of_the_host(c):
    """localhost is, with anything before it; the answer is not Swift's."""
    with BadWeb(c.data) as web:
        c.have(f"s3 A:S:T endpoint=http://localhost:{web.port} style=host "
               "region=far")
        c.copy("s3://bucket/good/disk", "--proxy",
               f"http://127.0.0.1:{web.port}", "--remote-timeout", "1")
        h = web.asked[0][3]
        is_equal(h["Host"], f"bucket.localhost:{web.port}", "the host")
        is_true(h["Authorization"].startswith(
            "AWS4-HMAC-SHA256 Credential=A/") and "/far/s3/aws4_request" in
            h["Authorization"], h["Authorization"])
        is_equal(h["x-amz-security-token"], "T", "the session")


def redirects_take_no_signature_along(c):
    with BadWeb(c.data) as web, BadWeb(c.data, "127.0.0.2") as other:
        web.to = other.url("good")
        c.have(f"s3 A:S:T endpoint={web.url('moved', '')}")
        c.is_equal("s3://x/y", "--allow", other.url("good"))
        sent = {k.lower() for a in other.asked for k in a[3]}
        is_true(not sent & {"authorization", "x-amz-date",
                            "x-amz-security-token"}, f"{sent}")


def swift_takes_tokens_and_new_ones(c):
    line = f"swift://disks/ token {{}} endpoint={c.swift.storage}"
    c.have(line.format(c.swift.token()))
    c.is_equal("swift://disks/disk.raw")
    with Server("swift://disks/disk.raw", fmt="raw", more=[
            "--credentials", c.credentials]) as s:
        n = Client(s.socket)
        n.go()
        is_equal(n.read(0, 512), (0, c.data[:512]), "the first sector")
        c.swift.forget_tokens()
        is_true(n.read(MIB, 512)[0] != 0, "it is read without a right")
        c.have(line.format(c.swift.token()))
        is_equal(n.read(MIB, 512), (0, c.data[MIB:MIB + 512]), "a sector")
    status, err = c.copy("swift://Disks/disk.raw")
    is_true(status == 1 and "where is its store?" in err, err)


def what_lies_in_a_bucket_lies_beside(c):
    """A qcow2 in the bucket, over a raw disk there; kept in a cache."""
    top = c.at("top.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "disk.raw",
         "-F", "raw", top, str(SIZE)])
    with open(top, "rb") as f:
        c.swift.put("disks/top.qcow2", f.read())
    c.have(f"s3://disks/ s3 {KEYS} endpoint={c.swift.url}")
    out = c.at("out.raw")
    for _ in range(2):
        run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite", "-O",
             "raw", "--credentials", c.credentials, "--cache-dir",
             c.at("cache"), "s3://disks/top.qcow2", out])
        with open(out, "rb") as f:
            is_true(f.read() == c.data, "it is another disk")
    said = run([os.environ["PLATTER"], "cache", "list", "--cache-dir",
                c.at("cache")])[1]
    is_equal(said.count("/disks/"), 2, f"what is kept ({said})")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
         "s3://disks/disk.raw", "-F", "raw", top, str(SIZE)])
    err = run([os.environ["PLATTER"], "info", "--credentials", c.credentials,
               top], ok=None)
    is_true("is not permitted" in "".join(err[1:]), f"it was opened: {err}")
    run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite", "-O",
         "raw", "--credentials", c.credentials, "--allow", "s3://disks/", top,
         out])
    with open(out, "rb") as f:
        is_true(f.read() == c.data, "it is another disk")


def image_of(g, name, data, **more):
    i = g.request("POST", "/v2/images", {
        "name": name, "disk_format": "raw", "container_format": "bare", **more})
    image = i.json["id"]
    is_equal(g.request("PUT", f"/v2/images/{image}/file", data, {
        "Content-Type": "application/octet-stream"}).status, 204, name)
    return image


def a_trace_in_the_service_is_replayed(c, g, image):
    """Another image, which a property names; what is none is told."""
    trace = image_of(g, "trace", b"platter-trace 1\n# padded" + b"." * 600 +
                     f"\nbytes {SIZE}\n{MIB} 512\n{3 * MIB} 512\n".encode())
    for value, said in ((None, None), (trace, None), ("x", "is not an image"),
                        (image, "has over")):
        if value:
            status = g.request("PATCH", f"/v2/images/{image}", [
                {"op": "add", "path": "/platter_trace", "value": value}], {
                    "Content-Type": "application/openstack-images-v2.1-json-"
                    "patch"}).status
            is_equal(status, 200, "the property")
        folder = c.at(f"traced-{value}")
        with Server(f"glance://{image}", fmt="raw", more=[
                "--credentials", c.credentials, "--cache-dir", folder]) as s:
            until = time.monotonic() + 60
            want = MIB // 2 if value == trace else 0
            while (kept(folder) < want or
                   (said and said not in s.messages())):
                is_true(time.monotonic() < until,
                        f"{value}: {kept(folder)} kept, {s.messages()}")
                time.sleep(0.05)
            if not said:
                is_equal(s.messages(), "", "what was said")


def another_image_is_not_kept(c, g):
    """Its data were changed behind the service's back: it has no right digest."""
    image = changed = image_of(g, "changed", c.data)
    for name in (image, None):
        folder = c.at(f"checked-{name}")
        if name:
            for at, _, names in os.walk(g.store):
                for n in names:
                    if n.startswith(image) and os.path.getsize(
                            os.path.join(at, n)) == SIZE:
                        path = os.path.join(at, n)
            with open(path, "r+b") as f:
                f.seek(MIB)
                f.write(b"changed")
        else:
            image = image_of(g, "good", c.data)
        with Server(f"glance://{image}", fmt="raw", more=[
                "--credentials", c.credentials, "--cache-dir", folder,
                "--fill", "on"]) as s:
            until = time.monotonic() + 60
            while (kept(folder) < SIZE if not name
                   else "nothing of it is kept" not in s.messages()):
                is_true(time.monotonic() < until,
                        f"{kept(folder)}, {s.messages()}")
                time.sleep(0.05)
            with Client(s.socket) as n:
                n.go()
                is_equal(n.read(0, 512), (0, c.data[:512]), "a read")
            if name:
                said = s.messages()
                is_true("sha512 is not" in said and said.count("\n") == 0, said)
        is_equal(kept(folder), 0 if name else SIZE, "what is kept")
    for image, want in ((changed, 1), (image, 0)):
        folder = c.at(f"warmed-{want}")
        status, _, err = run([
            os.environ["PLATTER"], "cache", "warm", "-q", "--credentials",
            c.credentials, "--cache-dir", folder, "-f", "raw",
            f"glance://{image}"], ok=None)
        is_true(status == want and ("is not" in err) == bool(want),
                f"the warming: {status}, {err}")
        is_equal(kept(folder), 0 if want else SIZE, "what is kept")


def kept(folder):
    out = run([os.environ["PLATTER"], "cache", "list", "--json", "--cache-dir",
               folder], ok=None)[1]
    return sum(o["kept"] for o in json.loads(out)["objects"]) if out else 0


def an_image_service_gives_images_by_id(c):
    """Kept by its id, though no answer tells a version."""
    port = free_port()
    with Glance(f"glance=127.0.0.1:{port}", tcp=port) as g:
        image = image_of(g, "d", c.data)
        c.have("swift:// token x endpoint=http://127.0.0.1:1",
               f"glance:// token x endpoint=http://127.0.0.1:{port}")
        c.is_equal(f"glance://{image}")
        c.have(f"token x endpoint=http://127.0.0.1:{port}")
        c.is_equal(f"glance://{image}", "--cache-dir", c.at("glances"))
        said = run([os.environ["PLATTER"], "cache", "list", "--cache-dir",
                    c.at("glances")])[1]
        is_true("100%" in said, said)
        a_trace_in_the_service_is_replayed(c, g, image)
        another_image_is_not_kept(c, g)
        for url, text in ((f"glance://{image}/x", "is not glance://ID"),
                          ("glance://none", "there is no such file")):
            status, err = c.copy(url)
            is_true(status == 1 and text in err, f"{url}: {err}")


def keystone_gives_tokens_and_new_ones(c):
    """A store that takes each token six times, of a real Keystone's catalogue."""
    with BadWeb(c.data) as web, Keystone(web.url("fickle", "")) as k:
        user = f"glance:// keystone admin:{PASSWORD} auth={k.url}/v3"
        c.have(f"{user} project=admin region=RegionOne")
        with Server("glance://some-id", fmt="raw", more=[
                "--credentials", c.credentials, "--export",
                "two=glance://some-id"]) as s:
            n = Client(s.socket)
            n.go()
            for off in range(0, SIZE - 512, MIB // 4):
                is_equal(n.read(off, 512), (0, c.data[off:off + 512]),
                         f"what is at {off}")
        tokens = web.states["fickle"]
        is_true(len(tokens) >= 4, f"{len(tokens)} tokens")
        is_true(all(x <= 8 for x in tokens.values()),
                f"a token that was refused was used on: {tokens.values()}")
        is_true({a[1] for a in web.asked} ==
                {"/fickle/v2/images/some-id/file"}, "other paths were asked")
        for line, said in (
                (f"{user} project=none", "Keystone answers 401"),
                (f"glance:// keystone no:body auth={k.url}/v3 project=admin",
                 "Keystone answers 401"),
                (f"{user} project=admin region=Nowhere",
                 "where is its store?"),
                (f"glance:// keystone a:b auth={web.url('gone', '')}",
                 "Keystone answers 5"),
                ("glance:// keystone a:b auth=http://127.0.0.1:1",
                 "Keystone cannot be asked"),
                ("glance:// keystone a:b", "lacks auth=URL")):
            c.have(line)
            status, err = c.copy("glance://some-id")
            is_true(status == 1 and said in err and PASSWORD not in err,
                    f"{line}: {err}")


def main():
    environment("PLATTER")
    with Swift() as swift:
        def setup(folder):
            c = Context(folder)
            c.swift = swift
            return c
        run_checks(setup, [
            s3_is_signed_as_swift_checks_it,
            a_bucket_can_be_a_part_of_the_host,
            redirects_take_no_signature_along,
            swift_takes_tokens_and_new_ones,
            what_lies_in_a_bucket_lies_beside,
            an_image_service_gives_images_by_id,
            keystone_gives_tokens_and_new_ones,
        ])


if __name__ == "__main__":
    main()

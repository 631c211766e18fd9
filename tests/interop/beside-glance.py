#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One list of requests, asked of Debian's Glance and of platter: statuses,
headers and bodies are the same, but for what a table of glance/API.md says. What
that table says must be so, too."""

import fnmatch
import http.client
import json
import os
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from beside_steps import RESOURCE_TYPES, TOKENS, steps  # noqa: E402
from glance import Answer, Glance  # noqa: E402
from keystone import free_port  # noqa: E402
from real_glance import GLANCE, SCHEMA, RealGlance  # noqa: E402
from server import Failure, environment, need_programs, skip  # noqa: E402
from web import Web  # noqa: E402

WAIT_SEC = 60
SHOWN = 120
STORES = ("file", "second")
# What says nothing of the service: the connection's and the server's own.
UNCOMPARED = {"date", "server", "connection", "keep-alive",
              "content-length", "transfer-encoding"}
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
REQUEST = re.compile("req-" + UUID.pattern[2:])
TIME = re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{6})?")
ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


class Side:
    """One of both; its own ids and folders are written as what they are."""

    def __init__(self, port, folders):
        self.port, self.folders = port, folders
        self.names = {}  # of what the steps call otherwise

    def ask(self, step):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.putrequest(step.method, self.named(step.path),
                         skip_accept_encoding=True)
            body = step.body
            if isinstance(body, (dict, list)):
                body = self.named(json.dumps(body))
            if isinstance(body, str):
                body = body.encode()
            for name, value in step.headers.items():
                c.putheader(name, self.named(value))
            if step.token:
                c.putheader("X-Auth-Token", TOKENS[step.token])
            if body is not None and "Content-Length" not in step.headers:
                c.putheader("Content-Length", str(len(body)))
            c.endheaders(body)
            return Answer(c.getresponse())
        finally:
            c.close()

    def named(self, text):
        """With what "<1>" stands for."""
        for i, name in self.names.items():
            text = text.replace(name, i)
        return text

    def plain(self, text, known):
        """Without what is this side's own."""
        for folder, name in self.folders.items():
            text = text.replace(folder, name)
        for i, name in self.names.items():
            text = text.replace(i, name)
        text = REQUEST.sub("<request>", text)
        for one in UUID.findall(text):
            if one in known:
                continue
            text = text.replace(one, "<id>")
        return ADDRESS.sub("<address>", TIME.sub("<time>", text))


def json_differences(a, b, path="body"):
    """(path, what one has, what the other has)"""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b:
                yield (f"{path}.{name}", json.dumps(a[name]) if name in a
                       else None, json.dumps(b[name]) if name in b else None)
            else:
                yield from json_differences(a[name], b[name],
                                            f"{path}.{name}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for x, y in zip(*(sorted(v) if path.endswith("tags") and
                          all(isinstance(i, str) for i in v) else v
                          for v in (a, b))):  # whose order is nobody's
            yield from json_differences(x, y, path + "[]")
    elif a != b:
        yield path, json.dumps(a), json.dumps(b)


class Facts:
    """What is compared of an answer."""

    def __init__(self, side, answer, known):
        self.status = answer.status
        self.headers = {k: side.plain(v, known)
                        for k, v in answer.headers.items()
                        if k not in UNCOMPARED}
        self.body = side.plain(answer.text, known)
        try:
            self.json = json.loads(self.body)
        except ValueError:
            self.json = None
            if "text" in self.headers.get("content-type", ""):
                self.body = " ".join(self.body.split())

    def differences(self, other):
        """(what, of this, of the other): where statuses are not the same, no
        more than what each said."""
        if self.status != other.status:
            yield ("status", f"{self.status} {self.message()}",
                   f"{other.status} {other.message()}")
            return
        for name in sorted(self.headers.keys() | other.headers.keys()):
            a, b = self.headers.get(name), other.headers.get(name)
            if a != b:
                yield "header " + name, a, b
        if self.json is not None and other.json is not None:
            seen = set()  # the same of many in a list is said once
            for one in json_differences(self.json, other.json):
                if one not in seen:
                    seen.add(one)
                    yield one
        elif self.body != other.body:
            yield "body", self.body, other.body

    def message(self):
        """Of an error, without its status; else nothing."""
        if self.status < 400 or self.json is not None:
            return ""
        return self.body[len(f"{self.status} "):]


def settled(side, step):
    """Asks again until nothing is under way."""
    end = time.monotonic() + WAIT_SEC
    while True:
        try:
            answer = side.ask(step)
        except (OSError, http.client.HTTPException) as e:
            raise Failure(f"{step}: no answer: {e!r}") from None
        if not step.until or re.search(step.until, answer.text):
            return answer
        if time.monotonic() > end:
            raise Failure(f"{step}: {answer.text[:2000]}")
        time.sleep(0.1)


def short(value):
    """As a cell of a table has it."""
    if value is None:
        return "nothing"
    value = re.sub(r"\s+", " ", value).replace("|", "/").replace("`", "'")
    return value.strip()[:SHOWN] or "empty"


def differences(sides, known):
    """(step's label, what, Glance's, platter's)"""
    for step in steps():
        theirs, ours = (Facts(side, settled(side, step), known)
                        for side in sides)
        for what, a, b in theirs.differences(ours):
            yield str(step), what, short(a), short(b)


class Row:
    """One of the table's: patterns of what differs, and why."""

    def __init__(self, cells):
        self.step, self.fact, self.theirs, self.ours, self.why = cells
        self.used = 0

    def covers(self, difference):
        return all(fnmatch.fnmatchcase(got, want.replace("[", "[[]"))
                   for got, want in zip(difference, (
                       self.step, self.fact, self.theirs, self.ours)))


def table():
    """The rows of glance/API.md's last table. A "?" or "*" is a pattern's."""
    name = os.path.join(os.environ["PLATTER_SOURCE"], "glance", "API.md")
    with open(name) as f:
        part = f.read().split("\n## What a Glance answers otherwise\n")[1]
    rows = [Row([c.strip().strip("`") for c in line.strip("|").split("|")])
            for line in part.splitlines() if line.startswith("| `")]
    for row in rows:
        if not row.why:
            raise Failure(f"{row.step}: no reason is given")
    return rows


def judge(found, rows):
    """Every difference is the table's, and every row of it is one."""
    new = []
    for difference in found:
        row = next((r for r in rows if r.covers(difference)), None)
        if row:
            row.used += 1
        else:
            new.append("new: | " + " | ".join(f"`{c}`" for c in difference)
                       + " |")
    gone = [f"gone: {r.step}: {r.fact}: {r.theirs}, {r.ours}"
            for r in rows if not r.used]
    if new or gone:
        raise Failure("\n".join([*new, *gone]))


def compare(folder):
    with open(os.path.join(folder, "disk"), "wb") as f:
        f.write(b"a small disk" * 1000)
    with open(os.path.join(folder, "tokens"), "w") as f:
        json.dump({t: dict(zip(("user", "project", "roles"),
                               (t.split(":")[0], t.split(":")[1],
                                [t.split(":")[2]])))
                   for t in TOKENS.values()}, f)
    port = free_port()
    second = os.path.join(folder, "second")
    with Web(folder) as web, \
            RealGlance(STORES, "show_multiple_locations = true\n"
                       "enabled_import_methods = [glance-direct,web-download,"
                       "copy-image]\n"
                       f"image_cache_dir = {folder}/cache\n"
                       "[import_filtering_opts]\n"
                       f"allowed_ports = [{web.port}]\n"
                       "allowed_hosts = [127.0.0.1]",
                       RESOURCE_TYPES) as real, \
            Glance(f"glance=127.0.0.1:{port}", f"store=second={second}",
                   "show-locations=true", f"auth=tokens:{folder}/tokens",
                   *web.allowed(), tcp=port) as ours:
        sides = (Side(real.port, {"file://" + real.path(s): f"file:///{s}"
                                  for s in STORES}),
                 Side(port, {"file://" + second: "file:///second",
                             "file://" + ours.store: "file:///file"}))
        for side in sides:
            side.names[f"127.0.0.1:{web.port}"] = "<web>"
        known = {i for s in steps() for i in UUID.findall(
            f"{s.path} {json.dumps(s.body, default=str)}")}
        found = list(differences(sides, known))
    judge(found, table())
    print(f"{sum(1 for _ in steps())} requests, {len(found)} differences, "
          "each with its reason")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN", "PLATTER_SOURCE")
    need_programs("nbdkit")
    if not os.path.exists(GLANCE) or not os.path.exists(SCHEMA):
        skip("no Glance is installed (python3-glance, glance-common)")
    with tempfile.TemporaryDirectory(prefix="platter-beside-") as folder:
        try:
            compare(folder)
        except Failure as e:
            print(e)
            sys.exit(1)

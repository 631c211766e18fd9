#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Who may do what, by which of the dialects: every cell of a table, judged by
Glance's own policy where Glance has the operation. docs/access.md is what this
finds.

  ACCESS=write tests/interop/access.py     # docs/access.md anew
"""

import json
import os
import socket
import stat
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from glance_policy import Who, What, ask, is_visible  # noqa: E402
from libnbd import Handle, need_libnbd  # noqa: E402
from nbd import Client  # noqa: E402
from server import Failure, environment, need_programs, run  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PAGE = os.path.join(ROOT, "docs", "access.md")
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
DISK = b"d" * 4096

WHO = ("owner", "reader", "other", "administrator", "stranger")
KINDS = ("private", "shared", "unshared", "community", "public",
         "deactivated")
# Where platter is not as Glance's rules: who may do what, and why.
EXCEPTIONS = {
    ("reader", "download_image"):
        "with `enforce_secure_rbac`, Glance lets readers see an image but not "
        "download it; without it, which is the default, they may download it.",
}
YES, NO = "yes", "no"


class People:
    """Tokens, and what Keystone would say of who has them."""

    def __init__(self, projects, tokens):
        self.tokens = tokens
        self.other = projects[1]
        self.owner = projects[0]
        roles = {"owner": (0, "member"), "reader": (0, "reader"),
                 "other": (1, "member"), "administrator": (2, "admin")}
        self.who = {n: Who(projects[p], role)
                    for n, (p, role) in roles.items()}

    def what(self, kind):
        return What(self.owner,
                    {"deactivated": "private", "unshared": "shared"}.get(
                        kind, kind),
                    [self.other] if kind == "shared" else [])


def be_patient(g, token):
    """A Keystone that has just begun, on a busy machine, is slow: the token is
    known for a minute afterwards."""
    deadline = time.monotonic() + 90
    while g.request("GET", "/v2/images?limit=1", token=token).status == 503:
        is_true(time.monotonic() < deadline, "Keystone does not answer")
        time.sleep(0.5)


class Place:
    """A server with the images that the table is about."""

    def __init__(self, g, people):
        self.g, self.people = g, people
        self.ids = {}

    def request(self, who, method, path, body=None, headers=None):
        """With patience: Keystone may be slow, and is asked again."""
        deadline = time.monotonic() + 90
        while True:
            a = self.g.request(method, path, body, headers,
                               self.people.tokens[who])
            if a.status != 503 or time.monotonic() > deadline:
                return a
            time.sleep(0.5)

    def ask(self, who, *request):
        return self.request(who, *request).status

    def must(self, who, want, *request):
        is_equal(self.ask(who, *request), want, f"{who}'s status of {request}")

    def new(self, kind, data=DISK):
        """An image of the owner's, of that kind."""
        v = self.people.what(kind).visibility
        a = self.request("owner", "POST", "/v2/images", {
            "name": kind, "disk_format": "raw", "container_format": "bare",
            "visibility": "private" if v == "public" else v})
        is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
        i = "/v2/images/" + a.json["id"]
        if data:
            self.must("owner", 204, "PUT", i + "/file", data, OCTETS)
        if v == "public":
            self.must("administrator", 200, "PATCH", i, PUBLISH, PATCH)
        if kind == "shared":
            self.must("owner", 200, "POST", i + "/members",
                      {"member": self.people.other})
        if kind == "deactivated" and data:
            self.must("owner", 204, "POST", i + "/actions/deactivate")
        return a.json["id"]

    def id(self, kind):
        if kind not in self.ids:
            self.ids[kind] = self.new(kind)
        return self.ids[kind]

    def forget(self, kind):
        self.ids.pop(kind, None)

    def open(self, export):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.g.nbd_socket)
        return Handle(s, export)

    def opens(self, export):
        try:
            with self.open(export) as h:
                h.read(0, 512)
                return True
        except Failure:
            return False

    def grant(self, who, i, **wish):
        """(status, export)"""
        a = self.request(who, "POST", f"/v2/images/{i}/grants", wish or None)
        return a.status, a.json["export"] if a.status == 201 else None


PUBLISH = '[{"op": "replace", "path": "/visibility", "value": "public"}]'
RENAME = '[{"op": "replace", "path": "/name", "value": "b"}]'


def v2(method, path="", body=None, headers=None):
    return lambda p, who, i: p.ask(who, method, f"/v2/images/{i}{path}", body,
                                   headers)


def old(root, method, headers=None):
    return lambda p, who, i: p.ask(who, method, f"{root}/images/{i}", None,
                                   headers)


def by_nbd(p, who, i):
    return YES if p.opens(i) else NO


def by_grant(p, who, i):
    status, export = p.grant(who, i)
    return status if status != 201 else YES if p.opens(export) else NO


def overlay_by_nbd(p, who, i):
    return YES if p.opens(i + "+vm") else NO


def overlay_by_grant(p, who, i):
    status, export = p.grant(who, i, mode="w")
    if status != 201:
        return status
    name, _, grant = export.partition("~")
    return YES if p.opens(f"{name}+vm~{grant}") else NO


class Operation:
    """@rule: Glance's; None: it has no such operation. @done: the statuses of
    success. @spends: a success leaves another image than there was."""

    def __init__(self, dialect, name, run, rule=None, done=(200, 204),
                 spends=False, queued=False, kinds=KINDS):
        self.dialect, self.name, self.run, self.rule = dialect, name, run, rule
        self.done, self.spends, self.queued = done, spends, queued
        self.kinds = kinds


RENAME_V1 = {"X-Image-Meta-Name": "b"}
OPERATIONS = [
    Operation("v2", "show", v2("GET"), "get_image"),
    Operation("v2", "download", v2("GET", "/file"), "download_image"),
    Operation("v2", "rename", v2("PATCH", "", RENAME, PATCH), "modify_image"),
    Operation("v2", "publish", v2("PATCH", "", PUBLISH, PATCH),
              "publicize_image", spends=True,
              kinds=[k for k in KINDS if k != "public"]),
    Operation("v2", "upload", v2("PUT", "/file", DISK, OCTETS),
              "upload_image", spends=True, queued=True,
              kinds=[k for k in KINDS if k != "deactivated"]),
    Operation("v2", "add a member", v2("POST", "/members", {"member": "p9"}),
              "add_member", spends=True, kinds=("shared", "unshared")),
    Operation("v2", "deactivate", v2("POST", "/actions/deactivate"),
              "deactivate", spends=True,
              kinds=[k for k in KINDS if k != "deactivated"]),
    Operation("v2", "delete", v2("DELETE"), "delete_image", spends=True),
    Operation("v1", "show", old("/v1", "HEAD"), "get_image"),
    Operation("v1", "download", old("/v1", "GET"), "download_image"),
    Operation("v1", "rename", old("/v1", "PUT", RENAME_V1), "modify_image"),
    Operation("v1", "delete", old("/v1", "DELETE"), "delete_image",
              spends=True),
    Operation("Cyclades", "show", old("/image/v1.0", "HEAD"), "get_image"),
    Operation("Cyclades", "rename", old("/image/v1.0", "PUT", RENAME_V1),
              "modify_image"),
    Operation("NBD", "open", by_nbd),
    Operation("NBD", "open by a grant", by_grant),
    Operation("NBD", "open an overlay", overlay_by_nbd),
    Operation("NBD", "open an overlay by a grant", overlay_by_grant),
]


class Policy:
    """What Glance says of all cells, asked at once."""

    def __init__(self, people):
        self.people = people
        rules = sorted({o.rule for o in OPERATIONS if o.rule})
        cells = [(r, w, k) for r in rules for w in people.who for k in KINDS]
        self.says = dict(zip(cells, ask([
            (r, people.who[w], people.what(k)) for r, w, k in cells])))

    def allows(self, rule, who, kind):
        return self.says[rule, who, kind] or (who, rule) in EXCEPTIONS

    def wanted(self, o, who, kind):
        if o.rule is None:
            return self.of_nbd(o, who, kind)
        if who == "stranger":
            return 401
        if not is_visible(self.people.who[who], self.people.what(kind)):
            return 404
        if kind == "deactivated" and o.rule == "download_image" and \
                who != "administrator":
            return 403
        if self.allows(o.rule, who, kind):
            return YES
        if not self.says["get_image", who, kind]:
            return 404
        return 403 if o.dialect == "v2" else 405

    def of_nbd(self, o, who, kind):
        """Of what Glance does not have."""
        if o.run is by_nbd:
            return YES if kind == "public" else NO
        if o.run is overlay_by_nbd:
            return NO
        if who == "stranger":
            return 401
        if not is_visible(self.people.who[who], self.people.what(kind)):
            return 404
        if o.run is overlay_by_grant and who == "reader":
            return 403
        if kind == "deactivated":
            return NO if who == "administrator" else 403
        return YES


def outcome(place, o, who, kind):
    i = place.new(kind, None) if o.queued else place.id(kind)
    got = o.run(place, who, i)
    if got in o.done:
        got = YES
    if got == YES and o.spends and not o.queued:
        place.forget(kind)
    return got


def the_table(place):
    """{(dialect, operation, kind): {who: outcome}}, as Glance has it."""
    policy = Policy(place.people)
    table, wrong = {}, []
    for o in OPERATIONS:
        for kind in o.kinds:
            row = table[o.dialect, o.name, kind] = {}
            for who in WHO:
                row[who] = outcome(place, o, who, kind)
                want = policy.wanted(o, who, kind)
                if row[who] != want:
                    wrong.append(f"{o.dialect}: {who} may {o.name} what is "
                                 f"{kind}: {row[who]}, not {want}")
    is_true(not wrong, "; ".join(wrong))
    return table


def page(table):
    lines = [HEAD]
    for dialect in dict.fromkeys(d for d, _, _ in table):
        lines += [f"\n## {dialect}\n\n",
                  f"| | image | {' | '.join(WHO)} |\n",
                  "|---" * (len(WHO) + 2) + "|\n"]
        last = None
        for (d, name, kind), row in table.items():
            if d != dialect:
                continue
            cells = ["" if name == last else name, kind,
                     *(str(row[w]) for w in WHO)]
            lines.append(f"| {' | '.join(cells)} |\n".replace("|  |", "| |"))
            last = name
    lines.append("\n## Not as Glance\n\n")
    lines += [f"- {who}, `{rule}`: {why}\n"
              for (who, rule), why in EXCEPTIONS.items()]
    return "".join(lines)


HEAD = """# Who may do what

This page is made by `ACCESS=write tests/interop/access.py`. The test tries
everything in these tables with a file of tokens, as auth.py beside it does with
Keystone. It fails if the answers are not these, or are not those of Glance 25.1
(according to its policy, evaluated by oslo.policy).

- *owner*: a member of the project that owns the image; *reader*: a user with
  the role `reader` in that project; *other*: a member of another project;
  *administrator*: a user with the role `admin`, in a third project; *stranger*:
  a client that sends no token.
- *shared*: an image that is shared with the other's project; *unshared*: one of
  visibility `shared` that is shared with nobody; *deactivated*: a private image
  that was deactivated.
- *yes*: it is done; *no*: there is no such export; a number: the HTTP status of
  the refusal. For an image that a user may not see, the answer is the same as
  for one that does not exist, 404.
- Over NBD everybody is a stranger, who may open what the grant in the export's
  name is for, and public images, read-only. A grant is for one image and one
  project, and for overlays in that project's own name space: `ID+vm` of one
  project is not the same disk as `ID+vm` of another. A grant is checked when it
  is used: its project must still see the image, and the image must be active.
  What is open then stays open until its client leaves, or the operator closes
  it (`platter overlay close`); after that it cannot be opened again.
- With `auth=none` everybody is an administrator, over NBD as well.
"""


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.n = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def folder_of(self, name):
        self.n += 1
        path = self.path(f"{name}-{self.n}")
        os.mkdir(path)
        return path

    def tokens(self, **who):
        with open(self.path("tokens"), "w", encoding="utf-8") as f:
            json.dump({t: {"project": p, "user": t, "roles": [r]}
                       for t, (p, r) in who.items()}, f)
        return f"auth=tokens:{self.path('tokens')}"

    def people(self):
        return People(("p1", "p2", "p0"), {
            "owner": "one", "reader": "read", "other": "two",
            "administrator": "boss", "stranger": None})

    def parameters(self):
        return [self.tokens(one=("p1", "member"), read=("p1", "reader"),
                            two=("p2", "member"), boss=("p0", "admin")),
                f"overlays={self.folder_of('overlays')}"]


def what_is_written():
    with open(PAGE, encoding="utf-8") as f:
        return f.read()


def tokens_of_a_file_let_in_as_glance_does(c):
    with Glance(*c.parameters()) as g:
        text = page(the_table(Place(g, c.people())))
    if os.environ.get("ACCESS") == "write":
        os.makedirs(os.path.dirname(PAGE), exist_ok=True)
        with open(PAGE, "w", encoding="utf-8") as f:
            f.write(text)
    is_true(what_is_written() == text, "docs/access.md has another table: "
            "ACCESS=write tests/interop/access.py")


def keystone_lets_in_the_same(k, port, overlays, owner, other):
    """For auth.py, which has a Keystone, dear to start. @owner, @other:
    (token, project's id) of the users and projects one and two."""
    read = k.add_user("read", ("reader",), ("one", owner[1]))[0]
    people = People((owner[1], other[1], "the administrator's"), {
        "owner": owner[0], "reader": read, "other": other[0],
        "administrator": k.token, "stranger": None})
    with Glance(f"glance=127.0.0.1:{port}", *k.parameters(),
                f"overlays={overlays}", tcp=port) as g:
        table = the_table(Place(g, people))
    is_true(page(table) == what_is_written(), "Keystone's people are let in "
            "otherwise than docs/access.md has it")


# ---- grants ----

def at(export, overlay):
    """The overlay's export, by the grant of @export."""
    name, _, grant = export.partition("~")
    return f"{name}+{overlay}~{grant}"


def overlays_of_two_projects_do_not_meet(c):
    """Of a shared image, of a public one."""
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        for kind in ("shared", "public"):
            i = p.id(kind)
            mine = p.grant("owner", i, mode="w")[1]
            theirs = p.grant("other", i, mode="w")[1]
            with p.open(at(mine, "mine")) as h:
                h.write(0, b"s" * 512)
                with p.open(at(theirs, "mine")) as o:
                    is_equal(o.read(0, 512), DISK[:512], "what another reads")
                    o.write(0, b"t" * 512)
                is_equal(h.read(0, 512), b"s" * 512, "what the owner reads")
            for export in (f"{i}+mine", at(theirs, "p1:mine"),
                           at(mine, "p2:mine"), f"{i}+p1:mine",
                           at(p.grant("owner", i)[1], "mine"),
                           at(theirs, "p1%3Amine"), f"{i}+mine@s",
                           f"{i}+mine@s..t"):
                is_true(not p.opens(export), f"{export} is opened")
            is_true(p.opens(at(mine, "p1:mine")), "its project may be named")
            # By another's right to the same it is the same.
            boss = p.grant("administrator", i, mode="w", project="p1")[1]
            with p.open(at(boss, "mine")) as h:
                is_equal(h.read(0, 512), b"s" * 512, "what is in it")
            own = p.grant("administrator", i, mode="w")[1]
            with p.open(at(own, "mine")) as h:
                is_equal(h.read(0, 512), DISK[:512], "the administrator's own")


def a_grant_is_for_what_it_says(c):
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        i, other = p.id("private"), p.new("private")
        status, export = p.grant("owner", i, mode="w", overlay="vm1",
                                 seconds=60)
        is_equal(status, 201, "the status")
        is_true(p.opens(at(export, "vm1")), "its overlay")
        is_true(p.opens(export), "its image")
        for wrong in (at(export, "vm2"), at(export, "vm"), at(export, "*"),
                      other + export[36:], at(other + export[36:], "vm1")):
            is_true(not p.opens(wrong), f"{wrong} is opened")
        for who, wish, want in (
                ("reader", {"mode": "w"}, 403), ("reader", {}, 201),
                ("other", {}, 404), ("stranger", {}, 401),
                ("owner", {"project": "p2"}, 403),
                ("owner", {"project": "p1"}, 403),
                ("owner", {"overlay": "vm1"}, 400),
                ("owner", {"mode": "w", "overlay": ""}, 400),
                ("owner", {"mode": "w", "overlay": 1}, 400),
                ("owner", {"mode": "w", "overlay": "v" * 129}, 400),
                ("administrator", {"project": "p" * 256}, 400),
                ("administrator", {"project": "p2"}, 201)):
            is_equal(p.grant(who, i, **wish)[0], want,
                     f"the status of {who}'s {wish}")


def a_grant_ends_with_its_reason(c):
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        i = p.id("shared")
        path = f"/v2/images/{i}"
        read = p.grant("other", i)[1]
        write = at(p.grant("other", i, mode="w")[1], "vm")
        owner = p.grant("owner", i)[1]
        held = p.open(write)
        is_true(p.opens(read), "a member's grant")
        for undo, redo in (
                (("DELETE", path + "/members/p2"),
                 ("POST", path + "/members", {"member": "p2"})),
                (("PATCH", path, json.dumps([{
                    "op": "replace", "path": "/visibility",
                    "value": "private"}]), PATCH),
                 ("PATCH", path, json.dumps([{
                     "op": "replace", "path": "/visibility",
                     "value": "shared"}]), PATCH))):
            p.ask("owner", *undo)
            is_true(not p.opens(read) and not p.opens(write),
                    f"after {undo} it holds")
            is_true(p.opens(owner), f"after {undo} the owner's does not hold")
            p.ask("owner", *redo)
            is_true(p.opens(read) and p.opens(write), f"after {redo}")
        # Who has it open writes on.
        held.write(0, b"x" * 512)
        held.close()
        p.must("owner", 204, "POST", path + "/actions/deactivate")
        is_true(not p.opens(read) and not p.opens(owner), "deactivated")
        p.must("owner", 204, "POST", path + "/actions/reactivate")
        is_true(p.opens(read), "active again")
        p.must("owner", 204, "DELETE", path)
        is_true(not p.opens(read) and not p.opens(owner), "deleted")


def a_name_is_of_what_one_may_open(c):
    """Nobody takes a public image's name away."""
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        i = p.id("public")
        is_true(p.opens("public"), "by its name")
        a = g.request("POST", "/v2/images", {
            "name": "public", "disk_format": "raw",
            "container_format": "bare"}, token="two").json["id"]
        p.must("other", 204, "PUT", f"/v2/images/{a}/file", b"e" * 4096,
               OCTETS)
        with p.open("public") as h:
            is_equal(h.read(0, 1), b"d", "what its name opens")
        theirs = p.grant("other", a)[1].partition("~")[2]
        with p.open("public~" + theirs) as h:
            is_equal(h.read(0, 1), b"e", "what it opens by a grant")
        is_true(p.opens(i), "by its id")


def listed(g):
    with Client(g.nbd_socket) as n:
        return n.list()


def what_lies_there_from_before_is_nobodys(c):
    """An overlay without a project is not taken for one that is not there."""
    parameters = c.parameters()
    overlays = parameters[1].partition("=")[2]
    control = os.path.join(c.folder_of("control"), "s")
    store = c.folder_of("store")
    with Glance(f"overlays={overlays}", store=store) as g:
        i = g.request("POST", "/v2/images", {
            "disk_format": "raw", "container_format": "bare"}).json["id"]
        g.request("PUT", f"/v2/images/{i}/file", DISK, OCTETS)
        p = Place(g, c.people())
        with p.open(f"{i}+vm") as h:
            h.write(0, b"o" * 512)
        g.request("PATCH", f"/v2/images/{i}", PUBLISH, PATCH)
    file = f"{i}+vm.qcow2"
    with Glance(*parameters, f"control={control}", store=store) as g:
        p = Place(g, c.people())
        for who in ("owner", "other"):
            export = p.grant(who, i, mode="w")[1]
            is_true(not p.opens(at(export, "vm")), f"{who} has an empty disk")
            is_true(p.opens(at(export, "vm2")), "another")
        is_true("is of nobody's project" in g.messages(), g.messages())
        is_equal(listed(g), [i], "what is listed")
        boss = p.grant("administrator", i, mode="w", project="")[1]
        with p.open(at(boss, "vm")) as h:
            is_equal(h.read(0, 512), b"o" * 512, "what an administrator reads")
        os.rename(os.path.join(overlays, file),
                  os.path.join(overlays, "p1", file))
        mine = p.grant("owner", i, mode="w")[1]
        with p.open(at(mine, "vm")) as h:
            is_equal(h.read(0, 512), b"o" * 512, "what its project reads")
        is_true(p.opens(at(p.grant("other", i, mode="w")[1], "vm")),
                "another's of that name")
        # Who has the control socket names the project; he needs no grant.
        with p.open(at(mine, "vm")) as h:
            for name, want in ((f"{i}+p1:vm", 0), (f"{i}+vm", 1),
                               (f"{i}+p2:vm", 1)):
                is_equal(run([os.environ["PLATTER"], "overlay", "snapshot",
                              "--control", control, name, "before"],
                             ok=None)[0], want, f"the status of {name}")
            h.write(0, b"n" * 512)
        with p.open(at(mine, "vm@before")) as h:
            is_equal(h.read(0, 512), b"o" * 512, "what the snapshot has")
        for export in (f"{i}+vm@before", f"{i}+p1:vm@before",
                       at(p.grant("other", i, mode="w")[1], "vm@before")):
            is_true(not p.opens(export), f"{export} is opened")


# ---- what an image is said to be ----

def backed(c):
    """A qcow2 file over a file that is not the image's, and that file."""
    secret = c.path("secret")
    with open(secret, "wb") as f:
        f.write(b"secret!!" * 512)
    path = c.path("backed.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret,
         path])
    with open(path, "rb") as f:
        return f.read()


def v1(**meta):
    return {"X-Image-Meta-" + n: v for n, v in meta.items()}


def no_dialect_says_what_another_refused(c):
    data = backed(c)
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())

        def new(**meta):
            a = g.request("POST", "/v1/images", data, {
                **v1(Name="x", **meta), **OCTETS}, "one")
            return a.status, a.headers.get("x-image-meta-id")

        for meta, want in (
                ({"Disk_format": "nonsense", "Container_format": "bare"}, 400),
                ({"Disk_format": "raw", "Container_format": "box"}, 400),
                ({"Disk_format": "qcow2", "Container_format": "bare"}, 400),
                ({"Disk_format": "raw", "Container_format": "bare"}, 400)):
            is_equal(new(**meta)[0], want, f"the status of {meta}")
        is_equal(p.ask("owner", "POST", "/v1/images", None,
                       v1(Name="x", Disk_format="nonsense")), 400,
                 "the status of a format that there is not")
        # In a container nobody has looked: it is no disk, and becomes none.
        status, i = new(Disk_format="qcow2", Container_format="ova")
        is_equal(status, 200, "the status of an ova")
        for root, want in (("/v1", 405), ("/image/v1.0", 405)):
            for meta in ({"Container_format": "bare"}, {"Disk_format": "raw"},
                         {"Disk_format": "nonsense"}):
                want = 400 if "nonsense" in meta.values() else want
                is_equal(p.ask("owner", "PUT", f"{root}/images/{i}", None,
                               v1(**meta)), want, f"{root}'s status of {meta}")
        for path, value in (("container_format", "bare"),
                            ("disk_format", "raw")):
            is_equal(p.ask("owner", "PATCH", f"/v2/images/{i}", json.dumps([{
                "op": "replace", "path": "/" + path, "value": value}]),
                           PATCH), 403, f"the status of {path}")
        is_equal(p.ask("owner", "PUT", f"/v1/images/{i}", None,
                       v1(Container_format="ova", Name="y")), 200,
                 "the status of what it was")
        is_true(not p.opens(p.grant("owner", i)[1]), "it is served as a disk")
        is_equal(p.ask("owner", "GET", f"/v2/images/{i}/file?format=raw"), 400,
                 "the status of its disk")
        for action in "deactivate", "reactivate":
            p.must("owner", 204, "POST", f"/v2/images/{i}/actions/{action}")


def what_was_put_out_of_use_is_looked_at_again(c):
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        i = p.id("deactivated")
        with open(os.path.join(g.store, "images", i[:2], i), "r+b") as f:
            f.write(backed(c)[:4096])
        is_equal(p.ask("owner", "POST", f"/v2/images/{i}/actions/reactivate"),
                 400, "the status of a raw image that is qcow2")
        is_equal(p.ask("owner", "PUT", f"/image/v1.0/images/{i}", None,
                       v1(Status="available")), 400, "Cyclades' status")


def what_comes_to_name_another_file_is_refused(c):
    """Whoever may write to the store: nothing that lies beside it is read."""
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        path = c.path("plain.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4096"])
        a = g.request("POST", "/v2/images", {
            "disk_format": "qcow2", "container_format": "bare"}, token="one")
        i = a.json["id"]
        with open(path, "rb") as f:
            p.must("owner", 204, "PUT", f"/v2/images/{i}/file", f.read(),
                   OCTETS)
        export = p.grant("owner", i)[1]
        is_true(p.opens(export), "a plain one")
        here = os.path.join(g.store, "images", i[:2])
        with open(os.path.join(here, "beside"), "wb") as f:
            f.write(b"secret!!" * 512)
        os.unlink(os.path.join(here, i))
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
             "beside", os.path.join(here, i)])
        is_true(not p.opens(export), "what lies beside it is served")
        is_equal(p.ask("owner", "GET", f"/v2/images/{i}/file?format=raw"), 400,
                 "the status of its disk")


# ---- paths ----

def objects_are_of_their_project(c):
    pithos = c.folder_of("pithos")
    for account in "p1", "p2":
        os.makedirs(os.path.join(pithos, account, "c"))
        with open(os.path.join(pithos, account, "c", "z"), "wb") as f:
            f.write(account.encode() * 2048)
    os.symlink("../../p2/c/z", os.path.join(pithos, "p1", "c", "link"))
    os.symlink("z", os.path.join(pithos, "p1", "c", "own"))
    os.symlink("p2", os.path.join(pithos, "p3"))
    parameters = c.parameters()
    parameters[0] = c.tokens(
        one=("p1", "member"), read=("p1", "reader"), two=("p2", "member"),
        boss=("p0", "admin"), three=("p3", "member"), dots=("..", "member"))
    with Glance(*parameters, f"pithos={pithos}") as g:
        def register(token, location):
            return g.request("POST", "/image/v1.0/images/", None, v1(
                Name="a", **{"Location": f"pithos://{location}"}), token)

        for token, location, want in (
                ("one", "p1/c/z", 200), ("one", "p1/c/own", 200),
                ("two", "p2/c/z", 200), ("boss", "p1/c/own", 200),
                ("one", "p2/c/z", 404), ("one", "p1/../p2/c/z", 404),
                ("one", "p1/c/../../p2/c/z", 404), ("one", "p1/c/link", 404),
                ("one", "p1//c/z", 404), ("one", "/p2/c/z", 404),
                ("one", "p1/./c/z", 404), ("one", "./p1/c/z", 404),
                ("one", "p1/c", 404), ("one", "p1", 404), ("one", "p1/", 404),
                ("one", "p1/c/z/", 404), ("one", "..", 404),
                ("three", "p3/c/z", 404), ("dots", "../p1/c/z", 404),
                ("boss", "p1/../p2/c/z", 404), ("one", "p1%2F..%2Fp2/c/z", 404),
                ("boss", "p1/c/link", 404), ("read", "p1/c/z", 405)):
            a = register(token, location)
            is_equal(a.status, want, f"{token}'s status of {location} "
                                     f"({a.text[:200]})")


class Swapping:
    """A name that is now a file of its folder, now a link to one elsewhere."""

    def __init__(self, path, outside):
        self.path, self.outside = path, outside
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.swaps = 0

    def _run(self):
        while not self.stop.is_set():
            os.symlink(self.outside, self.path + ".link")
            os.rename(self.path, self.path + ".kept")
            os.rename(self.path + ".link", self.path)
            os.rename(self.path + ".kept", self.path)
            self.swaps += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stop.set()
        self.thread.join()


def what_was_checked_is_what_is_opened(c):
    """A file of location-dirs that is swapped for a link to another file."""
    folder, outside = c.folder_of("images"), c.path("outside.raw")
    path = os.path.join(folder, "a.raw")
    for name, data in ((path, DISK), (outside, b"!" * len(DISK))):
        with open(name, "wb") as f:
            f.write(data)
    with Glance(*c.parameters(), "show-locations=true",
                f"location-dirs={folder}") as g:
        p = Place(g, c.people())
        i = p.new("private", None)
        p.must("administrator", 200, "PATCH", f"/v2/images/{i}", json.dumps([{
            "op": "add", "path": "/locations/-",
            "value": {"url": f"file://{path}", "metadata": {}}}]), PATCH)
        p.must("administrator", 200, "PATCH", f"/v2/images/{i}", PUBLISH,
               PATCH)
        opened = 0
        end = time.monotonic() + 3
        with Swapping(path, outside) as s:
            for n in range(2000):
                try:
                    with p.open(i) as h:
                        is_equal(h.read(0, 1), b"d", "what is read over NBD")
                        opened += 1
                except Failure as e:
                    is_true("what is read" not in str(e), str(e))
                if n % 8 == 0:
                    a = g.request("GET", f"/v2/images/{i}/file", token="one")
                    is_true(a.status == 404 or a.body == DISK,
                            f"the status {a.status}, of {a.body[:4]!r}")
                if time.monotonic() > end:
                    break
        is_true(p.opens(i), "the file is there")
        print(f"    {opened} of {n + 1} opens, {s.swaps} swaps")


def a_link_in_the_store_leads_nowhere(c):
    with Glance(*c.parameters()) as g:
        p = Place(g, c.people())
        i, elsewhere = p.id("private"), c.folder_of("elsewhere")
        inside = os.path.join(g.store, "images", i[:2])
        os.rename(inside, os.path.join(elsewhere, i[:2]))
        os.symlink(os.path.join(elsewhere, i[:2]), inside)
        is_equal(p.ask("owner", "GET", f"/v2/images/{i}/file"), 404,
                 "the status of the data")
        is_true(not p.opens(p.grant("owner", i)[1]), "it is opened")
        p.must("owner", 204, "DELETE", f"/v2/images/{i}")
        time.sleep(0.5)
        is_true(os.path.exists(os.path.join(elsewhere, i[:2], i)),
                "the file outside is gone")


# ---- files ----

def files_are_their_owners(c):
    """Whatever is made, with a umask that lets it be all that it wants."""
    mask = os.umask(0)
    try:
        files_are_made(c)
    finally:
        os.umask(mask)


def files_are_made(c):
    parameters = c.parameters()
    overlays = parameters[1].partition("=")[2]
    control = os.path.join(c.folder_of("control"), "s")
    store, extra = c.folder_of("store"), c.folder_of("extra")
    with Glance(*parameters, f"control={control}",
                f"access-log={extra}/access.log", store=store) as g:
        p = Place(g, c.people())
        i, staged = p.id("private"), p.new("private", None)
        p.must("owner", 204, "PUT", f"/v2/images/{staged}/stage", DISK, OCTETS)
        export = at(p.grant("owner", i, mode="w")[1], "vm")
        with p.open(export) as h:
            h.write(0, b"x" * 4096)
            run([os.environ["PLATTER"], "overlay", "snapshot", "--control",
                 control, f"{i}+p1:vm", "s"])
            h.write(0, b"y" * 4096)
            run([os.environ["PLATTER"], "index", "backup", "--store", store,
                 f"{extra}/backup"])
            coming = threading.Thread(target=p.ask, args=(
                "owner", "PUT", f"/v2/images/{p.new('private', None)}/file",
                slowly(), OCTETS))
            coming.start()
            found = {}
            deadline = time.monotonic() + 20
            while not any("incoming/" in f for f in found):
                is_true(time.monotonic() < deadline, "nothing comes in")
                for folder in (store, overlays, extra):
                    found.update(modes_below(folder))
            coming.join()
            found.update(modes_below(store))
    names = " ".join(found)
    for part in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm",
                 "grant.key", "/lock", f"images/{i[:2]}/{i}", f"{i}.json",
                 f"staging/{staged}", f"{i}+vm.qcow2", "s.qcow2", "backup",
                 "access.log"):
        is_true(part in names, f"{part} was not seen: {names}")
    is_equal({n: oct(m) for n, m in found.items() if m & 0o077}, {},
             "what others may read")


def slowly():
    for _ in range(8):
        time.sleep(0.05)
        yield DISK


def modes_below(folder):
    for at_folder, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at_folder, name)
            try:
                st = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(st.st_mode):
                yield path, stat.S_IMODE(st.st_mode)


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit", "qemu-img", "keystone-manage")
    need_libnbd()
    run_checks(Context, [
        tokens_of_a_file_let_in_as_glance_does,
        overlays_of_two_projects_do_not_meet,
        a_grant_is_for_what_it_says,
        a_grant_ends_with_its_reason,
        a_name_is_of_what_one_may_open,
        what_lies_there_from_before_is_nobodys,
        no_dialect_says_what_another_refused,
        what_was_put_out_of_use_is_looked_at_again,
        what_comes_to_name_another_file_is_refused,
        objects_are_of_their_project,
        what_was_checked_is_what_is_opened,
        a_link_in_the_store_leads_nowhere,
        files_are_their_owners,
    ])

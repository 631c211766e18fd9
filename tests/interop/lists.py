#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Lists of images against a model: filters, orders, pages, many images, and
an index made by an earlier program."""

import contextlib
import os
import random
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance  # noqa: E402
from server import Failure, environment, need_programs  # noqa: E402

IMAGES = 60
QUESTIONS = 400
DISTROS = ("debian", "plan9", "irix")
TAGS = ("a", "b", "c")
SORTS = ("created_at", "name", "size", "id", "updated_at", "status")


class Context:
    def __init__(self, folder):
        self.store = os.path.join(folder, "store")
        self.seed = int(os.environ.get("LISTS_SEED", "1"))


@contextlib.contextmanager
def index(store):
    with contextlib.closing(sqlite3.connect(
            os.path.join(store, "index.sqlite"))) as db, db:
        yield db


def fill(g, rng):
    for _ in range(IMAGES):
        fields = {"name": rng.choice(("x", "y", "z"))}
        for key, values in (("os_distro", DISTROS), ("arch", ("m68k", "vax"))):
            if rng.random() < 0.7:
                fields[key] = rng.choice(values)
        a = g.request("POST", "/v2/images", {
            "disk_format": rng.choice(("raw", "qcow2")),
            "container_format": "bare",
            "tags": [t for t in TAGS if rng.random() < 0.5], **fields})
        is_equal(a.status, 201, "the status of a new image")


def level_times(store, rng):
    """Times that several images share, so that the last key counts."""
    with index(store) as db:
        for n, in db.execute("SELECT n FROM images").fetchall():
            time = (1700000000 + rng.randrange(20)) * 1000000
            db.execute("UPDATE images SET created_at = ?, updated_at = ? "
                       "WHERE n = ?", (time, time + 30000000 *
                                       rng.randrange(3), n))
            for table in "properties", "tags":
                db.execute(f"UPDATE {table} SET image_created = ? "
                           "WHERE image = ?", (time, n))


def pages(g, query, limit):
    """The ids of all pages."""
    ids = []
    path = f"/v2/images?{query}&limit={limit}"
    while path:
        a = g.request("GET", path)
        is_equal(a.status, 200, f"the status of {path} ({a.text[:200]})")
        ids += [i["id"] for i in a.json["images"]]
        is_true(len(a.json["images"]) <= limit, f"{path}: too long a page")
        path = a.json.get("next")
        if len(ids) > 20000:
            raise Failure(f"{query}: pages without an end")
    return ids


def ordered(images, sort):
    """As Glance has it: what ties is by created_at and id, in the direction
    of the only key, or newest first."""
    tie = sort[0][1] if len(sort) == 1 else "desc"
    keys = list(sort)
    if "id" not in [k for k, _ in keys]:
        if "created_at" not in [k for k, _ in keys]:
            keys.append(("created_at", tie))
        keys.append(("id", tie))
    for key, way in reversed(keys):
        images = sorted(images, key=lambda i: i[key] or
                        (0 if key == "size" else ""), reverse=way == "desc")
    return [i["id"] for i in images]


def question(rng):
    """(the query, what an image must be, the order)"""
    terms, must = [], []
    if rng.random() < 0.6:
        distro = rng.choice(DISTROS)
        terms.append("os_distro=" + distro)
        must.append(lambda i: i.get("os_distro") == distro)
    if rng.random() < 0.4:
        arch = rng.choice(("m68k", "vax", "none"))
        terms.append("arch=" + arch)
        must.append(lambda i: i.get("arch") == arch)
    for tag in TAGS:
        if rng.random() < 0.25:
            terms.append("tag=" + tag)
            must.append(lambda i, tag=tag: tag in i["tags"])
    if rng.random() < 0.2:
        terms.append("disk_format=in:raw,vdi")
        must.append(lambda i: i["disk_format"] == "raw")
    if rng.random() < 0.2:
        name = rng.choice("xyz")
        terms.append("name=" + name)
        must.append(lambda i: i["name"] == name)
    sort = [(k, rng.choice(("asc", "desc")))
            for k in rng.sample(SORTS, rng.choice((1, 1, 1, 2)))]
    if len(sort) > 1:
        sort = [(k, sort[0][1]) for k, _ in sort]
    terms.append("sort=" + ",".join(":".join(s) for s in sort))
    rng.shuffle(terms)
    return "&".join(terms), must, sort


def ask_all(g, rng, count):
    images = g.request("GET", "/v2/images?limit=1000").json["images"]
    for _ in range(count):
        query, must, sort = question(rng)
        want = ordered([i for i in images if all(m(i) for m in must)], sort)
        got = pages(g, query, rng.choice((1, 2, 7, 25)) if len(images) < 100
                    else 1000)
        is_equal(got, want, f"the list of {query}")


def every_list_is_the_model_s(c):
    rng = random.Random(c.seed)
    with Glance(store=c.store) as g:
        fill(g, rng)
    level_times(c.store, rng)
    with Glance(store=c.store) as g:
        ask_all(g, rng, QUESTIONS)


def an_index_of_before_is_taken_over(c):
    """Scheme 2 had no times with properties and tags."""
    with index(c.store) as db:
        is_true(db.execute("PRAGMA user_version").fetchone()[0] >= 3,
                "the scheme is an old one")
        db.executescript(
            "DROP INDEX properties_value; DROP INDEX tags_tag;"
            "ALTER TABLE properties DROP COLUMN image_created;"
            "ALTER TABLE tags DROP COLUMN image_created;"
            "CREATE INDEX properties_value ON properties"
            " (name, value, image);"
            "CREATE INDEX tags_tag ON tags (tag, image);"
            "ALTER TABLE inspections DROP COLUMN looks;"
            "DROP TABLE tombstones;"
            "ALTER TABLE images DROP COLUMN changed_at;"
            "PRAGMA user_version = 2")
    with Glance(store=c.store) as g:
        ask_all(g, random.Random(c.seed + 1), QUESTIONS // 4)


def many_that_have_a_property_are_met_in_order(c):
    """Too many to fetch them all for an order by name."""
    with index(c.store) as db:
        for table in "properties", "tags", "images":
            db.execute(f"DELETE FROM {table}")
        db.executescript(
            "CREATE TEMP TABLE new AS WITH RECURSIVE c (k) AS (SELECT 1 UNION"
            " ALL SELECT k + 1 FROM c WHERE k < 10500) SELECT k,"
            " printf('%08d-0000-4000-8000-000000000000', k) AS id FROM c;"
            "INSERT INTO images (n, id, name, status, visibility, created_at,"
            " updated_at) SELECT k + 1000, id, printf('%d', k * 7919 % 10501),"
            " 'queued', 'shared', k * 1000000, 1 FROM new;"
            "INSERT INTO properties (image, image_created, name, value)"
            " SELECT k + 1000, k * 1000000, 'os_distro', 'debian' FROM new;"
            "INSERT INTO tags (image, image_created, tag)"
            " SELECT k + 1000, k * 1000000, 'a' FROM new WHERE k % 500 = 0;")
    with Glance(store=c.store) as g:
        every = pages(g, "os_distro=debian&sort=name:asc", 1000)
        is_equal(len(every), 10500, "how many there are")
        is_equal(len(set(every)), 10500, "how many differ")
        is_equal(every, sorted(every, key=lambda i: str(
            int(i[:8]) * 7919 % 10501)), "the order by name")
        newest = pages(g, "os_distro=debian", 1000)
        is_equal(newest, sorted(newest, reverse=True), "the newest first")
        is_equal(len(newest), 10500, "how many there are")
        few = pages(g, "os_distro=debian&tag=a&sort=name:desc", 5)
        is_equal(few, sorted(
            (f"{k:08d}-0000-4000-8000-000000000000"
             for k in range(500, 10501, 500)), reverse=True,
            key=lambda i: str(int(i[:8]) * 7919 % 10501)), "the few")


if __name__ == "__main__":
    environment("PLATTER", "PLATTER_PLUGIN")
    need_programs("nbdkit")
    run_checks(Context, [
        every_list_is_the_model_s,
        an_index_of_before_is_taken_over,
        many_that_have_a_property_are_met_in_order,
    ])

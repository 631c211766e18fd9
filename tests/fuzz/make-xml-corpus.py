#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes tests/corpus/{ploop-descriptor,ploop-snapshots}: what fuzz-ploop-xml
starts from and the plain regression test runs. valid-* must be taken,
hostile-* must be refused.

  make-xml-corpus.py [FOLDER]
"""

import os
import sys

A = "{aaaaaaaa-0000-0000-0000-000000000001}"
B = "{bbbbbbbb-0000-0000-0000-000000000002}"
NIL = "{00000000-0000-0000-0000-000000000000}"
ENTITIES = '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]>'


def image(guid=A, kind="Compressed", name="root.hds"):
    return (f"<Image><GUID>{guid}</GUID><Type>{kind}</Type>"
            f"<File>{name}</File></Image>")


def storage(images, start=0, end=100):
    return (f"<Storage><Start>{start}</Start><End>{end}</End>"
            f"<Blocksize>2048</Blocksize>{images}</Storage>")


def shot(guid, parent):
    return (f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID>"
            "</Shot>")


def disk(storages=storage(image()), shots="", params="", size=100,
         root="Parallels_disk_image"):
    return (f'<{root} Version="1.0"><Disk_Parameters>'
            f"<Disk_size>{size}</Disk_size>{params}</Disk_Parameters>"
            f"<StorageData>{storages}</StorageData>"
            f"<Snapshots>{shots}</Snapshots></{root}>")


def engine(guid):
    return f"<Encryption><Engine>{guid}</Engine></Encryption>"


def descriptors():
    two = image() + image(B, "Plain", "/vz/base.hdd")
    yield "valid-one-image", '<?xml version="1.0"?>\n' + disk()
    yield "valid-virtuozzo", disk(root="Virtuozzo_disk_image",
                                  params="<Padding>0</Padding>" + engine(NIL))
    yield "valid-shots", disk(storage(two),
                              f"<TopGUID>{A}</TopGUID>" + shot(A, B) +
                              shot(B, NIL))
    yield "valid-two-storages", disk(storage(image(), 50) +
                                     storage(image(), 0, 50))
    yield "valid-loop-of-shots", disk(storage(two), shot(A, B) + shot(B, A))
    yield "valid-comment-and-cdata", disk(
        storage(image(name="<!-- x --><![CDATA[a<b]]>")))
    yield "hostile-dtd", "<!DOCTYPE a>" + disk()
    yield "hostile-entities", ENTITIES + disk(size="&y;")
    yield "hostile-entity", disk(size="&x;")
    yield "hostile-utf-16", disk().encode("utf-16")
    yield "hostile-cut", disk()[:300]
    yield "hostile-empty", " "
    yield "hostile-root", "<domain/>"
    yield "hostile-no-parameters", "<Parallels_disk_image/>"
    yield "hostile-size-huge", disk(size=1 << 54)
    yield "hostile-size-negative", disk(size=-1)
    yield "hostile-padding", disk(params="<Padding>8</Padding>")
    yield "hostile-engine", disk(params=engine(A))
    yield "hostile-no-storage", disk("")
    yield "hostile-no-image", disk(storage(""))
    yield "hostile-storage-backwards", disk(storage(image(), 9, 8))
    yield "hostile-storages-overlap", disk(storage(image()) +
                                           storage(image(), 99))
    yield "hostile-two-images", disk(storage(image() + image()))
    yield "hostile-guid", disk(storage(image("{a}")))
    yield "hostile-type", disk(storage(image(kind="Sparse")))
    yield "hostile-no-name", disk(storage(image(name="")))
    yield "hostile-long-name", disk(storage(image(name="x" * 1024)))
    yield "hostile-two-shots", disk(shots=shot(A, NIL) * 2)
    yield "hostile-shot-without-parent", disk(shots=shot(A, ""))
    yield "hostile-top", disk(shots="<TopGUID>x</TopGUID>")
    yield "hostile-deep", disk(params="<a>" * 20 + "</a>" * 20)


def item(guid, name, inside=""):
    return (f'<SavedStateItem guid="{guid}" current="no"><Name>{name}</Name>'
            f"{inside}</SavedStateItem>")


def states(items):
    return f"<ParallelsSavedStates>{items}</ParallelsSavedStates>"


def lists_of_names():
    yield "valid-nested", '<?xml version="1.0"?>\n' + states(
        item("", "root", item(B, " b &amp; c ", item(A, "a"))))
    yield "valid-of-other-disks", states(item(NIL, "x"))
    yield "valid-none", states("")
    yield "valid-without-name", states(
        f'<SavedStateItem guid="{A}"/><SavedStateItem/>')
    yield "valid-no-guid", states(item("&lt;x", "y"))
    yield "valid-twice", states(item(A, "a") + item(A, "b"))
    yield "valid-empty-name", states(item(A, ""))
    yield "hostile-dtd", "<!DOCTYPE a>" + states("")
    yield "hostile-entities", ENTITIES + states(item(A, "&y;"))
    yield "hostile-entity", states(item("&x;", "x"))
    yield "hostile-nul", states(item(A, "a\0b"))
    yield "hostile-root", "<a/>"
    yield "hostile-cut", states(item(A, "a"))[:60]
    yield "hostile-deep", states("<SavedStateItem>" * 210 +
                                 "</SavedStateItem>" * 210)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    top = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "corpus")
    for kind, files in (("ploop-descriptor", descriptors),
                        ("ploop-snapshots", lists_of_names)):
        folder = os.path.join(top, kind)
        os.makedirs(folder, exist_ok=True)
        for name, data in files():
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data if isinstance(data, bytes) else data.encode())


if __name__ == "__main__":
    main()

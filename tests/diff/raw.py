#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Raw images that other programs made: served as they are, and told by
platter info for what they are. Glance's iso, and what of ami, aki and ari can
be made without a machine.

  raw.py [--keep] [CASE ...]
"""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import support  # noqa: E402
from disk_diff import KIB, by_hand, main  # noqa: E402
from server import Failure, compare, run, run_json, Server  # noqa: E402


def serve_as_it_is(f, name, fmt=None):
    path = f.path(name)
    with Server(path, fmt) as server:
        compare(server.uri(), path, f.totals)
    support.saw(path, support.SPECIFICATION)


def must_tell(f, name, *options, **wanted):
    """wanted: keys of platter info, with _ for -."""
    data = run_json([os.environ["PLATTER"], "info", "--json", *options,
                     f.path(name)])
    data = data["format-specific"]["data"]
    for key, value in wanted.items():
        got = data.get(key.replace("_", "-"))
        if got != value:
            raise Failure(f"{name}: {key} is {got!r}, not {value!r}")


@by_hand
def isos_of_genisoimage(f):
    if not shutil.which("genisoimage"):
        return
    f.write("tree/readme", b"hello\n" * 1000)
    f.write("tree/boot.img", b"\xeb\xfe" + f.noise(2046))
    for name, label, boots in (("plain.iso", "DEBIAN 12 n", False),
                               ("boot.iso", "PLATTER_BOOT", True),
                               ("longest.iso", "V" * 32, True)):
        run(["genisoimage", "-quiet", "-V", label, "-J", "-r",
             *(["-b", "boot.img", "-no-emul-boot", "-c", "boot.cat"]
               if boots else []), "-o", f.path(name), f.path("tree")])
        must_tell(f, name, content="ISO 9660 file system", volume=label,
                  el_torito=boots)
        serve_as_it_is(f, name)


@by_hand
def initial_ram_disks(f):
    """As initramfs-tools packs them: cpio, plain or compressed."""
    cpio = shutil.which("cpio") or (shutil.which("busybox") or "") + " cpio"
    if cpio == " cpio":
        return
    f.write("tree/init", b"#!/bin/sh\n")
    f.write("tree/bin/sh", f.noise(70 * KIB))
    run(["sh", "-c", f"cd {f.path('tree')} && find . | {cpio} -o -H newc "
         f">{f.path('initrd')} && gzip -n <{f.path('initrd')} "
         f">{f.path('initrd.gz')}"])
    must_tell(f, "initrd", content="initial RAM disk (cpio)")
    # A compressed file is what is in it, unless it is declared to be the disk.
    must_tell(f, "initrd.gz", content="initial RAM disk (cpio)")
    must_tell(f, "initrd.gz", "--format", "raw",
              content="gzip stream (an initial RAM disk, perhaps)")
    serve_as_it_is(f, "initrd")
    serve_as_it_is(f, "initrd.gz", "raw")


@by_hand
def file_systems(f):
    """An ami is one file system, without a partition table."""
    for tool, options, content in (
            ("mkfs.ext4", ["-q", "-F", "-L", "platter"], "ext4 file system"),
            ("mkfs.ext2", ["-q", "-F", "-L", "platter"], "ext2 file system"),
            ("mkswap", ["-q", "-L", "platter"], "swap space")):
        path = shutil.which(tool, path=os.environ["PATH"] + ":/sbin:/usr/sbin")
        if not path:
            continue
        name = tool + ".img"
        f.write(name, bytes(4 << 20))
        run([path, *options, f.path(name)])
        must_tell(f, name, content=content)
        if tool != "mkswap":
            must_tell(f, name, label="platter")
        serve_as_it_is(f, name)


if __name__ == "__main__":
    main(__doc__)

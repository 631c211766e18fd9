#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compressed disks that no table tells of, served while they are decoded for the
first time; what was told of them need not be so."""

import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from nbd import CMD_READ, Client  # noqa: E402
from server import (Server, Totals, by_nbdkit, compare,  # noqa: E402
                    environment, need_programs, run, skip)

MIB = 1 << 20
EIO = 5
# Of the disks that are only looked at while they are decoded: seconds of it.
LONG = 3 << 30


def wait_until(true, what):
    end = time.monotonic() + 60
    while not true():
        is_true(time.monotonic() < end, what)
        time.sleep(0.02)


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.totals = Totals()
        # A GPT, its other copy at the disk's end; noise, zeroes, lines.
        self.raw = self.at("disk.raw")
        self.disk(self.raw, 40 * MIB, 6)
        self.long = self.at("long.raw")
        self.disk(self.long, LONG, 2)
        self.long_gz = self.pack("gzip -1", self.long, "gz")

    def at(self, name):
        return os.path.join(self.folder, name)

    def disk(self, path, size, noise):
        rnd = random.Random(4)
        with open(path, "wb") as f:
            f.truncate(size)
            f.seek(MIB)
            for _ in range(noise):
                f.write(rnd.randbytes(MIB))
                f.write(rnd.randbytes(97) * 10000)
        run(["bash", "-c", f"echo 'start=2048, size=4096' | "
             f"sfdisk -q --label gpt '{path}'"])

    def pack(self, tool, path, end):
        out = f"{path}.{end}"
        run(["bash", "-euc", f"{tool} -c <'{path}' >'{out}'"])
        return out

    def indexes(self):
        folder = self.at("cache/index")
        return os.listdir(folder) if os.path.isdir(folder) else []


def size_of(server):
    with Client(server.socket) as client:
        return client.go()


def read(server, at, length):
    with Client(server.socket) as client:
        client.go()
        return client.read(at, length)


def of(path, at, length):
    with open(path, "rb") as f:
        f.seek(at)
        return f.read(length)


def it_is_served_before_it_is_decoded(c):
    folder = c.at("cache")
    with Server(c.long_gz, more=["--cache-dir", folder]) as s:
        with Client(s.socket) as client:
            client.go()
            code, data = client.read(MIB, 65536)
            is_true(not code and data == of(c.long, MIB, 65536), "its begin")
            is_equal(c.indexes(), [], "the indexes while it is decoded")
            code, data = client.read(LONG - 33 * 512, 33 * 512)
            is_true(not code and data == of(c.long, LONG - 33 * 512,
                                            33 * 512), "the other table")
            wait_until(c.indexes, "no index is kept")
    names = c.indexes()
    # Of that which was kept the next one knows all.
    with Server(c.long_gz, more=["--cache-dir", folder]) as s:
        code, data = read(s, LONG - 512, 512)
        is_true(not code and data == of(c.long, LONG - 512, 512), "its end")
        is_equal(s.messages(), "", "what it says")
    is_equal(c.indexes(), names, "the indexes")


def the_disk_is_the_same(c):
    images = [(c.raw, "gzip -1", "gz", []),
              (c.raw, "bzip2 -1", "bz2", ["--size", str(40 * MIB)]),
              (c.raw, "zstd -q -1", "zst", []),
              (c.raw, "lz4 -q -BD --content-size", "lz4", [])]
    for fmt in ("qcow2", "vmdk", "vhdx", "vdi", "qed"):
        path = c.at("disk." + fmt)
        run(["qemu-img", "convert", "-f", "raw", "-O", fmt, c.raw, path])
        images.append((path, "gzip -1" if fmt != "vmdk" else "bzip2 -1",
                       "gz" if fmt != "vmdk" else "bz2", []))
    for path, tool, end, options in images:
        packed = c.pack(tool, path, end)
        with Server(packed, more=options) as s:
            compare(s.uri(), c.raw, c.totals)
            is_equal(s.messages(), "", f"what is said of {packed}")
    print(c.totals)


def who_leaves_is_not_waited_for(c):
    with Server(c.long_gz) as s:
        for _ in range(3):
            client = Client(s.socket)
            client.go()
            # What comes last, of which nobody takes the answer.
            client.request(CMD_READ, LONG - 4096, 4096)
            client.socket.close()
        code, _ = read(s, MIB, 4096)
        is_equal(code, 0, "a read meanwhile")
        # One that waits when the server is to end.
        waiting = threading.Thread(target=try_to_read, args=(s, LONG - 4096))
        waiting.start()
        code, _ = read(s, 2 * MIB, 4096)
        is_equal(code, 0, "a read meanwhile")
    waiting.join()


def try_to_read(s, at):
    try:
        read(s, at, 4096)
    except (OSError, EOFError):
        pass


def one_that_is_killed_leaves_nothing(c):
    run(["rm", "-rf", c.at("cache")])
    options = ["--cache-dir", c.at("cache"), "--no-supervise"]
    s = Server(c.long_gz, more=options)
    try:
        read(s, 0, 4096)
        os.kill(s.process.pid, signal.SIGKILL)
        s.process.wait()
    finally:
        s._end()
    is_equal(c.indexes(), [], "the indexes")
    # Two at once, then.
    with Server(c.long_gz, more=options) as a, \
            Server(c.long_gz, more=options) as b:
        for s in (a, b):
            code, data = read(s, LONG - 4096, 4096)
            is_true(not code and data == of(c.long, LONG - 4096, 4096), "end")
    is_equal(len(c.indexes()), 1, "the number of indexes")


def a_file_that_changed_meanwhile_has_no_index(c):
    run(["rm", "-rf", c.at("cache")])
    with Server(c.long_gz, more=["--cache-dir", c.at("cache")]) as s:
        with Client(s.socket) as client:
            client.go()
            os.utime(c.long_gz)
            code, _ = client.read(LONG - 512, 512)
            is_equal(code, 0, "its end")
    is_equal(c.indexes(), [], "the indexes")


def what_was_told_need_not_be_so(c):
    path = c.pack("bzip2 -1", c.raw, "bz2")
    size = 40 * MIB
    with Server(path, more=["--size", str(size + MIB)]) as s:
        is_equal(size_of(s), size + MIB, "the size as it was told")
        is_equal(read(s, size - 512, 512)[1], of(c.raw, size - 512, 512),
                 "the last that there is")
        is_equal(read(s, size, 512)[0], EIO, "what is behind it")
        wait_until(lambda: f"unpacks to {size} bytes, and no more" in
                   s.messages(), "nothing is said")
        is_true(path in s.messages(), s.messages())
    with Server(path, more=["--size", str(size - MIB)]) as s:
        is_equal(size_of(s), size - MIB, "the size as it was told")
        is_equal(read(s, size - MIB - 512, 512)[1],
                 of(c.raw, size - MIB - 512, 512), "the last that is served")
        wait_until(lambda: "are served, as was told" in s.messages(),
                   "nothing is said")
    # By what gzip says there is more than the table tells: then all is looked at.
    grown = c.at("grown.raw")
    run(["bash", "-c", f"cp '{c.raw}' '{grown}' && truncate -s +1M '{grown}'"])
    with Server(c.pack("gzip -1", grown, "gz")) as s:
        is_equal(size_of(s), size + MIB, "the size that it has")


def damage_is_eio_and_is_said(c):
    path = c.pack("gzip -1", c.raw, "gz")
    size = os.path.getsize(path)
    run(["truncate", "-s", str(size // 2), path])
    # The table says what the sum at the end cannot any more.
    with open(path, "r+b") as f:
        f.seek(size // 2 - 4)
        f.write((40 * MIB).to_bytes(4, "little"))
    with Server(path) as s:
        is_equal(size_of(s), 40 * MIB, "the size")
        code, data = read(s, 0, 65536)
        is_true(code or data == of(c.raw, 0, 65536), "its beginning")
        is_equal(read(s, 40 * MIB - 512, 512)[0], EIO, "its end")
        wait_until(lambda: "near byte" in s.messages(), s.messages())
    path = c.pack("bzip2 -1", c.raw, "bz2")
    with open(path, "r+b") as f:
        f.seek(-9, os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-9, os.SEEK_END)
        f.write(bytes([byte ^ 0xff]))
    with Server(path, more=["--size", str(40 * MIB)]) as s:
        is_equal(read(s, 40 * MIB - 512, 512)[0], EIO, "its end")
        is_equal(read(s, 0, 512)[0], EIO, "what has a wrong sum")


def a_disk_told_by_its_end_is_not_taken_for_another(c):
    image = c.at("both.qcow2")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", c.raw, image])
    fixed = c.at("fixed.vhd")
    run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o",
         "subformat=fixed,force_size=on", c.raw, fixed])
    run(["bash", "-c", f"tail -c 512 '{fixed}' >>'{image}'"])
    path = c.pack("gzip -1", image, "gz")
    with Server(path) as s:
        wait_until(lambda: read(s, 0, 512)[0] == EIO, "it is served")
        is_true("it ends like vhd" in s.messages(), s.messages())
    with Server(path, fmt="qcow2") as s:
        compare(s.uri(), c.raw, c.totals)
    # A fixed one has a partition table like a raw one.
    with Server(c.pack("gzip -1", fixed, "gz")) as s:
        compare(s.uri(), c.raw, c.totals)


def main():
    environment("PLATTER", "NBD_COMPARE")
    need_programs("qemu-img", "gzip", "bzip2", "zstd", "lz4", "sfdisk")
    if by_nbdkit():
        skip("of the stream nothing is another's")
    run_checks(Context, [
        it_is_served_before_it_is_decoded,
        the_disk_is_the_same,
        who_leaves_is_not_waited_for,
        one_that_is_killed_leaves_nothing,
        a_file_that_changed_meanwhile_has_no_index,
        what_was_told_need_not_be_so,
        damage_is_eio_and_is_said,
        a_disk_told_by_its_end_is_not_taken_for_another,
    ])


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-3-Clause
"""The disk that the interop checks serve: every kind of cluster, and two
snapshots."""

import os
import random

from server import run

MIB = 1 << 20
SIZE = 12 * MIB + 512
DATA_MAX = 6 * MIB      # what the disk holds is less
PATTERN = (9 * MIB + 77, 5000, 0xC5)  # offset, length, byte


class Disk:
    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "disk.qcow2")
        self.raw = os.path.join(folder, "disk.raw")
        self.snapshots = {}
        rng = random.Random(7)
        source = os.path.join(folder, "source.raw")
        with open(source, "wb") as f:
            f.write(rng.randbytes(MIB + 123))
            f.seek(4 * MIB)
            f.write(b"platter " * 100000)
            f.truncate(SIZE)
        run(["qemu-img", "convert", "-c", "-O", "qcow2", source, self.path])
        noise = os.path.join(folder, "noise")
        with open(noise, "wb") as f:
            f.write(rng.randbytes(MIB))
        off, length, byte = PATTERN
        steps = {
            "clean": [f"write -P {byte} {off} {length}", "write -z 128k 64k"],
            "before upgrade": [f"write -s {noise} 7M 1M",
                               f"write -s {noise} 100 70000"],
            None: [f"write -s {noise} 200000 200000", "write -z 5M 1M"],
        }
        for name, commands in steps.items():
            run(["qemu-io", *(x for c in commands for x in ("-c", c)),
                 self.path])
            raw = self.raw
            if name:
                raw = os.path.join(folder, f"{name}.raw")
                self.snapshots[name] = raw
            run(["qemu-img", "convert", "-O", "raw", self.path, raw])
            if name:
                run(["qemu-img", "snapshot", "-q", "-c", name, self.path])

    def at(self, name):
        return os.path.join(self.folder, name)


def same_bytes(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        while True:
            x, y = f.read(MIB), g.read(MIB)
            if x != y:
                return False
            if not x:
                return True

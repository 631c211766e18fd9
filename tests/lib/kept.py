# SPDX-License-Identifier: BSD-3-Clause
"""What a folder of cache-dir= says that it has, by the page at the head of
iouring/sources/kept-file.h; shares nothing with what writes it."""

import os
import struct

CHUNK = 256 << 10
PAGE = 4096
_MASK = (1 << 64) - 1


def _sum(data, seed):
    h = seed ^ 0xcbf29ce484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & _MASK
    return h ^ h >> 32


class Kept:
    """One object: .bytes, .text, .chunks (numbers of those that are there), and
    .pages: how many of the map's pages were right."""

    def __init__(self, path):
        with open(path, "rb") as f:
            head = f.read(PAGE)
            rest = f.read()
        self.data = path[:-len("map")] + "data"
        self.chunks, self.pages, self.bytes, self.text = [], 0, 0, b""
        if len(head) < PAGE or head[:8] != b"PLTKEPT1" or \
                struct.unpack("<Q", head[-8:])[0] != _sum(head[:-8], 0):
            return
        chunk, text, self.bytes, salt = struct.unpack("<IIQQ", head[8:32])
        assert chunk == CHUNK, chunk
        self.text = head[32:32 + text]
        for i in range(len(rest) // PAGE):
            page = rest[i * PAGE:(i + 1) * PAGE]
            seed = salt + i * 0x9e3779b97f4a7c15 & _MASK
            if struct.unpack("<Q", page[-8:])[0] != _sum(page[:-8], seed):
                continue
            self.pages += 1
            first = i * (PAGE - 8) * 8
            self.chunks += [first + n * 8 + b for n in range(PAGE - 8)
                            for b in range(8) if page[n] >> b & 1]

    def differences(self, data):
        """Chunks that are said to be there and are not as @data has them."""
        bad = []
        with open(self.data, "rb") as f:
            for n in self.chunks:
                f.seek(n * CHUNK)
                want = data[n * CHUNK:(n + 1) * CHUNK]
                if not want or f.read(len(want)) != want:
                    bad.append(n)
        return bad


def kept_in(folder):
    objects = os.path.join(folder, "objects")
    return [Kept(os.path.join(objects, name))
            for name in sorted(os.listdir(objects)) if name.endswith(".map")]

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""LUKS1 volumes: qemu-img's, in every cipher that it shares with us.

  luks.py [--keep] [CASE ...]
"""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from disk_diff import (MIB, SECRET, by_hand, by_qemu, main)  # noqa: E402


def options(cipher, mode, ivgen, hash_alg="sha256", ivhash=None):
    text = (f"key-secret=s,iter-time=10,cipher-alg={cipher},"
            f"cipher-mode={mode},hash-alg={hash_alg}")
    if ivgen:
        text += f",ivgen-alg={ivgen}"
    if ivhash:
        text += f",ivgen-hash-alg={ivhash}"
    return text


@by_qemu
def ciphers(b):
    for i, o in enumerate((
            options("aes-256", "xts", "plain64"),
            options("aes-128", "xts", "plain64", "sha512"),
            options("aes-256", "cbc", "essiv", "sha1", "sha256"),
            options("aes-128", "cbc", "plain64"),
            options("aes-256", "cbc", "plain64", "ripemd160"),
            options("aes-256", "xts", "plain"),
            options("serpent-256", "xts", "plain64"),
            options("serpent-128", "cbc", "essiv", "sha256", "sha256"),
            options("twofish-256", "xts", "plain64"),
            options("twofish-256", "cbc", "essiv", "sha256", "sha256"))):
        b.make("luks", f"{i}.luks", 3 * MIB, o, encrypted=True)
        b.check("luks", f"{i}.luks", encrypted="key-secret")


@by_qemu
def the_key_decides(b):
    b.make("luks", "a.luks", MIB, options("aes-256", "xts", "plain64"),
           encrypted=True)
    reference = b.path("source.raw")
    key = b.write("key", SECRET + b"\n")    # as an editor leaves it
    b.compare(b.path("a.luks"), reference, key=key)
    b.refuse("a.luks", "--key FILE")
    b.refuse("a.luks", "passphrase|key", key=b.write("wrong", b"wrong"))
    # A volume whose last sector is cut ends before it.
    with open(b.path("a.luks"), "ab") as f:
        f.write(b"x" * 100)
    b.compare(b.path("a.luks"), reference, key=key)


@by_hand
def wrong_headers_are_refused(f):
    head = bytearray(592)
    struct.pack_into(">6sH32s32s32sII", head, 0, b"LUKS\xba\xbe", 1, b"aes",
                     b"xts-plain64", b"sha256", 4096, 64)
    struct.pack_into(">I", head, 164, 1000)
    for i in range(8):
        struct.pack_into(">I", head, 208 + 48 * i, 0xDEAD)

    def refuse(pattern, *changes, size=4 * MIB):
        data = bytearray(head)
        for at, value in changes:
            data[at:at + len(value)] = value
        f.write("a.luks", bytes(data[:size]) + bytes(max(0, size - 592)))
        f.refuse("a.luks", pattern)

    refuse("LUKS2", (6, b"\0\2"))
    refuse("version 3", (6, b"\0\3"))
    refuse("camellia", (8, b"camellia\0"))
    refuse("truncated", size=591)
    refuse("payload at 0", (104, bytes(4)))
    refuse("behind the file's end", (104, b"\xff\xff\xff\xff"))


if __name__ == "__main__":
    main(__doc__)

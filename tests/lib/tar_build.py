# SPDX-License-Identifier: BSD-3-Clause
"""Builds tar archives by POSIX.1 and GNU tar's manual, right ones and wrong
ones; shares nothing with the reader, or with Python's tarfile."""

BLOCK = 512


def header(name=b"a", size=0, kind=b"0", magic=b"ustar\x0000", prefix=b"",
           checksum=None, size_field=None):
    """A header block; @size_field: its bytes as they shall stand."""
    h = bytearray(BLOCK)
    h[0:len(name[:100])] = name[:100]
    h[100:108] = b"0000644\0"
    h[108:116] = h[116:124] = b"0000000\0"
    h[124:136] = b"%011o\0" % size if size_field is None else size_field
    h[136:148] = b"00000000000\0"
    h[156:157] = kind
    h[257:265] = magic
    h[345:345 + len(prefix)] = prefix
    h[148:156] = b" " * 8
    total = sum(h) if checksum is None else checksum
    h[148:156] = b"%06o\0 " % total
    return bytes(h)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def member(name=b"a", data=b"", **more):
    return header(name, len(data), **more) + padded(data)


def record(key, value):
    """A pax record, which tells its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    n = len(rest)
    while len(b"%d" % n) + len(rest) != n:
        n = len(b"%d" % n) + len(rest)
    return b"%d" % n + rest


def pax(*records, kind=b"x"):
    return member(b"pax", b"".join(records), kind=kind)


def long_name(name):
    return member(b"././@LongLink", name + b"\0", kind=b"L",
                  magic=b"ustar  \0")


def base_256(n):
    return b"\x80" + n.to_bytes(11, "big")


END = bytes(2 * BLOCK)

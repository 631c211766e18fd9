# SPDX-License-Identifier: BSD-3-Clause
"""As much of an NBD client as a hostile one needs: it may leave any time,
ask for anything, and never read a reply."""

import socket
import struct

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_GO = 1, 2, 3, 5, 7
OPT_STRUCTURED, OPT_LIST_CONTEXT, OPT_SET_CONTEXT = 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_CONTEXT = 1, 2, 3, 4
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_ZERO = 0, 1, 2, 3, 4, 6
CMD_CACHE, CMD_STATUS = 5, 7
FLAG_FUA, FLAG_NO_HOLE, FLAG_ONE = 1, 2, 8
_OPTION = 0x49484156454F5054
_REQUEST = 0x25609513
_REPLY = 0x67446698
_CHUNK = 0x668E33EF


class Refused(Exception):
    """The server does not have that export, or does not let us in."""


def greets(path):
    """Does a server speak there? qemu-nbd listens before it opens its image, and
    takes its locks; it greets when it has them."""
    try:
        with Client(path) as c:
            return c.take(8) == b"NBDMAGIC"
    except OSError:
        return False


class Client:
    greeted = False

    def __init__(self, path, timeout=30):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.size = None
        self.handle = 0

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def take(self, n):
        data = bytearray(n)
        rest = memoryview(data)
        while rest:
            got = self.socket.recv_into(rest)
            if not got:
                raise ConnectionError("the server hung up")
            rest = rest[got:]
        return bytes(data)

    def greet(self):
        magic, option, flags = struct.unpack(">8sQH", self.take(18))
        if magic != b"NBDMAGIC" or option != _OPTION:
            raise ConnectionError("that is no NBD server")
        self.socket.sendall(struct.pack(">I", flags & 3))
        self.greeted = True

    def option(self, number, data=b""):
        self.socket.sendall(struct.pack(">QII", _OPTION, number, len(data)) +
                            data)

    def go(self, export=b"", length=None):
        """Opens @export; length: what to call its name's length."""
        if not self.greeted:
            self.greet()
        name_bytes = len(export) if length is None else length
        self.option(OPT_GO, struct.pack(">I", name_bytes) + export +
                    struct.pack(">H", 0))
        while True:
            _, _, kind, size = struct.unpack(">QIII", self.take(20))
            data = self.take(size)
            if kind == REP_ACK:
                return self.size
            if kind != REP_INFO:
                raise Refused(f"reply 0x{kind:08x}: "
                              f"{data.decode(errors='replace')}")
            if data[:2] == b"\0\0":
                self.size = struct.unpack(">Q", data[2:10])[0]

    def answers(self):
        """What an option is answered, up to what is no answer of many."""
        while True:
            _, _, kind, size = struct.unpack(">QIII", self.take(20))
            data = self.take(size)
            yield kind, data
            if kind not in (REP_SERVER, REP_INFO, REP_CONTEXT):
                return

    def contexts(self, export, queries, number=OPT_SET_CONTEXT):
        """{name: id} of what @export has of these; the first, too, asks for
        structured replies."""
        if not self.greeted:
            self.greet()
            self.option(OPT_STRUCTURED)
            list(self.answers())
        data = struct.pack(">I", len(export)) + export
        data += struct.pack(">I", len(queries))
        for q in queries:
            data += struct.pack(">I", len(q)) + q
        self.option(number, data)
        found = {}
        for kind, answer in self.answers():
            if kind == REP_CONTEXT:
                found[answer[4:]] = struct.unpack(">I", answer[:4])[0]
            elif kind != REP_ACK:
                raise Refused(f"reply 0x{kind:08x}: "
                              f"{answer.decode(errors='replace')}")
        return found

    def status(self, off, length, flags=0):
        """(0, {id: [(length, state)]}), or (an NBD error number, None)."""
        self.request(CMD_STATUS, off, length, flags=flags)
        told = {}
        while True:
            magic, done, kind, handle, size = struct.unpack(">IHHQI",
                                                            self.take(20))
            data = self.take(size)
            if magic != _CHUNK or handle != self.handle:
                raise ConnectionError("that is no chunk for us")
            if kind == 0x8001:
                return struct.unpack(">I", data[:4])[0], None
            ident = struct.unpack(">I", data[:4])[0]
            told[ident] = list(struct.iter_unpack(">II", data[4:]))
            if done:
                return 0, told

    def list(self):
        """The names of what there is."""
        names = []
        self.greet()
        self.option(OPT_LIST)
        while True:
            _, _, kind, size = struct.unpack(">QIII", self.take(20))
            data = self.take(size)
            if kind != REP_SERVER:
                return names
            names.append(data[4:4 + struct.unpack(">I", data[:4])[0]].decode())

    def request(self, command, off, length, data=b"", flags=0):
        self.handle += 1
        self.socket.sendall(struct.pack(">IHHQQI", _REQUEST, flags, command,
                                        self.handle, off, length) + data)

    def read(self, off, length):
        """(0, bytes), or (an NBD error number, None)."""
        self.request(CMD_READ, off, length)
        magic, code, handle = struct.unpack(">IIQ", self.take(16))
        if magic != _REPLY or handle != self.handle:
            raise ConnectionError("that is no reply to us")
        return (code, None) if code else (0, self.take(length))

    def write(self, off, data, flags=0):
        """0, or an NBD error number; as do the next three."""
        self.request(CMD_WRITE, off, len(data), data, flags)
        return struct.unpack(">IIQ", self.take(16))[1]

    def flush(self):
        return self._plain(CMD_FLUSH, 0, 0, 0)

    def trim(self, off, length, flags=0):
        return self._plain(CMD_TRIM, off, length, flags)

    def zero(self, off, length, flags=0):
        return self._plain(CMD_ZERO, off, length, flags)

    def cache(self, off, length):
        return self._plain(CMD_CACHE, off, length, 0)

    def _plain(self, command, off, length, flags):
        self.request(command, off, length, flags=flags)
        return struct.unpack(">IIQ", self.take(16))[1]

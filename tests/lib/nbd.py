# SPDX-License-Identifier: BSD-3-Clause
"""As much of an NBD client as a hostile one needs: it may leave any time,
ask for anything, and never read a reply."""

import socket
import struct

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_GO = 1, 2, 3, 7
REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_ZERO = 0, 1, 2, 3, 4, 6
FLAG_FUA, FLAG_NO_HOLE = 1, 2
_OPTION = 0x49484156454F5054
_REQUEST = 0x25609513
_REPLY = 0x67446698


class Refused(Exception):
    """The server does not have that export, or does not let us in."""


class Client:
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
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the server hung up")
            data += more
        return data

    def greet(self):
        magic, option, flags = struct.unpack(">8sQH", self.take(18))
        if magic != b"NBDMAGIC" or option != _OPTION:
            raise ConnectionError("that is no NBD server")
        self.socket.sendall(struct.pack(">I", flags & 3))

    def option(self, number, data=b""):
        self.socket.sendall(struct.pack(">QII", _OPTION, number, len(data)) +
                            data)

    def go(self, export=b"", length=None):
        """Opens @export; length: what to call its name's length."""
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

    def _plain(self, command, off, length, flags):
        self.request(command, off, length, flags=flags)
        return struct.unpack(">IIQ", self.take(16))[1]

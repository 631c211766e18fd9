# SPDX-License-Identifier: BSD-3-Clause
"""libnbd on a socket that is there already, as nbd_connect_socket() takes it."""

import ctypes
import ctypes.util

from server import Failure, skip

_PATH = ctypes.util.find_library("nbd")


def need_libnbd():
    if not _PATH:
        skip("libnbd is not installed")


def _load():
    lib = ctypes.CDLL(_PATH)
    lib.nbd_create.restype = ctypes.c_void_p
    lib.nbd_get_error.restype = ctypes.c_char_p
    lib.nbd_get_size.restype = ctypes.c_int64
    lib.nbd_get_size.argtypes = [ctypes.c_void_p]
    lib.nbd_is_read_only.argtypes = [ctypes.c_void_p]
    lib.nbd_set_export_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.nbd_connect_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.nbd_pread.argtypes = [ctypes.c_void_p, ctypes.c_char_p,
                              ctypes.c_size_t, ctypes.c_uint64,
                              ctypes.c_uint32]
    lib.nbd_pwrite.argtypes = lib.nbd_pread.argtypes
    lib.nbd_shutdown.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.nbd_close.argtypes = [ctypes.c_void_p]
    lib.nbd_close.restype = None
    return lib


class Handle:
    """A client of export @name on @sock, which is taken over."""

    def __init__(self, sock, name=""):
        self._lib = _load()
        self._h = self._lib.nbd_create()
        self._check(self._lib.nbd_set_export_name(self._h, name.encode()))
        self._check(self._lib.nbd_connect_socket(self._h, sock.detach()))
        self.size = self._check(self._lib.nbd_get_size(self._h))
        self.read_only = bool(self._lib.nbd_is_read_only(self._h))

    def _check(self, r):
        if r == -1:
            error = self._lib.nbd_get_error().decode(errors="replace")
            self.close()
            raise Failure(f"libnbd: {error}")
        return r

    def read(self, off, length):
        buf = ctypes.create_string_buffer(length)
        self._check(self._lib.nbd_pread(self._h, buf, length, off, 0))
        return buf.raw

    def write(self, off, data):
        self._check(self._lib.nbd_pwrite(self._h, data, len(data), off, 0))

    def close(self):
        if self._h:
            self._lib.nbd_close(self._h)
            self._h = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self._h:
            self._check(self._lib.nbd_shutdown(self._h, 0))
        self.close()

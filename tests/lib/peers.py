# SPDX-License-Identifier: BSD-3-Clause
"""Other programs that read an image, where they are installed: they have to
find in it what we do. support.py notes that they did."""

import filecmp
import os
import shutil
import tempfile
import time

import support
from server import Failure, run

# Who shows an image as a file by FUSE: its program, what the file is called.
_MOUNTS = {"libvmdk": ("vmdkmount", "vmdk1"), "libqcow": ("qcowmount",
                                                           "qcow1")}


def _fuse(judge):
    program = _MOUNTS[judge][0]
    if (os.access("/dev/fuse", os.R_OK | os.W_OK) and shutil.which(program)
            and shutil.which("fusermount")):
        return True
    support.without(judge)
    return False


def _unmount(folder):
    """A process that is just being started may hold the mount still."""
    until = time.monotonic() + 60
    while run(["fusermount", "-u", folder], ok=None)[0]:
        if time.monotonic() > until:
            raise Failure(f"{folder} cannot be unmounted")
        time.sleep(0.05)
    os.rmdir(folder)


def same_as_mounted(judge, image, reference, **options):
    """@judge shows @image as the bytes of @reference. options:
    image_options'."""
    if not _fuse(judge):
        return
    program, name = _MOUNTS[judge]
    folder = tempfile.mkdtemp(prefix="platter-mount-")
    try:
        run([program, image, folder])
    except Failure:
        os.rmdir(folder)
        raise
    try:
        same = filecmp.cmp(os.path.join(folder, name), reference,
                           shallow=False)
    finally:
        _unmount(folder)
    if not same:
        raise Failure(f"{image}: {judge} reads something else")
    support.saw(image, judge, **options)

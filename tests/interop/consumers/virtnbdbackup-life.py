# SPDX-License-Identifier: BSD-3-Clause
"""virtnbdbackup's own reader and writer, without a domain: LEVEL (full or inc) of
the export DISK at SOCKET goes to FOLDER as backup CHECKPOINT, read by the bitmap
of the one before it; with "restore", all there is becomes FOLDER/restored."""

import argparse
import glob
import importlib.machinery
import importlib.util
import os
import sys
import types


def program(name):
    loader = importlib.machinery.SourceFileLoader(name, f"/usr/bin/{name}")
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
folder, disk = os.environ["FOLDER"], os.environ["DISK"]
level, checkpoint, parent = (sys.argv[1:] + ["", ""])[:3]
args = argparse.Namespace(
    level=level, offline=False, socketfile=os.environ["SOCKET"], qemu=False,
    tls=False, nbd_port=0, nbd_ip="", output=folder, input=folder, type="stream",
    stdout=False, compress=False, noprogress=True,
    worker=1, quiet=True, until=None, sshClient=None,
    cpt=types.SimpleNamespace(name=checkpoint, parent=parent))
here = types.SimpleNamespace(remoteHost="")
if level == "restore":
    files = [os.path.basename(f) for level in ("full", "inc.*") for f in
             sorted(glob.glob(f"{folder}/{glob.escape(disk)}.{level}.data"),
                    key=os.path.getmtime)]
    args.output = folder + "/restored"
    args.socketfile = folder + "/restore"
    assert program("virtnbdrestore").restoreSequence(args, files, here)
else:
    backup = program("virtnbdbackup")
    # libvirt names a domain's bitmap after the disk; this one is the snapshot's.
    if level == "inc":
        backup.setMetaContext = lambda *_: f"qemu:dirty-bitmap:{parent}"
    assert backup.backupDisk(
        args, types.SimpleNamespace(target=disk, format="qcow2"), 0,
        backup.output.target.Directory(folder), here)
print("whole")

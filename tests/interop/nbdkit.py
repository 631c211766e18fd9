#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The plugin under nbdkit itself, without the platter command."""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from disk import SIZE, Disk, same_bytes  # noqa: E402
from server import environment, listens, need_programs, run  # noqa: E402

PLUGIN = os.environ.get("PLATTER_PLUGIN", "")
PARAMETERS = ("image", "format", "snapshot", "key", "allow", "cache", "io",
              "direct")


def serve(args, command, ok=(0,)):
    return run(["nbdkit", "-U", "-", PLUGIN, *args, "--run", command], ok=ok)


def refused(args, pattern):
    status, out, err = serve(args, "echo served", ok=None)
    is_true(status != 0 and "served" not in out,
            f"{args} was served: {out}{err}")
    lines = err.strip().splitlines()
    is_true(1 <= len(lines) <= 5, f"{args}: {len(lines)} lines: {err}")
    is_true(re.search(pattern, err), f"{args}: not /{pattern}/: {err}")


def the_file_may_be_named_alone(d):
    out = serve([d.path], 'nbdinfo "$uri"')[1]
    is_true(str(SIZE) in out, f"nbdinfo: {out}")


def parameters_are_taken(d):
    for args in ([f"image={d.path}"], [f"image={d.path}", "format=qcow2"],
                 [d.path, "io=sync"], [d.path, "cache=1M"],
                 [d.path, "io=auto", "direct=false"]):
        out = d.at("out.raw")
        serve(args, f'nbdcopy "$uri" {out}')
        is_true(same_bytes(out, d.raw), f"{args}: the copy differs")


def a_snapshot_may_be_the_disk(d):
    for snap, raw in d.snapshots.items():
        out = d.at("out.raw")
        serve([d.path, f"snapshot={snap}"], f'nbdcopy "$uri" {out}')
        is_true(same_bytes(out, raw), f"snapshot {snap} differs")


def a_declared_raw_image_is_raw(d):
    size = serve([d.path, "format=raw"], 'nbdinfo --size "$uri"')[1]
    is_equal(int(size), os.stat(d.path).st_size, "the size")


def a_relative_path_is_found(d):
    name = os.path.relpath(d.path)
    out = serve([name], 'nbdinfo --size "$uri"')[1]
    is_equal(out.strip(), str(SIZE), "the size")


def the_server_survives_going_to_the_background(d):
    """nbdkit forks after the image was opened: rings must be new."""
    socket, pid = d.at("sock"), d.at("pid")
    run(["nbdkit", "-U", socket, "-P", pid, PLUGIN, d.path])
    try:
        out = d.at("out.raw")
        run(["nbdcopy", f"nbd+unix:///?socket={socket}", out])
        is_true(same_bytes(out, d.raw), "the copy differs")
    finally:
        with open(pid) as f:
            os.kill(int(f.read()), 15)


def the_server_ends_cleanly(d):
    """Also after connections; a crash at the end would go unnoticed."""
    socket = d.at("sock2")
    with subprocess.Popen(["nbdkit", "-f", "-U", socket, PLUGIN, d.path],
                          stderr=subprocess.PIPE, text=True) as server:
        try:
            for _ in range(200):
                if listens(socket):
                    break
                time.sleep(0.02)
            for export in ("", "%40clean"):
                run(["nbdcopy", f"nbd+unix:///{export}?socket={socket}",
                     "null:"])
        finally:
            server.terminate()
            said = server.communicate(timeout=20)[1]
        is_equal(server.returncode, 0, f"nbdkit's status ({said.strip()})")


def filters_can_stand_in_front(d):
    out = run(["nbdkit", "-U", "-", "--filter=offset", PLUGIN, d.path,
               "offset=512", "--run", 'nbdinfo --size "$uri"'])[1]
    is_equal(int(out), SIZE - 512, "the size")


def wrong_parameters_are_refused_in_a_line(d):
    refused([], "image")
    refused([d.path, "color=blue"], "color")
    refused([d.path, "io=fast"], "io")
    refused([d.path, "cache=lots"], "cache")
    refused([d.path, "format=qcow9"], "qcow9")
    refused([d.path, "snapshot=nope"], "nope")
    refused([d.path, f"allow={d.at('no-such-folder')}"], "no-such-folder")
    refused([d.path, f"key={d.at('no-such-key')}"], "no-such-key")
    refused([d.at("no-such-file")], "no-such-file")
    refused([d.folder], "regular|folder|directory")
    refused([d.raw, "format=qcow2"], "qcow2|magic")


def dump_plugin_describes_it(d):
    out = run(["nbdkit", PLUGIN, "--dump-plugin"])[1]
    is_true("name=platter" in out.splitlines(), out)
    is_true("thread_model=parallel" in out.splitlines(), out)
    is_true(re.search(r"^version=\d", out, re.M), out)


def help_names_every_parameter(d):
    out = run(["nbdkit", PLUGIN, "--help"])[1]
    for p in PARAMETERS:
        is_true(re.search(rf"\b{p}=", out), f"{p}= is not in: {out}")


if __name__ == "__main__":
    environment("PLATTER_PLUGIN")
    need_programs("nbdinfo", "nbdcopy", "nbdkit", "qemu-img", "qemu-io")
    run_checks(Disk, [
        the_file_may_be_named_alone,
        parameters_are_taken,
        a_snapshot_may_be_the_disk,
        a_declared_raw_image_is_raw,
        a_relative_path_is_found,
        the_server_survives_going_to_the_background,
        the_server_ends_cleanly,
        filters_can_stand_in_front,
        wrong_parameters_are_refused_in_a_line,
        dump_plugin_describes_it,
        help_names_every_parameter,
    ])

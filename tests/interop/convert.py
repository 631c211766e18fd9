#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Where platter convert reads from and writes to beside files: pipes, block
devices, NBD servers. qemu-img is the judge of every disk."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import (Failure, dies_with_us, environment,  # noqa: E402
                    need_programs, run)

MIB = 1 << 20
SIZE = 9 * MIB + 512
WAIT_SEC = 30


class Context:
    """disk.raw, with holes, zeroes and an odd end, and disk.qcow2 of it."""

    def __init__(self, folder):
        self.folder = folder
        self.raw, self.qcow2 = self.at("disk.raw"), self.at("disk.qcow2")
        with open(self.raw, "wb") as f:
            f.truncate(SIZE)
            for at, length in ((0, 5000), (3 * MIB - 700, 1400),
                               (6 * MIB, MIB), (SIZE - 100, 100)):
                f.seek(at)
                f.write(bytes((at + i) % 251 + 1 for i in range(length)))
        run(["qemu-img", "convert", "-O", "qcow2", self.raw, self.qcow2])

    def at(self, name):
        return os.path.join(self.folder, name)

    def bytes(self):
        with open(self.raw, "rb") as f:
            return f.read()

    def same(self, path, fmt="raw"):
        run(["qemu-img", "compare", "-f", "raw", "-F", fmt, self.raw,
             path])

    def left(self):
        """What lies in the folder, to see that nothing was left behind."""
        return sorted(os.listdir(self.folder))


def platter(*args, **how):
    return subprocess.run([os.environ["PLATTER"], *map(str, args)],
                          capture_output=True, check=False,
                          timeout=WAIT_SEC * 4, **how)


def convert(*args, status=0, **how):
    p = platter("convert", "--quiet", *args, **how)
    if p.returncode != status:
        raise Failure(f"convert {args}: {p.returncode}, {p.stderr.decode()}")
    return p


# Pipes.


def a_disk_goes_to_a_pipe(c):
    is_equal(convert(c.qcow2, "-").stdout == c.bytes(), True,
             "a disk in a pipe is the disk")
    with open(c.at("to"), "wb") as f:
        subprocess.run([os.environ["PLATTER"], "convert", c.qcow2, "-"],
                       stdout=f, stderr=subprocess.DEVNULL, check=True)
    c.same(c.at("to"))


def any_format_comes_from_a_pipe(c):
    run(["qemu-img", "convert", "-O", "vmdk", "-o",
         "subformat=streamOptimized", c.raw, c.at("stream.vmdk")])
    run(["qemu-img", "convert", "-O", "vpc", "-o", "subformat=fixed,force_size",
         c.raw, c.at("fixed.vhd")])
    before = c.left()
    for name in ("disk.raw", "disk.qcow2", "stream.vmdk", "fixed.vhd"):
        for fmt in ("raw", "qcow2"):
            with open(c.at(name), "rb") as f:
                convert("-O", fmt, "--overwrite", "-", c.at("to"),
                        input=f.read())
            c.same(c.at("to"), fmt)
        with open(c.at(name), "rb") as f:
            is_true(convert("-", "-", input=f.read()).stdout == c.bytes(),
                    f"{name} from pipe to pipe is another disk")
        with open(c.at(name), "rb") as f:
            convert("--overwrite", "-", c.at("to"), stdin=f)
        c.same(c.at("to"))
    is_equal(c.left(), sorted({*before, "to"}), "what is left")
    used = os.stat(c.at("to")).st_blocks * 512
    is_true(used < 4 * MIB, f"of a sparse disk {used} bytes are used")


def what_a_stream_names_is_not_opened(c):
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F",
         "raw", c.at("top.qcow2")])
    with open(c.at("top.qcow2"), "rb") as f:
        p = convert("--overwrite", "-", c.at("to"), input=f.read(), status=1)
    is_true(b"its backing file is not followed" in p.stderr, str(p.stderr))
    # A file is one, by whichever name it comes.
    with open(c.at("top.qcow2"), "rb") as f:
        convert("--overwrite", "-", c.at("to"), stdin=f)
    c.same(c.at("to"))


def what_makes_no_sense_is_refused(c):
    before = c.left()
    for args, status, says in (
            (["convert", "-O", "qcow2", c.raw, "-"], 2, "not written in order"),
            (["convert", "--json", c.raw, "-"], 2, "--json"),
            (["convert", "-", c.at("to3")], 1, "is empty"),
            (["info", "-"], 1, "./-"), (["check", "-"], 1, "./-"),
            (["map", "-"], 1, "./-"), (["diff", "-", c.raw], 2, "./-"),
            (["diff", c.raw, "-"], 2, "./-"), (["serve", "-"], 1, "./-"),
            (["create", "-", "1M"], 1, "./-"),
            (["info", "--key", "-", c.raw], 2, "./-"),
            (["serve", "--overlay", "-", c.raw], 2, "./-")):
        p = platter(*args, input=b"")
        is_equal(p.returncode, status, f"status of {args}, {p.stderr}")
        is_true(says.encode() in p.stderr, f"{args}: {p.stderr}")
        is_equal(p.stderr.count(b"\n"), 1, f"lines of {p.stderr}")
    is_equal(c.left(), before, "what is left")


def a_file_may_be_called_so(c):
    run(["cp", c.qcow2, c.at("-")])
    p = platter("info", "./-", cwd=c.folder)
    is_true(b"format: qcow2" in p.stdout, f"info ./-: {p}")
    p = convert("./-", c.at("to4"), cwd=c.folder)
    c.same(c.at("to4"))


def in_pipe(fd):
    """How many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)),
                          sys.byteorder)


def who_waits_for_a_pipe_can_be_stopped(c):
    """In both directions, and nothing is left of the file."""
    before = c.left()
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    for args, how, waits in (
            (["-", c.at("never")], {"stdin": read_end},
             lambda: not in_pipe(read_end)),
            ([c.qcow2, "-"], {"stdout": write_end},
             lambda: in_pipe(read_end) >= 65536)):
        p = subprocess.Popen(
            dies_with_us([os.environ["PLATTER"], "convert", "--quiet", *args]),
            stderr=subprocess.PIPE, **how)
        deadline = time.monotonic() + WAIT_SEC
        while not waits():
            is_true(time.monotonic() < deadline, f"{args} does not wait")
            time.sleep(0.01)
        p.send_signal(signal.SIGTERM)
        is_equal(p.wait(WAIT_SEC), 128 + signal.SIGTERM, f"status of {args}")
        p.stderr.close()
    is_equal(c.left(), before, "what is left")


def a_full_disk_is_told_by_name(c):
    before = c.left()
    with open(c.raw, "rb") as f:
        disk = f.read()
    for args, what in (([c.raw], "cannot be written"),
                       (["-O", "qcow2", c.raw], "cannot be written"),
                       (["-"], "what standard input brings")):
        p = subprocess.run(
            ["prlimit", "--fsize=262144", "sh", "-c",
             'trap "" XFSZ; exec "$@"', "sh", os.environ["PLATTER"],
             "convert", "--quiet", *args, c.at("never")],
            capture_output=True, input=disk, check=False, text=False)
        is_equal(p.returncode, 1, f"status of {args}")
        is_true(f"{c.at('never')}: ".encode() in p.stderr and
                what.encode() in p.stderr, str(p.stderr))
    is_equal(c.left(), before, "what is left")
    with open("/dev/full", "wb") as f:
        p = subprocess.run([os.environ["PLATTER"], "convert", c.raw, "-"],
                           stdout=f, stderr=subprocess.PIPE, check=False)
    is_equal(p.returncode, 1, "status of a full output")
    is_true(b"standard output: No space left" in p.stderr, str(p.stderr))


if __name__ == "__main__":
    environment("PLATTER")
    need_programs("qemu-img")
    run_checks(Context, [
        a_disk_goes_to_a_pipe,
        any_format_comes_from_a_pipe,
        what_a_stream_names_is_not_opened,
        what_makes_no_sense_is_refused,
        a_file_may_be_called_so,
        who_waits_for_a_pipe_can_be_stopped,
        a_full_disk_is_told_by_name,
    ])

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Where platter convert reads from and writes to beside files: pipes, block
devices, NBD servers. qemu-img is the judge of every disk."""

import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import (Failure, dies_with_us, environment, listens,  # noqa: E402
                    need_programs, run, run_json)

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
            # Zeroes that are data, to whoever does not look at them.
            f.seek(6 * MIB + 100 * 1024)
            f.write(bytes(200 * 1024))
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


# Block devices and NBD exports, which are there already.


class Loop:
    """A loop device over @path."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        # udev, where there is one, looks at it for a moment.
        return run(["losetup", "--find", "--show", self.path])[1].strip()

    def __exit__(self, *_):
        where = run(["losetup", "-n", "-O", "NAME", "-j", self.path])[1]
        run(["losetup", "--detach", where.strip()])


def garbage(path, size):
    with open(path, "wb") as f:
        f.write(b"\xa5" * size)
    return path


class NbdServer:
    """A server on a socket of its own, started by @argv, with its socket's path
    for SOCKET."""

    def __init__(self, c, *argv):
        self.socket = c.at("nbd.sock")
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        argv = [str(a).replace("SOCKET", self.socket) for a in argv]
        self.process = subprocess.Popen(
            dies_with_us(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        deadline = time.monotonic() + WAIT_SEC
        while not listens(self.socket):
            if self.process.poll() is not None:
                raise Failure(f"{self.process.args}: "
                              f"{self.process.stderr.read()}")
            is_true(time.monotonic() < deadline, "the server does not start")
            time.sleep(0.02)
        return f"nbd+unix:///?socket={self.socket}"

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate(timeout=WAIT_SEC)


def refuses_another_node(c, dev):
    """As containers have them; the device is the same."""
    node = c.at("node")
    if os.statvfs(c.at("")).f_flag & os.ST_NODEV:
        print("no nodes of devices in TMPDIR: another one is left out")
        return
    os.mknod(node, 0o600 | stat.S_IFBLK, os.stat(dev).st_rdev)
    for how in ((), ("-c", "-O", "qcow2")):
        p = convert("-n", *how, node, dev, status=1)
        is_true(b"is what is read" in p.stderr, str(p.stderr))


def a_disk_is_written_onto_a_block_device(c):
    if os.geteuid() or not os.path.exists("/dev/loop-control"):
        print("no loop devices here: left out")
        return
    target = garbage(c.at("device"), SIZE + MIB)
    with Loop(target) as dev:
        convert(c.qcow2, dev, status=2)
        convert("--overwrite", c.qcow2, dev, status=2)
        # Somebody else has it for himself.
        fd = os.open(dev, os.O_RDWR | os.O_EXCL)
        p = convert("-n", c.qcow2, dev, status=1)
        is_true(f"{dev}: is in use".encode() in p.stderr, str(p.stderr))
        os.close(fd)
        run(["losetup", "--set-capacity", dev])
        p = convert("-n", dev, dev, status=1)
        is_true(b"is what is read" in p.stderr, str(p.stderr))
        refuses_another_node(c, dev)
        run(["blockdev", "--setro", dev])
        for how in ((), ("-O", "qcow2")):
            p = convert("-n", *how, c.qcow2, dev, status=1)
            is_equal(p.stderr, f"platter: {dev}: takes no writes\n".encode(),
                     "what is told of a device that is read-only")
        run(["blockdev", "--setrw", dev])
        with open(dev, "rb") as f:
            is_equal(f.read().strip(b"\xa5"), b"", "what refusals wrote")
        p = convert("-n", c.raw, dev)
        is_true(b"stays as it is" in p.stderr, str(p.stderr))
        run(["qemu-img", "convert", "-O", "raw", "--image-opts",
             f"driver=raw,size={SIZE},file.driver=host_device,"
             f"file.filename={dev}", c.at("got")])
        c.same(c.at("got"))
    with open(target, "rb") as f:
        f.seek(SIZE)
        is_equal(f.read(), b"\xa5" * MIB, "what lies behind the disk")
    is_equal(os.path.getsize(target), SIZE + MIB, "the device's size")
    with Loop(garbage(c.at("small"), SIZE - 512)) as dev:
        p = convert("-n", c.qcow2, dev, status=1)
        is_true(f"has {SIZE - 512} bytes".encode() in p.stderr, str(p.stderr))
        with open(dev, "rb") as f:
            is_equal(f.read().strip(b"\xa5"), b"", "what was written")


def is_this_disk(c, *where):
    """The qcow2 file at @where, a path or an URI, as qemu-img sees it."""
    checked = run(["qemu-img", "check", "-f", "qcow2", *where])[1]
    is_true("No errors were found" in checked, checked)
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", c.raw, *where])


COMPRESSED = ((), ("-c",), ("--compression", "zstd"))


def a_qcow2_file_is_written_onto_a_block_device(c):
    if os.geteuid() or not os.path.exists("/dev/loop-control"):
        print("no loop devices here: left out")
        return
    required = int(run([os.environ["PLATTER"], "measure", "-O", "qcow2",
                        c.qcow2])[1].split()[2])
    with Loop(garbage(c.at("volume"), required)) as dev:
        for how in COMPRESSED:
            for clusters in ("512", "64k") if how else ("64k",):
                p = convert("-n", "-O", "qcow2", "--json", "--cluster-size",
                            clusters, *how, c.qcow2, dev)
                is_equal(p.stderr, b"", "messages")
                is_this_disk(c, dev)
                end = run_json(["qemu-img", "check", "--output=json", "-f",
                                "qcow2", dev])["image-end-offset"]
                is_equal(json.loads(p.stdout)["file-size"], end, "its length")
        # What is read is a disk on the device itself.
        p = convert("-n", "-O", "qcow2", dev, dev, status=1)
        is_true(b"is in use" in p.stderr or b"is what is read" in p.stderr,
                str(p.stderr))
        is_this_disk(c, dev)
    with Loop(garbage(c.at("little"), required - 512)) as dev:
        p = convert("-n", "-O", "qcow2", c.qcow2, dev, status=1)
        is_true(f"has {required - 512} bytes, the file needs more, up to "
                f"{required}\n".encode() in p.stderr, str(p.stderr))
        with open(dev, "rb") as f:
            is_equal(f.read().strip(b"\xa5"), b"", "what was written")
        convert("-n", "-O", "qcow2", "-c", c.qcow2, dev)
        is_this_disk(c, dev)
    with Loop(garbage(c.at("tiny"), 512 * 1024)) as dev:
        # Data as far as tables tell, and zeroes.
        zeroes = c.at("zeroes")
        with open(zeroes, "wb") as f:
            f.write(bytes(4 * MIB) + b"end" * 512)
        p = convert("-n", "-O", "qcow2", zeroes, dev)
        is_true(b"zeroes is looked for" in p.stderr, str(p.stderr))
        run(["qemu-img", "check", "-f", "qcow2", dev])
        run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", zeroes, dev])
        noise = c.at("noise")
        with open(noise, "wb") as f:
            f.write(os.urandom(MIB))
        p = convert("-n", "-O", "qcow2", "-c", noise, dev, status=1)
        is_true(b"the file needs more than the 524288 bytes" in p.stderr and
                b"partly written" in p.stderr, str(p.stderr))
        is_true(run(["qemu-img", "info", "-f", "qcow2", dev], ok=None)[0],
                "what does not fit looks like an image")


def a_qcow2_file_is_written_onto_a_server(c):
    target = garbage(c.at("store"), SIZE)
    for how in COMPRESSED:
        with NbdServer(c, "qemu-nbd", "-t", "-k", "SOCKET", "-f", "raw",
                       target) as uri:
            convert("-n", "-O", "qcow2", *how, c.raw, uri)
            is_this_disk(c, uri)
        with NbdServer(c, "nbdkit", "-f", "-U", "SOCKET",
                       "--filter=blocksize-policy", "file", target,
                       "blocksize-minimum=4k", "blocksize-preferred=4k",
                       "blocksize-maximum=1M",
                       "blocksize-error-policy=error") as uri:
            p = convert("-n", "-O", "qcow2", "--cluster-size", "2k", *how,
                        c.qcow2, uri, status=1)
            is_true(b"blocks of 4096 bytes" in p.stderr, str(p.stderr))
            convert("-n", "-O", "qcow2", *how, c.qcow2, uri)
        is_this_disk(c, target)


def a_killed_copy_is_no_image(c):
    """What was there is none any more either."""
    target = c.at("killed")
    run(["qemu-img", "convert", "-O", "qcow2", c.raw, target])
    os.truncate(target, SIZE)
    log = c.at("killed.log")
    with NbdServer(c, "nbdkit", "-f", "-U", "SOCKET", "--filter=log",
                   "--filter=delay", "file", target, f"logfile={log}",
                   "delay-write=300ms") as uri:
        p = subprocess.Popen([os.environ["PLATTER"], "convert", "--quiet",
                              "-n", "-O", "qcow2", c.raw, uri])
        deadline = time.monotonic() + WAIT_SEC
        # Its data are under way: the header is not the first of all.
        while True:
            with open(log, encoding="ascii", errors="replace") as f:
                if re.search(r"Write id=\d+ offset=0x[1-9a-f]", f.read()):
                    break
            is_true(time.monotonic() < deadline and p.poll() is None,
                    "nothing is written")
            time.sleep(0.02)
        p.kill()
        p.wait(WAIT_SEC)
    with open(target, "rb") as f:
        is_equal(f.read(65536).strip(b"\0"), b"", "what was the header")
    with open(log, encoding="ascii") as f:
        is_true(re.search(r"Flush", f.read()), "the old header's end was not "
                "flushed before the data")


def a_disk_is_written_onto_qemus_server(c):
    for fmt, fresh in (("raw", False), ("raw", True), ("qcow2", True)):
        target = c.at("exported")
        if fresh:
            run(["qemu-img", "create", "-q", "-f", fmt, target, SIZE])
        else:
            garbage(target, SIZE)
        with NbdServer(c, "qemu-nbd", "-t", "-k", "SOCKET", "-f", fmt,
                       target) as uri:
            p = convert(c.qcow2, uri, status=2)
            is_true(b"-n writes onto" in p.stderr, str(p.stderr))
            convert("-n", c.raw, uri)
            c.same(uri)
        c.same(target, fmt)
        with open(c.raw, "rb") as f:
            disk = f.read()
        with NbdServer(c, "qemu-nbd", "-t", "-k", "SOCKET", "-f", fmt,
                       target) as uri:
            convert("-n", "-", uri, input=disk)
        c.same(target, fmt)
    with NbdServer(c, "qemu-nbd", "-t", "-r", "-k", "SOCKET", "-f", "raw",
                   c.raw) as uri:
        p = convert("-n", c.qcow2, uri, status=1)
        is_true(b"takes no writes" in p.stderr, str(p.stderr))
        is_equal(p.stderr.count(b"\n"), 1, f"lines of {p.stderr}")


def a_disk_is_written_onto_an_overlay_of_ours(c):
    base, top = garbage(c.at("base.raw"), SIZE), c.at("over.qcow2")
    with NbdServer(c, os.environ["PLATTER"], "serve", "-U", "SOCKET",
                   "--overlay", top, base) as uri:
        convert("-n", c.qcow2, uri)
        c.same(uri)
    c.same(top, "qcow2")
    run(["qemu-img", "check", top])
    with open(base, "rb") as f:
        is_equal(f.read().strip(b"\xa5"), b"", "what became of the base")


def traffic(c, *nbdkit, status=0):
    """(written, zeroed) bytes when the disk is copied to nbdkit's @nbdkit."""
    stats = c.at("stats")
    with NbdServer(c, "nbdkit", "-f", "-U", "SOCKET", "--filter=stats",
                   *nbdkit, f"statsfile={stats}") as uri:
        p = convert("-n", c.qcow2, uri, status=status)
        if not status:
            run(["qemu-img", "compare", "--image-opts",
                 f"driver=raw,file.filename={c.raw}",
                 f"driver=raw,size={SIZE},file.driver=nbd,"
                 f"file.server.type=unix,file.server.path={c.at('nbd.sock')}"])
    # In words for people.
    units = {"bytes": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
    got = {}
    with open(stats, encoding="ascii") as f:
        text = f.read()
        is_true(status or "\nflush: " in "\n" + text, f"no flush: {text}")
        for line in text.splitlines():
            m = re.match(r"(\w+): .*?ops, .*?s, ([0-9.]+) (\w+)", line)
            if m and m[1] in ("write", "zero"):
                got[m[1]] = float(m[2]) * units[m[3]]
    return got.get("write", 0), got.get("zero", 0), p


def zeroes_are_told_and_not_sent(c):
    size = 10 * MIB
    data = 2 * MIB

    def dirty():
        return ["file", garbage(c.at("dirty"), size)]
    written, zeroed, _ = traffic(c, "memory", str(size))
    is_true(0 < written < data, f"onto zeroes {written} bytes are written")
    is_equal(zeroed, 0, "what is zeroed that reads so")
    written, zeroed, _ = traffic(c, *dirty())
    is_true(0 < written < data, f"{written} bytes are written")
    is_true(zeroed > 7 * MIB, f"{zeroed} bytes are zeroed")
    # One that cannot, and one that takes whole blocks only.
    written, zeroed, _ = traffic(c, "--filter=nozero", *dirty())
    is_true(written >= 9 * MIB, f"without zeroing {written} bytes are written")
    traffic(c, "--filter=blocksize-policy", *dirty(), "blocksize-minimum=64k",
            "blocksize-preferred=64k", "blocksize-maximum=128k",
            "blocksize-error-policy=error")


def a_copy_that_fails_half_way_says_so(c):
    p = traffic(c, "--filter=error", "memory", str(10 * MIB),
                "error-pwrite=ENOSPC", "error-pwrite-rate=100%", status=1)[2]
    is_true(b"No space left" in p.stderr and
            b"it is partly written now" in p.stderr, str(p.stderr))
    is_equal(p.stderr.count(b"\n"), 2, f"lines of {p.stderr}")
    p = convert("-n", c.qcow2, "nbd+unix:///?socket=/nonexistent", status=1)
    is_true(b"/nonexistent" in p.stderr and b"partly" not in p.stderr,
            str(p.stderr))


# Increments.


def qemu_io(path, *commands):
    run(["qemu-io", "-f", "qcow2", *[a for c in commands for a in ("-c", c)],
         path])


def info(path):
    return json.loads(run(["qemu-img", "info", "--output=json", path])[1])


def equal(a, b):
    run(["qemu-img", "compare", a, b])


class States:
    """disk-a.qcow2 and the rest of its history: snapshots "one" and "two" of
    states.qcow2, and the layers l0, l1, l2.qcow2."""

    def __init__(self, c):
        self.at = lambda name: c.at("states/" + name)
        os.mkdir(c.at("states"))
        self.all = self.at("states.qcow2")
        run(["qemu-img", "convert", "-O", "qcow2", c.raw, self.all])
        writes = (["write -P 1 64k 64k", "write -z 6M 256k"],
                  ["write -P 2 9M 512", "write -z 64k 32k"])
        run(["qemu-img", "snapshot", "-c", "one", self.all])
        qemu_io(self.all, *writes[0])
        run(["qemu-img", "snapshot", "-c", "two", self.all])
        run(["qemu-img", "resize", "-q", self.all, "+1M"])
        qemu_io(self.all, *writes[1], "write -P 3 10M 512")
        for i, (name, snap) in enumerate((("0", "one"), ("1", "two"),
                                          ("2", None))):
            how = ["-l", f"snapshot.name={snap}"] if snap else []
            run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", *how,
                 self.all, self.at(f"then{name}.raw")])
            if not i:
                run(["cp", c.qcow2, self.at("l0.qcow2")])
                continue
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                 "-b", f"l{i - 1}.qcow2", self.at(f"l{i}.qcow2"),
                 *([SIZE + MIB] if i == 2 else [])])
            qemu_io(self.at(f"l{i}.qcow2"), *writes[i - 1],
                    *(["write -P 3 10M 512"] if i == 2 else []))


def increments_restore_every_state(c):
    s = c.states = States(c)
    at = s.at
    for size, more in (("4k", []), ("64k", ["-c"]), ("2M", []),
                       ("64k", ["--compression", "zstd"])):
        how = ["--overwrite", "-O", "qcow2", "--cluster-size", size, *more]
        convert("--overwrite", "-O", "qcow2", s.all + "@one",
                at("full.qcow2"))
        convert(*how, "-B", "full.qcow2", s.all + "@one..two", at("i1.qcow2"))
        convert(*how, "-B", "i1.qcow2", s.all + "@two..", at("i2.qcow2"))
        for name, then, below in (("i1", "then1", "full"),
                                  ("i2", "then2", "i1")):
            path = at(name + ".qcow2")
            equal(path, at(then + ".raw"))
            run(["qemu-img", "check", path])
            told = info(path)
            is_equal((told["backing-filename"],
                      told["backing-filename-format"]),
                     (below + ".qcow2", "qcow2"), "what it names")
            if size == "4k":
                is_true(os.path.getsize(path) <= 160 * 1024,
                        f"{name} has {os.path.getsize(path)} bytes")
    # qemu-img takes it apart as its own.
    run(["qemu-img", "rebase", "-f", "qcow2", "-F", "qcow2", "-b",
         "full.qcow2", at("i2.qcow2")])
    equal(at("i2.qcow2"), at("then2.raw"))
    run(["qemu-img", "convert", "-O", "raw", at("i2.qcow2"), at("got")])
    equal(at("got"), at("then2.raw"))


def an_increment_over_a_layer_names_it(c):
    at = c.states.at
    for change, below, then in (("l0.qcow2..l1.qcow2", "l0.qcow2", "then1"),
                                ("l0.qcow2..", "l0.qcow2", "then2"),
                                ("#1..", "l1.qcow2", "then2"),
                                ("..l0.qcow2", "l2.qcow2", "then0")):
        out = at("inc.qcow2")
        convert("--overwrite", f"{at('l2.qcow2')}@{change}", out)
        equal(out, at(then + ".raw"))
        is_equal(info(out)["backing-filename"], below, f"base of {change}")
    out = c.at("elsewhere.qcow2")
    convert(f"{at('l2.qcow2')}@l0.qcow2..", out)
    is_equal(info(out)["backing-filename"], os.path.realpath(at("l0.qcow2")),
             "base of another folder")
    equal(out, at("then2.raw"))


def an_increment_over_any_image_is_what_differs(c):
    at = c.states.at
    for base, fmt, image, then in (("then0.raw", "raw", "then1.raw", "then1"),
                                   ("l0.qcow2", "qcow2", "then2.raw", "then2"),
                                   ("l2.qcow2", "qcow2", "then0.raw", "then0")):
        out = at("diff.qcow2")
        convert("--overwrite", "-B", base, "-F", fmt, at(image), out)
        equal(out, at(then + ".raw"))
        is_equal(info(out)["backing-filename"], base, "what it names")
        is_true(os.path.getsize(out) < 2 * MIB,
                f"{os.path.getsize(out)} bytes of its own")
    with open(at("then1.raw"), "rb") as f:
        convert("--overwrite", "-B", "then0.raw", "-F", "raw", "-",
                at("diff.qcow2"), input=f.read())
    equal(at("diff.qcow2"), at("then1.raw"))


def increments_that_could_not_be_restored_are_refused(c):
    at, full = c.states.at, c.states.all
    before = sorted(os.listdir(at("")))
    for args, status, says in (
            ([full + "@one..two", at("no")], 1, "-B names the file"),
            (["-B", "then2.raw", full + "@one..two", at("no")], 1,
             "the state that it"),
            (["-B", "none.raw", full + "@one..two", at("no")], 1, "none.raw"),
            ([full + "@one..three", at("no")], 1, "three"),
            ([full + "@..", at("no")], 1, '".."'),
            ([full + "@a..b..c", at("no")], 1, "a..b..c"),
            (["-O", "raw", "-B", "then0.raw", full, at("no")], 1, "is qcow2"),
            (["-B", "then0.raw", full, "-"], 2, "standard output"),
            (["--overwrite", "-B", "l1.qcow2", full, at("l0.qcow2")], 1,
             "is what the increment lies on"),
            (["-F", "raw", full, at("no")], 2, "no --base")):
        p = convert(*args, status=status)
        is_true(says.encode() in p.stderr, f"{args}: {p.stderr}")
    is_equal(sorted(os.listdir(at(""))), before, "what is left")


# Sizes and room.


def a_disk_that_ends_within_a_sector_is_told(c):
    ragged, copy = c.at("ragged"), c.at("ragged.qcow2")
    with open(ragged, "wb") as f:
        f.write(b"a" * 1027)
    is_equal(convert(ragged, c.at("ragged.copy")).stderr, b"",
             "what is told of a raw copy")
    p = convert("-O", "qcow2", ragged, copy)
    is_true(b"1027 bytes, of which QEMU leaves out the last 3:" in p.stderr,
            str(p.stderr))
    convert(copy, c.at("back"))
    with open(c.at("back"), "rb") as f:
        is_equal(f.read(), b"a" * 1027, "the disk")


def a_copys_size_is_told_before(c):
    """As qemu-img measure tells it, and no copy is larger."""
    def measured(*args):
        ours = json.loads(platter("measure", "--json", *args).stdout)
        theirs = []
        for a in args:
            theirs += (["-o", "cluster_size=" + a.split("=")[1]]
                       if "cluster-size" in a else [a])
        theirs = json.loads(run(["qemu-img", "measure", "--output=json",
                                 *theirs])[1])
        is_equal(ours["fully-allocated"], theirs["fully-allocated"],
                 f"the size of {args} in full")
        # Holes in a qcow2 file are data to qemu-img, and no data to a copy.
        is_true(ours["required"] <= theirs["required"], f"{args}: {ours}")
        if args[-1] not in (c.qcow2, c.states.at("l2.qcow2")):
            is_equal(ours["required"], theirs["required"],
                     f"the size of {args}")
        return ours
    for size in ("0", "1", "65536", "1000001", "7G", "2T"):
        measured("-O", "raw", "--size", size)
        for cluster in ("4096", "65536", "2097152"):
            measured("-O", "qcow2", f"--cluster-size={cluster}", "--size",
                     size)
    for image in (c.raw, c.qcow2, c.states.at("l2.qcow2")):
        measured("-O", "raw", image)
        for cluster in ("512", "65536"):
            most = measured("-O", "qcow2", f"--cluster-size={cluster}", image)
            convert("--overwrite", "-O", "qcow2", "--cluster-size", cluster,
                    image, c.at("to"))
            is_true(os.path.getsize(c.at("to")) <= most["required"],
                    f"{image}, {cluster}: {os.path.getsize(c.at('to'))} bytes")
    p = platter("measure", "-O", "qcow2", "--json", c.states.all + "@one")
    is_equal(json.loads(p.stdout)["fully-allocated"],
             measured("-O", "qcow2", "--size", str(SIZE))["fully-allocated"],
             "the size of a state")
    for args, says in (([], b"an image or --size"), (["--size", "x"], b"x"),
                       (["--size", "1M", c.raw], b"an image or --size"),
                       (["--cluster-size", "4k", c.raw], b"raw has no")):
        p = platter("measure", *args)
        is_equal(p.returncode, 2, f"status of {args}")
        is_true(says in p.stderr, str(p.stderr))


def room_is_set_aside(c):
    """What is made so is sound, reads as zeroes or its base, and takes no
    more room for what is written."""
    size = 3 * MIB + 512
    for how, least in (("off", 0), ("metadata", 0), ("falloc", size),
                       ("full", size)):
        path = c.at(f"made-{how}")
        for fmt in ("raw", "qcow2"):
            if (fmt, how) == ("raw", "metadata"):
                is_equal(platter("create", "-O", fmt, "--preallocation", how,
                                 path, size).returncode, 2, "status of raw")
                continue
            p = platter("create", "-O", fmt, "--preallocation", how, path,
                        size)
            is_equal(p.returncode, 0, f"status of {fmt} {how}, {p.stderr}")
            used = os.stat(path).st_blocks * 512
            is_true(least <= used <= (least or MIB // 2) + MIB,
                    f"{fmt} {how} takes {used} bytes")
            with NbdServer(c, "qemu-nbd", "-t", "-k", "SOCKET", "-f", fmt,
                           path) as uri:
                is_equal(run(["nbdcopy", uri, c.at("zero")])[0], 0, "a copy")
            with open(c.at("zero"), "rb") as f:
                is_equal(f.read().strip(b"\0"), b"", f"{fmt} {how} reads")
            if fmt == "qcow2":
                run(["qemu-img", "check", path])
                before = os.path.getsize(path)
                with NbdServer(c, "qemu-nbd", "-t", "-k", "SOCKET", "-f", fmt,
                               path) as uri:
                    run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 1M",
                         "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 1M",
                         uri])
                run(["qemu-img", "check", path])
                is_equal(os.path.getsize(path) > before, how == "off",
                         f"{how}: whether it grew")
            os.unlink(path)
    for how in ("metadata", "falloc", "full"):
        top = c.at(f"made-{how}.qcow2")
        p = platter("create", "--preallocation", how, "-b", "disk.raw", "-F",
                    "raw", top)
        is_equal(p.returncode, 0, f"status with a base, {p.stderr}")
        run(["qemu-img", "compare", c.raw, top])
        before = os.path.getsize(top)
        with NbdServer(c, os.environ["PLATTER"], "serve", "-U", "SOCKET",
                       "--overlay", top, "--format", "raw", c.raw) as uri:
            run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 5k", "-c",
                 "write -P 8 9M 100", uri])
        run(["qemu-img", "check", top])
        is_equal(os.path.getsize(top), before, "the size of what was set aside")
        run(["cp", c.raw, c.at("want")])
        for at, byte, n in ((MIB, 7, 5 * 1024), (9 * MIB, 8, 100)):
            with open(c.at("want"), "r+b") as f:
                f.seek(at)
                f.write(bytes([byte]) * n)
        run(["qemu-img", "compare", c.at("want"), top])
    # Refcounts over more than a block, tables over more than a cluster.
    path = c.at("made-large.qcow2")
    is_equal(platter("create", "--preallocation", "metadata", path,
                     "9G").returncode, 0, "status of 9G")
    run(["qemu-img", "check", path])
    p = platter("check", path)
    is_equal(p.returncode, 0, f"our check of 9G: {p.stdout}")
    is_true(os.path.getsize(path) > 9 << 30, "9G in the file")
    os.unlink(path)
    p = subprocess.run(
        ["prlimit", "--fsize=262144", "sh", "-c", 'trap "" XFSZ; exec "$@"',
         "sh", os.environ["PLATTER"], "create", "-O", "raw",
         "--preallocation", "full", c.at("never"), "1M"],
        capture_output=True, check=False)
    is_true(p.returncode == 1 and c.at("never").encode() in p.stderr,
            str(p.stderr))
    is_true(not os.path.exists(c.at("never")), "what is left")


if __name__ == "__main__":
    environment("PLATTER")
    need_programs("qemu-img", "qemu-nbd", "nbdkit")
    run_checks(Context, [
        a_disk_goes_to_a_pipe,
        any_format_comes_from_a_pipe,
        what_a_stream_names_is_not_opened,
        what_makes_no_sense_is_refused,
        a_file_may_be_called_so,
        who_waits_for_a_pipe_can_be_stopped,
        a_full_disk_is_told_by_name,
        a_disk_is_written_onto_a_block_device,
        a_qcow2_file_is_written_onto_a_block_device,
        a_qcow2_file_is_written_onto_a_server,
        a_killed_copy_is_no_image,
        a_disk_is_written_onto_qemus_server,
        a_disk_is_written_onto_an_overlay_of_ours,
        zeroes_are_told_and_not_sent,
        a_copy_that_fails_half_way_says_so,
        increments_restore_every_state,
        an_increment_over_a_layer_names_it,
        an_increment_over_any_image_is_what_differs,
        increments_that_could_not_be_restored_are_refused,
        a_disk_that_ends_within_a_sector_is_told,
        a_copys_size_is_told_before,
        room_is_set_aside,
    ])

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""platter info, diff and convert, beside qemu-img and cmp."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from disk import MIB, SIZE, Disk, same_bytes  # noqa: E402
from server import (Failure, environment, need_programs, run,  # noqa: E402
                    run_json)


def platter(*args, ok=(0,)):
    return run([os.environ["PLATTER"], *args], ok=ok)


def diff(*args, ok=(0, 1)):
    """The exit status and what --json tells."""
    status, out, err = platter("diff", "--json", *args, ok=ok)
    return status, json.loads(out) if status < 2 else err


def read(path):
    with open(path, "rb") as f:
        return f.read()


def ranges_are_true(old, new, told):
    """old, new: the content; every sector told differs, no other does."""
    n = max(len(old), len(new))
    old, new = old.ljust(n, b"\0"), new.ljust(n, b"\0")
    different = bytearray(n // 512)
    for c in told["changes"]:
        for i in range(c["start"] // 512,
                       -(-(c["start"] + c["length"]) // 512)):
            different[i] = 1
        if c["zero"]:
            is_true(not new[c["start"]:c["start"] + c["length"]].strip(b"\0"),
                    f"{c} has data")
    for i, told_different in enumerate(different):
        at = slice(i * 512, i * 512 + 512)
        is_equal(bool(told_different), old[at] != new[at],
                 f"whether sector {i} differs")


def states_differ_where_their_copies_do(d):
    states = {f"{d.path}@{name}": raw for name, raw in d.snapshots.items()}
    states[d.path] = d.raw
    for a, raw_a in states.items():
        for b, raw_b in states.items():
            status, told = diff(a, b)
            is_equal(status, int(a != b), "the exit status")
            is_equal(told["equal"], a == b, "equal")
            ranges_are_true(read(raw_a), read(raw_b), told)


def images_of_two_formats_are_compared_by_their_data(d):
    is_equal(diff(d.path, "-F", "raw", d.raw)[0], 0, "the exit status")
    other = d.at("other.raw")
    shutil.copy(d.raw, other)
    with open(other, "r+b") as f:
        f.seek(5 * MIB + 1000)
        f.write(b"x")
    status, told = diff(d.path, "-F", "raw", other)
    is_equal(status, 1, "the exit status")
    is_equal(told["changes"], [{"start": 5 * MIB + 512, "length": 512,
                                "zero": False}], "the change")
    status, out, _ = platter("diff", "--quiet", d.path, "-F", "raw", other,
                             ok=(1,))
    is_equal(out, "", "what --quiet prints")


def sizes_that_differ_are_a_difference(d):
    longer = d.at("longer.raw")
    shutil.copy(d.raw, longer)
    os.truncate(longer, SIZE + MIB)
    for a, b in ((d.raw, longer), (longer, d.raw)):
        status, told = diff("-f", "raw", a, "-F", "raw", b)
        is_equal((status, told["equal"], told["changes"]), (1, False, []),
                 "the answer")
        is_equal(told["b-size"], os.stat(b).st_size, "b-size")
        status, out, _ = platter("diff", "-f", "raw", a, "-F", "raw", b,
                                 ok=(1,))
        is_true("sizes differ" in out, f"the sizes are not told: {out}")


def a_file_whose_name_has_an_at_sign_is_that_file(d):
    name = d.path + "@clean"
    shutil.copy(d.raw, name)
    is_equal(diff(d.path, "-F", "raw", name)[0], 0, "the exit status")
    os.unlink(name)
    is_equal(diff(d.path, name)[0], 1, "the exit status without the file")


def what_cannot_be_compared_is_status_2(d):
    for args in ([d.path], [d.path, d.path, d.path], [d.path, "none"],
                 [d.path + "@none", d.path], ["-f", "vmdk", d.path, d.path],
                 ["--quiet", d.path, d.path], [d.path, ""]):
        status, said = diff(*args, ok=(2,))
        is_equal(len(said.strip().splitlines()), 1, f"{args}: lines of {said}")


KINDS = [  # options of convert
    [], ["-j", "1"],
    ["-O", "qcow2"],
    ["-O", "qcow2", "-c"],
    ["-O", "qcow2", "-c", "--level", "1", "-j", "7"],
    ["-O", "qcow2", "--compression", "zstd"],
    ["-O", "qcow2", "--compression", "zstd", "--level", "19"],
    *(["-O", "qcow2", *c, "--cluster-size", size]
      for size in ("512", "4k", "2M")
      for c in ([], ["-c"], ["--compression", "zstd"])),
]


def convert(*args, ok=(0,)):
    return platter("convert", *args, ok=ok)


def leftovers(folder):
    return [n for n in os.listdir(folder) if n.startswith(".platter")]


def is_the_disk(d, out, kind, raw):
    """qemu-img checks the file, and reads from it what is in @raw."""
    fmt = "qcow2" if "qcow2" in kind else "raw"
    if fmt == "raw":
        is_true(same_bytes(out, raw), "the bytes differ")
        return
    found = run_json(["qemu-img", "check", "--output=json", "-f", fmt, out])
    for what in ("corruptions", "leaks", "check-errors"):
        is_equal(found.get(what, 0), 0, what)
    is_equal(os.stat(out).st_size, found["image-end-offset"],
             "where the file ends")
    is_equal(bool(found.get("compressed-clusters")),
             "-c" in kind or "--compression" in kind, "compression")
    run(["qemu-img", "compare", "-f", fmt, "-F", "raw", out, raw])
    platter("check", "-f", fmt, out)
    is_equal(diff("-f", fmt, out, "-F", "raw", raw)[0], 0, "platter diff")


def formats_are_told_as_glance_calls_them(d):
    for fmt, ours, glance in (("raw", "raw", "raw"), ("vdi", "vdi", "vdi"),
                              ("qcow2", "qcow2", "qcow2"),
                              ("vmdk", "vmdk", "vmdk"), ("vpc", "vhd", "vhd"),
                              ("vhdx", "vhdx", "vhdx"), ("qed", "qed", None),
                              ("parallels", "ploop", "ploop")):
        run(["qemu-img", "create", "-q", "-f", fmt, d.at("made"), "64M"])
        told = run_json([os.environ["PLATTER"], "info", "--json",
                         d.at("made")])
        is_equal((told["format"], told.get("glance-disk-format")),
                 (ours, glance), f"what {fmt} is")
        os.unlink(d.at("made"))


def a_file_of_two_formats_is_taken_for_neither(d):
    both = d.at("both")
    run(["qemu-img", "create", "-q", "-f", "qcow2", both, "64M"])
    with open(both, "r+b") as f:
        f.seek(0x40)  # a VDI's signature
        f.write(b"\x7f\x10\xda\xbe")
    err = platter("info", both, ok=(1,))[2]
    is_true("looks like qcow2 and like vdi: give --format" in err, err)
    is_equal(len(err.splitlines()), 1, f"lines of {err}")
    # Declared, it is judged as that alone.
    told = run_json([os.environ["PLATTER"], "info", "--json", "-f", "raw",
                     both])
    is_equal(told["virtual-size"], os.stat(both).st_size, "the raw size")
    os.unlink(both)


def a_size_of_no_whole_sectors_is_told(d):
    with open(d.at("odd"), "wb") as f:
        f.write(b"x" * 1025)
    out = platter("info", "-f", "raw", d.at("odd"))[1]
    is_true("not a multiple of 512: served exact" in out, out)
    is_true("multiple of 512" not in platter("info", d.path)[1],
            "it is said of a size that is")


def every_kind_of_copy_is_the_disk(d):
    for kind in KINDS:
        out = d.at("out")
        convert(*kind, "--overwrite", d.path, out)
        try:
            is_the_disk(d, out, kind, d.raw)
        except Failure as e:
            raise Failure(f"{' '.join(kind)}: {e}") from None
        is_equal(leftovers(d.folder), [], "what is left behind")
        is_equal(os.stat(out).st_mode & 0o777, 0o666 & ~UMASK, "the mode")


def states_are_copied(d):
    for name, raw in d.snapshots.items():
        for args in (["-s", name, d.path], [f"{d.path}@{name}"]):
            convert("--overwrite", *args, d.at("out"))
            is_true(same_bytes(d.at("out"), raw), f"{args} is another disk")


def copies_are_sparse_and_of_the_exact_size(d):
    source = d.at("sparse")
    with open(source, "wb") as f:
        f.seek(3 << 40)
        f.write(b"x" * 777)
    for kind in (["-O", "raw"], ["-O", "qcow2"], ["-O", "qcow2", "-c"]):
        told = json.loads(convert("--json", "--overwrite", *kind, "-f", "raw",
                                  source, d.at("out"))[1])
        is_equal(told["virtual-size"], (3 << 40) + 777, "virtual-size")
        is_true(told["actual-size"] < MIB, f"it is not sparse: {told}")
        found = run_json([os.environ["PLATTER"], "info", "--json",
                          "-f", told["format"], d.at("out")])
        is_equal(found["virtual-size"], (3 << 40) + 777, "the size")
        is_equal(diff("-f", "raw", source, "-F", told["format"],
                      d.at("out"))[0], 0, "platter diff")
    os.unlink(source)


def an_empty_disk_and_one_of_a_byte_are_copied(d):
    for content in (b"", b"x", b"\0" * 70000, b"x" * 512):
        with open(d.at("small"), "wb") as f:
            f.write(content)
        for kind in (["-O", "raw"], ["-O", "qcow2"], ["-O", "qcow2", "-c"]):
            convert("--overwrite", *kind, "-f", "raw", d.at("small"),
                    d.at("out"))
            is_equal(diff("-f", "raw", d.at("small"), "-F", kind[1],
                          d.at("out"))[0], 0, "platter diff")
            if kind[1] == "qcow2":
                run(["qemu-img", "check", "-q", d.at("out")])


def a_large_disk_has_several_tables_of_refcounts(d):
    """4 KiB clusters: an L2 table maps 2 MiB, a block counts 8 MiB."""
    with open(d.at("big"), "wb") as f:
        for i in range(40):
            f.write(bytes([i + 1]) * MIB + os.urandom(MIB))
    for kind in (["-O", "qcow2"], ["-O", "qcow2", "-c"]):
        kind += ["--cluster-size", "4K"]
        convert("--overwrite", *kind, "-f", "raw", d.at("big"), d.at("out"))
        is_the_disk(d, d.at("out"), kind, d.at("big"))


def a_file_that_is_there_is_kept(d):
    with open(d.at("mine"), "w") as f:
        f.write("mine")
    err = convert(d.path, d.at("mine"), ok=(1,))[2]
    is_true("--overwrite" in err, f"no way out is told: {err}")
    is_equal(read(d.at("mine")), b"mine", "the file")
    err = convert("--overwrite", d.path, d.folder, ok=(1,))[2]
    is_true("not a regular file" in err, err)
    convert(d.path, d.at("no/such/folder"), ok=(1,))
    # Its own source: read to the end, then replaced.
    shutil.copy(d.path, d.at("self"))
    convert("--overwrite", d.at("self"), d.at("self"))
    is_true(same_bytes(d.at("self"), d.raw), "the copy onto itself differs")


def a_failed_write_leaves_nothing(d):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
    for kind in (["-O", "raw"], ["-O", "qcow2"]):
        p = subprocess.run([os.environ["PLATTER"], "convert", *kind, d.path,
                            d.at("failed")], preexec_fn=limit, text=True,
                           capture_output=True, check=False)
        is_equal(p.returncode, 1, "the exit status")
        is_equal(len(p.stderr.splitlines()), 1, f"lines of {p.stderr}")
        is_true(not os.path.exists(d.at("failed")), "the file is there")
        is_equal(leftovers(d.folder), [], "what is left behind")


def damage_fails_the_copy(d):
    bad = d.at("damaged.qcow2")
    shutil.copy(d.path, bad)
    os.truncate(bad, os.stat(bad).st_size // 2)
    err = convert("-O", "qcow2", bad, d.at("failed"), ok=(1,))[2]
    is_equal(len(err.splitlines()), 1, f"lines of {err}")
    is_true(not os.path.exists(d.at("failed")), "the file is there")
    is_equal(leftovers(d.folder), [], "what is left behind")


def open_in(pid, folder):
    """Has the process a new file open there?"""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
            if path.startswith(folder + "/#") or "/.platter-" in path:
                return True
    return False


def a_signal_leaves_nothing(d):
    """zstd at its highest level takes seconds for this."""
    with open(d.at("slow"), "wb") as f:
        f.write(os.urandom(MIB) * 200)
    for sig in (signal.SIGINT, signal.SIGTERM):
        p = subprocess.Popen([os.environ["PLATTER"], "convert", "-O", "qcow2",
                              "--compression", "zstd", "--level", "22",
                              "-f", "raw", d.at("slow"), d.at("failed")],
                             stderr=subprocess.PIPE)
        # It has a file without a name by then.
        while not open_in(p.pid, d.folder) and p.poll() is None:
            time.sleep(0.01)
        p.send_signal(sig)
        is_equal(p.wait(60), 128 + sig, "the exit status")
        is_equal(p.stderr.read(), b"", "what is said")
        p.stderr.close()
        is_true(not os.path.exists(d.at("failed")), "the file is there")
        is_equal(leftovers(d.folder), [], "what is left behind")


def wrong_options_are_status_2(d):
    for args in ([d.path], [d.path, "a", "b"], ["-O", "vmdk", d.path, "a"],
                 ["-c", d.path, "a"], ["--cluster-size", "4k", d.path, "a"],
                 ["-O", "qcow2", "--cluster-size", "3k", d.path, "a"],
                 ["-O", "qcow2", "--cluster-size", "4M", d.path, "a"],
                 ["-O", "qcow2", "--compression", "lzo", d.path, "a"],
                 ["-O", "qcow2", "--level", "3", d.path, "a"],
                 ["-O", "qcow2", "-c", "--level", "10", d.path, "a"],
                 ["-O", "qcow2", "-c", "--level", "0", d.path, "a"],
                 ["-j", "0", d.path, "a"], ["-j", "x", d.path, "a"]):
        err = convert(*args, ok=(2,))[2]
        is_equal(len(err.splitlines()), 1, f"{args}: lines of {err}")


UMASK = os.umask(0)
os.umask(UMASK)

if __name__ == "__main__":
    environment("PLATTER")
    need_programs("qemu-img", "qemu-io")
    run_checks(Disk, [
        states_differ_where_their_copies_do,
        images_of_two_formats_are_compared_by_their_data,
        sizes_that_differ_are_a_difference,
        a_file_whose_name_has_an_at_sign_is_that_file,
        what_cannot_be_compared_is_status_2,
        formats_are_told_as_glance_calls_them,
        a_file_of_two_formats_is_taken_for_neither,
        a_size_of_no_whole_sectors_is_told,
        every_kind_of_copy_is_the_disk,
        states_are_copied,
        copies_are_sparse_and_of_the_exact_size,
        an_empty_disk_and_one_of_a_byte_are_copied,
        a_large_disk_has_several_tables_of_refcounts,
        a_file_that_is_there_is_kept,
        a_failed_write_leaves_nothing,
        damage_fails_the_copy,
        a_signal_leaves_nothing,
        wrong_options_are_status_2,
    ])

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""cache-dir= filled: by fill=, by readers' own speed, and by platter cache."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from bad_web import BadWeb  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from kept import CHUNK, kept_in  # noqa: E402
from nbd import Client  # noqa: E402
from server import Server, environment, need_programs, run, run_json  # noqa: E402

MIB = 1 << 20
SIZE = 24 * MIB + 512
EVENT_SEC = 60


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.data = b"".join(b"%015d\n" % i for i in range(SIZE // 16))
        self.n = 0

    def at(self, name):
        return os.path.join(self.folder, name)

    def fresh(self):
        self.n += 1
        return self.at(f"cache{self.n}")


def until(what, said):
    end = time.monotonic() + EVENT_SEC
    while not what():
        is_true(time.monotonic() < end, f"{said}: not in {EVENT_SEC} s")
        time.sleep(0.02)


def fetched(web, kind="good"):
    """How often each 64 KiB were asked for, but by who looks at the image before
    it is served, and knows no cache: he takes its ends."""
    count = {}
    for k, path, r, _ in list(web.asked):
        if k != kind or path.endswith(".trace"):
            continue
        a, b = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", r).groups())
        if b - a <= 128 << 10:
            continue
        for unit in range(a >> 16, (b >> 16) + 1):
            count[unit] = count.get(unit, 0) + 1
    return count


def requests(web):
    """How many there were but for traces, which are asked for by and by."""
    return sum(not a[1].endswith(".trace") for a in list(web.asked))


def is_whole(c, folder):
    kept = kept_in(folder)
    return len(kept) == 1 and len(kept[0].chunks) == -(-SIZE // CHUNK) and \
        not kept[0].differences(c.data)


def cache(*words, ok=(0,)):
    return run([os.environ["PLATTER"], "cache", *words], ok=ok)


def objects(*words):
    return run_json([os.environ["PLATTER"], "cache", "list", "--json",
                     *words])["objects"]


def served(c, url, folder, *more):
    """Nobody else asks for anything by then."""
    return Server(url, fmt="raw", more=[
        "--cache-dir", folder, "--control", c.at("control"),
        *more]).wait_told()


def client(s):
    n = Client(s.socket)
    n.go()
    return n


def an_image_is_filled_while_nobody_reads(c):
    """And nothing is fetched twice, whoever reads meanwhile."""
    folder = c.fresh()
    with c_web(c) as web:
        web.delay = 0.02
        with served(c, web.url("good"), folder, "--fill", "on") as s:
            n = client(s)
            for off in range(SIZE - 4096, 0, -3 * MIB):
                is_equal(n.read(off, 4096), (0, c.data[off:off + 4096]),
                         f"what is read at {off}")
            until(lambda: is_whole(c, folder), "it is whole")
            until(lambda: not objects("--control", c.at("control"))[0]
                  ["filling"], "the filler has ended")
            twice = [u for u, k in fetched(web).items() if k > 1]
            is_equal(twice, [], "what was fetched twice")
            asked = requests(web)
            is_equal(n.read(0, MIB), (0, c.data[:MIB]), "the beginning")
            is_equal(requests(web), asked, "requests, when it is whole")
    print(f"{SIZE // MIB} MiB: {asked} requests")


def c_web(c):
    return BadWeb(c.data)


def a_filler_gives_way_to_who_waits(c):
    """With idle it does nothing while somebody reads what is not there."""
    folder = c.fresh()
    with c_web(c) as web:
        web.delay = 0.05
        with served(c, web.url("good"), folder, "--fill", "idle") as s:
            n = client(s)
            stop = threading.Event()
            reads = []

            def read():
                # From the end, far apart: none is ahead of the other.
                for off in range(SIZE - CHUNK, 0, -2 * CHUNK):
                    if stop.is_set():
                        return
                    n.read(off, 512)
                    reads.append(off)

            t = threading.Thread(target=read)
            t.start()
            until(lambda: len(reads) > 10, "ten were read")
            before = requests(web)
            until(lambda: len(reads) > 30, "twenty more were read")
            more = requests(web) - before
            stop.set()
            t.join()
            is_true(more < 30, f"{more} requests for 20 reads")
            until(lambda: is_whole(c, folder), "it is whole, later")


def a_filler_keeps_its_rate(c):
    folder = c.fresh()
    with c_web(c) as web:
        begun = time.monotonic()
        with served(c, web.url("good"), folder, "--fill", "8M"):
            until(lambda: is_whole(c, folder), "it is whole")
        took = time.monotonic() - begun
    is_true(took > SIZE / MIB / 8 - 0.7, f"{took:.1f} s: faster than 8M")


def what_does_not_fit_is_not_filled(c):
    with BadWeb(c.data * 3) as web:
        with served(c, web.url("good"), c.fresh(), "--fill", "on",
                    "--cache-size", "64M") as s:
            until(lambda: "over 15/16 of the cache-size" in s.messages(),
                  "it is said")
            asked = requests(web)
            is_equal(client(s).read(0, 512), (0, c.data[:512]), "a sector")
            is_true(requests(web) <= asked + 1, "more was asked for")


def a_server_is_told_to_fill(c):
    folder = c.fresh()
    with c_web(c) as web:
        with served(c, web.url("good"), folder) as s:
            is_equal(client(s).read(0, 512), (0, c.data[:512]), "a sector")
            o = objects("--control", c.at("control"))
            is_equal([(x["name"], x["size"], x["kept"], x["filling"])
                      for x in o],
                     [(web.url("good"), SIZE, CHUNK, False)], "what it has")
            err = cache("warm", "--control", c.at("control"), "http://no/x",
                        ok=(1,))[2]
            is_true("has nothing open that is called so" in err, err)
            cache("warm", "--control", c.at("control"), web.url("good"))
            until(lambda: is_whole(c, folder), "it is whole")
            metrics = stats(c)
            is_true(metrics["objects"][0]["kept"] == SIZE, metrics)
            # Two at a folder: one is told whose it is.
            err = cache("warm", "--cache-dir", folder, "-f", "raw", "-q",
                        web.url("good"), ok=(1,))[2]
            is_true("another process keeps it" in err, err)
            is_equal(cache("drop", "--cache-dir", folder, "--all",
                           ok=(1,))[2], "platter: 1 in use\n", "a drop")


def stats(c):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(c.at("control"))
        s.sendall(b'{"command": "cache"}\n')
        return json.loads(s.makefile().readline())


def an_image_is_fetched_without_a_server(c):
    folder = c.fresh()
    with c_web(c) as web:
        top = c.at("top.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
             web.url("good"), "-F", "raw", top, str(SIZE)])
        cache("warm", "--cache-dir", folder, "--allow", web.url("good", ""),
              top)
        is_true(is_whole(c, folder), "it is not whole")
        asked = requests(web)
        cache("warm", "--cache-dir", folder, "-f", "raw", web.url("good"))
        is_true(requests(web) <= asked + 2, "it was fetched again")
        o = objects("--cache-dir", folder)
        is_equal([(x["name"], x["size"], x["kept"], x["in-use"]) for x in o],
                 [(web.url("good"), SIZE, SIZE, False)], "what there is")
        is_true("100%" in cache("list", "--cache-dir", folder)[1], "the list")
        for args in (("list",), ("drop", "--all")):
            err = cache(*args, "--cache-dir", folder + "-typo", ok=(1,))[2]
            is_true("No such file" in err and
                    not os.path.exists(folder + "-typo"), err)
        err = cache("drop", "--cache-dir", folder, "http://no/x", ok=(1,))[2]
        is_true("there is nothing of" in err, err)
        is_equal(cache("drop", "--cache-dir", folder, web.url("good"))[1],
                 "1 removed\n", "the drop")
        is_equal(objects("--cache-dir", folder), [], "what is left")
        for kind, said in (("nameless", "nothing of it is kept"),
                           ("down", "cannot be had now")):
            err = cache("warm", "--cache-dir", folder, "-f", "raw",
                        "--remote-timeout", 1, web.url(kind), ok=(1,))[2]
            is_true(said in err, f"{kind}: {err}")
    local = c.at("local.raw")
    with open(local, "wb") as f:
        f.write(c.data)
    err = cache("warm", "--cache-dir", folder, "-f", "raw", local, ok=(1,))[2]
    is_true("nothing of it is kept" in err, err)
    with BadWeb(c.data * 3) as web:
        err = cache("warm", "--cache-dir", folder, "-f", "raw",
                    "--cache-size", "64M", web.url("good"), ok=(1,))[2]
    is_true("is more than --cache-size may hold" in err, err)


def who_reads_on_finds_it_fetched(c):
    """Read-ahead: a reader of one request at a time does not wait for each; who
    jumps about costs no more than what he reads."""
    delay = 0.1
    with c_web(c) as web:
        with served(c, web.url("good"), c.fresh()) as s:
            n = client(s)
            web.delay = delay
            begun = time.monotonic()
            for off in range(0, 16 * MIB, 64 << 10):
                is_equal(n.read(off, 64 << 10),
                         (0, c.data[off:off + (64 << 10)]), f"at {off}")
            took = time.monotonic() - begun
        twice = [u for u, k in fetched(web).items() if k > 1]
        is_equal(twice, [], "what was fetched twice")
    is_true(took < 64 * delay / 2, f"{took:.1f} s for 64 chunks")
    print(f"64 chunks one after the other: {took:.2f} s where an answer takes "
          f"{delay} s")
    with c_web(c) as web:
        with served(c, web.url("good"), c.fresh()) as s:
            n = client(s)
            asked = requests(web)
            for i in range(24):
                n.read(i * 7 % 24 * MIB, 512)
            is_equal(requests(web) - asked, 24, "requests for 24 jumps")


def nbd_cmd_cache_fetches(c):
    with c_web(c) as web:
        with served(c, web.url("good"), c.fresh()) as s:
            n = client(s)
            is_equal(n.cache(4 * MIB, 3 * MIB), 0, "its error")
            asked = requests(web)
            is_equal(n.read(5 * MIB, MIB), (0, c.data[5 * MIB:6 * MIB]),
                     "what is read")
            is_equal(requests(web), asked, "requests after it")


def a_server_elsewhere_is_warmed(c):
    """By its export alone; and what it cannot fetch is told."""
    packed = c.at("disk.qcow2")
    with open(c.at("plain"), "wb") as f:
        f.write(c.data)
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2",
         c.at("plain"), packed])
    with open(packed, "rb") as f:
        content = f.read()
    platter = os.environ["PLATTER"]
    for data, fmt in ((c.data, "raw"), (content, "qcow2")):
        with BadWeb(data) as web, Server(web.url("good"), fmt=fmt, more=[
                "--cache-dir", c.fresh()]) as s:
            s.wait_told()
            n = client(s)  # who keeps it open: to open it asks its origin
            run([platter, "warm", "--quiet", s.uri()])
            status, _, err = run([platter, "warm", s.uri("gone")], ok=None)
            is_true(status == 1 and err.count("\n") == 1, err)
            asked = requests(web)
            is_equal(n.read(0, len(c.data)), (0, c.data), "the disk")
            is_equal(requests(web), asked, "requests after it")
    # It is another object by now.
    with BadWeb(c.data) as web, Server(web.url("changed"), fmt="raw", more=[
            "--cache-dir", c.fresh(), "--remote-timeout", "1"]) as s:
        status, _, err = run([platter, "warm", "-q", s.uri()], ok=None)
        is_true(status == 1 and err.count("\n") == 1, f"{status} {err}")
    status, _, err = run([platter, "warm", "localhost"], ok=None)
    is_true(status == 2 and "which image of localhost?" in err, err)


def begin_trace(c, *words):
    return subprocess.Popen(
        [os.environ["PLATTER"], "trace", "record", "--control",
         c.at("control"), *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)


def trace_of(c, image, path, *reads, fmt="raw"):
    """Has @reads, (offset, length) each, recorded to @path."""
    with Server(image, fmt=fmt, more=["--control", c.at("control")]) as s:
        p = begin_trace(c, "--overwrite", path)
        is_true("recording" in p.stderr.readline(), "it does not record")
        n = client(s)
        for off, length in reads:
            n.read(off, length)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=EVENT_SEC)
        is_equal((p.returncode, err), (0, ""), f"the recording ({out})")


def replayed(web, units):
    """Has all that lies in these pieces of the cache been asked for?"""
    have = fetched(web)
    return all(have.get(u * 4 + k) for u in units for k in range(4))


def what_a_boot_read_is_fetched_before_the_next(c):
    trace = c.at("disk.trace")
    reads = [(20 * MIB, 4096), (0, 512), (3 * MIB + 100, 70000),
             (20 * MIB, 512), (SIZE - 512, 512)]
    raw = c.at("disk.raw")
    with open(raw, "wb") as f:
        f.write(c.data)
    trace_of(c, raw, trace, *reads)
    unit = 32 << 10
    with open(trace) as f:
        is_equal(f.read().splitlines(), [
            "platter-trace 1", f"bytes {SIZE}", f"{20 * MIB} {unit}",
            f"0 {unit}", f"{3 * MIB} {3 * unit}",
            f"{SIZE // unit * unit} {SIZE % unit}"], "the trace")
    pieces = [80, 0, 12, 96 - 1]
    # Given, and beside the image; of a qcow2 of the same disk.
    packed = c.at("disk.qcow2")
    run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, packed])
    with c_web(c) as web, open(packed, "rb") as q, open(trace, "rb") as t:
        web.files = {"d.qcow2": q.read(), "d.qcow2.trace": t.read()}
        with served(c, web.url("good"), c.fresh(), "--trace", trace) as s:
            until(lambda: replayed(web, pieces[:3]) and quiet(web),
                  "it was replayed")
            asked = requests(web)
            n = client(s)
            for off, length in reads[:4]:
                is_equal(n.read(off, length), (0, c.data[off:off + length]),
                         f"at {off}")
            is_true(requests(web) == asked, "requests after the replay: "
                    f"{web.asked[asked:]}")
            is_true(len(fetched(web)) < 4 * 8, "too much was fetched")
        with Server(web.url("files", "d.qcow2"), more=[
                "--cache-dir", c.fresh()]) as s:
            until(lambda: any(a[1].endswith(".trace") for a in web.asked),
                  "it asked for the trace")
            until(lambda: quiet(web), "it was replayed")
            asked = requests(web)
            n = client(s)
            for off, length in reads:
                is_equal(n.read(off, length), (0, c.data[off:off + length]),
                         f"at {off}")
            is_true(requests(web) == asked, "requests after the replay: "
                    f"{web.asked[asked:]}")


def quiet(web):
    """Nobody has asked for anything for a while."""
    before = requests(web)
    time.sleep(0.5)
    return requests(web) == before


def what_keeps_a_trace_from_its_file_is_told(c):
    """Before the boot where it can be; and it is not the command that dies."""
    raw, there = c.at("boot.raw"), c.at("there.trace")
    for path in raw, there:
        with open(path, "wb") as f:
            f.truncate(MIB)
    with Server(raw, fmt="raw", more=["--control", c.at("control")]) as s:
        for path, why in ((there, "is there already"),
                          (c.at("nowhere/a.trace"), "cannot be made")):
            out, err = begin_trace(c, path).communicate(timeout=EVENT_SEC)
            is_true(why in err and "recording" not in err, f"{path}: {err}")
        p = begin_trace(c, c.at("lost.trace"))
        is_true("recording" in p.stderr.readline(), "it does not record")
        with open(f"/proc/{s.process.pid}/task/{s.process.pid}/children") as f:
            for child in f.read().split():
                os.kill(int(child), signal.SIGKILL)
        out, err = p.communicate(timeout=EVENT_SEC)
        is_true(p.returncode == 1 and "does not answer" in err,
                f"{p.returncode}: {err}")
        is_true(not os.path.exists(c.at("lost.trace")), "a trace of nothing")


def what_is_no_trace_is_told(c):
    path = c.at("bad.trace")
    for text, said in (
            ("", "is no trace: its first line"),
            ("platter-trace 1\n", "how many bytes"),
            ("platter-trace 1\nbytes 5\n", "another size"),
            (f"platter-trace 1\nbytes {SIZE}\n0 0\n", "range 1 is not"),
            (f"platter-trace 1\nbytes {SIZE}\n0 512\n5 {SIZE}\n",
             "range 2 is not"),
            (f"platter-trace 1\nbytes {SIZE}\n{1 << 64} 1\n",
             "range 1 is not"),
            (f"platter-trace 1\nbytes {SIZE}\n" + "0 1\n" * 65537,
             "has over 65536 ranges"),
            ("x" * (2 * MIB + 1), "has over 2097152 bytes")):
        with open(path, "w") as f:
            f.write(text)
        with c_web(c) as web:
            with served(c, web.url("good"), c.fresh(), "--trace", path) as s:
                until(lambda: said in s.messages(), said)
                is_equal(client(s).read(0, 512), (0, c.data[:512]), "a read")


def copy(c, url, folder, ok=(0,)):
    out = c.at("out.raw")
    err = run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite", "-f",
               "raw", "-O", "raw", "--remote-timeout", 2, *(
                   ["--cache-dir", folder] if folder else []), url, out],
              ok=ok)[2]
    if 0 in ok:
        with open(out, "rb") as f:
            is_true(f.read() == c.data, f"{url} is another disk")
    return err


def a_server_without_ranges_is_read_once_into_the_cache(c):
    folder = c.fresh()
    with c_web(c) as web:
        err = copy(c, web.url("whole"), None, (1,))
        is_true("has to be downloaded first, as into --cache-dir" in err, err)
        asked = requests(web)
        copy(c, web.url("whole"), folder)
        is_equal(requests(web) - asked, 2, "requests: a look, and all")
        is_true(is_whole(c, folder), "it is not whole")
        copy(c, web.url("whole"), folder)
        is_equal(requests(web) - asked, 3, "requests, with another look")
        with served(c, web.url("whole"), folder) as s:
            is_equal(client(s).read(5 * MIB, 512),
                     (0, c.data[5 * MIB:5 * MIB + 512]), "a sector")
            err = copy(c, web.url("whole"), folder, (1,))
            is_true("another process keeps it" in err, err)
        for kind, said in (("whole-nameless", "has to be downloaded first"),
                           ("whole-changed", "has changed since"),
                           ("whole-cut", "the answer ends early")):
            err = copy(c, web.url(kind), c.fresh(), (1,))
            is_true(said in err, f"{kind}: {err}")
    with BadWeb(c.data * 3) as web:
        err = run([os.environ["PLATTER"], "info", "--cache-dir", c.fresh(),
                   "--cache-size", "64M", web.url("whole")], ok=(1,))[2]
        is_true("more than cache-size= may hold" in err, err)


def main():
    environment("PLATTER")
    need_programs("qemu-img")
    run_checks(Context, [
        an_image_is_filled_while_nobody_reads,
        a_filler_gives_way_to_who_waits,
        a_filler_keeps_its_rate,
        what_does_not_fit_is_not_filled,
        a_server_is_told_to_fill,
        an_image_is_fetched_without_a_server,
        who_reads_on_finds_it_fetched,
        nbd_cmd_cache_fetches,
        a_server_elsewhere_is_warmed,
        what_a_boot_read_is_fetched_before_the_next,
        what_keeps_a_trace_from_its_file_is_told,
        what_is_no_trace_is_told,
        a_server_without_ranges_is_read_once_into_the_cache,
    ])


if __name__ == "__main__":
    main()

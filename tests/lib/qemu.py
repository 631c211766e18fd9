# SPDX-License-Identifier: BSD-3-Clause
"""A QEMU whose disk is written, and verified, by its own qemu-io command: a
running guest as far as disks go, which a test can ask what it saw."""

import json
import os
import random
import socket
import subprocess
import threading
import time

from checks import is_true
from server import Failure, dies_with_us, listens

BLOCK = 4096


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.events = []
        self.lock = threading.Lock()
        self.lines.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        with self.lock:
            return self._run(command, arguments)

    def _run(self, command, arguments):
        self.socket.sendall(json.dumps({"execute": command,
                                        "arguments": arguments}).encode())
        while True:
            line = self.lines.readline()
            if not line:
                raise ConnectionError("QEMU is gone")
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def close(self):
        self.lines.close()
        self.socket.close()


class Qemu:
    """With one disk, called disk0, as @blockdev options or a -drive."""

    count = 0

    def __init__(self, folder, *disk, more=(), machine="none"):
        Qemu.count += 1
        self.path = os.path.join(folder, f"qemu{Qemu.count}")
        self.monitor = self.path + ".qmp"  # platter's
        own = self.path + ".own"
        argv = ["stdbuf", "-oL", "qemu-system-x86_64", "-M", machine, "-accel",
                "tcg", "-nodefaults", "-display", "none", *disk,
                "-qmp", f"unix:{self.monitor},server=on,wait=off",
                "-qmp", f"unix:{own},server=on,wait=off", *more]
        self.err = open(self.path + ".err", "w+")
        self.process = subprocess.Popen(dies_with_us(argv),
                                        stdin=subprocess.DEVNULL,
                                        stdout=self.err, stderr=self.err)
        until = time.monotonic() + 60
        while not (listens(own) and listens(self.monitor)):
            with open(self.err.name) as f:
                is_true(self.process.poll() is None and
                        time.monotonic() < until,
                        f"QEMU did not begin: {f.read()}")
            time.sleep(0.01)
        self.lock = threading.Lock()  # of who listens to what it says
        self.said = open(self.err.name)  # with a place of its own
        self.qmp = Qmp(own)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.qmp.close()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.err.close()
        self.said.close()

    def io(self, command):
        """qemu-io's command on the disk; '' if it went well. What it says goes to
        QEMU's own output, before the monitor answers."""
        with self.lock:
            return self._io(command)

    def _io(self, command):
        self.said.seek(0, os.SEEK_END)
        said = self.qmp.run("human-monitor-command", **{
            "command-line": f'qemu-io disk0 "{command}"'})
        said += self.said.read()
        well = "ops;" in said or command == "flush"
        return "" if well and "ail" not in said else said or "it is silent"

    def disk(self):
        """What query-block says of it."""
        return self.qmp.run("query-block")[0]["inserted"]


class Writer(threading.Thread):
    """4 KiB writes at random places of a disk, each read back now and then;
    .model is what the disk must be. It takes the monitor over."""

    def __init__(self, qemu, model, seed=1, span=None):
        super().__init__()
        self.qemu, self.model = qemu, model
        self.rnd = random.Random(seed)
        self.blocks = (span or len(model)) // BLOCK
        self.ending = threading.Event()
        self.why = None
        self.writes = 0
        self.longest = 0.0  # seconds that one of them took
        self.last = None  # when it was answered

    def step(self):
        off = self.rnd.randrange(self.blocks) * BLOCK
        value = self.rnd.randrange(1, 255)
        began = time.monotonic()
        why = self.qemu.io(f"write -P {value} {off} {BLOCK}")
        self.longest = max(self.longest, time.monotonic() - began)
        if why:
            return f"a write at {off}: {why}"
        self.model[off:off + BLOCK] = bytes([value]) * BLOCK
        self.writes += 1
        self.last = time.monotonic()
        if self.writes % 8:
            return None
        off = self.rnd.randrange(self.blocks) * BLOCK
        if len(set(self.model[off:off + BLOCK])) > 1:
            return None
        why = self.qemu.io(f"read -P {self.model[off]} {off} {BLOCK}")
        return f"a read at {off}: {why}" if why else None

    def run(self):
        try:
            while not self.ending.is_set() and not self.why:
                self.why = self.step()
        except (OSError, ValueError, Failure) as e:
            self.why = str(e)

    def __enter__(self):
        self.start()
        return self

    def wait_for(self, writes):
        until = time.monotonic() + 60
        while self.writes < writes and not self.why:
            is_true(time.monotonic() < until, "the guest does not write")
            time.sleep(0.005)

    def end(self):
        self.ending.set()
        self.join(120)

    def __exit__(self, kind, *unused):
        self.end()
        if kind is None:
            is_true(not self.why, f"after {self.writes} writes: {self.why}")

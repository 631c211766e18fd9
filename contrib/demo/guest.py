#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The guest of the demonstration: a QEMU's disk, disk0, written and read by QEMU's
own qemu-io command, with a journal of what it must hold.

    guest.py write  MONITOR OUTPUT JOURNAL    until SIGTERM
    guest.py verify MONITOR OUTPUT JOURNAL    reads all back
    guest.py qmp    MONITOR COMMAND [JSON]    prints the answer
    guest.py wait   MONITOR COMMAND STATUS    until it says so

OUTPUT is where QEMU's standard output goes, line by line (stdbuf -oL).
"""

import json
import os
import random
import signal
import socket
import sys
import time

BLOCK = 4096


class Monitor:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.run("qmp_capabilities")

    def run(self, command, arguments=None):
        self.socket.sendall(json.dumps({"execute": command,
                                        "arguments": arguments or {}}).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        sys.exit("QEMU is gone")


class Disk:
    def __init__(self, monitor, output):
        self.monitor = Monitor(monitor)
        self.output = open(output)

    def io(self, command):
        self.output.seek(0, os.SEEK_END)
        self.monitor.run("human-monitor-command",
                         {"command-line": f'qemu-io disk0 "{command}"'})
        said = self.output.read()
        if "ops;" not in said or "ail" in said:
            sys.exit(f"THE GUEST'S DISK FAILS: {command}: {said}")

    def bytes(self):
        inserted = self.monitor.run("query-block")[0]["inserted"]
        return inserted["image"]["virtual-size"]


def write(monitor, output, journal):
    disk = Disk(monitor, output)
    blocks = disk.bytes() // BLOCK
    rnd = random.Random()
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    with open(journal, "a", buffering=1) as f:
        while not ending:
            # Most of a guest's writes are to a small part of its disk.
            at = rnd.randrange(blocks // 100) * 100
            value = rnd.randrange(1, 255)
            disk.io(f"write -P {value} {at * BLOCK} {BLOCK}")
            f.write(f"{at} {value}\n")


def verify(monitor, output, journal):
    disk = Disk(monitor, output)
    last = {}
    with open(journal) as f:
        lines = f.readlines()
    for line in lines:
        at, value = line.split()
        last[int(at)] = int(value)
    for at, value in last.items():
        disk.io(f"read -P {value} {at * BLOCK} {BLOCK}")
    print(f"  {len(lines)} writes to {len(last)} blocks: all as written")


def wait(monitor, command, status):
    m = Monitor(monitor)
    until = time.monotonic() + 60
    while m.run(command).get("status") != status:
        if time.monotonic() > until:
            sys.exit(f"{command} does not come to {status}")
        time.sleep(0.005)


def main():
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "qmp":
        arguments = json.loads(args[2]) if len(args) > 2 else None
        print(json.dumps(Monitor(args[0]).run(args[1], arguments)))
    else:
        {"write": write, "verify": verify, "wait": wait}[verb](*args)


if __name__ == "__main__":
    main()

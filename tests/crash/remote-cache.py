#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A server is killed while it fills a cache that is too small for its image: what
the cache says that it has afterwards is what the web server has, and what is read
by way of it, too. Other kills come while two servers share the folder, or while
all of the image is being filled into one that is large enough.

PLATTER_CACHE_KILLS: how many [6, with PLATTER_FULL 200]; PLATTER_KILL_SEED
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from bad_web import BadWeb  # noqa: E402
from checks import is_true  # noqa: E402
from kept import CHUNK, kept_in  # noqa: E402
from nbd import Client  # noqa: E402
from server import Failure, dies_with_us, environment  # noqa: E402

MIB = 1 << 20
SIZE = 100 * MIB + 77 * 512
CACHE, LARGE = "64M", "1G"
READERS = 3
START_SEC = 30


class Death:
    """A server, and readers who compare what they get until it is dead."""

    def __init__(self, folder, number, url, data, rng, fills):
        self.path = os.path.join(folder, f"s{number}")
        self.log = open(os.path.join(folder, f"log{number}"), "w+")
        self.data, self.failure, self.read = data, None, 0
        self.p = subprocess.Popen(dies_with_us(
            [os.environ["PLATTER"], "serve", "--no-supervise", "-U", self.path,
             "-f", "raw", "--cache-dir", os.path.join(folder, "cache"),
             "--cache-size", LARGE if fills else CACHE,
             "--fill", "60M" if fills else "off", url]),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.readers = [threading.Thread(target=self._read,
                                         args=(rng.random(),))
                        for _ in range(READERS)]
        for t in self.readers:
            t.start()

    def _connect(self):
        end = time.monotonic() + START_SEC
        while self.p.poll() is None:
            try:
                c = Client(self.path)
                c.go()
                return c
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        return None

    def _read(self, seed):
        rng = random.Random(seed)
        try:
            c = self._connect()
            while c:
                length = rng.choice((512, 4096, 65536, MIB))
                off = rng.randrange(0, (SIZE - length) // 512 + 1) * 512
                code, got = c.read(off, length)
                if code or got != self.data[off:off + length]:
                    self.failure = f"{length} bytes at {off}: {code}"
                    return
                self.read += length
        except OSError:
            pass  # it is dead
        except ConnectionError:
            pass

    def kill(self):
        self.p.send_signal(signal.SIGKILL)
        self.p.wait()
        for t in self.readers:
            t.join()
        self.log.seek(0)
        said = self.log.read()
        self.log.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        if self.failure:
            raise Failure(f"{self.failure}: {said}")
        return said


def main():
    environment("PLATTER")
    full = os.environ.get("PLATTER_FULL")
    kills = int(os.environ.get("PLATTER_CACHE_KILLS") or (200 if full else 6))
    seed = int(os.environ.get("PLATTER_KILL_SEED") or time.time_ns())
    print(f"PLATTER_KILL_SEED={seed}", flush=True)
    rng = random.Random(seed)
    data = rng.randbytes(SIZE)
    found = read = shared = 0
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as folder, \
            BadWeb(data) as web:
        for n in range(kills):
            two, fills = n % 3 == 2, n % 2 == 0
            deaths = [Death(folder, i, web.url("good"), data, rng, fills)
                      for i in range(1 + two)]
            time.sleep(rng.uniform(0.1, 1.6))
            said = [d.kill() for d in deaths]
            read += sum(d.read for d in deaths)
            shared += any("another process keeps copies" in s for s in said)
            for k in kept_in(os.path.join(folder, "cache")):
                bad = k.differences(data)
                is_true(not bad, f"kill {n}: chunks {bad} of {k.text} are not "
                        "what the cache says that they are")
                found += len(k.chunks)
        asked = len(web.asked)
    is_true(found > 0, "no cache ever said anything")
    is_true(shared > 0 or kills < 3, "two never met")
    print(f"{kills} kills, {read / MIB:.0f} MiB read, {asked} requests; "
          f"{found} chunks ({found * CHUNK / MIB:.0f} MiB) were in the cache "
          "afterwards, each as the web server has it")


if __name__ == "__main__":
    try:
        main()
    except Failure as e:
        sys.exit(f"not equal: {e}")

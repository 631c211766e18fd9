# SPDX-License-Identifier: BSD-3-Clause
"""A link to a web server that is far away: a network namespace with nginx, a rate by
tbf, and a proxy that delays, as not every kernel has netem."""

import asyncio
import os
import subprocess
import sys
import time

SPACE, HERE_IP, FAR_IP = "platter-far", "10.213.7.1", "10.213.7.2"
WEB, PROXY = 8080, 8081


def call(*argv, **more):
    subprocess.run([str(a) for a in argv], check=True, **more)


async def _delay(reader, writer, seconds):
    queue = asyncio.Queue(512)

    async def take():
        try:
            while data := await reader.read(1 << 16):
                await queue.put((time.monotonic() + seconds, data))
        except OSError:
            pass
        await queue.put((0, b""))

    task = asyncio.ensure_future(take())
    try:
        while True:
            at, data = await queue.get()
            if not data:
                break
            await asyncio.sleep(max(0, at - time.monotonic()))
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.close()
    task.cancel()


def run_proxy(msec):
    """In the far name space: half of the delay each way."""
    async def serve(reader, writer):
        to = await asyncio.open_connection("127.0.0.1", WEB)
        await asyncio.gather(_delay(reader, to[1], msec / 2000),
                             _delay(to[0], writer, msec / 2000))

    async def main():
        server = await asyncio.start_server(serve, FAR_IP, PROXY)
        await server.serve_forever()
    asyncio.run(main())


class Link:
    """The far side, with nginx and the proxy, as a context."""

    def __init__(self, folder, mbit, msec):
        self.log = os.path.join(folder, "access.log")
        self.processes = []
        subprocess.run(["ip", "netns", "del", SPACE], check=False,
                       stderr=subprocess.DEVNULL)
        call("ip", "netns", "add", SPACE)
        call("ip", "link", "add", "platter0", "type", "veth", "peer", "name",
             "platter1", "netns", SPACE)
        call("ip", "addr", "add", f"{HERE_IP}/24", "dev", "platter0")
        call("ip", "link", "set", "platter0", "up")
        far = ("ip", "netns", "exec", SPACE)
        call(*far, "ip", "addr", "add", f"{FAR_IP}/24", "dev", "platter1")
        for dev in ("lo", "platter1"):
            call(*far, "ip", "link", "set", dev, "up")
        call(*far, "tc", "qdisc", "add", "dev", "platter1", "root", "tbf",
             "rate", f"{mbit}mbit", "burst", "64kb", "latency", "100ms")
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w") as f:
            f.write(f"""daemon off; user root; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{ log_format asked '$msec $status $bytes_sent $request_uri';
access_log {self.log} asked; keepalive_requests 100000; sendfile on;
server {{ listen 127.0.0.1:{WEB}; root {folder}; }} }}
""")
        self.spawn(*far, "nginx", "-c", conf, "-e", f"{folder}/error.log")
        self.spawn(*far, sys.executable, os.path.abspath(__file__), str(msec))
        self._wait()

    def spawn(self, *argv):
        self.processes.append(subprocess.Popen(argv))

    def _wait(self):
        for _ in range(200):
            if subprocess.run(["curl", "-s", "-o", "/dev/null", self.url("")],
                              check=False).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("the far side does not answer")

    def url(self, name):
        return f"http://{FAR_IP}:{PROXY}/{name}"

    @staticmethod
    def bytes():
        with open("/sys/class/net/platter0/statistics/rx_bytes") as f:
            return int(f.read())

    def requests(self, since, until):
        with open(self.log) as f:
            return sum(1 for line in f if since <= float(line.split()[0]) <=
                       until and line.split()[3] != "/")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for p in self.processes:
            p.terminate()
            p.wait()
        call("ip", "netns", "del", SPACE)


if __name__ == "__main__":
    run_proxy(float(sys.argv[1]))

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""TLS with stock clients, which have GnuTLS; and what a client of our own, on
Python's ssl, does that they do not."""

import json
import os
import secrets
import shutil
import socket
import ssl
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from authority import Authority, openssl  # noqa: E402
from checks import is_equal, is_true, run_checks  # noqa: E402
from disk import SIZE, Disk  # noqa: E402
from guest_disk import Guest  # noqa: E402
from nbd import (OPT_STARTTLS, OPT_STRUCTURED, REP_ACK, Client,  # noqa: E402
                 Refused as NoExport)
from server import (Failure, Refused, Server, by_nbdkit,  # noqa: E402
                    environment, need_programs, run)

OWN = not by_nbdkit()
ALLOCATION = b"base:allocation"


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.disk = Disk(folder)
        self.ours = Authority(self.path("ca"))
        other = Authority(self.path("other"))
        self.server = self.path("server")
        self.client, self.foreign = self.path("client"), self.path("foreign")
        self.plain, self.revoked = self.path("plain"), self.path("revoked")
        self.ours.sign("server", "/CN=localhost", self.server, "serverAuth",
                       "DNS:localhost,IP:127.0.0.1")
        self.ours.sign("client", "/O=Us/CN=vm1", self.client, "clientAuth")
        gone = self.ours.sign("client", "/CN=gone", self.revoked, "clientAuth")
        other.sign("client", "/CN=vm1", self.foreign, "clientAuth")
        os.mkdir(self.plain)
        for folder in (self.plain, self.foreign):
            with open(self.ours.cert) as f, open(os.path.join(
                    folder, "ca-cert.pem"), "w") as g:
                g.write(f.read())
        self.stranger = self.path("stranger")
        os.mkdir(self.stranger)
        with open(other.cert) as f, open(os.path.join(
                self.stranger, "ca-cert.pem"), "w") as g:
            g.write(f.read())
        self.crl = self.ours.revoke(gone)
        self.keys = {"vm1": secrets.token_hex(32), "vm2": secrets.token_hex(16)}
        self.psk = self.key_file("psk", self.keys)

    def path(self, name):
        return os.path.join(self.folder, name)

    def key_file(self, name, keys):
        """In a folder of its own: QEMU wants a certain name."""
        os.makedirs(self.path(name), exist_ok=True)
        path = os.path.join(self.path(name), "keys.psk")
        with open(path, "w") as f:
            f.writelines(f"{who}:{key}\n" for who, key in keys.items())
        os.chmod(path, 0o600)
        return path

    def serve(self, *more, image=None):
        return Server(image or self.disk.path, fmt="qcow2", more=more)

    def x509(self, *more, **kwargs):
        return self.serve("--tls-certificates", self.server, *more, **kwargs)

    def with_psk(self, *more):
        return self.serve("--tls-psk", self.psk, *more)


def uri(s, folder=None, user=None, psk=None, export=""):
    """For libnbd."""
    what = (f"tls-certificates={folder}" if folder else f"tls-psk-file={psk}")
    who = user + "@" if user else ""
    return (f"nbds+unix://{who}/{urllib.parse.quote(export, safe='')}?socket="
            f"{urllib.parse.quote(s.socket)}&{what}")


def qemu(s, tls, *command, export=""):
    """qemu-img's arguments for an export by TLS."""
    return ["qemu-img", command[0], "--object", f"tls-creds-{tls},id=t,"
            "endpoint=client", *command[1:], "--image-opts",
            f"driver=nbd,server.type=unix,server.path={s.socket},tls-creds=t,"
            f"export={export}" + (",tls-hostname=localhost"
                                  if tls.startswith("x509") else "")]


def works(argv):
    return run(argv, ok=None)[0] == 0


def is_whole(c, s, target):
    """Copied by libnbd's client, compared with QEMU's program."""
    copy = c.path("copy.raw")
    run(["nbdcopy", target, copy])
    run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", c.disk.path, copy])
    os.unlink(copy)


def certificates_are_taken_by_libnbd_and_qemu(c):
    with c.x509() as s:
        target = uri(s, c.plain)
        is_true("with TLS" in run(["nbdinfo", target])[1], "no TLS")
        is_whole(c, s, target)
        for priority in ("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2",
                         "NORMAL:-VERS-ALL:+VERS-TLS1.3"):
            out = run(qemu(s, f"x509,dir={c.plain},priority={priority}",
                           "info"))[1]
            is_true("virtual size" in out, f"{priority}: {out}")
        # Older ones, and a server that is of no authority of the client's.
        for tls in (f"x509,dir={c.plain},priority=NORMAL:-VERS-ALL"
                    ":+VERS-TLS1.1:@SECLEVEL=0", f"x509,dir={c.stranger}"):
            is_true(not works(qemu(s, tls, "info")), tls)
        is_true(works(["nbdinfo", target]), "it does not serve on")


def clients_show_certificates_where_they_have_to(c):
    control = c.path("control")
    more = ("--tls-verify-peer", "--control", control, "--overlay", "temp")
    with c.x509(*more) as s:
        is_true(works(["nbdinfo", uri(s, c.client)]), "ours is refused")
        is_true(works(qemu(s, f"x509,dir={c.client}", "info")), "by qemu")
        for folder in (c.plain, c.foreign):
            is_true(not works(["nbdinfo", uri(s, folder)]), folder)
        is_true(works(["nbdinfo", uri(s, c.revoked)]), "not revoked yet")
        if OWN:
            by_name(c, s, control)
    with open(os.path.join(c.server, "ca-crl.pem"), "w") as f:
        f.write(c.crl)
    try:
        with c.x509(*more) as s:
            is_true(not works(["nbdinfo", uri(s, c.revoked)]), "revoked")
            is_true(works(["nbdinfo", uri(s, c.client)]), "ours is refused")
    finally:
        os.unlink(os.path.join(c.server, "ca-crl.pem"))


def by_name(c, s, control):
    """Who is connected is told by his certificate's name."""
    with TlsClient(c, s.socket, certificate=c.client) as n:
        n.start()
        n.go()
        out = run([os.environ["PLATTER"], "overlay", "list", "--json",
                   "--control", control])[1]
        is_true("CN=vm1,O=Us" in out, out)


def keys_that_both_have_are_taken(c):
    wrong = c.key_file("wrong", dict(c.keys, vm1=secrets.token_hex(32)))
    unknown = c.key_file("unknown", {"vm3": c.keys["vm1"]})
    with c.with_psk() as s:
        is_whole(c, s, uri(s, user="vm1", psk=c.psk))
        is_true(works(["nbdinfo", uri(s, user="vm2", psk=c.psk)]), "vm2")
        folder = os.path.dirname(c.psk)
        for priority in ("NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2"):
            is_true(works(qemu(s, f"psk,dir={folder},username=vm1,"
                               f"priority={priority}", "info")), priority)
        is_true(not works(["nbdinfo", uri(s, user="vm1", psk=wrong)]), "wrong")
        is_true(not works(["nbdinfo", uri(s, user="vm3", psk=unknown)]), "vm3")
        # Who has certificates alone finds no server that shows one.
        is_true(not works(["nbdinfo", uri(s, c.client)]), "no certificate")
        is_true(works(["nbdinfo", uri(s, user="vm2", psk=c.psk)]), "vm2")


def plain_clients_are_served_unless_tls_is_required(c):
    with c.x509("--tls", "on") as s:
        is_true(works(["nbdinfo", s.uri()]), "plain")
        is_true(works(["nbdinfo", uri(s, c.plain)]), "TLS")
    with c.x509("--tls", "require") as s:
        is_true(not works(["nbdinfo", s.uri()]), "plain")
        is_true(not works(["nbdinfo", "--list", s.uri()]), "listed")
        is_true(not works(["qemu-img", "info", s.uri()]), "qemu")
        is_true(works(["nbdinfo", uri(s, c.plain)]), "TLS")
    with c.serve("--tls", "off") as s:
        is_true(not works(["nbdinfo", uri(s, c.plain)]), "TLS")


def what_is_wrong_with_keys_is_told_by_the_files_name(c):
    folder = c.path("bad")
    os.mkdir(folder)

    def says(text, *options):
        try:
            with c.serve(*options):
                raise Failure(f"{options}: it serves")
        except Refused as e:
            is_true(text in e.message, f"not {text!r}: {e.message}")

    own = ("--tls-certificates", folder)
    says(f"{folder}/server-cert.pem: No such file", *own)
    for name in ("server-cert.pem", "server-key.pem", "ca-cert.pem"):
        with open(os.path.join(c.server, name)) as f, open(
                os.path.join(folder, name), "w") as g:
            g.write(f.read())
    os.rename(os.path.join(folder, "server-key.pem"), c.path("key"))
    says(f"{folder}/server-key.pem: No such file", *own)
    for content in ("nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n"
                    "-----END PRIVATE KEY-----\n"):
        with open(os.path.join(folder, "server-key.pem"), "w") as f:
            f.write(content)
        says(f"{folder}/server-key.pem: TLS: ", *own)
    # Another's key; one that wants a passphrase, for which nobody is asked.
    os.unlink(os.path.join(folder, "server-key.pem"))
    os.link(os.path.join(c.client, "client-key.pem"),
            os.path.join(folder, "server-key.pem"))
    says(f"{folder}/server-key.pem: TLS: ", *own)
    os.unlink(os.path.join(folder, "server-key.pem"))
    openssl("rsa", "-in", c.path("key"), "-aes256", "-passout", "pass:x",
            "-out", os.path.join(folder, "server-key.pem"))
    says(f"{folder}/server-key.pem: TLS: ", *own)
    os.unlink(os.path.join(folder, "server-key.pem"))
    os.mkfifo(os.path.join(folder, "server-key.pem"))
    says(f"{folder}/server-key.pem: is no regular file", *own)
    os.unlink(os.path.join(folder, "server-key.pem"))
    os.link(c.path("key"), os.path.join(folder, "server-key.pem"))
    with open(os.path.join(folder, "ca-crl.pem"), "w") as f:
        f.write("nonsense")
    says(f"{folder}/ca-crl.pem: TLS: ", "--tls-verify-peer", *own)
    with open(os.path.join(folder, "ca-cert.pem"), "w") as f:
        f.write("nonsense")
    says(f"{folder}/ca-cert.pem: TLS: ", "--tls-verify-peer", *own)
    psk = os.path.join(folder, "psk")
    says(f"{psk}: No such file", "--tls-psk", psk)
    for line in ("", "vm1", ":00", "vm1:", "vm1:0", "vm1:0g",
                 "vm1:" + "00" * 257, "x" * 128 + ":00"):
        with open(psk, "w") as f:
            f.write("good:00112233445566778899aabbccddeeff\n" * bool(line) +
                    line + "\n")
        says(f"{psk}: line 2: is no IDENTITY:KEY" if line else
             f"{psk}: no key is in it", "--tls-psk", psk)
    with open(psk, "w") as f:
        f.write("good:00112233445566778899aabbccddeeff\n")
    os.chmod(psk, 0o644)
    with c.serve("--tls-psk", psk) as s:
        is_told(s, "every user of this machine may read it")


# ---- who may open what ----

def is_told(s, text):
    """Sooner or later: the log is written by a thread of its own."""
    until = time.monotonic() + 30
    while text not in s.messages():
        is_true(time.monotonic() < until, s.messages())
        time.sleep(0.01)



def rules_say_who_opens_what(c):
    rules = c.path("access")
    second = c.path("second.qcow2")
    shutil.copy(c.disk.path, second)
    with open(rules, "w") as f:
        f.write("# EXPORT PEER\n\none\tvm1 \n  t* *2\n")
    with c.with_psk("--tls-access", rules, "--export", f"one={c.disk.path}",
                    "--export", f"two={second}",) as s:
        def opens(user, export):
            return run(["nbdinfo", "--size",
                        uri(s, user=user, psk=c.psk, export=export)],
                       ok=None)[0] == 0
        pairs = [(u, e) for u in ("vm1", "vm2") for e in ("one", "two", "")]
        is_equal([p for p in pairs if opens(*p)],
                 [("vm1", "one"), ("vm2", "two")], "what is opened")
        for user, names in (
                ("vm1", ["one"]),
                ("vm2", ["two", "two@clean", "two@before upgrade"])):
            out = run(["nbdinfo", "--list", "--json",
                       uri(s, user=user, psk=c.psk)])[1]
            is_equal([e["export-name"] for e in json.loads(out)["exports"]],
                     names, f"what {user} sees")
        is_told(s, '(vm1): --tls-access has no line for export "two"')
    # A certificate's subject; the default export.
    with open(rules, "w") as f:
        f.write('"" CN=vm*,O=Us\n')
    for who, may in ((c.client, True), (c.revoked, False)):
        with c.x509("--tls-verify-peer", "--tls-access", rules) as s:
            is_equal(run(["nbdinfo", "--size", uri(s, who)],
                         ok=None)[0] == 0, may, f"whether {who} opens")
    # Where who has shown nothing is let in, rules are of no use.
    for more in (["--tls-certificates", c.server],
                 ["--tls", "on", "--tls-psk", c.psk], []):
        try:
            with c.serve("--tls-access", rules, *more):
                is_true(False, f"{more} was taken")
        except Refused as e:
            is_true("--tls-access needs" in e.message, e.message)
    for text, said in (("one\n", "line 1: is no EXPORT PEER"),
                       ("# x\n\n* a\0b\n", "line 3: has a byte of zero")):
        with open(rules, "w") as f:
            f.write(text)
        try:
            with c.with_psk("--tls-access", rules):
                is_true(False, f"{text!r} was taken")
        except Refused as e:
            is_true(f"{rules}: {said}" in e.message, e.message)


# ---- a client of our own ----

class TlsClient(Client):
    def __init__(self, c, path, certificate=None, timeout=30):
        super().__init__(path, timeout)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(c.ours.cert)
        if certificate:
            self.tls.load_cert_chain(
                os.path.join(certificate, "client-cert.pem"),
                os.path.join(certificate, "client-key.pem"))

    def start(self, maximum=None):
        if maximum:
            self.tls.maximum_version = maximum
        if not self.greeted:
            self.greet()
        self.option(OPT_STARTTLS)
        is_equal([kind for kind, _ in self.answers()], [REP_ACK], "STARTTLS")
        self.socket = self.tls.wrap_socket(self.socket,
                                           server_hostname="localhost")


def what_was_said_before_tls_is_forgotten(c):
    with c.x509("--tls", "on", "--overlay", "temp") as s:
        with TlsClient(c, s.socket) as n:
            is_equal(n.contexts(b"", [ALLOCATION]), {ALLOCATION: 1}, "set")
            n.start()
            n.go()
            is_equal(n.read(0, 512)[0], 0, "a simple reply's error")
            n.request(7, 0, 512)
            is_equal(n.take(8), bytes.fromhex("6744669800000016"), "status")
        with TlsClient(c, s.socket) as n:
            is_equal(n.contexts(b"", [ALLOCATION]), {ALLOCATION: 1}, "set")
            n.start()
            try:
                n.contexts(b"", [ALLOCATION])
                raise Failure("contexts without structured replies")
            except NoExport:
                pass
            n.option(OPT_STARTTLS)
            is_equal([kind for kind, _ in n.answers()], [0x80000003],
                     "STARTTLS inside of TLS")
            n.option(OPT_STRUCTURED)
            is_equal([kind for kind, _ in n.answers()], [REP_ACK], "structured")
            is_equal(n.contexts(b"", [ALLOCATION]), {ALLOCATION: 1}, "set")
            n.go()
            code, told = n.status(0, SIZE)
            is_equal((code, list(told)), (0, [1]), "status")


def a_guest_reads_and_writes_by_tls(c):
    raw = c.path("disk.raw")
    run(["qemu-img", "convert", "-O", "raw", c.disk.path, raw])
    with open(raw, "rb") as f:
        disk = f.read()
    with c.x509("--overlay", "temp") as s:
        for version in (ssl.TLSVersion.TLSv1_2, None):
            n = TlsClient(c, s.socket)
            n.start(version)
            guest = Guest(n, disk, 5)
            for _ in range(60):
                guest.step()
            guest.compare()
            disk = bytes(guest.model)
            guest.close()


def who_reads_slowly_gets_every_byte(c):
    """More than the socket takes: what is encrypted waits, and goes on."""
    with c.x509("--overlay", "temp") as s, TlsClient(c, s.socket) as n:
        n.start()
        n.go()
        data = secrets.token_bytes(1 << 20)
        is_equal(n.write(0, data), 0, "the error")
        sizes = [1 << 20, 3, 16384, 16385, 4096, 70001] * 8
        first = n.handle + 1
        for size in sizes:
            n.request(0, 1, min(size, (1 << 20) - 1))
        got = {}
        for _ in sizes:
            magic, code, handle = [n.take(4), n.take(4), n.take(8)]
            is_equal((magic, code), (bytes.fromhex("67446698"), bytes(4)), "")
            i = int.from_bytes(handle, "big") - first
            size = min(sizes[i], (1 << 20) - 1)
            time.sleep(0.002)
            is_true(n.take(size) == data[1:1 + size], f"read {i}")
            got[i] = True
        is_equal(len(got), len(sizes), "answers")


class Records:
    """TLS on a socket, the records of which are sent when we say so."""

    def __init__(self, context, sock):
        self.sock, self.came, self.goes = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.came, self.goes,
                                    server_hostname="localhost")
        self._try(self.tls.do_handshake)
        self.send()

    def _try(self, call):
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self.send()
                self.came.write(self.sock.recv(65536))

    def send(self):
        self.sock.sendall(self.goes.read())

    def sendall(self, data):
        for at in range(0, len(data), 5):
            self.tls.write(data[at:at + 5])

    def recv_into(self, buf):
        return self._try(lambda: self.tls.read(len(buf), buf))


def many_records_may_come_in_one_piece(c):
    with c.x509() as s, TlsClient(c, s.socket) as n:
        n.greet()
        n.option(OPT_STARTTLS)
        is_equal([kind for kind, _ in n.answers()], [REP_ACK], "STARTTLS")
        plain, n.socket = n.socket, Records(n.tls, n.socket)
        n.option(OPT_STRUCTURED)
        n.option(7, bytes(6))
        n.socket.send()
        is_equal([kind for kind, _ in n.answers()], [REP_ACK], "structured")
        is_equal([kind for kind, _ in n.answers()], [3, REP_ACK], "GO")
        for count in (1, 2, 30, 200):
            for _ in range(count):
                n.request(5, 0, 512)  # CACHE
            n.socket.send()
            for _ in range(count):
                is_equal(n.take(8), bytes.fromhex("6744669800000000"), "CACHE")
                n.take(8)
        n.socket = plain


def clients_leave_in_the_middle_of_anything(c):
    with c.x509("--overlay", "temp") as s:
        with TlsClient(c, s.socket) as honest:
            honest.start()
            honest.go()
            for i in range(40):
                n = TlsClient(c, s.socket)
                if i % 4 == 0:  # in the middle of the handshake
                    n.greet()
                    n.option(OPT_STARTTLS)
                    list(n.answers())
                    hello = ssl.MemoryBIO()
                    tls = n.tls.wrap_bio(ssl.MemoryBIO(), hello,
                                         server_hostname="localhost")
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    n.socket.sendall(hello.read()[:20 + 40 * i])
                else:
                    n.start()
                    n.go()
                    if i % 4 > 1:
                        for _ in range(20):
                            n.request(0, 0, 1 << 20)
                    if i % 4 > 2:
                        n.request(1, 0, 100000, b"x" * 30000)
                if i % 3 == 0:  # a cut, not an end
                    n.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                        b"\1\0\0\0\0\0\0\0")
                n.socket.close()
                is_equal(honest.read(0, 4096)[0], 0, "the error")


def main():
    environment("PLATTER")
    need_programs("qemu-img", "nbdinfo", "nbdcopy", "openssl")
    checks = [
        certificates_are_taken_by_libnbd_and_qemu,
        clients_show_certificates_where_they_have_to,
        keys_that_both_have_are_taken,
        plain_clients_are_served_unless_tls_is_required,
    ]
    if OWN:
        checks += [
            rules_say_who_opens_what,
            what_is_wrong_with_keys_is_told_by_the_files_name,
            what_was_said_before_tls_is_forgotten,
            a_guest_reads_and_writes_by_tls,
            who_reads_slowly_gets_every_byte,
            many_records_may_come_in_one_piece,
            clients_leave_in_the_middle_of_anything,
        ]
    run_checks(Context, checks)


if __name__ == "__main__":
    main()

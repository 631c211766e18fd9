# SPDX-License-Identifier: BSD-3-Clause
"""A certificate authority of a test's own."""

import os

from server import run


def openssl(*args):
    run(["openssl", *args])


class Authority:
    """A CA in a folder of its own, and what it signs."""

    def __init__(self, folder):
        self.folder = folder
        os.mkdir(folder)
        self.key, self.cert = self.path("ca.key"), self.path("ca-cert.pem")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout",
                self.key, "-out", self.cert, "-subj", "/CN=CA of tests",
                "-days", "2", "-addext", "keyUsage=keyCertSign,cRLSign")

    def path(self, name):
        return os.path.join(self.folder, name)

    def sign(self, kind, subject, folder, usage, names="DNS:localhost"):
        """@kind is server or client; its files, with the CA's, in @folder."""
        os.makedirs(folder, exist_ok=True)
        key = os.path.join(folder, f"{kind}-key.pem")
        cert = os.path.join(folder, f"{kind}-cert.pem")
        request, more = self.path("request"), self.path("extensions")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                request, "-subj", subject)
        os.chmod(key, 0o600)
        with open(more, "w") as f:
            f.write(f"subjectAltName={names}\nextendedKeyUsage={usage}\n"
                    "keyUsage=digitalSignature,keyEncipherment\n")
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey",
                self.key, "-CAcreateserial", "-out", cert, "-days", "2",
                "-extfile", more)
        with open(self.cert) as f, open(os.path.join(folder, "ca-cert.pem"),
                                        "w") as g:
            g.write(f.read())
        return cert

    def revoke(self, cert):
        """The list of what is revoked: this one."""
        with open(self.path("index"), "w"):
            pass
        with open(self.path("ca.conf"), "w") as f:
            f.write("[ca]\ndefault_ca=c\n[c]\ndatabase=%s\ndefault_md=sha256\n"
                    "default_crl_days=2\n" % self.path("index"))
        ca = ("ca", "-config", self.path("ca.conf"), "-cert", self.cert,
              "-keyfile", self.key)
        openssl(*ca, "-revoke", cert)
        openssl(*ca, "-gencrl", "-out", self.path("crl.pem"))
        with open(self.path("crl.pem")) as f:
            return f.read()

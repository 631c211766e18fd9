#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Signed images, signed by the library that cursive, which verifies them for
Glance, is made of: python3-cryptography."""

import json
import os
import subprocess
import sys
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from glance import Glance, Row, run_row  # noqa: E402
from server import Failure, environment, need_programs  # noqa: E402

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
PYTHON = "/usr/bin/python3"
DATA = bytes(range(256)) * 700
KINDS = ("RSA-PSS", "DSA", "ECC_SECP384R1", "ECC_SECP521R1", "ECC_SECT409K1",
         "ECC_SECT571K1", "ECC_SECT409R1", "ECC_SECT571R1")

# Certificates and signatures, as OpenStack's guide for users makes them.
SIGN = """
import base64, datetime, json, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
folder, data = sys.argv[1], open(sys.argv[2], "rb").read()
def key_of(kind):
    if kind == "RSA-PSS":
        return rsa.generate_private_key(65537, 2048)
    if kind == "DSA":
        return dsa.generate_private_key(2048)
    return ec.generate_private_key(getattr(ec, kind[4:])())
def sign(key, h, salt=padding.PSS.MAX_LENGTH):
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(h), salt), h)
    if isinstance(key, dsa.DSAPrivateKey):
        return key.sign(data, h)
    return key.sign(data, ec.ECDSA(h))
def certify(key, name, first, last, kind="PEM"):
    n = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.datetime.utcnow()
    c = x509.CertificateBuilder().subject_name(n).issuer_name(n).public_key(
        key.public_key()).serial_number(5).not_valid_before(
        now + datetime.timedelta(days=first)).not_valid_after(
        now + datetime.timedelta(days=last)).sign(key, hashes.SHA256())
    with open(f"{folder}/{name}.pem", "wb") as f:
        f.write(c.public_bytes(getattr(serialization.Encoding, kind)))
found = []
for kind, name, first, last, coding in json.loads(sys.argv[3]):
    key = key_of(kind)
    certify(key, name, first, last, coding)
    found.append({h: base64.b64encode(sign(key, getattr(hashes, h)())).decode()
                  for h in ("SHA224", "SHA256", "SHA384", "SHA512")})
print(json.dumps(found))
"""


class Context:
    def __init__(self, folder):
        self.folder = os.path.join(folder, "certificates")
        os.mkdir(self.folder)
        data = os.path.join(folder, "data")
        with open(data, "wb") as f:
            f.write(DATA)
        self.ids = {k: str(uuid.uuid4()) for k in (*KINDS, "early", "late",
                                                   "DER")}
        wanted = [(k, self.ids[k], -1, 1, "PEM") for k in KINDS]
        wanted += [("ECC_SECP384R1", self.ids["early"], 1, 2, "PEM"),
                   ("ECC_SECP384R1", self.ids["late"], -2, -1, "PEM"),
                   ("ECC_SECP384R1", self.ids["DER"], -1, 1, "DER")]
        p = subprocess.run([PYTHON, "-c", SIGN, self.folder, data,
                            json.dumps(wanted)], capture_output=True,
                           text=True, timeout=120)
        if p.returncode:
            raise Failure(p.stderr)
        self.signatures = dict(zip(self.ids, json.loads(p.stdout)))

    def service(self, *more):
        return Glance(f"signature-certificates={self.folder}", *more)

    def properties(self, kind, digest="SHA-256", key=None, **more):
        key = key or (kind if kind in KINDS else "ECC_SECP384R1")
        p = {"img_signature": self.signatures[kind][digest.replace("-", "")],
             "img_signature_hash_method": digest,
             "img_signature_key_type": key,
             "img_signature_certificate_uuid": self.ids[kind], **more}
        return {k: v for k, v in p.items() if v is not None}


def new(g, **fields):
    a = g.request("POST", "/v2/images", {
        "disk_format": "raw", "container_format": "bare", **fields})
    is_equal(a.status, 201, f"the status of a new image ({a.text[:200]})")
    return "/v2/images/" + a.json["id"]


def put(g, image, status, says=None, data=DATA):
    run_row(g, Row("PUT", image + "/file", status, says, data, OCTETS))
    a = g.request("GET", image)
    is_equal(a.json["status"], "active" if status == 204 else "queued",
             "the status of the image")


def what_is_signed_is_taken(c):
    with c.service() as g:
        for kind in KINDS:
            put(g, new(g, **c.properties(kind)), 204)
            put(g, new(g, **c.properties(kind)), 400, "not what was signed",
                DATA[:-1])
        for digest in ("SHA-224", "SHA-256", "SHA-384", "SHA-512"):
            for kind in ("RSA-PSS", "DSA", "ECC_SECP384R1"):
                put(g, new(g, **c.properties(kind, digest)), 204)
        put(g, new(g, **c.properties("DER")), 204)
        text = c.signatures["RSA-PSS"]["SHA256"]
        put(g, new(g, **c.properties(
            "RSA-PSS", img_signature=text[:76] + "\n" + text[76:])), 204)
        # Not all four: it is none.
        for name in c.properties("DSA"):
            put(g, new(g, **c.properties("DSA", **{name: None})), 204)


def what_is_not_is_refused(c):
    text = c.signatures["RSA-PSS"]["SHA256"]
    with c.service() as g:
        for properties, says in (
                (c.properties("RSA-PSS", img_signature_hash_method="SHA-512"),
                 "not what was signed"),
                (c.properties("RSA-PSS", img_signature_hash_method="MD5"),
                 "Invalid signature hash method"),
                (c.properties("RSA-PSS", key="DSA"),
                 "Invalid public key type"),
                (c.properties("DSA", key="RSA-PSS"),
                 "Invalid public key type"),
                (c.properties("ECC_SECP384R1", key="ECC_SECP521R1"),
                 "Invalid public key type"),
                (c.properties("RSA-PSS", key="RSA"),
                 "Invalid signature key type"),
                (c.properties("RSA-PSS", img_signature=text[:-1]),
                 "using base64"),
                (c.properties("RSA-PSS", img_signature="===="),
                 "using base64"),
                (c.properties("RSA-PSS", img_signature=""), "using base64"),
                (c.properties("RSA-PSS", img_signature="AAAA"),
                 "not what was signed"),
                (c.properties("RSA-PSS", img_signature=text[4:]),
                 "not what was signed"),
                (c.properties("early"), "is not valid yet"),
                (c.properties("late"), "is not valid any more"),
                (c.properties("RSA-PSS", img_signature_certificate_uuid=str(
                    uuid.uuid4())), "Certificate not found"),
                (c.properties("RSA-PSS", img_signature_certificate_uuid=(
                    "../certificates/" + c.ids["RSA-PSS"])),
                 "Certificate not found")):
            put(g, new(g, **properties), 400, says)
        bad = str(uuid.uuid4())
        with open(os.path.join(c.folder, bad + ".pem"), "wb") as f:
            f.write(b"-----BEGIN CERTIFICATE-----\nAAAA\n")
        put(g, new(g, **c.properties(
            "RSA-PSS", img_signature_certificate_uuid=bad)), 400,
            "is no X.509 certificate")
        out = str(uuid.uuid4())
        os.symlink("../data", os.path.join(c.folder, out + ".pem"))
        put(g, new(g, **c.properties(
            "RSA-PSS", img_signature_certificate_uuid=out)), 400,
            "Certificate not found")
        # Import too.
        for data, status in ((DATA, "active"), (DATA[1:], "queued")):
            i = new(g, **c.properties("RSA-PSS"))
            run_row(g, Row("PUT", i + "/stage", 204, None, data, OCTETS))
            run_row(g, Row("POST", i + "/import", 202, None,
                           {"method": {"name": "glance-direct"}}))
            end = time.monotonic() + 30
            while g.request("GET", i).json["status"] == "importing":
                is_true(time.monotonic() < end, "it takes too long")
                time.sleep(0.02)
            is_equal(g.request("GET", i).json["status"], status, "an import")
        # And v1, whose data kill it.
        run_row(g, Row("POST", "/v1/images", 400, "Signature verification",
                       DATA[1:], {
                           "X-Image-Meta-Name": "a",
                           "X-Image-Meta-Disk_format": "raw",
                           "X-Image-Meta-Container_format": "bare",
                           **{"X-Image-Meta-Property-" + k: v for k, v in
                              c.properties("RSA-PSS").items()}}))


def without_certificates_nothing_signed_is_active(c):
    with Glance("show-locations=true", f"location-dirs={c.folder}/..") as g:
        put(g, new(g, **c.properties("RSA-PSS")), 400,
            "signature-certificates= is not set")
        i = new(g, **c.properties("RSA-PSS"))
        run_row(g, Row("PATCH", i, 400, "Signature verification failed", [
            {"op": "add", "path": "/locations/-", "value": {
                "url": "file://" + os.path.realpath(
                    os.path.join(c.folder, "..", "data")),
                "metadata": {}}}], PATCH))
        is_equal(g.request("GET", i).json["status"], "queued", "the status")
    try:
        with Glance("signature-certificates=/none/such"):
            raise Failure("it is taken")
    except Failure as e:
        is_true("signature-certificates: " in str(e), str(e))


if __name__ == "__main__":
    environment("PLATTER_PLUGIN")
    need_programs("nbdkit")
    if subprocess.run([PYTHON, "-c", "import cryptography"]).returncode:
        print("python3-cryptography is not installed")
        sys.exit(77)
    run_checks(Context, [
        what_is_signed_is_taken,
        what_is_not_is_refused,
        without_certificates_nothing_signed_is_active,
    ])

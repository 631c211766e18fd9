#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Disks inside containers, made by GNU tar, by Python's tarfile and by hand:
served in place, equal to the same disk outside; and what is refused."""

import json
import os
import random
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import (Refused, Server, Totals, compare,  # noqa: E402
                    environment, need_programs, run)
from tar_build import END, header, member, padded, pax, record  # noqa: E402

MIB = 1 << 20
SIZE = 6 * MIB
# As qemu-img makes them, and whether a tool that knows the format is needed.
FORMATS = (("qcow2", ["-c"]), ("vmdk", []),
           ("vmdk", ["-o", "subformat=streamOptimized"]),
           ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]),
           ("vmdk", ["-o", "subformat=twoGbMaxExtentFlat"]), ("vhdx", []),
           ("vpc", ["-o", "force_size=on"]), ("vdi", []), ("raw", []))


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.raw = self.at("disk.raw")
        with open(self.raw, "wb") as f:
            f.truncate(SIZE)
            for at, length in ((0, 5000), (MIB - 700, 1400), (3 * MIB, MIB)):
                f.seek(at)
                f.write(bytes((at + i) % 251 + 1 for i in range(length)))
        self.ovf = self.at("vm.ovf")
        with open(self.ovf, "w") as f:
            f.write("<Envelope/>\n")
        self.totals = Totals()

    def at(self, name):
        return os.path.join(self.folder, name)

    def same(self, path, *options, member=None):
        """What is served of @path, and what is copied, is the disk."""
        more = ["--member", member] if member else []
        with Server(path, more=more) as s:
            compare(s.uri(), self.raw, self.totals)
        out = self.at("out.raw")
        run([os.environ["PLATTER"], "convert", "--quiet", "--overwrite",
             *more, path, out])
        run(["qemu-img", "compare", "-f", "raw", "-F", "raw", self.raw, out])

    def refuse(self, said, *args):
        """One line that says @said, and nothing else."""
        status, out, err = run([os.environ["PLATTER"], "map", *args],
                               ok=None)
        is_equal(status, 1, f"the status of map {args}: {out}")
        is_true(said in err and err.count("\n") == 1, f"{said!r}: {err!r}")


def images(c):
    """(name, files) of the disk in every format."""
    for i, (fmt, options) in enumerate(FORMATS):
        folder = c.at(f"f{i}")
        os.makedirs(folder, exist_ok=True)
        end = "img" if fmt == "raw" else "vhd" if fmt == "vpc" else fmt
        path = os.path.join(folder, f"disk.{end}")
        if not os.path.exists(path):
            run(["qemu-img", "convert", "-O", fmt, *options, c.raw, path])
        yield fmt, folder, sorted(os.listdir(folder))


def every_format_is_served_out_of_a_tar(c):
    kinds = ["ustar", "gnu", "pax"]
    for i, (fmt, folder, files) in enumerate(images(c)):
        path = c.at(f"{i}.ova")
        kind = kinds[i % 3]
        run(["tar", f"--format={kind}", "-cf", path, "-C", c.folder, "vm.ovf",
             "-C", folder, *files])
        c.same(path)
        # In a folder of a long name, by another maker.
        long = c.at(f"{i}.tar")
        form = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[i % 2]
        with tarfile.open(long, "w", format=form) as t:
            t.add(c.ovf, "./vm.ovf")
            for name in files:
                t.add(os.path.join(folder, name), f"./{'d' * 120}/{name}")
        c.same(long)
    print(c.totals)


def archive(c, name, *files):
    """Of files that lie in the folder."""
    path = c.at(name)
    run(["tar", "-cf", path, "-C", c.folder, *files])
    return path


def exports_of(uri):
    told = json.loads(run(["nbdinfo", "--list", "--json", uri])[1])
    return {e["export-name"]: e for e in told["exports"]}


def each_of_several_is_an_export(c, path):
    run(["qemu-img", "snapshot", "-c", "before", c.at("b.qcow2")])
    run(["qemu-io", "-c", "write -P 7 0 4k", c.at("b.qcow2")])
    archive(c, os.path.basename(path), "vm.ovf", "a.qcow2", "b.qcow2")
    b = c.at("b.raw")
    run(["qemu-img", "convert", "-O", "raw", c.at("b.qcow2"), b])
    with Server(path, more=["--export", f"vm={path}"]) as s:
        is_equal(sorted(exports_of(s.uri())),
                 ["/a.qcow2", "/b.qcow2", "vm/a.qcow2", "vm/b.qcow2"],
                 "the exports")
        for image in ("", "vm"):
            compare(s.uri(f"{image}/a.qcow2"), c.raw, c.totals)
            compare(s.uri(f"{image}/b.qcow2"), b, c.totals)
            compare(s.uri(f"{image}/.%2Fb.qcow2"), b, c.totals)
        run(["qemu-io", "-r", "-f", "raw", "-c", "read -P 9 0 4k",
             s.uri("/b.qcow2@before")])
        for name in ("", "vm", "/c.qcow2", "/a.qcow2/x", "/..%2Fdisk.raw"):
            status, out, _ = run(["nbdinfo", s.uri(name)], ok=None)
            is_true(status, f"{name!r} is an export: {out}")
        is_true("several disks" in s.messages(), s.messages())
    for more in (["--overlay", "temp"], ["--overlay", c.at("over.qcow2")]):
        try:
            with Server(path, more=more):
                is_true(False, "an overlay over one of two was served")
        except Refused as e:
            is_true("several disks" in e.message, e.message)
    # One that has an overlay is written; its neighbour is not.
    with Server(path, more=["--overlay", "temp", "--member", "a.qcow2"]) as s:
        run(["qemu-io", "-f", "raw", "-c", "write -P 3 0 4k", s.uri()])
        compare(s.uri("/b.qcow2"), b, c.totals)
        status, _, _ = run(["qemu-io", "-f", "raw", "-c", "write 0 4k",
                            s.uri("/b.qcow2")], ok=None)
        is_true(status, "a member without an overlay was written")


def of_several_disks_one_is_named(c):
    for name in ("a.qcow2", "b.qcow2"):
        run(["qemu-img", "convert", "-O", "qcow2", c.raw, c.at(name)])
    run(["qemu-io", "-c", "write -P 9 0 4k", c.at("b.qcow2")])
    path = archive(c, "two.tar", "vm.ovf", "a.qcow2", "b.qcow2")
    c.refuse("is a tar archive of several disks: name one with --member: "
             "a.qcow2, b.qcow2", path)
    c.refuse('has no member "c.qcow2"', "--member", "c.qcow2", path)
    c.same(path, member="a.qcow2")
    c.same(path, member="./a.qcow2")
    each_of_several_is_an_export(c, path)
    told = json.loads(run([os.environ["PLATTER"], "list", "--json", path])[1])
    with tarfile.open(path) as t:
        is_equal([(m["name"], m["size"], m["offset"]) for m in told["members"]],
                 [(m.name, m.size, m.offset_data) for m in t.getmembers()],
                 "the members")
    is_equal([m["format"] for m in told["members"]], ["-", "qcow2", "qcow2"],
             "the formats")


def all_of_several_are_converted(c):
    folder = c.at("several")
    os.makedirs(os.path.join(folder, "sub"))
    other = os.path.join(folder, "two.img")
    with open(other, "wb") as f:
        f.write(random.Random(9).randbytes(3 << 20))
    run(["qemu-img", "convert", "-O", "vmdk", "-o",
         "subformat=streamOptimized", c.raw, os.path.join(folder, "one.vmdk")])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", other,
         os.path.join(folder, "sub", "two.v2.qcow2")])
    path = c.at("several.tar.gz")
    run(["tar", "-czf", path, "-C", folder, "one.vmdk", "sub/two.v2.qcow2"])
    convert = [os.environ["PLATTER"], "convert", "--quiet", "--all"]
    for end, more in (("raw", []), ("qcow2", ["-O", "qcow2"])):
        out = c.at(f"all-{end}")
        run([*convert, *more, path, out])
        is_equal(sorted(os.listdir(out)), [f"one.{end}", f"two.v2.{end}"],
                 "the files")
        for name, raw in (("one", c.raw), ("two.v2", other)):
            run(["qemu-img", "compare", "-f", end, "-F", "raw",
                 os.path.join(out, f"{name}.{end}"), raw])
    status, _, err = run([*convert, path, out], ok=None)
    is_true(status == 0, err)  # the other format's files are others'
    status, _, err = run([*convert, path, out], ok=None)
    is_true(status == 1 and "one.raw" in err and err.count("\n") == 1, err)
    run([*convert, "--overwrite", path, out])
    # Two that would be one are refused before anything is made.
    os.rename(other, os.path.join(folder, "sub", "one.img"))
    run(["tar", "-cf", path, "-C", folder, "one.vmdk", "sub/one.img"])
    for args, said in (([path, c.at("none")], "would both be one.raw"),
                       ([c.raw, c.at("none")], "is no container"),
                       (["--member", "one.vmdk", path, c.at("none")],
                        "--all: --member is for one disk"),
                       ([path, "-"], "--all: standard output")):
        status, _, err = run([*convert, *args], ok=None)
        is_true(status in (1, 2) and said in err, f"{said}: {err}")
    is_true(not os.path.exists(c.at("none")), "a folder was made")


def names_inside_lead_to_members_alone(c):
    """A backing file in the archive is found; the same name outside is not."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F",
         "raw", c.at("top.qcow2")])
    c.same(archive(c, "chain.tar", "top.qcow2", "disk.raw"),
           member="top.qcow2")
    lone = archive(c, "lone.tar", "top.qcow2")
    c.refuse("backing file is no member of the container", lone)
    c.refuse("backing file is no member of the container", "--allow",
             c.folder, lone)
    for name in (c.raw, "../disk.raw", "x/../../disk.raw"):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F",
             "raw", c.at("top.qcow2"), str(SIZE)])
        c.refuse("backing file lies outside the container", "--allow",
                 c.folder, archive(c, "out.tar", "top.qcow2", "disk.raw"),
                 "--member", "top.qcow2")


def sparse_members_are_served(c):
    """Without their holes, in each of the ways that tars say where those are."""
    many = c.at("many.raw")
    with open(many, "wb") as f:
        f.truncate(SIZE)
        for i in range(0, SIZE, 65536):
            f.seek(i + 8192 * (i // 65536 % 3))
            f.write(bytes([1 + i // 65536 % 250]) * 5000)
    makers = [["tar", "--sparse", "--format=gnu"]]
    makers += [["tar", "--sparse", "--format=posix",
                f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")]
    makers.append(["bsdtar", "--format=pax", "--read-sparse"])
    for i, maker in enumerate(makers):
        for raw in (c.raw, many):
            path = c.at(f"sparse{i}.tar")
            run([*maker, "-cf", path, "-C", c.folder, "vm.ovf",
                 os.path.basename(raw)])
            is_true(os.path.getsize(path) < SIZE / 2, f"{maker}: no holes")
            with Server(path, more=["--member", os.path.basename(raw)]) as s:
                compare(s.uri(), raw, c.totals)
            told = json.loads(run([os.environ["PLATTER"], "map", "--json",
                                   "--member", os.path.basename(raw),
                                   path])[1])
            data = sum(e["length"] for e in told if e["data"])
            is_true(data < SIZE / 2, f"{maker}: {data} bytes of data")
            whole = run([os.environ["PLATTER"], "list", path])[1]
            is_true(f"{SIZE}  -" in whole, whole)


def a_sparse_map_that_is_wrong_is_refused(c):
    data = b"x" * 1024

    def old(pairs, real=4096, more=b"\0"):
        h = bytearray(header(b"disk.img", len(data), kind=b"S",
                             magic=b"ustar  \0"))
        for i, (at, length) in enumerate(pairs):
            h[386 + 24 * i:398 + 24 * i] = b"%011o\0" % at
            h[398 + 24 * i:410 + 24 * i] = b"%011o\0" % length
        h[482:483] = more
        h[483:495] = b"%011o\0" % real
        h[148:156] = b" " * 8
        h[148:156] = b"%06o\0 " % sum(h)
        return bytes(h) + data + END

    def pax_map(text, *records):
        return (pax(record(b"GNU.sparse.size", b"4096"),
                    record(b"GNU.sparse.map", text), *records) +
                member(b"disk.img", data) + END)

    def before(text):
        return (pax(record(b"GNU.sparse.major", b"1"),
                    record(b"GNU.sparse.minor", b"0"),
                    record(b"GNU.sparse.realsize", b"4096")) +
                member(b"disk.img", text + bytes(-len(text) % 512) + data) +
                END)

    path = c.at("map.tar")
    with open(path, "wb") as f:
        f.write(old([(0, 512), (2048, 512)]))
    run([os.environ["PLATTER"], "info", path])
    fit = "sparse map does not fit its data"
    for blob, said in (
            (old([(0, 512), (256, 512)]), fit), (old([(4000, 512)]), fit),
            (old([(0, 4096)]), fit), (old([(0, 512)], more=b"1"), ""),
            (pax_map(b"0,512,256,512"), fit), (pax_map(b"0,512,4096"), fit),
            (pax_map(b"0,,1"), "a wrong record of pax"),
            (pax_map(b"0,%d" % (1 << 62)), fit),
            (before(b"1\n0\n9999\n"), fit),
            (before(b"99999999999\n"), "too many runs"),
            (before(b"1\n0\nx\n"), "sparse map is wrong"),
            (before(b"2\n0\n512\n"), "sparse map is wrong")):
        with open(path, "wb") as f:
            f.write(blob)
        c.refuse(said, path)


def machine(disks, extra=""):
    files = "".join(f'<File ovf:id="f{i}" ovf:href="{href}"/>'
                    for i, (_, href, _) in enumerate(disks))
    told = "".join(f'<Disk ovf:diskId="{name}" ovf:fileRef="f{i}" {more}/>'
                   for i, (name, _, more) in enumerate(disks))
    return ('<?xml version="1.0"?>\n<Envelope xmlns="http://schemas.dmtf.org/'
            'ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/'
            f'1"><References>{files}</References><DiskSection>{told}'
            '</DiskSection><NetworkSection><Network ovf:name="lan"/>'
            f'</NetworkSection>{extra}<VirtualSystem ovf:id="vm"><Name>web'
            '</Name><VirtualHardwareSection><Item><ResourceType>3'
            '</ResourceType><VirtualQuantity>2</VirtualQuantity></Item><Item>'
            '<AllocationUnits>byte * 2^30</AllocationUnits><ResourceType>4'
            '</ResourceType><VirtualQuantity>3</VirtualQuantity></Item>'
            '</VirtualHardwareSection></VirtualSystem></Envelope>\n')


def an_ovf_descriptor_says_what_is_what(c):
    folder = c.at("package")
    os.makedirs(folder, exist_ok=True)
    for name, fmt in (("sys.vmdk", "vmdk"), ("blob", "raw")):
        run(["qemu-img", "convert", "-O", fmt, c.raw,
             os.path.join(folder, name)])
    descriptor = os.path.join(folder, "vm.ovf")
    with open(descriptor, "w") as f:
        f.write(machine((("disk-a", "sys.vmdk", 'ovf:capacity="7" '
                          'ovf:capacityAllocationUnits="byte * 2^20"'),
                         ("disk-b", "blob", f'ovf:capacity="{SIZE}"'))))
    ova = c.at("package.ova")
    run(["tar", "-cf", ova, "-C", folder, "vm.ovf", "sys.vmdk", "blob"])
    for path in (ova, descriptor):
        told = json.loads(run([os.environ["PLATTER"], "info", "--json",
                               path])[1])["container"]
        is_equal(told["machines"], [{"id": "vm", "name": "web", "os": None,
                                     "firmware": None, "cpus": 2,
                                     "memory": 3 << 30}], "the machine")
        is_equal(told["networks"], ["lan"], "the networks")
        is_equal([(d["id"], d["member"], d["format"], d["virtual-size"],
                   d["described-size"]) for d in told["disks"]],
                 [("disk-a", "sys.vmdk", "vmdk", SIZE, 7 * MIB),
                  ("disk-b", "blob", "raw", SIZE, SIZE)], "the disks")
        with Server(path) as s:
            for name in ("disk-a", "disk-b", "sys.vmdk", "blob"):
                compare(s.uri(f"/{name}"), c.raw, c.totals)
        c.same(path, member="disk-b")
    # A file that leads out of the folder is none of it.
    os.link(c.raw, c.at("secret"))
    with open(descriptor, "w") as f:
        f.write(machine((("disk-a", "../secret", ""),
                         ("disk-b", "/etc/passwd", ""))))
    out = run([os.environ["PLATTER"], "list", descriptor])[1]
    is_equal(out.count("outside the image's folder"), 2, out)
    c.refuse("outside the image's folder", "--member", "disk-a", descriptor)
    for text, said in (("<!DOCTYPE x [<!ENTITY a 'b'>]><Envelope>&a;"
                        "</Envelope> envelope", "a DTD is refused"),
                       ("<Envelope xmlns='envelope'>" + "<a>" * 100 +
                        "</a>" * 100 + "</Envelope>", "more than 64 deep"),
                       ("<Envelope xmlns='envelope'>", "well-formed")):
        with open(descriptor, "w") as f:
            f.write(text)
        c.refuse(said, descriptor)


def a_disk_in_chunks_is_one(c):
    folder = c.at("chunks")
    os.makedirs(folder, exist_ok=True)
    image = c.at("chunked.qcow2")
    run(["qemu-img", "convert", "-O", "qcow2", c.raw, image])
    run(["split", "-d", "-a", "9", "-b", "300000", image,
         os.path.join(folder, "disk.qcow2.")])
    names = sorted(os.listdir(folder))
    path = c.at("chunks.tar")
    run(["tar", "-cf", path, "-C", folder, *reversed(names)])
    c.same(path)
    run(["tar", "-cf", path, "-C", folder, *names[:1], *names[2:]])
    c.refuse("one of which is missing", "--member", "disk.qcow2", path)


def the_manifest_and_its_signature_are_checked(c):
    folder = c.at("signed")
    os.makedirs(folder, exist_ok=True)

    def at(name):
        return os.path.join(folder, name)

    run(["qemu-img", "convert", "-O", "vmdk", c.raw, at("d.vmdk")])
    with open(at("vm.ovf"), "w") as f:
        f.write(machine((("d", "d.vmdk", ""),)))
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
         "-keyout", c.at("key.pem"), "-out", c.at("cert.pem"), "-subj",
         "/CN=Packer", "-days", "2"])

    def digest(algorithm, name):
        return run(["openssl", "dgst", f"-{algorithm}", "-r",
                    at(name)])[1].split()[0]

    def build(algorithm, form, end="\n", files=("vm.ovf", "d.vmdk")):
        with open(at("vm.mf"), "w", newline="") as f:
            for name in files:
                f.write(form % (name, digest(algorithm, name)) + end)
        run(["openssl", "dgst", "-sha256", "-sign", c.at("key.pem"), "-out",
             c.at("sig"), at("vm.mf")])
        with open(c.at("sig"), "rb") as f, open(c.at("cert.pem")) as pem, \
                open(at("vm.cert"), "w") as to:
            to.write(f"SHA256(vm.mf)= {f.read().hex()}\n{pem.read()}")

    def pack():
        run(["tar", "-cf", c.at("s.ova"), "-C", folder, "vm.ovf", "vm.mf",
             "vm.cert", "d.vmdk"])

    def check(status):
        got, out, err = run([os.environ["PLATTER"], "check", "-v",
                             c.at("s.ova")], ok=None)
        is_equal(got, status, f"the status of check: {out} {err}")
        return out

    for algorithm, form, end in (
            ("sha1", "SHA1(%s)= %s", "\n"), ("sha256", "SHA256(%s)= %s", "\n"),
            ("sha256", "sha-256 (%s) = %s", "\r\n"),
            ("sha512", "SHA512 (%s)=%s", "\n")):
        build(algorithm, form, end)
        pack()
        out = check(0)
        is_true("2 files of the manifest are what it says" in out and
                "signed by /CN=Packer" in out, out)
    with open(at("vm.mf"), "a") as f:
        f.write("\n")
    pack()
    is_true("signature is not that of the manifest" in check(2), "changed")
    build("sha256", "SHA256(%s)= %s")
    with open(at("d.vmdk"), "ab") as f:
        f.write(b"?")
    pack()
    is_true("d.vmdk: its SHA256 is not that of the manifest" in check(2), "")
    c.same(c.at("s.ova"))  # and is served all the same
    build("sha256", "SHA256(%s)= %s")
    with open(at("vm.mf"), "a") as f:
        f.write("SHA256(gone.iso)= 00\nnonsense\n")
    pack()
    out = check(2)
    is_true("gone.iso: is not there" in out and "is no digest" in out, out)


def what_is_a_disk_too_is_taken_for_neither(c):
    """A guest can write a tar header into its disk."""
    evil = bytearray(member(b"evil.img", b"x" * 512) + END + bytes(MIB))
    path = c.at("both")

    def write():
        with open(path, "wb") as f:
            f.write(evil)

    evil[512:520] = b"EFI PART"
    write()
    c.refuse("looks like a tar archive and like a disk with a GPT: give "
             "--format or --member", path)
    run([os.environ["PLATTER"], "info", "--format", "raw", path])
    run([os.environ["PLATTER"], "info", "--member", "evil.img", path])
    # With a boot sector's mark, the checksum made to fit.
    first = bytearray(header(b"evil.img", 512))
    first[510:512] = b"\x55\xaa"
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    evil[:512] = first
    write()
    c.refuse("looks like a tar archive and like a disk with a boot sector",
             path)
    # And with a format's: a VHD's footer stands at its end.
    evil[:520] = member(b"evil.img", b"x" * 8)[:520]
    run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed",
         c.at("small.vhd"), "1M"])
    with open(c.at("small.vhd"), "rb") as f:
        f.seek(-512, os.SEEK_END)
        evil += f.read()
    write()
    c.refuse("looks like a tar archive and like vhd", path)


def what_cannot_be_served_is_refused_in_a_line(c):
    c.refuse("is a tar archive without a disk",
             archive(c, "none.tar", "vm.ovf"))
    c.refuse("is no container, so it has no members", "--member", "x", c.raw)
    with open(c.at("cut.tar"), "wb") as f:
        f.write(header(b"disk.img", MIB) + bytes(1000))
    c.refuse("tar header: its member ends behind the file's end",
             c.at("cut.tar"))


def an_overlay_over_a_member_is_temporary(c):
    path = archive(c, "one.tar", "vm.ovf", "a.qcow2")
    with Server(path, more=["--overlay", "temp"]) as s:
        run(["qemu-io", "-f", "raw", "-c", "write -P 5 0 64k", "-c",
             "read -P 5 0 64k", s.uri()])
    out = c.at("over.qcow2")
    for args in (["serve", "-U", c.at("s"), "--overlay", out, path],
                 ["create", "--base", path, out],
                 ["convert", "--quiet", "-B", path, c.raw, out]):
        status, _, err = run([os.environ["PLATTER"], *args], ok=None)
        is_true(status == 1 and "cannot name the member of a container" in err,
                f"{args}: {status} {err}")
        is_true(not os.path.exists(out), f"{args} left a file")


def many_members_are_few_reads(c):
    """100,000 headers, and one more than that."""
    path = c.at("many.tar")
    for n, ok in ((99_998, True), (100_001, False)):
        with open(path, "wb") as f:
            one = header(b"file.txt", 0)
            for _ in range(n // 1000):
                f.write(one * 1000)
            f.write(one * (n % 1000) + header(b"disk.img", MIB) +
                    padded(bytes(MIB)) + END)
        if ok:
            p = subprocess.run(["/usr/bin/env", os.environ["PLATTER"], "info",
                                path], capture_output=True, text=True)
            is_true(p.returncode == 0 and "1 MiB" in p.stdout,
                    f"{p.stdout} {p.stderr}")
        else:
            c.refuse("over the limit of 100000 members", path)


def many_chunks_are_one(c):
    """Each is looked for by its name, among all."""
    path = c.at("many-chunks.tar")
    n = 60_000
    with open(path, "wb") as f:
        for i in range(n):
            f.write(member(b"disk.img.%09d" % i, b"%08d" % i))
        f.write(END)
    told = json.loads(run([os.environ["PLATTER"], "info", "--json", path])[1])
    is_equal(told["virtual-size"], 8 * n, "the size of what is put together")


def main():
    environment("PLATTER", "NBD_COMPARE")
    need_programs("qemu-img", "qemu-io", "tar")
    run_checks(Context, [
        every_format_is_served_out_of_a_tar,
        of_several_disks_one_is_named,
        all_of_several_are_converted,
        names_inside_lead_to_members_alone,
        what_is_a_disk_too_is_taken_for_neither,
        what_cannot_be_served_is_refused_in_a_line,
        sparse_members_are_served,
        a_sparse_map_that_is_wrong_is_refused,
        an_ovf_descriptor_says_what_is_what,
        a_disk_in_chunks_is_one,
        the_manifest_and_its_signature_are_checked,
        an_overlay_over_a_member_is_temporary,
        many_members_are_few_reads,
        many_chunks_are_one,
    ])


if __name__ == "__main__":
    main()

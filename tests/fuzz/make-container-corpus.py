#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes tests/corpus/{tar,ovf,docker}, from which the fuzzer of containers starts and
which a regression test runs. valid-* must be containers, hostile-* must be refused."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from tar_build import (BLOCK, END, base_256, header, long_name,  # noqa: E402
                       member, padded, pax, record)

DATA = bytes(range(256)) * 3


OVF = (b"<?xml version='1.0'?><Envelope xmlns='envelope'><References>"
       b"<File id='f' href='d.vmdk' chunkSize='0' compression='gzip'/>"
       b"</References><DiskSection><Disk diskId='d' fileRef='f' capacity='20' "
       b"capacityAllocationUnits='byte * 2^30'/></DiskSection>"
       b"<NetworkSection><Network name='n'/></NetworkSection>"
       b"<DeploymentOptionSection><Configuration id='a'/><Configuration id='b' "
       b"default='true'/></DeploymentOptionSection><VirtualSystem id='v'>"
       b"<Name>n</Name><OperatingSystemSection osType='linux'/>"
       b"<VirtualHardwareSection><Item><ResourceType>3</ResourceType>"
       b"<VirtualQuantity>2</VirtualQuantity></Item><Item configuration='a b'>"
       b"<ResourceType>4</ResourceType><AllocationUnits>MegaBytes"
       b"</AllocationUnits><VirtualQuantity>512</VirtualQuantity></Item>"
       b"<Config key='firmware' value='efi'/></VirtualHardwareSection>"
       b"</VirtualSystem></Envelope>")


def old_sparse(runs, data=DATA, real=9000):
    """As GNU tar wrote it before pax: the map in the header and behind it."""
    def pair(at, length):
        return b"%011o\0%011o\0" % (at, length)

    h = bytearray(header(b"s.img", len(data), kind=b"S", magic=b"ustar  \0"))
    first = b"".join(pair(*r) for r in runs[:4])
    h[386:386 + len(first)] = first
    h[482] = len(runs) > 4
    h[483:495] = b"%011o\0" % real
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    more = b""
    for i in range(4, len(runs), 21):
        block = bytearray(BLOCK)
        part = b"".join(pair(*r) for r in runs[i:i + 21])
        block[0:len(part)] = part
        block[504] = i + 21 < len(runs)
        more += bytes(block)
    return bytes(h) + more + padded(data)


def pax_1(text, data=DATA):
    return pax(record(b"GNU.sparse.major", b"1"), record(
        b"GNU.sparse.minor", b"0"), record(b"GNU.sparse.name", b"real.img"),
        record(b"GNU.sparse.realsize", b"9000")) + member(
            b"GNUSparseFile.0/s.img", padded(text) + data)


def valid():
    yield "empty-member", member() + END
    yield "one", member(b"disk.img", DATA) + END
    yield "no-end", member(b"disk.img", DATA)
    yield "no-padding", header(b"disk.img", len(DATA)) + DATA
    yield "dot", member(b"./", kind=b"5") + member(b"./disk.img", DATA) + END
    yield "two", member(b"a.img", DATA) + member(b"b.img", DATA) + END
    yield "twice", member(b"a.img", b"1") + member(b"a.img", DATA) + END
    yield "prefix", member(b"disk.img", DATA, prefix=b"some/folder") + END
    yield "gnu", member(b"disk.img", DATA, magic=b"ustar  \0") + END
    yield "long-name", long_name(b"n" * 300 + b".img") + member(
        b"n" * 100, DATA, magic=b"ustar  \0") + END
    yield "pax", pax(record(b"path", b"p" * 200 + b".img"), record(
        b"mtime", b"1.5")) + member(b"x", DATA) + END
    yield "pax-size", pax(record(b"size", b"%d" % len(DATA))) + header(
        b"disk.img", 0) + padded(DATA) + END
    yield "global", pax(record(b"comment", b"c"), kind=b"g") + member(
        b"disk.img", DATA) + END
    yield "base-256", header(b"disk.img", size_field=base_256(
        len(DATA))) + padded(DATA) + END
    yield "signed-sum", member(b"\xe9.img", DATA, checksum=sum(
        b - 256 if b > 127 else b for b in
        header(b"\xe9.img", len(DATA))[:148] + b" " * 8 +
        header(b"\xe9.img", len(DATA))[156:])) + END
    yield "sparse", old_sparse([(0, 512), (4096, 256)]) + END
    yield "sparse-empty", old_sparse([], data=b"") + END
    yield "sparse-more", old_sparse([(0, 100)] + [
        (200 * i, 1) for i in range(1, 30)]) + END
    yield "sparse-0.0", pax(record(b"GNU.sparse.size", b"9000"), record(
        b"GNU.sparse.numblocks", b"2"), *(record(b"GNU.sparse." + k, v) for k, v
            in ((b"offset", b"0"), (b"numbytes", b"512"), (b"offset", b"8000"),
                (b"numbytes", b"256")))) + member(b"s.img", DATA) + END
    yield "sparse-0.1", pax(record(b"GNU.sparse.size", b"9000"), record(
        b"GNU.sparse.name", b"real.img"), record(
        b"GNU.sparse.map", b"0,512,8000,256")) + member(b"s.img", DATA) + END
    yield "sparse-1.0", pax_1(b"2\n0\n512\n8000\n256\n") + END
    yield "chunks", member(b"d.000000001", DATA) + member(
        b"d.000000000", DATA) + END
    yield "package", member(b"vm.ovf", OVF) + member(b"d.vmdk", DATA) + member(
        b"vm.mf", b"SHA1(vm.ovf)= %s\nSHA256(d.vmdk)= %s\n" % (
            b"00" * 20, b"00" * 32)) + member(
        b"vm.cert", b"SHA1(vm.mf)= 0102\n-----BEGIN CERTIFICATE-----\n") + END
    yield "links", member(b"l", kind=b"2") + member(b"h", kind=b"1") + END
    yield "folder-as-file", member(b"x/") + member(b"x/disk.img", DATA) + END
    yield "up", member(b"../../etc/passwd", DATA) + END


def hostile():
    yield "no-tar", DATA
    yield "short", member()[:511]
    yield "checksum", member(b"a", DATA) + member(checksum=1) + END
    yield "past-end", header(b"disk.img", 100 * BLOCK) + DATA
    yield "past-end-2-63", header(
        b"a", size_field=base_256((1 << 63) - 1)) + END
    yield "size-2-64", header(b"a", size_field=base_256(1 << 64)) + END
    yield "size-negative", header(b"a", size_field=b"\xff" * 12) + END
    yield "size-letters", header(b"a", size_field=b"12x4        ") + END
    yield "pax-cut", pax(record(b"path", b"x"))[:BLOCK] + b"99 path=" + END
    yield "pax-length-0", pax(b"0 path=x\n") + member() + END
    yield "pax-no-equals", pax(b"8 path\n\n") + member() + END
    yield "pax-size", pax(record(b"size", b"9" * 19)) + member() + END
    yield "pax-nul", pax(record(b"path", b"a\0b")) + member() + END
    yield "volume", member(b"a", DATA, kind=b"M") + END
    yield "sparse-overlap", old_sparse([(0, 512), (256, 256)]) + END
    yield "sparse-past-end", old_sparse([(8999, 2)]) + END
    yield "sparse-cut", old_sparse([(i, 1) for i in range(9)])[:BLOCK]
    yield "sparse-too-much", old_sparse([(0, 5000)]) + END
    yield "sparse-map", pax(record(b"GNU.sparse.size", b"9"), record(
        b"GNU.sparse.map", b"1,,2")) + member(b"s.img", DATA) + END
    yield "sparse-1.0-many", pax_1(b"99999999999\n") + END
    yield "sparse-1.0-cut", pax_1(b"9\n0\n1\n", b"") + END
    yield "sparse-2.0", pax(record(b"GNU.sparse.major", b"2"), record(
        b"GNU.sparse.realsize", b"1")) + member(b"s.img", DATA) + END
    yield "name-huge", long_name(b"n" * 5000) + member() + END


def valid_ovf():
    yield "machine", OVF
    yield "old", (b"\xef\xbb\xbf \n<!-- --><ovf:Envelope xmlns:ovf='http://www."
                  b"vmware.com/schema/ovf/1/envelope' xmlns:x='x'><Section x:type"
                  b"='ovf:DiskSection_Type'><Disk diskId='d' capacity='${c}'/>"
                  b"</Section><Content x:type='ovf:VirtualSystem_Type' id='v'>"
                  b"<Section x:type='ovf:OperatingSystemSection_Type'>"
                  b"<Description>os</Description></Section></Content>"
                  b"</ovf:Envelope>")
    yield "empty", b"<Envelope xmlns='envelope'/>"
    yield "many", (b"<Envelope xmlns='envelope'>" + b"<File id='a' href='b'/>" *
                   200 + b"</Envelope>")
    yield "strange-files", (b"<Envelope xmlns='envelope'><File href='../x'/><File"
                            b" href='/etc/passwd'/><File href='http://h/x'/><File "
                            b"href=''/><File href='a/'/></Envelope>")


def hostile_ovf():
    yield "cut", OVF[:400]
    yield "deep", (b"<Envelope xmlns='envelope'>" + b"<a>" * 65 + b"</a>" * 65 +
                   b"</Envelope>")
    yield "entity", (b"<!DOCTYPE a [<!ENTITY b 'c'>]><Envelope xmlns='envelope'>"
                     b"&b;</Envelope>")
    yield "dtd", (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><Envelope "
                  b"xmlns='envelope'/>")
    yield "nul", b"<Envelope xmlns='envelope'>\0</Envelope>"
    yield "other-root", b"<a xmlns='envelope'><Envelope/></a>"
    yield "too-many", (b"<Envelope xmlns='envelope'>" + b"<Disk/>" * 4097 +
                       b"</Envelope>")
    yield "utf-16", "<Envelope xmlns='envelope'/>".encode("utf-16")


def layer(*entries):
    return b"".join(entries) + END


def saved(manifest, *layers):
    return (b"".join(member(b"%d.tar" % i, one) for i, one in
                     enumerate(layers)) +
            member(b"manifest.json", manifest) + END)


DIGEST = b"ab" * 32
FILES = layer(member(b"d/", kind=b"5"), member(b"d/f", DATA),
              member(b"e"))


def linked(name, target, kind):
    h = bytearray(header(name, kind=kind))
    h[157:157 + len(target)] = target
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def valid_docker():
    yield "files", FILES
    yield "links", layer(member(b"f", DATA), linked(b"h", b"f", b"1"),
                         linked(b"s", b"f", b"2"), linked(b"l", b"x" * 90,
                                                          b"2"))
    yield "devices", layer(member(b"c", kind=b"3"), member(b"b", kind=b"4"),
                           member(b"p", kind=b"6"))
    yield "attributes", layer(pax(record(b"SCHILY.xattr.user.a", b"b"), record(
        b"mtime", b"-1.5"), record(b"uid", b"70000")), member(b"f", DATA))
    yield "sparse", layer(old_sparse([(0, 512), (8000, 256)]))
    yield "saved", saved(b'[{"Layers":["0.tar","1.tar"]}]', FILES, layer(
        member(b"d/.wh.f"), member(b"g", DATA)))
    yield "opaque", saved(b'[{"Layers":["0.tar","1.tar"]}]', FILES, layer(
        member(b"d/.wh..wh..opq"), member(b"d/n", DATA)))
    yield "oci", (member(b"oci-layout", b"{}") + member(
        b"index.json", b'{"manifests":[{"digest":"sha256:%s"}]}' % DIGEST) +
        member(b"blobs/sha256/" + DIGEST, b'{"layers":[{"digest":"sha256:%s"}]}'
               % (b"cd" * 32)) + member(b"blobs/sha256/" + b"cd" * 32, FILES) +
        END)


def hostile_docker():
    yield "climbs", layer(member(b"../f", DATA))
    yield "loop", layer(linked(b"a", b"b", b"2"), linked(b"b", b"a", b"2"),
                        member(b"a/f"))
    yield "link-to-nothing", layer(linked(b"a", b"b", b"1"))
    yield "link-out", layer(linked(b"a", b"../b", b"1"))
    yield "file-as-folder", layer(member(b"f"), member(b"f/g"))
    yield "no-json", saved(b"[")
    yield "no-layer", saved(b'[{"Layers":["x"]}]')
    yield "several", saved(b'[{"RepoTags":["a"],"Layers":[]},'
                           b'{"RepoTags":["b"],"Layers":[]}]')
    yield "index-loop", (member(b"oci-layout") + member(
        b"index.json", b'{"manifests":[{"digest":"sha256:%s"}]}' % DIGEST) +
        member(b"blobs/sha256/" + DIGEST,
               b'{"manifests":[{"digest":"sha256:%s"}]}' % DIGEST) + END)
    yield "digest", member(b"oci-layout") + member(
        b"index.json", b'{"manifests":[{"digest":"sha256:../../x"}]}') + END
    yield "attributes-huge", layer(pax(record(
        b"SCHILY.xattr.user.a", b"b" * 9000)), member(b"f"))


def write(folder, end, valid_ones, hostile_ones):
    os.makedirs(folder, exist_ok=True)
    files = [("valid-" + n, d) for n, d in valid_ones]
    files += [("hostile-" + n, d) for n, d in hostile_ones]
    for name, data in files:
        with open(os.path.join(folder, name + end), "wb") as f:
            f.write(data)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "corpus")
    write(os.path.join(folder, "tar"), ".tar", valid(), hostile())
    write(os.path.join(folder, "ovf"), ".ovf", valid_ovf(), hostile_ovf())
    write(os.path.join(folder, "docker"), ".docker", valid_docker(),
          hostile_docker())


if __name__ == "__main__":
    main()

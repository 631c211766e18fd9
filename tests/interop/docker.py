#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Images of containers served as disks: what the kernel finds in the ext4 file
system is what umoci unpacks of the same layers; e2fsck finds nothing wrong."""

import hashlib
import io
import json
import os
import stat
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import Server, environment, need_programs, run  # noqa: E402
from tar_build import END, member, pax, record  # noqa: E402

PLATTER = None
LONG = "n" * 255


class Layer:
    """A tar of entries, by Python's tarfile."""

    def __init__(self, fmt=tarfile.PAX_FORMAT):
        self.out = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.out, mode="w", format=fmt)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644,
            owner=(0, 0), mtime=1000000000, xattrs=(), device=(0, 0)):
        t = tarfile.TarInfo(name)
        t.type, t.size, t.linkname, t.mode = kind, len(data), link, mode
        t.uid, t.gid = owner
        t.mtime = mtime
        t.devmajor, t.devminor = device
        t.pax_headers = {f"SCHILY.xattr.{k}": v for k, v in dict(
            xattrs).items()}
        self.tar.addfile(t, io.BytesIO(data))

    def folder(self, name, mode=0o755, **more):
        self.add(name, tarfile.DIRTYPE, mode=mode, **more)

    def done(self):
        self.tar.close()
        return self.out.getvalue()


def base():
    one = Layer()
    one.folder("./", mode=0o755, mtime=1234567890)
    for name in ("bin", "etc", "dev", "var", "var/empty", "deep", "opaque",
                 "opaque/sub", "gone", "tofile", "many", "tmp"):
        one.folder(name, mode=0o1777 if name == "tmp" else 0o755)
    one.add("bin/tool", data=b"#!" * 5000, mode=0o4755)
    one.add("bin/link", tarfile.LNKTYPE, link="bin/tool", mode=0o4755)
    one.add("bin/same", tarfile.LNKTYPE, link="./bin/tool", mode=0o4755)
    one.add("etc/empty")
    one.add("etc/byte", data=b"x", owner=(70000, 100000))
    one.add("etc/page", data=b"p" * 4096, mtime=1500000000.25)
    one.add("etc/odd", data=bytes(range(256)) * 5000 + b"odd", mode=0o600)
    one.add("etc/old", data=b"old", mtime=-86400)
    one.add("etc/future", data=b"far", mtime=5000000000)
    one.add("etc/short", tarfile.SYMTYPE, link="../bin/tool", mode=0o777)
    one.add("etc/long", tarfile.SYMTYPE, link="../" * 50 + "bin/tool",
            mode=0o777)
    one.add("etc/sixty", tarfile.SYMTYPE, link="s" * 60, mode=0o777)
    one.add("etc/fifty-nine", tarfile.SYMTYPE, link="s" * 59, mode=0o777)
    one.add("etc/xattr", data=b"a", xattrs={"user.colour": "blue",
                                           "user.big": "b" * 900})
    one.add("dev/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    one.add("dev/disk", tarfile.BLKTYPE, mode=0o660, device=(259, 300))
    one.add("dev/pipe", tarfile.FIFOTYPE)
    one.add("var/" + LONG, data=b"long")
    one.add("var/\u00fcn\u00efc\u00f6de \t'\"", data=b"name")
    one.add("/".join(["deep"] + [f"d{i}" for i in range(60)]) + "/end",
            data=b"deep")
    for name in ("opaque/a", "opaque/sub/b", "gone/file", "tofile/inside",
                 "etc/removed", "etc/changed", "etc/todir"):
        one.add(name, data=name.encode())
    one.add("lib", tarfile.SYMTYPE, link="bin", mode=0o777)
    for i in range(2500):
        one.add(f"many/file-with-a-long-name-{i:05}", data=b"%d" % i)
    return one.done()


def second():
    two = Layer(tarfile.GNU_FORMAT)
    two.add("etc/.wh.removed")
    two.add(".wh.gone")
    two.add("opaque/.wh..wh..opq")
    two.add("opaque/new", data=b"new")
    two.folder("opaque/", mode=0o700)
    two.add("etc/changed", data=b"changed" * 1000, mode=0o640, owner=(5, 6))
    two.add("tofile", data=b"was a folder")
    two.folder("etc/todir")
    two.add("etc/todir/x", data=b"in what was a file")
    two.add("etc/hard", tarfile.LNKTYPE, link="etc/odd", mode=0o600)
    two.folder("var", mode=0o711, owner=(1, 2))
    two.add("implied/way/file", data=b"nobody spoke of its folders")
    two.add("many/.wh.file-with-a-long-name-00007")
    return two.done()


def third(c):
    """By GNU tar: a sparse file, and a name that comes back."""
    folder = c.at("third")
    os.makedirs(os.path.join(folder, "etc"))
    with open(os.path.join(folder, "etc/removed"), "w") as f:
        f.write("again")
    with open(os.path.join(folder, "sparse"), "wb") as f:
        f.truncate(9 << 20)
        for at in (0, 5000, 1 << 20, (4 << 20) - 100, (9 << 20) - 1):
            f.seek(at)
            f.write(b"data at %d" % at if at + 20 < 9 << 20 else b"!")
    out = c.at("third.tar")
    run(["tar", "--sparse", "--format=posix", "--owner=0", "--group=0",
         "-cf", out, "-C", folder, "etc/removed", "sparse"])
    with open(out, "rb") as f:
        return f.read()


def save(path, layers, tags=("test:latest",), images=1):
    """As "docker save" lays it out."""
    names = [f"{i}{hashlib.sha256(data).hexdigest()[:20]}/layer.tar"
             for i, data in enumerate(layers)]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [
            "sha256:" + hashlib.sha256(d).hexdigest() for d in layers]},
        "history": [{"created_by": "test"} for _ in layers]}).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [t.replace("latest", f"v{i}")
                                              if i else t for t in tags],
                 "Layers": names[:len(names) - i]} for i in range(images)]
    t = Layer(tarfile.GNU_FORMAT)
    for n, data in zip(names, layers):
        t.add(n, data=data)
    t.add(name, data=config)
    t.add("manifest.json", data=json.dumps(manifest).encode())
    with open(path, "wb") as f:
        f.write(t.done())


class Context:
    def __init__(self, folder):
        self.folder = folder
        self.layers = [base(), second(), third(self)]
        self.saved = self.at("saved.tar")
        save(self.saved, self.layers)

    def at(self, name):
        return os.path.join(self.folder, name)

    def raw(self, image, *more):
        out = self.at("disk.raw")
        run([PLATTER, "convert", "--quiet", "--overwrite", *more, image, out])
        status, said, _ = run(["e2fsck", "-fn", out], ok=None)
        is_equal(status, 0, f"e2fsck's status: {said}")
        return out


class Mounted:
    def __init__(self, raw, point, options="ro"):
        self.args = ["mount", "-o", f"loop,{options}", raw, point]
        self.point = point
        os.makedirs(point, exist_ok=True)

    def __enter__(self):
        run(self.args)
        return self.point

    def __exit__(self, *unused):
        run(["umount", self.point])


def facts(root):
    """What there is of every name but the root's lost+found."""
    found, inodes = {}, {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            short = os.path.relpath(path, root)
            if short == "lost+found" or (name == "." and folder != root):
                continue
            kind = stat.S_IFMT(st.st_mode)
            fact = [oct(st.st_mode), st.st_uid, st.st_gid,
                    sorted((k, os.getxattr(path, k, follow_symlinks=False))
                           for k in os.listxattr(path, follow_symlinks=False))]
            if kind != stat.S_IFDIR:
                fact += [st.st_mtime_ns, st.st_nlink]
            if kind == stat.S_IFREG:
                with open(path, "rb") as f:
                    fact.append(hashlib.sha256(f.read()).hexdigest())
                inodes.setdefault(st.st_ino, []).append(short)
            elif kind == stat.S_IFLNK:
                fact.append(os.readlink(path))
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                fact.append(st.st_rdev)
            found[short] = fact
    return found, sorted(sorted(i) for i in inodes.values() if len(i) > 1)


def differences(a, b):
    return [(k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b))
            if a.get(k) != b.get(k)][:5]


def unpacked(c, image="saved.tar", name="test:latest"):
    """By skopeo and umoci; their rootfs."""
    bundle = c.at("bundle")
    if not os.path.exists(bundle):
        run(["skopeo", "copy", "-q", "--insecure-policy",
             f"docker-archive:{c.at(image)}:{name}", f"oci:{c.at('oci')}:x"])
        run(["umoci", "unpack", "--image", f"{c.at('oci')}:x", bundle])
    return os.path.join(bundle, "rootfs")


def the_kernel_finds_what_was_unpacked(c):
    want, links = facts(unpacked(c))
    is_true(len(want) > 2500 and links, "umoci unpacked little")
    with Mounted(c.raw(c.saved), c.at("m")) as point:
        got, got_links = facts(point)
    is_equal(differences(got, want), [], "the names and what they are")
    is_equal(got_links, links, "the hard links")


def layouts_of_oci_are_images(c):
    """As skopeo writes them: compressed layers, in a folder and in a tar."""
    want, links = facts(unpacked(c))
    layout = c.at("oci")
    packed = c.at("oci.tar")
    run(["tar", "-cf", packed, "-C", layout, "."])
    run(["gzip", "-1", "-k", "-f", packed])
    run(["zstd", "-q", "-f", c.saved, "-o", c.saved + ".zst"])
    for image in (layout, packed, packed + ".gz", c.saved + ".zst"):
        with Mounted(c.raw(image), c.at("m")) as point:
            got, got_links = facts(point)
        is_equal(differences(got, want), [], f"the names of {image}")
        is_equal(got_links, links, "the hard links")
    # One of another kind of machine is none of ours.
    with open(os.path.join(layout, "index.json")) as f:
        index = json.load(f)
    own = index["manifests"][0]
    for manifests, said in (
            ([dict(own, platform={"os": "linux", "architecture": "s390x"}),
              dict(own, platform={"os": "linux", "architecture": "amd64"})],
             None),
            ([own, dict(own, annotations={
                "org.opencontainers.image.ref.name": "y"})],
             "several images: name one with --member: x, y"),
            ([dict(own, digest="sha256:../../../etc/passwd")],
             "a digest is none"),
            ([dict(own, digest="sha256:" + "0" * 64)], "is missing"),
            ([], "has no images")):
        with open(os.path.join(layout, "index.json"), "w") as f:
            json.dump(dict(index, manifests=manifests), f)
        status, _, err = run([PLATTER, "map", layout], ok=None)
        is_true(status == (1 if said else 0) and (said or "") in err,
                f"{said!r}: {status} {err!r}")
    run([PLATTER, "map", "--member", "x", packed])
    with open(os.path.join(layout, "index.json"), "w") as f:
        json.dump(index, f)


def with_an_overlay_it_can_be_written(c):
    with Server(c.saved, more=["--overlay", "temp"]) as s:
        out = c.at("written.raw")
        run(["qemu-io", "-f", "raw", "-c", "read 0 64k", s.uri()])
        run(["nbdcopy", s.uri(), out])
        with Mounted(out, c.at("m"), "rw") as point:
            with open(os.path.join(point, "etc/new"), "wb") as f:
                f.write(b"n" * 3000000)
            with open(os.path.join(point, "etc/odd"), "ab") as f:
                f.write(b"more")
            os.unlink(os.path.join(point, "etc/page"))
        status, said, _ = run(["e2fsck", "-fn", out], ok=None)
        is_equal(status, 0, f"e2fsck's status: {said}")
        run(["nbdcopy", out, s.uri()])
        run(["nbdcopy", s.uri(), c.at("back.raw")])
        run(["cmp", out, c.at("back.raw")])


def what_is_written_stays(c):
    """In a file that names the image and which disk was made of it."""
    image, top = c.at("lasting.tar"), c.at("top.qcow2")
    save(image, c.layers)
    for write, read in (("write -P 7 1M 64k", "read -P 7 1M 64k"),
                        ("write -P 8 2M 4k", "read -P 7 1M 64k")):
        with Server(image, more=["--overlay", top]) as s:
            run(["qemu-io", "-f", "raw", "-c", write, "-c", read, s.uri()])
    told = json.loads(run([PLATTER, "info", "--json", top])[1])
    is_true(told["backing-filename-format"].startswith("docker:"),
            told["backing-filename-format"])
    # By itself, as by way of the image.
    with Server(image, more=["--overlay", top]) as s:
        run(["nbdcopy", s.uri(), c.at("by-image.raw")])
    run([PLATTER, "convert", "--quiet", "--overwrite", top, c.at("alone.raw")])
    run(["cmp", c.at("by-image.raw"), c.at("alone.raw")])
    made = c.at("made.qcow2")
    run([PLATTER, "create", "--base", image, made])
    run([PLATTER, "convert", "--quiet", "--overwrite", made,
         c.at("alone.raw")])
    run(["cmp", c.raw(image), c.at("alone.raw")])
    # Another image in its place, or the like disk elsewhere in the archive.
    for layers, tags in ((c.layers[:2], ("test:latest",)),
                         ([c.layers[0].replace(b"#!", b"#?"), *c.layers[1:]],
                          ("test:latest",)),
                         ([base(), second(), c.layers[0]], ("a:b", "c:d"))):
        save(image, layers, tags)
        for args in (["serve", "-U", c.at("s"), "--overlay", top, image],
                     ["map", top], ["map", made]):
            status, _, err = run([PLATTER, *args], ok=None)
            is_true(status == 1 and "has become another" in err and
                    err.count("\n") == 1, f"{args}: {status} {err}")
    save(image, c.layers)
    run([PLATTER, "map", top])
    # QEMU knows no format of so long a name.
    told = run(["qemu-img", "info", "--output=json", top])[1]
    is_equal(json.loads(told)["backing-filename-format"], "docker",
             "the format as qemu-img has it")


def a_layout_is_an_overlays_base(c):
    """Named by the file that tells of it."""
    unpacked(c)
    layout, top, made = c.at("oci"), c.at("oci-top.qcow2"), c.at("made-oci")
    for _ in range(2):
        with Server(layout, more=["--overlay", top]) as s:
            run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", s.uri()])
    run([PLATTER, "create", "--base", "oci", made])
    run([PLATTER, "overlay", "rebase", "--base", layout, top])
    for name in (top, made):
        told = json.loads(run([PLATTER, "info", "--json", name])[1])
        is_true(told["backing-filename"].endswith("oci/oci-layout"),
                told["backing-filename"])
        run([PLATTER, "map", name])


def its_size_may_be_said(c):
    image, top = c.at("sized.tar"), c.at("sized.qcow2")
    save(image, c.layers)
    raw = c.at("sized.raw")
    with Server(image, more=["--size", "5G"]) as s:
        run(["nbdcopy", s.uri(), raw])
    is_equal(run(["e2fsck", "-fn", raw], ok=None)[0], 0, "e2fsck's status")
    is_equal(os.path.getsize(raw), 5 << 30, "the disk's size")
    with Mounted(raw, c.at("m")) as point:
        free = os.statvfs(point)
        is_true(free.f_bfree * free.f_frsize > 9 << 29, "there is little room")
    with Server(image, more=["--size", "5G", "--overlay", top]) as s:
        run(["qemu-io", "-f", "raw", "-c", "write -P 7 4G 64k", s.uri()])
    # The overlay knows.
    told = json.loads(run([PLATTER, "info", "--json", top])[1])
    is_equal(told["virtual-size"], 5 << 30, "the overlay's size")
    run([PLATTER, "map", top])
    with Server(raw, fmt="raw", more=["--size", "5G"]) as s:
        is_true("--size is ignored" in s.messages(), s.messages())
    status, _, err = run([PLATTER, "serve", "-U", c.at("s"), "--size", "1M",
                          image], ok=None)
    is_true(status == 1 and "size: the disk cannot have 1048576 bytes" in err,
            err)


def the_same_image_is_the_same_disk(c):
    first = c.raw(c.saved)
    os.rename(first, c.at("first.raw"))
    run(["cmp", c.at("first.raw"), c.raw(c.saved)])
    os.unlink(c.at("first.raw"))


def a_tar_of_all_files_is_an_image(c):
    """As "docker export" writes it; and any archive that is said to be one."""
    folder = unpacked(c)
    path = c.at("export.tar")
    run(["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner",
         "--format=posix", "-cf", path, "-C", folder, "."])
    want, links = facts(folder)
    with Mounted(c.raw(path, "--format", "docker"), c.at("m")) as point:
        got, got_links = facts(point)
    is_equal(differences(got, want), [], "the names and what they are")
    is_equal(got_links, links, "the hard links")
    told = json.loads(run([PLATTER, "info", "--json", c.saved])[1])
    is_equal(told["format"], "docker", "the format that is found")
    t = Layer()
    t.add("etc/passwd", data=b"root")
    with open(path, "wb") as f:
        f.write(t.done())
    told = json.loads(run([PLATTER, "info", "--json", path])[1])
    is_equal(told["format"], "docker", "the format that is found")


def of_several_images_one_is_named(c):
    path = c.at("several.tar")
    save(path, c.layers, images=2)
    status, _, err = run([PLATTER, "map", path], ok=None)
    is_true(status == 1 and "several images: name one with --member: "
            "test:latest, test:v1" in err, err)
    for name, there in (("test:latest", True), ("test:v1", False)):
        with Mounted(c.raw(path, "--member", name), c.at("m")) as point:
            is_equal(os.path.exists(os.path.join(point, "sparse")), there,
                     f"whether {name} has the last layer's file")
    status, _, err = run([PLATTER, "map", "--member", "x", path], ok=None)
    is_true(status == 1 and 'has no image "x"' in err, err)


def what_leads_out_is_refused(c):
    """In one line; nothing of it is made outside."""
    def entry(name, *args, **more):
        def add(t):
            t.add(name, *args, **more)
        return add

    loop = [entry("a", tarfile.SYMTYPE, link="b"),
            entry("b", tarfile.SYMTYPE, link="a"), entry("a/x", data=b"x")]
    for entries, said in (
            ([entry("../out", data=b"x")], "leads out of the archive"),
            ([entry("a/../../out", data=b"x")], "leads out of the archive"),
            ([entry("x", tarfile.LNKTYPE, link="../../etc/passwd")],
             "a link to what lies outside"),
            ([entry("x", tarfile.LNKTYPE, link="gone")], "link to nothing"),
            ([entry("d", tarfile.DIRTYPE),
              entry("x", tarfile.LNKTYPE, link="d")], "link to a folder"),
            (loop, "too many symbolic links"),
            ([entry("f", data=b"x"), entry("f/x", data=b"x")], "no folder"),
            ([entry("n" * 256, data=b"x")], "more than 255 bytes"),
            ([entry("x", data=b"x", xattrs={"user.a": "b" * 5000})],
             "extended attributes"),
            ([entry("x", tarfile.SYMTYPE, link="l" * 4096)],
             "a link of over 4095 bytes"),
            ([entry(f"x{i}", xattrs={"user.a": "b" * 900000})
              for i in range(20)], "bytes of names, links and extended"),
            ([entry("/", data=b"x")], "name of a folder")):
        t = Layer()
        for add in entries:
            add(t)
        path = c.at("evil.tar")
        with open(path, "wb") as f:
            f.write(t.done())
        status, _, err = run([PLATTER, "map", "--format", "docker", path],
                             ok=None)
        is_true(status == 1 and said in err and err.count("\n") == 1,
                f"{said!r}: {status} {err!r}")
    with open(path, "wb") as f:
        f.write(pax(record(b"GNU.sparse.size", b"%d" % (1 << 44)), record(
            b"GNU.sparse.map", b"0,512")) + member(b"f", b"x" * 512) + END)
    status, _, err = run([PLATTER, "map", "--format", "docker", path], ok=None)
    is_true(status == 1 and "over the limit of 16 TiB" in err, err)
    one = bytearray(member(b"f", b"x"))
    one[108:116] = b"nobody\0\0"
    one[148:156] = b" " * 8
    one[148:156] = b"%06o\0 " % sum(one[:512])
    with open(path, "wb") as f:
        f.write(bytes(one) + END)
    status, _, err = run([PLATTER, "map", "--format", "docker", path], ok=None)
    is_true(status == 1 and "owner or time is no number" in err, err)
    # An absolute link leads inside: the root is the image's.
    t = Layer()
    t.add("way", tarfile.SYMTYPE, link="/etc/../../../inside")
    t.folder("inside")
    t.add("way/file", data=b"here")
    path = c.at("inside.tar")
    with open(path, "wb") as f:
        f.write(t.done())
    with Mounted(c.raw(path, "--format", "docker"), c.at("m")) as point:
        with open(os.path.join(point, "inside/file"), "rb") as f:
            is_equal(f.read(), b"here", "what is behind a link")
    for manifest, said in (
            (b"[", "it is no JSON"), (b"[]", "has no images"),
            (b"{}", "has no images"),
            (b'[{"Layers":["gone"]}]', 'has no member "gone"'),
            (b'[{"Layers":[7]}]', "a layer has no name")):
        t = Layer()
        t.add("manifest.json", data=manifest)
        with open(path, "wb") as f:
            f.write(t.done())
        status, _, err = run([PLATTER, "map", path], ok=None)
        is_true(status == 1 and said in err, f"{said!r}: {err!r}")


def too_many_names_are_refused(c):
    one = tarfile.TarInfo("aaaaaa").tobuf(tarfile.USTAR_FORMAT)
    total = sum(one[:148]) + 8 * 32 + sum(one[156:]) - 6 * 97
    layer = io.BytesIO()
    for i in range(1 << 17):
        name = b"%06x" % i
        layer.write(name + one[6:148] + b"%06o\0 " % (total + sum(name)) +
                    one[156:])
    path = c.at("many.tar")
    save(path, [layer.getvalue()])
    status, _, err = run([PLATTER, "map", path], ok=None)
    is_true(status == 1 and "more than 131072 names" in err, err)


def main():
    global PLATTER
    environment("PLATTER")
    need_programs("skopeo", "umoci", "e2fsck", "mount", "tar", "qemu-io",
                  "nbdcopy")
    PLATTER = os.environ["PLATTER"]
    run_checks(Context, [
        the_kernel_finds_what_was_unpacked,
        layouts_of_oci_are_images,
        with_an_overlay_it_can_be_written,
        what_is_written_stays,
        a_layout_is_an_overlays_base,
        its_size_may_be_said,
        the_same_image_is_the_same_disk,
        a_tar_of_all_files_is_an_image,
        of_several_images_one_is_named,
        what_leads_out_is_refused,
        too_many_names_are_refused,
    ])


if __name__ == "__main__":
    main()

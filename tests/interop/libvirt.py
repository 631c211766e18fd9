#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""libvirt's domains on exports: what the manual and docs/migration.md say of it, with
daemons of the test's own, whose guests run as another user. No guest has a system:
it is libvirt and QEMU that are asked."""

import contextlib
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import (Failure, Server, dies_with_us, environment,  # noqa: E402
                    need_programs, run)

MIB = 1 << 20
USER = 64055  # Debian's libvirt-qemu
# libvirt's folders are the daemon's own, and the user is there for it.
DAEMON = """
hostname "$NAME"
for d in run/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt etc/libvirt; do
    mkdir -p /$d
    mount -t tmpfs -o mode=755 libvirt /$d
done
for f in passwd group; do
    grep -v '^libvirt-qemu:' /etc/$f >"$DIR/$f"
done
echo "libvirt-qemu:x:$USER:$USER::/var/lib/libvirt:/usr/sbin/nologin" >>"$DIR/passwd"
echo "libvirt-qemu:x:$USER:" >>"$DIR/group"
for f in passwd group; do
    mount --bind "$DIR/$f" /etc/$f
done
# One that is there and of no use is asked again and again: none is.
if [ -e /dev/kvm ]; then
    : >"$DIR/kvm"
    mount --bind "$DIR/kvm" /dev/kvm
    mount -o remount,bind,ro /dev/kvm
fi
cat >/etc/libvirt/qemu.conf <<END
user = "libvirt-qemu"
group = "libvirt-qemu"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
END
cat >"$DIR/libvirtd.conf" <<END
unix_sock_dir = "$DIR"
auth_unix_rw = "none"
host_uuid = "$UUID"
END
exec libvirtd -f "$DIR/libvirtd.conf" -p "$DIR/pid"
"""
DOMAIN = """<domain type='qemu'>
  <name>{}</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>{}<memballoon model='none'/></devices>
</domain>
"""


class Host:
    """A libvirtd that knows nothing of others."""

    def __init__(self, folder, name):
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        self.uri = ("qemu+unix:///system?socket=" +
                    os.path.join(self.folder, "libvirt-sock"))
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.daemon = subprocess.Popen(
                dies_with_us(["unshare", "-m", "-u", "--propagation",
                              "private", "sh", "-ec", DAEMON]),
                env={"PATH": os.environ["PATH"], "NAME": name,
                     "DIR": self.folder, "USER": str(USER),
                     "UUID": str(uuid.uuid4())},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self):
        until = time.monotonic() + 120
        while self.virsh("version", ok=None)[0]:
            if self.daemon.poll() is not None or time.monotonic() > until:
                with open(os.path.join(self.folder, "log"), "rb") as f:
                    raise Failure(f"no libvirtd: {f.read()[-500:]}")
            time.sleep(0.2)

    def virsh(self, *args, ok=(0,)):
        return run(["virsh", "-q", "-c", self.uri, *args], ok=ok, timeout=200)

    def end(self):
        for name in self.virsh("list", "--name", ok=None)[1].split():
            self.virsh("destroy", name, ok=None)
        self.daemon.terminate()
        self.daemon.wait(60)


class Context:
    def __init__(self, folder):
        self.folder = folder
        os.chmod(folder, 0o711)
        self.one, self.two = Host(folder, "one"), Host(folder, "two")
        self.base = self.path("base.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", self.base, "64M"])
        run(["qemu-io", "-c", "write -P 7 1M 20M", self.base])
        self.one.wait()
        self.two.wait()

    def path(self, name):
        return os.path.join(self.folder, name)

    def end(self):
        self.one.end()
        self.two.end()

    @contextlib.contextmanager
    def served(self, name, image, *more, fmt=None):
        """What has its overlays in folder NAME."""
        os.mkdir(self.path(name))
        with Server(image, fmt=fmt,
                    more=["--overlays", self.path(name), "--control",
                          self.path(name + ".ctl"), "--socket-owner",
                          str(USER), *more]) as s:
            os.chmod(s.folder, 0o711)
            yield s


def source(*parts):
    return os.path.join(os.environ["PLATTER_SOURCE"], *parts)


def read(*parts):
    with open(source(*parts), encoding="utf-8") as f:
        return f.read()


def disk_of_the_manual(export, socket):
    """As it stands there, but for the names."""
    text = re.search(r"^ <disk type='network'.*?^ </disk>$",
                     read("nbd", "platter.pod"), re.M | re.S).group()
    is_true("'+vm1'" in text and "'/run/platter/disks.sock'" in text,
            f"the manual has another disk: {text}")
    return (text.replace("'+vm1'", f"'{export}'")
            .replace("/run/platter/disks.sock", socket))


def begin(c, host, name, disk):
    """Domain @name, as it is kept, runs."""
    xml = c.path(name + ".xml")
    with open(xml, "w", encoding="utf-8") as f:
        f.write(DOMAIN.format(name, disk))
    host.virsh("define", xml)
    host.virsh("start", name)


def disk_in(host, name, *options):
    """Name of the export of domain @name's only disk."""
    text = host.virsh("dumpxml", *options, name)[1]
    return re.search(r"<source protocol='nbd' name='([^']*)'", text).group(1)


def blockcopy(c, host, name, export, socket):
    """By the line of docs/migration.md."""
    line = re.search(r"^    (virsh blockcopy vm1 .*)$",
                     read("docs", "migration.md"), re.M).group(1)
    disk = c.path(name + "-disk.xml")
    with open(disk, "w", encoding="utf-8") as f:
        f.write("<disk type='network' device='disk'>"
                "<driver name='qemu' type='raw'/>"
                f"<source protocol='nbd' name='{export}'>"
                f"<host transport='unix' socket='{socket}'/></source>"
                "<target dev='vda' bus='virtio'/></disk>")
    words = [{"vm1": name, "disk.xml": disk}.get(w, w)
             for w in shlex.split(line)]
    return host.virsh(*words[1:])


def another_user_s_qemu_has_its_disk(c):
    with c.served("mine", c.base) as s:
        begin(c, c.one, "mine", disk_of_the_manual("+vm1", s.socket))
        out = c.one.virsh("domblkinfo", "mine", "vda")[1]
        is_true(re.search(rf"Capacity: +{64 * MIB}\n", out), out)
        with open(f"/proc/{qemu_of('mine')}/status", encoding="ascii") as f:
            is_true(f"Uid:\t{USER}\t" in f.read(), "whose QEMU is it?")
        is_equal(os.stat(s.socket).st_uid, USER, "the socket's owner")
        is_equal(stat.S_IMODE(os.stat(s.socket).st_mode), 0o600, "its mode")
        c.one.virsh("destroy", "mine")


def qemu_of(name):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if f"guest={name},".encode() in f.read():
                    return int(pid)
    raise Failure(f"no QEMU of {name} runs")


def the_domain_of_contrib_boot_starts(c):
    with c.served("streamed", c.base) as s:
        xml = read("contrib", "boot", "libvirt.xml")
        for old, new in (("type='kvm'", "type='qemu'"),
                         ("/run/platter-boot/nbd", s.socket), ("1024", "64")):
            is_equal(xml.count(old), 1, f"times that {old} is there")
            xml = xml.replace(old, new)
        # There is no network here.
        xml = re.sub(r" *<interface.*</interface>\n", "", xml, flags=re.S)
        with open(c.path("streamed.xml"), "w", encoding="utf-8") as f:
            f.write(xml)
        c.one.virsh("create", c.path("streamed.xml"))
        is_equal(disk_in(c.one, "streamed"), "+streamed", "its disk")
        c.one.virsh("destroy", "streamed")


def a_running_guest_leaves_its_vmdk(c):
    vmdk = c.path("disk.vmdk")
    run(["qemu-img", "convert", "-O", "vmdk", c.base, vmdk])
    os.chown(vmdk, USER, USER)
    with open(c.path("empty.raw"), "wb") as f:
        f.truncate(64 * MIB)
    with c.served("left", c.path("empty.raw"), fmt="raw") as s:
        begin(c, c.one, "left",
              "<disk type='file' device='disk'><driver name='qemu' "
              f"type='vmdk'/><source file='{vmdk}'/>"
              "<target dev='vda' bus='virtio'/></disk>")
        pid = qemu_of("left")
        blockcopy(c, c.one, "left", "+left=1", s.socket)
        is_equal(disk_in(c.one, "left"), "+left=1", "its disk")
        is_equal(disk_in(c.one, "left", "--inactive"), "+left=1",
                 "the disk of its next start")
        is_equal(qemu_of("left"), pid, "the QEMU")
        run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", "-U",
             s.uri("+left=1"), vmdk])
        c.one.virsh("destroy", "left")


def a_guest_s_disk_gets_to_another_host(c):
    with c.served("from", c.base) as here, \
            c.served("to", c.base, "--detect", "zeroes,base") as there:
        run(["qemu-io", "-f", "raw", "-c", "write -P 9 30M 1M",
             here.uri("+vm=1")])
        begin(c, c.one, "pushed",
              disk_of_the_manual("+vm=1", here.socket))
        blockcopy(c, c.one, "pushed", "+vm=1", there.socket)
        run(["qemu-img", "compare", "-f", "raw", "-F", "raw", "-U",
             here.uri("+vm=1"), there.uri("+vm=1")])
        c.one.virsh("destroy", "pushed")


def a_guest_is_handed_over(c):
    """By the line that `platter migrate plan` prints."""
    with c.served("shared", c.base) as s:
        begin(c, c.one, "shared", disk_of_the_manual("+vm=1", s.socket))
        there = c.path("there.xml")
        with open(there, "w", encoding="utf-8") as f:
            f.write(c.one.virsh("dumpxml", "--migratable", "shared")[1]
                    .replace("'+vm=1'", "'+vm=2'"))
        line = re.search(r'(virsh migrate [^"]*)"\s*"([^"\\]*)',
                         read("nbd", "cmd", "migrate-plan.c"))
        words = [{"DOMAIN": "shared", "qemu+ssh://HOST/system": c.two.uri,
                  "there.xml": there}.get(w, w)
                 for w in shlex.split(line.group(1) + line.group(2))]
        c.one.virsh(*words[1:], "--migrateuri", "tcp:127.0.0.1",
                    "--listen-address", "127.0.0.1")
        is_equal(c.two.virsh("domstate", "shared")[1].strip(), "running",
                 "the guest at its new place")
        is_equal(c.one.virsh("domstate", "shared")[1].strip(), "shut off",
                 "the guest at the old one")
        is_equal(disk_in(c.two, "shared"), "+vm=2", "its disk")
        c.two.virsh("destroy", "shared")


def main():
    environment("PLATTER", "PLATTER_SOURCE")
    need_programs("virsh", "libvirtd", "qemu-img", "qemu-io",
                  "qemu-system-x86_64", "unshare")
    # Where QEMU's user comes, too.
    tempfile.tempdir = "/tmp"
    contexts = []

    def setup(folder):
        contexts.append(Context(folder))
        return contexts[0]
    try:
        run_checks(setup, [
            another_user_s_qemu_has_its_disk,
            the_domain_of_contrib_boot_starts,
            a_running_guest_leaves_its_vmdk,
            a_guest_s_disk_gets_to_another_host,
            a_guest_is_handed_over,
        ])
    finally:
        for c in contexts:
            c.end()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Debian's packages of this tree: built, judged by lintian, and what is in them is
run. PLATTER_FULL: built as for a release, installed, tried and purged in a chroot,
and in a guest with systemd."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from checks import is_equal, is_true, run_checks  # noqa: E402
from server import (SKIP, Failure, environment, need_programs,  # noqa: E402
                    run, skip)

SOURCE = os.environ.get("PLATTER_SOURCE", "")
FULL = os.environ.get("PLATTER_FULL")
BUILD_SEC = 1500
# In which package a file is.
PLACES = {
    "/usr/bin/platter": "platter",
    "/usr/share/man/man1/platter.1.gz": "platter",
    "/usr/share/man/man1/nbdkit-platter-plugin.1.gz": "platter",
    "/usr/share/bash-completion/completions/platter": "platter",
    "/lib/systemd/system/platter@.service": "platter",
    "/lib/systemd/system/platter@.socket": "platter",
    "/usr/lib/sysusers.d/platter.conf": "platter",
    "/lib/systemd/system/platter.service": "platter-glance",
    "/lib/systemd/system/platter.socket": "platter-glance",
    "nbdkit-platter-plugin.so": "nbdkit-plugin-platter",
}
LOADED = {
    "platter": ["libdeflate0", "libssl3", "libzstd1", "liblzma5", "zlib1g"],
    "nbdkit-plugin-platter": ["libdeflate0", "nbdkit"],
    "platter-glance": ["libcurl4", "libmicrohttpd12", "libsqlite3-0"],
}


class Context:
    """The packages, built once."""

    def __init__(self, folder):
        self.folder = folder
        tree = self.path("platter")
        os.mkdir(tree)
        for name in os.listdir(SOURCE):
            if not name.startswith(("build", ".")):
                copy = shutil.copytree if os.path.isdir(
                    os.path.join(SOURCE, name)) else shutil.copy2
                copy(os.path.join(SOURCE, name), os.path.join(tree, name),
                     **({"symlinks": True} if copy == shutil.copytree else {}))
        options = "nocheck" if FULL else "nocheck noopt"
        p = subprocess.run(
            ["dpkg-buildpackage", "-b", "-us", "-uc", "--no-sign"], cwd=tree,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=BUILD_SEC,
            env={**os.environ, "DEB_BUILD_OPTIONS": options,
                 "DEB_BUILD_PROFILES": "nocheck"})
        if p.returncode:
            raise Failure("it does not build: " + p.stdout[-3000:])
        self.packages = {}
        for name in glob.glob(self.path("*.deb")):
            self.packages[os.path.basename(name).split("_")[0]] = name

    def path(self, name):
        return os.path.join(self.folder, name)

    def all(self):
        return sorted(self.packages.values())


def each_file_is_in_its_package(c):
    want = {"platter", "platter-glance", "nbdkit-plugin-platter",
            "platter-dbgsym", "nbdkit-plugin-platter-dbgsym"}
    is_equal(set(c.packages), want, "what is built")
    found = {}
    for name, package in c.packages.items():
        for line in run(["dpkg-deb", "-c", package])[1].splitlines():
            found[line.split()[5].lstrip(".")] = name
    for path, package in PLACES.items():
        where = [v for k, v in found.items()
                 if k == path or k.endswith("/" + path)]
        is_equal(where, [package], f"where {path} is")


def what_is_loaded_later_is_depended_on(c):
    for package, names in LOADED.items():
        depends = run(["dpkg-deb", "-f", c.packages[package], "Depends"])[1]
        for name in names:
            # As this release calls it: libssl3t64.
            is_true(re.search(rf"\b{name}(t64)?\b", depends),
                    f"{package} does not depend on {name}: {depends}")


def lintian_finds_nothing(c):
    if not shutil.which("lintian"):
        return print("SKIP of lintian: it is not installed")
    status, out, err = run(
        ["lintian", "--allow-root", "--fail-on", "error,warning",
         *glob.glob(c.path("*.changes"))], ok=None)
    is_true(not status and not out.strip(), f"lintian: {out} {err}")


def what_is_inside_runs(c):
    root = c.path("root")
    for package in c.all():
        if "dbgsym" not in package:
            run(["dpkg-deb", "-x", package, root])
    plugin, = glob.glob(root + "/usr/lib/*/nbdkit/plugins/*.so")
    out = run([os.path.join(SOURCE, "debian", "tests", "smoke")],
              env={**os.environ, "PLATTER": root + "/usr/bin/platter",
                   "PLATTER_PLUGIN": plugin})[1]
    is_true("all is well" in out, out)


IN_CHROOT = """
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y install --no-install-recommends {debs} \\
	systemd autopkgtest
getent passwd platter
unset PLATTER PLATTER_PLUGIN
autopkgtest -B /packages/*.deb /packages/source -- null
for u in platter.service platter.socket platter@x.service; do
	test -z "$(systemctl is-enabled $u | grep -x enabled)"
done
apt-get -q -y purge platter platter-glance nbdkit-plugin-platter
! test -e /usr/bin/platter
! ls -d /lib/systemd/system/platter* /etc/systemd/system/*/platter* 2>/dev/null
dpkg -l 'platter*' 'nbdkit-plugin-platter' | grep '^[a-z][^n] ' && exit 1
echo nothing is left
"""


def it_is_installed_and_purged_in_a_chroot(c):
    if not FULL:
        return print("SKIP of the chroot: PLATTER_FULL is not set")
    if not shutil.which("mmdebstrap") or os.getuid():
        return print("SKIP of the chroot: no mmdebstrap, or not root")
    release = next(l.split("=")[1].strip() for l in open("/etc/os-release")
                   if l.startswith("VERSION_CODENAME="))
    debs = [p for p in c.all() if "dbgsym" not in p]
    script = c.path("script")
    with open(script, "w") as f:
        f.write(IN_CHROOT.format(
            debs=" ".join("/packages/" + os.path.basename(d) for d in debs)))
    # Which tests there are, and what they need, is read of these alone.
    source = c.path("source")
    shutil.copytree(os.path.join(SOURCE, "debian"), source + "/debian")
    # The script is run while apt's lists are there, and is the last thing.
    status, out, err = run(
        ["mmdebstrap", "--variant=apt", "--mode=root", "--format=null",
         '--customize-hook=mkdir "$1"/packages',
         f"--customize-hook=copy-in {' '.join(debs)} {script} {source} "
         "/packages",
         '--customize-hook=chroot "$1" sh /packages/script',
         release, "/dev/null"], ok=None, timeout=900)
    out += err
    is_true(not status and re.search(r"^smoke +PASS", out, re.M) and
            "nothing is left" in out, out[-3000:])


def the_units_run_in_a_guest(c):
    if not FULL:
        return print("SKIP of the guest: PLATTER_FULL is not set")
    status, out, err = run(
        [os.path.join(SOURCE, "tests", "guest", "units.sh")],
        ok=(0, SKIP), timeout=900,
        env={**os.environ, "PLATTER_PACKAGES": c.folder,
             "PLATTER": c.path("root/usr/bin/platter")})
    if status == SKIP:
        return print(f"{out.strip()} {err.strip()}")
    is_true("units: all is well" in out, out[-3000:])


if __name__ == "__main__":
    environment("PLATTER_SOURCE")
    need_programs("dpkg-buildpackage", "dh", "qemu-img", "nbdcopy", "nbdkit",
                  "curl")
    if not os.path.exists(os.path.join(SOURCE, "debian", "rules")):
        skip("this is no whole tree")
    run_checks(Context, [
        each_file_is_in_its_package,
        what_is_loaded_later_is_depended_on,
        lintian_finds_nothing,
        what_is_inside_runs,
        it_is_installed_and_purged_in_a_chroot,
        the_units_run_in_a_guest,
    ])

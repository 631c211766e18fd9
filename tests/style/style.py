#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Checks that a compiler does not make. style.py NAME runs one of them.

PLATTER_SOURCE is the tree, PLATTER_BUILD a configured build folder, CC the
compiler. Exit status 77: the tool is not installed.
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

SKIP = 77
ROOMS = ["iouring", "formats", "glance", "nbd"]  # from the lowest upwards
FOLDERS = ROOMS + ["tests", "bench", "contrib", "debian", ".ci"]
# The one place for each.
LIBURING_IN = ("iouring/ring.c", "iouring/later.c")
NBDKIT_IN = "nbd/plugin.c"
# What a folder of a room may include beside its own; "x/" is a folder with all
# below it, "x/*" without. Everything downwards, where there is no line.
FOLDER_MAY = {
    # Bytes to bytes: knows of no layer.
    "formats/codec": ["iouring/", "formats/cursor.h", "iouring/library.h"],
    # What all formats are read through. table.c names the drivers by symbol.
    "formats": ["iouring/", "formats/codec/",
                "formats/containers/container.h",
                "formats/rootfs/docker.h", "formats/streams/stream.h"],
    # A member is a source in a place, whatever is in it.
    "formats/containers": ["iouring/", "formats/codec/", "formats/*",
                           "formats/streams/stream.h"],
    # A file system out of archives: a driver that looks into containers.
    "formats/rootfs": ["iouring/", "formats/codec/", "formats/*",
                       "formats/containers/", "formats/streams/stream.h"],
    # Bytes of a source to those of another, whatever is in them.
    "formats/streams": ["iouring/", "formats/codec/", "formats/*"],
    "formats/drivers": ["iouring/", "formats/codec/", "formats/*"],
    "formats/overlay": ["iouring/", "formats/codec/", "formats/*",
                        "formats/drivers/qcow2.h"],
    # Knows of no images.
    "glance/http": ["iouring/", "formats/codec/", "iouring/library.h",
                    "glance/identity.h", "glance/log.h"],
    "nbd": ["iouring/", "formats/", "glance/"],
    "nbd/server": ["iouring/", "formats/cursor.h", "formats/put-be.h",
                   "nbd/line-budget.h", "nbd/peer-name.h", "nbd/queue.h",
                   "nbd/service.h", "nbd/session.h", "nbd/text.h"],
}
# These name all of what can be added: they stand above it, wherever they are.
REGISTRIES = ["formats/table.c", "glance/routes.c", "nbd/cmd/main.c"]
LINES_MAX = 900  # of a file of the product


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(SKIP)


def need(tool):
    if not shutil.which(tool):
        skip(f"{tool} is not installed")


def tree_files():
    """Paths of the tree's own files, relative to its root."""
    found = [name for name in os.listdir(".") if os.path.isfile(name)]
    for folder in FOLDERS:
        for where, folders, names in os.walk(folder):
            # A corpus holds images; some begin like scripts.
            folders[:] = [f for f in folders
                          if f not in ("__pycache__", "corpus")]
            found += [os.path.join(where, name) for name in names]
    return sorted(found)


def with_ending(*endings):
    return [f for f in tree_files() if f.endswith(endings)]


def first_line(path):
    with open(path, "rb") as f:
        return f.readline().decode(errors="replace")


def scripts(language):
    """Files that say on their first line who runs them, and more by name."""
    ending = {"sh": (".sh", ".bash-completion"), "python": (".py",)}[language]
    pattern = {"sh": r"^#!.*\b(ba|da)?sh\b", "python": r"^#!.*\bpython3?\b"}
    return [f for f in tree_files()
            if f.endswith(ending) or re.match(pattern[language],
                                              first_line(f))]


def run(argv):
    """Runs a tool; its output is shown when it fails."""
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, errors="replace")
    if p.returncode:
        print((p.stdout + p.stderr).strip())
    return p.returncode == 0


def report(bad, checked, what):
    if not checked:
        print(f"no {what} found: the check checks nothing")
        return False
    print(f"{checked - len(bad)} of {checked} {what} are right")
    for line in bad:
        print(f"  {line}")
    return not bad


def check_spdx():
    files = with_ending(".c", ".h", ".py", ".sh", ".pod") + \
        scripts("sh") + scripts("python")
    bad = []
    for path in sorted(set(files)):
        with open(path, errors="replace") as f:
            lines = [f.readline(), f.readline()]
        # Behind "#!" where there is one; POD begins with its own word.
        line = lines[1] if lines[0].startswith("#!") else lines[0]
        if "SPDX-License-Identifier: BSD-3-Clause" not in line:
            bad.append(f"{path}: no SPDX tag on its first line")
    return report(bad, len(set(files)), "files with an SPDX tag")


def check_headers():
    """Each header compiles alone, also twice."""
    cc = shlex.split(os.environ.get("CC", "cc"))
    need(cc[0])
    bad, files = [], [f for f in with_ending(".h")
                      if f.split("/")[0] in ROOMS + ["tests"]]
    # Where libraries do not put their headers in the compiler's own folder.
    cc += shlex.split(subprocess.run(
        ["pkg-config", "--cflags", "libxml-2.0"],
        capture_output=True, text=True).stdout)
    for path in files:
        p = subprocess.run(
            cc + ["-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64",
                  "-Wall", "-Werror", "-I.", "-fsyntax-only", "-x", "c", "-"],
            input=f'#include "{path}"\n#include "{path}"\n',
            capture_output=True, text=True)
        if p.returncode:
            bad.append(f"{path}: {p.stderr.strip()}")
    return report(bad, len(files), "headers")


def included_by(path):
    with open(path, errors="replace") as f:
        for number, line in enumerate(f, 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if m:
                yield number, m.group(1) == '"', m.group(2)


def wrong_include(path, own, name):
    """Why @path may not include @name, or None."""
    room = path.split("/")[0]
    if name == "liburing.h" and room != "tests" and path not in LIBURING_IN:
        return "only %s know liburing" % " and ".join(LIBURING_IN)
    if name == "nbdkit-plugin.h" and path != NBDKIT_IN:
        return f"only {NBDKIT_IN} knows nbdkit"
    if not own:
        return None
    target = name.split("/")[0]
    if "/" not in name or target not in ROOMS + ["tests"]:
        return "names no room"
    if room == "tests":
        return None
    if target == "tests":
        return "the program needs no tests"
    if ROOMS.index(target) > ROOMS.index(room):
        return f"points upwards, from {room}/ to {target}/"
    if not folder_may(os.path.dirname(path), name):
        return f"is not for {os.path.dirname(path)}/"
    if name.startswith("formats/drivers/") and \
            format_of(name) not in (None, format_of(path)):
        return "is another format's header"
    return None


def folder_may(folder, name):
    """May a file in @folder include @name, which is in its room or below?"""
    if os.path.dirname(name) == folder:
        return True
    return folder not in FOLDER_MAY or any(
        name.startswith(may) if may.endswith("/") else
        os.path.dirname(name) == may[:-2] if may.endswith("/*") else
        name == may for may in FOLDER_MAY[folder])


def format_of(path):
    """The format whose own file this is; None: it is for all."""
    m = re.fullmatch(r"formats/(?:drivers|overlay)/(\w+)(-[\w-]+)?\.[ch]", path)
    if m and os.path.exists(f"formats/drivers/{m.group(1)}.c"):
        return m.group(1)
    return None


def check_includes():
    bad, checked = [], 0
    for path in with_ending(".c", ".h"):
        if path.split("/")[0] not in ROOMS + ["tests"]:
            continue
        for number, own, name in included_by(path):
            checked += 1
            why = wrong_include(path, own, name)
            if why:
                bad.append(f'{path}:{number}: "{name}": {why}')
    return report(bad, checked, "includes")


def objects():
    """{source: [object file, ...]} of the product's rooms, as built."""
    build = os.environ.get("PLATTER_BUILD", "")
    commands = os.path.join(build, "compile_commands.json")
    if not os.path.exists(commands):
        skip("no compile_commands.json")
    found = {}
    with open(commands, encoding="utf-8") as f:
        for c in json.load(f):
            source = os.path.relpath(os.path.join(c["directory"], c["file"]))
            if source.split("/")[0] in ROOMS and ".p/" in c["output"]:
                found.setdefault(source, []).append(
                    os.path.join(c["directory"], c["output"]))
    # Tests link some of the product's sources for themselves.
    return {s: kept for s, all_of in found.items()
            if (kept := [o for o in all_of if os.path.exists(o)])}


def symbols_of(files):
    """{source: (what its object files define, what they want)}."""
    source_of = {o: source for source, all_of in files.items() for o in all_of}
    known = {source: (set(), set()) for source in files}
    # All in one run: each would read the debugger's sections once more.
    p = subprocess.run(["nm", "-A", "-P"] + list(source_of),
                       capture_output=True, text=True, check=True)
    for line in p.stdout.splitlines():
        path, name, kind = line.split(" ")[:3]
        has, wants = known[source_of[path.rstrip(":")]]
        if kind == "U":
            wants.add(name)
        elif kind.isupper():
            has.add(name)
    return {s: (has, wants - has) for s, (has, wants) in known.items()}


def components(edges):
    """Strongly connected ones of more than one node (Tarjan)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for to in edges[node]:
            if to not in number:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in stack:
                low[node] = min(low[node], number[to])
        if low[node] == number[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in edges:
        if node not in number:
            visit(node)
    return [sorted(c) for c in found if len(c) > 1]


def check_circles():
    """No file needs, by way of others, a file that needs it."""
    need("nm")
    known = symbols_of(objects())
    owners = {}
    for source, (has, _) in known.items():
        for name in has:
            owners.setdefault(name, set()).add(source)
    edges = {source: {} for source in known}
    for source, (_, wants) in known.items():
        for name in wants if source not in REGISTRIES else ():
            for to in owners.get(name, ()):
                edges[source].setdefault(to, []).append(name)
    bad = [f"no such registry: {r}" for r in REGISTRIES if r not in known]
    for circle in components(edges):
        bad.append(f"a circle: {' '.join(circle)}")
        bad += [f"  {a} -> {b}: {' '.join(sorted(names))}" for a in circle
                for b, names in sorted(edges[a].items()) if b in circle]
    return report(bad, len(known), "object files in no circle")


def check_length():
    files = [f for f in with_ending(".c", ".h") if f.split("/")[0] in ROOMS]
    bad = []
    for path in files:
        with open(path, encoding="utf-8") as f:
            n = sum(1 for _ in f)
        if n > LINES_MAX:
            bad.append(f"{path}: {n} lines, {LINES_MAX} are enough")
    return report(bad, len(files), "files of a length that can be read")


def check_clang_format():
    need("clang-format")
    files = with_ending(".c", ".h")
    p = subprocess.run(["clang-format", "--dry-run", "-Werror"] + files,
                       capture_output=True, text=True)
    found = re.findall(r"^(\S+):\d+:\d+: error: ", p.stderr, re.M)
    bad = [f"{path}: {found.count(path)} places; clang-format -i {path}"
           for path in sorted(set(found))]
    if p.returncode and not bad:
        bad = [p.stderr.strip()]
    return report(bad, len(files), "files formatted by .clang-format")


def check_clang_tidy():
    need("clang-tidy")
    build = os.environ.get("PLATTER_BUILD", "")
    if not os.path.exists(os.path.join(build, "compile_commands.json")):
        skip("no compile_commands.json")
    with open(os.path.join(build, "compile_commands.json")) as f:
        built = {os.path.realpath(os.path.join(c["directory"], c["file"]))
                 for c in json.load(f)}
    files = [f for f in with_ending(".c")
             if f.split("/")[0] in ROOMS and os.path.realpath(f) in built]
    if not os.environ.get("PLATTER_FULL"):
        # Three seconds a file: a sixth of them, others each time.
        seed = int(os.environ.get("PLATTER_SEED") or time.time())
        print(f"a sixth of {len(files)} files, drawn by PLATTER_SEED={seed}; "
              "all of them with PLATTER_FULL=1")
        files = random.Random(seed).sample(files, (len(files) + 5) // 6)
    bad = []
    for path in files:
        # One at a time: what it learns of one file, it misjudges the next by.
        p = subprocess.run(["clang-tidy", "--quiet", "-p", build, path],
                           stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, errors="replace")
        found = [line for line in p.stdout.splitlines()
                 if re.search(r":\d+: (error|warning): ", line)
                 and "unknown warning option" not in line]
        if found or p.returncode < 0:
            bad.append(path)
            print("\n".join(found))
    return report(bad, len(files), "files clean to clang-tidy")


def check_cppcheck():
    need("cppcheck")
    files = [f for f in with_ending(".c") if f.split("/")[0] in ROOMS]
    ok = run(["cppcheck", "--quiet", "--error-exitcode=1",
              "--enable=warning,portability", "--inline-suppr",
              "--suppress=missingInclude",
              # These do not follow a pointer by which a callee fills in
              # what it is given; compilers and valgrind do.
              "--suppress=uninitvar", "--suppress=ctuuninitvar",
              "--suppress=uninitdata",
              # Takes a call in between for one without effect.
              "--suppress=identicalInnerCondition",
              "--std=c11", "-I.",
              # jansson's header is not seen: these are loops.
              "-Djson_object_foreach(o,k,v)=while(next(o,&k,&v))",
              "-Djson_array_foreach(a,i,v)=while(next(a,&i,&v))",
              "-D_GNU_SOURCE", "-D__GNUC__", "-DSYS_openat2=437"] + files)
    return report([] if ok else ["see above"], len(files),
                  "files clean to cppcheck")


def check_shellcheck():
    need("shellcheck")
    files = scripts("sh")
    bad = [f for f in files if not run(["shellcheck", "-x", f])]
    return report(bad, len(files), "shell scripts")


def check_podchecker():
    need("podchecker")
    files = with_ending(".pod")
    bad = [f for f in files if not run(["podchecker", "-warnings",
                                        "-warnings", f])]
    return report(bad, len(files), "manual pages")


def check_python():
    bad, files = [], scripts("python")
    for path in files:
        with open(path, encoding="utf-8") as f:
            try:
                compile(f.read(), path, "exec")
            except (SyntaxError, UnicodeDecodeError) as e:
                bad.append(f"{path}: {e}")
    return report(bad, len(files), "Python files")


def string_macros(text):
    """#defines that are strings put together, by name."""
    macros, lines = {}, re.findall(
        r'^#define (\w+)[ \t]+((?:"[^"]*"|\w+)(?:[ \t]+(?:"[^"]*"|\w+))*)$',
        text, re.M)
    for name, value in lines:
        macros[name] = value
    return macros


def expand(text, macros):
    """"..." and names of macros, one after the other, as one string; None: it
    is something else."""
    parts = []
    for string, name in re.findall(r'"([^"]*)"|(\w+)', text):
        if name and name not in macros:
            return None
        parts.append(expand(macros[name], macros) if name else string)
    return "".join(p or "" for p in parts)


# In tenths, as systemd counts: 2 is what a service has that may use the
# network and read the machine's files.
EXPOSURE_MAX = 18
# One that configures the kernel's devices is root, with what goes with it.
EXPOSURE_AS_ROOT = {"platter-attach@.service": 35}


def exposed(unit):
    most = EXPOSURE_AS_ROOT.get(os.path.basename(unit), EXPOSURE_MAX)
    p = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager",
         f"--threshold={most}", unit], capture_output=True, text=True)
    if not p.returncode:
        return []
    said = [line for line in (p.stdout + p.stderr).split("\n")
            if line.startswith("\u2717") or "exposure" in line.lower()]
    return [f"{os.path.basename(unit)}: {line}" for line in said or [
        p.stderr.strip()]]


def check_systemd():
    """What systemd says of the units, were they installed, and of how much a
    fault in the services could reach."""
    need("systemd-analyze")
    folder = "contrib/systemd"
    names = sorted(n for n in os.listdir(folder)
                   if not n.endswith(".sysusers"))
    bad = []
    with tempfile.TemporaryDirectory() as units:
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                # What is run need only be there.
                text = re.sub(r"@(nbdkit|platter|plugin)@", "/bin/true",
                              f.read())
            with open(os.path.join(units, name.removesuffix(".in")), "w",
                      encoding="utf-8") as f:
                f.write(text)
        for name in sorted(os.listdir(units)):
            p = subprocess.run(
                ["systemd-analyze", "verify", "--man=no",
                 os.path.join(units, name)],
                env=dict(os.environ, SYSTEMD_UNIT_PATH=units + ":"),
                capture_output=True, text=True)
            # Of others' units that are none of ours it speaks, too.
            said = [line for line in p.stderr.split("\n") if "platter" in line]
            bad += [f"{name}: {line}" for line in said]
            if p.returncode and not said:
                bad.append(f"{name}: {p.stderr.strip()}")
            if name.endswith(".service"):
                bad += exposed(os.path.join(units, name))
    p = subprocess.run(
        ["systemd-sysusers", "--dry-run",
         os.path.abspath(os.path.join(folder, "platter.sysusers"))],
        capture_output=True, text=True)
    if p.returncode or ".sysusers" in p.stderr:
        bad.append(f"platter.sysusers: {p.stderr.strip()}")
    return report(bad, len(names), "units")


def routes_of(text, shared):
    """{"GET /v2/images", ...} that the tables in a C source have; @shared:
    macros of headers."""
    text = text.replace("\\\n", " ")
    macros = shared | string_macros(text)
    common = re.search(r"#define COMMON\(root\)(.*)", text)
    found = []
    row = r"\{\s*HTTP_(\w+),\s*([^,]+),"
    for root in re.findall(r"^\s*COMMON\((.*?)\)", text, re.M):
        found += [(m, expand(p, dict(macros, root=root)))
                  for m, p in re.findall(row, common.group(1))]
    text = re.sub(r"#define COMMON\(root\).*", "", text)
    found += [(m, expand(p, macros)) for m, p in re.findall(row, text)]
    return {f"{m} {p}" for m, p in found if p}


def row_is_tested(request, test):
    """The test is there, is run, and its file asks for what the row says."""
    name, _, sentence = test.partition(": ")
    try:
        with open(os.path.join("tests/interop", name), encoding="utf-8") as f:
            text = f.read()
    except OSError:
        return False
    method, path = request.split()
    words = [w for w in path.split("/") if w and w != "{}"]
    return (len(re.findall(rf"\b{sentence.replace(' ', '_')}\b", text)) > 1
            and all(w in text for w in words)
            and (f'"{method}"' in text or "c.images." in text))


def check_api():
    routes, shared = set(), {}
    for path in with_ending(".h") + with_ending(".c"):
        if path.startswith("glance/"):
            with open(path, encoding="utf-8") as f:
                text = f.read()
            if path.endswith(".h"):
                shared |= string_macros(text)
            else:
                routes |= routes_of(text, shared)
    with open("glance/API.md", encoding="utf-8") as f:
        requests = f.read().split("\n## What a Glance answers")[0]
    rows = re.findall(r"^\| `(\w+ \S+)` \|.*\| (\S.*) \|$", requests, re.M)
    have = {request for request, _ in rows}
    bad = [f"{r} is not in glance/API.md" for r in sorted(routes - have)]
    bad += [f"{r} is in glance/API.md, but in no table of routes"
            for r in sorted(have - routes)]
    bad += [f"{r}: {t}: no such test of it" for r, t in rows
            if not row_is_tested(r, t)]
    bad += [] if len(have) == len(rows) else ["a request is there twice"]
    return report(bad, len(rows), "requests")


# A parameter of old that is taken and told of, and not described.
PARAMETERS_OLD = {"spare"}


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def names(what):
    """What the command that was built knows, see cmd-names.c."""
    platter = os.environ.get("PLATTER", "")
    if not os.path.exists(platter):
        skip("PLATTER is not built")
    return set(subprocess.run([platter, "names", what], capture_output=True,
                              text=True, check=True).stdout.split())


def check_names():
    """Manuals, help and README name what the code does, and nothing else."""
    bad, checked = [], 0

    def compare(where, has, wanted, more=()):
        nonlocal checked
        checked += len(wanted)
        bad.extend(f"{where}: there is no {n}" for n in sorted(wanted - has))
        bad.extend(f"{where}: {n} is not in the code"
                   for n in sorted(set(more) - wanted))

    formats, verbs = names("formats"), names("verbs")
    parameters = names("parameters") - PARAMETERS_OLD
    plugin, command = (read(f"nbd/{page}.pod") for page in
                       ("nbdkit-platter-plugin", "platter"))
    listed = re.search(r"^=over(.*?)^=back", plugin, re.M | re.S)
    items = {f for line in re.findall(r"^=item (.*)$", listed.group(1), re.M)
             for f in re.findall(r"B<(\w+)>", line)}
    compare("the plugin's manual, its first list", items, formats, items)
    compare("the plugin's manual", set(re.findall(r"B<([\w-]+)=", plugin)),
            parameters, re.findall(r"^=item B<([\w-]+)=", plugin, re.M))
    told = set(re.findall(r'(?:^\t"|, )([\w-]+)=', read("nbd/config.c"),
                          re.M))
    compare("config_help", told, parameters)
    heads = set(re.findall(r"^=head2 platter (\w+)$", command, re.M))
    compare("platter's manual", heads, verbs, heads)
    cases = set(re.findall(r"^\t(\w+)\)$",
                           read("contrib/platter.bash-completion"), re.M))
    compare("the completion", cases - {"0"}, verbs - {"info"})
    readme = read("README.md").split("<!-- what tests/lib/")[0]
    rows = {f for row in re.findall(r"^\| ([\w, ]+) \|", readme, re.M)
            for f in row.split(", ")}
    compare("README's first table", rows, formats)
    return report(bad, checked, "names")


def check_support():
    """docs/formats.md is what the tests of tests/diff compare."""
    return run([sys.executable, "tests/lib/support.py", "--check"])


def main():
    checks = {name[6:].replace("_", "-"): fn for name, fn in
              globals().items() if name.startswith("check_")}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit(f"usage: style.py {'|'.join(sorted(checks))}")
    os.chdir(os.environ.get("PLATTER_SOURCE") or
             os.path.join(os.path.dirname(__file__), "../.."))
    sys.exit(0 if checks[sys.argv[1]]() else 1)


if __name__ == "__main__":
    main()

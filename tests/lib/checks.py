# SPDX-License-Identifier: BSD-3-Clause
"""Checks whose names are sentences, run one after the other."""

import sys
import tempfile
import traceback

from server import Failure


def is_true(what, message):
    if not what:
        raise Failure(message)


def is_equal(got, want, what):
    if got != want:
        raise Failure(f"{what} is {got!r}, {want!r} was expected")


def run_checks(setup, checks):
    """setup(folder) gives what each check is called with. Exit status 1 when
    one failed; all are run."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="platter-interop-") as folder:
        context = setup(folder)
        for check in checks:
            name = check.__name__.replace("_", " ")
            try:
                check(context)
                print(f"ok: {name}", flush=True)
            except Failure as e:
                failed += 1
                print(f"not ok: {name}: {e}", flush=True)
            except Exception:
                failed += 1
                print(f"not ok: {name}: {traceback.format_exc()}",
                      flush=True)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    sys.exit(1 if failed else 0)

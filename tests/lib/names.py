#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""names.py: the formats that formats/table.c has, one a line, but for raw. What
the built command knows says `platter names formats`."""

import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def formats():
    with open(os.path.join(ROOT, "formats/table.c"), encoding="utf-8") as f:
        found = re.findall(r"^extern const struct format_ops (\w+)_format;",
                           f.read(), re.M)
    return sorted(set(found) - {"raw"})


if __name__ == "__main__":
    print("\n".join(formats()))

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What Glance 25.1 answers to whom: its own rules (glance/policies/image.py,
with enforce_secure_rbac), judged by the library that it uses, oslo.policy, and
the rules that its database adds (glance/db, is_image_visible).

Rules are here as Glance has them, as few machines have Glance; where it is
installed, they are compared with its own. Keystone brings oslo.policy, for
Debian's own Python.
"""

import json
import os
import subprocess
import sys

PYTHON = "/usr/bin/python3"

_OWN_OR_SEEN = ("(project_id:%(project_id)s or project_id:%(member_id)s or "
                "'community':%(visibility)s or 'public':%(visibility)s or "
                "'shared':%(visibility)s)")
_MEMBER = "role:admin or (role:member and project_id:%(project_id)s)"
RULES = {
    "get_image": f"role:admin or (role:reader and {_OWN_OR_SEEN})",
    "download_image": f"role:admin or (role:member and {_OWN_OR_SEEN})",
    "add_image": "role:admin or (role:member and project_id:%(project_id)s "
                 "and project_id:%(owner)s)",
    "modify_image": _MEMBER,
    "delete_image": _MEMBER,
    "upload_image": _MEMBER,
    "publicize_image": "role:admin",
    "deactivate": _MEMBER,
    "reactivate": _MEMBER,
    "add_member": _MEMBER,
}
# Keystone's: who has one has those behind it.
IMPLIED = {"admin": ["admin", "member", "reader"],
           "member": ["member", "reader"], "reader": ["reader"]}


class Who:
    def __init__(self, project, role):
        self.project, self.role = project, role


class What:
    def __init__(self, owner, visibility, members=()):
        self.owner, self.visibility = owner, visibility
        self.members = members


def is_visible(who, what):
    """glance/db: whom an image is there for at all."""
    return (who.role == "admin" or who.project == what.owner or
            what.visibility in ("public", "community") or
            (what.visibility == "shared" and who.project in what.members))


def ask(questions):
    """[(rule, Who, What)] -> [bool]"""
    text = json.dumps([
        [rule, {"roles": IMPLIED[who.role], "project_id": who.project},
         {"project_id": what.owner, "owner": what.owner,
          "visibility": what.visibility}] for rule, who, what in questions])
    p = subprocess.run([PYTHON, __file__], input=text, text=True,
                       capture_output=True, timeout=120)
    if p.returncode:
        raise RuntimeError(f"oslo.policy: {p.stderr.strip()[-500:]}")
    return json.loads(p.stdout)


def _compare_with_glance():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path = [p for p in sys.path if os.path.abspath(p) != here]
    try:
        from glance.policies import image
    except ImportError:
        return
    theirs = {r.name: r.check_str for r in image.list_rules()}
    for name, text in RULES.items():
        if theirs[name] != text:
            sys.exit(f"Glance's rule {name} is {theirs[name]!r}")


def main():
    from oslo_policy import _parser
    _compare_with_glance()
    rules = {name: _parser.parse_rule(text) for name, text in RULES.items()}
    print(json.dumps([bool(rules[name](target, creds, None, name))
                      for name, creds, target in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()

"""The rights that docs/operations.md lists, as ``kubectl auth can-i --list`` names them."""

from __future__ import annotations

import re

from deploy.devnode.rootfs import REPOSITORY

ROW = re.compile(
    r"^\| `(snap-\w+)` \| (?:cluster|own namespace) \| `([^`]+)` \| ([^|]+) \|", re.MULTILINE
)


def documented(account: str) -> set[tuple[str, str]]:
    """What ``account`` may do: (resource and name, verb)."""
    text = (REPOSITORY / "docs/operations.md").read_text()
    return {
        (_as_listed(what), verb.strip())
        for whose, what, verbs in ROW.findall(text)
        if whose == account
        for verb in verbs.split(",")
    }


def _as_listed(what: str) -> str:
    resource, _, name = what.partition(" ")
    group, _, plain = resource.partition("/")
    listed = f"{plain}.{group}" if "." in group else resource
    return f"{listed} {name}".strip()

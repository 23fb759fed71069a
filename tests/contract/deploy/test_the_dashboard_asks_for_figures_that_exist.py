"""Every figure in the dashboard is one that the control plane exposes."""

from __future__ import annotations

import json
import re

from deploy.devnode.rootfs import REPOSITORY

SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


def _declared() -> set[str]:
    """Names of the collectors in the control plane's source."""
    text = "".join(path.read_text() for path in (REPOSITORY / "controlplane").rglob("*.py"))
    return set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(snap_\w+)"', text))


def test_every_figure_exists() -> None:
    path = REPOSITORY / "deploy/helm/snap/files/dashboard.json"
    asked = {
        SUFFIX.sub("", name)
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"snap_\w+", target["expr"])
    }
    assert asked
    assert asked <= _declared()

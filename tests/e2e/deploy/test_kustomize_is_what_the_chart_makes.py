"""One source: the plain manifests are what the chart makes of its defaults."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.helm import rendering

pytestmark = pytest.mark.cluster


def test_the_checked_in_files_are_up_to_date() -> None:
    for name, text in rendering.files(print).items():
        assert (rendering.KUSTOMIZE / name).read_text() == text, f"{name}: run ./dev manifests"


def test_both_ways_install_the_same_objects() -> None:
    charted = [d.parsed for d in rendering.template(print) if not d.is_hook]
    plain = rendering.kustomized(print, rendering.KUSTOMIZE / "base")
    # the namespace is Helm's --create-namespace; the Secret is the operator's own with kustomize
    ours = {_key(one): _normal(one) for one in charted if one["kind"] != "Secret"}
    theirs = {_key(one): _normal(one) for one in plain if one["kind"] != "Namespace"}
    assert ours == theirs


def _key(found: dict[str, Any]) -> tuple[str, str]:
    return found["kind"], found["metadata"]["name"]


def _normal(found: dict[str, Any]) -> dict[str, Any]:
    """Without what names the tool that installs it."""
    labels = found["metadata"].get("labels", {})
    own = {"managed-by", "instance", "version"}
    kept = {
        name: value
        for name, value in labels.items()
        if not name.startswith("helm.sh/") and name.removeprefix("app.kubernetes.io/") not in own
    }
    annotations = {
        name: value
        for name, value in (found["metadata"].get("annotations") or {}).items()
        if not name.startswith("helm.sh/")
    }
    metadata = {k: v for k, v in found["metadata"].items() if k not in {"labels", "annotations"}}
    return found | {"metadata": metadata | {"labels": kept, "annotations": annotations}}

"""``config.json`` as containerd and CRI-O write it: container or sandbox, its name, and the image it asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.restore import asking, criu_options
from agent.restore.asking import Asker

IMAGE = "r/x@sha256:" + "1" * 64
CONTAINERD = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-id": "s1",
}
CRIO = {
    "io.kubernetes.cri-o.ContainerType": "container",
    "io.kubernetes.container.name": "app",
    "io.kubernetes.cri-o.SandboxID": "s1",
    "io.kubernetes.container.restartCount": "2",
}


def read(folder: Path, annotations: dict[str, Any], image: str = "") -> Asker | None:
    named = image or json.dumps({"app": IMAGE})
    annotations = {"snap.weaversoft.io/checkpoint": named, **annotations}
    (folder / "config.json").write_text(json.dumps({"annotations": annotations}))
    return asking.read(folder / "config.json")


@pytest.mark.parametrize(
    ("annotations", "attempt"),
    [pytest.param(CONTAINERD, None, id="containerd"), pytest.param(CRIO, 2, id="CRI-O")],
)
def test_a_container(tmp_path: Path, annotations: dict[str, str], attempt: int | None) -> None:
    asker = read(tmp_path, annotations)
    assert asker
    assert (asker.container_name, asker.sandbox_id, asker.image) == ("app", "s1", IMAGE)
    assert asker.attempt == attempt
    assert not asker.again


def test_a_sandbox_asks_for_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {**CONTAINERD, "io.kubernetes.cri.container-type": "sandbox"}) is None
    assert read(tmp_path, {**CRIO, "io.kubernetes.cri-o.ContainerType": "sandbox"}) is None


def test_a_pod_on_crio_can_not_pass_for_one_of_containerd(tmp_path: Path) -> None:
    spoofed = {**CONTAINERD, **CRIO, "io.kubernetes.cri.sandbox-id": "another"}
    asker = read(tmp_path, spoofed)
    assert asker
    assert asker.sandbox_id == "s1"


def test_another_container_of_the_pod_is_not_meant(tmp_path: Path) -> None:
    asker = read(tmp_path, CONTAINERD, json.dumps({"other": IMAGE}))
    assert asker
    assert asker.image == ""


@pytest.mark.parametrize("annotation", ["sha256:1", "[]", '{"app": 1}'])
def test_a_malformed_annotation_is_said(tmp_path: Path, annotation: str) -> None:
    with pytest.raises(ValueError, match="must be JSON"):
        read(tmp_path, CONTAINERD, annotation)


def test_of_a_dumps_options_only_harmless_ones_are_used() -> None:
    dumped = "tcp-close\nghost-limit 64M\naction-script /x\nexec-cmd\nlib /x\ntcp-close;id\n"
    binds = {"/run/.containerenv": "/empty", "/a b": "/x", "/c": "/y\naction-script /z"}
    text = criu_options.for_restore(dumped, binds)
    assert text.splitlines() == [
        "tcp-close",
        "ghost-limit 64M",
        "external mnt[/run/.containerenv]:/empty",
        "leave-stopped",
    ]

"""The Go that builds the cluster's programs is the machine's if it is new enough, else Debian's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deploy.devcluster import toolchain
from deploy.devnode import rootfs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian's tree as if it had been made before, in a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = json.dumps([rootfs.SUITE, *toolchain.PACKAGES]).encode()
    made = tmp_path / f"cache/snap-dev/build-{hashlib.sha256(recipe).hexdigest()[:12]}"
    made.mkdir(parents=True)
    return made


def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> Path:
    """A machine whose Go says this of its version; empty: it has none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if told:
        go = folder / "go"
        go.write_text(f"#!/bin/sh\necho '{told}'\n")
        go.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(
    "told",
    ["", "go version go1.19.8 linux/amd64", "go version go1.25.9 linux/amd64", "no Go at all"],
    ids=["none", "Debian 12's", "a bit too old", "something else"],
)
def test_debians_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path, told: str
) -> None:
    _machine(tmp_path, monkeypatch, told)
    said: list[str] = []
    go = toolchain.find(said.append)
    assert str(tree) in go.argv
    assert "chroot" in " ".join(go.argv)
    assert said == ["no Go 1.26 or later on this machine: using Debian's"]


@pytest.mark.parametrize("version", ["1.26.0", "1.27rc1", "2.0"])
def test_the_machines_own_is_taken_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path, version: str
) -> None:
    folder = _machine(tmp_path, monkeypatch, f"go version go{version} linux/amd64")
    said: list[str] = []
    go = toolchain.find(said.append)
    assert go.argv[-1] == str(folder / "go")
    assert said == []

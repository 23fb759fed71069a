"""The node's file system below /host: its links mean its own paths, not the pod's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.runtimes.commands import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node's root with the links that nodes have."""
    for folder in ("run/containerd", "data/kubelet/pods", "var/lib", "proc/1/root", "etc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "var/lib/kubelet").symlink_to("/mnt/kubelet")
    (tmp_path / "mnt").symlink_to("/data")
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    (tmp_path / "loop").symlink_to("/loop")
    return Host(tmp_path, ("nsenter",))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("/run/containerd", "run/containerd"),
        ("/var/run/containerd", "run/containerd"),
        ("/var/lib/kubelet/pods/x", "data/kubelet/pods/x"),
        ("/etc/os-release", "etc/os-release"),
        ("/proc/1/root/etc", "proc/1/root/etc"),
        ("/var/run", "var/run"),
        ("/", ""),
    ],
)
def test_links_on_the_way_are_the_nodes(host: Host, asked: str, found: str) -> None:
    assert host.path(asked) == host.root / found


def test_a_circle_ends(host: Host) -> None:
    with pytest.raises(OSError, match=r"loop|Too many"):
        host.path("/loop/x").read_text()


def test_on_the_node_itself_nothing_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nowhere")
    assert Host().path(tmp_path / "link" / "x") == tmp_path / "link" / "x"
    assert os.fspath(Host().path("/a//b")) == "/a/b"

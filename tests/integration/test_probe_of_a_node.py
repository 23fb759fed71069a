"""``snap-agent probe`` on a real node, and without a container runtime."""

from __future__ import annotations

import json

import pytest

from deploy.devnode.node import Node

pytestmark = pytest.mark.node


def test_a_node_that_has_everything_is_ready(node1: Node) -> None:
    done = node1.run(["python3", "-m", "agent", "probe", "--json"])
    told = json.loads(done.stdout)
    assert told["ready"] is True
    facts = told["facts"]
    assert facts["runtime"] == "containerd"
    assert facts["engines"] == ["runc", "cri"]
    assert "runtime" in facts["restore_drivers"]
    assert facts["criu_version"].startswith("4.")
    assert facts["runc_version"].startswith("1.")


def test_the_table_is_for_people(node1: Node) -> None:
    lines = node1.run(["python3", "-m", "agent", "probe"]).stdout.splitlines()
    assert lines[0] == f"Node {node1.name}: ready"
    assert any(line.split()[:2] == ["Checkpoint", "engines"] for line in lines)


def test_a_node_without_its_runtime_is_not_ready_and_says_what_to_do(node1: Node) -> None:
    argv = ["env", "SNAP_CRI_ENDPOINT=unix:///run/none.sock", "python3", "-m", "agent", "probe"]
    done = node1.run(argv, check=False)
    assert done.returncode == 1
    assert "RuntimeUnavailable" in done.stdout
    assert "SNAP_CRI_ENDPOINT" in done.stdout

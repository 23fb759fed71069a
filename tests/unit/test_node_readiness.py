"""What follows from a node's facts: engines, drivers, and what is missing with its remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.node import readiness, table
from agent.node.facts import NodeFacts, Vitals
from agent.node.readiness import Findings

FACTS = NodeFacts(
    runtime="containerd",
    runtime_version="2.1.9+unknown",
    oci_runtime="runc",
    oci_runtime_version="1.3.6+ds1",
    criu_version="4.2.1",
)
FOUND = Findings("", "", ("runc", "snap"), wrapper=True, is_root=True)


def test_a_prepared_node_is_ready_for_everything() -> None:
    found = readiness.judge(FACTS, FOUND)
    assert found.ready
    assert found.reasons == ()
    assert found.facts.engines == ("runc", "cri")
    assert found.facts.restore_drivers == ("runtime", "image")


@pytest.mark.parametrize(
    ("facts", "found", "code"),
    [
        (FACTS, replace(FOUND, is_root=False), "NotRoot"),
        (FACTS, replace(FOUND, runtime_problem="It is away."), "RuntimeUnavailable"),
        (replace(FACTS, criu_version=""), FOUND, "CriuMissing"),
        (FACTS, replace(FOUND, criu_problem="one\nno ptrace"), "CriuUnusable"),
        (replace(FACTS, oci_runtime_version=""), FOUND, "OciRuntimeMissing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_needed_makes_the_node_not_ready(
    facts: NodeFacts, found: Findings, code: str
) -> None:
    judged = readiness.judge(facts, found)
    assert not judged.ready
    assert [reason.code for reason in judged.reasons if reason.blocking] == [code]
    assert all(reason.remedy for reason in judged.reasons)


@pytest.mark.parametrize(
    ("facts", "found", "code", "drivers"),
    [
        (FACTS, replace(FOUND, handlers=("runc",)), "HandlerMissing", ("image",)),
        (FACTS, replace(FOUND, wrapper=False), "WrapperMissing", ("image",)),
        (replace(FACTS, criu_version="3.17"), FOUND, "CriuOld", ("runtime", "image")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_limits_leaves_the_node_ready(
    facts: NodeFacts, found: Findings, code: str, drivers: tuple[str, ...]
) -> None:
    judged = readiness.judge(facts, found)
    assert judged.ready
    assert [reason.code for reason in judged.reasons] == [code]
    assert judged.facts.restore_drivers == drivers


@pytest.mark.parametrize(
    ("version", "drivers"),
    [
        ("1.7.24", ("runtime",)),
        ("2.1.0", ("runtime", "image")),
        ("2.2.7", ("runtime",)),
        ("2.3.3", ("runtime", "image")),
        ("2.3.4", ("runtime",)),
        ("2.4.2", ("runtime",)),
    ],
)
def test_containerds_own_restore_depends_on_its_version(
    version: str, drivers: tuple[str, ...]
) -> None:
    judged = readiness.judge(replace(FACTS, runtime_version=version), FOUND)
    assert judged.facts.restore_drivers == drivers


def test_a_disk_that_is_nearly_full_is_said() -> None:
    vitals = Vitals(100 << 30, 5 << 30, 1, 1, 1, 0.0)
    assert [reason.code for reason in readiness.disk_reasons(vitals)] == ["DiskLow"]
    assert readiness.disk_reasons(replace(vitals, disk_free_bytes=50 << 30)) == ()


def test_the_table_says_what_is_missing_and_what_to_do() -> None:
    text = table.render("n1", readiness.judge(replace(FACTS, criu_version=""), FOUND))
    assert text.startswith("Node n1: not ready\n")
    assert "apt-get install criu" in text
    assert "Checkpoint engines  -" in text

"""What follows from a node's facts: engines, drivers, and what is missing with its remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.node import readiness, table
from agent.node.facts import NodeFacts, Vitals
from agent.node.readiness import Findings
from agent.runtimes import crio
from agent.runtimes.kubelet_errors import Gate

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
    ("gate", "code"),
    [
        (Gate.OFF, "KubeletCheckpointOff"),
        (Gate.ABSENT, "KubeletSilent"),
        (Gate.NO_TOKEN, "KubeletNoToken"),
        (Gate.UNAUTHORIZED, "KubeletUnauthorized"),
        (Gate.FORBIDDEN, "KubeletForbidden"),
        (Gate.UNTRUSTED, "KubeletUntrusted"),
        (Gate.ODD, "KubeletUnclear"),
    ],
)
def test_a_kubelet_that_can_not_be_asked_is_said_and_limits_only(gate: Gate, code: str) -> None:
    facts = replace(FACTS, kubelet_version="1.37.2")
    judged = readiness.judge(facts, replace(FOUND, gate=gate, gate_said="its words"))
    assert judged.ready
    assert judged.facts.engines == ("runc", "cri")
    (reason,) = judged.reasons
    assert reason.code == code
    assert reason.remedy
    assert "{" not in reason.message


def test_a_kubelet_that_takes_checkpoints_is_asked_before_the_runtime() -> None:
    judged = readiness.judge(FACTS, replace(FOUND, gate=Gate.ON))
    assert judged.facts.engines == ("runc", "kubelet", "cri")
    assert judged.reasons == ()


@pytest.mark.parametrize("gate", [Gate.ABSENT, Gate.NO_TOKEN])
def test_a_node_without_kubernetes_lacks_no_kubelet(gate: Gate) -> None:
    assert readiness.judge(FACTS, replace(FOUND, gate=gate)).reasons == ()


@pytest.mark.parametrize(
    ("text", "engines", "drivers"),
    [
        (
            '[crio.checkpoint_restore]\ncontainer_level_enabled = "checkpoint_restore"',
            ("runc", "cri"),
            ("runtime",),
        ),
        (
            '[crio.checkpoint_restore]\ncontainer_level_enabled = "checkpoint_only"',
            ("runc", "cri"),
            ("runtime",),
        ),
        (
            '[crio.checkpoint_restore]\ncontainer_level_enabled = "none"',
            ("runc",),
            ("runtime",),
        ),
        ("[crio.runtime]\nenable_criu_support = true", ("runc", "cri"), ("runtime",)),
        ("[crio.runtime]\nenable_criu_support = false", ("runc",), ("runtime",)),
        ("", ("runc", "cri"), ("runtime",)),
    ],
    ids=["restores", "checkpoints", "nothing", "older", "older, off", "silent"],
)
def test_crios_own_checkpoints_depend_on_its_settings_and_its_restore_takes_none_of_our_images(
    text: str, engines: tuple[str, ...], drivers: tuple[str, ...]
) -> None:
    found = replace(FOUND, own_checkpoint=crio.checkpoints_by(text))
    facts = replace(FACTS, runtime="cri-o", runtime_version="1.34.0")
    judged = readiness.judge(facts, found)
    assert judged.facts.engines == engines
    assert judged.facts.restore_drivers == drivers


@pytest.mark.parametrize("version", ["2.2.7", "2.3.7"])
def test_a_containerd_that_was_told_to_restores_images(version: str) -> None:
    facts = replace(FACTS, runtime_version=version)
    judged = readiness.judge(facts, replace(FOUND, own_restore=True))
    assert judged.facts.restore_drivers == ("runtime", "image")


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

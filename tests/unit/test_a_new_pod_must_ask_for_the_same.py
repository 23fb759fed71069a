"""Command, environment, mounts and limits of the new pod against the checkpointed one's; and the node's traits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.formats.fingerprint import Fingerprint
from agent.formats.template import MountFact, Template
from agent.restore import comparison, compatibility
from agent.restore.compatibility import NodeTraits

OLD = Template(
    args=("serve",),
    env=("PATH=/bin", "MODE=fast", "HOSTNAME=a", "DB_SERVICE_HOST=10.0.0.1"),
    namespaces={"pid": "own", "network": "joined", "mount": "own"},
    masked_paths=("/proc/keys",),
    mounts=(
        MountFact(destination="/data", kind="emptydir"),
        MountFact(destination="/run/.containerenv", kind="runtime"),
    ),
)


def difference(**changes: Any) -> str:
    new = msgspec.structs.replace(OLD, **changes)
    return comparison.difference(OLD, new, memory_bytes=100_000_000)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="equal"),
        pytest.param(
            {"env": ("PATH=/bin", "MODE=fast", "HOSTNAME=b", "API_SERVICE_HOST=10.0.0.2")},
            id="names and services of the pod",
        ),
        pytest.param({"env": (*OLD.env, "TERM=xterm")}, id="a terminal's type, from CRI-O"),
        pytest.param({"mounts": OLD.mounts[:1]}, id="a harmless mount is missing"),
        pytest.param({"memory_limit_bytes": 200_000_000}, id="enough memory"),
    ],
)
def test_fits(changes: dict[str, Any]) -> None:
    assert difference(**changes) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"args": ("serve", "-v")}, "command", id="command"),
        pytest.param({"cwd": "/tmp"}, "working directory", id="working directory"),
        pytest.param({"env": ("PATH=/bin",)}, "differs in MODE", id="environment"),
        pytest.param({"terminal": True}, "terminal", id="terminal"),
        pytest.param({"root_read_only": True}, "root is read-only", id="read-only root"),
        pytest.param({"masked_paths": ("/proc/keys", "/proc/acpi")}, "/proc/acpi", id="masked"),
        pytest.param({"mounts": ()}, "mount at /data, the pod has none", id="mount missing"),
        pytest.param(
            {"mounts": (*OLD.mounts, MountFact(destination="/x", kind="host"))},
            "the pod has a mount at /x",
            id="additional mount",
        ),
        pytest.param(
            {"mounts": (MountFact(destination="/data/", kind="emptydir", read_only=True),)},
            "/data is read-only",
            id="now read-only",
        ),
        pytest.param({"memory_limit_bytes": 100_000_000}, "memory", id="memory limit"),
        pytest.param(
            {"namespaces": {**OLD.namespaces, "pid": "joined"}}, "pid namespace", id="pid"
        ),
        pytest.param({"namespaces": {"network": "joined"}}, "hostPID", id="the node's processes"),
        pytest.param({"namespaces": {**OLD.namespaces, "user": "own"}}, "hostUsers", id="users"),
    ],
)
def test_differs(changes: dict[str, Any], reason: str) -> None:
    assert reason in difference(**changes)


def test_what_the_kernel_has_not_needs_no_mask() -> None:
    new = msgspec.structs.replace(OLD, masked_paths=("/proc/keys", "/sys/fs/selinux", "/x"))
    for there, reason in (
        ({"/sys/fs/selinux"}, "/sys/fs/selinux is masked"),
        (set[str](), "/x is"),
    ):
        said = comparison.difference(OLD, new, memory_bytes=1, is_there=there.__contains__)
        assert said.startswith(reason)


@pytest.mark.parametrize(
    ("quota", "words"), [(0, ""), (100_000, ""), (50_000, ""), (10_000, "CPU limit of 100m")]
)
def test_a_small_cpu_limit_is_slow_not_wrong(quota: int, words: str) -> None:
    new = msgspec.structs.replace(OLD, cpu_quota=quota, cpu_period=100_000)
    assert difference(cpu_quota=quota, cpu_period=100_000) == ""
    said = comparison.slowness(new)
    assert bool(said) == bool(words)
    assert words in said


def test_values_of_the_environment_are_not_told() -> None:
    assert "secret" not in difference(env=(*OLD.env, "PASSWORD=secret"))


NEEDS = Fingerprint(
    architecture="amd64", kernel="6.1.0-26-amd64", criu_version="4.1.1", oci_runtime="runc",
    oci_runtime_version="1.3.6", runtime="containerd", runtime_version="2.1.9", cgroup_version="v2",
    image_name="app", image_ref="r/app@sha256:" + "1" * 64, image_id="sha256:" + "2" * 64,
    cpu_features=("avx2", "sse4_2"),
)  # fmt: skip
HERE = NodeTraits("amd64", "6.12.1", "4.2.1", "v2", frozenset({"avx2", "avx512f", "sse4_2"}))


def obstacle(images: frozenset[str] = frozenset({"2" * 64}), **changes: Any) -> str:
    needs = msgspec.structs.replace(NEEDS, **changes)
    return compatibility.obstacle(needs, HERE, oci_runtime="runc", image_digests=images)


def test_an_equal_or_newer_node_is_fine() -> None:
    assert obstacle() == ""
    assert obstacle(frozenset({"1" * 64})) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"architecture": "arm64"}, "architecture", id="architecture"),
        pytest.param({"cpu_features": ("avx2", "amx")}, "amx", id="CPU feature"),
        pytest.param({"kernel": "6.18.0"}, "Linux 6.18.0", id="older kernel"),
        pytest.param({"criu_version": "5.0"}, "CRIU 5.0", id="older CRIU"),
        pytest.param({"cgroup_version": "v1"}, "cgroup", id="cgroup version"),
        pytest.param({"oci_runtime": "crun"}, "crun", id="another runtime"),
    ],
)
def test_another_node_is_not(changes: dict[str, Any], reason: str) -> None:
    assert reason in obstacle(**changes)


def test_the_image_must_be_the_same() -> None:
    assert "another" in obstacle(frozenset({"3" * 64}))
    assert "does not tell" in obstacle(frozenset())


def test_a_node_without_criu_restores_nothing() -> None:
    here = NodeTraits("amd64", "6.12.1", "", "v2", HERE.cpu_features)
    reason = compatibility.obstacle(
        NEEDS, here, oci_runtime="runc", image_digests=frozenset({"2" * 64})
    )
    assert "CRIU is not" in reason

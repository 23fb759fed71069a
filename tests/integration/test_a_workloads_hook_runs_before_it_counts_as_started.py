"""The hook of a workload runs in the restored container, as the container, before its start returns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deploy.devnode.pods import Pod, Pods
from deploy.devnode.world import Deployment
from snap_protos.runtime.v1 import api_pb2 as cri
from tests.integration.restoring import COUNTING, numbers, outcome, restoring, save, wait_for

pytestmark = pytest.mark.node
P = "snap.weaversoft.io/post-restore"
FILE = "/run/snap/restored.json"
SERVER = """
mkdir -p /www/cgi-bin
printf '#!/bin/sh\\ncat >/tmp/told\\necho; echo thanks\\n' >/www/cgi-bin/told
busybox chmod +x /www/cgi-bin/told
busybox httpd -f -p 8080 -h /www &
n=0; while :; do n=$((n + 1)); echo "n $n"; sleep 0.1; done
"""


def by_command(*words: str, **changes: str) -> dict[str, str]:
    extra = {f"{P}-{name.replace('_', '-')}": value for name, value in changes.items()}
    return {P: "exec", f"{P}-command": json.dumps(words), **extra}


def come_back(
    deployed: Deployment, pods1: Pods, pods2: Pods, annotations: dict[str, str], **spec: Any
) -> Pod:
    """A container that was checkpointed on node 1 and restored, with these annotations, on node 2."""
    wanted = replace(COUNTING, **spec)
    first = pods1.run(wanted)
    wait_for(lambda: len(numbers(first)) > 3)
    saved = save(deployed, first, "hooked")
    return pods2.run(restoring(wanted, saved.image, annotations=annotations))


def address(pods: Pods, pod: Pod) -> str:
    return pods.exec(pod, "ip", "-4", "-o", "addr", "show", "eth0").split()[3].split("/")[0]


def test_a_command_has_what_is_new_and_nothing_but_the_containers_rights(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    script = """
    env >/tmp/env
    for pid in self 1; do
        busybox grep -E 'Uid|Groups|Cap|NoNewPrivs|Seccomp:' /proc/$pid/status >/tmp/status-$pid
        cat /proc/$pid/cgroup >/tmp/cgroup-$pid
    done
    """
    security = cri.LinuxContainerSecurityContext(
        no_new_privs=True,
        capabilities=cri.Capability(drop_capabilities=["ALL"]),
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
    )
    counting = 'n=0; while :; do n=$((n + 1)); echo "n $n"; sleep 0.1; done'
    pod = come_back(
        deployed,
        pods1,
        pods2,
        by_command("sh", "-c", script),
        command=("/bin/sh", "-c", counting),
        env={"MINE": "kept"},
        linux=cri.LinuxContainerConfig(security_context=security),
    )
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("restored", ""), said
    assert said["hook_ms"] > 0
    told = json.loads(pods2.exec(pod, "cat", FILE))
    env = dict(line.split("=", 1) for line in pods2.exec(pod, "cat", "/tmp/env").splitlines())
    assert env["SNAP_POD_NAME"] == told["pod_name"] == "restored"
    assert env["SNAP_POD_IP"] == told["pod_ip"] == address(pods2, pod)
    assert env["SNAP_NODE"] == told["node"] == pod.node.name
    assert env["SNAP_CHECKPOINT"] == told["checkpoint"] == said["image"]
    assert env["SNAP_RESTORED_FILE"] == FILE
    assert env["MINE"] == "kept"
    for fact in ("status", "cgroup"):
        assert pods2.exec(pod, "busybox", "cmp", f"/tmp/{fact}-self", f"/tmp/{fact}-1") == ""
    assert "CapEff:\t0000000000000000" in pods2.exec(pod, "cat", "/tmp/status-1")


def test_start_returns_when_it_has_ended_and_a_read_only_root_is_no_hindrance(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    security = cri.LinuxContainerSecurityContext(readonly_rootfs=True)
    pod = come_back(
        deployed,
        pods1,
        pods2,
        by_command("sh", "-c", "sleep 2; echo ended >/dev/shm/hook"),
        command=("/bin/sh", "-c", 'n=0; while :; do n=$((n + 1)); echo "n $n"; sleep 0.1; done'),
        linux=cri.LinuxContainerConfig(security_context=security),
    )
    assert pod.timings_ms["start"] > 2000
    assert pods2.exec(pod, "cat", "/dev/shm/hook").strip() == "ended"
    assert json.loads(pods2.exec(pod, "cat", FILE))["pod_name"] == "restored"


@pytest.mark.parametrize(
    ("words", "changes", "reason"),
    [
        pytest.param(("sh", "-c", "exit 3"), {}, "ended with 3", id="failure"),
        pytest.param(("/no/such/program",), {}, "could not be run: ", id="no such program"),
        pytest.param(
            ("sh", "-c", "sleep 600 & wait"), {"timeout": "1"}, "within 1 s", id="too slow"
        ),
    ],
)
def test_a_failure_is_on_record_and_the_container_goes_on(
    deployed: Deployment,
    pods1: Pods,
    pods2: Pods,
    words: tuple[str, ...],
    changes: dict[str, str],
    reason: str,
) -> None:
    pod = come_back(deployed, pods1, pods2, by_command(*words, **changes))
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("restored", "hook_failed"), said
    assert reason in said["reason"]
    counted = len(numbers(pod))
    wait_for(lambda: len(numbers(pod)) > counted + 3)
    wait_for(lambda: "sleep 600" not in pods2.exec(pod, "ps", "-ef"))


def test_a_container_can_be_ended_when_its_hook_fails(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    pod = come_back(deployed, pods1, pods2, by_command("false", failure="restart"))
    said = outcome(deployed, pod)
    assert said["code"] == "hook_failed", said
    assert "starts cold" in said["reason"]
    wait_for(lambda: pods2.status(pod).exit_code == 137)


def test_a_hook_that_is_none_starts_cold_and_says_so(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    pod = come_back(deployed, pods1, pods2, {P: "exec", f"{P}-command": "renew"})
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("cold", "malformed"), said
    assert f"{P}-command" in said["reason"]
    wait_for(lambda: numbers(pod)[:1] == [1])


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        pytest.param("/cgi-bin/told", "", "", id="well"),
        pytest.param("/nothing", "hook_failed", "answered with status", id="refused"),
    ],
)
def test_a_request_reaches_the_container_itself(
    deployed: Deployment, pods1: Pods, pods2: Pods, path: str, code: str, reason: str
) -> None:
    asked = {P: "http", f"{P}-port": "8080", f"{P}-path": path}
    pod = come_back(deployed, pods1, pods2, asked, command=("/bin/sh", "-c", SERVER))
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("restored", code), said
    assert reason in said["reason"]
    if not code:
        told = json.loads(pods2.exec(pod, "cat", "/tmp/told"))
        assert told["pod_ip"] == address(pods2, pod)

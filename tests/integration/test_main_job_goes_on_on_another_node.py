"""The main job through REST and CRI: checkpoint and push on node 1, a new pod on node 2 goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.devnode.pods import Pods
from deploy.devnode.world import CLUSTER, Deployment
from dev_tools.workloads import WORKLOADS, Workload
from tests.integration.restoring import outcome

pytestmark = pytest.mark.node


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.spec.name)
def test_program_goes_on(
    deployed: Deployment, pods1: Pods, pods2: Pods, workload: Workload
) -> None:
    spec = workload.spec
    original = pods1.run(spec)
    noted = workload.note(pods1, original)
    answer = deployed.rest.post(
        "/checkpoint/kubelet/checkpoint-and-push?checkpoint_config_name=checkpoints",
        {
            "pod_name": spec.name,
            "namespace": spec.namespace,
            "cluster": CLUSTER,
            "node_name": original.node.name,
            "image_name": f"main-{spec.name}",
            "tag": "t1",
        },
    )
    assert answer["success"]
    assert answer["pause_ms"] > 0
    assert pods1.is_running(original)
    repository = answer["image"].rpartition(":")[0].partition("@")[0]
    wanted = {spec.container: f"{repository}@{answer['image_digest']}"}
    annotations = {"snap.weaversoft.io/checkpoint": json.dumps(wanted)}
    restored = pods2.run(replace(spec, handler="snap", annotations=annotations))
    workload.prove(pods2, restored, noted)


def test_pod_of_another_namespace_starts_cold(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    spec = WORKLOADS[0].spec
    original = pods1.run(spec)
    WORKLOADS[0].note(pods1, original)
    answer = deployed.rest.post(
        "/checkpoint/kubelet/checkpoint-and-push",
        {
            "pod_name": spec.name,
            "namespace": spec.namespace,
            "cluster": CLUSTER,
            "node_name": original.node.name,
            "image_name": "foreign",
            "tag": "t1",
        },
    )
    repository = answer["image"].rpartition(":")[0].partition("@")[0]
    wanted = {spec.container: f"{repository}@{answer['image_digest']}"}
    foreign = replace(
        spec,
        namespace="other",
        handler="snap",
        annotations={"snap.weaversoft.io/checkpoint": json.dumps(wanted)},
    )
    pod = pods2.run(foreign)
    assert pods2.is_running(pod)
    assert outcome(deployed, pod)["action"] == "cold"

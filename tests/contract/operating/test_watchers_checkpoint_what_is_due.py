"""A watcher on a cluster: what it checkpoints, once, and what it tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controlplane.store import restores
from controlplane.store.records import JobFailure, Restore
from tests.contract.operating.conftest import Place, opened
from tests.fakes.api_process import until
from tests.fakes.fleet import DIGEST as PUSHED
from tests.fakes.kube_server import Fault, KubeServer
from tests.fakes.pods import running_pod

ALL_READY = {"ready": True, "started": True}


def restore(action: str, pod_uid: str, sequence: int = 1, **values: Any) -> Restore:
    given: dict[str, Any] = {
        "cluster": "c1",
        "node": "node-1",
        "sequence": sequence,
        "container_id": f"c{sequence}",
        "container_name": "main",
        "namespace": "apps",
        "pod_name": "web-1",
        "pod_uid": pod_uid,
        "image": f"registry.example:5000/x@{PUSHED}",
        "action": action,
        "code": "",
        "reason": "",
        "details": "",
        "mode": "eager",
        "at": f"2026-03-01T12:00:{sequence:02}.000Z",
        "prepare_ms": 1.0,
        "restore_ms": 1.0,
        "start_ms": 1.0,
    }
    return Restore(**given | values)


async def test_a_ready_pod_is_checkpointed_and_pushed_and_the_reason_is_kept(place: Place) -> None:
    place.add_pod("web-1")
    await place.watch()
    made = await place.decided("checkpoint")
    assert made["reason"] == "this workload has no checkpoint yet"
    await place.decided("skip", "is there")
    (checkpoint,) = await place.checkpoints()
    assert (checkpoint["pod_name"], checkpoint["namespace"]) == ("web-1", "apps")
    assert checkpoint["image"].startswith("registry.example:5000/snap_images/c1-apps-web:")
    job = (await place.server.call("GET", f"/jobs/{made['job_id']}")).json
    assert (job["kind"], job["initiator"]) == ("checkpoint_and_push", "SnapWatcher")


async def test_a_pod_is_taken_when_it_becomes_ready(place: Place) -> None:
    place.add_pod("web-1", ready_s=None)
    await place.watch()
    await place.decided("wait", "not ready")
    place.put_pod(running_pod("web-1"))
    await place.decided("checkpoint")


async def test_replicas_that_race_make_one_checkpoint(place: Place) -> None:
    for number in range(20):
        place.add_pod(f"web-{number}")
    await asyncio.gather(place.watch(), place.watch(name="w2"), place.watch(name="w3"))
    for number in range(20):
        await place.decided("skip", "is there", f"web-{number}")
    assert len(await place.checkpoints()) == 1


async def test_a_new_template_makes_a_new_one(place: Place) -> None:
    place.add_pod("web-1")
    await place.watch()
    await place.decided("skip", "is there", "web-1")
    pod = running_pod("web-2", labels={"pod-template-hash": "77777"})
    pod["metadata"]["ownerReferences"][0]["name"] = "web-77777"
    place.put_pod(pod)
    await place.decided("skip", "is there", "web-2")
    assert {c["pod_name"] for c in await place.checkpoints()} == {"web-1", "web-2"}


async def test_containers_of_a_pod_are_frozen_together(place: Place) -> None:
    pod = running_pod("web-1")
    side = pod["spec"]["containers"][0] | {"name": "side"}
    pod["spec"]["containers"].append(side)
    pod["status"]["containerStatuses"].append(
        pod["status"]["containerStatuses"][0] | {"name": "side"}
    )
    place.put_pod(pod)
    await place.watch()
    await place.decided("skip", "is there")
    (job,) = place.server.fleet.started
    assert job.spec.checkpoint is not None
    assert {c.container_name for c in job.spec.checkpoint.containers} == {"main", "side"}


async def test_pods_without_the_label_are_not_even_seen(place: Place) -> None:
    pod = running_pod("web-1")
    del pod["metadata"]["labels"]["snap.weaversoft.io/snap"]
    place.put_pod(pod)
    place.put_pod(running_pod("web-2", labels={"snap.weaversoft.io/snap": "false"}))
    await place.watch()
    await place.decided("skip", "label", "web-2")
    assert {d["pod_name"] for d in await place.decisions()} == {"web-2"}


async def test_a_watcher_of_a_namespace_sees_that_one_only(place: Place) -> None:
    other = running_pod("web-2")
    other["metadata"]["namespace"] = "elsewhere"
    place.put_pod(other)
    place.add_pod("web-1")
    await place.watch(scope="namespace", namespace="apps")
    await place.decided("skip", "is there")
    assert {d["namespace"] for d in await place.decisions()} == {"apps"}


async def test_a_failure_is_told_and_tried_again_later(place: Place) -> None:
    place.server.fleet.failure = JobFailure(code="CHECKPOINT_FAILED", message="CRIU can't dump it")
    place.add_pod("web-1")
    await place.watch()
    later = await place.decided("wait", "CRIU can't dump it")
    assert "try 2 of 4" in later["reason"]
    assert len(place.server.fleet.started) == 1


async def test_why_an_image_was_not_pushed_is_told(place: Place) -> None:
    place.server.fleet.failure = JobFailure(code="PUSH_FAILED", message="Nobody trusts it.")
    place.server.fleet.is_unpushed = True
    place.add_pod("web-1")
    await place.watch()
    later = await place.decided("wait", "try 2 of 4")
    assert later["reason"].endswith("its image was not pushed: Nobody trusts it.")


async def test_what_can_not_be_begun_is_told(place: Place) -> None:
    place.server.fleet.connected = False
    place.add_pod("web-1")
    await place.watch()
    await place.decided("wait", "not begun: The agent of node-1 is not connected")
    assert await place.checkpoints() == []


async def test_a_restored_pod_is_known_by_what_its_node_says(place: Place) -> None:
    pod = place.add_pod("web-1", labels={"snap.weaversoft.io/mutated": "true"})
    await place.watch()
    await place.decided("wait", "has not told yet")
    told = restore("restored", pod["metadata"]["uid"])
    await place.server.store.write(lambda db: restores.put(db, [told]))
    await place.decided("skip", "started from a checkpoint itself")
    assert place.server.fleet.started == []


async def test_a_checkpoint_that_proves_not_to_restore_is_made_anew(place: Place) -> None:
    place.add_pod("web-1")
    await place.watch()
    await place.decided("skip", "is there")
    proofs = [
        restore("failed", f"u{n}", n, code="criu_failed", reason="CRIU failed") for n in (1, 2, 3)
    ]
    await place.server.store.write(lambda db: restores.put(db, proofs))
    later = await place.decided("wait", "can't be restored: CRIU failed")
    assert "try 2 of 4" in later["reason"]


async def test_a_checkpoint_that_a_user_made_counts(place: Place) -> None:
    place.add_pod("web-1")
    body = {
        "pod_name": "web-1",
        "namespace": "apps",
        "node_name": "node-1",
        "container_name": "main",
        "cluster_name": "c1",
    }
    path = "/checkpoint/kubelet/checkpoint-and-push?checkpoint_config_name=r1"
    assert (await place.server.call("POST", path, body)).status == 200
    place.add_pod("web-2")
    await place.watch()
    await place.decided("skip", "is there", "web-2")
    assert len(await place.checkpoints()) == 1


async def test_a_deleted_checkpoint_is_made_anew(place: Place) -> None:
    place.add_pod("web-1")
    await place.watch()
    await place.decided("skip", "is there")
    (first,) = await place.checkpoints()
    answer = await place.server.call("DELETE", f"/checkpoint/{first['id']}?keep_image=true")
    assert answer.status == 200

    async def is_made_anew() -> bool:
        return any(c["id"] != first["id"] for c in await place.checkpoints())

    await until(is_made_anew)


async def test_watching_goes_on_after_the_watch_broke_and_was_forgotten(place: Place) -> None:
    await place.watch()
    place.kube.objects.forget()
    place.kube.drop_watches()
    place.add_pod("web-1")
    await place.decided("skip", "is there")


async def test_the_state_of_the_watch_is_the_real_one(place: Place) -> None:
    await place.watch()
    path = "/operator/snapwatcher/w/status"
    assert (await place.server.call("GET", path)).json["thread_alive"] is True
    place.kube.tokens.clear()
    place.kube.drop_watches()

    async def is_alive() -> bool:
        return bool((await place.server.call("GET", path)).json["thread_alive"])

    async def is_dead() -> bool:
        return not await is_alive()

    await until(is_dead)

    async def tells_why() -> bool:
        found = (await place.server.call("GET", path)).json
        assert found["status"] == "error"
        assert found["failing_since"]
        return "unauthorized" in found["error_message"]

    await until(tells_why)
    place.kube.tokens.add("canary-token")
    await until(is_alive)


async def test_a_wrong_credential_is_told_at_once(place: Place) -> None:
    place.kube.tokens.clear()
    body = {"name": "w", "cluster_name": "c1"}
    found = (await place.server.call("POST", "/operator/snapwatcher", body)).json
    assert found["status"] == "error"
    assert found["thread_alive"] is False
    assert "unauthorized" in found["error_message"]
    assert found["failing_since"]
    answer = await place.server.call("POST", "/operator/snapwatcher/w/start")
    assert (answer.status, answer.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")


async def test_start_and_stop_may_be_repeated(place: Place) -> None:
    await place.watch()
    call = place.server.call
    before = (await call("GET", "/operator/snapwatcher/w")).json
    again = await call("POST", "/operator/snapwatcher/w/start")
    assert (again.status, again.json) == (200, before)
    for _ in range(2):
        stopped = await call("POST", "/operator/snapwatcher/w/stop")
        assert (stopped.status, stopped.json["status"]) == (200, "stopped")
    assert (await call("POST", "/operator/snapwatcher/w/start")).json["status"] == "running"
    assert (await call("DELETE", "/operator/snapwatcher/w")).status == 200
    await until(lambda: not place.kube.watches)


async def test_the_operator_may_be_started_again_as_it_is(place: Place) -> None:
    call = place.server.call
    wanted = {"cluster_name": "c1", "auto_delete_pod": True}
    for _ in range(2):
        started = await call("POST", "/operator/start", wanted)
        assert (started.status, started.json["running"]) == (200, True)
    other = await call("POST", "/operator/start", wanted | {"auto_delete_pod": False})
    assert (other.status, other.json["code"]) == (409, "CONFLICT")
    assert "stop it first" in other.json["error"]
    for error in (None, "Operator is not running"):
        stopped = (await call("POST", "/operator/stop", {"cluster_name": "c1"})).json
        assert (stopped["running"], stopped["error"]) == (False, error)


async def test_watchers_come_back_after_a_restart(tmp_path: Path, kube: KubeServer) -> None:
    async with opened(tmp_path, kube) as place:
        await place.watch()
    async with opened(tmp_path, kube) as again:
        again.add_pod("web-1")
        await again.decided("skip", "is there")


@pytest.mark.parametrize("trigger", ["drain"])
async def test_a_cordoned_nodes_pods_are_checkpointed(place: Place, trigger: str) -> None:
    place.add_pod("web-1")
    place.add_pod("web-2", node="node-2")
    await place.watch(trigger=trigger)
    await place.decided("wait", "not cordoned", "web-1")
    place.kube.put("/api/v1/nodes/node-1", spec={"unschedulable": True})
    await place.decided("checkpoint", "drain", "web-1")
    assert {c["pod_name"] for c in await place.checkpoints()} == {"web-1"}


async def test_a_schedule_is_checked_when_it_is_set(place: Place) -> None:
    body = {"name": "w", "cluster_name": "c1", "trigger": "schedule"}
    for wrong in (
        {},
        {"schedule": "every hour"},
        {"schedule": "0 0 0 * * *"},  # with seconds
        {"schedule": "0 0 * * 5L/2"},
    ):
        refused = await place.server.call("POST", "/operator/snapwatcher", body | wrong)
        assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR"), wrong
        assert refused.json["error"].startswith("Field `schedule` must be five fields")
    await place.watch(trigger="schedule", schedule="0 3 * * *")
    shown = (await place.server.call("GET", "/operator/snapwatcher/w")).json
    assert (shown["schedule"], shown["trigger"]) == ("0 3 * * *", "schedule")
    changed = await place.server.call("PUT", "/operator/snapwatcher/w", {"schedule": "0 3"})
    assert (changed.status, changed.json["code"]) == (400, "VALIDATION_ERROR")


async def test_a_watcher_of_a_namespace_is_told_which(place: Place) -> None:
    body = {"name": "w", "cluster_name": "c1", "scope": "namespace"}
    for method, path in (
        ("POST", "/operator/snapwatcher"),
        ("POST", "/operator/start"),
        ("PUT", "/operator/snapwatcher/w"),
    ):
        if method == "PUT":
            await place.watch()
        refused = await place.server.call(method, path, body)
        assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR"), path
        assert refused.json["error"] == "Field `namespace` is required with scope namespace."


async def test_an_api_server_that_is_away_for_a_while_costs_nothing(place: Place) -> None:
    await place.watch()
    place.kube.fail(Fault(500, times=3))
    place.kube.drop_watches()
    place.add_pod("web-1")
    await place.decided("skip", "is there")

"""A hook in a cluster: registered, answered, repaired, renewed, taken away; asked as its API server would ask."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.settings import Address
from controlplane.store import starts
from controlplane.store.database import Store
from controlplane.watcher import replacing
from controlplane.workload import Workload
from deploy.devnode.ports import free_port
from tests.contract.operating.conftest import WEBHOOKS, Place, opened
from tests.fakes.api_process import until
from tests.fakes.kube_server import KubeServer
from tests.fakes.pods import DIGEST, new_pod, review, running_pod

SNAP = "snap.weaversoft.io/snap"


async def checkpointed(place: Place) -> dict[str, Any]:
    """A pod of ``web`` whose checkpoint is there."""
    pod = place.add_pod("web-1")
    await place.watch()
    await place.decided("skip", "is there")
    return pod


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(base64.b64decode(response.get("patch", "W10=")))
    return found


async def restores(place: Place) -> bool:
    """Whether a new pod is given the checkpoint."""
    return any(
        "runtimeClassName" in o["path"] for o in patch_of(await place.admit(review(new_pod())))
    )


async def test_a_new_pod_of_a_checkpointed_workload_is_given_its_checkpoint(place: Place) -> None:
    await checkpointed(place)
    await place.hook()
    await until(lambda: restores(place))
    (image,) = [c["image"] for c in await place.checkpoints()]
    operations = patch_of(await place.admit(review(new_pod())))
    (annotations,) = [o["value"] for o in operations if o["path"] == "/metadata/annotations"]
    given = json.loads(annotations["snap.weaversoft.io/checkpoint"])
    assert given == {"main": f"{image.rpartition(':')[0]}@{DIGEST}"}


async def test_what_the_cluster_is_told_is_harmless(place: Place) -> None:
    await place.hook()
    found = place.webhook()
    assert found is not None
    (webhook,) = found["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["timeoutSeconds"] == 1
    assert webhook["sideEffects"] == "None"
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    assert webhook["objectSelector"] == {"matchLabels": {SNAP: "true"}}
    (namespaces,) = webhook["namespaceSelector"]["matchExpressions"]
    assert (namespaces["operator"], "kube-system" in namespaces["values"]) == ("NotIn", True)
    assert webhook["rules"][0]["operations"] == ["CREATE"]


async def test_a_service_is_told_where_one_is_set(tmp_path: Path, kube: KubeServer) -> None:
    settings = {"hook_service": "snap-system/snap-api:443", "namespace": "snap-system"}
    async with opened(tmp_path, kube, **settings) as place:
        started = await place.hook()
        found = place.webhook()
        assert found is not None
        (webhook,) = found["webhooks"]
        service = webhook["clientConfig"]["service"]
        assert (service["namespace"], service["name"], service["port"]) == (
            *("snap-system", "snap-api"),
            443,
        )
        assert started["webhook_url"].endswith(service["path"])
        (namespaces,) = webhook["namespaceSelector"]["matchExpressions"]
        assert "snap-system" in namespaces["values"]


async def test_a_webhook_that_somebody_edited_is_put_back(place: Place) -> None:
    await place.hook()
    before = place.webhook()
    assert before is not None
    edited = json.loads(json.dumps(before["webhooks"]))
    edited[0] |= {"failurePolicy": "Fail", "namespaceSelector": {}}
    place.kube.put(f"{WEBHOOKS}/snap-h", webhooks=edited)
    await until(lambda: (place.webhook() or {}).get("webhooks") == before["webhooks"])
    place.kube.delete(f"{WEBHOOKS}/snap-h")
    await until(lambda: (place.webhook() or {}).get("webhooks") == before["webhooks"])


async def test_a_stopped_hook_is_gone_from_the_cluster_and_answers_nobody(place: Place) -> None:
    await place.hook()
    call = place.server.call
    assert (await call("POST", "/snaphook/h/start")).json["is_running"] is True
    left_over = place.webhook()
    assert left_over is not None
    assert (await call("POST", "/snaphook/h/stop")).json["is_running"] is False
    assert place.webhook() is None
    place.kube.put(f"{WEBHOOKS}/snap-h", webhooks=left_over["webhooks"])
    assert (await call("POST", "/snaphook/h/stop")).json["is_running"] is False
    assert place.webhook() is None
    assert (await call("POST", "/snaphook/h/start")).json["is_running"] is True
    assert (await call("DELETE", "/snaphook/h")).status == 200
    assert place.webhook() is None


async def test_hooks_come_back_after_a_restart_at_the_same_address(
    tmp_path: Path, kube: KubeServer
) -> None:
    address = Address("127.0.0.1", free_port())
    async with opened(tmp_path, kube, hook_addr=address) as place:
        await checkpointed(place)
        await place.hook()
        told = place.webhook()
    async with opened(tmp_path, kube, hook_addr=address) as again:

        async def is_running() -> bool:
            return bool((await again.server.call("GET", "/snaphook/h")).json["is_running"])

        await until(is_running)
        assert again.webhook() == told
        await until(lambda: restores(again))


async def test_hooks_side_by_side_have_paths_of_their_own(place: Place) -> None:
    first, second = await place.hook("h"), await place.hook("H_2")
    assert first["webhook_url"] != second["webhook_url"]
    configs = [c["metadata"]["name"] for c in place.kube.all(WEBHOOKS)]
    assert len(configs) == len(set(configs)) == 2
    same = {"webhook_url": "https://localhost/webhook", "cluster_name": "c1"}
    for name in ("a", "b"):
        assert (await place.server.call("POST", "/snaphook", {"name": name} | same)).status == 200
    assert (await place.server.call("POST", "/snaphook/a/start")).status == 200
    assert (await place.server.call("POST", "/snaphook/b/start")).status == 409


async def test_a_certificate_is_renewed_and_trusted_at_once(place: Place) -> None:
    await place.hook()
    told = place.webhook()
    assert (await place.server.call("POST", "/snaphook/h/renew-certificates")).status == 200
    assert place.webhook() == told
    assert (await place.admit(review(new_pod())))["allowed"] is True


async def test_certificates_of_seconds_are_renewed_without_a_refusal(
    tmp_path: Path, kube: KubeServer
) -> None:
    folder = tmp_path / "data" / "hook-tls"
    async with opened(tmp_path, kube, hook_cert_life_s=4.0) as place:
        await place.hook()
        seen: set[str] = set()

        async def has_changed() -> bool:
            assert (await place.admit(review(new_pod())))["allowed"] is True
            seen.add((folder / "server.pem").read_text())
            return len(seen) >= 3

        await until(has_changed)


async def test_another_authority_is_told_before_it_signs(tmp_path: Path, kube: KubeServer) -> None:
    folder = tmp_path / "data" / "hook-tls"
    async with opened(tmp_path, kube, hook_cert_life_s=3.0) as place:
        await place.hook()
        first = (folder / "ca.pem").read_text()

        async def has_changed() -> bool:
            assert (await place.admit(review(new_pod())))["allowed"] is True
            return (folder / "ca.pem").read_text() != first

        await until(has_changed)
        assert (await place.admit(review(new_pod())))["allowed"] is True


async def test_a_wrong_credential_is_told_by_start_and_status(place: Place) -> None:
    place.kube.tokens.clear()
    body = {"name": "h", "cluster_name": "c1"}
    assert (await place.server.call("POST", "/snaphook", body)).status == 200
    answer = await place.server.call("POST", "/snaphook/h/start")
    assert (answer.status, answer.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    found = (await place.server.call("GET", "/snaphook/h")).json
    assert found["is_running"] is False
    assert "can't be used" in found["error_message"]


async def test_connectivity_is_tried_for_real(place: Place) -> None:
    await place.hook()
    answer = await place.server.call("GET", "/snaphook/h/test-connectivity")
    assert answer.status == 200
    # the fake API server calls nobody, and that is told
    assert answer.json["webhook_reached"] is False
    assert "did not call" in answer.json["message"]


async def test_a_pod_is_replaced_once_its_successor_would_be_restored(place: Place) -> None:
    place.add_pod("web-1")
    place.add_pod("web-2")
    await place.hook()
    await place.watch(auto_delete_pod=True)
    told = await place.decided("deleted", "its successor")
    assert place.pod(told["pod_name"]) is None
    assert len(place.kube.all("/api/v1/namespaces/apps/pods")) == 1


async def test_a_statefulsets_pods_have_a_checkpoint_each_and_come_back_from_it(
    place: Place,
) -> None:
    for name in ("db-0", "db-1"):
        pod = running_pod(name, labels={"controller-revision-hash": "db-77"})
        pod["metadata"]["ownerReferences"][0] |= {"kind": "StatefulSet", "name": "db"}
        place.put_pod(pod)
    await place.hook()
    await place.watch(auto_delete_pod=True)
    told = await place.decided("deleted", "its successor")
    (other,) = {"db-0", "db-1"} - {told["pod_name"]}
    await place.decided("kept", "last ready replica", other)
    assert {c["pod_name"] for c in await place.checkpoints()} == {"db-0", "db-1"}


async def test_a_pod_is_replaced_when_all_of_its_containers_have_a_checkpoint(place: Place) -> None:
    names = ("web-1", "web-2")
    for name in names:
        place.put_pod(_of_two(name, is_ready=False))
    place.add_pod("other-1", labels={"snap.weaversoft.io/snap": "yes", "pod-template-hash": "9"})
    await place.hook()
    await place.watch(auto_delete_pod=True)
    for name in names:
        await place.decided("skip", "is there", name)  # of the quick container
    # it is given as long to be covered by a hook as those would be, whose other container is not ready
    await place.decided("kept", "does not look at it", "other-1")
    for name in names:
        path = f"/api/v1/namespaces/apps/pods/{name}/status"
        place.kube.put(path, status=_of_two(name, is_ready=True)["status"])
    await place.decided("deleted", "its successor")


async def test_a_disruption_budget_keeps_a_pod(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing, "TRIES", 1)
    names = ("web-1", "web-2")
    for name in names:
        place.add_pod(name)
    place.kube.protected |= {("apps", name) for name in names}
    await place.hook()
    await place.watch(auto_delete_pod=True)
    told = await place.decided("kept", "would violate the pod's disruption budget")
    assert "unreachable" not in told["reason"]
    assert all(place.pod(name) for name in names)


def _of_two(name: str, *, is_ready: bool) -> dict[str, Any]:
    """A pod with a second container, which may be slower than the first."""
    pod = running_pod(name)
    (quick,), (state,) = pod["spec"]["containers"], pod["status"]["containerStatuses"]
    pod["spec"]["containers"].append(quick | {"name": "slow"})
    pod["status"]["containerStatuses"].append(state | {"name": "slow", "ready": is_ready})
    return pod


def _alone(place: Place) -> None:
    place.add_pod("web-1")


def _without_controller(place: Place) -> None:
    for name in ("web-1", "web-2"):
        pod = running_pod(name)
        del pod["metadata"]["ownerReferences"]
        place.put_pod(pod)


def _of_a_job(place: Place) -> None:
    for name in ("web-1", "web-2"):
        pod = running_pod(name)
        pod["metadata"]["ownerReferences"][0] |= {"apiVersion": "batch/v1", "kind": "Job"}
        place.put_pod(pod)


@pytest.mark.parametrize(
    ("pods", "has_hook", "words"),
    [
        (_alone, True, "last ready replica"),
        (_alone, False, "no hook runs"),
        (_without_controller, True, "no controller"),
        (_of_a_job, True, "Job"),  # to it, a pod that was deleted has failed
    ],
    ids=["last one", "no hook", "no controller", "a job"],
)
async def test_a_pod_that_would_not_come_back_restored_is_kept(
    place: Place, pods: Any, has_hook: bool, words: str
) -> None:
    pods(place)
    if has_hook:
        await place.hook()
    await place.watch(auto_delete_pod=True)
    await place.decided("kept", words)
    assert place.pod("web-1") is not None


async def test_a_workload_that_restores_slower_is_left_alone(place: Place) -> None:
    await checkpointed(place)
    await place.hook()
    await until(lambda: restores(place))
    await _slower(place.server.store)

    async def is_left_alone() -> bool:
        return not await restores(place)

    await until(is_left_alone)
    operations = patch_of(await place.admit(review(new_pod())))
    assert "its last 3 restores took 9.0 s" in json.dumps(operations)
    (shown,) = await place.checkpoints()
    assert (shown["cold_start_ms"], shown["restore_ms"]) == (2000.0, 9000.0)


async def _slower(store: Store) -> None:
    workload = Workload("c1", "apps", "Deployment", "web", "main", "5d9c7b8f66", DIGEST)
    for number, (ms, restored) in enumerate([(2000.0, False), *[(9000.0, True)] * 3]):
        uid = f"uid-{number}"
        await store.write(
            lambda db, u=uid, m=ms, r=restored: starts.put(db, workload, u, m, restored=r)  # type: ignore[misc]
        )

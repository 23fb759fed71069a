"""Lists, watches, patches and deletes do on the fake API server what they do on a real one."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import Conflict, Expired, NotFound, Refused, Retryable
from controlplane.kube.client import KubeClient
from controlplane.kube.requests import PatchKind
from controlplane.kube.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    RUNTIME_CLASSES,
    TOKEN_REVIEWS,
    Object,
    name_of,
    trimmed,
    uid_of,
    version_of,
)
from controlplane.kube.watching import Event

SPACE = "snap-contract"
pytestmark = pytest.mark.usefixtures("space")


def _config(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "labels": {"made-by": "test"}}, "data": data}


def _pod(name: str) -> Object:
    container = {"name": "app", "image": "app:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "nodeName": "", "terminationGracePeriodSeconds": 0},
    }


def _at(name: str) -> str:
    return CONFIG_MAPS.path(SPACE, name)


async def test_an_object_is_made_once(client: KubeClient) -> None:
    made = await client.create(CONFIG_MAPS.path(SPACE), _config("one", a="1"))
    assert uid_of(made)
    assert version_of(made)
    with pytest.raises(Conflict) as failure:
        await client.create(CONFIG_MAPS.path(SPACE), _config("one"))
    assert failure.value.details.startswith("AlreadyExists:")
    assert (await client.get(_at("one")))["data"] == {"a": "1"}


async def test_a_name_is_made_up_where_one_is_asked_for(client: KubeClient) -> None:
    body = _config("")
    body["metadata"] = {"generateName": "made-"}
    made = await client.create(CONFIG_MAPS.path(SPACE), body)
    assert name_of(made).startswith("made-")
    assert len(name_of(made)) == len("made-") + 5


async def test_what_is_not_there_is_not_found(client: KubeClient) -> None:
    with pytest.raises(NotFound):
        await client.get(_at("nothing"))
    with pytest.raises(NotFound):
        await client.delete(_at("nothing"))


async def test_what_is_no_object_is_refused(client: KubeClient) -> None:
    with pytest.raises(Refused):
        await client.create(CONFIG_MAPS.path(SPACE), {"metadata": {}})


async def test_merges_change_what_they_name(client: KubeClient) -> None:
    await client.create(CONFIG_MAPS.path(SPACE), _config("two", a="1", b="2"))
    changed = await client.patch(_at("two"), {"data": {"a": None, "c": "3"}})
    assert changed["data"] == {"b": "2", "c": "3"}
    again = await client.patch(_at("two"), {"data": {"c": "3"}})
    assert version_of(again) == version_of(changed)  # nothing to change, no new version


async def test_a_json_patch_tests_first(client: KubeClient) -> None:
    await client.create(CONFIG_MAPS.path(SPACE), _config("three", a="1"))
    wrong = [
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "add", "path": "/data/b", "value": "x"},
    ]
    with pytest.raises(Refused):
        await client.patch(_at("three"), wrong, PatchKind.JSON)
    wrong[0]["value"] = "1"
    assert (await client.patch(_at("three"), wrong, PatchKind.JSON))["data"]["b"] == "x"


async def test_an_apply_makes_or_takes_over(client: KubeClient) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "four"}}
    made = await client.patch(_at("four"), body | {"data": {"a": "1"}}, PatchKind.APPLY)
    assert made["data"] == {"a": "1"}
    taken = await client.patch(_at("four"), body | {"data": {"a": "2"}}, PatchKind.APPLY)
    assert (uid_of(taken), taken["data"]) == (uid_of(made), {"a": "2"})


async def test_conditions_of_a_node_are_merged_by_their_type(client: KubeClient) -> None:
    await client.create(NODES.path(), {"metadata": {"name": "contract-node"}})
    path = NODES.path(name="contract-node", sub="status")
    try:
        for kind, status in (("Ready", "True"), ("SnapReady", "True"), ("SnapReady", "False")):
            condition = {"type": kind, "status": status, "reason": "Test", "message": ""}
            body = {"status": {"conditions": [condition]}}
            found = await client.patch(path, body, PatchKind.STRATEGIC)
        kept = {c["type"]: c["status"] for c in found["status"]["conditions"]}
        assert kept == {"Ready": "True", "SnapReady": "False"}
    finally:
        await client.delete(NODES.path(name="contract-node"))


async def test_only_the_object_that_is_meant_is_deleted(client: KubeClient) -> None:
    made = await client.create(CONFIG_MAPS.path(SPACE), _config("five"))
    with pytest.raises(Conflict) as failure:
        await client.delete(_at("five"), uid="another")
    assert failure.value.details.startswith("Conflict:")
    await client.delete(_at("five"), uid=uid_of(made), resource_version=version_of(made))
    with pytest.raises(NotFound):
        await client.get(_at("five"))


async def test_an_old_version_is_not_replaced(client: KubeClient) -> None:
    made = await client.create(CONFIG_MAPS.path(SPACE), _config("six", a="1"))
    await client.patch(_at("six"), {"data": {"a": "2"}})
    with pytest.raises(Conflict):
        await client.replace(_at("six"), made | {"data": {"a": "3"}})


async def test_lists_come_in_pages_and_by_label(client: KubeClient) -> None:
    for number in range(5):
        await client.create(CONFIG_MAPS.path(SPACE), _config(f"page-{number}"))
    chosen = {"labelSelector": "made-by=test", "limit": "2"}
    listed = await client.list(CONFIG_MAPS.path(SPACE), chosen, keep=trimmed)
    assert [name_of(item) for item in listed.items] == [f"page-{n}" for n in range(5)]
    assert listed.resource_version
    assert "managedFields" not in listed.items[0]["metadata"]


async def test_a_watch_goes_on_from_a_list(client: KubeClient) -> None:
    path, chosen = CONFIG_MAPS.path(SPACE), {"labelSelector": "made-by=test"}
    begin = (await client.list(path)).resource_version
    await client.create(path, _config("seen", a="1"))
    seen: list[Event] = []
    async with asyncio.timeout(20):
        async with client.watch(path, begin, chosen, timeout_s=15) as events:
            async for event in events:
                seen.append(event)
                if event.kind == "ADDED":
                    await client.patch(_at("seen"), {"data": {"a": "2"}})
                elif event.kind == "MODIFIED":
                    await client.delete(_at("seen"))
                elif event.kind == "DELETED":
                    break
    assert [event.kind for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[1].object["data"] == {"a": "2"}


async def test_a_watch_ends_when_it_was_agreed(client: KubeClient) -> None:
    path = CONFIG_MAPS.path(SPACE)
    begin = (await client.list(path)).resource_version
    async with asyncio.timeout(20):
        async with client.watch(path, begin, timeout_s=1) as events:
            assert [e.kind async for e in events] in ([], ["BOOKMARK"])


async def test_a_place_that_is_forgotten_is_told(client: KubeClient) -> None:
    with pytest.raises(Expired):
        await _watched_from(client, "1")


async def _watched_from(client: KubeClient, version: str) -> list[Event]:
    async with (
        asyncio.timeout(20),
        client.watch(CONFIG_MAPS.path(SPACE), version, timeout_s=5) as events,
    ):
        return [event async for event in events]


async def test_a_pod_is_evicted(client: KubeClient) -> None:
    made = await client.create(PODS.path(SPACE), _pod("evicted"))
    with pytest.raises(Conflict):
        await client.evict(SPACE, "evicted", uid="another")
    await client.evict(SPACE, "evicted", uid=uid_of(made), grace_s=0)
    with pytest.raises(NotFound):
        await client.get(PODS.path(SPACE, "evicted"))


async def test_a_budget_forbids_an_eviction_for_now(client: KubeClient, guarded: str) -> None:
    with pytest.raises(Retryable):
        await client.evict(SPACE, guarded)


async def test_a_token_is_reviewed_for_its_audience(
    client: KubeClient, pod_token: tuple[str, str]
) -> None:
    token, audience = pod_token
    path, body = TOKEN_REVIEWS.path(), {"spec": {"token": token, "audiences": [audience]}}
    good = (await client.create(path, body))["status"]
    assert good["authenticated"]
    assert good["user"]["username"] == f"system:serviceaccount:{SPACE}:default"
    body["spec"]["audiences"] = ["somebody else"]
    assert not (await client.create(path, body))["status"].get("authenticated")


async def test_a_runtime_class_is_applied(client: KubeClient) -> None:
    body = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "contract"},
        "handler": "contract",
        "scheduling": {"nodeSelector": {"snap.weaversoft.io/runtime": "true"}},
    }
    path = RUNTIME_CLASSES.path(name="contract")
    try:
        made = await client.patch(path, body, PatchKind.APPLY)
        assert made["scheduling"] == body["scheduling"]
    finally:
        await client.delete(path)


async def test_a_namespace_is_an_object_without_one(client: KubeClient) -> None:
    assert name_of(await client.get(NAMESPACES.path(name=SPACE))) == SPACE

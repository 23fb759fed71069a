"""Events tell what happened, equal ones are counted, too many are dropped, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.clusters import telling
from controlplane.clusters.events import PER_OBJECT, EventRecorder, News, Subject
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import Object
from controlplane.store.records import Restore
from tests.fakes.kube_server import Fault, KubeServer

POD = Subject("c1", "Pod", "app", "a", "uid-1")
EVENTS = "/apis/events.k8s.io/v1/events"


class _Clusters:
    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def reachable(self) -> list[str]:
        return ["c1"]

    async def client(self, cluster: str) -> KubeClient:
        return self._client


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def _recording(client: KubeClient, clock: _Clock) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(_Clusters(client), clock)
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _news(note: str = "Container app restored in 0.8 s", subject: Subject = POD) -> News:
    return News(subject, "Restored", note, "Restore")


def _events(fake: KubeServer) -> list[Object]:
    return fake.all(EVENTS)


async def test_an_event_says_what_happened_to_what(client: KubeClient, fake: KubeServer) -> None:
    async with _recording(client, _Clock()) as recorder:
        recorder.tell(
            _news(), News(Subject("c1", "Node", "n1"), "StartedCold", "x", "Restore", True)
        )
        await recorder.settle()
    of_pod, of_node = _events(fake)
    assert of_pod["metadata"]["namespace"] == "a"
    assert of_pod["regarding"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "app",
        "namespace": "a",
        "uid": "uid-1",
    }
    assert (of_pod["type"], of_pod["reason"]) == ("Normal", "Restored")
    assert of_pod["note"] == "Container app restored in 0.8 s"
    assert of_pod["reportingController"]
    assert of_pod["reportingInstance"]
    assert (of_node["type"], of_node["metadata"]["namespace"]) == ("Warning", "default")


async def test_equal_news_are_one_event_for_ten_minutes(
    client: KubeClient, fake: KubeServer
) -> None:
    clock = _Clock()
    async with _recording(client, clock) as recorder:
        for _ in range(3):
            recorder.tell(_news())
        await recorder.settle()
        (event,) = _events(fake)
        assert event["series"]["count"] == 3
        clock.now += 601
        recorder.tell(_news())
        await recorder.settle()
        assert len(_events(fake)) == 2


async def test_an_event_that_has_expired_is_written_anew(
    client: KubeClient, fake: KubeServer
) -> None:
    async with _recording(client, _Clock()) as recorder:
        recorder.tell(_news())
        await recorder.settle()
        name = _events(fake)[0]["metadata"]["name"]
        fake.delete(f"/apis/events.k8s.io/v1/namespaces/a/events/{name}")
        recorder.tell(_news())
        await recorder.settle()
        assert len(_events(fake)) == 1


async def test_one_object_gets_a_few_a_minute(client: KubeClient, fake: KubeServer) -> None:
    clock = _Clock()
    async with _recording(client, clock) as recorder:
        recorder.tell(*(_news(f"note {n}") for n in range(PER_OBJECT + 5)))
        recorder.tell(_news("other", Subject("c1", "Pod", "other", "a", "uid-2")))
        await recorder.settle()
        assert (len(_events(fake)), recorder.dropped) == (PER_OBJECT + 1, 5)
        clock.now += 61
        recorder.tell(_news("later"))
        await recorder.settle()
        assert len(_events(fake)) == PER_OBJECT + 2


async def test_an_api_server_that_refuses_or_is_silent_holds_nobody_up(
    client: KubeClient, fake: KubeServer
) -> None:
    fake.allows = lambda _verb, place: place.plural != "events"
    async with _recording(client, _Clock()) as recorder:
        recorder.tell(_news())
        await recorder.settle()
        assert recorder.dropped == 1
        fake.allows = lambda _verb, _place: True
        fake.fail(Fault(times=1))
        for number in range(2000):  # more than may wait: the rest is dropped at once
            recorder.tell(_news(str(number), Subject("c1", "Pod", str(number), "a", str(number))))
        assert recorder.dropped == 1 + 2000 - 1000


def _restore(action: str, reason: str = "", start_ms: float = 800.0) -> Restore:
    return Restore(
        cluster="c1",
        node="n1",
        sequence=1,
        container_id="c",
        container_name="app",
        namespace="a",
        pod_name="pod",
        pod_uid="uid",
        image="reg/x@sha256:abc",
        action=action,
        code="",
        reason=reason,
        details="",
        mode="lazy" if action == "restored" else "",
        at="2026-01-15T10:30:00.000Z",
        prepare_ms=0,
        restore_ms=0,
        start_ms=start_ms,
    )


def test_restores_are_told_in_words() -> None:
    news = telling.of_restores(
        [
            _restore("restored"),
            _restore("cold", "Not restored: The command differs."),
            _restore("failed", "CRIU could not restore it."),
        ]
    )
    assert [one.note for one in news if one.subject.kind == "Pod"] == [
        "Container app restored lazy in 0.8 s from sha256:abc",
        "Container app started cold because the command differs",
        "Container app not restored because CRIU could not restore it",
    ]
    assert news[1].note == "Container app of a/pod restored lazy in 0.8 s from sha256:abc"
    assert [one.is_warning for one in news] == [False, False, True, True, True, True]
    [slow, _] = telling.of_restores([_restore("restored", "its CPU limit makes it slow")])
    assert slow.note == (
        "Container app restored lazy in 0.8 s from sha256:abc; its CPU limit makes it slow"
    )

"""What can't be dumped or restored is refused with its remedy; the container never stands still."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent import errors
from agent.formats.jobs import CheckpointSpec, ContainerTarget, JobId
from tests.integration.checkpoint.conftest import Pod, Workbench, new_job, until

pytestmark = pytest.mark.node


@pytest.fixture
async def counter(bench: Workbench) -> Pod:
    pod = await bench.run("counter")
    until(lambda: pod.ticks() > 1)
    return pod


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"pod_name": "nobody"}, errors.POD_NOT_FOUND, "not on this node"),
        ({"pod_uid": "another"}, errors.POD_NOT_FOUND, "not on this node"),
        ({"names": ("sidecar",)}, errors.CONTAINER_NOT_FOUND, "it has: app"),
        ({"names": ()}, errors.VALIDATION_ERROR, "no container"),
        ({"names": ("app", "app")}, errors.VALIDATION_ERROR, "twice"),
        ({"engine": "other"}, errors.CHECKPOINT_REFUSED, "use auto"),
        ({"engine": "cri", "leave_running": False}, errors.CHECKPOINT_REFUSED, "engine runc"),
        ({"engine": "kubelet", "leave_running": False}, errors.CHECKPOINT_REFUSED, "runc"),
    ],
)
async def test_what_was_asked_for(
    bench: Workbench, counter: Pod, options: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(errors.Refused, match=words) as refusal:
        await bench.checkpoint(counter, **options)
    assert refusal.value.code == code
    assert bench.leftovers() == []


async def test_a_container_that_ended(bench: Workbench) -> None:
    pod = await bench.run("counter", command=("/bin/true",))
    app = pod.containers["app"]
    async with asyncio.timeout(60):
        while (await bench.runtime.container(app)).container.state != "exited":
            pass
    with pytest.raises(errors.Refused, match="exited"):
        await bench.checkpoint(pod)


async def test_a_pod_that_would_run_code_as_root(bench: Workbench) -> None:
    pod = await bench.run("counter", pod_annotations={"org.criu.config": "/tmp/evil"})
    with pytest.raises(errors.Refused, match=r"org\.criu\.config"):
        await bench.checkpoint(pod)


async def test_process_ids_of_the_node(bench: Workbench) -> None:
    pod = await bench.run("counter", host_pid=True)
    with pytest.raises(errors.Refused, match="hostPID"):
        await bench.checkpoint(pod)


async def test_no_room(bench: Workbench, counter: Pod) -> None:
    bench.another_service(free_floor=1.0)
    with pytest.raises(errors.Refused, match="MiB") as refusal:
        await bench.checkpoint(counter)
    assert refusal.value.code == errors.INSUFFICIENT_STORAGE


async def test_a_checkpoint_is_never_overwritten(bench: Workbench, counter: Pod) -> None:
    (first,) = await bench.checkpoint(counter)
    target = ContainerTarget(first.checkpoint_id, "app")
    spec = CheckpointSpec("default", counter.name, (target,))
    with pytest.raises(errors.Refused) as refusal:
        await bench.service.checkpoint(JobId(new_job()), spec, lambda _: None)
    assert refusal.value.code == errors.CONFLICT
    assert bench.shelf.list()

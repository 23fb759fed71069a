"""Finding a pod: by the sandbox's own name, the ready one first, the newest container of each name."""

from __future__ import annotations

from collections.abc import Mapping

from agent.node import pods
from agent.runtimes.pods import Container, ContainerState, Sandbox


def a_sandbox(box_id: str, *, ready: bool, at: int, namespace: str = "default") -> Sandbox:
    return Sandbox(box_id, "web", namespace, f"uid-{box_id}", 0, ready, at, {"app": "web"}, {}, "")


def a_container(container_id: str, name: str, attempt: int, state: ContainerState) -> Container:
    return Container(
        container_id, "", name, attempt, state, "web:1", "web@sha256:0", "", attempt, {}, {}
    )


class FakeRuntime:
    """A runtime with two sandboxes of one pod, and a pod of that name elsewhere."""

    async def sandboxes(self, labels: Mapping[str, str] | None = None) -> tuple[Sandbox, ...]:
        return (
            a_sandbox("newer-but-dead", ready=False, at=3),
            a_sandbox("live", ready=True, at=2),
            a_sandbox("elsewhere", ready=True, at=9, namespace="other"),
        )

    async def containers(
        self, labels: Mapping[str, str] | None = None, sandbox_id: str = ""
    ) -> tuple[Container, ...]:
        assert sandbox_id == "live"
        return (
            a_container("c1", "app", 0, ContainerState.EXITED),
            a_container("c2", "app", 1, ContainerState.RUNNING),
            a_container("c3", "sidecar", 0, ContainerState.RUNNING),
        )


async def test_the_ready_sandbox_and_the_newest_containers_are_told() -> None:
    found = await pods.find(FakeRuntime(), "default", "web")
    assert found is not None
    assert (found.uid, found.ready, found.labels) == ("uid-live", True, (("app", "web"),))
    told = [(one.name, one.container_id, one.state) for one in found.containers]
    assert told == [("app", "c2", "running"), ("sidecar", "c3", "running")]


async def test_a_pod_of_another_namespace_is_not_it() -> None:
    assert await pods.find(FakeRuntime(), "prod", "web") is None

"""Which pods run here, by the container runtime's own word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent.node.facts import FoundPod, PodContainer
from agent.runtimes import pods


class Runtime(Protocol):
    """The container runtime, as far as pods are asked for."""

    async def sandboxes(self, labels: Mapping[str, str] = ...) -> tuple[pods.Sandbox, ...]:
        """Sandboxes that carry all of ``labels``."""

    async def containers(
        self, labels: Mapping[str, str] = ..., sandbox_id: str = ""
    ) -> tuple[pods.Container, ...]:
        """Containers of a sandbox, or of all."""


async def find(runtime: Runtime, namespace: str, pod_name: str) -> FoundPod | None:
    """The pod ``namespace``/``pod_name`` with the newest container of each name; None: not here.

    Sandboxes are compared by their metadata, which the kubelet gave, not by labels alone.

    Raises:
        SnapError: the runtime does not answer.
    """
    every = await runtime.sandboxes()
    named = [box for box in every if (box.namespace, box.name) == (namespace, pod_name)]
    if not named:
        return None
    sandbox = max(named, key=lambda box: (box.ready, box.created_at_ns))
    return _found(sandbox, await runtime.containers(sandbox_id=sandbox.id))


async def everything(runtime: Runtime) -> tuple[FoundPod, ...]:
    """Every pod whose sandbox is ready, by namespace and name.

    Raises:
        SnapError: the runtime does not answer.
    """
    ready = [box for box in await runtime.sandboxes() if box.ready]
    of_sandbox: dict[str, list[pods.Container]] = {box.id: [] for box in ready}
    for container in await runtime.containers():
        if container.sandbox_id in of_sandbox:
            of_sandbox[container.sandbox_id].append(container)
    ready.sort(key=lambda box: (box.namespace, box.name))
    return tuple(_found(box, of_sandbox[box.id]) for box in ready)


def _found(sandbox: pods.Sandbox, containers: Iterable[pods.Container]) -> FoundPod:
    """A pod with the newest container of each name."""
    newest: dict[str, pods.Container] = {}
    for one in containers:
        known = newest.get(one.name)
        if known is None or (known.attempt, known.created_at_ns) < (one.attempt, one.created_at_ns):
            newest[one.name] = one
    return FoundPod(
        uid=sandbox.uid,
        name=sandbox.name,
        namespace=sandbox.namespace,
        ready=sandbox.ready,
        labels=tuple(sorted(sandbox.labels.items())),
        containers=tuple(_container(newest[name]) for name in sorted(newest)),
    )


def _container(one: pods.Container) -> PodContainer:
    return PodContainer(
        name=one.name,
        container_id=one.id,
        state=one.state,
        image=one.image,
        image_ref=one.image_ref,
    )

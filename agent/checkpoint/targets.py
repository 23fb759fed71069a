"""From the names in a job to the containers that run here, by the container runtime's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agent import errors
from agent.formats.jobs import CheckpointSpec, ContainerTarget
from agent.runtimes import pods
from agent.runtimes.pods import Container, ContainerDetail, ContainerState, Sandbox, SandboxDetail


class Runtime(Protocol):
    """The container runtime, as far as a checkpoint asks it (``runtimes.cri.Client``)."""

    async def sandboxes(self, labels: Mapping[str, str] = ...) -> tuple[Sandbox, ...]:
        """Pod sandboxes that carry all of ``labels``."""

    async def sandbox(self, sandbox_id: str) -> SandboxDetail:
        """One sandbox in full."""

    async def containers(
        self, labels: Mapping[str, str] = ..., sandbox_id: str = ""
    ) -> tuple[Container, ...]:
        """Containers of a sandbox."""

    async def container(self, container_id: str) -> ContainerDetail:
        """One container in full."""

    async def image(self, name: str) -> pods.Image | None:
        """One image by any of its names."""

    async def checkpoint_container(
        self, container_id: str, location: str, timeout_s: float
    ) -> None:
        """Write a checkpoint archive to ``location``."""


@dataclass(frozen=True, slots=True)
class Found:
    """A container that was asked for and runs."""

    target: ContainerTarget
    detail: ContainerDetail
    sandbox: SandboxDetail

    @property
    def id(self) -> str:
        """The container's id."""
        return self.detail.container.id

    @property
    def name(self) -> str:
        """The container's name in its pod."""
        return self.detail.container.name


async def find(runtime: Runtime, spec: CheckpointSpec) -> tuple[Found, ...]:
    """The containers of ``spec``, all running, in its order.

    Raises:
        NotFound: no such pod (POD_NOT_FOUND) or container (CONTAINER_NOT_FOUND) on this node.
        Refused: one does not run, or is not the one that was meant.
    """
    if not spec.containers:
        raise errors.Refused("The job names no container.", code=errors.VALIDATION_ERROR)
    sandbox = await runtime.sandbox((await _sandbox(runtime, spec)).id)
    newest: dict[str, Container] = {}
    for one in await runtime.containers(sandbox_id=sandbox.sandbox.id):
        known = newest.get(one.name)
        if known is None or (known.attempt, known.created_at_ns) < (one.attempt, one.created_at_ns):
            newest[one.name] = one
    chosen = [(target, _choose(newest, target, spec)) for target in spec.containers]
    if len({one.id for _, one in chosen}) < len(chosen):
        raise errors.Refused("The job names a container twice.", code=errors.VALIDATION_ERROR)
    return tuple([Found(t, await runtime.container(one.id), sandbox) for t, one in chosen])


async def _sandbox(runtime: Runtime, spec: CheckpointSpec) -> Sandbox:
    labels = {pods.LABEL_POD_NAME: spec.pod_name, pods.LABEL_POD_NAMESPACE: spec.namespace}
    named = [
        one
        for one in await runtime.sandboxes(labels)
        if (one.namespace, one.name) == (spec.namespace, spec.pod_name)
        and spec.pod_uid in ("", one.uid)
    ]
    pod = f"Pod {spec.namespace}/{spec.pod_name}"
    if not named:
        raise errors.NotFound(f"{pod} is not on this node.", code=errors.POD_NOT_FOUND)
    sandbox = max(named, key=lambda one: (one.ready, one.created_at_ns))
    if not sandbox.ready:
        raise errors.Refused(f"{pod} does not run any more; checkpoint a running pod.")
    return sandbox


def _choose(
    containers: Mapping[str, Container], target: ContainerTarget, spec: CheckpointSpec
) -> Container:
    name = target.container_name
    if not name and len(containers) == 1:
        (name,) = containers
    pod = f"pod {spec.namespace}/{spec.pod_name}"
    if name not in containers:
        there = ", ".join(sorted(containers)) or "none"
        message = f"There is no container {name or '(no name given)'} in {pod}; it has: {there}."
        raise errors.NotFound(message, code=errors.CONTAINER_NOT_FOUND)
    found = containers[name]
    if found.state is not ContainerState.RUNNING:
        message = f"Container {name} of {pod} is {found.state}; only running ones can be dumped."
        raise errors.Refused(message)
    meant = target.container_id.rpartition("://")[2]  # Kubernetes writes containerd://<id>
    if meant not in ("", found.id):
        raise errors.Refused(f"Container {name} of {pod} was restarted meanwhile; ask again.")
    return found

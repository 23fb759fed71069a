"""What this room needs of its neighbours; ``composing.py`` plugs them in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.store.records import Job
from controlplane.store.requests import Idempotency, NewJob


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """A container that a node's runtime told of; ``state``: created, running, exited, unknown."""

    name: str
    container_id: str
    state: str
    image_ref: str = ""


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod, and the node that it was found on."""

    node: str
    pod_uid: str
    containers: tuple[FoundContainer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


class Jobs(Protocol):
    """The job table (``jobs.JobService``)."""

    async def start(self, request: NewJob) -> Job: ...

    async def repeated(self, username: str, key: Idempotency | None) -> Job | None: ...

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job once it has ended, or as it is after ``timeout_s``."""
        ...


class Registries(Protocol):
    """The registries themselves (``registries``)."""

    async def delete_manifest(self, name: str, repository: str, digest: str) -> None:
        """Delete a manifest; one that is gone is no error.

        Args:
            name: of the registry config; ``repository`` is without the host.

        Raises:
            Failed: REGISTRY_CONNECTION_FAILED, or the registry refuses to delete.
        """
        ...


class Clusters(Protocol):
    """Which cluster is meant (``clusters.directory``)."""

    async def resolve(self, name: str = "", kube_api_address: str = "") -> str: ...


class Nodes(Protocol):
    """The nodes, by their agents (``link.Fleet``)."""

    async def find_pod(
        self, cluster: str, namespace: str, pod_name: str, node: str = ""
    ) -> FoundPod:
        """The pod.

        Raises:
            NotFound: POD_NOT_FOUND, NODE_NOT_FOUND.
            AgentUnavailable: nobody who could know is connected.
        """
        ...

    def require(self, cluster: str, node: str) -> None:
        """Raise AgentUnavailable or NotFound unless the node's agent is there."""
        ...

    async def open_archive(
        self, node: tuple[str, str], checkpoint_id: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """(size of the whole archive, the bytes asked for)."""
        ...

    async def open_image(
        self, node: tuple[str, str], digest: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """As ``open_archive``, of an image in the node's cache; NotFound: it is not there."""
        ...

    def reachable(self, cluster: str = "") -> Sequence[tuple[str, str]]:
        """(cluster, node) of all agents that are there, of one cluster or of all; sorted."""
        ...


class Templates(Protocol):
    """What pods are made of (``restoring.PodRestoring``)."""

    async def template(
        self, cluster: str, namespace: str, pod: str, uid: str
    ) -> dict[str, Any] | None:
        """The template of a live pod; None where no API server has it."""
        ...


class Announcer(Protocol):
    """Tells a cluster's connected nodes what they may restore (``link``)."""

    async def added(self, cluster: str, digests: Sequence[str]) -> None: ...

    async def removed(self, cluster: str) -> None: ...

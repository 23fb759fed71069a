"""What restoring needs from other rooms, as small protocols; ``app.py`` plugs the real ones in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess, Report
from agent.runtimes import pods


class Pods(Protocol):
    """What the container runtime itself knows of its pods (``runtimes.cri.Client``).

    Before the answer lists only: while containerd's shim waits for the wrapper's ``create`` it answers nothing about
    this pod, and a status call would hang for seconds.
    """

    async def sandboxes(self, labels: Mapping[str, str] = ..., /) -> tuple[pods.Sandbox, ...]:
        """All sandboxes, whatever their state; raises Retryable when the runtime does not answer."""

    async def sandbox(self, sandbox_id: str) -> pods.SandboxDetail:
        """One sandbox in full; raises NotFound, Retryable."""

    async def containers(
        self, labels: Mapping[str, str] = ..., sandbox_id: str = ...
    ) -> tuple[pods.Container, ...]:
        """The containers of a sandbox, whatever their state."""

    async def image(self, name: str) -> pods.Image | None:
        """The image ``name`` (any reference or id) of this node; None: it is not here."""


class Fetcher(Protocol):
    """Brings checkpoint images into the node's cache."""

    async def fetch(
        self, image: str, access: RegistryAccess | None, report: Report, *, hurried: bool = False
    ) -> Path:
        """The folder with the parts of ``image`` (``<host>/<repository>@sha256:…``).

        Every byte was checked against the digest; its memory may be a chain of folders. At once when it is there
        already; ``hurried``: a registry that is not there at once is given up at once.
        """

    def hold(self, wanted: Digest) -> AbstractContextManager[Path]:
        """Keep an image that is here from being evicted for the block; raises NotFound."""

    async def flat(self, wanted: Digest) -> Path:
        """The same with flat memory, of an image that is held; raises Refused, Broken."""


class Credentials(Protocol):
    """Read-only registry credentials, as the control plane gave them."""

    def access(self, image: str) -> RegistryAccess | None:
        """How to read ``image``; None: nothing special is known."""

    async def told(self, within_s: float) -> None:
        """Wait ``within_s`` at most until an agent that has just begun was told of registries at all."""

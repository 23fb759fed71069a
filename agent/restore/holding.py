"""Checkpoint images that restores read from: fetched in time or for the next pod, and held until nobody reads them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent import errors
from agent.formats import digest
from agent.formats.jobs import Progress
from agent.restore.cold import StartCold
from agent.restore.ports import Credentials, Fetcher


@dataclass(frozen=True, slots=True)
class HeldImages:
    """Fetches images and keeps them from being evicted, one for each container.

    Attributes:
        spawn: keeps a task that outlives the decision: a fetch goes on for the next pod.
    """

    fetcher: Fetcher
    credentials: Credentials
    spawn: Callable[[asyncio.Task[Path]], None]
    _held: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    async def fetch(self, image: str, deadline: float) -> None:
        """Have ``image`` on this node by ``deadline`` (``time.monotonic()``).

        Raises:
            StartCold: it can't be, or not in time; then it goes on.
        """
        try:
            access = self.credentials.access(image)
            if access is None and not self._is_here(digest_of(image)):
                await self.credentials.told(deadline - time.monotonic())
                access = self.credentials.access(image)
            task = asyncio.ensure_future(self.fetcher.fetch(image, access, _silent, hurried=True))
            task.set_name(f"fetch of {image}")
            self.spawn(task)
            await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0))
            if task.done():
                task.result()
                return
        except errors.SnapError as cause:
            reason = f"Not restored: the checkpoint can't be fetched: {cause.message}"
            raise StartCold("fetch_failed", reason, cause.details) from cause
        raise StartCold(
            "fetch_not_ready",
            "Not restored: the checkpoint is not on this node yet; it is being fetched.",
        )

    def _is_here(self, image: digest.Digest) -> bool:
        try:
            with self.fetcher.hold(image):
                return True
        except errors.NotFound:
            return False

    async def flat(self, image: digest.Digest, deadline: float) -> Path:
        """The folder of the same parts with flat memory, of an image that is held.

        Raises:
            Retryable: not by ``deadline`` (``time.monotonic()``); then it goes on.
            Refused, Broken: it can't be made.
        """
        task = asyncio.ensure_future(self.fetcher.flat(image))
        task.set_name(f"flattening of {image}")
        self.spawn(task)
        await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0))
        if not task.done():
            raise errors.Retryable("its memory could not be made flat in time")
        return task.result()

    def hold(self, container_id: str, image: digest.Digest) -> Path:
        """Keep ``image``, which is here, for the container; returns the folder of its parts.

        Raises:
            StartCold: it has been evicted meanwhile.
        """
        self.release(container_id)
        stack = contextlib.ExitStack()
        try:
            parts = stack.enter_context(self.fetcher.hold(image))
        except errors.NotFound as cause:
            raise StartCold(
                "fetch_failed", "Not restored: the checkpoint was evicted at once."
            ) from cause
        self._held[container_id] = stack
        return parts

    def release(self, container_id: str) -> None:
        """The image is not read for this container any longer."""
        if stack := self._held.pop(container_id, None):
            stack.close()

    def hold_again(self, container_id: str, image: str) -> None:
        """Keep the image that an earlier agent began to restore the container from."""
        with contextlib.suppress(StartCold):  # gone: then whoever reads it has it open
            self.hold(container_id, digest_of(image))


def digest_of(image: str) -> digest.Digest:
    """The digest that ``image`` names; a tag alone can be moved to another image by anyone who may push.

    Raises:
        StartCold: it names none.
    """
    name, _, named = image.rpartition("@")
    if not name or not digest.is_digest(named):
        raise StartCold(
            "malformed", f"Not restored: {image[:200]} is not <registry>/<repository>@sha256:…."
        )
    return digest.parse(named)


def _silent(_: Progress) -> None:
    """Nobody looks at the progress of a fetch that a pod waits for."""

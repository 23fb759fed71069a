"""Whose container it is that asks: by its bundle, and by the runtime's word, never by what the pod says of itself."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from agent import errors
from agent.restore import asking, compatibility
from agent.restore.asking import Asker
from agent.restore.cold import StartCold
from agent.restore.inbox import Request
from agent.restore.ledger import Ledger
from agent.restore.ports import Pods
from agent.runtimes import pods
from agent.runtimes.commands import Host

_RUNTIME_S: Final = 5.0
_CRIO_IMAGE_ID: Final = "io.kubernetes.cri-o.ImageRef"


@dataclass(slots=True)
class Subject:
    """Whom the decision is about, as far as it is known yet."""

    container_name: str = ""
    namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    sandbox_id: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Identifier:
    """Tells who asks. ``ledger`` knows which containers have been restored already."""

    host: Host
    runtime: Pods
    ledger: Ledger

    async def asker(self, request: Request) -> Asker:
        """The container that is being created, by its bundle.

        Raises:
            StartCold: the bundle can't be read, or the pod names no checkpoint for it.
        """
        config = self.host.path(f"{request.bundle}/config.json")
        try:
            asker = await asyncio.to_thread(asking.read, config)
        except (OSError, ValueError) as cause:
            raise StartCold("malformed", f"Not restored: {cause}.") from cause
        if asker is None or not asker.image:
            raise StartCold("", "The pod names no checkpoint for this container.")
        return asker

    async def identify(
        self, request: Request, asker: Asker, subject: Subject
    ) -> pods.Container | None:
        """Who the pod is, by the runtime's word; returns the container if the runtime knows it.

        Raises:
            StartCold: the runtime does not tell, tells otherwise, or this is a restart.
        """
        try:
            async with asyncio.timeout(_RUNTIME_S):
                sandboxes = {found.id: found for found in await self.runtime.sandboxes()}
                listed = await self.runtime.containers(sandbox_id=asker.sandbox_id)
        except (errors.SnapError, TimeoutError) as cause:
            reason = f"Not restored: the runtime does not tell whose container it is: {cause}"
            raise StartCold("no_pod", reason) from cause
        if (sandbox := sandboxes.get(asker.sandbox_id)) is None:
            raise StartCold("no_pod", "Not restored: the runtime knows no such pod.")
        containers = {found.id: found for found in listed}
        container = containers.get(request.container_id)  # CRI-O lists it only once it is made
        subject.namespace, subject.pod_name = sandbox.namespace, sandbox.name
        subject.pod_uid = sandbox.uid
        self._check_attempt(asker, container)
        return container

    def _check_attempt(self, asker: Asker, container: pods.Container | None) -> None:
        """Only the first start is restored, unless the pod wants restarts restored too."""
        attempts = [asker.attempt or 0]
        if container is not None:
            if (container.name, container.sandbox_id) != (asker.container_name, asker.sandbox_id):
                raise StartCold("malformed", "Not restored: the bundle is of another container.")
            attempts.append(container.attempt)
        again = self.ledger.has(asker.sandbox_id, mark(asker))
        if (again or max(attempts) > 0) and not asker.again:
            why = "a restart starts cold"
            if max(attempts) == 0:
                why = "it was restored before, or about to be when the agent ended"
            raise StartCold("restarted", f"Not restored: {why}.")

    async def image_digests(self, asker: Asker, container: pods.Container | None) -> frozenset[str]:
        """What the image of the new container is known by."""
        annotated = (asker.spec.get("annotations") or {}).get(_CRIO_IMAGE_ID, "")
        names = [annotated, container.image_id, container.image_ref] if container else [annotated]
        for name in names:
            if name:
                with contextlib.suppress(errors.SnapError):  # then what is known has to do
                    image = await self.runtime.image(name)
                    names += [image.id, *image.repo_digests] if image else []
                    break
        return compatibility.digests_in(*names)


def mark(asker: Asker) -> str:
    """The ledger's word for the container in its sandbox."""
    return f"container-{asker.container_name}"

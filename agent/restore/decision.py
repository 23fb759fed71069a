"""Restore or start cold: every check, in the order that reveals least and costs least, then the preparation."""

from __future__ import annotations

import asyncio
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent import errors
from agent.formats import core_images, digest, layout, template
from agent.restore import (
    checking,
    comparison,
    holding,
    identifying,
    laziness,
    preparation,
    process_numbers,
    rootfs,
    surroundings,
)
from agent.restore.asking import Asker
from agent.restore.cold import StartCold
from agent.restore.compatibility import NodeTraits
from agent.restore.folders import Folders
from agent.restore.grants import Grants
from agent.restore.holding import HeldImages
from agent.restore.identifying import Identifier, Subject
from agent.restore.inbox import Answer, Request
from agent.restore.ledger import Ledger
from agent.restore.ports import Pods
from agent.restore.post_restore import Hook
from agent.restore.undoing import UndoList
from agent.runtimes import addresses
from agent.runtimes.commands import Host

# From the request's own time. The wrapper waits 20 s: 5 s stay for a node that is slow to go on.
PREPARED_WITHIN_S: Final = 15.0
FETCHED_WITHIN_S: Final = 10.0
FLAT_WITHIN_S: Final = 12.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A container to prepare, and how its memory is to come: by the pod's word or the checkpoint's."""

    new: preparation.NewContainer
    image: digest.Digest
    oci_runtime: str
    image_digests: frozenset[str]
    mode: str
    by_pod: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A restore that has passed all checks.

    Attributes:
        answer: as far as it is known.
        prepare: writes all that the restore needs and completes the answer; raises StartCold if it can't be, with
            what was done in the undo list.
    """

    answer: Answer
    prepare: Callable[[], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides. Nothing on the node is touched before all checks have passed.

    Attributes:
        images: brings checkpoint images here; one that is decided on is held until it is released.
        traits: this node's, asked anew each time (CRIU may have been upgraded).
        node: this node's name, for the workloads' hooks.
    """

    host: Host
    folders: Folders
    runtime: Pods
    images: HeldImages
    grants: Grants
    ledger: Ledger
    traits: Callable[[], NodeTraits]
    node: str = ""

    async def decide(self, request: Request, subject: Subject) -> Decision:
        """The answer to ``request``: restore, and how to prepare that.

        Args:
            request: with ``verb=ask``.
            subject: filled in as things become known, for the record.

        Raises:
            StartCold: it must not or can't be restored.
        """
        deadline = time.monotonic() - request.age_s + PREPARED_WITHIN_S
        identifier = Identifier(self.host, self.runtime, self.ledger)
        asker = await identifier.asker(request)
        subject.container_name, subject.sandbox_id = asker.container_name, asker.sandbox_id
        subject.image = asker.image
        container = await identifier.identify(request, asker, subject)
        image_digest = holding.digest_of(asker.image)
        if refusal := self.grants.allows(image_digest, subject.namespace):
            raise StartCold("no_grant", f"Not restored: {refusal}.")
        await self.images.fetch(asker.image, deadline - PREPARED_WITHIN_S + FETCHED_WITHIN_S)
        parts = self.images.hold(request.container_id, image_digest)
        self.ledger.set(asker.sandbox_id, identifying.mark(asker))
        wanted = _Wanted(
            new=self._new_container(request, asker, subject),
            image=image_digest,
            oci_runtime=_runtime_kind(request.runtime),
            image_digests=await identifier.image_digests(asker, container),
            mode=asker.mode or self.grants.mode(image_digest, subject.namespace),
            by_pod=bool(asker.mode),
        )
        answer, work = await self._decided(wanted, parts, deadline)

        async def prepare() -> Answer:
            ready = replace(answer, asides=await self._prepare(work))
            if asker.hook is None:
                return ready
            return await self._hooked(ready, asker.hook, subject, wanted.new)

        return Decision(answer, prepare)

    async def _decided(
        self, wanted: _Wanted, parts: Path, deadline: float
    ) -> tuple[Answer, preparation.Preparation]:
        """The last checks; nothing is written yet."""
        new, traits = wanted.new, self.traits()
        here = checking.Here(self.host, traits, wanted.oci_runtime, wanted.image_digests)
        old = await asyncio.to_thread(checking.check, parts, new, here)
        await checking.check_addresses(self.host, old, new)
        situation = laziness.Situation(
            asked=wanted.mode,
            by="The pod" if wanted.by_pod else "The checkpoint",
            oci_runtime=wanted.oci_runtime,
            criu_features=traits.criu_features,
            lazy_bytes=old.lazy_bytes,
            address_spaces=old.address_spaces,
        )
        how = laziness.choose(situation)
        # the page daemon does not start over a chain
        if how.lazy or core_images.is_sooner_flat(old.memory_bytes, old.address_spaces):
            try:
                flat_by = deadline - PREPARED_WITHIN_S + FLAT_WITHIN_S
                parts = await self.images.flat(wanted.image, flat_by)
            except errors.SnapError as cause:
                if how.lazy:
                    how = laziness.Choice(False, f"Lazily it can't be: {cause.message}")
        answer = Answer(
            restore=True,
            lazy=how.lazy,
            fill_s=0 if how.lazy else laziness.fill_s(situation),
            reason=comparison.slowness(new.template),
            mode_reason=how.reason,
            images=self._on_node(parts / layout.CHECKPOINT_DIR),
            work=new.work,
            uts=rootfs.namespace(new.spec, "uts"),
            memory_bytes=old.memory_bytes,
        )
        return answer, preparation.Preparation(self.host, self.ledger, new, old, deadline)

    async def _prepare(self, work: preparation.Preparation) -> tuple[str, ...]:
        try:
            asides = await asyncio.to_thread(work.run)
            await rootfs.refresh(self.host, work.new.bundle, work.new.spec)
            await asyncio.to_thread(work.mount_points)
            images = work.old.parts / layout.CHECKPOINT_DIR
            await process_numbers.keep_apart(self.host, work.new.spec, images)
        except preparation.TooLate as cause:
            raise StartCold(
                "too_late", "Not restored: its files could not be written in time."
            ) from cause
        except errors.SnapError as cause:
            raise StartCold.unfit(cause) from cause
        except (OSError, ValueError, tarfile.TarError) as cause:
            raise StartCold(
                "prepare_failed", f"Not restored: its files can't be written: {cause}."
            ) from cause
        return asides

    async def _hooked(
        self, answer: Answer, hook: Hook, subject: Subject, new: preparation.NewContainer
    ) -> Answer:
        """``answer`` with the hook, what it is told in the new container's root, and the wrapper to wait for it."""
        try:
            network = rootfs.namespace(new.spec, "network")
            there = await addresses.of_namespace(self.host, network) if network else frozenset()
            hooked = await asyncio.to_thread(
                surroundings.bring,
                surroundings.Newcomer(self.host, new, hook),
                surroundings.Surroundings(
                    pod_name=subject.pod_name,
                    namespace=subject.namespace,
                    pod_uid=subject.pod_uid,
                    pod_ips=surroundings.own_addresses(there),
                    node=self.node,
                    container=subject.container_name,
                    checkpoint=subject.image,
                    restored_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                ),
            )
        except errors.SnapError as cause:
            raise StartCold.unfit(cause) from cause
        except (OSError, ValueError) as cause:
            reason = f"Not restored: what its hook is told can't be written: {cause}."
            raise StartCold("prepare_failed", reason) from cause
        return replace(answer, hooked=hooked)

    def _on_node(self, path: Path) -> str:
        return f"/{path.relative_to(self.host.root)}"

    def _new_container(
        self, request: Request, asker: Asker, subject: Subject
    ) -> preparation.NewContainer:
        state = f"{self.folders.state}/{request.container_id}"
        return preparation.NewContainer(
            container_id=request.container_id,
            sandbox_id=asker.sandbox_id,
            pod_uid=subject.pod_uid,
            bundle=request.bundle,
            spec=asker.spec,
            template=template.from_spec(asker.spec),
            conf=f"{state}.criu.conf",
            work=f"{self.folders.work}/{request.container_id}",
            undo=UndoList(self.host.path(f"{state}.undo")),
        )


def _runtime_kind(runtime: str) -> str:
    return "crun" if "crun" in runtime.rpartition("/")[2] else "runc"

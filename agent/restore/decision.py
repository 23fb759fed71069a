"""Restore or start cold: every check, in the order that reveals least and costs least, then the preparation."""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent import errors
from agent.formats import core_images, digest, fingerprint, layout, template
from agent.formats.jobs import Progress
from agent.restore import (
    asking,
    comparison,
    compatibility,
    host_files,
    laziness,
    preparation,
    privileges,
    rootfs,
    surroundings,
)
from agent.restore.asking import Asker
from agent.restore.compatibility import NodeTraits
from agent.restore.grants import Grants
from agent.restore.inbox import Answer, Request
from agent.restore.ledger import Ledger
from agent.restore.ports import Credentials, Fetcher, Pods
from agent.restore.post_restore import Hook
from agent.restore.undoing import UndoList
from agent.runtimes import addresses, pods
from agent.runtimes.commands import Host

# From the request's own time. The wrapper waits 20 s: 5 s stay for a node that is slow to go on.
PREPARED_WITHIN_S: Final = 15.0
FETCHED_WITHIN_S: Final = 10.0
_RUNTIME_S: Final = 5.0
_CRIO_IMAGE_ID: Final = "io.kubernetes.cri-o.ImageRef"


class StartCold(Exception):
    """This container is to start cold. ``code`` is short, ``reason`` one sentence, ``details`` a tool's words."""

    def __init__(self, code: str, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.details = details


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are on the node.

    Attributes:
        state: the wrapper's state and undo lists (``/run/snap/state``).
        work: CRIU's logs of restores, one folder for each container (``/var/lib/snap/restores``).
    """

    state: str = "/run/snap/state"
    work: str = "/var/lib/snap/restores"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A container to prepare, who asked, and how its memory is to come: by the pod's word or the checkpoint's."""

    request: Request
    new: preparation.NewContainer
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
class Decider:
    """Decides. Nothing on the node is touched before all checks have passed.

    Attributes:
        traits: this node's, asked anew each time (CRIU may have been upgraded).
        spawn: keeps a task that outlives the decision: a fetch goes on for the next pod.
        node: this node's name, for the workloads' hooks.
        holds: images that restores read from, by container; ``release`` lets go of one.
    """

    host: Host
    folders: Folders
    runtime: Pods
    fetcher: Fetcher
    credentials: Credentials
    grants: Grants
    ledger: Ledger
    traits: Callable[[], NodeTraits]
    spawn: Callable[[asyncio.Task[Path]], None]
    node: str = ""
    holds: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    async def decide(self, request: Request, subject: Subject) -> Decision:
        """The answer to ``request``: restore, and how to prepare that.

        Args:
            request: with ``verb=ask``.
            subject: filled in as things become known, for the record.

        Raises:
            StartCold: it must not or can't be restored.
        """
        deadline = time.monotonic() - request.age_s + PREPARED_WITHIN_S
        asker = await self._asker(request)
        subject.container_name, subject.sandbox_id = asker.container_name, asker.sandbox_id
        subject.image = asker.image
        container = await self._identify(request, asker, subject)
        image_digest = _digest(asker.image)
        if refusal := self.grants.allows(image_digest, subject.namespace):
            raise StartCold("no_grant", f"Not restored: {refusal}.")
        await self._fetch(asker.image, deadline - PREPARED_WITHIN_S + FETCHED_WITHIN_S)
        parts = self._hold(request.container_id, image_digest)
        self.ledger.set(asker.sandbox_id, f"container-{asker.container_name}")
        new = self._new_container(request, asker, subject)
        images = await self._image_digests(asker, container)
        mode = asker.mode or self.grants.mode(image_digest, subject.namespace)
        wanted = _Wanted(request, new, mode, by_pod=bool(asker.mode))
        answer, work = await self._decided(wanted, parts, images, deadline)

        async def prepare() -> Answer:
            ready = replace(answer, asides=await self._prepare(work))
            if asker.hook is None:
                return ready
            return await self._hooked(ready, asker.hook, subject, new)

        return Decision(answer, prepare)

    async def _asker(self, request: Request) -> Asker:
        config = self.host.path(f"{request.bundle}/config.json")
        try:
            asker = await asyncio.to_thread(asking.read, config)
        except (OSError, ValueError) as cause:
            raise StartCold("malformed", f"Not restored: {cause}.") from cause
        if asker is None or not asker.image:
            raise StartCold("", "The pod names no checkpoint for this container.")
        return asker

    async def _identify(
        self, request: Request, asker: Asker, subject: Subject
    ) -> pods.Container | None:
        """Who the pod is, by the runtime's word; returns the container if the runtime knows it."""
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
        attempts = [asker.attempt or 0]
        if container is not None:
            if (container.name, container.sandbox_id) != (asker.container_name, asker.sandbox_id):
                raise StartCold("malformed", "Not restored: the bundle is of another container.")
            attempts.append(container.attempt)
        again = self.ledger.has(asker.sandbox_id, f"container-{asker.container_name}")
        if (again or max(attempts) > 0) and not asker.again:
            raise StartCold("restarted", "Not restored: a restart starts cold.")
        return container

    async def _image_digests(
        self, asker: Asker, container: pods.Container | None
    ) -> frozenset[str]:
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

    async def _fetch(self, image: str, deadline: float) -> None:
        try:
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

    def _hold(self, container_id: str, image: digest.Digest) -> Path:
        self.release(container_id)
        stack = contextlib.ExitStack()
        try:
            parts = stack.enter_context(self.fetcher.hold(image))
        except errors.NotFound as cause:
            raise StartCold(
                "fetch_failed", "Not restored: the checkpoint was evicted at once."
            ) from cause
        self.holds[container_id] = stack
        return parts

    def release(self, container_id: str) -> None:
        """The image is not read for this container any longer."""
        if stack := self.holds.pop(container_id, None):
            stack.close()

    def hold_again(self, container_id: str, image: str) -> None:
        """Keep the image that an earlier agent began to restore the container from."""
        with contextlib.suppress(StartCold):  # gone: then whoever reads it has it open
            self._hold(container_id, _digest(image))

    async def _decided(
        self, wanted: _Wanted, parts: Path, image_digests: frozenset[str], deadline: float
    ) -> tuple[Answer, preparation.Preparation]:
        """The last checks; nothing is written yet."""
        new, kind = wanted.new, _runtime_kind(wanted.request.runtime)
        old = await asyncio.to_thread(self._checked, parts, new, kind, image_digests)
        await self._check_addresses(old.fingerprint.addresses, new.spec)
        how = laziness.choose(
            laziness.Situation(
                asked=wanted.mode,
                by="The pod" if wanted.by_pod else "The checkpoint",
                oci_runtime=kind,
                criu_features=self.traits().criu_features,
                lazy_bytes=old.lazy_bytes,
                address_spaces=old.address_spaces,
                is_flat=not (parts / layout.CHECKPOINT_DIR / "parent").exists(),
            )
        )
        answer = Answer(
            restore=True,
            lazy=how.lazy,
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
        except preparation.TooLate as cause:
            raise StartCold(
                "too_late", "Not restored: its files could not be written in time."
            ) from cause
        except errors.SnapError as cause:
            raise StartCold("unfit", f"Not restored: {cause.message}", cause.details) from cause
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
            raise StartCold("unfit", f"Not restored: {cause.message}", cause.details) from cause
        except (OSError, ValueError) as cause:
            reason = f"Not restored: what its hook is told can't be written: {cause}."
            raise StartCold("prepare_failed", reason) from cause
        return replace(answer, hooked=hooked)

    async def _check_addresses(self, wanted: tuple[str, ...], spec: dict[str, Any]) -> None:
        """CRIU would fail at a socket that is bound to an address which this pod has not."""
        if not wanted:
            return
        try:
            there = await addresses.of_namespace(self.host, rootfs.namespace(spec, "network"))
        except errors.SnapError as cause:
            raise StartCold("unfit", f"Not restored: {cause.message}", cause.details) from cause
        if missing := sorted(set(wanted) - there):
            raise StartCold(
                "address",
                f"Not restored: it listens at {missing[0]}, an address of the old pod that this one "
                "has not; have it listen at any address (0.0.0.0, ::).",
            )

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

    def _checked(
        self,
        parts: Path,
        new: preparation.NewContainer,
        oci_runtime: str,
        image_digests: frozenset[str],
    ) -> preparation.Checkpoint:
        """The checkpoint in ``parts``, if it may become ``new`` here. Blocks."""
        images = parts / layout.CHECKPOINT_DIR
        old = _read(parts)
        if reason := compatibility.obstacle(
            old.fingerprint, self.traits(), oci_runtime=oci_runtime, image_digests=image_digests
        ):
            raise StartCold("incompatible", f"Not restored: {reason}.")
        try:
            excess = privileges.excess(core_images.threads(images), old.template, new.template)
        except (OSError, ValueError) as cause:
            raise StartCold("damaged", f"Not restored: {cause}.") from cause
        if reason := comparison.difference(
            old.template,
            new.template,
            memory_bytes=old.memory_bytes,
            is_there=lambda path: self.host.path(path).exists(),
        ):
            raise StartCold("differs", f"Not restored: {reason}.")
        if excess:
            raise StartCold("privileges", f"Not restored: {excess}.")
        if reason := host_files.obstacle(
            self.host, old.fingerprint.host_files, new.template.mounts
        ):
            raise StartCold("host_files", f"Not restored: {reason}.")
        return old


def _read(parts: Path) -> preparation.Checkpoint:
    try:
        known, pod = fingerprint.read(parts), template.read(parts)
        memory = core_images.memory(parts / layout.CHECKPOINT_DIR)
        sizes = memory.pages_bytes, memory.lazy_bytes, memory.address_spaces
        return preparation.Checkpoint(parts, known, pod, *sizes)
    except FileNotFoundError as cause:
        missing = Path(str(cause.filename)).name
        raise StartCold("damaged", f"Not restored: the checkpoint has no {missing}.") from cause
    except (OSError, ValueError) as cause:
        raise StartCold("damaged", f"Not restored: {cause}.") from cause


def _digest(image: str) -> digest.Digest:
    """The digest that ``image`` names; a tag alone can be moved to another image by anyone who may push."""
    name, _, named = image.rpartition("@")
    if not name or not digest.is_digest(named):
        raise StartCold(
            "malformed", f"Not restored: {image[:200]} is not <registry>/<repository>@sha256:…."
        )
    return digest.parse(named)


def _runtime_kind(runtime: str) -> str:
    return "crun" if "crun" in runtime.rpartition("/")[2] else "runc"


def _silent(_: Progress) -> None:
    """Nobody looks at the progress of a fetch that a pod waits for."""

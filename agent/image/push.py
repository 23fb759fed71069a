"""Pushing a checkpoint: its parts become layers on the way, and the manifest makes them visible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Broken
from agent.formats import digest, fingerprint, record
from agent.formats.digest import Digest
from agent.formats.jobs import Progress, PushResult, PushSpec, Report
from agent.formats.record import CheckpointRecord
from agent.image import compression, image_annotations, layers, manifest, reference
from agent.image.backoff import Backoff, persist
from agent.image.bases import Bases
from agent.image.basing import Basing
from agent.image.compression import Codec
from agent.image.content import Blob, LayerPlan
from agent.image.layers import Onto
from agent.image.registry import Registry
from agent.image.upload import LayerUpload, Sent

# Blobs on their way at once, over all pushes: enough that one waits for the registry while others are
# made, few enough that all their buffers stay below 40 MiB.
_BLOBS_AT_ONCE: Final = 4


class ImagePusher:
    """Makes and uploads layers, several at once, within a bound on memory that all pushes share."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._slots = asyncio.Semaphore(_BLOBS_AT_ONCE)

    async def layers(
        self,
        registry: Registry,
        repository: str,
        wanted: tuple[Sequence[LayerPlan], Codec],
        report: Report,
    ) -> list[Sent]:
        """Bring every layer to the registry; the first failure stops all.

        Raises:
            Refused, Retryable, Broken: as ``upload.LayerUpload`` does.
        """
        plans, codec = wanted
        tally = _Tally([plan.size for plan in plans], report)

        async def one(index: int, plan: LayerPlan) -> Sent:
            async with self._slots:
                told = tally.teller(index)
                layer = plan, codec
                upload = LayerUpload(registry, repository, layer, told, self._backoff)
                return await upload.run()

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one(index, plan), name=f"push layer {index}")
                    for index, plan in enumerate(plans)
                ]
        except BaseExceptionGroup as failures:
            raise foremost(failures) from None
        return [task.result() for task in tasks]

    async def publish(
        self, registry: Registry, target: tuple[str, str], image: tuple[bytes, bytes]
    ) -> tuple[Digest, int]:
        """Upload the configuration, then the manifest; return its digest and the bytes sent.

        Args:
            target: repository and tag.
            image: the configuration's and the manifest's bytes.
        """
        (repository, tag), (configuration, body) = target, image
        sent = len(body)

        async def configure() -> int:
            wanted = digest.of(configuration)
            if await registry.has_blob(repository, wanted):
                return 0
            upload = await registry.start_upload(repository)
            await registry.finish(await registry.send(upload, iter([configuration])), wanted)
            return len(configuration)

        sent += await persist(self._backoff, configure)
        made = await persist(self._backoff, lambda: registry.put_manifest(repository, tag, body))
        return made, sent


class Pusher(ImagePusher):
    """Pushes checkpoints."""

    def __init__(
        self,
        backoff: Backoff | None = None,
        allowed_realms: Iterable[str] = (),
        bases: Bases | None = None,
    ) -> None:
        """Take hosts that registries' token services may be at besides the registries' own.

        With ``bases`` a later checkpoint of a container is pushed as a delta of an earlier one.
        """
        super().__init__(backoff)
        self._allowed_realms = tuple(allowed_realms)
        self._bases = bases

    async def push(self, parts: Path, spec: PushSpec, report: Report) -> PushResult:
        """Push the checkpoint in ``parts`` as ``<host>/<repository>:<tag>``.

        The same parts give the same digest, whenever and from wherever. Until all of it is there
        nothing is visible; failed or cancelled, half-done uploads are taken back.

        Raises:
            Refused: names, compression, login or certificate are wrong.
            Retryable: the registry went away and did not come back.
            Broken: the parts are no whole checkpoint.
        """
        started = time.monotonic()
        reference.check_repository(spec.repository)
        reference.check_tag(spec.tag)
        codec = compression.codec_named(spec.compression)
        await asyncio.to_thread(_record_of, parts)
        async with Registry.connect(spec.registry, self._allowed_realms) as registry:
            await persist(self._backoff, registry.ping)
            report(Progress(0, "Looking for what the registry has already"))
            basing = Basing(registry, spec.repository, self._backoff)
            onto = await basing.base(self._bases, parts) if self._bases else None
            source = await asyncio.to_thread(_Source.read, parts, onto)
            plans = await basing.known(source.plans, codec, parts, source.parent)
            sent = await self.layers(registry, spec.repository, (plans, codec), report)
            blobs = [one.blob for one in sent]
            image = source.image(blobs)
            target = spec.repository, spec.tag
            made, last = await self.publish(registry, target, image)
        return PushResult(
            checkpoint_id=spec.checkpoint_id,
            image=f"{spec.registry.host}/{spec.repository}:{spec.tag}",
            digest=made,
            size_bytes=sum(blob.size for blob in blobs) + len(image[0]),
            pushed_bytes=sum(one.pushed_bytes for one in sent) + last,
            duration_ms=(time.monotonic() - started) * 1000,
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint, as far as it is known before its bytes are read."""

    plans: tuple[LayerPlan, ...]
    created_at: str
    architecture: str
    notes: Mapping[str, str]
    parent: str

    @classmethod
    def read(cls, parts: Path, onto: Onto | None) -> _Source:
        """Blocking."""
        known = _record_of(parts)
        if onto is None:  # one that was fetched may have been a delta; pushed whole it is none
            known = msgspec.structs.replace(known, parent="")
        try:
            architecture = fingerprint.read(parts).architecture
        except (FileNotFoundError, ValueError):  # of a checkpoint by somebody else
            architecture = ""
        notes = image_annotations.of(known, parts)
        return cls(layers.plan(parts, onto), known.created_at, architecture, notes, known.parent)

    def image(self, blobs: Sequence[Blob]) -> tuple[bytes, bytes]:
        """Configuration and manifest."""
        configuration = manifest.config(blobs, self.created_at, arch=self.architecture)
        described = [manifest.layer(blob) for blob in blobs]
        return configuration, manifest.manifest(configuration, described, self.notes)


def _record_of(parts: Path) -> CheckpointRecord:
    try:
        return record.read(parts)
    except (FileNotFoundError, ValueError) as cause:
        raise Broken(
            f"The checkpoint in {parts} has no readable record.", details=str(cause)
        ) from cause


class _Tally:
    """Sums up how far the layers are, in uncompressed bytes."""

    def __init__(self, sizes: Sequence[int], report: Report) -> None:
        self._done = [0] * len(sizes)
        self._total = sum(sizes)
        self._report = report

    def teller(self, index: int) -> _Teller:
        """Where layer ``index`` tells how far it is."""
        return _Teller(self, index)

    def tell(self, index: int, done: int) -> None:
        """Layer ``index`` is at ``done``."""
        self._done[index] = done
        total = sum(self._done)
        percent = 100.0 * total / max(1, self._total)
        words = f"Pushing {len(self._done)} layers"
        self._report(Progress(percent, words, total, self._total))


@dataclass(frozen=True, slots=True)
class _Teller:
    tally: _Tally
    index: int

    def __call__(self, done: int) -> None:
        self.tally.tell(self.index, done)


def foremost(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure of a task group to tell of: the first that is no group itself."""
    first = failures.exceptions[0]
    return foremost(first) if isinstance(first, BaseExceptionGroup) else first

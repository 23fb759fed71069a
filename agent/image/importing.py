"""Taking in an archive that a user uploaded: streamed from the control plane, checked, unpacked as parts.

The control plane looked at its headers; here it is unpacked with the same suspicion as an image, and
its memory is made flat. It becomes a checkpoint of this node only when every byte was there.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent.errors import NotFound, Refused, Retryable
from agent.formats import fingerprint, layout, record, tar_format
from agent.formats.fingerprint import Fingerprint
from agent.formats.jobs import CheckpointId, ImportSpec, Progress, Report
from agent.formats.record import CheckpointRecord
from agent.image import flattening
from agent.image.room import Budget, disk_errors
from agent.image.unpack import Unpacker

_FREE_FLOOR_BYTES: Final = 1 << 30
_SLACK_BYTES: Final = 1 << 20
_TRIES: Final = 10  # without a single byte in between
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0  # the link itself waits so long between two tries
_NEEDED: Final = (
    f"{layout.CHECKPOINT_DIR}/inventory.img",
    layout.CONFIG_DUMP,
    layout.SPEC_DUMP,
)
_UNKNOWN: Final = Fingerprint(
    architecture="",
    kernel="",
    criu_version="",
    oci_runtime="",
    oci_runtime_version="",
    runtime="",
    runtime_version="",
    cgroup_version="",
    image_name="",
    image_ref="",
    image_id="",
)


class Source(Protocol):
    """Where archives come from (``link``)."""

    def archive(self, transfer_id: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from ``offset`` on; raises Retryable when the link is away."""


class Shelf(Protocol):
    """The checkpoints on this node."""

    def place(self, checkpoint_id: CheckpointId) -> Path:
        """Where its parts are or will be."""

    def get(self, checkpoint_id: CheckpointId) -> CheckpointRecord:
        """Its record; raises NotFound unless it is finished."""

    def delete(self, checkpoint_id: CheckpointId) -> bool:
        """Remove it, finished or not."""


@dataclass(frozen=True, slots=True)
class Importer:
    """Takes archives in. The same one twice is taken once."""

    shelf: Shelf
    source: Source

    async def take(self, spec: ImportSpec, report: Report) -> None:
        """Have the parts of ``spec`` on the shelf; failed or cancelled, nothing of it is left.

        Raises:
            Refused: the archive is not the one that was announced, or not harmless; or
                INSUFFICIENT_STORAGE.
            Retryable: the control plane went away and did not come back.
        """
        if await asyncio.to_thread(self._is_here, spec.checkpoint_id):
            return
        place = self.shelf.place(spec.checkpoint_id)
        await asyncio.to_thread(self.shelf.delete, spec.checkpoint_id)  # half of an earlier try
        try:
            with disk_errors(place.parent):
                await asyncio.to_thread(place.mkdir, 0o700)
                await self._unpack(spec, place, report)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
            raise

    def _is_here(self, checkpoint_id: CheckpointId) -> bool:
        try:
            self.shelf.get(checkpoint_id)
        except NotFound:
            return False
        return True

    async def _unpack(self, spec: ImportSpec, place: Path, report: Report) -> None:
        most = 2 * spec.size_bytes + _SLACK_BYTES  # memory in layers is there twice for a moment
        unpacking = _Unpacking(place, Budget(place, most, _FREE_FLOOR_BYTES))
        try:
            await self._receive_all(spec, unpacking, report)
            await asyncio.to_thread(_finish, unpacking, spec, place)
        finally:
            await asyncio.shield(asyncio.to_thread(unpacking.close))

    async def _receive_all(self, spec: ImportSpec, unpacking: _Unpacking, report: Report) -> None:
        pause_s, tries = _FIRST_PAUSE_S, 0
        while unpacking.size < spec.size_bytes:
            begun_at = unpacking.size
            try:
                await self._receive(spec, unpacking, report)
            except Retryable:
                moved = unpacking.size > begun_at
                pause_s, tries = (_FIRST_PAUSE_S, 0) if moved else (2 * pause_s, tries + 1)
                if tries >= _TRIES:
                    raise
                await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))

    async def _receive(self, spec: ImportSpec, unpacking: _Unpacking, report: Report) -> None:
        total = spec.size_bytes
        async with aclosing(self.source.archive(spec.transfer_id, unpacking.size)) as pieces:
            async for piece in pieces:
                if unpacking.size + len(piece) > total:
                    raise _other_archive(spec)
                await asyncio.to_thread(unpacking.feed, piece)
                done = unpacking.size
                report(Progress(100.0 * done / total, "Taking the archive in", done, total))
        if unpacking.size < total:
            raise Retryable("The archive broke off on its way from the control plane.")


class _Unpacking:
    """How far an archive is. A thread that writes goes on when who awaits it is cancelled."""

    def __init__(self, place: Path, budget: Budget) -> None:
        self.unpacker = Unpacker(place, budget)
        self.budget = budget
        self.size = 0
        self.made = hashlib.sha256()
        self._sink = self.unpacker.sink()
        self.reader = tar_format.Reader(self._sink)
        self._lock = threading.Lock()

    def feed(self, piece: bytes) -> None:
        """The next bytes. Blocks."""
        with self._lock:
            try:
                self.reader.feed(piece)
            except ValueError as cause:
                raise _damaged(str(cause)) from cause
            self.made.update(piece)
            self.size += len(piece)

    def close(self) -> None:
        """Close what is open. Blocks."""
        with self._lock:
            self._sink.close()


def _finish(unpacking: _Unpacking, spec: ImportSpec, place: Path) -> None:
    """Check what only the whole archive can tell, and make it a checkpoint."""
    if spec.sha256 and unpacking.made.hexdigest() != spec.sha256:
        raise _other_archive(spec)
    try:
        unpacking.reader.close()
        unpacking.unpacker.finish()
        flattening.in_place(place, unpacking.budget)
    except ValueError as cause:
        raise _damaged(str(cause)) from cause
    for name in _NEEDED:
        if not (place / name).is_file():
            raise _damaged(f"it has no {name}")
    record.write(place, _record(spec, place))


def _record(spec: ImportSpec, place: Path) -> CheckpointRecord:
    try:
        known = fingerprint.read(place)
    except (FileNotFoundError, ValueError):  # of a checkpoint by somebody else
        known = _UNKNOWN
    return CheckpointRecord(
        checkpoint_id=spec.checkpoint_id,
        job_id="",
        namespace=spec.namespace,
        pod_name=spec.pod_name,
        pod_uid="",
        container_name=spec.container_name,
        container_id="",
        engine=known.engine,
        created_at=spec.created_at,
        image_name=known.image_name,
        image_ref=known.image_ref,
        image_id=known.image_id,
        runtime=f"{known.runtime} {known.runtime_version}".strip(),
        oci_runtime=f"{known.oci_runtime} {known.oci_runtime_version}".strip(),
        criu_options=known.criu_options,
        size_bytes=sum(path.lstat().st_size for path in place.rglob("*") if path.is_file()),
        complete=True,
    )


def _damaged(why: str) -> Refused:
    return Refused(f"The archive was refused: {why[:200]}.")


def _other_archive(spec: ImportSpec) -> Refused:
    return Refused(f"What came is not the archive of checkpoint {spec.checkpoint_id}.")

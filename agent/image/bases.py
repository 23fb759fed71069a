"""Earlier checkpoints of a container that a new one can be a delta of.

A base is a whole image at the same registry. While its parts lie beside the new one's they are
compared with; when they leave the node, hashes of their pages are kept instead (``remember``), a
256th of their size and bounded in all. A base that is lost costs a whole push, nothing else.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Broken, Refused
from agent.formats import layout, pagemap, record
from agent.formats.record import CheckpointRecord
from agent.image import comparison
from agent.image.comparison import PagesSource
from agent.image.layers import BESIDE_PARTS, Memory
from agent.image.reference import ImageReference

MAX_BYTES: Final = 256 << 20  # hashes of 64 GiB of memory
MAX_BASES: Final = 64
_NOTE: Final = "base.json"
_HASHES: Final = "hashes-{}"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """A checkpoint that others can be deltas of.

    Attributes:
        image: what it was pushed as.
        sources: pagemap's file name → the pages of that process.
        parts: its folder; None: only hashes of its pages are left.
    """

    checkpoint_id: str
    created_at: str
    image: ImageReference
    memory: Memory
    sources: Mapping[str, PagesSource]
    parts: Path | None


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a base beside the hashes."""

    checkpoint_id: str
    container_id: str
    created_at: str
    pushed: tuple[str, ...]
    window: int


class Bases:
    """Finds bases on this node; keeps hashes in ``folder``. Methods block."""

    def __init__(
        self, folder: Path, max_bytes: int = MAX_BYTES, max_bases: int = MAX_BASES
    ) -> None:
        self._folder = folder
        self._max_bytes, self._max_bases = max_bytes, max_bases

    def find(self, parts: Path, known: CheckpointRecord, host: str) -> Base | None:
        """The base for the checkpoint ``known`` in ``parts`` at registry ``host``.

        A checkpoint that is there already stays what it is there: a whole image, or a delta of the
        same base; so pushing it twice gives the same image.
        """
        if not known.container_id or (at_host(known, host) and not known.parent):
            return None
        found = [*self._local(parts, known, host), *self._hashed(known, host)]
        found.sort(key=lambda base: base.created_at, reverse=True)
        for base in found:
            if base.checkpoint_id == known.parent:
                return base
        if at_host(known, host):
            return None
        return found[0] if found else None

    def remember(self, parts: Path) -> None:
        """Keep the hashes of a checkpoint's pages, for its parts are about to leave the node.

        Nothing is kept of one that no later checkpoint would be a delta of. Reads all its memory.
        """
        try:
            known = record.read(parts)
            if not _may_be_base(known) or any(_newer(parts, known)):
                return
            self._keep(parts, known, Memory.read(parts))
        except (OSError, ValueError, Broken) as cause:
            _log.info("hashes of %s are not kept: %s", parts.name, cause)
        self._trim()

    def _keep(self, parts: Path, known: CheckpointRecord, memory: Memory) -> None:
        place = self._folder / known.checkpoint_id
        partial = place.with_name(f".{place.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        for name, flat in memory.maps.items():
            (partial / name).write_bytes(flat.image())
            pages = parts / layout.CHECKPOINT_DIR / f"pages-{flat.pages_id}.img"
            comparison.hash_pages(pages, partial / _HASHES.format(flat.pages_id))
        note = _Note(
            checkpoint_id=known.checkpoint_id,
            container_id=known.container_id,
            created_at=known.created_at,
            pushed=known.pushed,
            window=memory.window,
        )
        (partial / _NOTE).write_bytes(msgspec.json.encode(note))
        for other, old in self._notes():
            if old.container_id == known.container_id:
                shutil.rmtree(other)
        partial.rename(place)

    def _trim(self) -> None:
        """Remove halves, then the hashes used longest ago until all are within the bounds."""
        for half in self._folder.glob(".*"):
            shutil.rmtree(half)
        held = sorted(self._notes(), key=lambda one: one[0].stat().st_mtime, reverse=True)
        used = 0
        for number, (place, _) in enumerate(held):
            used += sum(path.stat().st_size for path in place.iterdir())
            if used > self._max_bytes or number >= self._max_bases:
                shutil.rmtree(place)

    def _notes(self) -> Iterator[tuple[Path, _Note]]:
        for place in sorted(self._folder.glob("[!.]*")):
            try:
                yield place, msgspec.json.decode((place / _NOTE).read_bytes(), type=_Note)
            except (OSError, ValueError):  # damaged
                shutil.rmtree(place, ignore_errors=True)

    def _hashed(self, wanted: CheckpointRecord, host: str) -> Iterator[Base]:
        for place, note in self._notes():
            image = _at_host(note.pushed, host)
            if note.container_id != wanted.container_id or image is None:
                continue
            try:
                maps = {
                    path.name: pagemap.parse(path.read_bytes())
                    for path in place.iterdir()
                    if pagemap.PROCESS_PAGEMAP.fullmatch(path.name)
                }
                os.utime(place)
            except (OSError, ValueError):
                shutil.rmtree(place, ignore_errors=True)
                continue
            sources = {
                name: PagesSource(place / _HASHES.format(flat.pages_id), hashed=True)
                for name, flat in maps.items()
            }
            memory = Memory(maps, note.window)
            yield Base(note.checkpoint_id, note.created_at, image, memory, sources, None)

    def _local(self, parts: Path, wanted: CheckpointRecord, host: str) -> Iterator[Base]:
        """Of the newest that fits, and of the one that is the parent already."""
        fitting = [
            (other, known, image)
            for other, known in _siblings(parts, wanted)
            if known.created_at <= wanted.created_at
            and (image := _at_host(known.pushed, host)) is not None
        ]
        fitting.sort(key=lambda one: (one[1].checkpoint_id == wanted.parent, one[1].created_at))
        for other, known, image in reversed(fitting):
            if not is_as_pushed(other, known):
                continue
            try:
                memory = Memory.read(other)
            except (OSError, Broken):
                continue
            folder = other / layout.CHECKPOINT_DIR
            sources = {
                name: PagesSource(folder / f"pages-{flat.pages_id}.img")
                for name, flat in memory.maps.items()
            }
            yield Base(known.checkpoint_id, known.created_at, image, memory, sources, other)
            return


def at_host(known: CheckpointRecord, host: str) -> ImageReference | None:
    """What a checkpoint was pushed as at registry ``host`` last."""
    return _at_host(known.pushed, host)


def is_as_pushed(parts: Path, known: CheckpointRecord) -> bool:
    """Whether no part was written to since the checkpoint was pushed last."""
    try:
        until = datetime.fromisoformat(known.pushed_at).astimezone(UTC).timestamp() + 1
        return all(
            path.stat().st_mtime < until
            for path in parts.rglob("*")
            if path.name not in BESIDE_PARTS and path.is_file()
        )
    except (OSError, ValueError):
        return False


def _may_be_base(known: CheckpointRecord) -> bool:
    return bool(known.complete and known.container_id and known.pushed and not known.parent)


def _siblings(parts: Path, wanted: CheckpointRecord) -> Iterator[tuple[Path, CheckpointRecord]]:
    """The checkpoints of the same container beside ``parts`` that may be bases."""
    for other in parts.parent.iterdir():
        if other.name == parts.name or other.name.startswith("."):
            continue
        try:
            known = record.read(other)
        except (OSError, ValueError):
            continue
        if _may_be_base(known) and known.container_id == wanted.container_id:
            yield other, known


def _newer(parts: Path, known: CheckpointRecord) -> Iterator[Path]:
    for other, found in _siblings(parts, known):
        if found.created_at > known.created_at:
            yield other


def _at_host(pushed: tuple[str, ...], host: str) -> ImageReference | None:
    """The last of the images that is at ``host``."""
    for name in reversed(pushed):
        try:
            image = ImageReference.parse(name)
        except Refused:
            continue
        if image.host == host:
            return image
    return None

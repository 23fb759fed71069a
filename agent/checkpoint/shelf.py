"""The checkpoints on this node: one folder of parts each, with its record beside them."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent import errors
from agent.formats import layout, record
from agent.formats.jobs import CheckpointId
from agent.formats.record import CheckpointRecord
from agent.runtimes import tmpfs
from agent.runtimes.commands import Host

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TRASH: Final = ".trash-"  # a folder on its way out: never listed, removed at the next start
_log = logging.getLogger(__name__)


def is_id(text: str) -> bool:
    """Whether ``text`` can be the name of a folder here."""
    return _ID.fullmatch(text) is not None


def check_id(text: str) -> str:
    """``text``, if it can be the name of a folder here.

    Raises:
        Refused: it can't; ids come over the wire and must never become a path.
    """
    if not is_id(text):
        raise errors.Refused(f"{text[:80]!r} is no valid id.", code=errors.VALIDATION_ERROR)
    return text


class Shelf:
    """Checkpoints below ``<data folder>/checkpoints``. Methods block on the disk, shortly."""

    def __init__(self, host: Host, data_dir: str) -> None:
        self.folder = f"{data_dir}/checkpoints"  # as the node sees it
        self._host = host
        self._root = host.path(self.folder)
        self._marks = host.path(f"{data_dir}/in-memory")
        for folder in (self._root, self._marks):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def place(self, checkpoint_id: CheckpointId) -> Path:
        """Where the parts of ``checkpoint_id`` are or will be."""
        return self._root / check_id(checkpoint_id)

    def get(self, checkpoint_id: CheckpointId) -> CheckpointRecord:
        """The record of a finished checkpoint.

        Raises:
            NotFound: there is no such checkpoint here, or it is not finished.
        """
        try:
            found = record.read(self.place(checkpoint_id))
        except (FileNotFoundError, ValueError) as cause:
            raise _missing(checkpoint_id) from cause
        if not found.complete:
            raise _missing(checkpoint_id)
        return found

    def parts(self, checkpoint_id: CheckpointId) -> Path:
        """The folder of a finished checkpoint's parts.

        Raises:
            NotFound: there is no such checkpoint here, or it is not finished.
        """
        self.get(checkpoint_id)
        return self.place(checkpoint_id)

    def list(self) -> tuple[CheckpointRecord, ...]:
        """All finished checkpoints, oldest first."""
        found = (self._read(place) for place in self._folders())
        kept = [item for item in found if item and item.complete]
        return tuple(sorted(kept, key=lambda item: (item.created_at, item.checkpoint_id)))

    def delete(self, checkpoint_id: CheckpointId) -> bool:
        """Remove a checkpoint, finished or not; False: it was not there.

        It is renamed first, so that nobody ever sees a part of it.
        """
        place = self.place(checkpoint_id)
        trash = self._root / f"{_TRASH}{place.name}"
        try:
            place.rename(trash)
        except FileNotFoundError:
            return False
        except OSError:  # the trash of an earlier, interrupted delete
            self._discard(trash)
            place.rename(trash)
        self._discard(trash)
        return True

    def mark(self, checkpoint_id: CheckpointId) -> Path:
        """The file that is there while the images of ``checkpoint_id`` are on a tmpfs (``scratch``)."""
        return self._marks / check_id(checkpoint_id)

    def marked(self) -> tuple[CheckpointId, ...]:
        """The checkpoints that have such a mark."""
        return tuple(CheckpointId(path.name) for path in self._marks.iterdir() if is_id(path.name))

    def leave_memory(self, checkpoint_id: CheckpointId) -> None:
        """Have the images of a checkpoint where the disk has them, if they were in memory until now."""
        self._uncover(self.place(checkpoint_id), checkpoint_id)

    def empty_trash(self) -> None:
        """Remove what an agent that died had begun to delete."""
        for trash in self._root.glob(f"{_TRASH}*"):
            self._discard(trash)

    def _discard(self, trash: Path) -> None:
        self._uncover(trash, CheckpointId(trash.name.removeprefix(_TRASH)))
        shutil.rmtree(trash)

    def _uncover(self, place: Path, checkpoint_id: CheckpointId) -> None:
        """Take away the tmpfs over the images in ``place``; the mark goes last."""
        mark = self.mark(checkpoint_id)
        if mark.exists():
            tmpfs.remove(self._host, f"{self.folder}/{place.name}/{layout.CHECKPOINT_DIR}")
            mark.unlink(missing_ok=True)

    def pin(self, checkpoint_id: CheckpointId, pinned: bool = True) -> CheckpointRecord:
        """Keep a checkpoint from retention, or no longer.

        Raises:
            NotFound: there is no such checkpoint here.
        """
        return self._change(checkpoint_id, pinned=pinned)

    def note_pushed(self, checkpoint_id: CheckpointId, image: str, at: str) -> CheckpointRecord:
        """Remember that a checkpoint was pushed as ``image`` (name@digest) at ``at`` (RFC 3339).

        Raises:
            NotFound: there is no such checkpoint here.
        """
        known = self.get(checkpoint_id).pushed
        pushed = known if image in known else (*known, image)
        return self._change(checkpoint_id, pushed=pushed, pushed_at=at)

    def sweep(self, keep: Collection[CheckpointId] = ()) -> tuple[str, ...]:
        """Remove what an agent that died left unfinished, but for ``keep``; returns what went."""
        gone = []
        for place in self._root.iterdir():
            found = self._read(place)
            if place.name in keep or (found and found.complete):
                continue
            _log.info("removing unfinished checkpoint %s", place.name)
            shutil.rmtree(place)
            gone.append(place.name)
        return tuple(gone)

    def _folders(self) -> Iterator[Path]:
        return (p for p in self._root.iterdir() if not p.name.startswith(_TRASH))

    def _read(self, place: Path) -> CheckpointRecord | None:
        try:
            return record.read(place)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def _change(self, checkpoint_id: CheckpointId, **changes: object) -> CheckpointRecord:
        changed = msgspec.structs.replace(self.get(checkpoint_id), **changes)
        record.write(self.place(checkpoint_id), changed)
        return changed


def size_bytes(parts: Path) -> int:
    """Bytes of all files below ``parts``; the record is not counted."""
    total = 0
    for path in parts.rglob("*"):
        if path.is_file() and not is_beside(path.relative_to(parts).as_posix()):
            total += path.stat().st_size
    return total


def is_beside(name: str) -> bool:
    """Whether ``name`` is the record (or half of a new one) and no member of the archive."""
    return name.startswith(layout.RECORD)


def _missing(checkpoint_id: str) -> errors.NotFound:
    return errors.NotFound(f"Checkpoint {checkpoint_id} is not on this node.")

"""What preparing changed on the node's disk: written down before it is done, so that it can be taken back exactly.

A change is on record (fsync) before it is made and is made by one rename, so that after a crash each
one is either there whole or not at all; taking back looks at what is really there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from agent.formats import toml_text
from agent.runtimes.commands import Host

_JOURNAL: Final = "changes.json"
_MARK: Final = ".snap-mark"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. ``path`` is the node's.

    Attributes:
        kind: file, link, tree or folder.
        made: what tells what we put there from what others did since: digest of a file, target of a
            link, mark in a tree.
        before: name of the copy of what was there; empty: nothing was.
        mode: permissions of what was there.
        item: what was added to the list ``imports`` of a file of others.
        config: the container runtime reads it when it starts.
    """

    path: str
    kind: str
    made: str = ""
    before: str = ""
    mode: int = 0
    item: str = ""
    config: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on record. ``restart``: configuration was taken back that the runtime may still know."""

    changes: tuple[Change, ...] = ()
    restart: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is to be; ``item`` and ``config`` as in ``Change``."""

    path: str
    content: bytes
    mode: int = 0o644
    item: str = ""
    config: bool = False


class Changes:
    """The changes of this node, kept in ``folder`` (the node's path). Every method blocks, shortly."""

    def __init__(self, host: Host, folder: str) -> None:
        self._host = host
        self._folder = host.path(folder)
        self.record = self._read()

    def file(self, wanted: File) -> bool:
        """Have a file; False: it was there as it is to be."""
        place = self._host.path(wanted.path)
        if _is_file(place, wanted.content, wanted.mode):
            return False
        made = hashlib.sha256(wanted.content).hexdigest()
        self._note(
            Change(path=wanted.path, kind="file", made=made, item=wanted.item, config=wanted.config)
        )
        _replace_file(place, wanted.content, wanted.mode)
        return True

    def link(self, path: str, target: str) -> bool:
        """Have the symbolic link ``path``; False: it was there."""
        place = self._host.path(path)
        if place.is_symlink() and str(place.readlink()) == target:
            return False
        self._note(Change(path=path, kind="link", made=target))
        partial = _partial(place)
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        partial.replace(place)
        return True

    def tree(self, path: str, source: Path, mark: str) -> bool:
        """Have a copy of the folder ``source`` at ``path``; ``mark`` tells one version from another."""
        place = self._host.path(path)
        marked = place / _MARK
        if marked.is_file() and marked.read_text() == mark:
            return False
        self._note(Change(path=path, kind="tree", made=mark))
        partial = _partial(place)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, symlinks=True)
        (partial / _MARK).write_text(mark)
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        return True

    def take_back_config(self, since: tuple[Change, ...] = ()) -> tuple[str, ...]:
        """Take back what the container runtime reads, but for what is in ``since``; see ``take_back``."""
        ours = tuple(one for one in self.record.changes if one.config and one not in since)
        if ours:
            self._write(msgspec.structs.replace(self.record, restart=True))
        return self.take_back(ours)

    def restarted(self) -> None:
        """The container runtime has been started anew since its configuration was taken back."""
        self._write(msgspec.structs.replace(self.record, restart=False))

    def take_back(self, which: tuple[Change, ...]) -> tuple[str, ...]:
        """Make everything of ``which`` what it was, the last first; returns what others changed since.

        May be called again after a crash in the middle.
        """
        kept = []
        for change in reversed(which):
            if not self._undo(change):
                kept.append(change.path)
            left = tuple(one for one in self.record.changes if one != change)
            self._write(msgspec.structs.replace(self.record, changes=left))
            if change.before:
                (self._folder / change.before).unlink(missing_ok=True)
        return tuple(kept)

    def _note(self, change: Change) -> None:
        """Put a change on record, with the folders above it that are not there.

        A second one of the same path keeps what was there at the first.
        """
        for parent in reversed(PurePosixPath(change.path).parents):
            place = self._host.path(parent)
            if not place.exists():
                self._add(Change(path=str(parent), kind="folder", config=change.config))
                place.mkdir(mode=0o755)
        known = [one for one in self.record.changes if one.path == change.path]
        if known:
            before, mode, item = known[0].before, known[0].mode, known[0].item
        else:
            (before, mode), item = self._keep(self._host.path(change.path)), ""
        self._add(
            msgspec.structs.replace(change, before=before, mode=mode, item=change.item or item)
        )

    def _add(self, change: Change) -> None:
        others = tuple(one for one in self.record.changes if one.path != change.path)
        self._write(msgspec.structs.replace(self.record, changes=(*others, change)))

    def _keep(self, place: Path) -> tuple[str, int]:
        """A copy of what is at ``place``: its name and permissions."""
        if not place.is_file() or place.is_symlink():
            return "", 0
        name = f"before-{uuid.uuid4().hex[:12]}"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace_file(self._folder / name, place.read_bytes(), 0o600)
        return name, place.stat().st_mode & 0o7777

    def _undo(self, change: Change) -> bool:
        """Take one change back; False: it was not ours any more, or not empty, and stays."""
        place = self._host.path(change.path)
        match change.kind:
            case "file":
                return self._undo_file(place, change)
            case "link":
                if place.is_symlink() and str(place.readlink()) == change.made:
                    place.unlink()
            case "tree":
                shutil.rmtree(_partial(place), ignore_errors=True)
                if (place / _MARK).is_file():
                    shutil.rmtree(place)
            case "folder":
                if place.is_dir() and not any(place.iterdir()):
                    place.rmdir()
        return True

    def _undo_file(self, place: Path, change: Change) -> bool:
        _partial(place).unlink(missing_ok=True)
        if not place.is_file():
            return True
        content = place.read_bytes()
        if hashlib.sha256(content).hexdigest() == change.made:
            if not change.before:
                place.unlink()
            else:
                _replace_file(place, (self._folder / change.before).read_bytes(), change.mode)
            return True
        if change.before and content == (self._folder / change.before).read_bytes():
            return True  # it was on record and not made
        if not change.item:
            return False
        try:
            text = toml_text.without_item(content.decode(), "imports", change.item)
        except ValueError:
            return False
        _replace_file(place, text.encode(), place.stat().st_mode & 0o7777)
        return True

    def _read(self) -> Record:
        try:
            return msgspec.json.decode((self._folder / _JOURNAL).read_bytes(), type=Record)
        except FileNotFoundError:
            return Record()

    def _write(self, record: Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace_file(self._folder / _JOURNAL, msgspec.json.encode(record), 0o600)
        self.record = record


def _partial(place: Path) -> Path:
    return place.with_name(f".{place.name}.snap-new")


def _is_file(place: Path, content: bytes, mode: int) -> bool:
    if not place.is_file() or place.is_symlink():
        return False
    return place.stat().st_mode & 0o7777 == mode and place.read_bytes() == content


def _replace_file(place: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, on the disk when this returns."""
    partial = _partial(place)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

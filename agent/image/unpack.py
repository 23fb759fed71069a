"""Layers become a folder of parts: every member checked, the memory's chain made flat on the way.

Nothing of an image is trusted: only ordinary files and folders below the folder given, each once, no
links or devices, within a budget of bytes. What was unpacked counts only after ``finish``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from agent.errors import INSUFFICIENT_STORAGE, Broken, Refused
from agent.formats import layout, memory_chain, pagemap
from agent.formats.memory_chain import Flat, PagesFile
from agent.formats.tar_format import Entry
from agent.image.layers import BESIDE_PARTS

MAX_MEMBERS: Final = 200_000
_MAX_NAME: Final = 1024
_CHECK_EVERY: Final = 32 << 20  # bytes written between two looks at the free space
_CHAIN: Final = re.compile(
    r"checkpoint/((?:parent/)*)(pages-([0-9]{1,10})\.img|pagemap-[0-9]+\.img)"
)
_PARENT_DIR: Final = layout.CHECKPOINT_DIR + "/parent"
_COPY_BYTES: Final = 1 << 20


def out_of_space(folder: Path, why: str) -> Refused:
    """The node has no room for an image."""
    return Refused(
        f"There is no room for the image in {folder}; free some space or raise the cache's limit.",
        code=INSUFFICIENT_STORAGE,
        details=why,
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk within the block into INSUFFICIENT_STORAGE, other failures into Broken."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(folder, str(cause)) from cause
        raise Broken(f"The disk of {folder} failed.", details=str(cause)) from cause


class Budget:
    """How much may be unpacked. For several threads."""

    def __init__(self, folder: Path, most: int, free_floor: int) -> None:
        """Allow ``most`` bytes, and never less than ``free_floor`` bytes free on the disk."""
        self._folder, self._most, self._floor = folder, most, free_floor
        self._lock = threading.Lock()
        self._used = 0
        self._checked = 0

    def take(self, size: int) -> None:
        """Use ``size`` bytes more.

        Raises:
            Refused: that is more than the image declared, or the disk is full.
        """
        with self._lock:
            self._used += size
            if self._used > self._most:
                raise Refused(f"The image unpacks to more than the {self._most} bytes allowed.")
            if self._used - self._checked < _CHECK_EVERY:
                return
            self._checked = self._used
        if free_bytes(self._folder) < self._floor:
            raise out_of_space(self._folder, f"less than {self._floor} bytes would stay free")


def free_bytes(folder: Path) -> int:
    """Free for this process on ``folder``'s file system."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


class _Target(Protocol):
    def write(self, chunk: memoryview) -> None:
        """The next bytes of the member."""

    def close(self) -> None:
        """There are no more."""


class Unpacker:
    """Unpacks the layers of one image into ``folder``, several at once."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder = folder
        self._budget = budget
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._count = 0
        self._flat: Flat | None = None
        self._placed: set[tuple[int, int]] = set()
        self._raw_pages = False  # pages came before it was known where they go

    def sink(self) -> LayerSink:
        """Where one layer's members go."""
        return LayerSink(self)

    def plan_memory(self) -> None:
        """After the first layer: find out where the pages of the others go.

        Raises:
            ValueError: its pagemaps do not fit together.
        """
        if self._raw_pages or not (self._folder / _PARENT_DIR).is_dir():
            return  # flat already, or made flat in the end
        self._flat = memory_chain.flatten(_levels(self._folder))
        for number, size in self._flat.sizes.items():
            self._budget.take(size)
            with self._pages(number).open("wb") as out:
                out.truncate(size)

    def finish(self) -> None:
        """After all layers: flat parts are in the folder, and nothing else.

        Raises:
            ValueError: a page is missing.
            OSError: the disk failed.
        """
        if self._flat is None and (self._folder / _PARENT_DIR).exists():
            self._flat = memory_chain.flatten(_levels(self._folder))
            self._flatten_on_disk(self._flat)
        elif self._flat is not None:
            for (level, number), file in self._flat.sources.items():
                if file.size and (level, number) not in self._placed:
                    raise ValueError(f"pages-{number}.img of level {level} is missing")
        if self._flat is not None:
            for base, one in self._flat.pagemaps.items():
                (self._folder / layout.CHECKPOINT_DIR / base).write_bytes(one.image())
            shutil.rmtree(self._folder / _PARENT_DIR)

    def admit(self, entry: Entry) -> str:
        """The clean name of a member that may be unpacked; "" for the folder itself.

        Raises:
            Refused: it may not.
        """
        name = _clean(entry.name)
        with self._lock:
            self._count += 1
            if self._count > MAX_MEMBERS:
                raise Refused(f"The image has more than {MAX_MEMBERS} members.")
            if entry.is_folder:
                return name
            if not entry.is_file:
                raise _hostile(entry.name, "is neither file nor folder")
            if name in BESIDE_PARTS or PurePosixPath(name).name.startswith(".wh."):
                raise _hostile(entry.name, "has a name that no part of a checkpoint has")
            if not name or name in self._names:
                raise _hostile(entry.name, "is there twice")
            self._names.add(name)
        return name

    def make_folder(self, name: str) -> None:
        """A folder of the image."""
        (self._folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def target(self, name: str, size: int) -> _Target:
        """Where the bytes of file ``name`` go.

        Raises:
            ValueError: a pages file has another size than its pagemap says.
        """
        found = _CHAIN.fullmatch(name)
        if found is not None and (self._flat is not None or found[3] is not None):
            level = found[1].count("/")
            if found[3] is None:
                raise ValueError(f"{name} comes after the layer that should hold it")
            if self._flat is not None:
                target = self._scattered(self._flat, level, int(found[3]), size)
                if target is not None:
                    return target
            else:
                self._raw_pages = self._raw_pages or size > 0
        self._budget.take(size)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _File(path)

    def _scattered(self, flat: Flat, level: int, number: int, size: int) -> _Target | None:
        file = flat.sources.get((level, number))
        if file is None:
            return _Nowhere() if level else None  # no process of the top folder has it
        if size != file.size:
            raise ValueError(
                f"pages-{number}.img of level {level} has {size} bytes instead of {file.size}"
            )
        with self._lock:
            self._placed.add((level, number))
        return _Scattered(self._pages(file.target_id), file)

    def _pages(self, number: int) -> Path:
        return self._folder / layout.CHECKPOINT_DIR / f"pages-{number}.img"

    def _flatten_on_disk(self, flat: Flat) -> None:
        """For images whose pages came before or beside their pagemaps: copy them to their places."""
        made: dict[int, Path] = {}
        for number, size in flat.sizes.items():
            made[number] = self._pages(number).with_suffix(".flat")
            with made[number].open("wb") as out:
                out.truncate(size)
        for (level, number), file in flat.sources.items():
            path = self._folder / memory_chain.folder(level) / f"pages-{number}.img"
            if (path.stat().st_size if path.exists() else 0) != file.size:
                raise ValueError(f"{path.name} of level {level} does not have {file.size} bytes")
            if file.size:
                self._budget.take(file.size)
                _copy_extents(path, _Scattered(made[file.target_id], file))
        for number, path in made.items():
            path.replace(self._pages(number))


class LayerSink:
    """Takes one layer's members (``tar_format.Sink``)."""

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._target: _Target = _Nowhere()

    def begin(self, entry: Entry) -> None:
        """Check the member and open its place."""
        name = self._unpacker.admit(entry)
        try:
            if entry.is_folder:
                self._unpacker.make_folder(name)
            else:
                self._target = self._unpacker.target(name, entry.size)
        except (FileExistsError, NotADirectoryError) as cause:
            raise _hostile(entry.name, "is a file and a folder") from cause

    def write(self, chunk: memoryview) -> None:
        """Some of the member."""
        self._target.write(chunk)

    def end(self) -> None:
        """The member is whole."""
        self.close()

    def close(self) -> None:
        """Close what is open, whole or not."""
        target, self._target = self._target, _Nowhere()
        target.close()


class _Nowhere:
    def write(self, chunk: memoryview) -> None:
        pass

    def close(self) -> None:
        pass


class _File:
    """A new file."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def write(self, chunk: memoryview) -> None:
        while chunk:
            chunk = chunk[os.write(self._descriptor, chunk) :]

    def close(self) -> None:
        os.close(self._descriptor)


class _Scattered:
    """One level's pages, each run written to its place in the flat file."""

    def __init__(self, path: Path, file: PagesFile) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._extents = iter(file.extents)
        self._extent = next(self._extents, None)
        self._position = 0

    def write(self, chunk: memoryview) -> None:
        start, end = self._position, self._position + len(chunk)
        while self._extent is not None and self._extent[0] < end:
            source, target, length = self._extent
            first, last = max(source, start), min(source + length, end)
            self._pwrite(chunk[first - start : last - start], target + first - source)
            if source + length > end:
                break
            self._extent = next(self._extents, None)
        self._position = end

    def _pwrite(self, part: memoryview, offset: int) -> None:
        while part:
            written = os.pwrite(self._descriptor, part, offset)
            part, offset = part[written:], offset + written

    def close(self) -> None:
        os.close(self._descriptor)


def _copy_extents(path: Path, target: _Scattered) -> None:
    buffer = memoryview(bytearray(_COPY_BYTES))
    try:
        with path.open("rb", buffering=0) as source:
            while taken := source.readinto(buffer):
                target.write(buffer[:taken])
    finally:
        target.close()


def _levels(folder: Path) -> list[dict[str, pagemap.Pagemap]]:
    """The pagemaps of processes in the top folder and in each ``parent`` below it."""
    levels: list[dict[str, pagemap.Pagemap]] = []
    while len(levels) <= memory_chain.MAX_LEVELS:
        here = folder / memory_chain.folder(len(levels))
        if not here.is_dir():
            break
        levels.append(
            {
                path.name: pagemap.parse(path.read_bytes())
                for path in sorted(here.iterdir())
                if pagemap.PROCESS_PAGEMAP.fullmatch(path.name)
            }
        )
    return levels


def _clean(name: str) -> str:
    """A member's path below the folder."""
    if len(name) > _MAX_NAME or "\0" in name or name.startswith("/"):
        raise _hostile(name, "has no safe name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _hostile(name, "has no safe name")
    return "/".join(parts)


def _hostile(name: str, why: str) -> Refused:
    return Refused(f"The image was refused: its member {name[:120]!r} {why}.")

"""Layers become a folder of parts, every member checked; the memory stays the chain of folders that it is.

Nothing of an image is trusted: only ordinary files and folders below the folder given, each once, no
links or devices, within a budget of bytes. What was unpacked counts only after ``finish``.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from agent.errors import Refused
from agent.formats import memory_chain
from agent.formats.tar_format import Entry
from agent.image import flattening, windows
from agent.image.layers import BESIDE_PARTS
from agent.image.room import Budget
from agent.image.windows import Place

MAX_MEMBERS: Final = 200_000
_MAX_NAME: Final = 1024
_LEAST_HOLE: Final = 64 << 10
_ZEROS: Final = bytes(1 << 20)  # as long as the longest chunk, see compression.decompressor
_CHAIN: Final = re.compile(
    r"checkpoint/((?:parent/)*)(pages-([0-9]{1,10})\.img|pagemap-[0-9]+\.img)"
)


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
        self._chain: Mapping[Place, int] | None = None  # the sizes of the memory's pages files
        self._raw_pages = False  # pages came before it was known which there must be

    def sink(self) -> LayerSink:
        """Where one layer's members go."""
        return LayerSink(self)

    def plan_memory(self) -> None:
        """After the first layer: find out which pages the others must bring.

        Raises:
            ValueError: its pagemaps do not fit together.
            Refused: the memory is larger than the image may be.
        """
        if not self._raw_pages and flattening.is_chain(self._folder):
            self._chain = self._expected()
            self._budget.allow(sum(self._chain.values()))

    def _expected(self) -> dict[Place, int]:
        flat = memory_chain.flatten(flattening.levels(self._folder))
        return {place: file.size for place, file in flat.sources.items()}

    def finish(self) -> None:
        """After all layers: the parts are in the folder, every page of the chain among them.

        Raises:
            ValueError: a page is missing.
            OSError: the disk failed.
        """
        if self._chain is None and flattening.is_chain(self._folder):
            self._chain = self._expected()
        for (level, number), size in (self._chain or {}).items():
            path = self._folder / _pages_name(level, number)
            if not path.exists() and not size:
                _File(path).close()  # CRIU opens it all the same
            elif not path.exists() or path.stat().st_size != size:
                raise ValueError(f"{path.name} of level {level} does not have {size} bytes")

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
        if found := _CHAIN.fullmatch(name):
            if found[3] is None and self._chain is not None:
                raise ValueError(f"{name} comes after the layer that should hold it")
            if found[3] is not None:
                self._raw_pages = self._raw_pages or size > 0
                if not self._is_wanted((found[1].count("/"), int(found[3])), size):
                    return _Nowhere()
        self._budget.take(size)
        return _File(self._placed(name))

    def link(self, window: Mapping[Place, Path]) -> None:
        """Have the files of a window that is whole and checked, instead of unpacking its layer.

        Raises:
            Refused: a name is there twice.
            ValueError: as ``target``.
        """
        for place, path in sorted(window.items()):
            size = path.stat().st_size
            entry = Entry(_pages_name(*place), size)
            name = self.admit(entry)
            if self._is_wanted(place, size):
                with _no_clash(entry):
                    os.link(path, self._placed(name))

    def _is_wanted(self, place: Place, size: int) -> bool:
        """False for what no process of the top folder has."""
        if self._chain is None:
            return True
        if (wanted := self._chain.get(place)) is None:
            return place[0] == 0  # shared memory's
        if size != wanted:
            level, number = place
            raise ValueError(
                f"pages-{number}.img of level {level} has {size} bytes instead of {wanted}"
            )
        return True

    def _placed(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


class LayerSink:
    """Takes one layer's members (``tar_format.Sink``)."""

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._target: _Target = _Nowhere()

    def begin(self, entry: Entry) -> None:
        """Check the member and open its place."""
        name = self._unpacker.admit(entry)
        with _no_clash(entry):
            if entry.is_folder:
                self._unpacker.make_folder(name)
            else:
                self._target = self._unpacker.target(name, entry.size)

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


class WindowSink(LayerSink):
    """Takes the memory layer that becomes the window in ``folder`` (``windows``): pages files only."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        super().__init__(Unpacker(folder, budget))
        self._folder, self._budget = folder, budget

    def begin(self, entry: Entry) -> None:
        """Check the member and open its place."""
        found = _CHAIN.fullmatch(self._unpacker.admit(entry))
        level = found[1].count("/") if found else 0
        if found is None or found[3] is None or level >= memory_chain.MAX_LEVELS:
            raise _hostile(entry.name, "is no pages file, but lies among them")
        self._budget.take(entry.size)
        self._target = _File(self._folder / windows.file_name((level, int(found[3]))))


class _Nowhere:
    def write(self, chunk: memoryview) -> None:
        pass

    def close(self) -> None:
        pass


class _File:
    """A new file. Long runs of zeros become holes: a process's memory may have many, and the disk is slow."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._hole = 0  # bytes not written at the end, as far as it is known

    def write(self, chunk: memoryview) -> None:
        if len(chunk) >= _LEAST_HOLE and _ZEROS.startswith(chunk):
            self._hole += len(chunk)
            return
        if self._hole:
            os.lseek(self._descriptor, self._hole, os.SEEK_CUR)
            self._hole = 0
        while chunk:
            chunk = chunk[os.write(self._descriptor, chunk) :]

    def close(self) -> None:
        try:
            if self._hole:
                end = os.lseek(self._descriptor, self._hole, os.SEEK_CUR)
                os.ftruncate(self._descriptor, end)
        finally:
            os.close(self._descriptor)


@contextmanager
def _no_clash(entry: Entry) -> Iterator[None]:
    """Turn a name that is taken by another kind of member within the block into a refusal."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as cause:
        raise _hostile(entry.name, "is a file and a folder") from cause


def _pages_name(level: int, number: int) -> str:
    return f"{memory_chain.folder(level)}/pages-{number}.img"


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

"""Where secrets lie in a checkpoint: memory, variables, changed files, volumes, what was on its way in pipes.

Told are kind and place, and which findings are the same secret; never the value.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.errors import Refused
from agent.formats import layout, tar_format
from agent.formats.jobs import Progress, Report
from agent.insights import mappings, opening, processes, secret_kinds
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task
from agent.insights.memory import CHUNK, Memory
from agent.insights.secret_kinds import Hit, Search

MAX_FINDINGS: Final = 2000
MAX_PLACES: Final = 20  # of one secret
MAX_SECRETS: Final = 5000
# content that CRIU keeps in images of its own: deleted files, what waits in pipes and sockets
_RAW: Final = (
    "ghost-file-*.img",
    "pipes-data.img",
    "fifo-data.img",
    "sk-queues.img",
    "tcp-stream-*.img",
)
_TARS: Final = (layout.ROOTFS_DIFF, layout.SHM_TAR, f"{layout.VOLUMES_DIR}/*.tar")
_TMPFS: Final = f"{layout.CHECKPOINT_DIR}/tmpfs-*.tar.gz.img"  # noqa: S108 - no folder, CRIU's images
_GZIP: Final = b"\x1f\x8b"
_MAX_INFLATED: Final = 64 << 30  # of one compressed tar: what holds more is a bomb


class Findings:
    """What was found until now."""

    def __init__(self, bounds: Bounds) -> None:
        self.rows: list[Row] = []
        self.unread: list[str] = []
        self.key = secret_kinds.new_key()
        self._bounds = bounds
        self._places: Counter[bytes] = Counter()
        self._numbers: dict[bytes, int] = {}

    def add(self, kind: str, digest: bytes, place: Row) -> None:
        """Note a secret's place, if there is room; the same secret keeps its number."""
        number = self._numbers.get(digest)
        if number is None:
            if len(self._numbers) >= MAX_SECRETS:
                self._bounds.truncated = True
                return
            number = self._numbers[digest] = len(self._numbers) + 1
        self._places[digest] += 1
        row = {"kind": kind, "secret": number, "place": place}
        if self._places[digest] > MAX_PLACES:
            return  # "places" of the secret's first finding says how many there are
        if len(self.rows) < MAX_FINDINGS and self._bounds.fits(row):
            self.rows.append(row)
        else:
            self._bounds.truncated = True

    def report(self) -> dict[str, Any]:
        """All of it."""
        places = {self._numbers[digest]: count for digest, count in self._places.items()}
        kinds = Counter({row["secret"]: row["kind"] for row in self.rows}.values())
        return {
            "secrets_found": len(self._numbers),
            "kinds": dict(sorted(kinds.items())),
            "findings": [row | {"places": places[row["secret"]]} for row in self.rows],
            "not_read": self.unread,
        }


class _Scan:
    """One pass over a checkpoint."""

    def __init__(self, dump: Dump, bounds: Bounds, report: Report) -> None:
        self.findings = Findings(bounds)
        self.scanned_bytes = 0
        self._dump = dump
        self._bounds = bounds
        self._report = report
        self._total = _size_bytes(dump)

    def variables(self, task: Task) -> None:
        """The variables of a process."""
        for name, value in processes.arguments(self._dump, task).environment:
            place = {"type": "environment", "pid": task.pid, "name": clipped(name)}
            self._variable(name, value, place)

    def configuration(self) -> None:
        """The variables that the container was made with."""
        for name, value in _configured(self._dump.parts / layout.SPEC_DUMP):
            place = {"type": "configuration", "file": layout.SPEC_DUMP, "name": clipped(name)}
            self._variable(name, value, place)

    def pages(self, memory: Memory, place: Callable[[int], Row]) -> None:
        """All pages of a memory; ``place`` says where an address is."""
        search = self._search(place)
        expected = -1
        for vaddr, piece in memory.chunks():
            if self._is_over():
                break
            if vaddr != expected:
                search.begin(vaddr)
            search.feed(piece)
            expected = vaddr + len(piece)
            self._count(len(piece))
        search.end()

    def tar(self, file: Path, name: str) -> None:
        """Every file in a tar."""
        sink = _Members(self._search, name)
        try:
            reader = tar_format.Reader(sink, sparse=True)
            for piece in _pieces(file):
                if self._is_over():
                    return
                reader.feed(piece)
                self._count(len(piece))
            reader.close()
        except (ValueError, zlib.error, Refused) as cause:
            said = cause.message if isinstance(cause, Refused) else str(cause)
            self.findings.unread.append(f"{name} could not be read to its end: {clipped(said)}")

    def raw(self, file: Path, name: str) -> None:
        """An image that holds content as it was."""
        search = self._search(lambda at: {"type": "image", "file": name, "offset": at})
        for piece in _pieces(file):
            if self._is_over():
                break
            search.feed(piece)
            self._count(len(piece))
        search.end()

    def _variable(self, name: str, value: bytes, place: Row) -> None:
        found: list[Hit] = []
        search = Search(found.append, self.findings.key)
        search.feed(f"{name}=".encode() + value)
        search.end()
        known = [hit for hit in found if hit.kind not in ("password", "api_key")]
        for hit in known[:MAX_PLACES]:
            self.findings.add(hit.kind, hit.digest, place)
        if not known and secret_kinds.is_secret_variable(name, value):
            self.findings.add(
                "secret_variable", secret_kinds.digest(value, self.findings.key), place
            )

    def _search(self, place: Callable[[int], Row]) -> Search:
        def found(hit: Hit) -> None:
            self.findings.add(hit.kind, hit.digest, place(hit.offset))

        return Search(found, self.findings.key)

    def _is_over(self) -> bool:
        self._bounds.check()
        return self._bounds.is_over

    def _count(self, size_bytes: int) -> None:
        self.scanned_bytes += size_bytes
        done = min(self.scanned_bytes, self._total)
        percent = 100.0 * done / max(1, self._total)
        self._report(Progress(percent, "Searching for secrets", done, self._total))


class _Members:
    """Searches each file of a tar on its own."""

    def __init__(self, search: Callable[[Callable[[int], Row]], Search], archive: str) -> None:
        self._make = search
        self._archive = archive
        self._search: Search | None = None

    def begin(self, entry: tar_format.Entry) -> None:
        """A member starts."""
        if entry.is_file:
            path = clipped(
                entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            )
            place = {"type": "file", "archive": self._archive, "path": path}
            self._search = self._make(lambda at: place | {"offset": at})

    def write(self, chunk: memoryview) -> None:
        """Some of its content."""
        if self._search is not None:
            self._search.feed(chunk)

    def end(self) -> None:
        """It is whole."""
        if self._search is not None:
            self._search.end()
        self._search = None


def report(dump: Dump, bounds: Bounds, progress: Report) -> dict[str, Any]:
    """Kinds and places of secrets in everything that the checkpoint holds."""
    scan = _Scan(dump, bounds, progress)
    scan.configuration()
    for task in dump.tasks():
        scan.variables(task)
        memory = dump.memory(task)
        if memory is not None:
            with memory:
                scan.pages(memory, _in_process(dump, task))
    for number, memory in dump.shared_memories():
        with memory:
            scan.pages(memory, _in_shared(number))
    for name, file in _files(dump.parts, (*_TARS, _TMPFS)):
        scan.tar(file, name)
    for name, file in _files(dump.images, _RAW):
        scan.raw(file, name)
    return {**scan.findings.report(), "scanned_bytes": scan.scanned_bytes}


def _in_process(dump: Dump, task: Task) -> Callable[[int], Row]:
    def place(vaddr: int) -> Row:
        mapping = clipped(mappings.located(dump, task, vaddr))
        return {"type": "memory", "pid": task.pid, "vaddr": f"{vaddr:#x}", "mapping": mapping}

    return place


def _in_shared(number: int) -> Callable[[int], Row]:
    return lambda at: {"type": "shared_memory", "shmid": number, "offset": at}


def _configured(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with os.fdopen(opening.descriptor(file), "rb") as opened:
            spec = msgspec.json.decode(opened.read(CHUNK))
        variables = spec["process"]["env"]
    except (FileNotFoundError, msgspec.MsgspecError, KeyError, TypeError):
        return
    for entry in variables if isinstance(variables, list) else ():
        name, equals, value = str(entry).partition("=")
        if equals:
            yield name, value.encode("utf-8", "surrogatepass")


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for pattern in patterns:
        for file in sorted(folder.glob(pattern)):
            yield file.relative_to(folder).as_posix(), file


def _size_bytes(dump: Dump) -> int:
    files = [file for _, file in _files(dump.parts, (*_TARS, _TMPFS))]
    files += [file for _, file in _files(dump.images, ("pages-*.img", *_RAW))]
    return sum(file.lstat().st_size for file in files)


def _pieces(file: Path) -> Iterator[bytes]:
    """The file's content, unpacked if it is gzip (containerd's ``rootfs-diff.tar`` is, whatever its name says)."""
    with os.fdopen(opening.descriptor(file), "rb") as opened:
        if opened.peek(2)[:2] != _GZIP:
            while piece := opened.read(CHUNK):
                yield piece
            return
        inflater, inflated = zlib.decompressobj(zlib.MAX_WBITS | 16), 0
        while packed := opened.read(CHUNK):
            while packed and not inflater.eof:
                piece = inflater.decompress(packed, CHUNK)
                inflated += len(piece)
                if inflated > _MAX_INFLATED:
                    raise ValueError("it unpacks to more than anything real")
                yield piece
                packed = inflater.unconsumed_tail

"""The wrapper's side of the talk: requests are files renamed into a folder, answers go through a FIFO each.

No socket client is needed in the shell, a request is whole or not there, and with this agent dead the lock is
free: the wrapper sees that and starts cold at once. A question stays there, as ``.taken``, until it is answered: an
agent that starts anew in time takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from agent import errors
from agent.restore.hook_running import Hooked

WRAPPER_WAITS_S: Final = 20.0  # snap-runc.sh: `timeout 20`
REQUEST_BYTES: Final = 8192
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
_RETRY_S: Final = 0.02


class Verb(StrEnum):
    """What the wrapper says."""

    ASK = "ask"  # a container is to be created: restore it?
    STARTED = "started"  # a restored container was let go
    FAILED = "failed"  # the restore failed and was undone; it starts cold


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``asked_at_ns`` is when it was renamed into place (wall clock).

    Attributes:
        bundle: of the container, on the node; "" where the verb needs none.
        runtime: the real OCI runtime, a name or a path.
    """

    verb: Verb
    container_id: str
    bundle: str
    runtime: str
    asked_at_ns: int

    @property
    def age_s(self) -> float:
        """How long the wrapper has been waiting."""
        return max(0.0, (time.time_ns() - self.asked_at_ns) / 1e9)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the wrapper shall do. Paths are the node's. ``reason`` is for people.

    Attributes:
        fill_s: seconds within which this agent brings the memory, while the container stands still; 0: CRIU reads it.
        memory_bytes: that a restore brings in. Like what follows it, not part of the talk.
        asides: folders with what had to make room.
        mode_reason: why it is lazy, or eager, in a sentence.
        hooked: what is to be done in the container once it is let go.
    """

    restore: bool
    reason: str = ""
    images: str = ""
    work: str = ""
    uts: str = ""
    lazy: bool = False
    fill_s: int = 0
    memory_bytes: int = 0
    asides: tuple[str, ...] = ()
    mode_reason: str = ""
    hooked: Hooked | None = None

    def encode(self) -> bytes:
        """The lines; the action comes last, so that an answer cut short is none."""
        lines = [f"reason={' '.join(self.reason.split())[:1000]}"]
        if self.restore:
            lines += [f"images={self.images}", f"work={self.work}", f"lazy={int(self.lazy)}"]
            lines += [f"uts={self.uts}"] if self.uts else []
            lines += [f"fill={self.fill_s}"] if self.fill_s else []
        lines.append(f"action={'restore' if self.restore else 'cold'}")
        return ("\n".join(lines) + "\n").encode()[-4096:]  # PIPE_BUF: written whole or not at all


@contextlib.asynccontextmanager
async def lock(file: Path, *, timeout_s: float = 5.0) -> AsyncIterator[None]:
    """Hold ``file`` for the block: as long as it is held, wrappers ask.

    Raises:
        Broken: another agent holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while not _locked(descriptor):  # wrappers hold it shared for the moment they look
            if time.monotonic() > deadline:
                raise errors.Broken(f"another agent holds {file}; only one may answer the wrapper")
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Inbox:
    """The folder of requests. Small files of our own: its methods don't block for long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, only for root."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)

    def take_up(self) -> None:
        """Have the questions wait again that an earlier agent took and did not answer. Hold the lock."""
        for file in self.folder.glob("*.taken"):
            with contextlib.suppress(FileNotFoundError):  # its wrapper has given up
                file.rename(file.with_suffix(".ask"))

    def waiting(self) -> Iterator[Path]:
        """The requests that nobody has taken, oldest first."""
        found = []
        for file in self.folder.glob("*.ask"):
            with contextlib.suppress(FileNotFoundError):
                found.append((file.lstat().st_mtime_ns, file))
        yield from (file for _, file in sorted(found))

    def take(self, file: Path) -> Request | None:
        """The request in ``file``, which does not wait afterwards; None when it is none (left by an accident)."""
        with contextlib.suppress(OSError):
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                facts = os.fstat(descriptor)
                text = stream.read(REQUEST_BYTES) if stat.S_ISREG(facts.st_mode) else b""
            request = _parse(file.name.removesuffix(".ask"), text, facts.st_mtime_ns)
            if request and request.verb is Verb.ASK:
                file.rename(file.with_suffix(".taken"))  # its time stays
            else:
                file.unlink()
            return request
        return None

    async def answer(self, container_id: str, answer: Answer, *, within_s: float) -> bool:
        """Give ``answer``; False: the wrapper has gone, or did not come to its FIFO ``within_s``."""
        is_given = await self._give(container_id, answer, within_s)
        (self.folder / f"{container_id}.taken").unlink(missing_ok=True)
        return is_given

    async def _give(self, container_id: str, answer: Answer, within_s: float) -> bool:
        fifo = self.folder / f"{container_id}.answer"
        deadline = time.monotonic() + within_s
        while True:
            try:
                descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            except OSError as cause:
                if cause.errno != errno.ENXIO or time.monotonic() > deadline:
                    return False
                await asyncio.sleep(_RETRY_S)  # it made the FIFO and will open it in a moment
                continue
            try:
                return os.write(descriptor, answer.encode()) > 0
            except OSError:
                return False
            finally:
                os.close(descriptor)

    def sweep(self, older_than_s: float) -> None:
        """Remove what wrappers left that were killed while they waited."""
        limit = time.time() - older_than_s
        for pattern in ("*.tmp", "*.taken", "*.answer"):
            for file in self.folder.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    if file.lstat().st_mtime < limit:
                        file.unlink()


def _parse(name: str, text: bytes, asked_at_ns: int) -> Request | None:
    fields: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key, value)
    verb, container_id, bundle = (
        fields.get("verb", ""),
        fields.get("id", ""),
        fields.get("bundle", ""),
    )
    if verb not in set(Verb) or container_id != name or not _ID.fullmatch(container_id):
        return None
    if (bundle or verb == Verb.ASK) and not _is_plain(bundle):
        return None
    return Request(Verb(verb), container_id, bundle, fields.get("runtime", ""), asked_at_ns)


def _is_plain(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and len(path) < 4096

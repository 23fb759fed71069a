"""The eager restores of this node whose memory this agent brings: begun, waited for by the wrapper, on record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agent import errors
from agent.formats import late_pages
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.late_pages import LatePages
from agent.restore import memory_filling
from agent.restore.folders import Folders
from agent.restore.inbox import Answer
from agent.restore.lazy_pages import SOCKET
from agent.runtimes import commands
from agent.runtimes.commands import Host

_log = logging.getLogger(__name__)
FIFO: Final = "filled"  # the wrapper reads "complete" from it, or its end
COMPLETE: Final = b"complete\n"


@dataclass(frozen=True, slots=True)
class Filled:
    """How the memory of one container was brought.

    Attributes:
        pages: that came.
        at_ns: when all were there (wall clock); 0: they did not come.
        failure: why not, a sentence.
    """

    pages: int = 0
    at_ns: int = 0
    failure: str = ""


@dataclass(slots=True)
class _Ends:
    """What is open for one container: where CRIU connects, and what the wrapper reads from.

    Attributes:
        heard: the wrapper has said what became of the container. What it did not read by then is lost: a FIFO that
            nobody has open forgets.
    """

    listener: socket.socket
    fifo: int
    heard: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Fills:
    """One event loop. A wrapper that waits learns of this agent's death by the FIFO's end."""

    host: Host
    folders: Folders
    _ended: dict[str, Filled] = field(default_factory=dict)
    _running: dict[str, tuple[asyncio.Task[None], _Ends]] = field(default_factory=dict)

    def adopt(self) -> None:
        """Have nobody wait for what an earlier agent began. Blocks for a moment."""
        for fifo in self.host.path(self.folders.work).glob(f"*/{FIFO}"):
            with contextlib.suppress(OSError):  # nobody reads
                os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
            fifo.unlink(missing_ok=True)

    async def begin(self, container_id: str, answer: Answer) -> Answer:
        """Wait for CRIU, if memory is to be filled in; should that fail: the same, by CRIU itself."""
        if not answer.fill_s:
            return answer
        images, work = self.host.path(answer.images), self.host.path(answer.work)
        try:
            pages = await asyncio.to_thread(
                late_pages.find, images, piece_bytes=memory_filling.PIECE_BYTES
            )
            ends = await asyncio.to_thread(_open, work)
        except (OSError, ValueError) as cause:
            _log.info("CRIU itself reads the memory of %s: %s", container_id, cause)
            return replace(answer, fill_s=0)
        task = asyncio.create_task(
            self._run(container_id, ends, pages, answer.fill_s),
            name=f"memory of {container_id[:12]}",
        )
        self._running[container_id] = task, ends
        task.add_done_callback(lambda _: self._running.pop(container_id, None))
        return answer

    async def give_up(self, container_id: str) -> None:
        """Nobody will restore with it."""
        if running := self._running.get(container_id):
            running[0].cancel()
            await asyncio.wait({running[0]})

    def take(self, container_id: str) -> Filled:
        """How it ended, which is forgotten by this; nothing where CRIU read the memory. The wrapper has been heard."""
        if running := self._running.get(container_id):
            running[1].heard.set()
        return self._ended.pop(container_id, Filled())

    async def _run(self, container_id: str, ends: _Ends, pages: LatePages, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                connection, _ = await loop.sock_accept(ends.listener)
            with connection:
                filling = asyncio.to_thread(_fill, connection, pages, deadline, ends.fifo)
                await commands.finish(filling, within_s)
            self._ended[container_id] = Filled(pages.size // PAGE_SIZE, time.time_ns())
            with contextlib.suppress(TimeoutError):  # its wrapper was killed
                async with asyncio.timeout(within_s):
                    await ends.heard.wait()
        except (errors.SnapError, OSError) as cause:
            words = getattr(cause, "message", "") or f"{type(cause).__name__}: {cause}"
            _log.warning("the memory of %s was not brought: %s", container_id, words)
            self._ended[container_id] = Filled(failure=words)
        finally:
            ends.listener.close()
            os.close(ends.fifo)


def _fill(connection: socket.socket, pages: LatePages, deadline: float, fifo: int) -> None:
    """Bring everything, then say so: also where this agent is being stopped meanwhile."""
    memory_filling.fill(connection, pages, deadline)
    if time.monotonic() > deadline:
        raise TimeoutError
    os.write(fifo, COMPLETE)


def _open(work: Path) -> _Ends:
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (FIFO, SOCKET):
        (work / name).unlink(missing_ok=True)
    os.mkfifo(work / FIFO, 0o600)
    with contextlib.ExitStack() as failing:
        listener = failing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        with _folder(work) as folder:  # a socket's path is short by law
            listener.bind(f"{folder}/{SOCKET}")
        listener.listen(1)
        listener.setblocking(False)
        # for both ways: open before there is a reader, and its end is ours alone
        fifo = os.open(work / FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        failing.pop_all()
        return _Ends(listener, fifo)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

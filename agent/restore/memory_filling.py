"""Bringing a restored process its memory while it stands still, faster than CRIU does.

CRIU reads pages into fresh memory, which the kernel hands out one fault at a time. Restored as if lazily, a process
hands over a userfaultfd instead, and threads here put its pages in place in large pieces. The process is no lazy one
for all that: its tasks are left stopped (``criu_options``), and the wrapper's ``create`` does not return before every
page is there. Should this agent die meanwhile, the wrapper hears of it, and the container starts cold.

Source: CRIU, criu/uffd.c (``lazy-pages.socket``: a process's number, then the descriptor; at the end one more word).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

from agent import errors
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.late_pages import Batch, LatePages, Piece
from agent.runtimes import userfault

PIECE_BYTES: Final = 512 << 10
_WORKERS: Final = min(4, os.cpu_count() or 1)
_NUMBER: Final = struct.Struct("=i")
_NOBODY: Final = -1  # a zombie's number: it has no memory
_RETRY_S: Final = 0.001
_LOOK_S: Final = 0.005


def fill(connection: socket.socket, pages: LatePages, deadline: float) -> None:
    """Bring ``pages`` to the process that CRIU restores, then hear CRIU out. Blocks.

    Args:
        connection: CRIU's.
        deadline: ``time.monotonic()``.

    Raises:
        Broken: not all pages are there.
        OSError: the same; the process or CRIU is gone, say.
    """
    connection.settimeout(max(deadline - time.monotonic(), 0.1))
    memory = _memory(connection, pages.pid)
    try:
        _Filling(connection, memory, iter(pages.batches), deadline).run()
    finally:
        os.close(memory)
    connection.recv(_NUMBER.size)  # CRIU says one word more, and would die of a closed connection


def _memory(connection: socket.socket, wanted: int) -> int:
    """The descriptor of the memory of the process with the number ``wanted``."""
    while True:
        said = connection.recv(_NUMBER.size, socket.MSG_WAITALL)
        if len(said) < _NUMBER.size:
            raise errors.Broken("CRIU ended before it handed over the process's memory.")
        (pid,) = _NUMBER.unpack(said)
        if pid == _NOBODY:
            continue
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if pid == wanted and descriptors:
            return descriptors[0]
        for descriptor in descriptors:
            os.close(descriptor)
        raise errors.Broken(f"CRIU hands over the memory of process {pid}, not of {wanted}.")


class _Filling:
    """One memory, filled by several threads."""

    def __init__(
        self, connection: socket.socket, memory: int, batches: Iterator[Batch], deadline: float
    ) -> None:
        self._connection, self._memory = connection, memory
        self._batches, self._lock = batches, threading.Lock()
        self._deadline = deadline
        self._failure: Exception | None = None  # the first one: others come of it
        self._over = False

    def run(self) -> None:
        with ThreadPoolExecutor(_WORKERS + 1, "memory") as pool:
            hearing = pool.submit(self._hear)
            working = [pool.submit(self._work) for _ in range(_WORKERS)]
            wait(working)
            self._over = True
        if self._failure is not None:
            raise self._failure
        for done in (*working, hearing):
            done.result()

    def _hear(self) -> None:
        """CRIU changes mappings while pages come, and goes on when that was heard."""
        while not self._over:
            userfault.hear(self._memory, _LOOK_S)

    def _work(self) -> None:
        with mmap.mmap(-1, PIECE_BYTES) as buffer:
            address = ctypes.c_char.from_buffer(buffer)
            try:
                while batch := self._next():
                    self._bring(batch, buffer, ctypes.addressof(address))
            except (errors.SnapError, OSError) as cause:
                with self._lock:
                    self._failure = self._failure or cause
                raise
            finally:
                del address  # the buffer can't be closed while it is looked at

    def _next(self) -> Batch | None:
        with self._lock:
            return None if self._failure else next(self._batches, None)

    def _bring(self, batch: Batch, buffer: mmap.mmap, address: int) -> None:
        descriptor = os.open(batch.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with memoryview(buffer) as view:
                for piece in batch.pieces:
                    with view[: piece.length] as place:
                        got = os.preadv(descriptor, [place], piece.offset)
                    if got < piece.length:
                        raise errors.Broken(f"{batch.file.name} is shorter than its pagemap says.")
                    self._put(piece, address)
        finally:
            os.close(descriptor)

    def _put(self, piece: Piece, address: int) -> None:
        done, length = 0, piece.length
        while done < piece.length:
            target, source = piece.vaddr + done, address + done
            try:
                copied = userfault.copy(self._memory, target, source, length)
            except FileNotFoundError:
                if length > PAGE_SIZE:  # it may reach into the next mapping
                    length = length // 2 // PAGE_SIZE * PAGE_SIZE
                    continue
                copied = 0  # CRIU has not come to this mapping yet
            except FileExistsError:  # CRIU needed it and brought it itself
                copied = PAGE_SIZE
            if not copied:
                self._wait()
            done += copied
            length = piece.length - done

    def _wait(self) -> None:
        if self._failure or time.monotonic() > self._deadline:
            raise errors.Broken("Its memory could not be brought in time.")
        said, _, _ = select.select([self._connection], [], [], 0)
        if said and not self._connection.recv(1, socket.MSG_PEEK):
            raise errors.Broken("CRIU ended before the process's memory was there.")
        time.sleep(_RETRY_S)

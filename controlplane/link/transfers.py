"""Archives on their way from a node to a reader: a few pieces at a time, at the reader's pace."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from controlplane import errors
from controlplane.errors import Failed, NotFound, Retryable, SnapError
from controlplane.link import frames

PIECES: Final = 4  # held at once; a piece is at most 1 MiB
FIRST_S: Final = 30.0  # for the agent to open the archive
NEXT_S: Final = 60.0  # for the node to read on
READER_S: Final = 300.0  # a reader that takes nothing for so long has gone


class Transfer:
    """One archive, or a part of it, that a node was asked for."""

    def __init__(self, cluster: str, offset: int) -> None:
        self.id: Final = secrets.token_hex(16)
        self.cluster: Final = cluster
        self.offset: Final = offset
        self.total_bytes = 0
        self._pieces: asyncio.Queue[frames.Chunk] = asyncio.Queue(PIECES)
        self._ended = asyncio.Event()
        self._failure: SnapError | None = None

    async def feed(self, piece: frames.Chunk) -> None:
        """Hand a piece to the reader; waits for room.

        Raises:
            NotFound: the reader is gone.
        """
        put = asyncio.ensure_future(self._pieces.put(piece))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([put, ended], timeout=READER_S, return_when=asyncio.FIRST_COMPLETED)
            if not put.done() or self._ended.is_set():
                self.end()
                raise NotFound("Nobody reads this archive any more.")
        finally:
            put.cancel()
            ended.cancel()

    def end(self, failure: SnapError | None = None) -> None:
        """Nothing more will come (``failure`` says why), or nobody reads any more."""
        self._failure = self._failure or failure
        self._ended.set()

    async def next_piece(self, timeout_s: float) -> frames.Chunk:
        """The next piece.

        Raises:
            SnapError: the node refused, stopped or did not answer in time.
        """
        got = asyncio.ensure_future(self._pieces.get())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([got, ended], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if got.done():  # what came before the end is still read
                return got.result()
        finally:
            got.cancel()
            ended.cancel()
        if not self._pieces.empty():
            return self._pieces.get_nowait()
        if self._ended.is_set():
            raise self._failure or _broken_off("nothing more came")
        raise Retryable(f"The node sent nothing of the archive for {timeout_s:g} s.", after_s=5)

    async def body(self, first: frames.Chunk, length: int) -> AsyncGenerator[bytes, None]:
        """The bytes from ``first`` on, ``length`` of them (0: to the end).

        Raises:
            Failed: the node stopped before all was here.
        """
        left = max(self.total_bytes - self.offset, 0)
        left = min(length, left) if length else left
        offset, piece = self.offset, first
        while True:
            if piece.offset != offset:
                raise _broken_off(f"bytes from {offset} on are missing")
            data = piece.data[:left]
            offset, left = offset + len(piece.data), left - len(data)
            if data:
                yield data
            if left == 0:
                return
            if piece.last:
                raise _broken_off(f"{left} bytes are missing")
            piece = await self.next_piece(NEXT_S)


class Transfers:
    """The transfers that are under way."""

    def __init__(self) -> None:
        self._open: dict[str, Transfer] = {}

    def begin(self, cluster: str, offset: int) -> Transfer:
        """A new transfer from ``offset`` on, known by its id until ``end``."""
        transfer = Transfer(cluster, offset)
        self._open[transfer.id] = transfer
        return transfer

    def end(self, transfer: Transfer) -> None:
        """Forget a transfer; a node that still sends is told that nobody reads."""
        transfer.end()
        self._open.pop(transfer.id, None)

    def find(self, transfer_id: str) -> Transfer | None:
        """The transfer of this id, if it is under way."""
        return self._open.get(transfer_id)

    async def take(self, cluster: str, chunks: AsyncIterator[frames.Chunk]) -> int:
        """Hand the pieces of one call of SendArchive to their reader; how many bytes came.

        Raises:
            NotFound: no such transfer in that cluster, or nobody reads any more.
        """
        received, transfer = 0, None
        try:
            async for piece in chunks:
                transfer = transfer or self.find(piece.transfer_id)
                if transfer is None or transfer.cluster != cluster:
                    raise NotFound("There is no such transfer.")
                received += len(piece.data)
                if not transfer.total_bytes:
                    transfer.total_bytes = piece.total_bytes
                await transfer.feed(piece)
        finally:
            if transfer is not None:
                transfer.end(_broken_off("the node's stream ended"))
        return received

    async def read(
        self, transfer: Transfer, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """Wait for the first piece; (size of the whole archive, the bytes asked for).

        Raises:
            SnapError: the node refused, or did not answer.
        """
        try:
            first = await transfer.next_piece(FIRST_S)
        except BaseException:
            self.end(transfer)
            raise
        return transfer.total_bytes, self._body(transfer, first, length)

    async def _body(
        self, transfer: Transfer, first: frames.Chunk, length: int
    ) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(transfer.body(first, length)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self.end(transfer)


def _broken_off(why: str) -> Failed:
    return Failed(
        "The archive broke off on its way from the node; ask for the rest again.",
        code=errors.AGENT_UNAVAILABLE,
        details=why,
    )

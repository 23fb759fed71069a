"""The calls that carry frames and archives, and what comes with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1.link_pb2_grpc import AgentLinkStub

if TYPE_CHECKING:
    from snap_protos.snap.v1.link_pb2_grpc import AgentLinkAsyncStub  # known to its stub file only

SIGNED_PREFIX: Final = b"snap-join-v1\n"
MAX_MESSAGE_BYTES: Final = 32 << 20  # all grants of a large cluster come in one Welcome

AgentFrame = pb.AgentFrame
ControlFrame = pb.ControlFrame
ConnectCall = grpc.aio.StreamStreamCall[AgentFrame, ControlFrame]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an archive. ``total_bytes`` is the whole archive's size, in the first chunk."""

    transfer_id: str
    offset: int
    data: bytes
    total_bytes: int = 0
    last: bool = False


def stub(channel: grpc.aio.Channel) -> AgentLinkAsyncStub:
    """The control plane's calls on ``channel``."""
    return AgentLinkStub(channel)


def signed_text(nonce: bytes, cluster: str, node: str) -> bytes:
    """What a Hello's signature is over."""
    return SIGNED_PREFIX + b"\n".join([nonce, cluster.encode(), node.encode()])


async def send_archive(
    calls: AgentLinkAsyncStub, token: str, chunks: AsyncIterator[Chunk], timeout_s: float
) -> int:
    """Send ``chunks`` as one archive; returns how many bytes the control plane took.

    Raises:
        grpc.aio.AioRpcError: it broke off.
    """

    async def messages() -> AsyncIterator[pb.ArchiveChunk]:
        async for chunk in chunks:
            yield pb.ArchiveChunk(
                transfer_id=chunk.transfer_id,
                offset=chunk.offset,
                data=chunk.data,
                total_bytes=chunk.total_bytes,
                last=chunk.last,
            )

    receipt = await calls.SendArchive(messages(), metadata=bearer(token), timeout=timeout_s)
    return receipt.received_bytes


async def fetch_archive(
    calls: AgentLinkAsyncStub, token: str, wanted: tuple[str, int], next_s: float
) -> AsyncGenerator[Chunk, None]:
    """The pieces of an uploaded archive; closing this stops the control plane.

    Args:
        wanted: id of the transfer, and the offset of its first byte.
        next_s: how long to wait for each piece.

    Raises:
        grpc.aio.AioRpcError: it was refused, or broke off. TimeoutError: nothing came.
    """
    request = pb.FetchArchiveRequest(transfer_id=wanted[0], offset=wanted[1])
    call = calls.FetchArchive(request, metadata=bearer(token))
    try:
        while True:
            async with asyncio.timeout(next_s):
                piece = await call.read()
            if not isinstance(piece, pb.ArchiveChunk):  # gRPC's end of the stream
                return
            yield Chunk(
                piece.transfer_id, piece.offset, piece.data, piece.total_bytes, last=piece.last
            )
    finally:
        call.cancel()


async def failure(call: ConnectCall) -> grpc.aio.AioRpcError:
    """Why ``call`` is over."""
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        details=await call.details(),
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries ``token``."""
    return (("authorization", f"Bearer {token}"),)

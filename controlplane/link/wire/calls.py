"""The calls of agents: who asks, what comes in streams, and errors of ours as statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from controlplane.errors import (
    Conflict,
    Denied,
    NotFound,
    Retryable,
    SnapError,
    Unauthenticated,
)
from controlplane.link import frames
from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1 import link_pb2_grpc as pb_grpc

# what reading or writing a stream raises once the other side is gone
STREAM_OVER: Final = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)

AgentFrame = pb.AgentFrame
ControlFrame = pb.ControlFrame
Chunk = pb.ArchiveChunk
Context = grpc.aio.ServicerContext[Any, Any]
_STATUSES: Final[Mapping[type[SnapError], grpc.StatusCode]] = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Retryable: grpc.StatusCode.UNAVAILABLE,
}


class Handlers(Protocol):
    """What the server does with calls (``link.server``)."""

    async def connect(
        self, token: str, said: AsyncIterator[AgentFrame], context: Context
    ) -> None: ...

    async def receive_archive(self, token: str, chunks: AsyncIterator[Chunk]) -> int: ...

    def send_archive(
        self, token: str, transfer_id: str, offset: int
    ) -> AsyncGenerator[frames.Chunk, None]: ...


class _Servicer(pb_grpc.AgentLinkServicer):
    """Turns gRPC calls into those of ``Handlers``, and errors of ours into statuses."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    # grpc.aio takes handlers that write by themselves as well as generators; the stubs know only these
    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        try:
            await self._handlers.connect(bearer(context), request_iterator, context)
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)

    async def SendArchive(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        try:
            token = bearer(context)
            received = await self._handlers.receive_archive(token, request_iterator)
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)
        return pb.ArchiveReceipt(received_bytes=received)

    async def FetchArchive(self, request: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        try:
            chunks = self._handlers.send_archive(
                bearer(context), request.transfer_id, request.offset
            )
            async with aclosing(chunks):
                async for piece in chunks:
                    await context.write(pb.ArchiveChunk(**_plain_chunk(piece)))
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)


def serve(server: grpc.aio.Server, handlers: Handlers) -> None:
    """Let ``server`` answer agents by ``handlers``."""
    pb_grpc.add_AgentLinkServicer_to_server(_Servicer(handlers), server)


def status_of(error: SnapError) -> grpc.StatusCode:
    """The gRPC status of an error of ours."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return grpc.StatusCode.FAILED_PRECONDITION


def bearer(context: Context) -> str:
    """The token that the call came with.

    Raises:
        Unauthenticated: none.
    """
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
    raise Unauthenticated("The agent sent no join token (SNAP_AGENT_TOKEN).")


def signed_text(nonce: bytes, cluster: str, node: str) -> bytes:
    """What a joining agent signs."""
    return b"snap-join-v1\n%s\n%s\n%s" % (nonce, cluster.encode(), node.encode())


def chunk(piece: Chunk) -> frames.Chunk:
    """A piece of an archive."""
    return frames.Chunk(
        piece.transfer_id, piece.offset, piece.data, piece.total_bytes, last=piece.last
    )


def _plain_chunk(piece: frames.Chunk) -> dict[str, Any]:
    return {
        "transfer_id": piece.transfer_id,
        "offset": piece.offset,
        "data": piece.data,
        "total_bytes": piece.total_bytes,
        "last": piece.last,
    }

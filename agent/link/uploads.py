"""Archives that the control plane keeps for this node's jobs, over whatever session is open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from agent import errors
from agent.link.conversation import Ended
from agent.link.session import Session, why

_REFUSALS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Uploads:
    """What jobs read uploads from. Until a session is attached, the link is away."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def attach(self, session: Session) -> None:
        """Plug in the link."""
        self._session = session

    async def archive(self, transfer_id: str, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of an archive from ``offset`` on.

        Raises:
            NotFound: the control plane does not have it for us.
            Retryable: the link is away or broke.
        """
        held = self._session.conversation if self._session else None
        if held is None:
            raise _away("no session is open")
        try:
            async with aclosing(held.fetch_archive(transfer_id, offset)) as chunks:
                async for chunk in chunks:
                    if chunk.offset != offset:
                        raise _away(f"bytes from {offset} on are missing")
                    offset += len(chunk.data)
                    yield chunk.data
        except grpc.aio.AioRpcError as broken:
            if broken.code() in _REFUSALS:
                raise errors.NotFound(
                    "The control plane does not give out the archive any more.",
                    details=broken.details() or "",
                ) from broken
            raise _away(why(broken)) from broken
        except (Ended, TimeoutError) as broken:
            raise _away(str(broken)) from broken


def _away(details: str) -> errors.Retryable:
    return errors.Retryable(
        "The link to the control plane broke while the archive came.", details=details
    )

"""Messages of a WebSocket, many in one write.

A write is a call of the system and wakes the client: with thousands of news a second that would cost more than the
news. Frames are the server's (not masked) and never compressed, which is allowed whatever was agreed on.

Source: RFC 6455, 5.2 (frames); RFC 7692, 6 (what is not compressed has RSV1 clear).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import Final

WAITING_BYTES: Final = 256 << 10  # that a client may leave untaken before no more is written
_LOOK_S: Final = 0.02
_TEXT: Final = 0x81  # the only frame of its message
_SHORT, _MEDIUM = 126, 1 << 16
_short = struct.Struct("!BB").pack
_medium = struct.Struct("!BBH").pack
_long = struct.Struct("!BBQ").pack


def text_frames(messages: Iterable[bytes]) -> bytes:
    """A frame of text for each message, one after the other."""
    parts: list[bytes] = []
    for message in messages:
        length = len(message)
        if length < _SHORT:
            parts.append(_short(_TEXT, length))
        elif length < _MEDIUM:
            parts.append(_medium(_TEXT, 126, length))
        else:
            parts.append(_long(_TEXT, 127, length))
        parts.append(message)
    return b"".join(parts)


async def write(transport: asyncio.WriteTransport, frames: bytes, deadline_s: float) -> None:
    """Write ``frames``; return when the client has taken enough of what waits, mostly at once.

    Raises:
        ConnectionResetError: the client is gone.
        TimeoutError: it took too little within ``deadline_s``.
    """
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")
    transport.write(frames)
    if transport.get_write_buffer_size() > WAITING_BYTES:
        async with asyncio.timeout(deadline_s):
            while transport.get_write_buffer_size() > WAITING_BYTES:  # noqa: ASYNC110 - has no event
                await asyncio.sleep(_LOOK_S)

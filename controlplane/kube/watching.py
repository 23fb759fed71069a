"""A watch's answer as events: one JSON object per line.

Source: kubernetes.io/docs/reference/using-api/api-concepts (efficient detection of changes, bookmarks).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import aiohttp
import msgspec

from controlplane.kube import answers
from controlplane.kube.resources import Object

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
BOOKMARK: Final = "BOOKMARK"  # nothing changed up to this resource version
_ERROR: Final = "ERROR"
_LINE_BYTES: Final = 64 << 20


class Event(NamedTuple):
    """One thing that happened."""

    kind: str
    object: Object


class _Line(msgspec.Struct):
    type: str
    object: Object


_DECODER: Final = msgspec.json.Decoder(_Line)


async def events(answer: aiohttp.ClientResponse, cluster: str, path: str) -> AsyncIterator[Event]:
    """What a watch's answer says, as it comes; raises as ``answers`` says."""
    try:
        async for line in _lines(answer):
            told = _DECODER.decode(line)
            if told.type == _ERROR:
                status = told.object
                said = (
                    int(status.get("code") or 500),
                    str(status.get("reason") or ""),
                    answers.plain(status.get("message") or ""),
                )
                raise answers.of_status(cluster, f"GET {path}", said)
            yield Event(told.type, told.object)
    except answers.CONNECTION_OVER as cause:
        raise answers.broken_off(cluster, cause) from cause
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as cause:
        raise answers.unusable(
            cluster, "unreachable: what answers there is no API server"
        ) from cause


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    waiting = bytearray()
    async for piece in answer.content.iter_any():
        waiting += piece
        if b"\n" not in piece:
            if len(waiting) > _LINE_BYTES:
                raise ValueError("a line without an end")
            continue
        *whole, rest = bytes(waiting).split(b"\n")
        waiting = bytearray(rest)
        for line in whole:
            if line.strip():
                yield line

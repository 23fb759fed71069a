"""Sending an archive from a node to a client: whole or in part, resumable, no faster than it is taken."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from controlplane.api.calls import Call
from controlplane.api.problems import HttpError
from controlplane.checkpoints.commands import Archive
from controlplane.errors import RANGE_NOT_SATISFIABLE, Retryable, SnapError

_log = logging.getLogger(__name__)
_WRITE_DEADLINE_S: Final = 120.0  # a client that takes nothing for so long has gone
_CONDITIONS: Final = ("Range", "If-None-Match")
_RANGE: Final = re.compile(r"^bytes=(\d{0,19})-(\d{0,19})$")


@dataclass(frozen=True, slots=True)
class Part:
    """Which bytes were asked for; ``partial`` is whether a range was."""

    start: int
    length: int
    partial: bool


async def send(call: Call, pod_name: str, filename: str) -> web.StreamResponse:
    """Answer a download, or a HEAD for it.

    Raises:
        HttpError: the range is outside of the archive.
        SnapError: there is no such archive, or its node does not answer.
    """
    request = call.request
    service = call.services.checkpoints
    if request.method == "GET" and not any(name in request.headers for name in _CONDITIONS):
        archive = await service.open_archive(pod_name, filename, call.actor)
        whole = Part(0, archive.size_bytes, partial=False)
        return await _stream(call, _response(filename, archive.etag, whole, whole.length), archive)
    known = await service.archive_size(pod_name, filename, call.actor)
    size_bytes, etag = known.size_bytes, known.etag
    if _matches(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers={"ETag": f'"{etag}"'})
    part = part_of(_range(request, etag), size_bytes)
    response = _response(filename, etag, part, size_bytes)
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    archive = await service.open_archive(pod_name, filename, call.actor, part.start, part.length)
    if archive.etag != etag:  # its node left, or came back, between the two questions
        await archive.body.aclose()
        raise Retryable("The archive changed its place just now; ask again.", after_s=1)
    return await _stream(call, response, archive)


def _response(filename: str, etag: str, part: Part, size_bytes: int) -> web.StreamResponse:
    headers = {
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if part.partial:
        last = part.start + part.length - 1
        headers["Content-Range"] = f"bytes {part.start}-{last}/{size_bytes}"
    response = web.StreamResponse(status=206 if part.partial else 200, headers=headers)
    response.content_length = part.length
    return response


def part_of(wanted: str | None, size_bytes: int) -> Part:
    """The part of an archive that a Range header means; several ranges, or nonsense, mean all of it.

    Source: RFC 9110, 14.1.2 and 14.2 (a server may ignore a Range that it does not understand).

    Raises:
        HttpError: RANGE_NOT_SATISFIABLE.
    """
    found = _RANGE.match(wanted or "")
    if found is None or found.groups() == ("", ""):
        return Part(0, size_bytes, partial=False)
    first, last = found.groups()
    if not first:  # the last so many bytes
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
        outside = int(last) == 0
    else:
        start = int(first)
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < start:
            return Part(0, size_bytes, partial=False)
        outside = start >= size_bytes
    if outside or size_bytes == 0:
        raise HttpError(
            f"The archive has {size_bytes} bytes; the range is outside of it.",
            RANGE_NOT_SATISFIABLE,
            {"Content-Range": f"bytes */{size_bytes}"},
        )
    return Part(start, end - start + 1, partial=True)


def _range(request: web.Request, etag: str) -> str | None:
    """The Range header, unless it is meant for an archive that was another one."""
    expected = request.headers.get("If-Range")
    changed = expected is not None and expected != f'"{etag}"'
    return None if changed else request.headers.get("Range")


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
    return header.strip() == "*" or etag in tags


async def _stream(call: Call, response: web.StreamResponse, archive: Archive) -> web.StreamResponse:
    """Pass the archive on; if it breaks off, so does the connection, and the client knows."""
    async with aclosing(archive.body) as pieces:
        await response.prepare(call.request)
        try:
            async for piece in pieces:
                async with asyncio.timeout(_WRITE_DEADLINE_S):
                    await response.write(piece)
            await response.write_eof()
        except (SnapError, TimeoutError, ConnectionError) as cause:
            call.outcome = cause.code if isinstance(cause, SnapError) else "BROKEN_OFF"
            _log.warning("request %s: the download broke off: %s", call.request_id, cause)
            if call.request.transport is not None:
                call.request.transport.abort()
    return response

"""``/checkpoint/upload/*``: archives come in as they are sent, and count only when they were checked."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
import msgspec
from aiohttp import BodyPartReader, web

from controlplane.api.calls import Call
from controlplane.api.checkpoint_views import CheckpointDetails, detailed_fields
from controlplane.api.decoding import invalid
from controlplane.api.fields import ContainerName, Line, Name, Namespace, PodName
from controlplane.api.problems import HttpError
from controlplane.api.routing import Section
from controlplane.checkpoints.uploads import Upload, UploadCommand
from controlplane.errors import UNSUPPORTED_MEDIA_TYPE
from controlplane.identity import Role

SECTION: Final = Section("Uploads", "Checkpoint archives from elsewhere.")
_FIELD: Final = "file"
_READ: Final = 256 << 10
_WRITE: Final = 1 << 20
_NEXT_S: Final = 120.0  # for 1 MiB; a client that takes longer holds us up on purpose, or has gone
_MAX_PARTS: Final = 16
_MAX_OTHER_BYTES: Final = 64 << 10  # of parts that are not the file


class UploadRequest(msgspec.Struct):
    """Whose checkpoint the archive is. What is absent is read from the archive.

    ``filename`` is what old nodes send along; the archive is named by its checkpoint's id.
    """

    pod_name: PodName
    namespace: Namespace | None = None
    container_name: ContainerName | None = None
    cluster_name: Name | None = None
    filename: Line | None = None


class Uploaded(CheckpointDetails, frozen=True, kw_only=True):
    """An archive was taken in: a checkpoint like any other, but for its grants."""

    checkpoint_id: str
    saved_path: str
    message: str


@SECTION.route(
    "POST",
    "/checkpoint/upload/{pod_name}",
    takes=UploadRequest,
    gives=Uploaded,
    needs=Role.OPERATOR,
    query=("namespace", "container_name", "cluster_name", "filename"),
    streams=True,
    audited=True,
    errors=(
        "CLUSTER_NOT_FOUND",
        "PAYLOAD_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        "INTERNAL_ERROR",
        "TIMEOUT",
        "INSUFFICIENT_STORAGE",
    ),
)
async def upload(call: Call, wanted: UploadRequest) -> Uploaded:
    """Upload a checkpoint's archive, a plain or gzipped tar, as multipart field ``file``.

    It is written to the control plane's disk as it comes and checked before it counts. It can be downloaded and
    pushed; its image can be restored nowhere until an administrator shares it with a namespace.
    """
    request = call.request
    if not request.content_type.startswith("multipart/form-data"):
        sentence = "The archive must be sent as multipart/form-data, in the field `file`."
        raise HttpError(sentence, UNSUPPORTED_MEDIA_TYPE)
    command = UploadCommand(
        pod_name=wanted.pod_name,
        namespace=wanted.namespace or "",
        container_name=wanted.container_name or "",
        cluster_name=wanted.cluster_name or "",
        size_bytes=request.content_length or 0,
    )
    async with call.services.uploads.receiving(command, call.actor) as receiving:
        await _receive(request, receiving)
        made = await receiving.finish(call.actor)
    call.subject = f"checkpoint/{made.id}"
    fields = detailed_fields(made)
    return Uploaded(
        **fields,
        checkpoint_id=made.id,
        saved_path=fields["checkpoint_path"],
        message="Checkpoint uploaded successfully",
    )


async def _receive(request: web.Request, receiving: Upload) -> None:
    """Write the request's one file; a client that hangs up or stops raises.

    Raises:
        Refused: there is no such field, or several.
    """
    try:
        reader = await request.multipart()
        found = 0
        for _ in range(_MAX_PARTS):
            async with asyncio.timeout(_NEXT_S):
                part = await reader.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader):
                raise invalid("The body has parts within parts.")
            if part.name == _FIELD:
                found += 1
                if found > 1:
                    raise invalid("Field `file` is there twice; upload one archive at a time.")
                await _write(part, receiving)
            else:
                await _skip(part)
        else:
            raise invalid(f"The body has more than {_MAX_PARTS} parts.")
    except (ValueError, AssertionError, aiohttp.http_exceptions.HttpProcessingError) as cause:
        # aiohttp has no better words for a multipart body that is none
        raise invalid("The multipart body could not be read as it was sent.") from cause
    if not found:
        raise invalid("Field `file` is required: the archive.")


async def _write(part: BodyPartReader, receiving: Upload) -> None:
    encoding = part.headers.get("Content-Transfer-Encoding", "binary").lower()
    if encoding not in {"binary", "8bit", "7bit"} or "Content-Encoding" in part.headers:
        raise invalid("Field `file` must be sent as it is, without an encoding.")
    while piece := await _collected(part):
        await receiving.write(piece)


async def _collected(part: BodyPartReader) -> bytes:
    """The next 1 MiB, or what is left; empty at the end."""
    collected = bytearray()
    async with asyncio.timeout(_NEXT_S):
        while len(collected) < _WRITE and (piece := await part.read_chunk(_READ)):
            collected += piece
    return bytes(collected)


async def _skip(part: BodyPartReader) -> None:
    left = _MAX_OTHER_BYTES
    while True:
        async with asyncio.timeout(_NEXT_S):
            piece = await part.read_chunk(8192)
        if not piece:
            return
        left -= len(piece)
        if left < 0:
            raise invalid("A field besides `file` is too long.")

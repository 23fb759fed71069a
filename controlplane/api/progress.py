"""``/ws/progress``: news of jobs as they happen, over a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, ClassVar, Final

import msgspec
from aiohttp import WSMsgType, web
from msgspec import Meta

from controlplane.api import framing
from controlplane.api.callers import bearer_protocol, is_upgrade
from controlplane.api.calls import Call
from controlplane.api.fields import Line
from controlplane.api.problems import HttpError
from controlplane.api.routing import Section
from controlplane.api.services import News
from controlplane.api.tickets import LIFETIME_S
from controlplane.errors import NOT_FOUND
from controlplane.users.service import Session, Users

SECTION: Final = Section("Progress", "What jobs are doing, as it happens.")
_HEARTBEAT_S: Final = 30.0
_SEND_DEADLINE_S: Final = 10.0
_SESSION_CHECK_S: Final = 5.0
_MESSAGE_LIMIT_BYTES: Final = 64 << 10
_PONG: Final = '{"type":"pong"}'


class Follow(msgspec.Struct):
    """Where to go on, and a ticket for clients that can send neither header nor cookie."""

    since: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    ticket: Line | None = None


class FollowAs(Follow):
    """The same with a user's name, as the older server wanted it; the token decides what is seen."""

    username: Line = ""


class Ticket(msgspec.Struct, frozen=True):
    """Opens one WebSocket: ``/ws/progress?ticket=…``."""

    example: ClassVar[dict[str, Any]] = {}
    ticket: str
    expires_in_s: int = LIFETIME_S
    success: bool = True


@SECTION.route("POST", "/ws/ticket", gives=Ticket)
async def make_ticket(call: Call) -> Ticket:
    """Make a ticket: good once, for 30 seconds."""
    assert call.session is not None  # noqa: S101 - the route is closed
    return Ticket(call.tickets.issue(call.session))


@SECTION.route("GET", "/ws/progress", takes=Follow, status=101, media="none", errors=("NOT_FOUND",))
async def follow(call: Call, wanted: Follow) -> web.WebSocketResponse:
    """Follow one's jobs and those of watchers and hooks; administrators follow all.

    First comes the latest state of the running jobs (or, with ``since``, what was missed), then each step:
    ``{"type": "progress", "progress": 0-100 | "failed", "task_name", "message", "timestamp", "job_id",
    "cluster", "initiator", "status", "bytes_done", "bytes_total", "bytes_per_s", "remaining_s", "agent_lost",
    "event_id"}``. Bytes are those of the step that runs (0: not its measure); rate and remaining seconds come
    from the node's own counters and are null while not known. ``{"type": "ping"}`` is answered by
    ``{"type": "pong"}``. Proof of identity: header, cookie, subprotocol ``bearer.<token>``, or ``?ticket=``.
    """
    if not is_upgrade(call.request):
        raise HttpError("This endpoint is a WebSocket; open it with ws:// or wss://.", NOT_FOUND)
    assert call.session is not None  # noqa: S101 - the route is closed
    protocol = bearer_protocol(call.request)
    socket = web.WebSocketResponse(
        heartbeat=_HEARTBEAT_S,
        max_msg_size=_MESSAGE_LIMIT_BYTES,
        protocols=(protocol,) if protocol else (),
        timeout=_SEND_DEADLINE_S,
        compress=False,  # it would be done for each reader anew
    )
    async with call.services.progress.subscribe(call.actor, wanted.since) as events:
        await socket.prepare(call.request)
        reading = asyncio.create_task(_read(socket), name="websocket: read")
        telling = asyncio.create_task(_tell(socket, call.request, events), name="websocket: tell")
        guarding = asyncio.create_task(
            _guard(call.services.users, call.session), name="websocket: session"
        )
        tasks = {reading, telling, guarding}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        await socket.close(message=b"gone")
    return socket


@SECTION.route(
    "GET",
    "/ws/progress/{username}",
    takes=FollowAs,
    status=101,
    media="none",
    errors=("NOT_FOUND",),
)
async def follow_as(call: Call, wanted: FollowAs) -> web.WebSocketResponse:
    """The same, with the user's name in the path for clients of the older server."""
    return await follow(call, wanted)


async def _read(socket: web.WebSocketResponse) -> None:
    """Answer pings until the client goes away; anything else is ignored."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        try:
            said = msgspec.json.decode(message.data)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(said, dict) and said.get("type") == "ping":
            async with asyncio.timeout(_SEND_DEADLINE_S):
                await socket.send_str(_PONG)


async def _tell(socket: web.WebSocketResponse, request: web.Request, news: News) -> None:
    """Pass messages on; a client that takes none for ten seconds is dropped."""
    while (events := await news.batch()) and not socket.closed:
        if request.transport is None:
            return  # the client is gone
        frames = framing.text_frames(event.encoded() for event in events)
        await framing.write(request.transport, frames, _SEND_DEADLINE_S)


async def _guard(users: Users, session: Session) -> None:
    """Return when the session is over, was ended, or its user changed."""
    while users.is_current(session):  # noqa: ASYNC110 - sessions end by the clock, too
        await asyncio.sleep(_SESSION_CHECK_S)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Stop what still runs; a client that went away or is too slow is no fault."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, BaseException) and not isinstance(ended, _CLIENT_GONE):
            raise ended


_CLIENT_GONE: Final = (asyncio.CancelledError, TimeoutError, ConnectionError)

"""Who takes nothing of its answer is cut, however it is sent; who takes it slowly gets all of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from controlplane.api.serving import Runner

SIZE = 2 << 20
WINDOW = 1 << 14
LIMIT_S = 30.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def small_window(request: web.Request) -> None:
    """The kernel keeps little of the answer: what is not taken waits in the process."""
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW
    )


async def whole(request: web.Request) -> web.StreamResponse:
    """All at once, as every JSON answer."""
    small_window(request)
    return web.Response(body=b"x" * SIZE)


async def streamed(request: web.Request) -> web.StreamResponse:
    """Piece by piece, as a download."""
    small_window(request)
    response = web.StreamResponse()
    response.content_length = SIZE
    await response.prepare(request)
    with suppress(ConnectionError):
        for _ in range(SIZE >> 16):
            await response.write(b"x" * (1 << 16))
    return response


@asynccontextmanager
async def asked(
    handler: Handler, patience_s: float
) -> AsyncIterator[tuple[web.AppRunner, socket.socket]]:
    """A server, and a client with a small window that has asked and read nothing yet."""
    app = web.Application()
    app.router.add_get("/", handler)
    runner = Runner(app, 1.0, patience_s)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, runner.addresses[0])
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        yield runner, client
    finally:
        client.close()
        await runner.cleanup()


@pytest.mark.parametrize("handler", [whole, streamed])
async def test_who_takes_nothing_is_cut(handler: Handler) -> None:
    async with asked(handler, 0.3) as (runner, client), asyncio.timeout(LIMIT_S):
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(client, 12) == b"HTTP/1.1 200"
        assert runner.server is not None
        while runner.server.connections:  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.02)
        taken = 0
        with suppress(ConnectionResetError):
            while piece := await loop.sock_recv(client, 1 << 16):
                taken += len(piece)
        assert taken < SIZE // 2


@pytest.mark.parametrize("handler", [whole, streamed])
async def test_who_takes_it_slowly_gets_all_of_it(handler: Handler) -> None:
    async with asked(handler, 1.0) as (_, client), asyncio.timeout(LIMIT_S):
        loop = asyncio.get_running_loop()
        began, taken = loop.time(), 0
        while piece := await loop.sock_recv(client, WINDOW * 2):
            taken += len(piece)
            await asyncio.sleep(0.04)  # the slowness of the client
        assert taken > SIZE
        assert (
            loop.time() - began > 2.0
        )  # longer than it would be waited for somebody who takes nothing

"""The POST of a post-restore hook, at a real socket: what is sent, and what a strange server can't do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent import errors
from agent.runtimes import pod_http
from agent.runtimes.pod_http import Target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def server(*pieces: bytes, port: int = 0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers whoever comes with ``pieces``, then leaves the connection open."""
    heard: list[bytes] = []
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"}"))
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await gone.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()

    serving = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield serving.sockets[0].getsockname()[1], heard
    finally:
        gone.set()
        serving.close()
        await serving.wait_closed()


async def test_it_is_json_at_the_path_that_was_named() -> None:
    async with server(OK) as (port, heard):
        status = await pod_http.post(Target("127.0.0.1", port, "/a?b=%2F"), b'{"x": 1}', 5)
    assert status == 200
    (request,) = heard
    assert request.startswith(b"POST /a?b=%2F HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in request
    assert request.endswith(b'{"x": 1}')


async def test_a_redirect_is_not_followed() -> None:
    async with server(OK) as (other, other_heard):
        moved = (
            f"HTTP/1.1 307 No\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n"
        )
        async with server(moved.encode()) as (port, _):
            assert await pod_http.post(Target("127.0.0.1", port, "/"), b"{}", 5) == 307
    assert other_heard == []


async def test_no_more_is_read_than_anyone_needs() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 65536
    async with server(endless) as (port, _):
        assert await pod_http.post(Target("127.0.0.1", port, "/"), b"{}", 5) == 200


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        pytest.param((), "No answer", id="silence"),
        pytest.param((b"SSH-2.0-x\r\n",), "does not speak HTTP", id="not HTTP"),
        pytest.param((b"HTTP/1.1 200 OK\r\nA: " + b"x" * 99999,), "does not speak", id="header"),
    ],
)
async def test_an_answer_that_is_none_is_told(pieces: tuple[bytes, ...], words: str) -> None:
    async with server(*pieces) as (port, _):
        with pytest.raises(errors.Retryable, match=words):
            await pod_http.post(Target("127.0.0.1", port, "/"), b"{}", 0.5)


async def test_it_waits_for_somebody_to_listen() -> None:
    async with server(OK) as (port, _):
        pass
    posting = asyncio.create_task(pod_http.post(Target("127.0.0.1", port, "/"), b"{}", 10))
    await asyncio.sleep(0)
    async with server(OK, port=port):
        assert await posting == 200

"""Blobs on their way through worker threads: refused early, cut off, given up; against servers that misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from agent.errors import Refused, Retryable
from agent.formats import digest
from agent.formats.jobs import RegistryAccess
from agent.image.registry import Registry, Upload

MIB = 1 << 20
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def registry(serve: Serve) -> AsyncIterator[tuple[Registry, str]]:
    """A client of a server that treats every connection by ``serve``, and the server's address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with Registry.connect(RegistryAccess(host, plain_http=True)) as client:
            yield client, host
    finally:
        server.close()


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(MIB)


def workers() -> int:
    """Threads of registries that are at work or idle."""
    return sum(thread.name.startswith("registry") for thread in threading.enumerate())


async def test_registry_that_hangs_up_early_has_its_word_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull"
        )
        await writer.drain()

    async with registry(serve) as (client, host):
        with pytest.raises((Refused, Retryable)) as failed:  # reset before it was read: Retryable
            await client.send(Upload("a", URL(f"http://{host}/upload")), endless())
    assert failed.value.code == "REGISTRY_CONNECTION_FAILED"


async def test_upload_that_is_taken_by_nobody_ends_when_cancelled() -> None:
    stalled = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stalled.set()
        await asyncio.sleep(60)  # never reads; ended with the test

    async with registry(serve) as (client, host):
        sending = asyncio.create_task(
            client.send(Upload("a", URL(f"http://{host}/upload")), endless())
        )
        await asyncio.wait_for(stalled.wait(), 60)
        sending.cancel()
        done, _ = await asyncio.wait([sending], timeout=60)
        assert done
        assert sending.cancelled()
    for thread in threading.enumerate():
        if thread.name.startswith("registry"):
            await asyncio.to_thread(thread.join, 60)
    assert workers() == 0


async def test_blob_that_is_cut_off_can_be_asked_for_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n258\r\n" + bytes(600))
        await writer.drain()

    taken = bytearray()
    async with registry(serve) as (client, _):
        with pytest.raises(Retryable) as failed:
            await client.blob("a", digest.of(b"x"), taken.extend)
    assert failed.value.details.startswith("unreachable:")
    assert len(taken) <= 600


async def test_what_the_taker_raises_comes_out_as_it_is() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + bytes(10))
        await writer.drain()

    def refuse(_: memoryview) -> None:
        raise OSError(28, "No space left on device")

    async with registry(serve) as (client, _):
        with pytest.raises(OSError, match="No space left"):
            await client.blob("a", digest.of(b"x"), refuse)

"""Blobs one after another go over one connection, where the registry lets them; against small servers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from yarl import URL

from agent.formats import digest
from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess
from agent.image.registry import Registry, Upload
from tests.fakes import tls

MIB = 1 << 20
CONTENT = b"layer" * 1000
WANTED: Digest = digest.of(CONTENT)


@dataclass
class Server:
    """A registry that takes uploads and gives one blob.

    Attributes:
        connections: how many were made.
        hangs_up: without a word, after each answer.
        cuts: answers in the middle.
        received: bytes of bodies, their framing included.
        ended: a connection is over.
    """

    host: str = ""
    connections: int = 0
    hangs_up: bool = False
    cuts: bool = False
    received: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"PATCH"):
                    self.received += len(await reader.readuntil(b"\r\n0\r\n\r\n"))
                    writer.write(b"HTTP/1.1 202 A\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")
                else:
                    body = CONTENT[:100] if self.cuts else CONTENT
                    writer.write(b"HTTP/1.1 200 A\r\nContent-Length: %d\r\n\r\n" % len(CONTENT))
                    writer.write(body)
                await writer.drain()
                if self.hangs_up or self.cuts:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            self.ended.set()


@pytest.fixture(scope="module")
def certificates() -> tls.Certificates:
    return tls.make()


def _context(certificates: tls.Certificates, folder: Path) -> ssl.SSLContext:
    (folder / "both.pem").write_bytes(certificates.leaf + certificates.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


@asynccontextmanager
async def serving(server: Server, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context, limit=4 * MIB)
    server.host = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        listening.close()


async def upload(client: Registry, server: Server, scheme: str = "http") -> None:
    target = Upload("a", URL(f"{scheme}://{server.host}/upload"))
    await client.send(target, iter([bytes(MIB), bytes(MIB)]))


@pytest.mark.parametrize("secured", [False, True], ids=["in the clear", "TLS"])
async def test_blobs_one_after_another_share_a_connection(
    certificates: tls.Certificates, tmp_path: Path, secured: bool
) -> None:
    server, scheme = Server(), "https" if secured else "http"
    async with serving(server, _context(certificates, tmp_path) if secured else None):
        ca_pem = certificates.ca.decode() if secured else ""
        access = RegistryAccess(server.host, plain_http=not secured, ca_pem=ca_pem)
        async with Registry.connect(access) as client:
            for _ in range(3):
                await upload(client, server, scheme)
                found = bytearray()
                await client.blob("a", WANTED, found.extend)
                assert found == CONTENT
    assert server.connections == 1
    assert server.received > 6 * MIB


async def test_blobs_at_the_same_time_have_connections_of_their_own() -> None:
    server = Server()
    async with (
        serving(server, None),
        Registry.connect(RegistryAccess(server.host, plain_http=True)) as client,
    ):
        for _ in range(2):
            await asyncio.gather(*(upload(client, server) for _ in range(3)))
    assert server.connections == 3


async def test_a_connection_that_was_hung_up_is_made_anew() -> None:
    server = Server(hangs_up=True)
    async with (
        serving(server, None),
        Registry.connect(RegistryAccess(server.host, plain_http=True)) as client,
    ):
        for count in range(1, 4):
            await upload(client, server)
            assert server.connections == count
            await asyncio.wait_for(server.ended.wait(), 60)
            server.ended.clear()


async def test_a_connection_whose_answer_broke_off_is_not_used_again() -> None:
    server = Server(cuts=True)
    async with (
        serving(server, None),
        Registry.connect(RegistryAccess(server.host, plain_http=True)) as client,
    ):
        part, found = bytearray(), bytearray()
        await client.blob("a", WANTED, part.extend)  # its digest is the callers' business
        assert part == CONTENT[:100]
        await asyncio.wait_for(server.ended.wait(), 60)
        server.cuts = False
        await client.blob("a", WANTED, found.extend)
        assert found == CONTENT
    assert server.connections == 2


async def test_an_upload_that_was_given_up_leaves_no_connection_to_use() -> None:
    server = Server()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> Iterator[bytes]:
        loop.call_soon_threadsafe(begun.set)
        while True:
            yield bytes(1000)

    async with (
        serving(server, None),
        Registry.connect(RegistryAccess(server.host, plain_http=True)) as client,
    ):
        target = Upload("a", URL(f"http://{server.host}/upload"))
        sending = asyncio.create_task(client.send(target, endless()))
        await asyncio.wait_for(begun.wait(), 60)
        sending.cancel()
        await asyncio.wait([sending])
        await upload(client, server)
    assert server.connections == 2

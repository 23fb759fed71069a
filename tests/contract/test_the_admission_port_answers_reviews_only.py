"""The admission listener over real TLS: reviews at a hook's path, and not a word to anybody else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from controlplane.hook.admission import Answer, answer
from controlplane.hook.authority import Authority, Wanted
from controlplane.hook.index import Index
from controlplane.hook.listener import BODY_BYTES, Listener
from controlplane.settings import Address
from tests.fakes.offers import POLICY, cluster, offer
from tests.fakes.pods import new_pod, review

PATH = "/hook/web/0123456789abcdef"
POST = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n"
WANTED = Wanted(frozenset({"localhost", "127.0.0.1"}), timedelta(minutes=1))


@dataclass
class Port:
    """A listener with one hook, and a client that trusts its authority only."""

    listener: Listener
    authority: Authority
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.port}"

    async def send(self, path: str, body: bytes, method: str = "POST") -> tuple[int, bytes]:
        async with self.session.request(
            method, self.url + path, data=body, headers={"Content-Type": "application/json"}
        ) as response:
            assert not response.headers.get("Server")
            return response.status, await response.read()


def answering(body: object) -> Answer:
    return answer(body, POLICY, Index((offer(),)), cluster())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "hook-tls")
    made.ensure(WANTED)
    return made


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.bundle_pem)


@asynccontextmanager
async def listening(authority: Authority) -> AsyncIterator[Port]:
    listener = Listener(Address("127.0.0.1", 0))
    listener.open(PATH, answering)
    await listener.start(authority.load())
    connector = aiohttp.TCPConnector(ssl=trusting(authority))
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Port(listener, authority, session)
    finally:
        await listener.stop()


async def test_a_review_at_the_hooks_path_is_answered(authority: Authority) -> None:
    async with listening(authority) as port:
        status, body = await port.send(PATH, json.dumps(review(new_pod())).encode())
    assert status == 200
    assert json.loads(body)["response"]["patchType"] == "JSONPatch"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/", "POST"),
        ("/hook/web", "POST"),
        (PATH, "GET"),
        (PATH + "/", "POST"),
        ("/hook/other/0123456789abcdef", "POST"),
        ("/metrics", "GET"),
        ("/health", "GET"),
    ],
)
async def test_there_is_nothing_anywhere_else(authority: Authority, path: str, method: str) -> None:
    async with listening(authority) as port:
        assert await port.send(path, json.dumps(review(new_pod())).encode(), method) == (404, b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"request": {}}',
        b'{"request":{"uid":""}}',
    ],
    ids=["empty", "cut", "null", "binary", "deep", "no uid", "empty uid"],
)
async def test_what_is_no_review_is_refused_without_a_word(
    authority: Authority, body: bytes
) -> None:
    async with listening(authority) as port:
        assert await port.send(PATH, body) == (400, b"")
        assert (await port.send(PATH, json.dumps(review(new_pod())).encode()))[0] == 200


async def test_a_body_that_is_too_large_is_refused(authority: Authority) -> None:
    async with listening(authority) as port:
        assert await raw(port, f"{POST}Content-Length: {BODY_BYTES + 1}\r\n\r\n") == (413, b"")


async def test_a_body_that_does_not_come_is_not_waited_for(authority: Authority) -> None:
    async with listening(authority) as port:
        assert await raw(port, f"{POST}Content-Length: 9\r\n\r\n") == (408, b"")


async def test_what_is_no_http_gets_no_explanation(authority: Authority) -> None:
    async with listening(authority) as port:
        assert await raw(port, "\x16\x03 nonsense\r\n\r\n") == (400, b"")


async def raw(port: Port, text: str) -> tuple[int, bytes]:
    """Send ``text`` and nothing more; status and body of what comes until the connection is closed."""
    reader, writer = await asyncio.open_connection(
        "localhost", port.listener.port, ssl=trusting(port.authority)
    )
    try:
        writer.write(text.encode())
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"aiohttp" not in head
        return int(head.split()[1]), body
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_path_that_was_closed_is_gone(authority: Authority) -> None:
    async with listening(authority) as port:
        port.listener.close(PATH)
        assert (await port.send(PATH, json.dumps(review(new_pod())).encode()))[0] == 404


async def test_a_new_certificate_is_shown_without_a_restart(authority: Authority) -> None:
    async with listening(authority) as port:
        before = await shown(port)
        body = json.dumps(review(new_pod())).encode()
        assert (await port.send(PATH, body))[0] == 200
        assert authority.ensure(WANTED, anew=True)
        authority.load()
        assert await shown(port) != before
        assert (await port.send(PATH, body))[0] == 200  # by the connection that was there


async def shown(port: Port) -> bytes:
    """The certificate that a new connection gets; it is one that the bundle vouches for."""
    _, writer = await asyncio.open_connection(
        "localhost", port.listener.port, ssl=trusting(port.authority)
    )
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(found, bytes)
        return found
    finally:
        writer.close()
        await writer.wait_closed()

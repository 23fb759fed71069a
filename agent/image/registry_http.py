"""Requests to one registry: TLS, credentials, redirects, deadlines. What is asked is registry.py's.

Small ones are made by the event loop; blobs go through worker threads (``channel``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agent.errors import REGISTRY_CONNECTION_FAILED, Refused
from agent.formats.jobs import RegistryAccess
from agent.image import registry_errors
from agent.image.channel import Channel, Received
from agent.image.registry_auth import Authorizer

_CONNECT_S: Final = 10.0
_READ_S: Final = 60.0  # silence of a registry that owes us an answer; it may have to hash a blob
_MAX_REDIRECTS: Final = 5
_MAX_ANSWER_BYTES: Final = 8 << 20  # but for blobs, no answer is larger than a manifest
_MAX_WORDS_BYTES: Final = 64 << 10  # of an answer that is no blob where one was asked for
_READ_BUFFER_BYTES: Final = 256 << 10
_PART_BYTES: Final = 256 << 10  # of a blob handed on at once
_THREADS: Final = 16  # for blobs; how many there are at once is the callers' business
_FOLLOWED: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Answer:
    """A registry's whole answer."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes = b""

    def release(self) -> None:
        """Nothing is held: all of it is here."""


class _Response(Protocol):
    """An answer's head."""

    @property
    def url(self) -> URL:
        """Where it came from."""

    @property
    def status(self) -> int:
        """HTTP's."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """HTTP's."""

    def release(self) -> object:
        """Give up its body."""


_T = TypeVar("_T")
_R = TypeVar("_R", bound=_Response)
_Send = Callable[[URL, dict[str, str]], Awaitable[_R]]  # an address and headers → the answer
Take = Callable[[int, memoryview], None]  # an answer's status, and the next part of its body


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``scope`` is the token scope it needs ("" for none)."""

    method: str
    url: URL
    scope: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Transport:
    """A registry's connections; an async context manager. Errors are mapped by registry_errors."""

    def __init__(self, access: RegistryAccess, allowed_realms: frozenset[str]) -> None:
        self.host = access.host
        self._plain = access.plain_http
        try:
            self.base = URL(f"{'http' if access.plain_http else 'https'}://{access.host}")
        except ValueError as cause:
            raise Refused(f"{access.host!r} is no address of a registry.") from cause
        self._auth = Authorizer(access, self._get_token, allowed_realms)
        self._tls = None if access.plain_http else _tls(access)
        self._free: list[Channel] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=self._tls or True, limit=16),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S),
            read_bufsize=_READ_BUFFER_BYTES,
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="registry")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._free:
            channel.close()
        self._threads.shutdown(wait=False)  # nobody uses one any more, and they end by themselves
        await self._session.close()

    def url(self, path: str) -> URL:
        """The address of ``path`` below /v2/."""
        return URL(f"{self.base}/v2/{path}")

    async def exchange(self, ask: Ask) -> Answer:
        """Ask and read the whole answer, whatever its status.

        Raises:
            Refused, Retryable: there was none, or the login failed.
        """
        response = await self.open(ask)
        async with response:
            with registry_errors.mapped(self.host):
                body = await response.content.read(_MAX_ANSWER_BYTES + 1)
                while len(body) <= _MAX_ANSWER_BYTES:
                    more = await response.content.read(_MAX_ANSWER_BYTES + 1 - len(body))
                    if not more:
                        break
                    body += more
        if len(body) > _MAX_ANSWER_BYTES:
            raise registry_errors.unreachable(self.host, "its answer is too long")
        return Answer(response.url, response.status, response.headers, body)

    async def open(self, ask: Ask) -> aiohttp.ClientResponse:
        """Ask, log in where it is asked for, follow redirects; the caller closes the response.

        Redirects to other hosts go without credentials, and never from TLS to plain HTTP.
        """

        async def send(url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
            with registry_errors.mapped(self.host):
                return await self._session.request(
                    ask.method, url, headers=headers, data=ask.body, allow_redirects=False
                )

        return await self._followed(ask, send)

    async def stream(self, ask: Ask, chunks: Iterator[bytes]) -> Answer:
        """Send ``chunks`` as the body, which a worker thread takes. Not repeated here: on a 401 the
        caller has to start anew. Cancelled, the connection is cut, and the thread ends before this does.

        Raises:
            Retryable: the connection broke, or the registry took nothing for a minute.
        """
        headers = await self._headers(ask, ask.url)

        def work(channel: Channel) -> Answer:
            received = channel.ask(ask.method, ask.url.raw_path_qs, headers, chunks)
            return _answer(ask.url, received, received.read(_MAX_WORDS_BYTES))

        answer = await self._in_thread(ask.url, work)
        if answer.status == 401:
            self._auth.learn(answer.headers.getall("WWW-Authenticate", []), ask.scope)
            raise registry_errors.unreachable(self.host, "the login ended during the upload")
        return answer

    async def receive(self, ask: Ask, take: Take) -> Answer:
        """Ask as ``open`` does; a body that was asked for (200, 206) goes to ``take`` in a worker thread.

        The buffer that ``take`` gets is used again. What it raises comes out as it is. Cancelled, the
        connection is cut, and the thread ends before this does.
        """

        async def send(url: URL, headers: dict[str, str]) -> Answer:
            def work(channel: Channel) -> Answer:
                received = channel.ask(ask.method, url.raw_path_qs, headers)
                if received.status not in (200, 206):
                    return _answer(url, received, received.read(_MAX_WORDS_BYTES))
                buffer = memoryview(bytearray(_PART_BYTES))
                while taken := received.readinto(buffer):
                    take(received.status, buffer[:taken])
                return _answer(url, received)

            return await self._in_thread(url, work)

        return await self._followed(ask, send)

    async def _in_thread(self, url: URL, work: Callable[[Channel], _T]) -> _T:
        """Do ``work`` with a connection to where ``url`` is; the next request there may have it afterwards."""
        channel = self._free_channel(url.origin())

        def run() -> _T:
            try:
                return work(channel)
            finally:
                channel.release()

        doing = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            channel.abort()
            await asyncio.wait([doing])
            if not doing.cancelled():
                doing.exception()  # taken note of
            raise
        finally:
            if doing.done():
                self._free.append(channel)

    def _free_channel(self, origin: URL) -> Channel:
        """One that nobody uses, or a new one; those that the other side hung up are dropped."""
        for channel in reversed(self._free):
            if channel.origin == origin:
                self._free.remove(channel)
                if channel.is_open:
                    return channel
                channel.close()
        return Channel(self.host, origin, self._tls)

    def located(self, response: _Response) -> URL:
        """Where an answer's ``Location`` points; a registry behind a proxy may misname its scheme."""
        text = response.headers.get("Location", "")
        try:
            target = response.url.join(URL(text, encoded=True))
        except ValueError as cause:
            raise registry_errors.unreachable(self.host, "its Location can't be read") from cause
        if target.scheme not in ("http", "https") or not text:
            raise registry_errors.unreachable(self.host, "its Location can't be read")
        if target.raw_authority == self.base.raw_authority and target.scheme != self.base.scheme:
            tail = target.raw_path_qs
            target = URL(f"{self.base}{tail}", encoded=True)
        return target

    async def _followed(self, ask: Ask, send: _Send[_R]) -> _R:
        url = ask.url
        for _ in range(_MAX_REDIRECTS):
            response = await self._authorized(ask, url, send)
            if ask.method not in ("GET", "HEAD") or response.status not in _FOLLOWED:
                return response
            target = self.located(response)
            response.release()
            if target.scheme != "https" and not self._plain:
                raise Refused(
                    f"Registry {self.host} redirects to an address without TLS.",
                    code=REGISTRY_CONNECTION_FAILED,
                    details=f"unreachable: redirect to {target.scheme}://{target.host}",
                )
            url = target
        raise registry_errors.unreachable(self.host, "too many redirects")

    async def _authorized(self, ask: Ask, url: URL, send: _Send[_R]) -> _R:
        while True:
            response = await send(url, await self._headers(ask, url))
            if response.status != 401 or not self._is_own(url):
                return response
            challenges = response.headers.getall("WWW-Authenticate", [])
            response.release()
            if not self._auth.learn(challenges, ask.scope):
                raise registry_errors.unauthorized(self.host, "HTTP 401")

    async def _headers(self, ask: Ask, url: URL) -> dict[str, str]:
        headers = dict(ask.headers)
        if self._is_own(url) and (authorization := await self._auth.header(ask.scope)):
            headers["Authorization"] = authorization
        return headers

    def _is_own(self, url: URL) -> bool:
        return url.origin() == self.base.origin()

    async def _get_token(self, url: URL, headers: Mapping[str, str]) -> tuple[int, bytes]:
        with registry_errors.mapped(url.host or self.host):
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                return response.status, await response.content.read(256 << 10)


def _answer(url: URL, received: Received, body: bytes = b"") -> Answer:
    return Answer(url, received.status, CIMultiDictProxy(CIMultiDict(received.headers)), body)


def _tls(access: RegistryAccess) -> ssl.SSLContext:
    """Trust the system's CAs and the registry's own; nothing is checked with ``verify_ssl`` off."""
    context = ssl.create_default_context()
    if not access.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif access.ca_pem:
        try:
            context.load_verify_locations(cadata=access.ca_pem)
        except (ssl.SSLError, TypeError) as cause:  # TypeError: not ASCII
            raise Refused(
                f"The CA given for registry {access.host} is no PEM certificate.",
                code=REGISTRY_CONNECTION_FAILED,
                details="certificate: the CA can't be read",
            ) from cause
    return context

"""A POST to a pod's own address: one connection, no redirect, no proxy, bounded in time and size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from agent import errors

_AGAIN_S: Final = 0.1
_MOST_BYTES: Final = 4096
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "snap-agent"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: an address, never a name."""

    address: str
    port: int
    path: str

    @property
    def url(self) -> URL:
        """Its URL; what stands in ``path`` is sent as it is."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return URL(f"http://{host}:{self.port}{self.path}", encoded=True)


async def post(target: Target, body: bytes, timeout_s: float) -> int:
    """POST ``body``; the status of the answer. Until somebody listens there it is tried again.

    Raises:
        Retryable: no answer within ``timeout_s``, or none that is HTTP.
    """
    limits = aiohttp.ClientTimeout(total=timeout_s)
    jar = aiohttp.DummyCookieJar()
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(
                timeout=limits, cookie_jar=jar, auto_decompress=False, headers=_HEADERS
            ) as http,
        ):
            while True:
                try:
                    return await _once(http, target.url, body)
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(_AGAIN_S)
    except TimeoutError as cause:
        message = f"No answer came from port {target.port} within {timeout_s:g} s."
        raise errors.Retryable(message, code=errors.TIMEOUT) from cause
    except (aiohttp.ClientError, ValueError) as cause:
        message = (
            f"What answered at port {target.port} does not speak HTTP: {type(cause).__name__}."
        )
        raise errors.Retryable(message) from cause


async def _once(http: aiohttp.ClientSession, url: URL, body: bytes) -> int:
    async with http.post(url, data=body, allow_redirects=False) as answer:
        await answer.content.read(_MOST_BYTES)  # a polite server is not cut off in its sentence
        return answer.status

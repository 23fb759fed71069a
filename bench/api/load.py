"""Asking: as fast as answers come, or so many times a second whatever comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_CONNECTIONS: Final = 16
_LATE_S: Final = 10.0


@dataclass(slots=True)
class Measured:
    """What asking gave.

    Attributes:
        latencies_ms: from when a request was due to the last byte of its answer.
        failed: answers that were not 200.
        took_s: from the first request to the last answer.
    """

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    took_s: float = 0.0

    def quantile_ms(self, share: float) -> float:
        """The latency that ``share`` of all answers kept."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    @property
    def per_s(self) -> float:
        """Answers in a second."""
        return len(self.latencies_ms) / self.took_s


class Client:
    """One connection that is kept; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> int:
        """Send ``request``, read the whole answer; its status."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start : lower.index(b"\r\n", start)])
        await self._reader.readexactly(length)
        return int(head[9:12])

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def request(path: str, port: int, token: str = "") -> bytes:
    """A GET."""
    proof = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{proof}\r\n".encode()


async def _clients(port: int) -> list[Client]:
    return [
        Client(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 21))
        for _ in range(_CONNECTIONS)
    ]


async def at_rate(port: int, requests: Sequence[bytes], per_s: int, seconds: float) -> Measured:
    """Ask ``per_s`` times a second; waiting for a free connection counts as latency."""
    measured, free = Measured(), asyncio.Queue[Client]()
    clients = await _clients(port)
    for client in clients:
        free.put_nowait(client)
    began = time.perf_counter()
    total = int(per_s * seconds)

    async def one(number: int, due: float) -> None:
        client = await free.get()
        if await client.ask(requests[number % len(requests)]) != 200:
            measured.failed += 1
        measured.latencies_ms.append((time.perf_counter() - due) * 1000)
        free.put_nowait(client)

    async with asyncio.timeout(seconds + _LATE_S), asyncio.TaskGroup() as group:
        for number in range(total):
            due = began + number / per_s
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            group.create_task(one(number, due))
    measured.took_s = time.perf_counter() - began
    for client in clients:
        client.close()
    return measured


async def flat_out(port: int, requests: Sequence[bytes], seconds: float) -> Measured:
    """Ask again on every connection as soon as its answer is there."""
    measured, clients = Measured(), await _clients(port)
    began = time.perf_counter()

    async def one(client: Client) -> None:
        number = 0
        while (now := time.perf_counter()) - began < seconds:
            if await client.ask(requests[number % len(requests)]) != 200:
                measured.failed += 1
            measured.latencies_ms.append((time.perf_counter() - now) * 1000)
            number += 1

    await asyncio.gather(*map(one, clients))
    measured.took_s = time.perf_counter() - began
    for client in clients:
        client.close()
    return measured

"""Asking REST again and again while something else goes on: how long the slowest answer took."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from bench.api import load
from bench.api.load import Client, Measured
from bench.api.servers import Served

PATHS: Final = (
    "/cluster/statistics",
    "/checkpoint/list?limit=100",
    "/jobs?limit=50",
    "/config/clusters/list",
    "/health",
)
_EACH_S: Final = 0.05
_LIMIT_S: Final = 30.0


async def probe(served: Served, over: asyncio.Event) -> Measured:
    """Ask every ``_EACH_S`` until ``over``; each path on a connection of its own, so that none waits for another."""
    measured = Measured()
    began = time.perf_counter()
    await asyncio.gather(*(_ask(served, path, over, measured) for path in PATHS))
    measured.took_s = time.perf_counter() - began
    return measured


async def _ask(served: Served, path: str, over: asyncio.Event, measured: Measured) -> None:
    opened = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 24)
    client = Client(*opened)
    asked = load.request(path, served.port, served.token)
    while not over.is_set():
        began = time.perf_counter()
        async with asyncio.timeout(_LIMIT_S):
            measured.failed += await client.ask(asked) != 200
        took_s = time.perf_counter() - began
        measured.latencies_ms.append(took_s * 1000)
        await asyncio.sleep(max(0.0, _EACH_S * len(PATHS) - took_s))
    client.close()

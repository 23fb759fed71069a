"""Keeping the index of what new pods may start from: made again at once after each commit that changes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from controlplane.hook.index import Index
from controlplane.store import starts, workloads
from controlplane.store.database import Store

TABLES: Final = ("checkpoints", "images", "grants", "workloads", "restores", "starts")
_REST: Final = (
    4  # times as long as it was made nothing else is made: it never takes most of the time
)
REST_S: Final = (
    0.02,
    1.0,
)  # at least and at most; commits that follow each other are taken together


async def follow(store: Store, made: Callable[[Index], None]) -> None:
    """Hand over the index as it is now, and again whenever the store has something new, until cancelled."""
    with store.revisions.news(*TABLES) as news:
        while True:
            news.clear()  # before the look: what is committed meanwhile is looked at next
            began = time.monotonic()
            made(await store.read(lambda db: Index(workloads.offers(db), starts.everything(db))))
            took_s = time.monotonic() - began
            await asyncio.sleep(min(max(REST_S[0], _REST * took_s), REST_S[1]))
            await news.wait()

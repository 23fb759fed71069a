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
# After it was made it rests so many times as long as that took, within these bounds: it never takes most of
# the time, and commits that follow each other are taken together.
_REST: Final = 4
REST_S: Final = (0.02, 1.0)


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

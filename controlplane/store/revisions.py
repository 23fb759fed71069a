"""How often tables changed: whoever keeps an answer made of them knows by it whether it still holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from sqlite_utils import Database

WATCHED: Final = (
    *("checkpoints", "images", "clusters", "secrets"),
    *("grants", "workloads", "restores", "starts"),
    *("join_tokens", "registries", "cluster_cache"),
)
_FUNCTION: Final = "snap_changed"
_Waiting = tuple[asyncio.AbstractEventLoop, asyncio.Event, frozenset[str]]


class Revisions:
    """Counts the commits that changed each watched table.

    The writer's connection tells of every row by triggers that only it has; they are no part of the
    schema. A commit is counted before its caller hears that it is done, so nobody who was told of
    a change is given an answer from before it.
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(WATCHED, 0)
        self._pending: set[str] = set()
        # replaced as a whole, as the writer's thread goes through it
        self._waiting: tuple[_Waiting, ...] = ()

    def of(self, *tables: str) -> int:
        """A number that is another one after any of ``tables`` changed."""
        return sum(self._counts[table] for table in tables)

    @contextlib.contextmanager
    def news(self, *tables: str) -> Iterator[asyncio.Event]:
        """An event, of the running loop, that is set after each commit that changed any of ``tables``.

        Whoever waits clears it, and then looks: what is committed after that sets it again.
        """
        waiting = (asyncio.get_running_loop(), asyncio.Event(), frozenset(tables))
        self._waiting = (*self._waiting, waiting)
        try:
            yield waiting[1]
        finally:
            self._waiting = tuple(one for one in self._waiting if one is not waiting)

    def watch(self, database: Database) -> None:
        """Hear of the changes that are made through ``database``, the one connection that writes."""
        database.conn.create_function(_FUNCTION, 1, self._pending.add)
        for table in WATCHED:
            for event in ("INSERT", "UPDATE", "DELETE"):
                database.execute(
                    f"CREATE TEMP TRIGGER {_FUNCTION}_{table}_{event} AFTER {event} ON main.{table} "
                    f"BEGIN SELECT {_FUNCTION}('{table}'); END"
                )

    def committed(self) -> None:
        """What was changed since the last call is on disk now (or was undone: harmless)."""
        for table in self._pending:
            self._counts[table] += 1
        for loop, event, tables in self._waiting:
            if not event.is_set() and not tables.isdisjoint(self._pending):
                with contextlib.suppress(RuntimeError):  # its loop has ended meanwhile
                    loop.call_soon_threadsafe(event.set)
        self._pending.clear()

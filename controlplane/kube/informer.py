"""A copy of a list in a cluster that follows what happens there, and tells of each change.

List, then watch from there; a watch that ends is taken up where it was; one whose place is forgotten begins
with a new list. Nothing is polled.

Source: kubernetes.io/docs/reference/using-api/api-concepts (efficient detection of changes, 410 Gone).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controlplane.errors import Expired, Retryable, SnapError
from controlplane.kube.client import WATCH_S, KubeClient
from controlplane.kube.copies import Copies, Index, key_of
from controlplane.kube.resources import Object, trimmed, version_of
from controlplane.kube.watching import ADDED, BOOKMARK, DELETED, MODIFIED, Event

_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """What happened: ADDED, MODIFIED or DELETED. ``object`` is as it is now, or was at last."""

    kind: str
    object: Object
    before: Object | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is copied.

    Attributes:
        path: of a collection.
        params: such as labelSelector and fieldSelector.
        keep: what stays of each object in memory.
        indexes: see ``Copies``.
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[Object], Object] = trimmed
    indexes: Mapping[str, Index] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is waited, in seconds.

    Attributes:
        watch_s: a watch lasts so long, give or take a quarter: not all end at once.
        first_s: before the second try; doubled for each further one, full jitter.
        most_s: no wait is longer.
        short_s: a watch that ends sooner, with nothing said, counts as a failure.
    """

    watch_s: float = WATCH_S
    first_s: float = 0.5
    most_s: float = 30.0
    short_s: float = 1.0


class Informer:
    """Keeps ``copies`` up to date while ``run`` runs.

    Args:
        connect: gives the client; asked again before each try, so a changed credential counts at once.
        on_change: called for each change, in the event loop: it must be quick and raise nothing. A
            change that was missed while there was no watch is told when the next list shows it.

    Attributes:
        copies: what is there, as far as is known.
        last_error: why the last try failed; empty while all is well.
        failing_since: Unix seconds; None while all is well.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[KubeClient]],
        wanted: Wanted,
        on_change: Callable[[Change], None] | None = None,
        pace: Pace = Pace(),
    ) -> None:
        self._connect = connect
        self._wanted = wanted
        self._on_change = on_change or (lambda _: None)
        self._pace = pace
        self._version = ""
        self._failures = 0
        self._synced = asyncio.Event()
        self._watched = asyncio.Event()
        self._alive = False
        self.copies: Final = Copies(wanted.indexes)
        self.last_error = ""
        self.failing_since: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the watch runs now. It stays so while one that ended as agreed is taken up again."""
        return self._alive

    @property
    def is_synced(self) -> bool:
        """Whether everything was listed once; ``copies`` may be old when it is not alive."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return when everything was listed once; the caller sets the deadline."""
        await self._synced.wait()

    async def wait_watched(self) -> None:
        """Return when it was watched for the first time; the caller sets the deadline."""
        await self._watched.wait()

    async def run(self) -> None:
        """Follow the cluster until cancelled; no failure of its API server ends it."""
        try:
            while True:
                try:
                    await self._follow()
                except Expired as forgotten:
                    self._version = ""
                    words = forgotten.details or forgotten.message
                    _log.info("%s is listed anew: %s", self._wanted.path, words)
                except SnapError as failure:
                    await self._failed(failure)
        finally:
            self._alive = False

    async def _follow(self) -> None:
        """One list, if there is no place to go on from, and one watch."""
        client = await self._connect()
        if not self._version:
            listed = await client.list(
                self._wanted.path, self._wanted.params, keep=self._wanted.keep
            )
            self._replace(listed.items)
            self._version = listed.resource_version
            self._synced.set()
        lasts_s = self._pace.watch_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        began = time.monotonic()
        async with client.watch(
            self._wanted.path, self._version, self._wanted.params, timeout_s=lasts_s
        ) as events:
            self._well()
            heard = await self._hear(events)
        if not heard and time.monotonic() < began + self._pace.short_s:
            raise Retryable("The watch ended as soon as it had begun.")

    async def _hear(self, events: AsyncIterator[Event]) -> bool:
        """Take in what a watch says until it ends; whether it said anything."""
        heard = False
        async for event in events:
            heard = True
            self._failures = 0
            if event.kind in (ADDED, MODIFIED):
                self._put(self._wanted.keep(event.object))
            elif event.kind == DELETED:
                self._remove(self._wanted.keep(event.object))
            elif event.kind != BOOKMARK:
                _log.debug("%s: an event %s is not known here", self._wanted.path, event.kind)
            self._version = version_of(event.object) or self._version
        return heard

    def _replace(self, items: tuple[Object, ...]) -> None:
        """Bring the copies in line with a new list."""
        gone = self.copies.keys() - {key_of(item) for item in items}
        for key in gone:
            before = self.copies.remove(key)
            if before is not None:
                self._on_change(Change(DELETED, before, before))
        for item in items:
            self._put(item)

    def _put(self, found: Object) -> None:
        before = self.copies.put(found)
        if before is None:
            self._on_change(Change(ADDED, found, None))
        elif version_of(before) != version_of(found):
            self._on_change(Change(MODIFIED, found, before))

    def _remove(self, found: Object) -> None:
        before = self.copies.remove(key_of(found))
        if before is not None:
            self._on_change(Change(DELETED, found, before))

    def _well(self) -> None:
        self._alive = True
        self._watched.set()
        if self.last_error:
            _log.info("%s is watched again", self._wanted.path)
        self.last_error, self.failing_since = "", None

    async def _failed(self, failure: SnapError) -> None:
        """Remember why, and wait before the next try."""
        self._alive = False
        words = failure.details or failure.message
        if not self.last_error:
            self.failing_since = time.time()
            _log.warning("%s is not watched: %s", self._wanted.path, words)
        self.last_error = words
        self._failures += 1
        most = min(self._pace.most_s, self._pace.first_s * 2 ** min(self._failures - 1, 16))
        wait_s = random.uniform(0, most)  # noqa: S311 - no secret
        if isinstance(failure, Retryable):
            wait_s = max(wait_s, min(failure.after_s, self._pace.most_s))
        await asyncio.sleep(wait_s)

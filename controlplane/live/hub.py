"""The hub: events with rising ids go to every subscriber who may see them; slow ones are dropped.

Publishing never waits. A subscriber gets the running jobs' latest state first, or what came since
the event id that it names, as far as the history goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from controlplane.identity import Actor
from controlplane.store.records import Job, JobState

BATCH: Final = 500  # events that a reader takes at once; then others have a turn
HISTORY: Final = 10_000  # events that ``since`` can go back
QUEUE: Final = 5_000  # events that a subscriber may leave unread before it is dropped
_FAILED: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Event:
    """A job's state at one moment; ``id`` rises over the life of the process.

    Attributes:
        owner: who sees it besides administrators; everybody if ``broadcast``.
        content: the message as it is sent, without ``event_id``.
    """

    id: int
    job_id: str
    owner: str
    broadcast: bool
    ended: bool
    content: Mapping[str, object]
    _encoded: bytes = field(default=b"", init=False, repr=False, compare=False)

    def message(self) -> Mapping[str, object]:
        """What goes over the socket."""
        return {**self.content, "event_id": self.id}

    def encoded(self) -> bytes:
        """The message as JSON; made once, however many read it."""
        if not self._encoded:
            self._encoded = _encode(self.message())
        return self._encoded

    def is_for(self, actor: Actor) -> bool:
        """Whether the actor may see it."""
        return self.broadcast or actor.is_administrator or self.owner == actor.username


class Subscription:
    """One reader's news: a bounded queue, ended by None. Iterate it, or take ``batch`` after batch."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE + 1)

    def offer(self, event: Event) -> bool:
        """Queue an event; False if the reader is too slow, which ends it."""
        if self.queue.qsize() >= QUEUE:
            self.end()
            return False
        self.queue.put_nowait(event)
        return True

    def end(self) -> None:
        """Let the reader finish what it has, then stop; the last place is kept for this."""
        if not self.queue.full():
            self.queue.put_nowait(None)

    async def batch(self) -> list[Event]:
        """What there is, as soon as there is anything, at most ``BATCH``; empty: that was all."""
        found: list[Event] = []
        event = await self.queue.get()
        while event is not None:
            found.append(event)
            if len(found) == BATCH or self.queue.empty():
                return found
            event = self.queue.get_nowait()
        if found:
            self.queue.put_nowait(None)  # the end is told by the next one
        return found

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        return event


class LiveHub:
    """Publishes jobs' news."""

    def __init__(self) -> None:
        self._last_id = 0
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._running: dict[str, Event] = {}
        self._subscribers: set[Subscription] = set()
        self._of_all: set[Subscription] = set()  # administrators'
        self._of_user: defaultdict[str, set[Subscription]] = defaultdict(set)  # the others'
        self._closed = False

    @property
    def subscribers(self) -> int:
        """How many read."""
        return len(self._subscribers)

    def publish(self, job: Job) -> None:
        """Tell of a job's latest state."""
        self._last_id += 1
        event = Event(
            self._last_id, job.id, job.owner, job.broadcast, job.is_ended, content_of(job)
        )
        self._history.append(event)
        if event.ended:
            self._running.pop(job.id, None)
        else:
            self._running[job.id] = event
        for subscriber in self.concerned(event):
            if not subscriber.offer(event):
                self._remove(subscriber)
                _log.info("a reader of %s was too slow and is dropped", subscriber.actor.username)

    @asynccontextmanager
    async def subscribe(
        self, actor: Actor, since: int | None = None
    ) -> AsyncIterator[Subscription]:
        """News for ``actor``: first the running jobs' latest (or all after ``since``), then as it comes.

        The iterator ends when the reader is too slow to keep up or the server stops.
        """
        subscriber = Subscription(actor)
        for event in self._first(actor, since):
            subscriber.offer(event)
        if self._closed:
            subscriber.end()
        self._add(subscriber)
        try:
            yield subscriber
        finally:
            self._remove(subscriber)

    def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()

    def concerned(self, event: Event) -> list[Subscription]:
        """Who may see ``event``; the others cost nothing."""
        if event.broadcast:
            return list(self._subscribers)
        return [*self._of_all, *self._of_user.get(event.owner, ())]

    def _add(self, subscriber: Subscription) -> None:
        self._subscribers.add(subscriber)
        actor = subscriber.actor
        (self._of_all if actor.is_administrator else self._of_user[actor.username]).add(subscriber)

    def _remove(self, subscriber: Subscription) -> None:
        """Forget a subscriber; nothing happens the second time."""
        self._subscribers.discard(subscriber)
        self._of_all.discard(subscriber)
        username = subscriber.actor.username
        own = self._of_user.get(username, set())
        own.discard(subscriber)
        if not own:
            self._of_user.pop(username, None)

    def _first(self, actor: Actor, since: int | None) -> list[Event]:
        """What a new reader gets at once; of a long history only the newest."""
        if since is None or since > self._last_id:  # an id of an earlier process means nothing
            known = sorted(self._running.values(), key=lambda event: event.id)
        else:
            known = [event for event in self._history if event.id > since]
        return [event for event in known if event.is_for(actor)][-QUEUE // 2 :]


def content_of(job: Job) -> dict[str, object]:
    """A job's state as the message that clients of both dialects read."""
    failed = job.state in _FAILED
    return {
        "type": "progress",
        "progress": "failed" if failed else round(job.progress, 1),
        "task_name": job.task_name,
        "message": job.message or _WORDS[job.state],
        "timestamp": job.updated_at,
        "job_id": job.id,
        "cluster": job.cluster,
        "initiator": job.initiator,
        "status": job.state.value,
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
        "bytes_per_s": job.bytes_per_s or None,
        "remaining_s": job.remaining_s,
        "agent_lost": job.agent_lost,
    }


_WORDS: Final = {
    JobState.QUEUED: "Waiting for the node",
    JobState.RUNNING: "Running",
    JobState.COMPLETED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}

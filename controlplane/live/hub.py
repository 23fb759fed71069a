"""The hub: events with rising ids go to every subscriber who may see them; slow ones are dropped.

Publishing never waits. A subscriber gets the running jobs' latest state first, or what came since
the event id that it names, as far as the history goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from controlplane.identity import Actor
from controlplane.store.records import Job, JobState

HISTORY: Final = 10_000  # events that ``since`` can go back
QUEUE: Final = 1_000  # events that a subscriber may leave unread before it is dropped
_FAILED: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
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

    def message(self) -> Mapping[str, object]:
        """What goes over the socket."""
        return {**self.content, "event_id": self.id}

    def is_for(self, actor: Actor) -> bool:
        """Whether the actor may see it."""
        return self.broadcast or actor.is_administrator or self.owner == actor.username


class _Subscriber:
    """One reader: a bounded queue, ended by None."""

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


class LiveHub:
    """Publishes jobs' news."""

    def __init__(self) -> None:
        self._last_id = 0
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._running: dict[str, Event] = {}
        self._subscribers: set[_Subscriber] = set()
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
        for subscriber in list(self._subscribers):
            if event.is_for(subscriber.actor) and not subscriber.offer(event):
                self._subscribers.discard(subscriber)
                _log.info("a reader of %s was too slow and is dropped", subscriber.actor.username)

    @asynccontextmanager
    async def subscribe(
        self, actor: Actor, since: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """News for ``actor``: first the running jobs' latest (or all after ``since``), then as it comes.

        The iterator ends when the reader is too slow to keep up or the server stops.
        """
        subscriber = _Subscriber(actor)
        for event in self._first(actor, since):
            subscriber.offer(event)
        if self._closed:
            subscriber.end()
        self._subscribers.add(subscriber)
        try:
            yield _read(subscriber)
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()

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
        "agent_lost": job.agent_lost,
    }


_WORDS: Final = {
    JobState.QUEUED: "Waiting for the node",
    JobState.RUNNING: "Running",
    JobState.COMPLETED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}


async def _read(subscriber: _Subscriber) -> AsyncIterator[Event]:
    while (event := await subscriber.queue.get()) is not None:
        yield event

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


class Message(msgspec.Struct, frozen=True, gc=False):
    """A job's state as the message that clients of both dialects read."""

    type: str
    progress: float | str
    task_name: str
    message: str
    timestamp: str
    job_id: str
    cluster: str
    initiator: str
    status: str
    bytes_done: int
    bytes_total: int
    bytes_per_s: int | None
    remaining_s: float | None
    agent_lost: bool
    event_id: int


class Event(msgspec.Struct, eq=False, gc=False):
    """A job's state at one moment; ``id`` rises over the life of the process.

    Attributes:
        owner: who sees it besides administrators; everybody if ``broadcast``.
        content: the message as it is sent.
    """

    id: int
    job_id: str
    owner: str
    broadcast: bool
    ended: bool
    content: Message
    _encoded: bytes = b""

    def message(self) -> Mapping[str, object]:
        """What goes over the socket."""
        return msgspec.structs.asdict(self.content)

    def encoded(self) -> bytes:
        """The message as JSON; made once, however many read it."""
        if not self._encoded:
            self._encoded = _encode(self.content)
        return self._encoded

    def is_for(self, actor: Actor) -> bool:
        """Whether the actor may see it."""
        return self.broadcast or actor.is_administrator or self.owner == actor.username


class Subscription:
    """One reader's news until they end. Iterate it, or take ``batch`` after batch."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self._unread: deque[Event] = deque()
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    def offer(self, event: Event) -> bool:
        """Keep an event for the reader; False if it is too slow, which ends its news."""
        if self._ended:
            return True
        if len(self._unread) >= QUEUE:
            self.end()
            return False
        self._unread.append(event)
        self._wake()
        return True

    def end(self) -> None:
        """Let the reader finish what it has, then stop."""
        self._ended = True
        self._wake()

    async def batch(self) -> list[Event]:
        """What there is, as soon as there is anything, at most ``BATCH``; empty: that was all."""
        await self._something()
        count = min(len(self._unread), BATCH)
        return [self._unread.popleft() for _ in range(count)]

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        await self._something()
        if not self._unread:
            raise StopAsyncIteration
        return self._unread.popleft()

    async def _something(self) -> None:
        """Return when there is an event, or will be none any more."""
        while not self._unread and not self._ended:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def _wake(self) -> None:
        if self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_result(None)
            self._waiting = None


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
        content = content_of(job, self._last_id)
        event = Event(self._last_id, job.id, job.owner, job.broadcast, job.is_ended, content)
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


def content_of(job: Job, event_id: int) -> Message:
    """A job's state as it is told."""
    return Message(
        type="progress",
        progress="failed" if job.state in _FAILED else round(job.progress, 1),
        task_name=job.task_name,
        message=job.message or _WORDS[job.state],
        timestamp=job.updated_at,
        job_id=job.id,
        cluster=job.cluster,
        initiator=job.initiator,
        status=job.state.value,
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        bytes_per_s=job.bytes_per_s or None,
        remaining_s=job.remaining_s,
        agent_lost=job.agent_lost,
        event_id=event_id,
    )


_WORDS: Final = {
    JobState.QUEUED: "Waiting for the node",
    JobState.RUNNING: "Running",
    JobState.COMPLETED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}

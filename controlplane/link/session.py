"""One connected agent: what is sent to it, what it still owes an answer to, when it was heard last."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.errors import AgentUnavailable
from controlplane.link import frames
from controlplane.link.frames import NodeFacts, NodeStatus
from controlplane.link.wire import calls, saying
from controlplane.store import clock

HEARTBEAT_S: Final = 10.0
SILENT_S: Final = 30.0  # nothing heard for so long: the session is over
STALE_S: Final = 60.0  # the node's status is too old to go by
LOST_S: Final = 300.0  # its jobs are flagged
ACKNOWLEDGE_S: Final = 2.0  # so often at most is progress acknowledged; nobody waits for it
_WAITING: Final = 10_000  # frames that a slow agent may leave behind; more and the session ends


class Session:
    """An admitted agent. Frames are queued here and written by the call that owns the stream."""

    def __init__(self, hello: frames.Hello) -> None:
        self.id: Final = secrets.token_hex(8)
        self.cluster: Final = hello.cluster
        self.node: Final = hello.node
        self.agent_version: Final = hello.agent_version
        self.boot_id: Final = hello.boot_id
        self.connected_at: Final = clock.now()
        self.facts: NodeFacts = hello.facts
        self.status: NodeStatus | None = None
        self.is_ready = False
        self.was_alarmed = False  # a second agent claimed the node; said once per session
        self.heard_at, self._seen_at = time.monotonic(), time.time()
        self._stored_up_to, self._news_every_s = 0, 0.0
        self._acknowledged_at = 0.0
        self._acknowledging: asyncio.TimerHandle | None = None
        self._outgoing: asyncio.Queue[calls.ControlFrame] = asyncio.Queue(_WAITING)
        self._sequence = 0
        self._untaken: dict[int, asyncio.Future[None]] = {}
        self._asked: dict[str, asyncio.Future[frames.PodAnswer]] = {}
        self.closed: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    @property
    def silent_s(self) -> float:
        """Seconds since anything was heard."""
        return time.monotonic() - self.heard_at

    @property
    def last_seen(self) -> str:
        """When that was, RFC 3339 UTC."""
        return clock.stamp(datetime.fromtimestamp(self._seen_at, UTC))

    def heard(self) -> None:
        """Something came."""
        self.heard_at, self._seen_at = time.monotonic(), time.time()

    def send(self, frame: calls.ControlFrame) -> None:
        """Queue a frame that needs no answer.

        Raises:
            AgentUnavailable: the session is over.
        """
        if self.closed.done():
            raise self._gone()
        try:
            self._outgoing.put_nowait(frame)
        except asyncio.QueueFull as cause:
            self.close()
            raise self._gone() from cause

    def stored(self, up_to: int, *, at_once: bool, every_s: float = 0.0) -> None:
        """The agent's news up to this number are on disk; it is told now, or within two seconds.

        Args:
            every_s: no progress oftener than this; 0: as the agent likes.

        Raises:
            AgentUnavailable: the session is over.
        """
        self._stored_up_to, self._news_every_s = up_to, every_s
        wait_s = self._acknowledged_at + ACKNOWLEDGE_S - time.monotonic()
        if at_once or wait_s <= 0:
            self._acknowledge()
        elif self._acknowledging is None:
            loop = asyncio.get_running_loop()
            self._acknowledging = loop.call_later(wait_s, self._acknowledge_late)

    def _acknowledge(self) -> None:
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            self._acknowledging = None
        self._acknowledged_at = time.monotonic()
        self.send(saying.stored(self._stored_up_to, self._news_every_s))

    def _acknowledge_late(self) -> None:
        with contextlib.suppress(AgentUnavailable):  # it will say the same again
            self._acknowledge()

    async def next_frame(self) -> calls.ControlFrame:
        """The next frame to write."""
        return await self._outgoing.get()

    def next_sequence(self) -> int:
        """A number for a frame that must be taken."""
        self._sequence += 1
        return self._sequence

    async def send_and_wait(self, sequence: int, frame: calls.ControlFrame) -> None:
        """Send a numbered frame; return when the agent has done what it says.

        Raises:
            AgentUnavailable: the session ended before.
        """
        taken = self._untaken[sequence] = asyncio.get_running_loop().create_future()
        try:
            self.send(frame)
            await taken
        finally:
            self._untaken.pop(sequence, None)

    def taken(self, up_to: int) -> None:
        """The agent has done what frames up to this number said."""
        for sequence, waiter in self._untaken.items():
            if sequence <= up_to and not waiter.done():
                waiter.set_result(None)

    async def find_pod(
        self, namespace: str, pod_name: str, *, every: bool = False
    ) -> frames.PodAnswer:
        """Ask whether a pod is there, or for every pod; the caller sets the deadline.

        Raises:
            AgentUnavailable: the session ended before the answer.
        """
        request_id = secrets.token_hex(8)
        answer = self._asked[request_id] = asyncio.get_running_loop().create_future()
        try:
            self.send(saying.find_pod(request_id, namespace, pod_name, every=every))
            found: frames.PodAnswer = await answer
            return found
        finally:
            self._asked.pop(request_id, None)

    def answered(self, answer: frames.PodAnswer) -> None:
        """The agent said whether a pod is there."""
        waiter = self._asked.get(answer.request_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def close(self) -> None:
        """The session is over: whoever waits for the agent is told."""
        self.is_ready = False
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        waiting: list[asyncio.Future[Any]] = [*self._untaken.values(), *self._asked.values()]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(self._gone())

    def _gone(self) -> AgentUnavailable:
        return unavailable(self.cluster, self.node)


def unavailable(cluster: str, node: str) -> AgentUnavailable:
    """The error for an agent that is away."""
    return AgentUnavailable(
        f"The agent of node {node} in cluster {cluster} is not connected; nothing was started. "
        "Look at the agent on that node, then try again.",
        after_s=15,
    )

"""Sessions with agents: admit, compare journals, welcome, then listen and speak until it is over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlite_utils import Database

from controlplane.clusters.tokens import JoinClaims, JoinRefusal
from controlplane.errors import Conflict, Denied, SnapError
from controlplane.jobs.intake import Brief, Journal, Node, Reconciled
from controlplane.link import admission, frames
from controlplane.link.door import Door
from controlplane.link.fleet import Fleet
from controlplane.link.session import HEARTBEAT_S, Session
from controlplane.link.transfers import Transfers
from controlplane.link.trust import Trust
from controlplane.link.wire import calls, hearing, saying
from controlplane.store import agents, audit, restores
from controlplane.store.agents import SeenAgent
from controlplane.store.audit import AuditEntry
from controlplane.store.database import Store
from controlplane.store.records import ENDED, Job, JobUpdate, Restore

HANDSHAKE_S: Final = 30.0  # for an agent's first word, while thousands say theirs
_log = logging.getLogger(__name__)


class Tokens(Protocol):
    """Checks what agents join with (``clusters.joining.Joining``)."""

    def is_of_cluster(self, token: str) -> bool:
        """Whether a cluster gave it out, which has to be asked."""
        ...

    async def check(self, token: str, cluster: str = "") -> JoinClaims: ...


class Jobs(Protocol):
    """Takes what agents report (``jobs.JobService``)."""

    async def take(self, cluster: str, node: str, updates: Sequence[JobUpdate]) -> int: ...

    def news_every_s(self) -> float: ...

    async def reconcile(
        self, node: Node, hello: Journal, also: Callable[[Database], None]
    ) -> Reconciled: ...

    async def reject(self, job_id: str, failure: SnapError, *, begun: bool = False) -> None: ...


class Uploads(Protocol):
    """Archives that nodes are to take in (``checkpoints.Uploads``)."""

    async def fetch(
        self, transfer_id: str, cluster: str, offset: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]: ...


@dataclass(frozen=True, slots=True)
class LinkServer:
    """The server's side of ``AgentLink`` (``calls.Handlers``).

    Attributes:
        refused: counts agents that were not let in, by reason.
        restored: hears how containers that asked for a restore were started, once that is stored.
    """

    store: Store
    tokens: Tokens
    jobs: Jobs
    fleet: Fleet
    transfers: Transfers
    trust: Trust
    uploads: Uploads
    refused: Callable[[str], None] = lambda _: None
    door: Door = field(default_factory=Door)
    restored: Callable[[Sequence[Restore]], None] = lambda _: None

    async def connect(
        self, token: str, said: AsyncIterator[calls.AgentFrame], context: calls.Context
    ) -> None:
        """One session from its challenge to its end.

        Raises:
            SnapError: the agent is not admitted; the message is for its log.
        """
        async with AsyncExitStack() as place:
            await self._serve(token, said, context, place)

    async def _serve(
        self,
        token: str,
        said: AsyncIterator[calls.AgentFrame],
        context: calls.Context,
        place: AsyncExitStack,
    ) -> None:
        """As ``connect``; ``place`` is the agent's inside the door, until it is welcomed."""
        try:
            hello = await self._admit(token, said, context, place)
        except SnapError as refusal:
            self._turned_away(refusal)
            raise
        session = Session(hello)
        try:
            async with self.fleet.joined(session):
                await self._welcome(session, hello, context)
                await place.aclose()
                _log.info("node %s of %s joined", session.node, session.cluster)
                await self._converse(session, said, context)
        except Conflict as refusal:
            self._turned_away(refusal)
            await self._alarm(session, refusal)
            raise
        finally:
            if session.status is not None:
                await self.store.write(lambda db: agents.put(db, seen(session)))
            _log.info("node %s of %s left", session.node, session.cluster)

    async def _admit(
        self,
        token: str,
        said: AsyncIterator[calls.AgentFrame],
        context: calls.Context,
        place: AsyncExitStack,
    ) -> frames.Hello:
        """The first word of an agent that may join; from then on it is inside the door."""
        is_of_cluster = self.tokens.is_of_cluster(token)
        claims = None if is_of_cluster else await self.tokens.check(token)
        nonce = os.urandom(32)
        await context.write(saying.challenge(nonce))
        hello = await _first_word(said)
        if claims is None:  # only now it is known which cluster is to be asked
            claims = await self.tokens.check(token, hello.cluster)
        await place.enter_async_context(self.door.passed())
        await admission.admit(self.store, claims, nonce, hello)
        return hello

    def _turned_away(self, refusal: SnapError) -> None:
        known = refusal.details in set(JoinRefusal)
        self.refused(refusal.details if known else refusal.code.lower())
        _log.warning("an agent was not let in: %s", refusal.message)

    async def receive_archive(self, token: str, chunks: AsyncIterator[calls.Chunk]) -> int:
        """Take an archive that was asked for; how many bytes came."""
        claims = await self.tokens.check(token)

        async def pieces() -> AsyncIterator[frames.Chunk]:
            async for chunk in chunks:
                yield calls.chunk(chunk)

        return await self.transfers.take(claims.cluster, pieces())

    async def send_archive(
        self, token: str, transfer_id: str, offset: int
    ) -> AsyncGenerator[frames.Chunk, None]:
        """The archive that an import job is about, from ``offset`` on."""
        claims = await self.tokens.check(token)
        total, body = await self.uploads.fetch(transfer_id, claims.cluster, offset)
        async with aclosing(body):
            async for piece in body:
                reached = offset + len(piece)
                yield frames.Chunk(transfer_id, offset, piece, total, last=reached >= total)
                offset = reached

    async def _welcome(self, session: Session, hello: frames.Hello, context: calls.Context) -> None:
        """Bring both sides to the same knowledge; jobs may come once this returns."""
        briefs = {job.job_id: Brief(job.epoch, job.state) for job in hello.jobs}
        journal = Journal(hello.last_sequence, briefs)
        node = session.cluster, session.node
        done = await self.jobs.reconcile(node, journal, lambda db: agents.put(db, seen(session)))
        trust = await self.trust.of_cluster(session.cluster)
        for job in done.start:
            await self._send_again(session, job)
        for job_id, epoch in done.cancel:
            session.send(saying.cancel(session.next_sequence(), job_id, epoch))
        # ready first: an agent that was welcomed can be reached. What is sent waits for _speak.
        self.fleet.ready(session)
        await context.write(saying.welcome(session.id, HEARTBEAT_S, done.up_to_sequence, trust))

    async def _send_again(self, session: Session, job: Job) -> None:
        _log.info("job %s goes to node %s again, epoch %d", job.id, job.node, job.epoch)
        try:
            access = await self.trust.of_job(job)
        except SnapError as failure:
            await self.jobs.reject(job.id, failure, begun=True)
        else:
            session.send(saying.start(session.next_sequence(), job, access))

    async def _converse(
        self, session: Session, said: AsyncIterator[calls.AgentFrame], context: calls.Context
    ) -> None:
        """Listen and speak until one side is gone, or the session is closed."""
        tasks = [
            asyncio.create_task(self._listen(session, said), name=f"hear {session.node}"),
            asyncio.create_task(_speak(session, context), name=f"tell {session.node}"),
        ]
        try:
            ends = [*tasks, session.closed]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except calls.STREAM_OVER as cause:
            _log.debug("the stream of node %s ended: %r", session.node, cause)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, session: Session, said: AsyncIterator[calls.AgentFrame]) -> None:
        async for frame in said:
            session.heard()
            await self._hear(session, hearing.said(frame))

    async def _hear(self, session: Session, said: frames.Said) -> None:
        match said:
            case frames.StatusNews():
                session.status = said.status
                session.facts = said.facts or session.facts
            case frames.JobNews():
                up_to = await self.jobs.take(session.cluster, session.node, said.updates)
                at_once = any(map(_must_arrive, said.updates))
                session.stored(up_to, at_once=at_once, every_s=self.jobs.news_every_s())
            case frames.Taken():
                session.taken(said.up_to_sequence)
            case frames.PodAnswer():
                session.answered(said)
            case frames.ArchiveRefused():
                self.fleet.refused(said, session.cluster)
            case frames.RestoreNews():
                await self._keep(session, said)
            case frames.Hello():
                raise Denied("The agent said hello twice in one session.")
            case frames.Unknown():
                _log.warning("node %s sent a frame that this version does not know", session.node)

    async def _keep(self, session: Session, said: frames.RestoreNews) -> None:
        """Store what a node told of restores, then say so: until then it says it again."""
        told = [Restore(cluster=session.cluster, node=session.node, **one) for one in said.outcomes]
        await self.store.write(lambda db: restores.put(db, told))
        if told:
            self.restored(told)
            session.send(saying.restores_stored(max(one.sequence for one in told)))

    async def _alarm(self, session: Session, refusal: Conflict) -> None:
        """Two agents claim one node: somebody copied its key, or two run side by side."""
        holder = self.fleet.session(session.cluster, session.node)
        if holder is None or holder.was_alarmed:
            return
        holder.was_alarmed = True
        _log.warning("ALARM: a second agent of node %s: %s", session.node, refusal.message)
        entry = AuditEntry(
            f"agent/{session.cluster}/{session.node}", "second live session", outcome="refused"
        )
        await self.store.write(lambda db: audit.write(db, entry))


def seen(session: Session) -> SeenAgent:
    """How an agent was last seen, as it is stored."""
    return SeenAgent(
        cluster=session.cluster,
        node=session.node,
        agent_version=session.agent_version,
        boot_id=session.boot_id,
        facts_json=frames.encode(session.facts).decode(),
        status_json=frames.encode(session.status).decode() if session.status else "{}",
        connected_at=session.connected_at,
        last_seen=session.last_seen,
    )


async def _first_word(said: AsyncIterator[calls.AgentFrame]) -> frames.Hello:
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            frame = await anext(said)
    except (TimeoutError, StopAsyncIteration) as cause:
        raise Denied(
            "The agent did not say hello in time.", details=JoinRefusal.HANDSHAKE
        ) from cause
    hello = hearing.said(frame)
    if not isinstance(hello, frames.Hello):
        raise Denied("The agent did not begin with hello.", details=JoinRefusal.HANDSHAKE)
    return hello


async def _speak(session: Session, context: calls.Context) -> None:
    while True:
        await context.write(await session.next_frame())


def _must_arrive(update: JobUpdate) -> bool:
    """Whether its agent keeps the update until it is acknowledged."""
    return update.state in ENDED or update.result is not None

"""The job table in action: start, wait, cancel, and take what the agents report."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from sqlite_utils import Database

from controlplane import errors
from controlplane.errors import AgentUnavailable, Conflict, NotFound, SnapError
from controlplane.identity import Actor
from controlplane.jobs import intake, transitions
from controlplane.jobs.gathering import Gathering, Spawn
from controlplane.jobs.intake import Effects, Reconciled
from controlplane.store import audit
from controlplane.store import jobs as rows
from controlplane.store.audit import AuditEntry
from controlplane.store.database import Store
from controlplane.store.records import Job, JobFailure, JobState, JobUpdate
from controlplane.store.requests import Idempotency, JobFilter, NewJob, Page

ACCEPT_S: Final = 30.0  # an agent that is silent for so long counts as away (liveness of the link)
_log = logging.getLogger(__name__)


class Dispatcher(Protocol):
    """The agents, as far as handing out jobs needs them (``link.Fleet``)."""

    def require(self, cluster: str, node: str) -> None:
        """Raise AgentUnavailable (or NotFound: no such node) unless its agent is connected."""
        ...

    def is_connected(self, cluster: str, node: str) -> bool: ...

    async def wait_connected(self, cluster: str, node: str) -> None:
        """Return when its agent is connected."""
        ...

    async def start_job(self, job: Job) -> None:
        """Send StartJob; return when the agent has journaled it.

        Raises:
            AgentUnavailable: the session ended before it said so.
        """
        ...

    def cancel_job(self, job: Job) -> None:
        """Send CancelJob if the agent is connected; else Hello will bring it up again."""
        ...


class JobService:
    """Keeps the promise: what was answered is stored, and is done at most once.

    Args:
        spawn: starts a named task that outlives the request.
        publish: tells those who watch about a job's latest state; must not block.
    """

    def __init__(
        self, store: Store, effects: Effects, publish: Callable[[Job], None], spawn: Spawn
    ) -> None:
        self._store = store
        self._effects = effects
        self._publish = publish
        self._spawn = spawn
        self._gathering = Gathering(store, effects, self._tell, spawn)
        self._dispatcher: Dispatcher | None = None
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._accepted: dict[str, asyncio.Event] = {}
        self._closing = False

    def attach(self, dispatcher: Dispatcher) -> None:
        """Plug in the agents; the link needs this service too, so it comes second."""
        self._dispatcher = dispatcher

    async def start(self, request: NewJob) -> Job:
        """Store a job, hand it to its node, and return its row as stored.

        The row is on disk when this returns. A caller that goes away does not stop it. A repeated
        request (same user, key and body) returns the first job.

        Raises:
            AgentUnavailable: its node's agent is not connected; nothing was stored.
            NotFound: there is no such node.
        """
        task = self._spawn(self._start(request), "start a job")
        return await asyncio.shield(task)

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job when it has ended; or as it is after ``timeout_s``, or when the server stops.

        Raises:
            NotFound: there is no such job.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[job_id].add(waiter)
        try:
            job = await self._find(job_id)
            if not job.is_ended and not self._closing:
                await asyncio.wait([waiter], timeout=timeout_s)
                job = await self._find(job_id)
            return job
        finally:
            self._forget(job_id, waiter)

    async def get(self, job_id: str, actor: Actor) -> Job:
        """The job, if it is the actor's to see.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        job = await self._find(job_id)
        if not is_visible(job, actor):
            raise _no_such_job(job_id)
        return job

    async def list(
        self, wanted: JobFilter, actor: Actor, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """The actor's jobs and broadcast ones (administrators: all), newest first."""
        own = (
            wanted
            if actor.is_administrator
            else JobFilter(wanted.state, wanted.kind, wanted.cluster, wanted.node, actor.username)
        )
        return await self._store.read(lambda db: rows.page(db, own, limit, cursor))

    async def cancel(self, job_id: str, actor: Actor) -> Job:
        """Ask for the job's end; it is over when its node says so.

        Raises:
            NotFound: there is none, or it is somebody else's.
            Conflict: it has ended already.
        """
        await self.get(job_id, actor)
        job = await self._store.write(lambda db: _request_cancel(db, job_id, actor))
        assert self._dispatcher is not None  # noqa: S101 - attached before requests come
        self._dispatcher.cancel_job(job)
        return job

    async def take(self, cluster: str, node: str, updates: Sequence[JobUpdate]) -> int:
        """Store a node's news; up to which sequence all are stored now."""
        return await self._gathering.take((cluster, node), updates)

    def news_every_s(self) -> float:
        """How long agents are to wait between news of progress; 0: as they like."""
        return self._gathering.pace.every_s()

    async def reconcile(
        self, node: intake.Node, hello: intake.Journal, also: Callable[[Database], None]
    ) -> Reconciled:
        """Compare what a node that came back knows with the table; what must be sent to it.

        Args:
            also: runs in the same transaction.
        """

        def compare(db: Database) -> Reconciled:
            also(db)
            return intake.reconcile(db, node, hello, self._effects)

        done = await self._store.write(compare)
        for job_id in hello.jobs:
            self._accept(job_id)
        for job in done.changed:
            self._tell(job)
        return done

    async def reject(self, job_id: str, failure: SnapError, *, begun: bool = False) -> None:
        """End a job that its node did not take; nothing happens if it did meanwhile.

        Args:
            begun: end it even if it ran before (its node has lost it and it can't be sent again).
        """

        def end(db: Database) -> Job | None:
            may = begun or _waits(db, job_id)
            return _give_up(db, job_id, failure, self._effects) if may else None

        ended = await self._store.write(end)
        if ended is not None:
            self._tell(ended)

    async def repeated(self, username: str, key: Idempotency | None) -> Job | None:
        """The job that the same request of this user made before."""
        if key is None:
            return None
        return await self._store.read(lambda db: rows.find_repeated(db, username, key))

    async def mark_lost(self, nodes: Sequence[tuple[str, str]]) -> None:
        """Flag the open jobs of nodes that have not been heard of for minutes."""
        for job in await self._store.write(lambda db: rows.set_agent_lost(db, nodes, lost=True)):
            _log.warning("node %s of %s is lost with job %s", job.node, job.cluster, job.id)
            self._publish(job)

    async def busy_nodes(self) -> Sequence[tuple[str, str]]:
        """(cluster, node) of jobs that have not ended and are not flagged as lost."""
        return await self._store.read(rows.busy_nodes)

    async def open_jobs(self) -> Sequence[Job]:
        """Jobs that have not ended, oldest first."""
        return await self._store.read(rows.open_jobs)

    def close(self) -> None:
        """Wake everybody who waits; they answer with the job as it stands."""
        self._closing = True
        for job_id in list(self._waiters):
            self._wake(job_id)

    async def _start(self, request: NewJob) -> Job:
        assert self._dispatcher is not None  # noqa: S101 - attached before requests come
        first = await self.repeated(request.actor.username, request.idempotency)
        if first is not None:
            return first
        self._dispatcher.require(request.cluster, request.node)
        job, is_new = await self._store.write(lambda db: _insert(db, request))
        if is_new:
            _log.info("job %s: %s on %s of %s", job.id, job.kind, job.node, job.cluster)
            self._publish(job)
            self._spawn(self._hand_out(job), f"hand out job {job.id}")
        return job

    async def _hand_out(self, job: Job) -> None:
        """Send the job to its agent; end it if the agent turns out to be away."""
        assert self._dispatcher is not None  # noqa: S101 - attached before requests come
        accepted = self._accepted[job.id] = asyncio.Event()
        try:
            while not accepted.is_set():
                try:
                    async with asyncio.timeout(ACCEPT_S):
                        await self._offer(job, accepted)
                except SnapError as failure:  # it can't even be sent: its registry is gone
                    await self.reject(job.id, failure)
                    return
                except TimeoutError:
                    if not self._dispatcher.is_connected(job.cluster, job.node):
                        break
        finally:
            self._accepted.pop(job.id, None)
        if not accepted.is_set():
            message = f"The agent of node {job.node} went away before it took the job."
            await self.reject(job.id, AgentUnavailable(message))

    async def _offer(self, job: Job, accepted: asyncio.Event) -> None:
        """Send the job in one session after the other until the agent says that it has it.

        The agent may say so by its next Hello or by news of the job; that sets ``accepted`` too.
        """
        assert self._dispatcher is not None  # noqa: S101 - attached before requests come
        while not accepted.is_set():
            await self._dispatcher.wait_connected(job.cluster, job.node)
            if accepted.is_set():
                return
            try:
                await self._dispatcher.start_job(job)
            except AgentUnavailable:
                continue
            accepted.set()

    def _tell(self, job: Job) -> None:
        self._accept(job.id)
        self._publish(job)
        if job.is_ended:
            self._wake(job.id)
            self._spawn(self._effects.after(job), f"follow up job {job.id}")

    def _accept(self, job_id: str) -> None:
        if (accepted := self._accepted.get(job_id)) is not None:
            accepted.set()

    def _wake(self, job_id: str) -> None:
        for waiter in self._waiters.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, job_id: str, waiter: asyncio.Future[None]) -> None:
        self._waiters[job_id].discard(waiter)
        if not self._waiters[job_id]:
            del self._waiters[job_id]

    async def _find(self, job_id: str) -> Job:
        job = await self._store.read(lambda db: rows.find(db, job_id))
        if job is None:
            raise _no_such_job(job_id)
        return job


def is_visible(job: Job, actor: Actor) -> bool:
    """Whether the actor may see the job: own and broadcast ones; administrators all."""
    return actor.is_administrator or job.broadcast or job.owner == actor.username


def _insert(db: Database, request: NewJob) -> tuple[Job, bool]:
    user, key = request.actor.username, request.idempotency
    if key is not None:
        first = rows.find_repeated(db, user, key)
        if first is not None:
            return first, False
    job = rows.insert(db, request)
    audit.write(db, _deed(request.actor, job.kind, job))
    if key is not None:
        rows.remember_request(db, user, key, job.id)
    if request.also_write is not None:
        request.also_write(db, job)
    return job, True


def _request_cancel(db: Database, job_id: str, actor: Actor) -> Job:
    job = rows.find(db, job_id)
    if job is None:
        raise _no_such_job(job_id)
    if job.is_ended:
        raise Conflict(f"Job {job_id} has ended already ({job.state}).")
    asked = msgspec.structs.replace(job, cancel_requested=True)
    rows.update(db, asked, changed_state=False)
    audit.write(db, _deed(actor, "cancel", asked))
    return asked


def _give_up(db: Database, job_id: str, failure: SnapError, effects: Effects) -> Job | None:
    """End a job from here; None if it has ended by itself."""
    job = rows.find(db, job_id)
    if job is None or job.is_ended:
        return None
    if job.cancel_requested:
        ended = transitions.ended_here(job, JobState.CANCELLED, "Cancelled before it began.")
    else:
        why = JobFailure(code=failure.code, message=failure.message, details=failure.details)
        ended = transitions.ended_here(job, JobState.FAILED, failure.message, why)
    rows.update(db, ended, changed_state=True)
    effects.apply(db, ended)
    return ended


def _deed(actor: Actor, action: str, job: Job) -> AuditEntry:
    where = {"cluster": job.cluster, "node": job.node, "namespace": job.namespace}
    return audit.deed(actor, f"job {action}", f"job/{job.id}", details=where)


def _waits(db: Database, job_id: str) -> bool:
    job = rows.find(db, job_id)
    return job is not None and job.state is JobState.QUEUED


def _no_such_job(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id}.", code=errors.JOB_NOT_FOUND)

"""Who is connected, and how to reach a node: jobs, questions, archives, news for a cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from controlplane import errors
from controlplane.checkpoints.ports import FoundPod
from controlplane.clusters.tokens import JoinRefusal
from controlplane.errors import AgentUnavailable, Conflict, Failed, NotFound
from controlplane.link import frames, searching
from controlplane.link.credentials import Credentials
from controlplane.link.frames import PodAnswer
from controlplane.link.session import SILENT_S, Session, unavailable
from controlplane.link.transfers import Transfers
from controlplane.link.wire import calls, saying
from controlplane.store.records import Job, RegistryAccess

_log = logging.getLogger(__name__)
Key = tuple[str, str]  # cluster, node


class Fleet:
    """The connected agents. One session per node; a second one that is alive is refused.

    Args:
        known: nodes that joined before this process began.
    """

    def __init__(
        self, credentials: Credentials, transfers: Transfers, known: Iterable[Key] = ()
    ) -> None:
        self._credentials = credentials
        self._transfers = transfers
        self._sessions: dict[Key, Session] = {}
        self._known = set(known)
        self._change = asyncio.Event()
        self._left: dict[Key, float] = {}
        self._latest: dict[Key, Session] = {}  # also of those that left
        self._began = time.monotonic()
        self._node_of: Callable[[str, str, str], str] = lambda _cluster, _namespace, _pod: ""

    def attach(self, node_of: Callable[[str, str, str], str]) -> None:
        """Plug in who knows on which node a pod is (cluster, namespace, pod); empty: not known."""
        self._node_of = node_of

    @asynccontextmanager
    async def joined(self, session: Session) -> AsyncIterator[None]:
        """Hold the node's place for the block.

        Raises:
            Conflict: the node has another session that is alive.
        """
        key = (session.cluster, session.node)
        older = self._sessions.get(key)
        if older is not None and older.silent_s < SILENT_S / 2:
            raise Conflict(
                f"Node {session.node} has a live session already.",
                details=JoinRefusal.SECOND_SESSION,
            )
        if older is not None:
            older.close()  # the network went away under it; its stream just does not know yet
        self._sessions[key] = self._latest[key] = session
        self._known.add(key)
        try:
            yield
        finally:
            session.close()
            if self._sessions.get(key) is session:
                del self._sessions[key]
                self._left[key] = time.monotonic()

    def away_s(self, cluster: str, node: str) -> float:
        """Seconds since the node was heard of; counted from the start of this process at most."""
        session = self._sessions.get((cluster, node))
        if session is not None:
            return session.silent_s
        return time.monotonic() - self._left.get((cluster, node), self._began)

    def known(self) -> set[Key]:
        """Every node that ever joined."""
        return set(self._known)

    def ready(self, session: Session) -> None:
        """The session was welcomed: jobs may go to it."""
        session.is_ready = True
        self._change.set()
        self._change = asyncio.Event()

    def sessions(self, cluster: str = "") -> list[Session]:
        """Sessions that work, of one cluster or of all."""
        return [
            session
            for (its_cluster, _), session in self._sessions.items()
            if cluster in ("", its_cluster) and _works(session)
        ]

    def every_session(self) -> list[Session]:
        """All sessions, also those that do not work."""
        return list(self._sessions.values())

    def latest(self) -> dict[Key, Session]:
        """The last session of every node that had one in this process, over or not."""
        return dict(self._latest)

    def session(self, cluster: str, node: str) -> Session | None:
        """The session of a node, working or not."""
        return self._sessions.get((cluster, node))

    # -- jobs (jobs.service.Dispatcher)

    def is_connected(self, cluster: str, node: str) -> bool:
        """Whether the node's agent is there and not silent."""
        session = self._sessions.get((cluster, node))
        return session is not None and _works(session)

    def require(self, cluster: str, node: str) -> None:
        """Raise unless the node's agent is there.

        Raises:
            NotFound: NODE_NOT_FOUND, no such node ever joined.
            AgentUnavailable: it is away.
        """
        if self.is_connected(cluster, node):
            return
        if (cluster, node) not in self._known:
            raise NotFound(
                f"There is no node {node} in cluster {cluster}; no agent of it ever joined.",
                code=errors.NODE_NOT_FOUND,
            )
        raise unavailable(cluster, node)

    async def wait_connected(self, cluster: str, node: str) -> None:
        """Return when the node's agent is there."""
        while not self.is_connected(cluster, node):
            await self._change.wait()

    async def start_job(self, job: Job) -> None:
        """Send a job with its credentials; return when the agent has it on disk.

        Raises:
            AgentUnavailable: the session ended before.
            NotFound: a registry config that it needs is gone.
        """
        access = await self._credentials.of_job(job)
        session = self._working(job.cluster, job.node)
        sequence = session.next_sequence()
        await session.send_and_wait(sequence, saying.start(sequence, job, access))

    def cancel_job(self, job: Job) -> None:
        """Tell the node that a job is not wanted any more, if its agent is there."""
        session = self._sessions.get((job.cluster, job.node))
        if session is not None and _works(session):
            session.send(saying.cancel(session.next_sequence(), job.id, job.epoch))

    # -- questions

    async def find_pod(
        self, cluster: str, namespace: str, pod_name: str, node: str = ""
    ) -> FoundPod:
        """Ask the node that Kubernetes says, or all of a cluster, for a pod.

        A pod that is ready wins over one that is not; else all answers are waited for.

        Args:
            node: the only one to ask.

        Raises:
            NotFound: POD_NOT_FOUND; NODE_NOT_FOUND.
            Refused: several nodes have a ready pod of that name.
            AgentUnavailable: nobody who could know is there.
        """
        known = "" if node else self._node_of(cluster, namespace, pod_name)
        if known and self.is_connected(cluster, known):
            with suppress(NotFound):  # it has moved on since: then whoever has it is asked
                return await self.find_pod(cluster, namespace, pod_name, known)
        asked = [self._working(cluster, node)] if node else self.sessions(cluster)
        if not asked:
            raise AgentUnavailable(
                f"No agent of cluster {cluster} is connected; nothing was started.", after_s=15
            )
        found = await searching.search(asked, namespace, pod_name)
        if found.pod is not None:
            return found.pod
        where = f"on node {node}" if node else f"in cluster {cluster}"
        if known and not self.is_connected(cluster, known):
            raise unavailable(cluster, known)
        if found.silent:
            raise AgentUnavailable(
                f"Pod {namespace}/{pod_name} was not found {where}, but not every node answered.",
                details="; ".join(found.silent),
                after_s=15,
            )
        raise NotFound(
            f"There is no pod {pod_name} in namespace {namespace} {where}.",
            code=errors.POD_NOT_FOUND,
        )

    async def pods(self, cluster: str) -> list[tuple[str, PodAnswer]]:
        """Every pod that the connected agents of a cluster know, with its node.

        A node that does not answer is left out: its pods are not known, the others' are.
        """
        return await searching.every_pod(self.sessions(cluster))

    async def open_archive(
        self, node: Key, checkpoint_id: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """An archive's bytes from a node; (size of the whole, bytes from ``offset``; 0: all).

        Raises:
            AgentUnavailable: its agent is away.
            SnapError: the agent's refusal, under its code.
        """
        session = self._working(*node)
        transfer = self._transfers.begin(session.cluster, offset)
        session.send(saying.open_archive(transfer.id, checkpoint_id, offset, length))
        return await self._transfers.read(transfer, length)

    async def open_image(
        self, node: Key, digest: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """As ``open_archive``, of an image in the node's cache.

        Raises:
            NotFound: it is not there.
        """
        session = self._working(*node)
        transfer = self._transfers.begin(session.cluster, offset)
        session.send(saying.open_archive(transfer.id, "", offset, length, digest))
        return await self._transfers.read(transfer, length)

    def reachable(self, cluster: str = "") -> list[Key]:
        """(cluster, node) of the agents that are there, of one cluster or of all."""
        return sorted((session.cluster, session.node) for session in self.sessions(cluster))

    def refused(self, refusal: frames.ArchiveRefused, cluster: str) -> None:
        """A node said that it can't send an archive."""
        transfer = self._transfers.find(refusal.transfer_id)
        if transfer is not None and transfer.cluster == cluster:
            failed = NotFound if refusal.code.endswith("_NOT_FOUND") else Failed
            transfer.end(failed(refusal.message, code=refusal.code))

    # -- news for all nodes of a cluster

    def send_grants(
        self, cluster: str, grants: Sequence[frames.SignedGrant], *, replace: bool
    ) -> None:
        """Give grants to every connected node of a cluster; the others get them by Welcome."""
        self._send_all(cluster, saying.grants(grants, replace=replace))

    def send_credentials(self, cluster: str, registries: Sequence[RegistryAccess]) -> None:
        """Give all pull credentials to every connected node of a cluster."""
        self._send_all(cluster, saying.credentials(registries))

    def _send_all(self, cluster: str, frame: calls.ControlFrame) -> None:
        for session in self.sessions(cluster):
            try:
                session.send(frame)
            except AgentUnavailable:
                _log.info("node %s of %s left before it got news", session.node, cluster)

    def _working(self, cluster: str, node: str) -> Session:
        self.require(cluster, node)
        return self._sessions[cluster, node]


def _works(session: Session) -> bool:
    return session.is_ready and session.silent_s < SILENT_S

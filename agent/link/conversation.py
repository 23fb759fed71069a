"""One session with the control plane, from its challenge to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

import grpc.aio

import agent
from agent import cancellation, errors
from agent.formats.jobs import CheckpointId, JobFailure
from agent.link import frames, ports
from agent.link.identity import Identity
from agent.link.pacing import Pace
from agent.link.wire import calls, hearing, saying

log = logging.getLogger(__name__)

# after a restart thousands dial at once, and one core needs its time for all of them: whoever gives up has
# its handshake made twice, the others wait longer for that, and give up too
HANDSHAKE_S: Final = 40.0
WRITE_S: Final = 30.0  # a stream that takes nothing for so long is dead: the kernel says so by then
HEARTBEAT_S: Final = 10.0  # where the control plane says none
TRANSFERS: Final = 4  # archives sent at once; each holds a piece of at most 1 MiB
TRANSFER_S: Final = 6 * 3600.0  # a whole archive over a slow line
FIND_POD_S: Final = 10.0
NEXT_S: Final = 60.0  # for the control plane to read on


@dataclass(frozen=True, slots=True)
class Member:
    """Who joins: names, key, and the boot that the node is in."""

    cluster: str
    node: str
    boot_id: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class Rooms:
    """Who does what the control plane asks for."""

    jobs: ports.Jobs
    news: ports.News
    node: ports.Node
    archives: ports.Archives
    trust: ports.Trust
    outcomes: ports.Outcomes = field(default_factory=ports.NoOutcomes)


class Ended(Exception):
    """The control plane closed the stream, or broke the protocol: every session's ordinary end."""


class Conversation:
    """One ``Connect`` stream. ``hold`` it once; nothing of it outlives that call."""

    def __init__(self, channel: grpc.aio.Channel, token: str, member: Member, rooms: Rooms) -> None:
        self._calls = calls.stub(channel)
        self._token = token
        self._member = member
        self._rooms = rooms
        self._writing = asyncio.Lock()
        self._call: calls.ConnectCall | None = None
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._pace = Pace()
        self.welcomed = asyncio.Event()

    async def hold(self) -> None:
        """Join, then talk until the stream ends; never returns by itself.

        Raises:
            Ended: the stream is over, or the other side did not keep to the protocol.
            grpc.aio.AioRpcError: it broke, or the join was refused.
        """
        self._call = call = self._calls.Connect(metadata=calls.bearer(self._token))
        try:
            welcome = await self._join(call)
            log.info("joined the control plane, session %s", welcome.session)
            self.welcomed.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_news(call), name="link: news")
                group.create_task(self._send_outcomes(call), name="link: outcomes")
                group.create_task(self._send_status(call, welcome.heartbeat_s), name="link: status")
                await self._listen(call, group)
        except BaseExceptionGroup as group_of:
            raise _cause(group_of) from group_of
        finally:
            call.cancel()

    async def _join(self, call: calls.ConnectCall) -> frames.Welcome:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                challenge = await self._read(call)
                if not isinstance(challenge, frames.Challenge):
                    raise Ended("the control plane did not begin with a challenge")
                await call.write(saying.hello(self._hello(challenge.nonce)))
                welcome = await self._read(call)
        except TimeoutError as cause:
            raise Ended(f"the control plane did not answer within {HANDSHAKE_S:g} s") from cause
        if not isinstance(welcome, frames.Welcome):
            raise Ended("the control plane did not welcome us")
        await self._rooms.trust.grants(welcome.grants, welcome.grant_key)
        await self._rooms.trust.pull_access(welcome.pull_access)
        await self._rooms.jobs.acknowledged(welcome.up_to_sequence)
        self._rooms.news.begin_session()
        self._rooms.outcomes.begin_session()
        return welcome

    def _hello(self, nonce: bytes) -> frames.Hello:
        member = self._member
        return frames.Hello(
            cluster=member.cluster,
            node=member.node,
            agent_version=agent.__version__,
            boot_id=member.boot_id,
            facts=self._rooms.node.facts(),
            public_key=member.identity.public_key,
            signature=member.identity.sign(calls.signed_text(nonce, member.cluster, member.node)),
            last_sequence=self._rooms.jobs.last_sequence,
            jobs=self._rooms.jobs.briefs(),
        )

    # -- what we say

    async def _send(self, call: calls.ConnectCall, frame: calls.AgentFrame) -> None:
        """Send ``frame``; one at a time, as gRPC wants it."""
        try:
            async with asyncio.timeout(WRITE_S), self._writing:
                with _cut():
                    await call.write(frame)
        except TimeoutError as cause:
            raise Ended(f"the control plane took nothing for {WRITE_S:g} s") from cause
        except asyncio.InvalidStateError as cause:
            raise Ended("the stream is closed") from cause

    async def _send_news(self, call: calls.ConnectCall) -> None:
        while True:
            await self._rooms.news.wait()
            if updates := await self._rooms.news.take():
                await self._send(call, saying.updates(updates))
                self._pace.sent(updates[-1].sequence)
            await self._rooms.news.wait_urgent(self._pace.every_s())

    async def _send_outcomes(self, call: calls.ConnectCall) -> None:
        while True:
            await self._send(call, saying.restore_outcomes(await self._rooms.outcomes.take()))

    async def _send_status(self, call: calls.ConnectCall, heartbeat_s: float) -> None:
        told = self._rooms.node.facts()  # by Hello
        while True:
            facts = self._rooms.node.facts()
            status = await self._rooms.node.status(with_facts=facts != told)
            await self._send(call, saying.status(status))
            told = facts
            await self._rooms.node.wait_changed(heartbeat_s or HEARTBEAT_S)

    # -- what we hear

    async def _read(self, call: calls.ConnectCall) -> frames.Control:
        with _cut():
            frame = await call.read()
        if not isinstance(frame, calls.ControlFrame):  # gRPC's end of the stream
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise await calls.failure(call)
            raise Ended("the control plane closed the stream")
        return hearing.control(frame)

    async def _listen(self, call: calls.ConnectCall, group: asyncio.TaskGroup) -> None:
        while True:
            said = await self._read(call)
            if sequence := await self._obey(said, call, group):
                await self._send(call, saying.ack(sequence))

    async def _obey(
        self, said: frames.Control, call: calls.ConnectCall, group: asyncio.TaskGroup
    ) -> int:
        """Do what the control plane said, and return the number to acknowledge (0: none).

        Jobs are on disk before this returns; what takes long goes on in tasks of ``group``.
        """
        jobs = self._rooms.jobs
        match said:
            case frames.StartJob(job=None):
                failure = JobFailure(errors.VALIDATION_ERROR, said.problem)
                await jobs.refuse(said.job_id, said.epoch, failure)
            case frames.StartJob(job=job) if job is not None:
                await jobs.start(job)
            case frames.CancelJob():
                await jobs.cancel(said.job_id, said.epoch)
            case frames.OpenArchive():
                work = self._send_archive(said, call)
                group.create_task(work, name=f"link: archive {said.transfer_id}")
            case frames.FindPod():
                group.create_task(self._find_pod(said, call), name="link: find pod")
            case frames.GrantNews():
                await self._rooms.trust.grants(said)
            case frames.PullAccessNews():
                await self._rooms.trust.pull_access(said)
            case frames.Delivered():
                self._pace.acknowledged(said.up_to_sequence, said.news_every_s)
                await jobs.acknowledged(said.up_to_sequence)
                return 0
            case frames.OutcomesStored():
                await self._rooms.outcomes.acknowledged(said.up_to_sequence)
                return 0
            case frames.Challenge() | frames.Welcome():
                raise Ended("the control plane joined twice")
            case frames.Unknown():
                log.warning("the control plane sent a frame that this version does not know")
        return said.sequence

    async def _find_pod(self, asked: frames.FindPod, call: calls.ConnectCall) -> None:
        try:
            async with asyncio.timeout(FIND_POD_S):
                if asked.every:
                    answer = saying.pods_found(asked.request_id, await self._rooms.node.pods())
                else:
                    pod = await self._rooms.node.find_pod(asked.namespace, asked.pod_name)
                    answer = saying.pod_found(asked.request_id, pod)
        except TimeoutError:
            problem = f"the container runtime did not answer within {FIND_POD_S:g} s"
            answer = saying.pod_found(asked.request_id, None, problem)
        except errors.SnapError as failure:
            answer = saying.pod_found(asked.request_id, None, failure.message)
        await self._send(call, answer)

    def _open(self, asked: frames.OpenArchive) -> AbstractAsyncContextManager[ports.Archive]:
        if asked.image_digest:
            return self._rooms.archives.open_image(asked.image_digest)
        return self._rooms.archives.open(CheckpointId(asked.checkpoint_id))

    async def fetch_archive(
        self, transfer_id: str, offset: int
    ) -> AsyncGenerator[calls.Chunk, None]:
        """The pieces of an uploaded archive, on a stream of its own.

        Raises:
            Ended: the session is over. grpc.aio.AioRpcError, TimeoutError: it broke off.
        """
        wanted = transfer_id, offset
        pieces = calls.fetch_archive(self._calls, self._token, wanted, NEXT_S)
        async with contextlib.aclosing(pieces):
            while True:
                with _cut():
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    async def _send_archive(self, asked: frames.OpenArchive, call: calls.ConnectCall) -> None:
        """Send an archive on a stream of its own; its end is no concern of this session."""
        try:
            async with self._transfers, self._open(asked) as archive:
                if asked.offset > archive.size_bytes:
                    raise errors.Refused(
                        f"The archive has {archive.size_bytes} bytes, "
                        f"so it can't be read from {asked.offset} on.",
                        code=errors.VALIDATION_ERROR,
                    )
                chunks = _chunks(asked, archive)
                with _cut():
                    sent = await calls.send_archive(self._calls, self._token, chunks, TRANSFER_S)
                log.info("archive of %s sent, %d bytes", asked.checkpoint_id, sent)
        except errors.SnapError as failure:
            refusal = saying.archive_refused(asked.transfer_id, failure.code, failure.message)
            await self._send(call, refusal)
        except OSError as failure:
            message = "The checkpoint's files can't be read on the node."
            log.warning("archive of %s: %s", asked.checkpoint_id, failure)
            await self._send(
                call, saying.archive_refused(asked.transfer_id, errors.INTERNAL_ERROR, message)
            )
        except (grpc.aio.AioRpcError, Ended) as broken:
            # the reader hung up or the link is going: it will ask again if it wants to; or a part
            # went away while it was read, and gRPC cut the call
            log.debug("archive of %s broke off: %s", asked.checkpoint_id, broken)


@contextlib.contextmanager
def _cut() -> Iterator[None]:
    """Tell a stream that was cut from a task that is cancelled: gRPC says CancelledError for both.

    Source: grpc.aio: when one reader or writer is cancelled, the call is, and the others are told
        so.
    """
    try:
        yield
    except asyncio.CancelledError:
        cancellation.heed()
        raise Ended("the stream was cut") from None


async def _chunks(asked: frames.OpenArchive, archive: ports.Archive) -> AsyncIterator[calls.Chunk]:
    """The pieces of ``archive`` that were asked for; the last one says so, even if it is empty."""
    offset, total = asked.offset, archive.size_bytes
    end = min(offset + asked.length, total) if asked.length else total
    async with contextlib.aclosing(archive.read(offset, asked.length)) as pieces:
        async for piece in pieces:
            reached = offset + len(piece)
            yield calls.Chunk(asked.transfer_id, offset, piece, total, last=reached >= end)
            offset, total = reached, 0
    if offset == asked.offset:
        yield calls.Chunk(asked.transfer_id, offset, b"", total, last=True)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure that ended the session, if it was the stream's; else all there were."""
    ends, others = group.split((Ended, errors.SnapError, grpc.aio.AioRpcError))
    if others or ends is None:
        return group
    first: BaseException = ends
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first

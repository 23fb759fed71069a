"""A control plane's side of the link: a real gRPC server with TLS that keeps what it is told in memory.

It checks what the real one must check: token, signature, sequences that rise.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1.link_pb2_grpc import AgentLinkServicer, add_AgentLinkServicer_to_server
from tests.fakes import tls
from tests.fakes.jobs import until

TOKEN = "join-token"
ENDED = {"completed", "failed", "cancelled"}


class FakeControlPlane(AgentLinkServicer):
    """What agents said, and means to talk to them."""

    def __init__(self) -> None:
        self.hellos: list[pb.Hello] = []
        self.keys: dict[tuple[str, str], bytes] = {}
        self.statuses: list[pb.NodeStatus] = []
        self.updates: list[pb.JobUpdate] = []
        self.outcomes: list[pb.RestoreOutcome] = []
        self.pods: dict[str, pb.PodFound] = {}
        self.refused_archives: dict[str, pb.ArchiveRefused] = {}
        self.archives: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.stuck_at: int | None = None  # where uploads stop coming
        self.acknowledged = 0  # of our frames, by the agent of this session
        self.up_to = 0  # of the agents' news
        self.acknowledges = True
        self.sessions = 0
        self.heartbeat_s = 0.2
        self.news_every_s = 0.0
        self.tokens = {TOKEN}
        self.grants = [pb.Grant(payload=b"{}", signature=b"s")]
        self._sequence = 0
        self._frames: asyncio.Queue[pb.ControlFrame | None] = asyncio.Queue()
        self._owed: dict[int, pb.ControlFrame] = {}

    # -- what a test does

    async def send(self, frame: pb.ControlFrame) -> int:
        """Say ``frame``, again in every session until it is acknowledged; returns its sequence."""
        self._sequence += 1
        frame.sequence = self._sequence
        self._owed[self._sequence] = frame
        await self._frames.put(frame)
        return self._sequence

    async def start(self, job: pb.StartJob) -> int:
        """Give a job."""
        return await self.send(pb.ControlFrame(start=job))

    async def hang_up(self) -> None:
        """End the session."""
        await self._frames.put(None)

    async def result(self, job_id: str, timeout_s: float = 15.0) -> pb.JobUpdate:
        """The result of ``job_id``, when it is there."""
        await until(lambda: bool(self.results(job_id)), timeout_s)
        return self.results(job_id)[-1]

    def results(self, job_id: str) -> list[pb.JobUpdate]:
        """Every result that was reported of ``job_id``."""
        return [one for one in self.updates if one.job_id == job_id and one.state in ENDED]

    # -- the link

    async def Connect(  # noqa: N802 - the protocol's name
        self,
        request_iterator: AsyncIterator[pb.AgentFrame],
        context: grpc.aio.ServicerContext[pb.AgentFrame, pb.ControlFrame],
    ) -> AsyncIterator[pb.ControlFrame]:
        await self._check_token(context)
        nonce = secrets.token_bytes(32)
        yield pb.ControlFrame(challenge=pb.Challenge(nonce=nonce))
        hello = (await anext(request_iterator)).hello
        await self._check_hello(hello, nonce, context)
        self.hellos.append(hello)
        self.sessions += 1
        self.acknowledged = 0
        self._frames = asyncio.Queue()
        yield pb.ControlFrame(
            welcome=pb.Welcome(
                session=f"session-{self.sessions}",
                heartbeat_s=self.heartbeat_s,
                grant_key=b"k" * 32,
                grants=pb.Grants(replace=True, grants=self.grants),
                credentials=pb.PullCredentials(
                    replace=True,
                    registries=[pb.RegistryAccess(host="registry.test", verify_ssl=True)],
                ),
                up_to_sequence=self.up_to,
            )
        )
        for owed in self._owed.values():
            yield owed
        listening = asyncio.create_task(self._listen(request_iterator), name="fake: listen")
        try:
            while (frame := await self._next(listening)) is not None:
                yield frame
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def SendArchive(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.ArchiveChunk],
        context: grpc.aio.ServicerContext[pb.ArchiveChunk, pb.ArchiveReceipt],
    ) -> pb.ArchiveReceipt:
        await self._check_token(context)
        transfer, received, ended = "", b"", False
        async for chunk in request_iterator:
            transfer, ended = chunk.transfer_id, chunk.last
            received += chunk.data
        if ended:
            self.archives[transfer] = received
        return pb.ArchiveReceipt(received_bytes=len(received))

    async def FetchArchive(  # noqa: N802
        self, request: pb.FetchArchiveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ArchiveChunk]:
        await self._check_token(context)
        content = self.uploads.get(request.transfer_id)
        if content is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such upload")
            return
        for at in range(request.offset, len(content), 1000):
            if self.stuck_at is not None and at >= self.stuck_at:
                await asyncio.Event().wait()
            data = content[at : at + 1000]
            yield pb.ArchiveChunk(transfer_id=request.transfer_id, offset=at, data=data)

    async def _next(self, listening: asyncio.Task[None]) -> pb.ControlFrame | None:
        """What to say next; None when the session is over."""
        getting = asyncio.create_task(self._frames.get(), name="fake: next")
        done, _ = await asyncio.wait({getting, listening}, return_when=asyncio.FIRST_COMPLETED)
        if getting in done:
            return getting.result()
        getting.cancel()
        return None

    async def _listen(self, frames: AsyncIterator[pb.AgentFrame]) -> None:
        async for frame in frames:
            match frame.WhichOneof("frame"):
                case "status":
                    self.statuses.append(frame.status)
                case "updates":
                    await self._take(frame.updates)
                case "ack":
                    self.acknowledged = frame.ack.up_to_sequence
                    for sequence in [s for s in self._owed if s <= self.acknowledged]:
                        del self._owed[sequence]
                case "pod_found":
                    self.pods[frame.pod_found.request_id] = frame.pod_found
                case "restore_outcomes":
                    await self._take_outcomes(frame.restore_outcomes)
                case "archive_refused":
                    refused = frame.archive_refused
                    self.refused_archives[refused.transfer_id] = refused

    async def _take(self, news: pb.JobUpdates) -> None:
        for update in news.updates:
            assert update.sequence > self.up_to, "sequences must rise"
            self.updates.append(update)
            if self.acknowledges:
                self.up_to = update.sequence
        if self.acknowledges:
            ack = pb.Ack(up_to_sequence=self.up_to, news_every_s=self.news_every_s)
            await self._frames.put(pb.ControlFrame(ack=ack))

    async def _take_outcomes(self, news: pb.RestoreOutcomes) -> None:
        self.outcomes += news.outcomes
        if self.acknowledges:
            stored = pb.Ack(up_to_sequence=news.outcomes[-1].sequence)
            await self._frames.put(pb.ControlFrame(restores_stored=stored))

    async def _check_token(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if str(given).removeprefix("Bearer ") not in self.tokens:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the join token is not valid; get a new one"
            )

    async def _check_hello(
        self,
        hello: pb.Hello,
        nonce: bytes,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        text = b"snap-join-v1\n" + nonce + b"\n" + f"{hello.cluster}\n{hello.node}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(hello.public_key).verify(hello.signature, text)
        except (InvalidSignature, ValueError):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the signature is wrong")
        known = self.keys.setdefault((hello.cluster, hello.node), hello.public_key)
        if known != hello.public_key:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"node {hello.node} has another key"
            )


@dataclass
class Served:
    """A control plane that listens."""

    plane: FakeControlPlane
    port: int
    certificates: tls.Certificates = field(repr=False)

    @property
    def target(self) -> str:
        """Where to dial."""
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def served(
    plane: FakeControlPlane, certificates: tls.Certificates, port: int = 0
) -> AsyncIterator[Served]:
    """Have ``plane`` listen; leaving cuts every session."""
    server = grpc.aio.server()
    add_AgentLinkServicer_to_server(plane, server)
    credentials = grpc.ssl_server_credentials([(certificates.key, certificates.leaf)])
    bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield Served(plane, bound, certificates)
    finally:
        await server.stop(grace=None)

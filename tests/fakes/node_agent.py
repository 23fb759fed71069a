"""A node's agent that speaks the real protocol over real TLS, and does jobs by being told to.

Its journal is a dict in memory that outlives its sessions. Nothing is acknowledged or reported unless
the test says so, or ``obedient`` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1.link_pb2_grpc import AgentLinkStub

ENDED = {"completed", "failed", "cancelled"}
DIGEST = "sha256:" + "ab" * 32


@dataclass(frozen=True)
class Place:
    """Where and as whom to join."""

    target: str
    ca_pem: str
    token: str
    cluster: str = "dev"
    node: str = "node-1"


@dataclass
class Held:
    """A job in the journal."""

    start: pb.StartJob
    state: str = "queued"
    times_started: int = 1


@dataclass
class FakeAgent:
    """One node. ``join`` opens a session for the length of a block."""

    place: Place
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    pods: dict[tuple[str, str], pb.PodFound] = field(default_factory=dict)
    archives: dict[str, bytes] = field(default_factory=dict)
    journal: dict[str, Held] = field(default_factory=dict)
    obedient: bool = False
    acknowledges: bool = True
    sequence: int = 0
    welcomes: list[pb.Welcome] = field(default_factory=list)
    grants: list[pb.Grants] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    stored: int = 0
    sent_bytes: int = 0
    _call: Any = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # gRPC takes one message at a time

    @contextlib.asynccontextmanager
    async def join(self) -> AsyncIterator[FakeAgent]:
        """Be connected for the block."""
        credentials = grpc.ssl_channel_credentials(self.place.ca_pem.encode())
        async with grpc.aio.secure_channel(self.place.target, credentials) as channel:
            stub: Any = AgentLinkStub(channel)
            metadata = (("authorization", f"Bearer {self.place.token}"),)
            self._call = call = stub.Connect(metadata=metadata)
            challenge = await _read(call)
            await call.write(pb.AgentFrame(hello=self._hello(challenge.challenge.nonce)))
            welcome = await _read(call)
            self.welcomes.append(welcome.welcome)
            self.stored = welcome.welcome.up_to_sequence
            listening = asyncio.create_task(self._listen(call, stub, metadata))
            try:
                yield self
            finally:
                listening.cancel()
                call.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def report(self, job_id: str, state: str, **more: Any) -> pb.JobUpdate:
        """Send an update of a job, under the next sequence."""
        held = self.journal[job_id]
        held.state = state
        self.sequence += 1
        fields = {"epoch": held.start.epoch} | more
        update = pb.JobUpdate(job_id=job_id, sequence=self.sequence, state=state, **fields)
        await self.say(update)
        return update

    async def say(self, *updates: pb.JobUpdate) -> None:
        """Send these updates as they are."""
        await self._tell(pb.AgentFrame(updates=pb.JobUpdates(updates=updates)))

    async def heartbeat(self) -> None:
        """Report that the node is ready."""
        status = pb.NodeStatus(taken_at="2024-01-15T10:30:00Z", ready=True)
        await self._tell(pb.AgentFrame(status=status))

    async def _tell(self, frame: pb.AgentFrame) -> None:
        async with self._turn:
            await self._call.write(frame)

    async def complete(self, job_id: str) -> None:
        """Report that a job is done, with the results that its kind has."""
        await self.report(job_id, "completed", result=result_of(self.journal[job_id].start))

    def _hello(self, nonce: bytes) -> pb.Hello:
        cluster, node = self.place.cluster, self.place.node
        text = b"snap-join-v1\n" + nonce + b"\n" + cluster.encode() + b"\n" + node.encode()
        briefs = [
            pb.JobBrief(job_id=job_id, epoch=held.start.epoch, state=held.state)
            for job_id, held in self.journal.items()
        ]
        return pb.Hello(
            cluster=cluster,
            node=node,
            agent_version="0.1.0",
            boot_id="boot",
            facts=pb.NodeFacts(kernel="6.1", engines=["runc"], runtime="containerd"),
            public_key=self.key.public_key().public_bytes_raw(),
            signature=self.key.sign(text),
            last_sequence=self.sequence,
            jobs=briefs,
        )

    async def _listen(self, call: Any, stub: Any, metadata: Any) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                frame = await call.read()
                if not isinstance(frame, pb.ControlFrame):
                    return
                await self._obey(frame)
                if frame.WhichOneof("frame") == "open_archive":
                    group.create_task(self._send(frame.open_archive, stub, metadata))

    async def _obey(self, frame: pb.ControlFrame) -> None:
        match frame.WhichOneof("frame"):
            case "start":
                self._take(frame.start)
            case "cancel":
                self.cancels.append(frame.cancel.job_id)
            case "ack":
                self.stored = frame.ack.up_to_sequence
            case "grants":
                self.grants.append(frame.grants)
            case "find_pod":
                asked = frame.find_pod
                found = pb.PodFound(request_id=asked.request_id)
                if (pod := self.pods.get((asked.namespace, asked.pod_name))) is not None:
                    found.CopyFrom(pod)
                    found.request_id = asked.request_id
                await self._tell(pb.AgentFrame(pod_found=found))
        if frame.sequence and self.acknowledges:
            await self._tell(pb.AgentFrame(ack=pb.Ack(up_to_sequence=frame.sequence)))
        if frame.WhichOneof("frame") == "start" and self.obedient:
            held = self.journal[frame.start.job_id]
            if held.state not in ENDED:
                await self.report(frame.start.job_id, "running", progress=50.0, message="half way")
                await self.complete(frame.start.job_id)

    def _take(self, start: pb.StartJob) -> None:
        held = self.journal.get(start.job_id)
        if held is None:
            self.journal[start.job_id] = Held(start)
        else:
            held.times_started += 1
            if start.epoch > held.start.epoch:
                held.start = start

    async def _send(self, asked: pb.OpenArchive, stub: Any, metadata: Any) -> None:
        content = self.archives.get(asked.checkpoint_id)
        if content is None:
            refused = pb.ArchiveRefused(
                transfer_id=asked.transfer_id,
                code="CHECKPOINT_NOT_FOUND",
                message="The checkpoint is not on this node.",
            )
            await self._tell(pb.AgentFrame(archive_refused=refused))
            return
        end = asked.offset + asked.length if asked.length else len(content)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.SendArchive(self._chunks(asked, content, end), metadata=metadata)

    async def _chunks(
        self, asked: pb.OpenArchive, content: bytes, end: int
    ) -> AsyncIterator[pb.ArchiveChunk]:
        offset, total = asked.offset, len(content)
        while offset < end:
            data = content[offset : min(offset + 65536, end)]
            self.sent_bytes += len(data)
            yield pb.ArchiveChunk(
                transfer_id=asked.transfer_id, offset=offset, data=data, total_bytes=total
            )
            offset, total = offset + len(data), 0
        yield pb.ArchiveChunk(transfer_id=asked.transfer_id, offset=offset, last=True)


def result_of(start: pb.StartJob) -> pb.JobResult:
    """What a node that did everything right would answer."""
    checkpoints = [
        pb.CheckpointResult(
            checkpoint_id=target.checkpoint_id,
            container_name=target.container_name,
            container_id=target.container_id,
            engine="runc",
            size_bytes=150_000_000,
            pause_ms=670.0,
            image_ref="docker.io/library/redis@sha256:" + "12" * 32,
            created_at="2024-01-15T10:30:00Z",
            revision=1,
            left_running=True,
        )
        for target in start.checkpoint.containers
    ]
    pushes = [
        pb.PushResult(
            checkpoint_id=push.checkpoint_id,
            image=f"{push.registry.host}/{push.repository}:{push.tag}",
            digest=DIGEST,
            size_bytes=1000,
            pushed_bytes=900,
            duration_ms=12.5,
        )
        for push in start.pushes
    ]
    return pb.JobResult(checkpoints=checkpoints, pushes=pushes)


def pod(name: str = "app", namespace: str = "default", *containers: str) -> pb.PodFound:
    """A pod that runs, with these containers (one, named as the pod, if none is given)."""
    return pb.PodFound(
        found=True,
        ready=True,
        pod_uid="uid-1",
        pod_name=name,
        namespace=namespace,
        labels={"app": name, "pod-template-hash": "5d9c"},
        containers=[
            pb.PodContainer(
                name=container,
                container_id=f"id-{container}",
                state="running",
                image_ref="docker.io/library/redis@sha256:" + "12" * 32,
            )
            for container in containers or (name,)
        ],
    )


async def _read(call: Any) -> pb.ControlFrame:
    frame = await call.read()
    if not isinstance(frame, pb.ControlFrame):
        raise grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )
    return frame

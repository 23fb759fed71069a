"""Frames as protobuf, and the calls that carry them: the only module here that knows either.

Source: protos/snap/v1/link.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from agent.formats import jobs
from agent.link import frames
from agent.node import facts
from agent.restore.outcome import Outcome
from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1.link_pb2_grpc import AgentLinkStub

if TYPE_CHECKING:
    from snap_protos.snap.v1.link_pb2_grpc import AgentLinkAsyncStub  # known to its stub file only

SIGNED_PREFIX: Final = b"snap-join-v1\n"
MAX_MESSAGE_BYTES: Final = 32 << 20  # all grants of a large cluster come in one Welcome
DUMP_TIMEOUT_S: Final = 120.0  # where the control plane says none

AgentFrame = pb.AgentFrame
ControlFrame = pb.ControlFrame
ConnectCall = grpc.aio.StreamStreamCall[AgentFrame, ControlFrame]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an archive. ``total_bytes`` is the whole archive's size, in the first chunk."""

    transfer_id: str
    offset: int
    data: bytes
    total_bytes: int = 0
    last: bool = False


def stub(channel: grpc.aio.Channel) -> AgentLinkAsyncStub:
    """The control plane's calls on ``channel``."""
    return AgentLinkStub(channel)


def signed_text(nonce: bytes, cluster: str, node: str) -> bytes:
    """What a Hello's signature is over."""
    return SIGNED_PREFIX + b"\n".join([nonce, cluster.encode(), node.encode()])


async def send_archive(
    calls: AgentLinkAsyncStub, token: str, chunks: AsyncIterator[Chunk], timeout_s: float
) -> int:
    """Send ``chunks`` as one archive; returns how many bytes the control plane took.

    Raises:
        grpc.aio.AioRpcError: it broke off.
    """

    async def messages() -> AsyncIterator[pb.ArchiveChunk]:
        async for chunk in chunks:
            yield pb.ArchiveChunk(
                transfer_id=chunk.transfer_id,
                offset=chunk.offset,
                data=chunk.data,
                total_bytes=chunk.total_bytes,
                last=chunk.last,
            )

    receipt = await calls.SendArchive(messages(), metadata=bearer(token), timeout=timeout_s)
    return receipt.received_bytes


async def fetch_archive(
    calls: AgentLinkAsyncStub, token: str, wanted: tuple[str, int], next_s: float
) -> AsyncGenerator[Chunk, None]:
    """The pieces of an uploaded archive; closing this stops the control plane.

    Args:
        wanted: id of the transfer, and the offset of its first byte.
        next_s: how long to wait for each piece.

    Raises:
        grpc.aio.AioRpcError: it was refused, or broke off. TimeoutError: nothing came.
    """
    request = pb.FetchArchiveRequest(transfer_id=wanted[0], offset=wanted[1])
    call = calls.FetchArchive(request, metadata=bearer(token))
    try:
        while True:
            async with asyncio.timeout(next_s):
                piece = await call.read()
            if not isinstance(piece, pb.ArchiveChunk):  # gRPC's end of the stream
                return
            yield Chunk(
                piece.transfer_id, piece.offset, piece.data, piece.total_bytes, last=piece.last
            )
    finally:
        call.cancel()


async def failure(call: ConnectCall) -> grpc.aio.AioRpcError:
    """Why ``call`` is over."""
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        details=await call.details(),
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries ``token``."""
    return (("authorization", f"Bearer {token}"),)


# -- from the agent ------------------------------------------------------------------------------


def hello(said: frames.Hello) -> pb.AgentFrame:
    """Who we are."""
    return pb.AgentFrame(
        hello=pb.Hello(
            cluster=said.cluster,
            node=said.node,
            agent_version=said.agent_version,
            boot_id=said.boot_id,
            facts=_facts(said.facts),
            public_key=said.public_key,
            signature=said.signature,
            last_sequence=said.last_sequence,
            jobs=[
                pb.JobBrief(job_id=brief.job_id, epoch=brief.epoch, state=brief.state)
                for brief in said.jobs
            ],
        )
    )


def status(now: facts.NodeStatus) -> pb.AgentFrame:
    """How the node is."""
    readiness = now.readiness
    return pb.AgentFrame(
        status=pb.NodeStatus(
            taken_at=now.taken_at,
            ready=readiness.ready,
            reasons=[
                pb.Reason(code=reason.code, message=reason.message, remedy=reason.remedy)
                for reason in readiness.reasons
            ],
            disk_total_bytes=now.vitals.disk_total_bytes,
            disk_free_bytes=now.vitals.disk_free_bytes,
            memory_total_bytes=now.vitals.memory_total_bytes,
            memory_available_bytes=now.vitals.memory_available_bytes,
            agent_memory_bytes=now.vitals.agent_memory_bytes,
            cpu_percent=now.vitals.cpu_percent,
            running_jobs=now.running_jobs,
            queued_jobs=now.queued_jobs,
            checkpoints=now.checkpoints,
            facts=_facts(readiness.facts) if now.with_facts else None,
        )
    )


def updates(news: Iterable[jobs.JobUpdate]) -> pb.AgentFrame:
    """What became of jobs."""
    return pb.AgentFrame(updates=pb.JobUpdates(updates=[_update(update) for update in news]))


def ack(up_to_sequence: int) -> pb.AgentFrame:
    """Control frames up to this one are done with."""
    return pb.AgentFrame(ack=pb.Ack(up_to_sequence=up_to_sequence))


def pod_found(request_id: str, pod: facts.FoundPod | None, error: str = "") -> pb.AgentFrame:
    """The answer to FindPod; ``error`` when the runtime did not answer."""
    found = pb.PodFound(error=error) if pod is None else _pod(pod)
    found.request_id = request_id
    return pb.AgentFrame(pod_found=found)


def pods_found(request_id: str, pods: Iterable[facts.FoundPod]) -> pb.AgentFrame:
    """The answer to FindPod for every pod."""
    every = [_pod(pod) for pod in pods]
    return pb.AgentFrame(pod_found=pb.PodFound(request_id=request_id, found=True, pods=every))


def _pod(pod: facts.FoundPod) -> pb.PodFound:
    return pb.PodFound(
        found=True,
        pod_uid=pod.uid,
        pod_name=pod.name,
        namespace=pod.namespace,
        ready=pod.ready,
        labels=dict(pod.labels),
        containers=[
            pb.PodContainer(
                name=container.name,
                container_id=container.container_id,
                state=container.state,
                image=container.image,
                image_ref=container.image_ref,
            )
            for container in pod.containers
        ],
    )


def archive_refused(transfer_id: str, code: str, message: str) -> pb.AgentFrame:
    """The archive that was asked for can't be sent."""
    return pb.AgentFrame(
        archive_refused=pb.ArchiveRefused(transfer_id=transfer_id, code=code, message=message)
    )


def restore_outcomes(outcomes: Iterable[Outcome]) -> pb.AgentFrame:
    """What became of containers that were to be restored."""
    return pb.AgentFrame(
        restore_outcomes=pb.RestoreOutcomes(
            outcomes=[
                pb.RestoreOutcome(
                    sequence=one.sequence,
                    container_id=one.container_id,
                    container_name=one.container_name,
                    namespace=one.namespace,
                    pod_name=one.pod_name,
                    pod_uid=one.pod_uid,
                    image=one.image,
                    action=one.action,
                    code=one.code,
                    reason=one.reason,
                    details=one.details,
                    mode=one.mode,
                    at=one.at,
                    prepare_ms=one.prepare_ms,
                    restore_ms=one.restore_ms,
                    start_ms=one.start_ms,
                )
                for one in outcomes
            ]
        )
    )


def _facts(known: facts.NodeFacts) -> pb.NodeFacts:
    return pb.NodeFacts(**asdict(known))


def _update(update: jobs.JobUpdate) -> pb.JobUpdate:
    result, error = update.result, update.error
    return pb.JobUpdate(
        job_id=update.job_id,
        epoch=update.epoch,
        sequence=update.sequence,
        state=update.state,
        progress=update.progress,
        message=update.message,
        task_name=update.task_name,
        bytes_done=update.bytes_done,
        bytes_total=update.bytes_total,
        result=_result(result) if result else None,
        error=pb.JobFailure(**asdict(error)) if error else None,
    )


def _result(result: jobs.JobResult) -> pb.JobResult:
    return pb.JobResult(
        checkpoints=[pb.CheckpointResult(**asdict(one)) for one in result.checkpoints],
        pushes=[pb.PushResult(**asdict(one)) for one in result.pushes],
        report_json=result.report_json,
    )


# -- from the control plane ----------------------------------------------------------------------


def control(frame: pb.ControlFrame) -> frames.Control:
    """What the control plane said."""
    reader = _READERS.get(frame.WhichOneof("frame") or "")
    return reader(frame) if reader else frames.Unknown(frame.sequence)


def _challenge(frame: pb.ControlFrame) -> frames.Control:
    return frames.Challenge(frame.challenge.nonce)


def _cancel(frame: pb.ControlFrame) -> frames.Control:
    said = frame.cancel
    return frames.CancelJob(frame.sequence, jobs.JobId(said.job_id), said.epoch)


def _open_archive(frame: pb.ControlFrame) -> frames.Control:
    said = frame.open_archive
    return frames.OpenArchive(
        frame.sequence,
        said.transfer_id,
        said.checkpoint_id,
        said.offset,
        said.length,
        said.image_digest,
    )


def _find_pod(frame: pb.ControlFrame) -> frames.Control:
    said = frame.find_pod
    return frames.FindPod(frame.sequence, said.request_id, said.namespace, said.pod_name, said.all)


def _welcome(said: pb.Welcome) -> frames.Welcome:
    return frames.Welcome(
        session=said.session,
        heartbeat_s=said.heartbeat_s,
        grant_key=said.grant_key,
        grants=_grants(said.grants),
        pull_access=_pull_access(said.credentials),
        up_to_sequence=said.up_to_sequence,
    )


def _grants(news: pb.Grants, sequence: int = 0) -> frames.GrantNews:
    return frames.GrantNews(
        replace=news.replace,
        grants=tuple(frames.SignedGrant(one.payload, one.signature) for one in news.grants),
        sequence=sequence,
    )


def _pull_access(news: pb.PullCredentials, sequence: int = 0) -> frames.PullAccessNews:
    return frames.PullAccessNews(
        replace=news.replace,
        registries=tuple(_registry(one) for one in news.registries),
        sequence=sequence,
    )


def _start(sequence: int, said: pb.StartJob) -> frames.StartJob:
    try:
        job = _job(said)
    except ValueError:
        problem = f"The agent on this node does not know jobs of the kind {said.kind[:40]!r}."
        return frames.StartJob(sequence, said.job_id, said.epoch, None, problem)
    return frames.StartJob(sequence, said.job_id, said.epoch, job)


def _job(said: pb.StartJob) -> jobs.Job:
    return jobs.Job(
        job_id=jobs.JobId(said.job_id),
        epoch=said.epoch,
        kind=jobs.JobKind(said.kind),
        checkpoint=_checkpoint(said.checkpoint) if said.HasField("checkpoint") else None,
        pushes=tuple(_push(push) for push in said.pushes),
        checkpoint_ids=tuple(jobs.CheckpointId(one) for one in said.checkpoint_ids),
        fetches=tuple(
            jobs.FetchSpec(
                image=fetch.image,
                checkpoint_id=fetch.checkpoint_id,
                registry=_registry(fetch.registry) if fetch.HasField("registry") else None,
            )
            for fetch in said.fetches
        ),
        analyze=_analyze(said.analyze) if said.HasField("analyze") else None,
        import_=_import(getattr(said, "import")) if said.HasField("import") else None,
        undo=said.undo,
    )


def _import(said: pb.ImportSpec) -> jobs.ImportSpec:
    return jobs.ImportSpec(
        checkpoint_id=jobs.CheckpointId(said.checkpoint_id),
        transfer_id=said.transfer_id,
        size_bytes=said.size_bytes,
        pod_name=said.pod_name,
        namespace=said.namespace,
        container_name=said.container_name,
        sha256=said.sha256,
        created_at=said.created_at,
    )


def _analyze(said: pb.AnalyzeSpec) -> jobs.AnalyzeSpec:
    return jobs.AnalyzeSpec(
        checkpoint_id=jobs.CheckpointId(said.checkpoint_id),
        analysis_type=said.analysis_type,
        other_checkpoint_id=said.other_checkpoint_id,
        with_values=said.with_values,
    )


def _checkpoint(said: pb.CheckpointSpec) -> jobs.CheckpointSpec:
    return jobs.CheckpointSpec(
        namespace=said.namespace,
        pod_name=said.pod_name,
        pod_uid=said.pod_uid,
        containers=_targets(said.containers),
        engine=said.engine or "auto",
        leave_running=said.leave_running,
        timeout_s=said.timeout_s or DUMP_TIMEOUT_S,
        strict=said.strict,
    )


def _targets(said: Sequence[pb.ContainerTarget]) -> tuple[jobs.ContainerTarget, ...]:
    return tuple(
        jobs.ContainerTarget(
            jobs.CheckpointId(one.checkpoint_id), one.container_name, one.container_id
        )
        for one in said
    )


def _push(said: pb.PushSpec) -> jobs.PushSpec:
    return jobs.PushSpec(
        checkpoint_id=jobs.CheckpointId(said.checkpoint_id),
        registry=_registry(said.registry),
        repository=said.repository,
        tag=said.tag,
        compression=said.compression or "zstd",
    )


def _registry(said: pb.RegistryAccess) -> jobs.RegistryAccess:
    return jobs.RegistryAccess(
        host=said.host,
        repository_prefix=said.repository_prefix,
        username=said.username,
        password=said.password,
        verify_ssl=said.verify_ssl,
        ca_pem=said.ca_pem,
        plain_http=said.plain_http,
    )


_READERS: Final[Mapping[str, Callable[[pb.ControlFrame], frames.Control]]] = {
    "challenge": _challenge,
    "welcome": lambda frame: _welcome(frame.welcome),
    "start": lambda frame: _start(frame.sequence, frame.start),
    "cancel": _cancel,
    "open_archive": _open_archive,
    "find_pod": _find_pod,
    "ack": lambda frame: frames.Delivered(frame.ack.up_to_sequence),
    "restores_stored": lambda frame: frames.OutcomesStored(frame.restores_stored.up_to_sequence),
    "grants": lambda frame: _grants(frame.grants, frame.sequence),
    "credentials": lambda frame: _pull_access(frame.credentials, frame.sequence),
}

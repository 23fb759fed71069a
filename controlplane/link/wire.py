"""Protobuf and gRPC: frames in and out. Nothing else in the control plane knows either.

A value that a newer agent sends and we don't know becomes ``Unknown`` or the nearest we have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from controlplane.errors import (
    Conflict,
    Denied,
    NotFound,
    Retryable,
    SnapError,
    Unauthenticated,
)
from controlplane.link import frames
from controlplane.store.records import (
    CheckpointResult,
    CheckpointSpec,
    Job,
    JobFailure,
    JobResult,
    JobState,
    JobUpdate,
    PushResult,
    RegistryAccess,
)
from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1 import link_pb2_grpc as pb_grpc

# what reading or writing a stream raises once the other side is gone
STREAM_OVER: Final = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
DETAILS_CHARS: Final = 8192

AgentFrame = pb.AgentFrame
ControlFrame = pb.ControlFrame
Chunk = pb.ArchiveChunk
Context = grpc.aio.ServicerContext[Any, Any]
_STATUSES: Final[Mapping[type[SnapError], grpc.StatusCode]] = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Retryable: grpc.StatusCode.UNAVAILABLE,
}


class Handlers(Protocol):
    """What the server does with calls (``link.server``)."""

    async def connect(
        self, token: str, said: AsyncIterator[AgentFrame], context: Context
    ) -> None: ...

    async def receive_archive(self, token: str, chunks: AsyncIterator[Chunk]) -> int: ...

    def send_archive(
        self, token: str, transfer_id: str, offset: int
    ) -> AsyncGenerator[frames.Chunk, None]: ...


class _Servicer(pb_grpc.AgentLinkServicer):
    """Turns gRPC calls into those of ``Handlers``, and errors of ours into statuses."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    # grpc.aio takes handlers that write by themselves as well as generators; the stubs know only these
    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        try:
            await self._handlers.connect(bearer(context), request_iterator, context)
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)

    async def SendArchive(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        try:
            token = bearer(context)
            received = await self._handlers.receive_archive(token, request_iterator)
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)
        return pb.ArchiveReceipt(received_bytes=received)

    async def FetchArchive(self, request: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        try:
            chunks = self._handlers.send_archive(
                bearer(context), request.transfer_id, request.offset
            )
            async with aclosing(chunks):
                async for piece in chunks:
                    await context.write(pb.ArchiveChunk(**_plain_chunk(piece)))
        except SnapError as refusal:
            await context.abort(status_of(refusal), refusal.message)


def serve(server: grpc.aio.Server, handlers: Handlers) -> None:
    """Let ``server`` answer agents by ``handlers``."""
    pb_grpc.add_AgentLinkServicer_to_server(_Servicer(handlers), server)


def status_of(error: SnapError) -> grpc.StatusCode:
    """The gRPC status of an error of ours."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return grpc.StatusCode.FAILED_PRECONDITION


def bearer(context: Context) -> str:
    """The token that the call came with.

    Raises:
        Unauthenticated: none.
    """
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
    raise Unauthenticated("The agent sent no join token (SNAP_AGENT_TOKEN).")


def signed_text(nonce: bytes, cluster: str, node: str) -> bytes:
    """What a joining agent signs."""
    return b"snap-join-v1\n%s\n%s\n%s" % (nonce, cluster.encode(), node.encode())


# -- what agents say


def said(frame: AgentFrame) -> frames.Said:
    """An agent's frame."""
    match frame.WhichOneof("frame"):
        case "hello":
            return _hello(frame.hello)
        case "status":
            facts = _facts(frame.status.facts) if frame.status.HasField("facts") else None
            return frames.StatusNews(_status(frame.status), facts)
        case "updates":
            return frames.JobNews(tuple(_update(u) for u in frame.updates.updates))
        case "ack":
            return frames.Taken(frame.ack.up_to_sequence)
        case "pod_found":
            return _pod(frame.pod_found)
        case "archive_refused":
            no = frame.archive_refused
            return frames.ArchiveRefused(no.transfer_id, no.code, no.message)
        case "restore_outcomes":
            told = frame.restore_outcomes.outcomes
            return frames.RestoreNews(tuple(_outcome(one) for one in told))
        case _:
            return frames.Unknown()


def _outcome(told: pb.RestoreOutcome) -> dict[str, Any]:
    """``details`` is a log's tail: no more of it than a person reads."""
    fields = {one.name: getattr(told, one.name) for one in told.DESCRIPTOR.fields}
    return fields | {"details": told.details[-DETAILS_CHARS:]}


def chunk(piece: Chunk) -> frames.Chunk:
    """A piece of an archive."""
    return frames.Chunk(
        piece.transfer_id, piece.offset, piece.data, piece.total_bytes, last=piece.last
    )


def _plain_chunk(piece: frames.Chunk) -> dict[str, Any]:
    return {
        "transfer_id": piece.transfer_id,
        "offset": piece.offset,
        "data": piece.data,
        "total_bytes": piece.total_bytes,
        "last": piece.last,
    }


def _hello(hello: pb.Hello) -> frames.Hello:
    return frames.Hello(
        cluster=hello.cluster,
        node=hello.node,
        agent_version=hello.agent_version,
        boot_id=hello.boot_id,
        facts=_facts(hello.facts),
        public_key=hello.public_key,
        signature=hello.signature,
        last_sequence=hello.last_sequence,
        jobs=tuple(
            frames.JobBrief(brief.job_id, brief.epoch, _state(brief.state)) for brief in hello.jobs
        ),
    )


def _facts(facts: pb.NodeFacts) -> frames.NodeFacts:
    lists = {"engines", "restore_drivers", "criu_features", "cpu_features"}
    plain: dict[str, Any] = {
        name: tuple(getattr(facts, name)) if name in lists else getattr(facts, name)
        for name in frames.NodeFacts.__struct_fields__
    }
    return frames.NodeFacts(**plain)


def _status(status: pb.NodeStatus) -> frames.NodeStatus:
    plain = {
        name: getattr(status, name)
        for name in frames.NodeStatus.__struct_fields__
        if name != "reasons"
    }
    reasons = (
        frames.Reason(code=r.code, message=r.message, remedy=r.remedy) for r in status.reasons
    )
    return frames.NodeStatus(**plain, reasons=tuple(reasons))


def _pod(found: pb.PodFound) -> frames.PodAnswer:
    return frames.PodAnswer(
        request_id=found.request_id,
        found=found.found,
        error=found.error,
        ready=found.ready,
        pod_uid=found.pod_uid,
        pod_name=found.pod_name,
        namespace=found.namespace,
        labels=dict(found.labels),
        containers=tuple(
            frames.PodContainer(c.name, c.container_id, c.state, c.image, c.image_ref)
            for c in found.containers
        ),
        pods=tuple(_pod(pod) for pod in found.pods),
    )


def _state(text: str) -> JobState:
    try:
        return JobState(text)
    except ValueError:
        return JobState.RUNNING  # a state of a newer agent: neither begun nor ended for us


def _update(update: pb.JobUpdate) -> JobUpdate:
    return JobUpdate(
        job_id=update.job_id,
        epoch=update.epoch,
        sequence=update.sequence,
        state=_state(update.state),
        progress=update.progress,
        message=update.message,
        task_name=update.task_name,
        bytes_done=update.bytes_done,
        bytes_total=update.bytes_total,
        result=_result(update.result) if update.HasField("result") else None,
        error=_failure(update.error) if update.HasField("error") else None,
    )


def _failure(error: pb.JobFailure) -> JobFailure:
    return JobFailure(code=error.code, message=error.message, details=error.details)


def _result(result: pb.JobResult) -> JobResult:
    checkpoint_fields = set(CheckpointResult.__struct_fields__) - {"warnings"}
    return JobResult(
        checkpoints=tuple(
            CheckpointResult(
                **{name: getattr(c, name) for name in checkpoint_fields},
                warnings=tuple(c.warnings),
            )
            for c in result.checkpoints
        ),
        pushes=tuple(
            PushResult(**{name: getattr(p, name) for name in PushResult.__struct_fields__})
            for p in result.pushes
        ),
        report_json=result.report_json,
    )


# -- what we say


def challenge(nonce: bytes) -> ControlFrame:
    """Sign this."""
    return pb.ControlFrame(challenge=pb.Challenge(nonce=nonce))


def welcome(
    session: str,
    heartbeat_s: float,
    up_to_sequence: int,
    trust: tuple[bytes, Sequence[frames.SignedGrant], Sequence[RegistryAccess]],
) -> ControlFrame:
    """The join succeeded. ``trust``: public key of grants, all grants, all pull credentials."""
    grant_key, granted, registries = trust
    return pb.ControlFrame(
        welcome=pb.Welcome(
            session=session,
            heartbeat_s=heartbeat_s,
            grant_key=grant_key,
            grants=_grants(granted, replace=True),
            credentials=_credentials(registries),
            up_to_sequence=up_to_sequence,
        )
    )


def start(sequence: int, job: Job, registries: Mapping[str, RegistryAccess]) -> ControlFrame:
    """Do this job. ``registries``: by the names that its pushes and fetches have."""
    spec = job.spec
    told = pb.StartJob(
        job_id=job.id,
        epoch=job.epoch,
        kind=job.kind,
        checkpoint_ids=spec.checkpoint_ids,
        undo=spec.undo,
        pushes=[
            pb.PushSpec(
                checkpoint_id=push.checkpoint_id,
                registry=_access(registries[push.registry]),
                repository=push.repository,
                tag=push.tag,
                compression=push.compression,
            )
            for push in spec.pushes
        ],
        fetches=[
            pb.FetchSpec(
                checkpoint_id=fetch.checkpoint_id,
                image=fetch.image,
                registry=_access(registries[fetch.registry]),
            )
            for fetch in spec.fetches
        ],
    )
    if spec.checkpoint is not None:
        told.checkpoint.CopyFrom(_checkpoint(spec.checkpoint))
    if spec.analyze is not None:
        told.analyze.CopyFrom(pb.AnalyzeSpec(**_plain(spec.analyze)))
    if spec.import_ is not None:
        getattr(told, "import").CopyFrom(pb.ImportSpec(**_plain(spec.import_)))
    return pb.ControlFrame(sequence=sequence, start=told)


def cancel(sequence: int, job_id: str, epoch: int) -> ControlFrame:
    """A job is not wanted any more."""
    return pb.ControlFrame(sequence=sequence, cancel=pb.CancelJob(job_id=job_id, epoch=epoch))


def find_pod(
    request_id: str, namespace: str, pod_name: str, *, every: bool = False
) -> ControlFrame:
    """Is this pod there? Or: which pods are?"""
    asked = pb.FindPod(request_id=request_id, namespace=namespace, pod_name=pod_name, all=every)
    return pb.ControlFrame(find_pod=asked)


def open_archive(
    transfer_id: str, checkpoint_id: str, offset: int, length: int, image_digest: str = ""
) -> ControlFrame:
    """Send an archive: a checkpoint's, or that of an image in the cache."""
    asked = pb.OpenArchive(
        transfer_id=transfer_id,
        checkpoint_id=checkpoint_id,
        offset=offset,
        length=length,
        image_digest=image_digest,
    )
    return pb.ControlFrame(open_archive=asked)


def stored(up_to_sequence: int) -> ControlFrame:
    """News up to this number are stored."""
    return pb.ControlFrame(ack=pb.Ack(up_to_sequence=up_to_sequence))


def restores_stored(up_to_sequence: int) -> ControlFrame:
    """Outcomes of restores up to this sequence are stored."""
    return pb.ControlFrame(restores_stored=pb.Ack(up_to_sequence=up_to_sequence))


def grants(granted: Sequence[frames.SignedGrant], *, replace: bool) -> ControlFrame:
    """Grants to keep; ``replace``: these are all."""
    return pb.ControlFrame(grants=_grants(granted, replace=replace))


def credentials(registries: Sequence[RegistryAccess]) -> ControlFrame:
    """All pull credentials."""
    return pb.ControlFrame(credentials=_credentials(registries))


def _grants(granted: Sequence[frames.SignedGrant], *, replace: bool) -> pb.Grants:
    signed = [pb.Grant(payload=g.payload, signature=g.signature) for g in granted]
    return pb.Grants(replace=replace, grants=signed)


def _credentials(registries: Sequence[RegistryAccess]) -> pb.PullCredentials:
    return pb.PullCredentials(replace=True, registries=[_access(r) for r in registries])


def _access(access: RegistryAccess) -> pb.RegistryAccess:
    return pb.RegistryAccess(**_plain(access))


def _checkpoint(spec: CheckpointSpec) -> pb.CheckpointSpec:
    plain = _plain(spec)
    targets = [pb.ContainerTarget(**_plain(target)) for target in plain.pop("containers")]
    return pb.CheckpointSpec(**plain, containers=targets)


def _plain(record: Any) -> dict[str, Any]:
    """The fields of a record whose names are the proto's."""
    return {name: getattr(record, name) for name in record.__struct_fields__}

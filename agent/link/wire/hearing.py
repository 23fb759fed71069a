"""Frames from the control plane. One that we don't know becomes ``Unknown``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.formats import jobs
from agent.link import frames
from snap_protos.snap.v1 import link_pb2 as pb

DUMP_TIMEOUT_S: Final = 120.0  # where the control plane says none


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
    "ack": lambda frame: frames.Delivered(frame.ack.up_to_sequence, frame.ack.news_every_s),
    "restores_stored": lambda frame: frames.OutcomesStored(frame.restores_stored.up_to_sequence),
    "grants": lambda frame: _grants(frame.grants, frame.sequence),
    "credentials": lambda frame: _pull_access(frame.credentials, frame.sequence),
}

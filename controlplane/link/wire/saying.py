"""Frames from the control plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.link import frames
from controlplane.store.records import (
    CheckpointSpec,
    Job,
    RegistryAccess,
)
from snap_protos.snap.v1 import link_pb2 as pb


def challenge(nonce: bytes) -> pb.ControlFrame:
    """Sign this."""
    return pb.ControlFrame(challenge=pb.Challenge(nonce=nonce))


def welcome(
    session: str,
    heartbeat_s: float,
    up_to_sequence: int,
    trust: tuple[bytes, Sequence[frames.SignedGrant], Sequence[RegistryAccess]],
) -> pb.ControlFrame:
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


def start(sequence: int, job: Job, registries: Mapping[str, RegistryAccess]) -> pb.ControlFrame:
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


def cancel(sequence: int, job_id: str, epoch: int) -> pb.ControlFrame:
    """A job is not wanted any more."""
    return pb.ControlFrame(sequence=sequence, cancel=pb.CancelJob(job_id=job_id, epoch=epoch))


def find_pod(
    request_id: str, namespace: str, pod_name: str, *, every: bool = False
) -> pb.ControlFrame:
    """Is this pod there? Or: which pods are?"""
    asked = pb.FindPod(request_id=request_id, namespace=namespace, pod_name=pod_name, all=every)
    return pb.ControlFrame(find_pod=asked)


def open_archive(
    transfer_id: str, checkpoint_id: str, offset: int, length: int, image_digest: str = ""
) -> pb.ControlFrame:
    """Send an archive: a checkpoint's, or that of an image in the cache."""
    asked = pb.OpenArchive(
        transfer_id=transfer_id,
        checkpoint_id=checkpoint_id,
        offset=offset,
        length=length,
        image_digest=image_digest,
    )
    return pb.ControlFrame(open_archive=asked)


def stored(up_to_sequence: int, news_every_s: float) -> pb.ControlFrame:
    """News up to this number are stored; no progress oftener than this (0: as the agent likes)."""
    return pb.ControlFrame(ack=pb.Ack(up_to_sequence=up_to_sequence, news_every_s=news_every_s))


def restores_stored(up_to_sequence: int) -> pb.ControlFrame:
    """Outcomes of restores up to this sequence are stored."""
    return pb.ControlFrame(restores_stored=pb.Ack(up_to_sequence=up_to_sequence))


def grants(granted: Sequence[frames.SignedGrant], *, replace: bool) -> pb.ControlFrame:
    """Grants to keep; ``replace``: these are all."""
    return pb.ControlFrame(grants=_grants(granted, replace=replace))


def credentials(registries: Sequence[RegistryAccess]) -> pb.ControlFrame:
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

"""What a pod, as the API server has it, says: its workload, how far its containers are, what SNAP is to do with it.

Everything here is a pure function of the pod's JSON, and takes any JSON: what has another shape than Kubernetes gives
counts as absent.

Source: the Kubernetes API reference, Pod v1; labels of Deployments, StatefulSets and DaemonSets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from controlplane.workload import Workload

PREFIX: Final = "snap.weaversoft.io/"
SNAP: Final = PREFIX + "snap"  # label: watchers act unless "false", hooks if "true"
MUTATED: Final = PREFIX + "mutated"  # label: a hook gave the pod a checkpoint to start from
RUNTIME_LABEL: Final = PREFIX + "runtime"  # of nodes that are prepared
RUNTIME_CLASS: Final = "snap"
CHECKPOINT: Final = PREFIX + "checkpoint"  # JSON {container: image@digest}
NOT_RESTORED: Final = PREFIX + "not-restored"  # why a pod is left to start cold
CONTAINERS: Final = PREFIX + "containers"  # which containers, with commas; absent: all
REQUEST: Final = PREFIX + "checkpoint-request"  # trigger annotation: each new value asks once
DELETE_LAST: Final = (
    PREFIX + "delete-last"
)  # "true": auto_delete_pod may take the last ready replica
WITH_VOLUMES: Final = (
    PREFIX + "restore-with-volumes"
)  # "true": hooks give a checkpoint to pods that may write to claimed volumes too
ALIKE: Final = (
    PREFIX + "replicas-alike"
)  # "true": a StatefulSet's pods may start from one another's checkpoints, as a Deployment's do
TEMPLATE_HASH: Final = "pod-template-hash"
REVISION_HASH: Final = "controller-revision-hash"
_MIRROR: Final = "kubernetes.io/config.mirror"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class ContainerSeen:
    """One container of a pod, from its spec and its status.

    Attributes:
        running_since: None unless it runs.
    """

    name: str
    image: str
    image_digest: str = ""
    running_since: datetime | None = None
    is_started: bool = False
    is_ready: bool = False
    restarts: int = 0
    has_startup_probe: bool = False

    @property
    def is_running(self) -> bool:
        """Whether it runs now."""
        return self.running_since is not None


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as the API server has it.

    Attributes:
        owner_kind, owner_name: as in ``Workload``.
        is_controlled: a controller makes another pod when this one is deleted.
        ready_since: None unless the pod is ready.
        gone_at: when its grace time ends; None unless it is being deleted.
        containers: without init, sidecar and ephemeral ones.
    """

    namespace: str
    name: str
    uid: str
    node: str
    phase: str
    owner_kind: str
    owner_name: str
    is_controlled: bool
    created_at: datetime | None
    ready_since: datetime | None
    gone_at: datetime | None
    containers: tuple[ContainerSeen, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_mirror(self) -> bool:
        """Whether it only mirrors a file on its node."""
        return _MIRROR in self.annotations

    @property
    def template_hash(self) -> str:
        """The label that its controller marked its template by."""
        return self.labels.get(TEMPLATE_HASH) or self.labels.get(REVISION_HASH) or ""

    @property
    def is_opted_in(self) -> bool:
        """Whether watchers may act on it."""
        return self.labels.get(SNAP, "false").lower() != "false"

    @property
    def is_one_of_its_kind(self) -> bool:
        """Whether it is who its name says: its memory knows that, and is good for nobody else."""
        return self.owner_kind == "StatefulSet" and self.annotations.get(ALIKE) != "true"

    def workload(self, cluster: str, container: ContainerSeen) -> Workload:
        """The workload that ``container`` is one of."""
        return Workload(
            cluster,
            self.namespace,
            self.owner_kind,
            self.name if self.is_one_of_its_kind else self.owner_name,
            container.name,
            self.template_hash,
            container.image_digest,
        )


def read_pod(pod: Mapping[str, Any], namespace: str = "") -> PodSeen:
    """What ``pod`` says.

    Args:
        namespace: of a pod that is being created and does not name it yet.
    """
    metadata, spec, status = (_object(pod.get(part)) for part in ("metadata", "spec", "status"))
    labels, annotations = _texts(metadata.get("labels")), _texts(metadata.get("annotations"))
    kind, owner, is_controlled = _owner(metadata, labels)
    return PodSeen(
        namespace=_text(metadata.get("namespace")) or namespace,
        name=_text(metadata.get("name")),
        uid=_text(metadata.get("uid")),
        node=_text(spec.get("nodeName")),
        phase=_text(status.get("phase")),
        owner_kind=kind,
        owner_name=owner,
        is_controlled=is_controlled,
        created_at=moment(metadata.get("creationTimestamp")),
        ready_since=_ready_since(status),
        gone_at=moment(metadata.get("deletionTimestamp")),  # the end of the grace time
        containers=tuple(_containers(spec, status)),
        labels=labels,
        annotations=annotations,
    )


def moment(value: object) -> datetime | None:
    """The time that an RFC 3339 text names; None: it names none."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.astimezone(UTC) if found and found.tzinfo else None


def chosen(pod: PodSeen) -> tuple[ContainerSeen, ...]:
    """The containers that SNAP is to act on: those that the pod's annotation names, else all."""
    names = {part.strip() for part in pod.annotations.get(CONTAINERS, "").split(",")} - {""}
    return tuple(c for c in pod.containers if not names or c.name in names)


def is_checkpoint_image(pod: PodSeen, container: ContainerSeen) -> bool:
    """Whether the container's own image is the checkpoint that its pod names (driver ``image``)."""
    try:
        named = msgspec.json.decode(pod.annotations.get(CHECKPOINT, "{}"), type=dict[str, str])
    except msgspec.MsgspecError:
        return False
    return bool(container.image) and named.get(container.name) == container.image


def ready_for(pod: PodSeen, now: datetime) -> timedelta | None:
    """How long the pod has been ready; None: it is not."""
    return None if pod.ready_since is None else now - pod.ready_since


def _owner(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[str, str, bool]:
    """Kind and name of what makes such pods, and whether that is a controller."""
    for owner in _objects(metadata.get("ownerReferences")):
        if owner.get("controller") is not True:
            continue
        kind, name = _text(owner.get("kind")), _text(owner.get("name"))
        suffix = "-" + labels.get(TEMPLATE_HASH, "")
        if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
            return "Deployment", name.removesuffix(suffix), True
        return kind, name, True
    # pods of one generateName are one workload, and have no name yet while they are being created
    name = _text(metadata.get("generateName")).rstrip("-") or _text(metadata.get("name"))
    return "Pod", name, False


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> list[ContainerSeen]:
    states = {_text(one.get("name")): one for one in _objects(status.get("containerStatuses"))}
    found = []
    for container in _objects(spec.get("containers")):
        name = _text(container.get("name"))
        state = states.get(name, {})
        running = _object(_object(state.get("state")).get("running"))
        digest = _DIGEST.search(_text(state.get("imageID")))
        restarts = state.get("restartCount")
        found.append(
            ContainerSeen(
                name=name,
                image=_text(container.get("image")),
                image_digest=digest[0] if digest else "",
                running_since=moment(running.get("startedAt")),
                is_started=state.get("started") is True,
                is_ready=state.get("ready") is True,
                restarts=restarts if isinstance(restarts, int) else 0,
                has_startup_probe=bool(container.get("startupProbe")),
            )
        )
    return found


def _ready_since(status: Mapping[str, Any]) -> datetime | None:
    for condition in _objects(status.get("conditions")):
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            return moment(condition.get("lastTransitionTime"))
    return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {k: v for k, v in _object(value).items() if isinstance(v, str)}

"""What requests about checkpoints carry, in both dialects."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from controlplane.api.fields import (
    ContainerName,
    Cursor,
    FileName,
    Id,
    Limit,
    Name,
    Namespace,
    NodeName,
    OptionalName,
    OptionalServerUrl,
    PodName,
    Repository,
    Seconds,
    Tag,
)
from controlplane.store.records import CheckpointStatus


class CheckpointRequest(msgspec.Struct):
    """Which container to checkpoint, and how.

    ``restore`` is how memory comes in pods that are restored from it and do not say themselves.
    """

    aliases: ClassVar[dict[str, str]] = {"cluster": "cluster_name"}
    example: ClassVar[dict[str, Any]] = {
        "pod_name": "test-app",
        "namespace": "default",
        "node_name": "worker-node-1",
        "container_name": "test-app",
        "cluster_name": "production-cluster",
    }
    pod_name: PodName
    namespace: Namespace
    node_name: NodeName | None = None
    container_name: ContainerName | None = None
    cluster_name: Name | None = None
    kube_api_address: OptionalServerUrl | None = None
    engine: Literal["auto", "runc", "kubelet", "cri"] = "auto"
    leave_running: bool = True
    timeout_s: Seconds | None = None
    strict: bool = False
    restore: Literal["eager", "lazy", "auto"] | None = None
    wait: bool = True


class CheckpointAndPush(CheckpointRequest):
    """Which container to checkpoint, and where its image goes."""

    example: ClassVar[dict[str, Any]] = {
        "namespace": "default",
        "cluster": "production-cluster",
        "registry": "nexus-registry",
        "image_name": "test-app-checkpoint",
        "tag": "latest",
    }
    registry: OptionalName | None = None
    checkpoint_config_name: OptionalName | None = None
    image_name: Repository | None = None
    tag: Tag | None = None
    compression: Literal["zstd", "gzip", "none"] = "zstd"


class CheckpointList(msgspec.Struct):
    """Which checkpoints."""

    aliases: ClassVar[dict[str, str]] = {"cluster": "cluster_name"}
    cluster_name: Name | None = None
    namespace: Namespace | None = None
    pod_name: PodName | None = None
    status: CheckpointStatus | None = None
    limit: Limit = 1000
    cursor: Cursor | None = None


class CheckpointWanted(msgspec.Struct):
    """Which checkpoint: its id or its file name."""

    id: FileName


class ArchiveWanted(msgspec.Struct):
    """Which archive."""

    pod_name: PodName
    filename: FileName


class DeleteRequest(msgspec.Struct):
    """Which checkpoint, and whether its images stay."""

    id: Id
    keep_image: bool = False
    wait: bool = True


class PinRequest(msgspec.Struct):
    """Which checkpoint, and whether it is kept."""

    id: Id
    pinned: bool = True


class ShareRequest(msgspec.Struct):
    """Which checkpoint, and which namespaces besides its own."""

    id: Id
    namespaces: Annotated[list[Namespace], Meta(min_length=1, max_length=256)]

"""``/config/clusterCache/*``: where each cluster's images go."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from controlplane.api.calls import Call, Done
from controlplane.api.fields import Name, Repository
from controlplane.api.routing import Section
from controlplane.clusters.configs import ClusterDraft
from controlplane.errors import Conflict
from controlplane.identity import Role
from controlplane.store.clusters import DEFAULT_REPO, ClusterRow

SECTION: Final = Section("Cluster caches", "Where each cluster's images go.")


class CachePut(msgspec.Struct):
    """To which registry config, and to which repository there, a cluster's images go."""

    aliases: ClassVar[dict[str, str]] = {"cluster_name": "cluster", "registry_name": "registry"}
    example: ClassVar[dict[str, Any]] = {
        "cluster": "production-cluster",
        "registry": "nexus-registry",
        "repo": "snap_images",
    }
    cluster: Name
    registry: Name
    repo: Repository | None = None


class CacheName(msgspec.Struct):
    """Of which cluster."""

    cluster: Name


class CacheDetails(msgspec.Struct, frozen=True):
    """Where a cluster's images go."""

    cluster: str
    registry: str
    repo: str


class CacheItem(msgspec.Struct, frozen=True):
    """One of a list."""

    cluster_cache_details: CacheDetails


class CacheList(msgspec.Struct, frozen=True):
    """Where the images of all clusters go."""

    cluster_caches: list[CacheItem]
    message: str = "Cluster caches listed successfully"
    success: bool = True


class CacheAnswer(msgspec.Struct, frozen=True):
    """Where a cluster's images go; null when nothing was chosen."""

    message: str
    cluster_cache_details: CacheDetails | None
    success: bool = True


@SECTION.route(
    "POST",
    "/config/clusterCache/create",
    takes=CachePut,
    gives=CacheAnswer,
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND", "REGISTRY_NOT_FOUND", "CONFLICT"),
    audited=True,
)
async def create_cache(call: Call, wanted: CachePut) -> CacheAnswer:
    """Choose where a cluster's images go."""
    call.subject = wanted.cluster
    if (await call.services.clusters.get(wanted.cluster)).registry:
        raise Conflict(f"Cluster {wanted.cluster} has a cluster cache already; update it.")
    return await _put(call, wanted, "created")


@SECTION.route(
    "PUT",
    "/config/clusterCache/update",
    takes=CachePut,
    gives=CacheAnswer,
    also_query=("cluster",),
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND", "REGISTRY_NOT_FOUND", "CONFLICT"),
    audited=True,
)
async def update_cache(call: Call, wanted: CachePut) -> CacheAnswer:
    """Choose anew where a cluster's images go."""
    call.subject = wanted.cluster
    return await _put(call, wanted, "updated")


@SECTION.route("GET", "/config/clusterCache/list", gives=CacheList)
async def list_caches(call: Call) -> CacheList:
    """Where the images of all clusters go."""
    known = await call.services.clusters.everything()
    return CacheList([CacheItem(_details(row)) for row in known if row.registry])


@SECTION.route(
    "GET",
    "/config/clusterCache/get/{cluster}",
    takes=CacheName,
    gives=CacheAnswer,
    errors=("CLUSTER_NOT_FOUND",),
)
async def get_cache(call: Call, wanted: CacheName) -> CacheAnswer:
    """Where a cluster's images go."""
    row = await call.services.clusters.get(wanted.cluster)
    if not row.registry:
        return CacheAnswer(f"Cluster {row.name} has no cluster cache", None)
    return CacheAnswer(f"Cluster cache of {row.name} found", _details(row))


@SECTION.route(
    "DELETE",
    "/config/clusterCache/delete",
    takes=CacheName,
    gives=Done,
    also_query=("cluster",),
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND", "CONFLICT"),
    audited=True,
)
async def delete_cache(call: Call, wanted: CacheName) -> Done:
    """Forget where a cluster's images go; fine if nothing was chosen."""
    call.subject = wanted.cluster
    await call.services.clusters.update(ClusterDraft(wanted.cluster, registry_name=""))
    return Done(f"Cluster cache of {wanted.cluster} deleted successfully")


async def _put(call: Call, wanted: CachePut, done: str) -> CacheAnswer:
    repo = wanted.repo or DEFAULT_REPO
    row = await call.services.clusters.update(
        ClusterDraft(wanted.cluster, registry_name=wanted.registry, repo=repo)
    )
    await call.services.registries_changed()
    return CacheAnswer(f"Cluster cache of {row.name} {done} successfully", _details(row))


def _details(row: ClusterRow) -> CacheDetails:
    return CacheDetails(row.name, row.registry, row.repo)

"""``/config/clusters/*`` (and ``/config/cluster/*``, the older server's): clusters, and tokens for their agents."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

import msgspec

from controlplane.api.calls import Call, Done
from controlplane.api.fields import (
    Document,
    Name,
    NewClusterName,
    OptionalName,
    Repository,
    ServerUrl,
    Token,
)
from controlplane.api.routing import Section
from controlplane.clusters.configs import PLACEHOLDER, ClusterDraft
from controlplane.identity import Role
from controlplane.store.clusters import ClusterRow

SECTION: Final = Section(
    "Cluster configuration", "Clusters, their credentials, their agents' tokens."
)
AuthType = Literal["kubeconfig", "token", "service_account", "service account", "in_cluster"]
_ALIASES: Final = {"kube_api_url": "api_server_url", "registry": "registry_name"}


class ClusterCreate(msgspec.Struct):
    """A new cluster config."""

    aliases: ClassVar[dict[str, str]] = _ALIASES
    example: ClassVar[dict[str, Any]] = {
        "name": "production-cluster",
        "api_server_url": "https://api.cluster.com:6443",
        "auth_type": "kubeconfig",
        "kubeconfig_content": "base64-encoded-kubeconfig",
        "registry_name": "nexus-registry",
    }
    name: NewClusterName
    api_server_url: ServerUrl | None = None
    auth_type: AuthType | None = None
    kubeconfig_content: Document | None = None
    token: Token | None = None
    verify_ssl: bool | None = None
    registry_name: OptionalName | None = None
    repo: Repository | None = None


class ClusterUpdate(ClusterCreate):
    """Changes to a cluster config; what is absent stays."""


class ClusterName(msgspec.Struct):
    """Which cluster."""

    name: Name


class ClusterDetails(msgspec.Struct, frozen=True):
    """A cluster config as the older server listed it."""

    kube_api_url: str
    token: str


class ClusterAnswer(msgspec.Struct, frozen=True):
    """A cluster config; the credential is a placeholder."""

    name: str
    cluster_config_details: ClusterDetails
    api_server_url: str
    kube_api_url: str
    auth_type: str
    token: str
    kubeconfig_content: str
    verify_ssl: bool
    registry_name: str
    registry: str
    repo: str
    created_at: str
    updated_at: str


class ClusterList(msgspec.Struct, frozen=True):
    """All cluster configs."""

    cluster_configs: list[ClusterAnswer]
    message: str = "Cluster configs listed successfully"
    success: bool = True


class ClusterDone(msgspec.Struct, frozen=True):
    """Something was done with a cluster config."""

    message: str
    cluster_config: ClusterAnswer
    success: bool = True


class AgentToken(msgspec.Struct, frozen=True):
    """What the agents of a cluster need to join: shown once."""

    token: str
    ca_pem: str
    expires_at: str
    cluster_name: str
    message: str = "Give it to the agents as SNAP_AGENT_TOKEN, and the CA as SNAP_CA_FILE"
    success: bool = True


@SECTION.route(
    "POST",
    "/config/clusters/create",
    "/config/cluster/create",
    takes=ClusterCreate,
    gives=ClusterDone,
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT", "REGISTRY_NOT_FOUND"),
    audited=True,
)
async def create_cluster(call: Call, wanted: ClusterCreate) -> ClusterDone:
    """Keep a cluster config.

    Kubeconfigs that run a command or name a file are refused.
    """
    call.subject = wanted.name
    row = await call.services.clusters.create(_draft(wanted))
    return ClusterDone(f"Cluster config file {row.name} created successfully", _answer(row))


@SECTION.route("GET", "/config/clusters/list", "/config/cluster/list", gives=ClusterList)
async def list_clusters(call: Call) -> ClusterList:
    """All cluster configs."""
    return ClusterList([_answer(row) for row in await call.services.clusters.everything()])


@SECTION.route(
    "PUT",
    "/config/clusters/update",
    "/config/cluster/update",
    takes=ClusterUpdate,
    gives=ClusterDone,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND", "CONFLICT", "REGISTRY_NOT_FOUND"),
    audited=True,
)
async def update_cluster(call: Call, wanted: ClusterUpdate) -> ClusterDone:
    """Change a cluster config.

    The placeholder as token keeps the stored one; another address or ``verify_ssl`` needs it again.
    """
    call.subject = wanted.name
    row = await call.services.clusters.update(_draft(wanted))
    return ClusterDone(f"Cluster config file {row.name} updated successfully", _answer(row))


@SECTION.route(
    "DELETE",
    "/config/clusters/delete",
    "/config/cluster/delete",
    takes=ClusterName,
    gives=Done,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND",),
    audited=True,
)
async def delete_cluster(call: Call, wanted: ClusterName) -> Done:
    """Remove a cluster config, its credential, and where its images go."""
    call.subject = wanted.name
    await call.services.clusters.delete(wanted.name)
    return Done(f"Cluster config file {wanted.name} and its cluster cache deleted successfully")


@SECTION.route(
    "POST",
    "/config/clusters/{name}/agent-token",
    "/config/cluster/{name}/agent-token",
    takes=ClusterName,
    gives=AgentToken,
    needs=Role.ADMINISTRATOR,
    errors=("CLUSTER_NOT_FOUND",),
)
async def make_agent_token(call: Call, wanted: ClusterName) -> AgentToken:
    """Make a token with which agents join a cluster."""
    call.subject = wanted.name
    cluster = await call.services.clusters.get(wanted.name)
    made = await call.services.join_tokens.issue(cluster.name, call.actor)
    return AgentToken(made.token, made.ca_pem, made.expires_at, cluster.name)


def _draft(wanted: ClusterCreate) -> ClusterDraft:
    return ClusterDraft(
        name=wanted.name,
        api_server_url=wanted.api_server_url,
        auth_type=wanted.auth_type and wanted.auth_type.replace(" ", "_"),
        kubeconfig_content=wanted.kubeconfig_content,
        token=wanted.token,
        verify_ssl=wanted.verify_ssl,
        registry_name=wanted.registry_name,
        repo=wanted.repo,
    )


def _answer(row: ClusterRow) -> ClusterAnswer:
    has_kubeconfig = row.auth_type == "kubeconfig"
    return ClusterAnswer(
        name=row.name,
        # clients of the older server want a token that is not empty, and send it back to keep it
        cluster_config_details=ClusterDetails(row.kube_api_url, PLACEHOLDER),
        api_server_url=row.kube_api_url,
        kube_api_url=row.kube_api_url,
        auth_type=row.auth_type,
        token=PLACEHOLDER,
        kubeconfig_content=PLACEHOLDER if has_kubeconfig else "",
        verify_ssl=row.verify_ssl,
        registry_name=row.registry,
        registry=row.registry,
        repo=row.repo,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

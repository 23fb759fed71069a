"""What watchers and hooks have in common in requests and answers: the cluster that they are told of."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call
from controlplane.api.fields import Document, OptionalName, OptionalServerUrl, Secret
from controlplane.clusters.configs import PLACEHOLDER
from controlplane.errors import NotFound

AuthWord = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_ -]*$(?!\n)")]


class SentDetails(msgspec.Struct):
    """A cluster's address and credential as the older server's clients send them."""

    kube_api_url: OptionalServerUrl | None = None
    token: Secret | None = None


class SentCluster(msgspec.Struct):
    """A cluster as clients send it. It is read for form only: what is stored of the cluster counts."""

    name: OptionalName | None = None
    api_server_url: OptionalServerUrl | None = None
    auth_type: AuthWord | None = None
    token: Secret | None = None
    kubeconfig_content: Document | None = None
    cluster_config_details: SentDetails | None = None


class ShownDetails(msgspec.Struct, frozen=True):
    """A cluster's address; its credential is a placeholder."""

    kube_api_url: str
    token: str


class ShownCluster(msgspec.Struct, frozen=True):
    """A cluster as it is stored, without its credential."""

    name: str
    api_server_url: str
    auth_type: str
    cluster_config_details: ShownDetails


async def shown_cluster(call: Call, name: str) -> ShownCluster:
    """The stored cluster ``name`` as clients may see it; empty when it was deleted meanwhile."""
    try:
        row = await call.services.clusters.get(name)
    except NotFound:
        return ShownCluster(name, "", "", ShownDetails("", PLACEHOLDER))
    details = ShownDetails(row.kube_api_url, PLACEHOLDER)
    return ShownCluster(row.name, row.kube_api_url, row.auth_type, details)

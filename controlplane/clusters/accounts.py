"""Agents' projected service-account tokens: a cluster is asked whether it gave one out, for whom, on which node.

Source: kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1;
kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin (what a bound token's review carries:
the node since 1.32, the pod since 1.21).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import jwt

from controlplane.clusters.tokens import AUDIENCE, JoinClaims, JoinRefusal
from controlplane.errors import (
    Denied,
    Failed,
    NotFound,
    SnapError,
    Unauthenticated,
)
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import PODS, TOKEN_REVIEWS, uid_of

_GOOD_FOR_S: Final = 300.0  # an answer is believed so long, for what comes beside a session
_KNOWN: Final = 10_000
_EXTRA: Final = "authentication.kubernetes.io/"
_PREFIX: Final = "system:serviceaccount:"


class Apis(Protocol):
    """The clusters' API servers (``reaching``)."""

    async def client(self, cluster: str) -> KubeClient: ...


class ServiceAccounts:
    """Has projected tokens reviewed by their clusters.

    Args:
        accepted: ``namespace/name`` of the accounts whose agents may join.
    """

    def __init__(self, apis: Apis, accepted: Sequence[str]) -> None:
        self._apis = apis
        self._accepted = frozenset(accepted)
        self._known: dict[bytes, tuple[JoinClaims, float]] = {}
        self._clusters: dict[str, None] = {}

    async def review(self, cluster: str, token: str) -> JoinClaims:
        """What ``cluster`` says of a token.

        Raises:
            Unauthenticated: it does not take it: expired, for another audience, or not its own.
            Denied: another account, or nobody knows of which node it is.
            Retryable: the cluster's API server is away.
            Failed: it can't be asked with what is stored about the cluster.
        """
        try:
            client = await self._apis.client(cluster)
        except NotFound as cause:
            raise Denied(
                f"There is no cluster {cluster[:64]} here; set it up first.",
                details=JoinRefusal.OTHER_CLUSTER,
            ) from cause
        status = await _asked(client, token)
        user = status.get("user") or {}
        namespace, _, name = str(user.get("username")).removeprefix(_PREFIX).partition(":")
        if f"{namespace}/{name}" not in self._accepted:
            raise Denied(
                f"Service account {namespace}/{name} may not join; SNAP_AGENT_ACCOUNTS names those that may.",
                details=JoinRefusal.ACCOUNT,
            )
        node = await _node_of(client, namespace, user.get("extra") or {})
        claims = JoinClaims(cluster, f"{namespace}/{name}", is_expired=False, node=node)
        self._remember(token, claims)
        return claims

    async def known(self, token: str) -> JoinClaims:
        """What a token says that came beside a session: one that was reviewed lately, or is taken now by
        a cluster whose agents join this way (the kubelet gives out a new one each hour).

        Raises:
            Unauthenticated: no such cluster takes it.
        """
        claims, until = self._known.get(_hash(token), (None, 0.0))
        if claims is not None and time.monotonic() < until:
            return claims
        for cluster in list(self._clusters):
            try:
                return await self.review(cluster, token)
            except SnapError:  # not its own, or it can't be asked now: another one may know it
                continue
        raise Unauthenticated(
            "No cluster takes the agent's token.", details=JoinRefusal.UNKNOWN_TOKEN
        )

    def _remember(self, token: str, claims: JoinClaims) -> None:
        self._clusters[claims.cluster] = None
        self._known.pop(_hash(token), None)
        while len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        self._known[_hash(token)] = (claims, time.monotonic() + _GOOD_FOR_S)


async def _asked(client: KubeClient, token: str) -> dict[str, Any]:
    """The status of a review that was passed."""
    review = {
        "apiVersion": TOKEN_REVIEWS.api,
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [AUDIENCE]},
    }
    try:
        answer = await client.create(TOKEN_REVIEWS.path(), review)
    except Failed as cause:
        raise Failed(
            f"The API server of cluster {client.cluster} does not review tokens for the control plane; "
            "its account needs create on tokenreviews.",
            code=cause.code,
            details=cause.details,
        ) from cause
    status: dict[str, Any] = answer.get("status") or {}
    if status.get("authenticated") and AUDIENCE in (status.get("audiences") or ()):
        return status
    raise _refused(client.cluster, token)


def _refused(cluster: str, token: str) -> Unauthenticated:
    """Why, as the token itself tells; it is known to be no good, so nothing hangs on that."""
    claims = unverified(token)
    audiences = claims.get("aud")
    wanted = AUDIENCE in (audiences if isinstance(audiences, list) else [audiences])
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires < time.time():
        message, reason = "The agent's token has expired.", JoinRefusal.EXPIRED
    elif not wanted:
        message = (
            f"The agent's token is for another audience; it must be projected with {AUDIENCE}."
        )
        reason = JoinRefusal.AUDIENCE
    else:
        message = f"Cluster {cluster} does not take the agent's token; its pod may be gone."
        reason = JoinRefusal.UNKNOWN_TOKEN
    return Unauthenticated(message, details=reason)


async def _node_of(client: KubeClient, namespace: str, extra: dict[str, Any]) -> str:
    """The node that a token is of: said by the review, else that of the token's pod."""
    node = _first(extra, "node-name")
    if node:
        return node
    pod, uid = _first(extra, "pod-name"), _first(extra, "pod-uid")
    if pod:
        try:
            found = await client.get(PODS.path(namespace, pod))
        except NotFound:
            found = {}
        node = str((found.get("spec") or {}).get("nodeName") or "")
        if node and uid_of(found) == uid:
            return node
    raise Denied(
        "The agent's token is of no pod on a node; it must be projected into the agent's own pod.",
        details=JoinRefusal.NO_NODE,
    )


def _first(extra: dict[str, Any], name: str) -> str:
    values = extra.get(_EXTRA + name) or [""]
    return str(values[0])


def unverified(token: str) -> dict[str, Any]:
    """What a token says of itself; nothing that can be relied on."""
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

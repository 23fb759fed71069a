"""Who may join: a good token of the cluster, and the key that the node registered at its first join."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controlplane.clusters.tokens import JoinClaims, JoinRefusal
from controlplane.errors import Denied, Unauthenticated
from controlplane.link import frames
from controlplane.link.wire import calls
from controlplane.store import agents
from controlplane.store.database import Store

_KEY_BYTES: Final = 32
_NAME_LENGTH: Final = 253  # of a node, as Kubernetes has it


async def admit(store: Store, claims: JoinClaims, nonce: bytes, hello: frames.Hello) -> None:
    """Let the agent in, or not; its key is registered if it is the node's first.

    An expired token admits a node whose key is registered: the key proves more than the token, and
    a node must find its way back after a day. Revoking the token shuts it out.

    Raises:
        Denied: another cluster, another node than the token's, another key, a wrong signature, no node name.
        Unauthenticated: the token has expired and the node is new.
    """
    if hello.cluster != claims.cluster:
        raise Denied(
            f"The join token is not for cluster {hello.cluster[:64]}.",
            details=JoinRefusal.OTHER_CLUSTER,
        )
    if not hello.node or len(hello.node) > _NAME_LENGTH or not hello.node.isprintable():
        raise Denied(
            "The agent has no proper node name (SNAP_NODE_NAME).", details=JoinRefusal.NO_NODE
        )
    if claims.node not in ("", hello.node):
        raise Denied(
            f"The agent's token is of node {claims.node}; it can't join as node {hello.node}.",
            details=JoinRefusal.OTHER_NODE,
        )
    _verify(nonce, hello)
    known = await store.read(lambda db: agents.identity(db, hello.cluster, hello.node))
    if known is None:
        if claims.is_expired:
            raise Unauthenticated(
                "The join token has expired; make a new one for new nodes.",
                details=JoinRefusal.EXPIRED,
            )
        known = await store.write(
            lambda db: agents.register(db, hello.cluster, hello.node, hello.public_key)
        )
    if known != hello.public_key:
        raise Denied(
            f"Node {hello.node} joined before with another key; if it was set up anew, an "
            "administrator must reset its identity.",
            details=JoinRefusal.KEY,
        )


def _verify(nonce: bytes, hello: frames.Hello) -> None:
    text = calls.signed_text(nonce, hello.cluster, hello.node)
    try:
        if len(hello.public_key) != _KEY_BYTES:
            raise ValueError("the key has another length")
        Ed25519PublicKey.from_public_bytes(hello.public_key).verify(hello.signature, text)
    except (InvalidSignature, ValueError) as cause:
        raise Denied(
            f"Node {hello.node} did not prove that it holds its key.", details=JoinRefusal.SIGNATURE
        ) from cause

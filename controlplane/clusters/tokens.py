"""Join tokens: signed, short-lived, of one cluster, revocable; they admit a node's first session."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import jwt
from sqlite_utils import Database

from controlplane.errors import Unauthenticated
from controlplane.identity import Actor
from controlplane.store import agents, audit, clock
from controlplane.store.agents import JoinTokenRow
from controlplane.store.database import Store
from controlplane.store.secrets import Sealer

AUDIENCE: Final = "snap-agent"
ISSUER: Final = "snap"
_KEY: Final = "system/join-token-key"
_ALGORITHM: Final = "HS256"
_REMEMBERED: Final = 1024  # tokens whose signature is not looked at again


class JoinRefusal(StrEnum):
    """Why an agent was not let in; ``details`` of the error, and what refusals are counted by."""

    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a reason
    REVOKED = "revoked"
    EXPIRED = "expired"
    AUDIENCE = "audience"
    ACCOUNT = "account"
    OTHER_CLUSTER = "other_cluster"
    OTHER_NODE = "other_node"
    NO_NODE = "no_node"
    KEY = "key"
    SIGNATURE = "signature"
    HANDSHAKE = "handshake"
    SECOND_SESSION = "second_session"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a cluster's agents need to join; ``ca_pem`` is whom they should trust."""

    token: str = field(repr=False)
    ca_pem: str
    expires_at: str
    token_id: str


@dataclass(frozen=True, slots=True)
class JoinClaims:
    """What a token says. An expired one admits only nodes that registered their key before.

    Attributes:
        node: the only node that it admits; empty for any of the cluster.
    """

    cluster: str
    token_id: str
    is_expired: bool
    node: str = ""


class JoinTokens:
    """Gives out and checks join tokens.

    Args:
        key: signs them; see ``open_key``.
        ca_pem: gives the CA that agents should trust now.
    """

    def __init__(self, store: Store, key: bytes, ttl_s: float, ca_pem: Callable[[], str]) -> None:
        self._store = store
        self._key = key
        self._ttl_s = ttl_s
        self._ca_pem = ca_pem
        self._known: dict[str, JoinTokenRow | None] = {}
        self._revision = -1
        self._verified: dict[bytes, tuple[str, str]] = {}

    async def issue(self, cluster: str, actor: Actor) -> JoinToken:
        """A new token for the agents of ``cluster`` (which exists)."""
        row = JoinTokenRow(
            token_id=clock.new_ulid(),
            cluster=cluster,
            created_by=actor.username,
            created_at=clock.now(),
            expires_at=clock.now(self._ttl_s),
        )
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": cluster,
            "jti": row.token_id,
            "exp": int(clock.parse(row.expires_at).timestamp()),
        }
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        entry = audit.deed(actor, "join token issued", f"cluster/{cluster}")

        def keep(db: Database) -> None:
            agents.insert_token(db, row)
            audit.write(db, entry)

        await self._store.write(keep)
        return JoinToken(token, self._ca_pem(), row.expires_at, row.token_id)

    async def check(self, token: str) -> JoinClaims:
        """What a token says, if it was given out here and is not revoked.

        Raises:
            Unauthenticated: it is not one of ours, or revoked; the message says which.
        """
        token_id, cluster = self._verified.get(_digest(token)) or self._verify(token)
        row = await self._row(token_id)
        if row is None or row.cluster != cluster:
            raise Unauthenticated(
                "The join token is not known here any more; make a new one.",
                details=JoinRefusal.UNKNOWN_TOKEN,
            )
        if row.revoked_at is not None:
            raise Unauthenticated(
                "The join token was revoked; make a new one.", details=JoinRefusal.REVOKED
            )
        return JoinClaims(row.cluster, token_id, is_expired=row.expires_at <= clock.now())

    def has_verified(self, token: str) -> bool:
        """Whether ``token`` was found to be signed here before; it may be revoked since."""
        return _digest(token) in self._verified

    def _verify(self, token: str) -> tuple[str, str]:
        """Id and cluster of a token that was signed here; remembered: a whole cluster joins with one.

        Raises:
            Unauthenticated: it is not one of ours.
        """
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "sub", "jti"], "verify_exp": False},
            )
        except jwt.InvalidTokenError as cause:
            message = "The join token is not one of this control plane."
            raise Unauthenticated(message, details=JoinRefusal.UNKNOWN_TOKEN) from cause
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        said = str(claims["jti"]), str(claims["sub"])
        self._verified[_digest(token)] = said
        return said

    async def _row(self, token_id: str) -> JoinTokenRow | None:
        """The row of a token; kept until any token's changes: a whole cluster joins with one."""
        revision = self._store.revisions.of("join_tokens")
        if revision != self._revision:
            self._known, self._revision = {}, revision
        if token_id not in self._known:
            row = await self._store.read(lambda db: agents.token(db, token_id))
            if revision == self._store.revisions.of("join_tokens"):
                self._known[token_id] = row
            return row
        return self._known[token_id]

    @staticmethod
    def revoke_all(db: Database, cluster: str) -> int:
        """Revoke every token of a cluster, in the caller's transaction; how many were good."""
        return agents.revoke_tokens(db, cluster)

    async def revoke(self, cluster: str, token_id: str, actor: Actor) -> bool:
        """Revoke one token; whether it was good until now."""
        entry = audit.deed(actor, "join token revoked", f"cluster/{cluster}")

        def run(db: Database) -> bool:
            audit.write(db, entry)
            return agents.revoke_tokens(db, cluster, token_id) > 0

        return await self._store.write(run)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


async def open_key(store: Store, sealer: Sealer) -> bytes:
    """The key that signs join tokens, made at the first start."""
    return await store.write(lambda db: sealer.get_or_make(db, _KEY))

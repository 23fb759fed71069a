"""Who may restore what: grants signed by the control plane, kept on the node for when it is away.

An annotation on a pod proves nothing (any user can set it), and any pusher can craft an image that CRIU would
restore as root. So a digest is restored only under a grant for the pod's own namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import durable
from agent.formats import digest
from agent.formats.digest import Digest

KEY_BYTES: Final = 32
MAX_GRANTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant as it travels: ``payload`` is JSON, ``signature`` Ed25519 over exactly these bytes."""

    payload: bytes
    signature: bytes


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of ``namespaces`` in ``cluster`` may restore ``digest`` until ``expires`` (RFC 3339; "" = no end).

    ``restore``: how memory comes where a pod does not say (``laziness``); "": the checkpoint does not say either.
    """

    digest: str
    cluster: str
    namespaces: tuple[str, ...]
    expires: str = ""
    restore: str = ""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    key: bytes = b""
    grants: tuple[tuple[bytes, bytes], ...] = ()


class Grants:
    """The grants this node holds, verified when they come in, kept with their key in a 0600 file.

    Methods that write block for as long as a small file takes.
    """

    def __init__(self, file: Path, cluster: str) -> None:
        self._file = file
        self._cluster = cluster
        self._key = b""
        self._signed: dict[bytes, SignedGrant] = {}
        self._by_digest: dict[Digest, list[Grant]] = {}
        self._load()

    def set_key(self, key: bytes) -> None:
        """Trust ``key`` (Ed25519 public, 32 bytes); grants that another key signed are dropped.

        Raises:
            ValueError: it is no such key.
        """
        if key == self._key:
            return
        if len(key) != KEY_BYTES:
            raise ValueError("the grant key must be an Ed25519 public key of 32 bytes")
        self._key = key
        self._reset(self._signed.values())
        self._save()

    def put(self, grants: Iterable[SignedGrant], *, replace: bool) -> int:
        """Take ``grants`` in (instead of all others when ``replace``); returns how many were refused.

        Refused are those with a wrong signature, another cluster, or a payload that is no grant.
        """
        offered = list(grants)[:MAX_GRANTS]
        kept = [] if replace else list(self._signed.values())
        refused = self._reset([*kept, *offered])
        self._save()
        return refused

    def allows(self, image: Digest, namespace: str, *, now: datetime | None = None) -> str:
        """Why pods of ``namespace`` may not restore ``image``; "" when they may."""
        held = self._by_digest.get(image, [])
        if not held:
            return "no grant for this checkpoint is on this node"
        moment = now or datetime.now(UTC)
        current = [grant for grant in held if _is_current(grant, moment)]
        if not current:
            return "the grant for this checkpoint has expired"
        if not any(namespace in grant.namespaces for grant in current):
            return f"the checkpoint is not shared with namespace {namespace}"
        return ""

    def mode(self, image: Digest, namespace: str) -> str:
        """How the memory of ``image`` comes to pods of ``namespace`` that do not say; "": nobody says."""
        found = [grant for grant in self._by_digest.get(image, []) if namespace in grant.namespaces]
        latest = max(
            found, key=lambda grant: grant.expires, default=None
        )  # renewed ones last longer
        return latest.restore if latest else ""

    def modes(self, image: Digest) -> frozenset[str]:
        """How the memory of ``image`` may come to pods that do not say, whatever their namespace."""
        return frozenset(grant.restore for grant in self._by_digest.get(image, []))

    def _reset(self, candidates: Iterable[SignedGrant]) -> int:
        """Hold the good ones of ``candidates``; a decision in another thread sees all or none of the change."""
        held: dict[bytes, SignedGrant] = {}
        by_digest: dict[Digest, list[Grant]] = {}
        refused = 0
        for signed in candidates:
            grant = self._verified(signed)
            if grant is None:
                refused += 1
            elif signed.payload not in held:
                held[signed.payload] = signed
                by_digest.setdefault(digest.parse(grant.digest), []).append(grant)
        self._signed, self._by_digest = held, by_digest
        return refused

    def _verified(self, signed: SignedGrant) -> Grant | None:
        if not self._key:
            return None
        try:
            Ed25519PublicKey.from_public_bytes(self._key).verify(signed.signature, signed.payload)
            grant = msgspec.json.decode(signed.payload, type=Grant)
        except (InvalidSignature, ValueError, msgspec.MsgspecError):
            return None
        if grant.cluster != self._cluster or not digest.is_digest(grant.digest):
            return None
        return grant

    def _load(self) -> None:
        try:
            stored = msgspec.json.decode(self._file.read_bytes(), type=_Stored)
        except (OSError, msgspec.MsgspecError):
            return  # none yet, or damaged: the control plane sends them again
        self._key = stored.key
        self._reset(SignedGrant(payload, signature) for payload, signature in stored.grants)

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stored = _Stored(
            key=self._key, grants=tuple((g.payload, g.signature) for g in self._signed.values())
        )
        durable.write(self._file, msgspec.json.encode(stored))


def _is_current(grant: Grant, moment: datetime) -> bool:
    if not grant.expires:
        return True
    try:
        end = datetime.fromisoformat(grant.expires)
    except ValueError:
        return False
    return moment < (end if end.tzinfo else end.replace(tzinfo=UTC))

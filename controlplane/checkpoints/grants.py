"""Grants: which images may be restored where, signed for the agents with this installation's key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlite_utils import Database

from controlplane.store import checkpoints, clock, grants
from controlplane.store.database import Store
from controlplane.store.grants import GrantRow
from controlplane.store.secrets import Sealer

_KEY: Final = "system/grant-key"


class Grants:
    """Signs, stores and renews grants.

    Args:
        ttl_s: how long one holds while agents can't be reached; renewed at half of it.
    """

    def __init__(self, store: Store, key: bytes, ttl_s: float) -> None:
        self._store = store
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self._ttl_s = ttl_s

    @property
    def public_key(self) -> bytes:
        """What agents check grants with, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def allow(
        self, db: Database, image: tuple[str, str, str], namespaces: Iterable[str], by: str
    ) -> GrantRow:
        """Let pods of ``namespaces`` restore an image, besides those that may already.

        Args:
            image: digest of its manifest, cluster, checkpoint id.
            by: who allows it.
        """
        digest, cluster, checkpoint_id = image
        before = grants.find(db, digest, cluster)
        held = namespaces_of(before) if before else ()
        row = self._signed(db, (digest, cluster), {*held, *namespaces}, (checkpoint_id, by))
        grants.put(db, row)
        return row

    async def of_cluster(self, cluster: str) -> list[GrantRow]:
        """Every grant of a cluster; those that have used up half of their time are renewed."""
        found = await self._store.read(lambda db: grants.of_cluster(db, cluster))
        half_gone = clock.now(self._ttl_s / 2)
        if all(grant.expires_at > half_gone for grant in found):
            return found
        return await self._store.write(lambda db: self._renew(db, cluster, half_gone))

    def _renew(self, db: Database, cluster: str, half_gone: str) -> list[GrantRow]:
        for old in grants.of_cluster(db, cluster):
            if old.expires_at <= half_gone:
                about = (old.checkpoint_id, old.created_by)
                fresh = self._signed(db, (old.digest, cluster), namespaces_of(old), about)
                grants.put(db, fresh)
        return grants.of_cluster(db, cluster)

    def _signed(
        self,
        db: Database,
        image: tuple[str, str],
        namespaces: Iterable[str],
        about: tuple[str, str],
    ) -> GrantRow:
        digest, cluster = image
        expires_at = clock.now(self._ttl_s)
        names = sorted(set(namespaces))
        checkpoint = checkpoints.find(db, about[0])
        mode = checkpoint.restore_mode if checkpoint else ""
        payload = payload_of(digest, cluster, names, expires_at, mode)
        return GrantRow(
            digest=digest,
            cluster=cluster,
            namespaces_json=msgspec.json.encode(names).decode(),
            checkpoint_id=about[0],
            created_by=about[1],
            created_at=clock.now(),
            expires_at=expires_at,
            payload=payload,
            signature=self._key.sign(payload),
        )


def payload_of(
    digest: str, cluster: str, namespaces: list[str], expires: str, mode: str = ""
) -> bytes:
    """What is signed: JSON with sorted keys and no white space, so equal grants are equal bytes.

    ``mode`` (``restore``) is how memory comes where a pod does not say; left out where it is empty.
    """
    content = {"digest": digest, "cluster": cluster, "namespaces": namespaces, "expires": expires}
    if mode:
        content["restore"] = mode
    return msgspec.json.encode(content, order="sorted")


def namespaces_of(grant: GrantRow) -> tuple[str, ...]:
    """The namespaces that a grant names."""
    return msgspec.json.decode(grant.namespaces_json, type=tuple[str, ...])


async def open_key(store: Store, sealer: Sealer) -> bytes:
    """The key that signs grants, made at the first start."""
    return await store.write(lambda db: sealer.get_or_make(db, _KEY))

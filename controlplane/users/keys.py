"""API keys that users leave here: they go in, are sealed, and never come out over REST."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlite_utils import Database

from controlplane.errors import SECRET_NOT_FOUND, Conflict, NotFound
from controlplane.store import keys, secrets
from controlplane.store.database import Store
from controlplane.store.keys import KeyRow
from controlplane.store.secrets import Sealer

PLACEHOLDER: Final = "********"


class ApiKeys:
    """The keys that were stored."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def everything(self) -> list[KeyRow]:
        """All, by name, without their values."""
        return await self._store.read(keys.everything)

    async def create(self, name: str, values: Mapping[str, str]) -> KeyRow:
        """Store a new one.

        Raises:
            Conflict: the name is taken, or a value is the placeholder.
        """

        def insert(db: Database) -> KeyRow:
            if keys.get(db, name) is not None:
                raise Conflict(f"There is a secret {name} already.")
            return self._put(db, name, values, {})

        return await self._store.write(insert)

    async def update(self, name: str, values: Mapping[str, str]) -> KeyRow:
        """Replace what is there; the placeholder as a value keeps the stored one.

        Raises:
            NotFound: there is no such secret.
            Conflict: the placeholder stands for a value that is not there.
        """

        def change(db: Database) -> KeyRow:
            if keys.get(db, name) is None:
                raise _unknown(name)
            kept = self._sealer.get(db, keys.secret_name(name)) or b"{}"
            return self._put(db, name, values, msgspec.json.decode(kept, type=dict[str, str]))

        return await self._store.write(change)

    async def delete(self, name: str) -> None:
        """Forget one.

        Raises:
            NotFound: there is no such secret.
        """

        def remove(db: Database) -> None:
            if not keys.delete(db, name):
                raise _unknown(name)
            secrets.delete(db, keys.secret_name(name))

        await self._store.write(remove)

    def _put(
        self, db: Database, name: str, values: Mapping[str, str], kept: Mapping[str, str]
    ) -> KeyRow:
        sealed = {}
        for key, value in values.items():
            if value == PLACEHOLDER and key not in kept:
                raise Conflict(
                    f"Field `api_key.{key}` is the placeholder, and there is no value that it could keep."
                )
            sealed[key] = kept[key] if value == PLACEHOLDER else value
        self._sealer.put(db, keys.secret_name(name), msgspec.json.encode(sealed))
        return keys.put(db, name, tuple(sealed))


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no secret {name}.", code=SECRET_NOT_FOUND)

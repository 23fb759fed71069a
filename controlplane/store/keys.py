"""API keys by name: the names of their parts are plain, the values are the secret ``api-key/<name>``."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlite_utils import Database

from controlplane.store import clock


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One named secret; ``keys`` are the names of what it holds."""

    name: str
    keys: tuple[str, ...]
    created_at: str = ""
    updated_at: str = ""


def secret_name(name: str) -> str:
    """Under which name its values are sealed."""
    return f"api-key/{name}"


def everything(db: Database) -> list[KeyRow]:
    """All, by name."""
    rows = db.execute("SELECT name, keys_json, created_at, updated_at FROM api_keys ORDER BY name")
    return [_row(*row) for row in rows]


def get(db: Database, name: str) -> KeyRow | None:
    """The one called ``name``."""
    query = "SELECT name, keys_json, created_at, updated_at FROM api_keys WHERE name = ?"
    row = db.execute(query, [name]).fetchone()
    return None if row is None else _row(*row)


def put(db: Database, name: str, keys: tuple[str, ...]) -> KeyRow:
    """Store which keys ``name`` holds."""
    now = clock.now()
    db.execute(
        "INSERT INTO api_keys (name, keys_json, created_at, updated_at) VALUES (?1, ?2, ?3, ?3) "
        "ON CONFLICT (name) DO UPDATE SET keys_json = excluded.keys_json, "
        "updated_at = excluded.updated_at",
        [name, msgspec.json.encode(keys).decode(), now],
    )
    return get(db, name) or KeyRow(name, keys)


def delete(db: Database, name: str) -> bool:
    """Forget the row ``name``; whether there was one. Its secret is deleted by the caller."""
    return db.execute("DELETE FROM api_keys WHERE name = ?", [name]).rowcount > 0


def _row(name: str, keys_json: str, created_at: str, updated_at: str) -> KeyRow:
    keys = msgspec.json.decode(keys_json, type=tuple[str, ...])
    return KeyRow(name, keys, created_at, updated_at)

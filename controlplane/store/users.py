"""Accounts, and the session tokens that were ended before their time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sqlite_utils import Database

from controlplane.identity import Role
from controlplane.store import clock

_COLUMNS = (
    "username, name, email, role, password_hash, namespaces_json, token_generation, "
    "created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class UserRow:
    """One account as it is stored.

    Attributes:
        token_generation: raised to end every login of the user.
    """

    username: str
    name: str
    email: str
    role: Role
    password_hash: str = field(repr=False)
    namespaces: tuple[str, ...] = ()
    token_generation: int = 0
    created_at: str = ""
    updated_at: str = ""


def everyone(db: Database) -> list[UserRow]:
    """All accounts, by name."""
    return [_row(r) for r in db.execute(f"SELECT {_COLUMNS} FROM users ORDER BY username")]  # noqa: S608


def get(db: Database, username: str) -> UserRow | None:
    """The account of ``username``."""
    query = f"SELECT {_COLUMNS} FROM users WHERE username = ?"  # noqa: S608 - constant columns
    found = db.execute(query, [username]).fetchone()
    return None if found is None else _row(found)


def put(db: Database, user: UserRow) -> UserRow:
    """Store ``user``, in place of the account of that name; returns it with its times."""
    now = clock.now()
    kept = (
        user.username,
        user.name,
        user.email,
        user.role.value,
        user.password_hash,
        json.dumps(user.namespaces),
        user.token_generation,
        user.created_at or now,
        now,
    )
    db.execute(
        f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (username) DO UPDATE SET name = excluded.name, email = excluded.email, "
        "role = excluded.role, password_hash = excluded.password_hash, "
        "namespaces_json = excluded.namespaces_json, "
        "token_generation = excluded.token_generation, updated_at = excluded.updated_at",
        kept,
    )
    return _row(kept)


def delete(db: Database, username: str) -> bool:
    """Forget the account of ``username``; whether there was one."""
    return db.execute("DELETE FROM users WHERE username = ?", [username]).rowcount > 0


def count_administrators(db: Database) -> int:
    """How many administrators there are."""
    query = "SELECT count(*) FROM users WHERE role = ?"
    return int(db.execute(query, [Role.ADMINISTRATOR.value]).fetchone()[0])


def revoke_token(db: Database, token_id: str, expires_at: str) -> None:
    """End one session; those that are over by themselves are forgotten."""
    db.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", [clock.now()])
    db.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", [token_id, expires_at])


def revoked_tokens(db: Database) -> dict[str, str]:
    """Sessions that were ended: token id to the time when it would have been over."""
    query = "SELECT token_id, expires_at FROM revoked_tokens WHERE expires_at >= ?"
    return dict(db.execute(query, [clock.now()]).fetchall())


def _row(values: tuple[object, ...]) -> UserRow:
    username, name, email, role, password, namespaces, generation, created, updated = values
    return UserRow(
        username=str(username),
        name=str(name),
        email=str(email),
        role=Role(str(role)),
        password_hash=str(password),
        namespaces=tuple(json.loads(str(namespaces))),
        token_generation=int(str(generation)),
        created_at=str(created),
        updated_at=str(updated),
    )

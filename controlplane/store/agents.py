"""Agents as they were last seen, the keys they proved to hold, and the tokens that admit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from controlplane.store import clock

_SEEN: Final = (
    "cluster, node, agent_version, boot_id, facts_json, status_json, connected_at, last_seen"
)
_TOKEN: Final = "token_id, cluster, created_by, created_at, expires_at, revoked_at"  # noqa: S105


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """A node's agent as it last reported; times are RFC 3339, empty when never."""

    cluster: str
    node: str
    agent_version: str = ""
    boot_id: str = ""
    facts_json: str = "{}"
    status_json: str = "{}"
    connected_at: str = ""
    last_seen: str = ""


@dataclass(frozen=True, slots=True)
class JoinTokenRow:
    """A join token that was given out; the token itself is not kept."""

    token_id: str
    cluster: str
    created_by: str
    created_at: str
    expires_at: str
    revoked_at: str | None = None


def everyone(db: Database) -> list[SeenAgent]:
    """All agents that ever joined."""
    rows = db.execute(f"SELECT {_SEEN} FROM agents ORDER BY cluster, node")  # noqa: S608
    return [SeenAgent(*row) for row in rows]


def put(db: Database, *seen: SeenAgent) -> None:
    """Store how agents were last seen; the sequence of their news is left alone."""
    db.conn.executemany(
        f"INSERT INTO agents ({_SEEN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - constants
        "ON CONFLICT (cluster, node) DO UPDATE SET agent_version = excluded.agent_version, "
        "boot_id = excluded.boot_id, facts_json = excluded.facts_json, "
        "status_json = excluded.status_json, connected_at = excluded.connected_at, "
        "last_seen = excluded.last_seen",
        [
            (
                *(agent.cluster, agent.node, agent.agent_version, agent.boot_id),
                *(agent.facts_json, agent.status_json, agent.connected_at, agent.last_seen),
            )
            for agent in seen
        ],
    )


def forget(db: Database, cluster: str, node: str = "") -> None:
    """Forget a node, or all of a cluster, with the keys registered for them."""
    for table in ("agents", "agent_identities"):
        db.execute(
            f"DELETE FROM {table} WHERE cluster = ?1 AND (?2 = '' OR node = ?2)",  # noqa: S608
            [cluster, node],
        )


def identity(db: Database, cluster: str, node: str) -> bytes | None:
    """The Ed25519 public key that the node registered at its first join."""
    row = db.execute(
        "SELECT public_key FROM agent_identities WHERE cluster = ? AND node = ?", [cluster, node]
    ).fetchone()
    return None if row is None else bytes(row[0])


def register(db: Database, cluster: str, node: str, public_key: bytes) -> bytes:
    """Register a node's key if it has none yet; the one that counts now."""
    db.execute(
        "INSERT INTO agent_identities (cluster, node, public_key, registered_at) "
        "VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [cluster, node, public_key, clock.now()],
    )
    return identity(db, cluster, node) or public_key


def reset_identity(db: Database, cluster: str, node: str) -> bool:
    """Let the node's next join register a new key; whether there was one."""
    query = "DELETE FROM agent_identities WHERE cluster = ? AND node = ?"
    return db.execute(query, [cluster, node]).rowcount > 0


def insert_token(db: Database, token: JoinTokenRow) -> None:
    """Keep that a join token was given out."""
    db.execute(
        f"INSERT INTO join_tokens ({_TOKEN}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        [
            *(token.token_id, token.cluster, token.created_by),
            *(token.created_at, token.expires_at, token.revoked_at),
        ],
    )


def token(db: Database, token_id: str) -> JoinTokenRow | None:
    """The join token of this id."""
    query = f"SELECT {_TOKEN} FROM join_tokens WHERE token_id = ?"  # noqa: S608 - constants
    row = db.execute(query, [token_id]).fetchone()
    return None if row is None else JoinTokenRow(*row)


def revoke_tokens(db: Database, cluster: str, token_id: str = "") -> int:
    """Revoke one join token of a cluster, or all; how many were still good."""
    return db.execute(
        "UPDATE join_tokens SET revoked_at = ?1 WHERE cluster = ?2 AND revoked_at IS NULL "
        "AND (?3 = '' OR token_id = ?3)",
        [clock.now(), cluster, token_id],
    ).rowcount

"""Who did what, and when: written with the deed, in its transaction where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from sqlite_utils import Database

from controlplane.identity import Actor
from controlplane.store import clock


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One deed. ``details`` never holds a secret; ``number`` and ``at`` are given by the store."""

    actor: str
    action: str
    subject: str = ""
    outcome: str = "ok"
    address: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    at: str = ""


def deed(
    actor: Actor, action: str, subject: str, details: Mapping[str, str] | None = None
) -> AuditEntry:
    """What ``actor`` did, to what, and from where."""
    return AuditEntry(actor.username, action, subject, address=actor.address, details=details or {})


def write(db: Database, entry: AuditEntry) -> None:
    """Keep ``entry`` with the present time."""
    db.execute(
        "INSERT INTO audit (at, actor, action, subject, outcome, address, details_json) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            *(clock.now(), entry.actor, entry.action, entry.subject, entry.outcome),
            *(entry.address, msgspec.json.encode(dict(entry.details)).decode()),
        ],
    )


def page(db: Database, limit: int, before: int | None = None) -> list[AuditEntry]:
    """Newest first, with numbers below ``before``."""
    rows = db.execute(
        "SELECT id, at, actor, action, subject, outcome, address, details_json FROM audit "
        "WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2",
        [before, limit],
    )
    return [_entry(*row) for row in rows]


def _entry(number: int, at: str, *rest: str) -> AuditEntry:
    actor, action, subject, outcome, address, details = rest
    found = msgspec.json.decode(details, type=dict[str, str])
    return AuditEntry(actor, action, subject, outcome, address, found, number, at)

"""Watchers as they were set, and what they decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from controlplane.store import clock

_COLUMNS: Final = (
    "name, cluster, scope, namespace, trigger_kind, auto_delete_pod, is_default, wanted, owner, "
    "started_at, created_at, updated_at, delay_s, schedule"
)
KEPT: Final = 10_000  # decisions, of all watchers together
_DECISION: Final = "id, watcher, at, namespace, pod_name, container_name, decision, reason, job_id"


@dataclass(frozen=True, slots=True)
class WatcherRow:
    """One watcher.

    Attributes:
        scope: ``cluster`` or ``namespace``.
        trigger: when a pod's checkpoint is taken.
        delay_s: triggers ready and running: for how long before.
        schedule: trigger schedule: five fields of cron, UTC.
        is_default: the one that is meant when only the cluster is named.
        wanted: it should run; kept over restarts.
        started_at: when it was last told to run, RFC 3339; empty for never.
    """

    name: str
    cluster: str
    scope: str = "cluster"
    namespace: str = ""
    trigger: str = "startupProbe"
    auto_delete_pod: bool = True
    is_default: bool = False
    wanted: bool = False
    owner: str = ""
    started_at: str = ""
    created_at: str = ""
    updated_at: str = ""
    delay_s: float = 0.0
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a watcher decided about a pod, and why."""

    number: int
    watcher: str
    at: str
    namespace: str
    pod_name: str
    container_name: str
    decision: str
    reason: str
    job_id: str


def everything(db: Database, cluster: str = "") -> list[WatcherRow]:
    """The watchers of one cluster or of all, by name."""
    query = f"SELECT {_COLUMNS} FROM watchers WHERE ?1 = '' OR cluster = ?1 ORDER BY name"  # noqa: S608
    return [_row(row) for row in db.execute(query, [cluster])]


def get(db: Database, name: str) -> WatcherRow | None:
    """The watcher called ``name``."""
    query = f"SELECT {_COLUMNS} FROM watchers WHERE name = ?"  # noqa: S608 - constant columns
    found = db.execute(query, [name]).fetchone()
    return None if found is None else _row(found)


def default_of(db: Database, cluster: str) -> WatcherRow | None:
    """The cluster's default watcher."""
    query = f"SELECT {_COLUMNS} FROM watchers WHERE cluster = ? AND is_default = 1"  # noqa: S608
    found = db.execute(query, [cluster]).fetchone()
    return None if found is None else _row(found)


def put(db: Database, row: WatcherRow) -> WatcherRow:
    """Store a watcher, in place of the one of that name."""
    now = clock.now()
    values = (
        *(row.name, row.cluster, row.scope, row.namespace, row.trigger, int(row.auto_delete_pod)),
        *(int(row.is_default), int(row.wanted), row.owner, row.started_at),
        *(row.created_at or now, now, row.delay_s, row.schedule),
    )
    db.execute(
        f"INSERT INTO watchers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (name) DO UPDATE SET cluster = excluded.cluster, scope = excluded.scope, "
        "namespace = excluded.namespace, trigger_kind = excluded.trigger_kind, "
        "auto_delete_pod = excluded.auto_delete_pod, is_default = excluded.is_default, "
        "wanted = excluded.wanted, started_at = excluded.started_at, "
        "delay_s = excluded.delay_s, schedule = excluded.schedule, "
        "updated_at = excluded.updated_at",
        values,
    )
    return _row(values)


def record(db: Database, decision: Decision) -> None:
    """Keep what a watcher decided (its number is given here); the oldest are forgotten."""
    names = ", ".join(name.strip() for name in _DECISION.split(",")[1:])
    cursor = db.execute(
        f"INSERT INTO watcher_decisions ({names}) "  # noqa: S608 - constants
        "SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM watchers WHERE name = ?1)",
        [
            *(decision.watcher, decision.at or clock.now(), decision.namespace),
            *(decision.pod_name, decision.container_name, decision.decision),
            *(decision.reason, decision.job_id),
        ],
    )
    db.execute(
        "DELETE FROM watcher_decisions WHERE watcher = ? AND id <= ?",
        [decision.watcher, (cursor.lastrowid or 0) - KEPT],
    )


def delete(db: Database, name: str) -> bool:
    """Forget the watcher ``name`` and its decisions; whether there was one."""
    return db.execute("DELETE FROM watchers WHERE name = ?", [name]).rowcount > 0


def decisions(db: Database, name: str, limit: int, before: int | None) -> list[Decision]:
    """What ``name`` decided, newest first, with numbers below ``before``."""
    rows = db.execute(
        f"SELECT {_DECISION} FROM watcher_decisions WHERE watcher = ?1 "  # noqa: S608 - constants
        "AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        [name, before, limit],
    )
    return [Decision(*row) for row in rows]


def _row(values: tuple[object, ...]) -> WatcherRow:
    name, cluster, scope, namespace, trigger, deletes, default, wanted, owner, *rest = values
    started, created, updated, delay, schedule = rest
    return WatcherRow(
        name=str(name),
        cluster=str(cluster),
        scope=str(scope),
        namespace=str(namespace),
        trigger=str(trigger),
        auto_delete_pod=bool(deletes),
        is_default=bool(default),
        wanted=bool(wanted),
        owner=str(owner),
        started_at=str(started),
        created_at=str(created),
        updated_at=str(updated),
        delay_s=float(str(delay)),
        schedule=str(schedule),
    )
